"""Who is let in: transport connections and associations are counted, in all and for each address.

Only associations that are established count as such; a connection that has not come so far is silent. Where there are too
many connections, the one that has been silent longest makes room: whoever opens many and says nothing keeps nobody out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias

from aiodicom.errors import AssociationRejected
from aiodicom.limits import Limits
from aiodicom.operation import Reserve

__all__ = ["Doorkeeper", "Kind", "LocalTally", "Tally", "Visitor"]

Kind: TypeAlias = Literal["connections", "associations"]

# PS3.8 Table 9-21: result, source, reason.
TEMPORARY_CONGESTION: Final = (2, 3, 1)
LOCAL_LIMIT_EXCEEDED: Final = (2, 3, 2)


class Tally(Protocol):
    """Numbers of connections and of associations; those of other processes, too, where they share limits."""

    def add(self, kind: Kind, address: str, count: int) -> None:
        """Count one more, or one less, with that address; "" is none that is known."""

    def total(self, kind: Kind) -> int:
        """Return how many there are."""

    def of(self, kind: Kind, address: str) -> int:
        """Return how many there are with that address."""


class LocalTally:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._numbers: dict[Kind, Counter[str]] = {"connections": Counter(), "associations": Counter()}
        self._totals: Counter[Kind] = Counter()

    def add(self, kind: Kind, address: str, count: int) -> None:
        """Count one more, or one less, with that address; "" is none that is known."""
        self._totals[kind] += count
        numbers = self._numbers[kind]
        numbers[address] += count
        if not numbers[address]:
            del numbers[address]

    def total(self, kind: Kind) -> int:
        """Return how many there are."""
        return self._totals[kind]

    def of(self, kind: Kind, address: str) -> int:
        """Return how many there are with that address."""
        return self._numbers[kind][address]


class Visitor(Protocol):
    """A transport connection."""

    address: str

    def turn_away(self) -> None:
        """Close it at once."""


class Doorkeeper:
    """Counts visitors, and decides about them.

    Args:
        limits: how many there may be.
        tally: the numbers.
        on_turned_away: told the address of each connection that is closed since there are too many.

    Attributes:
        reserve: the memory that all associations share.
    """

    def __init__(self, limits: Limits, tally: Tally, on_turned_away: Callable[[str], None]) -> None:
        self.tally = tally
        self.reserve = Reserve(limits.maximum_buffered_in_all)
        self._limits = limits
        self._on_turned_away = on_turned_away
        self._visitors: set[Visitor] = set()
        self._silent: dict[Visitor, None] = {}  # those of them that are no associations, in the order they came

    def come(self, visitor: Visitor) -> None:
        """Let a connection in, or turn it away."""
        tally, address = self.tally, visitor.address
        if address and tally.of("connections", address) >= self._limits.connections_per_address:
            self._turn_away(visitor)
            return
        if tally.total("connections") >= self._limits.maximum_connections:
            longest_silent = next(iter(self._silent), visitor)
            self.leave(longest_silent)
            self._turn_away(longest_silent)
            if longest_silent is visitor:
                return
        tally.add("connections", address, 1)
        self._visitors.add(visitor)
        self._silent[visitor] = None

    def _turn_away(self, visitor: Visitor) -> None:
        visitor.turn_away()
        self._on_turned_away(visitor.address)

    def leave(self, visitor: Visitor) -> None:
        """Count a connection no more."""
        if visitor in self._visitors:
            self._visitors.remove(visitor)
            self._silent.pop(visitor, None)
            self.tally.add("connections", visitor.address, -1)

    def check(self, address: str) -> None:
        """Decide whether there is room for an association with that address.

        Raises:
            AssociationRejected: there is none.
        """
        if self.reserve.is_exhausted:
            raise AssociationRejected(*TEMPORARY_CONGESTION)
        tally, limits = self.tally, self._limits
        if tally.total("associations") >= limits.maximum_associations:
            raise AssociationRejected(*LOCAL_LIMIT_EXCEEDED)
        if address and tally.of("associations", address) >= limits.associations_per_address:
            raise AssociationRejected(*LOCAL_LIMIT_EXCEEDED)

    def seat(self, visitor: Visitor) -> None:
        """Note that a connection has become an association, and need not make room any more."""
        self._silent.pop(visitor, None)
