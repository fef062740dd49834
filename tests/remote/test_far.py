"""Sending to a peer that is far away, left to itself: it opens and widens as far as the peer lets it, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiodicom import Observer, Operation, Outcome, RemoteAE, Server
from aiodicom.remote import pacing
from aiodicom.terms import find_item
from aiodicom.transport import Connection
from aiodicom.upper_layer.items import AsynchronousOperationsWindow
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ, ControlPDU
from bench.proxy import Proxy, delaying
from tests.loopback import Recorder, ct_instance, serving
from tests.remote.peers import Keeper, expected, instances, opened, remote_of, uids

ROUND_TRIP = 0.02
TINY = 0.001


@asynccontextmanager
async def far_from(server: Server, **options: Any) -> AsyncIterator[tuple[RemoteAE, Proxy]]:  # noqa: ANN401
    """A remote AE that is a server behind a long line."""
    async with (
        delaying("127.0.0.1", server.port, round_trip=ROUND_TRIP) as proxy,
        RemoteAE("127.0.0.1", proxy.port, ae_title=server.ae_title, observers=(), **options) as remote,
    ):
        yield remote, proxy


def check(outcomes: list[Outcome], keeper: Keeper, count: int) -> None:
    """Each instance has one outcome, which is good, and came once."""
    assert uids(outcomes) == expected(count)
    assert [outcome for outcome in outcomes if not outcome.is_stored] == []
    assert sorted(keeper.received) == expected(count)
    assert set(keeper.received.values()) == {1}


class DropsAtWindow(Observer):
    """Drops a connection on which an operations window is offered."""

    def __init__(self) -> None:
        self.offers = 0

    def pdu_received(self, connection: Connection, pdu: ControlPDU | PDV) -> None:
        if isinstance(pdu, AAssociateRQ) and find_item(pdu.user_information, AsynchronousOperationsWindow):
            self.offers += 1
            connection.cut()


class OverlapAborts:
    """A handler that ends the association where a second operation begins before the first is answered."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.aborts = 0
        self._at_work: set[object] = set()

    async def __call__(self, operation: Operation) -> int:
        association = operation.exchange
        if association in self._at_work:
            self.aborts += 1
            await association.abort()  # type: ignore[union-attr]
        self._at_work.add(association)
        try:
            await operation.read()
            await asyncio.sleep(0)
            return await self.keeper(operation)
        finally:
            self._at_work.discard(association)


async def test_the_window_is_widened_and_associations_are_opened() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, far_from(server) as (remote, proxy):
        check(await remote.send(instances(600)).all(), keeper, 600)
        assert proxy.connections > 1
        assert 4 <= remote._pool.best.window <= 16  # all that the server agrees to
        keeper.received.clear()
        before = proxy.connections
        check(await remote.send(instances(20)).all(), keeper, 20)
        assert proxy.connections == before


async def test_a_few_are_sent_over_one_association_without_a_window() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, far_from(server) as (remote, proxy):
        check(await remote.send(instances(5)).all(), keeper, 5)
        assert proxy.connections == 1
        assert server.associations[0].terms.maximum_performed == 1


@pytest.mark.parametrize("fixed", [{"associations": 2}, {"window": 3}, {"associations": 2, "window": 3}], ids=str)
async def test_what_the_user_says_holds(fixed: dict[str, Any]) -> None:
    keeper = Keeper()
    async with serving(keeper) as server, far_from(server) as (remote, _):
        check(await remote.send(instances(300), **fixed).all(), keeper, 300)
        best = remote._pool.best
        assert best.associations == fixed.get("associations", best.associations)
        assert best.window == fixed.get("window", best.window)


async def test_a_peer_that_drops_the_connection_at_the_sight_of_a_window() -> None:
    keeper, drops, recorder = Keeper(), DropsAtWindow(), Recorder()
    async with serving(keeper, observers=(drops, recorder)) as server, far_from(server) as (remote, _):
        check(await remote.send(instances(300)).all(), keeper, 300)
        assert drops.offers == 1
        assert remote._pool.best.window == 1
        assert remote._pool.best.associations > 1  # which help instead


