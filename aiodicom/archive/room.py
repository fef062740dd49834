"""Whether there is room for what comes: on the disk, and in the archive. Nothing is ever removed to make some."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Final

from aiodicom.errors import DimseError, LocalProtocolError
from aiodicom.receiving import OUT_OF_RESOURCES

__all__ = ["MINIMUM_FREE", "MINIMUM_FREE_SHARE", "Room", "bytes_kept", "count_bytes"]

"""The status of what is refused for want of room (PS3.4 §B.2.3)."""

MINIMUM_FREE: Final = 1024**3
"""How many bytes of its disk an archive leaves free by default."""

MINIMUM_FREE_SHARE: Final = 5.0
"""Which share of the disk that is at least, in per cent."""

_LOOKS_APART: Final = 1.0  # seconds between two looks at the disk, which then was not filled by much
_log: Final = logging.getLogger("aiodicom.archive")


class Room:
    """The room on the disk of a folder, as it was a moment ago.

    Args:
        folder: which is there when it is asked.
        minimum_free: how many bytes are to stay free.
        minimum_free_share: the same as a share of the disk, in per cent; the larger one holds.

    Raises:
        LocalProtocolError: one of them is none.
    """

    def __init__(self, folder: Path, minimum_free: int, minimum_free_share: float) -> None:
        if minimum_free < 0:
            raise LocalProtocolError(f"minimum_free is a number of bytes, not {minimum_free!r}")
        if not 0 <= minimum_free_share < 100:
            raise LocalProtocolError(f"minimum_free_share is a share in per cent, not {minimum_free_share!r}")
        self._folder = folder
        self._minimum = minimum_free
        self._share = minimum_free_share
        self._lock = Lock()
        self._is_there = True
        self._look_again = 0.0

    def check(self) -> None:
        """See that there is room for an instance, before it is received.

        Raises:
            DimseError: 0xA700.
        """
        if (now := monotonic()) >= self._look_again:
            try:
                self._look(now)
            except OSError as error:
                _log.error("%s: how much is free cannot be told: %s", self._folder, error.strerror)
                raise DimseError(OUT_OF_RESOURCES, "How much of the disk is free cannot be told") from error
        if not self._is_there:
            raise DimseError(OUT_OF_RESOURCES, "The disk is full but for what is to stay free")

    def _look(self, now: float) -> None:
        if not hasattr(os, "statvfs") or not (self._minimum or self._share):
            self._look_again = float("inf")
            return
        with self._lock:
            disk = os.statvfs(self._folder)
            free = disk.f_bavail * disk.f_frsize
            floor = max(self._minimum, disk.f_blocks * disk.f_frsize * self._share / 100)
            is_there = free >= floor
            if is_there != self._is_there:
                words = "receives again" if is_there else "receives nothing until there is more"
                _log.log(
                    logging.INFO if is_there else logging.ERROR,
                    "%s has %d MiB free, and is to keep %d: the archive %s",
                    *(self._folder, free >> 20, int(floor) >> 20, words),
                )
            self._is_there = is_there
            self._look_again = now + _LOOKS_APART


# ---- how much an archive holds: SQLite keeps count, so that it holds for all processes, and for whatever is rolled back

_COUNT: Final = "UPDATE totals SET bytes = bytes"
_STATEMENTS: Final = (
    "CREATE TABLE totals (bytes INTEGER NOT NULL)",
    "INSERT INTO totals SELECT coalesce(sum(size), 0) FROM instances",
    f"CREATE TRIGGER count_new AFTER INSERT ON instances BEGIN {_COUNT} + NEW.size; END",
    f"CREATE TRIGGER count_gone AFTER DELETE ON instances BEGIN {_COUNT} - OLD.size; END",
    f"CREATE TRIGGER count_changed AFTER UPDATE OF size ON instances BEGIN {_COUNT} - OLD.size + NEW.size; END",
)


def count_bytes(connection: sqlite3.Connection) -> None:
    """Have the index count the bytes of its files from now on, unless it does already."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'totals'").fetchone() is None:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _STATEMENTS:
            connection.execute(statement)
        connection.execute("COMMIT")


def bytes_kept(connection: sqlite3.Connection) -> int:
    """Return how many bytes the files of an index have that counts them."""
    count: int
    (count,) = connection.execute("SELECT bytes FROM totals").fetchone()
    return count
