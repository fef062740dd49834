"""An operation seen from either side: `Operation` is performed for the peer, `Responses` are awaited from it.

The data set of a message is available at three heights, like the body of an HTTP request: as a stream of encoded fragments,
as bytes or a Part 10 file, as a pydicom Dataset. Nobody has to take it: what is not read is discarded.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from anyio import CancelScope, from_thread

from aiodicom.accounts import Account
from aiodicom.dataset import decode_data_set
from aiodicom.dimse.commands import CStoreRSP, Request, Response
from aiodicom.errors import DimseError, InvalidInstance, LocalProtocolError
from aiodicom.identifiers import decode_identifier
from aiodicom.limits import DEFAULT_LIMITS, Limits
from aiodicom.outgoing import Instance
from aiodicom.partial import PartialFile
from aiodicom.query import NO_OPTIONS, QueryOptions
from aiodicom.receiving import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, ReceivedFile
from aiodicom.scanner import instance_bounds
from aiodicom.terms import Peer
from aiodicom.upper_layer.presentation import PresentationContext
from aiodicom.workers import InThread, in_any_thread

if TYPE_CHECKING:
    from pydicom import Dataset


FILE_BATCH: Final = 1024 * 1024
"""How much of a data set is written to a file at once, in bytes."""

SMALL: Final = 4 * 1024
"""Up to how many bytes an identifier may be worked on in the event loop."""

SMALL_FRAGMENT: Final = 512
"""Fragments of fewer bytes are joined: a peer that sends a data set two bytes at a time would else have us hold twenty times
what it sends, and count it again with each of them."""

JOINED_CHUNK: Final = 16 * 1024
"""How many bytes are joined, at least, unless they are taken before."""

OVERRUN: Final = 1.1
"""How many times the longest data set a peer may send of one that is too long, before its association is aborted."""


class Inflow(Protocol):
    """Where the bytes of the peer come from, as far as they can be held up."""

    def pause_reading(self) -> None:
        """Let no more come."""

    def resume_reading(self) -> None:
        """Take one `pause_reading` back."""


class Reserve:
    """The bytes that all associations of a server have received and nobody has taken yet.

    Args:
        limit: how many there may be; beyond it an association may hold what one read brings.

    Attributes:
        used: how many there are.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether there are too many."""
        return self.used > self.limit


class ReceiveWindow:
    """The bytes of data sets that an association has received and nobody has taken yet: the bound of its memory.

    Args:
        inflow: is paused when there are too many, until there is room again.
        high: how many are too many.
        reserve: counts them, too; while it is exhausted, any are too many. None is one of its own, without a limit.
    """

    __slots__ = ("_high", "_inflow", "_paused", "_reserve", "_usual", "buffered")

    def __init__(
        self, inflow: Inflow, high: int = DEFAULT_LIMITS.maximum_buffered, reserve: Reserve | None = None
    ) -> None:
        self._inflow = inflow
        self._paused = False
        self._high = self._usual = high
        self._reserve = reserve or Reserve(sys.maxsize)
        self.buffered = 0

    @property
    def is_full(self) -> bool:
        """Whether reading from the peer is paused for it."""
        return self._paused

    def add(self, count: int) -> None:
        """Count bytes that came in; with a negative number, bytes that were taken."""
        self.buffered += count
        reserve = self._reserve
        reserve.used += count
        high = (
            self._high if reserve.used <= reserve.limit else 0
        )  # each goes on when its own are taken: none waits for others
        if self._paused:
            if self.buffered <= high // 2:
                self._paused = False
                self._inflow.resume_reading()
        elif self.buffered > high:
            self._paused = True
            self._inflow.pause_reading()

    def leave_reserve(self) -> None:
        """Count for itself from now on: its association is over, and what is left is about to be forgotten."""
        self._reserve.used -= self.buffered
        self._reserve = Reserve(sys.maxsize)

    def set_bound(self, high: int | None) -> None:
        """Let so many bytes come before reading is paused; half of them must be left before it goes on. None: as usual."""
        self._high = self._usual if high is None else high
        self.add(0)


class IncomingDataSet:
    """The data set of a message that is arriving, as encoded in `transfer_syntax`.

    The association puts fragments in, one consumer takes them out.

    Args:
        transfer_syntax: its UID.
        window: counts what nobody has taken yet.
        is_empty: whether there is no data set at all.
        limit: how many bytes may come; None is no limit.
    """

    __slots__ = (
        "_chunks",
        "_discarding",
        "_ended",
        "_error",
        "_held",
        "_joined",
        "_waiter",
        "_window",
        "length",
        "limit",
        "transfer_syntax",
    )

    def __init__(
        self, transfer_syntax: str, window: ReceiveWindow, *, is_empty: bool = False, limit: int | None = None
    ) -> None:
        self.transfer_syntax = transfer_syntax
        self.length = 0
        """How many bytes have come so far."""
        self.limit = limit
        self._window = window
        self._chunks: deque[bytes] = deque()
        self._joined = bytearray()  # fragments so small that each of its own would cost many times what is in it
        self._held = 0  # bytes in both
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._ended = is_empty
        self._discarding = False

    @property
    def is_complete(self) -> bool:
        """Whether the last fragment has come."""
        return self._ended

    @property
    def is_taken(self) -> bool:
        """Whether it is complete, and its consumer has all of it."""
        return self._ended and not self._held and not self._discarding

    @property
    def is_too_long(self) -> bool:
        """Whether more has come than is allowed: nothing of it is kept any more, and the consumer is told."""
        return self.limit is not None and self.length > self.limit

    @property
    def is_without_end(self) -> bool:
        """Whether so much more has come that there is no waiting for the end."""
        return self.limit is not None and self.length > self.limit * OVERRUN

    # The association's side.

    def feed(self, data: bytes | memoryview, is_last: bool) -> None:
        """Take a fragment; it is copied, unless nobody wants it."""
        self.length += len(data)
        if self.is_too_long:
            self._forget()
        elif data and not self._discarding:
            if len(data) < SMALL_FRAGMENT:
                self._joined += data
                if len(self._joined) >= JOINED_CHUNK:
                    self._settle()
            else:
                self._settle()
                self._chunks.append(bytes(data))
            self._held += len(data)
            self._window.add(len(data))
        self._ended = is_last
        if self._waiter is not None:
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Say that the rest will not come."""
        if not self._ended:
            self._error = error
            self._wake()

    def discard(self) -> None:
        """Forget what has come, and what will; what was taken whole has nothing to forget."""
        self._discarding = not self.is_taken
        self._forget()

    def _forget(self) -> None:
        self._joined.clear()
        self._let_go()

    def _settle(self) -> None:
        """Let what was joined be a chunk."""
        if self._joined:
            self._chunks.append(bytes(self._joined))
            self._joined.clear()

    def _let_go(self) -> None:
        self._chunks.clear()
        held, self._held = self._held, 0
        self._window.add(-held)

    async def wait_complete(self) -> None:
        """Wait until the last fragment has come; raise what `fail` was given if it will not."""
        while not self._ended:
            await self._wait()

    # The consumer's side.

    async def take(self, at_least: int = 1) -> list[bytes]:
        """Return what has come and was not taken yet, once it is `at_least` so many bytes or the end; [] is the end.

        Raises:
            AssociationError: the association ended before the data set did.
            DimseError: 0xA700, Out of Resources, where it is longer than is allowed (PS3.4 §B.2.3).
            LocalProtocolError: its operation is over, and so some of it is lost.
        """
        while not self.is_too_long and not self._ended and (not self._held or self._held < at_least):
            if self._window.is_full and self._held:
                break
            await self._wait()
        if self.is_too_long:
            raise DimseError(OUT_OF_RESOURCES, f"Data set exceeds {self.limit} bytes")
        if self._discarding:
            raise LocalProtocolError(
                "the data set was not taken while there was time: take it before its operation ends"
            )
        self._settle()
        chunks = list(self._chunks)
        self._let_go()
        return chunks

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How an operation ended, where that is more than a status: what its final response says.

    Args:
        status: the status code.
        comment: Error Comment (0000,0902).
        fields: further fields of the response, by name.
        data_set: what goes with it, encoded in the transfer syntax of the context.
    """

    status: int
    comment: str = field(default="", repr=False)
    fields: Mapping[str, object] = field(default_factory=dict)
    data_set: bytes | None = field(default=None, repr=False)


class Exchange(Protocol):
    """What an operation may ask of the association that it came on."""

    @property
    def contexts(self) -> tuple[PresentationContext, ...]:
        """The accepted presentation contexts."""

    def options_for(self, sop_class_uid: str) -> QueryOptions:
        """Return what was negotiated of a SOP class."""

    async def respond(self, operation: Operation, conclusion: Conclusion) -> None:
        """Send a response that is not the last one."""

    async def c_store(self, instance: Instance) -> CStoreRSP:
        """Invoke a sub-operation on the same association."""


class Operation:
    """A request of the peer that is being performed: what a handler gets.

    Attributes:
        command: the request: a `CStoreRQ`, `CEchoRQ`, …
        context: the presentation context it came on.
        peer: who asks.
        data_set: the data set of the request, as it arrives; empty where the request has none.
        exchange: the association, as far as an operation may use it.
        limits: how much is taken of the peer.
        is_cancelled: whether the peer has sent a C-CANCEL for it (PS3.7 §9.3.2.3).
        is_answered: whether its handler is done, and its final response on its way.
        failure: why its data set could not be saved, if that was tried and failed.
        last_response: the last response with a data set that was not the final one.
        account: where what it transfers is entered, if anybody keeps an account.
        encoded_identifier: the identifier of a C-FIND, C-GET or C-MOVE as it came, from when it was read.
    """

    __slots__ = (
        "_identifier",
        "_in_thread",
        "account",
        "command",
        "context",
        "data_set",
        "encoded_identifier",
        "exchange",
        "failure",
        "is_answered",
        "is_cancelled",
        "last_response",
        "limits",
        "peer",
    )

    def __init__(
        self,
        command: Request,
        context: PresentationContext,
        peer: Peer,
        data_set: IncomingDataSet,
        in_thread: InThread = in_any_thread,
        exchange: Exchange | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.command = command
        self.context = context
        self.peer = peer
        self.data_set = data_set
        self.exchange = exchange
        self.limits = limits
        self.is_cancelled = False
        self.is_answered = False
        self.failure: DimseError | None = None
        self.last_response: Response | None = None
        self.account: Account | None = None
        self.encoded_identifier = b""
        self._in_thread = in_thread
        self._identifier: Dataset | None = None

    def __repr__(self) -> str:
        return f"<Operation {type(self.command).__name__} {self.command.message_id} from {self.peer}>"

    @property
    def sop_class_uid(self) -> str:
        """The Affected or Requested SOP Class UID of the request; empty where it has none."""
        affected: str | None = getattr(self.command, "affected_sop_class_uid", None)
        return affected or getattr(self.command, "requested_sop_class_uid", None) or ""

    @property
    def transfer_syntax_uid(self) -> str:
        """How its data set is encoded: the transfer syntax of its presentation context."""
        return self.context.transfer_syntax

    @property
    def options(self) -> QueryOptions:
        """What was negotiated of its SOP class (PS3.4 §C.5.1.1)."""
        return NO_OPTIONS if self.exchange is None else self.exchange.options_for(self.context.abstract_syntax)

    @property
    def is_large(self) -> bool:
        """Whether its data set has so much to say that nothing is to be made of it in the event loop."""
        return self.data_set.length > SMALL

    @property
    def identifier(self) -> Dataset:
        """The identifier of a C-FIND, C-GET or C-MOVE, decoded before its handler runs (PS3.4 §C.4).

        Raises:
            LocalProtocolError: it is no such operation.
        """
        if self._identifier is None:
            raise LocalProtocolError(f"{self!r} has no identifier: only C-FIND, C-GET and C-MOVE do")
        return self._identifier

    async def read_identifier(self) -> Dataset:
        """Receive and decode the identifier; from then on `identifier` is it. Services do this before their handler runs.

        Raises:
            DimseError: 0xA700 where it has more than `Limits.maximum_identifier` bytes; 0xC000 where it cannot be decoded,
                or has more elements or deeper sequences than is allowed (PS3.4 Table C.4-1).
        """
        self.encoded_identifier = data = await self.read(limit=self.limits.maximum_identifier)
        try:
            self._identifier = await decode_identifier(
                data, self.transfer_syntax_uid, self.limits, self._in_thread, with_items=True
            )
        except InvalidInstance as error:
            raise DimseError(CANNOT_UNDERSTAND, "The identifier cannot be decoded") from error
        return self._identifier

    @property
    def sop_instance_uid(self) -> str:
        """The Affected SOP Instance UID of a C-STORE (PS3.7 §9.3.1.1); empty where the request has none."""
        return getattr(self.command, "affected_sop_instance_uid", None) or ""

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the encoded data set as it arrives, in pieces of any size; whoever is slow holds the peer back.

        Raises:
            AssociationError: the association ended before the data set did.
        """
        while chunks := await self.data_set.take():
            for chunk in chunks:
                yield chunk

    async def read(self, *, limit: int | None = None) -> bytes:
        """Return the encoded data set, whole.

        Args:
            limit: how many bytes to take at most; by default as many as come.

        Raises:
            DimseError: 0xA700, Out of Resources, where it is longer than that (PS3.4 §B.2.3).
        """
        parts: list[bytes] = []
        while chunks := await self.data_set.take():
            parts += chunks
            if limit is not None and self.data_set.length > limit:
                raise DimseError(OUT_OF_RESOURCES, f"Data set exceeds {limit} bytes")
        return b"".join(parts)

    async def dataset(self) -> Dataset:
        """Return the data set as a pydicom Dataset, scanned and decoded in a worker thread; its `file_meta` is set.

        Raises:
            DimseError: 0xC000, Cannot Understand, where it cannot be decoded, or is beyond a limit (PS3.4 §B.2.3).
        """
        decode = partial(decode_data_set, bounds=instance_bounds(self.limits))
        data = await self.read()
        try:
            return await self._in_thread(decode, data, self.data_set.transfer_syntax)
        except InvalidInstance as error:
            raise DimseError(CANNOT_UNDERSTAND, "The data set cannot be decoded") from error

    async def save(self, folder: str | os.PathLike[str], name: str | Callable[[Path], str] | None = None) -> Path:
        """Write the data set to a Part 10 file, with a File Meta Information of our own, and return its path.

        It is scanned and written as it arrives, never whole in memory, under a temporary name, and renamed when it is
        complete: under its name there is a whole file or none. An older file of that name is replaced.

        Args:
            folder: where to; made if need be.
            name: the file's path below the folder; or a function that makes it of the complete temporary file, called in
                a worker thread. By default `<SOP Instance UID>.dcm`.

        Raises:
            DimseError: 0x0117, Invalid Object Instance, where the SOP Instance UID is none (PS3.7 §C.5.9);
                0xA900 where the data set has another SOP Class or Instance UID than the command; 0xC000 where it is missing,
                damaged or beyond a limit; 0xA700, Out of Resources, where it is too long, or the file cannot be written.
            AssociationError: the association ended before the data set did.
        """
        try:
            return await self._save(folder, name)
        except DimseError as error:
            self.failure = error
            raise
        except OSError as error:
            self.failure = DimseError(OUT_OF_RESOURCES, "The file cannot be written")
            raise self.failure from error

    async def _save(self, folder: str | os.PathLike[str], name: str | Callable[[Path], str] | None) -> Path:
        file = ReceivedFile(
            PartialFile(os.fspath(folder), name or f"{self.sop_instance_uid}.dcm"),
            getattr(self.command, "affected_sop_class_uid", None) or self.context.abstract_syntax,
            self.sop_instance_uid,
            self.data_set.transfer_syntax,
            source_ae_title=self.peer.ae_title,
            bounds=instance_bounds(self.limits),
        )
        try:
            chunks = await self.data_set.take(FILE_BATCH)
            if not chunks:
                raise DimseError(CANNOT_UNDERSTAND, "The data set is missing")
            while not self.data_set.is_complete:
                await self._in_thread(file.write, chunks)
                chunks = await self.data_set.take(FILE_BATCH)
            return await self._in_thread(file.complete, chunks)
        finally:
            if file.is_there:
                with CancelScope(shield=True):
                    await self._in_thread(file.remove)


