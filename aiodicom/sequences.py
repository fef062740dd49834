"""A look into all sequences of a data set, those of defined length included, which `part10` passes over (PS3.5 §7.5).

pydicom reads these when they are touched, item by item, which a peer could make a matter of seconds; and they can be nested
as deep as it likes.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

from aiodicom.errors import InvalidInstance
from aiodicom.part10 import ITEM, ITEM_DELIMITATION, LONG_VRS, SEQUENCE_DELIMITATION, UNDEFINED, Buffer

__all__ = ["check_sequences", "is_sequence"]

_ITEM_TAGS: Final = {True: b"\xfe\xff\x00\xe0", False: b"\xff\xfe\xe0\x00"}


def check_sequences(data: Buffer, *, implicit: bool, little: bool, max_elements: int, max_depth: int = 64) -> None:
    """Prove that there are not too many elements and items in the sequences of a data set, and that they fit.

    Args:
        data: a data set without pixel data that is whole, see `aiodicom.part10.check_data_set`.
        implicit: whether it is in implicit VR.
        little: whether it is in little endian.
        max_elements: how many elements and items there may be in all.
        max_depth: how many sequences may be nested.

    Raises:
        InvalidInstance: there are more, or something is damaged.
    """
    if _ITEM_TAGS[little] in bytes(data):
        _Look(data, little, max_elements, max_depth).run(implicit)


class _Look:
    """Passes over elements and items; it calls itself only as deep as is allowed."""

    def __init__(self, data: Buffer, little: bool, max_elements: int, max_depth: int) -> None:
        order = "<" if little else ">"
        self._data = data
        self._left = max_elements
        self._max_depth = max_depth
        self._tag_and_length = struct.Struct(order + "HHL").unpack_from
        self._short_length = struct.Struct(order + "6xH").unpack_from
        self._long_length = struct.Struct(order + "8xL").unpack_from

    def run(self, implicit: bool) -> None:
        try:
            end = self._elements(0, len(self._data), implicit, 0)
        except struct.error:
            end = 0
        if end != len(self._data):
            raise InvalidInstance("data set: a sequence or item of it is damaged")

    def _elements(self, pos: int, end: int, implicit: bool, depth: int) -> int:
        """Pass over elements, until the end or an item's delimiter; return the offset behind it."""
        while pos < end:
            tag, length, vr, value = self._header(pos, implicit)
            if tag == ITEM_DELIMITATION:
                return value
            self._count()
            if vr == b"SQ" or length == UNDEFINED:
                stop = end if length == UNDEFINED else value + length
                pos = self._items(
                    value, stop, implicit or vr == b"UN", depth + 1
                )  # PS3.5 §6.2.2 has UN implicit inside
            else:
                pos = value + length
        return pos

    def _items(self, pos: int, end: int, implicit: bool, depth: int) -> int:
        """Pass over items, until the end or the sequence's delimiter; return the offset behind it."""
        if depth > self._max_depth:
            raise InvalidInstance(f"data set: more than {self._max_depth} sequences are nested")
        while pos < end:
            tag, length, _, content = self._header(pos, True)
            if tag == SEQUENCE_DELIMITATION:
                return content
            if tag != ITEM:
                raise InvalidInstance("data set: a sequence of it goes on with no item")
            self._count()
            pos = self._elements(content, end if length == UNDEFINED else content + length, implicit, depth)
        return pos

    def _header(self, pos: int, implicit: bool) -> tuple[int, int, bytes, int]:
        """Return tag, length, VR and the offset of the value of an element or item."""
        group, element, length = self._tag_and_length(self._data, pos)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, length, b"SQ" if is_sequence(tag) else b"", pos + 8
        vr = bytes(self._data[pos + 4 : pos + 6])
        if vr in LONG_VRS:
            return tag, self._long_length(self._data, pos)[0], vr, pos + 12
        return tag, self._short_length(self._data, pos)[0], vr, pos + 8

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InvalidInstance("data set: it has too many elements and items")


def is_sequence(tag: int) -> bool:
    """Tell whether the data dictionary has a sequence under that tag."""
    from pydicom.datadict import dictionary_VR

    with suppress(KeyError):
        return dictionary_VR(tag) == "SQ"
    return False
