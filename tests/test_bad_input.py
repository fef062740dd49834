"""Hostile and broken peers: the right last words to each, nothing kept, nothing leaked, the others undisturbed."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise
from pathlib import Path

import pytest

from aiodicom import Association, DimseError, Operation, Server, Timeouts
from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CEchoRQ
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import PresentationContextRQ
from aiodicom.upper_layer.pdu import PDV
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    RELEASE_RP,
    RELEASE_RQ,
    SHORT,
    RawPeer,
    Recorder,
    abort_pdu,
    accept_pdu,
    connect,
    data_pdu,
    data_set,
    echo_pdu,
    fragment_pdu,
    instance_uid,
    raw_association,
    raw_connection,
    request_pdu,
    serving,
    store_pdu,
    until,
)


async def take(operation: Operation) -> None:
    await operation.read()


def files(folder: Path) -> list[str]:
    """The names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def probe(association: Association) -> None:
    """Prove that another association is undisturbed."""
    assert (await association.c_echo()).status == 0


def request_with(*contexts: tuple[int, str]) -> bytes:
    return request_pdu(
        contexts=tuple(PresentationContextRQ(n, uid, (IMPLICIT_VR_LITTLE_ENDIAN,)) for n, uid in contexts)
    )


def echo_command() -> bytes:
    return encode_command(CEchoRQ(message_id=2, affected_sop_class_uid=VERIFICATION), has_data_set=False)


