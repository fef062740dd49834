"""The command line: `aiodicom serve`, `echo`, `store`, `find`, `get`, `move`, `nodes`, `index`, `status`.

pydicom and rich are imported where they are needed: a C-ECHO needs neither.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Final

from aiodicom.cli import echo, find, get, index, move, nodes, serve, status, store
from aiodicom.cli.console import OutputFailed, complain
from aiodicom.cli.exits import ExitCode, exit_code_of
from aiodicom.cli.options import Command, Parser
from aiodicom.cli.words import with_uid_names
from aiodicom.errors import DicomNetworkError
from aiodicom.version import __version__

__all__ = ["main", "perform"]

COMMANDS: Final[Mapping[str, Command]] = {
    "serve": serve.COMMAND,
    "echo": echo.COMMAND,
    "store": store.COMMAND,
    "find": find.COMMAND,
    "get": get.COMMAND,
    "move": move.COMMAND,
    "nodes": nodes.COMMAND,
    "index": index.COMMAND,
    "status": status.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, by default those of the process; return its exit code.

    Raises:
        SystemExit: the arguments are wrong (1), name what cannot be read (20, 21, 23), or ask for help (0).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name may be no text
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] not in COMMANDS:
        parser = _parser()
        if not arguments:
            parser.print_help(sys.stderr)
            return ExitCode.USAGE
        parser.parse_args(arguments)
        parser.error("the command comes first")
    return perform(COMMANDS[arguments[0]], arguments[1:])


def perform(command: Command, arguments: Sequence[str]) -> int:
    """Run a command, and return its exit code.

    Raises:
        SystemExit: as for `main`.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # pydicom's are for programmers, and may quote values
    try:
        options = command.parse(arguments)
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            return runner.run(_awaited(command, options))
    except DicomNetworkError as error:
        complain(with_uid_names(str(error)))
        return exit_code_of(error)
    except OutputFailed as error:
        # The interpreter would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error.__cause__, BrokenPipeError):  # who reads has read enough
            complain(f"the output cannot be written: {error}")
        return ExitCode.CANNOT_WRITE_OUTPUT
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


async def _awaited(command: Command, options: Namespace) -> ExitCode:
    return await command.run(options)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Make a loop of uvloop where that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _parser() -> Parser:
    """Return the parser of a command line that does not begin with a command: for help, and for errors."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    parser = Parser(
        "aiodicom",
        "aiodicom COMMAND [options] …",
        "The asyncio-native DICOM network stack.",
        f"commands (aiodicom COMMAND --help says more):\n{commands}",
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="see below")
    parser.add_argument("--version", action="version", version=f"aiodicom {__version__}")
    return parser
