"""What the command lines have in common: DCMTK's options, the exit codes, and the log that `-v` and `-d` print."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from aiodicom.association import Observer
from aiodicom.cli import exits
from aiodicom.cli.configuration import known_nodes
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.identity import ConfirmationWanted, add_identity, identity_of
from aiodicom.cli.negotiation import Narrator
from aiodicom.cli.peer import parse_peer
from aiodicom.cli.tls import add_tls, credentials_for
from aiodicom.client import DEFAULT_TIMEOUTS, AssociationRequest, associate
from aiodicom.errors import LocalProtocolError
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.logs import JSONFormatter, LineFormatter, LoggingObserver
from aiodicom.query import QueryOptions
from aiodicom.upper_layer.pdu import valid_ae_title
from aiodicom.upper_layer.presentation import ProposedContext

if TYPE_CHECKING:
    from aiodicom.remote import RemoteAE

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""What this machine calls itself."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the program.

    Args:
        help: what it does, in a line.
        parse: makes options of its arguments; ends the process where they are wrong, or ask for help.
        run: does it.
    """

    help: str
    parse: Callable[[Sequence[str]], Namespace]
    run: Callable[[Namespace], Awaitable[ExitCode]]


class Parser(ArgumentParser):
    """An argument parser that takes DCMTK's options, explains the exit codes, and ends with 1 for a wrong usage.

    Args:
        prog: the command.
        usage: how to use it.
        description: what it does.
        notes: what else `--help` says.
    """

    def __init__(self, prog: str, usage: str, description: str, notes: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog="\n\n".join(filter(None, (notes, exits.table()))),
            prefix_chars="-+",
            allow_abbrev=False,
            formatter_class=RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong with the command line; end with 1."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"error: {message}\n")


def add_verbosity(parser: Parser) -> None:
    """Add `-q`, `-v`, `-d` and `--log-format`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    group.add_argument("-v", "--verbose", action="store_true", help="print the negotiation and each status")
    group.add_argument("-d", "--debug", action="store_true", help="print every PDU and every message")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="of what is logged: JSON is an object a line"
    )


def add_association_options(parser: Parser, *, response: float | None = DEFAULT_TIMEOUTS.response) -> None:
    """Add what `parse_with_peer`, `request` and `remote_ae` need.

    Args:
        parser: where to.
        response: how long each response may take unless the user says so, in seconds.
    """
    parser.add_argument("-aec", "--call", metavar="AET", help="the peer's AE title (default: ANY-SCP)")
    parser.add_argument("-aet", "--aet", metavar="AET", type=ae_title, default="AIODICOM", help="ours (%(default)s)")
    add_config(parser)
    add_tls(parser)
    add_maximum_length(parser)
    for option, word, default, what in (
        ("-to", "connect", DEFAULT_TIMEOUTS.connect, "for a connection"),
        ("-ta", "associate", DEFAULT_TIMEOUTS.associate, "for the answer to our association request"),
        ("-td", "response", response, "for each response"),
    ):
        parser.add_argument(
            option,
            dest=f"{word}_timeout",
            metavar="SECONDS",
            type=seconds,
            default=default,
            help=f"how long to wait {what} (%(default)g)",
        )
    add_identity(parser)


def add_config(parser: Parser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="where the nodes are (./aiodicom.toml or ~/.config/aiodicom/…)"
    )


def add_maximum_length(parser: Parser) -> None:
    """Add `-pdu`."""
    parser.add_argument(
        "-pdu",
        "--max-pdu",
        dest="maximum_length",
        metavar="BYTES",
        type=whole_number(0, 0xFFFFFFFF),
        default=DEFAULT_LIMITS.maximum_length,
        help="the longest P-DATA that we take, 0 for any (%(default)s)",
    )


def add_storage(parser: Parser) -> None:
    """Add `--storage`."""
    parser.add_argument(
        "--storage", metavar="DIR", type=Path, default=Path("archive"), help="folder of the archive (./archive)"
    )


def parse_with_peer(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Parse a command line whose first words name a peer.

    `peer`, `rest`, `identity` and `credentials` of the result are what they, and the options besides, come to.
    """
    options = parser.parse_intermixed_args(arguments)
    try:
        options.identity = identity_of(options)
        options.peer, options.rest = parse_peer(options.words, options.call, partial(known_nodes, options.config))
        options.credentials = credentials_for(options, options.peer)
    except (ValueError, LocalProtocolError) as error:
        parser.error(str(error))
    return options


def request(
    options: Namespace,
    contexts: Sequence[ProposedContext],
    *,
    operations_window: tuple[int, int] | None = None,
    query_options: QueryOptions | None = None,
    observers: Sequence[Observer] = (),
) -> AssociationRequest:
    """Ask the peer for an association as the options say; the rest is as for `associate`, with more observers."""
    return associate(
        options.peer.host,
        options.peer.port,
        called_ae_title=options.peer.ae_title,
        contexts=contexts,
        operations_window=operations_window,
        options=query_options,
        **_terms(options, observers),
    )


def remote_ae(options: Namespace, /, **more: Any) -> RemoteAE:  # noqa: ANN401 - those of RemoteAE
    """Return the peer as the options describe it; the rest is as for `RemoteAE`."""
    from aiodicom.remote import RemoteAE

    return RemoteAE(options.peer.host, options.peer.port, ae_title=options.peer.ae_title, **_terms(options), **more)


def _terms(options: Namespace, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Return how to associate."""
    return {
        "calling_ae_title": options.aet,
        "maximum_length": options.maximum_length,
        "tls": options.credentials,
        "identity": options.identity,
        "allow_plain_passcode": options.allow_plain_passcode,
        "timeouts": replace(
            DEFAULT_TIMEOUTS,
            connect=options.connect_timeout,
            associate=options.associate_timeout,
            response=options.response_timeout,
            pending=options.response_timeout,
        ),
        "observers": (*_observers(options), *observers),
    }


def _observers(options: Namespace) -> tuple[Observer, ...]:
    """Return who tells what happens on an association of ours: nobody, unless the options ask for it."""
    return (*_narrators(options), *((ConfirmationWanted(),) if options.pos_response else ()))


def _narrators(options: Namespace) -> tuple[Observer, ...]:
    if options.debug:
        return Narrator(fragments=True), LoggingObserver()
    return (Narrator(),) if options.verbose else ()


def start_logging(options: Namespace, *, with_time: bool = False, worker: int | None = None) -> None:
    """Let the package's log go to standard error: from warnings on, with `-v` and `-d` everything they ask for.

    Args:
        options: of the command line.
        with_time: whether lines of text begin with the time; those of JSON always have it.
        worker: which of several processes we are.
    """
    handler = logging.StreamHandler()
    if options.log_format == "json":
        handler.setFormatter(JSONFormatter({} if worker is None else {"worker": worker}))
    else:
        words = ("%(asctime)s" if with_time else "", "" if worker is None else f"[{worker}]", "%(message)s")
        handler.setFormatter(LineFormatter(" ".join(filter(None, words)), "%H:%M:%S"))
    logger = logging.getLogger("aiodicom")
    logger.addHandler(handler)
    logger.propagate = False
    if options.debug:
        logger.setLevel(logging.DEBUG)
    elif options.verbose:
        logger.setLevel(logging.INFO)
    else:
        logger.setLevel(logging.ERROR if options.quiet else logging.WARNING)


def ae_title(text: str) -> str:
    """Return an AE title (PS3.5 §6.2), as the type of an option."""
    if not valid_ae_title(text):
        raise ArgumentTypeError(f"{text!r} is no AE title: 1 to 16 ASCII characters, without a backslash")
    return text


def seconds(text: str) -> float:
    """Return a positive time, as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no time in seconds")
    return value


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return the type of an option that takes a number in that range."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and lowest <= int(text) <= highest):
            raise ArgumentTypeError(f"{text!r} is no number from {lowest} to {highest}")
        return int(text)

    return number
