"""What the index wants to know of an instance, read from its encoded data set (PS3.5 §7).

One walk over the headers of the elements proves that the data set is whole, and picks the raw values that are wanted on
its way, in a small part of the time that pydicom takes. A value becomes text when somebody asks for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from struct import Struct, unpack_from
from typing import BinaryIO, Final, TypeAlias

from pydicom.datadict import dictionary_VR, tag_for_keyword

from aiodicom.archive.attributes import ATTRIBUTES, Attribute, of_level
from aiodicom.archive.charsets import decode, encodings
from aiodicom.errors import InvalidInstance
from aiodicom.part10 import ITEM, ITEM_DELIMITATION, LONG_VRS, SHORT_VRS, UNDEFINED, Buffer, Read, Walk, inflated
from aiodicom.query import Level
from aiodicom.uids import DEFLATED, EXPLICIT_VR_BIG_ENDIAN

__all__ = ["MAXIMUM_DEPTH", "MAXIMUM_ELEMENTS", "Header", "read_header", "read_header_of_file"]

MAXIMUM_DEPTH: Final = 64
"""How many sequences of undefined length may be nested."""

MAXIMUM_ELEMENTS: Final = 1_000_000
"""How many elements and items a data set may have: those of a whole slide are hundreds of thousands."""

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

_LONGEST_VALUE: Final = 64 * 1024  # so much of a value is kept: more than any VR of the index allows
_READ_AT_ONCE: Final = 64 * 1024
_INFLATED_BEGINNING: Final = 2 * 1024 * 1024  # so much of a deflated data set is walked over
_INFLATED_AT_MOST: Final = 64 * 1024 * 1024  # and so much of it inflated, to see that its stream has an end

# PS3.5 Table 6.2-1.
_INTEGERS: Final = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l"}
_INTERNATIONAL: Final = frozenset((b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"))
_SINGLE_VALUED: Final = frozenset((b"LT", b"ST", b"UR", b"UT"))  # a backslash in them is a character
_UNKNOWN: Final = frozenset((b"", b"OB", b"UN"))  # say nothing about the value; none at all is implicit VR

_Element: TypeAlias = tuple[bytes, bytes]  # VR and value
_Wanted: TypeAlias = Mapping[bool, Mapping[int, int]]

# By little endian or not; the tag as one number, which in little endian has its group and element the wrong way round.
_EXPLICIT: Final = {False: Struct(">L2sH").unpack_from, True: Struct("<L2sH").unpack_from}
_IMPLICIT: Final = Struct("<LL").unpack_from
_TAG_AND_LENGTH: Final = {False: ">HHL", True: "<HHL"}


def _wanted(*tags: int) -> _Wanted:
    """By little endian or not: the tags by the number that comes out of their bytes."""
    return {False: {tag: tag for tag in tags}, True: {(tag & 0xFFFF) << 16 | tag >> 16: tag for tag in tags}}


_WANTED: Final = _wanted(
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
_WANTED_OF_ITEMS: Final = _wanted(_SPECIFIC_CHARACTER_SET, *(tag for tag, _ in _REQUEST_ATTRIBUTES.values()))


def read_header(
    data: bytes, transfer_syntax_uid: str, *, max_elements: int = MAXIMUM_ELEMENTS, name: str = "data set"
) -> Header:
    """Check an encoded data set as `aiodicom.part10.check_data_set` does, and return what the index keeps of it.

    Of a deflated one only the beginning is walked over.

    Args:
        data: the data set, without preamble and File Meta Information.
        transfer_syntax_uid: how it is encoded.
        max_elements: how many elements and items it may have.
        name: what to call it in an error.

    Raises:
        InvalidInstance: it is damaged or truncated, is not in that transfer syntax, or breaks a limit.
    """
    if transfer_syntax_uid in DEFLATED:
        return _read_deflated((memoryview(data),), transfer_syntax_uid, max_elements, name)
    picker = _Picker(_reading(data), data, len(data), transfer_syntax_uid, max_elements, name)
    picker.run(0)
    return picker.header()


def read_header_of_file(
    file: BinaryIO,
    data_set_offset: int,
    transfer_syntax_uid: str,
    *,
    max_elements: int = MAXIMUM_ELEMENTS,
    name: str = "data set",
) -> Header:
    """Do as `read_header` does, for a data set that begins somewhere in a file and reaches to its end.

    Args:
        file: open for reading, best without a buffer.
        data_set_offset: where the data set begins.
        transfer_syntax_uid: how it is encoded.
        max_elements: how many elements and items it may have.
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
        chunks = (memoryview(read(offset, _READ_AT_ONCE)) for offset in range(data_set_offset, size, _READ_AT_ONCE))
        return _read_deflated(chunks, transfer_syntax_uid, max_elements, name)
    picker = _Picker(read, read(0, _READ_AT_ONCE), size, transfer_syntax_uid, max_elements, name)
    picker.run(data_set_offset)
    return picker.header()


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


