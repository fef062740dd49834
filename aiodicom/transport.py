"""The transport connection: an asyncio transport ⇄ an `UpperLayer` (PS3.8 §9.1).

Bytes arrive in one buffer that all connections of an event loop share: they are consumed before the next read, so a
connection that is idle holds none. What the upper layer has to say is written at once; what it makes of the bytes goes
to a `Receiver`, synchronously.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, cast
from weakref import WeakKeyDictionary

from aiodicom.errors import OperationTimeout
from aiodicom.limits import Timeouts
from aiodicom.upper_layer.provider import UpperLayer, UpperLayerEvent
from aiodicom.upper_layer.state_machine import State

RECEIVE_BUFFER_SIZE: Final = 256 * 1024
WRITE_BATCH: Final = 1024 * 1024
"""How much is given to the transport at once, in bytes."""

WRITE_HIGH: Final = 128 * 1024
"""Whoever writes waits while the transport holds more than this, in bytes: what a peer costs that does not read."""

GLIBC_LESSON: Final = 8 * 1024 * 1024
"""How large a block the memory allocator is shown, in bytes: see `_receive_buffer_for`."""

DISCARD_LIMIT: Final = 64 * 1024
"""How much a peer may still send after the end of its association, in bytes, before the connection is closed on it."""

JOINED_WRITE: Final = 4096
"""Up to this many bytes it takes less time to copy them into one piece than to write several."""

GATHERED_WRITE: Final = 64 * 1024
"""Up to this many bytes of small messages wait for each other, until the event loop comes round, to go out in one write."""

_RESET: Final = struct.pack("ii", 1, 0)
_COUNT: Final = struct.Struct("i")
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux only

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

    _OUT_QUEUE: Final[int | None] = TIOCOUTQ
else:
    _OUT_QUEUE = None

_receive_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _receive_buffer_for(loop: asyncio.AbstractEventLoop) -> memoryview:
    # What a data set brings is copied, used and freed, a megabyte and more at a time. glibc returns so much to the system
    # at once, and gets it back page by page, which takes ten times as long as the copying; unless it once saw a larger
    # block come and go, which is what this makes it see.
    bytes(GLIBC_LESSON)
    buffer = _receive_buffers[loop] = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
    return buffer


class Receiver(Protocol):
    """Whoever acts upon the events of an upper layer."""

    def event_received(self, event: UpperLayerEvent) -> None:
        """Act upon one event; the data of a PDV is valid during this call alone."""

    def connection_closed(self) -> None:
        """The transport connection is gone; the upper layer's last events came before."""

    @property
    def inside_message(self) -> bool:
        """Whether the peer has begun a message and not ended it."""

    @property
    def awaits_answer(self) -> bool:
        """Whether the peer owes us something, so that it has more to say before it is our turn."""


class Pace:
    """How fast a peer sends what it has begun: a PDU, a message, or one behind the other.

    It is looked at after each read, which costs next to nothing, and judged from time to time.

    Attributes:
        is_open: whether something has begun and not ended.
        since: from when on it is measured, in the event loop's time.
    """

    __slots__ = ("_bytes", "is_open", "since")

    def __init__(self) -> None:
        self.is_open = False
        self.since = 0.0
        self._bytes = 0

    def turn(self, is_open: bool, now: float, received: int) -> None:
        """Something has begun, or all that had begun has ended, when so many bytes had come."""
        self.is_open = is_open
        self.since, self._bytes = now, received

    def judge(self, now: float, received: int) -> float:
        """Return how many bytes a second came, and measure anew from now on."""
        rate = (received - self._bytes) / max(now - self.since, 1e-9)
        self.since, self._bytes = now, received
        return rate


