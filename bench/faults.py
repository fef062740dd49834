"""Faults of the network and of peers: stalls, dead readers, floods of connections, a clock that jumps.

    uv run python -m bench.faults            # some six minutes
    uv run python -m bench.faults --only stalls connections

The server has the limits that there are by default. A good peer sends C-ECHOs beside, from a process of its own, and what
they take is measured. Where libfaketime is installed (Debian package `faketime`), it is what lets the clock jump; else it
is `time.time` that does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CEchoRQ
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import ImplementationClassUID, MaximumLength, PresentationContextRQ
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ, PDataTF
from aiodicom.version import IMPLEMENTATION_CLASS_UID
from bench import proc
from bench.archives import AE_TITLE
from bench.case import KB, MB
from bench.client import allow_many_sockets
from bench.crowd import Place, python
from bench.crowd_client import slow_association, slow_message
from bench.peers import PYTHON
from bench.processes import LOOPBACK, MEMORY, BenchError, Command, Cores, Server, free_port, serving
from bench.report import row_table
from bench.results import Row

ROWS: Final = 100_000
INSTANCES: Final = 1000
STALLED: Final = 64
READERS: Final = 32
CONNECTIONS: Final = 10_000
AT_A_TIME: Final = 200
FEW_FILES: Final = 64
SLACK: Final = 0.5  # seconds
FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")

_CONTEXTS: Final = (PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),)
_INFORMATION: Final = (MaximumLength(0), ImplementationClassUID(IMPLEMENTATION_CLASS_UID))
REQUEST: Final = AAssociateRQ(AE_TITLE, "FAULT", _CONTEXTS, _INFORMATION).encode()
_ECHO: Final = encode_command(CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION), has_data_set=False)
ECHO: Final = PDataTF((PDV(1, is_command=True, is_last=True, data=_ECHO),)).encode()


# Peers that stall (F4), also while the clock jumps (F11).


async def stall(kind: str, address: str, port: int) -> tuple[str, float]:
    """Be one of them; return what kind it was, and how many seconds late the server ended it."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port, local_addr=(address, 0))
    begun, limit, end = time.monotonic(), DEFAULT_LIMITS.artim, b""
    if kind == "slow loris":
        trickling = asyncio.create_task(trickle(writer))
    if kind in ("inside a PDU", "idle"):
        writer.write(REQUEST)
        header = await reader.readexactly(6)
        await reader.readexactly(int.from_bytes(header[2:]))
        begun, limit, end = time.monotonic(), DEFAULT_LIMITS.idle or 0, bytes.fromhex("070000000004 0000 02 00")
    if kind == "inside a PDU":
        writer.write(ECHO[:16])
        limit = DEFAULT_LIMITS.stall
    said = b""
    with suppress(ConnectionResetError):
        said = await reader.read(10)
    late = time.monotonic() - begun - limit
    writer.transport.abort()
    if kind == "slow loris":
        trickling.cancel()
    if said != end:
        raise BenchError(f"who stalled ({kind}) was told {said.hex() or 'nothing'}")
    return kind, late


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Send a byte each second."""
    for byte in REQUEST:
        writer.write(bytes((byte,)))
        await asyncio.sleep(1)


STALLS: Final = ("silent", "slow loris", "inside a PDU", "idle")


async def all_stall(port: int, count: int) -> list[tuple[str, float]]:
    """Let so many stall at once, from several addresses."""
    peers = [stall(STALLS[number % 4], f"127.0.1.{number // 16 + 1}", port) for number in range(count)]
    return await asyncio.gather(*peers)


def stalls(place: Place) -> Iterator[Row]:
    """Peers that stall, and what a good one notices."""
    with server_of(place) as server:
        yield from _stalls(place, server, f"{STALLED} peers that stall", STALLED)


def clock(place: Place) -> Iterator[Row]:
    """The same while the clock on the wall jumps by a day, either way, twice a second."""
    with server_of(place, "--jump") as server:
        yield from _stalls(place, server, "time.time jumps by ± 1 day", 16)
    if FAKETIME.exists():
        with tempfile.NamedTemporaryFile("w") as file:
            fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": file.name, "FAKETIME_NO_CACHE": "1"}
            with server_of(place, environment={**fake, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}) as server:
                jumping = partial(_jump, Path(file.name))
                yield from _stalls(place, server, "libfaketime: CLOCK_REALTIME jumps by ± 1 day", 16, jumping)


async def _jump(file: Path) -> None:
    days = 1
    while True:
        await asyncio.to_thread(file.write_text, f"{days:+d}d\n", encoding="utf-8")
        await asyncio.sleep(SLACK)
        days = -days


def _stalls(
    place: Place,
    server: Server,
    case: str,
    count: int,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Iterator[Row]:
    async def both() -> tuple[list[tuple[str, float]], list[float]]:
        jumping = asyncio.create_task(beside()) if beside else None
        seconds = int(DEFAULT_LIMITS.idle or 0)
        echos = asyncio.to_thread(place.times, "echo", server, seconds)
        ends, times = await asyncio.gather(all_stall(server.port, count), echos)
        if jumping is not None:
            jumping.cancel()
        return ends, times

    ends, times = uvloop.run(both())
    for kind in STALLS:
        late = [seconds for which, seconds in ends if which == kind]
        worst = max(late, key=abs)
        yield Row(case, f"{kind}: ended", f"{worst:+.3f} s at worst", f"± {SLACK} s", abs(worst) <= SLACK)
    yield good(case, times, 0.020)


# Readers that are slow, or dead (F6).


def readers(place: Place) -> Iterator[Row]:
    """Peers that ask for much and read a kilobyte a second, or nothing."""
    with server_of(place) as server:
        place.times("echo", server, 1)
        before = proc.memory(server.pid)
        peers = [Reader(number, server.port, place.medium) for number in range(READERS)]
        begun, most = time.monotonic(), 0
        times: list[float] = []
        while (passed := time.monotonic() - begun) < 50 and any(peer.ended is None for peer in peers if peer.is_dead):
            for peer in peers:
                peer.go_on(passed)
            most = max(most, proc.memory(server.pid) - before)
            times += place.times("echo", server, 1)
        ends = [peer.ended for peer in peers if peer.is_dead and peer.ended is not None]
        slow = sum(peer.ended is None for peer in peers if not peer.is_dead)
        for peer in peers:
            peer.close()
    case = f"{READERS} slow or dead readers of {ROWS:,} matches and {INSTANCES:,} × 512 KB"
    yield Row(case, "memory of the SCP, at most", f"+{most / MB:.0f} MB", "< 64 MB", most < 64 * MB)
    yield Row(case, "memory each", f"{most / READERS / KB:,.0f} KB", "≤ 1 MB", most <= READERS * MB)
    words = f"{min(ends):.0f} to {max(ends):.0f} s, all {len(ends)}" if ends else "never"
    yield Row(
        case, "who reads nothing is cut off after", words, "30 s + 5 s", len(ends) == READERS // 2 and max(ends) < 40
    )
    yield Row(case, "who reads 1 KB/s is served still", f"{slow} of {READERS // 2}")
    yield good(case, sorted(times), 0.020)


class Reader:
    """One that asks, from one of several addresses."""

    def __init__(self, number: int, port: int, instance: Path) -> None:
        self.is_dead = number % 2 == 0
        self.ended: float | None = None
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.bind((f"127.0.2.{number // 16 + 1}", 0))
        self._socket.connect((LOOPBACK, port))
        self._socket.sendall(slow_association().encode())
        header = self._socket.recv(6, socket.MSG_WAITALL)
        self._socket.recv(int.from_bytes(header[2:]), socket.MSG_WAITALL)
        self._socket.sendall(slow_message("slow-find" if number % 4 < 2 else "slow-get", instance))
        self._read = 0
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLRDHUP)

    def go_on(self, passed: float) -> None:
        """Read what is due after so many seconds, and see whether it is over."""
        if self.ended is None and self._poll.poll(0):
            self.ended = passed
        if not self.is_dead and self.ended is None:
            with suppress(BlockingIOError):
                self._read += len(self._socket.recv(max(int(passed * KB) - self._read, 1), socket.MSG_DONTWAIT))

    def close(self) -> None:
        """Go."""
        self._socket.close()


# Connections that say nothing (F7).


def connections(place: Place) -> Iterator[Row]:
    """Ten thousand of them, from one address and from many; then few descriptors."""
    for addresses in (1, 250):
        with server_of(place) as server:
            yield from _flood(place, server, addresses)
    with server_of(place, "--files", str(FEW_FILES)) as server:
        yield from _scarce(server)


def _flood(place: Place, server: Server, addresses: int) -> Iterator[Row]:
    case = f"{CONNECTIONS:,} silent connections from {addresses} address{'es' if addresses > 1 else ''}"
    before = proc.memory(server.pid)

    async def both() -> tuple[Flood, list[float]]:
        flood = Flood(server.port, addresses)
        await flood.begin()
        await asyncio.sleep(1)
        flood.measure(server, before)
        times = await asyncio.to_thread(place.times, "open", server, 200)
        await flood.end()
        return flood, times

    flood, times = uvloop.run(both())
    cap = DEFAULT_LIMITS.maximum_connections if addresses > 1 else DEFAULT_LIMITS.maximum_connections_per_address
    yield Row(case, "accepted, or turned away", f"{CONNECTIONS / flood.seconds:,.0f}/s")
    yield Row(case, "held a second after the last", f"{flood.held:,}", f"≤ {cap:,}", flood.held <= cap)
    yield Row(case, "memory each, of those held", f"{flood.memory / max(flood.held, 1) / KB:.1f} KB")
    late = flood.gone - DEFAULT_LIMITS.artim
    yield Row(case, "all gone, behind ARTIM", f"{late:+.2f} s", "≤ 1 s", late <= 1)
    yield good(case, times, 0.250, "a new association and a C-ECHO on it")


class Flood(asyncio.Protocol):
    """Connections that say nothing."""

    def __init__(self, port: int, addresses: int) -> None:
        self.seconds = self.gone = 0.0
        self.held = self.memory = 0
        self._port = port
        self._addresses = addresses
        self._open: set[asyncio.BaseTransport] = set()
        self._fewer = asyncio.Event()
        self._last = 0.0
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def begin(self) -> None:
        """Open them, as fast as they are taken."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(self._connect(f"127.0.3.{number % self._addresses + 1}"))
        self._last = time.monotonic()
        self.seconds = self._last - begun

    async def _connect(self, address: str) -> None:
        async with self._turns:
            with suppress(ConnectionError):
                await asyncio.get_running_loop().create_connection(
                    lambda: _Silent(self._open, self._fewer), LOOPBACK, self._port, local_addr=(address, 0)
                )

    def measure(self, server: Server, before: int) -> None:
        """See how many are left, and what they cost."""
        self.held, self.memory = len(self._open), proc.memory(server.pid) - before

    async def end(self) -> None:
        """Wait until the server has closed them all."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + 2 * DEFAULT_LIMITS.artim):
                while self._open:
                    self._fewer.clear()
                    await self._fewer.wait()
        self.gone = time.monotonic() - self._last
        if self._open:
            raise BenchError(f"{len(self._open)} silent connections are still open")


class _Silent(asyncio.Protocol):
    def __init__(self, others: set[asyncio.BaseTransport], fewer: asyncio.Event) -> None:
        self._others = others
        self._fewer = fewer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._others.add(transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._others.discard(self._transport)
        self._fewer.set()


def _scarce(server: Server) -> Iterator[Row]:
    """Fewer descriptors than connections: who comes is not served, and is when there are some again."""
    case = f"RLIMIT_NOFILE of {FEW_FILES}, {2 * FEW_FILES} silent connections"
    silent = [socket.create_connection((LOOPBACK, server.port)) for _ in range(2 * FEW_FILES)]
    begun, limit = time.monotonic(), 3 * DEFAULT_LIMITS.artim
    while not (accepted := _accepted(server.port)) and time.monotonic() - begun < limit:
        time.sleep(SLACK)
    seconds = time.monotonic() - begun
    for each in silent:
        each.close()
    words = f"after {seconds:.1f} s" if accepted else "never"
    yield Row(case, "the next one is accepted", words, f"< {limit:g} s", accepted and seconds < limit)


def _accepted(port: int) -> bool:
    """Return whether an association is."""
    with suppress(OSError), socket.create_connection((LOOPBACK, port)) as connection:
        connection.settimeout(DEFAULT_LIMITS.associate)
        connection.sendall(REQUEST)
        return connection.recv(1) == b"\2"
    return False


# What they share.


def good(case: str, times: Sequence[float], limit: float, what: str = "C-ECHO of a good peer") -> Row:
    """Return the row of a good peer's times, which are in order."""
    value = times[int(0.99 * (len(times) - 1))]
    words = f"{value * 1e3:.1f} ms, the longest {times[-1] * 1e3:.1f} ms"
    return Row(case, f"{what}, 99th percentile", words, f"< {limit * 1e3:g} ms", value < limit)


