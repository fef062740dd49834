"""Real peers for the tests of this directory: each is started where it is asked for, and stopped with its test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.peers.dcmtk import running_storescp
from tests.peers.orthanc import Orthanc, running_orthanc
from tests.peers.process import Peer
from tests.peers.pynetdicom_peer import running_pynetdicom_scp


class StartPeer(Protocol):
    """Starts a peer with those options of its command line; awaited, it is there and takes associations."""

    async def __call__(self, *options: str, ae_title: str = ...) -> Peer: ...


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StartPeer]:
    """Start DCMTK's storescp: `peer = await storescp("--fork", "+xs")`."""
    with ExitStack() as peers:

        async def start(*options: str, ae_title: str = "STORESCP") -> Peer:
            directory = tmp_path / f"storescp-{ae_title}"
            return await asyncio.to_thread(
                lambda: peers.enter_context(running_storescp(directory, *options, ae_title=ae_title))
            )

        yield start


@pytest.fixture
def pynetdicom_scp(tmp_path: Path) -> Iterator[StartPeer]:
    """Start an SCP of pynetdicom: `peer = await pynetdicom_scp("--max-pdu", "0")`."""
    with ExitStack() as peers:

        async def start(*options: str, ae_title: str = "PYNETDICOM") -> Peer:
            directory = tmp_path / f"pynetdicom-{ae_title}"
            return await asyncio.to_thread(
                lambda: peers.enter_context(running_pynetdicom_scp(directory, *options, ae_title=ae_title))
            )

        yield start


@pytest.fixture(scope="session")
def orthanc_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One Orthanc for all the tests, since it takes seconds to start."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


@pytest.fixture
async def orthanc(orthanc_process: Orthanc) -> AsyncIterator[Orthanc]:
    """Orthanc, empty and knowing no modality; what it logs meanwhile is shown where the test fails."""
    await orthanc_process.clear()
    before = len(orthanc_process.peer.log.read_bytes())
    yield orthanc_process
    print(f"--- Orthanc printed:\n{orthanc_process.peer.output(before)}")
