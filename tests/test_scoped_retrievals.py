"""C-GET and C-MOVE of ours, against peers made of bytes: instances, counters, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydicom import dcmread

from aiodicom import (
    Association,
    AssociationAborted,
    DimseError,
    LocalProtocolError,
    NoAcceptedContext,
    Operation,
    OperationTimeout,
    Progress,
    Timeouts,
    open_instance,
)
from aiodicom.dimse.commands import CCancelRQ, CGetRQ, CGetRSP, CMoveRSP, CStoreRQ, CStoreRSP
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.rows import encode_row
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_GET
from tests.inquiries import (
    ECHO,
    STORE,
    STUDY,
    asked,
    asked_to_get,
    asked_to_move,
    assert_usable,
    cancelled,
    counted,
    echoed,
    get,
    instance,
    message,
    move,
    released,
    stored,
)
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    SHORT,
    RawPeer,
    command_pdu,
    connect,
    data_set,
    fragment_pdu,
    instance_uid,
    serving,
    until,
)

FAILED = encode_row({"FailedSOPInstanceUIDList": ["1.2.3", "1.2.4"]}, IMPLICIT_VR_LITTLE_ENDIAN)


async def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# C-GET to its end.


async def test_instances_come_one_by_one_with_the_counters() -> None:
    async def script(peer: RawPeer) -> None:
        request, identifier = await message(peer)
        assert isinstance(request, CGetRQ)
        assert STUDY.encode() in identifier
        peer.send(counted(CGetRSP, request.message_id, 0xFF00, (3, 0, 0, 0)))
        for number in range(1, 4):
            peer.send(instance(100 + number, number))
            assert await stored(peer) == 0
            peer.send(counted(CGetRSP, request.message_id, 0xFF00, (3 - number, number, 0, 0)))
        peer.send(counted(CGetRSP, request.message_id, 0, (None, 3, 0, 0), comment="done"))
        await echoed(peer)

    async with asked(script) as association:
        instances = get(association)
        assert repr(instances) == "<Instances new>"
        assert instances.progress == Progress()
        found: list[str] = []
        progress: list[Progress] = []
        async with instances:
            async for each in instances:
                assert isinstance(each, Operation)
                assert await each.read() == data_set(len(found) + 1)
                found.append(each.sop_instance_uid)
                progress.append(instances.progress)
        assert found == [instance_uid(number) for number in (1, 2, 3)]
        assert [(each.completed, each.total) for each in progress] == [(0, 3), (1, 3), (2, 3)]
        assert instances.progress == Progress(None, 3, 0, 0)
        assert (instances.status, instances.comment, instances.failed_uids) == (0, "done", ())
        await assert_usable(association)


async def test_each_instance_has_three_heights(tmp_path: Path) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        for each in range(1, 5):
            peer.send(instance(each, each, 50_000))
            assert await stored(peer) == 0
        peer.send(counted(CGetRSP, number, 0, (None, 4, 0, 0)))

    async with asked(script) as association, get(association) as instances:
        path = await (await anext(instances)).save(tmp_path)
        assert open_instance(path).sop_instance_uid == instance_uid(1)
        assert dcmread(path).file_meta.TransferSyntaxUID == IMPLICIT_VR_LITTLE_ENDIAN
        assert (await (await anext(instances)).dataset()).SOPInstanceUID == instance_uid(2)
        assert b"".join([chunk async for chunk in (await anext(instances)).stream()]) == data_set(3, 50_000)
        await anext(instances)  # nobody has to take it
        with pytest.raises(StopAsyncIteration):
            await anext(instances)


async def test_a_slow_consumer_holds_the_peer_back() -> None:
    sent = 0

    async def script(peer: RawPeer) -> None:
        nonlocal sent
        number = await asked_to_get(peer)
        request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid=instance_uid(1))
        peer.send(command_pdu(STORE, request, has_data_set=True))
        for sent in range(1, 4000):  # noqa: B007 - the test looks at it
            peer.send(fragment_pdu(bytes(16_000), context_id=STORE, is_last=False))
            await peer.writer.drain()
        peer.send(fragment_pdu(b"", context_id=STORE))
        assert await stored(peer) == 0
        peer.send(counted(CGetRSP, number, 0, (None, 1, 0, 0)))

    async with asked(script) as association, get(association) as instances:
        async for each in instances:
            await until(lambda: association._connection.is_held)
            assert association._window.buffered < 2 * DEFAULT_LIMITS.maximum_buffered
            assert sent < 4000
            assert sum([len(chunk) async for chunk in each.stream()]) == 3999 * 16_000


async def test_without_the_role_of_scp_a_retrieval_says_what_to_propose() -> None:
    async with serving() as server, connect(server, contexts=[STUDY_ROOT_GET, CT]) as association:
        with pytest.raises(NoAcceptedContext):  # the server has no C-GET
            get(association)

    async def script(peer: RawPeer) -> None:
        await released(peer)

    async with asked(script) as association:
        association.terms.contexts.pop(STORE)  # type: ignore[attr-defined]
        with pytest.raises(NoAcceptedContext, match="contexts_to_retrieve"):
            get(association)
        await association.release()


@pytest.mark.parametrize("kind", [CGetRSP, CMoveRSP])
async def test_what_failed_is_named_where_some_succeeded(kind: type[CGetRSP | CMoveRSP]) -> None:
    async def script(peer: RawPeer) -> None:
        number = await (asked_to_get(peer) if kind is CGetRSP else asked_to_move(peer))
        peer.send(counted(kind, number, 0xB000, (None, 1, 2, 3), comment="some failed", data=FAILED))

    async with asked(script) as association:
        scope = get(association) if kind is CGetRSP else move(association)
        async for _ in scope:  # a warning is no error
            pass
        assert (scope.status, scope.comment) == (0xB000, "some failed")
        assert scope.failed_uids == ("1.2.3", "1.2.4")
        assert scope.progress == Progress(None, 1, 2, 3)


@pytest.mark.parametrize("kind", [CGetRSP, CMoveRSP])
@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xA801, 0xA900, 0xAA00, 0xC000, 0x0122, 0x0124, 0xFE00])
async def test_a_failure_is_raised_and_tells_what_failed(kind: type[CGetRSP | CMoveRSP], status: int) -> None:
    async def script(peer: RawPeer) -> None:
        number = await (asked_to_get(peer) if kind is CGetRSP else asked_to_move(peer))
        remaining = 5 if status == 0xFE00 else None
        peer.send(counted(kind, number, status, (remaining, 0, 2, 0), comment="no", data=FAILED))
        await echoed(peer)

    async with asked(script) as association:
        scope = get(association) if kind is CGetRSP else move(association)
        with pytest.raises(DimseError) as caught:
            await anext(scope)
        assert (caught.value.status, caught.value.comment) == (status, "no")
        assert scope.failed_uids == ("1.2.3", "1.2.4")
        assert scope.progress.failed == 2
        with pytest.raises(StopAsyncIteration):
            await anext(scope)
        await assert_usable(association)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode_row({"FailedSOPInstanceUIDList": "1.2.3"}, IMPLICIT_VR_LITTLE_ENDIAN), ("1.2.3",)),
        (encode_row({"FailedSOPInstanceUIDList": None}, IMPLICIT_VR_LITTLE_ENDIAN), ()),
        (encode_row({"PatientID": "1"}, IMPLICIT_VR_LITTLE_ENDIAN), ()),
        (b"damaged", ()),
        (
            encode_row(
                {"FailedSOPInstanceUIDList": [instance_uid(number) for number in range(70_000)]},
                IMPLICIT_VR_LITTLE_ENDIAN,
            ),
            tuple(instance_uid(number) for number in range(70_000)),
        ),
    ],
    ids=["one", "none", "another data set", "damaged", "many"],
)
async def test_lists_of_what_failed(data: bytes, expected: tuple[str, ...]) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_move(peer)
        peer.send(counted(CMoveRSP, number, 0xB000, (None, 1, 1, 0), data=data))

    async with asked(script) as association:
        movement = move(association)
        assert [each async for each in movement] == [Progress(None, 1, 1, 0)]
        assert movement.failed_uids == expected


async def test_a_final_response_without_counters_leaves_what_was_counted() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_move(peer)
        peer.send(counted(CMoveRSP, number, 0xFF00, (1, 4, 0, 0)), counted(CMoveRSP, number, 0))

    async with asked(script) as association:
        movement = move(association)
        assert [each.completed async for each in movement] == [4, 4]
        assert movement.progress.completed == 4


# What becomes of an instance.


async def save_fails(tmp_path: Path, each: Operation) -> None:
    (tmp_path / "file").write_bytes(b"")
    await each.save(tmp_path / "file")  # which is no folder


async def save_all(tmp_path: Path, association: Association) -> None:
    async for each in get(association):
        await save_fails(tmp_path, each)


@pytest.mark.parametrize("size", [200, 3_000_000])
@pytest.mark.parametrize("how", ["leaves the block", "leaves the loop", "is caught"])
async def test_what_cannot_be_saved_is_no_success(tmp_path: Path, how: str, size: int) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1, 1, size))
        answers = [await peer.command()]
        if how != "is caught":
            answers.append(await peer.command())
        assert {type(each) for each in answers} <= {CStoreRSP, CCancelRQ}
        (response,) = (each for each in answers if isinstance(each, CStoreRSP))
        assert (response.status, response.error_comment) == (0xA700, "The file cannot be written")
        peer.send(counted(CGetRSP, number, 0xB000, (None, 0, 1, 0)))
        await echoed(peer)

    async with asked(script) as association:
        if how == "leaves the block":
            with pytest.raises(DimseError, match="0xA700"):
                async with get(association) as instances:
                    await save_fails(tmp_path, await anext(instances))
        elif how == "leaves the loop":
            with pytest.raises(DimseError, match="0xA700"):
                await save_all(tmp_path, association)
        else:
            async for each in get(association):
                with pytest.raises(DimseError, match="0xA700"):
                    await save_fails(tmp_path, each)
        await assert_usable(association)


async def test_an_exception_with_a_status_is_the_answer() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1))
        answers = [await peer.command(), await peer.command()]
        assert CCancelRQ(message_id_being_responded_to=number) in answers
        assert [each.status for each in answers if isinstance(each, CStoreRSP)] == [0xA900]
        peer.send(counted(CGetRSP, number, 0xFE00))

    async def refuse() -> None:
        async with get(association) as instances:
            await (await anext(instances)).read()
            raise DimseError(0xA900, "Not what we asked for")

    async with asked(script) as association:
        with pytest.raises(DimseError):
            await refuse()


@pytest.mark.parametrize(
    ("taken", "status"), [("nothing", 0xA700), ("half", 0xA700), ("all", 0)], ids=["nothing", "half", "all"]
)
async def test_leaving_with_an_instance_in_hand(taken: str, status: int) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        whole = instance(1, 1, 100_000)
        peer.send(whole[:60_000])
        if taken != "half":
            peer.send(whole[60_000:])
        answers = [await peer.command()]
        if taken == "half":
            assert answers == [CCancelRQ(message_id_being_responded_to=number)]
            peer.send(whole[60_000:])
        answers.append(await peer.command())
        (response,) = (each for each in answers if isinstance(each, CStoreRSP))
        assert response.status == status
        peer.send(instance(2))  # already on its way
        assert await stored(peer) == 0xA700
        peer.send(counted(CGetRSP, number, 0xFE00, (5, 0, 1, 0)))
        await echoed(peer)

    async with asked(script) as association:
        async with get(association) as instances:
            async for each in instances:
                match taken:
                    case "all":
                        await each.read()
                    case "half":
                        await anext(each.stream())
                break
        assert instances.status == 0xFE00
        await assert_usable(association)


async def test_an_instance_is_gone_when_the_next_one_is_asked_for(tmp_path: Path) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        for each in (1, 2):
            peer.send(instance(each, each, 100_000))
            assert await stored(peer) == 0
        peer.send(counted(CGetRSP, number, 0, (None, 2, 0, 0)))

    async with asked(script) as association:
        async with get(association) as instances:
            first = await anext(instances)
            second = await anext(instances)
            with pytest.raises(LocalProtocolError, match="before its operation ends"):
                await first.save(tmp_path)
            assert await kept(tmp_path) == []  # and no file that seems whole
            whole = await second.read()
            with pytest.raises(StopAsyncIteration):
                await anext(instances)
            assert await second.read() == b""  # nothing of it was lost
        assert whole == data_set(2, 100_000)


@pytest.mark.parametrize(
    ("pdu", "status"),
    [
        (instance(1, sop_class="1.2.840.10008.5.1.4.1.1.4"), 0x0122),
        (instance(1, context_id=ECHO), 0x0122),
        (instance(1, context_id=ECHO, sop_class="1.2.840.10008.1.1"), 0x0122),
    ],
    ids=["another class", "another context", "no storage"],
)
async def test_a_sub_operation_of_the_wrong_class_or_role_is_refused(pdu: bytes, status: int) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(pdu)
        assert await stored(peer) == status
        peer.send(counted(CGetRSP, number, 0xA702, (None, 0, 1, 0)))

    async with asked(script) as association:
        with pytest.raises(DimseError, match="0xA702"):
            await anext(get(association))


@pytest.mark.parametrize("uid", ["../../evil", "/etc/passwd", "..", "1.2\r\n3"])
async def test_a_uid_that_leads_elsewhere_is_not_saved(tmp_path: Path, uid: str) -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1, uid=uid))
        assert await stored(peer) == 0x0117
        peer.send(counted(CGetRSP, number, 0, (None, 0, 1, 0)))

    async with asked(script) as association:
        async for each in get(association):
            with pytest.raises(DimseError, match="0x0117"):
                await each.save(tmp_path)
        assert await kept(tmp_path) == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_store_that_belongs_to_no_retrieval_is_refused(when: str) -> None:
    async def script(peer: RawPeer) -> None:
        if when == "before":
            peer.send(instance(9))
            assert await stored(peer) == 0x0211
            refused.set()
        number = await asked_to_get(peer)
        peer.send(counted(CGetRSP, number, 0))
        if when == "after":
            peer.send(instance(9))
            assert await stored(peer) == 0x0211
            refused.set()
        await echoed(peer)

    refused = asyncio.Event()
    async with asked(script) as association:
        if when == "before":
            await refused.wait()
        assert [each async for each in get(association)] == []
        await refused.wait()
        await assert_usable(association)


async def test_a_peer_may_send_several_at_once_where_the_window_allows_it() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(*(instance(each, each) for each in range(1, 9)))
        assert [await stored(peer) for _ in range(8)] == [0] * 8
        peer.send(counted(CGetRSP, number, 0, (None, 8, 0, 0)))

    async with asked(script, window=(1, 8)) as association:
        found = [each.sop_instance_uid async for each in get(association)]
        assert found == [instance_uid(number) for number in range(1, 9)]


async def test_a_duplicate_message_id_is_refused() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1, 1), instance(1, 2))
        assert sorted([await stored(peer), await stored(peer)]) == [0, 0x0210]
        peer.send(counted(CGetRSP, number, 0, (None, 1, 0, 0)))

    async with asked(script) as association:
        assert [each.sop_instance_uid async for each in get(association)] == [instance_uid(1)]


async def test_what_came_before_the_final_response_is_given_before_its_end() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1, 1), instance(2, 2), counted(CGetRSP, number, 0, (None, 2, 0, 0)))
        assert [await stored(peer), await stored(peer)] == [0, 0]
        answered.set()
        await echoed(peer)

    answered = asyncio.Event()
    async with asked(script, window=(1, 2)) as association:
        instances = get(association)
        await anext(instances)
        await until(lambda: instances.status is not None)
        assert not instances.is_over
        assert [each.sop_instance_uid async for each in instances] == [instance_uid(2)]
        await answered.wait()
        await assert_usable(association)


async def test_two_retrievals_at_once_need_two_associations() -> None:
    async def script(peer: RawPeer) -> None:
        for _ in range(2):
            number = await asked_to_get(peer)
            peer.send(instance(1))
            assert await stored(peer) == 0
            peer.send(counted(CGetRSP, number, 0, (None, 1, 0, 0)))
        await echoed(peer)

    async with asked(script, window=(4, 1)) as association:
        async with get(association) as instances:
            async for _ in instances:
                with pytest.raises(LocalProtocolError, match="a C-GET is open"):
                    await anext(get(association))
        assert len([each async for each in get(association)]) == 1
        await assert_usable(association)


@pytest.mark.parametrize("how", ["abort", "reset"])
async def test_the_peer_goes_in_the_middle_of_an_instance(tmp_path: Path, how: str) -> None:
    async def script(peer: RawPeer) -> None:
        await asked_to_get(peer)
        peer.send(instance(1, 1, 100_000)[:50_000])
        await taken.wait()
        if how == "abort":
            peer.send(ABORT_BY_USER)
        else:
            peer.reset()

    taken = asyncio.Event()
    async with asked(script) as association:
        instances = get(association)
        each = await anext(instances)
        taken.set()
        with pytest.raises(AssociationAborted):
            await each.save(tmp_path)
        assert await kept(tmp_path) == []
        with pytest.raises(AssociationAborted):
            await anext(instances)
        assert instances.is_over


async def test_instances_that_nobody_has_taken_when_the_peer_goes_are_not_given_any_more() -> None:
    async def script(peer: RawPeer) -> None:
        await asked_to_get(peer)
        peer.send(instance(1, 1), instance(2, 2))
        await taken.wait()
        peer.send(ABORT_BY_USER)

    taken = asyncio.Event()
    async with asked(script, window=(1, 2)) as association:
        instances = get(association)
        await anext(instances)
        taken.set()
        await association.wait_closed()
        with pytest.raises(AssociationAborted):
            await anext(instances)


async def test_a_peer_that_stalls_in_an_instance_that_was_left_costs_the_association() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1, 1, 100_000)[:50_000])
        await cancelled(peer, number)
        assert await peer.pdu() == ABORT_BY_USER

    async with asked(script, timeouts=Timeouts(cancel=SHORT, idle=None)) as association:
        async with get(association) as instances:
            async for _ in instances:
                break
        assert not association.is_open


# Deadlines.


async def test_each_instance_gives_the_next_response_time() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        for each in range(1, 5):
            await asyncio.wait([over], timeout=SHORT)
            peer.send(instance(each, each))
            assert await stored(peer) == 0
        peer.send(counted(CGetRSP, number, 0, (None, 4, 0, 0)))

    over = asyncio.get_running_loop().create_future()
    async with asked(script, timeouts=Timeouts(pending=2 * SHORT, idle=None)) as association:
        assert len([each async for each in get(association)]) == 4
    over.cancel()


async def test_a_consumer_may_take_its_time_for_an_instance() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1))
        assert await stored(peer) == 0
        peer.send(counted(CGetRSP, number, 0, (None, 1, 0, 0)))

    over = asyncio.get_running_loop().create_future()
    async with asked(script, timeouts=Timeouts(pending=SHORT, idle=None, stall=SHORT)) as association:
        async for each in get(association):
            await asyncio.wait([over], timeout=4 * SHORT)
            await each.read()
    over.cancel()


async def test_without_instances_and_responses_the_idle_deadline_comes() -> None:
    async def script(peer: RawPeer) -> None:
        await asked_to_get(peer)
        peer.send(instance(1))
        assert await stored(peer) == 0
        assert await peer.pdu() == ABORT_BY_USER

    async with asked(script, timeouts=Timeouts(pending=SHORT, idle=None)) as association:
        instances = get(association)
        await anext(instances)
        with pytest.raises(OperationTimeout, match="response"):
            await anext(instances)


async def test_all_of_a_retrieval_has_a_deadline_of_its_own() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_get(peer)
        peer.send(instance(1))
        assert await stored(peer) == 0
        await cancelled(peer, number)
        peer.send(counted(CGetRSP, number, 0xFE00))
        await echoed(peer)

    async with asked(script) as association:
        instances = get(association, total_timeout=SHORT)
        await anext(instances)
        with pytest.raises(OperationTimeout, match="total"):
            await anext(instances)
        await assert_usable(association)