@contextmanager
def server_of(place: Place, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Keep the server running."""
    port, own = free_port(), place.folder / "server"
    own.mkdir(exist_ok=True)
    command = python("bench.faults_server", port, place.medium, ROWS, INSTANCES, *options)
    command = Command(command.arguments, {**PYTHON, **(environment or {})})
    with serving(command, port, own, place.cores.server) as server:
        yield server


CASES: Final[Mapping[str, Callable[[Place], Iterator[Row]]]] = {
    "stalls": stalls,
    "readers": readers,
    "connections": connections,
    "clock": clock,
}


def main() -> None:
    """Do what the command line asks for."""
    usable = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), help="these cases")
    arguments = parser.parse_args()
    allow_many_sockets()
    with tempfile.TemporaryDirectory(prefix="aiodicom-faults-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        place = Place(lambda full, _quick: full, Cores(usable[0], usable[-1]), Path(name))
        rows = []
        for case in arguments.only:
            try:
                for row in CASES[case](place):
                    print(f"{row.case}: {row.what}: {row.value}", file=sys.stderr, flush=True)
                    rows.append(row)
            except BenchError as error:
                rows.append(Row(case, "failed", str(error), "", met=False))
    print("\n".join(row_table("fault", rows)))
    if any(row.met is False for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
