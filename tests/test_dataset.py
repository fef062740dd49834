"""Data sets encoded, decoded and transcoded: every element, every pixel, and what is refused. The oracle is pydicom."""

from __future__ import annotations

import copy
import random
import shutil
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.filereader import dcmread
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, AllTransferSyntaxes

from aiodicom import uids
from aiodicom.dataset import decode_data_set, encode_data_set, transcode
from aiodicom.errors import InvalidInstance
from aiodicom.part10 import check_data_set, file_meta, open_instance
from aiodicom.scanner import Bounds
from aiodicom.uids import UNCOMPRESSED

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

BUNDLED: Final = Path(pydicom.__file__).parent / "data"
TEST_FILES: Final = BUNDLED / "test_files"
LITTLE: Final = uids.EXPLICIT_VR_LITTLE_ENDIAN
BIG: Final = uids.EXPLICIT_VR_BIG_ENDIAN
IMPLICIT: Final = uids.IMPLICIT_VR_LITTLE_ENDIAN
DEFLATED: Final = uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
RLE: Final = "1.2.840.10008.1.2.5"
MPEG2: Final = "1.2.840.10008.1.2.4.100"

# What no decoder of the extra can read: JPEG of 12 bits, and a codestream that is damaged on purpose.
UNDECODABLE: Final = ("JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000-embedded-sequence-delimiter.dcm")
# They have group lengths, an element twice, or UN for a sequence, which is not repeated.
NOT_BYTE_FOR_BYTE: Final = (
    *("chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "chrKoreanMulti.dcm", "693_J2KI.dcm", "ExplVR_BigEnd.dcm"),
    *("winter.dcm", "UN_sequence.dcm"),
)
WORDS: Final = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def instances() -> list[Path]:
    found = []
    for path in sorted(BUNDLED.rglob("*")):
        if path.is_file() and "77654033" not in path.parts and "98892003" not in path.parts:
            try:
                open_instance(path)
            except InvalidInstance:
                continue
            if path.parent.name != "SE000000" or path.name == "IM000000":  # fifty alike
                found.append(path)
    return found


INSTANCES: Final = instances()


def named(path: Path) -> str:
    return path.name


def data_set_of(path: Path) -> tuple[bytes, str]:
    found = open_instance(path)
    return path.read_bytes()[found.data_set_offset :], found.transfer_syntax_uid


def as_pydicom_reads(data: bytes, syntax: str) -> Dataset:
    return dcmread(BytesIO(file_meta("1.2.3", "1.2.3", syntax) + data))


def explicit(tag: int, vr: str, value: bytes, *, order: str = "<") -> bytes:
    if vr in ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"):
        return struct.pack(order + "HH2s2xL", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value
    return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def implicit(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


# ---- from one transfer syntax to another


def comparable(ds: Dataset, little: bool) -> dict[BaseTag, Any]:
    """The values by tag, words in little endian, without what has no meaning or is compared by its pixels."""
    values: dict[BaseTag, Any] = {}
    for tag in ds.keys():  # noqa: SIM118 (iterating over a Dataset parses its elements)
        stored = ds.get_item(tag)
        if tag.element == 0 or tag in (0x7FE00010, 0x7FE00001, 0x7FE00002):
            continue
        little_here = little
        if isinstance(stored, RawDataElement) and stored.VR == "UN":
            # In implicit VR little endian wherever it stands, which pydicom does not know (PS3.5 6.2.2).
            little_here = True
            stored = stored._replace(VR=None, is_implicit_VR=True, is_little_endian=True)
            element = convert_raw_data_element(stored, encoding=ds.original_character_set, ds=ds)
        else:
            try:
                element = ds[tag]
            except ValueError:  # an invalid value
                values[tag] = stored.value
                continue
        if element.VR == "SQ":
            values[tag] = [comparable(item, little_here) for item in element.value]
        elif element.VR in WORDS and not little_here:
            values[tag] = np.frombuffer(element.value or b"", f">u{WORDS[element.VR]}").byteswap().tobytes() or None
        else:
            values[tag] = element.value or None
    return values


@pytest.mark.parametrize("target", UNCOMPRESSED, ids=uids.uid_name)
@pytest.mark.parametrize("path", [path for path in INSTANCES if path.name not in UNDECODABLE], ids=named)
def test_every_element_and_pixel_arrives(path: Path, target: str) -> None:
    data, source = data_set_of(path)
    result = transcode(data, source, target, decompress=True)
    check_data_set(result, target)
    before, after = as_pydicom_reads(data, source), as_pydicom_reads(result, target)
    if "PixelData" in before and path.name != "badVR.dcm":  # whose Number of Frames is no number
        assert before.pixel_array.dtype == after.pixel_array.dtype.newbyteorder(before.pixel_array.dtype.byteorder)
        assert np.array_equal(before.pixel_array, after.pixel_array)
    expected, found = comparable(before, source != BIG), comparable(after, target != BIG)
    assert expected.keys() == found.keys()
    for tag, value in expected.items():
        decompressed = source not in UNCOMPRESSED and tag in (0x00280004, 0x00280006)
        unknown = target == IMPLICIT and tag.is_private  # its VR is lost, and pydicom's dictionary may have another
        assert found[tag] == value or decompressed or unknown, tag


def journeys() -> list[tuple[Path, str]]:
    """What comes back as it was: not compressed pixel data, and not the VR of private elements in implicit VR."""
    found = []
    for path in INSTANCES:
        source = open_instance(path).transfer_syntax_uid
        if source in UNCOMPRESSED:
            found += [(path, way) for way in UNCOMPRESSED if way != IMPLICIT or source == IMPLICIT]
    return found


@pytest.mark.parametrize(
    ("path", "by_way_of"), journeys(), ids=lambda x: x.name if isinstance(x, Path) else uids.uid_name(x)
)
def test_there_and_back_gives_the_same_bytes(path: Path, by_way_of: str) -> None:
    data, source = data_set_of(path)
    once = encode_data_set(decode_data_set(data, source), source)
    assert transcode(transcode(once, source, by_way_of), by_way_of, source) == once


@pytest.mark.parametrize("path", INSTANCES, ids=named)
def test_a_data_set_in_its_own_transfer_syntax_is_not_touched(path: Path) -> None:
    data, syntax = data_set_of(path)
    assert transcode(data, syntax, syntax) == data
    assert transcode(memoryview(data), syntax, syntax) == data
    if syntax == DEFLATED:
        return
    again = encode_data_set(decode_data_set(data, syntax), syntax)
    if path.name in NOT_BYTE_FOR_BYTE:
        assert comparable(as_pydicom_reads(again, syntax), True) == comparable(as_pydicom_reads(data, syntax), True)
    else:
        assert again == data


@pytest.mark.skipif(shutil.which("dcmconv") is None, reason="dcmconv is not installed: apt-get install dcmtk")
@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "waveform_ecg.dcm", "test-SR.dcm", "examples_palette.dcm", "rtplan.dcm"]
)
@pytest.mark.parametrize(("target", "option"), [(LITTLE, "+te"), (BIG, "+tb"), (IMPLICIT, "+ti")])
def test_dcmtk_transcodes_to_the_same_values(tmp_path: Path, name: str, target: str, option: str) -> None:
    data, source = data_set_of(TEST_FILES / name)
    output = tmp_path / "dcmtk.dcm"
    subprocess.run(["dcmconv", option, str(TEST_FILES / name), str(output)], check=True)
    theirs = decode_data_set(data_set_of(output)[0], target)
    ours = decode_data_set(transcode(data, source, target), target)
    assert comparable(ours, True) == comparable(theirs, True)


VALUES: Final = {
    "AT": (0x00280009, Tag(0x00181063)),
    "FD": (0x00189087, 1234.5),
    "FL": (0x00109431, 0.25),
    "OD": (0x7FE00009, struct.pack("<2d", 1.5, -2.5)),
    "OF": (0x00640009, struct.pack("<2f", 1.5, -2.5)),
    "OL": (0x00660129, struct.pack("<2L", 1, 0x01020304)),
    "OV": (0x7FE00001, struct.pack("<2Q", 1, 0x0102030405060708)),
    "OW": (0x00281201, struct.pack("<3H", 1, 2, 0x0304)),
    "OB": (0x00420011, b"%PDF-1"),
    "SL": (0x00186020, -70000),
    "SS": (0x00189219, -300),
    "SV": (0x00720082, -(2**40)),
    "UL": (0x0018106E, 70000),
    "US": (0x00280010, 300),
    "UV": (0x0008040C, 2**40),
    "PN": (0x00100010, "Müller^Jörg"),
    "UT": (0x0040A160, "a text"),
    "DS": (0x00180050, "1.50"),
}
BACK: Final = {"OD": ">f8", "OF": ">f4", "OL": ">u4", "OV": ">u8", "OW": ">u2"}


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=uids.uid_name)
@pytest.mark.parametrize("from_bytes", [False, True])
def test_every_vr_gets_its_byte_order(syntax: str, from_bytes: bool) -> None:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    for vr, (tag, value) in VALUES.items():
        ds.add_new(tag, vr, value)
    ds.ReferencedImageSequence = [copy.deepcopy(ds)]
    if from_bytes:
        ds = decode_data_set(encode_data_set(ds, LITTLE), LITTLE)
    read = as_pydicom_reads(encode_data_set(ds, syntax), syntax)
    for level in (read, read.ReferencedImageSequence[0]):
        for vr, (tag, value) in VALUES.items():
            found = level[tag].value
            if syntax == BIG and vr in BACK:
                found = np.frombuffer(found, BACK[vr]).astype(BACK[vr].replace(">", "<")).tobytes()
            assert found == value, vr
            assert vr == level[tag].VR


