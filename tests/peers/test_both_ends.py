"""aiodicom at both ends, for what no other peer has on both: above all the operations window (PS3.7 §D.3.3.3)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiodicom import (
    Category,
    EncodedInstance,
    InstanceFile,
    Operation,
    ProposedContext,
    Server,
    Status,
    associate,
    contexts_for,
    plan_associations,
)
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.peers.archive import check_file_meta, keep_in
from tests.peers.comparing import encoded, rounds, take_all, well_formed_instances
from tests.peers.longest_sent import LongestSent
from tests.peers.synthetic import deflated_without_padding, element, many_sop_classes, sop_common

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CONTEXTS = [ProposedContext(SECONDARY_CAPTURE)]
COUNT = 8


def instance(number: int) -> EncodedInstance:
    """A small instance, with that number as the last component of its SOP Instance UID."""
    uid = f"1.2.3.{number}"
    data = sop_common(SECONDARY_CAPTURE, uid) + element(0x0010, 0x0020, b"LO", f"PATIENT {number}")
    return EncodedInstance(SECONDARY_CAPTURE, uid, EXPLICIT_VR_LITTLE_ENDIAN, data)


def number_of(operation: Operation) -> int:
    return int(operation.sop_instance_uid.rpartition(".")[2])


async def test_operations_end_in_another_order_than_they_began() -> None:
    server = Server(port=0, observers=())
    begun, all_begun = [], asyncio.Event()
    may_end = [asyncio.Event() for _ in range(COUNT)]
    received = {}

    @server.on_c_store
    async def hold(operation: Operation) -> Status:
        number = number_of(operation)
        received[number] = await operation.read()
        begun.append(number)
        if len(begun) == COUNT:
            all_begun.set()
        await may_end[number].wait()
        return Status(0xB000 + number)

    async with (
        server,
        associate(
            "127.0.0.1", server.port, contexts=CONTEXTS, operations_window=(COUNT, 1), observers=()
        ) as association,
    ):
        assert association.terms.maximum_invoked == COUNT
        stores = [asyncio.create_task(association.c_store(instance(number))) for number in range(COUNT)]
        await all_begun.wait()
        for number in reversed(range(COUNT)):
            may_end[number].set()
            response = await stores[number]
            assert (response.status, response.affected_sop_instance_uid) == (0xB000 + number, f"1.2.3.{number}")
            assert not any(store.done() for store in stores[:number])
    assert received == {number: instance(number).data for number in range(COUNT)}


async def test_no_more_operations_are_open_than_the_window_allows() -> None:
    server = Server(port=0, maximum_operations=3, observers=())
    open_now: set[int] = set()
    most = 0
    full = asyncio.Event()

    @server.on_c_store
    async def count(operation: Operation) -> None:
        nonlocal most
        open_now.add(number_of(operation))
        most = max(most, len(open_now))
        if len(open_now) == 3:
            full.set()
        await full.wait()
        await operation.read()
        open_now.remove(number_of(operation))

    async with (
        server,
        associate("127.0.0.1", server.port, contexts=CONTEXTS, operations_window=(0, 1), observers=()) as association,
    ):
        assert association.terms.maximum_invoked == 3  # we asked for no limit
        responses = await asyncio.gather(*(association.c_store(instance(number)) for number in range(4 * COUNT)))
    assert {int(response.status) for response in responses} == {0x0000}
    assert most == 3


async def test_without_a_window_operations_follow_each_other() -> None:
    server = Server(port=0, observers=())
    order: list[str] = []

    @server.on_c_store
    async def note(operation: Operation) -> None:
        order.append(f"{number_of(operation)} begins")
        await operation.read()
        order.append(f"{number_of(operation)} ends")

    async with (
        server,
        associate("127.0.0.1", server.port, contexts=CONTEXTS, observers=()) as association,
    ):
        assert association.terms.maximum_invoked == 1
        await asyncio.gather(*(association.c_store(instance(number)) for number in range(COUNT)))
    assert order == [f"{number} {what}" for number in range(COUNT) for what in ("begins", "ends")]


async def send_and_compare(instances: list[InstanceFile], folder: Path) -> None:
    """Store the instances on as many associations as they need; then compare what is kept."""
    async with keep_in(folder, Server("ARCHIVE", port=0, observers=())) as server:
        for plan in plan_associations(instances):
            async with associate(
                "127.0.0.1", server.port, calling_ae_title="SENDER", contexts=plan.contexts, observers=()
            ) as association:
                assert len(association.contexts) == len(plan.contexts)
                for instance in plan.files:
                    response = await association.c_store(instance.path)
                    assert response.status.category is Category.SUCCESS, (instance.path.name, response)
    check_all(instances, folder)


def check_all(instances: list[InstanceFile], folder: Path) -> None:
    """Assert that the folder holds the instances, byte for byte; and remove them."""
    kept = take_all(folder.iterdir())
    for instance in instances:
        file = kept[instance.sop_instance_uid]
        assert encoded(file) == encoded(instance.path), instance.path.name
        check_file_meta(file, instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid, "SENDER")


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_every_instance_arrives_byte_for_byte(tmp_path: Path) -> None:
    for share in rounds(well_formed_instances()):
        await send_and_compare(list(share.values()), tmp_path / "kept")


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_more_contexts_than_an_association_has_are_split(tmp_path: Path) -> None:
    instances = many_sop_classes(tmp_path / "many")
    assert len(plan_associations(instances)) == 2
    await send_and_compare(instances, tmp_path / "kept")


async def test_a_long_deflated_data_set_gets_the_padding_that_its_file_lacks(tmp_path: Path) -> None:
    await send_and_compare([deflated_without_padding(tmp_path / "deflated.dcm")], tmp_path / "kept")


@pytest.mark.parametrize("length", [4_096, 16_384, 131_072, 0])
async def test_no_longer_pdu_is_sent_than_the_other_takes(tmp_path: Path, length: int) -> None:
    instance, sent, folder = deflated_without_padding(tmp_path / "long.dcm"), LongestSent(), tmp_path / "kept"
    async with (
        keep_in(folder, Server(port=0, maximum_length=length, observers=())) as server,
        associate(
            "127.0.0.1",
            server.port,
            contexts=contexts_for([instance.path]),
            maximum_length=length,
            observers=[sent],
        ) as association,
    ):
        assert association.terms.maximum_length == length
        await association.c_store(instance.path)
    assert sent.length == length or (length == 0 and sent.length > 131_072)
    [kept] = take_all(folder.iterdir()).values()
    assert encoded(kept) == encoded(instance.path)
