"""C-FIND as SCP: handlers of every kind, what they yield, what ends them; identifiers that mean no good (PS3.4 §C.4.1)."""

from __future__ import annotations

import asyncio
import logging
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pydicom import Dataset

from aiodicom import (
    Association,
    Conclusion,
    DimseError,
    LocalProtocolError,
    Operation,
    ProposedContext,
    QueryOptions,
    Server,
    Timeouts,
)
from aiodicom.dataset import decode_data_set
from aiodicom.dimse.commands import CFindRQ, CFindRSP, Response
from aiodicom.operation import MAXIMUM_IDENTIFIER_ELEMENTS, IncomingDataSet, ReceiveWindow
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
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from aiodicom.upper_layer.items import PresentationContextRQ, SOPClassExtendedNegotiation
from aiodicom.upper_layer.pdu import AAssociateAC
from aiodicom.upper_layer.presentation import PresentationContext, SupportedSyntax
from tests.inquiries import FIND, STORE, STUDY, ask, asking, cancel_pdu, find, find_pdu, instance, row, study_keys
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    CT,
    RELEASE_RP,
    RELEASE_RQ,
    RawPeer,
    Recorder,
    assert_alive,
    command_pdu,
    connect,
    element,
    raw_connection,
    request_pdu,
    serving,
    until,
)

ROWS: list[dict[str, Any]] = [
    {"StudyInstanceUID": f"{STUDY}.{number}", "PatientID": str(number)} for number in range(3)
]


def searching(handler: Any, **options: Any) -> Any:  # noqa: ANN401
    """A server with a handler of C-FIND."""
    return serving(services=[find_service(handler)], **{"timeouts": Timeouts(idle=None), **options})


async def answers(peer: RawPeer) -> tuple[list[bytes], Response]:
    """The matches that come, encoded, and the final response."""
    found: list[bytes] = []
    while (response := await peer.response()).status in (0xFF00, 0xFF01):
        data = b""
        while (pdu := await peer.pdu())[11] == 0:
            data += pdu[12:]
        found.append(data + pdu[12:])
    return found, response


# Handlers of each kind.


async def asynchronous_generator(_operation: Operation) -> AsyncIterator[Any]:
    for each in ROWS:
        await asyncio.sleep(0)
        yield each


async def coroutine(_operation: Operation) -> list[Any]:
    await asyncio.sleep(0)
    return ROWS


async def coroutine_of_a_generator(_operation: Operation) -> Iterator[Any]:
    return (each for each in ROWS)


async def coroutine_of_an_asynchronous_generator(operation: Operation) -> AsyncIterator[Any]:
    return asynchronous_generator(operation)


def generator(_operation: Operation) -> Iterator[Any]:
    assert threading.current_thread() is not threading.main_thread()
    yield from ROWS


def function(_operation: Operation) -> list[Any]:
    assert threading.current_thread() is not threading.main_thread()
    return ROWS


def function_of_an_asynchronous_generator(operation: Operation) -> AsyncIterator[Any]:
    return asynchronous_generator(operation)


class AnObject:
    async def __call__(self, _operation: Operation) -> AsyncIterator[Any]:
        assert threading.current_thread() is threading.main_thread()
        for each in ROWS:
            yield each

    async def method(self, _operation: Operation) -> tuple[Any, ...]:
        return tuple(ROWS)


async def with_more(_more: str, _operation: Operation) -> AsyncIterator[Any]:
    assert threading.current_thread() is threading.main_thread()
    for each in ROWS:
        yield each


@pytest.mark.parametrize(
    "handler",
    [
        asynchronous_generator,
        coroutine,
        coroutine_of_a_generator,
        coroutine_of_an_asynchronous_generator,
        generator,
        function,
        function_of_an_asynchronous_generator,
        AnObject(),
        AnObject().method,
        partial(with_more, "more"),
    ],
)
async def test_a_handler_is_of_any_kind(handler: Any) -> None:  # noqa: ANN401
    async with searching(handler) as server, ask(server) as association:
        matches = find(association)
        assert [each.PatientID async for each in matches] == ["0", "1", "2"]
        assert matches.status == 0