class Connection(asyncio.BufferedProtocol):
    """One transport connection and its upper layer.

    Args:
        upper_layer: the end of the association that it carries.
        timeouts: `artim` and `close` are the lengths of ARTIM, in Sta2 and Sta13; `send` bounds how long a peer may take none
            of what we write.

    Attributes:
        receiver: who gets the events; to be assigned before the connection is made, and whenever it changes.
        is_closed: whether the transport connection is gone.
        loss: why it is gone, where something went wrong; None where one end closed it.
        on_opened: called with the transport as soon as it is there, before TLS; it may close it.
        on_closed: called when the transport connection is gone, after the receiver was told.
        bytes_received: how many bytes have come.
        bytes_sent: how many were given to the transport.
        last_received: when bytes last came, in the event loop's time.
        last_resumed: when `resume_reading` last let them come again, likewise.
        pace: how fast the peer sends what it has begun.
    """

    receiver: Receiver

    def __init__(self, upper_layer: UpperLayer, timeouts: Timeouts) -> None:
        self.upper_layer = upper_layer
        self.timeouts = timeouts
        self.loss: Exception | None = None
        self.on_opened: Callable[[asyncio.Transport], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self.bytes_received = 0
        self.bytes_sent = 0
        self.last_received = self.last_resumed = 0.0
        self.pace = Pace()
        self._loop = asyncio.get_running_loop()
        self._buffer = _receive_buffers.get(self._loop) or _receive_buffer_for(self._loop)
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._artim: asyncio.TimerHandle | None = None
        self._artim_starts = 0
        self._cut_off: asyncio.TimerHandle | None = None
        self._ended = False  # nothing more can be written
        self._is_cut = False
        self._gathered = 0  # bytes that wait for `flush`
        self._discarded = 0
        self._holds = 0
        # Events only while somebody may wait for them: an idle connection has none.
        self._resumed: asyncio.Event | None = None
        self._gone: asyncio.Event | None = None
        self.is_closed = False

    # asyncio's side.

    def transport_opened(self, transport: asyncio.Transport) -> None:
        """Know of a transport before the connection is made: in a TLS handshake."""
        self._transport = transport
        if self.on_opened is not None:
            self.on_opened(transport)
        if self._is_cut:  # now, or before there was anything to cut
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport, so this cannot be asserted.
        transport = cast("asyncio.Transport", transport)
        if self._transport is None:
            self.transport_opened(transport)
            if self._is_cut:
                return
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._set_up_socket(transport.get_extra_info("socket"))
        self.last_received = self._loop.time()
        self.upper_layer.transport_connected()
        self.flush()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.last_received = now = self._loop.time()
        self.bytes_received += nbytes
        if self.upper_layer.state is State.STA13:
            self._discarded += nbytes
            if self._discarded > DISCARD_LIMIT:
                self.close()
        upper_layer = self.upper_layer
        upper_layer.receive_data(self._buffer[:nbytes])
        self.flush()
        is_open = upper_layer.inside_pdu or self.receiver.inside_message
        if is_open is not self.pace.is_open:
            self.pace.turn(is_open, now, self.bytes_received)
        if self._socket is not None and (is_open or self.receiver.awaits_answer) and _QUICK_ACK is not None:
            # The kernel forgets this after each read. Without it, a peer that leaves Nagle's algorithm on waits 40 ms
            # for our delayed acknowledgement between its command and its data set. What we say next acknowledges the
            # end of its message, and a packet of its own would cost as much as all the rest.
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def eof_received(self) -> bool:
        # DICOM has no half-open associations: close, and let connection_lost say so (Evt17).
        return False

    def pause_writing(self) -> None:
        self._resumed = asyncio.Event()

    def resume_writing(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.loss = exc
        self.is_closed = self._ended = True
        if self._cut_off is not None:
            self._cut_off.cancel()
        self.resume_writing()
        if self._gone is not None:
            self._gone.set()
        self._let_go_of_socket()
        self.upper_layer.transport_closed()
        self.flush()
        self.receiver.connection_closed()
        if self.on_closed is not None:
            self.on_closed()

    # The owner's side.

    def flush(self) -> None:
        """Do what the upper layer asks for; to be called after every request made of it."""
        upper_layer = self.upper_layer
        if out := upper_layer.data_to_send():
            self._write(out)
        for event in upper_layer.events():
            self.receiver.event_received(event)
        if upper_layer.artim_starts != self._artim_starts or (self._artim and not upper_layer.artim_running):
            self._follow_artim()
        if upper_layer.must_close:
            self.close()

    def _write(self, out: list[bytes | memoryview]) -> None:
        if self._transport is None or self._ended:
            return
        length = sum(map(len, out))
        self.bytes_sent += length
        if length <= JOINED_WRITE:
            self._transport.write(b"".join(out))
        else:
            self._transport.writelines(out)
            # Python 3.12 and 3.13 forget to look whether that was too much; this makes them look.
            self._transport.set_write_buffer_limits(high=WRITE_HIGH)

    def flush_soon(self, length: int) -> None:
        """Do so when the event loop comes round, or now where there is enough to write.

        Args:
            length: of the message that was given to the upper layer, in bytes.
        """
        if not self._gathered:
            self._loop.call_soon(self._flush_gathered)
        self._gathered += length
        if self._gathered >= GATHERED_WRITE:
            self.flush()
            self._gathered = 1  # nothing, but the loop will look

    def _flush_gathered(self) -> None:
        self._gathered = 0
        self.flush()

    @property
    def is_writable(self) -> bool:
        """Whether the transport takes more now."""
        return self._resumed is None

    @property
    def unsent(self) -> int:
        """How many bytes were written that the peer's side has not taken yet; on Linux also of those that the system has."""
        if self._transport is None or self.is_closed:
            return 0
        return self._transport.get_write_buffer_size() + _held_by_system(self.extra_info("socket"))

    async def drain(self) -> None:
        """Wait until the transport takes more.

        Raises:
            OperationTimeout: the peer took nothing for so long as `send` says.
        """
        while self._resumed is not None:
            waiting = self.unsent
            try:
                async with asyncio.timeout(self.timeouts.send):
                    await self._resumed.wait()
            except TimeoutError:
                if self.unsent >= waiting:
                    raise OperationTimeout("send", self.timeouts.send, "the peer has stopped reading") from None

    def pause_reading(self) -> None:
        """Let TCP hold the peer back, until `resume_reading` was called as often as this."""
        self._holds += 1
        if self._holds == 1 and self._transport is not None and not self.is_closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take one `pause_reading` back."""
        self._holds -= 1
        if self._holds == 0 and self._transport is not None and not self.is_closed:
            self.last_received = self.last_resumed = self._loop.time()  # the silence was of our making
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the transport connection, after what was written has gone out; a peer that reads nothing is cut off."""
        if self._transport is not None and self._cut_off is None and not self.is_closed:
            self._let_go_of_socket()  # uvloop says no more of a connection whose maker was cancelled
            self._transport.close()
            self._cut_off = self._loop.call_later(self.timeouts.close, self.cut)

    def cut(self) -> None:
        """Close the transport connection at once; what was not yet written is lost."""
        self._is_cut = True
        if self.unsent > JOINED_WRITE:  # and not just our last word, which may be on its way
            self._forget_unsent()
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the transport connection is gone."""
        if not self.is_closed:
            self._gone = self._gone or asyncio.Event()
            await self._gone.wait()

    @property
    def is_opened(self) -> bool:
        """Whether there is, or was, a transport: else it is about to come, or never does."""
        return self._transport is not None

    @property
    def is_held(self) -> bool:
        """Whether reading is paused by us."""
        return self._holds > 0

    def extra_info(self, name: str) -> object:
        """Return what the asyncio transport knows by that name: peername, sockname, ssl_object, …; None if nothing."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    def _forget_unsent(self) -> None:
        """Let the system forget, too, what a peer does not read: it would else keep it for minutes."""
        with suppress(OSError, AttributeError):  # it is gone, or none
            self.extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # type: ignore[attr-defined]

    def _set_up_socket(self, known: socket.socket | None) -> None:
        """Keep the socket for its options: asyncio's and uvloop's stand-ins for it make a new object for each call."""
        if known is None or known.family not in (socket.AF_INET, socket.AF_INET6):
            return
        # The descriptor stays the transport's: connection_lost detaches it, and never closes it.
        self._socket = socket.socket(known.family, known.type, known.proto, fileno=known.fileno())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _let_go_of_socket(self) -> None:
        if self._socket is not None:
            self._socket.detach()
            self._socket = None

    def _follow_artim(self) -> None:
        if self._artim is not None:
            self._artim.cancel()
            self._artim = None
        self._artim_starts = self.upper_layer.artim_starts
        if not self.upper_layer.artim_running or self.is_closed:
            return
        waits_for_close = self.upper_layer.state is State.STA13
        self._artim = self._loop.call_later(
            self.timeouts.close if waits_for_close else self.timeouts.artim, self._artim_expired
        )
        if waits_for_close and self._transport is not None:
            # Nothing follows our last PDU. To say so lets the peer close first; to close first ourselves, with bytes of
            # the peer unread, would send a reset that may swallow that PDU (PS3.8 §9.1.1).
            self._ended = True
            if self._transport.can_write_eof():
                with suppress(OSError):  # the peer is gone, and we are about to hear of it
                    self._transport.write_eof()
            self._transport.resume_reading()

    def _artim_expired(self) -> None:
        self.upper_layer.artim_expired()
        self.cut()  # a peer that does not read would hold up a close that waits for the last bytes
        self.flush()


def _held_by_system(known: object) -> int:
    """Return how many bytes of a socket's the other side's system has not acknowledged; 0 where ours does not tell."""
    if _OUT_QUEUE is None or not isinstance(descriptor := getattr(known, "fileno", lambda: None)(), int):
        return 0
    try:
        (count,) = _COUNT.unpack(ioctl(descriptor, _OUT_QUEUE, bytes(_COUNT.size)))
    except OSError:  # no socket of TCP, or none any more
        return 0
    return int(count)
