"""C-FIND, C-GET and C-MOVE from the requestor's side: async iterators that can be left at any time (PS3.7 §9.1.2-4).

Each is an async iterator and an async context manager. Leaving it early, by `break`, by an exception or by cancellation,
sends C-CANCEL and discards what still comes, within a bound; beyond that the association is aborted. Without `async with`
that happens when the iterator is no longer referred to: where a `break` leaves the loop, that is at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Protocol, Self, TypeVar

from anyio import CancelScope

from aiodicom.dimse.commands import Response, SuboperationsRSP
from aiodicom.dimse.status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, Category, Status
from aiodicom.errors import DimseError, InvalidInstance, LocalProtocolError, OperationTimeout
from aiodicom.identifiers import decode_identifier, pick_value
from aiodicom.limits import Limits
from aiodicom.operation import Conclusion, Operation, ReceivedResponse, Responses
from aiodicom.workers import InThread, Turn

if TYPE_CHECKING:
    from pydicom import Dataset

T = TypeVar("T")
R = TypeVar("R")

_FAILED_SOP_INSTANCE_UID_LIST: Final = 0x00080058

# PS3.4 §B.2.3, Refused: what a sub-operation is answered with that nobody takes any more.
_LEFT: Final = Conclusion(0xA700, "The retrieval was left")


class Requestor(Protocol):
    """What a scope needs of its association."""

    @property
    def in_thread(self) -> InThread:
        """Runs what blocks."""

    @property
    def limits(self) -> Limits:
        """How much is taken of the peer."""

    async def leave(self, responses: Responses) -> None:
        """Cancel an operation and wait for its end, or abort."""

    def abandon(self, responses: Responses) -> None:
        """Do the same without being waited for."""

    def finish(self, responses: Responses) -> None:
        """Take note that an operation is over, and that all that came of it was taken."""


class _Scope(Generic[T]):
    """What the three have in common."""

    def __init__(
        self, association: Requestor, begin: Callable[[], Awaitable[Responses]], total_timeout: float | None
    ) -> None:
        self._association = association
        self._begin = begin
        self._total_timeout = total_timeout
        self._deadline: float | None = None
        self._responses: Responses | None = None
        self._is_busy = False  # a task is taking the next one
        self._is_over = False  # nothing more is given: all of it was, or it was left

    def __repr__(self) -> str:
        state = "new" if self._responses is None else repr(self.status) if self.response else "open"
        return f"<{type(self).__name__} {'left' if self._is_over and not self.response else state}>"

    # How it ended.

    @property
    def response(self) -> Response | None:
        """The final response; None before it has come."""
        return None if self._responses is None else self._responses.final

    @property
    def status(self) -> Status | None:
        """The status of the final response; None before that has come."""
        return None if self.response is None else self.response.status

    @property
    def comment(self) -> str:
        """The Error Comment of the final response; empty where there is none."""
        return "" if self.response is None else self.response.error_comment or ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        responses = self._responses
        return self._is_over or (responses is not None and responses.is_over and not responses.is_ready)

    # Iterating.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next one.

        Raises:
            DimseError: the operation ended with a failure, or was cancelled by the peer.
            OperationTimeout: nothing came in time, and the association was aborted; or all of it took longer than
                `total_timeout`, and the operation was cancelled.
            AssociationError: the association ended.
            InvalidInstance: a match of a C-FIND cannot be decoded; the next one can be asked for.
        """
        return await self._within(self._step)

    async def _within(self, work: Callable[[], Awaitable[R]]) -> R:
        """Do the work, for one task at a time."""
        if self._is_over:
            raise StopAsyncIteration
        if self._is_busy:
            raise LocalProtocolError("two tasks iterate over one operation: give each an operation of its own")
        self._is_busy = True
        try:
            return await (work() if self._total_timeout is None else self._in_time(work, self._total_timeout))
        except Exception:  # StopAsyncIteration is one, cancellation is none
            if self.is_over:
                self._finish()
            raise
        finally:
            self._is_busy = False

    async def _in_time(self, work: Callable[[], Awaitable[R]], total_timeout: float) -> R:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + total_timeout
        try:
            async with asyncio.timeout_at(self._deadline):
                return await work()
        except TimeoutError as error:
            if isinstance(error, OperationTimeout):
                raise
            await self.aclose()
            raise OperationTimeout("total", total_timeout, "the operation was cancelled") from None

    async def _step(self) -> T:
        return await self._next(await self._begun())

    async def _begun(self) -> Responses:
        if self._responses is None:
            await self._start()
        assert self._responses is not None
        self._responses.holder = asyncio.current_task()
        return self._responses

    async def _start(self) -> None:
        try:
            self._responses = await self._begin()
        except BaseException:
            self._is_over = True
            raise
        if self._is_over:  # another task has left it meanwhile
            await self._association.leave(self._responses)
            raise StopAsyncIteration

    async def _next(self, responses: Responses) -> T:
        raise NotImplementedError

    def _conclude(self, response: Response) -> NoReturn:
        """Take the final response.

        Raises:
            DimseError: it is a failure, or a cancel that we did not ask for.
            StopAsyncIteration: it is neither.
        """
        self._finish()
        if response.status.category in (Category.FAILURE, Category.CANCEL):
            raise DimseError(response.status, response.error_comment or response.status.description)
        raise StopAsyncIteration

    def _finish(self) -> None:
        if self._responses is not None and not self._is_over:
            self._is_over = True
            self._association.finish(self._responses)

    # Leaving.

    async def aclose(self) -> None:
        """Leave it: cancel the operation unless it is over, and discard what has come and what still comes."""
        await self._leave(None)

    async def _leave(self, _reason: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._responses is not None:
            with CancelScope(shield=True):
                await self._association.leave(self._responses)

    async def __aenter__(self) -> Self:
        """Begin the operation."""
        if self._responses is None:
            with suppress(StopAsyncIteration):  # it was left before it had begun
                await self._within(self._begun)
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Leave it, see `aclose`."""
        await self._leave(error)

    def __del__(self) -> None:
        if self._responses is not None and not self._is_over:
            self._association.abandon(self._responses)


class Matches(_Scope["Dataset"]):
    """The matches of a C-FIND: `async for match in matches`, each a pydicom Dataset whose values are parsed when asked for.

    Made by `Association.c_find`. Afterwards `status`, `comment` and `response` tell how it ended.
    """

    def __init__(
        self,
        association: Requestor,
        begin: Callable[[], Awaitable[Responses]],
        total_timeout: float | None,
        syntax_of: Callable[[int], str],
    ) -> None:
        super().__init__(association, begin, total_timeout)
        self._syntax_of = syntax_of
        self._turn = Turn()

    async def all(self) -> list[Dataset]:
        """Return all the matches there are.

        Raises:
            DimseError: as the iteration does, and so OperationTimeout and AssociationError.
        """
        async with self:
            return [match async for match in self]

    async def encoded(self) -> AsyncIterator[bytes]:
        """Yield the matches as they came, encoded in the transfer syntax of the context: for whoever hands them on.

        Raises:
            DimseError: as the iteration does, and so OperationTimeout and AssociationError.
        """
        while True:
            try:
                data = await self._within(self._step_encoded)
            except StopAsyncIteration:
                return
            yield data

    async def _next(self, responses: Responses) -> Dataset:
        data, syntax = await self._next_encoded(responses), self._syntax_of(responses.context_id)
        return await decode_identifier(data, syntax, self._association.limits, self._association.in_thread)

    async def _step_encoded(self) -> bytes:
        return await self._next_encoded(await self._begun())

    async def _next_encoded(self, responses: Responses) -> bytes:
        if self._turn.is_over:
            await self._turn.next()
        received = await responses.next()
        if received.response.status.category is not Category.PENDING:
            self._conclude(received.response)
        return received.data_set or b""


@dataclass(frozen=True, slots=True)
class Progress:
    """The sub-operations of a C-GET or C-MOVE, as a response of the peer counts them (PS3.4 §C.4.2.1.6-9).

    Args:
        remaining: how many are to come; None where the response does not say.
        completed: how many went well.
        failed: how many did not.
        warning: how many went well, with a warning.
    """

    remaining: int | None = None
    completed: int = 0
    failed: int = 0
    warning: int = 0

    @property
    def total(self) -> int:
        """How many there are in all, as far as is known."""
        return (self.remaining or 0) + self.completed + self.failed + self.warning


class _Retrieving(_Scope[T]):
    """What C-GET and C-MOVE have in common: their sub-operations are counted, and those that failed are named.

    Attributes:
        progress: what the last response with counters said.
        failed_uids: the Failed SOP Instance UID List of the final response (PS3.4 §C.4.2.1.4.2).
    """

    def __init__(
        self,
        association: Requestor,
        begin: Callable[[], Awaitable[Responses]],
        total_timeout: float | None,
        syntax_of: Callable[[int], str],
    ) -> None:
        super().__init__(association, begin, total_timeout)
        self._syntax_of = syntax_of
        self.progress = Progress()
        self.failed_uids: tuple[str, ...] = ()

    def _count(self, responses: Responses, received: ReceivedResponse) -> bool:
        """Take over what a response says; return whether it is the final one."""
        response = received.response
        assert isinstance(response, SuboperationsRSP)
        counted = (
            response.number_of_completed_suboperations,
            response.number_of_failed_suboperations,
            response.number_of_warning_suboperations,
        )
        if any(each is not None for each in counted):  # which a response need not have
            self.progress = Progress(response.number_of_remaining_suboperations, *(each or 0 for each in counted))
        if response.status.category is Category.PENDING:
            return False
        if received.data_set:
            syntax = self._syntax_of(responses.context_id)
            self.failed_uids = _failed_uids(received.data_set, syntax, self._association.limits)
        return True


def _failed_uids(data: bytes, syntax: str, limits: Limits) -> tuple[str, ...]:
    try:
        value = pick_value(data, syntax, _FAILED_SOP_INSTANCE_UID_LIST, limits)
    except InvalidInstance:
        return ()  # the counters tell how many there are, and the final status stands
    # A list that is too long for UI in explicit VR comes as UN (PS3.5 §6.2.2).
    text = value.decode("ascii", "replace")
    return tuple(uid for each in text.split("\\") if (uid := each.strip("\0 ")))


class Movement(_Retrieving[Progress]):
    """The progress of a C-MOVE: a `Progress` for each response, the final one included.

    Made by `Association.c_move`. Afterwards `status`, `comment`, `failed_uids` and `response` tell how it ended.
    """

    def __init__(
        self,
        association: Requestor,
        begin: Callable[[], Awaitable[Responses]],
        total_timeout: float | None,
        syntax_of: Callable[[int], str],
        touch: Callable[[Responses], None],
    ) -> None:
        super().__init__(association, begin, total_timeout, syntax_of)
        self._touch = touch
        self._last: Response | None = None  # the final one, whose progress was given, and which is to be concluded with

    def touch(self) -> None:
        """Let the idle deadline begin anew: for whoever sees its sub-operations arrive elsewhere."""
        if self._responses is not None:
            self._touch(self._responses)

    async def _next(self, responses: Responses) -> Progress:
        if self._last is not None:
            self._conclude(self._last)
        received = await responses.next()
        if self._count(responses, received):
            self._last = received.response
            if self._last.status.category not in (Category.SUCCESS, Category.WARNING):
                self._conclude(self._last)
        return self.progress


class _Offered:
    """An instance that has arrived, and what its C-STORE is answered with once its consumer is done."""

    __slots__ = ("answer", "operation")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.answer: asyncio.Future[int | Conclusion] = asyncio.get_running_loop().create_future()

    def conclude(self, failure: DimseError | None, otherwise: int | Conclusion = SUCCESS) -> None:
        if not self.answer.done():
            self.answer.set_result(Conclusion(failure.status, failure.comment) if failure else otherwise)


class Intake:
    """Where the sub-operations of a C-GET wait for their consumer; it performs them (PS3.4 §C.4.3.2).

    It knows nothing of the `Instances` that it feeds, so that these are gone when nobody refers to them any more.
    """

    def __init__(self) -> None:
        self.offered: deque[_Offered] = deque()
        self.current: _Offered | None = None
        """The one that the consumer has."""
        self.arrived = 0
        """How many have come."""
        self.responses: Responses | None = None
        self.is_left = False
        """Whether nobody takes instances any more."""

    @property
    def is_over(self) -> bool:
        """Whether the C-GET is."""
        return self.responses.is_over if self.responses is not None else self.is_left

    def status_at_once(self, operation: Operation) -> int | None:
        """Return 0x0122 where the sub-operation may not be performed in its context; else None (PS3.7 Annex C)."""
        is_allowed = operation.context.as_scp and operation.sop_class_uid == operation.context.abstract_syntax
        return None if is_allowed else SOP_CLASS_NOT_SUPPORTED

    async def __call__(self, operation: Operation) -> int | Conclusion:
        """Offer an instance, and return what its sub-operation is answered with."""
        if self.is_left:
            return _LEFT
        self.arrived += 1
        offered = _Offered(operation)
        self.offered.append(offered)
        if self.responses is not None:
            self.responses.wake()
        try:
            return await offered.answer
        except asyncio.CancelledError:  # its association ended
            with suppress(ValueError):
                self.offered.remove(offered)
            raise

    def take(self) -> Operation | None:
        """Return the next instance, if there is one; the one before is answered, since its consumer is done with it."""
        if self.current is not None:
            self.current.conclude(self.current.operation.failure)
            self.current = None
        if not self.offered:
            return None
        self.current = self.offered.popleft()
        return self.current.operation

    def leave(self, reason: BaseException | None = None) -> None:
        """Answer what is open; refuse what nobody has taken yet, and what comes from now on.

        What the consumer has all of is his, unless he says otherwise.

        Args:
            reason: why he leaves; a `DimseError` is what the instance that he has is answered with.
        """
        self.is_left = True
        if self.current is not None:
            is_taken = self.current.operation.data_set.is_taken
            failure = reason if isinstance(reason, DimseError) else self.current.operation.failure
            self.current.conclude(failure, SUCCESS if is_taken else _LEFT)
            self.current = None
        while self.offered:
            self.offered.popleft().conclude(None, _LEFT)


class Instances(_Retrieving[Operation]):
    """The instances of a C-GET, as they arrive: `async for instance in instances`.

    Each is the `Operation` of a C-STORE: `instance.stream()`, `await instance.save(folder)`, `await instance.dataset()`,
    `instance.sop_instance_uid`. It is there until the next one is asked for; its sub-operation is answered then, so that a
    slow consumer holds the peer back. What was not taken of it is discarded.

    Made by `Association.c_get`. Afterwards `status`, `comment`, `progress`, `failed_uids` and `response` tell how it ended.
    """

    def __init__(
        self,
        association: Requestor,
        begin: Callable[[], Awaitable[Responses]],
        total_timeout: float | None,
        syntax_of: Callable[[int], str],
        intake: Intake,
    ) -> None:
        super().__init__(association, begin, total_timeout, syntax_of)
        self._intake = intake

    async def _start(self) -> None:
        try:
            await super()._start()
        except BaseException:
            self._intake.leave()
            raise

    async def _next(self, responses: Responses) -> Operation:
        while (operation := self._intake.take()) is None:
            await self._look(responses)
        return operation

    async def _look(self, responses: Responses) -> None:
        """Take the next response, or wait until something comes."""
        if not responses.is_ready:
            await responses.wait()
            return
        received = await responses.next()
        if self._count(responses, received):
            self._conclude(received.response)

    async def _leave(self, reason: BaseException | None) -> None:
        self._intake.leave(reason)
        await super()._leave(reason)