def _read_deflated(chunks: Iterable[memoryview], transfer_syntax_uid: str, max_elements: int, name: str) -> Header:
    """Walk over the beginning of an inflated data set: a bomb gets no further."""
    beginning = bytearray()
    size = 0
    for piece in inflated(chunks, name):
        size += len(piece)
        if len(beginning) < _INFLATED_BEGINNING:
            beginning += piece
        if size > _INFLATED_AT_MOST:
            break
    data = bytes(beginning)
    picker = _Picker(_reading(data), data, len(data), transfer_syntax_uid, max_elements, name)
    try:
        picker.run(0)
    except InvalidInstance:
        # Where the walk was cut short, it need only have come beyond the UIDs.
        if size == len(data) or max(picker.found, default=0) <= _SERIES_INSTANCE_UID:
            raise
    return picker.header()


def _items(sequence: bytes, little_endian: bool) -> Iterator[Mapping[int, _Element]]:
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


class _Picker(Walk):
    """A walk that picks the values of wanted elements, those in sequences left out."""

    wanted = _WANTED

    def __init__(
        self, read: Read, head: Buffer, end: int, transfer_syntax_uid: str, max_elements: int, name: str
    ) -> None:
        super().__init__(read, head, end, transfer_syntax_uid, name, MAXIMUM_DEPTH, max_elements)
        self.found: dict[int, _Element] = {}
        self._sequence: tuple[int, bytes, int] | None = None  # one of undefined length: tag, VR, where its items begin

    def run(self, pos: int) -> None:
        """Walk from `pos` to the end of the data."""
        super().run(pos)
        self._end_sequence(self._end)

    def header(self) -> Header:
        """Return what was found."""
        return Header(self.found, self._syntax != EXPLICIT_VR_BIG_ENDIAN)

    def _over_explicit(self, pos: int) -> int:
        if self._open:
            return super()._over_explicit(pos)
        self._end_sequence(pos)
        little_endian = self._encoding[1]
        header, long_length, wanted = _EXPLICIT[little_endian], self._long_length, self.wanted[little_endian]
        found, last = self.found, 0
        while pos < self._end:
            behind = self._look(pos)
            buffer, at, count = self._buffer, pos - self._base, 0
            while at < behind:
                tag, vr, length = header(buffer, at)
                if vr in SHORT_VRS:
                    start = at + 8
                elif vr in LONG_VRS and (length := long_length(buffer, at + 8)[0]) != UNDEFINED:
                    start = at + 12
                else:
                    self._count(count)
                    return self._base + at
                last, at = at, start + length
                if tag in wanted:
                    is_there = length <= _LONGEST_VALUE and at < behind
                    found[wanted[tag]] = vr, bytes(buffer[start:at]) if is_there else self._value(start, length)
                count += 1
            self._count(count)
            pos = self._base + at
            if pos > self._end:
                self._truncated(self._base + last, pos)
        return pos

    def _over_implicit(self, pos: int) -> int:
        if self._open:
            return super()._over_implicit(pos)
        self._end_sequence(pos)
        wanted, found, last = self.wanted[True], self.found, 0
        while pos < self._end:
            behind = self._look(pos)
            buffer, at, count = self._buffer, pos - self._base, 0
            while at < behind:
                tag, length = _IMPLICIT(buffer, at)
                if length == UNDEFINED or not 0 < tag & 0xFFFF < 0xFFFE:
                    self._count(count)
                    return self._base + at
                last, at = at, at + 8 + length
                if tag in wanted:
                    start = last + 8
                    is_there = length <= _LONGEST_VALUE and at < behind
                    found[wanted[tag]] = b"", bytes(buffer[start:at]) if is_there else self._value(start, length)
                count += 1
            self._count(count)
            pos = self._base + at
            if pos > self._end:
                self._truncated(self._base + last, pos)
        return pos

    def _open_sequence(self, tag: int, pos: int, vr: bytes) -> int:
        is_outermost = not self._open
        behind = super()._open_sequence(tag, pos, vr)
        if is_outermost and tag in self.wanted[False]:
            self._sequence = tag, b"" if behind == pos + 8 else vr, behind
        return behind

    def _end_sequence(self, pos: int) -> None:
        """Pick the sequence of undefined length, if there was one, that ended before `pos`."""
        if self._sequence is not None:
            tag, vr, start = self._sequence
            self.found[tag] = vr, self._value(start - self._base, pos - start)
            self._sequence = None

    def _value(self, at: int, length: int) -> bytes:
        """The value at an index of the buffer, be it in the buffer or not; a long one is cut."""
        start = self._base + at
        length = min(length, _LONGEST_VALUE, self._end - start)
        return bytes(self._read(start, length)) if length > 0 else b""


class _ItemPicker(_Picker):
    """A walk over an item in the value of a sequence: to its end, or to its delimiter."""

    wanted = _WANTED_OF_ITEMS

    def __init__(self, sequence: bytes, end: int, transfer_syntax_uid: str) -> None:
        super().__init__(_reading(sequence), sequence, end, transfer_syntax_uid, MAXIMUM_ELEMENTS, "item")
        self.behind = end
        """Where the next item begins."""

    def _enter(self, pos: int) -> int:
        tag, _ = self._header(pos)
        if tag == ITEM_DELIMITATION and not self._open:
            self.behind = pos + 8
            return self._end
        return super()._enter(pos)
