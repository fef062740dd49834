"""Where the time goes: `uv run python -m bench.profile`. Both ends run in one process and one event loop, on uvloop.

For each kind of message it prints the processor time of both ends, what bare transports need for as many bytes, and the
functions with the most time of their own, from a second run under `cProfile` (which adds to each call, so that shares say
more than microseconds). Where valgrind is installed (Debian package `valgrind`), `--count` adds instructions and allocations
for each message: they are the same whatever else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, TypeAlias

import uvloop

import aiodicom
from aiodicom.uids import STUDY_ROOT_FIND, VERIFICATION
from bench.aiodicom_scu import encoded
from bench.objects import Kind, Objects
from bench.processes import LOOPBACK
from bench.report import table

ROUNDS: Final = 5
ROWS: Final = 25
COUNTED: Final = (
    500,
    1500,
)  # messages under valgrind: what both runs have in common, such as imports, is not the messages'
STUDIES: Final = 100  # that a C-FIND finds
ALLOCATORS: Final = {"_PyObject_Malloc": "small allocations", "malloc": "large ones"}

Act: TypeAlias = Callable[[aiodicom.Association], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is done again and again.

    Args:
        title: in the report.
        act: does it once.
        messages: how many requests, or matches, that comes to.
        count: how often it is done in a round.
        sent: how many bytes go to the acceptor for it.
    """

    title: str
    act: Act
    messages: int
    count: int
    sent: int


def main() -> None:
    """Print a report of every exchange, or of those that are named."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="echo, store, store-file, find; by default all")
    parser.add_argument("--count", action="store_true", help="instructions and allocations, by valgrind")
    parser.add_argument("--repeat", type=int, metavar="N", help="do it N times and print nothing, for a profiler")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aiodicom-bench-") as folder:
        [path] = Objects(Path(folder)).folder(Kind.SMALL, 1).iterdir()
        known = exchanges(path)
        if unknown := set(arguments.names) - known.keys():
            parser.error(f"no such exchange: {', '.join(sorted(unknown))}")
        for name in arguments.names or known:
            if arguments.repeat:
                uvloop.run(repeat(known[name], path, arguments.repeat))
                continue
            uvloop.run(report(known[name], path))
            if arguments.count:
                print("\n".join(f"{what}: {each:,.0f}" for what, each in counts(name)), end="\n\n")


def exchanges(path: Path) -> dict[str, Exchange]:
    """Return what can be profiled, by name; `path` is the file that is stored."""
    instance = encoded(path)
    size = path.stat().st_size

    async def find(association: aiodicom.Association) -> None:
        async for match in association.c_find(level="study"):
            match.StudyInstanceUID  # noqa: B018 - decoded when it is looked at

    return {
        "echo": Exchange("C-ECHO", lambda association: association.c_echo(), 1, 3000, 80),
        "store": Exchange(
            "C-STORE, 39 KB from memory", lambda association: association.c_store(instance), 1, 2000, size
        ),
        "store-file": Exchange(
            "C-STORE, 39 KB from a file", lambda association: association.c_store(path), 1, 1000, size
        ),
        "find": Exchange(f"C-FIND, each of {STUDIES} matches", find, STUDIES, 30, 2),
    }


@asynccontextmanager
async def associated(path: Path) -> AsyncIterator[aiodicom.Association]:
    """An association with a server in the same loop, which forgets what is stored."""
    server = aiodicom.Server(port=0)

    @server.on_c_store
    async def forget(operation: aiodicom.Operation) -> None:
        async for _ in operation.stream():
            pass

    @server.on_c_find(model="study")
    async def search(_: aiodicom.Operation) -> AsyncIterator[dict[str, str]]:
        for number in range(STUDIES):
            yield {"StudyInstanceUID": f"1.2.{number}", "PatientName": "Doe^Jane", "StudyDate": "19700101"}

    contexts: list[aiodicom.ProposedContext | str] = [VERIFICATION, STUDY_ROOT_FIND, *aiodicom.contexts_for([path])]
    async with server, aiodicom.associate(LOOPBACK, server.port, contexts=contexts) as association:
        yield association


async def repeat(exchange: Exchange, path: Path, times: int) -> None:
    """Do it so many times."""
    async with associated(path) as association:
        for _ in range(times):
            await exchange.act(association)


async def report(exchange: Exchange, path: Path) -> None:
    """Print what it takes, and which functions take it."""
    async with associated(path) as association:

        async def work() -> None:
            for _ in range(exchange.count):
                await exchange.act(association)

        messages = exchange.count * exchange.messages
        taken = await _least_cpu(work, messages)
        profiler = cProfile.Profile()
        profiler.enable()
        await work()
        profiler.disable()
    bare = await _bare_transports(exchange.sent)
    print(f"{exchange.title}: {taken * 1e6:.1f} µs of CPU for both ends; bare transports: {bare * 1e6:.1f} µs\n")
    print("\n".join(table(("calls", "share", "function"), _functions(pstats.Stats(profiler), messages))), end="\n\n")


def _functions(stats: pstats.Stats, messages: int) -> Iterator[tuple[str, str, str]]:
    found = stats.stats  # type: ignore[attr-defined]  # typeshed leaves it out
    whole = sum(own for _, _, own, *_ in found.values())
    for (file, _, name), (calls, _, own, *_) in sorted(found.items(), key=lambda row: -row[1][2])[:ROWS]:
        where = "" if file == "~" else f"{PurePath(file).parent.name}/{PurePath(file).name}: "
        yield f"{calls / messages:.2f}", f"{own / whole:.1%}", f"{where}{name}"


async def _least_cpu(work: Callable[[], Awaitable[None]], messages: int) -> float:
    """Return the least processor time of some rounds, in seconds for each message; the first round warms up."""
    taken = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        await work()
        taken.append((time.process_time() - begun) / messages)
    return min(taken[1:])


class _Bare(asyncio.BufferedProtocol):
    """Counts what comes, and answers so many bytes with a few; at the other end, wakes whoever waits."""

    def __init__(self, expected: int) -> None:
        self.answered: asyncio.Future[None] | None = None
        self._buffer = bytearray(256 * 1024)
        self._expected = expected
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, _sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        if self._received >= self._expected:
            self._received -= self._expected
            if self.answered is None:
                self._transport.write(bytes(90))  # type: ignore[attr-defined]  # uvloop's transports are of no class
            else:
                self.answered.set_result(None)


async def _bare_transports(size: int) -> float:
    """Return the processor time for `size` bytes one way and a response, without anything of DICOM, in seconds."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Bare(size), LOOPBACK, 0)
    transport, protocol = await loop.create_connection(lambda: _Bare(90), *server.sockets[0].getsockname()[:2])
    data = bytes(size)

    async def work() -> None:
        for _ in range(2000):
            protocol.answered = loop.create_future()
            transport.write(data)
            await protocol.answered

    try:
        return await _least_cpu(work, 2000)
    finally:
        transport.close()
        server.close()


