"""A restart: how long an archive of 100,000 instances takes to be open again, `python -m bench.restart`.

It is filled by `Archive.add`, and opened again and again: after an end in good order, and after `aiodicom serve` was killed
(SIGKILL) while it stored, when its index is checked, and all files are compared with it. The system has the files in memory
still, as after the restart of a program, not of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections import defaultdict
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import uvloop

import aiodicom
from aiodicom.errors import AssociationError
from bench.index import copies, keep
from bench.objects import Objects
from bench.processes import LOOPBACK
from bench.report import table
from bench.served import AE_TITLE, Served
from bench.versions import CT, SYNTAX, Version

TARGET: Final = "< 2 s"
STORED_BEFORE_A_KILL: Final = 500
SIZE: Final = 2_048  # bytes of pixels of each of these


class Taken(NamedTuple):
    """What something took.

    Args:
        seconds: by the clock.
        cpu: seconds of processor time.
    """

    seconds: float
    cpu: float


def main() -> None:
    """Measure, and print a table."""
    first, last = __doc__.strip().split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m bench.restart", description=f"{first} {last}")
    parser.add_argument("--instances", type=int, default=100_000, help="how many there are (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is opened in each way (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the archive goes; by default a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aiodicom-restart-", dir=arguments.folder) as name:
        rows = uvloop.run(measure(Path(name), arguments.instances, arguments.rounds))
    print("\n".join(table(("an archive of", "what", "median", "range", "CPU", "target"), rows)))


async def measure(folder: Path, instances: int, rounds: int) -> list[tuple[str, ...]]:
    """Return what was measured, a row each."""
    archive, numbers = folder / "archive", count()
    made, _ = copies(next(iter(Objects(folder / "objects").studies(1).iterdir())), instances)
    await keep(archive, made, sync=False)
    os.sync()  # what was written last is no matter of opening
    times: dict[str, list[Taken]] = defaultdict(list)
    for _ in range(rounds):
        times["Archive.open after an end in good order"].append(await opened(archive))
        await kill_while_it_stores(folder, numbers)
        times["Archive.open after kill -9"].append(await opened(archive))
        await kill_while_it_stores(folder, numbers)
        times["aiodicom serve after kill -9, from its start until it listens"].append(await served(folder))
    return [(f"{instances:,} instances", name, *_figures(some), TARGET) for name, some in times.items()]


def _figures(some: list[Taken]) -> tuple[str, str, str]:
    seconds, cpu = zip(*some, strict=True)
    return f"{median(seconds):.2f} s", f"{min(seconds):.2f} to {max(seconds):.2f} s", f"{median(cpu):.2f} s"


async def opened(folder: Path) -> Taken:
    """Open an archive, and return what that took."""
    archive = aiodicom.Archive(folder)
    begun, cpu = time.perf_counter(), time.process_time()
    await archive.open()
    taken = Taken(time.perf_counter() - begun, time.process_time() - cpu)
    await archive.close()
    return taken


async def served(folder: Path) -> Taken:
    """Start the server, and return what that took until it listened, and until it ended."""
    begun, cpu = time.perf_counter(), _cpu_of_children()
    async with Served(folder) as server:
        seconds = time.perf_counter() - begun
        await server.end()
    return Taken(seconds, _cpu_of_children() - cpu)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def kill_while_it_stores(folder: Path, numbers: count[int]) -> None:
    """Serve the archive, store some instances, and kill it between them and the next one."""
    async with Served(folder) as server:
        enough = asyncio.Event()
        storing = asyncio.create_task(_store(server.port, numbers, enough))
        await asyncio.wait([storing, asyncio.create_task(enough.wait())], return_when=asyncio.FIRST_COMPLETED)
        await server.kill()
        await storing


async def _store(port: int, numbers: count[int], enough: asyncio.Event) -> None:
    """Store until the server is gone."""
    contexts = [aiodicom.ProposedContext(CT, (SYNTAX,))]
    stored = 0
    try:
        async with aiodicom.associate(LOOPBACK, port, called_ae_title=AE_TITLE, contexts=contexts) as association:
            while True:
                response = await association.c_store(Version(next(numbers), 0, SIZE).instance())
                response.raise_for_status()
                stored += 1
                if stored == STORED_BEFORE_A_KILL:
                    enough.set()
    except AssociationError:
        if not enough.is_set():
            raise


if __name__ == "__main__":
    main()
