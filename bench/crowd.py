"""Crowds: ten thousand idle associations, a thousand that store at once, peers that dawdle, a flood.

    uv run python -m bench.crowd            # some two minutes
    uv run python -m bench.crowd --quick --only idle slow

What they are about has more than one figure, so that these cases have rows of their own, from `measure`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import IO, Final

from bench import proc
from bench.case import KB, MB, Scale
from bench.objects import Kind, Objects
from bench.peers import PYTHON, Job, aiodicom_scu
from bench.processes import MEMORY, BenchError, Command, Cores, Run, Server, free_port, run, serving
from bench.report import row_table
from bench.results import Row

SECONDS_FOR_A_CLIENT: Final = 180.0
SECONDS_OF_SILENCE: Final = 2.0
SECONDS_OF_CALM: Final = 0.3
SECONDS_OF_A_SLOW_ONE: Final = 60  # more than what is measured beside it takes
MOST_SLOWER: Final = 0.05
SLOW: Final = ("slow-store", "slow-find", "slow-get")


class Place:
    """Where the cases run.

    Args:
        scale: chooses the count of a full run or of a quick one.
        cores: of the ends.
        folder: for objects and logs.
    """

    def __init__(self, scale: Scale, cores: Cores, folder: Path) -> None:
        self.scale = scale
        self.cores = cores
        self.folder = folder
        self.objects = Objects(folder / "objects")

    @property
    def medium(self) -> Path:
        """An instance of 512 KB."""
        return self.objects.folder(Kind.MEDIUM, 1) / "00000.dcm"

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Keep the server running."""
        port, own = free_port(), self.folder / "server"
        own.mkdir(exist_ok=True)
        with serving(python("bench.crowd_server", port, self.medium), port, own, self.cores.server) as server:
            yield server

    def times(self, what: str, server: Server, count: int, *options: object) -> list[float]:
        """Let a client do something, and return the times that it prints, in order.

        Raises:
            BenchError: it failed.
        """
        command = python("bench.crowd_client", what, server.port, count, *options)
        with command.start(self.cores.client, subprocess.PIPE, subprocess.PIPE) as process:
            try:
                output, errors = process.communicate(timeout=SECONDS_FOR_A_CLIENT)
            except subprocess.TimeoutExpired:
                raise BenchError(f"{what} took longer than {SECONDS_FOR_A_CLIENT:g} s") from None
            finally:
                process.kill()
        if process.returncode:
            raise BenchError(f"{what}: {' '.join(errors.decode(errors='replace').strip().splitlines()[-1:])}")
        return sorted(json.loads(output))

    @contextmanager
    def beside(self, command: Command) -> Iterator[tuple[str, IO[bytes]]]:
        """Let a client run beside what is measured; give the first line that it prints, for which is waited, and the rest.

        Raises:
            BenchError: it failed before.
        """
        with command.start(self.cores.client, subprocess.PIPE, sys.stderr.fileno()) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise BenchError(f"{command.arguments[2]} ended before it had begun")
                yield line.decode(), process.stdout
            finally:
                process.kill()


def idle(place: Place) -> Iterator[Row]:
    """Associations that are open and left alone: what they cost, and what others notice of them."""
    count, echos = place.scale(10_000, 2000), place.scale(1000, 200)
    case = f"{count:,} idle associations"
    with place.server() as server:
        place.times("open", server, echos)  # so that the first time is nobody's
        before = proc.memory(server.pid)
        alone = place.times("open", server, echos)
        cpu = proc.cpu_time(server.pid)
        with place.beside(python("bench.aiodicom_scu", "hold", server.port, count)) as (line, _):
            opened = json.loads(line)
            cpu, memory = proc.cpu_time(server.pid) - cpu, (proc.memory(server.pid) - before) / count
            at_rest = proc.cpu_time(server.pid)
            time.sleep(SECONDS_OF_SILENCE)
            at_rest = (proc.cpu_time(server.pid) - at_rest) / SECONDS_OF_SILENCE
            crowded = place.times("open", server, echos)
        alone = sorted(alone + place.times("open", server, echos))
    rate = count / opened["seconds"]
    each = f"CPU of the requestor {opened['cpu'] / count * 1e6:.0f} µs, of the acceptor {cpu / count * 1e6:.0f} µs each"
    yield Row(case, "opened", f"{rate:,.0f}/s; {each}", "3,000/s", rate >= 3000)
    yield Row(case, "memory", f"{memory / KB:.1f} KB each", "≤ 6 KB", memory <= 6 * KB)
    yield Row(case, "while nothing happens", f"{at_rest:.1%} of a processor", "no polling: ≤ 1 %", at_rest <= 0.01)
    yield from _beside(case, "a new association and a C-ECHO on it", alone, crowded, 3)


def storing(place: Place) -> Iterator[Row]:
    """Associations that store at once: whether each has its share, and what others notice."""
    count, each, seconds = place.scale(1000, 300), 120, place.scale(2, 1)
    case = f"{count:,} associations storing {each} × 39 KB at once"
    folder = place.objects.folder(Kind.SMALL, each)
    with place.server() as server:
        alone = place.times("echo", server, seconds)
        server.ready()
        command = python("bench.crowd_client", "store", server.port, count, "--instances", folder)
        with place.beside(command) as (_, rest):
            crowded = place.times("echo", server, seconds)
            if select([rest], [], [], 0)[0]:
                raise BenchError("the stores were over before the C-ECHOs")
            ready = sorted(json.loads(rest.readline()))
        peak = proc.peak(server.pid)
    median, worst = statistics.median(ready), ready[-1]
    words = f"{median:.2f} s, the first {ready[0]:.2f} s, the last {worst:.2f} s: {worst / median:.2f} ×"
    yield Row(case, "ready, in the median", words, "the last ≤ 2 × the median", worst <= 2 * median)
    yield Row(case, "stored", f"{count * each / worst:,.0f} objects/s")
    yield Row(case, "memory of the SCP, peak (added)", f"{peak / MB:.0f} (+{(peak - server.resident) / MB:.0f}) MB")
    yield from _beside(case, "C-ECHO", alone, crowded)


