"""C-FIND, C-GET and C-MOVE of ours, against peers made of bytes and servers of ours: every way in which they can end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydicom import Dataset

from aiodicom import (
    AssociationAborted,
    AssociationReleased,
    DimseError,
    InvalidInstance,
    Operation,
    ProposedContext,
    Service,
    SupportedSyntax,
    find_service,
)
from aiodicom import operation as operation_module
from aiodicom.dataset import decode_data_set
from aiodicom.dimse.commands import (
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRSP,
)
from aiodicom.dimse.status import PENDING, Status
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.rows import encode_row
from aiodicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND
from tests.inquiries import (
    ECHO,
    FIND,
    STUDY,
    ask,
    asked,
    asked_to_find,
    assert_usable,
    cancelled,
    counted,
    echoed,
    end,
    find,
    match,
    message,
    released,
    row,
)
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    RELEASE_RP,
    RELEASE_RQ,
    SHORT,
    RawPeer,
    abort_pdu,
    command_pdu,
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


async def test_who_gives_up_waiting_for_a_match_loses_none() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, 1))
        await given_up.wait()
        peer.send(match(number, 2), end(number))

    given_up = asyncio.Event()
    async with asked(script) as association:
        matches = find(association)
        await anext(matches)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(matches), SHORT)
        given_up.set()
        assert [each.PatientID async for each in matches] == ["2"]


async def test_a_large_match_is_decoded_elsewhere() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_find(peer)
        peer.send(match(number, size=50_000), end(number))

    async with asked(script) as association:
        (found,) = await find(association).all()
        assert len(found.TextValue) == 50_000


async def test_a_deflated_match_is_inflated_elsewhere_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def decode(data: bytes, *args: Any, **options: Any) -> Dataset:  # noqa: ANN401
        threads.append(threading.current_thread() is threading.main_thread())
        return decode_data_set(data, *args, **options)

    async def handler(_operation: Operation) -> AsyncIterator[bytes]:
        for size in (10, DEFAULT_LIMITS.maximum_identifier):
            yield encode_row({"TextValue": "x" * size}, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)

    deflated = (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)
    service = Service(CFindRQ, find_service(handler).handler, {STUDY_ROOT_FIND: SupportedSyntax(frozenset(deflated))})
    async with (
        serving(services=[service]) as server,
        ask(server, contexts=[ProposedContext(STUDY_ROOT_FIND, deflated)]) as association,
        find(association) as matches,
    ):
        monkeypatch.setattr(operation_module, "decode_data_set", decode)
        assert (await anext(matches)).TextValue == "x" * 10
        with pytest.raises(InvalidInstance, match="inflate"):
            await anext(matches)
    assert True not in threads


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
        assert association._window.buffered < 2 * DEFAULT_LIMITS.maximum_buffered
        received = association.bytes_received
        for _ in range(10):
            await asyncio.sleep(0)
        assert association.bytes_received == received
        for _ in range(2000):  # twice what was buffered: reading goes on as they are taken
            await anext(matches)
        assert association.bytes_received > received
        assert association._window.buffered < 2 * DEFAULT_LIMITS.maximum_buffered
        assert sent < ENDLESS // 10
        await association.abort()
