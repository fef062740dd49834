"""What the index reads of an encoded data set. The oracle is pydicom, on every file that comes with it."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
import warnings
import zlib
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.multival import MultiValue
from pydicom.valuerep import IS, DSfloat

from aiodicom.archive.attributes import ATTRIBUTES
from aiodicom.archive.header import Header, read_header, read_header_of_file
from aiodicom.dataset import encode_data_set
from aiodicom.errors import InvalidInstance
from aiodicom.part10 import InstanceFile, open_instance
from aiodicom.scanner import IN_A_MOMENT, Bounds
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED,
)

BUNDLED: Final = Path(pydicom.data.__file__).parent


@cache
def instances() -> tuple[InstanceFile, ...]:
    found = []
    for path in sorted(BUNDLED.rglob("*")):
        if path.is_file():
            try:
                found.append(open_instance(path))
            except InvalidInstance:
                continue
    return tuple(found)


def data_set_of(instance: InstanceFile) -> bytes:
    return instance.path.read_bytes()[instance.data_set_offset :]


def texts(header: Header) -> dict[str, str]:
    return {keyword: text for keyword, attribute in ATTRIBUTES.items() if (text := header.text(attribute))}


def expected(path: Path) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(path, force=True)
        found = {keyword: as_text(ds.get(keyword)) for keyword in ATTRIBUTES if keyword in ds}
    return {keyword: text for keyword, text in found.items() if text}


def as_text(value: Any) -> str:  # noqa: ANN401 - whatever pydicom makes of it
    if value is None or isinstance(value, Sequence):
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(map(as_text, value))
    if isinstance(value, DSfloat | IS):
        return value.original_string.strip()
    return str(value).strip()


@pytest.mark.parametrize("number", range(len(instances())), ids=lambda number: instances()[number].path.name)
def test_every_bundled_instance_is_read_as_pydicom_reads_it(number: int) -> None:
    instance = instances()[number]
    in_memory = read_header(data_set_of(instance), instance.transfer_syntax_uid)
    with instance.path.open("rb", buffering=0) as file:
        on_disk = read_header_of_file(file, instance.data_set_offset, instance.transfer_syntax_uid)
    assert texts(in_memory) == texts(on_disk)
    # pydicom drops a last component group of a name that is empty.
    found = {keyword: text.rstrip("=") for keyword, text in texts(in_memory).items()}
    assert found == expected(instance.path)


def test_enough_files_are_read() -> None:
    assert len(instances()) >= 170
    assert {instance.transfer_syntax_uid for instance in instances()} >= set(UNCOMPRESSED)


# ---- values


def element(tag: int, vr: str, value: bytes, *, order: str = "<", length: int | None = None) -> bytes:
    """An explicit VR element; `length` to lie about it."""
    size = len(value) if length is None else length
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return struct.pack(order + "HH2s2xL", tag >> 16, tag & 0xFFFF, vr.encode(), size) + value
    return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), size) + value


def implicit(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


UNDEFINED: Final = 0xFFFFFFFF
ITEM_END: Final = implicit(0xFFFEE00D, b"")
SEQUENCE_END: Final = implicit(0xFFFEE0DD, b"")
REQUESTS: Final = 0x00400275


def read(*elements: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> dict[str, str]:
    return texts(read_header(b"".join(elements), syntax))


@pytest.mark.parametrize(
    ("tag", "vr", "value", "keyword", "text"),
    [
        (0x00100020, "LO", b" A1 ", "PatientID", "A1"),
        (0x00100020, "LO", b"A1\0\0\0", "PatientID", "A1"),
        (0x00100020, "LO", b"A\0 1 ", "PatientID", "A\ufffd 1"),
        (0x00101000, "LO", b" A \\ B\\\\C ", "OtherPatientIDs", "A\\B\\\\C"),
        (0x00104000, "LT", b"  a \\ b  ", "PatientComments", "  a \\ b"),
        (0x00280010, "US", b"\x02\x01", "Rows", "258"),
        (0x00280010, "UL", b"\x02\x01\0\0", "Rows", "258"),
        (0x00280010, "US", b"\x02\x01\x03\0", "Rows", "258\\3"),
        (0x00280010, "US", b"\x02", "Rows", ""),
        (0x00280010, "UN", b"\x02\x01", "Rows", "258"),
        (0x00100010, "UN", b"A^B ", "PatientName", "A^B"),
        (0x00200013, "IS", b" +007 ", "InstanceNumber", "+007"),
        (0x00080060, "CS", b"\xd6 ", "Modality", "\u00d6"),
        (0x00100010, "PN", b"\xd6 ", "PatientName", "\u00d6"),
        (0x0020000D, "UI", b"1.2.3 ", "StudyInstanceUID", "1.2.3"),
    ],
)
def test_values(tag: int, vr: str, value: bytes, keyword: str, text: str) -> None:
    assert read(element(tag, vr, value)) == ({keyword: text} if text else {})


def test_a_number_in_big_endian() -> None:
    assert read(element(0x00280010, "US", b"\x01\x02", order=">"), syntax=EXPLICIT_VR_BIG_ENDIAN) == {"Rows": "258"}


@pytest.mark.parametrize(
    ("declared", "encoded", "text"),
    [
        (b"ISO_IR 100", b"M\xfcller", "M\u00fcller"),
        (b"ISO-IR 100", b"M\xfcller", "M\u00fcller"),
        (b"iso ir 101", b"\xb1", "\u0105"),
        (b"ISO_IR 192", "Bu\u0111^\u738b".encode(), "Bu\u0111^\u738b"),
        (b"ISO_IR 192", b"M\xfcller", "M\ufffdller"),  # declared one, written another
        (b"nonsense", b"M\xfcller", "M\u00fcller"),
        (b"\xff\xff", b"M\xfcller", "M\u00fcller"),
        (b"GB18030", b"\xcd\xf5", "\u738b"),
        (b"GB18030", b"\xcd", "\ufffd"),
        (b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3ED\x1b(B", "Yamada=\u5c71\u7530"),
        (b"\\ISO 2022 IR 58", b"\x1b$)A\xcd\xf5", "\u738b"),  # where pydicom leaves "$)A"
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "\uae40"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\xfc \x1b-L\xc0\r\n\xfc", "\xfc \u0420\r\n\xfc"),
        (b"ISO_IR 100", b"A\x1b%GB", "A\x1b%GB"),  # an escape sequence of none
        (b"ISO_IR 100", b"A\x1b", "A\x1b"),
    ],
)
def test_character_sets(declared: bytes, encoded: bytes, text: str) -> None:
    name = element(0x00100010, "PN", encoded + b" " * (len(encoded) % 2))
    assert read(element(0x00080005, "CS", declared), name) == {"PatientName": text}


def test_a_long_value_is_cut() -> None:
    comments = element(0x00104000, "UT", b"x" * 100_000)
    found = read(comments, element(0x00280010, "US", b"\1\0"))
    assert {keyword: len(text) for keyword, text in found.items()} == {"PatientComments": 65536, "Rows": 1}


# ---- the sequence


def open_sequence(tag: int, content: bytes) -> bytes:
    """A sequence of undefined length."""
    return element(tag, "SQ", content + SEQUENCE_END, length=UNDEFINED)


def item_of(*, step: bytes = b"S1", procedure: bytes = b"P1", further: bytes = b"") -> bytes:
    return (
        element(0x00400007, "LO", b"Kopf \xe4")
        + further
        + element(0x00400009, "SH", step)
        + element(0x00401001, "SH", procedure)
    )


def items(*contents: bytes, undefined: bool = False) -> bytes:
    if undefined:
        return b"".join(implicit(0xFFFEE000, content + ITEM_END, length=UNDEFINED) for content in contents)
    return b"".join(implicit(0xFFFEE000, content) for content in contents)


NESTED: Final = open_sequence(0x00400008, items(element(0x00400009, "SH", b"NO"), undefined=True))


@pytest.mark.parametrize(
    "sequence",
    [
        element(REQUESTS, "SQ", items(item_of(), item_of(step=b"S2", further=NESTED))),
        element(REQUESTS, "SQ", items(item_of(), item_of(step=b"S2", further=NESTED), undefined=True)),
        open_sequence(REQUESTS, items(item_of(), item_of(step=b"S2"))),
        open_sequence(REQUESTS, items(item_of(), item_of(step=b"S2", further=NESTED), undefined=True)),
    ],
    ids=["defined", "undefined items", "undefined sequence", "both undefined"],
)
@pytest.mark.parametrize("last", [True, False])
def test_request_attributes(sequence: bytes, last: bool) -> None:
    before = element(0x00080005, "CS", b"ISO_IR 144")
    after = b"" if last else element(0x7FE00010, "OW", bytes(100))
    found = json.loads(read_header(before + sequence + after, EXPLICIT_VR_LITTLE_ENDIAN).request_attributes())
    assert [(row["ScheduledProcedureStepID"], row["RequestedProcedureID"]) for row in found] == [
        ("S1", "P1"),
        ("S2", "P1"),
    ]
    assert found[0]["ScheduledProcedureStepDescription"] == "Kopf \u0444"
    assert found[0]["AccessionNumber"] == ""


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_request_attributes_in_every_syntax(syntax: str) -> None:
    ds, request = Dataset(), Dataset()
    ds.SpecificCharacterSet = "ISO_IR 144"
    ds.SOPInstanceUID = "1.2.3"
    request.ScheduledProcedureStepID = "S1"
    request.SpecificCharacterSet = "ISO_IR 100"
    request.ScheduledProcedureStepDescription = "\u00e4"
    ds.RequestAttributesSequence = [request, Dataset()]
    for undefined in (False, True):
        ds["RequestAttributesSequence"].is_undefined_length = undefined
        header = read_header(encode_data_set(ds, syntax), syntax)
        first, second = json.loads(header.request_attributes())
        assert (first["ScheduledProcedureStepID"], first["ScheduledProcedureStepDescription"]) == ("S1", "\u00e4")
        assert set(second.values()) == {""}


def test_an_unknown_sequence_holds_implicit_vr() -> None:
    content = items(implicit(0x00400009, b"S1"), undefined=True) + SEQUENCE_END
    for encoded in (element(REQUESTS, "UN", content[:-8]), element(REQUESTS, "UN", content, length=UNDEFINED)):
        [row] = json.loads(read_header(encoded, EXPLICIT_VR_LITTLE_ENDIAN).request_attributes())
        assert row["ScheduledProcedureStepID"] == "S1"


@pytest.mark.parametrize(
    "value", [b"S1", items(b"garbage!"), items(item_of())[:-1], implicit(0xFFFEE000, b"", length=1000), bytes(16)]
)
def test_an_instance_with_a_damaged_sequence_is_refused_and_read_where_it_is_kept_already(value: bytes) -> None:
    encoded = element(REQUESTS, "SQ", value)
    with pytest.raises(InvalidInstance):
        read_header(encoded, EXPLICIT_VR_LITTLE_ENDIAN)
    header = read_header(encoded, EXPLICIT_VR_LITTLE_ENDIAN, bounds=IN_A_MOMENT)
    assert len(json.loads(header.request_attributes())) <= 1


# ---- what is damaged, or too much


def test_a_truncated_data_set_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    elements = [
        element(0x00080005, "CS", b"ISO_IR 144"),
        open_sequence(REQUESTS, items(item_of(), undefined=True)),
        element(0x7FE00010, "OW", bytes(100)),
    ]
    whole = b"".join(elements)
    between = set(accumulate(map(len, elements)))  # where nobody can see it
    for end in set(range(1, len(whole))) - between:
        path = tmp_path / "cut"
        path.write_bytes(whole[:end])
        with pytest.raises(InvalidInstance):
            read_header(whole[:end], EXPLICIT_VR_LITTLE_ENDIAN)
        with path.open("rb", buffering=0) as file, pytest.raises(InvalidInstance):
            read_header_of_file(file, 0, EXPLICIT_VR_LITTLE_ENDIAN)


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


HEAD: Final = (
    element(0x00080018, "UI", b"1.2.3\0") + element(0x0020000D, "UI", b"1.2\0") + element(0x00280010, "US", b"\1\0")
)


def test_a_bomb_is_read_at_its_beginning() -> None:
    bomb = deflated(HEAD + element(0x7FE00010, "OW", bytes(2**27)))
    tracemalloc.start()
    try:
        found = read(bomb, syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == {"SOPInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "Rows": "1"}
    assert peak < 8 * 2**20


def test_a_bomb_before_the_uids_is_refused() -> None:
    bomb = deflated(element(0x00090010, "OB", bytes(2**24)) + HEAD)
    with pytest.raises(InvalidInstance, match="has no SOP Instance UID in its first"):
        read(bomb, syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_deflated_data_set_has_an_end() -> None:
    whole = deflated(HEAD + element(0x7FE00010, "OW", random.Random(1).randbytes(2**22)))
    assert "Rows" in read(whole, syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(InvalidInstance, match="has no end"):
        read(whole[:-10], syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


OPEN_ITEM: Final = element(0x00081140, "SQ", implicit(0xFFFEE000, b"", length=UNDEFINED), length=UNDEFINED)


@pytest.mark.parametrize("opening", [b"", OPEN_ITEM])
def test_elements_are_limited(opening: bytes, tmp_path: Path) -> None:
    data = opening + element(0x00080060, "CS", b"CT") * 20_000
    (tmp_path / "data").write_bytes(data)
    with pytest.raises(InvalidInstance, match="more than 1000 elements"):
        read_header(data, EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds(elements=1000))
    with (tmp_path / "data").open("rb", buffering=0) as file:
        with pytest.raises(InvalidInstance, match="more than 1000 elements"):
            read_header_of_file(file, 0, EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds(elements=1000))
        assert file.tell() < len(data)


@pytest.mark.parametrize(
    "data",
    [
        OPEN_ITEM * 65,
        element(0x00081140, "SQ", implicit(0xFFFEE000, b"") * 1_000_001, length=UNDEFINED),
        element(0x00104000, "UT", b"", length=0xFFFFFFFE),
    ],
    ids=["nested", "items", "length"],
)
def test_a_hostile_data_set_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInstance):
        read(data)


SEEDS: Final = [
    element(0x00080005, "CS", b"\\ISO 2022 IR 87")
    + element(0x00100010, "PN", b"A=\x1b$B;3\x1b(B ")
    + open_sequence(REQUESTS, items(item_of(further=NESTED), undefined=True)),
    implicit(0x00100010, b"A^B ")
    + implicit(0x00280010, b"\1\0")
    + implicit(REQUESTS, items(implicit(0x00400009, b"S1"))),
]
CHANGES: Final = st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(CHANGES, max_size=6),
    st.sampled_from([*UNCOMPRESSED, "1.2.3"]),
)
def test_whatever_comes_is_read_or_refused(seed: bytes, changes: list[tuple[int, bytes]], syntax: str) -> None:
    data = bytearray(seed)
    for position, change in changes:
        at = position % len(data)
        data[at : at + len(change)] = change
    try:
        header = read_header(bytes(data), syntax)
    except InvalidInstance:
        return
    for text in texts(header).values():
        assert "\0" not in text
        text.encode()
    json.loads(header.request_attributes())
