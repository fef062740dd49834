"""The soak: mixed load on an archive for minutes, a look at what grows, and every acknowledged instance read back.

    uv run python -m bench.soak --minutes 10
    uv run python -m bench.soak --seconds 30 --clients 50

Beside those that keep the rules there are some that do not: malformed and oversized PDUs, damaged and deeply nested
instances, connections that are silent, closed by half, or cut off. The load comes in waves. After each, when the last client
has gone, the server must have as many tasks and descriptors as after the first ones, no association, no temporary file; so
must the clients' process. Its end is 1 where anything was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Final

import uvloop

from aiodicom.archive.rebuilding import INDEX
from aiodicom.archive.shelf import INCOMING, SUFFIX
from bench import proc
from bench.case import MB
from bench.client import allow_many_sockets
from bench.processes import MEMORY, SECONDS_TO_STOP, free_port
from bench.soak_acts import Client, Crowd, Violation, retrieve
from bench.soak_server import COUNT

WAVE: Final = 20.0  # seconds; a short soak has four waves all the same
LEAST_WAVES: Final = 4
PATIENCE: Final = 4.0  # seconds that the server lets a peer be silent inside a message
WARM_UP: Final = 2  # waves, after which nothing may grow
SECONDS_BETWEEN_SAMPLES: Final = 1.0
SECONDS_TO_BECOME_QUIET: Final = 20.0
STUDIES_AT_A_TIME: Final = 25  # that are asked for in one C-GET at the end
# By how much what may grow at all may be more after the last wave than after the first ones. The clients remember what was
# acknowledged, so that their memory is no matter.
OF_CLIENTS: Final[Mapping[str, int]] = {"tasks": 0, "descriptors": 0}
# SQLite's caches are 16 MiB where it writes, and 2 MB for each of 8 that read; they fill slowly.
OF_SERVER: Final[Mapping[str, int]] = {**OF_CLIENTS, "of_index": 24, "resident": 32 * MB, "objects": 5000}
SHOWN: Final = 20  # violations


@dataclass(frozen=True, slots=True)
class Look:
    """How a process is.

    Args:
        tasks: of its event loop.
        descriptors: that are open, without those of the index.
        of_index: descriptors of the index: the archive keeps some connections to it, made when they are needed.
        resident: memory in bytes; PSS, which counts what is shared in parts.
        associations: that are established, of a server.
        objects: that the garbage collector knows; 0 where they were not counted.
    """

    tasks: int
    descriptors: int
    of_index: int
    resident: int
    associations: int = 0
    objects: int = 0


@dataclass(slots=True)
class Watch:
    """What was seen of a process: the most of everything, and how it was whenever it was quiet."""

    most: dict[str, int] = field(default_factory=dict)
    quiet: list[Look] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # in seconds, of what is in `quiet`

    def note(self, look: Look) -> None:
        """Take note of a look at it under load."""
        for name in ("tasks", "descriptors", "of_index", "resident", "associations"):
            self.most[name] = max(self.most.get(name, 0), getattr(look, name))

    def spans(self) -> str:
        """Return, in words, between what it was whenever it was quiet after the warm-up."""
        names = ("tasks", "descriptors", "of_index", "resident", "objects")
        spans = {name: [getattr(look, name) for look in self.quiet[WARM_UP:]] for name in names}
        return ", ".join(
            f"{name} {_amount(name, min(values))} to {_amount(name, max(values))}" for name, values in spans.items()
        )

    def rest(self, look: Look) -> None:
        """Take note of a look at it when it was quiet."""
        self.quiet.append(look)
        self.times.append(time.monotonic())

    def slope(self) -> float:
        """Return by how many bytes an hour its memory at rest grew after the warm-up: the line nearest to all looks."""
        resident = [look.resident for look in self.quiet[WARM_UP:]]
        return 3600 * linear_regression(self.times[WARM_UP:], resident).slope

    def violations(self, who: str, limits: Mapping[str, int]) -> list[str]:
        """Return what has grown since the warm-up by more than it may."""
        warm, last = self.quiet[:WARM_UP], self.quiet[-1]
        found = []
        for name, limit in limits.items():
            before, after = max(getattr(each, name) for each in warm), getattr(last, name)
            if after > before + limit:
                found.append(f"{who}: {name} grew from {_amount(name, before)} to {_amount(name, after)}")
        return found


class Archive:
    """The server's process, which is asked how it is."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self._process = process
        self._one_question = asyncio.Lock()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def look(self, *, count: bool = False) -> Look:
        """Ask it; with `count` for its objects, too.

        Raises:
            Violation: it does not answer any more.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._one_question:
            self._process.stdin.write(f"{COUNT if count else ''}\n".encode())
            line = await self._process.stdout.readline()
        if not line:
            raise Violation(f"the server has ended, with {await self._process.wait()}")
        return _look(self.pid, **json.loads(line))


@asynccontextmanager
async def archive(folder: Path, log: Path, move_port: int, patience: float) -> AsyncIterator[Archive]:
    """Keep an archive running in a process of its own; leaving ends it in good order."""
    command = ("-m", "bench.soak_server", f"--patience={patience}", str(folder), str(move_port))
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Archive(process, int(await process.stdout.readline()))
        process.stdin.close()
        async with asyncio.timeout(SECONDS_TO_STOP + SECONDS_TO_BECOME_QUIET):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Soak:
    """One run.

    Args:
        server: what is loaded.
        crowd: who loads it.
        folder: of the archive.
        clients: how many there are.
        seed: of all chance.
    """

    def __init__(self, server: Archive, crowd: Crowd, folder: Path, clients: int, seed: int) -> None:
        self._server = server
        self._crowd = crowd
        self._folder = folder
        self._clients = [Client(crowd, number, seed) for number in range(1, clients + 1)]
        self.of_server, self.of_clients = Watch(), Watch()
        self.ledger = crowd.ledger
        self._tasks = 0  # that the server has for itself

    async def run(self, seconds: float) -> None:
        """Load it in waves, and look after each."""
        self._tasks = (await self._server.look()).tasks
        waves = max(LEAST_WAVES, round(seconds / WAVE))
        sampler = asyncio.ensure_future(self._sample())
        begun = time.monotonic()
        try:
            for _ in range(waves):
                end = asyncio.get_running_loop().time() + seconds / waves
                await asyncio.gather(*(client.run_until(end) for client in self._clients))
                await self._become_quiet()
                self._say(time.monotonic() - begun)
        finally:
            sampler.cancel()
            await asyncio.wait([sampler])
        if not sampler.cancelled():
            await sampler  # it failed

    async def read_back(self) -> int:
        """Retrieve everything that was acknowledged, and return how many instances came."""
        studies = sorted(self.ledger.acknowledged)
        count = 0
        async with self._crowd.association() as association:
            for at in range(0, len(studies), STUDIES_AT_A_TIME):
                asked = studies[at : at + STUDIES_AT_A_TIME]
                got = await retrieve(association, asked)
                for study in asked:
                    self.ledger.check(study, self.ledger.of(study), {name for name in got if name.study == study})
                count += len(got)
        return count

    async def _sample(self) -> None:
        while True:
            self.of_server.note(await self._server.look())
            self.of_clients.note(_own_look())
            await asyncio.sleep(SECONDS_BETWEEN_SAMPLES)

    async def _become_quiet(self) -> None:
        """Wait until the server has let go of the wave: it may still be closing, or waiting for who fell silent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SECONDS_TO_BECOME_QUIET
        while True:
            look, files = await self._server.look(count=True), self._temporary_files()
            if not (look.associations or files or look.tasks > self._tasks or look.descriptors > self._descriptors()):
                break
            if loop.time() > deadline:
                self.ledger.violations.append(f"a wave left {files} temporary files, and the server with {look}")
                break
            await asyncio.sleep(SECONDS_BETWEEN_SAMPLES / 4)
        self.of_server.rest(look)
        gc.collect()
        self.of_clients.rest(_own_look(len(gc.get_objects())))

    def _descriptors(self) -> float:
        """How many it had after the first waves."""
        warm = self.of_server.quiet[:WARM_UP]
        return max(look.descriptors for look in warm) if len(warm) == WARM_UP else math.inf

    def _temporary_files(self) -> int:
        incoming = self._folder / INCOMING
        return sum(1 for _ in incoming.iterdir()) if incoming.is_dir() else 0

    def _say(self, seconds: float) -> None:
        look, done = self.of_server.quiet[-1], self.ledger.done
        at_rest = ", ".join(
            (
                f"{look.resident / MB:.1f} MB",
                f"{look.objects:,} objects",
                f"{look.tasks} tasks",
                f"{look.descriptors} + {look.of_index} descriptors",
            )
        )
        print(
            f"{seconds:5.0f} s  {done['association']:,} associations, {done['C-STORE']:,} stores; the server at rest: "
            f"{at_rest}; {len(self.ledger.violations)} violations",
            file=sys.stderr,
            flush=True,
        )


