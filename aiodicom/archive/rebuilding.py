"""The index made again from the files."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from aiodicom.archive.header import read_header_of_file
from aiodicom.archive.index import Entry, Index, StoredFile, explained
from aiodicom.archive.locking import locked
from aiodicom.archive.query import INDEXES
from aiodicom.archive.schema import TABLES, create
from aiodicom.archive.shelf import sync_path
from aiodicom.archive.store import entry_of
from aiodicom.archive.worklist import copy_worklist, create_worklist
from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.part10 import read_instance
from aiodicom.scanner import IN_A_MOMENT

__all__ = ["DAMAGED", "INDEX", "Rebuilt", "has_instances", "make_index", "paths_below", "read_entry", "rebuild"]

INDEX: Final = "index.sqlite"
"""The name of the database in the archive's folder."""

DAMAGED: Final = f"{INDEX}.damaged"
"""An empty file that is there from when the index was found damaged until it has been built again."""

OLD: Final = f"{INDEX}.old"
"""What the damaged index is called then: its worklist may be worth a look."""

MAXIMUM_PROBLEMS: Final = 10_000
"""How many problems a report names."""

_log: Final = logging.getLogger("aiodicom.archive")
_BESIDE: Final = ("-wal", "-shm", "-journal")  # of a database
_ROOM: Final = "see that there is room and that the folder can be written, then build it again: aiodicom index rebuild"
_THREADS: Final = 4
_FILES_AT_ONCE: Final = 64  # read by a thread at a time
_CACHE_KIB: Final = 64 * 1024


@dataclass(slots=True)
class Rebuilt:
    """What came of building an index again.

    Attributes:
        patients: how many the index has now; the same for what follows.
        studies: likewise.
        series: likewise.
        instances: likewise.
        failed: how many files are not in the index.
        problems: path and reason of the first `MAXIMUM_PROBLEMS` of them.
    """

    patients: int = 0
    studies: int = 0
    series: int = 0
    instances: int = 0
    failed: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add_problem(self, path: str, reason: str) -> None:
        """Note a file that is not in the index."""
        self.failed += 1
        if len(self.problems) < MAXIMUM_PROBLEMS:
            self.problems.append((path, reason))


def rebuild(folder: str | os.PathLike[str], *, progress: Callable[[int], None] | None = None) -> Rebuilt:
    """Build the index of an archive again, from its files; it blocks.

    Every file below the folder is read, whatever its name, but for those that begin with a dot. They stay where they are.
    The index that there was, if any, is there until the new one is complete. Of two files with the same instance the newer
    one is taken.

    Args:
        folder: the archive's, which nobody may be using.
        progress: called with the number of files read so far, now and then.

    Raises:
        ArchiveError: the archive is in use, or the index cannot be written.
        OSError: a folder cannot be read, or a file not be replaced.
    """
    where = Path(folder)
    with locked(where):
        return make_index(where, progress)


def make_index(folder: Path, progress: Callable[[int], None] | None = None) -> Rebuilt:
    """Do as `rebuild` does, in an archive that is locked, and whose index is closed."""
    new, final = folder / f"{INDEX}.new", folder / INDEX
    _remove(new, ("", *_BESIDE))
    report = Rebuilt()
    with explained(new, _ROOM), closing(sqlite3.connect(new, isolation_level=None)) as connection:
        create(connection)
        _keep_worklist(connection, final)
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("BEGIN")
        _fill(Index(connection), folder, report, progress)
        for statement in INDEXES:
            connection.execute(statement)
        connection.execute("COMMIT")
        report.patients, report.studies, report.series, report.instances = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - a name of ours
            for table in TABLES.values()
        )
    if hasattr(os, "sync"):
        os.sync()  # the files, too, which may have come a moment ago
    sync_path(new)
    # The old one is whole without its log, and holds the worklist until the new one has its name, beside which that log
    # would be damage.
    _remove(final, _BESIDE)
    if (folder / DAMAGED).exists() and final.is_file():
        final.replace(folder / OLD)
    new.replace(final)
    sync_path(folder)
    (folder / DAMAGED).unlink(missing_ok=True)
    return report


