"""Measures a case: its servers side by side, its clients in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.case import MB, Case, Contender
from bench.objects import Objects
from bench.peers import Job, ServerKind, python_command
from bench.processes import LOOPBACK, BenchError, Cores, Server, free_port, hold, run, serving
from bench.progress import Progress
from bench.results import Outcome, Result, Sample

SECONDS_FOR_A_RUN: Final = 120.0


def measure(case: Case, *, rounds: int, cores: Cores, objects: Objects, folder: Path, progress: Progress) -> Result:
    """Measure a case.

    Args:
        case: what to measure.
        rounds: how often each contender has its turn.
        cores: where the ends run.
        objects: what is sent.
        folder: for what servers store, and for their logs.
        progress: is told of every turn.
    """
    result = Result.of(case)
    turns = list(zip(case.contenders, result.outcomes, strict=True))
    with ExitStack() as stack:
        servers = dict(_started(stack, turns, cores, objects, folder, progress))
        for number in range(rounds):
            first = number % len(turns)  # nobody always has the first turn, or follows the same other
            for contender, outcome in (*turns[first:], *turns[:first]):
                if outcome.error is not None:
                    continue
                try:
                    with progress.turn(contender.name, number + 1, rounds) as tell, ExitStack() as turn:
                        server = servers.get(contender.name)
                        if server is None:
                            server = turn.enter_context(_serving(contender.server, cores, folder, objects.nothing()))
                        outcome.samples.append(_sample(case, contender, server, cores, objects))
                        tell(f"{outcome.samples[-1].rate:,.0f} {case.unit}")
                except BenchError as error:
                    outcome.error = str(error)
    return result


def _started(
    stack: ExitStack,
    turns: Sequence[tuple[Contender, Outcome]],
    cores: Cores,
    objects: Objects,
    folder: Path,
    progress: Progress,
) -> Iterator[tuple[str, Server]]:
    """Start the server of each contender, unless it has to start empty; one that was filled serves all that want that."""
    filled: dict[tuple[int, Path], Server] = {}
    for contender, outcome in turns:
        kind = contender.server
        if kind.held is not None:
            continue
        holdings = None if kind.prepare is None else _holdings(contender.job, objects)
        try:
            server = filled.get((id(kind), holdings)) if holdings else None
            if server is None:
                server = stack.enter_context(_serving(kind, cores, folder, holdings))
            if holdings is not None:
                filled[id(kind), holdings] = server
            yield contender.name, server
        except BenchError as error:
            outcome.error = str(error)
            progress.say(f"  {contender.name}: {error}")


@contextmanager
def _serving(kind: ServerKind, cores: Cores, folder: Path, holdings: Path | None) -> Iterator[Server]:
    port = free_port()
    own = Path(tempfile.mkdtemp(prefix=f"received-{port}-", dir=folder))  # a port may come again
    if kind.prepare is not None and holdings is not None:
        kind.prepare(port, own, holdings)
    with serving(kind.command(port, own), port, own, cores.server) as server:
        if kind.fill is not None and holdings is not None:
            kind.fill(port, own, holdings)
            server.ready()
        with _reached(server, kind.round_trip, cores):
            yield server


@contextmanager
def _reached(server: Server, round_trip: float, cores: Cores) -> Iterator[None]:
    """Let a server be as far away as it is to be: its port is that of a proxy meanwhile."""
    if not round_trip:
        yield
        return
    port = free_port()
    folder = server.folder.parent / f"proxy-{port}"
    command = python_command("proxy", port, LOOPBACK, server.port, "--delay", f"{round_trip / 2}s")
    with serving(command, port, folder, cores.client):
        server.port = port
        yield


def _holdings(job: Job, objects: Objects) -> Path:
    """The folder with what a server holds before it is measured."""
    return objects.studies(job.studies) if job.kind is None else objects.folder(job.kind, job.count)


def _sample(case: Case, contender: Contender, server: Server, cores: Cores, objects: Objects) -> Sample:
    job = contender.job
    folder = None if job.kind is None else objects.folder(job.kind, job.count)
    command = contender.client.command(server.port, job, folder)
    if job.operation == "hold":
        idle = hold(command, server, cores.client)
        return Sample(job.total / idle.seconds, memory_each=idle.memory / job.total, idle_cpu=idle.cpu)
    done = run(command, server, cores.client, timeout=SECONDS_FOR_A_RUN)
    held = contender.server.held
    stored = held(server.folder) if held else server.empty()
    if stored != (job.total if contender.server.keeps and job.kind else 0):
        raise BenchError(f"{stored} objects were stored instead of {job.total}")
    work: float = job.total
    if case.unit == "MB/s" and folder is not None:
        work = sum(path.stat().st_size for path in folder.iterdir()) * job.associations / MB
    forks = contender.server.forks
    return Sample(
        work / done.seconds,
        done.client.cpu / job.total,
        done.server.cpu / job.total,
        done.client.peak,
        done.client.added,
        None if forks else done.server.peak,
        None if forks else done.server.added,
    )