class BlockingOperation:
    """An `Operation` for a handler that is no coroutine and runs in a worker thread: its methods block.

    Attributes:
        operation: the operation itself, with `command`, `context` and `peer`.
    """

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.command = operation.command
        self.context = operation.context
        self.peer = operation.peer

    def read(self, *, limit: int | None = None) -> bytes:
        """Do as `Operation.read` does."""
        return from_thread.run(partial(self.operation.read, limit=limit))

    def dataset(self) -> Dataset:
        """Do as `Operation.dataset` does."""
        return from_thread.run(self.operation.dataset)

    def save(self, folder: str | os.PathLike[str], name: str | Callable[[Path], str] | None = None) -> Path:
        """Do as `Operation.save` does."""
        return from_thread.run(self.operation.save, folder, name)


RESPONSE_OVERHEAD: Final = 512
"""What a response that waits to be taken counts for besides its data set, in bytes."""


class ReceivedResponse(NamedTuple):
    """A response of the peer and the encoded data set that came with it, if any."""

    response: Response
    data_set: bytes | None

    def __repr__(self) -> str:
        return f"ReceivedResponse({self.response!r})"

    @property
    def size(self) -> int:
        """What it takes of the memory of its association, in bytes."""
        return RESPONSE_OVERHEAD + len(self.data_set or b"")