async def test_a_handler_is_registered_by_a_decorator() -> None:
    server = Server("SCP", port=0, observers=())

    @server.on_c_find("patient")
    async def search(operation: Operation) -> AsyncIterator[dict[str, Any]]:
        yield {"PatientID": operation.identifier.PatientID, "PatientName": operation.peer.ae_title}

    async with server, connect(server, contexts=[PATIENT_ROOT_FIND]) as association:
        (found,) = await association.c_find(level="patient", PatientID="7").all()
        assert (found.PatientID, found.PatientName) == ("7", "SCU")


@pytest.mark.parametrize("model", ["composite", "no-bulk-data", "studies", STUDY_ROOT_MOVE[:-1]])
def test_a_model_without_queries_is_said(model: str) -> None:
    with pytest.raises(LocalProtocolError):
        find_service(coroutine, model)


async def test_a_generator_is_taken_in_portions_and_closed_where_it_works() -> None:
    threads = set()
    taken = 0

    def endless(_operation: Operation) -> Iterator[Any]:
        nonlocal taken
        try:
            while True:
                taken += 1
                yield ROWS[0]
        finally:
            threads.add(threading.current_thread())

    async with searching(endless) as server, asking(server) as peer:
        peer.send(find_pdu())
        assert (await peer.response()).status == 0xFF00
        peer.send(cancel_pdu())
        await peer.pdu()
        _, response = await answers(peer)
        assert response.status == 0xFE00
        assert threads
        assert threading.main_thread() not in threads
        before = taken
        await peer_is_served(peer)
        assert taken == before


async def peer_is_served(peer: RawPeer) -> None:
    peer.send(RELEASE_RQ)
    assert await peer.pdu() == RELEASE_RP


# What they yield.


async def asked_for(handler: Any, identifier: bytes | None = None) -> tuple[list[bytes], Response]:  # noqa: ANN401
    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7, identifier))
        found, response = await answers(peer)
        assert isinstance(response, CFindRSP)
        assert response.message_id_being_responded_to == 7
        assert response.affected_sop_class_uid == STUDY_ROOT_FIND
        return found, response


def yielding(*matches: Any) -> Callable[[Operation], AsyncIterator[Any]]:  # noqa: ANN401
    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        for each in matches:
            yield each

    return handler


def decoded(data: bytes) -> Dataset:
    return decode_data_set(data, IMPLICIT_VR_LITTLE_ENDIAN)


async def test_of_a_row_what_was_asked_for_is_answered_and_nothing_else() -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1", "StudyDate": None, "AccessionNumber": None}
    handler = yielding({"PatientID": "1", "StudyDate": "20200101", "PatientName": CANARY, "NotAKeyword": 1})
    (found,), response = await asked_for(handler, encode_row(keys, IMPLICIT_VR_LITTLE_ENDIAN))
    assert {each.keyword: each.value for each in decoded(found)} == {
        "QueryRetrieveLevel": "STUDY",
        "PatientID": "1",
        "StudyDate": "20200101",
        "AccessionNumber": "",  # asked for, and not there (PS3.4 §C.4.1.1.3.2)
    }
    assert response.status == 0


async def test_a_dataset_and_encoded_bytes_go_out_as_they_are() -> None:
    dataset = Dataset()
    dataset.PatientName = "Müller"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    (one, other), _ = await asked_for(yielding(dataset, row(1)))
    assert decoded(one).PatientName == "Müller"
    assert "PatientID" not in decoded(one)
    assert other == row(1)


async def test_a_pending_response_may_be_whole() -> None:
    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        yield Conclusion(0xFF01, data_set=row(1))

    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu())
        assert (await peer.response()).status == 0xFF01
        assert (await peer.pdu())[12:] == row(1)
        assert (await peer.response()).status == 0


async def test_text_beyond_ascii_is_declared() -> None:
    keys = encode_row({"QueryRetrieveLevel": "STUDY", "PatientName": None}, IMPLICIT_VR_LITTLE_ENDIAN)
    handler = yielding(
        {"PatientName": "Muller"},
        {"PatientName": "Müller"},
        {"PatientName": "Müller", "SpecificCharacterSet": "ISO_IR 100"},
    )
    (ascii_, utf_8, latin_1), _ = await asked_for(handler, keys)
    assert "SpecificCharacterSet" not in decoded(ascii_)
    assert (decoded(utf_8).SpecificCharacterSet, decoded(utf_8).PatientName) == ("ISO_IR 192", "Müller")
    assert "Müller".encode("latin-1") in latin_1
    assert decoded(latin_1).PatientName == "Müller"


