"""What a server has done and is doing: counters that processes may share, and the associations of this moment.

All of it is made of plain numbers and words, as JSON has them, and none of it is patient data.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from aiodicom.admission import Kind, Tally
from aiodicom.association import Association, Observer
from aiodicom.dimse.commands import Command, CStoreRSP
from aiodicom.dimse.status import Category
from aiodicom.errors import AssociationError, AssociationRejected, AssociationReleased
from aiodicom.logs import operation_name
from aiodicom.operation import Operation
from aiodicom.terms import Peer
from aiodicom.uids import uid_name

__all__ = ["COUNTED", "Activity", "Counters", "described"]

COUNTED: Final = (
    *("open", "accepted", "rejected", "aborted", "instances", "bytes_received", "bytes_sent"),
    "audit_dropped",
)
"""What is counted: associations that are open, and have been accepted, rejected and aborted; instances that C-STORE was
answered for with Success or a Warning; bytes of the transport connections of associations that have ended; messages that an
audit trail had no room for, or could not deliver."""

_CELL: Final = 8  # bytes
_COLUMNS: Final = {name: column for column, name in enumerate(COUNTED)}
_CONNECTIONS: Final = len(COUNTED)
_ADDRESSES: Final = 1024  # for so many sets of addresses there are numbers, and two addresses are hardly ever in one
_FIRST_ADDRESS: Final[Mapping[Kind, int]] = {
    "connections": _CONNECTIONS + 1,
    "associations": _CONNECTIONS + 1 + _ADDRESSES,
}
_WIDTH: Final = _CONNECTIONS + 1 + 2 * _ADDRESSES
_KEY: Final = (
    2  # cells behind the rows, with which addresses are put into sets: who calls cannot choose whose is shared
)


class Counters:
    """A row of numbers for each of several workers; only the worker itself changes its row while it lives.

    Args:
        rows: how many workers.
        descriptor: of a file that processes share: each sees what the others count, and that outlives them. By default the
            numbers are this process's own.
    """

    def __init__(self, rows: int = 1, descriptor: int | None = None) -> None:
        size = (rows * _WIDTH + _KEY) * _CELL
        self._descriptor = descriptor
        memory: bytearray | mmap.mmap = bytearray(size)
        if descriptor is not None:
            os.truncate(descriptor, size)
            memory = mmap.mmap(descriptor, size)
        self._cells = memoryview(memory).cast("Q")
        self._rows = rows * _WIDTH
        if not any(self._key):
            self._cells[self._rows :] = memoryview(secrets.token_bytes(_KEY * _CELL)).cast("Q")

    @property
    def _key(self) -> bytes:
        return self._cells[self._rows :].tobytes()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from what they do under this, too: deciding by a total, and then counting."""
        if self._descriptor is None:
            yield
            return
        import fcntl  # not on Windows, where no processes share a port

        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def add(self, row: int, name: str, count: int) -> None:
        """Count, one of `COUNTED`."""
        self._cells[row * _WIDTH + _COLUMNS[name]] += count

    def of(self, row: int) -> dict[str, int]:
        """Return what a worker has counted, by name."""
        return dict(zip(COUNTED, self._cells[row * _WIDTH : row * _WIDTH + len(COUNTED)], strict=True))

    def total(self, name: str) -> int:
        """Return the sum over all workers."""
        return self._sum(_COLUMNS[name])

    def _sum(self, column: int) -> int:
        return sum(self._cells[column : self._rows : _WIDTH])

    def forget(self, row: int) -> None:
        """Count what a worker had open no more: it is dead."""
        start = row * _WIDTH
        self._cells[start + _COLUMNS["open"]] = 0
        self._cells[start + _CONNECTIONS : start + _WIDTH] = memoryview(bytes((_WIDTH - _CONNECTIONS) * _CELL)).cast(
            "Q"
        )

    def tally(self, row: int) -> Tally:
        """Return what counts connections and associations of a worker, beside those of the others."""
        return _SharedTally(self, row)

    def add_to(self, row: int, kind: Kind, address: str, count: int) -> None:
        """Count connections or associations with an address."""
        if kind == "connections":  # associations are `open`
            self._cells[row * _WIDTH + _CONNECTIONS] += count
        if address:
            self._cells[row * _WIDTH + self._column_of(kind, address)] += count

    def total_of(self, kind: Kind) -> int:
        """Return how many of them there are."""
        return self._sum(_CONNECTIONS) if kind == "connections" else self.total("open")

    def number_of(self, kind: Kind, address: str) -> int:
        """Return how many of them there are with an address, and perhaps another one of its set."""
        return self._sum(self._column_of(kind, address))

    def _column_of(self, kind: Kind, address: str) -> int:
        digest = hashlib.blake2b(address.encode(), key=self._key, digest_size=4).digest()
        return _FIRST_ADDRESS[kind] + int.from_bytes(digest) % _ADDRESSES


class _SharedTally:
    """The numbers of all workers, of which this process adds to one row.

    Args:
        counters: where they are.
        row: which.
    """

    def __init__(self, counters: Counters, row: int) -> None:
        self._counters = counters
        self._row = row

    def add(self, kind: Kind, address: str, count: int) -> None:
        self._counters.add_to(self._row, kind, address, count)

    def total(self, kind: Kind) -> int:
        return self._counters.total_of(kind)

    def of(self, kind: Kind, address: str) -> int:
        return self._counters.number_of(kind, address)


class Activity(Observer):
    """Counts, and tells what associations there are.

    Args:
        counters: where it counts.
        row: in which row of them.
    """

    def __init__(self, counters: Counters, row: int = 0) -> None:
        self._counters = counters
        self._row = row

    def association_opened(self, _association: Association) -> None:
        """Count it."""
        self._count("accepted")
        self._count("open")

    def association_closed(self, association: Association, error: AssociationError) -> None:
        """Count it no more; but its bytes, and that it was aborted."""
        self._count("open", -1)
        self._count("bytes_received", association.bytes_received)
        self._count("bytes_sent", association.bytes_sent)
        if not isinstance(error, AssociationReleased):
            self._count("aborted")

    def association_refused(self, _peer: Peer | None, error: Exception) -> None:
        """Count it where it was rejected."""
        if isinstance(error, AssociationRejected):
            self._count("rejected")

    def message_sent(self, _association: Association, command: Command) -> None:
        """Count an instance that is kept."""
        if isinstance(command, CStoreRSP) and command.status.category in (Category.SUCCESS, Category.WARNING):
            self._count("instances")

    def _count(self, name: str, count: int = 1) -> None:
        self._counters.add(self._row, name, count)


def described(associations: Iterable[Association]) -> list[dict[str, Any]]:
    """Return what associations of ours as acceptor are and do: who, since when, how many bytes, which operations."""
    return [_described(each) for each in sorted(associations, key=lambda each: each.since)]


def _described(association: Association) -> dict[str, Any]:
    peer = association.peer
    host, port = peer.address or (None, None)
    return {
        "calling_ae_title": peer.calling_ae_title,
        "called_ae_title": peer.called_ae_title,
        "host": host,
        "port": port,
        "since": association.since.isoformat(timespec="milliseconds"),
        "bytes_received": association.bytes_received,
        "bytes_sent": association.bytes_sent,
        "operations": list(map(_named, association.operations)),
    }


def _named(operation: Operation) -> str:
    """Return what is done to what: "C-STORE CT Image Storage"."""
    return f"{operation_name(operation.command)} {uid_name(operation.sop_class_uid)}".rstrip()
