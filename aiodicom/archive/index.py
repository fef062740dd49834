"""The index: what is known of the instances, in SQLite. One connection writes, others read.

Patients, studies and series are what their instances say. Where these contradict each other, the first instance of an
entity is right, or the last one if `replace` is chosen: about its attributes and about its parent. A series therefore has
one study and a study one patient, whatever else an instance of it claims.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Condition
from time import monotonic, sleep
from typing import Final

from aiodicom.archive.attributes import ATTRIBUTES, of_level
from aiodicom.archive.conditions import add_functions
from aiodicom.archive.header import Header
from aiodicom.archive.locking import is_busy, is_damaged, primary_code
from aiodicom.archive.query import INDEXES
from aiodicom.archive.schema import PARENTS, REQUEST_ATTRIBUTES, TABLES, create, folded
from aiodicom.archive.worklist import create_worklist
from aiodicom.errors import ArchiveError, DimseError
from aiodicom.query import Level
from aiodicom.services.matching import fold_name

__all__ = [
    "MAXIMUM_READERS",
    "DamagedIndex",
    "Entry",
    "Index",
    "Readers",
    "SameFiles",
    "StoredFile",
    "explained",
    "open_index",
]

MAXIMUM_READERS: Final = 64
"""How many queries may be open at a time."""

_BUSY_TIMEOUT: Final = 5.0  # seconds that another process may hold the database
_TURN_TIMEOUT: Final = 30.0  # the same, while it is our turn to write
_BETWEEN_LOOKS: Final = 0.001  # seconds between two looks whether it is
_CACHE_KIB: Final = 16 * 1024  # of the connection that writes
_LOG_KEPT: Final = 64 * 1024 * 1024  # bytes of the write-ahead log that stay after a checkpoint
_SERIES_REMEMBERED: Final = 10_000
_IDLE_READERS: Final = 8
_TOO_MANY: Final = 0xA700
_REBUILD: Final = "build it again: aiodicom index rebuild"
_OPENING: Final = "see that it may be read and written, and that descriptors are free (ulimit -n); then start again"
_REMEDIES: Final = {
    sqlite3.SQLITE_BUSY: "another program has it open; end that, and start again",
    sqlite3.SQLITE_LOCKED: "another program has it open; end that, and start again",
    sqlite3.SQLITE_CANTOPEN: _OPENING,
    sqlite3.SQLITE_PERM: _OPENING,
    sqlite3.SQLITE_READONLY: _OPENING,
    sqlite3.SQLITE_IOERR: "see that its disk is in order, and start again",
    sqlite3.SQLITE_NOMEM: "see that there is memory, and start again",
    sqlite3.SQLITE_FULL: "see that there is room on its disk, and start again",
}
"""What helps where the index itself is in order."""


@dataclass(slots=True)
class StoredFile:
    """Where an instance is kept: a PS3.10 file.

    Attributes:
        path: relative to the archive's folder, with slashes.
        transfer_syntax_uid: how its data set is encoded.
        data_set_offset: where that begins; it reaches to the end of the file.
        size: bytes in the file.
    """

    path: str
    transfer_syntax_uid: str
    data_set_offset: int
    size: int


@dataclass(slots=True)
class Entry:
    """An instance that is to have its place in the index.

    Attributes:
        header: its attributes.
        study_instance_uid: '' where it has none; likewise the next one.
        series_instance_uid: likewise.
        sop_instance_uid: which one it is.
        file: where it is kept.
    """

    header: Header
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    file: StoredFile


class DamagedIndex(ArchiveError):
    """The index is no database any more, or contradicts itself; the files are not concerned."""


@contextmanager
def explained(path: Path, remedy: str | None = None) -> Iterator[None]:
    """Say what SQLite fails at as an ArchiveError, and what to do next.

    Args:
        path: the database.
        remedy: what to do next; by default, what helps against that error.

    Raises:
        DamagedIndex: instead of a sqlite3.Error that says so.
        ArchiveError: instead of any other.
    """
    try:
        yield
    except sqlite3.Error as error:
        what = remedy or _REMEDIES.get(primary_code(error), _REBUILD)
        kind = DamagedIndex if is_damaged(error) else ArchiveError
        raise kind(f"{path}: the index cannot be used: {error}; {what}") from error


class SameFiles:
    """Whether the files of an open database are still there: what is written in others is lost with the process.

    Args:
        path: the database.
        connection: to it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        connection.execute("SELECT 1 FROM instances LIMIT 1").fetchone()  # from the first look on there is a log
        real = os.path.realpath(path)
        self._identities = {name: _identity(name) for name in (real, f"{real}-wal")}

    def check(self) -> None:
        """See that they are.

        Raises:
            OSError: one of them was removed, or another one put in its place.
        """
        for name, identity in self._identities.items():
            if _identity(name) != identity:
                raise OSError(
                    errno.ESTALE, "the index was removed or replaced; start again, and it is built of the files"
                )


