"""pynetdicom as SCP and as SCU, each in a process of its own so that its threads are not ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom import Dataset

from tests.peers.process import LOOPBACK, NOWHERE, Peer, execute, free_port, running
from tests.peers.query_report import QueryReport

SCRIPTS: Final = Path(__file__).parent

ATTEMPTS: Final = 10
STOLEN_RESPONSE: Final = "Received unexpected C-STORE service message"
UNSEEN_REJECTION: Final = [
    "INFO:pynetdicom.association:Requesting Association",
    "INFO:pynetdicom.association:Aborting Association",
]


@contextmanager
def running_pynetdicom_scp(directory: Path, *options: str, ae_title: str = "PYNETDICOM") -> Iterator[Peer]:
    """The script pynetdicom_scp.py, keeping what it receives in `received` below that directory."""
    peer = Peer("pynetdicom_scp", ae_title, free_port(), directory / "received", directory / "pynetdicom_scp.log")
    peer.directory.mkdir(parents=True)
    command = [sys.executable, str(SCRIPTS / "pynetdicom_scp.py"), "--ae-title", ae_title, *options]
    with running(peer, [*command, str(peer.port), str(peer.directory)]) as started:
        yield started


@dataclass(frozen=True, slots=True)
class ScuReport:
    """What the script pynetdicom_scu.py came to.

    Args:
        outcome: "accepted", "rejected" or "aborted": what became of its association request.
        statuses: the status of each response; None where none came.
        rejection: result, source and reason of the A-ASSOCIATE-RJ (PS3.8 §9.3.4).
        log: all that pynetdicom logged.
    """

    outcome: str
    statuses: list[int | None] = field(default_factory=list)
    rejection: list[int] = field(default_factory=list)
    log: str = ""


async def run_pynetdicom_scu(
    operation: str,
    port: int,
    files: Sequence[Path] = (),
    *,
    host: str = "127.0.0.1",
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "PYNETDICOM",
    user: tuple[str, str] | None = None,
) -> ScuReport:
    """Let pynetdicom ask that address for "echo", or to "store" the files, and report; `user` is name and passcode.

    Its two threads race where an answer is quick: one sometimes takes the response that the other waits for, or has closed
    the rejected connection before the other looks whether there is one. Then it asks again.
    """
    options = ["--called", called_ae_title, "--calling", calling_ae_title]
    if user:
        options += ["--user", user[0], "--passcode", user[1]]
    command = [sys.executable, str(SCRIPTS / "pynetdicom_scu.py"), *options, operation, host, str(port)]
    for _attempt in range(ATTEMPTS):
        finished = await execute([*command, *map(str, files)])
        if STOLEN_RESPONSE not in finished.errors and finished.errors.splitlines() != UNSEEN_REJECTION:
            break
    assert finished.exit_code == 0, finished.errors
    return ScuReport(**json.loads(finished.output), log=finished.errors)


@contextmanager
def running_pynetdicom_query_scp(
    directory: Path,
    files: Iterable[Path] = (),
    *options: str,
    ae_title: str = "PYNETDICOM",
    destinations: Mapping[str, int] = NOWHERE,
) -> Iterator[Peer]:
    """The script pynetdicom_query_scp.py.

    Args:
        directory: for its log.
        files: all it has.
        options: of the script.
        ae_title: its own.
        destinations: the ports of this machine that it may send to, by AE title.
    """
    peer = Peer("pynetdicom_query_scp", ae_title, free_port(), directory, directory / "pynetdicom_query_scp.log")
    command = [sys.executable, str(SCRIPTS / "pynetdicom_query_scp.py"), "--ae-title", ae_title, *options]
    command += [f"--destination={title}={port}" for title, port in destinations.items()]
    with running(peer, [*command, str(peer.port), *map(str, files)]) as started:
        yield started


async def run_pynetdicom_query(
    operation: str,
    port: int,
    model: str,
    identifier: Dataset,
    *options: str,
) -> QueryReport:
    """Let pynetdicom ask a port of this machine for "find", "get" or "move", and report.

    Args:
        operation: what to ask for.
        port: where the SCP listens.
        model: the UID of the SOP class.
        identifier: what is asked.
        options: of the script pynetdicom_query_scu.py.
    """
    command = [sys.executable, str(SCRIPTS / "pynetdicom_query_scu.py"), *options, operation, LOOPBACK, str(port)]
    finished = await execute([*command, model, identifier.to_json()])
    assert finished.exit_code == 0, finished.errors
    report = json.loads(finished.output)
    report["matches"] = [Dataset.from_json(match) for match in report["matches"]]
    return QueryReport(**report, log=finished.errors)
