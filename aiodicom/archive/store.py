"""An instance on its way into the archive: what is checked, when which file is where (PS3.4 §B.2.3 has the statuses)."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from aiodicom.accounts import Effect, Subject
from aiodicom.archive.attributes import ATTRIBUTES
from aiodicom.archive.header import Header, read_header, read_header_of_file
from aiodicom.archive.index import Entry, Index, StoredFile
from aiodicom.archive.room import bytes_kept
from aiodicom.archive.sameness import Encoded, same_instance
from aiodicom.archive.shelf import Shelf, path_of
from aiodicom.archive.writer import Job
from aiodicom.dimse.status import DUPLICATE_SOP_INSTANCE, INVALID_SOP_INSTANCE
from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.part10 import file_meta, valid_uid, without_meta
from aiodicom.partial import PartialFile
from aiodicom.receiving import CANNOT_UNDERSTAND, DOES_NOT_MATCH, OUT_OF_RESOURCES
from aiodicom.scanner import Bounds

__all__ = ["Incoming", "Keeping", "entry_of"]

_log: Final = logging.getLogger("aiodicom.archive")
_SOP_CLASS_UID: Final = ATTRIBUTES["SOPClassUID"]
_SOP_INSTANCE_UID: Final = ATTRIBUTES["SOPInstanceUID"]
_STUDY_INSTANCE_UID: Final = ATTRIBUTES["StudyInstanceUID"]
_SERIES_INSTANCE_UID: Final = ATTRIBUTES["SeriesInstanceUID"]
_PATIENT_ID: Final = ATTRIBUTES["PatientID"]
_PATIENT_NAME: Final = ATTRIBUTES["PatientName"]


class Incoming(NamedTuple):
    """What is said of an instance that is to be kept.

    Args:
        sop_class_uid: of what kind it is.
        sop_instance_uid: which one.
        transfer_syntax_uid: how its data set is encoded.
        source_ae_title: who sent it, if anybody did.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str | None = None


def entry_of(header: Header, sop_class_uid: str, sop_instance_uid: str, file: StoredFile) -> Entry:
    """Return what the index is to hold of an instance, if it is what it is said to be.

    Raises:
        DimseError: 0xA900 where its data set has other UIDs, or its Study or Series Instance UID is no UID.
    """
    if (header.text(_SOP_CLASS_UID), header.text(_SOP_INSTANCE_UID)) != (sop_class_uid, sop_instance_uid):
        raise DimseError(DOES_NOT_MATCH, "The data set has another SOP Class or Instance UID")
    study, series = header.text(_STUDY_INSTANCE_UID), header.text(_SERIES_INSTANCE_UID)
    for uid, name in ((study, "Study"), (series, "Series")):
        if uid and not valid_uid(uid):
            raise DimseError(DOES_NOT_MATCH, f"{name} Instance UID is no UID")
    return Entry(header, study, series, sop_instance_uid, file)


