"""C-GET and C-MOVE as SCP: sub-operations, their counters, and what becomes of instances that fail (PS3.4 §C.4.2, §C.4.3)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from aiodicom import (
    DimseError,
    EncodedInstance,
    LocalProtocolError,
    Operation,
    ProposedContext,
    QueryOptions,
    Server,
    Timeouts,
    contexts_to_retrieve,
    open_instance,
)
from aiodicom.dataset import decode_data_set
from aiodicom.dimse.commands import CGetRSP, CStoreRQ, SuboperationsRSP
from aiodicom.operation import IncomingDataSet, ReceiveWindow
from aiodicom.part10 import file_meta
from aiodicom.services import retrieve
from aiodicom.services.retrieve import get_service, move_service
from aiodicom.uids import (
    COMPOSITE_INSTANCE_ROOT_GET,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_GET,
)
from aiodicom.upper_layer.items import PresentationContextRQ
from tests.inquiries import STUDY, ask, asking, cancel_pdu, get, get_pdu, message
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    CT,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    RawPeer,
    Recorder,
    Unpaused,
    assert_alive,
    connect,
    ct_instance,
    data_set,
    instance_uid,
    serving,
    until,
)
from tests.services.retrieving import JPEG, a_large_file, answer_to, counters, encapsulated, explicit, returning

GET = 5


@pytest.fixture
def every_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a Pending response follow each sub-operation, however fast they are."""
    monkeypatch.setattr(retrieve, "PENDING_INTERVAL", 0.0)


def giving(handler: Any, **options: Any) -> AbstractAsyncContextManager[Server]:  # noqa: ANN401
    """A server with a handler of C-GET, which may send CT and MR."""
    return serving(
        services=[get_service(handler, sop_classes=[CT, MR])], **{"timeouts": Timeouts(idle=None), **options}
    )


class Got:
    """What comes of a C-GET: the sub-operations, the responses, and the identifier of the last."""

    def __init__(self) -> None:
        self.stores: list[CStoreRQ] = []
        self.data: list[bytes] = []
        self.pendings: list[SuboperationsRSP] = []
        self.identifier = b""

    async def until_the_end(self, peer: RawPeer, *statuses: int) -> SuboperationsRSP:
        """Answer the sub-operations with those statuses, the later ones with Success; return the final response."""
        while True:
            command, data = await message(peer)
            if isinstance(command, CStoreRQ):
                status = statuses[len(self.stores)] if len(self.stores) < len(statuses) else 0
                self.stores.append(command)
                self.data.append(data)
                peer.send(answer_to(command, status))
                continue
            assert isinstance(command, SuboperationsRSP), command
            if command.status != 0xFF00:
                self.identifier = data
                return command
            assert not data
            self.pendings.append(command)

    @property
    def failed_uids(self) -> list[str]:
        """The Failed SOP Instance UID List, which is alone in its data set."""
        if not self.identifier:
            return []
        (found,) = decode_data_set(self.identifier, IMPLICIT_VR_LITTLE_ENDIAN)
        assert found.keyword == "FailedSOPInstanceUIDList"
        return [str(found.value)] if isinstance(found.value, str) else [str(each) for each in found.value]


