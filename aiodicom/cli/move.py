"""`aiodicom move`: let a peer send instances elsewhere, or to ourselves (C-MOVE, PS3.4 §C.4.2)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiodicom.cli import keeping, peer, wanted
from aiodicom.cli.advice import Facts
from aiodicom.cli.configuration import known_nodes
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.keeping import DEFAULT_FOLDER, add_keeping, keeper_of
from aiodicom.cli.options import (
    LOOPBACK,
    Command,
    Parser,
    add_association_options,
    add_verbosity,
    remote_ae,
    start_logging,
    whole_number,
)
from aiodicom.cli.queries import add_query_options, parse_with_query, query_options_of
from aiodicom.cli.retrieving import Retrieving, perform
from aiodicom.cli.wanted import Wanted, wanted_of
from aiodicom.client import DEFAULT_TIMEOUTS
from aiodicom.upper_layer.pdu import valid_ae_title

HELP: Final = "let a peer send instances to another one, or to us (C-MOVE)"
SELF: Final = "self"
NOTES: Final = f"""\
{peer.FORMS}

AET is where the instances go to: an AE title that the peer knows, with its address; the name of a
node of ours, for its AE title; or self, to receive them here, as aiodicom get does. For that the
peer must know our AE title, with the address of this machine and --port; over TLS with a
certificate of ours, we listen for TLS, too.

{wanted.FORMS.format(command="aiodicom move PEER --to AET")}

{keeping.NOTES}"""


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom move", "aiodicom move [options] PEER --to AET [FILE]", HELP, NOTES)
    parser.add_argument("words", metavar="PEER, FILE", nargs="+", help="see below")
    parser.add_argument("--to", "-aem", metavar="AET", required=True, help="where the instances go to, see below")
    add_query_options(parser, "move")
    add_keeping(parser)
    parser.add_argument(
        "--port",
        "+P",
        metavar="PORT",
        type=whole_number(1, 65535),
        default=11112,
        help="where we listen for what comes to self (%(default)s)",
    )
    parser.add_argument(
        "--host", help="likewise (every address of this machine, or localhost where the peer is on it, too)"
    )
    add_association_options(parser, response=DEFAULT_TIMEOUTS.pending)
    add_verbosity(parser)
    return parse_with_query(parser, arguments, _wanted_of)


def _wanted_of(options: Namespace, file: Path | None) -> tuple[Wanted, ...]:
    nodes = known_nodes(options.config)
    options.destination = nodes[options.to].ae_title if options.to in nodes else options.to
    if not valid_ae_title(options.destination):
        raise ValueError(f"{options.to!r} is neither a node's name nor an AE title")
    if options.to != SELF and options.folder != DEFAULT_FOLDER:
        raise ValueError(f"-od is for --to self: what goes to {options.to} is kept there")
    return wanted_of(options, file)


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    start_logging(options)
    return await (_to_self(options) if options.to == SELF else _to_another(options))


async def _to_self(options: Namespace) -> ExitCode:
    keeper = keeper_of(options)
    if keeper is None:
        return ExitCode.CANNOT_USE_FOLDER
    host = options.host or ("localhost" if options.peer.host in LOOPBACK else "")
    facts = Facts(options.aet, "move", options.aet, f"the address of this machine, and port {options.port}")
    ours = options.credentials
    async with remote_ae(
        options,
        options=query_options_of(options),
        prefers="move",
        listen_host=host,
        listen_port=options.port,
        listen_tls=ours if ours is not None and ours.certificate is not None else None,
    ) as ae:
        retrieving = Retrieving(options.query, lambda each: ae.retrieve(each.identifier, model=each.model.name), keeper)
        return await perform(options, retrieving, "got", f"into {keeper.folder}", facts)


async def _to_another(options: Namespace) -> ExitCode:
    destination = options.destination
    facts = Facts(options.aet, "move", destination, "the address at which it listens")
    async with remote_ae(options, options=query_options_of(options)) as ae:
        retrieving = Retrieving(
            options.query, lambda each: ae.move(each.identifier, model=each.model.name, destination=destination), None
        )
        return await perform(options, retrieving, "moved", f"to {destination}", facts)


COMMAND: Final = Command(HELP, parse, run)
