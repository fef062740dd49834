"""Keys of a query that a peer does not match by, as its matches show: many ignore those of another level."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from aiodicom.services.matching import Keys, text_of
from aiodicom.services.storage import decoding_errors

if TYPE_CHECKING:
    from pydicom import Dataset

_NO_KEYS: Final = ("SpecificCharacterSet", "QueryRetrieveLevel", "TimezoneOffsetFromUTC")


class Ignored:
    """Counts the matches that have another value than was asked for.

    Args:
        identifier: of the query, of which nothing was negotiated.
    """

    def __init__(self, identifier: Dataset) -> None:
        self._counts: Counter[str] = Counter()
        self._keys = {
            element.tag: (element.keyword, _only(identifier, element.tag))
            for element in identifier
            if element.value and element.VR != "SQ" and element.keyword not in _NO_KEYS
        }

    def look_at(self, match: Dataset) -> None:
        """Compare a match; what it leaves out or empty says nothing."""
        for tag, (keyword, keys) in self._keys.items():
            raw = match.get_item(tag) if tag in match else None
            if raw is not None and raw.value and text_of(match, tag, errors="replace") and not _fits(keys, match):
                self._counts[keyword] += 1

    def counts(self) -> dict[str, int]:
        """Return how many have another value, by keyword."""
        return dict(self._counts)


def _only(identifier: Dataset, tag: int) -> Keys:
    """Return one key of an identifier on its own."""
    from pydicom import Dataset as New

    alone = New()
    if "SpecificCharacterSet" in identifier:
        alone.SpecificCharacterSet = identifier.SpecificCharacterSet
    alone[tag] = identifier[tag]
    return Keys(alone)


def _fits(keys: Keys, match: Dataset) -> bool:
    try:
        return keys.match(match)
    except decoding_errors():  # who knows
        return True
