"""Requests and identifiers that mean no good, and what is negotiated of queries (PS3.4 §C.4.1.1.3, §C.5.1)."""

from __future__ import annotations

import asyncio
import logging
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aiodicom import (
    LocalProtocolError,
    Operation,
    QueryOptions,
)
from aiodicom.dimse.commands import CFindRQ
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.operation import IncomingDataSet, ReceiveWindow
from aiodicom.rows import encode_row
from aiodicom.services.query import find_service
from aiodicom.terms import Peer
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    VERIFICATION,
)
from aiodicom.upper_layer.items import PresentationContextRQ, SOPClassExtendedNegotiation
from aiodicom.upper_layer.pdu import AAssociateAC
from aiodicom.upper_layer.presentation import PresentationContext, SupportedSyntax
from tests.inquiries import FIND, STORE, ask, asking, find, find_pdu, instance, study_keys
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    CT,
    Unpaused,
    command_pdu,
    element,
    raw_connection,
    request_pdu,
    serving,
)
from tests.services.searching import Searching, answers, asked_for, coroutine, peer_is_served, searching, yielding

# Requests that are none.


async def test_a_message_id_that_is_outstanding_is_refused() -> None:
    handler = Searching()
    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7))
        await peer.response()
        await peer.pdu()
        peer.send(find_pdu(7))
        assert (await peer.response()).status == 0x0210
        peer.send(find_pdu(8))
        assert (await peer.response()).message_id_being_responded_to == 8
        peer.send(ABORT_BY_USER)
        await handler.ended.wait()


@pytest.mark.parametrize(("context_id", "uid", "status"), [(FIND, PATIENT_ROOT_FIND, 0x0122), (STORE, CT, 0x0211)])
async def test_a_query_in_the_wrong_context_is_refused(context_id: int, uid: str, status: int) -> None:
    async def keep(_operation: Operation) -> None: ...

    async with searching(coroutine) as server:
        server.on_c_store(keep)
        async with asking(server) as peer:
            request = CFindRQ(message_id=1, affected_sop_class_uid=uid)
            peer.send(command_pdu(context_id, request))
            assert (await peer.response()).status == status


async def test_a_store_where_there_is_none_is_refused() -> None:
    async with searching(coroutine) as server, asking(server, contexts=contexts(STUDY_ROOT_FIND)) as peer:
        peer.send(instance(1, context_id=1, sop_class=STUDY_ROOT_FIND))
        assert (await peer.response()).status == 0x0211


def contexts(*uids: str) -> tuple[PresentationContextRQ, ...]:
    return tuple(
        PresentationContextRQ(2 * index + 1, uid, (IMPLICIT_VR_LITTLE_ENDIAN,)) for index, uid in enumerate(uids)
    )


async def test_a_query_without_an_identifier_has_an_empty_one() -> None:
    async def handler(operation: Operation) -> AsyncIterator[Any]:
        assert not list(operation.identifier)
        yield {}

    async with searching(handler) as server, asking(server) as peer:
        peer.send(command_pdu(FIND, CFindRQ(message_id=1, affected_sop_class_uid=STUDY_ROOT_FIND)))
        found, response = await answers(peer)
        assert (found, response.status) == ([b""], 0)


# Identifiers that mean no good.


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def sequence(content: bytes) -> bytes:
    return element(0x0040, 0x0100, content)


def undefined_sequence(content: bytes) -> bytes:
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HHI", 0x0040, 0x0100, 0xFFFFFFFF) + content + end


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = sequence(item(data))
    return data


def many_elements(count: int) -> bytes:
    return b"".join(element(0x0009 + 2 * (number >> 12), 0x1000 + (number & 0xFFF), b"") for number in range(count))


LARGEST = 1024 * 1024