async def test_the_character_set_of_the_question_is_no_key() -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "PatientName": "Müller", "SpecificCharacterSet": "ISO_IR 100"}
    (found,), _ = await asked_for(yielding({"PatientName": "A"}), encode_row(keys, IMPLICIT_VR_LITTLE_ENDIAN))
    assert "SpecificCharacterSet" not in decoded(found)


async def test_strange_keys_are_answered_or_passed_over() -> None:
    keys = b"".join(
        (
            element(0x0008, 0x0000, struct.pack("<I", 22)),  # a group length, as old peers send it
            element(0x0008, 0x0052, b"STUDY "),
            element(0x0009, 0x0010, b"SOMEBODY"),
            element(0x0009, 0x1001, b""),
            element(0x0010, 0x0000, struct.pack("<I", 8)),
            element(0x0010, 0x0020, b""),
            element(0x6002, 0x3000, b""),  # of a group that repeats
        )
    )
    (found,), response = await asked_for(yielding({"PatientID": "1", 0x60023000: b"ab"}), keys)
    assert response.status == 0
    assert [int(each) for each in decoded(found).keys()] == [  # noqa: SIM118 - a Dataset is no dict
        0x00080052,
        0x00090010,
        0x00091001,
        0x00100020,
        0x60023000,
    ]
    assert decoded(found)[0x60023000].value == b"ab"


async def test_sequences_of_a_worklist_are_rows_in_rows() -> None:
    async def search(operation: Operation) -> AsyncIterator[dict[str, Any]]:
        (step,) = operation.identifier.ScheduledProcedureStepSequence
        yield {
            "PatientID": "1",
            "ScheduledProcedureStepSequence": [{"Modality": step.Modality, "ScheduledStationAETitle": "CT1"}],
        }

    services = [find_service(search, "worklist")]
    async with serving(services=services) as server, connect(server, contexts=[MODALITY_WORKLIST_FIND]) as association:
        keys = {"ScheduledProcedureStepSequence": {"Modality": "CT"}}
        (found,) = await association.c_find(keys, model="worklist").all()
        assert "QueryRetrieveLevel" not in found
        (step,) = found.ScheduledProcedureStepSequence
        assert (step.Modality, step.ScheduledStationAETitle) == ("CT", "CT1")


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
async def test_answers_are_in_the_transfer_syntax_of_the_question(syntax: str) -> None:
    dataset = Dataset()
    dataset.PatientID = "2"
    contexts = [ProposedContext(STUDY_ROOT_FIND, (syntax,))]
    async with searching(yielding({"PatientID": "1"}, dataset)) as server, connect(server, contexts=contexts) as one:
        assert [each.PatientID async for each in find(one)] == ["1", "2"]


# How they end.


def raising(error: BaseException, *matches: Any) -> Callable[[Operation], AsyncIterator[Any]]:  # noqa: ANN401
    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        for each in matches:
            yield each
        raise error

    return handler


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0xC123, 0x0122, 0x0124, 0xB001])
async def test_a_status_is_raised(status: int) -> None:
    found, response = await asked_for(raising(DimseError(status, "no"), ROWS[0]))
    assert len(found) == 1
    assert (response.status, response.error_comment) == (status, "no")


@pytest.mark.parametrize("error", [KeyError(CANARY), RecursionError(), MemoryError(), asyncio.CancelledError()])
async def test_a_bug_of_the_handler_is_a_status_and_tells_nothing(error: BaseException) -> None:
    recorder = Recorder()
    async with searching(raising(error, ROWS[0]), observers=(recorder,)) as server, asking(server) as peer:
        peer.send(find_pdu())
        found, response = await answers(peer)
        assert len(found) == 1
        assert response.status == 0x0110
        assert "Tweety" not in (response.error_comment or "")
        await assert_alive(server)
        assert recorder.failed == ([error] if isinstance(error, Exception) else [])


@pytest.mark.parametrize(
    "match",
    [
        7,
        "text",
        {"StudyDescription": {"a": 1}},
        {"PatientID": "Ä", "SpecificCharacterSet": "ISO_IR 6"},
        Conclusion(0),
        Conclusion(0xC000),
    ],
    ids=["number", "text", "dict", "character set", "final", "failure"],
)
async def test_what_is_no_match_is_a_bug_of_the_handler(match: object) -> None:
    found, response = await asked_for(yielding(ROWS[0], match))
    assert len(found) == 1
    assert response.status == 0x0110


