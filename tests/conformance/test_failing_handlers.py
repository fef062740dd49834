"""Handlers that fail, whatever they raise, or block: a status for who asked, and nothing for others to notice (T42)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiodicom import Operation, Server
from aiodicom.conformance import messages
from aiodicom.conformance.peer import Peer, association
from aiodicom.conformance.probe import Probe
from aiodicom.conformance.target import Target
from tests.conformance.hosting import LONG


@asynccontextmanager
async def failing(handler: Any, **options: Any) -> AsyncIterator[tuple[Target, Server]]:  # noqa: ANN401
    """A server with that handler of C-STORE."""
    server = Server("SCP", port=0, observers=(), **options)
    server.on_c_store(handler)
    async with server:
        yield Target(host="127.0.0.1", port=server.port, called="SCP", patience=LONG), server


async def store(peer: Peer, message_id: int) -> str:
    instance = messages.new_instance()
    await peer.say(messages.store(message_id, instance.uid, instance.data_set()))
    return str(await peer.message())


def overflow() -> None:
    overflow()


def exhaust() -> None:
    raise MemoryError


def fail() -> None:
    raise ValueError("of the handler's own")


def cancel() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("how", [fail, overflow, exhaust, cancel])
@pytest.mark.parametrize("is_read", [True, False], ids=["after the data set", "before the data set"])
@pytest.mark.parametrize("is_plain", [False, True], ids=["coroutine", "plain function"])
async def test_whatever_a_handler_raises(how: Any, is_read: bool, is_plain: bool) -> None:  # noqa: ANN401
    async def coroutine(operation: Operation) -> None:
        if is_read:
            await operation.read()
        how()

    def plain(operation: Any) -> None:  # noqa: ANN401
        if is_read:
            operation.read()
        how()

    async with failing(plain if is_plain else coroutine) as (target, server), Probe(target) as probe:
        async with probe.watching(), association(target) as peer:
            assert await store(peer, 1) == "C-STORE-RSP 0x0110"
            await peer.say(messages.echo(2))
            assert str(await peer.message()) == "C-ECHO-RSP 0x0000"
            assert await store(peer, 3) == "C-STORE-RSP 0x0110"
            await peer.say(messages.RELEASE_RQ)
            assert await peer.heard() == "A-RELEASE-RP, closed"
        assert probe.failure == ""
        assert [len(each.operations) for each in server.associations] == [0]


async def test_plain_functions_that_block_block_nobody_else() -> None:
    """As many as there are worker threads; they go on when others were served meanwhile, however long that takes."""
    go = threading.Event()
    threads = 2

    def block(_operation: Any) -> None:  # noqa: ANN401
        begun.release()
        assert go.wait(LONG)

    begun = threading.Semaphore(0)
    instance = messages.new_instance()
    request = messages.store(1, instance.uid, instance.data_set())
    async with (
        failing(block, worker_threads=threads) as (target, _),
        Probe(target) as probe,
        association(target) as one,
        association(target) as another,
    ):
        try:
            async with probe.watching():
                for peer in (one, another):
                    await peer.say(request)
                for _ in range(threads):
                    assert await asyncio.to_thread(begun.acquire, timeout=LONG)
                for number in range(2, 50):
                    await one.say(messages.echo(number))
                    assert str(await one.message()) == "C-ECHO-RSP 0x0000"
            assert probe.failure == ""
        finally:
            go.set()
        for peer in (one, another):
            assert str(await peer.message()) == "C-STORE-RSP 0x0000"
