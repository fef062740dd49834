"""`aiodicom serve`: receive instances and keep them as PS3.10 files, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Final

from anyio import to_thread

from aiodicom.association import Observer
from aiodicom.cli.console import complain, say
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.negotiation import Narrator
from aiodicom.cli.options import (
    Command,
    Parser,
    add_maximum_length,
    add_verbosity,
    ae_title,
    start_logging,
    whole_number,
)
from aiodicom.cli.peer import PeerAddress
from aiodicom.cli.words import amount, size
from aiodicom.dimse.commands import CStoreRQ
from aiodicom.logs import LoggingObserver
from aiodicom.operation import Operation
from aiodicom.server import Server
from aiodicom.services.storage import save_by_study
from aiodicom.uids import uid_name

HELP: Final = "receive instances and keep them as files (C-STORE, C-ECHO)"
NOTES: Final = """\
Instances are kept as STUDY/SERIES/INSTANCE.dcm below the storage folder, as they come.
SIGINT (Ctrl-C) and SIGTERM let what is being received end; a second one aborts it."""

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
    parser.add_argument("--storage", metavar="DIR", type=Path, default=Path("received"), help="folder (./received)")
    parser.add_argument("--require-called-aet", action="store_true", help="reject who asks for another AE title")
    parser.add_argument(
        "--max-associations", metavar="N", type=whole_number(1, 100_000), default=128, help="at a time (%(default)s)"
    )
    add_maximum_length(parser)
    add_verbosity(parser)
    return parser.parse_args(arguments)


async def run(options: Namespace) -> ExitCode:
    """Do it, until a signal comes."""
    start_logging(options, with_time=True)
    try:
        options.storage.mkdir(parents=True, exist_ok=True)
        if not os.access(options.storage, os.W_OK | os.X_OK):
            raise PermissionError(0, "no permission to write there")
    except OSError as error:
        complain(f"cannot keep files in {options.storage}: {error.strerror}")
        return ExitCode.CANNOT_USE_FOLDER
    server = _server(options)
    ending = _Ending(server)
    with ending.on_signals():
        # What names the files is loaded now, not while the first of them is awaited.
        await to_thread.run_sync(import_module, "pydicom.filereader")
        async with server:
            if not options.quiet:
                say(_invitation(options, server.port))
            await ending.asked.wait()
    return ExitCode.INTERRUPTED if ending.aborted else ExitCode.OK


def _server(options: Namespace) -> Server:
    observers: list[Observer] = [LoggingObserver()]
    if options.debug:
        observers.append(Narrator(fragments=True))
    server = Server(
        options.aet,
        host=options.host,
        port=options.port,
        require_called_ae_title=options.require_called_aet,
        maximum_associations=options.max_associations,
        maximum_length=options.maximum_length,
        observers=observers,
    )

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        path = await save_by_study(operation, options.storage)
        command = operation.command
        if _log.isEnabledFor(logging.INFO) and isinstance(command, CStoreRQ):
            name, length = uid_name(command.affected_sop_class_uid), size(operation.data_set.length)
            _log.info("%s, %s, from %s: %s", name, length, operation.peer, path.name)

    return server


def _invitation(options: Namespace, port: int) -> str:
    """Say where we listen, and what to do next, in lines to copy."""
    peer = PeerAddress(options.aet, _EVERY_ADDRESS.get(options.host, options.host), port)
    where = f"{options.host or 'every address'}, port {port}"
    reach = "; other machines reach it with --host 0.0.0.0" if options.host in _LOOPBACK else ""
    title = shlex.quote(options.aet)
    return (
        f"{options.aet} listens at {where}, and keeps what it receives in {options.storage} (Ctrl-C stops it{reach})\n"
        f"send to it:  aiodicom store {shlex.quote(str(peer))} FILES\n"
        f"with DCMTK:  storescu -aec {title} {peer.host} {port} FILES"
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
