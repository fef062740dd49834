"""C-FIND, C-GET and C-MOVE of ours that are left before their end: every way out, at every await."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from aiodicom import (
    Association,
    AssociationAborted,
    AssociationReleased,
    LocalProtocolError,
    Operation,
    Server,
    Timeouts,
)
from aiodicom.dimse.commands import (
    CCancelRQ,
    CGetRSP,
    CStoreRSP,
)
from aiodicom.services.query import find_service
from aiodicom.services.retrieve import get_service, move_service
from tests.inquiries import (
    STUDY,
    ask,
    asked,
    asked_to_find,
    asked_to_get,
    assert_usable,
    cancelled,
    cancelled_everywhere,
    counted,
    echoed,
    end,
    find,
    get,
    instance,
    match,
    move,
    released,
)
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    SHORT,
    RawPeer,
    ct_instance,
    serving,
    until,
)

# Leaving it.


async def left_by_break(association: Association) -> None:
    async with find(association) as matches:
        async for _ in matches:
            break


async def left_by_break_without_block(association: Association) -> None:
    async for _ in find(association):
        break


async def left_by_return(association: Association) -> object:
    async with find(association) as matches:
        async for each in matches:
            return each
    return None


async def left_by_return_without_block(association: Association) -> object:
    async for each in find(association):
        return each
    return None


async def left_by_exception(association: Association) -> None:
    try:
        async with find(association) as matches:
            async for _ in matches:
                raise KeyError
    except KeyError:
        pass


async def left_by_exception_without_block(association: Association) -> None:
    try:
        async for _ in find(association):
            raise KeyError
    except KeyError:
        pass


async def left_by_close(association: Association) -> None:
    matches = find(association)
    await anext(matches)
    await matches.aclose()
    await matches.aclose()


async def left_by_cancellation(association: Association) -> None:
    async def iterate() -> None:
        async with find(association) as matches:
            async for _ in matches:
                taken.set()

    taken = asyncio.Event()
    task = asyncio.create_task(iterate())
    await taken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def left_before_anything_came(association: Association) -> None:
    async with find(association):
        pass


async def left_by_another_task(association: Association) -> None:
    matches = find(association)
    await anext(matches)
    waiting = asyncio.create_task(matches.all())
    await asyncio.sleep(0)
    await matches.aclose()
    assert await waiting == []


WAYS_OUT = [
    left_by_break,
    left_by_break_without_block,
    left_by_return,
    left_by_return_without_block,
    left_by_exception,
    left_by_exception_without_block,
    left_by_close,
    left_by_cancellation,
    left_before_anything_came,
    left_by_another_task,
]


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("status", [0xFE00, 0x0000, 0xC000])
async def test_leaving_cancels_and_drains_and_the_association_stays_usable(
    way: Callable[[Association], Awaitable[object]], status: int
) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(*(match(number) for _ in range(100)), end(number, status))
        await echoed(peer)
        await released(peer)

    async with asked(script) as association:
        await way(association)
        await assert_usable(association)
        await association.release()


@pytest.mark.parametrize("way", WAYS_OUT[:-1])
async def test_a_peer_that_ignores_the_cancel_costs_the_association(
    way: Callable[[Association], Awaitable[object]],
) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(match(number))
        assert await peer.pdu() == ABORT_BY_USER

    async with asked(script, timeouts=Timeouts(cancel=SHORT, idle=None)) as association:
        await way(association)
        with pytest.raises(AssociationAborted, match="C-CANCEL"):
            await association.c_echo()
        assert not association.is_open


async def test_leaving_what_is_over_sends_nothing_and_keeps_nothing() -> None:
    async def script(peer: RawPeer) -> None:
        for _ in range(3):
            number = await asked_to_find(peer)
            peer.send(*(match(number, each) for each in range(50)), end(number))
        await echoed(peer)

    async with asked(script) as association:
        async with find(association) as matches:
            async for _ in matches:
                await until(lambda: matches.status is not None)  # all of it is here
                break
        assert matches.status == 0
        async for _ in find(association):
            await until(lambda: not association._invoker.is_waiting)
            break
        matches = find(association)
        await anext(matches)
        await until(lambda: matches.status is not None)
        assert not matches.is_over
        await matches.aclose()
        assert matches.is_over
        with pytest.raises(StopAsyncIteration):
            await anext(matches)
        await assert_usable(association)


async def test_what_is_left_by_another_task_before_it_was_asked_is_cancelled() -> None:
    async def script(peer: RawPeer) -> None:
        first = await asked_to_find(peer)
        await left.wait()
        peer.send(end(first))
        second = await asked_to_find(peer)
        await cancelled(peer, second)
        peer.send(match(second), end(second, 0xFE00))
        await echoed(peer)

    left = asyncio.Event()
    async with asked(script) as association:
        async with find(association) as matches:
            other = find(association)
            waiting = asyncio.create_task(other.all())
            await until(lambda: association._invoker._turns.are_awaited)
            await other.aclose()
            left.set()
            assert [each async for each in matches] == []
        assert await waiting == []
        await assert_usable(association)


async def test_the_status_of_what_was_left_is_known() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))

    async with asked(script) as association:
        async with find(association) as matches:
            async for _ in matches:
                break
        assert matches.status == 0xFE00
        assert repr(matches) == "<Matches <Status 0xFE00 Cancel>>"


async def test_a_cancelled_task_that_is_cancelled_again_aborts() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        task.cancel()
        assert await peer.pdu() == ABORT_BY_USER

    async def iterate() -> None:
        async with find(association) as matches:
            async for _ in matches:
                taken.set()

    taken = asyncio.Event()
    async with asked(script) as association:
        task = asyncio.create_task(iterate())
        await taken.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not association.is_open


async def test_what_was_abandoned_in_another_thread_is_left_in_the_loop() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))
        number = await asked_to_get(peer)
        peer.send(instance(1))
        statuses = {type(await peer.command()), type(await peer.command())}
        assert statuses == {CStoreRSP, CCancelRQ}
        peer.send(counted(CGetRSP, number, 0xFE00))
        await echoed(peer)

    async with asked(script) as association:
        for begin in (find, get):
            kept: list[object] = [begin(association)]
            await anext(kept[0])  # type: ignore[call-overload]
            thread = threading.Thread(target=kept.clear)  # the last reference is dropped there
            thread.start()
            thread.join()
            await until(lambda: not association._invoker.is_waiting)
        await assert_usable(association)


async def test_what_is_part_of_a_circle_is_left_when_the_collector_comes() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))
        await echoed(peer)

    async with asked(script) as association:
        circle: list[object] = [find(association)]
        await anext(circle[0])  # type: ignore[call-overload]
        circle.append(circle)
        del circle
        gc.collect()
        await assert_usable(association)


async def test_releasing_leaves_what_is_still_open() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(match(number), end(number, 0xFE00))
        await released(peer)

    async with asked(script) as association:
        matches = find(association)
        async for _ in matches:
            break  # `matches` is still referred to, so that nobody knows that it was left
        await association.release()
        with pytest.raises(AssociationReleased):
            await anext(matches)


async def test_releasing_right_after_leaving_waits_for_the_end() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))
        await released(peer)

    async with asked(script) as association:
        async for _ in find(association):
            break
        await association.release()


async def test_who_still_iterates_when_it_is_released_is_told() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))
        await released(peer)

    async with asked(script) as association:
        matches = find(association)
        await anext(matches)
        waiting = asyncio.create_task(matches.all())
        await asyncio.sleep(0)
        await association.release()
        with pytest.raises(AssociationReleased):  # it must not take that for the end of the matches
            await waiting


async def test_a_second_task_that_iterates_is_told() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        await told.wait()
        peer.send(match(number), end(number))

    told = asyncio.Event()
    async with asked(script) as association:
        matches = find(association)
        first = asyncio.create_task(matches.all())
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="two tasks"):
            await anext(matches)
        told.set()
        assert len(await first) == 1


# Cancelled at every await, with a server of ours at the other end.


@pytest.fixture
async def archive() -> AsyncIterator[Server]:
    async def search(_operation: Operation) -> AsyncIterator[dict[str, str]]:
        for number in range(3):
            await asyncio.sleep(0)
            yield {"StudyInstanceUID": f"{STUDY}.{number}"}

    async def retrieve(_operation: Operation) -> list[Any]:
        return [ct_instance(number, 3000) for number in range(3)]

    async def keep(operation: Operation) -> None:
        await operation.read()

    async with serving(keep) as destination:
        services = [
            find_service(search),
            get_service(retrieve, sop_classes=[CT]),
            move_service(retrieve, {"WS1": ("127.0.0.1", destination.port)}),
        ]
        async with serving(services=services, timeouts=Timeouts(idle=None)) as server:
            yield server


@pytest.mark.parametrize("way", ["find", "find without block", "get", "get without block", "get whole", "move"])
async def test_cancelled_at_every_await_nothing_is_left(archive: Server, way: str) -> None:
    association: Association | None = None

    async def scenario() -> None:
        nonlocal association
        async with ask(archive) as association:
            match way:
                case "find":
                    async with find(association) as matches:
                        async for _ in matches:
                            pass
                case "find without block":
                    async for _ in find(association):
                        await association.c_echo()
                case "get":
                    async with get(association) as instances:
                        async for each in instances:
                            async for _ in each.stream():
                                pass
                case "move":
                    async with move(association) as movement:
                        async for _ in movement:
                            pass
                case "get without block":
                    async for _ in get(association):
                        pass
                case _:
                    async for each in get(association):
                        await each.dataset()

    async def after() -> None:
        if association is not None:
            assert not association.is_open
        await until(lambda: not archive.associations)

    assert await cancelled_everywhere(scenario, after) >= 5


@pytest.mark.parametrize("what", [find, get, move])
async def test_cancelled_at_every_await_the_association_is_usable_or_says_that_it_is_not(
    archive: Server, what: Callable[[Association], Any]
) -> None:
    association = await ask(archive)

    async def scenario() -> None:
        async with what(association) as scope:
            async for each in scope:
                if isinstance(each, Operation):
                    await each.read()

    async def after() -> None:
        nonlocal association
        if association.is_open:
            await assert_usable(association)
        else:
            with pytest.raises(AssociationAborted):
                await association.c_echo()
            association = await ask(archive)
        await until(lambda: not any(each.operations for each in archive.associations))

    assert await cancelled_everywhere(scenario, after) >= 2
    await association.release()


async def test_requests_that_are_given_up_keep_nothing(archive: Server) -> None:
    async with ask(archive) as association:
        for _ in range(5):
            task = asyncio.create_task(association.c_echo())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await assert_usable(association)
