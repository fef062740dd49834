"""The files of an archive, and how one of them takes its place: whole or not at all, whenever the power fails.

An instance is written and synced under a temporary name, linked to its own name, entered in the index, and only when all
that is on the disk does the temporary name go. After a crash, a temporary file with a second name is one of which the
index may not know; one without was never whole, or never acknowledged.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

__all__ = ["INCOMING", "SUFFIX", "Shelf", "make_folder", "names_like", "path_of", "sync_path"]

INCOMING: Final = ".incoming"
"""The folder of temporary files, below the archive's: on the same file system, as the two names of a file must be."""

SUFFIX: Final = ".dcm"

_CANNOT_LINK: Final = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


def path_of(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> str:
    """Return where an instance belongs, relative to the archive's folder; its parts are UIDs, so it leads nowhere else."""
    return f"{study_instance_uid or 'no-study'}/{series_instance_uid or 'no-series'}/{sop_instance_uid}{SUFFIX}"


class Shelf:
    """The folder of an archive, as the one thread changes it that writes in the index.

    It works on plain strings: for a small instance everything else costs more than what is done.

    Args:
        folder: the archive's.
        sync: whether what was done is on the disk after `sync`.
    """

    def __init__(self, folder: Path, *, sync: bool = True) -> None:
        self.folder = os.fspath(folder)
        self.incoming = os.path.join(self.folder, INCOMING)  # noqa: PTH118
        self._sync = sync
        self._touched: set[str] = set()

    def absolute(self, path: str) -> str:
        """Return where a path of the index leads."""
        return os.path.join(self.folder, path)  # noqa: PTH118

    def place(self, temporary: str, path: str) -> str:
        """Give a file a name beside its temporary one, and return it: `path`, or one like it where that is taken.

        Nothing is ever overwritten.

        Raises:
            OSError: it cannot be done.
        """
        for candidate in names_like(path):
            name = self.absolute(candidate)
            try:
                self._link(temporary, name)
            except FileExistsError:
                continue
            self._touch(os.path.dirname(name))  # noqa: PTH120
            return candidate
        raise AssertionError

    def take_back(self, path: str, temporary: str) -> None:
        """Undo `place`."""
        name = self.absolute(path)
        with suppress(OSError):
            if os.path.lexists(temporary):
                os.unlink(name)  # noqa: PTH108
            else:
                os.rename(name, temporary)  # noqa: PTH104

    def second_name(self, path: str) -> str | None:
        """Give a file that is to be replaced a temporary name, so that a crash does not leave it behind; return that.

        None is returned where there is no such file, or no file can have two names.
        """
        temporary = os.path.join(self.incoming, f".{uuid4().hex}.part")  # noqa: PTH118
        try:
            os.link(self.absolute(path), temporary)
        except OSError:
            return None
        self._touch(self.incoming)
        return temporary

    def remove(self, *paths: str | None) -> None:
        """Remove files, those of the index by their path, others by their absolute name."""
        for path in paths:
            if path is not None:
                with suppress(OSError):
                    os.unlink(self.absolute(path))  # noqa: PTH108

    def sync(self) -> None:
        """Have on the disk what was placed.

        Raises:
            OSError: it is not known to be there.
        """
        for folder in sorted(self._touched):
            try:
                sync_path(folder)
            except FileNotFoundError:
                # What was in it is lost. What comes later is not in it, and is not to fail, too.
                self._touched.discard(folder)
                raise
            self._touched.discard(folder)  # not before: what failed is tried again

    def sync_everything(self) -> None:
        """Have on the disk whatever anybody wrote there."""
        if self._sync and hasattr(os, "sync"):
            os.sync()

    def _link(self, temporary: str, name: str) -> None:
        try:
            os.link(temporary, name)
        except FileNotFoundError:
            self._make(os.path.dirname(name))  # noqa: PTH120
            os.link(temporary, name)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            if os.path.lexists(name):
                raise FileExistsError from None
            self._make(os.path.dirname(name))  # noqa: PTH120
            os.rename(temporary, name)  # noqa: PTH104

    def _make(self, folder: str) -> None:
        """Make a folder, with its parents."""
        parent = os.path.dirname(folder)  # noqa: PTH120
        try:
            os.mkdir(folder)  # noqa: PTH102
        except FileNotFoundError:
            self._make(parent)
            os.mkdir(folder)  # noqa: PTH102
        except FileExistsError:
            return
        self._touch(parent)

    def _touch(self, folder: str) -> None:
        if self._sync:
            self._touched.add(folder)


def make_folder(folder: Path, *, sync: bool = True) -> None:
    """Make a folder, with its parents; with `sync`, all of them on the disk.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        make_folder(folder.parent, sync=sync)
        folder.mkdir(exist_ok=True)
    if sync:
        sync_path(folder.parent)


def sync_path(path: str | Path) -> None:
    """Have a file or a folder on the disk.

    Raises:
        OSError: it is not known to be there.
    """
    if os.name == "nt" and os.path.isdir(path):  # noqa: PTH112 - there, a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_like(path: str) -> Iterator[str]:
    """`<UID>.dcm`, `<UID>-2.dcm`, …: no UID has a hyphen in it, so that none of them belongs to another instance."""
    yield path
    for number in count(2):
        yield f"{path.removesuffix(SUFFIX)}-{number}{SUFFIX}"
