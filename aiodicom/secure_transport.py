"""TLS between an asyncio transport and a `Connection`: first the handshake, then records ⇄ bytes (PS3.15 §B.12).

Those of asyncio and uvloop tell neither the peer nor us why a handshake failed, and hold 256 KiB for each connection. This
one sends the alert (RFC 8446 §6), keeps the error, and holds nothing between two reads.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final, cast

from aiodicom.errors import ConnectionFailed
from aiodicom.tls import explained
from aiodicom.transport import DISCARD_LIMIT, Connection

_LOST: Final = "the peer closed the connection in the TLS handshake: does it take TLS there, and calls from this host?"

LINGER: Final = 1.0
"""How long a peer may still send after a handshake that failed, in seconds: closed at once, it might not see the alert."""

ANSWERS_LIMIT: Final = 64 * 1024
"""How many bytes TLS itself may answer (RFC 8446 §4.6.3, KeyUpdate) to a peer that does not read, before it is cut off."""


class _Phase(Enum):
    HANDSHAKE = auto()
    OPEN = auto()
    CLOSED = auto()  # by either side; what still comes is not looked at


class SecureTransport(asyncio.BufferedProtocol):
    """The TLS of one connection: a protocol for the transport below, a transport for the `Connection` above.

    The connection is made when the handshake is over; where that fails it is lost without having been made.

    Args:
        connection: the one above.
        context: by which rules, and with which certificate.
        timeout: how long the handshake may take, in seconds.
        server_side: whether the peer speaks first.
        server_hostname: for whom its certificate is to be, if we do.

    Attributes:
        error: what went wrong in the handshake, or later with a record of the peer; None as long as nothing did. It is
            what the connection has for its `loss`.
    """

    def __init__(
        self,
        connection: Connection,
        context: ssl.SSLContext,
        *,
        timeout: float,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.error: ConnectionFailed | None = None
        self._connection = connection
        self._buffer = connection.get_buffer(-1)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._timeout = timeout
        self._is_server = server_side
        self._server_hostname = server_hostname
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._phase = _Phase.HANDSHAKE
        self._deadline: asyncio.TimerHandle | None = None
        self._shaken = asyncio.Event()
        self._is_held = False
        self._is_full = False  # the peer does not read what was written
        self._answered = 0  # bytes since then
        self._discarded = 0

    async def established(self) -> None:
        """Wait until the handshake is over.

        Raises:
            ConnectionFailed: it failed, took too long, or the connection was lost.
        """
        await self._shaken.wait()
        if self.error is not None:
            raise self.error

    # The side of the transport below.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # see Connection.connection_made
        self._connection.transport_opened(cast("asyncio.Transport", self))
        if transport.is_closing():
            return  # there are too many
        self._deadline = self._loop.call_later(self._timeout, self._expired)
        self._shake_hands()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._phase is _Phase.CLOSED:
            self._discarded += nbytes
            if self._discarded > DISCARD_LIMIT:
                self.abort()
            return
        self._incoming.write(self._buffer[:nbytes])  # which makes room for what is in it
        if self._phase is _Phase.HANDSHAKE:
            self._shake_hands()
        if self._phase is _Phase.OPEN:
            self._deliver()

    def eof_received(self) -> bool:
        if self._phase is _Phase.HANDSHAKE:
            self._fail(ConnectionAbortedError(_LOST))
        return False

    def pause_writing(self) -> None:
        self._is_full, self._answered = True, 0
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._is_full = False
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._phase is _Phase.HANDSHAKE:
            self._end_handshake(_Phase.CLOSED, exc or ConnectionAbortedError(_LOST))
        self._phase = _Phase.CLOSED
        if self._deadline is not None:
            self._deadline.cancel()
        self._connection.connection_lost(self.error or exc)

    # The handshake.

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._end_handshake(_Phase.OPEN)
            self._flush()
            self._connection.connection_made(cast("asyncio.Transport", self))

    def _expired(self) -> None:
        self._end_handshake(_Phase.CLOSED, TimeoutError(f"no TLS handshake within {self._timeout:g} s"))
        self.abort()

    def _fail(self, error: Exception) -> None:
        self._end_handshake(_Phase.CLOSED, error)
        self._flush()  # the alert
        assert self._transport is not None
        if self._is_server:
            with suppress(OSError):  # the peer is gone, and we are about to hear of it
                self._transport.write_eof()
            self._deadline = self._loop.call_later(LINGER, self.abort)
        else:
            self._transport.close()

    def _end_handshake(self, phase: _Phase, error: Exception | None = None) -> None:
        self._phase = phase
        self.error = None if error is None else self._described(error)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None  # it would keep all of this until then
        self._shaken.set()

    def _described(self, error: Exception) -> ConnectionFailed:
        address = self.get_extra_info("peername")
        host, port = address[:2] if isinstance(address, tuple) else ("?", "?")
        where = f"from {host}:{port}" if self._is_server else f"to {self._server_hostname}:{port}"
        failure = ConnectionFailed(f"no TLS connection {where}: {explained(error)}")
        failure.__cause__ = error
        return failure

    # Records.

    def _deliver(self) -> None:
        """Give the connection what has come, as long as it takes it."""
        while self._phase is _Phase.OPEN and not self._is_held:
            length = self._decrypt()
            if length:
                self._connection.buffer_updated(length)
            if length < len(self._buffer):
                break
        if self._outgoing.pending:
            self._answer()

    def _answer(self) -> None:
        """Send what TLS itself has to say to what came, which nobody else bounds."""
        if self._is_full:
            self._answered += self._outgoing.pending
            if self._answered > ANSWERS_LIMIT:
                self.error = self._described(ConnectionAbortedError("the peer asks on, and reads no answer"))
                self.abort()
                return
        self._flush()

    def _decrypt(self) -> int:
        """Return how many bytes are in the buffer now: if it is not full, there are no more."""
        tls, buffer = self._tls, self._buffer
        read = cast("Callable[[int, memoryview], int]", tls.read)
        length, size = 0, len(buffer)
        try:
            while length < size:
                count = read(size - length, buffer[length:] if length else buffer)
                length += count
                if not count:  # close_notify
                    self._loop.call_soon(self.close)
                    break
                if not (self._incoming.pending or tls.pending()):
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if not isinstance(error, ssl.SSLZeroReturnError):  # close_notify behind our own
                self.error = self._described(error)
            self._loop.call_soon(self.close)
        return length

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None:
            self._transport.write(self._outgoing.read())

    def _say_goodbye(self) -> None:
        with suppress(ssl.SSLError):  # the peer has not said so yet, and need not
            self._tls.unwrap()
        self._flush()

    # The side of the connection above: what it uses of an asyncio.Transport.

    def write(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._tls.write(data)
        except ssl.SSLError:
            return  # nothing can be said any more, and the connection is about to hear of it
        self._flush()

    def writelines(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send them in one piece: a record for each would be more work than to copy them."""
        self.write(b"".join(pieces))

    def can_write_eof(self) -> bool:
        """Return whether `write_eof` can be called."""
        return self._phase is _Phase.OPEN

    def write_eof(self) -> None:
        """Send close_notify, and nothing behind it."""
        self._say_goodbye()
        if self._transport is not None:
            self._transport.write_eof()

    def close(self) -> None:
        """Close in good order, when what was written has gone out; a handshake is cut off."""
        if self._phase is _Phase.HANDSHAKE:
            self._end_handshake(_Phase.CLOSED)
            self.abort()
        elif self._phase is _Phase.OPEN:
            self._say_goodbye()
            self._phase = _Phase.CLOSED
            if self._transport is not None:
                self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Deliver nothing more; at most what one read brought stays here."""
        self._is_held = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again."""
        self._is_held = False
        self._loop.call_soon(self._deliver)
        if self._transport is not None:
            self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes of records wait to go out."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from how many of them on the connection is to pause."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what is known of the connection by that name; `ssl_object` is what knows the peer's certificate."""
        if name == "ssl_object":
            return self._tls
        return default if self._transport is None else self._transport.get_extra_info(name, default)
