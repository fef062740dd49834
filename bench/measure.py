"""Measures a case: its servers side by side, its clients in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.cases import MB, Case, Contender, Target
from bench.objects import Objects
from bench.peers import Job, ServerKind
from bench.processes import BenchError, Cores, Server, free_port, hold, run, serving

SECONDS_FOR_A_RUN: Final = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contender did in one round.

    Args:
        rate: in the unit of the case.
        client_cpu: processor time of the client, in seconds for each object, echo or association.
        server_cpu: that of the server.
        client_peak: the most memory the client had, in bytes.
        client_added: how much more that was than before its first byte.
        server_peak: the most memory the server had.
        server_added: how much more that was than when it began to listen.
        memory_each: what an idle association takes of the server's memory, in bytes.
        idle_cpu: the share of a processor that the server takes while all associations are idle.
    """

    rate: float
    client_cpu: float | None = None
    server_cpu: float | None = None
    client_peak: int | None = None
    client_added: int | None = None
    server_peak: int | None = None
    server_added: int | None = None
    memory_each: float | None = None
    idle_cpu: float | None = None

    @property
    def cpu(self) -> float | None:
        """The processor time of both ends, in seconds for each object, echo or association."""
        return None if self.client_cpu is None or self.server_cpu is None else self.client_cpu + self.server_cpu


@dataclass(slots=True)
class Outcome:
    """All that is known of one contender: a sample of each round, or why there is none."""

    contender: Contender
    samples: list[Sample] = field(default_factory=list)
    error: str | None = None

    def values(self, quantity: str) -> list[float]:
        """Return a quantity of every round; [] where it was not measured."""
        found = (getattr(sample, quantity) for sample in self.samples)
        return [value for value in found if value is not None]

    def median(self, quantity: str) -> float | None:
        """Return the median of a quantity; None where it was not measured."""
        values = self.values(quantity)
        return statistics.median(values) if values else None


@dataclass(frozen=True, slots=True)
class Result:
    """A case and what came of it."""

    case: Case
    outcomes: tuple[Outcome, ...]

    def reached(self, target: Target) -> float | None:
        """Return the ratio or the rate that a target asks for, the median of the rounds; of memory the most.

        None where it was not measured.
        """
        ours = self._outcome(target.of).values(target.quantity)
        if target.against is not None:
            theirs = self._outcome(target.against).values(target.quantity)
            ours = [one / other for one, other in zip(ours, theirs, strict=False)]
        if not ours:
            return None
        return max(ours) if target.is_ceiling else statistics.median(ours)

    def cpu_ratio(self, target: Target) -> float | None:
        """Return how much more processor time both ends of the other contender take; None where there is no other.

        It is what hardly changes when the machine does something else as well.
        """
        if target.against is None:
            return None
        ours, theirs = self._outcome(target.of).values("cpu"), self._outcome(target.against).values("cpu")
        ratios = [other / one for one, other in zip(ours, theirs, strict=False)]
        return statistics.median(ratios) if ratios else None

    def _outcome(self, contender: Contender) -> Outcome:
        return next(outcome for outcome in self.outcomes if outcome.contender is contender)


def measure(
    case: Case, *, rounds: int, cores: Cores, objects: Objects, folder: Path, say: Callable[[str], None]
) -> Result:
    """Measure a case.

    Args:
        case: what to measure.
        rounds: how often each contender has its turn.
        cores: where the ends run.
        objects: what is sent.
        folder: for what servers store, and for their logs.
        say: shows progress.
    """
    outcomes = tuple(map(Outcome, case.contenders))
    with ExitStack() as stack:
        servers = dict(_started(stack, outcomes, cores, objects, folder))
        for number in range(rounds):
            first = number % len(outcomes)  # nobody always has the first turn, or follows the same other
            for outcome in (*outcomes[first:], *outcomes[:first]):
                if outcome.error is not None:
                    continue
                try:
                    outcome.samples.append(_sample(case, outcome.contender, servers[id(outcome)], cores, objects))
                    say(f"  {outcome.contender.name}: {outcome.samples[-1].rate:,.0f} {case.unit}")
                except BenchError as error:
                    outcome.error = str(error)
                    say(f"  {outcome.contender.name}: {error}")
    return Result(case, outcomes)


def _started(
    stack: ExitStack, outcomes: tuple[Outcome, ...], cores: Cores, objects: Objects, folder: Path
) -> Iterator[tuple[int, Server]]:
    """Start the server of each contender; one that had to be filled serves all that want the same in it."""
    filled: dict[tuple[int, Path], Server] = {}
    for outcome in outcomes:
        kind = outcome.contender.server
        holdings = None if kind.prepare is None else _holdings(outcome.contender.job, objects)
        try:
            server = filled.get((id(kind), holdings)) if holdings else None
            if server is None:
                server = stack.enter_context(_serving(kind, cores, folder, holdings))
            if holdings is not None:
                filled[id(kind), holdings] = server
            yield id(outcome), server
        except BenchError as error:
            outcome.error = str(error)


@contextmanager
def _serving(kind: ServerKind, cores: Cores, folder: Path, holdings: Path | None) -> Iterator[Server]:
    port = free_port()
    own = folder / f"received-{port}"
    own.mkdir(parents=True)
    if kind.prepare is not None and holdings is not None:
        kind.prepare(port, own, holdings)
    with serving(kind.command(port, own), port, own, cores.server) as server:
        if kind.fill is not None and holdings is not None:
            kind.fill(port, own, holdings)
            server.ready()
        yield server


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
    stored = server.empty()
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
