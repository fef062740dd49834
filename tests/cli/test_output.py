"""`--output`: each form of the matches."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from pydicom import Dataset

from aiodicom.cli.output import FORMS, ROWS_AT_ONCE, Table, output_of
from tests.cli.asking import match, query


def printed(
    capsys: pytest.CaptureFixture[str], form: str | None, matches: Iterable[Dataset], *arguments: str
) -> list[str]:
    """The lines that a command line with those arguments prints."""
    output = output_of(form, query(*arguments))
    for each in matches:
        output.show(each)
    output.end()
    return capsys.readouterr().out.splitlines()


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 60 columns without bold."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")


EVIL = "\x1b]0;title\x07Evil^\u202eName"
STUDIES = [
    match(PatientName="Doe^John^^", StudyDate="20240131", NumberOfStudyRelatedInstances=5, StudyInstanceUID="1.2.3"),
    match(PatientName="山田^太郎", StudyDate="", NumberOfStudyRelatedInstances=1200, StudyInstanceUID="1.2.34"),
]
KEYS = ("-k", "PatientName", "-k", "StudyDate", "-k", "NumberOfStudyRelatedInstances")


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "table", STUDIES, *KEYS) == [
        "PatientName  StudyDate   Instances  StudyInstanceUID",
        "Doe^John     2024-01-31          5  1.2.3",
        "山田^太郎                     1200  1.2.34",
    ]


def test_a_table_can_begin_before_its_rows_are_gathered(capsys: pytest.CaptureFixture[str]) -> None:
    output = output_of("table", query(*KEYS))
    output.flush()
    assert capsys.readouterr().out == ""
    output.show(STUDIES[0])
    output.flush()
    assert len(capsys.readouterr().out.splitlines()) == 2
    output.show(STUDIES[1])
    assert len(capsys.readouterr().out.splitlines()) == 1
    output.flush()
    output.end()
    assert capsys.readouterr().out == ""


def test_a_table_fits_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    long = match(
        PatientName="Featherstonehaugh^Bartholomew", StudyDate="20240131", StudyInstanceUID="1.2.840.113619.2.1.55"
    )
    assert printed(capsys, None, [*STUDIES, long], *KEYS) == [
        "PatientName        StudyDate   Instances  StudyInstanceUID",
        "Doe^John           2024-01-31          5  1.2.3",
        "山田^太郎                           1200  1.2.34",
        "Featherstonehaug…  2024-01-31             …40.113619.2.1.55",
    ]
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, printed(capsys, None, [long] * 3, "--level", "study"))) <= 80


def test_a_table_is_printed_when_its_columns_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(query(*KEYS))
    for _ in range(ROWS_AT_ONCE - 1):
        table.show(STUDIES[0])
    assert capsys.readouterr().out == ""
    table.show(STUDIES[0])
    assert capsys.readouterr().out.count("\n") == ROWS_AT_ONCE + 1
    table.show(match(PatientName="Featherstonehaugh^Bartholomew", StudyInstanceUID="1.2.3"))
    assert capsys.readouterr().out == "Featherstonehaugh^Bartholomew                         1.2.3\n"
    table.end()
    assert capsys.readouterr().out == ""


def test_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for form in FORMS:
        assert printed(capsys, form, [], "-k", "Modality") == (["Modality,StudyInstanceUID"] if form == "csv" else [])


def test_a_worklist_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "CT", "CT1"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20240131", "0930"
    entry = match(ScheduledProcedureStepSequence=[step], PatientName="Doe^John", PatientID="1", AccessionNumber="A7")
    assert printed(capsys, "table", [entry], "-W") == [
        "StartDate   StartTime  Modality  Station  PatientName  PatientID  AccessionNumber  RequestedProcedureDescription",
        "2024-01-31  09:30      CT        CT1      Doe^John     1          A7",
    ]
    [line] = printed(capsys, "json", [entry], "-W")
    assert json.loads(line)["00400100"]["Value"][0]["00080060"]["Value"] == ["CT"]


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, None, STUDIES)
    assert [json.loads(line)["0020000D"]["Value"] for line in lines] == [["1.2.3"], ["1.2.34"]]
    assert "山田^太郎" in lines[1]


def test_json_where_the_output_is_not_in_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(buffer, encoding="ascii"))
    output = output_of("json", query())
    output.show(STUDIES[1])
    assert json.loads(buffer.getvalue())["00100010"]["Value"] == [{"Alphabetic": "山田^太郎"}]


@pytest.mark.parametrize("form", [*FORMS])
def test_nobody_paints_on_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    on_a_terminal(monkeypatch)
    evil = match(PatientName=EVIL, PatientID=EVIL, StudyDescription=EVIL, StudyInstanceUID="1\n2\x1b[1m")
    lines = printed(capsys, form, [evil], "--level", "study")
    assert lines
    assert all(line.isprintable() for line in lines)


def test_json_keeps_what_it_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = printed(capsys, "json", [match(PatientName=EVIL)])
    assert line.isprintable()
    assert json.loads(line)["00100010"]["Value"] == [{"Alphabetic": EVIL}]


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    step = Dataset()
    step.Modality = "CT"
    matches = [
        match(PatientName='Doe, "John"', ModalitiesInStudy=["CT", "MR"], StudyInstanceUID="1.2", StudyDate="20240131"),
        match(PatientName="A\nB\x1b", RequestAttributesSequence=[step], StudyInstanceUID="1.3"),
    ]
    keys = [word for key in ("PatientName", "ModalitiesInStudy", "StudyDate", "0040,0275") for word in ("-k", key)]
    lines = printed(capsys, "csv", matches, *keys)
    rows = list(csv.reader(StringIO("\n".join(lines) + "\n")))
    assert rows == [
        ["PatientName", "ModalitiesInStudy", "StudyDate", "RequestAttributesSequence", "StudyInstanceUID"],
        ['Doe, "John"', "CT\\MR", "20240131", "", "1.2"],
        ["A\nB\x1b", "", "", '[{"00080060": {"vr": "CS", "Value": ["CT"]}}]', "1.3"],
    ]


def test_a_dump(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "dump", STUDIES) == [
        "(0008,0005) Specific Character Set              CS: 'ISO_IR 192'",
        "(0008,0020) Study Date                          DA: '20240131'",
        "(0010,0010) Patient's Name                      PN: 'Doe^John^^'",
        "(0020,000D) Study Instance UID                  UI: 1.2.3",
        "(0020,1208) Number of Study Related Instances   IS: '5'",
        "",
        "(0008,0005) Specific Character Set              CS: 'ISO_IR 192'",
        "(0008,0020) Study Date                          DA: ''",
        "(0010,0010) Patient's Name                      PN: '山田^太郎'",
        "(0020,000D) Study Instance UID                  UI: 1.2.34",
        "(0020,1208) Number of Study Related Instances   IS: '1200'",
    ]


def test_unique_keys(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = match(StudyDate="20240131")
    assert printed(capsys, "uids", [*STUDIES, nobody]) == ["1.2.3", "1.2.34"]
    hostile = match(PatientID="1\r\n2")
    assert printed(capsys, "uids", [match(PatientID="4711"), hostile], "--level", "patient") == ["4711", "1\\r\\n2"]


@pytest.mark.parametrize("form", ["tree", "uids"])
def test_a_worklist_has_no_levels(form: str) -> None:
    with pytest.raises(ValueError, match="choose another --output"):
        output_of(form, query("-W"))
