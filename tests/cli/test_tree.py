"""Matches as a tree."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest
from pydicom import Dataset

from aiodicom.cli.tree import Tree
from tests.cli.asking import match, query


def lines(capsys: pytest.CaptureFixture[str], matches: Iterable[Dataset], *arguments: str) -> list[str]:
    tree = Tree(query(*arguments))
    for each in matches:
        tree.show(each)
    assert capsys.readouterr().out == ""
    tree.end()
    return capsys.readouterr().out.splitlines()


def image(patient: str, study: int, series: int, number: int) -> Dataset:
    return match(
        PatientName=f"{patient}^A",
        PatientID=patient,
        PatientBirthDate="19700101",
        StudyInstanceUID=f"1.{study}",
        StudyDate="20240131",
        StudyDescription=f"Study {study}",
        SeriesInstanceUID=f"1.{study}.{series}",
        Modality="CT",
        SeriesNumber=series,
        SOPInstanceUID=f"1.{study}.{series}.{number}",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        InstanceNumber=number,
    )


def test_down_to_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    images = [image("B", 1, 1, 2), image("A", 3, 1, 1), image("B", 2, 1, 1), image("B", 1, 1, 1), image("B", 1, 2, 1)]
    assert lines(capsys, images, "--level", "image") == [
        "B^A  B  1970-01-01  2 studies, 3 series, 4 instances",
        "├── 2024-01-31  Study 1  2 series, 3 instances  1.1",
        "│   ├── CT  1  2 instances  1.1.1",
        "│   │   ├── 2  CT Image Storage  1.1.1.2",
        "│   │   └── 1  CT Image Storage  1.1.1.1",
        "│   └── CT  2  1 instance  1.1.2",
        "│       └── 1  CT Image Storage  1.1.2.1",
        "└── 2024-01-31  Study 2  1 series, 1 instance  1.2",
        "    └── CT  1  1 instance  1.2.1",
        "        └── 1  CT Image Storage  1.2.1.1",
        "A^A  A  1970-01-01  1 study, 1 series, 1 instance",
        "└── 2024-01-31  Study 3  1 series, 1 instance  1.3",
        "    └── CT  1  1 instance  1.3.1",
        "        └── 1  CT Image Storage  1.3.1.1",
    ]


def test_studies_with_what_the_peer_counts(capsys: pytest.CaptureFixture[str]) -> None:
    studies = [
        match(
            PatientName="A",
            PatientID="1",
            StudyInstanceUID="1.1",
            NumberOfStudyRelatedSeries=1,
            NumberOfStudyRelatedInstances=1234,
        ),
        match(PatientName="A", PatientID="1", StudyInstanceUID="1.2", ModalitiesInStudy=["CT", "SR"]),
        match(PatientName="", PatientID="", StudyInstanceUID="1.3", NumberOfStudyRelatedSeries=None),
    ]
    assert lines(capsys, studies) == [
        "A  1  2 studies",
        "├── 1 series, 1,234 instances  1.1",
        "└── CT, SR  1.2",
        "(without name and ID)  1 study",
        "└── 1.3",
    ]


def test_patients(capsys: pytest.CaptureFixture[str]) -> None:
    patients = [
        match(PatientName="A", PatientID="1", NumberOfPatientRelatedStudies=1),
        match(PatientName="B", PatientID="", NumberOfPatientRelatedStudies=2),
        match(PatientName="C", PatientID="", NumberOfPatientRelatedStudies="2000"),
    ]
    assert lines(capsys, patients, "--level", "patient") == ["A  1  1 study", "B  2 studies", "C  2,000 studies"]


def test_peers_that_do_not_repeat_the_levels_above(capsys: pytest.CaptureFixture[str]) -> None:
    series = [
        match(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", Modality="CT", NumberOfSeriesRelatedInstances=2),
        match(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.2", Modality="MR"),
        match(SeriesInstanceUID="1.2.1", Modality="US"),
    ]
    assert lines(capsys, series, "--level", "series") == [
        "2 series  1.1",
        "├── CT  2 instances  1.1.1",
        "└── MR  1.1.2",
        "US  1.2.1",
    ]


def test_it_fits_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    studies = [
        match(PatientName="x" * 60, StudyInstanceUID="1.2.840.113619.2.1.55.66.77.88.99.11"),
        match(PatientName="x" * 60, StudyInstanceUID="1.2.840.113619.2.1.56", StudyDescription="d" * 40),
    ]
    first, second, third = lines(capsys, studies)
    assert first == f"\x1b[1m{'x' * 39}…\x1b[0m"
    assert second == "├── 1.2.840.113619.2.1.55.66.77.88.99.11"
    assert len(third) <= 40
    assert third.endswith("3619.2.1.56")