BEFORE = {
    "unknown type": bytes.fromhex("42 00 00000004 00000000"),
    "type 0": bytes(6),
    "type 8": bytes.fromhex("08 00 00000004 00000000"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
    "one byte of HTTP": b"G",
    "TLS": bytes.fromhex("16 03 01 0200 01 0001fc 0303"),
    "4 GiB": bytes.fromhex("01 00 ffffffff"),
    "one byte beyond the limit": bytes.fromhex("01 00 00040001"),
    "short request": bytes.fromhex("01 00 00000004 0001 0000"),
    "item overrun": request_pdu()[:76] + b"\xff\xff" + request_pdu()[78:],
    "even context": request_with((2, VERIFICATION)),
    "context 0": request_with((0, VERIFICATION)),
    "context twice": request_with((1, VERIFICATION), (1, CT)),
    "P-DATA": echo_pdu(),
    "A-RELEASE-RQ": RELEASE_RQ,
    "A-RELEASE-RP": RELEASE_RP,
    "A-ASSOCIATE-AC": accept_pdu(),
    "long release": bytes.fromhex("05 00 00000005 0000000000"),
}


@pytest.mark.parametrize("data", BEFORE.values(), ids=BEFORE.keys())
async def test_before_there_is_an_association(data: bytes) -> None:
    """In Sta2 that is AA-1: the user's abort, without a reason (PS3.8 Table 9-9)."""
    async with serving(take) as server, connect(server) as other, raw_connection(server) as peer:
        peer.send(data)
        assert await peer.pdu() == ABORT_BY_USER
        await probe(other)
        assert await peer.rest() == b""  # one abort only, and then the end
        await probe(other)


AFTER = {
    "unknown type": (bytes.fromhex("42 00 00000004 00000000"), (2, 1)),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", (2, 1)),
    "4 GiB": (bytes.fromhex("04 00 ffffffff"), (2, 6)),
    "4 GiB of request": (bytes.fromhex("01 00 ffffffff"), (2, 6)),
    "above announced": (bytes.fromhex("04 00 00002001"), (2, 6)),
    "empty P-DATA": (bytes.fromhex("04 00 00000000"), (2, 6)),
    "empty PDV": (bytes.fromhex("04 00 00000006 00000000 0103"), (2, 6)),
    "PDV of one byte": (bytes.fromhex("04 00 00000006 00000001 0103"), (2, 6)),
    "PDV overrun": (bytes.fromhex("04 00 00000006 fffffffc 0103"), (2, 6)),
    "endless empty fragments": (data_pdu(PDV(ECHO_CONTEXT, True, False, b"")) * 1025, (2, 6)),
    "endless command": (data_pdu(PDV(ECHO_CONTEXT, True, False, bytes(1024))) * 65, (2, 6)),
    "second request": (request_pdu(), (2, 2)),
    "A-RELEASE-RP": (RELEASE_RP, (2, 2)),
    "long release": (bytes.fromhex("05 00 00000005 0000000000"), (2, 6)),
    "data without command": (fragment_pdu(b"12"), (2, 5)),
    "unknown context": (data_pdu(PDV(99, True, True, echo_command())), (2, 6)),
    "unknown context of data": (fragment_pdu(b"12", context_id=99), (2, 6)),
    "command in a data set": (store_pdu() + fragment_pdu(b"12", is_last=False) + echo_pdu(2), (2, 5)),
    "data of another context": (store_pdu() + fragment_pdu(b"12", context_id=ECHO_CONTEXT), (2, 5)),
    "command in a command": (data_pdu(PDV(CT_CONTEXT, True, False, b"12")) + echo_pdu(), (2, 5)),
    "malformed command": (data_pdu(PDV(ECHO_CONTEXT, True, True, b"\0\0\0\0\xfe\xff\xff\xff")), (0, 0)),
    "command without an ID": (
        data_pdu(PDV(ECHO_CONTEXT, True, True, echo_command().replace(b"\x10\x01\x02", b"\x11\x01\x02"))),
        (0, 0),
    ),
    "response to nothing": (
        data_pdu(
            PDV(
                ECHO_CONTEXT,
                True,
                True,
                bytes.fromhex(
                    "0000 0001 02000000 3080 0000 2001 02000000 0100 0000 0008 02000000 0101 0000 0009 02000000 0000"
                ),
            )
        ),
        (0, 0),
    ),
}


@pytest.mark.parametrize(("data", "words"), AFTER.values(), ids=AFTER.keys())
async def test_on_an_association(data: bytes, words: tuple[int, int], tmp_path: Path) -> None:
    """In Sta6 it is AA-8: the provider's abort, with its reason; 0 is the DIMSE user's."""

    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(keep, maximum_length=8192) as server, connect(server) as other, raw_association(server) as peer:
        peer.send(data)
        assert await peer.pdu() == abort_pdu(*words)
        await probe(other)
        assert await peer.rest() == b""
        await probe(other)
    assert files(tmp_path) == []


async def test_many_of_them_do_not_lock_out_others() -> None:
    async with serving() as server:
        peers = [RawPeer(*await asyncio.open_connection("127.0.0.1", server.port)) for _ in range(11)]
        for peer in peers:
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
        for peer in peers:
            assert await peer.pdu() == ABORT_BY_USER
        async with connect(server) as other:
            await probe(other)
        for peer in peers:
            await peer.close()


# Peers that wait.


async def test_a_silent_connection_is_closed_without_a_byte() -> None:
    async with serving(timeouts=Timeouts(artim=SHORT)) as server, connect(server) as other:
        async with raw_connection(server) as peer:
            assert await peer.rest() == b""
        await probe(other)


async def test_artim_is_not_started_again_by_bytes() -> None:
    """A slow loris: byte after byte of a valid request, each before ARTIM's length has passed since the one before."""
    async with serving(timeouts=Timeouts(artim=4 * SHORT)) as server, raw_connection(server) as peer:
        closed = asyncio.create_task(peer.rest())
        for byte in request_pdu():
            peer.send(bytes((byte,)))
            done, _ = await asyncio.wait([closed], timeout=SHORT)
            if done:
                break
        assert closed.done()
        # A byte that crosses the close is answered by a reset; either way nothing was said.
        assert isinstance(closed.exception(), ConnectionResetError) or closed.result() == b""


@pytest.mark.parametrize(
    "data",
    [
        echo_pdu()[:16],
        echo_pdu()[:3],
        store_pdu(),
        store_pdu() + fragment_pdu(b"12", is_last=False),
        data_pdu(PDV(ECHO_CONTEXT, True, False, b"12")),
    ],
    ids=["in a PDU", "in a header", "before the data set", "in the data set", "in the command"],
)
async def test_a_stall_inside_a_message_is_aborted(data: bytes) -> None:
    timeouts = Timeouts(stall=SHORT, idle=None)
    async with serving(take, timeouts=timeouts) as server, connect(server) as other, raw_association(server) as peer:
        peer.send(data)
        assert await peer.pdu() == abort_pdu(2, 0)
        await probe(other)


async def test_an_idle_association_is_aborted() -> None:
    async with serving(timeouts=Timeouts(idle=SHORT)) as server, raw_association(server) as peer:
        assert await peer.pdu() == abort_pdu(2, 0)


async def test_an_association_is_not_idle_while_its_operation_runs() -> None:
    go = asyncio.Event()

    async def slow(operation: Operation) -> None:
        await operation.read()
        await go.wait()

    timeouts = Timeouts(idle=SHORT, stall=SHORT)
    async with (
        serving(slow, timeouts=timeouts) as server,
        raw_association(server) as busy,
        raw_association(server) as idle,
    ):
        busy.send(store_pdu(), fragment_pdu(data_set()))
        assert await idle.pdu() == abort_pdu(2, 0)
        go.set()
        assert (await busy.response()).status == 0


async def test_a_peer_that_never_reads_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses pile up until the socket and the transport buffer are full; then the deadline of sending counts."""

    async def refuse(_operation: Operation) -> None:
        raise DimseError(0xC000, "x" * 64)

    # Small responses: thousands of them would be needed to fill what large data sets are buffered in.
    monkeypatch.setattr("aiodicom.transport.WRITE_HIGH", 32 * 1024)
    recorder = Recorder()
    async with serving(refuse, timeouts=Timeouts(send=SHORT), observers=(recorder,)) as server:
        for listening in server._servers[0].sockets:  # what is accepted inherits the small buffer
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with connect(server) as other, raw_association(server) as peer:
            peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            request = store_pdu(has_data_set=False)
            flood = asyncio.create_task(_flood(peer, request * 100))
            await recorder.until(lambda: recorder.closed)
            await probe(other)
            flood.cancel()
            await asyncio.wait([flood])
            peer.reset()


async def _flood(peer: RawPeer, data: bytes) -> None:
    while True:
        peer.send(data)
        await peer.writer.drain()
        await asyncio.sleep(0)  # where drain() does not wait, the server must have its turn all the same


# Peers that go.


CONVERSATION = (
    request_pdu(),
    store_pdu(),
    fragment_pdu(data_set()[:90], is_last=False),
    fragment_pdu(data_set()[90:]),
)
BORDERS = [sum(map(len, CONVERSATION[:count])) for count in range(len(CONVERSATION) + 1)]
CUTS = sorted({
    *BORDERS[:-1],
    *(place for start, end in pairwise(BORDERS)
      for place in (start + 1, start + 5, start + 6, start + 11, start + 12, (start + end) // 2, end - 1)),
})  # fmt: skip


@pytest.mark.parametrize("how", ["half-close", "reset"])
async def test_a_conversation_cut_anywhere_leaves_nothing(how: str, tmp_path: Path) -> None:
    """At each border of a PDU, and at several places inside of each."""

    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path)

    whole = b"".join(CONVERSATION)
    async with serving(keep) as server, connect(server) as other:
        for place in CUTS:
            async with raw_connection(server) as peer:
                await _say(peer, whole, place)
                if how == "reset":
                    peer.reset()
                else:
                    peer.writer.write_eof()
                    await peer.rest()
            await _only_one_is_left(server)
            await probe(other)
            assert files(tmp_path) == [], place
        async with raw_connection(server) as peer:
            await _say(peer, whole, len(whole))
            assert (await peer.response()).status == 0
        assert files(tmp_path) == [f"{instance_uid(1)}.dcm"]


async def _say(peer: RawPeer, whole: bytes, place: int) -> None:
    """Say the conversation up to a place; once the association is requested, wait until it is accepted."""
    peer.send(whole[: min(place, BORDERS[1])])
    if place >= BORDERS[1]:
        assert (await peer.pdu())[0] == 2
        peer.send(whole[BORDERS[1] : place])
    await peer.writer.drain()


async def _only_one_is_left(server: Server) -> None:
    async with asyncio.timeout(5):
        await until(lambda: not (len(server._acceptors) > 1))


async def test_a_release_in_the_middle_of_a_store_keeps_nothing(tmp_path: Path) -> None:
    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(keep) as server, connect(server) as other, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set()[:90], is_last=False), RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP
        assert await peer.rest() == b""
        await probe(other)
    assert files(tmp_path) == []
