"""The acceptor: whom it lets in, what it offers them, how it starts and stops (PS3.8 §7.1, §9.3.4)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from aiodicom import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    IdentityType,
    Listener,
    LocalProtocolError,
    NoAcceptedContext,
    Operation,
    Peer,
    ProposedContext,
    Server,
    Timeouts,
    UserIdentity,
    storage_service,
)
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    PresentationContextRQ,
    SOPClassExtendedNegotiation,
    UserIdentityResponse,
)
from aiodicom.upper_layer.pdu import AAssociateAC, PDUReader
from tests.loopback import (
    CT,
    MR,
    Recorder,
    abort_pdu,
    assert_alive,
    connect,
    ct_instance,
    data_set,
    fragment_pdu,
    raw_association,
    raw_connection,
    reject_pdu,
    request_pdu,
    serving,
    store_pdu,
    until,
)


async def answer_to(server: Server, **request: Any) -> AAssociateAC:  # noqa: ANN401
    """The A-ASSOCIATE-AC to such a request."""
    async with raw_connection(server) as peer:
        peer.send(request_pdu(**request))
        (answer,) = PDUReader(0).feed(memoryview(await peer.pdu()))
        assert isinstance(answer, AAssociateAC)
        return answer


async def rejected(server: Server, **options: Any) -> tuple[int, int, int]:  # noqa: ANN401
    """Result, source and reason of the rejection of such a request."""
    with pytest.raises(AssociationRejected) as caught:
        await connect(server, **options)
    return caught.value.result, caught.value.source, caught.value.reason


def hold() -> tuple[asyncio.Event, asyncio.Event, Any]:
    """A handler that says when it runs, and waits until it may end: (runs, may end, handler)."""
    runs, may_end = asyncio.Event(), asyncio.Event()

    async def handler(operation: Operation) -> None:
        await operation.read()
        runs.set()
        await may_end.wait()

    return runs, may_end, handler


# Who is let in.


async def test_any_called_ae_title_will_do_unless_told_otherwise() -> None:
    async with serving() as server, connect(server, called_ae_title="WHATEVER") as association:
        assert (await association.c_echo()).status == 0


async def test_the_called_ae_title_is_checked_where_told_so() -> None:
    async with serving(require_called_ae_title=True) as server:
        assert await rejected(server, called_ae_title="WRONG") == (1, 1, 7)
        await assert_alive(server)


async def test_only_known_calling_ae_titles() -> None:
    async with serving(calling_ae_titles={"SCU"}) as server:
        assert await rejected(server, calling_ae_title="NOBODY") == (1, 1, 3)
        await assert_alive(server)


@pytest.mark.parametrize(
    "title", [b"EVIL\r\nERROR x", b"BACK\\SLASHES...", b"               ", b"\xc4\xd6\xdc            "]
)
async def test_a_calling_ae_title_that_is_none(title: bytes) -> None:
    async with serving() as server, raw_connection(server) as peer:
        peer.send(request_pdu(calling="X" * len(title)).replace(b"X" * len(title), title))
        assert await peer.pdu() == reject_pdu(1, 1, 3)


async def test_one_association_too_many() -> None:
    async with serving(maximum_associations=2) as server:
        async with connect(server), connect(server):
            assert await rejected(server) == (2, 3, 2)
            async with raw_connection(server), raw_connection(server) as peer:  # who is silent does not count
                peer.send(request_pdu())
                assert await peer.pdu() == reject_pdu(2, 3, 2)
        await until(lambda: not server.associations)
        await assert_alive(server)


async def test_one_connection_too_many() -> None:
    async with serving(maximum_connections=2) as server:
        async with connect(server) as association:
            async with raw_connection(server) as silent, connect(server) as third:
                assert await silent.rest() == b""  # it made room
                async with raw_connection(server) as fourth:
                    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                        await fourth.reader.readexactly(1)
                assert (await third.c_echo()).status == 0
            assert (await association.c_echo()).status == 0
        await until(lambda: not server._acceptors)
        await assert_alive(server)


@pytest.mark.parametrize("version", [0, 2])
async def test_another_protocol_version(version: int) -> None:
    request = bytearray(request_pdu())
    request[6:8] = version.to_bytes(2, "big")
    async with serving() as server, raw_connection(server) as peer:
        peer.send(bytes(request))
        assert await peer.pdu() == reject_pdu(1, 2, 2)


async def test_another_application_context() -> None:
    request = request_pdu().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")
    async with serving() as server, raw_connection(server) as peer:
        peer.send(request)
        assert await peer.pdu() == reject_pdu(1, 1, 2)


# The hook.


async def test_the_hook_sees_who_asks_and_rejects() -> None:
    asked: list[Peer] = []
    async with serving() as server:

        @server.on_associate
        async def decide(peer: Peer) -> bytes | None:
            asked.append(peer)
            await asyncio.sleep(0)
            if peer.identity is None or peer.identity.primary_field != b"me":
                raise AssociationRejected(1, 1, 1)
            return None

        assert await rejected(server) == (1, 1, 1)
        me = UserIdentity(IdentityType.USERNAME_AND_PASSCODE, b"me", b"secret")
        async with connect(server, identity=me, allow_plain_passcode=True) as association:
            assert (await association.c_echo()).status == 0
    assert [peer.calling_ae_title for peer in asked] == ["SCU", "SCU"]
    assert asked[1].identity == me
    assert asked[1].address is not None
    assert asked[1].implementation_class_uid


async def test_a_hook_that_fails_rejects() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server:

        @server.on_associate
        async def decide(_peer: Peer) -> bytes | None:
            raise LookupError

        assert await rejected(server) == (1, 1, 1)
        await recorder.until(lambda: recorder.refused)
        assert isinstance(recorder.refused[0], LookupError)


async def test_a_peer_that_goes_while_the_hook_thinks() -> None:
    thinks, cancelled = asyncio.Event(), asyncio.Event()
    async with serving() as server:

        @server.on_associate
        async def decide(_peer: Peer) -> bytes | None:
            thinks.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return None

        async with raw_connection(server) as peer:
            peer.send(request_pdu())
            await thinks.wait()
            peer.reset()
            await cancelled.wait()


async def test_a_peer_that_aborts_while_the_hook_thinks() -> None:
    thinks, go = asyncio.Event(), asyncio.Event()
    async with serving() as server:

        @server.on_associate
        async def decide(_peer: Peer) -> bytes | None:
            thinks.set()
            await go.wait()
            return None

        async with raw_connection(server) as peer:
            peer.send(request_pdu())
            await thinks.wait()
            peer.send(abort_pdu(0, 0))
            assert await peer.rest() == b""
            go.set()
        go.set()
        await assert_alive(server)
        assert server.associations == ()


@pytest.mark.parametrize(
    ("asks", "returns", "expected"),
    [(True, b"ticket", b"ticket"), (True, b"", b""), (False, b"ticket", None), (True, None, None)],
)
async def test_an_identity_is_confirmed_only_where_that_is_asked_for(
    asks: bool, returns: bytes | None, expected: bytes | None
) -> None:
    async with serving() as server:

        @server.on_associate
        async def decide(_peer: Peer) -> bytes | None:
            return returns

        identity = UserIdentity(IdentityType.KERBEROS, b"ticket", positive_response_requested=asks)
        answer = await answer_to(server, items=(identity,))
        responses = [item for item in answer.user_information if isinstance(item, UserIdentityResponse)]
        assert responses == ([] if expected is None else [UserIdentityResponse(expected)])


# What is offered.


async def test_each_context_is_answered_on_its_own() -> None:
    async def keep(_operation: Operation) -> None: ...

    service = storage_service(keep, [CT], [IMPLICIT_VR_LITTLE_ENDIAN])
    contexts = (
        PresentationContextRQ(1, VERIFICATION, (EXPLICIT_VR_LITTLE_ENDIAN,)),
        PresentationContextRQ(3, CT, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),
        PresentationContextRQ(5, CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),
        PresentationContextRQ(251, MR, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        PresentationContextRQ(255, "1.2.3", (IMPLICIT_VR_LITTLE_ENDIAN,)),
    )
    async with serving(services=[service]) as server:
        answer = await answer_to(server, contexts=contexts)
    assert [(item.context_id, item.result) for item in answer.presentation_contexts] == [
        (1, 0),
        (3, 0),
        (5, 4),
        (251, 3),
        (255, 3),
    ]
    assert answer.presentation_contexts[1].transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN


async def test_the_extended_negotiation_of_storage_is_not_answered_as_that_of_a_query() -> None:
    async with serving(hold()[2]) as server:
        offered = SOPClassExtendedNegotiation(CT, bytes.fromhex("020000000200"))  # PS3.4 §B.3.1
        answer = await answer_to(server, items=(offered,))
        assert not any(isinstance(item, SOPClassExtendedNegotiation) for item in answer.user_information)


async def test_an_association_without_an_accepted_context_can_be_released() -> None:
    async with serving() as server, connect(server, contexts=["1.2.3"]) as association:
        with pytest.raises(NoAcceptedContext):
            await association.c_echo()


@pytest.mark.parametrize(
    ("offered", "ours", "answered"),
    [(None, 16, None), ((5, 1), 16, (5, 1)), ((50, 50), 16, (16, 16)), ((0, 0), 16, (16, 16)), ((0, 3), 0, (0, 3))],
)
async def test_the_window_is_never_larger_than_offered(
    offered: tuple[int, int] | None, ours: int, answered: tuple[int, int] | None
) -> None:
    async with serving(maximum_operations=ours) as server:
        answer = await answer_to(server, window=offered)
    windows = [item for item in answer.user_information if isinstance(item, AsynchronousOperationsWindow)]
    assert windows == ([] if answered is None else [AsynchronousOperationsWindow(*answered)])


async def test_what_is_added_later_is_offered_to_the_next() -> None:
    async with serving() as server:
        async with connect(server) as before:

            @server.on_c_store
            async def keep(operation: Operation) -> None:
                await operation.read()

            with pytest.raises(NoAcceptedContext):
                await before.c_store(ct_instance())
        async with connect(server) as after:
            assert (await after.c_store(ct_instance())).status == 0


# What it knows.


async def test_it_lists_its_associations() -> None:
    runs, may_end, handler = hold()
    async with serving(handler) as server:
        assert not server.associations
        async with connect(server) as association:
            storing = asyncio.create_task(association.c_store(ct_instance()))
            await runs.wait()
            (listed,) = server.associations
            assert listed.peer.ae_title == "SCU"
            assert not listed.is_requestor
            assert listed.since.tzinfo is not None
            assert listed.bytes_received > len(data_set())
            assert listed.bytes_sent > 0
            assert [type(each.command).__name__ for each in listed.operations] == ["CStoreRQ"]
            assert "1 associations" in repr(server)
            may_end.set()
            await storing
            assert listed.operations == ()
        await until(lambda: not server.associations)


async def test_the_hooks_are_called_in_order() -> None:
    ours, theirs = Recorder(), Recorder()

    async def keep(operation: Operation) -> None:
        await operation.read()

    async with serving(keep, observers=(theirs,)) as server:
        async with connect(server, observers=(ours,)) as association:
            await association.c_store(ct_instance())
            await association.c_echo()
        await theirs.until(lambda: theirs.closed)
        assert await rejected_calls(server) == ["refused AssociationRejected"]
    sent = ["opened", "sent CStoreRQ", "received CStoreRSP", "sent CEchoRQ", "received CEchoRSP"]
    assert ours.calls == [*sent, "closed AssociationReleased"]
    swapped = {"sent": "received", "received": "sent"}
    turned = [" ".join(swapped.get(word, word) for word in call.split()) for call in sent]
    assert theirs.calls == [*turned, "closed AssociationReleased", "refused AssociationRejected"]


async def rejected_calls(server: Server) -> list[str]:
    server.calling_ae_titles = ()
    recorder = Recorder()
    await rejected(server, observers=(recorder,))
    return recorder.calls


async def test_the_hooks_of_pdus_see_every_pdu() -> None:
    class Trace(Recorder):
        def pdu_sent(self, _connection: object, pdu: object) -> None:
            self.calls.append(f"> {type(pdu).__name__}")

        def pdu_received(self, _connection: object, pdu: object) -> None:
            self.calls.append(f"< {type(pdu).__name__}")

    trace = Trace()
    async with serving() as server, connect(server, observers=(trace,)) as association:
        await association.c_echo()
    assert [call for call in trace.calls if call[0] in "<>"] == [
        "> AAssociateRQ",
        "< AAssociateAC",
        "> PDV",
        "< PDV",
        "> AReleaseRQ",
        "< AReleaseRP",
    ]


# Its life.


async def test_port_0_takes_a_free_one() -> None:
    server = Server(port=0, observers=())
    assert server.port == 0
    assert "not started" in repr(server)
    async with server:
        assert server.port > 0
        assert server.addresses == (("127.0.0.1", server.port),)
        await assert_alive(server)
    with pytest.raises(ConnectionFailed):
        await connect(server, port=server.listeners[0].port or 1)


async def test_several_listeners() -> None:
    async with serving(listeners=[Listener(port=0), Listener("localhost", 0)]) as server:
        ports = {port for _, port in server.addresses}
        assert len(ports) >= 2
        for host, port in server.addresses:
            async with connect(server, host=host, port=port) as association:
                assert (await association.c_echo()).status == 0


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", ""])
async def test_ipv6(host: str) -> None:
    async with serving(host=host) as server:
        port = next(port for address, port in server.addresses if ":" in address)
        async with connect(server, host="::1", port=port) as association:
            assert (await association.c_echo()).status == 0
            assert server.associations[0].peer.address is not None


async def test_an_address_that_is_taken() -> None:
    async with serving() as first:
        second = Server(listeners=[Listener(port=0), Listener(port=first.port)], observers=())
        with pytest.raises(ConnectionFailed, match=rf"127\.0\.0\.1:{first.port}.*taken"):
            await second.start()
        assert second.addresses == ()


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system cannot share a port")
async def test_a_port_that_is_shared() -> None:
    async with (
        serving(listeners=[Listener(port=0, reuse_port=True)]) as first,
        serving(listeners=[Listener(port=first.port, reuse_port=True)]) as second,
    ):
        for _ in range(8):
            await assert_alive(second)


async def test_it_is_started_once_and_stopped_as_often_as_you_like() -> None:
    async with serving() as server:
        with pytest.raises(LocalProtocolError, match="started already"):
            await server.start()
        await server.stop()
        await server.stop()
        await server.start()
        await assert_alive(server)
    await Server(observers=()).stop()


def test_its_ae_title_is_one() -> None:
    with pytest.raises(LocalProtocolError, match="AE title"):
        Server("A TITLE TOO LONG!")


async def test_stopping_lets_operations_end_and_refuses_new_associations() -> None:
    runs, may_end, handler = hold()
    recorder = Recorder()
    async with serving(handler, stop_timeout=10, observers=(recorder,)) as server:
        association = await connect(server)
        storing = asyncio.create_task(association.c_store(ct_instance()))
        await runs.wait()
        stopping = asyncio.create_task(server.stop())
        await until(lambda: server.is_stopping)
        assert await rejected(server) == (2, 3, 1)
        assert not stopping.done()
        may_end.set()
        assert (await storing).status == 0
        await stopping
        await association.wait_closed()
        with pytest.raises(AssociationAborted) as caught:
            await association.c_echo()
        assert (caught.value.source, caught.value.reason) == (0, 0)
        assert server.associations == ()
        with pytest.raises(ConnectionFailed):
            await connect(server, port=association.peer.address[1] if association.peer.address else 0)


async def test_stopping_ends_idle_associations_at_once() -> None:
    async with serving(stop_timeout=1000) as server:
        association = await connect(server)
        await server.stop()
        await association.wait_closed()
        assert not association.is_open


async def test_stopping_aborts_what_does_not_end_in_time() -> None:
    runs, _, handler = hold()
    async with serving(handler, stop_timeout=0.05) as server:
        association = await connect(server)
        storing = asyncio.create_task(association.c_store(ct_instance()))
        await runs.wait()
        await server.stop()
        with pytest.raises(AssociationAborted):
            await storing


async def test_stopping_in_the_middle_of_a_data_set() -> None:
    runs = asyncio.Event()

    async def handler(operation: Operation) -> None:
        runs.set()
        await operation.read()

    async with serving(handler, stop_timeout=0.05) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set(), is_last=False))
        await runs.wait()
        await server.stop()
        assert await peer.rest() == abort_pdu(0, 0)


async def test_stopping_cuts_who_has_not_spoken_or_is_being_thought_about() -> None:
    thinks = asyncio.Event()
    async with serving() as server:

        @server.on_associate
        async def decide(_peer: Peer) -> bytes | None:
            thinks.set()
            await asyncio.Event().wait()
            return None

        async with raw_connection(server) as silent, raw_connection(server) as asking:
            asking.send(request_pdu())
            await thinks.wait()
            await server.stop()
            assert await silent.rest() == b""
            assert await asking.rest() in (b"", abort_pdu(0, 0))


async def test_serve_forever_ends_with_stop() -> None:
    async with serving() as server:
        serving_task = asyncio.create_task(server.serve_forever())
        await assert_alive(server)
        await server.stop()
        await serving_task


async def test_serve_forever_starts_and_can_be_cancelled() -> None:
    server = Server(port=0, observers=())

    async def serve() -> None:
        async with server:
            await server.serve_forever()

    task = asyncio.create_task(serve())
    await until(lambda: server.addresses)
    await assert_alive(server)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.addresses == ()


async def test_serve_forever_alone_starts_it() -> None:
    server = Server(port=0, observers=())
    task = asyncio.create_task(server.serve_forever())
    await until(lambda: server.addresses)
    await assert_alive(server)
    await server.stop()
    await task


async def test_the_end_of_the_block_ends_it_all() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server:
        association = await connect(server, contexts=[ProposedContext(VERIFICATION)], timeouts=Timeouts(idle=None))
    await association.wait_closed()
    with pytest.raises(AssociationAborted):
        await association.c_echo()
    assert recorder.calls == ["opened", "closed AssociationAborted"]
    assert not isinstance(recorder.closed[0], AssociationReleased)


def test_a_decorator_without_its_parentheses_says_so() -> None:
    server = Server("SCP")
    with pytest.raises(TypeError, match="parentheses"):

        @server.on_c_find  # type: ignore[arg-type]
        async def find(_operation: Operation) -> None: ...
