"""What `-k`, `--level`, `-P -S -O -W` and a query file come to: the identifier, its level and its model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aiodicom.errors import DicomNetworkError
from tests.cli.asking import query, sent
from tests.peers import dcmtk


def test_keys_are_added_to_what_is_usual_at_the_level() -> None:
    asked = query("--level", "study", "-k", "PatientName=A*", "-k", "Modality")
    assert (asked.model.name, asked.level) == ("study", "STUDY")
    assert [key.keyword for key in asked.columns] == ["PatientName", "Modality", "StudyInstanceUID"]
    identifier = sent(asked.identifier)
    assert (identifier.QueryRetrieveLevel, identifier.PatientName, identifier.Modality) == ("STUDY", "A*", "")
    assert identifier.StudyInstanceUID == ""
    assert "SpecificCharacterSet" not in identifier


@pytest.mark.parametrize(
    ("arguments", "level", "model"),
    [
        ([], "STUDY", "study"),
        (["-k", "PatientID=1"], "STUDY", "study"),
        (["-k", "StudyInstanceUID=1.2"], "STUDY", "study"),
        (["-k", "SeriesInstanceUID", "-k", "StudyInstanceUID=1.2"], "SERIES", "study"),
        (["-k", "SOPInstanceUID"], "IMAGE", "study"),
        (["-P"], "STUDY", "patient"),
        (["-P", "--level", "patient"], "PATIENT", "patient"),
        (["--level", "patient"], "PATIENT", "patient"),
        (["--level", "IMAGE"], "IMAGE", "study"),
        (["-S", "-k", "QueryRetrieveLevel=SERIES"], "SERIES", "study"),
        (["-k", "0008,0052=patient"], "PATIENT", "patient"),
        (["--level", "series", "-k", "QueryRetrieveLevel=SERIES"], "SERIES", "study"),
        (["--level", "series", "-k", "QueryRetrieveLevel"], "SERIES", "study"),
        (["-O"], "STUDY", "patient-study"),
        (["--model", "patient"], "STUDY", "patient"),
    ],
)
def test_levels_and_models(arguments: list[str], level: str, model: str) -> None:
    asked = query(*arguments)
    assert (asked.level, asked.identifier.QueryRetrieveLevel, asked.model.name) == (level, level, model)


def test_the_worklist() -> None:
    asked = query("-W", "-k", "ScheduledProcedureStepSequence[0].Modality=CT")
    assert (asked.model.name, asked.level) == ("worklist", None)
    assert "QueryRetrieveLevel" not in asked.identifier
    [step] = asked.identifier.ScheduledProcedureStepSequence
    assert step.Modality == "CT"
    assert "ScheduledStationAETitle" in step  # which is usual


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--level", "study", "-k", "QueryRetrieveLevel=SERIES"], "two levels: study by --level, SERIES by -k"),
        (["-k", "QueryRetrieveLevel=WORLD"], "'WORLD' is no level"),
        (["-S", "--level", "patient"], "has no level patient"),
        (["-O", "--level", "series"], "has no level series"),
        (["-W", "--level", "study"], "has no levels"),
        (
            ["-k", "SpecificCharacterSet=ISO_IR 100", "-k", "PatientName=山田"],
            "characters that ISO_IR 100 does not have",
        ),
        (["-k", "SpecificCharacterSet=ISO_IR 999", "-k", "PatientName=é"], "characters that ISO_IR 999 does not have"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], message: str) -> None:
    with pytest.raises((ValueError, DicomNetworkError), match=re.escape(message)):
        query(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--level", "world"], "invalid choice: 'world'"),
        (["-P", "-S"], "not allowed with argument"),
        (["-k", "PatientNam=A"], "argument -k/--key: 'PatientNam' is no keyword"),
        (["--model", "world"], "invalid choice: 'world'"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        query(*arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("character_set", "name", "expected"),
    [
        (None, "Müller", "ISO_IR 192"),
        (None, "山田", "ISO_IR 192"),
        (None, "Mueller", None),
        ("ISO_IR 100", "Müller", "ISO_IR 100"),
        ("ISO_IR 100", "Mueller", "ISO_IR 100"),
        ("\\ISO 2022 IR 87", "山田", ["", "ISO 2022 IR 87"]),
    ],
)
def test_character_sets(character_set: str | None, name: str, expected: object) -> None:
    said = [] if character_set is None else ["-k", f"SpecificCharacterSet={character_set}"]
    identifier = sent(
        query(*said, "-k", f"PatientName={name}*", "-k", "RequestAttributesSequence[0].StudyDescription").identifier
    )
    assert identifier.get("SpecificCharacterSet") == expected
    assert identifier.PatientName == f"{name}*"


def test_what_is_in_a_sequence_needs_a_character_set_too() -> None:
    identifier = sent(query("-k", "RequestAttributesSequence[0].RequestedProcedureDescription=Schädel").identifier)
    assert identifier.SpecificCharacterSet == "ISO_IR 192"
    assert identifier.RequestAttributesSequence[0].RequestedProcedureDescription == "Schädel"


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        (["--level", "patient"], "PatientName PatientBirthDate PatientSex NumberOfPatientRelatedStudies PatientID"),
        (
            ["--level", "image", "-k", "StudyInstanceUID=1"],
            "InstanceNumber SOPClassUID SOPInstanceUID",
        ),
        (["--level", "image", "-k", "InstanceNumber=1"], "InstanceNumber SOPClassUID SOPInstanceUID"),
        (["--level", "image", "-k", "Rows"], "Rows SOPInstanceUID"),
        (["--level", "image", "-k", "SOPInstanceUID", "-k", "Rows=1"], "SOPInstanceUID Rows"),
        (["--level", "image", "-k", "SpecificCharacterSet=ISO_IR 100"], "InstanceNumber SOPClassUID SOPInstanceUID"),
        (
            ["-W", "-k", "0040,0100.Modality", "-k", "PatientName=A"],
            "ScheduledProcedureStepSequence[0].Modality PatientName",
        ),
    ],
)
def test_columns(arguments: list[str], columns: str) -> None:
    assert [key.keyword for key in query(*arguments).columns] == columns.split()


# Query files.

DUMP = "(0008,0052) CS [SERIES]\n(0010,0010) PN [HEWETT*]\n(0020,000d) UI [1.2]\n"


def dump(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "query.dump"
    path.write_text(text, encoding=encoding)
    return path


def test_a_file_is_the_query_as_it_is(tmp_path: Path) -> None:
    asked = query(file=dump(tmp_path, DUMP))
    assert (asked.level, asked.model.name) == ("SERIES", "study")
    assert [element.keyword for element in asked.identifier] == [
        "QueryRetrieveLevel",
        "PatientName",
        "StudyInstanceUID",
    ]


def test_keys_override_a_file(tmp_path: Path) -> None:
    path = dump(tmp_path, DUMP)
    asked = query("-k", "PatientName=A*", "-k", "Modality", "--level", "study", file=path)
    assert (asked.level, asked.identifier.PatientName, asked.identifier.Modality) == ("STUDY", "A*", None)
    assert query("-k", "QueryRetrieveLevel=STUDY", file=path).level == "STUDY"


def test_a_file_without_a_level(tmp_path: Path) -> None:
    path = dump(tmp_path, "(0010,0010) PN [A]\n")
    with pytest.raises(ValueError, match="does not say at which level: say --level"):
        query(file=path)
    assert query("-P", "--level", "patient", file=path).level == "PATIENT"


def test_a_worklist_query_of_dcmtk() -> None:
    path = Path("/usr/share/doc/dcmtk/examples/wlistqry/wlistqry1.dump")
    if not path.exists():
        pytest.skip("install the Debian package dcmtk to run this test")
    asked = query("-W", file=path)
    assert asked.level is None
    assert len(asked.identifier.ScheduledProcedureStepSequence) == 1
    assert asked.columns[0].keyword == "AccessionNumber"


@pytest.mark.parametrize(("key", "expected"), [("Müller", "ISO_IR 100"), ("山田", "ISO_IR 192"), ("Doe", "ISO_IR 100")])
async def test_the_character_set_of_a_file_is_left_where_it_will_do(tmp_path: Path, key: str, expected: str) -> None:
    path = dump(
        tmp_path, "(0008,0005) CS [ISO_IR 100]\n(0008,0052) CS [STUDY]\n(0008,0090) PN [Käse]\n", encoding="latin-1"
    )
    made = tmp_path / "made.dcm"
    assert (await dcmtk.run("dump2dcm", path, made)).exit_code == 0
    for file in (path, made):
        identifier = sent(query("-k", f"PatientName={key}", file=file).identifier)
        assert identifier.SpecificCharacterSet == expected
        assert (identifier.PatientName, identifier.ReferringPhysicianName) == (key, "Käse")