async def got(handler: Any, *statuses: int) -> tuple[SuboperationsRSP, Got]:  # noqa: ANN401
    """What comes of a C-GET whose sub-operations are answered with those statuses."""
    found = Got()
    async with giving(handler) as server, asking(server) as peer:
        peer.send(get_pdu(7))
        final = await found.until_the_end(peer, *statuses)
        assert final.message_id_being_responded_to == 7
        assert final.affected_sop_class_uid == STUDY_ROOT_GET
        peer.send(RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP
    return final, found


# Counters and statuses.


@pytest.mark.usefixtures("every_pending")
async def test_each_sub_operation_is_counted() -> None:
    final, found = await got(returning(*map(ct_instance, range(1, 4))))
    assert [each.affected_sop_instance_uid for each in found.stores] == [instance_uid(number) for number in (1, 2, 3)]
    assert {each.affected_sop_class_uid for each in found.stores} == {CT}
    assert found.data == [data_set(1), data_set(2), data_set(3)]
    assert [counters(each) for each in found.pendings] == [(3, 0, 0, 0), (2, 1, 0, 0), (1, 2, 0, 0)]
    assert (final.status, counters(final)) == (0, (None, 3, 0, 0))
    assert found.identifier == b""  # no list where nothing failed
    assert {each.move_originator_application_entity_title for each in found.stores} == {None}
    assert len({each.message_id for each in found.stores}) == 3


@pytest.mark.usefixtures("every_pending")
async def test_failures_and_warnings_are_counted_and_failures_named() -> None:
    statuses = (0x0000, 0xB000, 0xA700, 0xC000, 0xB007, 0x0110, 0x0001, 0x1234)
    final, found = await got(returning(*map(ct_instance, range(1, 10))), *statuses)
    assert [counters(each) for each in found.pendings] == [
        (9, 0, 0, 0),
        (8, 1, 0, 0),
        (7, 1, 0, 1),
        (6, 1, 1, 1),
        (5, 1, 2, 1),
        (4, 1, 2, 2),
        (3, 1, 3, 2),
        (2, 1, 3, 3),
        (1, 1, 4, 3),
    ]
    assert (final.status, counters(final)) == (0xB000, (None, 2, 4, 3))
    assert found.failed_uids == [instance_uid(number) for number in (3, 4, 6, 8)]


@pytest.mark.parametrize(
    ("statuses", "status", "expected"),
    [
        ((), 0x0000, (None, 0, 0, 0)),
        ((0xA700,), 0xA702, (None, 0, 1, 0)),
        ((0xA700, 0xC000), 0xA702, (None, 0, 2, 0)),
        ((0xB000,), 0xB000, (None, 0, 0, 1)),
        ((0xB000, 0x0000), 0xB000, (None, 1, 0, 1)),
        ((0xB000, 0xA900), 0xB000, (None, 0, 1, 1)),
    ],
    ids=["nothing", "one failed", "all failed", "a warning", "a warning and a success", "a warning and a failure"],
)
async def test_the_final_status(
    statuses: tuple[int, ...], status: int, expected: tuple[int | None, int, int, int]
) -> None:
    final, found = await got(returning(*map(ct_instance, range(1, len(statuses) + 1))), *statuses)
    assert (final.status, counters(final)) == (status, expected)
    assert len(found.failed_uids) == expected[2]


async def test_pending_responses_are_not_sent_faster_than_anybody_reads() -> None:
    _, found = await got(returning(*map(ct_instance, range(1, 50))))
    assert len(found.stores) == 49
    assert 1 <= len(found.pendings) < 40


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
async def test_a_long_list_of_what_failed(syntax: str) -> None:
    instances = [EncodedInstance(MR, f"1.2.3.{number:050}", syntax, b"") for number in range(1, 1501)]
    contexts = [ProposedContext(STUDY_ROOT_GET, (syntax,)), ProposedContext(CT, scp_role=True)]
    async with giving(returning(*instances)) as server, connect(server, contexts=contexts) as association:
        retrieval = get(association)
        with pytest.raises(DimseError, match="0xA702"):
            await anext(retrieval)
        assert retrieval.failed_uids == tuple(each.sop_instance_uid for each in instances)
        assert retrieval.progress.failed == 1500


def test_a_counter_ends_at_what_it_can_say() -> None:
    data_set = IncomingDataSet(IMPLICIT_VR_LITTLE_ENDIAN, ReceiveWindow(Unpaused()), is_empty=True)
    operation = Operation(None, None, None, data_set)  # type: ignore[arg-type]
    suboperations = retrieve._Suboperations(operation, 70_000, completed=65_536, failed=1, warning=1_000_000)
    assert suboperations._counters(with_remaining=True) == {
        "number_of_remaining_suboperations": 65_535,
        "number_of_completed_suboperations": 65_535,
        "number_of_failed_suboperations": 1,
        "number_of_warning_suboperations": 65_535,
    }


async def test_a_long_sub_operation_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve, "PATIENCE", 0.01)
    monkeypatch.setattr(retrieve, "PENDING_INTERVAL", 0.0)
    async with giving(returning(ct_instance())) as server, asking(server) as peer:
        peer.send(get_pdu())
        store: CStoreRQ | None = None
        pendings = 0
        while pendings < 4:
            command, _ = await message(peer)
            if isinstance(command, CStoreRQ):
                store = command
            else:
                assert isinstance(command, CGetRSP)
                assert counters(command) == (1, 0, 0, 0)
                pendings += 1
        assert store is not None
        peer.send(answer_to(store, 0))
        final = await Got().until_the_end(peer)
        assert counters(final) == (None, 1, 0, 0)


