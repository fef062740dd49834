"""The proof that an encoded data set is whole, in bounds, before anybody parses it (PS3.5 §7, Annex A).

One walk over the headers of the elements, without recursion, proves that each length fits, that sequences and items are
closed, and that the last element ends where the data does; values are never parsed, and long ones never touched. On its
way it picks the few raw values that are wanted. `Scanner` walks over what is at hand, in memory or in a file; of what
comes part by part see `aiodicom.scanning`. It does no I/O of its own, and is plain, blocking code.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from struct import Struct
from typing import Any, Final, NoReturn, TypeAlias

from aiodicom.errors import InvalidInstance
from aiodicom.limits import Limits
from aiodicom.sequences import sequence_tags
from aiodicom.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = [
    "AS_IT_IS",
    "IN_A_MOMENT",
    "Bounds",
    "Buffer",
    "Found",
    "Scanner",
    "Wanted",
    "data_set_encoding",
    "wanted",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Encoded data in memory; a memoryview has format "B"."""

Read: TypeAlias = Callable[[int, int], Buffer]  # (offset, size): up to that many bytes, or more where they cost nothing
Wanted: TypeAlias = Mapping[bool, Mapping[int, int]]
Found: TypeAlias = dict[int, tuple[bytes, bytes]]  # VR, empty in implicit VR, and value by tag

UNDEFINED: Final = 0xFFFFFFFF  # PS3.5 §7.1.1: the length of a value that ends with a delimiter
ITEM: Final = 0xFFFEE000  # PS3.5 §7.5
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD
PIXEL_DATA: Final = 0x7FE00010

# PS3.5 Table 7.1-1: explicit VRs with a 32-bit length after two reserved bytes; Table 7.1-2: those with a 16-bit one.
LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_VRS: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

UNKNOWN: Final = sys.maxsize
"""Where a data set ends that comes part by part."""

HEADER: Final = 12
"""Bytes in the longest header of an element."""

LONGEST_VALUE: Final = 64 * 1024
"""So much is picked of a value: more than any VR of what is wanted allows."""

FRAGMENTS_PER_ELEMENT: Final = 10
"""How many times as many fragments of pixel data as elements there may be: a slide has one for each tile."""

_PLAIN_VRS: Final = LONG_VRS - {b"SQ"}
_PLAIN_LATER_VRS: Final = _PLAIN_VRS - {b"OB", b"OD", b"OF", b"OW"}  # the others may be pixel data
_PIXEL_DATA: Final = frozenset((0x7FE00008, 0x7FE00009, PIXEL_DATA))  # as floats, as doubles, as integers
_PIXEL_GROUP: Final = 0x7FE0
_NEXT_READ: Final = 4 * 1024
_TURN: Final = 64 * 1024  # bytes of headers, after which they are counted
_NOTHING: Final[Mapping[int, int]] = {}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a data set may hold.

    Args:
        depth: how many sequences may be nested.
        elements: how many elements and items there may be, those in sequences included; fragments are counted apart.
        header: how many bytes there may be before pixel data.
        in_sequences: whether sequences of defined length are looked into; else they are passed over as a whole.
        in_unknown: whether that holds for a value of unknown VR (UN), too, if the dictionary has a sequence under its tag:
            pydicom takes it for one.
        ratio: beyond how many times its size a deflated data set is looked at no further, see `Inflater`.
    """

    depth: int = 64
    elements: int = 100_000
    header: int = 16 * 1024 * 1024
    in_sequences: bool = True
    in_unknown: bool = False
    ratio: float = 16


AS_IT_IS: Final = Bounds(elements=sys.maxsize, header=sys.maxsize, in_sequences=False, ratio=math.inf)
"""For what is our own: it has to be whole."""

IN_A_MOMENT: Final = replace(AS_IT_IS, ratio=16)
"""The same, where there is little time for what is deflated."""


def instance_bounds(limits: Limits) -> Bounds:
    """Return how much the data set of an instance that is received may hold."""
    return Bounds(limits.maximum_depth, limits.maximum_elements, limits.maximum_header)


def wanted(*tags: int) -> Wanted:
    """Return what `Scanner` takes: by little endian or not, the tags by the number that comes out of their bytes."""
    return {False: {tag: tag for tag in tags}, True: {_swapped(tag): tag for tag in tags}}


def _swapped(tag: int) -> int:
    return (tag & 0xFFFF) << 16 | tag >> 16


def data_set_encoding(transfer_syntax_uid: str, data: Buffer, name: str) -> tuple[bool, bool]:
    """Return (implicit VR, little endian) of a data set that begins with `data` and is not deflated (PS3.5 Annex A).

    A private transfer syntax does not say: the data does.

    Raises:
        InvalidInstance: the data contradicts its transfer syntax.
    """
    vr = bytes(data[4:6])
    looks_implicit = len(vr) == 2 and not (vr.isalpha() and vr.isupper())
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        implicit, contradicted = True, vr in SHORT_VRS or vr in LONG_VRS
    elif transfer_syntax_uid.startswith("1.2.840.10008.1.2."):
        implicit, contradicted = False, looks_implicit
    else:
        implicit, contradicted = looks_implicit, False
    if contradicted:
        named, found = ("implicit", "explicit") if implicit else ("explicit", "implicit")
        raise InvalidInstance(
            f"{name}: begins in {found} VR, but its transfer syntax {transfer_syntax_uid} has {named} VR; "
            "correct the Transfer Syntax UID"
        )
    return implicit, transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN


def _unpackers(layout: str) -> dict[bool, Callable[[Buffer, int], tuple[Any, ...]]]:
    """By little endian or not."""
    return {False: Struct(f">{layout}").unpack_from, True: Struct(f"<{layout}").unpack_from}


_TAG_AND_LENGTH: Final = _unpackers("HHL")
_EXPLICIT: Final = _unpackers("L2sH")
_LONG_LENGTH: Final = _unpackers("L")
_IMPLICIT: Final = Struct("<LL").unpack_from


class Starved(Exception):
    """The bytes up to that offset have not come yet."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