class Keeping(Job):
    """The keeping of one instance.

    Worker threads `write` its file as the data set arrives and `finish` it, or `take` the whole of a small one. Then the
    job is submitted, to give the file its place and the instance its row. If that ends in a `conflict` with an instance
    that is there already, a worker thread is to `resolve` it.

    Args:
        incoming: what is said of it.
        shelf: where its file goes.
        replace: whether it takes the place of another instance with its SOP Instance UID.
        sync: whether its file is to be on the disk before the job is submitted.
        maximum_archive: how many bytes the files of the archive may have, if there is a limit.
        bounds: how much its data set may hold.

    Raises:
        DimseError: 0x0117 or 0xA900 where its UIDs are none.
    """

    def __init__(
        self,
        incoming: Incoming,
        shelf: Shelf,
        *,
        replace: bool,
        sync: bool,
        bounds: Bounds,
        maximum_archive: int | None = None,
    ) -> None:
        super().__init__()
        if not valid_uid(incoming.sop_instance_uid):
            raise DimseError(INVALID_SOP_INSTANCE, "The SOP Instance UID is no UID")
        if not (valid_uid(incoming.sop_class_uid) and valid_uid(incoming.transfer_syntax_uid)):
            raise DimseError(DOES_NOT_MATCH, "The SOP Class UID or the transfer syntax is no UID")
        self._incoming = incoming
        self._shelf = shelf
        self._replace = replace
        self._sync = sync
        self._maximum_archive = maximum_archive
        self._bounds = bounds
        self._meta = file_meta(*incoming[:3], source_ae_title=incoming.source_ae_title)
        self._file = PartialFile(shelf.incoming, "", 0o600)
        self._entry: Entry | None = None
        self._placed: str | None = None
        self._replaced: str | None = None
        self._second_name: str | None = None
        self.conflict: StoredFile | None = None
        """The instance that is kept already, where this one may not take its place."""

    # What an account of it says.

    @property
    def subject(self) -> Subject:
        """Whose instance it is, as far as it was read."""
        if self._entry is None:
            return Subject()
        header = self._entry.header
        return Subject(self._entry.study_instance_uid, header.text(_PATIENT_ID), header.text(_PATIENT_NAME))

    @property
    def effect(self) -> Effect:
        """What its keeping did, once it was done."""
        if self.conflict is not None:
            return "R"  # it was there already
        return "C" if self._replaced is None else "U"

    # In worker threads.

    def take(self, chunks: list[bytes]) -> None:
        """Check the whole of a data set, and write it.

        Raises:
            DimseError: 0xA900, 0xC000, or 0xA700 where it cannot be written; nothing is left of it.
        """
        try:
            data = b"".join(without_meta(chunks, self._incoming.transfer_syntax_uid))
            header = read_header(data, self._incoming.transfer_syntax_uid, bounds=self._bounds)
        except InvalidInstance as error:
            raise self._refused(error) from error
        self._enter(header, len(self._meta) + len(data))
        try:
            self._file.finish([self._meta, data], sync=self._sync)
        except OSError as error:
            self.discard()
            raise _unwritable(error) from error

    def write(self, chunks: list[bytes]) -> None:
        """Write a part of a data set.

        Raises:
            DimseError: 0xC000, or 0xA700.
        """
        try:
            if not self._file.is_there:
                chunks = [self._meta, *without_meta(chunks, self._incoming.transfer_syntax_uid)]
            self._file.write(chunks)
        except InvalidInstance as error:
            raise self._refused(error) from error
        except OSError as error:
            raise _unwritable(error) from error

    def finish(self) -> None:
        """Check the data set that was written part by part.

        Raises:
            DimseError: 0xA900, 0xC000, or 0xA700.
        """
        offset, syntax = len(self._meta), self._incoming.transfer_syntax_uid
        try:
            with open(self._file.path, "rb", buffering=0) as file:  # noqa: PTH123 - a plain string
                header = read_header_of_file(file, offset, syntax, bounds=self._bounds)
                size = file.seek(0, os.SEEK_END)
            self._enter(header, size)
            self._file.finish([], sync=self._sync)
        except InvalidInstance as error:
            raise self._refused(error) from error
        except OSError as error:
            raise _unwritable(error) from error

    def discard(self) -> None:
        """Let nothing be left of it; not once it was submitted."""
        if self._file.is_there:
            self._file.remove()

    def resolve(self) -> None:
        """Decide about the conflict.

        Raises:
            DimseError: 0x0111: what is kept under that UID is something else.
            OSError: the two cannot be compared.
        """
        kept = self.conflict
        assert kept is not None
        try:
            same = same_instance(
                Encoded(Path(self._shelf.absolute(kept.path)), kept.data_set_offset, kept.transfer_syntax_uid),
                Encoded(Path(self._file.path), len(self._meta), self._incoming.transfer_syntax_uid),
            )
        finally:
            self.discard()
        if not same:
            raise DimseError(DUPLICATE_SOP_INSTANCE, "Another instance with its UID is kept")

    def _enter(self, header: Header, size: int) -> None:
        file = StoredFile("", self._incoming.transfer_syntax_uid, len(self._meta), size)
        self._entry = entry = entry_of(header, *self._incoming[:2], file)
        file.path = path_of(entry.study_instance_uid, entry.series_instance_uid, entry.sop_instance_uid)

    def _refused(self, error: InvalidInstance) -> DimseError:
        _log.info("instance %s is refused: %s", self._incoming.sop_instance_uid, error)
        return DimseError(CANNOT_UNDERSTAND, "The data set is damaged or not in its transfer syntax")

    # In the thread that writes.

    def perform(self, index: Index) -> None:
        """Enter the instance in the index, and give its file its name."""
        assert self._entry is not None
        self.conflict = self._replaced = None
        entry = replace(self._entry, file=replace(self._entry.file))
        is_new = index.insert(entry)
        if not is_new:
            kept = index.find(entry.sop_instance_uid)
            assert kept is not None
            if not os.path.exists(self._shelf.absolute(kept.path)):  # noqa: PTH110
                _log.warning("%s is missing from the archive; it came again, and is kept", kept.path)
            elif self._replace:
                self._see_that_it_fits(index, entry.file.size - kept.size)
                self._second_name = self._shelf.second_name(kept.path)
                self._replaced = kept.path
            else:
                self.conflict = kept
                return
        else:
            try:
                self._see_that_it_fits(index, 0)
            except DimseError:
                index.remove(entry.sop_instance_uid)
                raise
        try:
            self._placed = self._shelf.place(self._file.path, entry.file.path)
            if not is_new or self._placed != entry.file.path:
                entry.file.path = self._placed
                index.update(entry)
        except BaseException as error:
            self.undo()
            if is_new and isinstance(error, OSError):  # anything else ends the transaction
                index.remove(entry.sop_instance_uid)
            raise

    def _see_that_it_fits(self, index: Index, more: int) -> None:
        """Refuse what would make the archive larger than it may be."""
        if self._maximum_archive is not None and bytes_kept(index.connection) + more > self._maximum_archive:
            _log.error(
                "the archive has the %d bytes that it may have: what would be more is refused", self._maximum_archive
            )
            raise DimseError(OUT_OF_RESOURCES, "The archive is full")

    def undo(self) -> None:
        """Take the file's name away again."""
        if self._placed is not None:
            self._shelf.take_back(self._placed, self._file.path)
            self._placed = None
        self._shelf.remove(self._second_name)
        self._second_name = None

    def settle(self) -> None:
        """Remove the temporary file, and what was replaced."""
        if self.failure is not None or self._placed is not None:
            with suppress(OSError):
                self._file.remove()
        if self.failure is None and self._placed is not None:
            # In this order: after a crash in between, nothing would tell a file with one name from one that is kept.
            self._shelf.remove(self._replaced, self._second_name)

    def abandon(self) -> None:
        """Remove the temporary file of a conflict that nobody will resolve."""
        if self.conflict is not None:
            with suppress(OSError):
                self._file.remove()


def _unwritable(error: OSError) -> DimseError:
    _log.error("an instance cannot be written: %s", error.strerror)
    return DimseError(OUT_OF_RESOURCES, "The file cannot be written")
