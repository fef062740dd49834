"""Shows how far a run has come: which case of how many, whose turn it is, and how long it has taken so far."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Writes a line when a case begins, and one for each turn of a contender: its name first, what it did when it has.

    Args:
        cases: how many there are.
        file: where to write; the standard error by default.
    """

    def __init__(self, cases: int, file: TextIO | None = None) -> None:
        self._cases = cases
        self._case = 0
        self._file = file or sys.stderr
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._begun

    def case(self, title: str) -> None:
        """Begin the next case."""
        self._case += 1
        self.say(f"[{self._case}/{self._cases}] {title}")

    @contextmanager
    def turn(self, name: str, number: int, rounds: int) -> Iterator[Callable[[str], None]]:
        """Show a turn while it lasts; what it did is told to the function, or is the error that it ends with."""
        of_rounds = f" ({number}/{rounds})" if rounds > 1 else ""
        self._write(f"{self.seconds:5.0f} s   {name}{of_rounds}: ")
        try:
            yield self._end
        except Exception as error:
            self._end(str(error))
            raise

    def say(self, line: str) -> None:
        """Write a line with the time."""
        self._write(f"{self.seconds:5.0f} s {line}\n")

    def _end(self, words: str) -> None:
        self._write(f"{words}\n")

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
