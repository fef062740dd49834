"""Sending many instances: an outcome for each, limits, endless sources, and loops that are left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from aiodicom import (
    AssociationAborted,
    Category,
    DimseError,
    EncodedInstance,
    InvalidInstance,
    LocalProtocolError,
    Operation,
    Timeouts,
    open_instance,
)
from aiodicom.remote import delivery as delivery_module
from aiodicom.remote.delivery import LOOK_AHEAD
from aiodicom.remote.parcels import BATCH
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, storage_sop_classes
from tests.loopback import (
    CANARY,
    SHORT,
    Recorder,
    ct_instance,
    data_set,
    instance_uid,
    serving,
    until,
)
from tests.remote.peers import Keeper, expected, instances, keep_nothing, opened, remote_of, uids
from tests.studies import make_instance

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


# Outcomes.


async def test_whatever_can_be_stored_is_sent_and_has_one_outcome(tmp_path: Path) -> None:
    dataset = make_instance("odd/other", "CR", 1, 1)
    paths = [tmp_path / name for name in ("a.dcm", "b.dcm", "broken.dcm")]
    for path, number in zip(paths, (1, 2, 3), strict=True):
        make_instance("jane/abdomen", "CT", 1, number).save_as(path, enforce_file_format=True)
    paths[2].write_bytes(paths[2].read_bytes()[:-7])
    given: list[Any] = [str(paths[0]), open_instance(paths[1]), paths[2], tmp_path / "absent", dataset, ct_instance(5)]
    keeper = Keeper()
    async with serving(keeper) as server, remote_of(server) as remote:
        outcomes = {id(outcome.instance): outcome async for outcome in remote.send(given)}
    assert list(outcomes) != []
    found = [outcomes[id(each)] for each in given]
    assert [outcome.is_stored for outcome in found] == [True, True, False, False, True, True]
    assert [outcome.path for outcome in found] == [*paths, tmp_path / "absent", None, None]
    assert [type(outcome.error) for outcome in found[2:4]] == [InvalidInstance, InvalidInstance]
    assert [outcome.status for outcome in found] == [0, 0, None, None, 0, 0]
    assert [outcome.attempts for outcome in found] == [1, 1, 0, 0, 1, 1]
    assert [outcome.category for outcome in found[1:3]] == [Category.SUCCESS, Category.FAILURE]
    assert set(keeper.received.values()) == {1}
    assert len(keeper.received) == 4


async def test_one_instance_will_do(tmp_path: Path) -> None:
    dataset = make_instance("odd/other", "CR", 1, 1)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    async with serving(keep_nothing) as server, remote_of(server) as remote:
        for one in (str(tmp_path / "a.dcm"), tmp_path / "a.dcm", open_instance(tmp_path / "a.dcm"), dataset):
            (outcome,) = await remote.send(one).all()
            assert outcome.is_stored
        assert await remote.send([]).all() == []


async def test_warnings_mean_stored() -> None:
    async with serving(Keeper(0xB000)) as server, remote_of(server) as remote:
        (outcome,) = await remote.send(ct_instance()).all()
    assert (outcome.category, outcome.is_stored, outcome.attempts) == (Category.WARNING, True, 1)


async def test_no_outcome_shows_patient_data() -> None:
    dataset = make_instance("odd/other", "CR", 1, 1)
    dataset.PatientName = CANARY
    async with serving(Keeper(0xC000)) as server, remote_of(server) as remote:
        delivery = remote.send([dataset, Dataset()])
        assert repr(delivery) == "<Delivery new>"
        outcomes = await delivery.all()
    words = " ".join(map(repr, outcomes))
    assert CANARY not in words
    assert f"<Outcome of {dataset.SOPInstanceUID}: <Status 0xC000" in words
    assert "<Outcome of Dataset: InvalidInstance" in words
    assert repr(delivery) == "<Delivery left>"


async def test_several_associations_work_at_a_time() -> None:
    met: set[object] = set()
    all_there = asyncio.Event()

    async def meet(operation: Operation) -> None:
        met.add(operation.exchange)
        if len(met) == 3:
            all_there.set()
        await all_there.wait()

    async with serving(meet) as server, remote_of(server, maximum_associations=5) as remote:
        outcomes = await remote.send(instances(30), associations=3).all()
        assert len(server.associations) == 3
    assert uids(outcomes) == expected(30)
    assert all(outcome.is_stored for outcome in outcomes)


async def test_a_window_is_used() -> None:
    at_work, most = 0, 0
    full = asyncio.Event()

    async def count(operation: Operation) -> None:
        nonlocal at_work, most
        await operation.read()
        at_work += 1
        most = max(most, at_work)
        if at_work == 4:
            full.set()
        await full.wait()
        at_work -= 1

    async with serving(count) as server, remote_of(server) as remote:
        outcomes = await remote.send(instances(20), associations=1, window=4).all()
        assert len(server.associations) == 1
    assert most == 4
    assert uids(outcomes) == expected(20)


@pytest.mark.parametrize("is_list", [True, False])
async def test_more_contexts_than_an_association_has(is_list: bool) -> None:
    classes = storage_sop_classes()[:90]
    given = [
        EncodedInstance(sop_class, instance_uid(number), syntax, data_set(number, sop_class=sop_class))
        for number, (sop_class, syntax) in enumerate(
            (sop_class, syntax) for sop_class in classes for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, JPEG_BASELINE)
        )
    ]
    keeper, recorder = Keeper(), Recorder()
    shuffled = [given[index * 7 % 180] for index in range(180)]
    observed = serving(keeper, observers=(recorder,))
    async with observed as server, remote_of(server, maximum_associations=1) as remote:
        outcomes = await remote.send(shuffled if is_list else iter(shuffled)).all()
    assert uids(outcomes) == expected(180)
    assert all(outcome.is_stored for outcome in outcomes)
    assert len(keeper.received) == 180
    # Of a list it is known what is to come. Else an association is used as long as something is ready for it.
    assert opened(recorder) <= (9 if is_list else 36)


# Sources.


async def test_an_endless_source_is_not_taken_beyond_what_is_needed() -> None:
    taken = 0
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[EncodedInstance]:
        nonlocal taken
        try:
            while True:
                taken += 1
                yield ct_instance(taken)
        finally:
            closed.set()

    async with serving(keep_nothing) as server, remote_of(server) as remote:
        async with remote.send(endless()) as delivery:
            for count in range(1, 200):
                assert (await anext(delivery)).is_stored
                assert taken <= count + LOOK_AHEAD + 1
        await closed.wait()


async def test_a_plain_endless_iterator_likewise() -> None:
    taken = 0

    def endless() -> Iterator[EncodedInstance]:
        nonlocal taken
        while True:
            taken += 1
            yield ct_instance(taken)

    async with serving(keep_nothing) as server, remote_of(server) as remote, remote.send(endless()) as delivery:
        for count in range(1, 200):
            assert (await anext(delivery)).is_stored
            assert taken <= count + LOOK_AHEAD + BATCH


async def test_what_trickles_in_goes_out_at_once_and_holds_nothing_meanwhile() -> None:
    more = asyncio.Queue[EncodedInstance | None]()

    async def trickle() -> AsyncIterator[EncodedInstance]:
        while (instance := await more.get()) is not None:
            yield instance

    recorder = Recorder()
    async with serving(keep_nothing, observers=(recorder,)) as server:
        async with remote_of(server, maximum_associations=1) as remote, remote.send(trickle()) as delivery:
            for number in range(3):
                more.put_nowait(ct_instance(number))
                assert (await anext(delivery)).sop_instance_uid == instance_uid(number)
                await until(lambda: "1 idle" in repr(remote))
                await remote.echo()
            more.put_nowait(None)
            with pytest.raises(StopAsyncIteration):
                await anext(delivery)
        assert opened(recorder) == 1


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_source_raises_is_raised_behind_the_outcomes(is_async: bool) -> None:
    def plain() -> Iterator[EncodedInstance]:
        yield from instances(3)
        raise KeyError("source")

    async def asynchronous() -> AsyncIterator[EncodedInstance]:
        for instance in plain():
            yield instance

    async with serving(keep_nothing) as server, remote_of(server) as remote:
        delivery = remote.send(asynchronous() if is_async else plain())
        assert uids([await anext(delivery) for _ in range(3)]) == expected(3)
        with pytest.raises(KeyError, match="source"):
            await anext(delivery)


# Leaving.


async def test_left_early_it_begins_nothing_more_and_finishes_what_is_on_its_way() -> None:
    go, begun = asyncio.Event(), asyncio.Event()
    received: list[str] = []

    async def hold(operation: Operation) -> None:
        await operation.read()
        received.append(operation.sop_instance_uid)
        if len(received) == 2:
            begun.set()
            await go.wait()

    async with serving(hold) as server, remote_of(server) as remote:
        async with remote.send(instances(50), associations=1) as delivery:
            async for _ in delivery:
                await begun.wait()
                asyncio.get_running_loop().call_soon(go.set)
                break
        assert len(received) == 2
        assert [outcome.sop_instance_uid for outcome in delivery.unreported] == received[1:]
        with pytest.raises(StopAsyncIteration):
            await anext(delivery)
        await remote.echo()
        assert len(server.associations) == 1  # nothing was aborted


async def test_what_does_not_come_to_its_end_is_cut() -> None:
    begun = asyncio.Event()

    async def hold(_operation: Operation) -> None:
        begun.set()
        await asyncio.Event().wait()

    recorder = Recorder()
    options = {"timeouts": Timeouts(cancel=SHORT, idle=None)}
    async with serving(hold, observers=(recorder,)) as server, remote_of(server, **options) as remote:
        async with remote.send(instances(5), associations=1) as delivery:
            await begun.wait()
        assert delivery.unreported == ()
        await recorder.until(lambda: recorder.closed)
    assert isinstance(recorder.closed[0], AssociationAborted)


async def test_a_break_without_a_block_stops_it_too() -> None:
    received = 0

    async def count(_operation: Operation) -> None:
        nonlocal received
        received += 1

    def endless() -> Iterator[EncodedInstance]:
        number = 0
        while True:
            number += 1
            yield ct_instance(number)

    async with serving(count) as server, remote_of(server) as remote:
        async for _ in remote.send(endless()):
            break
        gc.collect()
        await until(lambda: not remote._shipments)
        assert 1 <= received <= LOOK_AHEAD + 1


async def test_a_cancelled_consumer_stops_it() -> None:
    stalled = asyncio.Event()

    async def stall(_operation: Operation) -> None:
        stalled.set()
        await asyncio.Event().wait()

    async def consume() -> None:
        async with remote.send(instances(5)) as delivery:
            async for _ in delivery:
                pass

    async with serving(stall) as server, remote_of(server, timeouts=Timeouts(cancel=SHORT, idle=None)) as remote:
        task = asyncio.create_task(consume())
        await stalled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not remote._shipments


async def test_closing_the_remote_ends_it_with_an_error() -> None:
    async with serving(keep_nothing) as server:
        remote = remote_of(server)
        source = (ct_instance(number) for number in range(10_000_000))
        delivery = remote.send(source)
        await anext(delivery)
        await remote.aclose()
        with pytest.raises(LocalProtocolError, match="closed"):
            async for _ in delivery:
                pass
        await delivery.aclose()


async def test_two_tasks_do_not_share_it() -> None:
    go = asyncio.Event()

    async def hold(_operation: Operation) -> None:
        await go.wait()

    async with serving(hold) as server, remote_of(server) as remote, remote.send(instances(2)) as delivery:
        task = asyncio.ensure_future(anext(delivery))
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="two tasks"):
            await anext(delivery)
        go.set()
        assert (await task).is_stored


@pytest.mark.parametrize("options", [{"window": 0}, {"associations": -1}, {"retries": -1}], ids=str)
async def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    async with serving() as server, remote_of(server) as remote:
        with pytest.raises(LocalProtocolError):
            remote.send([], **options)


# Fairness.


async def test_a_consumer_may_ask_other_things_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "LONGEST_LEASE", 0)
    async with serving(keep_nothing) as server, remote_of(server, maximum_associations=1) as remote:
        count = 0
        async for outcome in remote.send(instances(100)):
            assert outcome.is_stored
            if count % 10 == 0:
                await remote.echo()
            count += 1
        assert count == 100


async def test_two_deliveries_share_one_association(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "LONGEST_LEASE", 0)
    recorder = Recorder()
    observed = serving(keep_nothing, observers=(recorder,))
    async with observed as server, remote_of(server, maximum_associations=1) as remote:
        halves = await asyncio.gather(*(remote.send(half).all() for half in (instances(50), instances(50))))
    assert [uids(half) for half in halves] == [expected(50)] * 2
    assert opened(recorder) == 1


async def test_statuses_of_a_handler_that_raises() -> None:
    async def refuse(_operation: Operation) -> None:
        raise DimseError(0xA900, "no")

    async with serving(refuse) as server, remote_of(server) as remote:
        (outcome,) = await remote.send(ct_instance()).all()
    assert outcome.response is not None
    assert (outcome.status, outcome.response.error_comment) == (0xA900, "no")
