"""The proxy of the bench: what comes through it, when at the earliest, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from aiodicom import associate
from aiodicom.uids import VERIFICATION
from bench.proxy import SLACK, Proxy, delaying, quantity
from tests.loopback import RawPeer, raw_server, serving

ROUND_TRIP = 0.05
# What two sockets, their buffers and the proxy may hold of one connection, generously.
MOST_HELD = 64 * 1024 * 1024


@asynccontextmanager
async def through(script: Any, **options: Any) -> AsyncIterator[tuple[RawPeer, Proxy]]:  # noqa: ANN401
    """A connection through a proxy to a server that follows a script."""
    async with raw_server(script) as server, delaying("127.0.0.1", server.port, **options) as proxy:
        peer = RawPeer(*await asyncio.open_connection("127.0.0.1", proxy.port))
        try:
            yield peer, proxy
        finally:
            await peer.close()


async def echo(peer: RawPeer) -> None:
    """A script: say what is heard."""
    peer.send(await peer.rest())
    await peer.writer.drain()
    peer.writer.write_eof()
    await peer.reader.read()


@pytest.mark.parametrize("options", [{}, {"round_trip": 0.01}, {"rate": 50e6}], ids=str)
async def test_everything_comes_through_both_ways_in_order(options: dict[str, float]) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(250_000))
    async with through(echo, **options) as (peer, _):
        peer.send(data)
        peer.writer.write_eof()
        assert await peer.rest() == data


async def test_nothing_comes_early() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as server, delaying("127.0.0.1", server.port, round_trip=ROUND_TRIP) as proxy:
        begun = loop.time()
        async with associate("127.0.0.1", proxy.port, contexts=[VERIFICATION], observers=()) as association:
            opened = loop.time()
            await association.c_echo()
            echoed = loop.time()
        assert loop.time() - echoed > 0.9 * ROUND_TRIP  # the release
    assert echoed - opened > 0.9 * ROUND_TRIP
    assert opened - begun > 1.9 * ROUND_TRIP  # TCP's handshake, and ours


async def test_a_rate_holds_back() -> None:
    loop = asyncio.get_running_loop()
    async with through(echo, rate=10e6) as (peer, _):
        begun = loop.time()
        peer.send(bytes(1_000_000))
        peer.writer.write_eof()
        assert len(await peer.rest()) == 1_000_000
        assert loop.time() - begun > 0.9 * 0.2  # there and back


async def test_a_peer_that_does_not_read_holds_the_sender_back_and_no_one_else_does() -> None:
    go = asyncio.Event()

    async def wait_and_read(peer: RawPeer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go.wait()
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        peer.send(str(len(await peer.rest())).encode())
        await peer.writer.drain()

    async with through(wait_and_read, round_trip=0.01) as (peer, _):
        written = 0
        with suppress(TimeoutError):
            while written < MOST_HELD:
                peer.send(bytes(1_000_000))
                written += 1_000_000
                async with asyncio.timeout(1):
                    await peer.writer.drain()
        assert written < MOST_HELD
        assert written > 10_000_000 + SLACK  # 5 ms of 2 GB/s
        go.set()
        await peer.writer.drain()
        peer.writer.write_eof()
        assert int(await peer.rest()) == written


async def test_cut_on_request() -> None:
    async def listen(peer: RawPeer) -> None:
        peer.send(b"here")
        with pytest.raises(ConnectionResetError):
            await peer.rest()

    async with through(listen) as (peer, proxy):
        assert await peer.reader.readexactly(4) == b"here"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await peer.rest()
        assert proxy.connections == 1


async def test_cut_after_so_many_bytes() -> None:
    heard = b""

    async def listen(peer: RawPeer) -> None:
        nonlocal heard
        with suppress(ConnectionResetError):
            while byte := await peer.reader.read(1):
                heard += byte

    async with through(listen, cut_after=1000, round_trip=0.01) as (peer, _):
        peer.send(bytes(700))
        await peer.writer.drain()
        peer.send(bytes(700))
        with pytest.raises(ConnectionResetError):
            await peer.rest()
    assert len(heard) <= 1000  # a reset may overtake what was sent before it


async def test_nobody_behind_it() -> None:
    async with serving() as server:
        port = server.port
    async with delaying("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_as_a_program() -> None:
    async with serving() as server:
        command = (sys.executable, "-m", "bench.proxy", "0", "127.0.0.1", str(server.port), "--delay", "1ms")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            where = (await process.stdout.readline()).split()[0]
            port = int(where.rpartition(b":")[2])
            async with associate("127.0.0.1", port, contexts=[VERIFICATION], observers=()) as association:
                assert (await association.c_echo()).status == 0
        finally:
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("text", "number"), [("10ms", 0.01), ("0.5s", 0.5), ("12.5MB", 12.5e6), ("7", 7), ("1KB", 1e3)]
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "ms", "10 ms", "-1ms", "10parsec", "1.2.3s"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|float"):
        quantity(text)
