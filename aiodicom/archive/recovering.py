"""An archive put in order when it is opened: after a crash, after a loss of power, with its index gone or damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from aiodicom.archive.index import DamagedIndex, Entry, Index
from aiodicom.archive.locking import is_damaged
from aiodicom.archive.rebuilding import DAMAGED, INDEX, has_instances, paths_below, read_entry
from aiodicom.archive.shelf import SUFFIX, Shelf, path_of
from aiodicom.errors import DimseError, InvalidInstance

__all__ = ["note_damage", "recover", "was_left_open", "why_to_build"]

_log: Final = logging.getLogger("aiodicom.archive")


def why_to_build(folder: Path) -> str | None:
    """Return why the index of an archive must be built of its files, in words, or None where it need not be."""
    index = folder / INDEX
    if (folder / DAMAGED).exists():
        return "has an index that was found damaged"
    if not index.exists() and has_instances(folder):
        return "has no index"
    # SQLite takes an empty file for a new database.
    if index.is_file() and index.stat().st_size == 0 and has_instances(folder):
        return "has an empty index"
    return None


def note_damage(folder: Path, error: Exception) -> None:
    """Have the index built again at the next start, if that is what an error tells."""
    if isinstance(error, sqlite3.Error) and is_damaged(error) and not (folder / DAMAGED).exists():
        _log.error("%s: the index is damaged; start again, and it is built of the files", folder)
        try:
            (folder / DAMAGED).touch()
        except OSError as refusal:  # which whoever met the damage has no use for
            _log.error("%s: that cannot be noted there: %s", folder, refusal.strerror)


def was_left_open(folder: Path, incoming: Path) -> bool:
    """Tell whether whoever had an archive open before did not close it: SQLite removes its log when it is closed."""
    return (folder / f"{INDEX}-wal").exists() or any(incoming.iterdir())


def recover(index: Index, shelf: Shelf, *, thoroughly: bool) -> None:
    """Put in order what a crash left: files that the index may not know of, and files that were never whole.

    A temporary file with a second name holds a whole instance. If the index has none with its UID, it gets that; if it has
    another one, then that was not replaced any more, or this one was, and it goes.

    Args:
        index: which nobody else writes in.
        shelf: the files.
        thoroughly: look into the index and at all files, too: what a loss of power leaves has no second name, perhaps.

    Raises:
        DamagedIndex: it is.
        OSError: a file cannot be read or removed.
        sqlite3.Error: the index cannot be written.
    """
    if thoroughly:
        _check(index.connection)
    temporaries = [Path(folder, name) for folder, _, names in os.walk(shelf.incoming) for name in names]
    if not (temporaries or thoroughly):
        return  # without a turn to write
    index.begin()
    replaced = [_reconcile(index, shelf, each) for each in temporaries if each.stat().st_nlink > 1]
    if thoroughly:
        _enter_strangers(index, shelf, frozenset(replaced))
        shelf.sync_everything()  # what was seen may be in memory alone, and is relied on from now on
    index.connection.execute("COMMIT")
    shelf.remove(*replaced)
    for temporary in temporaries:
        temporary.unlink()
    for folder, _, _ in os.walk(shelf.incoming, topdown=False):
        if folder != shelf.incoming:  # that of a process that shared the archive
            os.rmdir(folder)  # noqa: PTH106


def _check(connection: sqlite3.Connection) -> None:
    [(first, *_), *_] = connection.execute("PRAGMA quick_check(1)").fetchall()
    if first != "ok":
        raise DamagedIndex(f"the index is damaged: {' '.join(first.split())}")


def _reconcile(index: Index, shelf: Shelf, temporary: Path) -> str | None:
    """Let the index know of a file with a second name; return its name if it is to go."""
    try:
        entry = read_entry(temporary.parent, temporary.name)
    except (DimseError, InvalidInstance):  # not of our making
        return None
    own = Path(shelf.absolute(path_of(entry.study_instance_uid, entry.series_instance_uid, entry.sop_instance_uid)))
    name = next((each for each in own.parent.glob(f"{own.stem}*{SUFFIX}") if each.samefile(temporary)), None)
    if name is None:  # it had another name, from which it was replaced: that one stays
        return None
    entry.file.path = name.relative_to(shelf.folder).as_posix()
    return None if _enter(index, shelf, entry) else entry.file.path


def _enter_strangers(index: Index, shelf: Shelf, replaced: frozenset[str | None]) -> None:
    """Let the index know of the files that it does not know of, but for those that go."""
    entered = others = 0
    for path in _strangers(index, shelf):
        if path in replaced:
            continue
        try:
            path.encode()  # what is no UTF-8 cannot be in the index
            entry = read_entry(Path(shelf.folder), path)
        except (DimseError, InvalidInstance, OSError, UnicodeEncodeError):
            others += 1
            continue
        if _enter(index, shelf, entry):
            entered += 1
        else:  # it may be what was replaced, or what was to replace it; nobody can say, and nothing is removed on a guess
            others += 1
    if entered:
        _log.warning("%s: %d files were not in the index, and are now", shelf.folder, entered)
    if others:
        _log.warning("%s: %d files are not in the index: no instances, or in other files, too", shelf.folder, others)


def _strangers(index: Index, shelf: Shelf) -> list[str]:
    known = {hash(path) for (path,) in index.connection.execute("SELECT path FROM instances")}  # a tenth of the memory
    return [path for path in paths_below(Path(shelf.folder)) if hash(path) not in known]


def _enter(index: Index, shelf: Shelf, entry: Entry) -> bool:
    """Let the index know of a file; tell whether it is the one, and not another that is there with its instance."""
    known = index.find(entry.sop_instance_uid)
    if known is None:
        index.insert(entry)
    elif known.path != entry.file.path:
        if os.path.exists(shelf.absolute(known.path)):  # noqa: PTH110
            return False
        index.update(entry)
    return True
