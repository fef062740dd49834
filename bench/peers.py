"""The ends of a measurement: ours, the peers' as installed and tuned, and bare TCP; each as the command that starts it.

"Tuned" is what a peer's user can have without touching its code: TCP_NODELAY at its end, and P-DATA-TFs of 128 KB.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from bench.objects import Kind
from bench.processes import LOOPBACK, Command, find

# How long a script takes to start is not measured, so let it start fast.
PYTHON: Final[Mapping[str, str]] = {"PYTHONDONTWRITEBYTECODE": ""}
DCMTK_TUNED: Final[Mapping[str, str]] = {"TCP_NODELAY": "1"}
DCMTK_LONGEST_PDU: Final = "131072"


@dataclass(frozen=True, slots=True)
class Job:
    """What a client does in one run.

    Args:
        operation: store, echo, open (associations, with an echo on each) or hold (associations, idle).
        count: how many; of a store with several associations, on each of them.
        kind: what is stored.
        associations: how many at a time.
    """

    operation: str
    count: int
    kind: Kind | None = None
    associations: int = 1

    @property
    def total(self) -> int:
        """How many objects, echoes or associations it comes to."""
        return self.count * self.associations


ServerCommand: TypeAlias = Callable[[int, Path], Command]
ClientCommand: TypeAlias = Callable[[int, Job, Path | None], Command]


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A kind of server.

    Args:
        name: in reports.
        command: makes the command of its port and of the folder to store in.
        keeps: whether it stores what it gets.
        forks: whether it has a process for each association, so that its own memory says little.
    """

    name: str
    command: ServerCommand
    keeps: bool = False
    forks: bool = False


@dataclass(frozen=True, slots=True)
class ClientKind:
    """A kind of client.

    Args:
        name: in reports.
        command: makes the command of the port, of what is to be done, and of the folder with what is to be stored.
    """

    name: str
    command: ClientCommand


def _python(module: str, *arguments: object) -> Command:
    return Command((sys.executable, "-m", f"bench.{module}", *map(str, arguments)), PYTHON)


def _environment(tuned: bool) -> Mapping[str, str]:
    return DCMTK_TUNED if tuned else {}


def _words(name: str, *words: str) -> str:
    said = ", ".join(word for word in words if word)
    return f"{name} ({said})" if said else name


# Servers.


def aiodicom_scp(*, keeps: bool = False) -> ServerKind:
    """Return our SCP."""
    return ServerKind("aiodicom", partial(_python_scp, "aiodicom_scp", (), keeps), keeps=keeps)


def pynetdicom_scp(*, tuned: bool, keeps: bool = False, chunked: bool = False) -> ServerKind:
    """Return pynetdicom's SCP; `chunked` receives into files, not into memory."""
    options = (*(("--tuned",) if tuned else ()), *(("--chunked",) if chunked else ()))
    name = _words("pynetdicom", "tuned" if tuned else "", "chunked" if chunked else "")
    return ServerKind(name, partial(_python_scp, "pynetdicom_scp", options, keeps), keeps=keeps)


def storescp(*options: str, tuned: bool) -> ServerKind:
    """Return DCMTK's storescp; it stores unless `--ignore` is among the options."""
    name = _words("storescp", "tuned" if tuned else "", *options)
    command = partial(_storescp, (*(("-pdu", DCMTK_LONGEST_PDU) if tuned else ()), *options), tuned)
    return ServerKind(name, command, keeps="--ignore" not in options, forks="--fork" in options)


def raw_tcp_server() -> ServerKind:
    """Return what reads and forgets."""
    return ServerKind("TCP", lambda port, _folder: _python("raw_tcp", "serve", port))


def _python_scp(module: str, options: tuple[str, ...], keeps: bool, port: int, folder: Path) -> Command:
    return _python(module, *options, *(("--folder", folder) if keeps else ()), port)


def _storescp(options: tuple[str, ...], tuned: bool, port: int, folder: Path) -> Command:
    return Command((find("storescp"), *options, "-od", str(folder), str(port)), _environment(tuned))


# Clients.


def aiodicom_scu(*, in_memory: bool = False) -> ClientKind:
    """Return our SCU; `in_memory` sends what was read before, instead of files."""
    options = ("--in-memory",) if in_memory else ()
    return ClientKind(
        _words("aiodicom", *(("in memory",) if in_memory else ())), partial(_python_scu, "aiodicom_scu", options)
    )


def pynetdicom_scu(*, tuned: bool, chunked: bool = False) -> ClientKind:
    """Return pynetdicom's SCU; `chunked` reads files while they are sent."""
    options = (*(("--tuned",) if tuned else ()), *(("--chunked",) if chunked else ()))
    name = _words("pynetdicom", "tuned" if tuned else "", "chunked" if chunked else "")
    return ClientKind(name, partial(_python_scu, "pynetdicom_scu", options))


def storescu(*, tuned: bool) -> ClientKind:
    """Return DCMTK's storescu, which is measured from its start to its end."""
    return ClientKind(_words("storescu", "tuned" if tuned else ""), partial(_storescu, tuned))


def raw_tcp_client() -> ClientKind:
    """Return what sends as many bytes as the objects have."""
    return ClientKind("TCP", lambda port, _job, folder: _python("raw_tcp", "send", port, folder))


def raw_echo() -> ClientKind:
    """Return what sends the bytes of C-ECHOs, made beforehand."""
    return ClientKind("raw bytes", lambda port, job, _folder: _python("raw_echo", port, job.count))


def _python_scu(module: str, options: tuple[str, ...], port: int, job: Job, folder: Path | None) -> Command:
    associations = ("--associations", job.associations) if job.associations > 1 else ()
    return _python(module, *options, *associations, job.operation, port, folder or job.count)


def _storescu(tuned: bool, port: int, _job: Job, folder: Path | None) -> Command:
    options = ("-pdu", DCMTK_LONGEST_PDU) if tuned else ()
    return Command((find("storescu"), *options, "+sd", LOOPBACK, str(port), str(folder)), _environment(tuned))