def test_a_value_that_is_no_whole_number_of_words_is_not_swapped() -> None:
    with pytest.raises(InvalidInstance, match=r"\(0010,9431\): 6 bytes are no whole number of words, as FL has them"):
        transcode(explicit(0x00109431, "FL", b"ABCDEF"), LITTLE, BIG)


def test_the_value_of_un_is_little_endian_everywhere() -> None:
    data = explicit(0x00091010, "UN", b"\1\2\3\4")
    big = transcode(data, LITTLE, BIG)
    assert big == explicit(0x00091010, "UN", b"\1\2\3\4", order=">")
    assert transcode(big, BIG, LITTLE) == data


def stored(ds: Dataset) -> dict[str, tuple[str | None, bytes | None]]:
    """VR and bytes of the elements that were not parsed since they were read."""
    elements = (ds.get_item(tag) for tag in ds.keys())  # noqa: SIM118
    return {str(element.tag): (element.VR, element.value) for element in elements}


def test_elements_of_implicit_vr_get_the_vr_of_their_context() -> None:
    table = implicit(0x00283002, b"\2\0\0\0\x10\0") + implicit(0x00283006, b"AaBb")
    data = b"".join(
        [
            implicit(0x00090010, b"PRIVATE "),
            implicit(0x00091001, b"\1\2"),
            implicit(0x00189810, b"\xff\xff"),
            implicit(0x00190010, b"GEMS_ACQU_01"),
            implicit(0x00191060, b"\1\0\0\0"),
            implicit(0x00191061, b"\1\0"),
            implicit(0x00280100, b"\x10\0"),
            implicit(0x00280103, b"\1\0"),
            implicit(0x00280106, b"\xff\xff"),
            implicit(0x00283010, implicit(0xFFFEE000, table)),
            implicit(0x50003000, b"AaBb"),
            implicit(0x60003000, b"AaBb"),
            implicit(0x7FE00010, b"AaBb"),
        ]
    )  # fmt: skip
    ds = decode_data_set(transcode(data, IMPLICIT, BIG), BIG)
    item = decode_data_set(transcode(data, IMPLICIT, BIG), BIG).VOILUTSequence[0]
    del ds.VOILUTSequence
    assert stored(ds) == {
        "(0009,0010)": ("LO", b"PRIVATE "),
        "(0009,1001)": ("UN", b"\1\2"),
        "(0018,9810)": ("SS", b"\xff\xff"),
        "(0019,0010)": ("LO", b"GEMS_ACQU_01"),
        "(0019,1060)": ("SL", b"\0\0\0\1"),
        "(0019,1061)": ("UN", b"\1\0"),  # no SL, whatever the dictionary says
        "(0028,0100)": ("US", b"\0\x10"),
        "(0028,0103)": ("US", b"\0\1"),
        "(0028,0106)": ("SS", b"\xff\xff"),
        "(5000,3000)": ("OW", b"aAbB"),
        "(6000,3000)": ("OW", b"aAbB"),
        "(7FE0,0010)": ("OW", b"aAbB"),
    }
    assert stored(item) == {"(0028,3002)": ("SS", b"\0\2\0\0\0\x10"), "(0028,3006)": ("OW", b"aAbB")}