def slow(place: Place) -> Iterator[Row]:
    """One peer that writes or reads a kilobyte a second, and what ten that store notice of it."""
    pairs = place.scale(7, 3)
    job = Job("store", place.scale(500, 200), Kind.SMALL, 10)
    folder = place.objects.folder(Kind.SMALL, job.count)
    client = aiodicom_scu(in_memory=True)
    with place.server() as server:

        def stored() -> Run:
            command = client.command(server.port, job, folder)
            return run(command, server, place.cores.client, timeout=SECONDS_FOR_A_CLIENT)

        for what in SLOW:
            command = python(
                "bench.crowd_client", what, server.port, SECONDS_OF_A_SLOW_ONE, "--instances", place.medium
            )
            slower, dearer = [], []
            for number in range(pairs):
                with_first = number % 2 == 1
                if not with_first:
                    without = stored()
                with place.beside(command):
                    _wait_until_calm(server)  # what fits into the sockets' buffers goes at once
                    beside = stored()
                if with_first:
                    without = stored()
                slower.append(beside.seconds / without.seconds - 1)
                dearer.append(beside.server.cpu / without.server.cpu - 1)
            time_more, cpu_more = statistics.median(slower), statistics.median(dearer)
            words = f"{time_more:+.1%} time, {cpu_more:+.1%} CPU of the SCP"
            yield Row(
                f"one {what} at 1 KB/s beside 10 associations that store",
                f"the median of {pairs} pairs",
                words,
                "≤ 5 % more",
                time_more <= MOST_SLOWER and cpu_more <= MOST_SLOWER,
            )


def flood(place: Place) -> Iterator[Row]:
    """One association that stores 500 MB again and again, and what a C-ECHO on another notices."""
    seconds = place.scale(3, 1)
    folder = place.objects.folder(Kind.LARGE, 1)
    with place.server() as server:
        alone = place.times("echo", server, seconds)
        command = python("bench.crowd_client", "flood", server.port, seconds + 10, "--instances", folder)
        with place.beside(command):
            crowded = place.times("echo", server, seconds)
    yield from _beside("one association storing 500 MB", "C-ECHO", alone, crowded)


CASES: Final[Mapping[str, Callable[[Place], Iterator[Row]]]] = {
    "idle": idle,
    "storing": storing,
    "slow": slow,
    "flood": flood,
}


def measure(
    scale: Scale, cores: Cores, folder: Path, only: Sequence[str] = (), say: Callable[[str], None] = print
) -> list[Row]:
    """Measure these cases, by default all, and return their rows; one that fails has a row that says why.

    Args:
        scale: chooses the count of a full run, or that of a quick one.
        cores: where the ends run.
        folder: for objects and logs.
        only: names of `CASES`.
        say: shows progress.
    """
    place, rows = Place(scale, cores, folder), []
    for name in only or CASES:
        try:
            for row in CASES[name](place):
                say(f"{row.case}: {row.what}: {row.value}")
                rows.append(row)
        except BenchError as error:
            rows.append(Row(name, "failed", str(error)))
    return rows


def _beside(
    case: str, what: str, alone: Sequence[float], crowded: Sequence[float], limit: float | None = None
) -> Iterator[Row]:
    """Compare times, each in order: their medians and 99th percentiles."""
    for words, share in (("median", 0.5), ("99th percentile", 0.99)):
        before, after = (times[int(share * (len(times) - 1))] for times in (alone, crowded))
        yield Row(
            case,
            f"{what}, {words}",
            f"{after * 1e3:.2f} ms, alone {before * 1e3:.2f} ms: {after / before:.1f} ×",
            "" if limit is None else f"≤ {limit} ×",
            None if limit is None else after <= limit * before,
        )


def _wait_until_calm(server: Server) -> None:
    cpu = -1.0
    while cpu != (cpu := proc.cpu_time(server.pid)):
        time.sleep(SECONDS_OF_CALM)


def python(module: str, *arguments: object) -> Command:
    """Return the command that runs a script of the bench."""
    return Command((sys.executable, "-m", module, *map(str, arguments)), PYTHON)


def main() -> None:
    """Do what the command line asks for."""
    usable = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="smaller counts")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=[], help="these cases")
    parser.add_argument(
        "--cores",
        default=f"{usable[0]},{usable[-1]}",
        metavar="SCU,SCP",
        help="the processors that the ends run on (%(default)s)",
    )
    arguments = parser.parse_args()
    client, server = map(int, arguments.cores.split(","))

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="aiodicom-crowd-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        scale = (lambda _full, quick: quick) if arguments.quick else (lambda full, _quick: full)
        rows = measure(scale, Cores(client, server), Path(name), only=arguments.only, say=say)
        print("\n".join(row_table("crowd", rows)))


if __name__ == "__main__":
    main()
