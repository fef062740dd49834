"""SIGTERM to `aiodicom serve` while it stores, as a process: an end in good order, and all there that it answered for."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

from aiodicom import ProposedContext, associate
from aiodicom.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    ConnectionFailed,
    DicomNetworkError,
)
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import files, instance, keep, paths_in_index, query
from tests.cli.running import once
from tests.cli.test_serve import Serving, connected, serving
from tests.cli.test_workers import PATIENCE, answer_of, status_when
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    RawPeer,
    data_set,
    fragment_pdu,
    instance_uid,
    reject_pdu,
    store_pdu,
)

pytestmark = once

SENDERS: Final = 4
STORES_BEFORE_THE_SIGNAL: Final = 20
PIXELS: Final = bytes(4_000)
DATA: Final = data_set()
UNHURRIED: Final = ("--stall", "600", "--minimum-rate", "0")  # a peer waits for others in the middle of an instance


class Load:
    """Senders, each over one association after the other until it is told that there are no more.

    Attributes:
        acknowledged: the data sets that were answered with Success, by their UID.
        cut: how associations ended that were established.
        refused: how the senders were turned away in the end.
    """

    def __init__(self, port: int) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.cut: list[DicomNetworkError] = []
        self.refused: list[DicomNetworkError] = []
        self.is_under_way = asyncio.Event()
        self._port = port

    async def send(self) -> None:
        """Store, all of them."""
        numbers = count(1)
        await asyncio.gather(*(self._send(numbers) for _ in range(SENDERS)))

    async def _send(self, numbers: Iterator[int]) -> None:
        contexts = [ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
        while True:
            try:
                async with associate("127.0.0.1", self._port, called_ae_title="SCP", contexts=contexts) as association:
                    while True:
                        sent = instance(next(numbers), pixels=PIXELS)
                        assert isinstance(sent.data, bytes)
                        (await association.c_store(sent)).raise_for_status()
                        self.acknowledged[sent.sop_instance_uid] = sent.data
                        if len(self.acknowledged) == STORES_BEFORE_THE_SIGNAL:
                            self.is_under_way.set()
            except (AssociationRejected, ConnectionFailed) as error:
                self.refused.append(error)
                return
            except DicomNetworkError as error:
                self.cut.append(error)


@asynccontextmanager
async def loaded(folder: Path, stop: str) -> AsyncIterator[tuple[Serving, RawPeer, Load, asyncio.Task[None]]]:
    """A server that has that long to stop, in the middle of an instance from one peer, to which others store."""
    async with serving(folder, "--stop", stop, *UNHURRIED) as server, connected(server.port) as peer:
        peer.send(store_pdu(), fragment_pdu(DATA[:100], is_last=False))
        load = Load(server.port)
        sending = asyncio.create_task(load.send())
        try:
            async with asyncio.timeout(PATIENCE):
                await load.is_under_way.wait()
            await status_when(server, lambda view: ("RAW", ["C-STORE CT Image Storage"]) in operations(view))
            assert (load.cut, load.refused) == ([], [])
            yield server, peer, load, sending
        finally:
            sending.cancel()
            await asyncio.wait([sending])


def operations(view: dict[str, list[dict[str, object]]]) -> list[tuple[object, object]]:
    """What each association does."""
    return [(each["calling_ae_title"], each["operations"]) for each in view["associations"]]


def how(error: DicomNetworkError) -> tuple[int, int] | None:
    """By what an association was aborted; None where its connection closed before it was asked for, or the abort was lost."""
    assert isinstance(error, AssociationError), error
    return (error.source, error.reason) if isinstance(error, AssociationAborted) and error.source is not None else None


async def assert_has(folder: Path, acknowledged: dict[str, bytes]) -> None:
    """Prove that the archive holds that, byte for byte, and that its index and its files agree."""
    assert files(folder) == paths_in_index(folder)
    await keep(folder)  # opened again there is nothing to put in order
    assert files(folder) == paths_in_index(folder)
    rows = query(folder, "SELECT SOPInstanceUID, path, data_set_offset FROM instances")
    kept = {uid: (folder / path).read_bytes()[offset:] for uid, path, offset in rows}
    assert len(acknowledged) >= STORES_BEFORE_THE_SIGNAL
    assert acknowledged.items() <= kept.items()


async def test_what_is_under_way_ends_and_nobody_else_is_let_in(tmp_path: Path) -> None:
    async with loaded(tmp_path, "600") as (server, peer, load, sending):
        server.program.process.send_signal(signal.SIGTERM)
        await server.program.error_with("stopping: ")
        await sending  # the server cannot be gone: it waits for the peer
        assert await answer_of(server.port) == reject_pdu(2, 3, 1)
        peer.send(fragment_pdu(DATA[100:]))
        assert (await peer.response()).status == 0
        load.acknowledged[instance_uid(1)] = DATA
        assert await peer.rest() == ABORT_BY_USER
        stopped = await server.program.end()
    assert stopped.exit_code == 0, stopped
    assert list(map(str, load.refused)) == [str(AssociationRejected(2, 3, 1))] * SENDERS
    assert len(load.cut) >= SENDERS
    assert {how(each) for each in load.cut} - {None} == {(0, 0)}
    await assert_has(server.storage, load.acknowledged)


async def test_what_does_not_end_is_aborted(tmp_path: Path) -> None:
    async with loaded(tmp_path, "1") as (server, peer, load, sending):
        stopped = await server.stop()
        assert await peer.rest() == ABORT_BY_USER
        await sending
    assert stopped.exit_code == 0, stopped
    assert len(load.refused) == SENDERS
    await assert_has(server.storage, load.acknowledged)
    assert query(server.storage, f"SELECT * FROM instances WHERE SOPInstanceUID = '{instance_uid(1)}'") == []