class Responses:
    """The responses to one request of ours, in the order they come.

    The association watches over `deadline`: one timer for all that is outstanding costs less than one each. What waits here
    to be taken counts as received and not taken, so that a slow consumer holds the peer back.

    Attributes:
        request: what was asked.
        context_id: of the presentation context that it went out on.
        idle: how long the next response may take, in seconds; None is for ever.
        deadline: when the next response is due, in the event loop's time.
        holder: the task that takes them one by one; None where a single one is awaited.
        is_over: whether the final response has come, or none will.
        is_left: whether nobody takes them any more.
        final: the final response, from the moment it has come, whether or not it was taken.
    """

    __slots__ = (
        "_error",
        "_received",
        "_waiters",
        "_window",
        "context_id",
        "deadline",
        "final",
        "holder",
        "idle",
        "is_left",
        "is_over",
        "request",
    )

    def __init__(self, request: Request, context_id: int, window: ReceiveWindow, idle: float | None) -> None:
        self.request = request
        self.context_id = context_id
        self.idle = idle
        self.deadline = math.inf
        self.holder: asyncio.Task[object] | None = None
        self.is_over = False
        self.is_left = False
        self.final: Response | None = None
        self._window = window
        self._received: deque[ReceivedResponse] = deque()
        self._waiters: list[asyncio.Future[None]] = []  # who takes them, and who leaves them
        self._error: BaseException | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is one to take."""
        return bool(self._received)

    def deliver(self, received: ReceivedResponse, *, is_final: bool) -> None:
        """Take the next response."""
        self.is_over = is_final
        if is_final:
            self.final = received.response
        if not self.is_left:
            self._received.append(received)
            self._window.add(received.size)
        if is_final or not self.is_left:
            self.wake()

    def fail(self, error: BaseException) -> None:
        """Say that no more responses will come."""
        self.is_over = True
        self._error = self._error or error
        self.wake()

    def discard(self, error: BaseException | None = None) -> None:
        """Forget what has come, and what will; where they are still waited for, raise that error."""
        self.is_left = True
        self._error = self._error or error
        self._window.add(-sum(received.size for received in self._received))
        self._received.clear()

    async def next(self) -> ReceivedResponse:
        """Return the next response, waiting for it.

        Raises:
            OperationTimeout: it did not come in time; the association was aborted.
            AssociationError: the association ended.
            StopAsyncIteration: nothing more will come, since it was left.
        """
        while not self._received:
            await self.wait()
        received = self._received.popleft()
        self._window.add(-received.size)
        return received

    async def wait_over(self) -> None:
        """Wait until the final response has come, or none will."""
        while not self.is_over:
            await self._next_waking()

    async def wait(self) -> None:
        """Wait until something happens: a response, the end, or a `wake`.

        Raises:
            OperationTimeout: a response did not come in time; the association was aborted.
            AssociationError: the association ended.
            StopAsyncIteration: nothing more will come, and nothing is left.
        """
        if self._error is not None:
            raise self._error
        if self.is_over and not self._received:
            raise StopAsyncIteration
        await self._next_waking()

    def _next_waking(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