async def test_a_peer_that_agrees_to_a_window_and_answers_one_at_a_time() -> None:
    keeper = Keeper()
    turn = asyncio.Lock()

    async def keep_in_turn(operation: Operation) -> int:
        async with turn:
            await asyncio.sleep(0.004)
            return await keeper(operation)

    async with serving(keep_in_turn, maximum_operations=8) as server, far_from(server) as (remote, _):
        check(await remote.send(instances(200)).all(), keeper, 200)
        assert remote._pool.best.window <= 8


async def test_a_peer_that_aborts_when_operations_overlap() -> None:
    overlap = OverlapAborts(Keeper())
    async with serving(overlap) as server, far_from(server) as (remote, _):
        outcomes = await remote.send(instances(300), backoff=TINY).all()
        assert uids(outcomes) == expected(300)
        assert [outcome for outcome in outcomes if not outcome.is_stored] == []
        assert overlap.aborts == 1
        assert remote._pool.best.window == 1
        assert remote._pool.best.associations > 1


async def test_a_peer_that_is_out_of_resources_when_operations_overlap() -> None:
    keeper = Keeper()
    at_work = refused = 0

    async def keep_one(operation: Operation) -> int:
        nonlocal at_work, refused
        at_work += 1
        try:
            await operation.read()
            await asyncio.sleep(TINY)
            if at_work > 1:
                refused += 1
                return 0xA700
            return await keeper(operation)
        finally:
            at_work -= 1

    async with serving(keep_one) as server, far_from(server) as (remote, _):
        check(await remote.send(instances(300), backoff=TINY).all(), keeper, 300)
        assert remote._pool.best == (1, 1)
    assert 1 <= refused <= 8  # what was on its way when it was tried


async def test_a_peer_that_rejects_a_second_association() -> None:
    keeper, recorder = Keeper(), Recorder()
    observed = serving(keeper, maximum_associations=1, maximum_operations=1, observers=(recorder,))
    async with observed as server, far_from(server) as (remote, _):
        check(await remote.send(instances(200), retries=0).all(), keeper, 200)
        assert remote._pool.best == (1, 1)
    assert opened(recorder) == 1
    assert len(recorder.refused) == 1


async def test_a_peer_that_does_not_answer_a_second_association(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "LONGEST_OPENING", 0.1)
    keeper = Keeper()
    never = asyncio.Event()

    async with serving(keeper, maximum_operations=1) as server:

        @server.on_associate
        async def stall(_peer: object) -> None:
            if server.associations:
                await never.wait()

        async with far_from(server) as (remote, proxy):
            check(await remote.send(instances(100)).all(), keeper, 100)
            assert remote._pool.best == (1, 1)
            assert proxy.connections == 2


async def test_a_cut_in_the_middle_loses_nothing_and_repeats_only_what_was_on_its_way() -> None:
    keeper = Keeper()
    count = 600
    async with serving(keeper) as server, far_from(server) as (remote, proxy):
        outcomes = []
        async with remote.send(instances(count), backoff=TINY) as delivery:
            async for outcome in delivery:
                outcomes.append(outcome)
                if len(outcomes) in (50, 250, 400):
                    proxy.cut()
        assert uids(outcomes) == expected(count)
        assert [outcome for outcome in outcomes if not outcome.is_stored] == []
        assert sorted(keeper.received) == expected(count)
        again = {outcome.sop_instance_uid: outcome.attempts for outcome in outcomes if outcome.attempts > 1}
        assert again
        assert all(keeper.received[uid] <= again.get(uid, 1) for uid in keeper.received)


async def test_left_early_while_it_opens_associations() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, far_from(server) as (remote, proxy):
        async with remote.send(ct_instance(number) for number in range(100_000)) as delivery:
            async for _ in delivery:
                if proxy.connections > 1:
                    break
        assert [outcome for outcome in delivery.unreported if not outcome.is_stored] == []
        await remote.echo()


async def test_the_same_at_no_distance() -> None:
    keeper = Keeper()
    async with serving(keeper) as server, remote_of(server) as remote:
        check(await remote.send(instances(1000)).all(), keeper, 1000)