def test_an_ambiguous_element_without_its_context_still_arrives() -> None:
    data = implicit(0x00283006, b"AaBb") + implicit(0x7FE00010, b"AaBb")
    assert transcode(data, IMPLICIT, LITTLE) == explicit(0x00283006, "OW", b"AaBb") + explicit(
        0x7FE00010, "OW", b"AaBb"
    )


@pytest.mark.parametrize("target", [LITTLE, BIG])
def test_a_value_too_long_for_its_vr_becomes_un(target: str) -> None:
    value = random.Random(2).randbytes(70_000)
    data = implicit(0x00280103, b"\0\0") + implicit(0x00281101, value)
    result = transcode(data, IMPLICIT, target)
    order = ">" if target == BIG else "<"
    assert result.endswith(explicit(0x00281101, "UN", value, order=order))
    ds = decode_data_set(data, IMPLICIT)
    assert ds[0x00281101].value[0] == int.from_bytes(value[:2], "little")  # parsed: pydicom has to encode it again
    assert encode_data_set(ds, target) == result


def test_pixel_cells_of_32_bits_are_one_word() -> None:
    head = explicit(0x00280100, "US", b"\x20\0")
    big = transcode(head + explicit(0x7FE00010, "OW", b"ABCDEFGH"), LITTLE, BIG)
    assert big.endswith(b"DCBAHGFE")
    assert transcode(big, BIG, LITTLE).endswith(b"ABCDEFGH")


