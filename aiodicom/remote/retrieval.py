"""Instances from a peer, by C-GET where it has that, else by C-MOVE to a server of ours (PS3.4 §C.4.2, §C.4.3)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from aiodicom.association import Association
from aiodicom.dimse.commands import CMoveRQ, Request, Response
from aiodicom.dimse.status import Category
from aiodicom.errors import (
    AssociationAborted,
    AssociationReleased,
    DimseError,
    InvalidInstance,
    NoAcceptedContext,
    OperationTimeout,
)
from aiodicom.inquiring import Inquiry, inquire
from aiodicom.invoking import Turns
from aiodicom.operation import Conclusion, Operation, Responses
from aiodicom.planning import contexts_to_retrieve, default_contexts
from aiodicom.query import Level, unique_key
from aiodicom.remote.loan import Loan
from aiodicom.remote.pool import Pool
from aiodicom.remote.reception import Expected, Landing
from aiodicom.scoped import Instances, Intake, Matches
from aiodicom.upper_layer.presentation import ProposedContext

if TYPE_CHECKING:
    from pydicom import Dataset

Way: TypeAlias = Literal["get", "move"]

LATE: Final = 5.0
"""How long sub-operations are waited for that the final response of a C-MOVE counts, and that have not come, in seconds."""

_PATIENCE: Final = 10.0  # for the question which SOP classes there are, in seconds
_ENOUGH: Final = 256  # matches of it
_UNANSWERED: Final = (
    AssociationAborted,
    AssociationReleased,
    DimseError,
    InvalidInstance,
    NoAcceptedContext,
    OperationTimeout,
)

_UNABLE_TO_PERFORM: Final = 0xA702  # PS3.4 Table C.4-2

_log: Final = logging.getLogger("aiodicom.remote")


class Arrivals(Intake):
    """The intake of a retrieval, at which can be waited behind the final response of a C-MOVE, too."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    async def __call__(self, operation: Operation) -> int | Conclusion:
        """Offer an instance, and return what its sub-operation is answered with."""
        self._changed.set()
        return await super().__call__(operation)

    def leave(self, reason: BaseException | None = None) -> None:
        """Take nothing more, see `Intake.leave`."""
        self._changed.set()
        super().leave(reason)

    async def wait(self) -> None:
        """Wait until another one comes, or it is left."""
        self._changed.clear()
        await self._changed.wait()


class Retrieval(Instances):
    """The instances of `RemoteAE.retrieve`, as they arrive: `async for instance in retrieval`.

    It is used as those of a C-GET are. Where they come by C-MOVE, each is there when its C-STORE has arrived at our server,
    and that is answered when the next one is asked for, so that a slow consumer holds the peer back.
    """

    def __init__(
        self,
        loan: Loan,
        begin: Callable[[], Awaitable[Responses]],
        total_timeout: float | None,
        arrivals: Arrivals,
        idle_timeout: float | None,
    ) -> None:
        super().__init__(loan, begin, total_timeout, loan.syntax_of, arrivals)
        self._loan = loan
        self._arrivals = arrivals
        self._idle_timeout = idle_timeout
        self._last: Response | None = None  # the final one of a C-MOVE, while instances may come that it counts

    @property
    def is_move(self) -> bool:
        """Whether the instances come by C-MOVE; False before it has begun, too."""
        return self._responses is not None and isinstance(self._responses.request, CMoveRQ)

    async def _look(self, responses: Responses) -> None:
        if not self.is_move:
            await super()._look(responses)
        elif self._last is not None:
            await self._look_for_late_ones(self._last)
        elif responses.is_ready:
            received = await responses.next()
            if self._count(responses, received):
                self._last = received.response
        else:
            await self._wait(responses)

    async def _wait(self, responses: Responses) -> None:
        """Wait until something comes, on whichever association: it is that which may not take too long."""
        try:
            async with asyncio.timeout(self._idle_timeout):
                await responses.wait()
        except TimeoutError:
            await self._loan.association.abort()
            advice = "neither a response to our C-MOVE nor an instance came; the association was aborted"
            raise OperationTimeout("response", self._idle_timeout or 0, advice) from None

    async def _look_for_late_ones(self, final: Response) -> None:
        """Wait for instances that have not come, though the final response counts them; conclude where there are none."""
        counted = self.progress.completed + self.progress.warning
        was_performed = final.status.category in (Category.SUCCESS, Category.WARNING)
        if self._arrivals.arrived >= counted or not was_performed or self._arrivals.is_left:
            self._conclude(final)
        try:
            async with asyncio.timeout(LATE):
                await self._arrivals.wait()
        except TimeoutError:
            self._final = final
            missing = counted - self._arrivals.arrived
            advice = "they did not come: does the peer have our AE title with our address and port?"
            words = f"{missing} of {counted} instances are missing that it says it moved to us; {advice}"
            raise DimseError(_UNABLE_TO_PERFORM, words) from None


