"""`aiodicom find`: what a peer has (C-FIND, PS3.4 §C.4.1 and §K.4.1)."""

from __future__ import annotations

import asyncio
import logging
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Final

from aiodicom.association import Association, Observer
from aiodicom.cli import peer
from aiodicom.cli.advice import Facts, tell_status, trouble
from aiodicom.cli.console import OutputFailed, complain, note
from aiodicom.cli.exits import ExitCode, exit_code_of
from aiodicom.cli.ignored import Ignored
from aiodicom.cli.options import (
    Command,
    Parser,
    add_association_options,
    add_verbosity,
    request,
    start_logging,
    whole_number,
)
from aiodicom.cli.output import Output, add_output, output_of
from aiodicom.cli.queries import (
    FORMS,
    Query,
    add_query_options,
    parse_with_query,
    query_of,
    query_options_of,
    refused_options,
)
from aiodicom.cli.words import amount, duration
from aiodicom.client import DEFAULT_TIMEOUTS
from aiodicom.dimse.commands import CFindRSP
from aiodicom.dimse.commands import Command as Message
from aiodicom.dimse.status import Category
from aiodicom.errors import AssociationError, DimseError, InvalidInstance, OperationTimeout
from aiodicom.scoped import Matches
from aiodicom.upper_layer.presentation import ProposedContext

HELP: Final = "ask a peer what it has (C-FIND)"
NOTES: Final = f"""\
{peer.FORMS}

{FORMS}

  aiodicom find PEER --level study -k PatientName='A*' -k ModalitiesInStudy"""

PATIENCE: Final = 1.0
"""How long matches are gathered for a table, in seconds, before those that are there are printed."""

_SOME_KEYS_NOT_SUPPORTED: Final = 0xFF01  # PS3.4 Table C.4-1
_log: Final = logging.getLogger("aiodicom.find")


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom find", "aiodicom find [options] PEER [FILE]", HELP, NOTES)
    parser.add_argument("words", metavar="PEER, FILE", nargs="+", help="see below")
    add_query_options(parser)
    add_output(parser)
    parser.add_argument(
        "--limit", "--cancel", metavar="N", type=whole_number(1, 1_000_000_000), help="stop after so many matches"
    )
    add_association_options(parser, response=DEFAULT_TIMEOUTS.pending)
    add_verbosity(parser)
    return parse_with_query(parser, arguments, _query_of)


def _query_of(options: Namespace, file: Path | None) -> Query:
    query = query_of(options, file)
    options.output = output_of(options.output, query)
    return query


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    start_logging(options)
    search = _Search(options)
    began = perf_counter()
    failure = None
    try:
        await search.run()
    except (AssociationError, OperationTimeout) as error:
        failure = error
    finally:
        options.output.end()
    if failure is not None:
        was_answered = search.count + search.broken > 0
        complain(trouble(failure, _facts(options), was_answered=was_answered))
        return exit_code_of(failure)
    return search.concluded(perf_counter() - began)


def _facts(options: Namespace) -> Facts:
    return Facts(options.aet, "find")


class _Search:
    """One C-FIND, and what comes of it."""

    def __init__(self, options: Namespace) -> None:
        self.count = 0
        self.broken = 0
        self._options = options
        self._negotiated = query_options_of(options)
        self._matches: Matches | None = None
        self._ignored = Ignored(options.query.identifier)

    async def run(self) -> None:
        """Ask, and print the matches as they come."""
        options, query = self._options, self._options.query
        contexts = [ProposedContext(query.model.find)]
        async with request(
            options, contexts, query_options=self._negotiated, observers=[_Unsupported()]
        ) as association:
            if refused := refused_options(self._negotiated, association.options_for(query.model.find)):
                _log.warning("the peer does not agree to %s", ", ".join(refused))
            self._matches = association.c_find(query.identifier, model=query.model.name)
            async with self._matches, _flushing(options.output):
                with suppress(DimseError):  # its status says it
                    await self._print(self._matches)

    async def _print(self, matches: Matches) -> None:
        while self._options.limit is None or self.count < self._options.limit:
            try:
                match = await anext(matches)
            except StopAsyncIteration:
                return
            except InvalidInstance:
                self.broken += 1
                continue
            self._options.output.show(match)
            self.count += 1
            if self._negotiated is None:
                self._ignored.look_at(match)

    def concluded(self, seconds: float) -> ExitCode:
        """Say how it ended, as far as that is not to be seen, and return what that comes to."""
        number = amount(self.count, "match", "matches") if self.count else "no matches"
        for keyword, count in self._ignored.counts().items():
            _log.warning(
                "in %d of %s %s is not what was asked for: the peer does not match by it here; ask at its own level",
                count,
                number,
                keyword,
            )
        is_cut = self.count == self._options.limit
        category = Category.SUCCESS if is_cut else self._told_status()  # cut, it is that of our own cancelling
        if self.broken:
            complain(f"{amount(self.broken, 'match', 'matches')} could not be decoded")
        if self.broken or category in (Category.FAILURE, Category.CANCEL):
            return ExitCode.FAILURES
        if not self._options.quiet and (sys.stdout.isatty() or not self.count):
            note(f"{number} in {duration(seconds)}{', and perhaps more' if is_cut else ''}")
        return ExitCode.WARNINGS if category is Category.WARNING else ExitCode.OK

    def _told_status(self) -> Category:
        """Tell what the final response says; return its category."""
        assert self._matches is not None
        status = self._matches.status
        assert status is not None
        tell_status(status, self._matches.comment, self._options.peer, _facts(self._options))
        return status.category


class _Unsupported(Observer):
    """Tells, once, that the peer does not support some of the keys."""

    def __init__(self) -> None:
        self._is_told = False

    def message_received(self, association: Association, command: Message) -> None:
        """Look whether the response says so."""
        if isinstance(command, CFindRSP) and command.status == _SOME_KEYS_NOT_SUPPORTED and not self._is_told:
            self._is_told = True
            _log.info(
                "%s does not support some of the keys (0xFF01): they neither match nor come back", association.peer
            )


@asynccontextmanager
async def _flushing(output: Output) -> AsyncIterator[None]:
    """Let the output print what it has, from time to time, while the block runs."""

    async def flush() -> None:
        while True:
            await asyncio.sleep(PATIENCE)
            with suppress(OutputFailed):  # whoever prints next will see it, too
                output.flush()

    flushing = asyncio.get_running_loop().create_task(flush())
    try:
        yield
    finally:
        flushing.cancel()


COMMAND: Final = Command(HELP, parse, run)