@dataclass(slots=True)
class _Sequence:
    """An open sequence, or pixel data in fragments.

    Attributes:
        tag: which one.
        offset: where it begins.
        has_fragments: whether its items are fragments (PS3.5 §A.4).
        encoding: (implicit VR, little endian) around it.
        stop: the end of what is around it.
        is_defined: whether its length is.
        item: the end of the sequence, where one of its items is open, and whether the item's length is defined.
    """

    tag: int
    offset: int
    has_fragments: bool
    encoding: tuple[bool, bool]
    stop: int
    is_defined: bool
    item: tuple[int, bool] | None = None


class Scanner:
    """A walk over the headers of an encoded data set, element by element, that ends at its end or in an error.

    It stands among the elements of the data set or of an item, or between the items of the innermost open sequence.

    Args:
        read: returns the bytes from an offset on.
        head: the first bytes, if they are at hand.
        end: the offset behind the data set.
        transfer_syntax_uid: how it is encoded; not deflated.
        name: what to call it in an error.
        bounds: how much it may hold.
        wanted: the elements to be picked, not those in sequences; see `wanted`.
        longest: how many bytes are picked of a value.

    Attributes:
        found: VR and value of those that were met, by tag; of a long value the first bytes.
        elements: how many elements and items were met.
    """

    def __init__(
        self,
        read: Read,
        head: Buffer,
        end: int,
        transfer_syntax_uid: str,
        name: str = "data set",
        bounds: Bounds = AS_IT_IS,
        wanted: Wanted | None = None,
        *,
        longest: int = LONGEST_VALUE,
    ) -> None:
        self.found: Found = {}
        self._longest = longest
        self.elements = self._fragments = 0
        self._read = read
        self._base, self._buffer, self._limit = 0, head, len(head) - HEADER
        self._pos = 0
        self._early = bounds.header  # before which pixel data may begin
        self._end = self._stop = end
        self._syntax = transfer_syntax_uid
        self._name = name
        self._bounds = bounds
        self._sequence_tags: frozenset[int] | None = None  # as they are read in implicit VR, little endian
        self._wanted = wanted or {False: _NOTHING, True: _NOTHING}
        self._picked: tuple[int, bytes, int] | None = None  # an open sequence that is: tag, VR, where its items begin
        self._open: list[_Sequence] = []
        self._has_begun = False
        self._encode_as((False, True))

    def run(self, pos: int) -> None:
        """Walk from the beginning of the data set, or from a later element of it, to its end.

        Raises:
            InvalidInstance: it is truncated, has a tail, breaks a bound, or is no data set of that transfer syntax. The
                message gives the offset and the tag, never a value.
        """
        self._pos = pos
        self._early = pos + self._bounds.header
        self._advance()

    def behind_group(self, group: int) -> int:
        """Return the offset behind the elements of a group, which begins with the data set.

        Raises:
            InvalidInstance: they are damaged.
        """
        self._begin()
        while self._pos < self._end:
            tag, length, _, start = self._element(self._pos)
            if tag >> 16 != group:
                break
            if start + length > self._end:
                self._truncated(self._pos, start + length)
            self._pos = start + length
        return self._pos

    # Where it is.

    def _advance(self) -> None:
        """Walk on from where it stands."""
        if not self._has_begun and self._pos < self._end:
            self._begin()
        while True:
            if self._pos >= self._stop:
                if not self._open:
                    break
                self._leave()
            elif self._open and self._open[-1].item is None:
                self._over_items(self._open[-1])
            else:
                implicit, little = self._encoding
                if not implicit:
                    self._over_explicit(little)
                elif little:
                    self._over_implicit()
                if self._pos < self._stop:
                    self._enter()
        self._end_picked(self._pos)

    def _begin(self) -> None:
        """See how the data set is encoded."""
        self._header(self._pos)
        at = self._pos - self._base
        self._encode_as(data_set_encoding(self._syntax, self._buffer[at : at + 8], self._name))
        self._has_begun = True

    def _leave(self) -> None:
        """Leave the item or the sequence that ends here by its length."""
        sequence = self._open[-1]
        if sequence.item is None:
            if not sequence.is_defined:
                self._fail_open(sequence)
            self._close()
        else:
            stop, is_defined = sequence.item
            if not is_defined:
                self._fail_open(sequence)
            self._stop, sequence.item = self._known(stop), None

    def _close(self) -> None:
        """Leave the innermost sequence."""
        sequence = self._open.pop()
        self._stop = self._known(sequence.stop)
        if sequence.encoding != self._encoding:
            self._encode_as(sequence.encoding)

    def _known(self, stop: int) -> int:
        """The end of something, which was that of the data set where that was not known yet."""
        return self._end if stop == UNKNOWN else stop

    def _encode_as(self, encoding: tuple[bool, bool]) -> None:
        self._encoding = encoding
        implicit, little = encoding
        self._tag_and_length = _TAG_AND_LENGTH[little]
        if implicit and self._bounds.in_sequences and self._sequence_tags is None:
            self._sequence_tags = _swapped_sequence_tags()

    # Over many elements.

    def _over_explicit(self, little: bool) -> None:
        """Pass over elements that are plain, to the end or to the first other one."""
        header, long_length = _EXPLICIT[little], _LONG_LENGTH[little]
        short_vrs, found, longest, stop = SHORT_VRS, self.found, self._longest, self._stop
        wanted = self._wanted_here(little)
        group, two = (0xFFFF, 2) if little else (0xFFFF0000, 0x20000)  # 0000, FFFE and FFFF are no groups
        while (pos := self._pos) < stop:
            behind = self._look(pos)
            plain_vrs = self._plain_vrs(pos)
            buffer, base, there, count, last = self._buffer, self._base, len(self._buffer), 0, 0
            at = pos - base
            while at < behind:
                tag, vr, length = header(buffer, at)
                if tag + two & group <= two:
                    break
                if vr in short_vrs:
                    start = at + 8
                elif vr in plain_vrs and (length := long_length(buffer, at + 8)[0]) != UNDEFINED:
                    start = at + 12
                else:
                    break
                if tag in wanted:
                    if start + length > there or length > longest:
                        break
                    found[wanted[tag]] = vr, bytes(buffer[start : start + length])
                last, at = at, start + length
                count += 1
            self._count(count)
            self._pos = base + at
            if self._pos > stop:
                self._truncated(base + last, self._pos)
            if at < behind:
                return

    def _over_implicit(self) -> None:
        """Pass over elements that are plain, to the end or to the first other one."""
        header, sequences, stop = _IMPLICIT, self._sequence_tags or (), self._stop
        found, longest = self.found, self._longest
        wanted = self._wanted_here(True)
        while (pos := self._pos) < stop:
            behind = self._look(pos)
            beyond = 0xFFFE if pos < self._early else _PIXEL_GROUP
            buffer, base, there, count, last = self._buffer, self._base, len(self._buffer), 0, 0
            at = pos - base
            while at < behind:
                tag, length = header(buffer, at)
                if length == UNDEFINED or not 0 < tag & 0xFFFF < beyond or tag in sequences:
                    break
                start = at + 8
                if tag in wanted:
                    if start + length > there or length > longest:
                        break
                    found[wanted[tag]] = b"", bytes(buffer[start : start + length])
                last, at = at, start + length
                count += 1
            self._count(count)
            self._pos = base + at
            if self._pos > stop:
                self._truncated(base + last, self._pos)
            if at < behind:
                return

    def _plain_vrs(self, pos: int) -> frozenset[bytes]:
        vrs = _PLAIN_VRS if pos < self._early else _PLAIN_LATER_VRS
        return vrs - {b"UN"} if self._bounds.in_unknown else vrs

    def _wanted_here(self, little: bool) -> Mapping[int, int]:
        if self._open:
            return _NOTHING
        self._end_picked(self._pos)
        return self._wanted[little]

    def _over_items(self, sequence: _Sequence) -> None:
        """Pass over items, into one that is to be looked into, or out of the sequence."""
        stop = self._stop
        passes = sequence.has_fragments or not self._bounds.in_sequences
        while (pos := self._pos) < stop:
            behind = self._look(pos)
            buffer, base, count, is_over = self._buffer, self._base, 0, False
            at = pos - base
            while at < behind and not is_over:
                group, element, length = self._tag_and_length(buffer, at)
                pos = base + at
                tag, start = group << 16 | element, pos + 8
                if start > stop:
                    self._header(pos)  # which says so
                if tag == SEQUENCE_DELIMITATION and not (sequence.is_defined and start < stop):
                    at, is_over = at + 8, True
                    self._close()
                    continue
                if tag != ITEM or (sequence.has_fragments and length == UNDEFINED):
                    what = f"{_tag(sequence.tag)} at offset {sequence.offset}"
                    self._fail(f"damaged: {what} goes on with no item at offset {pos}")
                count += 1
                if length != UNDEFINED and start + length > stop:
                    self._truncated(pos, start + length)
                if length == UNDEFINED or (length and not passes):
                    at, is_over = at + 8, True
                    sequence.item = stop, length != UNDEFINED
                    self._stop = stop if length == UNDEFINED else start + length
                else:
                    at += 8 + length
            self._pos = base + at
            self._count(count, are_fragments=sequence.has_fragments)
            if is_over:
                return

    def _count(self, count: int, *, are_fragments: bool = False) -> None:
        at_most = self._bounds.elements
        if are_fragments:
            self._fragments += count
            if self._fragments > at_most * FRAGMENTS_PER_ELEMENT:
                self._fail(f"more than {at_most * FRAGMENTS_PER_ELEMENT} fragments; raise the limit")
        else:
            self.elements += count
            if self.elements > at_most:
                self._fail(f"more than {at_most} elements and items; raise the limit")

    # Over one element.

    def _enter(self) -> None:
        """Deal with an element that is not plain: it has items, may be pixel data, is wanted and long; or a delimiter."""
        pos = self._pos
        tag, length, vr, start = self._element(pos)
        if tag == ITEM_DELIMITATION:
            self._delimited(pos)
            return
        if not 0 < tag >> 16 < 0xFFFE:
            self._fail(f"damaged: no data element begins at offset {pos}, but {_tag(tag)}")
        self._wanted_here(True)  # which ends a sequence that was picked
        if tag in _PIXEL_DATA and not self._open and pos >= self._early:
            self._fail(f"{_tag(tag)} begins beyond {self._bounds.header} bytes; raise the limit")
        has_items = self._has_items(tag, length, vr)
        if length != UNDEFINED and start + length > self._stop:
            self._truncated(pos, start + length)
        if tag in self._wanted[False] and not self._open and not (has_items and length == UNDEFINED):
            self.found[tag] = vr, self._value(start, length)
        if has_items:
            self._open_sequence(tag, length, vr, start)
        else:
            self._pos = start + length
        self._count(1)

    def _element(self, pos: int) -> tuple[int, int, bytes, int]:
        """Return tag, length and VR of the element at `pos`, empty in implicit VR, and where its value begins."""
        tag, length = self._header(pos)
        implicit, little = self._encoding
        if implicit or tag >> 16 == 0xFFFE:
            return tag, length, b"", pos + 8
        at = pos - self._base
        _, vr, short = _EXPLICIT[little](self._buffer, at)
        (long,) = _LONG_LENGTH[little](self._buffer, at + 8)
        if vr in SHORT_VRS:
            return tag, short, vr, pos + 8
        if vr not in LONG_VRS:
            if not (vr.isalpha() and vr.isupper()):
                self._fail(f"damaged: no data element begins at offset {pos}, but {_tag(tag)}")
            # A VR of a later edition: those have a 32-bit length after two reserved bytes (PS3.5 §7.1.2).
            if short:
                return tag, short, vr, pos + 8
        return tag, long, vr, pos + 12

    def _has_items(self, tag: int, length: int, vr: bytes) -> bool:
        """Whether an element has items: its length is undefined, or it is a sequence that is to be looked into."""
        if length == UNDEFINED:
            if vr not in (b"", b"OB", b"OW", b"SQ", b"UN"):
                self._fail(
                    f"damaged: {_tag(tag)} at offset {self._pos} has an undefined length, which its VR does not allow"
                )
            return True
        if vr == b"SQ":
            return self._bounds.in_sequences
        is_unknown = self._bounds.in_sequences if vr == b"" else self._bounds.in_unknown and vr == b"UN"
        return is_unknown and tag in sequence_tags()

    def _open_sequence(self, tag: int, length: int, vr: bytes, start: int) -> None:
        if len(self._open) == self._bounds.depth:
            what = f"{_tag(tag)}, offset {self._pos}"
            self._fail(f"more than {self._bounds.depth} sequences are nested at {what}; raise the limit")
        encoding = self._encoding
        if vr == b"UN" and start < self._stop:  # PS3.5 §6.2.2: implicit VR inside, little endian
            self._look(start)
            self._encode_as((True, encoding[1] or self._buffer[start - self._base] == 0xFE))
        if length == UNDEFINED and not self._open and tag in self._wanted[False] and self._end != UNKNOWN:
            self._picked = tag, vr, start
        has_fragments = vr in (b"OB", b"OW")
        self._open.append(_Sequence(tag, self._pos, has_fragments, encoding, self._stop, length != UNDEFINED))
        if length != UNDEFINED:
            self._stop = start + length
        self._pos = start

    def _delimited(self, pos: int) -> None:
        """Leave the item that ends with the delimiter at `pos`."""
        sequence = self._open[-1] if self._open else None
        if sequence is None or sequence.item is None or sequence.item[1]:
            self._fail(f"damaged: no data element begins at offset {pos}, but {_tag(ITEM_DELIMITATION)}")
        self._pos, sequence.item = pos + 8, None

    def _end_picked(self, pos: int) -> None:
        """Pick the sequence of undefined length that is wanted, if there was one, and that ended before `pos`."""
        if self._picked is not None and not self._open:
            tag, vr, start = self._picked
            self.found[tag] = vr, self._value(start, pos - start)
            self._picked = None

    def _value(self, start: int, length: int) -> bytes:
        """The first of a value."""
        length = min(length, self._longest)
        value = bytes(self._read(start, length)[:length]) if length else b""
        if len(value) < length and self._end == UNKNOWN:
            raise Starved(start + length)
        return value

    # Bytes.

    def _look(self, pos: int) -> int:
        """Have the header at `pos` in the buffer; return up to where in it others can be looked at in one turn."""
        if not self._base <= pos <= self._limit:
            chunk = self._read(pos, _NEXT_READ)
            if len(chunk) < HEADER:
                if self._end == UNKNOWN:
                    raise Starved(pos + HEADER)
                if not chunk:
                    self._fail(f"truncated: ended at offset {pos} while it was read", again=True)
                # Near the end zeros complete the header: what it then says reaches beyond the end, or is refused.
                chunk = bytes(chunk).ljust(HEADER, b"\0")
            self._buffer = chunk
            self._base, self._limit = pos, pos + len(chunk) - HEADER
        # Compared one by one, which takes a third of the time that min() does.
        behind, turn = self._limit + 1, pos + _TURN
        behind = turn if turn < behind else behind
        behind = self._stop if self._stop < behind else behind
        behind = self._early if pos < self._early < behind else behind
        return behind - self._base

    def _header(self, pos: int) -> tuple[int, int]:
        """Return tag and 32-bit length of the header at `pos`."""
        if pos + 8 > self._stop:
            self._fail(
                f"truncated: ends at offset {self._stop} within the header of an element at offset {pos}", again=True
            )
        self._look(pos)
        group, element, length = self._tag_and_length(self._buffer, pos - self._base)
        return group << 16 | element, length

    def _truncated(self, pos: int, behind: int) -> NoReturn:
        tag, _ = self._header(pos)
        missing = behind - self._stop if behind > self._stop else 0
        within = "the end" if self._stop == self._end else "the end of what it is in"
        self._fail(f"truncated: {_tag(tag)} at offset {pos} reaches {missing} bytes beyond {within}", again=True)

    def _fail_open(self, sequence: _Sequence) -> NoReturn:
        what = f"{_tag(sequence.tag)} at offset {sequence.offset}"
        self._fail(f"truncated: the sequence or pixel data {what} has no end", again=True)

    def _fail(self, what: str, *, again: bool = False) -> NoReturn:
        raise InvalidInstance(f"{self._name}: {what}{'; copy or export it again' if again else ''}")


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


@cache
def _swapped_sequence_tags() -> frozenset[int]:
    return frozenset(map(_swapped, sequence_tags()))
