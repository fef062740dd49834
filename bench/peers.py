"""The ends of a measurement: ours, the peers' as installed and tuned, and bare TCP; each as the command that starts it.

"Tuned" is what a peer's user can have without touching its code: TCP_NODELAY at its end, and P-DATA-TFs of 128 KB.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

from bench.aiodicom_archive import held, prepare
from bench.archives import (
    AE_TITLE,
    MOVE_AE_TITLE,
    RETURN_KEYS,
    fill_orthanc,
    held_by_dcmqrscp,
    held_by_orthanc,
    move_port,
    own_folder,
    prepare_dcmqrscp,
    prepare_orthanc,
)
from bench.certificates import certificates, dcmtk_options
from bench.objects import Kind, study_uid
from bench.processes import LOOPBACK, Command, PeerMissing, find, find_pynetdicom

# How long a script takes to start is not measured, so let it start fast.
PYTHON: Final[Mapping[str, str]] = {"PYTHONDONTWRITEBYTECODE": ""}
DCMTK_TUNED: Final[Mapping[str, str]] = {"TCP_NODELAY": "1"}
DCMTK_LONGEST_PDU: Final = "131072"

OURS: Final = "aiodicom"
NOBODYS: Final = "nobody"
"""Whose a client is that sends bytes made beforehand."""

PEERS: Final[Mapping[str, Callable[[], object]]] = {
    "dcmtk": partial(find, "storescp"),
    "pynetdicom": find_pynetdicom,
    "orthanc": partial(find, "Orthanc", "orthanc"),
    "tcp": lambda: None,  # the limit of a loopback connection, which is always there
}
"""Who can take part beside us, and what raises `PeerMissing` where it is not installed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a client does in one run.

    Args:
        operation: store, echo, open (associations, with an echo on each), hold (associations, idle), find-all (studies),
            find-some (100 studies by the patients' name), find-one (by its accession number), get or move (a study).
        count: how many; of a store with several associations, on each of them; of a find, the matches of all queries.
        kind: what is stored, or retrieved.
        associations: how many at a time.
        studies: how many the server holds, where studies are found.
    """

    operation: str
    count: int
    kind: Kind | None = None
    associations: int = 1
    studies: int = 0

    @property
    def total(self) -> int:
        """How many objects, echoes or associations it comes to."""
        return self.count * self.associations


ServerCommand: TypeAlias = Callable[[int, Path], Command]
ClientCommand: TypeAlias = Callable[[int, Job, Path | None], Command]
Preparation: TypeAlias = Callable[[int, Path, Path], None]


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A kind of server.

    Args:
        name: in reports.
        command: makes the command of its port and of the folder to store in.
        keeps: whether it stores what it gets.
        forks: whether it has a process for each association, so that its own memory says little.
        prepare: what is done before it starts, with its port, the folder to store in, and the folder with what it holds.
        fill: what is done when it listens, likewise.
        held: counts the instances that an archive holds, of the folder to store in. What is stored to it stays, so that
            it starts empty for each run; without this, whatever is found in the folder is counted and removed.
        peer: whose it is.
        round_trip: how far away it is, in seconds: above 0 it is reached through a proxy.
    """

    name: str
    command: ServerCommand
    keeps: bool = False
    forks: bool = False
    prepare: Preparation | None = None
    fill: Preparation | None = None
    held: Callable[[Path], int] | None = None
    peer: str = OURS
    round_trip: float = 0.0


@dataclass(frozen=True, slots=True)
class ClientKind:
    """A kind of client.

    Args:
        name: in reports.
        command: makes the command of the port, of what is to be done, and of the folder with what is to be stored.
        peer: whose it is.
    """

    name: str
    command: ClientCommand
    peer: str = OURS


def missing_peers() -> dict[str, str]:
    """Return the peers that are not installed, with what would install each."""
    missing = {}
    for name, look in PEERS.items():
        try:
            look()
        except PeerMissing as error:
            missing[name] = str(error)
    return missing


def python_command(module: str, *arguments: object) -> Command:
    """Return the command of a script of this benchmark."""
    if module.startswith("pynetdicom"):
        find_pynetdicom()
    return Command((sys.executable, "-m", f"bench.{module}", *map(str, arguments)), PYTHON)


def _environment(tuned: bool) -> Mapping[str, str]:
    return DCMTK_TUNED if tuned else {}


def _python_tls(tls: bool) -> tuple[str, ...]:
    return ("--tls", str(certificates())) if tls else ()


def _dcmtk_tls(tls: bool) -> tuple[str, ...]:
    return dcmtk_options(certificates()) if tls else ()


def _words(name: str, *words: str) -> str:
    said = ", ".join(word for word in words if word)
    return f"{name} ({said})" if said else name


# Servers.


def aiodicom_scp(*, keeps: bool = False, tls: bool = False, operations: int | None = None) -> ServerKind:
    """Return our SCP; `operations` is the widest operations window that it agrees to, where that is not the default."""
    options = ("--operations", str(operations)) if operations else ()
    name = _words("aiodicom", f"window of {operations}" if operations else "")
    return ServerKind(name, partial(_python_scp, "aiodicom_scp", options, tls, keeps), keeps=keeps)


def aiodicom_archive(*, keeps: bool = False) -> ServerKind:
    """Return our embedded archive; `keeps` is one to store to."""

    def command(port: int, folder: Path) -> Command:
        return python_command("aiodicom_archive", "--archive", own_folder(folder), port)

    return ServerKind("aiodicom archive", command, keeps, prepare=prepare, held=held if keeps else None)


def aiodicom_rows() -> ServerKind:
    """Return our SCP of C-FIND with rows of the studies in memory."""

    def command(port: int, folder: Path) -> Command:
        return python_command("aiodicom_archive", "--rows", own_folder(folder), port)

    return ServerKind("aiodicom rows", command, prepare=_link)


def pynetdicom_scp(*, tuned: bool, keeps: bool = False, chunked: bool = False, tls: bool = False) -> ServerKind:
    """Return pynetdicom's SCP; `chunked` receives into files, not into memory."""
    options = (*(("--tuned",) if tuned else ()), *(("--chunked",) if chunked else ()))
    name = _words("pynetdicom", "tuned" if tuned else "", "chunked" if chunked else "")
    command = partial(_python_scp, "pynetdicom_scp", options, tls, keeps)
    return ServerKind(name, command, keeps=keeps, peer="pynetdicom")


def storescp(*options: str, tuned: bool, tls: bool = False) -> ServerKind:
    """Return DCMTK's storescp; it stores unless `--ignore` is among the options."""
    name = _words("storescp", "tuned" if tuned else "", *options)
    command = partial(_storescp, (*_longest_pdu(tuned), *options), tuned, tls)
    keeps, forks = "--ignore" not in options, "--fork" in options
    return ServerKind(name, command, keeps=keeps, forks=forks, peer="dcmtk")


def pynetdicom_find_scp(*, tuned: bool) -> ServerKind:
    """Return pynetdicom's SCP with the data sets of the studies in memory."""
    options = ("--tuned",) if tuned else ()

    def command(port: int, folder: Path) -> Command:
        return python_command("pynetdicom_scp", *options, "--studies", own_folder(folder), port)

    return ServerKind(_words("pynetdicom", "tuned" if tuned else ""), command, prepare=_link, peer="pynetdicom")


def dcmqrscp(*, tuned: bool, keeps: bool = False) -> ServerKind:
    """Return DCMTK's archive, which holds 500 studies at most; `keeps` is one to store to."""

    def command(_port: int, folder: Path) -> Command:
        configuration = own_folder(folder) / "dcmqrscp.cfg"
        return Command((find("dcmqrscp"), "-c", str(configuration)), _environment(tuned))

    name = _words("dcmqrscp", "tuned" if tuned else "")
    counts = held_by_dcmqrscp if keeps else None
    return ServerKind(name, command, keeps, forks=True, prepare=prepare_dcmqrscp, held=counts, peer="dcmtk")


def orthanc(*, tuned: bool, keeps: bool = False) -> ServerKind:
    """Return Orthanc; `keeps` is one to store to."""

    def command(_port: int, folder: Path) -> Command:
        configuration = own_folder(folder) / "orthanc.json"
        return Command((find("Orthanc", "orthanc"), str(configuration)), _environment(tuned))

    name = _words("Orthanc", "tuned" if tuned else "")
    counts = held_by_orthanc if keeps else None
    return ServerKind(name, command, keeps, prepare=prepare_orthanc, fill=fill_orthanc, held=counts, peer="orthanc")


def raw_tcp_server(*, tls: bool = False) -> ServerKind:
    """Return what reads and forgets."""

    def command(port: int, _folder: Path) -> Command:
        return python_command("raw_tcp", *_python_tls(tls), "serve", port)

    return ServerKind("TLS" if tls else "TCP", command, peer="tcp")


def _python_scp(module: str, options: tuple[str, ...], tls: bool, keeps: bool, port: int, folder: Path) -> Command:
    return python_command(module, *options, *_python_tls(tls), *(("--folder", folder) if keeps else ()), port)


def _link(_port: int, folder: Path, holdings: Path) -> None:
    """Let a server find what it holds beside its own folder."""
    own_folder(folder).symlink_to(holdings, target_is_directory=True)


def _storescp(options: tuple[str, ...], tuned: bool, tls: bool, port: int, folder: Path) -> Command:
    arguments = (find("storescp"), *options, *_dcmtk_tls(tls), "-od", str(folder), str(port))
    return Command(arguments, _environment(tuned))


# Clients.


def aiodicom_scu(*, in_memory: bool = False, tls: bool = False) -> ClientKind:
    """Return our SCU; `in_memory` sends what was read before, instead of files."""
    options = ("--in-memory",) if in_memory else ()
    return ClientKind(
        _words("aiodicom", *(("in memory",) if in_memory else ())), partial(_python_scu, "aiodicom_scu", options, tls)
    )


def pynetdicom_scu(*, tuned: bool, chunked: bool = False, tls: bool = False) -> ClientKind:
    """Return pynetdicom's SCU; `chunked` reads files while they are sent."""
    options = (*(("--tuned",) if tuned else ()), *(("--chunked",) if chunked else ()))
    name = _words("pynetdicom", "tuned" if tuned else "", "chunked" if chunked else "")
    return ClientKind(name, partial(_python_scu, "pynetdicom_scu", options, tls), peer="pynetdicom")


def storescu(*, tuned: bool, tls: bool = False) -> ClientKind:
    """Return DCMTK's storescu, which is measured from its start to its end."""
    return ClientKind(_words("storescu", "tuned" if tuned else ""), partial(_storescu, tuned, tls), peer="dcmtk")


def raw_tcp_client(*, tls: bool = False) -> ClientKind:
    """Return what sends as many bytes as the objects have."""

    def command(port: int, _job: Job, folder: Path | None) -> Command:
        return python_command("raw_tcp", *_python_tls(tls), "send", port, folder)

    return ClientKind("TLS" if tls else "TCP", command, peer="tcp")


def raw_echo(*, tls: bool = False) -> ClientKind:
    """Return what sends the bytes of C-ECHOs, made beforehand."""

    def command(port: int, job: Job, _folder: Path | None) -> Command:
        return python_command("raw_echo", *_python_tls(tls), port, job.count)

    return ClientKind("raw bytes", command, peer=NOBODYS)


def raw_find() -> ClientKind:
    """Return what sends the bytes of C-FINDs, made beforehand, and counts the responses."""

    def command(port: int, job: Job, _folder: Path | None) -> Command:
        what = job.operation.removeprefix("find-")
        return python_command("raw_find", what, port, job.studies, job.count)

    return ClientKind("raw bytes", command, peer=NOBODYS)


def findscu(*, tuned: bool) -> ClientKind:
    """Return DCMTK's findscu, which asks for all studies until it has as many matches as wanted."""

    def command(port: int, job: Job, _folder: Path | None) -> Command:
        keys = [("-k", keyword) for _group, _number, keyword in RETURN_KEYS]
        repeat = ("--repeat", str(job.count // job.studies))
        return Command(_query("findscu", port, tuned, *repeat, *chain(*keys)), _environment(tuned))

    return ClientKind(_words("findscu", "tuned" if tuned else ""), command, peer="dcmtk")


def getscu(*, tuned: bool) -> ClientKind:
    """Return DCMTK's getscu, which fetches the study that the archive holds, and forgets it."""

    def command(port: int, _job: Job, folder: Path | None) -> Command:
        return Command(_query("getscu", port, tuned, "--ignore", *_study_in(folder)), _environment(tuned))

    return ClientKind(_words("getscu", "tuned" if tuned else ""), command, peer="dcmtk")


def movescu(*, tuned: bool) -> ClientKind:
    """Return DCMTK's movescu, with a storescp that forgets the study that the archive moves to it."""

    def command(port: int, _job: Job, folder: Path | None) -> Command:
        destination = _storescp(("--ignore", *_longest_pdu(tuned)), tuned, False, move_port(port), Path())
        mover = _query("movescu", port, tuned, "-v", "-aem", MOVE_AE_TITLE, *_study_in(folder))
        lines = (shlex.join(destination.arguments), shlex.join(mover), "Final Move Response (Success)")
        beside = python_command("beside", move_port(port), *lines)
        return Command(beside.arguments, {**beside.environment, **_environment(tuned)})

    return ClientKind(_words("movescu", "tuned" if tuned else ""), command, peer="dcmtk")


def _query(program: str, port: int, tuned: bool, *options: str) -> tuple[str, ...]:
    """The command line of an SCU of DCMTK that asks an archive for studies."""
    common = ("-S", "-aec", AE_TITLE, "-k", "QueryRetrieveLevel=STUDY", *_longest_pdu(tuned))
    return (find(program), *common, *options, LOOPBACK, str(port))


def _study_in(folder: Path | None) -> tuple[str, ...]:
    """The key of the study whose instances are in a folder."""
    assert folder is not None
    return ("-k", f"StudyInstanceUID={study_uid(next(folder.iterdir()))}")


def _longest_pdu(tuned: bool) -> tuple[str, ...]:
    return ("-pdu", DCMTK_LONGEST_PDU) if tuned else ()


def _python_scu(module: str, options: tuple[str, ...], tls: bool, port: int, job: Job, folder: Path | None) -> Command:
    associations = ("--associations", job.associations) if job.associations > 1 else ()
    return python_command(module, *options, *_python_tls(tls), *associations, job.operation, port, folder or job.count)


def _storescu(tuned: bool, tls: bool, port: int, _job: Job, folder: Path | None) -> Command:
    options = (*_longest_pdu(tuned), *_dcmtk_tls(tls), "-aec", AE_TITLE, "+sd")
    return Command((find("storescu"), *options, LOOPBACK, str(port), str(folder)), _environment(tuned))
