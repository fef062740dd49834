"""Requests that are cancelled or run out of time: what is half on the wire ends the association, the rest does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiodicom import (
    AssociationAborted,
    EncodedInstance,
    Operation,
    OperationTimeout,
    Timeouts,
)
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    SHORT,
    RawPeer,
    Recorder,
    accept_pdu,
    assert_alive,
    connect,
    ct_instance,
    data_set,
    instance_uid,
    raw_server,
    reach,
    serving,
    until,
)

# More than both sockets and the transport buffer together.
ENDLESS = 64 * 1024 * 1024


async def keep_nothing(operation: Operation) -> None:
    await operation.read()


# Cancelled.


async def test_cancelled_before_a_byte_is_written_nothing_is() -> None:
    async with serving(keep_nothing) as server, connect(server) as association:
        sent = association.bytes_sent

        async def chunks() -> AsyncIterator[bytes]:
            reached.set()
            await asyncio.Event().wait()
            yield b""

        reached = asyncio.Event()
        instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
        task = asyncio.create_task(association.c_store(instance))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert association.bytes_sent == sent
        assert (await association.c_store(ct_instance())).status == 0


async def test_cancelled_while_waiting_for_its_turn_nothing_is_written() -> None:
    go = asyncio.Event()

    async def handler(_operation: Operation) -> None:
        await go.wait()

    async with serving(handler) as server, connect(server) as association:
        first = asyncio.create_task(association.c_store(ct_instance(1)))
        second = asyncio.create_task(association.c_store(ct_instance(2)))
        await until(lambda: server.associations[0].operations)
        second.cancel()
        go.set()
        assert (await first).status == 0
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await association.c_store(ct_instance(3))).message_id_being_responded_to == 2


async def test_cancelled_with_half_a_message_on_the_wire_the_association_dies() -> None:
    recorder = Recorder()
    reached = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield data_set()[:100]
        yield data_set()[100:150]
        reached.set()
        await asyncio.Event().wait()

    async with serving(keep_nothing, observers=(recorder,)) as server:
        association = await connect(server)
        instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
        task = asyncio.create_task(association.c_store(instance))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not association.is_open
        with pytest.raises(AssociationAborted, match="cut short"):
            await association.c_echo()
        await recorder.until(lambda: recorder.closed)
        assert isinstance(recorder.closed[0], AssociationAborted)
        await association.wait_closed()


async def test_a_data_source_that_fails_halfway_kills_the_association() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data_set()[:100]
        yield data_set()[100:]
        raise KeyError

    async with serving(keep_nothing) as server:
        association = await connect(server)
        with pytest.raises(KeyError):
            await association.c_store(EncodedInstance(CT, "1.2.3", IMPLICIT_VR_LITTLE_ENDIAN, chunks()))
        assert not association.is_open
        await association.wait_closed()
        await assert_alive(server)


async def test_cancelled_while_the_peer_does_not_read_the_association_dies() -> None:
    async def handler(_operation: Operation) -> None:
        await asyncio.Event().wait()

    async with serving(handler) as server:
        association = await connect(server)
        task = asyncio.create_task(association.c_store(ct_instance(1, ENDLESS)))
        await until(lambda: not association._connection.is_writable)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not association.is_open
        await association.abort()


async def test_cancelled_while_the_response_is_due_the_association_stays_usable() -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    async def handler(operation: Operation) -> int:
        await operation.read()
        asked.set()
        await go.wait()
        return 0xB000 + operation.command.message_id

    async with serving(handler) as server, connect(server) as association:
        first = asyncio.create_task(association.c_store(ct_instance(1)))
        await asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert association.is_open
        second = asyncio.create_task(association.c_store(ct_instance(2)))
        await asyncio.sleep(0)
        assert len(server.associations[0].operations) == 1  # the abandoned one keeps its place in the window
        go.set()
        assert (await second).status == 0xB002
        assert (await association.c_echo()).status == 0


async def test_an_abandoned_request_that_is_never_answered_ends_the_association() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await peer.command()
        asked.set()
        assert await peer.pdu() == ABORT_BY_USER

    asked = asyncio.Event()
    async with raw_server(script) as scp:
        association = await reach(scp, timeouts=Timeouts(response=SHORT))
        task = asyncio.create_task(association.c_echo())
        await asked.wait()
        task.cancel()
        await association.wait_closed()
        with pytest.raises(AssociationAborted):
            await association.c_echo()


# Deadlines.


async def test_without_a_response_the_association_is_aborted() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await peer.command()
        assert await peer.pdu() == ABORT_BY_USER

    async with raw_server(script) as scp:
        association = await reach(scp, timeouts=Timeouts(response=SHORT, idle=None))
        with pytest.raises(OperationTimeout) as caught:
            await association.c_echo()
        assert (caught.value.phase, caught.value.seconds) == ("response", SHORT)
        assert isinstance(caught.value, TimeoutError)
        assert not association.is_open
        await association.wait_closed()


async def test_without_a_response_everybody_who_waits_is_told() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await peer.rest()

    async with raw_server(script) as scp:
        association = await reach(scp, timeouts=Timeouts(response=SHORT))
        results = await asyncio.gather(*(association.c_echo() for _ in range(3)), return_exceptions=True)
        assert isinstance(results[0], OperationTimeout)
        assert all(isinstance(each, AssociationAborted | OperationTimeout) for each in results)
        await association.wait_closed()


async def test_a_peer_that_stops_reading_is_given_up() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await given_up.wait()
        peer.reset()

    given_up = asyncio.Event()
    async with raw_server(script) as scp:
        association = await reach(scp, timeouts=Timeouts(send=SHORT))
        with pytest.raises(OperationTimeout) as caught:
            await association.c_store(ct_instance(1, ENDLESS))
        assert caught.value.phase == "send"
        assert not association.is_open
        given_up.set()
        await association.wait_closed()
