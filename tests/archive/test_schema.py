"""The tables of the index: which columns they have, that they are made once, and which databases are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aiodicom.archive.attributes import ATTRIBUTES
from aiodicom.archive.schema import REQUEST_ATTRIBUTES, TABLES, VERSION, create, folded
from aiodicom.errors import ArchiveError
from aiodicom.query import Level


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "index")) as made:
        yield made


def columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}


def test_every_attribute_has_its_column_and_a_name_a_second_one(connection: sqlite3.Connection) -> None:
    create(connection)
    further = {
        Level.PATIENT: {"pk"},
        Level.STUDY: {"pk", "patient"},
        Level.SERIES: {"pk", "study", REQUEST_ATTRIBUTES},
        Level.IMAGE: {"pk", "series", "TransferSyntaxUID", "path", "data_set_offset", "size"},
    }
    for level, table in TABLES.items():
        of_level = [attribute for attribute in ATTRIBUTES.values() if attribute.level is level]
        names = {folded(attribute.keyword) for attribute in of_level if attribute.vr == "PN"}
        assert columns(connection, table) == {each.keyword for each in of_level} | names | further[level]
    assert "PatientName_folded" in columns(connection, "patients")


def test_what_is_not_said_is_empty(connection: sqlite3.Connection) -> None:
    create(connection)
    connection.execute("INSERT INTO patients (PatientID) VALUES ('1')")
    [row] = connection.execute("SELECT * FROM patients").fetchall()
    assert set(row) == {1, "1", ""}


@pytest.mark.parametrize(
    ("table", "insert"),
    [
        ("patients", "INSERT INTO patients (PatientID, IssuerOfPatientID) VALUES ('1', 'X')"),
        ("studies", "INSERT INTO studies (patient, StudyInstanceUID) VALUES (1, '1.2')"),
        ("series", "INSERT INTO series (study, SeriesInstanceUID) VALUES (1, '1.2')"),
        (
            "instances",
            "INSERT INTO instances (SOPInstanceUID, TransferSyntaxUID, path, data_set_offset, size) VALUES (1, 2, '', 0, 0)",
        ),
    ],
)
def test_an_entity_is_there_once(connection: sqlite3.Connection, table: str, insert: str) -> None:
    create(connection)
    connection.execute(insert)
    with pytest.raises(sqlite3.IntegrityError, match=f"UNIQUE constraint failed: {table}"):
        connection.execute(insert)


def test_patients_without_an_id_are_many(connection: sqlite3.Connection) -> None:
    create(connection)
    connection.execute("INSERT INTO patients (PatientName) VALUES ('a'), ('a')")
    connection.execute("INSERT INTO patients (PatientID, IssuerOfPatientID) VALUES ('1', 'X'), ('1', 'Y')")
    assert connection.execute("SELECT count(*) FROM patients").fetchone() == (4,)


def test_it_is_made_once(connection: sqlite3.Connection) -> None:
    create(connection)
    connection.execute("INSERT INTO patients (PatientID) VALUES ('1')")
    connection.commit()
    create(connection)
    assert connection.execute("SELECT count(*) FROM patients").fetchone() == (1,)


@pytest.mark.parametrize(("sync", "level"), [(True, 2), (False, 1)])
def test_how_it_writes(connection: sqlite3.Connection, sync: bool, level: int) -> None:
    create(connection, sync=sync)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_another_database_is_left_alone(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE accounts (name)")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    with pytest.raises(ArchiveError, match="is not an index of aiodicom"):
        create(connection)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("accounts",)]
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert not connection.in_transaction


def test_a_newer_index_is_left_alone(connection: sqlite3.Connection) -> None:
    create(connection)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(ArchiveError, match=f"version {VERSION + 1}, and this aiodicom knows version {VERSION}"):
        create(connection)
    assert not connection.in_transaction