HOSTILE = {
    "truncated": study_keys()[:-3],
    "with a tail": study_keys() + b"\0",
    "no data set": b"\xff" * 100,
    "explicit in implicit": encode_row({"PatientID": "1"}, EXPLICIT_VR_LITTLE_ENDIAN),
    "a length beyond the end": element(0x0010, 0x0020, b"1 ") + struct.pack("<HHI", 0x10, 0x30, 0xFFFFFFFE),
    "nested deeply": nested(65),
    "nested very deeply": nested(15_000),
    "nested without end": struct.pack("<HHIHHI", 0x40, 0x100, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) * 5000,
    "many elements": many_elements(DEFAULT_LIMITS.maximum_identifier_elements + 1),
    "as many elements as can be": many_elements(LARGEST // 8),
    "many items": undefined_sequence(item(b"") * (LARGEST // 8 - 2)),
    "many items, of defined length": sequence(item(b"") * (LARGEST // 8 - 1)),
    "many elements in an item": sequence(item(many_elements(LARGEST // 8 - 2))),
    "a damaged item": sequence(b"\xfe\xff\x00\xe0\xff\0\0\0"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_an_identifier_that_cannot_be_understood_is_answered_with_c000(what: str) -> None:
    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        raise AssertionError
        yield

    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(1, HOSTILE[what]))
        response = await peer.response()
        assert (response.status, response.error_comment) == (0xC000, "The identifier cannot be decoded")
        await peer_is_served(peer)


async def test_an_identifier_that_is_too_long_is_refused() -> None:
    async with searching(coroutine) as server, asking(server) as peer:
        peer.send(find_pdu(1, element(0x0010, 0x4000, bytes(LARGEST))))
        assert (await peer.response()).status == 0xA700
        peer.send(find_pdu(2))
        assert (await answers(peer))[1].status == 0


async def test_an_identifier_that_inflates_too_much_is_refused() -> None:
    services = [
        find_service(coroutine),
    ]
    supported = SupportedSyntax(frozenset((DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)))
    services = [type(each)(each.request, each.handler, {STUDY_ROOT_FIND: supported}) for each in services]
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = stream.compress(bytes(2**24)) + stream.flush()
    proposed = (PresentationContextRQ(FIND, STUDY_ROOT_FIND, (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)),)
    async with serving(services=services) as server, asking(server, contexts=proposed) as peer:
        peer.send(find_pdu(1, bomb + b"\0" * (len(bomb) % 2)))
        assert (await peer.response()).status == 0xC000
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        keys = stream.compress(encode_row({"PatientID": "1"}, EXPLICIT_VR_LITTLE_ENDIAN)) + stream.flush()
        peer.send(find_pdu(2, keys + b"\0" * (len(keys) % 2)))
        assert (await answers(peer))[1].status == 0


async def test_a_large_identifier_is_decoded_elsewhere() -> None:
    uids = "\\".join(f"1.2.826.0.1.3680043.10.954.{number}" for number in range(10_000))
    keys = encode_row({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uids}, IMPLICIT_VR_LITTLE_ENDIAN)
    keys += sequence(item(b"") * (DEFAULT_LIMITS.maximum_identifier_elements - 10))
    window = ReceiveWindow(Unpaused())
    data_set = IncomingDataSet(IMPLICIT_VR_LITTLE_ENDIAN, window)
    data_set.feed(keys, is_last=True)
    peer = Peer("SCU", "SCP", "SCU", None)
    context = PresentationContext(1, STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN)
    operation = Operation(CFindRQ(message_id=1, affected_sop_class_uid=STUDY_ROOT_FIND), context, peer, data_set)
    reading = asyncio.create_task(operation.read_identifier())
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 2  # the loop went on meanwhile
    assert len((await reading).ScheduledProcedureStepSequence) == DEFAULT_LIMITS.maximum_identifier_elements - 10
    assert window.buffered == 0


async def test_values_that_their_vr_does_not_allow_are_the_handlers_affair(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = b"".join(
        (
            element(0x0008, 0x0020, CANARY.encode() + b" "),  # a date
            element(0x0008, 0x0052, b"study "),
            element(0x0010, 0x0040, b"tweety"),
            element(0x0020, 0x0013, CANARY.encode() + b" "),  # a number
            element(0x0020, 0x000D, b"1.2.*\0"),
        )
    )
    (found,), response = await asked_for(yielding({}), keys)
    assert response.status == 0
    assert b"study " in found
    assert "tweety" not in caplog.text.lower()


# Extended negotiation, from end to end.


@pytest.mark.parametrize(
    ("uid", "offered", "answered", "seen"),
    [
        (STUDY_ROOT_FIND, None, None, QueryOptions()),
        (STUDY_ROOT_FIND, (1, 1, 1, 1), (1, 0, 1, 0), QueryOptions(relational=True, fuzzy_names=True)),
        (STUDY_ROOT_FIND, (1,), (1,), QueryOptions(relational=True)),
        (STUDY_ROOT_FIND, (0, 0, 1), (0, 0, 1), QueryOptions(fuzzy_names=True)),
        (STUDY_ROOT_FIND, (1, 1, 1, 1, 1, 1), (1, 0, 1, 0, 0, 0), QueryOptions(relational=True, fuzzy_names=True)),
        (MODALITY_WORKLIST_FIND, (1, 1, 1, 1), (1, 1, 1, 0), QueryOptions(fuzzy_names=True)),
        (MODALITY_WORKLIST_FIND, (1, 1, 0), (1, 1, 0), QueryOptions()),
    ],
)
async def test_options_are_answered_as_offered_and_seen_by_the_handler(
    uid: str, offered: tuple[int, ...] | None, answered: tuple[int, ...] | None, seen: QueryOptions
) -> None:
    options: list[QueryOptions] = []

    async def handler(operation: Operation) -> list[Any]:
        options.append(operation.options)
        return []

    model = "worklist" if uid == MODALITY_WORKLIST_FIND else "study"
    ours = QueryOptions(relational=True, fuzzy_names=True)
    service = find_service(handler, model, options=ours)
    items = () if offered is None else (SOPClassExtendedNegotiation(uid, bytes(offered)),)
    async with serving(services=[service]) as server, raw_connection(server) as peer:
        peer.send(request_pdu(contexts=contexts(VERIFICATION, uid), items=items))
        accepted = AAssociateAC.decode(memoryview(await peer.pdu())[6:])
        answers_ = [each for each in accepted.user_information if isinstance(each, SOPClassExtendedNegotiation)]
        assert answers_ == ([] if answered is None else [SOPClassExtendedNegotiation(uid, bytes(answered))])
        peer.send(command_pdu(3, CFindRQ(message_id=1, affected_sop_class_uid=uid)))
        assert (await peer.response()).status == 0
    assert options == [seen]


async def test_options_are_asked_for_and_granted_to_us() -> None:
    seen: list[QueryOptions] = []

    async def handler(operation: Operation) -> list[Any]:
        seen.append(operation.options)
        return []

    granted = QueryOptions(relational=True, timezone=True)
    async with serving(services=[find_service(handler, options=granted)]) as server:
        wanted = QueryOptions(relational=True, combined_datetime=True)
        async with ask(server, options=wanted) as association:
            assert association.terms.options[STUDY_ROOT_FIND] == QueryOptions(relational=True)
            await find(association).all()
        async with ask(server) as association:
            assert association.terms.options == {}
            await find(association).all()
    assert seen == [QueryOptions(relational=True), QueryOptions()]


def test_an_operation_of_another_kind_has_no_identifier() -> None:
    data_set = IncomingDataSet(IMPLICIT_VR_LITTLE_ENDIAN, ReceiveWindow(Unpaused()), is_empty=True)
    context = PresentationContext(1, STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN)
    operation = Operation(
        CFindRQ(message_id=1, affected_sop_class_uid=STUDY_ROOT_FIND), context, Peer("A", "B", "A", None), data_set
    )
    with pytest.raises(LocalProtocolError, match="identifier"):
        operation.identifier  # noqa: B018 - it is looked at
    assert operation.options == QueryOptions()