def _identity(name: str) -> tuple[int, int] | None:
    try:
        status = os.stat(name)  # noqa: PTH116 - a plain string, for each commit
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def open_index(path: Path, *, sync: bool = True) -> sqlite3.Connection:
    """Open the index to write in it, and make it where there is none.

    Args:
        path: the database.
        sync: whether a transaction is on the disk once it is committed.

    Raises:
        ArchiveError: it is no index, or cannot be read or written.
    """
    with explained(path), ExitStack() as unless_it_works:
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        unless_it_works.callback(connection.close)
        create(connection, sync=sync, indexes=INDEXES)
        create_worklist(connection)
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}")
        connection.execute("PRAGMA busy_timeout = 0")  # `Index.begin` waits by itself
        unless_it_works.pop_all()
    return connection


class Index:
    """What is written in the index; it belongs to one thread at a time, and its caller begins and commits transactions.

    Args:
        connection: see `open_index`.
        replace: whether the last instance is right about its patient, study and series, and not the first.
    """

    def __init__(self, connection: sqlite3.Connection, *, replace: bool = False) -> None:
        self.connection = connection
        self._replace = replace
        self._version = 0
        self._series: dict[str, tuple[int, int]] = {}  # by UID: pk, and a digest of what its last instance said of it

    def begin(self) -> None:
        """Begin a transaction; nothing is remembered of what another process may have changed since the last one.

        Raises:
            sqlite3.OperationalError: another one has been writing for too long.
        """
        # SQLite looks more and more rarely, up to 0.1 s apart, while those that write much take every turn.
        deadline = monotonic() + _TURN_TIMEOUT
        while not self._begun(is_last_try=monotonic() >= deadline):
            sleep(_BETWEEN_LOOKS)
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            self.forget()

    def _begun(self, *, is_last_try: bool) -> bool:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_last_try or not is_busy(error):
                raise
            return False
        return True

    def insert(self, entry: Entry) -> bool:
        """Add an instance; return False, and do nothing, where there is one with its SOP Instance UID."""
        if entry.series_instance_uid not in self._series and self.find(entry.sop_instance_uid) is not None:
            return False
        cursor = self.connection.execute(_INSERT_INSTANCE, self._row(entry))
        return cursor.rowcount == 1

    def find(self, sop_instance_uid: str) -> StoredFile | None:
        """Return where an instance is kept."""
        row = self.connection.execute(_FIND_FILE, (sop_instance_uid,)).fetchone()
        return None if row is None else StoredFile(*row)

    def update(self, entry: Entry) -> None:
        """Let an instance that is there be what `entry` says; what then has no instances any more goes."""
        (before,) = self.connection.execute(_FIND_SERIES_OF, (entry.sop_instance_uid,)).fetchone()
        row = self._row(entry)
        self.connection.execute(_UPDATE_INSTANCE, (*row, entry.sop_instance_uid))
        if before != row[0]:
            self._prune(Level.SERIES, before)

    def remove(self, sop_instance_uid: str) -> None:
        """Forget an instance."""
        (series,) = self.connection.execute(_FIND_SERIES_OF, (sop_instance_uid,)).fetchone()
        self.connection.execute(_DELETE_INSTANCE, (sop_instance_uid,))
        self._prune(Level.SERIES, series)

    def forget(self) -> None:
        """Remember nothing: the transaction was rolled back, or others wrote."""
        self._series.clear()

    def _row(self, entry: Entry) -> tuple[int | str | None, ...]:
        file = entry.file
        return (
            self._series_of(entry) if entry.study_instance_uid and entry.series_instance_uid else None,
            *entry.header.texts(Level.IMAGE),
            file.transfer_syntax_uid,
            file.path,
            file.data_set_offset,
            file.size,
        )

    # The levels above, from the bottom up.

    def _series_of(self, entry: Entry) -> int:
        uid = entry.series_instance_uid
        claims = entry.header.digest_above() if self._replace else 0
        known, last_claims = self._series.get(uid, (None, 0))
        if known is not None and last_claims == claims:
            return known
        pk, study = self._look_up(_FIND_SERIES, uid)
        if pk is None or self._replace:
            parent = self._study_of(entry)
            further = entry.header.request_attributes()
            pk = self._put(Level.SERIES, pk, (parent, *_values(Level.SERIES, entry.header), further))
            if study not in (None, parent):
                self._prune(Level.STUDY, study)
        if len(self._series) >= _SERIES_REMEMBERED:
            self._series.clear()
        self._series[uid] = pk, claims
        return pk

    def _study_of(self, entry: Entry) -> int:
        pk, patient = self._look_up(_FIND_STUDY, entry.study_instance_uid)
        if pk is None or self._replace:
            parent = self._patient_of(entry.header, patient)
            pk = self._put(Level.STUDY, pk, (parent, *_values(Level.STUDY, entry.header)))
            if patient not in (None, parent):
                self._prune(Level.PATIENT, patient)
        return pk

    def _patient_of(self, header: Header, of_study: int | None) -> int:
        """The patient by ID and issuer; without an ID, the study's own."""
        identity = header.text(ATTRIBUTES["PatientID"]), header.text(ATTRIBUTES["IssuerOfPatientID"])
        if identity[0]:
            pk, _ = self._look_up(_FIND_PATIENT, *identity)
        else:
            pk, _ = self._look_up(_FIND_PATIENT_WITHOUT_ID, of_study)
        if pk is not None and not self._replace:
            return pk
        return self._put(Level.PATIENT, pk, tuple(_values(Level.PATIENT, header)))

    def _look_up(self, statement: str, *values: int | str | None) -> tuple[int | None, int | None]:
        row: tuple[int, int] | None = self.connection.execute(statement, values).fetchone()
        return (None, None) if row is None else row

    def _put(self, level: Level, pk: int | None, values: tuple[int | str, ...]) -> int:
        """Write a row: a new one without a pk."""
        if pk is None:
            pk = self.connection.execute(_INSERT[level], values).lastrowid
            assert pk is not None
        else:
            self.connection.execute(_UPDATE[level], (*values, pk))
        return pk

    def _prune(self, level: Level, pk: int | None) -> None:
        """Remove a row that has no children any more; and then its parent, likewise."""
        if pk is None or self.connection.execute(_FIND_CHILD[level], (pk,)).fetchone() is not None:
            return
        parent = None
        if level in PARENTS:
            (parent,) = self.connection.execute(_FIND_PARENT[level], (pk,)).fetchone()
        self.connection.execute(_DELETE[level], (pk,))
        self._series.clear()
        if level in PARENTS:
            self._prune(_LEVELS[_LEVELS.index(level) - 1], parent)


