"""Retrieving by C-GET, or by C-MOVE to ourselves: which of them, and instances that come to whom they belong."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydicom import dcmread

from aiodicom import (
    AssociationAborted,
    Conclusion,
    ConnectionFailed,
    DimseError,
    EncodedInstance,
    Level,
    LocalProtocolError,
    NoAcceptedContext,
    Observer,
    Operation,
    OperationTimeout,
    ProposedContext,
    RemoteAE,
    Server,
    associate,
    get_service,
)
from aiodicom.association import Association
from aiodicom.dimse.commands import CCancelRQ, Command
from aiodicom.remote import retrieval as retrieval_module
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_GET
from tests.loopback import CT, PATIENCE, SHORT, data_set, instance_uid, serving, until
from tests.peers.process import free_port
from tests.remote.peers import (
    ONE,
    OTHER,
    STUDIES,
    Move,
    done,
    instances_of,
    keep_nothing,
    listening,
    move_all,
    moving,
    numbers,
    pacs,
    remote_of,
    scripted_move,
    stored_instances,
    study,
    take_all,
    turns,
)

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


class Cancels(Observer):
    """Counts the C-CANCELs that a server gets."""

    def __init__(self) -> None:
        self.count = 0

    def message_received(self, _association: Association, command: Command) -> None:
        self.count += isinstance(command, CCancelRQ)


# Which way.


async def test_by_c_get_where_the_peer_has_it() -> None:
    async with moving(gets=True) as (remote, _):
        retrieval = study(remote)
        assert await take_all(retrieval) == [11, 12, 13]
        assert not retrieval.is_move
        assert (retrieval.status, retrieval.progress.completed) == (0, 3)


async def test_else_by_c_move() -> None:
    async with moving() as (remote, _):
        retrieval = study(remote)
        assert await take_all(retrieval) == [11, 12, 13]
        assert retrieval.is_move
        assert (retrieval.status, retrieval.progress.completed, retrieval.failed_uids) == (0, 3, ())
        assert repr(retrieval) == "<Retrieval <Status 0x0000 Success>>"


async def test_by_c_move_where_that_is_preferred() -> None:
    async with moving(gets=True, prefers="move") as (remote, _):
        retrieval = study(remote)
        assert await take_all(retrieval) == [11, 12, 13]
        assert retrieval.is_move


async def test_an_association_that_is_not_to_be_had_does_not_keep_the_next_one_waiting() -> None:
    async with (
        asyncio.timeout(PATIENCE),
        listening() as listener,
        RemoteAE("127.0.0.1", free_port(), listener=listener, prefers="move", observers=()) as remote,
    ):
        for _ in range(2):
            with pytest.raises(ConnectionFailed):
                await take_all(study(remote))


async def test_preferred_and_not_there_it_is_c_get() -> None:
    async with (
        listening() as listener,
        pacs() as server,
        remote_of(server, listener=listener, prefers="move") as remote,
    ):
        retrieval = study(remote)
        assert await take_all(retrieval) == [11, 12, 13]
        assert not retrieval.is_move


async def test_that_a_peer_has_no_c_get_is_remembered() -> None:
    proposed: list[bool] = []

    class Proposals(Observer):
        def association_opened(self, association: Association) -> None:
            syntaxes = {item.abstract_syntax for item in association.terms.proposed}
            proposed.append(CT in syntaxes)

    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(listening())
        # It has C-GET, says the negotiation; but nobody may store on the same association.
        get = get_service(stored_instances, sop_classes=())
        server = await stack.enter_async_context(pacs(get, scripted_move(listener), gets=False))
        remote = await stack.enter_async_context(remote_of(server, listener=listener, observers=(Proposals(),)))
        for _ in range(3):
            assert await take_all(study(remote)) == [11, 12, 13]
    assert proposed == [False, True]


async def test_without_a_listener_the_error_says_what_helps() -> None:
    async with pacs(gets=False) as server, remote_of(server) as remote:
        with pytest.raises(NoAcceptedContext, match="listen_port=") as caught:
            await take_all(study(remote))
        assert caught.value.sop_class == STUDY_ROOT_GET
        await remote.echo()


async def test_get_is_c_get_alone() -> None:
    async with moving() as (remote, _):
        with pytest.raises(NoAcceptedContext):
            await remote.get(level="study", StudyInstanceUID=ONE).__anext__()
    async with pacs() as server, remote_of(server) as remote:
        async with remote.get(level="study", StudyInstanceUID=OTHER) as instances:
            uids = [instance.sop_instance_uid async for instance in instances]
        assert numbers(uids) == [21, 22, 23]


async def test_move_tells_its_progress() -> None:
    async def script(move: Move) -> Conclusion:
        await move.tell(completed=0)
        return await move_all(move)

    async with serving(keep_nothing) as destination, moving(script, listener=destination) as (remote, _):
        movement = remote.move(level="study", StudyInstanceUID=ONE, destination="SCP")
        assert [progress.completed async for progress in movement] == [0, 3]
        assert movement.status == 0
        await remote.echo()
        assert "1 of at most" in repr(remote)


@pytest.mark.parametrize("what", [{"level": "study"}, {"StudyInstanceUID": ONE, "model": "worklist"}], ids=str)
async def test_what_cannot_be_asked_is_said_at_once(what: dict[str, str]) -> None:
    async with pacs() as server, remote_of(server) as remote:
        with pytest.raises(LocalProtocolError):
            remote.retrieve(**what)  # type: ignore[arg-type]


# The contexts of a C-GET.


async def proposed_for(remote: RemoteAE, server: Server, **keys: Any) -> set[str]:  # noqa: ANN401
    """The storage SOP classes that are proposed for a retrieval."""
    async with remote.retrieve(**keys):
        syntaxes = {item.abstract_syntax for each in server.associations for item in each.terms.proposed}
    return {syntax for syntax in syntaxes if syntax.startswith("1.2.840.10008.5.1.4.1.1.")}


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ({"level": "study", "StudyInstanceUID": ONE}, Level.STUDY),
        ({"level": "series", "StudyInstanceUID": ONE, "SeriesInstanceUID": "1.2"}, Level.STUDY),
        ({"level": "image", "StudyInstanceUID": ONE, "SOPInstanceUID": "1.2"}, Level.IMAGE),
        ({"level": "patient", "PatientID": "1"}, Level.STUDY),
        ({"level": "series", "SeriesInstanceUID": "1.2"}, None),
    ],
    ids=str,
)
async def test_the_peer_is_asked_for_the_sop_classes(keys: dict[str, str], asked: Level | None) -> None:
    questions: list[str] = []

    async def find(operation: Operation) -> AsyncIterator[dict[str, str]]:
        questions.append(operation.identifier.QueryRetrieveLevel)
        assert "PatientName" not in operation.identifier
        yield {"SOPClassesInStudy": CT, "SOPClassUID": CT}

    async def nothing(_operation: Operation) -> list[Any]:
        await asyncio.Event().wait()
        return []

    async with pacs(gets=False, finds=False) as server:
        for model in ("study", "patient"):
            server.on_c_find(model)(find)
            server.on_c_get(model)(nothing)
        async with remote_of(server) as remote:
            classes = await proposed_for(remote, server, **keys)
    assert questions == ([asked] if asked else [])
    assert (classes == {CT}) is (asked is not None)


@pytest.mark.parametrize("answer", [{}, {"SOPClassesInStudy": ""}, DimseError(0xC000, "no"), None], ids=str)
async def test_who_does_not_tell_is_proposed_what_is_usual(answer: dict[str, str] | DimseError | None) -> None:
    async def find(operation: Operation) -> AsyncIterator[dict[str, str]]:
        if isinstance(answer, DimseError):
            raise answer
        if answer is None:
            assert isinstance(operation.exchange, Association)
            await operation.exchange.abort()
        yield answer or {}

    async with pacs(finds=False) as server:
        server.on_c_find()(find)
        async with remote_of(server) as remote:
            assert len(await proposed_for(remote, server, level="study", StudyInstanceUID=ONE)) > 60


async def test_compressed_instances_come_as_they_are_stored() -> None:
    jpeg = EncodedInstance(CT, instance_uid(1), JPEG_BASELINE, data_set(1))

    async def stored(_operation: Operation) -> list[EncodedInstance]:
        return [jpeg]

    async with pacs(get_service(stored), gets=False) as server, remote_of(server) as remote, study(remote) as retrieval:
        assert [instance.transfer_syntax_uid async for instance in retrieval] == [JPEG_BASELINE]


# The instances of a C-MOVE.


async def test_each_is_there_at_three_heights(tmp_path: Path) -> None:
    async with moving() as (remote, _), study(remote) as retrieval:
        saved = await (await anext(retrieval)).save(tmp_path)
        streamed = b"".join([chunk async for chunk in (await anext(retrieval)).stream()])
        decoded = await (await anext(retrieval)).dataset()
        with pytest.raises(StopAsyncIteration):
            await anext(retrieval)
    assert dcmread(saved).SOPInstanceUID == instance_uid(11)
    assert streamed == data_set(12)
    assert decoded.SOPInstanceUID == instance_uid(13)


async def test_it_is_answered_when_the_next_one_is_asked_for() -> None:
    answered: list[int] = []

    async def script(move: Move) -> Conclusion:
        for instance in instances_of(move.study):
            await move.store(instance)
            answered.append(numbers([instance.sop_instance_uid])[0])
        return done(3)

    async with moving(script) as (remote, listener), study(remote) as retrieval:
        await anext(retrieval)
        await until(lambda: listener.associations and listener.associations[0].operations)
        for _ in range(20):
            await asyncio.sleep(0)
        assert answered == []
        await anext(retrieval)
        assert answered == [11]


async def test_two_at_a_time_do_not_mix_and_the_slow_one_does_not_delay_the_quick_one() -> None:
    async with moving() as (remote, _), study(remote, ONE) as slow:
        held = await anext(slow)
        assert await take_all(study(remote, OTHER)) == [21, 22, 23]
        assert await take_all(study(remote, OTHER)) == [21, 22, 23]
        rest = [await held.read()] + [await instance.read() async for instance in slow]
    assert rest == [data_set(number) for number in STUDIES[ONE]]


async def test_many_at_a_time() -> None:
    async with moving(maximum_associations=8) as (remote, listener):
        found = await asyncio.gather(*(take_all(study(remote, uid)) for uid in [ONE, OTHER] * 10))
        assert found == [list(STUDIES[ONE]), list(STUDIES[OTHER])] * 10
        await until(lambda: not listener.associations)


# Leaving.


@pytest.mark.parametrize("by", ["break", "drop", "exception", "cancellation"])
async def test_left_early_the_c_move_is_cancelled_and_the_rest_refused(by: str) -> None:
    statuses: list[int] = []
    cancels = Cancels()

    async def store_all(move: Move) -> None:
        statuses.extend([(await move.store(instance)).status for instance in instances_of(move.study)])

    async def script(move: Move) -> Conclusion:
        storing = asyncio.create_task(store_all(move))
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            await storing  # it does not care about the C-CANCEL
        return done(0, failed=3, status=0xFE00)

    async def leave(remote: RemoteAE) -> None:
        retrieval = study(remote)
        if by == "drop":
            async for _ in retrieval:
                break
            return
        async with retrieval:
            async for _ in retrieval:
                if by == "break":
                    break
                if by == "exception":
                    raise KeyError
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)

    async with moving(script, observer=cancels) as (remote, _):
        task = asyncio.create_task(leave(remote))
        await asyncio.wait([task])
        assert task.cancelled() if by == "cancellation" else bool(task.exception()) is (by == "exception")
        del task
        gc.collect()
        await until(lambda: "1 of at most 4 associations, 1 idle" in repr(remote))
        assert cancels.count == 1
        assert not remote._landing._reception._expected  # type: ignore[union-attr]
        await remote.echo()
    assert statuses == [0xA700] * 3


async def test_one_that_is_left_does_not_disturb_another() -> None:
    async with moving() as (remote, _), study(remote, OTHER) as other:
        first = await (await anext(other)).read()
        async with study(remote, ONE) as left:
            await anext(left)
        assert [first] + [await instance.read() async for instance in other] == [
            data_set(number) for number in STUDIES[OTHER]
        ]


@pytest.mark.parametrize("way", ["get", "move"])
async def test_cancelled_at_every_step_it_leaks_nothing(way: str) -> None:
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(listening())
        server = await stack.enter_async_context(pacs(scripted_move(listener)))
        options = {"listener": listener, "prefers": way, "maximum_associations": 1}
        remote = await stack.enter_async_context(remote_of(server, **options))
        for count in turns():
            task = asyncio.create_task(take_all(study(remote)))
            for _ in range(count):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                assert task.result() == [11, 12, 13]
                break
            with anyio.fail_after(5):
                await remote.echo()
            assert not remote._landing._reception._expected  # type: ignore[union-attr]


# How it ends.


async def test_a_failure_is_raised() -> None:
    async def script(_move: Move) -> Conclusion:
        return Conclusion(0xA801, "Move destination ME is unknown")

    async with moving(script) as (remote, _):
        retrieval = study(remote)
        with pytest.raises(DimseError, match="unknown") as caught:
            await take_all(retrieval)
        assert (caught.value.status, retrieval.status) == (0xA801, 0xA801)
        await remote.echo()


async def test_what_the_consumer_refuses_is_a_failure_of_its_own() -> None:
    async def script(move: Move) -> Conclusion:
        statuses = [(await move.store(instance)).status for instance in instances_of(move.study)]
        return Conclusion(0xB000 if any(statuses) else 0)

    async with moving(script) as (remote, _), study(remote) as retrieval:
        async for instance in retrieval:
            instance.failure = DimseError(0xA700, "no room") if instance.sop_instance_uid.endswith("2") else None
        assert retrieval.status == 0xB000


async def test_the_final_response_may_come_before_the_last_instance_is_taken() -> None:
    async def script(move: Move) -> Conclusion:
        for instance in instances_of(move.study):
            asyncio.ensure_future(late(instance))  # noqa: RUF006 - it ends with the association
        await until(lambda: sum(len(each.operations) for each in listeners[0].associations) == 3)
        return done(3)

    async def late(instance: Any) -> None:  # noqa: ANN401
        contexts = (ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),)
        async with associate("127.0.0.1", listeners[0].port, contexts=contexts, observers=()) as association:
            await association.c_store(instance)

    listeners: list[Server] = []
    async with moving(script, names_originator=False) as (remote, listener):
        listeners.append(listener)
        assert sorted(await take_all(study(remote))) == [11, 12, 13]


async def test_instances_that_come_behind_the_final_response_are_waited_for() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def script(move: Move) -> Conclusion:
        tasks.append(asyncio.create_task(later(move.originator)))
        return done(3)

    async def later(originator: Any) -> None:  # noqa: ANN401
        contexts = (ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),)
        async with associate("127.0.0.1", listeners[0].port, contexts=contexts, observers=()) as association:
            for instance in instances_of(ONE):
                await association.c_store(instance, move_originator=originator)

    listeners: list[Server] = []
    async with moving(script) as (remote, listener):
        listeners.append(listener)
        assert await take_all(study(remote)) == [11, 12, 13]
        await asyncio.gather(*tasks)


async def test_those_that_never_come_are_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_module, "LATE", SHORT)

    async def script(move: Move) -> Conclusion:
        await move.store(instances_of(move.study)[0])
        return done(3)

    async with moving(script) as (remote, _):
        retrieval = study(remote)
        with pytest.raises(DimseError, match="2 of 3 instances are missing") as caught:
            await take_all(retrieval)
        assert (caught.value.status, retrieval.status) == (0xA702, 0)
        await remote.echo()


async def test_silence_is_not_waited_for_without_end() -> None:
    async def script(_move: Move) -> Conclusion:
        await asyncio.Event().wait()
        return done(0)

    async with moving(script) as (remote, _):
        with pytest.raises(OperationTimeout, match="neither a response to our C-MOVE nor an instance"):
            await take_all(study(remote, idle_timeout=SHORT))
        await remote.echo()


async def test_instances_and_a_slow_consumer_are_no_silence() -> None:
    idle = 1.0

    async def script(move: Move) -> Conclusion:
        for instance in instances_of(move.study):
            await asyncio.sleep(idle / 2)  # a slow peer, which sends no Pending response
            await move.store(instance)
        return done(3)

    async with moving(script) as (remote, _), study(remote, idle_timeout=idle) as retrieval:
        count = 0
        async for _ in retrieval:
            count += 1
            if count == 1:
                await asyncio.sleep(idle * 1.2)
        assert count == 3


async def test_all_of_it_may_have_a_deadline() -> None:
    async def script(_move: Move) -> Conclusion:
        await asyncio.Event().wait()
        return done(0)

    async with moving(script) as (remote, _):
        with pytest.raises(OperationTimeout) as caught:
            await take_all(study(remote, total_timeout=SHORT))
        assert caught.value.phase == "total"


async def test_the_end_of_the_association_ends_it() -> None:
    async def script(move: Move) -> Conclusion:
        await move.store(instances_of(move.study)[0])
        assert isinstance(move.operation.exchange, Association)
        await move.operation.exchange.abort()
        return done(0)

    async with moving(script) as (remote, _):
        with pytest.raises(AssociationAborted):
            await take_all(study(remote))
        await remote.echo()


async def test_a_sub_operation_whose_association_ends_is_not_given_any_more() -> None:
    lost = asyncio.Event()

    async def script(move: Move) -> Conclusion:
        first, second, third = instances_of(move.study)
        await move.store(first)
        contexts = (ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),)
        other = await associate("127.0.0.1", listeners[0].port, contexts=contexts, observers=())
        task = asyncio.create_task(other.c_store(second, move_originator=move.originator))
        await until(lambda: any(each.operations for each in listeners[0].associations))
        await other.abort()
        await asyncio.wait([task])
        assert isinstance(task.exception(), AssociationAborted)
        await until(lambda: len(listeners[0].associations) == 1)
        lost.set()
        await move.store(third)
        return done(2, failed=1, status=0xB000)

    listeners: list[Server] = []
    async with moving(script) as (remote, listener), study(remote) as retrieval:
        listeners.append(listener)
        first = await anext(retrieval)
        taken = [first.sop_instance_uid]
        del first
        # It is answered, and nothing is asked for while the next one comes and goes.
        retrieval._intake.take()
        await lost.wait()
        async for instance in retrieval:
            await instance.read()
            taken.append(instance.sop_instance_uid)
    assert numbers(taken) == [11, 13]


async def test_closing_ends_a_retrieval() -> None:
    async with listening() as listener, pacs(scripted_move(listener), gets=False) as server:
        remote = remote_of(server, listener=listener)
        retrieval = study(remote)
        await anext(retrieval)
        await remote.aclose()
        with pytest.raises(AssociationAborted):
            await take_all(retrieval)
