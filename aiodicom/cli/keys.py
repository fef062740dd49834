"""The keys of a query as `-k` names them, in DCMTK's forms."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

HIGHEST_ITEM: Final = 99  # a query has one item
_STEP: Final = re.compile(
    r"(?:\(?(?P<group>[0-9A-Fa-f]{4}),?(?P<element>[0-9A-Fa-f]{4})\)?|(?P<keyword>[A-Za-z]\w*))(?:\[(?P<item>\d+)\])?"
)

# How a value on the command line becomes one of its VR (PS3.5 §6.2); any other is text, a backslash between its values.
_WITHOUT_BACKSLASH: Final = frozenset({"LT", "ST", "UR", "UT"})
_WHOLE: Final = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
_FRACTIONS: Final = frozenset({"FD", "FL"})
_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"})

# What a table prints is taken for what it is; a range has its hyphen elsewhere.
_AS_PRINTED: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_DATE: Final = re.compile(r"|\d{8}(?:-(?:\d{8})?)?|-\d{8}|\d{4}-\d{2}-\d{2}|\*|\"\"")


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that a query names.

    Args:
        path: the items in which it is, from the outermost on: tag of the sequence, number of the item.
        tag: of the attribute.
        vr: its value representation.
        value: what is to match, as it was written; empty asks for the attribute.
    """

    path: tuple[tuple[int, int], ...]
    tag: int
    vr: str
    value: str = ""

    @property
    def keyword(self) -> str:
        """Its keyword, behind those of the sequences in which it is; a tag where the dictionary has none."""
        steps = [f"{_keyword(tag)}[{item}]" for tag, item in self.path]
        return ".".join([*steps, _keyword(self.tag)])

    def find(self, dataset: Dataset) -> Dataset | None:
        """Return the data set or the item in which the attribute is, if it is there."""
        for tag, item in self.path:
            sequence = dataset.get_item(tag) and dataset[tag].value
            if not sequence or len(sequence) <= item:
                return None
            dataset = sequence[item]
        return dataset if self.tag in dataset else None

    def element(self) -> DataElement:
        """Return the attribute with its value.

        Raises:
            ValueError: it cannot have such a value.
        """
        from pydicom import DataElement, config

        if self.vr == "DA" and not all(_DATE.fullmatch(each.strip()) for each in self.value.split("\\")):
            raise ValueError(
                f"{self.keyword} is a date: write 20040119, or a range: 20040101-20041231, 20040101-, -20041231"
            )
        try:
            # What matches is no value of its VR: "A*", "20240101-".
            return DataElement(self.tag, self.vr, self._value(), validation_mode=config.IGNORE)
        except (ArithmeticError, TypeError, ValueError):
            raise ValueError(f"{self.keyword} is of VR {self.vr}, and cannot have such a value") from None

    def put(self, dataset: Dataset) -> None:
        """Set the attribute; the items in which it is are made if need be.

        Raises:
            ValueError: it cannot have such a value.
        """
        make_item(dataset, self.path)[self.tag] = self.element()

    def _value(self) -> object:
        if self.vr in _BINARY and self.value:
            raise ValueError
        if not self.value:
            return [] if self.vr == "SQ" else b"" if self.vr in _BINARY else None
        if self.vr in _WITHOUT_BACKSLASH:
            return self.value
        values = self.value.split("\\")
        if self.vr == "DA":
            values = [each.replace("-", "") if _AS_PRINTED.fullmatch(each) else each for each in values]
        if self.vr in _WHOLE:
            return [int(each) for each in values]
        if self.vr in _FRACTIONS:
            return [float(each) for each in values]
        if self.vr == "AT":
            return [int(each.strip("()").replace(",", ""), 16) for each in values]
        return values if len(values) > 1 else values[0]


def make_item(dataset: Dataset, path: tuple[tuple[int, int], ...]) -> Dataset:
    """Return the item at that path, see `Key`; what is not there yet is made, empty."""
    from pydicom import Dataset as Item

    for tag, number in path:
        if tag not in dataset or not dataset[tag].value:
            dataset.add_new(tag, "SQ", [])
        sequence = dataset[tag].value
        while len(sequence) <= number:
            sequence.append(Item())
        dataset = sequence[number]
    return dataset


def parse_key(text: str) -> Key:
    """Return what a `-k` says, as the type of an option.

    Raises:
        ArgumentTypeError: it is no key, or names what is not in the dictionary (PS3.6).
    """
    name, _, value = text.partition("=")
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise ArgumentTypeError(f"{text!r} is no text in the character encoding of this terminal")
    steps = [found for part in name.split(".") if (found := _STEP.fullmatch(part))]
    if len(steps) <= name.count("."):
        raise ArgumentTypeError(f"{name!r} is no key: write a keyword or gggg,eeee, in a sequence Sequence[0].Keyword")
    *around, last = steps
    tag = _tag(last)
    if last["item"] is not None:
        raise ArgumentTypeError(f"{name!r} is an item: name an attribute in it, {name}.Keyword")
    path = tuple((_tag(step), _item(step["item"])) for step in around)
    for sequence, _ in path:
        if vr_of(sequence) not in ("SQ", "UN"):
            raise ArgumentTypeError(f"{_keyword(sequence)} is no sequence, so that nothing is in it")
    key = Key(path, tag, vr_of(tag), value)
    try:
        key.element()
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return key


def _tag(step: re.Match[str]) -> int:
    from pydicom.datadict import keyword_dict, tag_for_keyword

    group, element, keyword = step["group"], step["element"], step["keyword"]
    tag = tag_for_keyword(keyword) if keyword else int(group + element, 16)
    if tag is not None:
        if tag >> 16 in (0, 2, 0xFFFE) or not tag & 0xFFFF:
            raise ArgumentTypeError(f"{step[0]} is no attribute of a query")
        return tag
    by_lower = {each.lower(): each for each in keyword_dict}
    near = [by_lower[each] for each in get_close_matches(keyword.lower(), by_lower, cutoff=0.75)]
    advice = f"did you mean {', '.join(near)}?" if near else "write its tag, gggg,eeee"
    raise ArgumentTypeError(f"{keyword!r} is no keyword of the dictionary: {advice}")


def _item(number: str | None) -> int:
    if number is not None and int(number[:4]) > HIGHEST_ITEM:
        raise ArgumentTypeError(f"item {number} is too many: the first is 0, the last {HIGHEST_ITEM}")
    return int(number or 0)


def _keyword(tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or f"{tag >> 16:04X},{tag & 0xFFFF:04X}"


def vr_of(tag: int) -> str:
    """Return the VR that the dictionary has for a tag, the first of several; UN for one that it does not know."""
    from pydicom.datadict import dictionary_VR

    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"  # a private creator (PS3.5 §7.8.1)
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        return "UN"
