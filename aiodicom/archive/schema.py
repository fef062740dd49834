"""The tables of the index: a row for each patient, study, series and instance (PS3.4 §C.6.1.1), columns from `ATTRIBUTES`.

A value is Unicode text without padding, several values are joined by backslashes, numbers are text too, and what an
instance does not have is ''. A person name has a second column, `<keyword>_folded`, with what `fold_name` makes of it.
Each row names its parent: `studies.patient`, `series.study`, `instances.series`.

Some instances stand outside the hierarchy. One without a Study or Series Instance UID, such as a hanging protocol, has
no series: its `series` is NULL. Patients are told apart by Patient ID and its issuer; without an ID nobody can say
whether two of them are the same person, so that each study without one has a patient of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from aiodicom.archive.attributes import of_level
from aiodicom.errors import ArchiveError
from aiodicom.query import Level

__all__ = ["PARENTS", "REQUEST_ATTRIBUTES", "TABLES", "VERSION", "create", "folded"]

VERSION: Final = 1
"""The version of the schema, in SQLite's `user_version`."""

APPLICATION_ID: Final = 0x6169444D
"""'aiDM', in SQLite's `application_id`: a database without it is not ours."""

TABLES: Final = {Level.PATIENT: "patients", Level.STUDY: "studies", Level.SERIES: "series", Level.IMAGE: "instances"}
"""The table of each level."""

REQUEST_ATTRIBUTES: Final = "RequestAttributesSequence"
"""A column of `series`: (0040,0275) as JSON, a list with an object for each item, text by keyword, '' where absent."""

PARENTS: Final = {Level.STUDY: "patient", Level.SERIES: "study", Level.IMAGE: "series"}
"""The column of each level that holds the `pk` of the row above."""

_FURTHER: Final = {
    Level.SERIES: (f"{REQUEST_ATTRIBUTES} TEXT NOT NULL DEFAULT '[]'",),
    # The file: `path` is relative to the archive's folder, with slashes.
    Level.IMAGE: (
        "TransferSyntaxUID TEXT NOT NULL",
        "path TEXT NOT NULL",
        "data_set_offset INTEGER NOT NULL",
        "size INTEGER NOT NULL",
    ),
}
_UNIQUE: Final = (
    "CREATE UNIQUE INDEX patients_by_id ON patients (PatientID, IssuerOfPatientID) WHERE PatientID <> ''",
    "CREATE UNIQUE INDEX studies_by_uid ON studies (StudyInstanceUID)",
    "CREATE UNIQUE INDEX series_by_uid ON series (SeriesInstanceUID)",
    "CREATE UNIQUE INDEX instances_by_uid ON instances (SOPInstanceUID)",
)


def create(connection: sqlite3.Connection, *, sync: bool = True, indexes: Iterable[str] = ()) -> None:
    """Make the tables of the index, unless they are there, and set how the connection writes.

    Args:
        connection: to the database, outside a transaction.
        sync: whether a transaction is on the disk once it is committed; else the last ones may be lost with the power,
            though the database stays whole.
        indexes: further statements for a new database.

    Raises:
        ArchiveError: the database is not an index of ours, or that of a newer version.
        sqlite3.Error: it cannot be read or written.
    """
    if not _is_there(
        connection
    ):  # one that is there is opened without a turn to write, for which others may be waiting
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in (*_statements(), *indexes):
                connection.execute(statement)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")


def folded(keyword: str) -> str:
    """Return the column of a person name that is compared regardless of case."""
    return f"{keyword}_folded"


def _is_there(connection: sqlite3.Connection) -> bool:
    """Tell a complete index from an empty database; refuse any other."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (application, version, tables) == (0, 0, 0):
        return False
    if application != APPLICATION_ID:
        raise ArchiveError("the database is not an index of aiodicom; move it away and build the index again")
    if version != VERSION:
        raise ArchiveError(
            f"the index has version {version}, and this aiodicom knows version {VERSION}; "
            "use the aiodicom that made it, or build the index again"
        )
    return True


def _statements() -> Iterator[str]:
    for level, table in TABLES.items():
        yield f"CREATE TABLE {table} (pk INTEGER PRIMARY KEY, {', '.join(_columns(level))})"
        if parent := PARENTS.get(level):
            yield f"CREATE INDEX {table}_by_{parent} ON {table} ({parent})"
    yield from _UNIQUE
    yield f"PRAGMA application_id = {APPLICATION_ID}"
    yield f"PRAGMA user_version = {VERSION}"


def _columns(level: Level) -> Iterator[str]:
    if parent := PARENTS.get(level):
        above = TABLES[list(TABLES)[list(TABLES).index(level) - 1]]
        yield f"{parent} INTEGER{'' if level is Level.IMAGE else ' NOT NULL'} REFERENCES {above}"
    for attribute in of_level(level):
        yield f"{attribute.keyword} TEXT NOT NULL DEFAULT ''"
        if attribute.vr == "PN":
            yield f"{folded(attribute.keyword)} TEXT NOT NULL DEFAULT ''"
    yield from _FURTHER.get(level, ())
