"""Which data sets an identifier asks for, and what of them it wants to see (PS3.4 §C.2.2.2, §C.2.2.3).

How one key is matched, and what is chosen where the Standard leaves the choice, stands in `matchers`. Besides, several
items in a key of VR SQ are alternatives, and private keys are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from aiodicom.dataset import SPECIFIC_CHARACTER_SET
from aiodicom.errors import InvalidInstance
from aiodicom.query import NO_OPTIONS, QueryOptions
from aiodicom.rows import INTERNATIONAL, as_text
from aiodicom.services.matchers import (
    Matcher,
    combined,
    fold_name,
    in_zone,
    matcher,
    pair_in_zone,
    values_of,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Keys", "answer", "fold_name", "matches", "text_of"]

_Condition: TypeAlias = "Callable[[Dataset, str], bool]"  # of a data set, and of its offset from UTC if that counts

QUERY_RETRIEVE_LEVEL: Final = 0x00080052
TIMEZONE_OFFSET_FROM_UTC: Final = 0x00080201

_TEXT: Final = INTERNATIONAL | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
# A birthday is one wherever the patient is: Patient's Birth Date, and Time.
IN_NO_ZONE: Final = frozenset((0x00100030, 0x00100032))


def matches(identifier: Dataset, dataset: Dataset, *, options: QueryOptions = NO_OPTIONS) -> bool:
    """Tell whether a data set has what all keys of an identifier ask for (PS3.4 §C.2.2.2).

    Specific Character Set (0008,0005) and Query/Retrieve Level (0008,0052) are no keys.

    Args:
        identifier: of a C-FIND request.
        dataset: what may match; an attribute that it does not have is empty.
        options: what was negotiated; relational queries make no difference.

    Raises:
        InvalidInstance: a key cannot be decoded in the character set of the identifier, or is too long (see `matcher`).
    """
    return Keys(identifier, options).match(dataset)


def answer(identifier: Dataset, dataset: Dataset, *, options: QueryOptions = NO_OPTIONS) -> Dataset:
    """Return the keys of an identifier with the values of a data set that matches it (PS3.4 §C.4.1.1.3.2).

    What the data set does not have is empty. Of a sequence, the matching items are there, each with the attributes asked
    for; whole, where none is asked for. Text is in the character set of the data set.

    Args:
        identifier: of a C-FIND request.
        dataset: one that matches.
        options: what was negotiated.

    Raises:
        InvalidInstance: a key cannot be decoded in the character set of the identifier, or is too long (see `matcher`).
    """
    return Keys(identifier, options).answer(dataset)


class Keys:
    """The keys of an identifier, compiled once for many data sets; see `matches` and `answer`.

    Args:
        identifier: of a C-FIND request, or an item in one.
        options: what was negotiated.
        zone: the offset from UTC in which dates and times are given; None takes that of the identifier.

    Raises:
        InvalidInstance: a key cannot be decoded in the character set of the identifier, or is too long (see `matcher`).
    """

    def __init__(self, identifier: Dataset, options: QueryOptions = NO_OPTIONS, *, zone: str | None = None) -> None:
        self._identifier = identifier
        self._options = options
        self._zone = zone
        if zone is None:
            self._zone = text_of(identifier, TIMEZONE_OFFSET_FROM_UTC) if options.timezone else ""
        self._sequences: dict[int, list[Keys]] = {}
        self._conditions = list(self._compile())

    @property
    def is_universal(self) -> bool:
        """Whether every data set matches."""
        return not self._conditions

    def match(self, dataset: Dataset, *, zone: str | None = None) -> bool:
        """Tell whether a data set matches.

        Args:
            dataset: what may match.
            zone: its offset from UTC; None takes what it says itself.
        """
        zone = self._zone_of(dataset) if zone is None else zone
        return all(condition(dataset, zone) for condition in self._conditions)

    def answer(self, dataset: Dataset, *, zone: str | None = None) -> Dataset:
        """Return the keys with the values of a data set that matches.

        Args:
            dataset: one that matches.
            zone: its offset from UTC; None takes what it says itself.
        """
        from pydicom.dataelem import DataElement
        from pydicom.dataset import Dataset

        zone = self._zone_of(dataset) if zone is None else zone
        found = Dataset()
        # Elements are handed on as they are: what nobody looks at is not parsed.
        implicit, little = dataset.original_encoding
        found.set_original_encoding(implicit, little, dataset.original_character_set)
        for tag in (SPECIFIC_CHARACTER_SET, *keys_of(self._identifier)):
            if tag == QUERY_RETRIEVE_LEVEL:
                found[tag] = self._identifier[tag]
            elif tag in self._sequences:
                items = [keys.answer(item, zone=zone) for item, keys in self._matching_items(tag, dataset, zone)]
                found[tag] = DataElement(tag, "SQ", items)
            elif tag in dataset:
                found[tag] = dataset.get_item(tag)
            elif tag not in (SPECIFIC_CHARACTER_SET, TIMEZONE_OFFSET_FROM_UTC):  # these shall not be empty
                found[tag] = DataElement(tag, vr_of(tag), [] if vr_of(tag) == "SQ" else None)
        return found

    def _compile(self) -> Iterator[_Condition]:
        texts: dict[int, str] = {}
        for tag in keys_of(self._identifier):
            if vr_of(tag) == "SQ":
                yield from self._compile_items(tag)
            elif tag != QUERY_RETRIEVE_LEVEL and not (tag == TIMEZONE_OFFSET_FROM_UTC and self._options.timezone):
                texts[tag] = text_of(self._identifier, tag)
        for date, time in pairs_in(texts) if self._options.combined_datetime else ():
            if moments := combined(texts[date], texts[time]):
                del texts[date], texts[time]
                yield self._pair_condition(date, time, moments)
        for tag, text in texts.items():
            key = in_zone(text, self._zone or "") if vr_of(tag) == "DT" else text
            if test := matcher(vr_of(tag), key, fuzzy_names=self._options.fuzzy_names):
                yield self._condition(tag, test)

    def _compile_items(self, tag: int) -> Iterator[_Condition]:
        items = [
            Keys(item, self._options, zone=self._zone) for item in items_of(self._identifier, tag) if keys_of(item)
        ]
        if items:
            self._sequences[tag] = items
        if items and not any(keys.is_universal for keys in items):
            yield lambda dataset, zone: any(True for _ in self._matching_items(tag, dataset, zone))

    def _condition(self, tag: int, test: Matcher) -> _Condition:
        return lambda dataset, zone: test(self._stored(dataset, tag, zone))

    def _pair_condition(self, date: int, time: int, test: Matcher) -> _Condition:
        def condition(dataset: Dataset, zone: str) -> bool:
            day = self._stored(dataset, date, zone)
            return len(day) == len("YYYYMMDD") and test(day + self._stored(dataset, time, zone))

        return condition

    def _matching_items(self, tag: int, dataset: Dataset, zone: str) -> Iterator[tuple[Dataset, Keys]]:
        for item in items_of(dataset, tag):
            for keys in self._sequences[tag]:
                if keys.match(item, zone=zone):
                    yield item, keys
                    break

    def _zone_of(self, dataset: Dataset) -> str:
        return text_of(dataset, TIMEZONE_OFFSET_FROM_UTC, errors="replace") if self._zone else ""

    def _stored(self, dataset: Dataset, tag: int, zone: str) -> str:
        """The text of a stored attribute; dates and times as they are with the keys' offset from UTC."""
        text = text_of(dataset, tag, errors="replace")
        if not zone or not text:
            return text
        if vr_of(tag) == "DT":
            return in_zone(text, zone)
        pair = pair_of(tag)
        if pair is None or tag in IN_NO_ZONE:
            return text
        date, time = (text_of(dataset, each, errors="replace") for each in pair)
        return pair_in_zone(date, time, zone, self._zone or "")[pair.index(tag)]


