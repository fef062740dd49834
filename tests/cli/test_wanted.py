"""What is to be retrieved, of `-k`, of a query file, of a list."""

from __future__ import annotations

import json
import re
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from aiodicom.cli.values import json_of
from aiodicom.errors import DicomNetworkError, InvalidInstance
from tests.cli.asking import match, wanted


@pytest.mark.parametrize(
    ("arguments", "level", "model"),
    [
        (["-k", "StudyInstanceUID=1.2"], "STUDY", "study"),
        (["-k", "StudyInstanceUID=1.2", "-k", "SeriesInstanceUID=1.3"], "SERIES", "study"),
        (["-k", "SOPInstanceUID=1.4\\1.5", "-k", "SeriesInstanceUID"], "IMAGE", "study"),
        (["-k", "PatientID=1"], "PATIENT", "patient"),
        (["-k", "PatientID=1", "--level", "patient"], "PATIENT", "patient"),
        (["-P", "-k", "PatientID=1", "-k", "StudyInstanceUID=1.2"], "STUDY", "patient"),
        (["-O", "-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID=1"], "PATIENT", "patient-study"),
        (["--model", "no-bulk-data", "-k", "SOPInstanceUID=1.4"], "IMAGE", "no-bulk-data"),
    ],
)
def test_keys(arguments: list[str], level: str, model: str) -> None:
    [one] = wanted(*arguments)
    assert (one.level, one.model.name) == (level, model)
    said = {argument.partition("=")[0] for argument in arguments if argument[0].isupper()}
    assert {element.keyword for element in one.identifier} == said | {"QueryRetrieveLevel"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name what to retrieve: -k StudyInstanceUID=…"),
        (["-k", "PatientName=A*"], "name what to retrieve"),
        (["--level", "study"], "needs its unique key, StudyInstanceUID"),
        (["-S", "-k", "PatientID=1"], "has no level patient"),
    ],
)
def test_what_cannot_be_retrieved(arguments: list[str], message: str) -> None:
    with pytest.raises((ValueError, DicomNetworkError), match=re.escape(message)):
        wanted(*arguments)


def test_a_query_file(tmp_path: Path) -> None:
    dump = tmp_path / "query.dump"
    dump.write_text("(0008,0052) CS [STUDY]\n(0020,000d) UI [1.2]\n")
    [one] = wanted(file=dump)
    assert (one.level, one.identifier.StudyInstanceUID, str(one)) == ("STUDY", "1.2", "StudyInstanceUID 1.2")


def test_what_it_says_of_itself() -> None:
    [one] = wanted("-k", "SeriesInstanceUID=1.3", "-k", "Modality=CT", "-k", "PatientID")
    assert str(one) == "SeriesInstanceUID 1.3"
    assert one.lacking == ["StudyInstanceUID"]
    assert one.ignored == ["Modality"]


# Lists.


def uids(*arguments: str, text: str, folder: Path) -> list[tuple[str, ...]]:
    """The level and the unique keys of what a list comes to."""
    path = folder / "list"
    path.write_text(text)
    return [
        tuple(str(element.value) for element in one.identifier if element.value)
        for one in wanted(*arguments, file=path)
    ]


def test_a_line_is_a_uid_and_none_is_asked_for_twice(tmp_path: Path) -> None:
    assert uids(text="1.2\n\n 1.3 \n1.2\n", folder=tmp_path) == [("STUDY", "1.2"), ("STUDY", "1.3")]
    series = uids("--level", "series", "-k", "StudyInstanceUID=1.2", text="1.4\n", folder=tmp_path)
    assert series == [("SERIES", "1.2", "1.4")]
    assert uids("--level", "patient", text="Müller 1\n", folder=tmp_path) == [("ISO_IR 192", "PATIENT", "Müller 1")]
    assert uids(text="\n", folder=tmp_path) == []


def line(**values: str) -> str:
    return json.dumps(json_of(match(PatientName="Doe^John", NumberOfStudyRelatedInstances=3, **values)))


def test_a_line_is_a_match(tmp_path: Path) -> None:
    image = line(
        QueryRetrieveLevel="IMAGE", PatientID="7", StudyInstanceUID="1.2", SeriesInstanceUID="1.3", SOPInstanceUID="1.4"
    )
    assert uids(text=image, folder=tmp_path) == [("1.4", "IMAGE", "1.2", "1.3")]
    assert uids("--level", "study", text=f"{image}\n{image}", folder=tmp_path) == [("STUDY", "1.2")]
    assert uids("-P", text=image, folder=tmp_path) == [("1.4", "IMAGE", "7", "1.2", "1.3")]
    assert uids(text=line(PatientID="7"), folder=tmp_path) == [("PATIENT", "7")]
    assert uids(text=line(PatientID="7", StudyInstanceUID="1.2"), folder=tmp_path) == [("STUDY", "1.2")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.2\nx\n", "line 2: is no UID"),
        ('{"0020000D"\n', "line 1: is no match, as aiodicom find prints one"),
        ('{"0020000D": 5}\n', "line 1: is no match, as aiodicom find prints one"),
        ("{}\n", "line 1: names no StudyInstanceUID"),
        (line(QueryRetrieveLevel="SERIES", StudyInstanceUID="1.2"), "line 1: names no SeriesInstanceUID"),
        (line(QueryRetrieveLevel="WORLD"), "line 1: 'WORLD' is no level"),
        ("1.2\0\n", "is no query"),
    ],
)
def test_what_is_no_list(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInstance, match=re.escape(message)):
        uids(text=text, folder=tmp_path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"1.2\n1.3")))
    assert [str(one) for one in wanted(file=Path("-"))] == ["StudyInstanceUID 1.2", "StudyInstanceUID 1.3"]
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"1.2\nbad")))
    with pytest.raises(InvalidInstance, match="standard input, line 2"):
        wanted(file=Path("-"))