def has_instances(folder: Path) -> bool:
    """Tell whether there is any file that an index would be about."""
    return next(paths_below(folder), None) is not None


# ---- reading the files


def read_entry(folder: Path, path: str) -> Entry:
    """Read what the index is to hold of a file below the folder.

    Raises:
        InvalidInstance: it is no whole instance.
        DimseError: its UIDs contradict each other, or are none.
        OSError: it cannot be read.
    """
    name = folder / path
    with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - Path.open takes as long again
        instance = read_instance(file, name, check=False)
        offset, syntax = instance.data_set_offset, instance.transfer_syntax_uid
        header = read_header_of_file(file, offset, syntax, bounds=IN_A_MOMENT, name=str(name))
    return entry_of(
        header, instance.sop_class_uid, instance.sop_instance_uid, StoredFile(path, syntax, offset, instance.size)
    )


def _fill(index: Index, folder: Path, report: Rebuilt, progress: Callable[[int], None] | None) -> None:
    """Enter every file in an empty index."""
    read = 0
    for path, found in _read_all(folder):
        if isinstance(found, str):
            report.add_problem(path, found)
        elif not index.insert(found):
            _choose(index, folder, found, report)
        read += 1
        if progress is not None and read % _FILES_AT_ONCE == 0:
            progress(read)
    if progress is not None:
        progress(read)


def _choose(index: Index, folder: Path, entry: Entry, report: Rebuilt) -> None:
    """Keep the newer one of two files with the same instance."""
    other = index.find(entry.sop_instance_uid)
    assert other is not None
    older = other.path
    if (folder / other.path).stat().st_mtime_ns > (folder / entry.file.path).stat().st_mtime_ns:
        older = entry.file.path
    else:
        index.update(entry)
    report.add_problem(older, f"holds the same instance as another file, which is newer: {entry.sop_instance_uid}")


def _read_all(folder: Path) -> Iterator[tuple[str, Entry | str]]:
    """Read all files in a few threads: their paths, each with what it holds, or with what is wrong with it."""
    paths = paths_below(folder)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="aiodicom-rebuild") as pool:
        under_way: deque[Future[list[tuple[str, Entry | str]]]] = deque()
        while True:
            while len(under_way) < 2 * _THREADS and (some := list(islice(paths, _FILES_AT_ONCE))):
                under_way.append(pool.submit(_read_some, folder, some))
            if not under_way:
                return
            yield from under_way.popleft().result()


def _read_some(folder: Path, paths: Iterable[str]) -> list[tuple[str, Entry | str]]:
    return [(path, _read_or_say_why_not(folder, path)) for path in paths]


def _read_or_say_why_not(folder: Path, path: str) -> Entry | str:
    try:
        path.encode()
        return read_entry(folder, path)
    except UnicodeEncodeError:
        return "its name is no UTF-8"
    except InvalidInstance as error:
        return str(error).removeprefix(f"{folder / path}: ")
    except DimseError as error:
        return error.comment
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def paths_below(folder: Path, below: str = "") -> Iterator[str]:
    """Yield the files of an archive, relative to its folder: those of the index, and all with a dot first, left out."""
    with os.scandir(folder / below) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        path = f"{below}{entry.name}"
        if entry.name.startswith(".") or (not below and entry.name.startswith(INDEX)):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from paths_below(folder, f"{path}/")
        elif entry.is_file():
            yield path


def _keep_worklist(connection: sqlite3.Connection, old: Path) -> None:
    """Take over what no file holds."""
    create_worklist(connection)
    try:
        copy_worklist(old, connection)
    except sqlite3.DatabaseError as error:
        _log.warning("%s: its worklist cannot be read, and is empty now: %s", old, error)


def _remove(path: Path, suffixes: Iterable[str]) -> None:
    for suffix in suffixes:
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
