"""What commands print: results on standard output, the rest on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

LISTED_ON_A_TERMINAL: Final = 20


class OutputFailed(Exception):
    """Standard output cannot be written."""


def say(text: str) -> None:
    """Print a result.

    Raises:
        OutputFailed: it cannot be written.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        raise OutputFailed(error.strerror or "unknown") from error


def say_list(title: str, lines: Sequence[str]) -> None:
    """Print a list with its title, if there is anything in it; on a terminal not more than one can read.

    Raises:
        OutputFailed: it cannot be written.
    """
    if lines:
        listed = lines[:LISTED_ON_A_TERMINAL] if sys.stdout.isatty() else lines
        left = len(lines) - len(listed)
        more = [f"… and {left:,} more: redirect the output to a file to see all"] if left else []
        say("\n  ".join((f"{len(lines):,} {title}:", *listed, *more)))


def complain(text: str) -> None:
    """Print an error."""
    print(f"error: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print what is neither a result nor an error."""
    print(text, file=sys.stderr, flush=True)


def bold(text: str) -> str:
    """Return text that stands out on a terminal, where standard output is one that can do so (https://no-color.org)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return f"\x1b[1m{text}\x1b[0m"
    return text
