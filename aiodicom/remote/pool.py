"""Associations with one peer: opened when needed, lent to one operation at a time, kept for a while for the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from aiodicom.association import Association
from aiodicom.client import AssociationRequest
from aiodicom.errors import AssociationAborted, AssociationRejected, DicomNetworkError, LocalProtocolError
from aiodicom.invoking import Turns
from aiodicom.operation import Responses
from aiodicom.remote.pacing import ONE
from aiodicom.upper_layer.presentation import ProposedContext

TRANSIENT: Final = 2
"""The result of an A-ASSOCIATE-RJ that may be another one later (PS3.8 Table 9-21)."""

_log: Final = logging.getLogger("aiodicom.remote")


@dataclass(eq=False, slots=True)
class _Member:
    """An association of the pool.

    Args:
        association: itself.
        contexts: what was proposed.
        window: how many operations we offered to have outstanding; 1 is no offer.
        expiry: ends it when it has been idle for long enough.
    """

    association: Association
    contexts: frozenset[ProposedContext]
    window: int
    expiry: asyncio.TimerHandle | None = None


class Lease:
    """An association that is lent, until it is given back.

    Attributes:
        association: itself.
        is_fresh: whether it was opened for this; else it was idle, and its end may be on its way to us.
        responses: to what is asked on it, where a task takes them one by one: that task holds it.
    """

    def __init__(self, pool: Pool, member: _Member, *, is_fresh: bool) -> None:
        self._pool: Pool | None = pool
        self._member = member
        self.association = member.association
        self.is_fresh = is_fresh
        self._since = asyncio.get_running_loop().time()
        self._sent_before = member.association.bytes_sent
        self.responses: Responses | None = None

    @property
    def holder(self) -> asyncio.Task[object] | None:
        """The task that works with it, as far as that is known."""
        return None if self.responses is None else self.responses.holder

    @property
    def age(self) -> float:
        """For how long it has been lent, in seconds."""
        return asyncio.get_running_loop().time() - self._since

    @property
    def bytes_sent(self) -> int:
        """How many bytes have gone out meanwhile."""
        return self.association.bytes_sent - self._sent_before

    def has(self, needed: ProposedContext) -> bool:
        """Whether a context was proposed on it."""
        return needed in self._member.contexts

    def give_back(self) -> None:
        """Give it back; to do so again changes nothing. One with something outstanding on it is aborted."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.take_back(self, self._member)


