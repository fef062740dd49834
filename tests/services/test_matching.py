"""Identifiers against data sets: what matches, and what is answered. Both in Python and as they were received."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from pydicom.dataset import Dataset

from aiodicom.dataset import decode_data_set
from aiodicom.errors import InvalidInstance
from aiodicom.query import QueryOptions
from aiodicom.rows import Row, encode_row
from aiodicom.services.matching import Keys, answer, fold_name, items_of, matches, text_of
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

Maker = Callable[[Row], Dataset]

PROCEDURE: Final[Row] = {
    "PatientName": "Doe^Jane",
    "PatientID": "1001",
    "StudyDate": "20240102",
    "StudyTime": "1015",
    "Modality": "CT",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "NumberOfFrames": "1",
    "Rows": 512,
    "StudyInstanceUID": "1.2.3",
    "AcquisitionDateTime": "20240102101530+0100",
    "ScheduledProcedureStepSequence": [
        {
            "Modality": "CT",
            "ScheduledStationAETitle": ["CT1", "CT2"],
            "ScheduledProtocolCodeSequence": [{"CodeValue": "A"}, {"CodeValue": "B", "CodeMeaning": "b"}],
        },
        {"Modality": "MR", "ScheduledStationAETitle": "MR1", "CommentsOnTheScheduledProcedureStep": "none"},
    ],
}


def in_python(row: Row) -> Dataset:
    dataset = Dataset()
    for key, value in row.items():
        if isinstance(value, list):
            value = [in_python(each) if isinstance(each, Mapping) else each for each in value]
        setattr(dataset, key, value)
    return dataset


def explicit(row: Row) -> Dataset:
    return decode_data_set(encode_row(row, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)


def implicit(row: Row) -> Dataset:
    return decode_data_set(encode_row(row, IMPLICIT_VR_LITTLE_ENDIAN), IMPLICIT_VR_LITTLE_ENDIAN)


received = pytest.mark.parametrize("received", [explicit, implicit])
# pydicom will not have wildcards and ranges set in Python without a warning about them.
made = pytest.mark.parametrize(
    "make",
    [pytest.param(in_python, marks=pytest.mark.filterwarnings("ignore::UserWarning:pydicom")), explicit, implicit],
)


@made
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, True),
        ({"PatientName": "", "PatientComments": ""}, True),
        ({"PatientName": "doe*"}, True),
        ({"PatientName": "doe*", "PatientID": "1002"}, False),
        ({"PatientComments": "x"}, False),
        ({"Modality": "C*"}, True),
        ({"Modality": "c*"}, False),
        ({"Modality": ["MR", "CT"]}, True),
        ({"ImageType": "AXIAL"}, True),
        ({"ImageType": "SAGITTAL"}, False),
        ({"StudyDate": "20240101-20240131", "StudyTime": "10"}, True),
        ({"StudyDate": "-20231231"}, False),
        ({"NumberOfFrames": "01"}, True),
        ({"Rows": 512}, True),
        ({"Rows": 256}, False),
        ({"StudyInstanceUID": ["1.2", "1.2.3"]}, True),
        ({"StudyInstanceUID": "1.2.*"}, False),
        ({"AcquisitionDateTime": "20240102091530+0000"}, True),
        ({"QueryRetrieveLevel": "SERIES", "SpecificCharacterSet": "ISO_IR 100", "PatientID": "1001"}, True),
        ({"ScheduledProcedureStepSequence": []}, True),
        ({"ScheduledProcedureStepSequence": [{}]}, True),
        ({"ReferencedStudySequence": [{"ReferencedSOPInstanceUID": ""}]}, True),
        ({"ReferencedStudySequence": [{"ReferencedSOPInstanceUID": "1.2"}]}, False),
        ({"ScheduledProcedureStepSequence": [{"Modality": "MR"}]}, True),
        ({"ScheduledProcedureStepSequence": [{"Modality": "US"}]}, False),
        ({"ScheduledProcedureStepSequence": [{"Modality": "MR", "ScheduledStationAETitle": "CT1"}]}, False),
        ({"ScheduledProcedureStepSequence": [{"Modality": "CT", "ScheduledStationAETitle": "CT?"}]}, True),
        ({"ScheduledProcedureStepSequence": [{"Modality": "US"}, {"Modality": "MR"}]}, True),
        ({"ScheduledProcedureStepSequence": [{"ScheduledProtocolCodeSequence": [{"CodeValue": "B"}]}]}, True),
        (
            {
                "ScheduledProcedureStepSequence": [
                    {"Modality": "MR", "ScheduledProtocolCodeSequence": [{"CodeValue": "B"}]}
                ]
            },
            False,
        ),
    ],
)
def test_keys_match_or_not(keys: Row, expected: bool, make: Maker) -> None:
    assert matches(make(keys), make(PROCEDURE)) is expected


@made
def test_values_beyond_ascii_match_across_character_sets(make: Maker) -> None:
    stored = make({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"})
    assert matches(make({"SpecificCharacterSet": "ISO_IR 192", "PatientName": "MÜLLER*"}), stored)
    japanese = {"SpecificCharacterSet": "\\ISO 2022 IR 87", "PatientName": "Yamada^Tarou=山田^太郎"}
    assert matches(make({"SpecificCharacterSet": "ISO_IR 192", "PatientName": "山田*"}), explicit(japanese))


@received
def test_a_name_in_the_simplified_chinese_of_iso_2022(received: Maker) -> None:
    stored = received({"SpecificCharacterSet": "\\ISO 2022 IR 58", "PatientName": "Zhang^XiaoDong=张^小东"})
    assert matches(received({"PatientName": "张*"}), stored)


@received
def test_what_does_not_fit_its_character_set(received: Maker) -> None:
    damaged: Row = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": b"M\xfcller", "PatientID": "1"}
    with pytest.raises(InvalidInstance, match=r"\(0010,0010\): cannot be decoded"):
        matches(received(damaged), in_python(PROCEDURE))
    assert matches(received({"PatientID": "1", "PatientName": "M?ller"}), received(damaged))


@received
@pytest.mark.parametrize("keys", [{"NumberOfFrames": "1-5"}, {"PatientWeight": "heavy"}, {"StudyDate": "soon"}])
def test_what_its_vr_does_not_allow_matches_nothing_and_is_no_error(keys: Row, received: Maker) -> None:
    assert not matches(received(keys), received({"NumberOfFrames": 3, "PatientWeight": 3, "StudyDate": "20240101"}))
    assert matches(received({"PatientID": "1"}), received({**keys, "PatientID": "1"}))


@received
def test_a_key_that_is_too_long_is_refused(received: Maker) -> None:
    identifier = received({"TextValue": "a*" * 5121})
    with pytest.raises(InvalidInstance, match="10240"):
        matches(identifier, Dataset())
    with pytest.raises(InvalidInstance, match="10240"):
        answer(identifier, Dataset())


@received
def test_private_keys_are_ignored(received: Maker) -> None:
    assert matches(received({0x00090010: "ACME", 0x00091001: b"xx", "PatientID": "1001"}), received(PROCEDURE))


@received
def test_an_attribute_that_the_dictionary_does_not_know(received: Maker) -> None:
    unknown = 0x00100F0E
    assert matches(received({unknown: b"12"}), received({unknown: b"12"}))
    assert not matches(received({unknown: b"12"}), received({unknown: b"13"}))


# ---- options


def test_a_date_and_its_time_are_one_range_only_if_that_was_negotiated() -> None:
    keys = explicit({"StudyDate": "20240101-20240103", "StudyTime": "1800-1900"})
    assert not matches(keys, explicit(PROCEDURE))
    assert matches(keys, explicit(PROCEDURE), options=QueryOptions(combined_datetime=True))


@pytest.mark.parametrize(
    "stored", [{"StudyDate": "", "StudyTime": "200001"}, {"StudyDate": "2024", "StudyTime": "0102"}]
)
def test_a_time_without_a_date_is_in_no_combined_range(stored: Row) -> None:
    keys = explicit({"StudyDate": "20000101-20240103", "StudyTime": "1800-1900"})
    assert not matches(keys, explicit(stored), options=QueryOptions(combined_datetime=True))


def test_a_combined_range_in_a_sequence() -> None:
    step: Row = {
        "ScheduledProcedureStepStartDate": "20240101-20240103",
        "ScheduledProcedureStepStartTime": "1800-1900",
    }
    stored: Row = {"ScheduledProcedureStepStartDate": "20240102", "ScheduledProcedureStepStartTime": "1015"}
    keys, dataset = (explicit({"ScheduledProcedureStepSequence": [item]}) for item in (step, stored))
    assert not matches(keys, dataset)
    assert matches(keys, dataset, options=QueryOptions(combined_datetime=True))


def test_fuzzy_names_only_if_that_was_negotiated() -> None:
    keys = explicit({"PatientName": "Jane Doé"})
    assert not matches(keys, explicit(PROCEDURE))
    assert matches(keys, explicit(PROCEDURE), options=QueryOptions(fuzzy_names=True))


@pytest.mark.parametrize(
    ("keys", "stored", "expected"),
    [
        ({"StudyDate": "20240102", "StudyTime": "0115"}, {"StudyDate": "20240102", "StudyTime": "0115"}, False),
        ({"StudyDate": "20240101", "StudyTime": "2115"}, {"StudyDate": "20240102", "StudyTime": "0115"}, True),
        ({"StudyDate": "20240101"}, {"StudyDate": "20240102", "StudyTime": "0115"}, True),
        ({"StudyDate": "20240102"}, {"StudyDate": "20240102"}, True),
        ({"StudyTime": "0115"}, {"StudyTime": "0115"}, True),
        ({"AcquisitionDateTime": "20240101211500"}, {"AcquisitionDateTime": "20240102011500"}, True),
        ({"AcquisitionDateTime": "20240102011500"}, {"AcquisitionDateTime": "20240102011500"}, False),
        ({"AcquisitionDateTime": "20240101211500"}, {"AcquisitionDateTime": "20240102011500+0000"}, False),
        ({"AcquisitionDateTime": "20240102011500+0000"}, {"AcquisitionDateTime": "20240102021500"}, True),
    ],
)
def test_times_are_compared_in_one_time_zone_if_that_was_negotiated(keys: Row, stored: Row, expected: bool) -> None:
    options = QueryOptions(timezone=True)
    there, here = {"TimezoneOffsetFromUTC": "+0100"}, {"TimezoneOffsetFromUTC": "-0300"}
    assert matches(explicit({**keys, **here}), explicit({**stored, **there}), options=options) is expected
    assert matches(explicit({**keys, **there}), explicit({**keys, **there}), options=options)
    assert not matches(explicit({**keys, **here}), explicit({**keys, **there}))  # a key like any other
    assert matches(explicit({**keys, **here}), explicit({"StudyInstanceUID": "1.2", **keys}), options=options)


def test_items_are_in_the_time_zone_of_the_data_set() -> None:
    item: Row = {"ScheduledProcedureStepStartDate": "20240102", "ScheduledProcedureStepStartTime": "0115"}
    there = explicit({"ScheduledProcedureStepSequence": [item], "TimezoneOffsetFromUTC": "+0100"})
    key: Row = {"ScheduledProcedureStepStartDate": "20240101", "ScheduledProcedureStepStartTime": "2115"}
    here = explicit({"ScheduledProcedureStepSequence": [key], "TimezoneOffsetFromUTC": "-0300"})
    assert matches(here, there, options=QueryOptions(timezone=True))
    found = answer(here, there, options=QueryOptions(timezone=True))
    assert len(found.ScheduledProcedureStepSequence) == 1
    assert found.TimezoneOffsetFromUTC == "+0100"


# ---- answers


@made
def test_an_answer_has_what_was_asked_for_and_nothing_else(make: Maker) -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "PatientName": "doe*", "PatientComments": "", "Rows": None}
    found = answer(make(keys), make(PROCEDURE))
    assert {element.keyword: element.value or None for element in found} == {
        "QueryRetrieveLevel": "STUDY",
        "PatientName": "Doe^Jane",
        "PatientComments": None,
        "Rows": 512,
    }


@made
def test_a_sequence_comes_with_the_items_that_match_and_the_attributes_asked_for(make: Maker) -> None:
    step: Row = {"Modality": "CT", "ScheduledStationName": "", "ScheduledProtocolCodeSequence": [{"CodeValue": "B"}]}
    found = answer(make({"ScheduledProcedureStepSequence": [step]}), make(PROCEDURE))
    [item] = found.ScheduledProcedureStepSequence
    assert item.Modality == "CT"
    assert not item.ScheduledStationName
    assert "ScheduledStationAETitle" not in item
    [code] = item.ScheduledProtocolCodeSequence
    assert code.CodeValue == "B"
    assert "CodeMeaning" not in code


@made
@pytest.mark.parametrize("asked", [[], [{}]])
def test_an_empty_sequence_asks_for_whole_items(asked: list[Row], make: Maker) -> None:
    stored = make(PROCEDURE)
    found = answer(make({"ScheduledProcedureStepSequence": asked}), stored)
    assert found.ScheduledProcedureStepSequence == stored.ScheduledProcedureStepSequence


@made
def test_a_sequence_that_is_not_there_is_empty(make: Maker) -> None:
    for asked in ([], [{"CodeValue": ""}]):
        found = answer(make({"ProcedureCodeSequence": asked}), make(PROCEDURE))
        assert "ProcedureCodeSequence" in found
        assert len(found.ProcedureCodeSequence) == 0


@made
def test_an_answer_is_in_the_character_set_of_the_data_set(make: Maker) -> None:
    stored = make({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller"})
    found = answer(make({"SpecificCharacterSet": "ISO_IR 192", "PatientName": ""}), stored)
    assert found.SpecificCharacterSet == "ISO_IR 100"
    assert found.PatientName == "Müller"
    assert "SpecificCharacterSet" not in answer(make({"PatientName": ""}), make(PROCEDURE))


def test_a_time_zone_is_never_empty() -> None:
    assert "TimezoneOffsetFromUTC" not in answer(explicit({"TimezoneOffsetFromUTC": ""}), explicit(PROCEDURE))


def test_keys_are_compiled_once_for_many_data_sets() -> None:
    keys = Keys(explicit({"PatientID": "1*"}))
    assert not keys.is_universal
    assert [keys.match(explicit({"PatientID": each})) for each in ("1", "2", "10")] == [True, False, True]
    assert Keys(explicit({"PatientID": ""})).is_universal


# ---- text


@made
@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientName", "Doe^Jane", "Doe^Jane"),
        ("ImageType", ["A", "B"], "A\\B"),
        ("PixelSpacing", ["0.50", "1"], "0.50\\1"),
        ("SeriesNumber", "007", "007"),
        ("Rows", 512, "512"),
        ("StudyInstanceUID", "1.2.3", "1.2.3"),
        ("PatientComments", "a\\b", "a\\b"),
        ("PatientID", None, ""),
        ("PatientID", "1001 ", "1001"),
    ],
)
def test_the_text_of_a_value(keyword: str, value: Any, expected: str, make: Maker) -> None:  # noqa: ANN401
    dataset = make({keyword: value})
    tag = dataset[keyword].tag
    assert text_of(make({keyword: value}), tag) == expected
    assert text_of(dataset, tag) == expected


def test_names_fold_here_too() -> None:
    assert fold_name("DOE^JANE^^") == "doe^jane"


def test_a_value_of_a_length_that_its_vr_cannot_have_matches_nothing_and_harms_nothing() -> None:
    damaged = decode_data_set(bytes.fromhex("28001000 5553 0300") + b"\1\2\3", EXPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(InvalidInstance, match="cannot be decoded"):
        text_of(damaged, 0x00280010)
    assert text_of(damaged, 0x00280010, errors="replace") == ""


def test_a_sequence_of_a_vr_that_does_not_exist_is_none() -> None:
    level = bytes.fromhex("08005200") + b"CS\x06\x00STUDY "
    qualifiers = bytes.fromhex("10002400") + b"QN\x04\x00\x00\x01\x02\x03"
    identifier = decode_data_set(level + qualifiers, EXPLICIT_VR_LITTLE_ENDIAN)
    assert items_of(identifier, 0x00100024) == ()
    assert matches(identifier, Dataset())
