"""The archive itself: what joins the files, the index and the queries, for coroutines."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator
from contextlib import ExitStack, aclosing
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, Generic, Literal, Self, TypeVar, cast

from anyio import CancelScope

from aiodicom.accounts import Subject
from aiodicom.archive.index import DamagedIndex, Index, Readers, SameFiles, explained, open_index
from aiodicom.archive.locking import FolderLock, locked, own_folder
from aiodicom.archive.query import compile_query, compile_retrieval
from aiodicom.archive.rebuilding import DAMAGED, INDEX, Rebuilt, make_index
from aiodicom.archive.recovering import note_damage, recover, was_left_open, why_to_build
from aiodicom.archive.room import MINIMUM_FREE, MINIMUM_FREE_SHARE, Room, count_bytes
from aiodicom.archive.services import services_of
from aiodicom.archive.shelf import INCOMING, Shelf, make_folder
from aiodicom.archive.store import Incoming, Keeping
from aiodicom.archive.worklist import Imported, add_steps, read_folder, remove_step, replace_steps, steps_of
from aiodicom.archive.writer import GroupCommit, Writing
from aiodicom.errors import ArchiveError, DimseError, LocalProtocolError
from aiodicom.handlers import Service
from aiodicom.limits import DEFAULT_LIMITS, Limits
from aiodicom.operation import FILE_BATCH, IncomingDataSet, Operation
from aiodicom.outgoing import EncodedInstance, Instance, encode_instance
from aiodicom.part10 import PREAMBLE_LENGTH, InstanceFile, open_instance
from aiodicom.query import NO_OPTIONS, QueryOptions, model_of
from aiodicom.receiving import OUT_OF_RESOURCES
from aiodicom.rights import Nodes, Rights, UnknownMay
from aiodicom.scanner import instance_bounds
from aiodicom.services.turns import MOVES_PER_DESTINATION, Turns
from aiodicom.tls import Credentials
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from aiodicom.workers import Workers, in_any_thread, to_its_end

if TYPE_CHECKING:
    from pydicom import Dataset

T = TypeVar("T")

FIRST_ROWS: Final = 8
"""How many matches are read at first, so that the first one is there soon; then twice as many each time."""

ROWS_AT_ONCE: Final = 512
"""Up to how many matches are read in one change of threads."""

_PATIENCE_WITH_QUERIES: Final = 30.0  # seconds that building the index again waits for them
_INSTRUCTIONS: Final = 100_000  # of SQLite's, some milliseconds: between two looks whether a query is still wanted
_log: Final = logging.getLogger("aiodicom.archive")


class Archive:
    """Keeps instances as PS3.10 files in a folder, with an index in SQLite that answers queries.

    An instance is kept, and a C-STORE answered with Success, only when its file and its row are on the disk. Nothing is
    ever deleted, but for what is replaced. It may be used from several event loops at once, and by one process at a time,
    unless that shares it (see `share`)::

        async with Archive("archive") as archive:
            await archive.add("image.dcm")
            async for match in archive.find(identifier):
                ...

    Args:
        folder: where it is; made if need be. Files that are there already are entered in the index when that is made.
        nodes: the AEs that are known, and what each may do; or a function that returns them, which is called again for
            each operation. An AE title proves nothing about who has it.
        ae_title: its own.
        on_duplicate: what becomes of an instance that comes again with other content under the same SOP Instance UID: with
            "keep" it is refused (0x0111), and the first one kept; with "replace" it takes the place of the first one, and
            is right about its patient, study and series.
        sync: whether to wait until what is kept is on the disk. Without it the last instances may be lost with the power,
            though not with the process.
        minimum_free: how many bytes of its disk stay free: where there are no more, an instance is refused (0xA700) before
            it is received.
        minimum_free_share: the same as a share of the disk, in per cent; the larger one holds.
        maximum_archive: how many bytes its files may have: what exceeds that is refused (0xA700); None is no limit.
        limits: how much an instance may hold that is to be kept, and what asks for some.
        worker_threads: how many threads write files.
        shared: use it beside a process that has it open and shares it, and others; all of them are to say the same of
            `on_duplicate`.
        tls: who we are to those nodes that are sent to over TLS, and whom we believe, see `move_service`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        nodes: Nodes | Callable[[], Nodes] = (),
        ae_title: str = "AIODICOM",
        on_duplicate: Literal["keep", "replace"] = "keep",
        sync: bool = True,
        minimum_free: int = MINIMUM_FREE,
        minimum_free_share: float = MINIMUM_FREE_SHARE,
        maximum_archive: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        worker_threads: int = 8,
        shared: bool = False,
        tls: Credentials | None = None,
    ) -> None:
        if on_duplicate not in ("keep", "replace"):
            raise LocalProtocolError(f"on_duplicate is 'keep' or 'replace', not {on_duplicate!r}")
        if maximum_archive is not None and maximum_archive < 0:
            raise LocalProtocolError(f"maximum_archive is a number of bytes, not {maximum_archive!r}")
        self.folder = Path(folder)
        self.nodes = nodes
        self.ae_title = ae_title
        self.on_duplicate = on_duplicate
        self.sync = sync
        self.maximum_archive = maximum_archive
        self.limits = limits
        self.shared = shared
        self.tls = tls
        self._shelf = Shelf(self.folder, sync=sync)
        self._room = Room(self.folder, minimum_free, minimum_free_share)
        self._workers = Workers(worker_threads)
        self._resources = ExitStack()
        self._lock: FolderLock | None = None
        self._writer: GroupCommit | None = None
        self._readers: Readers | None = None
        self._opening = Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        state = "open" if self._writer is not None else "closed"
        return f"<Archive {os.fspath(self.folder)!r} {state}, on_duplicate={self.on_duplicate!r}>"

    # Its life.

    async def open(self) -> None:
        """Make the folder if need be, put in order what a crash left, and be ready.

        Where nobody does this, the first who asks something of the archive does.

        Where there are files but no index, or a damaged one, that is built first, which takes a while. Where it is shared
        nothing of all that is done: who shares it has done so.

        Raises:
            ArchiveError: it is in use by another process, or its index cannot be used.
            OSError: the folder cannot be used.
        """
        if self._writer is not None:
            raise LocalProtocolError("the archive is open already")
        self._is_closed = False
        try:
            await to_its_end(in_any_thread(self._open))
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Keep what is under way, answer no more queries, and let go of the folder.

        It does not wait for queries under way: whoever takes their rows may never go on. They read on until they end.
        """
        self._is_closed = True
        await to_its_end(in_any_thread(self._close))

    async def share(self) -> None:
        """Let other processes use it from now on, each by an `Archive(folder, shared=True)` of its own.

        It stays open here, as long as they use it; nobody can build the index again meanwhile.

        Raises:
            ArchiveError: it is closed, or another process was faster.
        """
        if self._lock is None:
            raise ArchiveError("the archive is closed")
        await in_any_thread(self._lock.share)

    async def _opened(self) -> tuple[GroupCommit, Readers]:
        """Return what writes and what reads; open the archive where nobody has."""
        if self._writer is None or self._readers is None:
            if self._is_closed:
                raise ArchiveError("the archive is closed")
            await in_any_thread(self._open)
        assert self._writer is not None
        assert self._readers is not None
        return self._writer, self._readers

    async def __aenter__(self) -> Self:
        """Open."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def rebuild(self, *, progress: Callable[[int], None] | None = None) -> Rebuilt:
        """Build the index again from the files; what is to be kept or asked meanwhile is refused.

        Args:
            progress: called with the number of files read so far, now and then, in a worker thread.

        Raises:
            ArchiveError: the archive is closed or shared, queries do not end, or the index cannot be written.
            OSError: a folder cannot be read, or a file not be replaced.
        """
        if self._writer is None:
            raise ArchiveError("the archive is closed")
        if self._lock is not None and self._lock.is_shared:
            raise ArchiveError("other processes share the archive: its index can be built again when they have ended")
        return await in_any_thread(self._rebuild, progress)

    def _open(self) -> None:
        with self._opening, ExitStack() as resources:
            if self._writer is not None:
                return  # by another thread
            incoming = self.folder / INCOMING
            make_folder(incoming, sync=self.sync)
            lock = resources.enter_context(locked(self.folder, shared=self.shared))
            if self.shared:
                if not (self.folder / INDEX).exists():
                    raise ArchiveError(f"{self.folder}: nobody has put the archive in order who shares it")
                self._shelf.incoming = os.fspath(resources.enter_context(own_folder(incoming)))
                self._open_index()
            else:
                self._open_in_order(incoming)
            self._resources, self._lock = resources.pop_all(), lock

    def _open_in_order(self, incoming: Path) -> None:
        """Open the index, put in order what a crash left, and build it where it cannot be relied on."""
        was_left, reason = was_left_open(self.folder, incoming), why_to_build(self.folder)
        if reason is None:
            try:
                self._open_index(partial(recover, shelf=self._shelf, thoroughly=was_left))
            except DamagedIndex as error:
                reason = f"has a damaged index ({error.__cause__ or error})"
                (self.folder / DAMAGED).touch()
        if reason is not None:
            _log.warning("%s %s: it is built of the files, which may take a while", self.folder, reason)
            make_index(self.folder)
            self._open_index(partial(recover, shelf=self._shelf, thoroughly=False))

    def _open_index(self, prepare: Callable[[Index], None] = lambda _: None) -> None:
        path = self.folder / INDEX
        with ExitStack() as unless_it_works:
            index = Index(open_index(path, sync=self.sync), replace=self.on_duplicate == "replace")
            unless_it_works.callback(index.connection.close)
            with explained(path):
                prepare(index)
                if self.maximum_archive is not None:
                    count_bytes(index.connection)
                bring_to_disk = partial(self._bring_to_disk, SameFiles(path, index.connection))
            self._writer = GroupCommit(index, bring_to_disk, partial(note_damage, self.folder))
            self._readers = Readers(path)
            unless_it_works.pop_all()

    def _bring_to_disk(self, files: SameFiles) -> None:
        """Do what comes before each commit."""
        self._shelf.sync()
        files.check()

    def _close(self) -> None:
        if self._readers is not None and self._writer is not None:
            self._readers.close(0)
            self._writer.stop()
            self._readers = self._writer = None
        self._workers.stop()
        self._lock = None
        self._resources.close()

    def _rebuild(self, progress: Callable[[int], None] | None) -> Rebuilt:
        readers, writer = self._readers, self._writer
        if readers is None or writer is None:
            raise ArchiveError("the archive is closed")
        all_back = readers.close(_PATIENCE_WITH_QUERIES)
        writer.stop()
        try:
            if not all_back:
                raise ArchiveError("queries are still under way; try again when they have ended")
            return make_index(self.folder, progress)
        finally:
            self._open_index()

    # What a server mounts.

    def services(
        self,
        *,
        unknown_may: UnknownMay = None,
        rights: Rights | None = None,
        moves_per_destination: int = MOVES_PER_DESTINATION,
    ) -> tuple[Service, ...]:
        """Return the archive as services: `Server("ARCHIVE", services=archive.services())`.

        C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE in every information model, and the worklist. A node may do what its
        rights say; the nodes are the move destinations.

        Args:
            unknown_may: what everybody else may do; by default C-ECHO, and who calls from this machine C-STORE, too.
            rights: both in one, where a server has the same: `Server("ARCHIVE", rights=rights, …)` rejects the association
                of who may do nothing.
            moves_per_destination: how many C-MOVEs send to one move destination at a time; the others wait.

        Raises:
            LocalProtocolError: two nodes have one AE title.
        """
        rights = Rights(self.nodes, unknown_may) if rights is None else rights
        return tuple(services_of(self, rights, self.tls, Turns(moves_per_destination)))

    # Keeping instances.

    async def store(self, operation: Operation) -> None:
        """Keep the instance of a C-STORE; once this returns it is safe, and the answer may be Success.

        Args:
            operation: a C-STORE, its data set not taken yet.

        Raises:
            DimseError: 0x0117 where the SOP Instance UID is no UID, 0x0111 where another instance with it is kept; 0xA900
                where the data set has other UIDs than the command, or its Study or Series Instance UID is no UID; 0xC000
                where it is damaged; 0xA700 where it cannot be written (PS3.7 Annex C, PS3.4 §B.2.3).
            AssociationError: the association ended before the data set did.
        """
        await self._writing()  # before there is a temporary file, which would be taken for one that a crash left
        self._room.check()
        sop_class = operation.sop_class_uid or operation.context.abstract_syntax
        data_set, source = operation.data_set, operation.peer.ae_title
        job = self._job(sop_class, operation.sop_instance_uid, data_set.transfer_syntax, source)
        try:
            await self._write_and_keep(job, data_set)
        except DimseError:
            if operation.account is not None:
                operation.account.enter(job.subject, sop_class, succeeded=False)
            raise
        if operation.account is not None:
            operation.account.enter(job.subject, sop_class, effect=job.effect)

    async def _write_and_keep(self, job: Keeping, data_set: IncomingDataSet) -> None:
        try:
            await self._write(job, _batches(data_set))
        except BaseException:
            await self._discard(job)
            raise
        await self._keep(job)

    async def add(self, instance: Instance) -> None:
        """Keep an instance that does not come from the network, as `store` does.

        Args:
            instance: the path of a PS3.10 file, one that was opened, a pydicom Dataset, or an encoded instance. A file is
                copied.

        Raises:
            InvalidInstance: it is no instance, or cannot be encoded.
            DimseError: as for `store`.
            OSError: the file cannot be read.
        """
        await self._writing()
        self._room.check()
        made: list[Keeping] = []
        try:
            if isinstance(instance, EncodedInstance) and isinstance(instance.data, AsyncIterable):
                made.append(self._job(instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax))
                await self._write(made[0], _gathered(instance.data))
            else:
                await self._workers(self._take, instance, made)
        except BaseException:
            await self._discard(*made)
            raise
        await self._keep(made[0])

    async def _writing(self) -> GroupCommit:
        try:
            return (await self._opened())[0]
        except (ArchiveError, OSError) as error:
            raise _unwritable() from error

    async def _write(self, job: Keeping, batches: AsyncGenerator[list[bytes], None]) -> None:
        """Write the file of an instance as it arrives; a small one arrives in one batch."""
        async with aclosing(batches):
            batch: list[bytes] = await anext(batches, [])
            following = await anext(batches, None)
            if following is None:
                await self._workers(job.take, batch)
                return
            while following is not None:
                await self._workers(job.write, batch)
                batch, following = following, await anext(batches, None)
            await self._workers(job.write, batch)
            await self._workers(job.finish)

    def _take(
        self, instance: str | os.PathLike[str] | InstanceFile | Dataset | EncodedInstance, made: list[Keeping]
    ) -> None:
        """Write the file of an instance that is at hand; blocks."""
        if isinstance(instance, str | os.PathLike):
            instance = open_instance(instance, check=False)
        if isinstance(instance, InstanceFile):
            made.append(self._job(instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid))
            _copy(instance, made[0])
        else:
            encoded = instance if isinstance(instance, EncodedInstance) else encode_instance(instance)
            assert isinstance(encoded.data, bytes | memoryview)
            made.append(self._job(encoded.sop_class_uid, encoded.sop_instance_uid, encoded.transfer_syntax))
            made[0].take([bytes(encoded.data)])

    def _job(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str = "") -> Keeping:
        return Keeping(
            Incoming(sop_class_uid, sop_instance_uid, transfer_syntax_uid, source or None),
            self._shelf,
            replace=self.on_duplicate == "replace",
            sync=self.sync,
            maximum_archive=self.maximum_archive,
            bounds=instance_bounds(self.limits),
        )

    async def _keep(self, job: Keeping) -> None:
        """Give an instance whose file is written its place and its row."""
        try:
            await (await self._writing()).do(job)
            if job.conflict is not None:
                await self._workers(job.resolve)
        except (ArchiveError, DimseError, OSError, sqlite3.Error) as error:
            await self._discard(job)
            if isinstance(error, DimseError):
                raise
            raise _unwritable() from error

    async def _discard(self, *jobs: Keeping) -> None:
        with CancelScope(shield=True):
            for job in jobs:
                await self._workers(job.discard)

    # The worklist (PS3.4 Annex K).

    async def schedule(self, item: Dataset) -> None:
        """Add a worklist item, each of its Scheduled Procedure Steps; a step that is there already is replaced.

        Args:
            item: as it is to be answered, with its Scheduled Procedure Step Sequence (0040,0100).

        Raises:
            InvalidInstance: it has no such sequence, or cannot be encoded.
            DimseError: 0xA700 where the index cannot be written.
        """
        steps = await in_any_thread(steps_of, item)
        await self._written(partial(add_steps, steps=steps))

    async def unschedule(self, study_instance_uid: str, step_id: str) -> bool:
        """Remove a step from the worklist by Study Instance UID and Scheduled Procedure Step ID; tell whether it was there.

        Raises:
            DimseError: 0xA700 where the index cannot be written.
        """
        return await self._written(lambda connection: remove_step(connection, study_instance_uid, step_id))

    async def import_worklist(self, folder: str | os.PathLike[str]) -> Imported:
        """Add the worklist files of a folder, as DCMTK's wlmscpfs and Orthanc have them: `*.wl` and `*.dcm`.

        They take the place of all that came from that folder before; what was added by `schedule` stays.

        Raises:
            DimseError: 0xA700 where the index cannot be written.
            OSError: the folder cannot be read.
        """
        steps, report = await in_any_thread(read_folder, folder)
        source = await in_any_thread(os.path.realpath, folder)
        await self._written(partial(replace_steps, steps=steps, source=os.fsencode(source)))
        return report

    async def _written(self, write: Callable[[sqlite3.Connection], T]) -> T:
        writer, _ = await self._opened()
        job = Writing(write)
        try:
            await writer.do(job)
        except (ArchiveError, sqlite3.Error) as error:
            raise DimseError(OUT_OF_RESOURCES, "The archive cannot be written") from error
        return cast("T", job.result)

    # Asking for them.

    def find(
        self,
        identifier: Dataset,
        model: str = "study",
        *,
        options: QueryOptions = NO_OPTIONS,
        transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    ) -> AsyncGenerator[bytes, None]:
        """Return an iterator over the matches of a query, as encoded identifiers (PS3.4 §C.4.1).

        They are read as fast as they are taken. Whoever leaves early closes it, best with `contextlib.aclosing`.

        Args:
            identifier: what is asked, with its Query/Retrieve Level.
            model: the information model, by name or SOP class UID.
            options: what was negotiated.
            transfer_syntax_uid: how the answers are encoded.

        Raises:
            DimseError: 0xA900 or 0xC000 where the identifier is not allowed in that model.
            ArchiveError: while it is iterated over: the archive is closed, or its index cannot be read.
        """
        query = compile_query(
            identifier,
            model_of(model),
            options=options,
            retrieve_ae_title=self.ae_title,
            maximum_values=self.limits.maximum_uids,
        )
        return self.rows(partial(query.run, transfer_syntax_uid=transfer_syntax_uid))

    async def instances(
        self, identifier: Dataset, model: str = "study", *, options: QueryOptions = NO_OPTIONS
    ) -> list[InstanceFile]:
        """Return the instances that a retrieval asks for (PS3.4 §C.4.2, §C.4.3), as they are in the index.

        They are all in memory at once, some hundred bytes for each: how many remain is said from the first on.

        Args:
            identifier: which ones: unique keys, with a Query/Retrieve Level.
            model: the information model, by name or SOP class UID.
            options: what was negotiated.

        Raises:
            DimseError: 0xA900 or 0xC000 where the identifier is not allowed in that model.
            DimseError: 0xA700 where too many queries are under way.
            ArchiveError: the archive is closed, or its index cannot be read.
        """
        compiled = partial(compile_retrieval, options=options, maximum_values=self.limits.maximum_uids)
        retrieval = await in_any_thread(compiled, identifier, model_of(model))
        async with aclosing(self.rows(retrieval.run)) as rows:
            return [InstanceFile(self.folder / row[0], *row[1:]) async for row in rows]

    async def subjects(
        self, identifier: Dataset, model: str = "study", *, options: QueryOptions = NO_OPTIONS
    ) -> dict[str, Subject]:
        """Return whose the instances are that `instances` returns, by SOP Instance UID; raises likewise."""
        compiled = partial(compile_retrieval, options=options, maximum_values=self.limits.maximum_uids)
        retrieval = await in_any_thread(compiled, identifier, model_of(model))
        known: dict[Subject, Subject] = {}  # so that there is one for each study, not for each instance
        async with aclosing(self.rows(retrieval.subjects)) as rows:
            return {uid: known.setdefault(subject := Subject(*whose), subject) async for uid, *whose in rows}

    async def rows(self, run: Callable[[sqlite3.Connection], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Yield what a query finds; it runs in a worker thread, one batch ahead of whoever takes the rows.

        Args:
            run: makes the query on a connection to the index, such as `Query.run` of a compiled one.

        Raises:
            ArchiveError: the archive is closed, or its index cannot be read.
            DimseError: 0xA700 where too many queries are under way.
        """
        _, readers = await self._opened()
        reading = _Reading(readers, run, partial(note_damage, self.folder))
        ahead = asyncio.ensure_future(in_any_thread(reading.next_rows))
        is_last = False
        try:
            while not is_last:
                rows = await ahead
                is_last = reading.is_over
                if not is_last:
                    ahead = asyncio.ensure_future(in_any_thread(reading.next_rows))
                for row in rows:
                    yield row
        finally:
            if not is_last:
                reading.is_over = True
                await to_its_end(_ended(reading, ahead))


async def _ended(reading: _Reading[T], ahead: asyncio.Future[list[T]]) -> None:
    await in_any_thread(reading.end)
    await asyncio.gather(ahead, return_exceptions=True)


class _Reading(Generic[T]):
    """A query under way, on a connection of its own.

    Args:
        readers: where to get the connection.
        run: starts the query.
        failed: called with what SQLite fails at.
    """

    def __init__(
        self,
        readers: Readers,
        run: Callable[[sqlite3.Connection], Iterator[T]],
        failed: Callable[[sqlite3.Error], None],
    ) -> None:
        self._readers = readers
        self._run = run
        self._failed = failed
        self._lock = Lock()  # a thread may still be at it when the coroutine that waited for it was cancelled
        self._connection: sqlite3.Connection | None = None
        self._rows: Iterator[T] | None = None
        self._count = FIRST_ROWS
        self.is_over = False
        """Whether no more rows are there, or wanted: set in any thread, it ends what another one is searching for."""

    def next_rows(self) -> list[T]:
        """Return some more rows; with the last ones, give the connection back. Blocks."""
        with self._lock:
            if self.is_over:
                return []
            try:
                if self._rows is None:
                    self._connection = self._readers.take()
                    self._connection.set_progress_handler(lambda: self.is_over, _INSTRUCTIONS)
                    self._rows = self._run(self._connection)
                rows = list(islice(self._rows, self._count))
            except sqlite3.Error as error:
                self._failed(error)
                raise ArchiveError(f"the index cannot be read: {error}") from error
            if len(rows) < self._count:
                self.is_over = True
                self._give_back()
            self._count = min(2 * self._count, ROWS_AT_ONCE)
            return rows

    def end(self) -> None:
        """Give the connection back. Blocks."""
        with self._lock:
            if isinstance(self._rows, Generator):
                self._rows.close()
            self._give_back()

    def _give_back(self) -> None:
        if self._connection is not None:
            self._connection.set_progress_handler(None, 0)
            self._readers.give_back(self._connection)
            self._connection = None


def _unwritable() -> DimseError:
    return DimseError(OUT_OF_RESOURCES, "The archive cannot be written")


def _copy(file: InstanceFile, job: Keeping) -> None:
    with open(file.path, "rb", buffering=0) as stream:  # noqa: PTH123 - Path.open takes as long again
        if any(stream.read(PREAMBLE_LENGTH)) and file.data_set_offset > PREAMBLE_LENGTH:
            _log.warning("%s has something in its preamble (PS3.10 §7.1), which is not kept", file.path)
        stream.seek(file.data_set_offset)
        if file.size - file.data_set_offset <= FILE_BATCH:
            job.take([stream.read(FILE_BATCH)])
        else:
            while chunk := stream.read(FILE_BATCH):
                job.write([chunk])
            job.finish()


async def _batches(data_set: IncomingDataSet) -> AsyncGenerator[list[bytes], None]:
    """What arrives, as much at once as is worth a change of threads."""
    while chunks := await data_set.take(FILE_BATCH):
        yield chunks


async def _gathered(chunks: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    batch: list[bytes] = []
    async for chunk in chunks:
        batch.append(chunk)
        if sum(map(len, batch)) >= FILE_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