async def soak(folder: Path, *, seconds: float, clients: int, seed: int) -> list[str]:
    """Do it all below a folder, print what was done, and return what was not as it must be."""
    move_port, log, kept = free_port() + 1, folder / "server.log", folder / "archive"
    async with archive(kept, log, move_port, PATIENCE) as server:
        crowd = Crowd(server.port, move_port, PATIENCE)
        run = Soak(server, crowd, kept, clients, seed)
        async with crowd.destination:
            begun = time.perf_counter()
            await run.run(seconds)
            begun, loaded = time.perf_counter(), time.perf_counter() - begun
            try:
                count = await run.read_back()
            except Exception as error:  # noqa: BLE001 - the rest is reported all the same
                run.ledger.violations.append(f"reading back: {type(error).__name__}: {error}")
                count = 0
    ledger = run.ledger
    acknowledged = sum(map(len, ledger.acknowledged.values()))
    print(f"seed {seed}, {clients} clients, {loaded:.0f} s, {sum(ledger.done.values()):,} operations done:")
    print("\n".join(f"  {name:18}{count:10,}" for name, count in sorted(ledger.done.items())))
    print(
        f"in {sum(ledger.acts.values()):,} acts: {', '.join(f'{name} {n:,}' for name, n in sorted(ledger.acts.items()))}"
    )
    print(f"read back in {time.perf_counter() - begun:.0f} s: {count:,} instances; acknowledged were {acknowledged:,}")
    for who, watch in (("server", run.of_server), ("clients", run.of_clients)):
        print(f"{who}, at most: {_words(watch.most)}")
        print(f"{who}, at rest: {watch.spans()}")
    print(f"server, at rest: resident {run.of_server.slope() / MB:+.1f} MB an hour")
    return [
        *ledger.violations,
        *run.of_server.violations("server", OF_SERVER),
        *run.of_clients.violations("clients", OF_CLIENTS),
        *await asyncio.to_thread(_disagreements, kept),
        *(f"logged: {line}" for line in log.read_text(encoding="utf-8").splitlines()),
    ]