# Handlers of each kind.


async def asynchronous_generator(_operation: Operation) -> AsyncIterator[Any]:
    for number in (1, 2):
        await asyncio.sleep(0)
        yield ct_instance(number)


async def coroutine_of_a_generator(_operation: Operation) -> Iterator[Any]:
    return map(ct_instance, (1, 2))


def generator(_operation: Operation) -> Iterator[Any]:
    assert threading.current_thread() is not threading.main_thread()
    yield from map(ct_instance, (1, 2))


def function(operation: Operation) -> list[Any]:
    assert threading.current_thread() is not threading.main_thread()
    assert str(operation.identifier.StudyInstanceUID) == STUDY
    return [ct_instance(1), ct_instance(2)]


@pytest.mark.parametrize("handler", [asynchronous_generator, coroutine_of_a_generator, generator, function])
async def test_a_handler_is_of_any_kind(handler: Any) -> None:  # noqa: ANN401
    final, found = await got(handler)
    assert final.status == 0
    assert len(found.stores) == 2


async def test_a_handler_is_registered_by_a_decorator() -> None:
    server = Server("SCP", port=0, observers=())

    @server.on_c_get("composite", options=QueryOptions(relational=True))
    async def retrieve_(operation: Operation) -> list[EncodedInstance]:
        assert operation.options == QueryOptions(relational=True)
        assert operation.identifier.QueryRetrieveLevel == "IMAGE"
        assert operation.identifier.SOPInstanceUID == instance_uid(1)
        return [ct_instance(1)]

    contexts = contexts_to_retrieve([CT], models=["composite"])
    options = QueryOptions(relational=True, fuzzy_names=True)
    async with server, connect(server, contexts=contexts, options=options) as association:
        assert association.terms.options[COMPOSITE_INSTANCE_ROOT_GET] == QueryOptions(relational=True)
        found = [
            await each.read() async for each in association.c_get(model="composite", SOPInstanceUID=instance_uid(1))
        ]
        assert [decode_data_set(each, EXPLICIT_VR_LITTLE_ENDIAN).SOPInstanceUID for each in found] == [instance_uid(1)]


@pytest.mark.parametrize("model", ["worklist", "studies"])
def test_a_model_without_retrievals_is_said(model: str) -> None:
    with pytest.raises(LocalProtocolError):
        get_service(function, model, sop_classes=[])
    with pytest.raises(LocalProtocolError):
        move_service(function, {}, model)
    with pytest.raises(LocalProtocolError):
        move_service(function, {}, "no-bulk-data")


@pytest.mark.parametrize("status", [0xA701, 0xA900, 0xC000, 0x0124])
async def test_a_status_is_raised(status: int) -> None:
    async def handler(_operation: Operation) -> list[Any]:
        raise DimseError(status, "no")

    final, found = await got(handler)
    assert (final.status, final.error_comment) == (status, "no")
    assert not found.stores


@pytest.mark.parametrize("result", [None, 7, KeyError(CANARY)])
async def test_a_bug_of_the_handler_is_a_status_and_tells_nothing(result: Any) -> None:  # noqa: ANN401
    async def handler(_operation: Operation) -> Any:  # noqa: ANN401
        if isinstance(result, Exception):
            raise result
        return result

    final, _ = await got(handler)
    assert final.status == 0x0110
    assert "Tweety" not in (final.error_comment or "")


# What is sent.


