"""`aiodicom serve`: a small PACS, which keeps, finds and retrieves instances, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from aiodicom.association import Association, Observer
from aiodicom.cli.configuration import KnownNodes
from aiodicom.cli.console import complain, say
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.negotiation import Narrator
from aiodicom.cli.options import (
    Command,
    Parser,
    add_config,
    add_maximum_length,
    add_storage,
    add_verbosity,
    ae_title,
    start_logging,
    whole_number,
)
from aiodicom.cli.peer import PeerAddress
from aiodicom.cli.words import amount, status_words
from aiodicom.dimse import commands
from aiodicom.dimse.status import Category
from aiodicom.errors import ArchiveError
from aiodicom.logs import LoggingObserver
from aiodicom.server import Server
from aiodicom.uids import uid_name

if TYPE_CHECKING:
    from aiodicom.archive import Archive

HELP: Final = "be a small PACS: keep, find and retrieve instances (C-ECHO, C-STORE, C-FIND, C-MOVE, C-GET)"
NOTES: Final = """\
Instances are kept as STUDY/SERIES/INSTANCE.dcm below the storage folder, as they come, with an
index beside them: index.sqlite, which `aiodicom index rebuild` can make again from the files.
Whoever is a node of aiodicom.toml may ask what that says (see `aiodicom nodes`), and is a move
destination, from the moment that it stands there; everybody else may echo and store.
SIGINT (Ctrl-C) and SIGTERM let what is being done end; a second one aborts it."""

_EVERY_ADDRESS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what it is called here
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_log: Final = logging.getLogger("aiodicom.serve")


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom serve", "aiodicom serve [options]", HELP, NOTES)
    parser.add_argument(
        "-aet", "--aet", metavar="AET", type=ae_title, default="AIODICOM", help="our AE title (%(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 is everywhere (%(default)s)")
    parser.add_argument("--port", type=whole_number(0, 65535), default=11112, help="0 takes a free one (%(default)s)")
    add_storage(parser)
    parser.add_argument(
        "--on-duplicate",
        choices=("keep", "replace"),
        default="keep",
        help="other content under a UID that is there is refused, or replaces the first (%(default)s)",
    )
    parser.add_argument(
        "--worklist", metavar="DIR", type=Path, help="answer from the worklist files in this folder, too"
    )
    parser.add_argument("--no-sync", action="store_true", help="answer before what came is safe from a loss of power")
    parser.add_argument("--require-called-aet", action="store_true", help="reject who asks for another AE title")
    parser.add_argument(
        "--max-associations", metavar="N", type=whole_number(1, 100_000), default=128, help="at a time (%(default)s)"
    )
    add_maximum_length(parser)
    add_config(parser)
    add_verbosity(parser)
    return parser.parse_args(arguments)


async def run(options: Namespace) -> ExitCode:
    """Do it, until a signal comes."""
    start_logging(options, with_time=True)
    nodes = KnownNodes(options.config)
    # pydicom, which the archive needs, is loaded now, not while the first instance is awaited.
    archive_class: type[Archive] = (await to_thread.run_sync(import_module, "aiodicom.archive")).Archive
    archive = archive_class(
        options.storage,
        nodes=nodes,
        ae_title=options.aet,
        on_duplicate=options.on_duplicate,
        sync=not options.no_sync,
    )
    try:
        await archive.open()
    except OSError as error:
        complain(f"cannot keep files in {options.storage}: {error.strerror}")
        return ExitCode.CANNOT_USE_FOLDER
    try:
        if options.worklist is not None:
            await _take_worklist(archive, options.worklist)
        server = _server(options, archive)
        ending = _Ending(server)
        with ending.on_signals():
            async with server:
                if not options.quiet:
                    say(_invitation(options, server.port, len(nodes())))
                await ending.asked.wait()
    finally:
        await archive.close()
    return ExitCode.INTERRUPTED if ending.aborted else ExitCode.OK


async def _take_worklist(archive: Archive, folder: Path) -> None:
    """Take over the worklist files of a folder, and say what is wrong with the others."""
    try:
        imported = await archive.import_worklist(folder)
    except OSError as error:
        raise ArchiveError(f"{folder}: the worklist files cannot be read: {error.strerror}") from None
    _log.info("%s scheduled by the files in %s", amount(len(imported.steps), "procedure step"), folder)
    for path, reason in imported.problems:
        _log.warning("%s is not in the worklist: %s", path, reason)


def _server(options: Namespace, archive: Archive) -> Server:
    observers: list[Observer] = [LoggingObserver()]
    if options.debug:
        observers.append(Narrator(fragments=True))
    if options.verbose or options.debug:
        observers.append(_Diary())
    return Server(
        options.aet,
        host=options.host,
        port=options.port,
        services=archive.services(),
        require_called_ae_title=options.require_called_aet,
        maximum_associations=options.max_associations,
        maximum_length=options.maximum_length,
        observers=observers,
    )


class _Diary(Observer):
    """Logs what was done for whom: an operation a line, without what is in it."""

    def message_sent(self, association: Association, command: commands.Command) -> None:
        if isinstance(command, commands.Response) and command.status.category is not Category.PENDING:
            what = uid_name(command.affected_sop_class_uid or "")
            name = getattr(command, "affected_sop_instance_uid", None)
            status = status_words(command.status, command.error_comment)
            _log.info("%s", ", ".join(filter(None, (what, name, f"for {association.peer}", status))))


def _invitation(options: Namespace, port: int, nodes: int) -> str:
    """Say where we listen, and what to do next, in lines to copy."""
    peer = PeerAddress(options.aet, _EVERY_ADDRESS.get(options.host, options.host), port)
    where = f"{options.host or 'every address'}, port {port}"
    reach = "; other machines reach it with --host 0.0.0.0" if options.host in _LOOPBACK else ""
    title, address = shlex.quote(options.aet), shlex.quote(str(peer))
    who = f"{amount(nodes, 'node')} may ask" if nodes else "once aiodicom nodes add NAME AET@HOST:PORT made you known"
    return (
        f"{options.aet} listens at {where}, and keeps what it receives in {options.storage} (Ctrl-C stops it{reach})\n"
        f"send to it:  aiodicom store {address} FILES\n"
        f"with DCMTK:  storescu -aec {title} {peer.host} {port} FILES\n"
        f"ask it:      aiodicom find {address} --level study   ({who})"
    )


class _Ending:
    """What signals do: the first one asks for a good end, the second one aborts."""

    def __init__(self, server: Server) -> None:
        self.asked = asyncio.Event()
        self.aborted = False
        self._server = server
        self._aborts: list[asyncio.Task[None]] = []

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        with suppress(NotImplementedError):  # Windows: there, Ctrl-C cancels us
            for each in signals:
                loop.add_signal_handler(each, self._signalled)
        try:
            yield
        finally:
            with suppress(NotImplementedError):
                for each in signals:
                    loop.remove_signal_handler(each)

    def _signalled(self) -> None:
        associations = self._server.associations
        if not self.asked.is_set():
            self.asked.set()
            if associations:
                count = amount(len(associations), "association")
                has, do = ("has", "it does") if len(associations) == 1 else ("have", "they do")
                patience = f"{self._server.stop_timeout:g} s"
                _log.warning("stopping: %s %s %s to end what %s; once more to abort", count, has, patience, do)
        elif associations:
            self.aborted = True
            loop = asyncio.get_running_loop()
            self._aborts += [loop.create_task(association.abort()) for association in associations]


COMMAND: Final = Command(HELP, parse, run)
