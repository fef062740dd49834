"""`aiodicom serve` as a process that is killed, or told to end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench import proc
from bench.processes import BenchError

AE_TITLE: Final = "AIODICOM"
"""Its own."""

READER: Final = "READER"
"""The AE title of who may ask for what is kept."""

SECONDS_TO_START: Final = 120.0  # on a machine that does much else
SECONDS_TO_END: Final = 60.0
_CONFIGURATION: Final = f'[nodes.reader]\nae_title = "{READER}"\nhost = "127.0.0.1"\nport = 104\n'


class Served:
    """An archive that is served; entering waits until it listens, and leaving kills it where it still runs.

    Args:
        folder: what holds the archive, the configuration, and the log.
        options: further ones of the command.
        under: makes the command of one that runs it.

    Attributes:
        port: where it listens.
    """

    def __init__(self, folder: Path, *options: str, under: Callable[[Sequence[str]], Sequence[str]] = list) -> None:
        self.archive = folder / "archive"
        self._configuration = folder / "aiodicom.toml"
        self._log = folder / "serve.log"
        where = ("--storage", str(self.archive), "--config", str(self._configuration))
        self._is_under_another = under is not list
        self._command = under([sys.executable, "-m", "aiodicom", "serve", "--port=0", *where, *options])
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self) -> None:
        """Start it, and do not wait."""
        self._configuration.write_text(_CONFIGURATION)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )

    async def __aenter__(self) -> Self:
        """Start it, and wait until it listens.

        Raises:
            BenchError: it ended at once.
        """
        await self.start()
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS_TO_START):
            line = (await self._process.stdout.readline()).decode()
        if (found := re.search(r"port (\d+)", line)) is None:
            raise BenchError(f"aiodicom serve does not start:\n{self._log.read_text(encoding='utf-8')[-2000:]}")
        self.port = int(found[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Kill it where it still runs."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def kill(self) -> None:
        """Kill it and all its processes, and wait until they have gone."""
        assert self._process is not None
        for pid in proc.family(self._process.pid):
            if pid != self._process.pid or not self._is_under_another:  # that one ends when it has seen the end
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await self._process.communicate()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the server itself, and return its exit code."""
        assert self._process is not None
        os.kill(list(proc.family(self._process.pid))[self._is_under_another], number)
        async with asyncio.timeout(SECONDS_TO_END):
            await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode
