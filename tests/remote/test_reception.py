"""Our server that peers move to: what comes belongs to a retrieval, or to nobody, or to the server's own handler."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest

from aiodicom import (
    BlockingOperation,
    CMoveRQ,
    Conclusion,
    ConnectionFailed,
    Operation,
    ProposedContext,
    RemoteAE,
    Server,
    associate,
)
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import CT, ct_instance, instance_uid, serving
from tests.peers.process import free_port
from tests.remote.peers import (
    ONE,
    OTHER,
    STUDIES,
    Move,
    listening,
    move_all,
    moving,
    numbers,
    pacs,
    remote_of,
    scripted_move,
    study,
    take_all,
)

# To whom it belongs.


async def test_two_remotes_share_a_listener() -> None:
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(listening())
        servers = [await stack.enter_async_context(pacs(scripted_move(listener), gets=False)) for _ in range(2)]
        remotes = [
            await stack.enter_async_context(remote_of(server, listener=listener, prefers="move")) for server in servers
        ]
        found = await asyncio.gather(*(take_all(study(remotes[index % 2], uid)) for index, uid in enumerate(STUDIES)))
    assert found == [list(STUDIES[ONE]), list(STUDIES[OTHER])]


async def test_a_peer_that_names_no_originator() -> None:
    async with moving(names_originator=False) as (remote, _):
        found = await asyncio.gather(*(take_all(study(remote, uid)) for uid in [ONE, OTHER] * 5))
    assert found == [list(STUDIES[ONE]), list(STUDIES[OTHER])] * 5  # one after the other


@pytest.mark.parametrize("title", ["PACS", "ME", "  ME "])
async def test_a_peer_that_names_the_originator_in_its_own_way(title: str) -> None:
    async def script(move: Move) -> Conclusion:
        move.originator = (title, move.operation.command.message_id)
        return await move_all(move)

    async with moving(script) as (remote, _):
        found = await asyncio.gather(*(take_all(study(remote, uid)) for uid in STUDIES))
    assert found == [list(STUDIES[ONE]), list(STUDIES[OTHER])]


async def test_one_that_is_left_lets_the_next_one_go() -> None:
    async with moving(names_originator=False) as (remote, _):
        first, second = study(remote, ONE), study(remote, OTHER)
        await anext(first)
        task = asyncio.create_task(take_all(second))
        await asyncio.sleep(0)
        await first.aclose()
        assert await task == [21, 22, 23]


async def test_another_listener_is_started_where_a_port_is_given() -> None:
    port = free_port()
    destination = Server("ME", port=port, observers=())  # not started: it stands for the address
    async with pacs(scripted_move(destination), gets=False) as server:
        async with remote_of(server, listen_port=port) as remote:
            assert not await is_listening(port)  # not before it is needed
            found = await asyncio.gather(*(take_all(study(remote, uid)) for uid in STUDIES))
            assert found == [list(STUDIES[ONE]), list(STUDIES[OTHER])]
        assert not await is_listening(port)


async def is_listening(port: int) -> bool:
    """Whether somebody listens at a port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_a_port_that_is_taken_is_told() -> None:
    async with serving() as other, pacs(gets=False) as server, remote_of(server, listen_port=other.port) as remote:
        with pytest.raises(ConnectionFailed, match="cannot listen"):
            await take_all(study(remote))


async def test_a_listener_that_is_not_started_is_started_and_stopped() -> None:
    listener = Server("ME", port=free_port(), observers=())
    async with pacs(scripted_move(listener), gets=False) as server, remote_of(server, listener=listener) as remote:
        assert await take_all(study(remote)) == [11, 12, 13]
        assert listener.addresses
    assert not listener.addresses


async def test_message_ids_of_moves_are_never_the_same() -> None:
    ids: list[int] = []

    async def script(move: Move) -> Conclusion:
        assert isinstance(move.operation.command, CMoveRQ)
        ids.append(move.operation.command.message_id)
        return await move_all(move)

    async with moving(script, maximum_associations=4) as (remote, _):
        await asyncio.gather(*(take_all(study(remote)) for _ in range(12)))
        remote._landing._reception._last_id = 0xFFFF  # type: ignore[union-attr]
        await take_all(study(remote))
    assert len(set(ids)) == 13
    assert ids[-1] == 1


# What comes for nobody.


async def store_at(server: Server, originator: tuple[str, int] | None) -> int:
    """Send an instance to a server of ours."""
    contexts = (ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),)
    async with associate("127.0.0.1", server.port, contexts=contexts, observers=()) as association:
        return (await association.c_store(ct_instance(99), move_originator=originator)).status


@pytest.mark.parametrize("originator", [None, ("ME", 7), ("OTHER", 7)], ids=str)
async def test_it_is_refused_and_logged(originator: tuple[str, int] | None, caplog: pytest.LogCaptureFixture) -> None:
    async with moving() as (_, listener):
        with caplog.at_level(logging.WARNING, "aiodicom.remote"):
            assert await store_at(listener, originator) == 0x0124
    assert "no retrieval waits for" in caplog.text
    assert instance_uid(99) in caplog.text


async def test_it_is_left_to_the_handler_of_the_server() -> None:
    kept: list[str] = []

    async def keep(operation: Operation) -> None:
        await operation.read()
        kept.append(operation.sop_instance_uid)

    async with (
        serving(keep) as listener,
        moving(listener=listener) as (remote, _),
        moving(listener=listener) as (other, _),
    ):
        assert await store_at(listener, None) == 0
        assert await take_all(study(remote)) == [11, 12, 13]
        assert await take_all(study(other, OTHER)) == [21, 22, 23]
        assert await store_at(listener, ("SOMEBODY", 3)) == 0
    assert kept == [instance_uid(99)] * 2


async def test_where_that_is_a_plain_function_it_runs_in_a_thread_of_the_server() -> None:
    borrowed: list[int] = []

    def keep(operation: BlockingOperation) -> None:
        operation.read()
        assert listener._limiter is not None
        borrowed.append(listener._limiter.borrowed_tokens)

    listener = Server("ME", port=0, observers=())
    listener.on_c_store(keep)
    async with RemoteAE("127.0.0.1", free_port(), listener=listener), listener:
        assert await store_at(listener, None) == 0
    assert borrowed == [1]


async def test_so_it_is_with_what_others_send_while_a_retrieval_is_open() -> None:
    kept: list[str] = []

    async def keep(operation: Operation) -> None:
        await operation.read()
        kept.append(operation.sop_instance_uid)

    async with (
        serving(keep) as listener,
        moving(listener=listener, names_originator=False) as (remote, _),
        study(remote) as retrieval,
    ):
        taken = [(await anext(retrieval)).sop_instance_uid]
        assert await store_at(listener, None) == 0
        taken += [instance.sop_instance_uid async for instance in retrieval]
    assert kept == [instance_uid(99)]
    assert numbers(taken) == [11, 12, 13]


async def test_what_another_originator_has_moved_is_none_of_ours() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def script(move: Move) -> Conclusion:
        begun.set()
        await go.wait()
        return await move_all(move)

    async with moving(script) as (remote, listener):
        task = asyncio.create_task(take_all(study(remote)))
        await begun.wait()
        (expected,) = remote._landing._reception._expected.values()  # type: ignore[union-attr]
        assert await store_at(listener, ("OTHER", expected.message_id)) == 0x0124
        assert await store_at(listener, ("ME", expected.message_id % 0xFFFF + 1)) == 0x0124
        go.set()
        assert await task == [11, 12, 13]
