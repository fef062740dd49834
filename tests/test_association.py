"""An established association, both ends ours: its life, many tasks on it, and what cancels, times out or breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest

from aiodicom import (
    Association,
    AssociationAborted,
    AssociationReleased,
    EncodedInstance,
    NoAcceptedContext,
    Operation,
    OperationTimeout,
    Service,
    SupportedSyntax,
    Timeouts,
)
from aiodicom.dimse.commands import CCancelRQ, CEchoRSP, CFindRQ, CStoreRQ, CStoreRSP
from aiodicom.dimse.status import Status
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND, VERIFICATION
from tests.inquiries import asking, cancel_pdu, find_pdu
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    SHORT,
    RawPeer,
    Recorder,
    accept_pdu,
    command_pdu,
    connect,
    ct_instance,
    data_set,
    fragment_pdu,
    instance_uid,
    raw_association,
    raw_server,
    reach,
    serving,
    store_pdu,
)

# More than both sockets and the transport buffer together.
ENDLESS = 64 * 1024 * 1024


async def keep_nothing(operation: Operation) -> None:
    await operation.read()


def echo_response(message_id: int) -> bytes:
    return command_pdu(ECHO_CONTEXT, CEchoRSP(message_id_being_responded_to=message_id, status=Status(0)))


def store_response(message_id: int, status: int = 0) -> bytes:
    return command_pdu(CT_CONTEXT, CStoreRSP(message_id_being_responded_to=message_id, status=Status(status)))


async def take_instance(peer: RawPeer) -> CStoreRQ:
    """The next C-STORE-RQ, data set included."""
    request = await peer.command()
    assert isinstance(request, CStoreRQ)
    while (await peer.pdu())[11] != 2:  # the last data fragment
        pass
    return request


# Its life.


async def test_leaving_the_block_releases() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server:
        async with connect(server) as association:
            assert association.is_open
            assert association.is_requestor
            assert "open" in repr(association)
        assert not association.is_open
        await recorder.until(lambda: recorder.closed)
        assert recorder.calls == ["opened", "closed AssociationReleased"]


async def test_leaving_the_block_by_an_exception_aborts() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server:
        with pytest.raises(KeyError):
            async with connect(server) as association:
                raise KeyError
        assert not association.is_open
        await recorder.until(lambda: recorder.closed)
        (error,) = recorder.closed
        assert isinstance(error, AssociationAborted)
        assert (error.source, error.reason, error.by_peer) == (0, 0, True)


async def test_leaving_the_block_by_cancellation_aborts() -> None:
    recorder = Recorder()
    established = asyncio.Event()

    async def hold() -> None:
        async with connect(server):
            established.set()
            await asyncio.Event().wait()

    async with serving(observers=(recorder,)) as server:
        task = asyncio.create_task(hold())
        await established.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await recorder.until(lambda: recorder.closed)
        assert isinstance(recorder.closed[0], AssociationAborted)


async def test_one_task_associates_another_releases() -> None:
    async with serving() as server:
        association = await asyncio.create_task(_associate(server))
        # No cancel scope of the first task is left open: another one can open and close its own around the use.
        with anyio.fail_after(5):
            assert (await association.c_echo()).status == 0
        await asyncio.create_task(association.release())
        assert not association.is_open


async def _associate(server: object) -> Association:
    return await connect(server)  # type: ignore[arg-type]


async def test_an_awaited_association_is_a_context_manager_too() -> None:
    async with serving() as server:
        association = await connect(server)
        async with association as same:
            assert same is association
            await same.c_echo()
        assert not association.is_open


async def test_what_is_over_can_be_ended_again() -> None:
    async with serving() as server:
        released, aborted = await connect(server), await connect(server)
        await released.release()
        await aborted.abort()
        for association in (released, aborted):
            await association.release()
            await association.abort()
            await association.wait_closed()


async def test_two_tasks_may_release_at_once() -> None:
    async with serving() as server:
        association = await connect(server)
        await asyncio.gather(association.release(), association.release())
        assert not association.is_open


async def test_using_a_released_association_says_so() -> None:
    async with serving() as server:
        association = await connect(server)
        await association.release()
        with pytest.raises(AssociationReleased):
            await association.c_echo()
        with pytest.raises(AssociationReleased):
            await association.c_store(ct_instance())


async def test_using_an_aborted_association_says_so() -> None:
    async with serving() as server:
        association = await connect(server)
        await association.abort()
        with pytest.raises(AssociationAborted, match="by us"):
            await association.c_echo()


async def test_an_error_that_is_raised_often_does_not_grow() -> None:
    async with serving() as server:
        association = await connect(server)
        await association.release()
        depths = []
        for _ in range(3):
            with pytest.raises(AssociationReleased) as caught:
                await association.c_echo()
            depths.append(len(caught.traceback))
        assert len(set(depths)) == 1


async def test_the_peer_may_release() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(), RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP
        assert await peer.rest() == b""

    async with raw_server(script) as scp:
        association = await reach(scp)
        await association.wait_closed()
        with pytest.raises(AssociationReleased, match="the peer released"):
            await association.c_echo()


async def test_both_ends_may_release_at_once() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP  # the requestor answers first (PS3.8 §9.2.2)
        peer.send(RELEASE_RP)
        assert await peer.rest() == b""

    async with raw_server(script) as scp, reach(scp):
        pass


async def test_a_release_without_an_answer_aborts() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        assert await peer.pdu() == RELEASE_RQ
        assert await peer.pdu() == ABORT_BY_USER

    async with raw_server(script) as scp:
        association = await reach(scp, timeouts=Timeouts(release=SHORT))
        with pytest.raises(OperationTimeout) as caught:
            await association.release()
        assert caught.value.phase == "release"
        assert not association.is_open
        await association.abort()


async def test_a_release_while_a_message_is_sent_waits_for_it() -> None:
    go, reached = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield data_set()[:100]
        yield data_set()[100:150]
        reached.set()
        await go.wait()
        yield data_set()[150:]

    async with serving(keep_nothing) as server, connect(server) as association:
        instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
        storing = asyncio.create_task(association.c_store(instance))
        await reached.wait()
        releasing = asyncio.create_task(association.release())
        await asyncio.sleep(0)
        go.set()
        await releasing
        assert (await storing).status == 0  # responses may come until the release is answered (PS3.8 Table 9-10, AR-6)


# From many tasks.


@pytest.mark.parametrize("window", [1, 8])
async def test_fifty_tasks_share_an_association(window: int) -> None:
    running, most = 0, 0
    together = asyncio.Event()

    async def handler(operation: Operation) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await operation.read()
        if running == window:
            together.set()
        await together.wait()  # the first ones wait until the window is full: it is real
        running -= 1
        return 0xB000 + int(operation.sop_instance_uid.rpartition(".")[2])

    async with (
        serving(handler, maximum_operations=window) as server,
        connect(server, operations_window=(50, 1)) as association,
    ):
        assert association.terms.maximum_invoked == window
        numbers = range(50)
        stored = [asyncio.create_task(association.c_store(ct_instance(number))) for number in numbers]
        echoed = [asyncio.create_task(association.c_echo()) for _ in numbers]
        assert [(await each).status for each in stored] == [0xB000 + number for number in numbers]
        assert {(await each).status for each in echoed} == {0}
    assert most == window


async def test_without_a_window_there_is_one_operation_at_a_time() -> None:
    most = 0

    async def handler(operation: Operation) -> None:
        nonlocal most
        most = max(most, len(server.associations[0].operations))
        await operation.read()

    async with serving(handler) as server, connect(server) as association:
        assert (association.terms.maximum_invoked, association.terms.maximum_performed) == (1, 1)
        await asyncio.gather(*(association.c_store(ct_instance(number)) for number in range(10)))
    assert most == 1


async def test_responses_out_of_order_find_their_requests() -> None:
    arrived: list[asyncio.Event] = []
    complete = asyncio.Event()

    async def handler(operation: Operation) -> int:
        mine = asyncio.Event()
        arrived.append(mine)
        if len(arrived) == 8:
            complete.set()
        await mine.wait()
        return 0xB000 + operation.command.message_id

    async with serving(handler) as server, connect(server, operations_window=(8, 1)) as association:
        tasks = [asyncio.create_task(association.c_store(ct_instance(number))) for number in range(8)]
        await complete.wait()
        ended: list[asyncio.Task[CStoreRSP]] = []
        for number, event in reversed(list(enumerate(arrived))):
            event.set()
            response = await tasks[number]
            ended.append(tasks[number])
            assert response.status == 0xB000 + response.message_id_being_responded_to
            assert response.affected_sop_instance_uid == instance_uid(number)
            assert [task for task in tasks if task.done()] == [task for task in tasks if task in ended]


async def test_an_unlimited_window_is_one() -> None:
    async with serving(maximum_operations=0) as server, connect(server, operations_window=(0, 0)) as association:
        assert (association.terms.maximum_invoked, association.terms.maximum_performed) == (0, 0)
        assert {response.status for response in await asyncio.gather(*(association.c_echo() for _ in range(50)))} == {0}


async def test_message_ids_are_unique_among_the_outstanding_and_never_zero() -> None:
    async with serving() as server, connect(server) as association:
        association._invoker._last_message_id = 0xFFFE
        assert [(await association.c_echo()).message_id_being_responded_to for _ in range(3)] == [0xFFFF, 1, 2]


async def test_what_was_not_accepted_is_said_with_both_lists() -> None:
    async with serving() as server, connect(server, contexts=[MR, VERIFICATION]) as association:
        with pytest.raises(NoAcceptedContext, match=r"proposed 1\.2\.840\.10008\.1\.2.*accepted nothing"):
            await association.c_store(EncodedInstance(MR, "1.2.3", IMPLICIT_VR_LITTLE_ENDIAN, data_set(sop_class=MR)))
        assert (await association.c_echo()).status == 0


# What the peer does.


async def test_the_peer_goes_in_the_middle_of_a_store() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await peer.pdu()
        peer.reset()

    async with raw_server(script) as scp:
        association = await reach(scp)
        with pytest.raises(AssociationAborted) as caught:
            await association.c_store(ct_instance(1, ENDLESS))
        assert caught.value.source is None


async def test_the_peer_aborts_in_the_middle_of_a_store() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await take_instance(peer)
        peer.send(bytes.fromhex("070000000004 00000201"))
        assert await peer.rest() == b""

    async with raw_server(script) as scp:
        association = await reach(scp)
        with pytest.raises(AssociationAborted, match="by the peer") as caught:
            await association.c_store(ct_instance())
        assert (caught.value.source, caught.value.reason) == (2, 1)


async def test_a_response_in_pieces_is_one() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        request = await take_instance(peer)
        for byte in store_response(request.message_id, 0xB007):
            peer.send(bytes((byte,)))
            await peer.writer.drain()
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp, reach(scp) as association:
        assert (await association.c_store(ct_instance())).status == 0xB007


async def test_fragments_keep_to_what_the_peer_takes() -> None:
    lengths: list[int] = []

    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(maximum_length=64))
        last = False
        while not last:
            pdu = await peer.pdu()
            lengths.append(len(pdu) - 6)
            last = pdu[11] == 2
        peer.send(store_response(1))
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp, reach(scp) as association:
        assert (await association.c_store(ct_instance())).status == 0
    assert max(lengths) == 64
    assert all(length % 2 == 0 for length in lengths)


async def test_a_cancel_reaches_a_handler_that_works() -> None:
    working = asyncio.Event()

    async def handler(operation: Operation) -> None:
        await operation.read()
        working.set()
        await asyncio.Event().wait()

    service = Service(CFindRQ, handler, {STUDY_ROOT_FIND: SupportedSyntax()})
    async with serving(services=[service]) as server, asking(server) as peer:
        peer.send(find_pdu(7))
        await working.wait()
        peer.send(cancel_pdu(7), cancel_pdu(7))
        response = await peer.response()
        assert (response.status, response.message_id_being_responded_to) == (0xFE00, 7)
        peer.send(cancel_pdu(7), RELEASE_RQ)  # of what is over: it means nothing
        assert await peer.pdu() == RELEASE_RP


async def test_a_cancel_does_not_reach_the_handler_of_a_c_store() -> None:
    working, go_on, recorder = asyncio.Event(), asyncio.Event(), Recorder()

    async def handler(operation: Operation) -> None:
        await operation.read()
        working.set()
        await go_on.wait()

    async with serving(handler, observers=(recorder,)) as server, raw_association(server) as peer:
        peer.send(store_pdu(7), fragment_pdu(data_set()))
        await working.wait()
        peer.send(command_pdu(CT_CONTEXT, CCancelRQ(message_id_being_responded_to=7)))
        await recorder.until(lambda: "received CCancelRQ" in recorder.calls)
        go_on.set()
        assert (await peer.response()).status == 0


async def test_an_abort_ends_a_handler_that_works() -> None:
    working, ended = asyncio.Event(), asyncio.Event()

    async def handler(operation: Operation) -> None:
        await operation.read()
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set()))
        await working.wait()
        peer.send(ABORT_BY_USER)
        await ended.wait()
        assert await peer.rest() == b""


async def test_a_release_waits_for_a_handler_that_works() -> None:
    working, go = asyncio.Event(), asyncio.Event()

    async def handler(operation: Operation) -> None:
        await operation.read()
        working.set()
        await go.wait()

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set()), RELEASE_RQ)
        await working.wait()
        go.set()
        assert (await peer.response()).status == 0
        assert await peer.pdu() == RELEASE_RP
        assert await peer.rest() == b""
