"""A proxy that makes the way long, narrow, or ending: every byte arrives later, at a limited rate, or not at all.

    uv run python -m bench.proxy LISTEN_PORT HOST PORT --delay 10ms [--rate 12.5MB] [--cut-after 1MB]

It listens on 127.0.0.1, connects to HOST for each connection that it takes, and holds back what comes by `--delay` in each
direction: half the round trip. As on a real line, nothing arrives before the three-way handshake would be over. SIGUSR1
cuts all connections, each with a reset. In a test, in the same event loop::

    async with delaying("127.0.0.1", server.port, round_trip=0.02) as proxy:
        async with aiodicom.associate("127.0.0.1", proxy.port) as association: ...
        proxy.cut()

It takes what is on its way: at most what fits into the delay at `rate`, or at 2 GB/s where that is not limited, and
1 MB more, on each connection in each direction. A sender is held back beyond that only, so that this is no window: TCP's
own lies before and behind it, on loopback, where it does not matter.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import signal
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import uvloop

LOOPBACK: Final = "127.0.0.1"
FASTEST: Final = 2e9  # bytes/s, what a line of no limit may have on its way
SLACK: Final = 1_000_000  # bytes
SHORTEST_WAIT: Final = 0.0005  # seconds: the loops' timers are no finer than a millisecond
LONGEST_PIECE: Final = 0.005  # seconds, of a rate: what is sent in one piece arrives in one piece
UNITS: Final = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, without waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What the way is like, in each direction.

    Args:
        delay: how much later everything arrives, in seconds.
        rate: how much arrives at most, in bytes/s, on each connection.
        cut_after: how many bytes go to the server before the connection is cut.
    """

    delay: float = 0.0
    rate: float = math.inf
    cut_after: float = math.inf

    @property
    def room(self) -> int:
        """How many bytes of a connection are held in one direction."""
        return int(min(self.rate, FASTEST) * self.delay) + SLACK

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Divide what came at once into what can arrive at once."""
        if self.rate == math.inf:
            yield data
        else:
            step = max(int(self.rate * LONGEST_PIECE), 1)
            yield from (data[start : start + step] for start in range(0, len(data), step))


class _Lane:
    """One direction of a connection: a queue of what to do when.

    Args:
        line: what the way is like.
        begin: when the handshake is over, in the event loop's time: nothing leaves before.
        cut_after: how many bytes are carried before `cut` is called.
        cut: cuts the connection.
    """

    def __init__(self, line: Line, begin: float, cut_after: float, cut: Callable[[asyncio.Transport], None]) -> None:
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self._line = line
        self._left = cut_after
        self._cut = cut
        self._departure = begin
        self._queue: deque[tuple[float, bytes | Callable[[asyncio.Transport], None]]] = deque()
        self._held = 0
        self._is_held_back = False  # the source
        self._is_full = False  # the target
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def put(self, data: bytes) -> None:
        """Send bytes on their way."""
        if self._left <= 0:
            return
        data = data if len(data) <= self._left else data[: int(self._left)]
        self._left -= len(data)
        for piece in self._line.pieces(data):
            self._append(piece, len(piece))
        self._held += len(data)
        if self._left <= 0:
            self._append(self._cut)
        if self._held > self._line.room and not self._is_held_back and self.source is not None:
            self._is_held_back = True
            self.source.pause_reading()
        self._go_on()

    def put_last(self, act: Callable[[asyncio.Transport], None]) -> None:
        """Do something with the target when all that came before has arrived there."""
        self._append(act)
        self._go_on()

    def lead_to(self, target: asyncio.Transport) -> None:
        """Say where it leads to; what came before has waited."""
        self.target = target
        self._go_on()

    def pause(self) -> None:
        """The target takes no more for now."""
        self._is_full = True

    def resume(self) -> None:
        """It does again."""
        self._is_full = False
        self._go_on()

    def end(self) -> None:
        """Forget what is on its way, and take nothing more."""
        self._left = 0
        self._queue.clear()
        self._held = 0
        if self._timer is not None:
            self._timer.cancel()

    def _append(self, item: bytes | Callable[[asyncio.Transport], None], length: int = 0) -> None:
        self._departure = max(self._departure, self._loop.time()) + length / self._line.rate
        self._queue.append((self._departure + self._line.delay, item))

    def _go_on(self) -> None:
        if self._timer is None and self._queue and self.target is not None:
            self._arrive(self.target)

    def _arrive(self, target: asyncio.Transport) -> None:
        """Hand over what has arrived; come back for the rest."""
        self._timer = None
        now = self._loop.time()
        while self._queue and not self._is_full:
            due, item = self._queue[0]
            if due > now + SHORTEST_WAIT:
                self._timer = self._loop.call_at(due, self._arrive, target)
                break
            self._queue.popleft()
            if isinstance(item, bytes):
                self._held -= len(item)
                target.write(item)
            else:
                item(target)
        if self._is_held_back and self.source is not None and self._held <= self._line.room // 2:
            self._is_held_back = False
            self.source.resume_reading()


class _End(asyncio.Protocol):
    """One end of a connection.

    Args:
        ahead: the direction away from it.
        back: the direction to it.
        on_made: told when it is connected.
        on_lost: told when it is not any more.
    """

    def __init__(
        self,
        ahead: _Lane,
        back: _Lane,
        on_made: Callable[[asyncio.Transport], None],
        on_lost: Callable[[asyncio.Transport], None],
    ) -> None:
        self._ahead = ahead
        self._back = back
        self._on_made = on_made
        self._on_lost = on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport.
        made = cast("asyncio.Transport", transport)
        made.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ahead.source = made
        self._back.lead_to(made)
        self._on_made(made)

    def data_received(self, data: bytes) -> None:
        self._ahead.put(data)

    def eof_received(self) -> bool:
        self._ahead.put_last(_end_writing)
        return True  # the other direction may go on

    def connection_lost(self, exc: Exception | None) -> None:
        self._back.end()
        self._ahead.put_last(_close if exc is None else _reset)
        self._on_lost(cast("asyncio.Transport", self._ahead.source))

    def pause_writing(self) -> None:
        self._back.pause()

    def resume_writing(self) -> None:
        self._back.resume()


def _end_writing(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.write_eof()


def _close(transport: asyncio.Transport) -> None:
    transport.close()


def _reset(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.abort()


class Proxy:
    """Listens, and carries connections over a line; see `delaying`.

    Attributes:
        port: where it listens.
        connections: how many connections it has taken so far.
    """

    def __init__(self, host: str, port: int, line: Line) -> None:
        self.port = 0
        self.connections = 0
        self._host = host
        self._target_port = port
        self._line = line
        self._transports: set[asyncio.Transport] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._all_gone = asyncio.Event()

    async def start(self, port: int) -> None:
        """Begin to listen; 0 takes a free port."""
        self._server = await asyncio.get_running_loop().create_server(self._accepted, LOOPBACK, port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset all connections at both ends, now."""
        for transport in tuple(self._transports):
            _reset(transport)

    async def stop(self) -> None:
        """Take no more connections, and cut those that there are."""
        assert self._server is not None
        self._server.close()
        for task in self._connecting:
            task.cancel()
        self.cut()
        while self._transports:
            self._all_gone.clear()
            await self._all_gone.wait()
        if self._connecting:
            await asyncio.wait(self._connecting)
        await self._server.wait_closed()

    def _accepted(self) -> _End:
        self.connections += 1
        begin = asyncio.get_running_loop().time() + 2 * self._line.delay
        ends: list[asyncio.Transport] = []

        def cut(_: asyncio.Transport) -> None:
            for end in ends:
                _reset(end)

        def made(transport: asyncio.Transport) -> None:
            ends.append(transport)
            self._transports.add(transport)
            if len(ends) == 1:
                task = asyncio.get_running_loop().create_task(self._connect(transport, _End(back, there, made, lost)))
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)

        def lost(transport: asyncio.Transport) -> None:
            self._transports.discard(transport)
            self._all_gone.set()

        there = _Lane(self._line, begin, self._line.cut_after, cut)
        back = _Lane(self._line, begin, math.inf, cut)
        return _End(there, back, made, lost)

    async def _connect(self, client: asyncio.Transport, end: _End) -> None:
        """Connect to the server for a client that has come."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: end, self._host, self._target_port)
        except OSError:
            _reset(client)


@asynccontextmanager
async def delaying(
    host: str,
    port: int,
    *,
    round_trip: float = 0.0,
    rate: float = math.inf,
    cut_after: float = math.inf,
    listen_port: int = 0,
) -> AsyncIterator[Proxy]:
    """Listen on a port of 127.0.0.1, and carry what connects there to a server, over a long line.

    Args:
        host: of the server.
        port: of the server.
        round_trip: how long a byte takes there and back, in seconds.
        rate: see `Line`.
        cut_after: likewise.
        listen_port: where to listen; 0 takes a free port, `Proxy.port` says which.
    """
    proxy = Proxy(host, port, Line(delay=round_trip / 2, rate=rate, cut_after=cut_after))
    await proxy.start(listen_port)
    try:
        yield proxy
    finally:
        await proxy.stop()


def quantity(text: str) -> float:
    """Return a number with a unit, 10ms or 12.5MB, in seconds or bytes.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([\d.]+)([a-zA-Z]*)", text)
    if found is None or found[2] not in UNITS:
        raise ValueError(f"{text!r} is no quantity: say 10ms, 0.5s, 300KB, 12.5MB")
    return float(found[1]) * UNITS[found[2]]


