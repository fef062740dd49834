"""Requests of ours that are outstanding: their deadlines, and their turns in the operations window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiodicom import AssociationAborted, LocalProtocolError, Operation, OperationTimeout, Timeouts
from aiodicom.dimse.commands import CEchoRSP, CGetRSP
from aiodicom.invoking import NESTED_BOUND
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.scoped import Matches
from aiodicom.services.query import find_service
from tests.inquiries import (
    STUDY,
    ask,
    asked,
    asked_to_find,
    asked_to_get,
    asked_to_move,
    assert_usable,
    cancelled,
    counted,
    echoed,
    end,
    find,
    get,
    instance,
    match,
    move,
    released,
    stored,
)
from tests.loopback import ABORT_BY_USER, SHORT, RawPeer, ct_instance, serving, until

# Deadlines.


async def test_a_silent_peer_runs_into_the_idle_deadline() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        assert await peer.pdu() == ABORT_BY_USER

    async with asked(script, timeouts=Timeouts(pending=SHORT, idle=None)) as association:
        matches = find(association)
        await anext(matches)
        with pytest.raises(OperationTimeout) as caught:
            await anext(matches)
        assert (caught.value.phase, caught.value.seconds) == ("response", SHORT)
        assert not association.is_open


async def test_the_idle_deadline_of_one_operation_goes_before_that_of_the_association() -> None:
    async def script(peer: RawPeer) -> None:
        await asked_to_move(peer)
        assert await peer.pdu() == ABORT_BY_USER

    async with asked(script) as association:
        with pytest.raises(OperationTimeout):
            await anext(move(association, idle_timeout=SHORT))


async def test_each_response_gives_the_next_one_time() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        for _ in range(4):
            await asyncio.wait([over], timeout=SHORT)
            peer.send(match(number))
        peer.send(end(number))

    over = asyncio.get_running_loop().create_future()
    async with asked(script, timeouts=Timeouts(pending=2 * SHORT, idle=None)) as association:
        assert len(await find(association).all()) == 4
    over.cancel()


async def test_a_slow_consumer_does_not_run_into_the_idle_deadline() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        try:
            while True:
                peer.send(match(number, size=900))
                await peer.writer.drain()
        except OSError:
            pass

    over = asyncio.get_running_loop().create_future()
    async with asked(script, timeouts=Timeouts(pending=2 * SHORT, idle=None)) as association:
        matches = find(association)
        await anext(matches)
        await until(lambda: association._connection.is_held)
        await asyncio.wait([over], timeout=5 * SHORT)
        assert association.is_open
        while association._connection.is_held:
            await anext(matches)
        # The peer, which was held back until now, gets its time anew, however late it is.
        association._invoker.overdue().deadline = 0
        association._watch_peer()
        assert association.is_open
        for _ in range(3000):
            await anext(matches)
        await association.abort()
    over.cancel()


async def test_all_of_it_has_a_deadline_of_its_own() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))
        await echoed(peer)

    async with asked(script) as association:
        matches = find(association, total_timeout=SHORT)
        await anext(matches)
        with pytest.raises(OperationTimeout) as caught:
            await anext(matches)
        assert (caught.value.phase, caught.value.seconds) == ("total", SHORT)
        assert matches.is_over
        assert matches.status == 0xFE00
        await assert_usable(association)


@pytest.mark.parametrize("how", ["all", "encoded", "block"])
async def test_the_deadline_of_all_of_it_counts_the_wait_for_its_turn(how: str) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))

    async def take(matches: Matches) -> None:
        if how == "all":
            await matches.all()
        elif how == "encoded":
            assert [each async for each in matches.encoded()]
        else:
            await matches.__aenter__()

    async with asked(script) as association, find(association):
        with pytest.raises(OperationTimeout, match="total"):
            await asyncio.create_task(take(find(association, total_timeout=SHORT)))


async def test_matches_as_they_are_encoded_keep_the_deadline_of_all_of_it() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))

    async with asked(script) as association:
        found = []
        with pytest.raises(OperationTimeout, match="total"):  # noqa: PT012 - what came before counts, too
            async for each in find(association, total_timeout=SHORT).encoded():
                found.append(each)  # noqa: PERF401
        assert len(found) == 1


# Requests inside of others, and beside them.


async def test_a_request_inside_of_a_query_waits_for_its_end() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1))
        await asking.wait()
        peer.send(match(number, 2), match(number, 3), end(number))
        for _ in range(3):
            await echoed(peer)
        await released(peer)

    asking = asyncio.Event()
    async with asked(script) as association:
        order = []
        async with find(association) as matches:
            async for each in matches:
                asyncio.get_running_loop().call_soon(asking.set)
                await association.c_echo()
                order.append(str(each.PatientID))
        assert order == ["1", "2", "3"]
        await association.release()


async def test_queries_inside_of_queries() -> None:
    async def search(operation: Operation) -> AsyncIterator[dict[str, str]]:
        for number in range(3):
            yield {"StudyInstanceUID": f"{STUDY}.{number}", "PatientID": operation.identifier.PatientID}

    async with serving(services=[find_service(search)]) as server, ask(server) as association:
        found = [
            (str(one.StudyInstanceUID), str(other.PatientID))
            async for one in find(association, PatientID="1")
            async for other in find(association, PatientID="2")
        ]
        assert len(found) == 9
        assert {patient for _, patient in found} == {"2"}


async def test_with_a_window_a_request_inside_of_a_query_goes_out_at_once() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1))
        await echoed(peer)  # before the end of the query
        peer.send(end(number))

    async with asked(script, window=(2, 1)) as association:
        async for _ in find(association):
            await association.c_echo()


async def test_a_request_inside_of_too_large_a_query_is_an_error_and_not_for_ever() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        batch = b"".join(match(number, size=100_000) for _ in range(10))
        try:
            for _ in range(100):
                peer.send(batch)
                await peer.writer.drain()
        except OSError:
            pass

    async with asked(script) as association, find(association) as matches:
        async for _ in matches:
            with pytest.raises(LocalProtocolError, match="operations_window"):
                await association.c_echo()
            assert association._window.buffered <= 2 * NESTED_BOUND + DEFAULT_LIMITS.maximum_buffered
            break
        await until(lambda: association._connection.is_held)
        assert (
            association._window.buffered < 2 * NESTED_BOUND - DEFAULT_LIMITS.maximum_buffered
        )  # the bound is what it was
        await association.abort()


@pytest.mark.parametrize("request_", ["echo", "store", "find", "get", "move"])
async def test_a_request_inside_of_a_retrieval_is_an_error_at_once(request_: str) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1))
        assert await stored(peer) == 0
        peer.send(counted(CGetRSP, number, 0, (None, 1, 0, 0)))
        await echoed(peer)

    async def nested() -> object:
        match request_:
            case "echo":
                return await association.c_echo()
            case "store":
                return await association.c_store(ct_instance())
            case "find":
                return await find(association).all()
            case "get":
                return await anext(get(association))
            case _:
                return await anext(move(association))

    async with asked(script) as association:
        async with get(association) as instances:
            async for _ in instances:
                with pytest.raises(LocalProtocolError, match="leave it first"):
                    await nested()
        assert instances.progress.completed == 1
        await assert_usable(association)


async def test_requests_of_other_tasks_go_out_in_the_order_they_were_made() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await waiting.wait()
        peer.send(end(number))
        await echoed(peer)
        number = await asked_to_find(peer)
        peer.send(end(number))
        await echoed(peer)

    waiting = asyncio.Event()
    async with asked(script) as association:
        async with find(association) as matches:
            await anext(matches)
            others = [
                asyncio.create_task(each)
                for each in (association.c_echo(), find(association).all(), association.c_echo())
            ]
            await until(lambda: association._invoker._turns.are_awaited)
            waiting.set()
            assert [each async for each in matches] == []
        await asyncio.gather(*others)


async def test_another_task_waits_while_a_retrieval_goes_on() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        for each in range(3):
            peer.send(instance(each + 1))
            assert await stored(peer) == 0
        peer.send(counted(CGetRSP, number, 0, (None, 3, 0, 0)))
        await echoed(peer)

    async with asked(script) as association:
        echo: asyncio.Task[object] | None = None
        async with get(association) as instances:
            async for _ in instances:
                echo = echo or asyncio.create_task(association.c_echo())
        assert echo is not None
        await echo


async def test_the_end_of_the_association_is_told_to_those_who_wait_for_a_turn() -> None:
    async def script(peer: RawPeer) -> None:
        await asked_to_find(peer)
        await waiting.wait()
        peer.send(ABORT_BY_USER)

    waiting = asyncio.Event()
    async with asked(script) as association, find(association):
        echo = asyncio.create_task(association.c_echo())
        await until(lambda: association._invoker._turns.are_awaited)
        waiting.set()
        with pytest.raises(AssociationAborted):
            await echo


async def test_who_gives_up_waiting_for_a_turn_does_not_keep_it() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        await given_up.wait()
        peer.send(end(number))
        await echoed(peer)

    given_up = asyncio.Event()
    async with asked(script) as association:
        async with find(association) as matches:
            echoes = [asyncio.create_task(association.c_echo()) for _ in range(3)]
            await until(lambda: association._invoker._turns.are_awaited)
            for echo in echoes[:2]:
                echo.cancel()
            given_up.set()
            assert [each async for each in matches] == []
        results = await asyncio.gather(*echoes, return_exceptions=True)
        assert [type(each) for each in results] == [asyncio.CancelledError, asyncio.CancelledError, CEchoRSP]


# Fairness.


async def test_a_loop_over_matches_that_are_here_lets_others_have_their_turn() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(*(match(number, each, size=100) for each in range(1000)), end(number))

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asked(script) as association, find(association) as matches:
        await until(lambda: matches.status is not None)
        counting = asyncio.create_task(count_turns())
        assert len([each async for each in matches]) == 1000  # decoding them takes dozens of milliseconds
        counting.cancel()
        assert turns > 3
