"""How far a shipment is, on standard error: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, Protocol, TextIO

from aiodicom.cli.shipment import Tally
from aiodicom.cli.words import amount, duration, size

SECONDS_BETWEEN_LINES: Final = 10.0
SECONDS_BETWEEN_DRAWINGS: Final = 0.1


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
        if tally.files is None:
            words = "looking at the files"
        else:
            words = f"{tally.done:,} of {amount(tally.files, 'file')}, {size(tally.bytes_sent)} of {size(tally.size)}"
        print(f"{words}, after {duration(perf_counter() - self._began)}", file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: lines stay."""


class Bar:
    """A progress bar by rich, which goes away at the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.interval = SECONDS_BETWEEN_DRAWINGS
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[sent]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task("looking at the files", total=None, sent="")
        self._progress.start()

    def show(self, tally: Tally) -> None:
        """Draw it."""
        if tally.files is not None:
            self._progress.update(
                self._task,
                description=f"{tally.done:,}/{tally.files:,} files",
                total=tally.size,
                completed=tally.bytes_sent,
                sent=size(tally.bytes_sent),
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
    chosen = display or _display()
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


def _display() -> Display:
    if sys.stderr.isatty():
        try:
            return Bar()
        except ImportError:
            pass
    return Lines(sys.stderr)
