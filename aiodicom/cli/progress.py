"""How far work has come, on standard error: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, Protocol, TextIO

from aiodicom.cli.words import duration

SECONDS_BETWEEN_LINES: Final = 10.0
SECONDS_BETWEEN_DRAWINGS: Final = 0.1


class Tally(Protocol):
    """Work that keeps its account."""

    @property
    def count(self) -> str:
        """How much is done, in words: "600 of 1,200 files"; or what is done before that is known."""

    @property
    def volume(self) -> str:
        """How many bytes that comes to, in words; empty where there is nothing to say."""

    @property
    def completed(self) -> int:
        """How far it is, in whatever `total` counts."""

    @property
    def total(self) -> int | None:
        """How far it will go; None until that is known."""


class Display(Protocol):
    """Where progress is shown."""

    interval: float
    """How often, in seconds."""

    def show(self, tally: Tally) -> None:
        """Show it."""

    def close(self) -> None:
        """Take it away."""


class Lines:
    """A line from time to time, for logs and for terminals without rich."""

    def __init__(self, stream: TextIO, interval: float = SECONDS_BETWEEN_LINES) -> None:
        self.interval = interval
        self._stream = stream
        self._began = perf_counter()

    def show(self, tally: Tally) -> None:
        """Print a line."""
        words = filter(None, (tally.count, tally.volume, f"after {duration(perf_counter() - self._began)}"))
        print(", ".join(words), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: lines stay."""


class Bar:
    """A progress bar by rich, which goes away at the end."""

    def __init__(self, tally: Tally) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.interval = SECONDS_BETWEEN_DRAWINGS
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[volume]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task(tally.count, total=tally.total, volume=tally.volume)
        self._progress.start()

    def show(self, tally: Tally) -> None:
        """Draw it."""
        self._progress.update(
            self._task,
            description=tally.count,
            total=tally.total,
            completed=tally.completed,
            volume=tally.volume,
        )

    def close(self) -> None:
        """Wipe it away."""
        self._progress.stop()


@asynccontextmanager
async def shown(tally: Tally, *, hidden: bool = False, display: Display | None = None) -> AsyncIterator[None]:
    """Show progress while the block runs.

    Args:
        tally: what is shown.
        hidden: show nothing.
        display: where; by default as the terminal allows.
    """
    if hidden:
        yield
        return
    chosen = display or _display(tally)
    ticking = asyncio.get_running_loop().create_task(_tick(chosen, tally))
    try:
        yield
    finally:
        ticking.cancel()
        chosen.close()


async def _tick(display: Display, tally: Tally) -> None:
    while True:
        await asyncio.sleep(display.interval)
        display.show(tally)


def _display(tally: Tally) -> Display:
    if sys.stderr.isatty():
        try:
            return Bar(tally)
        except ImportError:
            pass
    return Lines(sys.stderr)