# ---- elements


def keys_of(identifier: Dataset) -> list[int]:
    """Return the tags of the keys in an identifier, private ones and Specific Character Set (0008,0005) left out."""
    return [
        int(tag)
        for tag in sorted(identifier.keys())
        if tag >> 16 > 2 and not tag >> 16 & 1 and tag & 0xFFFF and tag != SPECIFIC_CHARACTER_SET
    ]


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """Return the value representation that the data dictionary gives to a tag; UN where it does not know it."""
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag).partition(" ")[0]  # "US or SS": either is a number
    except KeyError:
        return "UN"


@lru_cache(maxsize=1024)
def pair_of(tag: int) -> tuple[int, int] | None:
    """Return the tags of a date and of the time that belongs to it, by either of them."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    ours, other = {"DA": ("Date", "Time"), "TM": ("Time", "Date")}.get(vr_of(tag), ("", ""))
    partner = tag_for_keyword(keyword_for_tag(tag).replace(ours, other)) if ours else None
    if partner is None or {vr_of(tag), vr_of(partner)} != {"DA", "TM"}:
        return None
    return (tag, partner) if ours == "Date" else (partner, tag)


def pairs_in(tags: Iterable[int]) -> list[tuple[int, int]]:
    """Return the dates among these tags whose time is there, too, with that."""
    there = set(tags)
    pairs = {pair for pair in map(pair_of, there) if pair is not None}
    return sorted(pair for pair in pairs if there.issuperset(pair))


def items_of(dataset: Dataset, tag: int) -> Sequence[Dataset]:
    """Return the items of a sequence; none where there is none."""
    # Of what comes with another VR pydicom would try to make sense, and raises where there is no such VR.
    if tag not in dataset or dataset.get_item(tag).VR not in ("SQ", "UN", None):
        return ()
    element = dataset[tag]
    return element.value or () if element.VR == "SQ" else ()


def text_of(dataset: Dataset, tag: int, *, errors: Literal["strict", "replace"] = "strict") -> str:
    """Return the value of an element as text, several values joined by backslashes, without padding; '' if it has none.

    What was read from bytes is not parsed: it need not be what its VR allows.

    Args:
        dataset: where it may be.
        tag: which one; not of VR SQ.
        errors: what to do about bytes that do not fit the character set.

    Raises:
        InvalidInstance: they do not fit, and errors are strict.
    """
    from pydicom.errors import BytesLengthException

    if tag not in dataset:
        return ""
    element, vr = dataset.get_item(tag), vr_of(tag)
    try:
        if isinstance(element, tuple) and (vr in _TEXT or vr == "UN"):
            text = _decoded(element.value or b"", vr, dataset.original_character_set, errors)
        else:
            value = dataset[tag].value
            text = value.decode("latin-1") if isinstance(value, bytes) else as_text(value, vr)
    except (LookupError, TypeError, ValueError, NotImplementedError, BytesLengthException):
        if errors == "strict":
            raise InvalidInstance(f"({tag >> 16:04X},{tag & 0xFFFF:04X}): cannot be decoded") from None
        return ""
    return "\\".join(values_of(vr, text))


def _decoded(value: bytes, vr: str, character_set: str | Sequence[str], errors: str) -> str:
    if vr not in INTERNATIONAL:
        return value.decode("latin-1")
    encodings = [character_set] if isinstance(character_set, str) else list(character_set)
    if b"\x1b" not in value:
        return value.decode(encodings[0], errors)
    from pydicom.charset import decode_bytes

    # pydicom leaves the escape sequence of one character set, GB 2312, in the text.
    return decode_bytes(value, encodings, set(b"\\^=\t\n\f\r")).replace("\x1b$)A", "")