def write(path: Path, number: int, *, sop_class: str = CT, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Path:
    uid = instance_uid(number)
    path.write_bytes(file_meta(sop_class, uid, syntax) + explicit(uid, sop_class))
    return path


def dataset(number: int) -> Dataset:
    return decode_data_set(explicit(instance_uid(number)), EXPLICIT_VR_LITTLE_ENDIAN)


async def test_instances_are_files_paths_datasets_and_bytes(tmp_path: Path) -> None:
    instances = (
        open_instance(write(tmp_path / "1", 1)),
        write(tmp_path / "2", 2),
        str(write(tmp_path / "3", 3)),
        dataset(4),
        ct_instance(5),
    )
    final, found = await got(returning(*instances))
    assert counters(final) == (None, 5, 0, 0)
    assert [each.affected_sop_instance_uid for each in found.stores] == [instance_uid(each) for each in range(1, 6)]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("fault", ["missing", "truncated", "a folder"])
async def test_a_file_that_is_not_what_it_was_has_failed_and_the_rest_goes_on(
    tmp_path: Path, fault: str, large: bool
) -> None:
    path = tmp_path / "1"
    bad = a_large_file(path, 1) if large else open_instance(write(path, 1))
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.unlink()
    if fault == "a folder":
        path.mkdir()
    final, found = await got(returning(bad, ct_instance(2)))
    assert (final.status, counters(final)) == (0xB000, (None, 1, 1, 0))
    assert found.failed_uids == [instance_uid(1)]


async def test_what_is_no_instance_has_failed_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    anonymous = dataset(9)
    del anonymous.SOPClassUID
    final, found = await got(
        returning(tmp_path / "missing", tmp_path / "letter.txt", str(tmp_path), 7, anonymous, write(tmp_path / "1", 1))
    )
    assert (final.status, counters(final)) == (0xB000, (None, 1, 5, 0))
    assert found.failed_uids == [instance_uid(9)]  # of the others nobody knows what they were


async def test_what_has_no_accepted_context_has_failed() -> None:
    other = EncodedInstance(MR, instance_uid(2), IMPLICIT_VR_LITTLE_ENDIAN, data_set(2, sop_class=MR))
    final, found = await got(returning(ct_instance(1), other))
    assert counters(final) == (None, 1, 1, 0)
    assert found.failed_uids == [instance_uid(2)]


async def test_without_the_role_nothing_is_sent() -> None:
    async with giving(returning(ct_instance())) as server, asking(server, items=()) as peer:
        peer.send(get_pdu())
        found = Got()
        final = await found.until_the_end(peer)
        assert (final.status, counters(final)) == (0xA702, (None, 0, 1, 0))
        assert not found.stores


@pytest.mark.parametrize(
    ("instance", "accepted", "expected"),
    [
        (encapsulated(1), [JPEG, IMPLICIT_VR_LITTLE_ENDIAN], JPEG),
        (encapsulated(1), [IMPLICIT_VR_LITTLE_ENDIAN, JPEG], JPEG),
        (encapsulated(1), [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN], None),
        (ct_instance(1), [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN], IMPLICIT_VR_LITTLE_ENDIAN),
        (ct_instance(1), [EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN),
        (ct_instance(1), [EXPLICIT_VR_BIG_ENDIAN], EXPLICIT_VR_BIG_ENDIAN),
        (ct_instance(1), [JPEG], None),
    ],
    ids=[
        "own",
        "own, though proposed later",
        "compressed",
        "own implicit",
        "explicit",
        "big endian",
        "never compressed",
    ],
)
async def test_the_transfer_syntax_is_its_own_or_another_uncompressed_one(
    instance: EncodedInstance, accepted: list[str], expected: str | None
) -> None:
    contexts = (
        PresentationContextRQ(GET, STUDY_ROOT_GET, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        *(PresentationContextRQ(101 + 2 * index, CT, (uid,)) for index, uid in enumerate(accepted)),
    )
    async with giving(returning(instance)) as server, asking(server, contexts=contexts) as peer:
        peer.send(get_pdu())
        if expected is None:
            final = await Got().until_the_end(peer)
            assert (final.status, counters(final)) == (0xA702, (None, 0, 1, 0))
            return
        await message(peer)
        pdu = await peer.pdu()
        assert accepted[(pdu[10] - 101) // 2] == expected


# What ends it.


@pytest.mark.parametrize("answered", [0x0000, 0xA700])
async def test_a_cancel_lets_the_sub_operation_that_has_begun_come_to_its_end(answered: int) -> None:
    async with giving(returning(*map(ct_instance, range(1, 6)))) as server, asking(server) as peer:
        peer.send(get_pdu(7))
        found = Got()
        command, _ = await message(peer)
        while not isinstance(command, CStoreRQ):
            command, _ = await message(peer)
        peer.send(cancel_pdu(7, GET), cancel_pdu(7, GET))
        await until(lambda: all(each.is_cancelled for each in server.associations[0].operations))
        peer.send(answer_to(command, answered))
        final = await found.until_the_end(peer)
        assert not found.stores  # none after that
        assert final.status == 0xFE00
        failed = int(answered != 0)
        assert counters(final) == (4, 1 - failed, failed, 0)
        assert found.failed_uids == [instance_uid(1)] * failed
        peer.send(RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP


async def test_a_cancel_ends_the_handler() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def handler(_operation: Operation) -> list[Any]:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return []

    async with giving(handler) as server, asking(server) as peer:
        peer.send(get_pdu(7))
        await asked.wait()
        peer.send(cancel_pdu(7, GET))
        final = await Got().until_the_end(peer)
        assert final.status == 0xFE00
        assert ended.is_set()


async def test_a_cancel_of_the_last_sub_operation_comes_too_late() -> None:
    async with giving(returning(ct_instance(1))) as server, asking(server) as peer:
        peer.send(get_pdu(7))
        command, _ = await message(peer)
        while not isinstance(command, CStoreRQ):
            command, _ = await message(peer)
        peer.send(cancel_pdu(7, GET))
        await until(lambda: all(each.is_cancelled for each in server.associations[0].operations))
        peer.send(answer_to(command, 0))
        final = await Got().until_the_end(peer)
        assert (final.status, counters(final)) == (0, (None, 1, 0, 0))


@pytest.mark.parametrize("how", ["abort", "reset"])
async def test_the_end_of_the_association_ends_it(how: str) -> None:
    recorder = Recorder()
    async with giving(returning(*map(ct_instance, range(1, 6))), observers=(recorder,)) as server:
        async with asking(server) as peer:
            peer.send(get_pdu(7))
            command, _ = await message(peer)
            while not isinstance(command, CStoreRQ):
                command, _ = await message(peer)
            (association,) = server.associations
            if how == "abort":
                peer.send(ABORT_BY_USER)
            else:
                peer.reset()
            await recorder.until(lambda: recorder.closed)
            await until(lambda: not association.operations)
        await assert_alive(server)
        assert not recorder.failed


async def test_left_by_our_own_requestor_it_ends() -> None:
    async with (
        giving(returning(*(ct_instance(number, 50_000) for number in range(1, 100)))) as server,
        ask(server) as association,
    ):
        async with get(association) as instances:
            async for each in instances:
                await each.read()
                break
        assert instances.status == 0xFE00
        assert instances.response is not None
        assert isinstance(instances.response, CGetRSP)
        assert (instances.response.number_of_remaining_suboperations or 0) > 90
        await association.c_echo()
        assert len([each async for each in get(association)]) == 99


async def test_two_retrievals_of_one_peer_at_once() -> None:
    async with giving(returning(*map(ct_instance, range(1, 4)))) as server, asking(server, window=(2, 1)) as peer:
        peer.send(get_pdu(7), get_pdu(8))
        finals: dict[int, SuboperationsRSP] = {}
        stores = 0
        while len(finals) < 2:
            command, _ = await message(peer)
            if isinstance(command, CStoreRQ):
                stores += 1
                peer.send(answer_to(command, 0))
            elif isinstance(command, SuboperationsRSP) and command.status != 0xFF00:
                finals[command.message_id_being_responded_to] = command
        assert stores == 6
        assert {counters(each) for each in finals.values()} == {(None, 3, 0, 0)}


async def test_all_storage_classes_may_be_sent_unless_told_otherwise() -> None:
    service = get_service(returning())
    assert {CT, MR} <= set(service.sub_operations)
    assert JPEG in service.sub_operations[CT].transfer_syntaxes
    only = get_service(returning(), sop_classes=[CT], syntaxes=[IMPLICIT_VR_LITTLE_ENDIAN])
    assert set(only.sub_operations) == {CT}
    assert only.sub_operations[CT].transfer_syntaxes == {IMPLICIT_VR_LITTLE_ENDIAN}
