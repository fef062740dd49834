"""The router: it forwards while it receives, its pace is that of the slower destination, and it says who has failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest
from pydicom.data import get_testdata_file

import aiodicom
from aiodicom.association import Association
from tests.examples.loading import load, on_a_free_port
from tests.loopback import Recorder, connect, ct_instance, data_set, serving, until
from tests.peers.comparing import parse
from tests.peers.dcmtk import run, running_storescp
from tests.peers.process import LOOPBACK, free_port

LARGE: Final = 64 * 1024 * 1024
PIECE: Final = 64 * 1024
PIECES: Final = 8  # of the data set, but for its head, which is in the first, and its last bytes, which are one more
NAMES: Final = ("ARCHIVE", "WORKSTATION")


@dataclass
class Destination:
    """Takes instances once its gate is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    instances: list[bytes] = field(default_factory=list)
    status: int = 0

    async def keep(self, operation: aiodicom.Operation) -> int:
        await self.gate.wait()
        chunks = []
        async for chunk in operation.stream():
            self.has_begun.set()
            chunks.append(chunk)
        self.instances.append(b"".join(chunks))
        return self.status


@dataclass
class Route:
    """A router with its destinations and their servers, what these have seen, and a sender's association with it."""

    router: aiodicom.Server
    sender: Association
    destinations: tuple[Destination, Destination]
    servers: tuple[aiodicom.Server, aiodicom.Server]
    recorder: Recorder


@asynccontextmanager
async def routing(*, workstation_is_down: bool = False) -> AsyncIterator[Route]:
    """Both destinations take what comes, unless told otherwise."""
    archive, workstation = Destination(), Destination()
    module, recorder = load("router"), Recorder()
    archive.gate.set()
    workstation.gate.set()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(archive.keep, observers=(recorder,)))
        second = await stack.enter_async_context(serving(workstation.keep, observers=(recorder,)))
        ports = first.port, free_port() if workstation_is_down else second.port
        module.DESTINATIONS = destinations(*ports)  # type: ignore[attr-defined]
        router = await stack.enter_async_context(on_a_free_port(module))
        sender = await stack.enter_async_context(connect(router))
        yield Route(router, sender, (archive, workstation), (first, second), recorder)


def destinations(*ports: int) -> list[aiodicom.Node]:
    return [aiodicom.Node(name.lower(), name, LOOPBACK, port) for name, port in zip(NAMES, ports, strict=True)]


def in_pieces(last: asyncio.Event) -> aiodicom.EncodedInstance:
    """An instance whose last bytes come when that is set."""
    instance = ct_instance(1, PIECES * PIECE)
    data = data_set(1, PIECES * PIECE)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), PIECE):
            if start == PIECES * PIECE:
                await last.wait()
            yield data[start : start + PIECE]

    return replace(instance, data=pieces())


async def test_forwarding_has_begun_before_the_last_byte_has_come() -> None:
    last = asyncio.Event()
    async with routing() as route:
        storing = asyncio.create_task(route.sender.c_store(in_pieces(last)))
        for destination in route.destinations:
            await destination.has_begun.wait()
        last.set()
        assert (await storing).status == 0
    assert [each.instances for each in route.destinations] == [[data_set(1, PIECES * PIECE)]] * 2


async def test_the_slower_destination_sets_the_pace() -> None:
    async with routing() as route:
        slow, fast = route.destinations
        slow.gate.clear()
        storing = asyncio.create_task(route.sender.c_store(ct_instance(1, LARGE)))
        await fast.has_begun.wait()
        connection = route.router.associations[0]._connection
        await until(lambda: connection.is_held)  # the sender is held back
        assert fast.instances == []
        slow.gate.set()
        assert (await storing).status == 0
    assert all(each.instances == [data_set(1, LARGE)] for each in route.destinations)


async def test_where_one_is_down_the_other_gets_it_and_the_sender_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with routing(workstation_is_down=True) as route:
        response = await route.sender.c_store(ct_instance())
    assert (response.status, response.error_comment) == (0xA700, "WORKSTATION: ConnectionFailed")
    assert route.destinations[0].instances == [data_set()]
    assert "WORKSTATION@127.0.0.1" in capsys.readouterr().out


async def test_where_one_dies_midway_the_other_gets_it_and_the_sender_is_told() -> None:
    last = asyncio.Event()
    async with routing() as route:
        storing = asyncio.create_task(route.sender.c_store(in_pieces(last)))
        await route.destinations[1].has_begun.wait()
        await route.servers[1].associations[0].abort()
        last.set()
        response = await storing
    assert (response.status, response.error_comment) == (0xA700, "WORKSTATION: AssociationAborted")
    assert [each.instances for each in route.destinations] == [[data_set(1, PIECES * PIECE)], []]


async def test_what_one_refuses_is_refused() -> None:
    async with routing() as route:
        route.destinations[1].status = 0x0124
        response = await route.sender.c_store(ct_instance())
        assert (response.status, response.error_comment) == (0x0124, "WORKSTATION: Refused: Not authorized")
        assert route.destinations[0].instances == [data_set()]


async def test_where_the_sender_is_lost_nobody_keeps_a_half() -> None:
    async with routing() as route:
        storing = asyncio.create_task(route.sender.c_store(in_pieces(asyncio.Event())))
        for destination in route.destinations:
            await destination.has_begun.wait()
        storing.cancel()  # in the middle of a message, which aborts the association
        await route.recorder.until(lambda: route.recorder.calls.count("closed AssociationAborted") == 2)
    assert [each.instances for each in route.destinations] == [[], []]


async def test_between_programs_of_dcmtk(tmp_path: Path) -> None:
    path = str(get_testdata_file("JPEG2000.dcm"))
    module = load("router")
    with ExitStack() as stack:
        peers = []
        for name in NAMES:
            (tmp_path / name).mkdir()
            starting = running_storescp(tmp_path / name, "+xa", ae_title=name)
            peers.append(await asyncio.to_thread(stack.enter_context, starting))
        module.DESTINATIONS = destinations(*(peer.port for peer in peers))  # type: ignore[attr-defined]
        async with on_a_free_port(module) as router:
            finished = await run("storescu", "-xw", LOOPBACK, str(router.port), path)
        assert finished.exit_code == 0, finished.errors
        for peer in peers:
            (kept,) = peer.received()
            assert parse(kept.read_bytes()) == parse(Path(path).read_bytes())
