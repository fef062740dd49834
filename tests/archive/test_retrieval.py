"""Identifiers of C-MOVE and C-GET compiled to SQL: what is retrieved, and what is refused (PS3.4 §C.4.2, §C.4.3)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from aiodicom.archive.query import compile_retrieval
from aiodicom.errors import DimseError
from aiodicom.query import MODELS
from tests.archive.indexed import RELATIONAL, Keys, identifier, world_in_index
from tests.studies import instances_of, uid_of, world


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with world_in_index(tmp_path_factory.mktemp("archive") / "index") as connection:
        yield connection


def retrieved(connection: sqlite3.Connection, level: str, model: str = "study", **keys: object) -> set[str]:
    retrieval = compile_retrieval(identifier(level, **keys), MODELS[model])
    return {path.removesuffix(".dcm") for path, *_ in retrieval.run(connection)}


@pytest.mark.parametrize(
    ("level", "model", "keys", "labels"),
    [
        ("PATIENT", "patient", {"PatientID": "1001"}, ["jane", "jane-caps"]),
        ("PATIENT", "patient-study", {"PatientID": "M-2"}, ["mueller"]),
        ("STUDY", "study", {"StudyInstanceUID": uid_of("odd/plain")}, ["odd/plain"]),
        (
            "STUDY",
            "study",
            {"StudyInstanceUID": [uid_of("odd/plain"), uid_of("jane/chest"), "1.2"]},
            ["odd/plain", "jane/chest"],
        ),
        ("STUDY", "study", {"StudyInstanceUID": uid_of("odd/plain"), "PatientID": "abc/7%_"}, ["odd/plain"]),
        ("STUDY", "study", {"StudyInstanceUID": uid_of("odd/plain"), "PatientID": "1001"}, []),
        ("STUDY", "study", {"StudyInstanceUID": uid_of("odd/plain"), "PatientName": ""}, ["odd/plain"]),
        ("STUDY", "patient", {"PatientID": "abc/7%_", "StudyInstanceUID": uid_of("odd/plain")}, ["odd/plain"]),
        (
            "SERIES",
            "study",
            {"StudyInstanceUID": uid_of("jane/chest"), "SeriesInstanceUID": uid_of("jane/chest/2")},
            ["jane/chest/2"],
        ),
        ("SERIES", "study", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": uid_of("jane/chest/2")}, []),
        (
            "IMAGE",
            "study",
            {
                "StudyInstanceUID": uid_of("jane/chest"),
                "SeriesInstanceUID": uid_of("jane/chest/1"),
                "SOPInstanceUID": [uid_of("jane/chest/1/2"), uid_of("jane/chest/1/4"), uid_of("jane/chest/2/1")],
            },
            ["jane/chest/1/2", "jane/chest/1/4"],
        ),
        ("IMAGE", "composite", {"SOPInstanceUID": [uid_of("odd/plain/1/1")]}, ["odd/plain/1/1"]),
        ("IMAGE", "no-bulk-data", {"SOPInstanceUID": uid_of("odd/plain/1/1")}, ["odd/plain/1/1"]),
    ],
)
def test_what_is_retrieved(archive: sqlite3.Connection, level: str, model: str, keys: Keys, labels: list[str]) -> None:
    expected = {name for name in world() if any(f"{name}/".startswith(f"{label}/") for label in labels)}
    assert retrieved(archive, level, model, **keys) == expected


def test_what_is_known_of_an_instance_to_send(archive: sqlite3.Connection) -> None:
    label = "odd/plain/1/1"
    [instance] = instances_of(label)
    retrieval = compile_retrieval(identifier("IMAGE", SOPInstanceUID=uid_of(label)), MODELS["composite"])
    [(path, sop_class, uid, syntax, offset, size)] = retrieval.run(archive)
    assert (path, uid, offset) == (f"{label}.dcm", uid_of(label), 300)
    assert (sop_class, syntax) == (instance.SOPClassUID, instance.file_meta.TransferSyntaxUID)
    assert size > offset


def test_relational_retrieval_needs_no_keys_above(archive: sqlite3.Connection) -> None:
    keys = {"SeriesInstanceUID": [uid_of("jane/chest/2"), uid_of("odd/plain/2")]}
    retrieval = compile_retrieval(identifier("SERIES", **keys), MODELS["study"], options=RELATIONAL)
    assert {path for path, *_ in retrieval.run(archive)} == {"jane/chest/2/1.dcm", "odd/plain/2/1.dcm"}


@pytest.mark.parametrize(
    ("level", "model", "keys", "status", "comment"),
    [
        ("", "study", {}, 0xA900, "Query/Retrieve Level (0008,0052) is missing"),
        ("PATIENT", "study", {"PatientID": "1"}, 0xA900, "Query/Retrieve Level is none of STUDY, SERIES, IMAGE"),
        ("STUDY", "composite", {"StudyInstanceUID": "1"}, 0xA900, "Query/Retrieve Level is none of IMAGE"),
        ("STUDY", "study", {}, 0xA900, "StudyInstanceUID is missing in a retrieval at level STUDY"),
        (
            "STUDY",
            "study",
            {"StudyInstanceUID": ""},
            0xA900,
            "StudyInstanceUID is missing in a retrieval at level STUDY",
        ),
        ("PATIENT", "patient", {"PatientID": ["1", "2"]}, 0xA900, "one PatientID is needed at level PATIENT"),
        ("PATIENT", "patient", {"PatientID": "*1"}, 0xA900, "one PatientID is needed at level PATIENT"),
        ("PATIENT", "patient", {"PatientID": "*"}, 0xA900, "one PatientID is needed at level PATIENT"),
        ("STUDY", "patient", {"StudyInstanceUID": "1"}, 0xA900, "PatientID is missing in a retrieval at level STUDY"),
        (
            "SERIES",
            "study",
            {"SeriesInstanceUID": "1"},
            0xA900,
            "StudyInstanceUID is missing in a retrieval at level SERIES",
        ),
        (
            "SERIES",
            "study",
            {"StudyInstanceUID": ["1", "2"], "SeriesInstanceUID": "1"},
            0xA900,
            "one StudyInstanceUID is needed at level SERIES",
        ),
        (
            "STUDY",
            "study",
            {"StudyInstanceUID": "1", "PatientName": "Doe*"},
            0xA900,
            "PatientName is no unique key of this retrieval",
        ),
        (
            "STUDY",
            "study",
            {"StudyInstanceUID": "1", "SeriesInstanceUID": "2"},
            0xA900,
            "SeriesInstanceUID is no unique key of this retrieval",
        ),
        ("IMAGE", "composite", {"SOPInstanceUID": ["1"] * 10_001}, 0xC000, "more than 10000 values in SOPInstanceUID"),
    ],
)
def test_a_retrieval_that_is_refused(level: str, model: str, keys: Keys, status: int, comment: str) -> None:
    with pytest.raises(DimseError) as refused:
        compile_retrieval(identifier(level, **keys), MODELS[model])
    assert (refused.value.status, refused.value.comment) == (status, comment)
    assert len(comment) <= 64


def test_a_retrieval_reads_no_whole_table(archive: sqlite3.Connection) -> None:
    keys = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": ["1.4", "1.5"]}
    for level, model, count_of_keys in (("STUDY", "study", 1), ("SERIES", "study", 2), ("IMAGE", "study", 3)):
        asked = identifier(level, **dict(list(keys.items())[:count_of_keys]))
        retrieval = compile_retrieval(asked, MODELS[model])
        explained = archive.execute(f"EXPLAIN QUERY PLAN {retrieval.sql}", retrieval.parameters)
        assert not [step for *_, step in explained if re.match("SCAN (patients|studies|series|instances)", step)]