def main() -> None:
    """Carry connections until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m bench.proxy", description=__doc__.split("\n", 1)[0])
    parser.add_argument("listen_port", type=int, help="0 takes a free port, which is printed")
    parser.add_argument("host", help="where it leads to")
    parser.add_argument("port", type=int, help="likewise")
    parser.add_argument(
        "--delay", type=quantity, default=0.0, help="in each direction, half the round trip, such as 10ms"
    )
    parser.add_argument(
        "--rate", type=quantity, default=math.inf, help="bytes a second in each direction, such as 12.5MB"
    )
    parser.add_argument(
        "--cut-after",
        type=quantity,
        default=math.inf,
        metavar="BYTES",
        help="cut each connection after so many, such as 1MB",
    )
    arguments = parser.parse_args()
    try:
        uvloop.run(_serve(arguments))
    except OSError as error:
        parser.exit(1, f"cannot listen on port {arguments.listen_port}: {error}\n")


async def _serve(arguments: argparse.Namespace) -> None:
    ended = asyncio.Event()
    way = {"round_trip": 2 * arguments.delay, "rate": arguments.rate, "cut_after": arguments.cut_after}
    async with delaying(arguments.host, arguments.port, listen_port=arguments.listen_port, **way) as proxy:
        for number, act in ((signal.SIGTERM, ended.set), (signal.SIGINT, ended.set), (signal.SIGUSR1, proxy.cut)):
            asyncio.get_running_loop().add_signal_handler(number, act)
        print(f"{LOOPBACK}:{proxy.port} leads to {arguments.host}:{arguments.port}", flush=True)
        await ended.wait()


if __name__ == "__main__":
    main()
