"""A DIMSE message on its way out: command set and data set as PDVs, one message at a time (PS3.7 §6.3, PS3.8 §E.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Final, TypeAlias, cast

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import Command
from aiodicom.dimse.fragments import fragment, fragment_length
from aiodicom.errors import AssociationError, OperationTimeout
from aiodicom.transport import WRITE_BATCH, Connection
from aiodicom.upper_layer.pdu import PDV
from aiodicom.upper_layer.state_machine import State

DataSetSource: TypeAlias = bytes | memoryview | AsyncIterable[bytes]

_WHOLE: Final = (bytes, memoryview)  # asked for first, since to ask for an AsyncIterable takes long
_MAY_SEND: Final = (State.STA6, State.STA8)


class Sender:
    """Writes the messages of an association, whole and one after the other; A-ABORT does not wait for it.

    Args:
        connection: where to.
        maximum_length: as the peer announced it (PS3.8 §D.1).
        on_message: told of each command before it is written.
        on_cut: told, in words, that a message was begun and cannot be ended: the association is to be aborted.
    """

    __slots__ = (
        "_awaiting_source",
        "_connection",
        "_error",
        "_fragment_length",
        "_last",
        "_lock",
        "_on_cut",
        "_on_message",
    )

    def __init__(
        self,
        connection: Connection,
        maximum_length: int,
        *,
        on_message: Callable[[Command], None],
        on_cut: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._fragment_length = fragment_length(maximum_length, default=WRITE_BATCH)
        self._on_message = on_message
        self._on_cut = on_cut
        self._lock = asyncio.Lock()
        self._awaiting_source: asyncio.Task[object] | None = None  # who sends a data set that comes in chunks
        self._error: AssociationError | None = None
        self._last: tuple[Command | None, bool, bytes] = (None, False, b"")  # the last command set, encoded

    @property
    def _is_ready(self) -> bool:
        """Whether a message can be written now, without waiting."""
        return (
            self._connection.upper_layer.state in _MAY_SEND and self._connection.is_writable and not self._lock.locked()
        )

    def send_at_once(self, context_id: int, command: Command, data_set: bytes | memoryview | None = None) -> bool:
        """Write a whole message if nothing stands before it, and it is small; return whether it is written."""
        if not self._is_ready or (data_set is not None and len(data_set) > WRITE_BATCH):
            return False
        pdvs = self._command_pdvs(context_id, command, has_data_set=data_set is not None)
        if data_set is not None:
            pdvs += fragment(context_id, data_set, self._fragment_length)
        self._connection.upper_layer.send_pdata(pdvs)
        self._connection.flush()
        return True

    async def send(self, context_id: int, command: Command, data_set: DataSetSource | None = None) -> None:
        """Write a whole message, when those before it are written.

        Raises:
            AssociationError: the association ended before it was written.
            OperationTimeout: the peer has stopped reading.
        """
        # Neither a lock nor a batch is needed for most; what is checked first is what costs least.
        if (data_set is None or isinstance(data_set, _WHOLE)) and self.send_at_once(context_id, command, data_set):
            return
        async with self._lock:
            self._raise_if_over()
            # The command goes out in one write with the first of the data.
            batch = self._command_pdvs(context_id, command, has_data_set=data_set is not None)
            sent_before = self._connection.bytes_sent
            try:
                if data_set is None or isinstance(data_set, _WHOLE):
                    await self._send_whole(context_id, batch, data_set)
                else:
                    await self._send_chunks(context_id, batch, data_set)
            except BaseException as error:
                if self._connection.bytes_sent > sent_before or isinstance(error, OperationTimeout):
                    self._on_cut(f"a message was cut short: {type(error).__name__}")
                raise

    async def send_among_many(self, context_id: int, command: Command, data_set: bytes) -> None:
        """Write a whole message, one of many small ones: it may wait for others, to go out in one write.

        Raises:
            AssociationError: the association ended before it was written.
            OperationTimeout: the peer has stopped reading.
        """
        if not self._is_ready or len(data_set) > self._fragment_length:
            await self.send(context_id, command, data_set)
            return
        pdvs = self._command_pdvs(context_id, command, has_data_set=True)
        self._connection.upper_layer.send_pdata([*pdvs, PDV(context_id, False, True, data_set)])
        self._connection.flush_soon(len(data_set))

    async def wait_until_quiet(self, timeout: float) -> None:
        """Wait until no message is being written.

        Raises:
            TimeoutError: nothing of it was written for `timeout` seconds.
        """
        while self._lock.locked() and self._error is None:
            sent = self._connection.bytes_sent
            try:
                async with asyncio.timeout(timeout), self._lock:
                    return
            except TimeoutError:
                if self._connection.bytes_sent == sent:
                    raise

    def end(self, error: AssociationError) -> None:
        """Let nothing more be written, and nobody wait any longer for the source of a data set."""
        self._error = error
        if self._awaiting_source is not None:
            self._awaiting_source.cancel()
            self._awaiting_source = None

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _command_pdvs(self, context_id: int, command: Command, *, has_data_set: bool) -> list[PDV]:
        self._on_message(command)
        last, last_had, encoded = self._last
        if command is not last or has_data_set is not last_had:
            encoded = encode_command(command, has_data_set=has_data_set)
            self._last = command, has_data_set, encoded
        return list(fragment(context_id, encoded, self._fragment_length, is_command=True))

    async def _send_whole(self, context_id: int, batch: list[PDV], data_set: bytes | memoryview | None) -> None:
        if data_set is None:
            await self._write(batch)
        else:
            await self._write_data(context_id, batch, data_set, is_last=True)

    async def _send_chunks(self, context_id: int, batch: list[PDV], chunks: AsyncIterable[bytes]) -> None:
        held = b""  # a fragment is the last one only when nothing follows: one is kept back until that is known
        iterator = aiter(chunks)
        self._awaiting_source = asyncio.current_task()
        try:
            async for chunk in iterator:
                # An odd byte waits for the next chunk, too: fragments have even length (PS3.8 §E.1).
                if chunk and (even := len(held) & ~1):
                    await self._write_data(context_id, batch, held[:even], is_last=False)
                    batch, held = [], held[even:]
                held = held + chunk if held else chunk
        except asyncio.CancelledError:
            if self._awaiting_source is None:  # it was `end` that cancelled us, since the source may have stalled
                cast("asyncio.Task[object]", asyncio.current_task()).uncancel()
                self._raise_if_over()
            raise
        finally:
            self._awaiting_source = None
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()  # a file it reads is closed now, not when the collector comes by
        await self._write_data(context_id, batch, held, is_last=True)

    async def _write_data(self, context_id: int, batch: list[PDV], data: bytes | memoryview, *, is_last: bool) -> None:
        """Write a part of a data set behind what is in the batch, no more at once than the transport is to hold."""
        length = self._fragment_length
        step = max(WRITE_BATCH // length, 1) * length
        view = memoryview(data)
        while len(view) > step:
            await self._write([*batch, *fragment(context_id, view[:step], length, is_last=False)])
            batch, view = [], view[step:]
        await self._write([*batch, *fragment(context_id, view, length, is_last=is_last)])

    async def _write(self, pdvs: list[PDV]) -> None:
        if not self._connection.is_writable:
            await self._connection.drain()
        self._raise_if_over()  # while it drained, or while the data was waited for
        self._connection.upper_layer.send_pdata(pdvs)
        self._connection.flush()
