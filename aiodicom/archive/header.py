"""What the index wants to know of an instance, read from its encoded data set (PS3.5 §7).

One walk over the headers of the elements proves that the data set is whole, and picks the raw values that are wanted on
its way, in a small part of the time that pydicom takes. A value becomes text when somebody asks for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from struct import unpack_from
from typing import BinaryIO, Final, TypeAlias

from pydicom.datadict import dictionary_VR, tag_for_keyword

from aiodicom.archive.attributes import ATTRIBUTES, Attribute, of_level
from aiodicom.archive.charsets import decode, encodings
from aiodicom.errors import InvalidInstance
from aiodicom.inflating import inflate_beginning
from aiodicom.query import Level
from aiodicom.scanner import ITEM, UNDEFINED, Bounds, Found, Read, Scanner, wanted
from aiodicom.scanning import Scan
from aiodicom.uids import (
    DEFLATED,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = ["Header", "read_header", "read_header_of_file"]

_RECEIVED: Final = Bounds()
_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_SERIES_INSTANCE_UID: Final = 0x0020000E
_REQUEST_ATTRIBUTES_SEQUENCE: Final = 0x00400275
# What is kept of its items (PS3.3 Table 10-9): tag and VR by keyword.
_REQUEST_ATTRIBUTES: Final = {
    keyword: (tag, dictionary_VR(tag).encode())
    for keyword in (
        "RequestedProcedureID",
        "RequestedProcedureDescription",
        "ScheduledProcedureStepID",
        "ScheduledProcedureStepDescription",
        "AccessionNumber",
        "StudyInstanceUID",
    )
    if (tag := tag_for_keyword(keyword)) is not None
}

_READ_AT_ONCE: Final = 64 * 1024
_INFLATED_BEGINNING: Final = 1024 * 1024  # where what is wanted of a deflated data set stands

# PS3.5 Table 6.2-1.
_INTEGERS: Final = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l"}
_INTERNATIONAL: Final = frozenset((b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"))
_SINGLE_VALUED: Final = frozenset((b"LT", b"ST", b"UR", b"UT"))  # a backslash in them is a character
_UNKNOWN: Final = frozenset((b"", b"OB", b"UN"))  # say nothing about the value; none at all is implicit VR

_Element: TypeAlias = tuple[bytes, bytes]  # VR and value
_TAG_AND_LENGTH: Final = {False: ">HHL", True: "<HHL"}

_WANTED: Final = wanted(
    _SPECIFIC_CHARACTER_SET,
    _REQUEST_ATTRIBUTES_SEQUENCE,
    *(each.tag for each in ATTRIBUTES.values()),
)
_BY_LEVEL: Final = {level: [(each.tag, each.vr.encode()) for each in of_level(level)] for level in Level}
_ABOVE_INSTANCES: Final = (
    _SPECIFIC_CHARACTER_SET,
    _REQUEST_ATTRIBUTES_SEQUENCE,
    *(each.tag for each in ATTRIBUTES.values() if each.level is not Level.IMAGE),
)
_WANTED_OF_ITEMS: Final = wanted(_SPECIFIC_CHARACTER_SET, *(tag for tag, _ in _REQUEST_ATTRIBUTES.values()))


def read_header(data: bytes, transfer_syntax_uid: str, *, bounds: Bounds = _RECEIVED, name: str = "data set") -> Header:
    """Check an encoded data set as `aiodicom.part10.check_data_set` does, and return what the index keeps of it.

    A deflated one that grows as nothing honest does is looked at no further than that shows.

    Args:
        data: the data set, without preamble and File Meta Information.
        transfer_syntax_uid: how it is encoded.
        bounds: how much it may hold.
        name: what to call it in an error.

    Raises:
        InvalidInstance: it is damaged or truncated, is not in that transfer syntax, or breaks a limit.
    """
    if transfer_syntax_uid in DEFLATED:
        return _read_deflated((data,), bounds, name)
    scanner = Scanner(_reading(data), data, len(data), transfer_syntax_uid, name, bounds, _WANTED)
    scanner.run(0)
    return Header(scanner.found, transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN)


def read_header_of_file(
    file: BinaryIO,
    data_set_offset: int,
    transfer_syntax_uid: str,
    *,
    bounds: Bounds = _RECEIVED,
    name: str = "data set",
) -> Header:
    """Do as `read_header` does, for a data set that begins somewhere in a file and reaches to its end.

    Args:
        file: open for reading, best without a buffer.
        data_set_offset: where the data set begins.
        transfer_syntax_uid: how it is encoded.
        bounds: how much it may hold.
        name: what to call it in an error.

    Raises:
        InvalidInstance: as `read_header` does.
        OSError: the file cannot be read.
    """

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    size = file.seek(0, os.SEEK_END)
    if transfer_syntax_uid in DEFLATED:
        chunks = (read(offset, _READ_AT_ONCE) for offset in range(data_set_offset, size, _READ_AT_ONCE))
        return _read_deflated(chunks, bounds, name)
    scanner = Scanner(read, read(0, _READ_AT_ONCE), size, transfer_syntax_uid, name, bounds, _WANTED)
    scanner.run(data_set_offset)
    return Header(scanner.found, transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN)


class Header:
    """The attributes of an instance that the index keeps, as they are encoded.

    Args:
        elements: VR and value of those that are there, by tag.
        little_endian: how they are encoded.
        character_set: the encodings that hold where the elements do not declare any.
    """

    __slots__ = ("_elements", "_encodings", "_little_endian")

    def __init__(
        self, elements: Mapping[int, _Element], little_endian: bool, character_set: tuple[str, ...] | None = None
    ) -> None:
        self._elements = elements
        self._little_endian = little_endian
        declared = elements.get(_SPECIFIC_CHARACTER_SET)
        if declared is None and character_set is not None:
            self._encodings = character_set
        else:
            self._encodings = encodings(declared[1] if declared else b"")

    def text(self, attribute: Attribute) -> str:
        """Return the value of an attribute as text, without padding; several values are joined by backslashes.

        It is '' where there is none. What cannot be decoded is U+FFFD.
        """
        return self._text(attribute.tag, attribute.vr.encode())

    def texts(self, level: Level) -> list[str]:
        """Return those of a level, in the order of `of_level`."""
        return [self._text(tag, vr) for tag, vr in _BY_LEVEL[level]]

    def digest_above(self) -> int:
        """Return a number that changes with what is said of the patient, the study and the series."""
        return hash(tuple(map(self._elements.get, _ABOVE_INSTANCES)))

    def request_attributes(self) -> str:
        """Return the Request Attributes Sequence (0040,0275) as JSON, see `aiodicom.archive.schema`."""
        element = self._elements.get(_REQUEST_ATTRIBUTES_SEQUENCE)
        if element is None:
            return "[]"
        items = (
            Header(found, self._little_endian, self._encodings) for found in _items(element[1], self._little_endian)
        )
        rows = [{keyword: item._text(*what) for keyword, what in _REQUEST_ATTRIBUTES.items()} for item in items]  # noqa: SLF001
        return json.dumps(rows, ensure_ascii=False)

    def _text(self, tag: int, dictionary_vr: bytes) -> str:
        element = self._elements.get(tag)
        if element is None:
            return ""
        vr, value = element
        if vr in _UNKNOWN:
            vr = dictionary_vr
        if vr in _INTEGERS:
            return self._numbers(value, _INTEGERS[vr])
        text = decode(value, self._encodings) if vr in _INTERNATIONAL else value.decode("latin-1")
        text = text.rstrip(" \0").replace("\0", "\ufffd")  # to SQLite, a NUL would be the end
        if "\\" in text and vr not in _SINGLE_VALUED:
            return "\\".join([part.strip() for part in text.split("\\")])
        return text.rstrip() if vr in _SINGLE_VALUED else text.strip()

    def _numbers(self, value: bytes, code: str) -> str:
        count = len(value) // (2 if code in "Hh" else 4)
        return "\\".join(map(str, unpack_from(f"{'<' if self._little_endian else '>'}{count}{code}", value)))


def _reading(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def _read_deflated(chunks: Iterable[bytes], bounds: Bounds, name: str) -> Header:
    """Scan all of a data set, and pick from its beginning, which is inflated once more."""
    scan = Scan(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, name, bounds)
    first: list[bytes] = []
    for chunk in chunks:
        scan.feed(chunk)
        if sum(map(len, first)) < _INFLATED_BEGINNING:
            first.append(chunk)
    scan.finish()
    data = inflate_beginning(first, _INFLATED_BEGINNING)
    picker = Scanner(_reading(data), data, len(data), EXPLICIT_VR_LITTLE_ENDIAN, name, wanted=_WANTED)
    with suppress(InvalidInstance):  # it is cut short
        picker.run(0)
    if ATTRIBUTES["SOPInstanceUID"].tag not in picker.found:
        raise InvalidInstance(f"{name}: has no SOP Instance UID in its first {len(data)} bytes, inflated")
    return Header(picker.found, True)


def _items(sequence: bytes, little_endian: bool) -> Iterator[Found]:
    """What is wanted of each item in the value of a sequence, up to one that is damaged."""
    syntax = "" if little_endian else EXPLICIT_VR_BIG_ENDIAN  # in explicit VR or not, that the items say themselves
    pos = 0
    with suppress(InvalidInstance):
        while pos + 8 <= len(sequence):
            group, element, length = unpack_from(_TAG_AND_LENGTH[little_endian], sequence, pos)
            if group << 16 | element != ITEM:
                return
            pos += 8
            item = _ItemPicker(sequence, len(sequence) if length == UNDEFINED else pos + length, syntax)
            item.run(pos)
            yield item.found
            pos = item.behind


class _ItemPicker(Scanner):
    """A walk over an item in the value of a sequence: to its end, or to its delimiter."""

    def __init__(self, sequence: bytes, end: int, transfer_syntax_uid: str) -> None:
        super().__init__(_reading(sequence), sequence, end, transfer_syntax_uid, "item", wanted=_WANTED_OF_ITEMS)
        self.behind = end
        """Where the next item begins."""

    def _delimited(self, pos: int) -> None:
        if self._open:
            super()._delimited(pos)
        else:
            self.behind = self._pos = pos + 8
            self._stop = self._end = self.behind
