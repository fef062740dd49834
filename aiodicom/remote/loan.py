"""The association of one operation, borrowed from the pool when the operation begins, and given back when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from aiodicom.association import Association
from aiodicom.errors import AssociationAborted, AssociationReleased, LocalProtocolError
from aiodicom.limits import Limits
from aiodicom.operation import Responses
from aiodicom.remote.pool import Lease, Pool
from aiodicom.scoped import Intake
from aiodicom.upper_layer.presentation import ProposedContext
from aiodicom.workers import InThread

FIRST_SIGN: Final = 1.0
"""How long the peer has to say that an idle association was over when we asked something on it, in seconds."""


class Loan:
    """What a scope takes for its association, though there is one only from its beginning on: a `Requestor`.

    Args:
        pool: where it is borrowed.
        intake: performs the sub-operations of the operation, where it has some.
    """

    def __init__(self, pool: Pool, intake: Intake | None = None) -> None:
        self._pool = pool
        self._intake = intake
        self._lease: Lease | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._endings: list[Callable[[], None]] = []

    @property
    def association(self) -> Association:
        """The association that it has come to."""
        if self._lease is None:
            raise LocalProtocolError("the operation has not begun")
        return self._lease.association

    @property
    def in_thread(self) -> InThread:
        """Runs what blocks."""
        return self.association.in_thread

    @property
    def limits(self) -> Limits:
        """How much is taken of the peer."""
        return self.association.limits

    def syntax_of(self, context_id: int) -> str:
        """Return the transfer syntax of an accepted presentation context."""
        return self.association.terms.contexts[context_id].transfer_syntax

    async def begin(
        self,
        needed: Iterable[ProposedContext],
        proposal: Sequence[ProposedContext],
        ask: Callable[[Association], Awaitable[Responses]],
    ) -> Responses:
        """Borrow an association, and ask something on it; again on another one where that one was idle, and is over.

        Args:
            needed: see `Pool.take`.
            proposal: likewise.
            ask: sends the request.

        Raises:
            AssociationError: there is none to be had, or it ended; OperationTimeout, likewise.
        """
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._lease = lease = await self._pool.take(needed, proposal)
                try:
                    lease.responses = responses = await ask(lease.association)
                    responses.holder = asyncio.current_task()
                    if not lease.is_fresh:
                        await _first_sign(responses)
                except (AssociationAborted, AssociationReleased):
                    if lease.is_fresh:
                        raise
                    lease.give_back()
                else:
                    return responses
        except BaseException:
            self.end()
            raise

    def on_end(self, ending: Callable[[], None]) -> None:
        """Let something be done when the operation is over."""
        self._endings.append(ending)

    def end(self) -> None:
        """Do what is to be done then, and give the association back; to do so again changes nothing."""
        while self._endings:
            self._endings.pop()()
        if self._lease is not None:
            self._lease.give_back()

    # What the scope asks.

    async def leave(self, responses: Responses) -> None:
        """Cancel the operation and wait for its end, or abort."""
        try:
            await self.association.leave(responses)
        finally:
            self.end()

    def abandon(self, responses: Responses) -> None:
        """Do the same for an operation that nobody refers to any more, from whichever thread finds that out."""
        responses.holder = None
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed, and with it the association
            self._loop.call_soon_threadsafe(self._leave_soon, responses)

    def finish(self, responses: Responses) -> None:  # noqa: ARG002 - the one there is
        """Give the association back."""
        self.end()

    def touch(self, responses: Responses) -> None:
        """Let the deadline of the next response begin anew."""
        self.association.touch(responses)

    def _leave_soon(self, responses: Responses) -> None:
        if self._intake is not None:
            self._intake.leave()
        self._pool.spawn(self.leave(responses))


async def _first_sign(responses: Responses) -> None:
    """Wait until something has come, or for a moment.

    Raises:
        AssociationError: the association is over.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_SIGN):
            while not responses.is_ready:
                await responses.wait()
                if not responses.is_over:
                    return