def test_undecodable_text_and_invalid_values_arrive_as_they_were() -> None:
    data = b"".join(
        [
            explicit(0x00080005, "CS", b"ISO_IR 192"),
            explicit(0x00080020, "DA", b"yesterday "),
            explicit(0x00100010, "PN", b"M\xfcller^J\xf6rg "),
            explicit(0x00101030, "DS", b"heavy "),
            explicit(0x00200013, "IS", b"1.5 "),
        ]
    )
    assert transcode(transcode(data, LITTLE, BIG), BIG, LITTLE) == data
    assert transcode(transcode(data, LITTLE, IMPLICIT), IMPLICIT, LITTLE) == data


def test_odd_values_are_padded() -> None:
    data = explicit(0x00080018, "UI", b"1.2") + explicit(0x00100010, "PN", b"A^B") + explicit(0x7FE00010, "OB", b"ABC")
    assert transcode(data, LITTLE, IMPLICIT) == (
        implicit(0x00080018, b"1.2\0") + implicit(0x00100010, b"A^B ") + implicit(0x7FE00010, b"ABC\0")
    )


@pytest.mark.parametrize("depth", [60, 64])
def test_nested_sequences_keep_the_form_of_their_length(depth: int) -> None:
    def nested(content: bytes) -> bytes:
        item = implicit(0xFFFEE000, content, length=0xFFFFFFFF) + implicit(0xFFFEE00D, b"")
        return struct.pack("<HH2s2xL", 8, 0x1140, b"SQ", 0xFFFFFFFF) + item + implicit(0xFFFEE0DD, b"")

    data = explicit(0x00100010, "PN", b"A^B ")
    for _ in range(depth):
        data = nested(data)
    assert transcode(transcode(data, LITTLE, BIG), BIG, LITTLE) == data
    assert encode_data_set(decode_data_set(data, LITTLE), LITTLE) == data


def test_sequences_nested_too_deeply_are_refused() -> None:
    data = b""
    for _ in range(3000):
        data = explicit(0x00081140, "SQ", implicit(0xFFFEE000, data))
    with pytest.raises(InvalidInstance, match="nested too deeply"):
        transcode(data, LITTLE, IMPLICIT)


# ---- deflated


