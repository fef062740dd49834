"""The rows of the index: what they say of an instance, and which instance is right where two contradict each other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from aiodicom.archive.header import read_header
from aiodicom.archive.index import MAXIMUM_READERS, Entry, Index, Readers, StoredFile, open_index
from aiodicom.archive.store import entry_of
from aiodicom.dataset import encode_data_set
from aiodicom.errors import ArchiveError, DimseError
from aiodicom.services.matching import fold_name
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import SERIES, STUDY, instance, uid
from tests.loopback import CT
from tests.studies import world


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_index(tmp_path / "index")) as opened:
        yield opened


def entry(number: int = 1, *, path: str = "a.dcm", **attributes: Any) -> Entry:  # noqa: ANN401 - of DICOM
    encoded = instance(number, **attributes)
    assert isinstance(encoded.data, bytes)
    header = read_header(encoded.data, EXPLICIT_VR_LITTLE_ENDIAN)
    return entry_of(header, CT, uid(number), StoredFile(path, EXPLICIT_VR_LITTLE_ENDIAN, 300, 1000))


HIERARCHY = """
    SELECT PatientID, PatientName, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID FROM instances
    LEFT JOIN series ON instances.series = series.pk
    LEFT JOIN studies ON series.study = studies.pk
    LEFT JOIN patients ON studies.patient = patients.pk
    ORDER BY SOPInstanceUID
    """


def hierarchy(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(HIERARCHY).fetchall()


def counts(connection: sqlite3.Connection) -> tuple[int, ...]:
    tables = ("patients", "studies", "series", "instances")
    return tuple(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)


def test_what_an_instance_says_is_in_its_rows(connection: sqlite3.Connection) -> None:
    index = Index(connection)
    name = "M\u00fcller^J\u00fcrgen=\u738b"
    assert index.insert(entry(PatientName=name, SpecificCharacterSet="ISO_IR 192", ImageType=["A", "B"], Rows=2))
    assert index.find(uid(1)) == StoredFile("a.dcm", EXPLICIT_VR_LITTLE_ENDIAN, 300, 1000)
    [row] = connection.execute(
        """
        SELECT PatientName, PatientName_folded, Modality, ImageType, Rows, Columns, InstanceNumber
        FROM patients, studies, series, instances
        """
    ).fetchall()
    assert row == (name, fold_name(name), "CT", "A\\B", "2", "", "1")


def test_the_whole_world_has_its_rows(connection: sqlite3.Connection) -> None:
    index = Index(connection)
    for ds in world().values():
        syntax = ds.file_meta.TransferSyntaxUID
        header = read_header(encode_data_set(ds, syntax), syntax)
        assert index.insert(entry_of(header, ds.SOPClassUID, ds.SOPInstanceUID, StoredFile("", syntax, 0, 0)))
    patients = {(ds.PatientID, ds.get("IssuerOfPatientID")) for ds in world().values()}
    studies = {ds.StudyInstanceUID for ds in world().values()}
    series = {ds.SeriesInstanceUID for ds in world().values()}
    assert counts(connection) == (len(patients), len(studies), len(series), len(world()))
    stored = connection.execute("SELECT RequestAttributesSequence FROM series").fetchall()
    requests = [item["ScheduledProcedureStepID"] for (each,) in stored for item in json.loads(each)]
    assert set(requests) >= {"SPS-1"}


def test_a_second_instance_with_that_uid_changes_nothing(connection: sqlite3.Connection) -> None:
    index = Index(connection)
    assert index.insert(entry())
    before = list(connection.iterdump())
    assert not index.insert(entry(path="b.dcm"))
    assert not index.insert(entry(path="b.dcm", SeriesInstanceUID="1.9", StudyInstanceUID="1.8", PatientID="2"))
    assert list(connection.iterdump()) == before


def test_the_first_instance_is_right(connection: sqlite3.Connection) -> None:
    index = Index(connection)
    index.insert(entry(1))
    index.insert(entry(2, PatientName="Other"))
    index.insert(entry(3, SeriesInstanceUID="1.9", PatientID="2"))  # the study has its patient
    index.insert(entry(4, StudyInstanceUID="1.8", PatientID="2"))  # the series has its study
    assert {row[:3] for row in hierarchy(connection)} == {("1", "Doe^Jane", STUDY)}
    assert counts(connection) == (1, 1, 2, 4)


def test_the_last_instance_is_right_if_that_is_chosen(connection: sqlite3.Connection) -> None:
    index = Index(connection, replace=True)
    index.insert(entry(1))
    index.insert(entry(2, PatientName="Roe^Jane"))
    assert {row[1] for row in hierarchy(connection)} == {"Roe^Jane"}
    index.insert(entry(3, SeriesInstanceUID="1.9", PatientID="2", Modality="MR"))
    assert {row[0] for row in hierarchy(connection)} == {"2"}
    assert counts(connection) == (1, 1, 2, 3)  # the first patient has nothing any more
    index.insert(entry(4, StudyInstanceUID="1.8", PatientID="2"))
    assert {row[2:4] for row in hierarchy(connection)} == {("1.8", SERIES), (STUDY, "1.9")}
    assert counts(connection) == (1, 2, 2, 4)
    index.insert(entry(5, StudyInstanceUID="1.8", SeriesInstanceUID="1.9", PatientID="2"))
    assert counts(connection) == (1, 1, 2, 5)


@pytest.mark.parametrize("replace", [False, True])
def test_an_instance_moves_with_what_it_says_now(connection: sqlite3.Connection, replace: bool) -> None:
    index = Index(connection, replace=replace)
    index.insert(entry(1))
    index.insert(entry(2, StudyInstanceUID="1.8", SeriesInstanceUID="1.9", PatientID="2"))
    moved = entry(1, path="b.dcm", StudyInstanceUID="1.8", SeriesInstanceUID="1.9", PatientID="2", InstanceNumber="7")
    index.update(moved)
    assert counts(connection) == (1, 1, 1, 2)
    assert hierarchy(connection) == [("2", "Doe^Jane", "1.8", "1.9", uid(number)) for number in (1, 2)]
    assert index.find(uid(1)) == moved.file
    index.update(entry(1))
    assert hierarchy(connection)[0] == ("1", "Doe^Jane", STUDY, SERIES, uid(1))


@pytest.mark.parametrize("replace", [False, True])
def test_an_instance_without_study_or_series_stands_alone(connection: sqlite3.Connection, replace: bool) -> None:
    index = Index(connection, replace=replace)
    index.insert(entry(1, StudyInstanceUID=None))
    index.insert(entry(2, SeriesInstanceUID=None))
    index.insert(entry(3, StudyInstanceUID=None, SeriesInstanceUID=None))
    assert counts(connection) == (0, 0, 0, 3)
    index.insert(entry(4))
    index.update(entry(4, SeriesInstanceUID=None))
    assert counts(connection) == (0, 0, 0, 4)
    index.update(entry(4))
    assert counts(connection) == (1, 1, 1, 4)


@pytest.mark.parametrize("replace", [False, True])
def test_patients_without_an_id_are_not_thrown_together(connection: sqlite3.Connection, replace: bool) -> None:
    index = Index(connection, replace=replace)
    index.insert(entry(1, PatientID="", PatientName="A"))
    index.insert(entry(2, PatientID=None, PatientName="A", SeriesInstanceUID="1.2.1"))
    index.insert(entry(3, PatientID="", PatientName="B", StudyInstanceUID="1.3", SeriesInstanceUID="1.3.1"))
    assert [row[1] for row in hierarchy(connection)] == ["A", "A", "B"]
    assert counts(connection) == (2, 2, 3, 3)
    index.insert(entry(4, PatientID="7", SeriesInstanceUID="1.2.2"))
    assert counts(connection) == (2, 2, 4, 4)
    assert hierarchy(connection)[0][0] == ("7" if replace else "")
    assert connection.execute("SELECT count(*) FROM patients WHERE PatientID = ''").fetchone() == (1 if replace else 2,)


def test_the_same_id_of_another_issuer_is_another_patient(connection: sqlite3.Connection) -> None:
    index = Index(connection)
    index.insert(entry(1, IssuerOfPatientID="A"))
    index.insert(entry(2, IssuerOfPatientID="B", StudyInstanceUID="1.3", SeriesInstanceUID="1.3.1"))
    index.insert(entry(3, IssuerOfPatientID="A", StudyInstanceUID="1.4", SeriesInstanceUID="1.4.1"))
    assert counts(connection)[:2] == (2, 3)


def test_what_is_removed_takes_its_parents_along(connection: sqlite3.Connection) -> None:
    index = Index(connection)
    index.insert(entry(1))
    index.insert(entry(2))
    index.remove(uid(1))
    assert counts(connection) == (1, 1, 1, 1)
    index.remove(uid(2))
    assert counts(connection) == (0, 0, 0, 0)
    index.insert(entry(1))
    assert counts(connection) == (1, 1, 1, 1)


def test_a_rollback_is_forgotten(connection: sqlite3.Connection) -> None:
    index = Index(connection)
    connection.execute("BEGIN")
    index.insert(entry(1))
    connection.execute("ROLLBACK")
    index.forget()
    index.insert(entry(1))
    assert hierarchy(connection) == [("1", "Doe^Jane", STUDY, SERIES, uid(1))]


@pytest.mark.parametrize("content", [b"SQLite format 3\0garbage", b"x" * 5000])
def test_a_damaged_index_is_refused_with_advice(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"damaged: .*build it again: aiodicom index rebuild"):
        open_index(path)
    assert path.read_bytes() == content


# ---- readers


def test_readers_see_what_is_committed_and_cannot_write(tmp_path: Path, connection: sqlite3.Connection) -> None:
    readers = Readers(tmp_path / "index")
    Index(connection).insert(entry(1))
    reader = readers.take()
    assert counts(reader) == (1, 1, 1, 1)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM instances")
    readers.give_back(reader)
    assert readers.take() is reader
    readers.give_back(reader)
    assert readers.close(0)


def test_closing_waits_for_readers(tmp_path: Path, connection: sqlite3.Connection) -> None:
    assert connection
    readers = Readers(tmp_path / "index")
    reader = readers.take()
    assert not readers.close(0)
    with pytest.raises(ArchiveError, match="closed"):
        readers.take()
    closed = Event()

    def close() -> None:
        if readers.close(60):
            closed.set()

    thread = Thread(target=close)
    thread.start()
    readers.give_back(reader)
    thread.join()
    assert closed.is_set()
    with pytest.raises(sqlite3.ProgrammingError):
        reader.execute("SELECT 1")


def test_readers_are_not_without_number(tmp_path: Path, connection: sqlite3.Connection) -> None:
    assert connection
    readers = Readers(tmp_path / "index")
    taken = [readers.take() for _ in range(MAXIMUM_READERS)]
    with pytest.raises(DimseError, match="Too many queries") as refused:
        readers.take()
    assert refused.value.status == 0xA700
    readers.give_back(taken.pop())
    taken.append(readers.take())
    for each in taken:
        readers.give_back(each)
    assert readers.close(0)


def test_no_reader_without_an_index(tmp_path: Path) -> None:
    readers = Readers(tmp_path / "absent")
    with pytest.raises(ArchiveError, match="cannot be read"):
        readers.take()
    assert readers.close(0)