@dataclass(eq=False, slots=True)
class _Turn:
    turns: Turns
    is_ours: bool = True

    def give_back(self) -> None:
        if self.is_ours:
            self.is_ours = False
            self.turns.give_back()


class Retriever:
    """Begins retrievals from one peer.

    Args:
        pool: associations with it.
        landing: where it may move to.
        ae_title: its own.
        calling_ae_title: ours.
        prefers: which way is tried first.
    """

    def __init__(self, pool: Pool, landing: Landing, *, ae_title: str, calling_ae_title: str, prefers: Way) -> None:
        self._pool = pool
        self._landing = landing
        self._ae_title = ae_title
        self._calling_ae_title = calling_ae_title
        self._prefers = prefers
        # As long as the peer names no originators, its sub-operations can only be those of the one C-MOVE that is open.
        self._moves = Turns(1)
        self._names_originators = False

    async def begin(
        self, loan: Loan, get: Inquiry, move: Inquiry | None, idle_timeout: float | None, intake: Intake
    ) -> Responses:
        """Send a C-GET, or a C-MOVE to ourselves, where that can be: whichever the peer has.

        Raises:
            NoAcceptedContext: it has neither.
            AssociationError: there is no association to be had; OperationTimeout, likewise.
        """
        ways: list[Callable[[], Awaitable[Responses]]] = [partial(self.begin_get, loan, get, idle_timeout, intake)]
        if move is not None:
            ways.insert(self._prefers == "get", partial(self._begin_move, loan, move, intake))
        try:
            return await ways[0]()
        except NoAcceptedContext as error:
            if move is None:
                raise _no_way(error) from None
            # In words: whoever keeps the record would keep with the exception all that its traceback holds.
            _log.info("%s; trying the other way to retrieve", str(error))
        return await ways[1]()

    async def begin_get(self, loan: Loan, inquiry: Inquiry, idle_timeout: float | None, intake: Intake) -> Responses:
        """Send a C-GET, in contexts for the SOP classes that will come, as far as the peer tells them; raises likewise."""
        self._see_that_it_is_accepted(inquiry)
        classes = await self._sop_classes(inquiry)
        self._see_that_it_is_accepted(inquiry)  # by now we may know better
        contexts = contexts_to_retrieve(classes, models=(inquiry.model.name,))

        async def ask(association: Association) -> Responses:
            return await association.ask_to_get(inquiry, idle_timeout, intake)

        try:
            return await loan.begin(contexts, contexts, ask)
        except NoAcceptedContext:
            self._pool.accepts[inquiry.sop_class_uid] = False
            raise

    async def _begin_move(self, loan: Loan, inquiry: Inquiry, intake: Intake) -> Responses:
        reception = await self._landing.open()
        await self._moves.take()
        turn = _Turn(self._moves)
        loan.on_end(turn.give_back)

        def named() -> None:
            self._names_originators = True
            turn.give_back()

        if self._names_originators:
            turn.give_back()
        expected = Expected(self._calling_ae_title, self._ae_title, intake, self._names_originators, named)
        loan.on_end(partial(reception.forget, expected))

        def make(**_: object) -> Request:
            reception.expect(expected)
            return inquiry.make_request(message_id=expected.message_id)

        async def ask(association: Association) -> Responses:
            # Its idle time is that of its instances as well, so that `Retrieval` looks after it.
            responses = await association.ask(replace(inquiry, make_request=make), math.inf)
            intake.responses = responses
            return responses

        return await loan.begin(*contexts_to_ask(inquiry), ask)

    def _see_that_it_is_accepted(self, inquiry: Inquiry) -> None:
        if self._pool.accepts.get(inquiry.sop_class_uid) is False:
            proposed = ProposedContext(inquiry.sop_class_uid).transfer_syntaxes
            raise NoAcceptedContext(inquiry.sop_class_uid, None, proposed=[proposed])

    async def _sop_classes(self, inquiry: Inquiry) -> tuple[str, ...]:
        """Ask which SOP classes a retrieval comes to; return none where that cannot be asked, or is not answered."""
        question = _question(inquiry)
        if question is None:
            return ()
        classes: dict[str, None] = {}
        try:
            async with find(self._pool, question, total_timeout=_PATIENCE) as matches:
                count = 0
                async for match in matches:
                    found = match.get("SOPClassesInStudy") or match.get("SOPClassUID")
                    count += 1
                    if not found or count > _ENOUGH:
                        return ()
                    classes.update(dict.fromkeys([found] if isinstance(found, str) else found))
        except _UNANSWERED as error:
            _log.debug("which SOP classes there are is not known: %s", str(error))
            return ()
        return tuple(map(str, classes))


