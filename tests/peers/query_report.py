"""What became of a query or retrieval, whoever asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset


@dataclass(frozen=True, slots=True)
class QueryReport:
    """What a C-FIND, C-GET or C-MOVE came to.

    Args:
        statuses: that of each response; the last is the final one. Empty where there was no response.
        counters: sub-operations as the last response counts them: "Remaining", "Completed", "Failed", "Warning".
        matches: the identifiers of pending responses to C-FIND.
        log: all that the SCU printed.
    """

    statuses: Sequence[int]
    counters: Mapping[str, int] = field(default_factory=dict)
    matches: Sequence[Dataset] = ()
    log: str = ""
