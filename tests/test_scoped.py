"""C-FIND, C-GET and C-MOVE of ours, against peers made of bytes and servers of ours: every way in which they can end."""

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
    DimseError,
    InvalidInstance,
    LocalProtocolError,
    Operation,
    Server,
    Timeouts,
)
from aiodicom.dimse.commands import (
    CCancelRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRSP,
    CStoreRSP,
)
from aiodicom.dimse.status import PENDING, Status
from aiodicom.operation import HIGH_WATER
from aiodicom.services.query import find_service
from aiodicom.services.retrieve import get_service
from tests.inquiries import (
    ECHO,
    FIND,
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
    message,
    released,
    row,
)
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    CT,
    RELEASE_RP,
    RELEASE_RQ,
    SHORT,
    RawPeer,
    abort_pdu,
    command_pdu,
    ct_instance,
    fragment_pdu,
    serving,
    until,
)

Script = Callable[[RawPeer], Awaitable[None]]

ENDLESS = 1_000_000


# C-FIND to its end.


async def test_matches_come_one_by_one_and_the_status_afterwards() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1), match(number, 2), end(number, comment="that was all"))
        await echoed(peer)

    async with asked(script) as association:
        matches = find(association)
        assert repr(matches) == "<Matches new>"
        assert (matches.status, matches.response, matches.comment, matches.is_over) == (None, None, "", False)
        async with matches:
            assert repr(matches) == "<Matches open>"
            found = [each.StudyInstanceUID async for each in matches]
        assert found == [f"{STUDY}.1", f"{STUDY}.2"]
        assert matches.status == 0
        assert matches.comment == "that was all"
        assert isinstance(matches.response, CFindRSP)
        assert matches.is_over
        assert repr(matches) == "<Matches <Status 0x0000 Success>>"
        assert [each async for each in matches] == []
        await assert_usable(association)


async def test_nothing_is_sent_before_it_is_begun() -> None:
    async def script(peer: RawPeer) -> None:
        await echoed(peer)
        await released(peer)

    async with asked(script) as association:
        matches = find(association)
        await association.c_echo()
        del matches
        await association.release()


async def test_the_identifier_is_what_was_said() -> None:
    async def script(peer: RawPeer) -> None:
        request, identifier = await message(peer)
        assert isinstance(request, CFindRQ)
        assert request.priority == 0
        assert b"STUDY" in identifier
        assert b"A*" in identifier
        peer.send(end(request.message_id))

    async with asked(script) as association:
        async for _ in find(association, PatientName="A*"):
            raise AssertionError


async def test_without_matches_there_are_none() -> None:
    async def script(peer: RawPeer) -> None:
        peer.send(end(await asked_to_find(peer)))

    async with asked(script) as association:
        assert await find(association).all() == []


async def test_optional_keys_that_are_not_supported_are_no_end() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1, status=0xFF01), match(number, 2), end(number))

    async with asked(script) as association:
        assert len(await find(association).all()) == 2


async def test_a_final_response_with_an_identifier_is_final() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1), end(number, data=row(2)))
        await echoed(peer)

    async with asked(script) as association:
        assert len(await find(association).all()) == 1
        await assert_usable(association)


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0xC123, 0x0122, 0x0110, 0x0210, 0x1234, 0xFE00])
async def test_a_failure_is_raised_with_its_status_and_comment(status: int) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number), end(number, status, comment="no"))
        await echoed(peer)

    async with asked(script) as association:
        matches = find(association)
        await anext(matches)
        with pytest.raises(DimseError) as caught:
            await matches.all()
        assert (caught.value.status, caught.value.comment) == (status, "no")
        assert (matches.status, matches.comment) == (status, "no")
        await assert_usable(association)


@pytest.mark.parametrize("status", [0xB000, 0xB001, 0x0001])
async def test_a_warning_is_none(status: int) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number), end(number, status))

    async with asked(script) as association:
        matches = find(association)
        assert len(await matches.all()) == 1
        assert matches.status == status


async def test_a_match_that_cannot_be_decoded_is_an_error_and_the_next_ones_come() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        broken = command_pdu(FIND, CFindRSP(message_id_being_responded_to=number, status=PENDING), has_data_set=True)
        peer.send(broken, fragment_pdu(row(1)[:-3], context_id=FIND), match(number, 2), end(number))

    async with asked(script) as association, find(association) as matches:
        with pytest.raises(InvalidInstance, match="truncated"):
            await anext(matches)
        assert (await anext(matches)).PatientID == "2"
        with pytest.raises(StopAsyncIteration):
            await anext(matches)


async def test_a_large_match_is_decoded_elsewhere() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, size=50_000), end(number))

    async with asked(script) as association:
        (found,) = await find(association).all()
        assert len(found.TextValue) == 50_000