class Pool:
    """The associations with one peer.

    Args:
        request: asks for an association with those contexts and that operations window; 1 is not to be offered.
        maximum: how many there may be at a time, idle ones included.
        keep_alive: how long an idle one is kept, in seconds.

    Attributes:
        was_reached: whether the peer ever took an association of ours.
        accepts: of each abstract syntax that was proposed, whether the peer accepted it.
        refuses_window: whether the peer drops the connection, or rejects us, where an operations window is offered.
        best: the setting that served it best so far.
    """

    def __init__(
        self,
        request: Callable[[Sequence[ProposedContext], int], AssociationRequest],
        *,
        maximum: int,
        keep_alive: float,
    ) -> None:
        if maximum < 1:
            raise LocalProtocolError(f"a pool of {maximum} associations has none: say 1 or more")
        self.maximum = maximum
        self.was_reached = False
        self.accepts: dict[str, bool] = {}
        self.refuses_window = False
        self.best = ONE
        self._request = request
        self._keep_alive = keep_alive
        self._turns = Turns(maximum)
        self._count = 0  # those that are being opened or closed are among them
        self._idle: list[_Member] = []  # the last one was used last
        self._leases: set[Lease] = set()
        self._blocked: set[asyncio.Task[Any] | None] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def count(self) -> int:
        """How many associations there are."""
        return self._count

    @property
    def idle(self) -> int:
        """How many of them are idle."""
        return len(self._idle)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits until one is given back."""
        return self._turns.are_awaited

    # Lending.

    async def take(
        self, needed: Iterable[ProposedContext], proposal: Sequence[ProposedContext], *, window: int = 1
    ) -> Lease:
        """Borrow an association: an idle one, or a new one; in the order in which it was asked for.

        Args:
            needed: what must have been proposed on it.
            proposal: what to propose on a new one; what is needed is among it.
            window: how many operations are to be outstanding on it, if the peer agrees.

        Raises:
            LocalProtocolError: the pool is closed; or those who hold its associations all wait for another one.
            AssociationError: there is none to be had; OperationTimeout, likewise.
        """
        self.raise_if_closed()
        with self.blocked():
            await self._turns.take()
        try:
            member = self._fitting(frozenset(needed), window)
            is_fresh = member is None
            if member is None:
                await self._make_room()
                member = await self._open(proposal, window)
            if self._is_closed:
                self._close(member)
                self.raise_if_closed()
        except BaseException:
            self._turns.give_back()
            raise
        lease = Lease(self, member, is_fresh=is_fresh)
        self._leases.add(lease)
        return lease

    def take_back(self, lease: Lease, member: _Member) -> None:
        """Take an association back (for the lease)."""
        self._leases.discard(lease)
        if not member.association.is_open:
            self._count -= 1
        elif not member.association.is_quiet or self._is_closed or self._keep_alive <= 0:
            self._close(member)
        else:
            self._idle.append(member)
            loop = asyncio.get_running_loop()
            member.expiry = loop.call_later(self._keep_alive, self._close, member)
        self._turns.give_back()

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Enter where a task is to wait for an association, or for what others do with one.

        Raises:
            LocalProtocolError: that would be for ever, since those who hold the associations all wait.
        """
        me = asyncio.current_task()
        self._blocked.add(me)
        try:
            if len(self._leases) == self.maximum and all(lease.holder in self._blocked for lease in self._leases):
                raise LocalProtocolError(
                    f"whoever holds one of the {self.maximum} associations waits for another one: end an operation first, "
                    "or allow more (maximum_associations)"
                )
            yield
        finally:
            self._blocked.discard(me)

    def _fitting(self, needed: frozenset[ProposedContext], window: int) -> _Member | None:
        """Take out an idle association that will do."""
        for member in tuple(self._idle):
            if not member.association.is_open:  # the peer had enough of it
                self._forget(member)
        for member in reversed(self._idle):
            if needed <= member.contexts and (window <= member.window or self.refuses_window):
                self._take_out(member)
                return member
        return None

    async def _make_room(self) -> None:
        while self._count >= self.maximum:
            if self._idle:
                self._close(self._idle[0])
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    # Opening and closing.

    async def _open(self, proposal: Sequence[ProposedContext], window: int) -> _Member:
        offered = 1 if self.refuses_window else window
        self._count += 1
        try:
            try:
                association = await self._offer(proposal, offered)
            except AssociationRejected as rejection:
                if rejection.result != TRANSIENT or not self._idle:
                    raise
                await self._end_idle()  # they may be what the peer has too much of
                association = await self._offer(proposal, offered)
        except BaseException:
            self._count -= 1
            raise
        self.was_reached = True
        accepted = {context.abstract_syntax for context in association.contexts}
        self.accepts.update((context.abstract_syntax, context.abstract_syntax in accepted) for context in proposal)
        return _Member(association, frozenset(proposal), offered)

    async def _offer(self, proposal: Sequence[ProposedContext], window: int) -> Association:
        try:
            return await self._request(proposal, window)
        except (AssociationAborted, AssociationRejected) as error:
            if window == 1 or (isinstance(error, AssociationRejected) and error.result == TRANSIENT):
                raise
            _log.info(
                "an association with an operations window offered (PS3.7 §D.3.3.3): %s; trying without it", str(error)
            )
        association = await self._request(proposal, 1)
        self.refuses_window = True
        return association

    async def _end_idle(self) -> None:
        await asyncio.wait([self._close(member) for member in tuple(self._idle)])

    def _close(self, member: _Member) -> asyncio.Task[None]:
        """End an association in order where it is idle, in a task that nobody needs to wait for."""
        self._take_out(member)
        return self.spawn(self._end(member))

    async def _end(self, member: _Member) -> None:
        association = member.association
        try:
            with suppress(DicomNetworkError):  # it is over, and that was the purpose
                await (association.release() if association.is_quiet else association.abort())
        finally:
            self._count -= 1

    def _take_out(self, member: _Member) -> None:
        """Let an idle association be idle no more."""
        if member.expiry is not None:
            member.expiry.cancel()
            member.expiry = None
            self._idle.remove(member)

    def _forget(self, member: _Member) -> None:
        self._take_out(member)
        self._count -= 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something be done that nobody needs to wait for but the end of the pool."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The end.

    async def aclose(self) -> None:
        """End all associations: idle ones in order, those that are lent at once."""
        self._is_closed = True
        self._turns.refuse(_closed())
        for member in tuple(self._idle):
            self._close(member)
        for lease in self._leases:
            self.spawn(lease.association.abort())
        while self._tasks:
            await asyncio.wait(self._tasks)

    def raise_if_closed(self) -> None:
        """Raise LocalProtocolError if it is closed."""
        if self._is_closed:
            raise _closed()


def _closed() -> LocalProtocolError:
    return LocalProtocolError("this RemoteAE is closed: make another one")