def _disagreements(folder: Path) -> list[str]:
    """Compare the index of an archive that is closed with its files."""
    with closing(sqlite3.connect(folder / INDEX)) as connection:
        indexed = {path for (path,) in connection.execute("SELECT path FROM instances")}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}")}
    pairs = ((indexed - files, "rows without a file"), (files - indexed, "files without a row"))
    return [f"{len(found)} {what} in the archive, such as {min(found)}" for found, what in pairs if found]


def _own_look(objects: int = 0) -> Look:
    return _look(os.getpid(), tasks=len(asyncio.all_tasks()), objects=objects)


def _look(pid: int, *, tasks: int, associations: int = 0, objects: int = 0) -> Look:
    index = descriptors = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if INDEX in str(link.readlink()):
                index += 1
            else:
                descriptors += 1
    return Look(tasks, descriptors, index, proc.memory(pid), associations, objects)


def _words(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {_amount(name, value)}" for name, value in values.items())


def _amount(name: str, value: int) -> str:
    return f"{value / MB:.1f} MB" if name == "resident" else f"{value:,}"


def _duration(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration")
    return value


def main() -> None:
    """Do what the command line asks for."""
    first, _, last = __doc__.strip().split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=f"{first} {last}")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_duration, help="how long the load lasts, without the rests; default: 10")
    length.add_argument("--seconds", type=_duration, help="the same, for a short one")
    parser.add_argument("--clients", type=int, default=200, help="how many work at once (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what they do; default: any")
    parser.add_argument("--folder", type=Path, help="where the archive goes; by default a temporary one, in memory")
    arguments = parser.parse_args()
    seconds = arguments.seconds or 60 * (arguments.minutes or 10)
    allow_many_sockets()
    where = arguments.folder or (MEMORY if MEMORY.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="aiodicom-soak-", dir=where) as name:
        violations = uvloop.run(soak(Path(name), seconds=seconds, clients=arguments.clients, seed=arguments.seed))
    for violation in violations[:SHOWN]:
        print(f"violation: {violation}")
    print(f"verdict: {f'{len(violations)} violations' if violations else 'nothing grew, and nothing was lost'}")
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
