"""`aiodicom get`: instances from a peer, over the association that asks for them (C-GET, PS3.4 §C.4.3)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from aiodicom.cli import keeping, peer, wanted
from aiodicom.cli.advice import Facts
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.keeping import add_keeping, keeper_of
from aiodicom.cli.options import Command, Parser, add_association_options, add_verbosity, remote_ae, start_logging
from aiodicom.cli.queries import add_query_options, parse_with_query, query_options_of
from aiodicom.cli.retrieving import Retrieving, perform
from aiodicom.cli.wanted import wanted_of
from aiodicom.client import DEFAULT_TIMEOUTS

HELP: Final = "retrieve instances from a peer into files (C-GET)"
NOTES: Final = f"""\
{peer.FORMS}

{wanted.FORMS.format(command="aiodicom get PEER")}

{keeping.NOTES}"""


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom get", "aiodicom get [options] PEER [FILE]", HELP, NOTES)
    parser.add_argument("words", metavar="PEER, FILE", nargs="+", help="see below")
    add_query_options(parser, "get")
    add_keeping(parser)
    add_association_options(parser, response=DEFAULT_TIMEOUTS.pending)
    add_verbosity(parser)
    return parse_with_query(parser, arguments, wanted_of)


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    start_logging(options)
    keeper = keeper_of(options)
    if keeper is None:
        return ExitCode.CANNOT_USE_FOLDER
    facts = Facts(options.aet, "get")
    async with remote_ae(options, options=query_options_of(options)) as ae:
        retrieving = Retrieving(options.query, lambda each: ae.get(each.identifier, model=each.model.name), keeper)
        return await perform(options, retrieving, "got", f"into {keeper.folder}", facts)


COMMAND: Final = Command(HELP, parse, run)
