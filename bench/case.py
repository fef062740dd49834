"""What a case is made of: contenders that are measured in turns, and targets."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from bench.peers import NOBODYS, OURS, ClientKind, Job, ServerKind

Scale: TypeAlias = Callable[[int, int], int]
"""Chooses the count of a full run, which comes first, or that of a quick one."""

Quantity: TypeAlias = Literal["rate", "server_peak", "server_added", "client_added", "memory_each", "idle_cpu"]

MB: Final = 1_000_000
KB: Final = 1_000


@dataclass(frozen=True, slots=True)
class Contender:
    """A client and a server, and what they do."""

    client: ClientKind
    server: ServerKind
    job: Job

    @property
    def name(self) -> str:
        """Who sends to whom."""
        return f"{self.client.name} → {self.server.name}"

    @property
    def peers(self) -> frozenset[str]:
        """Whose programs take part besides ours."""
        return frozenset({self.client.peer, self.server.peer}) - {OURS, NOBODYS}


@dataclass(frozen=True, slots=True)
class Target:
    """What a case is to reach.

    Args:
        words: as they are printed.
        of: the contender it is about.
        limit: the least ratio to `against`; without that the least rate, or the most of another quantity.
        against: the contender to compare with, round by round.
        quantity: what is compared.
    """

    words: str
    of: Contender
    limit: float
    against: Contender | None = None
    quantity: Quantity = "rate"


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders that are measured in turns.

    Args:
        name: for `--only`.
        title: in reports.
        unit: of the rate: objects/s, MB/s, echoes/s and so on.
        contenders: who takes part; no two of them have the same name.
        targets: what is to be reached.
        group: with which other cases it shares a picture.
    """

    name: str
    title: str
    unit: str
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...] = ()
    group: str = "others"

    def beside(self, peers: Collection[str]) -> Case:
        """Return the case without the contenders, and without the targets, that need another peer than these."""
        contenders = tuple(each for each in self.contenders if each.peers <= set(peers))
        targets = tuple(
            target
            for target in self.targets
            if target.of in contenders and (target.against is None or target.against in contenders)
        )
        return replace(self, contenders=contenders, targets=targets)
