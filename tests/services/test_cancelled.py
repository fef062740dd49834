"""C-FIND, C-GET and C-MOVE as SCP, cancelled wherever they wait: by a C-CANCEL, and by the end of the association."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from aiodicom import Operation, Server, Service, Timeouts
from aiodicom.dimse.commands import CStoreRQ, Response
from aiodicom.services.query import find_service
from aiodicom.services.retrieve import get_service, move_service
from tests.inquiries import asking, cancelled_at, find_pdu, get_pdu, message, move_pdu
from tests.loopback import CT, RELEASE_RP, RELEASE_RQ, RawPeer, assert_alive, ct_instance, serving, until
from tests.services.retrieving import answer_to


class Cancelled:
    """Performs an operation, and cancels it when it waits for the n-th time."""

    def __init__(self, service: Service) -> None:
        self._handler: Any = service.handler
        self.at = 0
        self.by_peer = False
        self.waits: list[object] = []
        self.ended = asyncio.Event()

    async def __call__(self, operation: Operation) -> Any:  # noqa: ANN401
        def cancel(task: asyncio.Task[object]) -> None:
            operation.is_cancelled = self.by_peer
            task.cancel()

        self.waits = []
        try:
            return await cancelled_at(self._handler(operation), self.at, self.waits, cancel)
        finally:
            self.ended.set()


async def search(_operation: Operation) -> AsyncIterator[dict[str, str]]:
    for number in range(3):
        await asyncio.sleep(0)
        yield {"PatientID": str(number)}


async def instances(_operation: Operation) -> list[Any]:
    await asyncio.sleep(0)
    return [ct_instance(number, 5000) for number in range(1, 4)]


async def keep(operation: Operation) -> None:
    await operation.read()


def service_of(what: str, destination: Server) -> tuple[Service, bytes]:
    """A service, and the request that it performs."""
    match what:
        case "find":
            return find_service(search), find_pdu(1)
        case "get":
            return get_service(instances, sop_classes=[CT]), get_pdu(1)
        case _:
            return move_service(instances, {"DEST": ("127.0.0.1", destination.port)}), move_pdu(1)


async def final(peer: RawPeer) -> Response | None:
    """The final response, sub-operations performed; None where the association ends before."""
    while True:
        try:
            command, _ = await message(peer)
        except (asyncio.IncompleteReadError, OSError, IndexError):
            return None
        if isinstance(command, CStoreRQ):
            peer.send(answer_to(command, 0))
        elif isinstance(command, Response) and command.status != 0xFF00:
            return command


@pytest.mark.parametrize("what", ["find", "get", "move"])
async def test_a_cancel_is_answered_wherever_the_service_waits(what: str) -> None:
    async with serving(keep) as destination:
        service, request = service_of(what, destination)
        handler = Cancelled(service)
        handler.by_peer = True
        async with serving(services=[replace(service, handler=handler)], timeouts=Timeouts(idle=None)) as server:
            for handler.at in range(1, 1000):
                async with asking(server) as peer:
                    peer.send(request)
                    response = await final(peer)
                    assert response is not None
                    assert response.status in (0xFE00, 0)
                    peer.send(RELEASE_RQ)
                    assert await peer.pdu() == RELEASE_RP
                await until(lambda: not (server.associations or destination.associations))
                if len(handler.waits) < handler.at:
                    break
        assert handler.at >= 3


@pytest.mark.parametrize("what", ["find", "get", "move"])
async def test_the_end_of_the_association_leaves_nothing_wherever_the_service_waits(what: str) -> None:
    async with serving(keep) as destination:
        service, request = service_of(what, destination)
        handler = Cancelled(service)
        async with serving(services=[replace(service, handler=handler)], timeouts=Timeouts(idle=None)) as server:
            for handler.at in range(1, 1000):
                handler.ended.clear()
                async with asking(server) as peer:
                    peer.send(request)
                    answering = asyncio.create_task(final(peer))
                    await handler.ended.wait()
                await answering
                await until(lambda: not (server.associations or destination.associations))
                if len(handler.waits) < handler.at:
                    break
            await assert_alive(server)
        assert handler.at >= 3
