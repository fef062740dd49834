"""T20: what a server says to whom it does not let in over TLS, byte for byte; and records under way, in both directions."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from aiodicom import (
    AssociationAborted,
    AssociationError,
    ConnectionFailed,
    Listener,
    Operation,
    OperationTimeout,
    Server,
    Timeouts,
)
from aiodicom.secure_transport import ANSWERS_LIMIT, SecureTransport
from tests.certificates import Certificates, Pair
from tests.loopback import (
    SHORT,
    RawPeer,
    Recorder,
    assert_alive,
    connect,
    ct_instance,
    data_set,
    echo_pdu,
    raw_connection,
    raw_server,
    reach,
    request_pdu,
    serving,
    until,
)

LONG = Timeouts(handshake=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def serving_tls(certificates: Certificates, **options: object) -> AsyncIterator[tuple[Server, int]]:
    """A server at two ports: `server.port` without TLS, the other one with."""
    tls = certificates.credentials(certificates.server)
    store = options.pop("store", None)
    listeners = [Listener(port=0), Listener(port=0, tls=tls)]
    async with serving(store, listeners=listeners, **options) as server:  # type: ignore[arg-type]
        yield server, server.addresses[1][1]


def client_hello(version: int, *, suites: bytes = bytes.fromhex("c013 002f")) -> bytes:
    """A ClientHello of TLS 1.1 (2) or 1.2 (3), without extensions (RFC 5246 §7.4.1.2)."""
    body = bytes((3, version)) + bytes(32) + b"\x00" + len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def alert(received: bytes) -> int:
    """The description of a fatal alert, which is all that was received (RFC 8446 §6)."""
    assert (received[0], received[3:6]) == (0x15, b"\x00\x02\x02"), received.hex()
    assert len(received) == 7, received.hex()
    return received[6]


# T20: who is not let in.


@pytest.mark.parametrize(
    ("said", "description"),
    [(client_hello(2), 70), (client_hello(3), 40), (client_hello(3, suites=bytes.fromhex("c014 0035 000a")), 40)],
    ids=["TLS 1.1", "TLS 1.2, AES-128-CBC", "TLS 1.2, retired suites"],
)
async def test_a_hello_of_retired_tls_gets_its_alert(certificates: Certificates, said: bytes, description: int) -> None:
    async with serving_tls(certificates) as (server, port):
        async with raw_connection(server, port) as peer:
            peer.send(said)
            assert alert(await peer.rest()) == description
            await assert_alive(server)
        await until(lambda: not server._acceptors)


async def test_who_never_closes_after_an_alert_is_closed(certificates: Certificates) -> None:
    async with serving_tls(certificates) as (server, port), raw_connection(server, port) as peer:
        peer.send(client_hello(2))
        assert alert(await peer.rest()) == 70
        await until(lambda: not server._acceptors)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("shown", "reasons"),
    [
        (None, {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"}),  # 116; 40 in TLS 1.2
        ("expired", {"SSLV3_ALERT_CERTIFICATE_EXPIRED"}),  # 45
        ("foreign", {"TLSV1_ALERT_UNKNOWN_CA"}),  # 48
    ],
)
async def test_a_client_without_a_good_certificate_gets_its_alert(
    certificates: Certificates, version: ssl.TLSVersion, shown: str | None, reasons: set[str]
) -> None:
    recorder = Recorder()
    credentials = certificates.credentials(getattr(certificates, shown) if shown else None)
    credentials.client_context().maximum_version = version
    async with serving_tls(certificates, observers=[recorder]) as (server, port):
        with pytest.raises(ConnectionFailed, match=r"no TLS connection to 127\.0\.0\.1") as raised:
            await connect(server, port=port, tls=credentials)
        assert isinstance(raised.value.__cause__, ssl.SSLError)
        assert raised.value.__cause__.reason in reasons
        await recorder.until(lambda: recorder.refused)
        await assert_alive(server)
    [refusal] = recorder.refused
    assert isinstance(refusal, ConnectionFailed)
    assert str(refusal).startswith("no TLS connection from 127.0.0.1:")


@pytest.mark.parametrize("pair", ["expired", "foreign", "elsewhere"])
async def test_a_server_without_a_good_certificate_is_not_believed(certificates: Certificates, pair: str) -> None:
    shown: Pair = (
        certificates.issue("elsewhere", "pacs.example") if pair == "elsewhere" else getattr(certificates, pair)
    )
    advice = {
        "expired": "certificate has expired; whoever runs the peer must renew it",
        "foreign": r"issuer.*name the file of that authority \(--tls-ca\)",
        "elsewhere": r"not valid for '127.0.0.1'; .*\(--tls-no-host-check\)",
    }
    recorder = Recorder()
    client = certificates.credentials(certificates.client)
    listeners = [Listener(port=0, tls=certificates.credentials(shown))]
    async with serving(listeners=listeners, observers=[recorder]) as server:
        with pytest.raises(ConnectionFailed, match=advice[pair]):
            await connect(server, tls=client)
        await recorder.until(lambda: recorder.refused)
        if pair == "elsewhere":
            async with connect(server, tls=client.without_host_check()) as association:
                assert (await association.c_echo()).status == 0


async def test_a_plain_request_gets_no_byte_of_dicom(certificates: Certificates) -> None:
    recorder = Recorder()
    async with serving_tls(certificates, observers=[recorder]) as (server, port):
        async with raw_connection(server, port) as peer:
            peer.send(request_pdu())
            assert (await peer.rest())[:1] in (b"", b"\x15")
        await recorder.until(lambda: recorder.refused)
        assert "the peer speaks no TLS: switch it on there" in str(recorder.refused[0])
        with pytest.raises(AssociationError, match=r"is it for TLS \(--tls\)"):
            await connect(server, port=port)


async def test_who_is_silent_or_slow_in_the_handshake_is_closed_and_delays_nobody(certificates: Certificates) -> None:
    recorder, count = Recorder(), 20
    options = {"timeouts": Timeouts(handshake=SHORT), "observers": [recorder]}
    async with serving_tls(certificates, **options) as (server, port):
        async with AsyncExitStack() as connections, asyncio.TaskGroup() as tasks:
            for number in range(count):
                peer = await connections.enter_async_context(raw_connection(server, port))
                tasks.create_task(end_without_a_byte(peer))
                if number < 2:
                    tasks.create_task(trickle(peer))
            await assert_alive(server)
        await until(lambda: not server._acceptors)
    assert len(recorder.refused) == count
    assert all("no TLS handshake within" in str(each) for each in recorder.refused)


async def end_without_a_byte(peer: RawPeer) -> None:
    with suppress(ConnectionError):  # what trickled in is not read any more
        assert await peer.rest() == b""


async def trickle(peer: RawPeer) -> None:
    """Send a hello that never ends, byte by byte, which must not make the handshake last any longer."""
    hello = itertools.chain(bytes.fromhex("16 0301 4000 01 003ffc 0303"), itertools.repeat(0))
    with suppress(ConnectionError):
        while not (peer.reader.at_eof() or peer.writer.transport.is_closing()):
            peer.send(bytes((next(hello),)))
            await peer.writer.drain()
            await asyncio.sleep(SHORT / 50)


async def test_a_hello_in_single_bytes_is_one(certificates: Certificates) -> None:
    credentials = certificates.credentials(certificates.client)
    async with serving_tls(certificates, timeouts=LONG) as (server, port), raw_connection(server, port) as peer:
        speaker = Speaker(credentials.client_context(), peer)
        await speaker.shake_hands(piece=1)
        await speaker.say(request_pdu())
        assert (await speaker.hear())[0] == 2  # A-ASSOCIATE-AC


async def test_a_handshake_that_is_cancelled_leaves_nothing_behind(certificates: Certificates) -> None:
    said = asyncio.Event()

    async def nothing(peer: RawPeer) -> None:
        await peer.reader.readexactly(5)
        said.set()
        await peer.rest()

    async with raw_server(nothing) as server:
        asking = asyncio.ensure_future(reach(server, tls=certificates.credentials()))
        await said.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_server_that_is_silent_in_the_handshake_is_given_up(certificates: Certificates) -> None:
    async def nothing(peer: RawPeer) -> None:
        await peer.rest()

    async with raw_server(nothing) as server:
        with pytest.raises(OperationTimeout, match="took the connection but no TLS handshake"):
            await reach(server, tls=certificates.credentials(), timeouts=Timeouts(connect=SHORT, idle=None))


# Records.


class Speaker:
    """The TLS of a raw peer, as a client: a test says what goes into records, and sees what comes out."""

    def __init__(self, context: ssl.SSLContext, peer: RawPeer) -> None:
        self._peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    async def shake_hands(self, piece: int = 65536) -> None:
        await self._until_done(self.tls.do_handshake, piece)

    async def say(self, data: bytes) -> None:
        self.tls.write(data)
        await self._send()

    async def hear(self) -> bytes:
        """What the next record has; b"" after close_notify."""
        heard = b""

        def read() -> None:
            nonlocal heard
            heard = self.tls.read(65536)

        await self._until_done(read, 65536)
        return heard

    async def _until_done(self, act: Callable[[], None], piece: int) -> None:
        while True:
            try:
                act()
            except ssl.SSLWantReadError:
                await self._send(piece)
                async with asyncio.timeout(60):
                    received = await self._peer.reader.read(65536)
                assert received, "closed"
                self._incoming.write(received)
            else:
                await self._send(piece)
                return

    async def _send(self, piece: int = 65536) -> None:
        while data := self._outgoing.read(piece):
            self._peer.send(data)
            await self._peer.writer.drain()


@asynccontextmanager
async def speaking(certificates: Certificates, server: Server, port: int) -> AsyncIterator[tuple[Speaker, RawPeer]]:
    """A raw peer with an association over TLS."""
    async with raw_connection(server, port) as peer:
        speaker = Speaker(certificates.credentials(certificates.client).client_context(), peer)
        await speaker.shake_hands()
        await speaker.say(request_pdu())
        assert (await speaker.hear())[0] == 2
        yield speaker, peer


async def test_an_abort_arrives_and_close_notify_behind_it(certificates: Certificates) -> None:
    async with serving_tls(certificates) as (server, port), speaking(certificates, server, port) as (speaker, _):
        await speaker.say(bytes.fromhex("42 00 00000004 00000000"))
        assert (await speaker.hear()).hex() == "07000000000400000201"  # A-ABORT, unrecognized PDU
        assert await speaker.hear() == b""  # close_notify: an attacker cannot have cut off anything


async def test_what_a_peer_says_behind_our_abort_is_not_looked_at(certificates: Certificates) -> None:
    async with serving_tls(certificates) as (server, port), speaking(certificates, server, port) as (speaker, peer):
        await speaker.say(bytes.fromhex("42 00 00000004 00000000"))
        assert (await speaker.hear())[0] == 7
        await speaker.say(echo_pdu())
        await speaker.say(bytes(1000))
        peer.writer.write_eof()
        await peer.rest()
        await until(lambda: not server._acceptors)


async def test_a_record_that_was_changed_ends_the_association(certificates: Certificates) -> None:
    recorder = Recorder()
    async with (
        serving_tls(certificates, observers=[recorder]) as (server, port),
        speaking(certificates, server, port) as (_, peer),
    ):
        peer.send(bytes.fromhex("17 0303 0020") + bytes(32))
        await peer.rest()
        await recorder.until(lambda: recorder.closed)
        await assert_alive(server)
    assert isinstance(recorder.closed[0], AssociationAborted)


async def test_close_notify_ends_the_association(certificates: Certificates) -> None:
    recorder = Recorder()
    async with (
        serving_tls(certificates, observers=[recorder]) as (server, port),
        speaking(certificates, server, port) as (speaker, peer),
    ):
        with suppress(ssl.SSLWantReadError):
            speaker.tls.unwrap()
        await speaker._send()
        await peer.rest()
        await recorder.until(lambda: recorder.closed)
    assert isinstance(recorder.closed[0], AssociationAborted)


class Answering:
    """A TLS that answers whatever comes with so many bytes, as it does a KeyUpdate (RFC 8446 §4.6.3)."""

    def __init__(self, secure: SecureTransport, length: int) -> None:
        self._secure = secure
        self._length = length
        self.count = 0

    def pending(self) -> int:
        return 0

    def read(self, _length: int, _buffer: memoryview) -> int:
        self._secure._incoming.read()
        self._secure._outgoing.write(bytes(self._length))
        self.count += 1
        raise ssl.SSLWantReadError


async def test_who_has_tls_answer_on_and_reads_nothing_is_cut_off(certificates: Certificates) -> None:
    recorder = Recorder()
    async with (
        serving_tls(certificates, observers=[recorder]) as (server, port),
        speaking(certificates, server, port) as (_, peer),
    ):
        [acceptor] = server._acceptors
        secure = acceptor._connection._transport
        assert isinstance(secure, SecureTransport)
        tls = Answering(secure, ANSWERS_LIMIT // 2)
        secure._tls = tls
        for _ in range(5):  # which it reads
            await ask(peer, tls)
            await peer.reader.readexactly(ANSWERS_LIMIT // 2)
        secure.pause_writing()
        secure.resume_writing()
        await ask(peer, tls)
        secure.pause_writing()
        for _ in range(2):
            await ask(peer, tls)
        assert not recorder.closed
        await ask(peer, tls)
        await recorder.until(lambda: recorder.closed)
        assert "reads no answer" in str(acceptor._connection.loss)
        await assert_alive(server)


async def ask(peer: RawPeer, tls: Answering) -> None:
    count = tls.count
    peer.send(b"?")
    await until(lambda: tls.count > count)


async def test_whoever_takes_an_instance_slowly_holds_the_peer_back(certificates: Certificates) -> None:
    size, kept = 8 * 1024 * 1024, bytearray()

    async def keep(operation: Operation) -> None:
        async for chunk in operation.stream():
            kept.extend(chunk)
            await asyncio.sleep(0)

    credentials = certificates.credentials(certificates.client)
    async with (
        serving_tls(certificates, store=keep) as (server, port),
        connect(server, port=port, tls=credentials) as association,
    ):
        assert (await association.c_store(ct_instance(1, size))).status == 0
        assert (await association.c_echo()).status == 0
    assert bytes(kept) == data_set(1, size)


async def test_both_ends_count_what_they_say_and_hear_without_tls(certificates: Certificates) -> None:
    credentials = certificates.credentials(certificates.client)
    async with serving_tls(certificates) as (server, port), connect(server, port=port, tls=credentials) as association:
        assert (await association.c_echo()).status == 0
        [theirs] = server.associations
        assert theirs.bytes_received == association.bytes_sent
        assert theirs.bytes_sent == association.bytes_received


@pytest.mark.parametrize("index", [0, 1], ids=["plain", "TLS"])
async def test_a_server_that_stops_waits_for_no_connection_that_is_not_there_yet(
    certificates: Certificates, index: int
) -> None:
    """An event loop makes the protocol of a connection before it tells that of its transport, if it ever does."""
    async with serving_tls(certificates) as (server, _):
        protocol = server._connection(server.listeners[index].tls)
        await server.stop()
        transport = Cut()
        protocol.connection_made(transport)
        assert transport.is_cut
        protocol.connection_lost(None)
        assert not server._acceptors


class Cut(asyncio.Transport):
    """A transport that can do nothing but be cut."""

    is_cut = False

    def abort(self) -> None:
        self.is_cut = True

    def is_closing(self) -> bool:
        return self.is_cut
