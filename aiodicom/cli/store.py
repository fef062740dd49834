"""`aiodicom store`: send files, and those in folders, each as it is (C-STORE, PS3.4 Annex B)."""

from __future__ import annotations

import asyncio
import logging
import os
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

from anyio import to_thread

from aiodicom.cli.console import complain, say, say_list
from aiodicom.cli.exits import ExitCode, combined, exit_code_of
from aiodicom.cli.options import (
    Command,
    Parser,
    add_association_options,
    add_verbosity,
    parse_with_peer,
    remote_ae,
    start_logging,
    whole_number,
)
from aiodicom.cli.peer import FORMS
from aiodicom.cli.progress import shown
from aiodicom.cli.shipment import Shipment
from aiodicom.cli.words import amount, duration, rate, size, status_words, with_uid_names
from aiodicom.dimse.status import Category
from aiodicom.errors import DicomNetworkError, InvalidInstance
from aiodicom.part10 import InstanceFile
from aiodicom.planning import find_files
from aiodicom.remote import Outcome
from aiodicom.remote.ae import MAXIMUM_ASSOCIATIONS

HELP: Final = "send files, and those in folders and below (C-STORE)"
NOTES: Final = f"""\
{FORMS}

An instance goes out as it is where the peer accepts that, else transcoded between the uncompressed
transfer syntaxes. Compressed pixel data is decompressed only with --decompress."""

_log: Final = logging.getLogger("aiodicom.store")


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom store", "aiodicom store [options] PEER FILE|FOLDER …", HELP, NOTES)
    parser.add_argument("words", metavar="PEER, FILE, FOLDER", nargs="+", help="see below")
    parser.add_argument("--decompress", action="store_true", help="decompress what the peer does not take compressed")
    parser.add_argument(
        "--window",
        metavar="N",
        type=whole_number(1, 0xFFFF),
        help="instances on their way at a time on an association (as many as help)",
    )
    parser.add_argument(
        "--associations",
        metavar="N",
        type=whole_number(1, 1024),
        help=f"associations at a time (as many as help, up to {MAXIMUM_ASSOCIATIONS})",
    )
    parser.add_argument(
        "--retries",
        metavar="N",
        type=whole_number(0, 1024),
        default=3,
        help="how often to try again what may go better later: the association was lost, the peer is full (3)",
    )
    add_association_options(parser)
    add_verbosity(parser)
    options = parse_with_peer(parser, arguments)
    options.paths = [Path(word) for word in options.rest]
    if not options.paths:
        parser.error("name the files or folders to send")
    return options


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    start_logging(options)
    if unreadable := [path for path in options.paths if not os.access(path, os.R_OK)]:
        for path in unreadable:
            complain(f"{path}: {'no permission to read it' if path.exists() else 'no such file or folder'}")
        return ExitCode.CANNOT_READ_INPUT
    associations = options.associations
    async with remote_ae(options, maximum_associations=associations or MAXIMUM_ASSOCIATIONS) as ae:
        pace = {"associations": associations, "window": options.window}
        send = partial(ae.send, decompress=options.decompress, retries=options.retries, **pace)
        shipment = Shipment(send, _log_outcome)
        async with shown(shipment, hidden=options.quiet or options.verbose or options.debug):
            files, broken = await to_thread.run_sync(find_files, options.paths, abandon_on_cancel=True)
            began = perf_counter()
            try:
                await shipment.send(files)
            except asyncio.CancelledError:
                _report(options, shipment, broken, perf_counter() - began)
                raise
            seconds = perf_counter() - began
    if not files:
        for each in broken:
            complain(str(each))
        complain("none of the files can be sent" if broken else "there are no files in these folders")
        return ExitCode.NO_VALID_INPUT if broken else ExitCode.NO_INPUT
    _report(options, shipment, broken, seconds)
    return _exit_code(shipment, broken)


def _log_outcome(outcome: Outcome) -> None:
    _log.info("%s: %s", outcome.path, _words(outcome))


def _words(outcome: Outcome) -> str:
    if outcome.response is not None:
        return f"C-STORE-RSP {status_words(outcome.response.status, outcome.response.error_comment)}"
    return with_uid_names(str(outcome.error).removeprefix(f"{outcome.path}: "))


def _report(options: Namespace, shipment: Shipment, broken: Sequence[InvalidInstance], seconds: float) -> None:
    """Print what was done, and everything that was not."""
    warnings = [each for each in shipment.outcomes if each.category is Category.WARNING]
    failures = [each for each in shipment.outcomes if not each.is_stored]
    sent = len(shipment.outcomes) - len(failures)
    if not options.quiet:
        files = [each.instance for each in shipment.outcomes if each.is_stored]
        done = sum(file.size for file in files if isinstance(file, InstanceFile))
        what = f"sent {amount(sent, 'instance')} ({size(done)})" if sent else "sent nothing"
        say(f"{what} to {options.peer} in {duration(seconds)}{rate(sent, done, seconds)}")
        say_list("with a warning", [f"{each.path}: {_words(each)}" for each in warnings])
    say_list("failed", [f"{each.path}: {_words(each)}" for each in failures])
    say_list("cannot be sent", [str(each) for each in broken])
    if sent or failures:
        say_list("not sent, and can be sent again", [str(file.path) for file in shipment.remaining])
    if shipment.error is not None:
        complain(with_uid_names(str(shipment.error)))


def _exit_code(shipment: Shipment, broken: Sequence[InvalidInstance]) -> ExitCode:
    sent = any(each.is_stored for each in shipment.outcomes)
    if shipment.error is not None:
        return ExitCode.PARTIAL if sent else exit_code_of(shipment.error)
    code = combined([*map(_exit_code_of, shipment.outcomes), *map(exit_code_of, broken)])
    if code is ExitCode.INVALID_INPUT and not sent:
        return ExitCode.NO_VALID_INPUT
    # 66 says that nothing found a presentation context: where something did, there were failures.
    return ExitCode.FAILURES if code is ExitCode.NO_PRESENTATION_CONTEXT and sent else code


def _exit_code_of(outcome: Outcome) -> ExitCode:
    """Return what the command would end with, were it the only one."""
    if isinstance(outcome.error, DicomNetworkError):
        return exit_code_of(outcome.error)
    if outcome.is_stored:
        return ExitCode.WARNINGS if outcome.category is Category.WARNING else ExitCode.OK
    return ExitCode.FAILURES


COMMAND: Final = Command(HELP, parse, run)