@pytest.mark.parametrize("name", ["CT_small.dcm", "image_dfl.dcm"])
def test_deflating_and_inflating_need_no_pydicom_and_lose_nothing(name: str) -> None:
    data, syntax = data_set_of(TEST_FILES / name)
    inflated = transcode(data, syntax, LITTLE)
    deflated = transcode(inflated, LITTLE, DEFLATED)
    assert len(deflated) % 2 == 0
    assert zlib.decompressobj(-15).decompress(deflated) == inflated
    assert np.array_equal(as_pydicom_reads(deflated, DEFLATED).pixel_array, dcmread(TEST_FILES / name).pixel_array)
    code = (
        "import sys; from aiodicom.dataset import transcode; data = sys.stdin.buffer.read();"
        f"assert transcode(transcode(data, {LITTLE!r}, {DEFLATED!r}), {DEFLATED!r}, {LITTLE!r}) == data;"
        "sys.exit('pydicom' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], input=inflated, check=False).returncode == 0


def test_a_deflated_data_set_is_padded_to_even_length() -> None:
    lengths = {len(transcode(bytes(range(size)), LITTLE, DEFLATED)) % 2 for size in range(40, 60)}
    assert lengths == {0}


def test_a_deflate_bomb_is_refused() -> None:
    bomb = transcode(explicit(0x7FE00010, "OB", bytes(5_000_000)), LITTLE, DEFLATED)
    assert len(decode_data_set(bomb, DEFLATED).PixelData) == 5_000_000
    for refused in (
        lambda: decode_data_set(bomb, DEFLATED, max_inflated=1_000_000),
        lambda: transcode(bomb, DEFLATED, LITTLE, max_inflated=1_000_000),
        lambda: transcode(bomb, DEFLATED, IMPLICIT, max_inflated=1_000_000),
    ):
        with pytest.raises(InvalidInstance, match="inflates to more than 1000000 bytes"):
            refused()


# ---- a Dataset of the caller's


def made() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    ds.SOPInstanceUID = UID("1.2.3")
    ds.PatientName = "A^B"
    ds.SmallestImagePixelValue = 5
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.SamplesPerPixel, ds.PixelRepresentation = 2, 2, 16, 1, 0
    ds.BitsStored, ds.HighBit, ds.PhotometricInterpretation = 16, 15, "MONOCHROME2"
    ds.ReferencedImageSequence = Sequence([Dataset()])
    ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID = UID("1.2.4")
    ds.PixelData = struct.pack("<4H", 1, 2, 3, 0x0405)
    return ds


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=uids.uid_name)
def test_a_dataset_made_from_scratch_is_encoded(syntax: str) -> None:
    ds = made()
    before = copy.deepcopy(ds)
    read = as_pydicom_reads(encode_data_set(ds, syntax), syntax)
    assert read.pixel_array.tolist() == [[1, 2], [3, 0x0405]]
    assert read.SmallestImagePixelValue == 5
    assert read.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.4"
    assert ds == before
    assert ds["PixelData"].VR == "OB or OW"
    assert ds["SmallestImagePixelValue"].VR == "US or SS"


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=uids.uid_name)
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "rtplan.dcm"])
def test_the_callers_dataset_is_not_changed(name: str, syntax: str) -> None:
    ds = dcmread(TEST_FILES / name)
    untouched = {tag: ds.get_item(tag, keep_deferred=True) for tag in ds.keys()}  # noqa: SIM118
    parsed = dcmread(TEST_FILES / name)
    parsed.decode()
    expected = copy.deepcopy(parsed)
    data = encode_data_set(ds, syntax)
    assert encode_data_set(parsed, syntax) is not None
    assert {tag: ds.get_item(tag, keep_deferred=True) for tag in ds.keys()} == untouched  # noqa: SIM118
    assert all(ds.get_item(tag, keep_deferred=True) is element for tag, element in untouched.items())
    assert parsed == expected
    assert ds.file_meta.TransferSyntaxUID == dcmread(TEST_FILES / name).file_meta.TransferSyntaxUID
    assert (
        np.array_equal(as_pydicom_reads(data, syntax).pixel_array, parsed.pixel_array) or name == "rtplan.dcm"
        if ("PixelData" in parsed)
        else True
    )


def test_what_was_set_after_reading_is_encoded() -> None:
    ds = dcmread(TEST_FILES / "MR_small_bigendian.dcm")
    ds.PatientName = "NEW^NAME"
    ds.Rows = 32
    item = Dataset()
    item.Rows = 7
    ds.ReferencedImageSequence = [item]
    for syntax in UNCOMPRESSED:
        read = as_pydicom_reads(encode_data_set(ds, syntax), syntax)
        assert (read.PatientName, read.Rows, read.ReferencedImageSequence[0].Rows) == ("NEW^NAME", 32, 7)


def test_changing_the_character_set_encodes_all_text_again() -> None:
    data = b"".join(
        [
            explicit(0x00080005, "CS", b"ISO_IR 100"),
            explicit(0x00081140, "SQ", implicit(0xFFFEE000, explicit(0x00081030, "LO", b"Sch\xe4del "))),
            explicit(0x00100010, "PN", b"M\xfcller^J\xf6rg "),
            explicit(0x00180015, "CS", b"HEAD"),
        ]
    )
    ds = decode_data_set(data, LITTLE)
    ds.SpecificCharacterSet = "ISO_IR 192"
    result = encode_data_set(ds, LITTLE)
    read = as_pydicom_reads(result, LITTLE)
    assert read.PatientName == "Müller^Jörg"
    assert read.ReferencedImageSequence[0].StudyDescription == "Schädel"
    assert "Müller^Jörg".encode() in result
    assert "Schädel".encode() in result


@pytest.mark.parametrize("path", sorted((BUNDLED / "charset_files").glob("*.dcm")), ids=named)
def test_every_character_set_is_encoded_again_as_it_was_read(path: Path) -> None:
    ds = dcmread(path)
    ds.decode()
    read = as_pydicom_reads(encode_data_set(ds, IMPLICIT), IMPLICIT)
    read.decode()
    assert read.get("PatientName") == ds.get("PatientName")


def test_pixel_data_in_a_file_is_read_from_there() -> None:
    ds = made()
    pixels = BytesIO(b"....\1\0\2\0\3\0\4\0")
    pixels.seek(4)
    ds.PixelData = pixels
    assert as_pydicom_reads(encode_data_set(ds, LITTLE), LITTLE).pixel_array.tolist() == [[1, 2], [3, 4]]
    assert as_pydicom_reads(encode_data_set(ds, BIG), BIG).pixel_array.tolist() == [[1, 2], [3, 4]]
    assert pixels.tell() == 4


