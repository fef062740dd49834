"""Sending again: what may go better later is tried again, everything else is not, and a peer can be given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiodicom import (
    AssociationAborted,
    AssociationRejected,
    ConnectionFailed,
    EncodedInstance,
    NoAcceptedContext,
    Observer,
    Operation,
    RemoteAE,
    Server,
    Timeouts,
    storage_service,
)
from aiodicom.remote import delivery as delivery_module
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import (
    CT,
    SHORT,
    RawPeer,
    Recorder,
    ct_instance,
    data_set,
    instance_uid,
    raw_server,
    reject_pdu,
    serving,
)
from tests.remote.peers import Keeper, expected, instances, keep_nothing, opened, remote_of, uids

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
TINY = 0.001  # a back-off that nobody notices


# One instance.


@pytest.mark.parametrize("status", [0xA700, 0xA7FE, 0x0213])
async def test_out_of_resources_is_tried_again(status: int) -> None:
    keeper = Keeper(status, status)
    async with serving(keeper) as server, remote_of(server) as remote:
        outcomes = await remote.send(instances(5), backoff=TINY).all()
    assert uids(outcomes) == expected(5)
    assert {outcome.attempts for outcome in outcomes} == {3}
    assert all(outcome.is_stored for outcome in outcomes)
    assert set(keeper.received.values()) == {3}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC123, 0x0110, 0x0111, 0x0122, 0x0124])
async def test_what_will_not_go_better_is_not_tried_again(status: int) -> None:
    keeper = Keeper(status)
    async with serving(keeper) as server, remote_of(server) as remote:
        (outcome,) = await remote.send(ct_instance(), backoff=TINY).all()
    assert (outcome.status, outcome.attempts, outcome.is_stored) == (status, 1, False)
    assert set(keeper.received.values()) == {1}


async def test_retries_come_to_an_end() -> None:
    keeper = Keeper(*[0xA700] * 9)
    async with serving(keeper) as server, remote_of(server) as remote:
        (outcome,) = await remote.send(ct_instance(), retries=2, backoff=TINY).all()
        assert (outcome.status, outcome.attempts) == (0xA700, 3)
        (outcome,) = await remote.send(ct_instance(2), retries=0, backoff=TINY).all()
        assert (outcome.status, outcome.attempts) == (0xA700, 1)


async def test_what_the_peer_does_not_accept_fails_and_the_rest_goes_on() -> None:
    keeper = Keeper()
    jpeg = EncodedInstance(CT, instance_uid(9), JPEG_BASELINE, b"")
    server = Server("SCP", port=0, observers=(), stop_timeout=0)
    server.add(storage_service(keeper, [CT], [IMPLICIT_VR_LITTLE_ENDIAN]))
    async with server, remote_of(server) as remote:
        outcomes = await remote.send([jpeg, *instances(3)]).all()
    errors = [outcome.error for outcome in outcomes if not outcome.is_stored]
    assert [type(error) for error in errors] == [NoAcceptedContext]
    assert len(keeper.received) == 3


async def test_after_the_loss_of_an_association_another_one_goes_on() -> None:
    keeper = Keeper()

    async def lose_some(operation: Operation) -> int:
        status = await keeper(operation)
        if keeper.received.total() in (3, 7, 8):
            await asyncio.gather(*(each.abort() for each in server.associations))
        return status

    recorder = Recorder()
    async with serving(lose_some, observers=(recorder,)) as server, remote_of(server) as remote:
        outcomes = await remote.send(instances(20), associations=1, backoff=TINY).all()
    assert uids(outcomes) == expected(20)
    assert all(outcome.is_stored for outcome in outcomes)
    assert sorted(outcome.attempts for outcome in outcomes) == [1] * 17 + [2] * 3
    assert opened(recorder) == 4


async def test_one_that_ends_every_association_does_not_take_others_with_it() -> None:
    async def choke(operation: Operation) -> None:
        if operation.sop_instance_uid == instance_uid(7):
            await asyncio.gather(*(each.abort() for each in server.associations))

    async with serving(choke) as server, remote_of(server) as remote:
        outcomes = await remote.send(instances(20), associations=1, retries=2, backoff=TINY).all()
    (failed,) = [outcome for outcome in outcomes if not outcome.is_stored]
    assert failed.sop_instance_uid == instance_uid(7)
    assert failed.attempts == 3
    assert isinstance(failed.error, AssociationAborted)
    assert uids(outcomes) == expected(20)


async def test_a_response_that_does_not_come_is_waited_for_once_more() -> None:
    keeper = Keeper()

    async def stall(operation: Operation) -> None:
        await keeper(operation)
        if keeper.received.total() == 1:
            await asyncio.Event().wait()

    async with serving(stall) as server, remote_of(server, timeouts=Timeouts(response=SHORT, idle=None)) as remote:
        outcomes = await remote.send(instances(3), associations=1, backoff=TINY).all()
    assert sorted(outcome.attempts for outcome in outcomes) == [1, 1, 2]
    assert all(outcome.is_stored for outcome in outcomes)


async def test_chunks_come_once_and_are_not_sent_again() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data_set(1)

    keeper = Keeper(0xA700)
    async with serving(keeper) as server, remote_of(server) as remote:
        instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
        (outcome,) = await remote.send(instance, backoff=TINY).all()
    assert (outcome.status, outcome.attempts) == (0xA700, 1)


async def test_a_data_source_that_fails_is_an_outcome() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data_set(1)[:100]
        yield data_set(1)[100:200]
        raise KeyError("source")

    async with serving(keep_nothing) as server, remote_of(server) as remote:
        broken = EncodedInstance(CT, instance_uid(99), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
        outcomes = await remote.send([broken, *instances(5)], associations=1, backoff=TINY).all()
    errors = {outcome.sop_instance_uid: outcome.error for outcome in outcomes if outcome.error}
    assert list(errors) == [instance_uid(99)]
    assert isinstance(errors[instance_uid(99)], KeyError)
    assert len(outcomes) == 6


# A peer that cannot be reached.


async def test_a_peer_that_was_never_reached_is_not_tried_again() -> None:
    class Count(Observer):
        tries = 0

        def association_refused(self, _peer: object, _error: Exception) -> None:
            self.tries += 1

    async with serving() as server:
        port = server.port
    count = Count()
    async with RemoteAE("127.0.0.1", port, observers=(count,)) as remote:
        outcomes = await remote.send(instances(200), associations=1).all()
    assert uids(outcomes) == expected(200)
    assert {type(outcome.error) for outcome in outcomes} == {ConnectionFailed}
    assert {outcome.attempts for outcome in outcomes} == {0}
    assert count.tries == 1


async def test_one_that_was_reached_before_is_waited_for() -> None:
    refused = asyncio.Event()

    class Watch(Observer):
        def association_refused(self, _peer: object, _error: Exception) -> None:
            refused.set()

    keeper = Keeper()
    server = Server("SCP", port=0, observers=(), stop_timeout=0)
    server.on_c_store(keeper)
    await server.start()
    async with remote_of(server, observers=(Watch(),)) as remote:
        await remote.echo()
        port = server.port
        await server.stop()
        sending = asyncio.create_task(remote.send(instances(20), backoff=TINY, retries=1000).all())
        await refused.wait()
        again = Server("SCP", port=port, observers=(), stop_timeout=0)
        again.on_c_store(keeper)
        async with again:
            outcomes = await sending
    assert uids(outcomes) == expected(20)
    assert all(outcome.is_stored for outcome in outcomes)
    assert set(keeper.received.values()) == {1}


async def test_one_that_stays_away_is_given_up_and_everything_has_its_outcome() -> None:
    refused = 0

    class Count(Observer):
        def association_refused(self, _peer: object, _error: Exception) -> None:
            nonlocal refused
            refused += 1

    server = Server("SCP", port=0, observers=(), stop_timeout=0)
    await server.start()
    async with remote_of(server, observers=(Count(),)) as remote:
        await remote.echo()
        await server.stop()
        outcomes = await remote.send(instances(500), associations=1, retries=3, backoff=TINY).all()
    assert uids(outcomes) == expected(500)
    assert {type(outcome.error) for outcome in outcomes} == {ConnectionFailed}
    assert refused == 4


async def test_one_that_was_given_up_is_tried_again_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "LONGEST_BACKOFF", 0)
    keeper = Keeper()
    server = Server("SCP", port=0, observers=(), stop_timeout=0)
    await server.start()
    port = server.port
    go = asyncio.Event()

    async def some_now_and_some_later() -> AsyncIterator[EncodedInstance]:
        yield ct_instance(0)
        await go.wait()
        yield ct_instance(1)

    async with remote_of(server) as remote:
        await remote.echo()
        await server.stop()
        async with remote.send(some_now_and_some_later(), retries=0) as delivery:
            first = await anext(delivery)
            assert isinstance(first.error, ConnectionFailed)
            again = Server("SCP", port=port, observers=(), stop_timeout=0)
            again.on_c_store(keeper)
            async with again:
                go.set()
                assert (await anext(delivery)).is_stored
                with pytest.raises(StopAsyncIteration):
                    await anext(delivery)


async def test_a_transient_rejection_is_tried_again() -> None:
    requests = 0

    async def script(peer: RawPeer) -> None:
        nonlocal requests
        requests += 1
        await peer.pdu()
        if requests <= 2:
            peer.send(reject_pdu(2, 3, 1))
        elif requests == 3:
            peer.send(reject_pdu(1, 1, 3))

    async with raw_server(script) as scp, RemoteAE("127.0.0.1", scp.port, observers=()) as remote:
        (outcome,) = await remote.send(ct_instance(), associations=1, backoff=TINY, retries=5).all()
    assert isinstance(outcome.error, AssociationRejected)
    assert outcome.error.result == 1
    assert requests == 3


async def test_a_peer_that_takes_one_association_gets_everything_over_that() -> None:
    async with serving(keep_nothing, maximum_associations=1) as server, remote_of(server) as remote:
        outcomes = await remote.send(instances(50), associations=4, retries=0, backoff=TINY).all()
    assert uids(outcomes) == expected(50)
    assert all(outcome.is_stored for outcome in outcomes)
