"""Who may use an archive: one process alone, or several that share it.

SQLite's locks work everywhere, and go with the process that holds them, however it ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from aiodicom.errors import ArchiveError

__all__ = ["FolderLock", "is_busy", "is_damaged", "locked", "own_folder", "primary_code"]

LOCK: Final = ".lock"
"""The database in a folder whose locks are those of the folder; there is nothing in it."""

_UNFINISHED: Final = "."  # begins the name of a folder that is not locked yet


class FolderLock:
    """A lock on a folder, as long as `locked` lasts.

    Args:
        folder: which.
        connection: to its database.

    Attributes:
        is_shared: whether others may have it, too.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self._folder = folder
        self._connection = connection
        self.is_shared = False

    def take(self) -> None:
        """Have the folder to oneself.

        Raises:
            ArchiveError: others have it, or it cannot be locked.
        """
        self._begin("BEGIN EXCLUSIVE")

    def share(self) -> None:
        """Have it together with all who share it; nobody has it to himself then.

        Raises:
            ArchiveError: somebody has it to himself, or it cannot be locked.
        """
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._begin("BEGIN")
        self.is_shared = True

    def _begin(self, statement: str) -> None:
        try:
            self._connection.execute(statement)
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # a transaction begins with this
        except sqlite3.Error as error:
            raise _not_to_be_had(self._folder, error) from error


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[FolderLock]:
    """Have an archive to oneself, or together with others that share it.

    Args:
        folder: the archive's.
        shared: together with others.

    Raises:
        ArchiveError: it is in use, or cannot be locked.
    """
    with ExitStack() as resources:
        try:
            connection = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
            resources.enter_context(closing(connection))
            connection.execute("PRAGMA journal_mode = OFF")
        except sqlite3.Error as error:
            raise _not_to_be_had(folder, error) from error
        lock = FolderLock(folder, connection)
        if shared:
            lock.share()
        else:
            lock.take()
        yield lock


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else holds the lock that was wanted."""
    return primary_code(error) == sqlite3.SQLITE_BUSY


def is_damaged(error: sqlite3.Error) -> bool:
    """Tell whether the database itself is damaged, or none."""
    return primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary_code(error: sqlite3.Error) -> int:
    """Return what SQLite calls the error, without the details above the lowest byte; 0 where it was not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _not_to_be_had(folder: Path, error: sqlite3.Error) -> ArchiveError:
    if is_busy(error):
        return ArchiveError(f"{folder}: the archive is in use by another process; stop that first (aiodicom serve?)")
    return ArchiveError(f"{folder}: the archive cannot be locked: {error}")


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Have a folder of one's own among those of other processes, and remove what dead ones left in theirs.

    A file with a second name stays until somebody has the archive to himself: see `recover`.

    Args:
        parent: the folder that holds them.

    Raises:
        ArchiveError: it cannot be locked.
        OSError: it cannot be made.
    """
    for folder in parent.iterdir():
        if folder.is_dir() and not folder.name.startswith(_UNFINISHED):
            with suppress(ArchiveError, OSError), locked(folder):  # or else its owner lives
                _clear(folder)
    name = uuid4().hex
    unfinished, own = parent / f"{_UNFINISHED}{name}", parent / name
    unfinished.mkdir()
    with locked(unfinished):
        unfinished.rename(own)  # nobody may take it for a dead one's before it is locked
        try:
            yield own
        finally:
            with suppress(OSError):
                _clear(own)


def _clear(folder: Path) -> None:
    """Remove the files that have no other name; and then the folder, if that was all."""
    for path in folder.iterdir():
        if path.name != LOCK and path.stat().st_nlink == 1:
            path.unlink()
    if [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()
