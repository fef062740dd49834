"""`aiodicom echo`: is the peer there, and does it take associations from us (C-ECHO, PS3.4 Annex A)."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Final

from aiodicom.association import Association
from aiodicom.cli.console import say
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.options import (
    Command,
    Parser,
    add_association_options,
    add_verbosity,
    parse_with_peer,
    request,
    start_logging,
    whole_number,
)
from aiodicom.cli.peer import FORMS
from aiodicom.cli.words import amount, duration, status_words
from aiodicom.dimse.commands import CEchoRSP
from aiodicom.dimse.status import Category
from aiodicom.errors import DimseError
from aiodicom.logs import printable
from aiodicom.uids import VERIFICATION
from aiodicom.upper_layer.presentation import ProposedContext

HELP: Final = "ask a peer whether it is there (C-ECHO)"
_log: Final = logging.getLogger("aiodicom.echo")


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom echo", "aiodicom echo [options] PEER", HELP, FORMS)
    parser.add_argument("words", metavar="PEER", nargs="+", help="see below")
    parser.add_argument("--repeat", metavar="N", type=whole_number(1, 1_000_000), default=1, help="how often (1)")
    add_association_options(parser)
    add_verbosity(parser)
    options = parse_with_peer(parser, arguments)
    if options.rest:
        parser.error(f"unexpected: {' '.join(options.rest)}")
    return options


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    start_logging(options)
    began = perf_counter()
    async with request(options, [ProposedContext(VERIFICATION)]) as association:
        established = perf_counter() - began
        times, response = await _echo(association, options.repeat)
    if not options.quiet:
        implementation = printable(association.peer.implementation_version_name or "an implementation without a name")
        say(
            f"{options.peer} answered {_answer(times, response)}: it is there, and takes associations from {options.aet} "
            f"(association in {duration(established)}; {implementation})"
        )
    return ExitCode.OK if response.status.category is Category.SUCCESS else ExitCode.WARNINGS


async def _echo(association: Association, count: int) -> tuple[list[float], CEchoRSP]:
    """Return how long each C-ECHO took, and the last response."""
    times = []
    for _ in range(count):
        began = perf_counter()
        response = await association.c_echo()
        times.append(perf_counter() - began)
        _log.info("C-ECHO-RSP: %s", status_words(response.status, response.error_comment))
        if response.status.category not in (Category.SUCCESS, Category.WARNING):
            raise DimseError(response.status, response.error_comment or response.status.description)
    return times, response


def _answer(times: Sequence[float], response: CEchoRSP) -> str:
    if len(times) == 1:
        return f"C-ECHO in {duration(times[0])} with {status_words(response.status, response.error_comment)}"
    span = f"{duration(min(times))} to {duration(max(times))}"
    return f"{amount(len(times), 'C-ECHO')} in {duration(median(times))} each ({span})"


COMMAND: Final = Command(HELP, parse, run)
