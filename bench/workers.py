"""`aiodicom serve` by one worker and by several: `python -m bench.workers`. How many instances a second it keeps.

Eight associations send 39 KB instances at once, each its own, read before the clock starts; each server has a new archive in
memory. Nothing is pinned: on two processors the sender and its loop take one of them. The system deals out associations by
their ports, so that two workers rarely have four each; how many each had stands beside the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

import aiodicom
from aiodicom.cli.view import ask
from bench import proc
from bench.aiodicom_scu import CT, encoded
from bench.objects import Kind, Objects
from bench.processes import LOOPBACK, MEMORY, free_port
from bench.report import table

ASSOCIATIONS: Final = 8
WORKERS: Final = (1, 2)


class Sample(NamedTuple):
    """One run: instances a second, processor time of both ends for an instance, associations of each worker."""

    rate: float
    sender: float
    server: float
    associations: str


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 800 instances, not five of 4,000")
    parser.add_argument(
        "--sync", action="store_true", help="wait for the disk, with the archives in the current folder"
    )
    arguments = parser.parse_args()
    rounds, count = (1, 800) if arguments.quick else (5, 4000)
    where = MEMORY if MEMORY.is_dir() and not arguments.sync else None
    samples: dict[int, list[Sample]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="aiodicom-workers-", dir=where) as name:
        instances = list(map(encoded, sorted(Objects(Path(name) / "objects").folder(Kind.SMALL, count).iterdir())))
        for turn in range(rounds):
            for workers in WORKERS:
                folder = Path(name) / f"{workers}-{turn}"
                with serving(folder, workers, sync=arguments.sync) as (pid, port):
                    samples[workers].append(uvloop.run(measure(folder, pid, port, instances)))
    head = ("workers", "median rate (range)", "CPU each, SCU / SCP", "associations of each worker")
    print("\n".join(table(head, (_row(workers, some) for workers, some in samples.items()))))


@contextmanager
def serving(folder: Path, workers: int, *, sync: bool) -> Iterator[tuple[int, int]]:
    """Run `aiodicom serve`; yields its process and its port."""
    port = free_port()
    options = [
        "--workers",
        str(workers),
        "--port",
        str(port),
        "--storage",
        str(folder),
        *(() if sync else ("--no-sync",)),
    ]
    with subprocess.Popen([sys.executable, "-m", "aiodicom", "serve", *options], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid, port
        finally:
            process.terminate()


async def measure(folder: Path, pid: int, port: int, instances: Sequence[aiodicom.EncodedInstance]) -> Sample:
    """Send the instances, as many on each association."""
    requests = [
        aiodicom.associate(LOOPBACK, port, called_ae_title="AIODICOM", contexts=[CT]) for _ in range(ASSOCIATIONS)
    ]
    associations = await asyncio.gather(*requests)
    shares = [worker["open"] for worker in (await ask(folder))["workers"]]

    async def send(number: int) -> None:
        for instance in instances[number::ASSOCIATIONS]:
            (await associations[number].c_store(instance)).raise_for_status()

    sender, server, begun = time.process_time(), proc.cpu_time(pid), time.perf_counter()
    await asyncio.gather(*map(send, range(ASSOCIATIONS)))
    seconds, count = time.perf_counter() - begun, len(instances)
    sender, server = time.process_time() - sender, proc.cpu_time(pid) - server
    await asyncio.gather(*(association.release() for association in associations))
    return Sample(count / seconds, sender / count, server / count, " + ".join(map(str, shares)))


def _row(workers: int, samples: Sequence[Sample]) -> tuple[str, ...]:
    rates = [sample.rate for sample in samples]
    sender, server = (
        1e6 * statistics.median(each) for each in ([s.sender for s in samples], [s.server for s in samples])
    )
    return (
        str(workers),
        f"{statistics.median(rates):,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f})",
        f"{sender:.0f} µs / {server:.0f} µs",
        ", ".join(sample.associations for sample in samples),
    )


if __name__ == "__main__":
    main()
