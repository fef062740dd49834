"""Real peers for the tests of this directory: each is started where it is asked for, and stopped with its test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

import pytest
from pydicom import Dataset

from tests.peers.dcmtk import running_dcmqrscp, running_storescp, running_wlmscpfs
from tests.peers.orthanc import Orthanc, running_orthanc
from tests.peers.process import Peer
from tests.peers.pynetdicom_peer import running_pynetdicom_query_scp, running_pynetdicom_scp
from tests.studies import write_studies


class StartPeer(Protocol):
    """Starts a peer with those options of its command line; awaited, it is there and takes associations."""

    async def __call__(self, *options: str, ae_title: str = ...) -> Peer: ...


class StartArchive(Protocol):
    """Starts a peer that has those files, and may send to those ports of this machine, given by AE title."""

    async def __call__(
        self, files: Iterable[Path] = (), *options: str, ae_title: str = ..., destinations: Mapping[str, int] = ...
    ) -> Peer: ...


class StartWorklist(Protocol):
    """Starts a peer that has those worklist entries."""

    async def __call__(self, entries: Iterable[Dataset], *options: str, ae_title: str = ...) -> Peer: ...


@pytest.fixture
def no_nagle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this DCMTK's programs wait 40 ms for each other at every message."""
    monkeypatch.setenv("TCP_NODELAY", "1")


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of the world of tests/studies.py, in a folder of their own."""
    return write_studies(tmp_path_factory.mktemp("studies"))


@contextmanager
def starting(
    run: Callable[..., AbstractContextManager[Peer]], folder: Path
) -> Iterator[Callable[..., Coroutine[Any, Any, Peer]]]:
    """What starts a peer in a folder of its own below that one, as often as it is called; in the end all are stopped."""
    with ExitStack() as peers:

        async def start(*arguments: object, **options: object) -> Peer:
            running = run(Path(mkdtemp(dir=folder)), *arguments, **options)
            return await asyncio.to_thread(peers.enter_context, running)

        yield start


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StartPeer]:
    """Start DCMTK's storescp: `peer = await storescp("--fork", "+xs")`."""
    with starting(running_storescp, tmp_path) as start:
        yield start


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[StartArchive]:
    """Start DCMTK's archive: `peer = await dcmqrscp(studies, destinations={"STORESCP": port})`."""
    with starting(running_dcmqrscp, tmp_path) as start:
        yield start


@pytest.fixture
def wlmscpfs(tmp_path: Path) -> Iterator[StartWorklist]:
    """Start DCMTK's worklist: `peer = await wlmscpfs(entries)`; it has to be called by its AE title."""
    with starting(running_wlmscpfs, tmp_path) as start:
        yield start


@pytest.fixture
def pynetdicom_scp(tmp_path: Path) -> Iterator[StartPeer]:
    """Start an SCP of pynetdicom: `peer = await pynetdicom_scp("--max-pdu", "0")`."""
    with starting(running_pynetdicom_scp, tmp_path) as start:
        yield start


@pytest.fixture
def pynetdicom_query_scp(tmp_path: Path) -> Iterator[StartArchive]:
    """Start pynetdicom as an archive: `peer = await pynetdicom_query_scp(studies, destinations={"STORESCP": port})`."""
    with starting(running_pynetdicom_query_scp, tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def orthanc_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One Orthanc for all the tests, since it takes seconds to start."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


@pytest.fixture(scope="session")
def other_orthanc_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Another one, which calls itself OTHER."""
    with running_orthanc(tmp_path_factory.mktemp("other-orthanc"), ae_title="OTHER") as orthanc:
        yield orthanc


@asynccontextmanager
async def emptied(orthanc: Orthanc) -> AsyncIterator[Orthanc]:
    """An Orthanc, empty and knowing no modality; what it logs meanwhile is shown where the test fails."""
    await orthanc.clear()
    before = len(orthanc.peer.log.read_bytes())
    yield orthanc
    print(f"--- Orthanc printed:\n{orthanc.peer.output(before)}")


@pytest.fixture
async def orthanc(orthanc_process: Orthanc) -> AsyncIterator[Orthanc]:
    """Orthanc, empty and knowing no modality."""
    async with emptied(orthanc_process) as orthanc:
        yield orthanc


@pytest.fixture
async def two_orthancs(orthanc: Orthanc, other_orthanc_process: Orthanc) -> AsyncIterator[tuple[Orthanc, Orthanc]]:
    """ORTHANC and OTHER, empty, each a modality of the other under its AE title, and nobody else known to them."""
    async with emptied(other_orthanc_process) as other:
        await orthanc.add_modality(other.peer.ae_title, other.peer.ae_title, other.peer.port)
        await other.add_modality(orthanc.peer.ae_title, orthanc.peer.ae_title, orthanc.peer.port)
        yield orthanc, other
