"""The command line as a process: run to its end, or kept running and read line by line; and files for it to send."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from aiodicom.association import Observer
from aiodicom.handlers import Handler, Service
from aiodicom.part10 import file_meta
from aiodicom.server import Server
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.canaries import sung
from tests.loopback import CT, data_set, instance_uid
from tests.peers.process import Finished, execute

PROGRAM: Final = (sys.executable, "-m", "aiodicom")
SECONDS_FOR_A_LINE: Final = 60.0
# A process does not care which event loop waits for it.
once = pytest.mark.asyncio(loop_factories=["asyncio"])


async def run(*arguments: str | Path) -> Finished:
    """Run the program to its end; nothing of a patient may be among what it logs."""
    done = await execute([*PROGRAM, *map(str, arguments)])
    assert not sung(done.errors), done.errors
    return done


class Running:
    """A program that runs, and what it printed."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.errors: list[str] = []
        self.output: list[str] = []

    async def line(self) -> str:
        """The next line on standard output."""
        assert self.process.stdout is not None
        return await self._read(self.process.stdout, self.output)

    async def error_with(self, words: str) -> str:
        """The next line on standard error with those words in it."""
        assert self.process.stderr is not None
        while words not in (line := await self._read(self.process.stderr, self.errors)):
            assert line, f"{words!r} was never printed, but {self.errors}"
        return line

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> str:
        async with asyncio.timeout(SECONDS_FOR_A_LINE):
            line = (await stream.readline()).decode()
        lines.append(line)
        assert stream is not self.process.stderr or not sung(line), line
        return line

    async def end(self) -> Finished:
        """Wait for its end; what was read before is not among what it returns."""
        async with asyncio.timeout(SECONDS_FOR_A_LINE):
            output, errors = await self.process.communicate()
        assert self.process.returncode is not None
        assert not sung(errors.decode()), errors
        return Finished(self.process.returncode, output.decode(), errors.decode())


@asynccontextmanager
async def serving(
    store: Handler | None = None,
    *,
    services: Sequence[Service] = (),
    observers: Sequence[Observer] = (),
    require_called_ae_title: bool = False,
    maximum_associations: int = 128,
) -> AsyncIterator[Server]:
    """A server on a free port, without a deadline of its own: a process takes its time to start."""
    server = Server(
        "SCP",
        port=0,
        stop_timeout=0,
        services=services,
        observers=observers,
        require_called_ae_title=require_called_ae_title,
        maximum_associations=maximum_associations,
    )
    if store is not None:
        server.on_c_store(store)
    async with server:
        yield server


@asynccontextmanager
async def started(*arguments: str | Path) -> AsyncIterator[Running]:
    """The program, running; in the end it is stopped."""
    process = await asyncio.create_subprocess_exec(*PROGRAM, *map(str, arguments), stdout=PIPE, stderr=PIPE)
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def write_files(folder: Path, count: int, *, sop_class: str = CT, first: int = 1) -> list[Path]:
    """Small instances, in Implicit VR Little Endian."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + count):
        path = folder / f"{number:03}.dcm"
        meta = file_meta(sop_class, instance_uid(number), IMPLICIT_VR_LITTLE_ENDIAN)
        path.write_bytes(meta + data_set(number, sop_class=sop_class))
        paths.append(path)
    return paths
