"""Values as text: as they were sent, as one reads them, and in JSON; also those that are none of their VR."""

from __future__ import annotations

import struct

import pytest
from pydicom import Dataset

from aiodicom.cli.keys import parse_key
from aiodicom.cli.values import LONGEST, json_of, legible, readable, written
from aiodicom.dataset import decode_data_set
from aiodicom.logs import printable
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.cli.asking import match

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.mark.parametrize(
    ("keyword", "value", "as_sent", "as_read"),
    [
        ("PatientName", "Doe^John^^", "Doe^John^^", "Doe^John"),
        ("PatientName", "Yamada^Tarou=山田^太郎=", "Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^太郎"),
        ("PatientName", None, "", ""),
        ("PatientName", "\x1b[31mEvil\u202e", "\x1b[31mEvil\u202e", "\\x1b[31mEvil\\u202e"),
        ("StudyDate", "20241231", "20241231", "2024-12-31"),
        ("StudyDate", "2024.12.31", "2024.12.31", "2024-12-31"),
        ("StudyDate", "20240101-", "20240101-", "20240101-"),
        ("StudyTime", "072730.123", "072730.123", "07:27:30"),
        ("StudyTime", "0727", "0727", "07:27"),
        ("StudyTime", "07", "07", "07"),
        ("AcquisitionDateTime", "20241231235959.5+0100", "20241231235959.5+0100", "2024-12-31 23:59:59 +0100"),
        ("AcquisitionDateTime", "20241231", "20241231", "20241231"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
        ("StudyInstanceUID", "1.2.3", "1.2.3", "1.2.3"),
        ("ModalitiesInStudy", ["CT", "", "MR"], "CT\\\\MR", "CT, MR"),
        ("InstanceNumber", "007", "007", "007"),
        ("PatientWeight", "70.50", "70.50", "70.50"),
        ("Rows", 512, "512", "512"),
        ("EventTimeOffset", 1.5, "1.5", "1.5"),
        ("FrameIncrementPointer", 0x00181063, "(0018,1063)", "(0018,1063)"),
        ("ImageComments", "two\r\nlines\t ", "two\r\nlines\t", "two lines"),
        ("StudyDescription", "x" * 64, "x" * 64, "x" * 64),
        ("RetrieveURL", "http://h/a\\b", "http://h/a\\b", "http://h/a\\b"),
        ("ImageComments", "y" * 500, "y" * 500, f"{'y' * (LONGEST - 1)}…"),
        ("RequestAttributesSequence", [Dataset()], "[{}]", "1 item"),
        ("RequestAttributesSequence", [], "", ""),
    ],
)
def test_values(keyword: str, value: object, as_sent: str, as_read: str) -> None:
    found, key = match(**{keyword: value}), parse_key(keyword)
    assert (written(found, key), readable(found, key)) == (as_sent, as_read)


def test_what_is_not_there() -> None:
    key = parse_key("ScheduledProcedureStepSequence[0].Modality")
    assert (written(Dataset(), key), readable(Dataset(), key)) == ("", "")


def test_what_is_in_a_sequence() -> None:
    step = Dataset()
    step.Modality = "CT"
    step.ScheduledProcedureStepStartDate = "20241231"
    found = match(ScheduledProcedureStepSequence=[step])
    assert readable(found, parse_key("0040,0100.0040,0002")) == "2024-12-31"
    assert written(found, parse_key("0040,0100")) == (
        '[{"00080060": {"vr": "CS", "Value": ["CT"]}, "00400002": {"vr": "DA", "Value": ["20241231"]}}]'
    )


def explicit(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def damaged() -> Dataset:
    """A data set whose values are none of their VR, and whose character set is none."""
    elements = (
        explicit(0x0008, 0x0005, b"CS", b"ISO_IR 999"),
        explicit(0x0008, 0x0020, b"DA", b"2024XX"),
        explicit(0x0010, 0x0010, b"PN", b"M\xfcller"),
        explicit(0x0010, 0x1030, b"DS", b"fat "),
        explicit(0x0020, 0x0013, b"IS", b"one "),
        explicit(0x0028, 0x0010, b"US", b"\1\0\2"),
    )
    return decode_data_set(b"".join(elements), EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("StudyDate", "2024XX"),
        ("PatientName", "Müller"),
        ("PatientWeight", "fat"),
        ("InstanceNumber", "one"),
        ("Rows", "\1\0\2"),
    ],
)
def test_values_that_are_none(keyword: str, text: str) -> None:
    key = parse_key(keyword)
    assert written(damaged(), key) == text
    assert readable(damaged(), key) == printable(text)


def test_json() -> None:
    found = match(PatientName="Doe^John=山田", ModalitiesInStudy=["CT", "MR"], NumberOfStudyRelatedSeries=3, Rows=None)
    assert json_of(found) == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080061": {"vr": "CS", "Value": ["CT", "MR"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^John", "Ideographic": "山田"}]},
        "00201206": {"vr": "IS", "Value": [3]},
        "00280010": {"vr": "US"},
    }


def test_json_of_what_is_damaged() -> None:
    step = damaged()
    found = Dataset()
    found.ScheduledProcedureStepSequence = [step]
    [item] = json_of(found)["00400100"]["Value"]
    assert item["00080005"]["Value"] == ["ISO_IR 192"]  # it is none that JSON could be in
    assert item["00200013"] == {"vr": "IS", "Value": ["one"]}
    assert item["00280010"] == {"vr": "US", "Value": ["\1\0\2"]}


def test_everything_can_be_printed() -> None:
    found = damaged()
    found.ScheduledProcedureStepSequence = [damaged()]
    text = str(legible(found))
    assert text.count("Instance Number                     IS: 'one'") == 2
    assert text.count(r"Rows                                US: b'\x01\x00\x02'") == 2
    assert text.count("'Müller'") == 2
