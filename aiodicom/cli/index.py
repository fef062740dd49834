"""`aiodicom index rebuild`: make the index of an archive again from its files."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from anyio import to_thread

from aiodicom.cli.console import complain, say, say_list
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.options import Command, Parser, add_storage, add_verbosity, start_logging
from aiodicom.cli.words import amount, duration
from aiodicom.logs import printable

HELP: Final = "rebuild the index of an archive from its files"
NOTES: Final = """\
Every file below the folder is read and stays where it is; the index that there was is replaced when
the new one is complete. Files that cannot be read are named. The server must not be running."""

SECONDS_BETWEEN_LINES: Final = 10.0


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom index", "aiodicom index [options] rebuild", HELP, NOTES)
    parser.add_argument("action", metavar="rebuild", choices=("rebuild",), help="what to do")
    add_storage(parser)
    add_verbosity(parser)
    return parser.parse_intermixed_args(arguments)


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    start_logging(options)
    from aiodicom.archive import rebuild

    if not options.storage.is_dir():
        complain(f"{options.storage}: there is no such folder; --storage names the archive's")
        return ExitCode.CANNOT_USE_FOLDER
    began = perf_counter()
    progress = _Progress(hidden=options.quiet)
    try:
        made = await to_thread.run_sync(lambda: rebuild(options.storage, progress=progress))
    except OSError as error:
        complain(f"{options.storage}: the index cannot be made: {error.strerror}")
        return ExitCode.CANNOT_USE_FOLDER
    if not options.quiet:
        counts = ", ".join(
            (amount(made.instances, "instance"), f"{made.series:,} series", amount(made.studies, "study", "studies"))
        )
        say(
            f"the index of {options.storage} has {counts}, of {amount(made.patients, 'patient')}; "
            f"it took {duration(perf_counter() - began)}"
        )
    say_list("are not in the index", [f"{printable(path)}: {printable(reason)}" for path, reason in made.problems])
    return ExitCode.WARNINGS if made.failed else ExitCode.OK


class _Progress:
    """A line on standard error from time to time; it is told from a worker thread."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._next = perf_counter() + SECONDS_BETWEEN_LINES

    def __call__(self, count: int) -> None:
        now = perf_counter()
        if not self._hidden and now >= self._next:
            self._next = now + SECONDS_BETWEEN_LINES
            print(f"{amount(count, 'file')} read", file=sys.stderr, flush=True)


COMMAND: Final = Command(HELP, parse, run)