async def test_matches_can_be_had_as_they_are_encoded() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1), match(number, 2), end(number))
        number = await asked_to_find(peer)
        peer.send(match(number, 1), end(number, 0xFE00))

    async with asked(script) as association:
        matches = find(association)
        assert [each async for each in matches.encoded()] == [row(1), row(2)]
        assert matches.status == 0
        with pytest.raises(DimseError):
            assert [each async for each in find(association).encoded()]


async def test_leaving_encoded_matches_is_leaving() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1))
        await cancelled(peer, number)
        peer.send(end(number, 0xFE00))
        await echoed(peer)

    async with asked(script) as association:
        async with find(association) as matches:
            async for each in matches.encoded():
                assert each == row(1)
                break
        await assert_usable(association)


async def test_no_patient_data_is_in_any_repr() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(end(number, 0xC000, comment=CANARY))

    async with asked(script) as association:
        matches = find(association, PatientName=CANARY)
        with pytest.raises(DimseError):
            await matches.all()
        assert "Tweety" not in repr(matches) + repr(matches.response) + repr(matches.status)


# What the peer may not do.


@pytest.mark.parametrize("answer", ["unknown id", "wrong type", "echo response", "after the end"])
async def test_a_response_that_answers_nothing_aborts(answer: str) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        peer.send(
            {
                "unknown id": match(999),
                "wrong type": counted(CGetRSP, number, 0xFF00),
                "echo response": command_pdu(ECHO, CEchoRSP(message_id_being_responded_to=number, status=Status(0))),
                "after the end": end(number) + match(number),
            }[answer]
        )
        assert await peer.pdu() == abort_pdu(0, 0)

    async with asked(script) as association:
        matches = find(association)
        if answer == "after the end":
            assert len(await matches.all()) == 1
            await association.wait_closed()
        else:
            with pytest.raises(AssociationAborted, match="by us"):
                await matches.all()
        with pytest.raises(AssociationAborted):
            await association.c_echo()


async def test_a_match_beyond_a_megabyte_aborts() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        response = CFindRSP(message_id_being_responded_to=number, status=PENDING)
        peer.send(command_pdu(FIND, response, has_data_set=True))
        for _ in range(70):
            peer.send(fragment_pdu(bytes(16000), context_id=FIND, is_last=False))
        assert await peer.pdu() == abort_pdu(2, 0)

    async with asked(script) as association:
        with pytest.raises(AssociationAborted, match="1048576 bytes"):
            await find(association).all()


@pytest.mark.parametrize("how", ["abort", "release", "reset", "close"])
async def test_the_peer_goes_in_the_middle(how: str) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number))
        await taken.wait()
        match how:
            case "abort":
                peer.send(ABORT_BY_USER)
            case "release":
                peer.send(RELEASE_RQ)
                assert await peer.pdu() == RELEASE_RP
            case "reset":
                peer.reset()

    taken = asyncio.Event()
    async with asked(script) as association:
        matches = find(association)
        await anext(matches)
        taken.set()
        with pytest.raises(AssociationReleased if how == "release" else AssociationAborted):
            await matches.all()
        assert matches.status is None
        assert matches.is_over
        with pytest.raises(AssociationReleased if how == "release" else AssociationAborted):
            await association.c_echo()


async def test_a_million_matches_wait_outside_until_they_are_taken() -> None:
    sent = 0

    async def script(peer: RawPeer) -> None:
        nonlocal sent
        number = await asked_to_find(peer)
        try:
            for sent in range(1, ENDLESS):  # noqa: B007 - the test looks at it
                peer.send(match(number, 1, size=900))
                await peer.writer.drain()
        except OSError:
            pass  # the association was aborted, and with it the connection

    async with asked(script) as association, find(association) as matches:
        await anext(matches)
        await until(lambda: association._connection.is_held)
        assert association._window.buffered < 2 * HIGH_WATER
        received = association.bytes_received
        for _ in range(10):
            await asyncio.sleep(0)
        assert association.bytes_received == received
        for _ in range(2000):  # twice what was buffered: reading goes on as they are taken
            await anext(matches)
        assert association.bytes_received > received
        assert association._window.buffered < 2 * HIGH_WATER
        assert sent < ENDLESS // 10
        await association.abort()


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

    services = [find_service(search), get_service(retrieve, sop_classes=[CT])]
    async with serving(services=services, timeouts=Timeouts(idle=None)) as server:
        yield server


@pytest.mark.parametrize("way", ["find", "find without block", "get", "get without block", "get whole"])
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


@pytest.mark.parametrize("what", [find, get])
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

    assert await cancelled_everywhere(scenario, after) >= 3
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
