"""`-k`: what it names, and what it sets."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from aiodicom.cli.keys import Key, parse_key
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

STEPS = 0x00400100
CODES = 0x00400008


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("PatientName=A*", Key((), 0x00100010, "PN", "A*")),
        ("PatientName", Key((), 0x00100010, "PN")),
        ("PatientName=", Key((), 0x00100010, "PN")),
        ("PatientName=A=B^C=D", Key((), 0x00100010, "PN", "A=B^C=D")),
        ("0010,0010=A*", Key((), 0x00100010, "PN", "A*")),
        ("(0010,0010)=A*", Key((), 0x00100010, "PN", "A*")),
        ("0020,000d", Key((), 0x0020000D, "UI")),
        ("0020000D", Key((), 0x0020000D, "UI")),
        ("StudyDate= 20240101-", Key((), 0x00080020, "DA", " 20240101-")),
        ("ScheduledProcedureStepSequence[0].Modality=CT", Key(((STEPS, 0),), 0x00080060, "CS", "CT")),
        ("ScheduledProcedureStepSequence.Modality=CT", Key(((STEPS, 0),), 0x00080060, "CS", "CT")),
        ("(0040,0100)[0].0008,0060=C.T", Key(((STEPS, 0),), 0x00080060, "CS", "C.T")),
        ("0040,0100[1].ScheduledProtocolCodeSequence[99].0008,0100", Key(((STEPS, 1), (CODES, 99)), 0x00080100, "SH")),
        ("ScheduledProcedureStepSequence", Key((), STEPS, "SQ")),
        ("0009,0010=ACME", Key((), 0x00090010, "LO", "ACME")),
        ("0009,1001", Key((), 0x00091001, "UN")),
        ("0009,1002[0].0009,1003", Key(((0x00091002, 0),), 0x00091003, "UN")),
        ("6000,0010=5", Key((), 0x60000010, "US", "5")),
        ("PixelPaddingValue", Key((), 0x00280120, "US")),
    ],
)
def test_the_forms(text: str, key: Key) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no key: write a keyword or gggg,eeee"),
        ("=A", "'' is no key"),
        ("Patient Name=A", "'Patient Name' is no key"),
        ("PatientName.=A", "'PatientName.' is no key"),
        (".PatientName", "is no key"),
        ("0010,001=A", "is no key"),
        ("ScheduledProcedureStepSequence[*].Modality", "is no key"),
        ("ScheduledProcedureStepSequence[0]", "is an item: name an attribute in it"),
        ("ScheduledProcedureStepSequence[100].Modality", "item 100 is too many"),
        (f"ScheduledProcedureStepSequence[{'9' * 5000}].Modality", "is too many"),
        ("PatientName[0].Modality", "PatientName is no sequence"),
        (
            "PatientNam",
            "'PatientNam' is no keyword of the dictionary: did you mean PatientName, ",
        ),
        ("patientname", "did you mean PatientName"),
        ("Xyzzy", "'Xyzzy' is no keyword of the dictionary: write its tag, gggg,eeee"),
        ("0002,0010", "0002,0010 is no attribute of a query"),
        ("0000,0100", "0000,0100 is no attribute of a query"),
        ("0010,0000", "0010,0000 is no attribute of a query"),
        ("OffendingElement", "OffendingElement is no attribute of a query"),
        ("fffe,e000", "fffe,e000 is no attribute of a query"),
        ("Rows=many", "Rows is of VR US, and cannot have such a value"),
        ("Rows=-", "Rows is of VR US"),
        ("InstanceNumber=one", "InstanceNumber is of VR IS"),
        ("PatientWeight=heavy", "PatientWeight is of VR DS"),
        ("PixelData=0", "PixelData is of VR OB"),
        ("ScheduledProcedureStepSequence=CT", "ScheduledProcedureStepSequence is of VR SQ"),
        ("PatientName=\udcff", "is no text in the character encoding of this terminal"),
    ],
)
def test_what_is_no_key(text: str, message: str) -> None:
    with pytest.raises(ArgumentTypeError, match=re.escape(message)):
        parse_key(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PatientName=Ad*", "Ad*"),
        ("PatientName", ""),
        ("ModalitiesInStudy=CT\\MR", ["CT", "MR"]),
        ("StudyInstanceUID=1.2\\3.4", ["1.2", "3.4"]),
        ("StudyDate=20240101-20241231", "20240101-20241231"),
        ("StudyTime=-12", "-12"),
        ("InstanceNumber=007", 7),
        ("PatientWeight=70.5", 70.5),
        ("Rows=512", 512),
        ("ImageComments=a\\b", "a\\b"),
        ("FrameIncrementPointer=0010,0010\\(0010,0020)", [0x00100010, 0x00100020]),
        ("ReferencePixelX0=-5", -5),
        ("EventTimeOffset=1.5", 1.5),
        ("6000,0050", None),
    ],
)
def test_values_go_over_the_wire(text: str, expected: object) -> None:
    ds = Dataset()
    key = parse_key(text)
    key.put(ds)
    there = decode_data_set(encode_data_set(ds, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)
    value: Any = there[Tag(key.tag)].value
    assert value == expected, value
    assert key.vr == there[Tag(key.tag)].VR


def test_what_is_in_sequences() -> None:
    ds = Dataset()
    ds.ScheduledProcedureStepSequence = [Dataset()]
    ds.ScheduledProcedureStepSequence[0].ScheduledStationAETitle = "CT1"
    for text in ("(0040,0100)[0].Modality=CT", "(0040,0100)[2].Modality=MR", "0040,0100.0040,0008.CodeValue=1"):
        parse_key(text).put(ds)
    steps = ds.ScheduledProcedureStepSequence
    assert [step.get("Modality") for step in steps] == ["CT", None, "MR"]
    assert steps[0].ScheduledStationAETitle == "CT1"
    assert steps[0].ScheduledProtocolCodeSequence[0].CodeValue == "1"
    parse_key("ScheduledProcedureStepSequence").put(ds)
    assert ds.ScheduledProcedureStepSequence == Sequence()
    private = parse_key("0009,1002[0].0009,1003")
    private.put(ds)
    assert ds[0x00091002].value[0][0x00091003].value == b""


def test_names() -> None:
    assert parse_key("(0040,0100)[1].0008,0060").keyword == "ScheduledProcedureStepSequence[1].Modality"
    assert parse_key("0009,1001").keyword == "0009,1001"


def test_where_it_is_found() -> None:
    key = parse_key("ScheduledProcedureStepSequence[1].Modality")
    ds = Dataset()
    assert key.find(ds) is None
    ds.ScheduledProcedureStepSequence = []
    assert key.find(ds) is None
    parse_key("ScheduledProcedureStepSequence[1].StationName").put(ds)
    assert key.find(ds) is None
    key.put(ds)
    assert key.find(ds) is ds.ScheduledProcedureStepSequence[1]


@pytest.mark.parametrize(
    ("written", "value"),
    [("20040119", "20040119"), ("2004-01-19", "20040119"), ("20040101-", "20040101-"), ("-20041231", "-20041231")],
)
def test_a_date_may_be_written_as_it_is_printed(written: str, value: str) -> None:
    assert parse_key(f"StudyDate={written}").element().value == value


@pytest.mark.parametrize("written", ["yesterday", "2004", "19.01.2004", "2004*"])
def test_what_is_no_date_is_said_to_be_none(written: str) -> None:
    with pytest.raises(ArgumentTypeError, match="write 20040119"):
        parse_key(f"StudyDate={written}")
