"""Text in aligned columns: as wide as its cells where there is room, the widest ones cut where there is not."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import Final
from unicodedata import category, east_asian_width

GAP: Final = "  "
NARROWEST: Final = 8
"""No column is cut below that."""
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+){2,}")
_WITHOUT_WIDTH: Final = ("Mn", "Me")  # marks that stand above or around what is before them


class Columns:
    """How wide the columns of a table are, and its lines.

    Args:
        rows: cells that the columns shall hold, the headings among them.
        room: how many cells of the terminal a line may take; None for any.
        right: the columns that are aligned at their right, as numbers are.
        whole: the columns that are not cut, such as dates.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[str]],
        room: int | None = None,
        *,
        right: Collection[int] = frozenset(),
        whole: Collection[int] = frozenset(),
    ) -> None:
        self.widths = [max(map(width, column)) for column in zip_longest(*rows, fillvalue="")]
        self._right = right
        self._is_cut = room is not None
        if room is not None:
            self._fit(room - len(GAP) * (len(self.widths) - 1), whole)

    def _fit(self, room: int, whole: Collection[int]) -> None:
        """Make the widest columns narrower, and equally so, until all of them fit, or none is wide any more."""
        for limit in range(min(max(self.widths, default=0), max(room, NARROWEST)), NARROWEST - 1, -1):
            if sum(self.widths) <= room:
                break
            self.widths = [each if index in whole else min(each, limit) for index, each in enumerate(self.widths)]

    def line(self, cells: Sequence[str]) -> str:
        """Return a line; what does not fit is cut, where there is a limit at all."""
        if self._is_cut:
            cells = [cut(cell, limit) for cell, limit in zip(cells, self.widths, strict=True)]
        return GAP.join(map(self._padded, range(len(self.widths)), cells)).rstrip()

    def _padded(self, column: int, cell: str) -> str:
        padding = " " * (self.widths[column] - width(cell))
        return padding + cell if column in self._right else cell + padding

    def rule(self) -> str:
        """Return a line below the headings."""
        return GAP.join("─" * each for each in self.widths)


def width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if category(each) in _WITHOUT_WIDTH else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def cut(text: str, limit: int) -> str:
    """Return text in at most that many cells: a UID keeps its end, which tells it from others, the rest its beginning."""
    if width(text) <= limit:
        return text
    if _UID.fullmatch(text):
        return f"…{text[1 - limit :]}" if limit > 1 else "…"
    while width(text) >= limit:
        text = text[:-1]
    return f"{text}…"
