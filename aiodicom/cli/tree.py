"""Matches as a tree: patients, their studies, the series of these, and images, each with how many are below it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final

from aiodicom.cli.columns import cut, width
from aiodicom.cli.console import bold, say
from aiodicom.cli.keys import Key, parse_key
from aiodicom.cli.queries import Query
from aiodicom.cli.values import readable, written
from aiodicom.cli.words import amount
from aiodicom.query import Level, unique_key

if TYPE_CHECKING:
    from pydicom import Dataset

# What is said of an entity of each level.
_LABELS: Final = {
    Level.PATIENT: "PatientName PatientID PatientBirthDate PatientSex",
    Level.STUDY: "StudyDate ModalitiesInStudy StudyDescription AccessionNumber",
    Level.SERIES: "Modality SeriesNumber SeriesDescription",
    Level.IMAGE: "InstanceNumber SOPClassUID",
}
# What it has below it, as the peer counts: the keyword, one of them, several.
_COUNTS: Final = {
    Level.PATIENT: (("NumberOfPatientRelatedStudies", "study", "studies"),),
    Level.STUDY: (
        ("NumberOfStudyRelatedSeries", "series", "series"),
        ("NumberOfStudyRelatedInstances", "instance", "instances"),
    ),
    Level.SERIES: (("NumberOfSeriesRelatedInstances", "instance", "instances"),),
    Level.IMAGE: (),
}
_NOUNS: Final = {
    Level.STUDY: ("study", "studies"),
    Level.SERIES: ("series", "series"),
    Level.IMAGE: ("instance", "instances"),
}
_GAP: Final = "  "
_SHORTEST_UID: Final = 12
_NAMELESS: Final = "(without name and ID)"


@dataclass(slots=True)
class _Branch:
    """A patient, a study, a series or an image."""

    level: Level | None = None
    label: str = ""
    uid: str = ""
    said: str = ""
    """How many are below it, by the peer's word."""
    below: dict[str, _Branch] = field(default_factory=dict)

    def counted(self) -> str:
        """Return how many are below it: those that are here, or else those that the peer speaks of."""
        if not self.below:
            return self.said
        numbers = dict.fromkeys(_NOUNS, 0)
        for branch in self.all_below():
            if branch.level in numbers:
                numbers[branch.level] += 1
        return ", ".join(amount(number, *_NOUNS[level]) for level, number in numbers.items() if number)

    def all_below(self) -> Iterator[_Branch]:
        """Yield everything below it."""
        for branch in self.below.values():
            yield branch
            yield from branch.all_below()


class Tree:
    """The matches of a query as a tree; it is printed when all have come.

    Raises:
        ValueError: the query has no levels.
    """

    def __init__(self, query: Query) -> None:
        if query.level is None:
            raise ValueError("what is on a worklist makes no tree: choose another --output")
        self._level = query.level
        self._levels = tuple(Level)[: tuple(Level).index(query.level) + 1]
        self._keys = {level: tuple(map(parse_key, words.split())) for level, words in _LABELS.items()}
        self._identity: dict[Level, tuple[Key, ...]] = {level: (parse_key(unique_key(level)),) for level in Level}
        self._identity[Level.PATIENT] += (parse_key("PatientName"),)  # an emergency may have no ID
        self._root = _Branch()

    def show(self, match: Dataset) -> None:
        """Find its place."""
        branch = self._root
        for level in self._levels:
            if level is not self._level and not any(key.find(match) for key in self._identity[level]):
                continue  # the peer does not say to which it belongs
            identity = "\\".join(written(match, key) for key in self._identity[level])
            if identity not in branch.below:
                label = _GAP.join(filter(None, (readable(match, key) for key in self._keys[level])))
                uid = "" if level is Level.PATIENT else readable(match, self._identity[level][0])
                branch.below[identity] = _Branch(level, label if label or uid else _NAMELESS, uid)
            branch = branch.below[identity]
        branch.said = _said(match, self._level)

    def flush(self) -> None:
        """Do nothing: what is still to come may belong anywhere."""

    def end(self) -> None:
        """Print it."""
        room = get_terminal_size().columns if sys.stdout.isatty() else None
        for branch in self._root.below.values():
            first, *others = _lines(branch, "", "", room)
            say("\n".join((bold(first), *others)))


def _said(match: Dataset, level: Level) -> str:
    words = []
    for keyword, one, several in _COUNTS[level]:
        number = written(match, parse_key(keyword))
        if number.isascii() and number.isdecimal() and len(number) < 12:
            words.append(amount(int(number), one, several))
    return ", ".join(words)


def _lines(branch: _Branch, prefix: str, prefix_below: str, room: int | None) -> Iterator[str]:
    """Yield the line of a branch, and those of all that is below it."""
    yield _line(prefix, branch, room)
    branches = list(branch.below.values())
    for each in branches[:-1]:
        yield from _lines(each, f"{prefix_below}├── ", f"{prefix_below}│   ", room)
    for each in branches[-1:]:
        yield from _lines(each, f"{prefix_below}└── ", f"{prefix_below}    ", room)


def _line(prefix: str, branch: _Branch, room: int | None) -> str:
    text = prefix + _GAP.join(filter(None, (branch.label, branch.counted())))
    if not branch.uid:
        return text if room is None else cut(text, room)
    separator = "" if text == prefix else _GAP
    if room is None:
        return f"{text}{separator}{branch.uid}"
    left = max(room - width(text) - len(separator), _SHORTEST_UID)
    uid = cut(branch.uid, left)
    return f"{cut(text, room - len(separator) - width(uid))}{separator}{uid}"