def test_values_left_in_the_file_are_read_now() -> None:
    path = TEST_FILES / "CT_small.dcm"
    assert encode_data_set(dcmread(path, defer_size=100), LITTLE) == data_set_of(path)[0]


def test_groups_that_are_no_part_of_a_data_set() -> None:
    plain = explicit(0x00100010, "PN", b"A^B ")
    ds = decode_data_set(
        explicit(0x00020010, "UI", b"1.2\0") + explicit(0x00100000, "UL", b"\x0c\0\0\0") + plain, LITTLE
    )
    assert encode_data_set(ds, LITTLE) == plain
    ds.add_new(0x00000002, "UI", "1.2")
    with pytest.raises(InvalidInstance, match=r"\(0000,0002\): belongs to a command set"):
        encode_data_set(ds, LITTLE)


def test_a_value_that_cannot_be_encoded_is_not_quoted() -> None:
    ds = Dataset()
    ds.add(DataElement(0x00280010, "US", "SECRET", already_converted=True))
    with pytest.raises(InvalidInstance, match=r"\(0028,0010\): its value cannot be encoded: OSError") as caught:
        encode_data_set(ds, LITTLE)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    ds = Dataset()
    ds.PixelData = b"ABCD"
    with pytest.raises(InvalidInstance, match=r"\(7FE0,0010\): its value cannot be encoded"):
        encode_data_set(ds, LITTLE)  # OB or OW depends on Bits Allocated, which is not there


def test_an_unknown_vr_is_refused() -> None:
    with pytest.raises(InvalidInstance, match=r"\(0009,1001\): has the VR ZZ, which is not known"):
        transcode(explicit(0x00091001, "ZZ", b"AB"), LITTLE, BIG)


# ---- decoding


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "SC_rgb_rle.dcm"]
)
def test_a_decoded_data_set_is_a_full_dataset(tmp_path: Path, name: str) -> None:
    data, syntax = data_set_of(TEST_FILES / name)
    original = dcmread(TEST_FILES / name)
    ds = decode_data_set(memoryview(data), syntax)
    assert ds == original
    assert ds.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(ds.pixel_array, original.pixel_array)
    ds.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    assert dcmread(tmp_path / "x.dcm") == original
    assert open_instance(tmp_path / "x.dcm").transfer_syntax_uid == syntax


