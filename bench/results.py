"""What was measured, as plain data: what the tables and the pictures are made of, and a JSON file that brings it back."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.case import Case, Quantity

FORMAT: Final = 2
"""The number of the form of the JSON file; a change that older files do not fit gets another."""


class UnknownFormat(Exception):
    """A file of samples of another form than this one."""


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
    """All that is known of one contender: a sample of each round, or why there is none.

    Args:
        name: who sends to whom.
        client: whose client it is: aiodicom's, or the peer's name.
        server: whose server.
        count: how many objects, echoes and so on it had to do.
        samples: one of each round.
        error: why there is none, or not one of each round.
    """

    name: str
    client: str
    server: str
    count: int
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
class Aim:
    """A target with the names of its contenders, see `bench.case.Target`."""

    words: str
    of: str
    limit: float
    against: str | None
    quantity: Quantity

    @property
    def is_ceiling(self) -> bool:
        """Whether less is better."""
        return self.quantity != "rate"


@dataclass(frozen=True, slots=True)
class Result:
    """A case and what came of it: see `bench.case.Case` for its name, title, unit and group."""

    name: str
    title: str
    unit: str
    group: str
    outcomes: Sequence[Outcome]
    aims: Sequence[Aim]

    @classmethod
    def of(cls, case: Case) -> Result:
        """Return the result of a case that is still to be measured."""
        outcomes = [Outcome(each.name, each.client.peer, each.server.peer, each.job.total) for each in case.contenders]
        aims = [
            Aim(each.words, each.of.name, each.limit, each.against.name if each.against else None, each.quantity)
            for each in case.targets
        ]
        return cls(case.name, case.title, case.unit, case.group, outcomes, aims)

    def reached(self, aim: Aim) -> float | None:
        """Return the ratio or the rate that an aim asks for, the median of the rounds; of memory the most.

        None where it was not measured.
        """
        ours = self.outcome(aim.of).values(aim.quantity)
        if aim.against is not None:
            theirs = self.outcome(aim.against).values(aim.quantity)
            ours = [one / other for one, other in zip(ours, theirs, strict=False)]
        if not ours:
            return None
        return max(ours) if aim.is_ceiling else statistics.median(ours)

    def cpu_ratio(self, aim: Aim) -> float | None:
        """Return how much more processor time both ends of the other contender take; None where there is no other.

        It is what hardly changes when the machine does something else as well.
        """
        if aim.against is None:
            return None
        ours, theirs = self.outcome(aim.of).values("cpu"), self.outcome(aim.against).values("cpu")
        ratios = [other / one for one, other in zip(ours, theirs, strict=False)]
        return statistics.median(ratios) if ratios else None

    def outcome(self, name: str) -> Outcome:
        """Return what came of one contender."""
        return next(outcome for outcome in self.outcomes if outcome.name == name)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of a crowd, which has more than a rate.

    Args:
        case: of which case.
        what: it says.
        value: in words, with its unit.
        target: in words; empty where there is none.
        met: whether that was reached; None where there is none.
    """

    case: str
    what: str
    value: str
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All results of a run.

    Args:
        command: what was typed.
        date: when the run ended, in ISO 8601, UTC.
        machine: one line about the machine and the versions of all that took part.
        seconds: how long the run took.
        rounds: how often each contender had its turn.
        missing: why a peer took no part, by its name.
        results: a case each.
        crowds: what came of the crowds, see `bench.crowd`.
    """

    command: str
    date: str
    machine: str
    seconds: float
    rounds: int
    missing: Mapping[str, str]
    results: Sequence[Result]
    crowds: Sequence[Row] = ()

    def to_json(self) -> str:
        """Return everything, round by round, and with each aim what was reached of it."""
        encoded = {"format": FORMAT, **asdict(self)}
        for result, each in zip(self.results, encoded["results"], strict=True):
            for aim, its in zip(result.aims, each["aims"], strict=True):
                its |= {"reached": result.reached(aim), "by_cpu": result.cpu_ratio(aim)}
        return json.dumps(encoded, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return what `to_json` wrote.

        Raises:
            UnknownFormat: it was written by another version, or is something else.
        """
        try:
            encoded = json.loads(text)
            if encoded.pop("format") != FORMAT:
                raise UnknownFormat("the samples are of another version: measure again")
            encoded["results"] = [_result(each) for each in encoded["results"]]
            encoded["crowds"] = tuple(Row(**each) for each in encoded["crowds"])
            return cls(**encoded)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnknownFormat(f"these are no samples of this benchmark: {error!r}") from None


def _result(encoded: dict[str, Any]) -> Result:
    outcomes = [
        Outcome(**{**each, "samples": [Sample(**sample) for sample in each["samples"]]})
        for each in encoded.pop("outcomes")
    ]
    aims = []
    for each in encoded.pop("aims"):
        del each["reached"], each["by_cpu"]  # which follow from the samples
        aims.append(Aim(**each))
    return Result(**encoded, outcomes=outcomes, aims=aims)
