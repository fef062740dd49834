"""The requestor: what becomes of a request for an association, whoever answers it (PS3.8 §7.1)."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from aiodicom import (
    AssociationAborted,
    AssociationRejected,
    ConnectionFailed,
    IdentityType,
    LocalProtocolError,
    NoAcceptedContext,
    OperationTimeout,
    ProposedContext,
    Timeouts,
    UserIdentity,
    associate,
)
from aiodicom.dimse.commands import CEchoRSP, CStoreRSP
from aiodicom.dimse.status import Status
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    MaximumLength,
    PresentationContextAC,
    RoleSelection,
    UnknownItem,
)
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ, PDUReader
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    RELEASE_RP,
    RELEASE_RQ,
    SHORT,
    RawPeer,
    RawServer,
    Recorder,
    abort_pdu,
    accept_pdu,
    command_pdu,
    ct_instance,
    data_pdu,
    raw_server,
    reach,
    reject_pdu,
    store_pdu,
    until,
)

ACCEPTED = PresentationContextAC(ECHO_CONTEXT, 0, EXPLICIT_VR_LITTLE_ENDIAN)


async def requested(**options: object) -> AAssociateRQ:
    """The A-ASSOCIATE-RQ that `associate` sends with those options."""
    requests: list[bytes] = []

    async def script(peer: RawPeer) -> None:
        requests.append(await peer.pdu())
        peer.send(reject_pdu(1, 1, 1))

    async with raw_server(script) as scp:
        with pytest.raises(AssociationRejected):
            await reach(scp, **options)
    (request,) = PDUReader(0).feed(memoryview(requests[0]))
    assert isinstance(request, AAssociateRQ)
    return request


# What is asked.


async def test_the_request_says_what_was_asked() -> None:
    request = await requested(called_ae_title="PACS", calling_ae_title="WS 1", maximum_length=65536)
    assert (request.called_ae_title, request.calling_ae_title) == ("PACS", "WS 1")
    assert [item.context_id for item in request.presentation_contexts] == [1, 3]
    assert MaximumLength(65536) in request.user_information


async def test_nothing_is_offered_unasked() -> None:
    """Some peers drop the connection when they see these items."""
    request = await requested()
    assert {item.item_type for item in request.user_information} == {0x51, 0x52, 0x55}


async def test_what_is_asked_for_is_offered() -> None:
    identity = UserIdentity(IdentityType.USERNAME, b"me", positive_response_requested=True)
    extra = UnknownItem(0x77, b"abc")
    request = await requested(
        operations_window=(8, 2),
        identity=identity,
        user_information=[extra],
        contexts=[ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,), scp_role=True)],
    )
    for item in (
        AsynchronousOperationsWindow(8, 2),
        identity,
        extra,
        RoleSelection(CT, scu_role=True, scp_role=True),
    ):
        assert item in request.user_information


@pytest.mark.parametrize(
    "options",
    [
        {"called_ae_title": ""},
        {"called_ae_title": "A TITLE TOO LONG!"},
        {"calling_ae_title": "BACK\\SLASH"},
        {"contexts": []},
        {"contexts": [VERIFICATION] * 129},
        {"contexts": ["no uid"]},
        {"contexts": [ProposedContext(VERIFICATION, ())]},
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_connected(options: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        associate("127.0.0.1", 1, **options)  # type: ignore[arg-type]


# What is answered.


async def test_what_was_agreed_on_is_there() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        rejected = PresentationContextAC(CT_CONTEXT, 4, IMPLICIT_VR_LITTLE_ENDIAN)
        peer.send(accept_pdu(ACCEPTED, rejected, maximum_length=4096, items=(AsynchronousOperationsWindow(3, 1),)))
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp, reach(scp, operations_window=(8, 8), called_ae_title="PACS") as association:
        assert [context.abstract_syntax for context in association.contexts] == [VERIFICATION]
        assert association.terms.maximum_length == 4096
        assert (association.terms.maximum_invoked, association.terms.maximum_performed) == (3, 1)
        assert str(association.peer) == f"'PACS'@127.0.0.1:{scp.port}"


async def test_a_window_that_was_not_offered_is_none() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(items=(AsynchronousOperationsWindow(0, 0),)))
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp, reach(scp) as association:
        assert association.terms.maximum_invoked == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((1, 1, 3), "calling AE title not recognized"),
        ((1, 1, 7), "called AE title not recognized"),
        ((2, 3, 2), "local limit exceeded"),
        ((9, 9, 9), "reason 9"),
    ],
)
async def test_a_rejection_says_why(fields: tuple[int, int, int], words: str) -> None:
    recorder = Recorder()

    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(reject_pdu(*fields))
        assert await peer.rest() == b""  # who gets the rejection closes (PS3.8 Table 9-6, AE-4)

    async with raw_server(script) as scp:
        with pytest.raises(AssociationRejected, match=words) as caught:
            await reach(scp, observers=(recorder,))
        error = caught.value
        assert (error.result, error.source, error.reason) == fields
        assert recorder.refused == [error]


async def test_an_abort_instead_of_an_answer() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(abort_pdu(2, 1))

    async with raw_server(script) as scp:
        with pytest.raises(AssociationAborted, match="answer to our request") as caught:
            await reach(scp)
        assert (caught.value.source, caught.value.reason, caught.value.by_peer) == (2, 1, True)


async def test_a_close_instead_of_an_answer() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()

    async with raw_server(script) as scp:
        with pytest.raises(AssociationAborted, match="closed instead of answering") as caught:
            await reach(scp)
        assert caught.value.source is None


async def test_no_answer_at_all() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        assert await peer.rest() in (b"", ABORT_BY_USER)

    async with raw_server(script) as scp:
        with pytest.raises(OperationTimeout, match="is it a DICOM port") as caught:
            await reach(scp, timeouts=Timeouts(associate=SHORT))
        assert caught.value.phase == "associate"


async def test_cancelled_while_the_answer_is_due() -> None:
    asked = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        asked.set()
        await peer.rest()

    async def ask(scp: RawServer) -> None:
        async with reach(scp):
            pass

    async with raw_server(script) as scp:
        task = asyncio.create_task(ask(scp))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cancelled_at_any_moment_asyncio_has_nothing_to_say() -> None:
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))

    async def script(peer: RawPeer) -> None:
        await peer.rest()

    async with raw_server(script) as scp:
        for rounds in range(12):
            task = asyncio.create_task(_ask(scp))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
        await asyncio.sleep(SHORT)
    gc.collect()
    assert said == []


async def _ask(scp: RawServer) -> None:
    await reach(scp)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 1),
        (b"\x15\x03\x03\x00\x02\x02\x46", 1),
        (b"\x00" * 10, 1),
        (bytes.fromhex("02 00 ffffffff"), 6),
        (bytes.fromhex("02 00 00000004 00000000"), 6),
        (RELEASE_RP, 2),
        (RELEASE_RQ, 2),
        (data_pdu(PDV(ECHO_CONTEXT, True, True, b"\0\0")), 2),
    ],
    ids=["HTTP", "TLS", "zeros", "4 GiB", "short", "A-RELEASE-RP", "A-RELEASE-RQ", "P-DATA"],
)
async def test_an_answer_that_is_none_is_aborted(answer: bytes, reason: int) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(answer)
        assert await peer.pdu() == abort_pdu(2, reason)

    async with raw_server(script) as scp:
        with pytest.raises(AssociationAborted) as caught:
            await reach(scp)
        error = caught.value
        assert (error.source, error.reason, error.by_peer) == (2, reason, False)


@pytest.mark.parametrize(
    "answer",
    [
        PresentationContextAC(5, 0, IMPLICIT_VR_LITTLE_ENDIAN),
        PresentationContextAC(CT_CONTEXT, 0, EXPLICIT_VR_LITTLE_ENDIAN),
        PresentationContextAC(2, 0, IMPLICIT_VR_LITTLE_ENDIAN),
    ],
    ids=["context", "syntax", "even"],
)
async def test_what_was_never_proposed_cannot_be_accepted(answer: PresentationContextAC) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(ACCEPTED, answer))
        assert await peer.pdu() == abort_pdu(2, 6)

    async with raw_server(script) as scp:
        with pytest.raises(AssociationAborted, match="not proposed") as caught:
            await reach(scp)
        assert (caught.value.source, caught.value.reason, caught.value.by_peer) == (2, 6, False)


async def test_an_answer_byte_by_byte() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        for byte in accept_pdu():
            peer.send(bytes((byte,)))
            await peer.writer.drain()
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp, reach(scp) as association:
        assert len(association.contexts) == 2


# Connecting.


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        recorder = Recorder()
        with pytest.raises(ConnectionFailed, match="is a DICOM server running"):
            await associate("127.0.0.1", port, observers=(recorder,))
        assert recorder.calls == ["refused ConnectionFailed"]


async def test_a_host_that_has_no_address() -> None:
    with pytest.raises(ConnectionFailed, match=r"nothing.invalid"):
        await associate("nothing.invalid", 104, observers=())


async def test_a_connection_that_does_not_come() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        try:
            for each in waiting:  # the backlog is full: the system answers no more
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            with pytest.raises(OperationTimeout) as caught:
                await associate(*full.getsockname(), observers=(), timeouts=Timeouts(connect=SHORT))
            assert caught.value.phase in ("connect", "associate")
        finally:
            for each in waiting:
                each.close()


# A peer that does not keep to the rules afterwards.


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (
            command_pdu(ECHO_CONTEXT, CEchoRSP(message_id_being_responded_to=999, status=Status(0))),
            abort_pdu(0, 0),
        ),
        (
            command_pdu(ECHO_CONTEXT, CEchoRSP(message_id_being_responded_to=1, status=Status(0xFF00))),
            abort_pdu(0, 0),
        ),
        (
            command_pdu(CT_CONTEXT, CStoreRSP(message_id_being_responded_to=1, status=Status(0))),
            abort_pdu(0, 0),
        ),
        (command_pdu(9, CEchoRSP(message_id_being_responded_to=1, status=Status(0))), abort_pdu(2, 6)),
        (data_pdu(PDV(ECHO_CONTEXT, False, True, b"\0\0")), abort_pdu(2, 5)),
        (data_pdu(PDV(ECHO_CONTEXT, True, True, b"\0\0\0\0\xfe\xff\xff\xff")), abort_pdu(0, 0)),
        (b"garbage", abort_pdu(2, 1)),
        (accept_pdu(), abort_pdu(2, 2)),
    ],
    ids=["unknown id", "pending", "other class", "unknown context", "data", "malformed", "garbage", "second AC"],
)
async def test_a_response_that_is_none_is_aborted(response: bytes, expected: bytes) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await peer.command()
        peer.send(response)
        assert await peer.pdu() == expected

    async with raw_server(script) as scp:
        association = await reach(scp)
        with pytest.raises(AssociationAborted) as caught:
            await association.c_echo()
        assert not caught.value.by_peer
        await association.wait_closed()


async def test_a_response_with_an_endless_data_set_is_aborted() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu())
        await peer.command()
        answer = CEchoRSP(message_id_being_responded_to=1, status=Status(0))
        peer.send(command_pdu(ECHO_CONTEXT, answer, has_data_set=True))
        chunk = data_pdu(PDV(ECHO_CONTEXT, False, False, bytes(64 * 1024)))
        try:
            for _ in range(1024):
                peer.send(chunk)
                await peer.writer.drain()
        except ConnectionError:
            return

    async with raw_server(script) as scp:
        association = await reach(scp)
        with pytest.raises(AssociationAborted, match="data set"):
            await association.c_echo()
        await association.abort()


async def test_a_request_to_who_performs_nothing_is_not_supported() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(), store_pdu(has_data_set=False))
        assert (await peer.response()).status == 0x0122
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)
        answered.set()

    answered = asyncio.Event()
    async with raw_server(script) as scp, reach(scp) as association:
        await until(lambda: association.bytes_received > len(accept_pdu()))
    assert answered.is_set()


async def test_an_instance_goes_nowhere_without_its_context() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(ACCEPTED))
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp, reach(scp) as association:
        with pytest.raises(NoAcceptedContext):
            await association.c_store(ct_instance())
