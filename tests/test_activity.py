"""What a server counts, and what it tells of its associations."""

from __future__ import annotations

import asyncio
from tempfile import TemporaryFile

import pytest

from aiodicom.activity import COUNTED, Activity, Counters, described
from aiodicom.errors import AssociationRejected, DimseError
from aiodicom.operation import Operation
from tests.loopback import connect, ct_instance, serving, until


async def test_what_happens_is_counted() -> None:
    counters = Counters(3)

    async def store(operation: Operation) -> None:
        if operation.sop_instance_uid.endswith(".2"):
            raise DimseError(0xA700)

    async with serving(store, observers=[Activity(counters, 1)], maximum_associations=2) as server:
        async with connect(server) as association, connect(server) as other:
            for number in (1, 2, 3):
                await association.c_store(ct_instance(number))
            with pytest.raises(AssociationRejected):
                await connect(server)
            assert counters.total("open") == 2
            await other.abort()
            await until(lambda: counters.total("aborted"))
        await until(lambda: counters.total("open") == 0)
    counted = counters.of(1)
    assert {name: counted[name] for name in COUNTED[:5]} == {
        "open": 0,
        "accepted": 2,
        "rejected": 1,
        "aborted": 1,
        "instances": 2,
    }
    assert counted["bytes_received"] > counted["bytes_sent"] > 0
    assert set(counters.of(0).values()) | set(counters.of(2).values()) == {0}


async def test_others_see_what_is_counted_in_memory_that_is_shared() -> None:
    with TemporaryFile() as file:
        one, other = Counters(2, file.fileno()), Counters(2, file.fileno())
        one.add(0, "instances", 5)
        other.add(1, "instances", 2)
        assert one.total("instances") == 7
        assert one.of(1)["instances"] == 2


async def test_associations_are_told_of() -> None:
    go_on = asyncio.Event()

    async def store(_operation: Operation) -> None:
        await go_on.wait()

    async with serving(store) as server, connect(server) as association:
        storing = asyncio.create_task(association.c_store(ct_instance()))
        await until(lambda: described(server.associations)[0]["operations"])
        [told] = described(server.associations)
        go_on.set()
        await storing
    assert (told["calling_ae_title"], told["called_ae_title"], told["host"]) == ("SCU", "SCP", "127.0.0.1")
    assert told["operations"] == ["C-STORE CT Image Storage"]
    assert told["bytes_received"] > 0