def test_an_empty_data_set_is_one() -> None:
    assert len(decode_data_set(b"", IMPLICIT)) == 0
    assert encode_data_set(Dataset(), IMPLICIT) == b""


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=uids.uid_name)
def test_a_damaged_data_set_is_not_decoded(syntax: str) -> None:
    data = encode_data_set(made(), syntax)
    for end in (5, len(data) // 2 + 1, len(data) - 3):
        with pytest.raises(InvalidInstance):
            decode_data_set(data[:end], syntax)


def test_elements_are_limited_where_asked() -> None:
    data = b"".join(implicit(0x00090010 + number, b"") for number in range(1001))
    assert len(decode_data_set(data, IMPLICIT)) == 1001
    with pytest.raises(InvalidInstance, match="more than 1000 elements"):
        decode_data_set(data, IMPLICIT, bounds=Bounds(elements=1000))
    with pytest.raises(InvalidInstance, match="more than 1000 elements"):
        decode_data_set(
            transcode(transcode(data, IMPLICIT, LITTLE), LITTLE, DEFLATED), DEFLATED, bounds=Bounds(elements=1000)
        )


def test_a_private_transfer_syntax_is_decoded_and_encoded_as_it_came() -> None:
    for data in (explicit(0x00100010, "PN", b"A^B "), implicit(0x00100010, b"A^B ")):
        ds = decode_data_set(data, "1.2.840.113619.5.2")
        assert ds.PatientName == "A^B"
        assert encode_data_set(ds, "1.2.840.113619.5.2") == data


# ---- compressed pixel data


def test_nothing_is_decompressed_without_permission() -> None:
    data, syntax = data_set_of(TEST_FILES / "SC_rgb_rle.dcm")
    with pytest.raises(InvalidInstance, match=r"decompress=True; .*pip install 'aiodicom\[codecs\]'"):
        transcode(data, syntax, LITTLE)


def test_nothing_is_compressed() -> None:
    data, syntax = data_set_of(TEST_FILES / "CT_small.dcm")
    with pytest.raises(InvalidInstance, match="nothing is compressed on the way"):
        transcode(data, syntax, JPEG_2000, decompress=True)


def test_without_pixel_data_there_is_nothing_to_decompress() -> None:
    data, syntax = data_set_of(TEST_FILES / "UN_sequence.dcm")
    assert syntax not in UNCOMPRESSED
    assert decode_data_set(transcode(data, syntax, IMPLICIT), IMPLICIT) == decode_data_set(data, syntax)


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_no_decoder_can_read_is_refused(name: str) -> None:
    data, syntax = data_set_of(TEST_FILES / name)
    with pytest.raises(InvalidInstance, match="the pixel data cannot be decompressed: "):
        transcode(data, syntax, LITTLE, decompress=True)


def test_video_is_refused() -> None:
    data, _ = data_set_of(TEST_FILES / "SC_rgb_jpeg_dcmtk.dcm")
    with pytest.raises(InvalidInstance, match=f"there is no decoder for transfer syntax {MPEG2}"):
        transcode(data, MPEG2, LITTLE, decompress=True)


def test_a_missing_decoder_is_named() -> None:
    data, syntax = data_set_of(TEST_FILES / "SC_rgb_jpeg_dcmtk.dcm")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('gdcm', 'PIL', 'pylibjpeg')))\n"
        "from aiodicom.dataset import transcode\n"
        "from aiodicom.errors import InvalidInstance\n"
        f"try: transcode(sys.stdin.buffer.read(), {syntax!r}, {LITTLE!r}, decompress=True)\n"
        "except InvalidInstance as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert done.stdout.decode().strip() == (
        f"no decoder for transfer syntax {syntax} is installed: pip install 'aiodicom[codecs]'"
    )


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "YBR_FULL_422", "YBR_FULL"),
        ("SC_rgb_jpeg_dcmtk.dcm", "YBR_FULL", "YBR_FULL"),
        ("SC_rgb_jpeg_gdcm.dcm", "RGB", "RGB"),
        ("examples_jpeg2k.dcm", "YBR_RCT", "RGB"),
        ("MR_small_RLE.dcm", "MONOCHROME2", "MONOCHROME2"),
    ],
)
def test_the_colour_space_is_the_one_the_pixels_are_in(name: str, before: str, after: str) -> None:
    data, syntax = data_set_of(TEST_FILES / name)
    source = decode_data_set(data, syntax)
    ds = decode_data_set(transcode(data, syntax, LITTLE, decompress=True), LITTLE)
    assert (source.PhotometricInterpretation, ds.PhotometricInterpretation) == (before, after)
    assert np.array_equal(ds.pixel_array, source.pixel_array)
    frames = int(ds.get("NumberOfFrames", 1))
    assert len(ds.PixelData) == ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated // 8 * frames
    assert ("OB" if ds.BitsAllocated == 8 else "OW") == ds["PixelData"].VR
    for keyword in ("SOPInstanceUID", "LossyImageCompression", "LossyImageCompressionRatio", "ImageType"):
        assert ds.get(keyword) == source.get(keyword)


@pytest.mark.skipif(shutil.which("dcmdjpeg") is None, reason="dcmdjpeg is not installed: apt-get install dcmtk")
@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_small_odd_jpeg.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_dcmtk_decompresses_to_the_same_pixels(tmp_path: Path, name: str) -> None:
    output = tmp_path / "dcmtk.dcm"
    subprocess.run(["dcmdjpeg", "+cn", str(TEST_FILES / name), str(output)], check=True)
    data, syntax = data_set_of(TEST_FILES / name)
    ours = decode_data_set(transcode(data, syntax, LITTLE, decompress=True), LITTLE)
    theirs = dcmread(output)
    assert ours.PhotometricInterpretation == theirs.PhotometricInterpretation
    assert np.array_equal(ours.pixel_array, theirs.pixel_array)


def test_the_offset_tables_go_with_the_compression() -> None:
    data, syntax = data_set_of(TEST_FILES / "SC_rgb_rle_2frame.dcm")
    ds = decode_data_set(data, syntax)
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(
        [*generate_frames(ds.PixelData, number_of_frames=2)]
    )
    result = decode_data_set(transcode(encode_data_set(ds, syntax), syntax, LITTLE, decompress=True), LITTLE)
    assert "ExtendedOffsetTable" not in result
    assert "ExtendedOffsetTableLengths" not in result
    assert np.array_equal(result.pixel_array, decode_data_set(data, syntax).pixel_array)


def test_a_wrong_number_of_pixels_is_refused() -> None:
    data, syntax = data_set_of(TEST_FILES / "MR_small_RLE.dcm")
    ds = decode_data_set(data, syntax)
    ds.NumberOfFrames = 2
    with pytest.raises(InvalidInstance, match="decompressed"):
        transcode(encode_data_set(ds, syntax), syntax, LITTLE, decompress=True)


