"""What becomes of a request: its handler, what that returns or raises, and the status that says so (PS3.7 Annex C)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from aiodicom import (
    BlockingOperation,
    CEchoRQ,
    Conclusion,
    CStoreRQ,
    DimseError,
    Operation,
    Service,
    Status,
    SupportedSyntax,
    storage_service,
)
from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CFindRQ, CStoreRSP, NGetRQ
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import RoleSelection
from aiodicom.upper_layer.pdu import PDV
from tests.loopback import (
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    MR,
    Recorder,
    command_pdu,
    connect,
    ct_instance,
    data_pdu,
    data_set,
    echo_pdu,
    element,
    fragment_pdu,
    instance_uid,
    raw_association,
    serving,
    store_pdu,
    until,
)

# More than an association buffers: a handler that takes none of it holds the peer back.
LARGE = 4 * 1024 * 1024


async def status_of_store(handler: Any, **options: Any) -> tuple[Status, str | None]:  # noqa: ANN401
    """Store with that handler, then prove that the association lives."""
    async with serving(handler, **options) as server, connect(server) as association:
        response = await association.c_store(ct_instance())
        assert response.message_id_being_responded_to == 1
        assert (await association.c_echo()).status == 0
        assert association.is_open
        return response.status, response.error_comment


@pytest.mark.parametrize(
    ("returned", "status"), [(None, 0), (0, 0), (0xB000, 0xB000), (Status(0xA700), 0xA700), ("stored", 0)]
)
async def test_what_a_handler_returns_is_the_status(returned: object, status: int) -> None:
    async def handler(operation: Operation) -> object:
        await operation.read()
        return returned

    assert await status_of_store(handler) == (status, None)


async def test_a_dimse_error_is_the_response() -> None:
    async def handler(_operation: Operation) -> None:
        raise DimseError(0xA900, "Wrong SOP class")

    recorder = Recorder()
    assert await status_of_store(handler, observers=(recorder,)) == (0xA900, "Wrong SOP class")
    assert recorder.failed == []


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, ExceptionGroup])
async def test_any_other_exception_is_a_processing_failure(error: type[Exception]) -> None:
    async def handler(_operation: Operation) -> None:
        raise error("Patient^Secret", [ValueError()]) if error is ExceptionGroup else error("Patient^Secret")

    recorder = Recorder()
    status, comment = await status_of_store(handler, observers=(recorder,))
    assert status == 0x0110
    assert comment is not None
    assert "Secret" not in comment
    assert [type(each) for each in recorder.failed] == [error]


async def test_a_handler_that_is_cancelled_by_itself_is_a_processing_failure() -> None:
    async def handler(_operation: Operation) -> None:
        raise asyncio.CancelledError

    assert (await status_of_store(handler))[0] == 0x0110


@pytest.mark.parametrize("status", [0x10000, -1])
async def test_a_status_that_is_no_code_is_a_processing_failure(status: int) -> None:
    async def handler(_operation: Operation) -> int:
        return status

    assert (await status_of_store(handler))[0] == 0x0110


async def test_a_comment_of_any_length_and_script_fits() -> None:
    async def handler(_operation: Operation) -> None:
        raise DimseError(0xC000, "Überlänge\\\n" * 20)

    status, comment = await status_of_store(handler)
    assert status == 0xC000
    assert comment is not None
    assert comment.isascii()
    assert len(comment) <= 64


async def test_endless_recursion_in_a_handler_is_contained() -> None:
    def descend() -> int:
        return descend() + 1

    async def handler(_operation: Operation) -> int:
        return descend()

    assert (await status_of_store(handler))[0] == 0x0110


# Handlers of other kinds.


async def test_a_plain_function_runs_in_a_worker_thread() -> None:
    threads: list[threading.Thread] = []
    kept: list[bytes] = []

    def handler(operation: BlockingOperation) -> int:
        threads.append(threading.current_thread())
        kept.append(operation.read())
        assert operation.command.message_id == 1
        assert operation.context.abstract_syntax == CT
        assert operation.peer.ae_title == "SCU"
        return 0xB007

    assert (await status_of_store(handler))[0] == 0xB007
    assert threads[0] is not threading.main_thread()
    assert kept == [data_set()]


async def test_a_plain_function_that_raises_is_answered_like_a_coroutine() -> None:
    def handler(_operation: BlockingOperation) -> None:
        raise DimseError(0x0124, "Not you")

    assert await status_of_store(handler) == (0x0124, "Not you")


async def test_a_plain_function_does_not_hold_up_others() -> None:
    release = threading.Event()

    def handler(_operation: BlockingOperation) -> None:
        release.wait()

    async with serving(handler) as server, connect(server) as blocked, connect(server) as other:
        storing = asyncio.create_task(blocked.c_store(ct_instance()))
        for _ in range(3):
            assert (await other.c_echo()).status == 0
        assert not storing.done()
        release.set()
        assert (await storing).status == 0


async def test_a_callable_object_is_a_handler() -> None:
    class Handler:
        async def __call__(self, operation: Operation) -> int:
            return len(await operation.read())

    assert (await status_of_store(Handler()))[0] == len(data_set())


async def test_a_bound_method_is_a_handler() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.kept: list[bytes] = []

        async def keep(self, operation: Operation) -> None:
            self.kept.append(await operation.read())

    keeper = Keeper()
    assert (await status_of_store(keeper.keep))[0] == 0
    assert keeper.kept == [data_set()]


# A handler and its data set.


async def test_a_handler_that_ends_early_is_answered_after_the_data_set() -> None:
    ended = asyncio.Event()

    async def handler(_operation: Operation) -> int:
        ended.set()
        return 0xA700

    async with serving(handler) as server, raw_association(server) as peer:
        (association,) = server.associations
        data, sent = data_set(), association.bytes_sent
        peer.send(store_pdu(), fragment_pdu(data[:100], is_last=False))
        await ended.wait()
        await asyncio.sleep(0)
        assert (len(association.operations), association.bytes_sent) == (1, sent)
        peer.send(fragment_pdu(data[100:], is_last=True))
        assert (await peer.response()).status == 0xA700


async def test_what_a_handler_leaves_is_discarded_however_much_it_is() -> None:
    async def handler(operation: Operation) -> int:
        async for _ in operation.stream():
            break
        return 0xA700

    async with serving(handler) as server, connect(server) as association:
        for number in (1, 2):
            assert (await association.c_store(ct_instance(number, LARGE))).status == 0xA700
        assert (await association.c_echo()).status == 0


async def test_a_slow_handler_holds_the_peer_back_and_its_memory_is_bounded() -> None:
    go, buffered = asyncio.Event(), list[int]()

    async def handler(operation: Operation) -> None:
        await go.wait()
        buffered.append(operation.data_set.length)
        await operation.read()

    recorder = Recorder()
    async with serving(handler, observers=(recorder,)) as server, connect(server) as association:
        storing = asyncio.create_task(association.c_store(ct_instance(1, 8 * LARGE)))
        await recorder.until(lambda: "received CStoreRQ" in recorder.calls)
        connection = recorder.associations[0]._connection
        await until(lambda: connection.is_held)
        go.set()
        assert (await storing).status == 0
    assert buffered[0] < 2 * 1024 * 1024


# Requests without a handler.


async def test_echo_is_answered_by_default() -> None:
    async with serving() as server, connect(server) as association:
        response = await association.c_echo()
        assert (response.status, response.affected_sop_class_uid) == (0, VERIFICATION)


async def test_echo_may_have_a_handler_of_its_own() -> None:
    async with serving() as server:

        @server.on_c_echo
        async def refuse(_operation: Operation) -> int:
            return 0x0122

        async with connect(server) as association:
            assert (await association.c_echo()).status == 0x0122


async def test_a_later_service_replaces_an_earlier_one() -> None:
    async def first(_operation: Operation) -> int:
        return 0xA700

    async def second(_operation: Operation) -> int:
        return 0

    services = (storage_service(first, [CT, MR], [IMPLICIT_VR_LITTLE_ENDIAN]), storage_service(second, [CT]))
    async with serving(services=services) as server, connect(server) as association:
        assert (await association.c_store(ct_instance())).status == 0


@pytest.mark.parametrize(
    ("request_pdu", "field"),
    [
        (command_pdu(CT_CONTEXT, CFindRQ(message_id=7, affected_sop_class_uid=CT)), 0x8020),
        (
            command_pdu(
                CT_CONTEXT, NGetRQ(message_id=7, requested_sop_class_uid=CT, requested_sop_instance_uid="1.2.3")
            ),
            0x8110,
        ),
        (command_pdu(CT_CONTEXT, CEchoRQ(message_id=7, affected_sop_class_uid=CT)), 0x8030),
    ],
    ids=["C-FIND", "N-GET", "C-ECHO"],
)
async def test_an_operation_that_the_sop_class_has_not_is_unrecognized(request_pdu: bytes, field: int) -> None:
    async with serving(_take_nothing) as server, raw_association(server) as peer:
        peer.send(request_pdu)
        response: Any = await peer.response()
        assert (response.command_field, response.status, response.message_id_being_responded_to) == (field, 0x0211, 7)
        peer.send(echo_pdu())
        assert (await peer.response()).status == 0


@pytest.mark.parametrize("has_data_set", [False, True])
async def test_an_unknown_command_field_is_answered_as_unrecognized(has_data_set: bool) -> None:
    request = bytearray(encode_command(CEchoRQ(message_id=9, affected_sop_class_uid=CT), has_data_set=has_data_set))
    request = request.replace(b"\x00\x01\x02\x00\x00\x00\x30\x00", b"\x00\x01\x02\x00\x00\x00\x77\x77")
    async with serving(_take_nothing) as server, raw_association(server) as peer:
        peer.send(data_pdu(PDV(CT_CONTEXT, True, True, bytes(request))))
        if has_data_set:
            peer.send(fragment_pdu(b"whatever"))
        response = await peer.pdu()
        for tag, value in ((0x0100, 0xF777), (0x0120, 9), (0x0800, 0x0101), (0x0900, 0x0211)):
            assert element(0x0000, tag, value.to_bytes(2, "little")) in response
        peer.send(echo_pdu())
        assert (await peer.response()).status == 0


async def test_a_sop_class_that_differs_from_its_context_is_not_supported() -> None:
    handled: list[Operation] = []

    async def handler(operation: Operation) -> None:
        handled.append(operation)

    async with serving(handler) as server, raw_association(server) as peer:
        request = CStoreRQ(message_id=1, affected_sop_class_uid=MR, affected_sop_instance_uid="1.2.3")
        peer.send(command_pdu(CT_CONTEXT, request, has_data_set=True), fragment_pdu(data_set()))
        response = await peer.response()
        assert isinstance(response, CStoreRSP)
        assert response.status == 0x0122
        peer.send(command_pdu(ECHO_CONTEXT, CEchoRQ(message_id=2, affected_sop_class_uid=CT)))
        assert (await peer.response()).status == 0x0122
    assert handled == []


async def test_a_store_on_a_verification_context_is_refused() -> None:
    async with serving(_take_nothing) as server, raw_association(server) as peer:
        peer.send(store_pdu(context_id=ECHO_CONTEXT), fragment_pdu(data_set(), context_id=ECHO_CONTEXT))
        assert (await peer.response()).status == 0x0122


async def test_a_message_id_that_is_outstanding_is_a_duplicate() -> None:
    go = asyncio.Event()

    async def handler(_operation: Operation) -> int:
        await go.wait()
        return 0xB000

    async with serving(handler) as server, raw_association(server, window=(2, 1)) as peer:
        peer.send(store_pdu(5), fragment_pdu(data_set()), store_pdu(5, 2), fragment_pdu(data_set(2)))
        response: Any = await peer.response()
        assert (response.status, response.affected_sop_instance_uid) == (0x0210, instance_uid(2))
        go.set()
        response = await peer.response()
        assert (response.status, response.affected_sop_instance_uid) == (0xB000, instance_uid(1))
        peer.send(store_pdu(5), fragment_pdu(data_set()))  # no more outstanding: it may be used again
        assert (await peer.response()).status == 0xB000


async def test_what_is_offered_says_so_in_its_roles() -> None:
    """Where the requestor may not be SCU, its request is refused (PS3.7 §D.3.3.4)."""

    async def handler(_operation: Operation) -> None: ...

    supported = SupportedSyntax(frozenset({IMPLICIT_VR_LITTLE_ENDIAN}), requestor_scu=False, requestor_scp=True)
    service = Service(CStoreRQ, handler, {CT: supported})
    role = RoleSelection(CT, scu_role=True, scp_role=True)
    async with serving(services=[service]) as server, raw_association(server, items=(role,)) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set()))
        assert (await peer.response()).status == 0x0122


async def _take_nothing(_operation: Operation) -> None:
    """A handler that leaves the data set."""


async def test_a_conclusion_with_a_field_that_the_response_has_not() -> None:
    async def store(_operation: Operation) -> Conclusion:
        return Conclusion(0, fields={"number_of_completed_suboperations": 1})

    recorder = Recorder()
    async with serving(store, observers=(recorder,)) as server, connect(server) as association:
        response = await association.c_store(ct_instance())
        assert (response.status, response.error_comment) == (0x0110, "The handler's conclusion is none")
    assert [type(error) for error in recorder.failed] == [TypeError]


async def test_a_c_store_without_a_data_set_is_not_kept(tmp_path: Path) -> None:
    async def store(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(store) as server, raw_association(server) as peer:
        peer.send(store_pdu(has_data_set=False))
        response = await peer.response()
        assert (response.status, response.error_comment) == (0xC000, "The data set is missing")
    assert list(tmp_path.iterdir()) == []
