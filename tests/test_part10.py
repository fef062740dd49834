"""PS3.10 files: what is read of them, which are refused and why, and that a cut one never passes. The oracle is pydicom."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import dcmread
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID

from aiodicom.errors import InvalidInstance
from aiodicom.inflating import inflate
from aiodicom.part10 import check_data_set, file_meta, find_instance, open_instance, valid_uid
from aiodicom.scanner import Bounds
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from aiodicom.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, __version__

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

BUNDLED: Final = Path(pydicom.__file__).parent / "data"
TEST_FILES: Final = BUNDLED / "test_files"
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"

# The files among pydicom's that are not sent, and what is said about them.
NO_META = "without File Meta Information"
NOT_DICOM = "is not a DICOM file"
IS_DICOMDIR = "is a DICOMDIR"
REFUSED: Final = {
    "ExplVR_BigEndNoMeta.dcm": NO_META,
    "ExplVR_LitEndNoMeta.dcm": NO_META,
    "rtstruct.dcm": NO_META,
    "no_meta.dcm": NOT_DICOM,  # and its first byte is lost
    "MR_truncated.dcm": r"truncated: \(7FE0,0010\) at offset 1488 reaches 62 bytes beyond the end",
    "rtplan_truncated.dcm": r"truncated: \(300A,00B0\) at offset 1410 reaches 265 bytes beyond the end",
    "SC_rgb_jpeg.dcm": "begins in implicit VR, but its transfer syntax 1.2.840.10008.1.2.4.50 has explicit VR",
    "meta_missing_tsyntax.dcm": r"lacks the Transfer Syntax UID \(0002,0010\)",
    "empty_charset_LEI.dcm": "SOP class UID is missing",
    "nested_priv_SQ.dcm": "SOP class UID is missing",
    "DICOMDIR": IS_DICOMDIR,
    "DICOMDIR-bigEnd": IS_DICOMDIR,
    "DICOMDIR-empty.dcm": IS_DICOMDIR,
    "DICOMDIR-implicit": IS_DICOMDIR,
    "DICOMDIR-nooffset": IS_DICOMDIR,
    "DICOMDIR-nopatient": IS_DICOMDIR,
    "DICOMDIR-reordered": IS_DICOMDIR,
    "README": NOT_DICOM,
}


def bundled_files() -> Iterator[Path]:
    for path in sorted(BUNDLED.rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            yield path


def is_refused(path: Path) -> bool:
    return path.name in REFUSED or path.suffix in (".txt", ".md", ".json", ".icc", ".dump", ".gz")


INSTANCES: Final = [path for path in bundled_files() if not is_refused(path)]
OTHERS: Final = [path for path in bundled_files() if is_refused(path)]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def element(tag: int, vr: str, value: bytes, *, order: str = "<", length: int | None = None) -> bytes:
    """An explicit VR element; `length` to lie about it."""
    size = len(value) if length is None else length
    if vr in ("OB", "OF", "OW", "SQ", "UC", "UN", "UT"):
        return struct.pack(order + "HH2s2xL", tag >> 16, tag & 0xFFFF, vr.encode(), size) + value
    return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), size) + value


def implicit(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


UNDEFINED: Final = 0xFFFFFFFF
ITEM_END: Final = implicit(0xFFFEE00D, b"")
SEQUENCE_END: Final = implicit(0xFFFEE0DD, b"")
CLASS_AND_INSTANCE: Final = element(0x00080016, "UI", CT.encode() + b"\0") + element(0x00080018, "UI", b"1.2.3\0")


def written(path: Path, data_set: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, *, meta: bytes | None = None) -> Path:
    path.write_bytes((file_meta(CT, "1.2.3", syntax) if meta is None else meta) + data_set)
    return path


# ---- what is read


@pytest.mark.parametrize("path", INSTANCES, ids=named)
def test_a_bundled_instance_is_read_as_pydicom_reads_it(path: Path) -> None:
    found = open_instance(path)
    ds = dcmread(path)
    meta = ds.file_meta
    assert found.path == path
    assert found.sop_class_uid == meta.get("MediaStorageSOPClassUID", ds.get("SOPClassUID"))
    assert found.sop_instance_uid == meta.get("MediaStorageSOPInstanceUID", ds.get("SOPInstanceUID"))
    assert found.transfer_syntax_uid == meta.TransferSyntaxUID
    assert found.size == path.stat().st_size
    assert found.data_set_offset == 144 + meta.get("FileMetaInformationGroupLength", 194)  # one file lacks it
    assert open_instance(str(path), check=False) == found


@pytest.mark.parametrize("path", OTHERS, ids=named)
def test_what_cannot_be_sent_is_refused_with_its_name_and_the_reason(path: Path) -> None:
    with pytest.raises(InvalidInstance, match=REFUSED.get(path.name, NOT_DICOM)) as caught:
        open_instance(path)
    assert str(path) in str(caught.value)


def test_no_file_of_pydicom_is_forgotten() -> None:
    assert len(INSTANCES) >= 140
    assert {path.name for path in OTHERS} >= REFUSED.keys()


def test_a_file_that_cannot_be_read_says_so_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.dcm"):
        open_instance(tmp_path / "absent.dcm")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7" * 100, NOT_DICOM),
        (bytes(128) + b"DICM", NO_META),
        (bytes(128) + b"DICM" + CLASS_AND_INSTANCE, NO_META),
        (CLASS_AND_INSTANCE, NO_META),
        (file_meta(CT, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN), "ends after its File Meta Information"),
        (file_meta(CT, "1.2.3", "../evil") + CLASS_AND_INSTANCE, "transfer syntax UID is missing or no UID"),
        (file_meta(CT, "1.2.3/4", EXPLICIT_VR_LITTLE_ENDIAN) + CLASS_AND_INSTANCE, "SOP instance UID is missing or no"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(InvalidInstance, match=reason):
        open_instance(path)


def test_a_file_cut_within_its_meta_information_is_refused(tmp_path: Path) -> None:
    meta = file_meta(CT, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, source_ae_title="PEER")
    for end in range(1, len(meta) + 1):
        with pytest.raises(InvalidInstance):
            open_instance(written(tmp_path / "cut.dcm", b"", meta=meta[:end]))


# ---- deviations that peers put up with


def meta_without(*elements: int) -> bytes:
    """Preamble and File Meta Information, without some elements of group 0002; the group length is not corrected."""
    whole = {
        0x00: element(0x00020000, "UL", b"\x70\0\0\0"),
        0x01: element(0x00020001, "OB", b"\0\1"),
        0x02: element(0x00020002, "UI", CT.encode() + b"\0"),
        0x03: element(0x00020003, "UI", b"1.2.3\0"),
        0x10: element(0x00020010, "UI", EXPLICIT_VR_LITTLE_ENDIAN.encode() + b"\0"),
    }
    return bytes(128) + b"DICM" + b"".join(value for number, value in whole.items() if number not in elements)


@pytest.mark.parametrize(
    "meta",
    [
        pytest.param(meta_without(), id="wrong group length"),
        pytest.param(meta_without(0x00), id="no group length"),
        pytest.param(meta_without(0x00, 0x01), id="no version"),
        pytest.param(meta_without(0x02, 0x03), id="no SOP class and instance"),
        pytest.param(meta_without()[132:], id="no preamble"),
        pytest.param(meta_without().replace(CT.encode() + b"\0", CT.encode() + b" "), id="space as padding"),
        pytest.param(
            meta_without(0x03) + element(0x00020003, "UI", b"1.2.3"),
            id="no padding",
        ),
        pytest.param(
            bytes(128) + b"DICM" + implicit(0x00020002, CT.encode()) + implicit(0x00020003, b"1.2.3\0")
            + implicit(0x00020010, EXPLICIT_VR_LITTLE_ENDIAN.encode()),
            id="implicit VR",
        ),
        pytest.param(
            meta_without(0x10) + element(0x00020102, "OB", bytes(200_000))
            + element(0x00020010, "UI", EXPLICIT_VR_LITTLE_ENDIAN.encode() + b"\0"),
            id="much private information",
        ),
        pytest.param(
            meta_without(0x10) + element(0x00020102, "OB", bytes(4080 - 12 - len(meta_without(0x10))))
            + element(0x00020010, "UI", EXPLICIT_VR_LITTLE_ENDIAN.encode() + b"\0"),
            id="across a read",
        ),
    ],
)  # fmt: skip
def test_odd_meta_information_is_read(tmp_path: Path, meta: bytes) -> None:
    found = open_instance(written(tmp_path / "x.dcm", CLASS_AND_INSTANCE, meta=meta))
    expected = (CT, "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)
    assert (found.sop_class_uid, found.sop_instance_uid, found.transfer_syntax_uid) == expected
    assert found.data_set_offset == len(meta)


def test_missing_uids_come_from_a_deflated_data_set_too(tmp_path: Path) -> None:
    meta = meta_without(0x02, 0x03, 0x10) + element(0x00020010, "UI", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode())
    path = written(tmp_path / "x.dcm", deflated(CLASS_AND_INSTANCE + element(0x00100010, "PN", b"A^B ")), meta=meta)
    assert open_instance(path).sop_instance_uid == "1.2.3"


def test_a_deflated_stream_that_looks_like_group_0002_is_no_meta_information(tmp_path: Path) -> None:
    # A stored block and what follows can begin with any bytes: these are those of another element (0002,…).
    data_set = b"\x02\x00" + bytes(20)
    meta = file_meta(CT, "1.2.3", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    path = written(tmp_path / "x.dcm", data_set, meta=meta)
    assert open_instance(path, check=False).data_set_offset == len(meta)


@pytest.mark.parametrize(
    "data_set",
    [
        pytest.param(element(0x00100010, "PN", b"A^B"), id="odd length"),
        pytest.param(element(0x00100010, "PN", b"A^B ") + element(0xFFFCFFFC, "OB", bytes(300)), id="trailing padding"),
        pytest.param(element(0x00280010, "US", b"\1\0") + element(0x00100010, "PN", b""), id="tags out of order"),
        pytest.param(element(0x00080000, "UL", b"\x0e\0\0\0"), id="group length"),
        pytest.param(element(0x00090010, "ZZ", b"AB"), id="unknown VR, 16-bit length"),
        pytest.param(struct.pack("<HH2s2xL", 9, 16, b"ZZ", 2) + b"AB", id="unknown VR, 32-bit length"),
        pytest.param(
            element(0x00081140, "SQ", implicit(0xFFFEE000, b"", length=UNDEFINED) + ITEM_END + SEQUENCE_END,
                    length=UNDEFINED),
            id="empty item",
        ),
        pytest.param(element(0x00081140, "SQ", SEQUENCE_END, length=UNDEFINED), id="empty sequence"),
        pytest.param(
            element(0x00081140, "SQ", implicit(0xFFFEE000, b"12345678") + implicit(0xFFFEE0DD, b"", length=4),
                    length=UNDEFINED),
            id="delimiter with a length",
        ),
        pytest.param(
            element(0x00091010, "UN", implicit(0xFFFEE000, b"", length=UNDEFINED) + implicit(0x00080100, b"AB")
                    + implicit(0x00081140, SEQUENCE_END, length=UNDEFINED) + ITEM_END + SEQUENCE_END, length=UNDEFINED)
            + element(0x00100010, "PN", b"A^B "),
            id="implicit VR in UN",
        ),
        pytest.param(
            element(0x7FE00010, "OB", implicit(0xFFFEE000, b"") + implicit(0xFFFEE000, SEQUENCE_END) + SEQUENCE_END,
                    length=UNDEFINED),
            id="a fragment that holds a delimiter",
        ),
    ],
)  # fmt: skip
def test_odd_data_sets_pass(data_set: bytes) -> None:
    check_data_set(data_set, EXPLICIT_VR_LITTLE_ENDIAN)


def test_un_of_undefined_length_is_little_endian_within_big_endian() -> None:
    content = implicit(0xFFFEE000, b"", length=UNDEFINED) + implicit(0x00080100, b"AB") + ITEM_END + SEQUENCE_END
    data_set = element(0x00091010, "UN", content, length=UNDEFINED, order=">") + element(
        0x00280010, "US", b"\0\1", order=">"
    )
    check_data_set(data_set, EXPLICIT_VR_BIG_ENDIAN)


@pytest.mark.parametrize(
    ("data_set", "syntax"),
    [
        (element(0x00080016, "UI", b"1.2\0"), "1.3.46.670589.33.1.4.1"),
        (implicit(0x00080016, b"1.2\0"), "1.2.840.113619.5.2"),
    ],
)
def test_a_private_transfer_syntax_is_recognised_by_its_data(data_set: bytes, syntax: str) -> None:
    check_data_set(data_set, syntax)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_walked(kind: type) -> None:
    check_data_set(kind(CLASS_AND_INSTANCE), EXPLICIT_VR_LITTLE_ENDIAN)
    check_data_set(kind(b""), IMPLICIT_VR_LITTLE_ENDIAN)


# ---- damage


@pytest.mark.parametrize(
    ("data_set", "reason"),
    [
        (element(0x00100010, "PN", b"A^B ", length=6), r"truncated: \(0010,0010\) at offset 0 reaches 2 bytes beyond"),
        (element(0x7FE00010, "OW", b"AB", length=4), r"truncated: \(7FE0,0010\) at offset 0 reaches 2 bytes beyond"),
        (CLASS_AND_INSTANCE + b"\x10\0\x10\0P", "within the header of an element at offset 48"),
        (CLASS_AND_INSTANCE + bytes(16), r"no data element begins at offset 48, but \(0000,0000\)"),
        (CLASS_AND_INSTANCE + b"trailer!", "no data element begins at offset 48"),
        (CLASS_AND_INSTANCE + ITEM_END, r"no data element begins at offset 48, but \(FFFE,E00D\)"),
        (CLASS_AND_INSTANCE + SEQUENCE_END, r"no data element begins at offset 48, but \(FFFE,E0DD\)"),
        (element(0x00081140, "SQ", b"", length=UNDEFINED), r"\(0008,1140\) at offset 0 has no end"),
        (
            element(0x00081140, "SQ", CLASS_AND_INSTANCE + SEQUENCE_END, length=UNDEFINED),
            r"\(0008,1140\) at offset 0 goes on with no item at offset 12",
        ),
        (
            element(0x00081140, "SQ", implicit(0xFFFEE000, b"AB", length=4), length=UNDEFINED),
            r"\(FFFE,E000\) at offset 12 reaches 2 bytes beyond",
        ),
        (
            element(0x7FE00010, "OB", implicit(0xFFFEE000, b"", length=UNDEFINED) + ITEM_END, length=UNDEFINED),
            "goes on with no item at offset 12",
        ),
        (element(0x00100010, "UT", SEQUENCE_END, length=UNDEFINED), "its VR does not allow"),
        (element(0x00090010, "ZZ", b"AB", length=4), r"\(0009,0010\) at offset 0 reaches 2 bytes beyond"),
        (implicit(0x00080016, b"1.2\0"), "begins in implicit VR"),
    ],
)
def test_damage_is_told_with_offset_and_tag(data_set: bytes, reason: str) -> None:
    with pytest.raises(InvalidInstance, match=reason):
        check_data_set(data_set, EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize(
    ("data_set", "reason"),
    [
        (implicit(0x00080016, b"1.2\0") + bytes(24), r"no data element begins at offset 12, but \(0000,0000\)"),
        (implicit(0x00100010, b"A^B ", length=6), r"\(0010,0010\) at offset 0 reaches 2 bytes beyond"),
        (CLASS_AND_INSTANCE, "begins in explicit VR"),
    ],
)
def test_damage_in_implicit_vr_is_told(data_set: bytes, reason: str) -> None:
    with pytest.raises(InvalidInstance, match=reason):
        check_data_set(data_set, IMPLICIT_VR_LITTLE_ENDIAN)


def test_no_value_is_quoted() -> None:
    data_set = element(0x00100010, "PN", b"SECRET^NAME ") + b"SECRET"
    with pytest.raises(InvalidInstance) as caught:
        check_data_set(data_set, EXPLICIT_VR_LITTLE_ENDIAN, name="x.dcm")
    assert str(caught.value).startswith("x.dcm: ")
    assert "SECRET" not in str(caught.value)


def spellings(tag: BaseTag) -> set[tuple[int, int]]:
    little = (tag.group, tag.element)
    return {little, struct.unpack(">HH", struct.pack("<HH", *little))}


def top_level_starts(path: Path) -> set[int]:
    """Where pydicom sees the elements of the data set itself begin: a cut there leaves a smaller, whole data set."""
    content = path.read_bytes()
    ds = dcmread(path)
    starts = {len(content)}
    for tag in ds.keys():  # noqa: SIM118 (iterating over a Dataset parses its elements)
        stored = ds.get_item(tag)
        value = stored.value_tell if isinstance(stored, RawDataElement) else stored.file_tell
        assert value is not None
        starts.add(value - 8 if struct.unpack("<HH", content[value - 8 : value - 4]) in spellings(tag) else value - 12)
    return starts


CUT: Final = (
    "MR_small_implicit.dcm",  # implicit VR
    "rtplan.dcm",  # with sequences of defined length
    "test-SR.dcm",  # explicit VR with sequences
    "reportsi.dcm",  # … of undefined length
    "MR_small_bigendian.dcm",
    "rtdose_expb_1frame.dcm",  # big endian with sequences
    "SC_rgb_rle_2frame.dcm",  # fragments
    "SC_rgb_small_odd_jpeg.dcm",
    "JPEGLSNearLossless_08.dcm",
    "UN_sequence.dcm",
    "MR_small_padded.dcm",
)


@pytest.mark.parametrize("name", CUT)
def test_a_data_set_cut_anywhere_is_refused(name: str) -> None:
    path = TEST_FILES / name
    found = open_instance(path)
    content = path.read_bytes()
    whole = top_level_starts(path)
    # Every offset of the headers before pixel data, and a sample of those in it.
    offsets = [*range(found.data_set_offset + 1, min(found.size, 4000)), *range(4000, found.size, 61)]
    passed = set()
    for end in (*offsets, found.size):
        try:
            check_data_set(content[found.data_set_offset : end], found.transfer_syntax_uid)
            passed.add(end)
        except InvalidInstance as error:
            assert "truncated" in str(error)  # noqa: PT017
    assert passed == whole & {*offsets, found.size}


def test_a_cut_file_is_refused_by_its_name(tmp_path: Path) -> None:
    content = (TEST_FILES / "examples_jpeg2k.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    for end in (len(content) - 1, len(content) - 8, len(content) - 9, 70_000, 65_536, 5_000):
        path.write_bytes(content[:end])
        with pytest.raises(InvalidInstance, match=r"cut\.dcm: truncated"):
            open_instance(path)
        assert open_instance(path, check=False).size == end


# ---- limits


def nested(depth: int) -> bytes:
    begin = element(0x00081140, "SQ", implicit(0xFFFEE000, b"", length=UNDEFINED), length=UNDEFINED)
    return begin * depth + (ITEM_END + SEQUENCE_END) * depth


def test_sequences_nest_as_deep_as_allowed() -> None:
    check_data_set(nested(64), EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(InvalidInstance, match="more than 64 sequences are nested"):
        check_data_set(nested(65), EXPLICIT_VR_LITTLE_ENDIAN)
    check_data_set(nested(20_000), EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds(depth=20_000))


def test_elements_are_limited_where_asked() -> None:
    empty = element(0x00100010, "PN", b"")
    check_data_set(empty * 1000, EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds(elements=1000))
    with pytest.raises(InvalidInstance, match="more than 1000 elements"):
        check_data_set(empty * 1001, EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds(elements=1000))
    items = element(0x00081140, "SQ", implicit(0xFFFEE000, b"") * 2000 + SEQUENCE_END, length=UNDEFINED)
    with pytest.raises(InvalidInstance, match="more than 1000 elements and items"):
        check_data_set(items, EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds(elements=1000))


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
def test_headers_across_reads_are_found(tmp_path: Path, syntax: str) -> None:
    rng = random.Random(10)
    make = implicit if syntax == IMPLICIT_VR_LITTLE_ENDIAN else lambda tag, value: element(tag, "OB", value)
    values = (rng.randbytes(rng.choice((0, 1, 2, 30, 4000, 4084, 4088, 9000))) for _ in range(300))
    parts = [make(0x00090010 + number, value) for number, value in enumerate(values)]
    data_set = b"".join(parts)
    path = written(tmp_path / "x.dcm", data_set, syntax)
    assert path.stat().st_size > 500_000
    open_instance(path)
    start = open_instance(path).data_set_offset
    for number in range(0, 300, 7):
        end = start + sum(map(len, parts[: number + 1]))
        written(tmp_path / "cut.dcm", data_set[: end - start - 1], syntax)
        with pytest.raises(InvalidInstance, match=f"truncated: .*{number + 0x10:04X}|within the header"):
            open_instance(tmp_path / "cut.dcm")


def sparse(path: Path, begin: bytes, hole: int, end: bytes, syntax: str) -> Path:
    with path.open("wb") as file:
        file.write(file_meta(CT, "1.2.3", syntax) + begin)
        file.seek(hole, 1)
        file.write(end)
    return path


@pytest.mark.parametrize(
    ("begin", "hole", "end", "syntax"),
    [
        (
            CLASS_AND_INSTANCE + element(0x7FE00010, "OW", b"", length=500_000_000),
            500_000_000,
            element(0xFFFCFFFC, "OB", bytes(10)),
            EXPLICIT_VR_LITTLE_ENDIAN,
        ),
        (
            CLASS_AND_INSTANCE
            + element(0x7FE00010, "OB", implicit(0xFFFEE000, b""), length=UNDEFINED)
            + implicit(0xFFFEE000, b"", length=500_000_000),
            500_000_000,
            implicit(0xFFFEE000, b"AB") * 10_000 + SEQUENCE_END,
            JPEG_BASELINE,
        ),
    ],
)
def test_of_a_large_file_only_headers_are_read(
    tmp_path: Path, begin: bytes, hole: int, end: bytes, syntax: str
) -> None:
    path = sparse(tmp_path / "large.dcm", begin, hole, end, syntax)
    tracemalloc.start()
    assert open_instance(path).size > 500_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    sparse(path, begin, hole, end[:-1], syntax)
    with pytest.raises(InvalidInstance, match="truncated"):
        open_instance(path)


# ---- deflated data sets


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def test_a_deflated_data_set_must_reach_its_end(tmp_path: Path) -> None:
    source = TEST_FILES / "image_dfl.dcm"
    found = open_instance(source)
    data_set = source.read_bytes()[found.data_set_offset : -8]  # what follows is a gzip trailer
    check_data_set(data_set, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    check_data_set(data_set + b"\0", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    for end in (*range(0, len(data_set), 37), len(data_set) - 1):
        path = written(tmp_path / "cut.dcm", data_set[:end] or b"\x03", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
        with pytest.raises(InvalidInstance, match=r"cut\.dcm: truncated"):
            open_instance(path)
    with pytest.raises(InvalidInstance, match="10 bytes follow the end"):
        check_data_set(data_set + bytes(10), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(InvalidInstance, match="is damaged"):
        check_data_set(b"\xff" * 100, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


def test_the_tail_of_a_deflated_data_set_is_counted_across_reads(tmp_path: Path) -> None:
    data_set = deflated(element(0x7FE00010, "OB", random.Random(0).randbytes(150_000))) + bytes(70_000)
    with pytest.raises(InvalidInstance, match="70000 bytes follow the end"):
        open_instance(written(tmp_path / "x.dcm", data_set, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))


def test_a_deflated_file_that_was_read_whole_is_found_as_one_that_is_opened(tmp_path: Path) -> None:
    data_set = deflated(CLASS_AND_INSTANCE + element(0x7FE00010, "OW", random.Random(0).randbytes(200_000)))
    path = written(tmp_path / "x.dcm", data_set, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert find_instance(path.read_bytes(), path) == open_instance(path)
    with pytest.raises(InvalidInstance, match=r"x\.dcm: truncated"):
        find_instance(path.read_bytes()[:-1], path)


def test_a_deflate_bomb_takes_no_memory(tmp_path: Path) -> None:
    stream = zlib.compressobj(wbits=-15)
    bomb = stream.compress(element(0x7FE00010, "OB", b"", length=200_000_000))
    bomb += b"".join(stream.compress(bytes(1_000_000)) for _ in range(200)) + stream.flush()
    path = written(tmp_path / "bomb.dcm", bomb, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    tracemalloc.start()
    assert find_instance(path.read_bytes(), path) == open_instance(path)
    with pytest.raises(InvalidInstance, match="inflates to more than 1000000 bytes"):
        inflate(bomb, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_inflate_returns_what_was_deflated() -> None:
    data = random.Random(1).randbytes(1_000_000) + bytes(1_000_000)
    assert inflate(deflated(data), len(data)) == data
    with pytest.raises(InvalidInstance, match="inflates to more than"):
        inflate(deflated(data), len(data) - 1)


# ---- what is written


@pytest.mark.parametrize("source_ae_title", [None, "STORE", "STORESCU"])
def test_file_meta_is_what_pydicom_writes(source_ae_title: str | None) -> None:
    instance = "1.2.826.0.1.3680043.8.498.1"
    ours = file_meta(CT, instance, JPEG_BASELINE, source_ae_title=source_ae_title)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(CT)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(JPEG_BASELINE)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    if source_ae_title is not None:
        meta.SourceApplicationEntityTitle = source_ae_title
    oracle = DicomBytesIO()
    write_file_meta_info(oracle, meta)
    assert ours == bytes(128) + b"DICM" + oracle.getvalue()


def test_a_file_with_our_meta_is_read_back(tmp_path: Path) -> None:
    meta = file_meta(
        CT, "1.2.3", IMPLICIT_VR_LITTLE_ENDIAN, implementation_class_uid="1.2", implementation_version_name="X"
    )
    path = written(tmp_path / "x.dcm", implicit(0x00100010, b"A^B "), meta=meta)
    ds: Dataset = dcmread(path)
    assert ds.PatientName == "A^B"
    assert (ds.file_meta.ImplementationClassUID, ds.file_meta.ImplementationVersionName) == ("1.2", "X")
    assert open_instance(path).data_set_offset == len(meta)


def test_the_implementation_has_valid_names() -> None:
    assert valid_uid(IMPLEMENTATION_CLASS_UID)
    assert UID(IMPLEMENTATION_CLASS_UID).is_valid
    assert 1 <= len(IMPLEMENTATION_VERSION_NAME) <= 16
    assert "".join(__version__.split(".")) in IMPLEMENTATION_VERSION_NAME


@pytest.mark.parametrize("text", ["1.2.840.10008.1.2", "2.25.1", "1", "1.02.3", "1." + "2" * 62])
def test_uids(text: str) -> None:
    assert valid_uid(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "..",
            "1.",
            ".1",
            "1..2",
            "-1.2",
            "1.2x",
            "1.2 ",
            "1.2\0",
            "1.2\n",
            "1.2\r\nX",
            "١.٢",
            "1." + "2" * 63,
        ),
        *("../X", "/abs/X", "1.2/3", "1.2\\3", "C:1.2"),
    ],
)
def test_no_uids(text: str) -> None:
    assert not valid_uid(text)


# ---- anything


def test_importing_it_loads_no_pydicom() -> None:
    code = "import sys, aiodicom.part10, aiodicom.dataset, aiodicom.uids; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(CUT),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([b"\0", b"\xff", b"\xff" * 4, ITEM_END, b"\xfe\xff", b"A"]))),
)
def test_whatever_is_in_a_file_nothing_but_the_documented_error_comes_out(
    name: str, changes: list[tuple[float, bytes]]
) -> None:
    path = TEST_FILES / name
    found = open_instance(path)
    data_set = bytearray(path.read_bytes()[found.data_set_offset :])
    for where, what in changes:
        at = int(where * len(data_set))
        data_set[at : at + len(what)] = what
    try:
        check_data_set(data_set, found.transfer_syntax_uid)
    except InvalidInstance as error:
        assert str(error).startswith("data set: ")  # noqa: PT017
