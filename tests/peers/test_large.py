"""An instance of 500 MB: what arrives is what was sent, and neither our sender nor our receiver holds it in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from aiodicom import InstanceFile, open_instance
from tests.peers.comparing import bundled
from tests.peers.conftest import StartPeer
from tests.peers.dcmtk import run
from tests.peers.measured import peak_memory
from tests.peers.process import LOOPBACK, execute
from tests.peers.synthetic import large_instance

# The processes measured run on uvloop, whichever loop waits for them.
pytestmark = [
    pytest.mark.asyncio(loop_factories=["uvloop"]),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it"),
]

ALLOWED_GROWTH: Final = 40_000_000  # bytes above what a small instance takes
CHUNK: Final = 4 * 1024 * 1024
MEASURED: Final = [sys.executable, "-m", "tests.peers.measured"]
SMALL: Final = "MR_small.dcm"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> InstanceFile:
    return large_instance(tmp_path_factory.mktemp("large") / "large.dcm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "kept"
    path.mkdir()
    return path


@dataclass(frozen=True, slots=True)
class Receiver:
    """Our server in a process of its own."""

    port: int
    process: int


@asynccontextmanager
async def running_receiver(folder: Path) -> AsyncIterator[Receiver]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*MEASURED, "receive", str(folder), stdin=pipe, stdout=pipe)
    assert process.stdin
    assert process.stdout
    try:
        yield Receiver(int(await process.stdout.readline()), process.pid)
    finally:
        process.stdin.close()
        await process.wait()


async def send(port: int, *files: Path) -> list[int]:
    """Let our client, in a process of its own, store the files; returns its peak of memory after each."""
    finished = await execute([*MEASURED, "send", LOOPBACK, str(port), *map(str, files)])
    assert finished.exit_code == 0, finished
    return [int(line) for line in finished.output.split()]


async def test_from_our_client_to_our_server(large: InstanceFile, folder: Path) -> None:
    small = bundled(SMALL)
    async with running_receiver(folder) as receiver:
        await send(receiver.port, small.path)
        before = peak_memory(receiver.process)
        sender = await send(receiver.port, small.path, large.path)
        after = peak_memory(receiver.process)
    check_and_remove(folder / f"{large.sop_instance_uid}.dcm", large)
    assert after - before < ALLOWED_GROWTH
    assert sender[1] - sender[0] < ALLOWED_GROWTH


async def test_from_our_client_to_storescp(large: InstanceFile, storescp: StartPeer) -> None:
    peer = await storescp("+B", "-pdu", "131072")
    sender = await send(peer.port, bundled(SMALL).path, large.path)
    [received] = [path for path in peer.received() if path.stat().st_size > large.size // 2]
    check_and_remove(received, large)
    assert sender[1] - sender[0] < ALLOWED_GROWTH


async def test_from_storescu_to_our_server(large: InstanceFile, folder: Path) -> None:
    async with running_receiver(folder) as receiver:
        address = [LOOPBACK, str(receiver.port)]
        small = await run("storescu", "-R", *address, bundled(SMALL).path)
        assert small.exit_code == 0, small
        before = peak_memory(receiver.process)
        stored = await run("storescu", "-R", *address, large.path)
        assert stored.exit_code == 0, stored
        after = peak_memory(receiver.process)
    check_and_remove(folder / f"{large.sop_instance_uid}.dcm", large)
    assert after - before < ALLOWED_GROWTH


def check_and_remove(received: Path, sent: InstanceFile) -> None:
    """Assert that the data set arrived byte for byte; then make room, for pytest keeps the folders of some runs."""
    with received.open("rb") as one, sent.path.open("rb") as other:
        one.seek(open_instance(received).data_set_offset)
        other.seek(sent.data_set_offset)
        while chunk := other.read(CHUNK):
            same = one.read(CHUNK) == chunk  # apart, so that pytest does not explain so many bytes
            assert same, f"{received.name} differs before byte {one.tell()}"
        assert not one.read(1)
    received.unlink()
