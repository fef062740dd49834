"""A move destination is not flooded by us: so many C-MOVEs send to it at a time, the others wait (T35)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiodicom import EncodedInstance, Node, Operation, ProposedContext, Server
from aiodicom.services import retrieve
from aiodicom.services.retrieve import move_service
from aiodicom.services.turns import Turns
from aiodicom.uids import STUDY_ROOT_MOVE
from tests.loopback import PATIENCE, SHORT, assert_alive, connect, ct_instance, serving, until


class Busy:
    """A move destination whose stores take until they are let go on."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.present = self.most = self.stored = 0

    async def keep(self, operation: Operation) -> None:
        self.present += 1
        self.most = max(self.most, self.present)
        await operation.read()
        await self.go.wait()
        self.present -= 1
        self.stored += 1


@asynccontextmanager
async def moving(busy: Busy, maximum: int, asked: list[Operation]) -> AsyncIterator[Server]:
    """A server that sends one instance to it for each C-MOVE."""

    async def handler(operation: Operation) -> list[EncodedInstance]:
        asked.append(operation)
        return [ct_instance(len(asked))]

    turns = Turns(maximum)
    async with serving(busy.keep) as destination:
        nodes = {name: Node("busy", name, "127.0.0.1", destination.port) for name in ("ONE", "OTHER")}
        services = [move_service(handler, nodes, model, turns=turns) for model in ("study", "patient")]
        async with serving(services=services) as server:
            yield server


async def move(server: Server, destination: str = "ONE") -> int:
    """Ask for one; return how many instances arrived."""
    contexts = [ProposedContext(STUDY_ROOT_MOVE)]
    async with connect(server, contexts=contexts) as association:
        async with association.c_move(level="study", StudyInstanceUID="1.2", destination=destination) as told:
            progress = [each async for each in told]
        return progress[-1].completed


async def test_only_so_many_send_at_a_time_and_all_get_there() -> None:
    busy, asked = Busy(), list[Operation]()
    async with moving(busy, 2, asked) as server, asyncio.timeout(PATIENCE):
        moves = [asyncio.create_task(move(server, name)) for name in ("ONE", "OTHER", "ONE", "OTHER", "ONE")]
        await until(lambda: busy.present == 2 and len(asked) == 5)
        await assert_alive(server)
        busy.go.set()
        assert await asyncio.gather(*moves) == [1] * 5
    assert (busy.most, busy.stored) == (2, 5)


async def test_who_waits_for_a_turn_can_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve, "GRACE", SHORT)
    busy, asked = Busy(), list[Operation]()
    async with moving(busy, 1, asked) as server, asyncio.timeout(PATIENCE):
        first = asyncio.create_task(move(server))
        await until(lambda: busy.present)
        async with connect(server, contexts=[ProposedContext(STUDY_ROOT_MOVE)]) as association:
            request = association.c_move(level="study", StudyInstanceUID="1.2", destination="ONE")
            async with request as told:
                async for _ in told:
                    break
            await until(lambda: not association.operations)
        busy.go.set()
        assert await first == 1
        assert await move(server) == 1
    assert (busy.most, busy.stored) == (1, 2)