def _no_way(error: NoAcceptedContext) -> NoAcceptedContext:
    advice = "the peer has no C-GET; for C-MOVE to ourselves say listener= or listen_port=, where it knows us"
    return NoAcceptedContext(error.sop_class, None, proposed=error.proposed, advice=advice)


def find(
    pool: Pool, inquiry: Inquiry, *, idle_timeout: float | None = None, total_timeout: float | None = None
) -> Matches:
    """Return the matches of a C-FIND on an association of the pool."""
    loan = Loan(pool)
    return Matches(loan, partial(begin, loan, inquiry, idle_timeout), total_timeout, loan.syntax_of)


async def begin(loan: Loan, inquiry: Inquiry, idle_timeout: float | None) -> Responses:
    """Send a request that needs nothing but its own presentation context."""

    async def ask(association: Association) -> Responses:
        return await association.ask(inquiry, idle_timeout)

    return await loan.begin(*contexts_to_ask(inquiry), ask)


def contexts_to_ask(inquiry: Inquiry) -> tuple[Sequence[ProposedContext], Sequence[ProposedContext]]:
    """Return the context that an inquiry needs, and what to propose on a new association: what may be asked next, too."""
    needed = ProposedContext(inquiry.sop_class_uid)
    usual = default_contexts()
    return (needed,), usual if needed in usual else (*usual, needed)


def _question(inquiry: Inquiry) -> Inquiry | None:
    """Return the C-FIND that tells the SOP classes of a retrieval, if there is one that asks for little."""
    identifier, model = inquiry.identifier, inquiry.model
    at = Level(identifier.QueryRetrieveLevel)
    level = at if at is Level.IMAGE else Level.STUDY
    above = model.levels[: model.levels.index(level) + 1] if level in model.levels else ()
    keys: dict[str, Any] = {unique_key(each): identifier.get(unique_key(each)) for each in above}
    if not model.find or not keys.get(unique_key(Level.STUDY if at is Level.SERIES else at)):
        return None
    keys["SOPClassUID" if level is Level.IMAGE else "SOPClassesInStudy"] = None
    return inquire("find", _exactly(keys), level=level, model=model.name, keys={})


def _exactly(keys: dict[str, Any]) -> Dataset:
    from pydicom import Dataset

    dataset = Dataset()
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset
