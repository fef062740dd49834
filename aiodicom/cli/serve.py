"""`aiodicom serve`: a small PACS, which keeps, finds and retrieves instances, until told to stop."""

from __future__ import annotations

import logging
import os
import shlex
import socket
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiodicom.activity import Counters, described
from aiodicom.cli.auditing import add_audit, audit_of, audited
from aiodicom.cli.configuration import known_nodes
from aiodicom.cli.console import say
from aiodicom.cli.descriptors import ensure_descriptors
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.limiting import add_limits, limits_of
from aiodicom.cli.options import (
    LOOPBACK,
    Command,
    Parser,
    add_config,
    add_storage,
    add_verbosity,
    ae_title,
    start_logging,
    whole_number,
)
from aiodicom.cli.pacs import Pacs, ending_of, opened_archive
from aiodicom.cli.peer import PeerAddress
from aiodicom.cli.supervising import supervise
from aiodicom.cli.tls import add_tls, credentials_of, wants_tls
from aiodicom.cli.view import View, now, shown, viewed
from aiodicom.cli.words import amount
from aiodicom.errors import LocalProtocolError
from aiodicom.limits import Limits
from aiodicom.tls import PROFILES, TLS_PORT, Credentials

HELP: Final = "be a small PACS: keep, find, retrieve instances (C-ECHO, C-STORE, C-FIND, C-MOVE, C-GET)"
NOTES: Final = """\
Instances are kept as STUDY/SERIES/INSTANCE.dcm below the storage folder, as they come, with an
index beside them: index.sqlite, which `aiodicom index rebuild` can make again from the files.
Whoever is a node of aiodicom.toml may ask what that says (see `aiodicom nodes`), and is a move
destination, from the moment that it stands there. Everybody else may echo and, as long as we listen
at localhost, store, unless the configuration says otherwise: [unknown], may = ["echo", "store"].
SIGINT (Ctrl-C) and SIGTERM let what is being done end; a second one aborts it.
With --workers, the system shares associations out among so many processes; one that dies is started
again. --maximum-connections and --maximum-associations are for all of them together.
`aiodicom status` shows what they do.
Over TLS, whoever calls must show a certificate of an authority that --tls-ca names. The files are
read again when they change, for the connections from then on."""

PORT: Final = 11112
MAXIMUM_WORKERS: Final = 256

_EVERY_ADDRESS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what it is called here
_FURTHER_DESCRIPTORS: Final = 256  # of the index, whose readers have three each, and of the program itself
_log: Final = logging.getLogger("aiodicom.serve")


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom serve", "aiodicom serve [options]", HELP, NOTES)
    parser.add_argument(
        "-aet", "--aet", metavar="AET", type=ae_title, default="AIODICOM", help="our AE title (%(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 is everywhere (%(default)s)")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), help=f"0 takes a free one ({PORT}; {TLS_PORT} where it speaks TLS)"
    )
    parser.add_argument(
        "--plain-port",
        metavar="PORT",
        type=whole_number(0, 65535),
        help="beside one for TLS: listen there without (nowhere)",
    )
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
    called = parser.add_mutually_exclusive_group()
    called.add_argument("--any-called-aet", action="store_true", help="also answer who asks for another AE title")
    called.add_argument("--require-called-aet", action="store_true", help="do not (the default)")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=whole_number(1, MAXIMUM_WORKERS),
        default=1,
        help="processes that share the port and the archive (%(default)s)",
    )
    add_config(parser)
    add_tls(parser)
    add_audit(parser)
    add_verbosity(parser)
    add_limits(parser)
    options = parser.parse_args(arguments)
    try:
        _decide_on_tls(options)
        options.audit = audit_of(options)
    except (ValueError, LocalProtocolError) as error:
        parser.error(str(error))
    options.arguments = tuple(arguments)
    options.limits = limits_of(options)
    if options.workers > 1 and not hasattr(socket, "SO_REUSEPORT"):
        parser.error("--workers needs SO_REUSEPORT, which this system does not have: leave it out")
    return options


