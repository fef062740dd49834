"""A server without a socket and without a clock: peers are lines in memory, and time passes when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import pytest

from aiodicom import Server
from aiodicom.transport import Connection
from tests.loopback import request_pdu

START: Final = 1000.0


class Timer:
    """What `call_at` returns."""

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self._when = when
        self.callback: Callable[[], object] | None = callback

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.callback = None


class Clockwork:
    """The running event loop, but for its time: only `pass_by` makes it pass."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now = START
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the loop has
        return getattr(self._loop, name)

    def __hash__(self) -> int:
        return hash(self._loop)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._loop

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object) -> Timer:
        timer = Timer(when, lambda: callback(*arguments))
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> Timer:
        return self.call_at(self._now + delay, callback, *arguments)

    async def pass_by(self, seconds: float) -> None:
        """Let that time pass, and whatever is due in it happen."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._now, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
                await turns()
        self._now = end
        await turns()

    @property
    def pending(self) -> int:
        """How many timers there are."""
        return sum(timer.callback is not None for _, _, timer in self._timers)


async def turns() -> None:
    """Let the event loop come round some times."""
    for _ in range(5):
        await asyncio.sleep(0)


class Line(asyncio.Transport):
    """A transport connection to a server, in memory, as the server has it; and what its peer does with it."""

    def __init__(self, server: Server, address: str = "10.0.0.1") -> None:
        super().__init__({"peername": (address, 50_000)})
        self.heard = bytearray()
        self.is_open = True
        self.is_held = False
        self.takes = True
        self._unsent = 0
        protocol = server._connection(None)
        assert isinstance(protocol, Connection)
        self.connection = protocol
        protocol.connection_made(self)

    # The peer.

    def say(self, *parts: bytes) -> None:
        """Let bytes arrive, unless the server holds them up or has closed."""
        data = b"".join(parts)
        while data and self.is_open and not self.is_held:
            buffer = self.connection.get_buffer(-1)
            length = min(len(data), len(buffer))
            buffer[:length] = data[:length]
            data = data[length:]
            self.connection.buffer_updated(length)

    def associate(self, **options: Any) -> None:  # noqa: ANN401
        """Ask for an association, and get it."""
        self.say(request_pdu(**options))
        assert self.heard[:1] == b"\2", self.heard.hex()
        self.heard.clear()

    def close(self) -> None:
        """Close it; both ends may."""
        if self.is_open:
            self.is_open = False
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    # The server.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.takes:
            self.heard += data
        else:
            self._unsent += len(data)

    def writelines(self, pieces: Any) -> None:  # noqa: ANN401 - asyncio's
        for piece in pieces:
            self.write(piece)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.is_held = True

    def resume_reading(self) -> None:
        self.is_held = False


@contextmanager
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clockwork]:
    """Let connections and associations that begin from now on live by that clock."""
    clock = Clockwork(asyncio.get_running_loop())
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "get_running_loop", lambda: clock)
        yield clock