@pytest.mark.parametrize("defined", [False, True])
def test_a_compressed_icon_is_refused(defined: bool) -> None:
    data, syntax = data_set_of(TEST_FILES / "SC_rgb_rle.dcm")
    ds = decode_data_set(data, syntax)
    icon = Dataset()
    icon.BitsAllocated = 8
    icon.add(DataElement(0x7FE00010, "OB", encapsulate([b"ABCD"]), is_undefined_length=True))
    icon.is_undefined_length_sequence_item = not defined
    ds.IconImageSequence = [icon]
    ds["IconImageSequence"].is_undefined_length = not defined
    with pytest.raises(InvalidInstance, match=r"\(7FE0,0010\): is compressed"):
        transcode(encode_data_set(ds, syntax), syntax, LITTLE, decompress=True)


def test_a_compressed_dataset_is_encoded_in_its_own_transfer_syntax_only() -> None:
    ds = dcmread(TEST_FILES / "SC_rgb_rle.dcm")
    with pytest.raises(InvalidInstance, match=r"call decompress\(\)"):
        encode_data_set(ds, LITTLE)
    with pytest.raises(InvalidInstance, match=f"compressed in {RLE} and cannot be sent as {JPEG_2000}"):
        encode_data_set(ds, JPEG_2000)
    with pytest.raises(InvalidInstance, match=rf"not compressed: call compress\('{RLE}'\)"):
        encode_data_set(dcmread(TEST_FILES / "CT_small.dcm"), RLE)
    with pytest.raises(InvalidInstance, match="not compressed"):
        encode_data_set(made(), RLE)


def test_compressed_pixel_data_set_in_python_is_encapsulated() -> None:
    ds = made()
    ds.PixelData = encapsulate([b"ABCD"])
    data = encode_data_set(ds, RLE)
    check_data_set(data, RLE)
    read = as_pydicom_reads(data, RLE)
    assert read["PixelData"].is_undefined_length
    assert read["PixelData"].VR == "OB"
    assert read.PixelData == ds.PixelData
    assert not ds["PixelData"].is_undefined_length


def test_a_dataset_compressed_by_pydicom_is_encoded() -> None:
    ds = dcmread(TEST_FILES / "CT_small.dcm")
    ds.compress(UID(RLE))
    read = as_pydicom_reads(encode_data_set(ds, RLE), RLE)
    assert np.array_equal(read.pixel_array, dcmread(TEST_FILES / "CT_small.dcm").pixel_array)


def test_pixels_on_a_jpip_server_stay_there() -> None:
    ds = made()
    del ds.PixelData
    ds.PixelDataProviderURL = "https://jpip.example/1"
    data = encode_data_set(ds, uids.JPIP_REFERENCED_DEFLATE)
    assert decode_data_set(data, uids.JPIP_REFERENCED_DEFLATE).PixelDataProviderURL == "https://jpip.example/1"
    with pytest.raises(InvalidInstance, match="on a JPIP server"):
        transcode(data, uids.JPIP_REFERENCED_DEFLATE, LITTLE, decompress=True)


# ---- UIDs


def test_the_uids_are_those_of_the_standard() -> None:
    names = {name: value for name, value in vars(uids).items() if name.isupper() and isinstance(value, str)}
    assert len(names) >= 22
    for name, uid in names.items():
        assert uid == UID(uid)
        words = UID(uid).name.upper().replace("/", "_").replace("-", " ").replace(" ", "_")
        parts = name.split("_")
        assert parts[0] in words, name
        assert parts[-1] in words, name


def test_uid_names() -> None:
    assert uids.uid_name(uids.VERIFICATION) == "Verification SOP Class"
    assert uids.uid_name("1.2.3.4") == "1.2.3.4"


def test_transfer_syntaxes_are_all_there_are() -> None:
    known = uids.transfer_syntaxes()
    assert known[:2] == (LITTLE, IMPLICIT)
    assert {*map(str, AllTransferSyntaxes)} <= {*known}
    assert len(known) == len({*known})


def test_storage_sop_classes_are_what_c_store_carries() -> None:
    from pynetdicom import StoragePresentationContexts

    known = uids.storage_sop_classes()
    assert {str(context.abstract_syntax) for context in StoragePresentationContexts} <= {*known}
    assert "1.2.840.10008.5.1.4.1.1.6" in known  # retired, and still sent
    assert uids.MEDIA_STORAGE_DIRECTORY not in known
    assert not any("Commitment" in uids.uid_name(uid) for uid in known)
    assert len(known) == len({*known})


def test_the_meta_information_may_be_given_with_the_dataset() -> None:
    ds = made()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(BIG)
    ds.PixelData = struct.pack(">4H", 1, 2, 3, 4)  # so its bytes are in that order
    assert as_pydicom_reads(encode_data_set(ds, LITTLE), LITTLE).pixel_array.tolist() == [[1, 2], [3, 4]]
