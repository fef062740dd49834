"""The operations that are performed for the peer: a task for each, from its request to its final response (PS3.7 §9.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from aiodicom.dimse.commands import MAY_BE_PENDING, respond
from aiodicom.dimse.status import CANCEL, DUPLICATE_INVOCATION, PROCESSING_FAILURE, SUCCESS
from aiodicom.errors import AssociationError, DimseError, LocalProtocolError, OperationTimeout
from aiodicom.operation import Conclusion, Inflow, Operation
from aiodicom.sending import Sender

SPARE_OPERATIONS: Final = 16
"""How many operations beyond the negotiated window a peer may have open before we stop reading from it."""


class Dispatch(Protocol):
    """Performs operations."""

    def status_at_once(self, operation: Operation) -> int | None:
        """Return the status of an operation that needs no handler; None where one must run. A `DimseError` is one, too."""

    async def __call__(self, operation: Operation) -> int | Conclusion | None:
        """Run the handler and return its status; None is Success. A `DimseError` is a status, too."""


class Performer:
    """Runs handlers, and sends the responses that they come to.

    Args:
        sender: writes messages.
        maximum: how many operations the peer may have outstanding; 0 is no limit.
        inflow: is paused while the peer has too many open.
        on_end: called when an operation is over.
        on_failure: told of what a handler raised that was not meant as a status.
        on_conclusion: told to which status a handler came, None where its association ended before; None is not told.
    """

    __slots__ = (
        "_inflow",
        "_is_over",
        "_loop",
        "_maximum",
        "_on_conclusion",
        "_on_end",
        "_on_failure",
        "_running",
        "_sender",
        "_too_many",
    )

    def __init__(
        self,
        sender: Sender,
        maximum: int,
        *,
        inflow: Inflow,
        on_end: Callable[[], None],
        on_failure: Callable[[Operation, Exception], None],
        on_conclusion: Callable[[Operation, int | None], None] | None = None,
    ) -> None:
        self._sender = sender
        self._maximum = maximum or 0xFFFF
        self._inflow = inflow
        self._on_end = on_end
        self._on_failure = on_failure
        self._on_conclusion = on_conclusion
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], Operation] = {}
        self._too_many = False
        self._is_over = False

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Those that are being performed."""
        return tuple(self._running.values())

    @property
    def is_busy(self) -> bool:
        """Whether there are any."""
        return bool(self._running)

    def begin(self, operation: Operation, dispatch: Dispatch) -> None:
        """Perform an operation by what finds and runs its handler."""
        request = operation.command
        comment = ""
        if self._running and any(self._is_outstanding(other, request.message_id) for other in self._running.values()):
            status: int | None = DUPLICATE_INVOCATION
        else:
            try:
                status = dispatch.status_at_once(operation)
            except DimseError as refusal:
                status, comment = refusal.status, refusal.comment
        if status is not None and self._on_conclusion is not None:
            self._on_conclusion(operation, status)
        if status is not None and operation.data_set.is_complete:
            # A task for what waits for nothing would cost more than the answer itself.
            response = respond(request, status, error_comment=comment) if comment else respond(request, status)
            if self._sender.send_at_once(operation.context.context_id, response):
                return
        conclusion = None if status is None else Conclusion(status, comment)
        task = self._loop.create_task(self._perform(operation, conclusion, dispatch))
        self._running[task] = operation
        task.add_done_callback(self._ended)
        if len(self._running) > self._maximum + SPARE_OPERATIONS and not self._too_many:
            self._too_many = True
            self._inflow.pause_reading()

    def cancel(self, message_id: int) -> None:
        """C-CANCEL: cancel the handler of a C-FIND, C-GET or C-MOVE (PS3.7 §9.3.2.3).

        Where it is not running any more, it has answered; other operations cannot be cancelled.
        """
        for task, operation in self._running.items():
            if not isinstance(operation.command, MAY_BE_PENDING):
                continue
            # What a handler does last, once it is cancelled, is not cancelled again.
            if self._is_outstanding(operation, message_id) and not operation.is_cancelled:
                operation.is_cancelled = True
                task.cancel()

    async def wait_idle(self) -> None:
        """Wait until nothing is being performed."""
        while self._running:
            await asyncio.wait(tuple(self._running))

    def end(self) -> None:
        """Cancel every handler, since the association is over."""
        self._is_over = True
        for task in self._running:
            task.cancel()

    def _is_outstanding(self, operation: Operation, message_id: int) -> bool:
        # One that is being answered is not: the peer may have its answer before our task has ended.
        return operation.command.message_id == message_id and not operation.is_answered

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if self._too_many and len(self._running) <= self._maximum:
            self._too_many = False
            self._inflow.resume_reading()
        self._on_end()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "aiodicom: an operation failed", "exception": error})

    async def _perform(self, operation: Operation, conclusion: Conclusion | None, dispatch: Dispatch) -> None:
        """Run the handler, unless it is known what comes of it; discard what is left of the data set; send the response."""
        if conclusion is None:
            conclusion = await self._told_conclusion_of(operation, dispatch)
        operation.is_answered = True
        try:
            operation.data_set.discard()
            if not operation.data_set.is_complete:
                await operation.data_set.wait_complete()
            try:
                response = respond(operation.command, conclusion.status, **fields_of(conclusion))
            except TypeError as error:  # it names a field that such a response has not
                self._on_failure(operation, error)
                conclusion = Conclusion(PROCESSING_FAILURE, "The handler's conclusion is none")
                response = respond(operation.command, conclusion.status, **fields_of(conclusion))
            await self._sender.send(operation.context.context_id, response, conclusion.data_set)
        except (AssociationError, OperationTimeout, LocalProtocolError):
            return  # the association is over, or we are releasing it

    async def _told_conclusion_of(self, operation: Operation, dispatch: Dispatch) -> Conclusion:
        """Run the handler, and tell what comes of it, also where that is the end of the association."""
        status: int | None = None
        try:
            conclusion = await self._conclusion_of(operation, dispatch)
            if not 0 <= conclusion.status <= 0xFFFF:
                conclusion = Conclusion(PROCESSING_FAILURE, "The handler's status is no status code")
            status = conclusion.status
        finally:
            if self._on_conclusion is not None:
                self._on_conclusion(operation, status)
        return conclusion

    async def _conclusion_of(self, operation: Operation, dispatch: Dispatch) -> Conclusion:
        """Run the handler; turn what it returns or raises into a status and an Error Comment."""
        task = asyncio.current_task()
        assert task is not None
        try:
            result = await dispatch(operation)
        except DimseError as error:
            if isinstance(error.__cause__, OSError):
                self._on_failure(operation, error.__cause__)  # a full disk is nothing to keep to oneself
            return Conclusion(error.status, error.comment)
        except asyncio.CancelledError:
            if operation.is_cancelled and not self._is_over:
                task.uncancel()
                return Conclusion(CANCEL)
            if task.cancelling():
                raise
            return Conclusion(PROCESSING_FAILURE, "The handler was cancelled")
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes a status
            self._on_failure(operation, error)
            return Conclusion(PROCESSING_FAILURE, f"{type(error).__name__} in the handler")
        if operation.is_cancelled and not self._is_over:
            task.uncancel()  # the handler came to an end of its own all the same
        if isinstance(result, Conclusion):
            return result
        return Conclusion(SUCCESS if result is None else int(result))


def fields_of(conclusion: Conclusion) -> dict[str, object]:
    """Return the fields of a response besides its status."""
    return {**conclusion.fields, "error_comment": conclusion.comment} if conclusion.comment else {**conclusion.fields}
