"""One key against the text of one stored attribute (PS3.4 §C.2.2.2.1 to §C.2.2.2.5).

`matcher` compiles a key. What it returns is asked about text as an index has it: values joined by backslashes, unpadded;
or says, in its attributes, what another language than Python needs to ask the same. Where the Standard leaves the choice:

- Person names (PN) are compared regardless of case and of trailing delimiters. A key with one component group matches any
  group of a name; one with several matches group by group, and an empty group matches all. Fuzzy matching also passes over
  accents, and the order of the components.
- Dates and times are compared by their meaning. A key of lower precision stands for all that it may mean: the time 10 for
  10:00:00 to 10:59:59.999999, at the end of a range, too. A stored value stands for its first moment.
- Several values in one key are alternatives, whatever their VR.
- An attribute without a value matches nothing but universal matching, even where it is a required key.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypeAlias

from aiodicom.errors import InvalidInstance
from aiodicom.rows import SINGLE_VALUED

__all__ = [
    "FuzzyNames",
    "Matcher",
    "Moments",
    "Names",
    "Numbers",
    "OneOf",
    "Range",
    "Wildcards",
    "check_length",
    "combined",
    "fold_name",
    "in_zone",
    "matcher",
    "pair_in_zone",
    "values_of",
]

_WILDCARD_VRS: Final = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_NUMBER_VRS: Final = frozenset(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"))
_LONGEST_VALUE: Final = 10_240  # of a key that may have wildcards: as long as a text (LT) may be
_LONGEST_LIST: Final = 65_536  # of all values that take more than a look into a set
_NORMALIZED_AT_ONCE: Final = 256
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True, slots=True)
class OneOf:
    """Single value matching, and list of UID matching."""

    values: frozenset[str]
    single: bool = False

    def __call__(self, stored: str) -> bool:
        """Tell whether the text of a stored attribute matches."""
        return stored in self.values if self.single else not self.values.isdisjoint(stored.split("\\"))


@dataclass(frozen=True, slots=True)
class Numbers:
    """Single value matching of what is a number in the key and may be written in several ways, such as 1 and 01."""

    values: frozenset[Decimal]

    def __call__(self, stored: str) -> bool:
        """Tell whether the text of a stored attribute matches."""
        return not self.values.isdisjoint(_numbers(stored.split("\\")))


@dataclass(frozen=True, slots=True)
class Wildcards:
    """Wild card matching: `*` is any sequence of characters, `?` any single one; patterns without one are among them."""

    patterns: tuple[str, ...]
    single: bool = False

    def __call__(self, stored: str) -> bool:
        """Tell whether the text of a stored attribute matches."""
        values = (stored,) if self.single else stored.split("\\")
        return any(_fits(self.patterns, value) for value in values)


@dataclass(frozen=True, slots=True)
class Names:
    """Literal matching of person names: for each name, for each component group, the patterns that fit it.

    Patterns are folded, see `fold_name`; a group without any is not asked for. There are several, since `DOE^*` is to
    match DOE, too, which is `DOE^`.
    """

    names: tuple[tuple[tuple[str, ...], ...], ...]

    def __call__(self, stored: str) -> bool:
        """Tell whether the text of a stored attribute, or that folded, matches."""
        return any(
            self._matches(key, name.split("=")) for name in fold_name(stored).split("\\") if name for key in self.names
        )

    @staticmethod
    def _matches(key: tuple[tuple[str, ...], ...], groups: Sequence[str]) -> bool:
        if len(key) == 1:
            return any(_fits(key[0], group) for group in groups)
        padded = (*groups, *[""] * len(key))
        return all(not patterns or _fits(patterns, group) for patterns, group in zip(key, padded, strict=False))


@dataclass(frozen=True, slots=True)
class FuzzyNames:
    """Fuzzy matching of person names: for each name, the patterns of words, of which each has to fit a word."""

    names: tuple[tuple[str, ...], ...]

    def __call__(self, stored: str) -> bool:
        """Tell whether the text of a stored attribute, or that folded, matches."""
        return any(
            all(any(_fits((pattern,), word) for word in words) for pattern in key)
            for words in map(_words, stored.split("\\"))
            for key in self.names
        )


class Range(NamedTuple):
    """From one moment to another, both inclusive, in a form that is compared as text; '' where there is no bound.

    So `low <= value <= high` for a value of any precision, since what is shorter is less: the earliest moment is written
    as short as can be, the latest one in full.
    """

    low: str
    high: str
    zone: int | None = None  # minutes from UTC, if the key says so


@dataclass(frozen=True, slots=True)
class Moments:
    """Single value and range matching of dates and times.

    Args:
        vr: DA, TM or DT.
        ranges: of which one has to hold the moment.
    """

    vr: str
    ranges: tuple[Range, ...]

    def __call__(self, stored: str) -> bool:
        """Tell whether the text of a stored attribute matches."""
        return any(self._matches(value) for value in stored.split("\\"))

    def _matches(self, value: str) -> bool:
        moment = _moment(self.vr, value)
        if moment is None:
            return False
        digits, zone = moment
        for low, high, wanted in self.ranges:
            there = digits if zone is None or wanted is None else _shifted(digits, wanted - zone)
            if low <= there and (there <= high or not high):
                return True
        return False


Matcher: TypeAlias = OneOf | Numbers | Wildcards | Names | FuzzyNames | Moments
"""Tells whether the text of a stored attribute matches a key."""


def matcher(vr: str, key: str, *, fuzzy_names: bool = False) -> Matcher | None:
    """Compile a key.

    Args:
        vr: the value representation of the attribute; not SQ.
        key: its text in the identifier; several values are joined by backslashes.
        fuzzy_names: whether fuzzy semantic matching of person names was negotiated.

    Returns:
        None for universal matching.

    Raises:
        InvalidInstance: the values are too long, see `check_length`.
    """
    values = [value for value in values_of(vr, key) if value]
    check_length(vr, values)
    if not values or (vr in _WILDCARD_VRS and any(value.strip("*") == "" for value in values)):
        return None
    if vr == "PN":
        return _fuzzy_names(values) if fuzzy_names else _names(values)
    if vr in ("DA", "TM", "DT"):
        return _moments(vr, values)
    if vr in _NUMBER_VRS and (numbers := frozenset(_numbers(values))):
        return Numbers(numbers)
    single = vr in SINGLE_VALUED
    if vr in _WILDCARD_VRS and ("*" in key or "?" in key):
        return Wildcards(tuple(values), single)
    return OneOf(frozenset(values), single)


def check_length(vr: str, values: Sequence[str]) -> None:
    """See that comparing them with something cannot take long.

    Raises:
        InvalidInstance: where there may be wildcards, a value has more than 10,240 characters, or those that are names or
            have wildcards have more than 65,536 together.
    """
    if vr not in _WILDCARD_VRS:
        return
    if any(len(value) > _LONGEST_VALUE for value in values):
        raise InvalidInstance(f"a key of {vr} has more than {_LONGEST_VALUE} characters: ask with a shorter one")
    if sum(len(value) for value in values if vr == "PN" or "*" in value or "?" in value) > _LONGEST_LIST:
        raise InvalidInstance(f"the values of a key of {vr} have more than {_LONGEST_LIST} characters: ask with fewer")


def values_of(vr: str, text: str) -> list[str]:
    """Return the values in a text, without padding; in LT, ST, UR and UT a backslash is a character (PS3.5 §6.2)."""
    text = text.rstrip(" \0").replace("\0", "\ufffd")
    return [text.rstrip()] if vr in SINGLE_VALUED else [value.strip() for value in text.split("\\")]


# ---- text


def _fits(patterns: Iterable[str], value: str) -> bool:
    return any(_fits_one(pattern, value) for pattern in patterns)


def _fits_one(pattern: str, value: str) -> bool:
    first, *between = pattern.split("*")
    if not between:
        return len(first) == len(value) and _same(first, value)
    last = between.pop()
    start, end = len(first), len(value) - len(last)
    if start > end or not _same(first, value[:start]) or not _same(last, value[end:]):
        return False
    # Each asterisk takes as little as it can, and never more: there is no going back.
    for piece in between:
        start = (_end if "?" in piece else _end_of_literal)(piece, value, start, end)
        if start < 0:
            return False
    return True


def _same(piece: str, part: str) -> bool:
    return piece == part or ("?" in piece and all(map(_same_character, piece, part)))


def _same_character(wanted: str, there: str) -> bool:
    return wanted in ("?", there)


def _end_of_literal(piece: str, value: str, start: int, end: int) -> int:
    found = value.find(piece, start, end)
    return -1 if found < 0 else found + len(piece)


def _end(piece: str, value: str, start: int, end: int) -> int:
    """Return where the first part of a value that fits a piece with question marks ends; -1 if there is none.

    Bit n of `begun` tells that the n + 1 characters up to here fit the beginning of the piece, so that no piece needs to be
    compared anew from each character on (Baeza-Yates and Gonnet's Shift-And).
    """
    if len(piece) > end - start:
        return -1
    bits: defaultdict[str, int] = defaultdict(int)
    for place, character in enumerate(piece):
        bits[character] |= 1 << place
    any_character, whole, begun = bits["?"], 1 << len(piece) - 1, 0
    for place in range(start, end):
        begun = (begun << 1 | 1) & (bits.get(value[place], 0) | any_character)
        if begun & whole:
            return place + 1
    return -1


def _numbers(values: Iterable[str]) -> Iterator[Decimal]:
    return (Decimal(value) for value in values if _NUMBER.fullmatch(value))


# ---- person names


def fold_name(text: str) -> str:
    """Return person names (PN) in the form by which they are compared: in no case, without trailing delimiters.

    Args:
        text: one name or several, with all their component groups (PS3.5 §6.2.1).
    """
    folded = text.lower() if text.isascii() else _composed(_composed(text).casefold())
    if "^" not in folded and "=" not in folded and "\\" not in folded:
        return folded.strip()
    return "\\".join(
        "=".join(group.rstrip(" ^").strip() for group in name.split("=")).rstrip("=") for name in folded.split("\\")
    )


def _composed(text: str) -> str:
    return _normalized("NFC", text)


def _normalized(form: Literal["NFC", "NFKD"], text: str) -> str:
    """Normalize piece by piece what is longer than any name: the time grows with the square of the accents in a row."""
    if len(text) <= _NORMALIZED_AT_ONCE:
        return unicodedata.normalize(form, text)
    starts = range(0, len(text), _NORMALIZED_AT_ONCE)
    return "".join(unicodedata.normalize(form, text[start : start + _NORMALIZED_AT_ONCE]) for start in starts)


def _names(values: Iterable[str]) -> Names | None:
    names = tuple(tuple(map(_group, fold_name(value).split("="))) for value in values)
    # A group that any name has, even an empty one, is not asked for; a name without any other is universal.
    return None if any(not any(groups) for groups in names) else Names(names)


def _group(group: str) -> tuple[str, ...]:
    patterns: tuple[str, ...] = (group,)
    while patterns[-1].endswith("^*"):  # DOE^*^* is DOE^* again
        patterns = (patterns[-1], patterns[-1][:-2].rstrip(" ^"))
    return () if any(pattern.strip("*") == "" for pattern in patterns) else patterns


def _fuzzy_names(values: Iterable[str]) -> FuzzyNames | None:
    names = tuple(tuple(word for word in _words(value) if word.strip("*")) for value in values)
    return FuzzyNames(names) if all(names) else None


def _words(name: str) -> list[str]:
    """The components of a name and the words in them, without accents."""
    decomposed = _normalized("NFKD", name).casefold()
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return re.split(r"[\s^=,.-]+", plain)


# ---- dates and times

_DIGITS: Final = {
    "DA": re.compile(r"([0-9]{8})()"),
    "TM": re.compile(r"([0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)()"),
    "DT": re.compile(
        r"([0-9]{4}(?:[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?)?)?)([+-][0-9]{4})?"
    ),
}
_EARLIEST: Final = {"DA": "00010101", "TM": "000000", "DT": "00010101000000"}
_LATEST: Final = {"DA": "99991231", "TM": "235960.999999", "DT": "99991231235960.999999"}
_SHORTEST: Final = {"DA": 8, "TM": 2, "DT": 4}
_MOST_HYPHENS: Final = 3  # that of a range, and those of two offsets from UTC
_ZONE: Final = re.compile(r"([+-])([0-9]{2})([0-5][0-9])")
_EASTERNMOST: Final = "1400"  # what follows a hyphen in a DT and is more is a year (PS3.5 §6.2)


def _moments(vr: str, values: Iterable[str]) -> Matcher | None:
    ranges = [_range(vr, value) for value in values]
    if any(each == Range("", "") for each in ranges):
        return None
    # What is no date or time at all may still be asked for, literally.
    return Moments(vr, tuple(filter(None, ranges))) if any(ranges) else OneOf(frozenset(values))


def combined(date: str, time: str) -> Moments | None:
    """Compile the keys for a date and for the time that belongs to it as one range (PS3.4 §C.2.2.2.5.4).

    Args:
        date: the key with VR DA.
        time: the key with VR TM.

    Returns:
        What is asked about the text of the two attributes, one behind the other; None where they are not both ranges of
        the same form.
    """
    days, times = (_range(vr, key.strip()) if "-" in key else None for vr, key in (("DA", date), ("TM", time)))
    if days is None or times is None or [bool(days.low), bool(days.high)] != [bool(times.low), bool(times.high)]:
        return None
    low = _earliest("DT", days.low + times.low) if days.low else ""
    return Moments("DT", (Range(low, days.high + times.high),)) if low or days.high else None


def _range(vr: str, key: str) -> Range | None:
    """What a key stands for; None where it is neither a moment nor a range."""
    if moment := _moment(vr, key):
        return Range(_earliest(vr, moment[0]), _latest(vr, moment[0]), moment[1])
    if key.count("-") > _MOST_HYPHENS:
        return None
    for hyphen in (found.start() for found in re.finditer("-", key)):
        low, high = key[:hyphen].strip(), key[hyphen + 1 :].strip()
        if vr == "DT" and len(high) == len(_EASTERNMOST) and high <= _EASTERNMOST:
            continue
        ends = [_moment(vr, end) if end else ("", None) for end in (low, high)]
        if all(ends):
            return _between(vr, *filter(None, ends))
    return None


def _between(vr: str, low: tuple[str, int | None], high: tuple[str, int | None]) -> Range:
    (first, zone), (last, other_zone) = low, high
    if zone is None:
        zone = other_zone
    latest = _latest(vr, last) if last else ""
    if zone is not None and other_zone is not None and latest:
        latest = _shifted(latest, zone - other_zone)
    return Range(_earliest(vr, first) if first else "", latest, zone)


def _moment(vr: str, text: str) -> tuple[str, int | None] | None:
    """The digits of a date or time, and the minutes of its offset from UTC."""
    match = _DIGITS[vr].fullmatch(text)
    if match is None or (match[2] and match[2][1:] > _EASTERNMOST):
        return None
    return match[1], _minutes(match[2] or "")


def _earliest(vr: str, digits: str) -> str:
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    while "." not in digits and len(digits) > _SHORTEST[vr] and digits[-2:] == _EARLIEST[vr][: len(digits)][-2:]:
        digits = digits[:-2]
    return digits


def _latest(vr: str, digits: str) -> str:
    return digits + _LATEST[vr][len(digits) :]


def _minutes(offset: str) -> int | None:
    match = _ZONE.fullmatch(offset)
    return int(f"{match[1]}1") * (60 * int(match[2]) + int(match[3])) if match else None


def _shifted(digits: str, minutes: int) -> str:
    """A moment as it is that many minutes further east."""
    if not minutes:
        return digits
    full = digits + _EARLIEST["DT"][len(digits) :]
    with suppress(ValueError, OverflowError):  # no such day, or before the first year
        moment = datetime.strptime(full[:12], "%Y%m%d%H%M") + timedelta(minutes=minutes)  # noqa: DTZ007
        return f"{moment.year:04}{moment:%m%d%H%M}{digits[12:]}"
    return digits


def in_zone(text: str, offset: str) -> str:
    """Return DT values with an offset from UTC, where they have none and it is one (PS3.4 §C.2.2.2.1.3)."""
    if _minutes(offset) is None:
        return text
    return "\\".join(value + offset if _has_no_zone(value) else value for value in text.split("\\"))


def _has_no_zone(value: str) -> bool:
    moment = _moment("DT", value)
    return moment is not None and moment[1] is None


def pair_in_zone(date: str, time: str, stored: str, wanted: str) -> tuple[str, str]:
    """Return a date and the time that belongs to it as they are with another offset from UTC.

    They stay as they are where one of the four is missing, or not what it should be.
    """
    there, here = _minutes(stored), _minutes(wanted)
    if there is None or here is None or not _moment("DA", date) or not _moment("TM", time):
        return date, time
    moment = _shifted(date + time, here - there)
    return moment[:8], moment[8:]
