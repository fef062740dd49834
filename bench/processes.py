"""Both ends of a measurement as processes: found, pinned to a processor, watched, ended. Linux only.

A server runs as long as its case; a client runs once in each round. What a Python client used between the first byte and
the last it reports itself, as JSON on its standard output; any other client is measured from outside, as a whole.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from bench import proc

LOOPBACK: Final = "127.0.0.1"
MEMORY: Final = Path("/dev/shm")  # a file system in memory: disks are not what is measured
# Below the ports that Linux gives to outgoing connections, so that no connection takes one before its listener does. The
# odd ones are left to the destinations of C-MOVE.
PORTS: Final = range(15_000, 32_000, 2)
SCRIPT_HEAD: Final = 1024  # bytes, in which an installed script names its module
SECONDS_TO_START: Final = 30.0
SECONDS_TO_STOP: Final = 5.0
SECONDS_BEFORE_A_KILL: Final = 1.0  # Orthanc takes four to end; nobody reads again what it has stored
SECONDS_BETWEEN_LOOKS: Final = 0.02
SECONDS_OF_SILENCE: Final = 2.0  # over which the processor time of an idle server is taken


class BenchError(Exception):
    """A measurement that did not come about, and why."""


class PeerMissing(BenchError):
    """A program of a peer that is not installed."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The processors that the ends are pinned to.

    Args:
        client: that of the end that sends.
        server: that of the end that receives, and of all it forks.
    """

    client: int
    server: int


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, and what it finds in its environment besides what we have."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def words(self) -> str:
        """The program's name and the first few of its arguments, for messages."""
        program, *arguments = self.arguments
        return " ".join([Path(program).name, *arguments[:3]])

    def start(self, core: int, stdout: int | IO[bytes], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
        """Start it on one processor, in a process group of its own, with a standard input that stays open."""
        return subprocess.Popen(
            self.arguments,
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )


@dataclass(frozen=True, slots=True)
class Use:
    """What one end used for one run.

    Args:
        cpu: processor time, in seconds.
        peak: the most memory it had, in bytes; None where that is not known.
        added: how much more that is than it had when it was ready to begin.
    """

    cpu: float
    peak: int | None = None
    added: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a client against a server: wall time in seconds, and what both ends used."""

    seconds: float
    client: Use
    server: Use


@dataclass(frozen=True, slots=True)
class Idle:
    """Associations that were opened and left alone.

    Args:
        seconds: how long it took to open them.
        memory: how much more the server and all its processes hold, in bytes.
        cpu: the share of a processor that they use while nothing happens.
    """

    seconds: float
    memory: int
    cpu: float


def find(program: str, package: str = "dcmtk") -> str:
    """Return the path of a peer's program.

    Raises:
        PeerMissing: it is not installed.
    """
    for folder in [*os.get_exec_path(), "/usr/sbin"]:
        found = shutil.which(program, path=folder)
        # pynetdicom installs scripts under the names of DCMTK's programs.
        if found and b"pynetdicom" not in Path(found).read_bytes()[:SCRIPT_HEAD]:
            return found
    raise PeerMissing(f"{program} is not installed (Debian package {package})")


def find_pynetdicom() -> None:
    """Make sure that pynetdicom can be imported.

    Raises:
        PeerMissing: it is not installed.
    """
    if find_spec("pynetdicom") is None:
        raise PeerMissing("pynetdicom is not installed (PyPI package pynetdicom)")


def free_port() -> int:
    """Return a TCP port on which nobody listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


class Server:
    """A running server.

    Attributes:
        port: where it listens.
        folder: where it stores.
        resident: the memory it had when it was ready, in bytes.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self._process = process
        self.ready()

    def ready(self) -> None:
        """Note that it now is as it is to be measured."""
        self.resident = proc.reset_peak(self.pid)

    def empty(self) -> int:
        """Remove what it has stored, and return how many files that were."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        for path in files:
            path.unlink()
        return len(files)

    @property
    def pid(self) -> int:
        """Of the process that was started; there may be more."""
        return self._process.pid


@contextmanager
def serving(command: Command, port: int, folder: Path, core: int) -> Iterator[Server]:
    """Keep a server running: entered when it takes connections, left when it and all that it forked have ended."""
    with (folder.parent / f"{folder.name}.log").open("w+b") as log:
        process = command.start(core, log, log)
        try:
            _wait_until_listening(process, port, command, log)
            yield Server(process, port, folder)
        finally:
            _stop(process)


def run(command: Command, server: Server, core: int, *, timeout: float) -> Run:
    """Run a client to its end.

    Raises:
        BenchError: it failed, or took longer than `timeout` seconds.
    """
    proc.reset_peak(server.pid)
    server_cpu = proc.cpu_time(server.pid)
    client_cpu = _children_cpu()  # servers are children, too, but none of them is waited for meanwhile
    begun = time.perf_counter()
    process = command.start(core, subprocess.PIPE, subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command.words} … took longer than {timeout:g} s") from None
    finally:
        _stop(process)
    seconds = time.perf_counter() - begun
    if process.returncode:
        words = (errors or output).decode(errors="replace").strip().splitlines()[-1:]
        raise BenchError(f"{command.words} … ended with {process.returncode}: {' '.join(words)}")
    client = Use(_children_cpu() - client_cpu)
    if output.startswith(b"{"):
        report = json.loads(output)
        seconds = report["seconds"]
        client = Use(report["cpu"], report["peak"], report["added"])
    peak = proc.peak(server.pid)
    return Run(seconds, client, Use(proc.cpu_time(server.pid) - server_cpu, peak, peak - server.resident))


def hold(command: Command, server: Server, core: int) -> Idle:
    """Let a client open associations, look at the server while they are idle, and end the client.

    The client prints one line of JSON when all are open, and ends when its standard input is closed.

    Raises:
        BenchError: it failed.
    """
    before = proc.memory(server.pid)
    process = command.start(core, subprocess.PIPE, subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, errors = process.communicate(timeout=SECONDS_TO_STOP)
            raise BenchError(f"the client failed: {errors.decode(errors='replace').strip().splitlines()[-1:]}")
        memory = proc.memory(server.pid) - before
        cpu = proc.cpu_time(server.pid)
        time.sleep(SECONDS_OF_SILENCE)
        cpu = proc.cpu_time(server.pid) - cpu
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=SECONDS_TO_STOP)
        return Idle(json.loads(line)["seconds"], memory, cpu / SECONDS_OF_SILENCE)
    finally:
        _stop(process)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, command: Command, log: IO[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"{command.words} … ended with {process.returncode}: {' '.join(said)}")
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=SECONDS_TO_START):
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise BenchError(f"{command.words} … took no connection within {SECONDS_TO_START:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group: politely first, then surely."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_BEFORE_A_KILL)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
