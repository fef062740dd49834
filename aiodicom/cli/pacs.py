"""What `aiodicom serve` runs, in one process or in several: an archive, a server, and an end in good order."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from aiodicom.activity import Activity, Counters
from aiodicom.association import Association, Observer
from aiodicom.cli.configuration import KnownNodes
from aiodicom.cli.negotiation import Narrator
from aiodicom.cli.options import LOOPBACK
from aiodicom.cli.words import amount, status_words
from aiodicom.dimse import commands
from aiodicom.dimse.status import Category
from aiodicom.errors import ArchiveError
from aiodicom.limits import Limits
from aiodicom.logs import LoggingObserver, about, printable
from aiodicom.rights import UNKNOWN_ELSEWHERE, UNKNOWN_ON_LOOPBACK, Rights
from aiodicom.server import Listener, Server
from aiodicom.terms import Peer
from aiodicom.uids import uid_name

if TYPE_CHECKING:
    from aiodicom.archive import Archive

_log: Final = logging.getLogger("aiodicom.serve")


@asynccontextmanager
async def opened_archive(options: Namespace, *, shared: bool = False) -> AsyncIterator[Archive]:
    """The archive as the options say; `shared` with the process that took over the worklist.

    Raises:
        ArchiveError: it cannot be used.
    """
    # pydicom, which the archive needs, is loaded now, not while the first instance is awaited.
    archive_class: type[Archive] = (await to_thread.run_sync(import_module, "aiodicom.archive")).Archive
    archive = archive_class(
        options.storage,
        ae_title=options.aet,
        on_duplicate=options.on_duplicate,
        sync=not options.no_sync,
        limits=options.limits,
        shared=shared,
        tls=options.destination_credentials,
    )
    try:
        await archive.open()
    except OSError as error:
        raise ArchiveError(f"cannot keep files in {options.storage}: {error.strerror}") from error
    try:
        if options.worklist is not None and not shared:
            await _take_worklist(archive, options.worklist)
        with settled():
            yield archive
    finally:
        await archive.close()


@contextmanager
def settled() -> Iterator[None]:
    """Keep what is loaded by now out of garbage collections: it is there to stay.

    A full one goes over all objects, some 60,000 with pydicom, and lets no thread run meanwhile: the event loop stands still.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _take_worklist(archive: Archive, folder: Path) -> None:
    """Take over the worklist files of a folder, and say what is wrong with the others."""
    try:
        imported = await archive.import_worklist(folder)
    except OSError as error:
        raise ArchiveError(f"{folder}: the worklist files cannot be read: {error.strerror}") from None
    _log.info("%s scheduled by the files in %s", amount(len(imported.steps), "procedure step"), folder)
    for path, reason in imported.problems:
        _log.warning("%s is not in the worklist: %s", path, reason)


def listeners_of(options: Namespace, *, reuse_port: bool = False) -> list[Listener]:
    """Return where to listen: first at the port that is called by, then without TLS, if that is asked for beside it."""
    listeners = [Listener(options.host, options.port, options.credentials, reuse_port)]
    if options.plain_port is not None:
        listeners.append(Listener(options.host, options.plain_port, reuse_port=reuse_port))
    return listeners


class Pacs(Server):
    """The server of an archive; associations are limited together with those of other workers.

    Args:
        options: of the command line.
        archive: what it offers.
        counters: of all workers.
        row: which of them it is.
        reuse_port: whether others listen at the same port.
        observers: further ones.
    """

    def __init__(
        self,
        options: Namespace,
        archive: Archive,
        counters: Counters,
        row: int = 0,
        *,
        reuse_port: bool = False,
        observers: Iterable[Observer] = (),
    ) -> None:
        observers = [LoggingObserver(), Activity(counters, row), *observers]
        if options.debug:
            observers.append(Narrator(fragments=True))
        if options.verbose or options.debug:
            observers.append(Diary())
        rights = _rights(options)
        super().__init__(
            options.aet,
            listeners=listeners_of(options, reuse_port=reuse_port),
            services=archive.services(rights=rights),
            rights=rights,
            require_called_ae_title=not options.any_called_aet,
            limits=_share(options.limits, options.workers),
            observers=observers,
            tally=counters.tally(row) if options.workers > 1 else None,
        )
        self._counters = counters

    @contextmanager
    def admission(self, peer: Peer) -> Iterator[None]:
        """Admit a peer while no other worker does."""
        with self._counters.held(), super().admission(peer):
            yield


def _share(limits: Limits, workers: int) -> Limits:
    """Return the limits of one of so many workers: memory is shared out, all else is counted together."""
    return limits.changed(maximum_buffered_in_all=limits.maximum_buffered_in_all // workers)


def _rights(options: Namespace) -> Rights:
    """Return who may ask what, as the configuration says, or else the host at which we listen."""
    nodes = KnownNodes(options.config)
    otherwise = UNKNOWN_ON_LOOPBACK if options.host in LOOPBACK else UNKNOWN_ELSEWHERE
    return Rights(nodes, lambda: otherwise if nodes.unknown_may is None else nodes.unknown_may)


class Diary(Observer):
    """Logs what was done for whom: an operation a line, without what is in it."""

    def message_sent(self, association: Association, command: commands.Command) -> None:
        """Log a final response."""
        if isinstance(command, commands.Response) and command.status.category is not Category.PENDING:
            what = uid_name(command.affected_sop_class_uid or "")
            name = getattr(command, "affected_sop_instance_uid", None)
            status = status_words(command.status, command.error_comment)
            words = ", ".join(filter(None, (what, name, f"for {association.peer}", status)))
            _log.info("%s", printable(words), extra=about(association, command=command))


class Ending:
    """The end in good order that somebody asks for, and the abort.

    Args:
        abort: ends what goes on; returns whether there was anything.
        patience: how long operations may go on, in seconds.
    """

    def __init__(self, abort: Callable[[], bool], patience: float) -> None:
        self.asked = asyncio.Event()
        self.aborted = False
        self._abort = abort
        self._patience = patience

    def abort(self) -> None:
        """Abort what is still going on."""
        self.asked.set()
        self.aborted = self._abort() or self.aborted

    @contextmanager
    def on_signals(self, handler: Callable[[], None]) -> Iterator[None]:
        """Let SIGINT and SIGTERM call that."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        with suppress(NotImplementedError):  # Windows: there, Ctrl-C cancels us
            for each in signals:
                loop.add_signal_handler(each, handler)
        try:
            yield
        finally:
            with suppress(NotImplementedError):
                for each in signals:
                    loop.remove_signal_handler(each)

    def ask_or_abort(self, associations: int) -> None:
        """What signals do: the first one asks for the end of so many associations, the next ones abort them."""
        if self.asked.is_set():
            self.abort()
            return
        self.asked.set()
        if associations:
            has, do = ("has", "it does") if associations == 1 else ("have", "they do")
            count, patience = amount(associations, "association"), f"{self._patience:g} s"
            _log.warning("stopping: %s %s %s to end what %s; once more to abort", count, has, patience, do)


def ending_of(server: Server) -> Ending:
    """Return the end of a server in this process."""
    aborts: list[asyncio.Task[None]] = []

    def abort() -> bool:
        loop, associations = asyncio.get_running_loop(), server.associations
        aborts.extend(loop.create_task(association.abort()) for association in associations)
        return bool(associations)

    return Ending(abort, server.limits.stop)
