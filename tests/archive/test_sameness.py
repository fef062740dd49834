"""Two files with the same instance, and two with others under its UID."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from aiodicom import InstanceFile, open_instance
from aiodicom.archive.sameness import Encoded, same_instance
from aiodicom.dataset import decode_data_set, encode_data_set, transcode
from aiodicom.part10 import file_meta
from aiodicom.uids import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

MR = Path(str(get_testdata_file("MR_small.dcm")))  # has padding behind its data set
JPEG = Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm")))

Change = Callable[[bytes, str], tuple[bytes, str]]


def data_of(file: InstanceFile) -> bytes:
    return file.path.read_bytes()[file.data_set_offset :]


def without_padding(data: bytes, syntax: str) -> tuple[bytes, str]:
    dataset = decode_data_set(data, syntax)
    del dataset[0xFFFC, 0xFFFC]
    return encode_data_set(dataset, syntax), syntax


def in_syntax(target: str) -> Change:
    return lambda data, syntax: (transcode(data, syntax, target), target)


def another_pixel(data: bytes, syntax: str) -> tuple[bytes, str]:
    at = len(data) // 2
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :], syntax


def cut(data: bytes, syntax: str) -> tuple[bytes, str]:
    return data[:-2], syntax


@pytest.mark.parametrize(
    ("path", "change", "is_same"),
    [
        (MR, lambda *data: data, True),
        (JPEG, lambda *data: data, True),
        (MR, without_padding, True),
        (MR, in_syntax(IMPLICIT_VR_LITTLE_ENDIAN), True),
        (MR, in_syntax(EXPLICIT_VR_BIG_ENDIAN), True),
        (MR, lambda *data: in_syntax(IMPLICIT_VR_LITTLE_ENDIAN)(*without_padding(*data)), True),
        (MR, another_pixel, False),
        (MR, cut, False),
        (JPEG, another_pixel, False),
        (JPEG, lambda data, _: (data, EXPLICIT_VR_LITTLE_ENDIAN), False),
    ],
)
def test_the_same_instance_in_other_bytes(tmp_path: Path, path: Path, change: Change, is_same: bool) -> None:
    file = open_instance(path)
    data, syntax = change(data_of(file), file.transfer_syntax_uid)
    meta = file_meta(file.sop_class_uid, file.sop_instance_uid, syntax)
    other = tmp_path / "other.dcm"
    other.write_bytes(meta + data)
    kept = Encoded(path, file.data_set_offset, file.transfer_syntax_uid)
    again = Encoded(other, len(meta), syntax)
    assert same_instance(kept, again) is same_instance(again, kept) is is_same


def test_the_file_with_padding_has_some() -> None:
    assert (0xFFFC, 0xFFFC) in dcmread(MR)