def _decide_on_tls(options: Namespace) -> None:
    """Find out whether to speak TLS, where and with what.

    `credentials` of the options are for peers that call, None is without TLS; `destination_credentials` for move
    destinations.
    """
    options.destination_credentials = credentials_of(options)
    options.credentials = options.destination_credentials if wants_tls(options) else None
    if options.credentials is not None:
        options.credentials.server_context()
    elif options.plain_port is not None:
        raise ValueError("--plain-port is for a server that speaks TLS at --port: say --tls, or --port alone")
    if options.port is None:
        options.port = PORT if options.credentials is None else TLS_PORT
    if options.plain_port and options.plain_port == options.port:
        raise ValueError(f"port {options.port} cannot be for TLS and for connections without: name two ports")


async def run(options: Namespace) -> ExitCode:
    """Do it, until a signal comes."""
    start_logging(options, with_time=True)
    if lack := ensure_descriptors(descriptors_of(options.limits)):
        _log.warning("%s", lack)
    return await (_alone(options) if options.workers == 1 else supervise(options, invitation))


def descriptors_of(limits: Limits) -> int:
    """Return how many descriptors a process may need: for connections, a file of each association, and the index."""
    return limits.maximum_connections + limits.maximum_associations + _FURTHER_DESCRIPTORS


async def _alone(options: Namespace) -> ExitCode:
    counters, since = Counters(), now()
    async with opened_archive(options) as archive, audited(options, counters) as auditors:
        server = Pacs(options, archive, counters, observers=auditors)

        async def view() -> View:
            worker = {"worker": 1, "pid": os.getpid(), "since": since, "restarts": 0, **counters.of(0)}
            return viewed(options, server.port, since, [worker], {1: described(server.associations)})

        ending = ending_of(server)
        with ending.on_signals(lambda: ending.ask_or_abort(len(server.associations))):
            async with server, shown(options.storage, view):
                if not options.quiet:
                    say(invitation(options, server.port))
                await ending.asked.wait()
    return ExitCode.INTERRUPTED if ending.aborted else ExitCode.OK


def _options_to_call(credentials: Credentials | None) -> tuple[str, str]:
    """Return what a caller has to say for our TLS, on our command line and on DCMTK's, with a blank behind it."""
    if credentials is None:
        return "", ""
    if credentials.verify == "required":
        return "--tls-cert CERT --tls-key KEY --tls-ca CA ", "+tls KEY CERT +cf CA "
    return "--tls-ca CA ", "+tla +cf CA "


def invitation(options: Namespace, port: int) -> str:
    """Say where we listen, and what to do next, in lines to copy."""
    nodes = len(known_nodes(options.config))
    over = f", over TLS ({PROFILES[options.credentials.profile].title})" if options.credentials else ""
    tls, dcmtk = _options_to_call(options.credentials)
    peer = PeerAddress(options.aet, _EVERY_ADDRESS.get(options.host, options.host), port)
    where = f"{options.host or 'every address'}, port {port}"
    reach = "; other machines reach it with --host 0.0.0.0" if options.host in LOOPBACK else ""
    title, address = shlex.quote(options.aet), shlex.quote(str(peer))
    who = f"{amount(nodes, 'node')} may ask" if nodes else "once aiodicom nodes add NAME AET@HOST:PORT made you known"
    status = f"aiodicom status {shlex.quote(str(options.storage))}"
    workers = f"\n{options.workers} workers:   {status}" if options.workers > 1 else ""
    return (
        f"{options.aet} listens at {where}{over}, and keeps what it receives in {options.storage} (Ctrl-C stops it{reach})\n"
        f"send to it:  aiodicom store {tls}{address} FILES\n"
        f"with DCMTK:  storescu {dcmtk}-aec {title} {peer.host} {port} FILES\n"
        f"ask it:      aiodicom find {tls}{address} --level study   ({who})"
        f"{workers}"
    )


COMMAND: Final = Command(HELP, parse, run)