@pytest.mark.parametrize("result", [None, 7])
async def test_a_handler_that_returns_no_matches_has_a_bug(result: object) -> None:
    async def handler(_operation: Operation) -> object:
        return result

    _, response = await asked_for(handler)
    assert response.status == 0x0110
    assert response.error_comment == "TypeError in the handler"


class Searching:
    """A handler that waits for ever after its first match, and notes how it ends."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.cleaned_up = False

    async def __call__(self, operation: Operation) -> AsyncIterator[Any]:
        try:
            yield ROWS[0]
            await asyncio.Event().wait()
        finally:
            self.was_cancelled = operation.is_cancelled
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.cleaned_up = True
            self.ended.set()


async def test_a_cancel_ends_the_handler() -> None:
    handler = Searching()
    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7))
        assert (await peer.response()).status == 0xFF00
        await peer.pdu()
        peer.send(cancel_pdu(7))
        response = await peer.response()
        assert (response.status, response.message_id_being_responded_to) == (0xFE00, 7)
        assert handler.cleaned_up
        assert handler.was_cancelled
        await peer_is_served(peer)


async def test_more_cancels_do_not_disturb_what_the_handler_does_last() -> None:
    handler = Searching()
    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7))
        await peer.response()
        await peer.pdu()
        peer.send(*[cancel_pdu(7)] * 20)
        assert (await peer.response()).status == 0xFE00
        assert handler.cleaned_up
        await peer_is_served(peer)


async def test_a_cancel_of_something_else_cancels_nothing() -> None:
    go = asyncio.Event()

    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        yield ROWS[0]
        await go.wait()
        yield ROWS[1]

    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7), cancel_pdu(6))
        await peer.response()
        await peer.pdu()
        go.set()
        found, response = await answers(peer)
        assert (len(found), response.status) == (1, 0)
        peer.send(cancel_pdu(7))  # too late, and so without meaning
        await peer_is_served(peer)


async def test_a_cancel_in_the_same_segment_ends_the_handler() -> None:
    handler = Searching()
    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7) + cancel_pdu(7))
        found, response = await answers(peer)
        assert response.status == 0xFE00
        assert len(found) <= 1


@pytest.mark.parametrize("how", ["abort", "reset", "close"])
async def test_the_end_of_the_association_ends_the_handler(how: str) -> None:
    handler = Searching()
    async with searching(handler) as server:
        async with asking(server) as peer:
            peer.send(find_pdu(7))
            await peer.response()
            match how:
                case "abort":
                    peer.send(ABORT_BY_USER)
                case "reset":
                    peer.reset()
                case _:
                    await peer.close()
            await handler.ended.wait()
        assert handler.cleaned_up
        assert not handler.was_cancelled
        await assert_alive(server)


async def test_the_end_of_the_server_ends_the_handler() -> None:
    handler = Searching()
    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7))
        await peer.response()
        await server.stop()
        assert handler.cleaned_up


async def test_a_release_waits_for_the_handler() -> None:
    async with searching(asynchronous_generator) as server, asking(server) as peer:
        peer.send(find_pdu(7), RELEASE_RQ)
        found, response = await answers(peer)
        assert (len(found), response.status) == (3, 0)
        assert await peer.pdu() == RELEASE_RP


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
    "many elements": many_elements(MAXIMUM_IDENTIFIER_ELEMENTS + 1),
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
    keys += sequence(item(b"") * (MAXIMUM_IDENTIFIER_ELEMENTS - 10))
    window = ReceiveWindow(lambda: None, lambda: None)
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
    assert len((await reading).ScheduledProcedureStepSequence) == MAXIMUM_IDENTIFIER_ELEMENTS - 10
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


# Many, fast and slow.


async def test_many_queries_on_one_association_at_once() -> None:
    together = asyncio.Event()
    running = 0

    async def handler(operation: Operation) -> AsyncIterator[Any]:
        nonlocal running
        running += 1
        if running == 8:
            together.set()
        await together.wait()
        for number in range(50):
            yield {"PatientID": f"{operation.identifier.PatientID}-{number}"}
        running -= 1

    async with searching(handler) as server, ask(server, operations_window=(8, 1)) as association:
        results = await asyncio.gather(*(find(association, PatientID=str(each)).all() for each in range(24)))
    for each, matches in enumerate(results):
        assert [match.PatientID for match in matches] == [f"{each}-{number}" for number in range(50)]


async def test_one_of_many_queries_is_left_and_the_others_go_on() -> None:
    async def handler(operation: Operation) -> AsyncIterator[Any]:
        number = 0
        while operation.identifier.PatientID == "endless" or number < 100:
            number += 1
            yield {"PatientID": str(number)}

    async def leave(association: Association) -> None:
        async with find(association, PatientID="endless") as matches:
            async for _ in matches:
                break

    async with searching(handler) as server, ask(server, operations_window=(8, 1)) as association:
        others = [asyncio.create_task(find(association, PatientID="short").all()) for _ in range(4)]
        await asyncio.gather(*(leave(association) for _ in range(4)))
        assert [len(each) for each in await asyncio.gather(*others)] == [100] * 4
        await until(lambda: not server.associations[0].operations)


async def test_a_peer_that_reads_nothing_holds_the_handler_back() -> None:
    made = 0
    ended = asyncio.Event()

    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        nonlocal made
        try:
            for made in range(1, 100_001):  # noqa: B007 - the test looks at it
                yield row(1, 1000)
        finally:
            ended.set()

    async with searching(handler) as server:
        async with asking(server) as peer:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            peer.send(find_pdu())
            (association,) = server.associations
            await until(lambda: not association._connection.is_writable)
            for _ in range(20):
                await asyncio.sleep(0)
            before = made
            for _ in range(20):
                await asyncio.sleep(0)
            assert made == before < 50_000
            assert association._connection.unsent < 4 * 1024 * 1024
        await ended.wait()
        await assert_alive(server)


async def test_a_cancel_reaches_a_handler_that_never_waits_and_whose_peer_does_not_read() -> None:
    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        while True:
            yield row(1, 1000)

    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu())
        (association,) = server.associations
        await until(lambda: not association._connection.is_writable)
        peer.send(cancel_pdu())
        _, response = await answers(peer)
        assert response.status == 0xFE00
        await peer_is_served(peer)


@pytest.mark.parametrize("kind", ["generator", "list"])
async def test_a_handler_that_never_waits_lets_others_have_their_turn(kind: str) -> None:
    turns = 0
    at_start = at_end = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def all_of_them() -> Iterator[dict[str, str]]:
        nonlocal at_start, at_end
        at_start = turns
        for number in range(10_000):
            yield {"StudyInstanceUID": f"{STUDY}.{number}", "PatientID": str(number)}
        at_end = turns

    class Many:
        def __iter__(self) -> Iterator[dict[str, str]]:
            return all_of_them()

    async def generator_(_operation: Operation) -> AsyncIterator[Any]:
        for each in all_of_them():
            yield each

    async def list_(_operation: Operation) -> Many:
        return Many()

    async with searching(generator_ if kind == "generator" else list_) as server, asking(server) as peer:
        counting = asyncio.create_task(count_turns())
        peer.send(find_pdu())
        found, response = await answers(peer)
        counting.cancel()
        assert (len(found), response.status) == (10_000, 0)
        assert at_end - at_start > 3  # it takes many times as long as a turn


async def test_without_a_handler_for_a_model_its_context_is_refused() -> None:
    async with searching(coroutine) as server, connect(server, contexts=[PATIENT_ROOT_FIND, VERIFICATION]) as one:
        assert [context.abstract_syntax for context in one.contexts] == [VERIFICATION]


def test_an_operation_of_another_kind_has_no_identifier() -> None:
    data_set = IncomingDataSet(IMPLICIT_VR_LITTLE_ENDIAN, ReceiveWindow(lambda: None, lambda: None), is_empty=True)
    context = PresentationContext(1, STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN)
    operation = Operation(
        CFindRQ(message_id=1, affected_sop_class_uid=STUDY_ROOT_FIND), context, Peer("A", "B", "A", None), data_set
    )
    with pytest.raises(LocalProtocolError, match="identifier"):
        operation.identifier  # noqa: B018 - it is looked at
    assert operation.options == QueryOptions()