class Readers:
    """Connections to read the index with, each one for a query at a time.

    Args:
        path: the database.
    """

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._idle: list[sqlite3.Connection] = []
        self._taken = 0
        self._changed = Condition()
        self._is_closed = False

    def take(self) -> sqlite3.Connection:
        """Return a connection for one's own use, until `give_back`; it may go from thread to thread.

        Raises:
            ArchiveError: the index is closed, or cannot be read.
            DimseError: 0xA700 where `MAXIMUM_READERS` are out.
        """
        with self._changed:
            if self._is_closed:
                raise ArchiveError("the archive is closed, or its index is being built again")
            if self._taken >= MAXIMUM_READERS:
                raise DimseError(_TOO_MANY, "Too many queries at once")
            self._taken += 1
            if self._idle:
                return self._idle.pop()
        try:
            connection = sqlite3.connect(
                self._uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            add_functions(connection)
        except sqlite3.Error as error:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()
            raise ArchiveError(f"the index cannot be read: {error}") from error
        return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Take a connection back, with nothing under way on it."""
        with self._changed:
            if len(self._idle) < _IDLE_READERS and not self._is_closed:
                self._idle.append(connection)
            else:
                connection.close()
            self._taken -= 1
            self._changed.notify_all()

    def close(self, patience: float) -> bool:
        """Give out no more connections, and wait for those that are out, so many seconds at most; tell whether all are back.

        Those that are not are closed when they come.
        """
        with self._changed:
            self._is_closed = True
            while self._idle:
                self._idle.pop().close()
            return self._changed.wait_for(lambda: not self._taken, patience)


# ---- statements, made of the attributes of each level

_LEVELS: Final = tuple(TABLES)
_FURTHER: Final = {
    Level.SERIES: (REQUEST_ATTRIBUTES,),
    Level.IMAGE: ("TransferSyntaxUID", "path", "data_set_offset", "size"),
}


def _values(level: Level, header: Header) -> Iterator[str]:
    """The values of the columns between the parent and the further ones."""
    for attribute, text in zip(of_level(level), header.texts(level), strict=True):
        yield text
        if attribute.vr == "PN":
            yield fold_name(text)


def _columns(level: Level) -> Iterator[str]:
    if level in PARENTS:
        yield PARENTS[level]
    for attribute in of_level(level):
        yield attribute.keyword
        if attribute.vr == "PN":
            yield folded(attribute.keyword)
    yield from _FURTHER.get(level, ())


def _insert(level: Level) -> str:
    columns = tuple(_columns(level))
    return f"INSERT INTO {TABLES[level]} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names of ours


def _update(level: Level) -> str:
    return f"UPDATE {TABLES[level]} SET {', '.join(f'{column} = ?' for column in _columns(level))}"  # noqa: S608


_INSERT: Final = {level: _insert(level) for level in _LEVELS[:-1]}
_UPDATE: Final = {level: f"{_update(level)} WHERE pk = ?" for level in _LEVELS[:-1]}
_DELETE: Final = {level: f"DELETE FROM {TABLES[level]} WHERE pk = ?" for level in _LEVELS[:-1]}  # noqa: S608
_FIND_PARENT: Final = {
    level: f"SELECT {PARENTS[level]} FROM {TABLES[level]} WHERE pk = ?"  # noqa: S608
    for level in _LEVELS[1:-1]
}
_FIND_CHILD: Final = {
    level: f"SELECT 1 FROM {TABLES[below]} WHERE {PARENTS[below]} = ? LIMIT 1"  # noqa: S608
    for level, below in pairwise(_LEVELS)
}
_INSERT_INSTANCE: Final = f"{_insert(Level.IMAGE)} ON CONFLICT (SOPInstanceUID) DO NOTHING"
_UPDATE_INSTANCE: Final = f"{_update(Level.IMAGE)} WHERE SOPInstanceUID = ?"
_DELETE_INSTANCE: Final = "DELETE FROM instances WHERE SOPInstanceUID = ?"
_FIND_FILE: Final = "SELECT path, TransferSyntaxUID, data_set_offset, size FROM instances WHERE SOPInstanceUID = ?"
_FIND_SERIES_OF: Final = "SELECT series FROM instances WHERE SOPInstanceUID = ?"
_FIND_SERIES: Final = "SELECT pk, study FROM series WHERE SeriesInstanceUID = ?"
_FIND_STUDY: Final = "SELECT pk, patient FROM studies WHERE StudyInstanceUID = ?"
# The condition that repeats the partial index lets it be used.
_FIND_PATIENT: Final = "SELECT pk, 0 FROM patients WHERE PatientID = ? AND IssuerOfPatientID = ? AND PatientID <> ''"
_FIND_PATIENT_WITHOUT_ID: Final = "SELECT pk, 0 FROM patients WHERE pk = ? AND PatientID = ''"
