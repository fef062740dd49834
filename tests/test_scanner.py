"""`Scanner` and `Scan`: all is bounded, however it is nested, encoded, deflated or cut in parts (PS3.5 §7, Annex A)."""

from __future__ import annotations

import struct
import zlib

import pytest

from aiodicom import InvalidInstance
from aiodicom.dataset import decode_data_set
from aiodicom.part10 import check_data_set
from aiodicom.scanner import Bounds, Scanner, wanted
from aiodicom.scanning import Scan
from aiodicom.sequences import is_sequence
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

UNDEFINED = 0xFFFFFFFF
STEPS = 0x00400100  # Scheduled Procedure Step Sequence
MODALITY = 0x00080060

SYNTAXES = {
    (True, True): IMPLICIT_VR_LITTLE_ENDIAN,
    (False, True): EXPLICIT_VR_LITTLE_ENDIAN,
    (False, False): EXPLICIT_VR_BIG_ENDIAN,
}


class Writer:
    """Writes elements and items in one encoding."""

    def __init__(self, implicit: bool, little: bool) -> None:
        self.implicit, self.little = implicit, little
        self.order = "<" if little else ">"

    def element(self, tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
        length = len(value) if length is None else length
        head = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        if self.implicit or tag >> 16 == 0xFFFE:
            return head + struct.pack(self.order + "I", length) + value
        if vr in (b"SQ", b"UN"):
            return head + vr + struct.pack(self.order + "2xI", length) + value
        return head + vr + struct.pack(self.order + "H", length) + value

    def item(self, content: bytes, *, undefined: bool = False) -> bytes:
        if undefined:
            return self.element(0xFFFEE000, b"", content + self.element(0xFFFEE00D, b"", b""), UNDEFINED)
        return self.element(0xFFFEE000, b"", content)

    def sequence(self, *items: bytes, undefined: bool = False) -> bytes:
        value = b"".join(items)
        if undefined:
            return self.element(STEPS, b"SQ", value + self.element(0xFFFEE0DD, b"", b""), UNDEFINED)
        return self.element(STEPS, b"SQ", value)

    def modality(self) -> bytes:
        return self.element(MODALITY, b"CS", b"CT")

    def check(self, data: bytes, limit: int = 100, depth: int = 64) -> None:
        check_data_set(data, SYNTAXES[self.implicit, self.little], bounds=Bounds(elements=limit, depth=depth))


@pytest.fixture(params=SYNTAXES, ids=["implicit", "explicit", "big endian"])
def writer(request: pytest.FixtureRequest) -> Writer:
    return Writer(*request.param)


@pytest.mark.parametrize("undefined_items", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
def test_elements_and_items_are_counted_in_sequences_of_either_length(
    writer: Writer, undefined: bool, undefined_items: bool
) -> None:
    item = writer.item(writer.modality() + writer.modality(), undefined=undefined_items)
    data = writer.modality() + writer.sequence(item, item, item, undefined=undefined)
    count = 1 + 1 + 3 * 3
    writer.check(data, count)
    with pytest.raises(InvalidInstance, match="more than"):
        writer.check(data, count - 1)
    syntax = SYNTAXES[writer.implicit, writer.little]
    assert len(decode_data_set(data, syntax, bounds=Bounds(elements=count))[STEPS].value) == 3
    with pytest.raises(InvalidInstance):
        decode_data_set(data, syntax, bounds=Bounds(elements=count - 1))


@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_may_be_nested_to_a_depth(writer: Writer, undefined: bool) -> None:
    data = writer.modality()
    for _ in range(64):
        data = writer.sequence(writer.item(data), undefined=undefined)
    writer.check(data, 200)
    with pytest.raises(InvalidInstance, match="nested"):
        writer.check(writer.sequence(writer.item(data), undefined=undefined), 200)


def test_how_deep_they_are_nested_costs_no_recursion(writer: Writer) -> None:
    data = b""
    for _ in range(5000):
        data = writer.sequence(writer.item(data))
    with pytest.raises(InvalidInstance, match="nested"):
        writer.check(data, 100_000)


def test_empty_sequences_and_items_are_none_too_many(writer: Writer) -> None:
    writer.check(writer.sequence() + writer.sequence(undefined=True) + writer.sequence(writer.item(b"")), 4)


def test_what_has_unknown_vr_and_undefined_length_is_in_implicit_vr_inside() -> None:
    explicit, implicit = Writer(False, True), Writer(True, True)
    value = implicit.item(implicit.modality()) + implicit.element(0xFFFEE0DD, b"", b"")
    explicit.check(explicit.element(0x00091010, b"UN", value, UNDEFINED), 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda writer: writer.element(STEPS, b"SQ", writer.modality() + writer.item(b"")),
        lambda writer: writer.sequence(writer.element(0xFFFEE000, b"", b"", 100)),
        lambda writer: writer.sequence(writer.item(writer.modality()[:-1])),
        lambda writer: writer.sequence(writer.item(writer.modality()) + b"\xfe"),
        lambda writer: writer.sequence(writer.item(writer.element(STEPS, b"SQ", writer.item(b""), 1000))),
    ],
    ids=["no item", "too long an item", "half an element", "half an item", "too long a sequence"],
)
def test_what_is_damaged_inside_is_said(writer: Writer, damage: object) -> None:
    with pytest.raises(InvalidInstance, match=r"damaged|no item|truncated"):
        writer.check(damage(writer))  # type: ignore[operator]


def test_the_dictionary_knows_sequences() -> None:
    assert is_sequence(STEPS)
    assert not is_sequence(MODALITY)
    assert not is_sequence(0x00091010)


# ---- part by part


def parts_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def outcome(data: bytes, syntax: str, size: int) -> tuple[bool, object]:
    """Whether it is whole, and what was picked, where it comes in parts of that size."""
    scan = Scan(syntax, bounds=Bounds(), wanted=wanted(MODALITY))
    try:
        for part in parts_of(data, size):
            scan.feed(part)
        scan.finish()
    except InvalidInstance:
        return False, None
    return True, scan.found


def at_once(data: bytes, syntax: str) -> tuple[bool, object]:
    scanner = Scanner(lambda at, _: data[at:], data, len(data), syntax, bounds=Bounds(), wanted=wanted(MODALITY))
    try:
        scanner.run(0)
    except InvalidInstance:
        return False, None
    return True, scanner.found


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
@pytest.mark.parametrize("undefined", [False, True])
def test_in_how_many_parts_it_comes_makes_no_difference(writer: Writer, undefined: bool, size: int) -> None:
    syntax = SYNTAXES[writer.implicit, writer.little]
    inner = writer.sequence(writer.item(writer.modality(), undefined=undefined), undefined=undefined)
    data = writer.modality() + writer.sequence(writer.item(inner + writer.modality()), undefined=undefined)
    data += writer.element(0x7FE00010, b"UN", bytes(300))
    assert outcome(data, syntax, size) == at_once(data, syntax)
    assert outcome(data, syntax, size)[0]
    for end in range(0, len(data), 3):
        assert outcome(data[:end], syntax, size) == at_once(data[:end], syntax), end


@pytest.mark.parametrize("size", [1, 50, 100_000])
def test_a_bomb_is_inflated_no_further_than_it_shows(size: int) -> None:
    writer = Writer(False, True)
    stream = zlib.compressobj(wbits=-15)
    head = writer.modality() + writer.element(0x7FE00010, b"UN", b"", 2**25)
    bomb = stream.compress(head) + stream.compress(bytes(2**25)) + stream.flush()
    scan = Scan(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds(), wanted=wanted(MODALITY))
    for part in parts_of(bomb, size):
        scan.feed(part)
    scan.finish()
    assert scan.found == {MODALITY: (b"CS", b"CT")}
    assert scan._scanner.fed <= 2**20 + 2**18


def test_groups_that_are_none_are_refused_in_either_vr(writer: Writer) -> None:
    for tag in (0x00000002, 0xFFFF000E):
        with pytest.raises(InvalidInstance, match="no data element begins"):
            writer.check(writer.modality() + writer.element(tag, b"UI", b"1.2\0"))


def test_there_may_be_ten_times_as_many_fragments_as_elements() -> None:
    writer = Writer(False, True)
    pixels = struct.pack("<HH2s2xL", 0x7FE0, 0x10, b"OB", UNDEFINED)
    end = writer.element(0xFFFEE0DD, b"", b"")
    writer.check(pixels + writer.item(b"") * 1000 + end, 100)
    with pytest.raises(InvalidInstance, match="more than 1000 fragments"):
        writer.check(pixels + writer.item(b"") * 1001 + end, 100)
