"""What commands print: results on standard output, the rest on standard error."""

from __future__ import annotations

import sys


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


def complain(text: str) -> None:
    """Print an error."""
    print(f"error: {text}", file=sys.stderr, flush=True)
