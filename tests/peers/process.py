"""Programs of other makers as processes: found, run to their end, or kept running for a test with their output."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO, Final

import pytest

LOOPBACK: Final = "127.0.0.1"
NOWHERE: Final[Mapping[str, int]] = MappingProxyType({})  # no destination of C-MOVE
# Below the ports that Linux gives to outgoing connections, so that no connection takes one before its listener does.
PORTS: Final = range(15_000, 32_000)
SCRIPT_HEAD: Final = 1_024  # bytes, in which an installed script names its module
SECONDS_TO_START: Final = 30.0
SECONDS_TO_STOP: Final = 10.0
SECONDS_BETWEEN_LOOKS: Final = 0.02


def require(program: str, package: str) -> str:
    """The path of a program; without it the test is skipped, or fails where every peer must be there."""
    for folder in [*os.get_exec_path(), "/usr/sbin"]:
        found = shutil.which(program, path=folder)
        # pynetdicom installs scripts under the names of DCMTK's programs.
        if found and b"pynetdicom" not in Path(found).read_bytes()[:SCRIPT_HEAD]:
            return found
    reason = f"install the Debian package {package} to run this test"
    if any(os.environ.get(name, "0").lower() not in {"", "0", "false"} for name in ("AIODICOM_REQUIRE_PEERS", "CI")):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended, and what it printed on its standard output and its standard error."""

    exit_code: int
    output: str
    errors: str


async def execute(command: Sequence[str], *, stdin: bytes = b"", deadline: float = 60.0) -> Finished:
    """Run a program to its end while the event loop goes on; beyond the deadline, in seconds, the test fails."""
    # Files, not pipes: they keep what was printed before a deadline.
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        process = await asyncio.create_subprocess_exec(*command, stdin=given, stdout=output, stderr=errors)
        try:
            async with asyncio.timeout(deadline):
                exit_code = await process.wait()
        except TimeoutError:
            pytest.fail(f"{command[0]} did not end within {deadline:g} s:\n{read(output)}{read(errors)}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Finished(exit_code, read(output), read(errors))


def read(file: IO[bytes]) -> str:
    """A file's text, from its beginning."""
    file.seek(0)
    return file.read().decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Peer:
    """A running SCP: its address, the directory in which it keeps what it receives, and its log."""

    name: str
    ae_title: str
    port: int
    directory: Path
    log: Path
    host: str = LOOPBACK

    def received(self) -> list[Path]:
        """The files it has kept, by name; what dcmqrscp notes about them is none."""
        return sorted(path for path in self.directory.iterdir() if path.is_file() and path.name != "index.dat")

    def output(self, start: int = 0) -> str:
        """What it has printed, from that byte on."""
        return self.log.read_bytes()[start:].decode(errors="replace")


@contextmanager
def running(peer: Peer, command: Sequence[str], *, ready_port: int | None = None) -> Iterator[Peer]:
    """Keep a server running: entered when it takes connections; left when it, and all it forked, have ended.

    `ready_port` is the port that it opens last; by default its DICOM port.

    What it printed is printed again at the end: pytest shows that where the test failed.
    """
    with peer.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a process group of its own, so that what it forks can be ended with it
        )
    try:
        wait_until_listening(peer, process, ready_port or peer.port)
        yield peer
    finally:
        stop(process)
        print(f"--- {peer.name} printed:\n{peer.output()}")


def wait_until_listening(peer: Peer, process: subprocess.Popen[bytes], port: int) -> None:
    """Return as soon as a connection can be made; raise when the process ended, or took too long."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{peer.name} ended with exit code {process.returncode}; it printed:\n{peer.output()}")
        with suppress(OSError), socket.create_connection((peer.host, port), timeout=SECONDS_TO_START):
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise RuntimeError(f"{peer.name} took no connection within {SECONDS_TO_START:g} s; it printed:\n{peer.output()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group: politely first, then surely."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_STOP)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ports_of_this_process() -> Iterator[int]:
    """Ports in any order, none of them twice: what got one may not listen at it yet when the next is asked for.

    Workers of pytest-xdist, each a process, have ports of their own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = PORTS[worker::workers]
    return cycle(random.sample(own, len(own)))


_untaken_ports: Final = _ports_of_this_process()


def free_port() -> int:
    """A TCP port on which nobody listens, nor is about to."""
    for port in _untaken_ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError  # they never end
