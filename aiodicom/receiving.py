"""The file of an instance that is received: scanned as it is written, and there whole or not at all (PS3.4 §B.2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiodicom.dimse.status import INVALID_SOP_INSTANCE
from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.part10 import IDENTITY, SOP_CLASS_UID, SOP_INSTANCE_UID, file_meta, picked_uid, valid_uid, without_meta
from aiodicom.partial import PartialFile
from aiodicom.scanner import Bounds
from aiodicom.scanning import Scan

__all__ = ["CANNOT_UNDERSTAND", "DOES_NOT_MATCH", "OUT_OF_RESOURCES", "ReceivedFile"]

# PS3.4 Table B.2-1.
OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000


class ReceivedFile:
    """A PS3.10 file of a C-STORE; its methods block, and belong in a worker thread.

    Args:
        file: where it is written.
        sop_class_uid: what the command says that it is.
        sop_instance_uid: likewise.
        transfer_syntax_uid: how its data set is encoded.
        source_ae_title: who sends it.
        bounds: how much its data set may hold.

    Raises:
        DimseError: 0x0117 where the SOP Instance UID is none (PS3.7 §C.5.9), 0xA900 where the SOP Class UID is none.
    """

    def __init__(
        self,
        file: PartialFile,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        *,
        source_ae_title: str,
        bounds: Bounds,
    ) -> None:
        if not valid_uid(sop_instance_uid):
            raise DimseError(INVALID_SOP_INSTANCE, "Affected SOP Instance UID is no UID")
        if not valid_uid(sop_class_uid):
            raise DimseError(DOES_NOT_MATCH, "Affected SOP Class UID is no UID")
        self._file = file
        self._uids = sop_class_uid, sop_instance_uid
        self._syntax = transfer_syntax_uid
        self._meta = file_meta(*self._uids, transfer_syntax_uid, source_ae_title=source_ae_title)
        self._scan = Scan(transfer_syntax_uid, "data set", bounds, IDENTITY)
        self._has_begun = False

    @property
    def is_there(self) -> bool:
        """Whether there is a temporary file."""
        return self._file.is_there

    def write(self, chunks: list[bytes]) -> None:
        """Scan and write what comes next.

        Raises:
            DimseError: 0xC000 where it is damaged, or beyond a bound.
            OSError: it cannot be written.
        """
        self._file.write(self._scanned(chunks))

    def complete(self, chunks: list[bytes]) -> Path:
        """Scan and write the last of it, and give it its name if it is whole and what the command says that it is.

        Raises:
            DimseError: 0xC000; 0xA900 where it has other UIDs than the command.
            OSError: it cannot be written.
        """
        chunks = self._scanned(chunks)
        try:
            self._scan.finish()
        except InvalidInstance as error:
            raise _refused() from error
        if tuple(picked_uid(self._scan.found, tag) for tag in (SOP_CLASS_UID, SOP_INSTANCE_UID)) != self._uids:
            raise DimseError(DOES_NOT_MATCH, "The data set has another SOP Class or Instance UID")
        return self._file.complete(chunks)

    def remove(self) -> None:
        """Let there be no file, unless it has its name."""
        self._file.remove()

    def _scanned(self, chunks: Sequence[bytes]) -> list[bytes]:
        """What is to be written of it."""
        head: list[bytes] = []
        try:
            if not self._has_begun:
                chunks = without_meta(chunks, self._syntax)
                head, self._has_begun = [self._meta], True
            for chunk in chunks:
                self._scan.feed(chunk)
        except InvalidInstance as error:
            raise _refused() from error
        return [*head, *chunks]


def _refused() -> DimseError:
    return DimseError(CANNOT_UNDERSTAND, "The data set is damaged, beyond a limit or not in its transfer syntax")
