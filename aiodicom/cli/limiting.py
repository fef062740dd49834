"""The limits on the command line: an option for each, by the name that it has in Python and in `aiodicom.toml`."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Final

from aiodicom.cli.configuration import known_limits
from aiodicom.cli.options import Parser
from aiodicom.errors import LocalProtocolError
from aiodicom.limits import DEFAULT_LIMITS, Limits, described, parse_limit

_SHORTER: Final = {"maximum_length": ("-pdu", "--max-pdu"), "maximum_associations": ("--max-associations",)}
_PREFIX: Final = "limit_"


def add_limits(parser: Parser) -> None:
    """Add an option for each limit, which `limits_of` reads."""
    group = parser.add_argument_group(
        "limits", "Each may also be a line of [limits] in aiodicom.toml, with _ for -. BYTES: as in 16M, or none."
    )
    for name, unit, default, words in described():
        option = (*_SHORTER.get(name, ()), f"--{name.replace('_', '-')}")
        help_ = f"{words} ({default})".replace("%", "%%")
        if isinstance(getattr(DEFAULT_LIMITS, name), bool):
            group.add_argument(*option, dest=_PREFIX + name, action="store_true", default=SUPPRESS, help=help_)
        else:
            metavar = {"s": "SECONDS", "bytes": "BYTES", "bytes/s": "BYTES"}.get(unit, "N")
            group.add_argument(
                *option, dest=_PREFIX + name, metavar=metavar, type=_reader_of(name), default=SUPPRESS, help=help_
            )


def _reader_of(name: str) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return parse_limit(name, text)
        except LocalProtocolError as error:
            raise ArgumentTypeError(str(error).removeprefix(f"{name}: ")) from None

    return read


def limits_of(options: Namespace) -> Limits:
    """Return the limits: what the options say, else the configuration, else the defaults.

    Raises:
        LocalProtocolError: the configuration is wrong, or cannot be read.
    """
    said = {name.removeprefix(_PREFIX): value for name, value in vars(options).items() if name.startswith(_PREFIX)}
    return DEFAULT_LIMITS.changed(**{**known_limits(options.config), **said})
