"""The asynchronous operations window (PS3.7 §D.3.3.3), with aiodicom at both ends: no other peer has it on both."""

from __future__ import annotations

import asyncio

from aiodicom import EncodedInstance, Operation, ProposedContext, Server, Status, associate
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.peers.synthetic import element, sop_common

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
