"""Faults that were found by attacking the code from outside, each with the smallest attack that showed it."""

from __future__ import annotations

import array
import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aiodicom import (
    AssociationAborted,
    BlockingOperation,
    EncodedInstance,
    InvalidInstance,
    Operation,
    OperationTimeout,
    Server,
    Service,
    SupportedSyntax,
    Timeouts,
    open_instance,
)
from aiodicom.dimse.commands import CFindRQ
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND
from aiodicom.workers import Workers
from tests.inquiries import asking, cancel_pdu, find_pdu
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    Recorder,
    abort_pdu,
    assert_alive,
    connect,
    ct_instance,
    echo_pdu,
    fragment_pdu,
    instance_uid,
    raw_association,
    raw_connection,
    reject_pdu,
    request_pdu,
    serving,
    until,
)


async def keep(operation: Operation) -> None:
    await operation.read()


async def test_a_plain_function_that_returns_a_coroutine_is_no_success() -> None:
    def wrapped(operation: BlockingOperation) -> Any:  # noqa: ANN401
        return keep(operation.operation)

    async with serving(wrapped) as server, connect(server) as association:
        assert (await association.c_store(ct_instance())).status == 0x0110


async def test_a_peer_that_reads_nothing_is_not_written_at_without_end() -> None:
    async with serving(keep) as server, raw_association(server) as _:
        (association,) = server.associations
        connection = association._connection
        for _number in range(40):
            if not connection.is_writable:
                break
            connection.upper_layer._out.append(bytes(1024 * 1024))
            connection.flush()
        assert not connection.is_writable
        await association.abort()


@pytest.mark.parametrize("what_follows", [ABORT_BY_USER, fragment_pdu(b"x" * 100)])
async def test_a_request_taken_back_in_the_same_segment(what_follows: bytes) -> None:
    async with serving(keep) as server:
        async with raw_connection(server) as peer:
            peer.send(request_pdu() + what_follows)
            assert await peer.rest() in (b"", abort_pdu(2, 2))
        await assert_alive(server)


async def test_a_called_ae_title_that_is_none_is_rejected() -> None:
    strange = request_pdu(called="MUENCHENXX").replace(b"MUENCHENXX", b"M\xdcNCHEN   ")
    async with serving(keep) as server, raw_connection(server) as peer:
        peer.send(strange)
        assert await peer.pdu() == reject_pdu(1, 1, 7)


async def test_an_echo_and_an_abort_in_one_segment_are_the_peers_abort() -> None:
    recorder = Recorder()
    async with serving(keep, observers=(recorder,)) as server, raw_association(server) as peer:
        peer.send(echo_pdu() + ABORT_BY_USER)
        await recorder.until(lambda: recorder.closed)
        (error,) = recorder.closed
        assert isinstance(error, AssociationAborted)
        assert error.by_peer


async def test_a_cancel_in_the_same_segment_as_its_request_is_answered() -> None:
    async def never(_operation: Operation) -> None:
        await asyncio.Event().wait()

    service = Service(CFindRQ, never, {STUDY_ROOT_FIND: SupportedSyntax()})
    async with serving(services=[service]) as server, asking(server) as peer:
        peer.send(find_pdu(7) + cancel_pdu(7))
        assert (await peer.response()).status == 0xFE00
        assert server.associations[0]._window.buffered == 0


async def test_leaving_while_a_source_has_stalled_ends_in_time() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        yield b"y" * 1000
        await asyncio.Event().wait()

    async with serving(keep) as server:
        association = await connect(server, timeouts=Timeouts(send=0.05, release=0.05, idle=None))
        instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, stalled())
        sending = asyncio.create_task(association.c_store(instance))
        await until(lambda: server.associations and server.associations[0].operations)
        with pytest.raises(OperationTimeout):
            await association.release()
        with pytest.raises(AssociationAborted):
            await sending


async def test_an_abort_while_a_source_is_awaited_is_an_abort() -> None:
    more = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        yield b"y" * 1000
        await more.wait()
        yield b"z" * 1000

    async with serving(keep) as server:
        association = await connect(server)
        instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, slow())
        sending = asyncio.create_task(association.c_store(instance))
        await until(lambda: server.associations and server.associations[0].operations)
        await server.associations[0].abort()
        await until(lambda: not association.is_open)
        more.set()
        with pytest.raises(AssociationAborted):
            await sending


async def test_serving_that_is_cancelled_stops_the_server() -> None:
    server = Server("ARCHIVE", port=0)
    await server.start()
    forever = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever
    assert server.addresses == ()


async def test_a_view_of_other_items_than_bytes_is_sent_as_bytes() -> None:
    received: list[bytes] = []

    async def take(operation: Operation) -> None:
        received.append(await operation.read())

    words = array.array("H", range(2000))
    async with serving(take) as server, connect(server) as association:
        instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, memoryview(words))
        (await association.c_store(instance)).raise_for_status()
    assert received == [words.tobytes()]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInstance, match="no regular file"):
        open_instance(tmp_path / "pipe")


async def test_a_job_that_raises_stop_iteration_ends() -> None:
    def stop() -> None:
        raise StopIteration

    workers = Workers(1)
    try:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await workers(stop)
    finally:
        workers.stop()