def counts(name: str) -> Iterator[tuple[str, float]]:
    """Yield instructions and allocations of an exchange, as valgrind counts them: the difference of two runs."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        yield "valgrind is not installed (Debian package valgrind): counted", 0
        return
    with tempfile.TemporaryDirectory(prefix="aiodicom-bench-") as folder:
        totals = []
        for times in COUNTED:
            file = Path(folder) / str(times)
            tool = (valgrind, "--tool=callgrind", f"--callgrind-out-file={file}")
            script = (sys.executable, "-m", "bench.profile", name, "--repeat", str(times))
            subprocess.run([*tool, *script], check=True, capture_output=True, env={"PYTHONHASHSEED": "0"})
            totals.append(_totals(file))
    few, many = totals
    for what in few:
        yield f"{what} for each {name}", (many[what] - few[what]) / (COUNTED[1] - COUNTED[0])


def _totals(file: Path) -> dict[str, int]:
    """Return the instructions of a run, and the calls of the allocators, from what callgrind wrote."""
    names: dict[str, str] = {}
    found = dict.fromkeys(("instructions", *ALLOCATORS.values()), 0)
    called = ""
    with file.open() as lines:
        for line in lines:
            if name := re.match(r"c?fn=\((\d+)\)(?: (.*))?", line):
                if name[2]:
                    names[name[1]] = name[2]
                called = names[name[1]]
            elif line.startswith("calls=") and called in ALLOCATORS:
                found[ALLOCATORS[called]] += int(line[6:].split()[0])
            elif line.startswith(("summary:", "totals:")):
                found["instructions"] = int(line.split()[1])
    return found


if __name__ == "__main__":
    main()
