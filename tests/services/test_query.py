"""C-FIND as SCP: handlers of every kind, what they yield, what ends them; identifiers that mean no good (PS3.4 §C.4.1)."""

from __future__ import annotations

import asyncio
import struct
import threading
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
    Server,
)
from aiodicom.dataset import decode_data_set
from aiodicom.rows import encode_row
from aiodicom.services.query import find_service
from aiodicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from tests.inquiries import STUDY, ask, asking, cancel_pdu, find, find_pdu, row
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    RELEASE_RP,
    RELEASE_RQ,
    Recorder,
    assert_alive,
    connect,
    element,
    serving,
    until,
)
from tests.services.searching import ROWS, Searching, answers, asked_for, coroutine, peer_is_served, searching, yielding

# Handlers of each kind.


async def asynchronous_generator(_operation: Operation) -> AsyncIterator[Any]:
    for each in ROWS:
        await asyncio.sleep(0)
        yield each


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


# What they yield.


def decoded(data: bytes) -> Dataset:
    return decode_data_set(data, IMPLICIT_VR_LITTLE_ENDIAN)


async def test_of_a_row_what_was_asked_for_is_answered_and_nothing_else() -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "1", "StudyDate": None, "AccessionNumber": None}
    handler = yielding({"PatientID": "1", "StudyDate": "20200101", "PatientName": CANARY, "PatientSex": "F"})
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


async def test_a_handler_that_is_not_waiting_comes_to_its_end_before_the_answer() -> None:
    was_running: list[bool] = []

    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        try:
            while True:
                yield ROWS[0]
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            was_running.append(bool(server.associations[0].operations))

    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7))
        await peer.response()
        await peer.pdu()
        peer.send(cancel_pdu(7))
        _, response = await answers(peer)
        assert response.status == 0xFE00
        assert was_running == [True]


async def test_more_cancels_do_not_disturb_what_the_handler_does_last() -> None:
    cleaning, go = asyncio.Event(), asyncio.Event()
    cleaned_up: list[bool] = []

    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        try:
            yield ROWS[0]
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await go.wait()
            cleaned_up.append(True)

    recorder = Recorder()
    async with searching(handler, observers=(recorder,)) as server, asking(server) as peer:
        peer.send(find_pdu(7), cancel_pdu(7))
        await cleaning.wait()
        peer.send(cancel_pdu(7))
        await recorder.until(lambda: recorder.calls.count("received CCancelRQ") == 2)
        for _ in range(3):
            await asyncio.sleep(0)
        go.set()
        _, response = await answers(peer)
        assert response.status == 0xFE00
        assert cleaned_up == [True]
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
            assert association._connection._transport.get_write_buffer_size() < 1024 * 1024  # the rest is the kernel's
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


async def test_a_misspelt_keyword_of_a_row_is_an_error() -> None:
    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        yield {"StudyInstanceUID": "1.2", "PatientNam": "Doe"}

    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu())
        found, response = await answers(peer)
    assert (found, response.status) == ([], 0x0110)
