"""DICOM over TLS (PS3.15 Annex B): both ends, and what goes wrong between them."""

from __future__ import annotations

import gc
import hashlib
import logging
import ssl
import weakref
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import trustme

from aiodicom import (
    AssociationError,
    ConnectionFailed,
    Listener,
    LoggingObserver,
    Operation,
    PeerCertificate,
    Timeouts,
)
from tests.loopback import SHORT, assert_alive, connect, ct_instance, data_set, raw_connection, serving, until


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def listener(tls: ssl.SSLContext) -> Listener:
    return Listener(port=0, tls=tls)


async def test_an_association_over_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    kept: list[bytes] = []

    async def keep(operation: Operation) -> None:
        kept.append(await operation.read())

    size = 3 * 1024 * 1024
    async with (
        serving(keep, listeners=[listener(server_tls)]) as server,
        connect(server, tls=client_tls) as association,
    ):
        assert (await association.c_echo()).status == 0
        assert (await association.c_store(ct_instance(1, size))).status == 0
    assert kept == [data_set(1, size)]


async def test_both_ends_show_their_certificates(authority: trustme.CA) -> None:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(server_side)
    server_side.verify_mode = ssl.CERT_REQUIRED
    with_certificate, without = ssl.create_default_context(), ssl.create_default_context()
    for context in (with_certificate, without):
        authority.configure_trust(context)
    authority.issue_cert("modality.example").configure_cert(with_certificate)
    async with serving(listeners=[listener(server_side)]) as server:
        async with connect(server, tls=with_certificate) as association:
            assert (await association.c_echo()).status == 0
        # In TLS 1.3 the client learns after its handshake that its certificate was missed.
        with pytest.raises(AssociationError):
            await connect(server, tls=without)


async def test_each_end_knows_the_certificate_of_the_other(authority: trustme.CA) -> None:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client_side = ssl.create_default_context()
    for context in (server_side, client_side):
        authority.configure_trust(context)
        context.verify_flags &= (
            ~ssl.VERIFY_X509_STRICT
        )  # a certificate without alternative names need not be one for it
    server_side.verify_mode = ssl.CERT_REQUIRED
    shown = {
        server_side: authority.issue_cert("PACS.example", "127.0.0.1", "::1", common_name="pacs"),
        client_side: authority.issue_cert(common_name="A, b\nc"),
    }
    for context, leaf in shown.items():
        leaf.configure_cert(context)
    async with serving(listeners=[listener(server_side)]) as server, connect(server, tls=client_side) as association:
        theirs = association.peer.certificate
        [ours] = (each.peer.certificate for each in server.associations)
    assert theirs is not None
    assert ours is not None
    assert theirs.names == ("pacs.example", "127.0.0.1", "::1")
    assert ours.names == ("a, b\nc",)
    assert ours.subject.endswith(r"CN=A\, b\u000ac")
    for certificate, context in ((theirs, server_side), (ours, client_side)):
        encoded = ssl.PEM_cert_to_DER_cert(shown[context].cert_chain_pems[0].bytes().decode())
        assert certificate.is_verified
        assert certificate.fingerprint == hashlib.sha256(encoded).hexdigest()
        assert certificate.not_before is not None
        assert certificate.not_after is not None
        assert certificate.not_before < datetime.now(UTC) < certificate.not_after
        assert str(certificate).splitlines() == [f"{certificate.subject} (SHA-256 {certificate.fingerprint})"]


async def test_the_log_says_whose_certificate_a_peer_has(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiodicom.association")
    async with (
        serving(listeners=[listener(server_tls)]) as server,
        connect(server, tls=client_tls, observers=[LoggingObserver()]) as association,
    ):
        certificate = association.peer.certificate
    assert [getattr(record, "certificate", None) for record in caplog.records] == [str(certificate)] * 2


async def test_of_a_certificate_that_is_not_verified_nothing_is_believed(server_tls: ssl.SSLContext) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with serving(listeners=[listener(server_tls)]) as server, connect(server, tls=trusting) as association:
        certificate = association.peer.certificate
        [ours] = (each.peer.certificate for each in server.associations)
    assert certificate == PeerCertificate(certificate.fingerprint if certificate else "")
    assert ours is None  # we did not ask for one


async def test_without_tls_there_is_no_certificate() -> None:
    async with serving() as server, connect(server) as association:
        assert association.peer.certificate is None


async def test_an_unknown_authority_is_explained(server_tls: ssl.SSLContext) -> None:
    async with serving(listeners=[listener(server_tls)]) as server:
        with pytest.raises(
            ConnectionFailed, match=r"(?i)no TLS connection to 127\.0\.0\.1:\d+: the peer's certificate: .*issuer"
        ):
            await connect(server, tls=ssl.create_default_context())


async def test_a_wrong_host_name_is_explained(authority: trustme.CA, client_tls: ssl.SSLContext) -> None:
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("pacs.example").configure_cert(other)
    async with serving(listeners=[listener(other)]) as server:
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await connect(server, tls=client_tls)


async def test_tls_to_a_plain_port_is_explained(client_tls: ssl.SSLContext) -> None:
    async with serving() as server:
        with pytest.raises(ConnectionFailed, match=r"no (TLS )?connection"):
            await connect(server, tls=client_tls)
        await assert_alive(server)


async def test_a_plain_request_on_a_tls_port_fails(server_tls: ssl.SSLContext) -> None:
    async with serving(listeners=[listener(server_tls), Listener(port=0)]) as server:
        with pytest.raises(AssociationError):
            await connect(server, port=server.addresses[0][1])
        await assert_alive_at(server.addresses[1][1], lambda port: connect(server, port=port))


async def test_an_association_over_tls_that_is_over_is_not_kept(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Not even until the deadline of its handshake: many short ones would add up to gigabytes."""
    async with serving(listeners=[listener(server_tls)]) as server:
        async with connect(server, tls=client_tls) as association:
            assert (await association.c_echo()).status == 0
            [kept] = map(weakref.ref, server.associations)
        await until(lambda: not server.associations)

        def is_gone() -> bool:
            gc.collect()
            return kept() is None

        await until(is_gone)


async def test_a_failed_handshake_leaves_nothing_behind(server_tls: ssl.SSLContext) -> None:
    """With room for one connection, the next can only come where the one before was forgotten."""
    listeners = [Listener(port=0), listener(server_tls)]
    async with serving(listeners=listeners, timeouts=Timeouts(handshake=SHORT), maximum_connections=1) as server:
        for _ in range(2):
            async with raw_connection(server, server.addresses[1][1]) as peer:
                peer.send(b"GET / HTTP/1.1\r\n\r\n")
                await peer.rest()
            await until(lambda: not server._acceptors)
            await assert_alive(server)


async def test_a_client_that_is_silent_in_the_handshake_is_closed(server_tls: ssl.SSLContext) -> None:
    timeouts = Timeouts(handshake=SHORT)
    async with serving(listeners=[listener(server_tls)], timeouts=timeouts) as server, raw_connection(server) as peer:
        assert await peer.rest() == b""


async def test_a_server_does_not_wait_for_a_handshake_to_stop(server_tls: ssl.SSLContext) -> None:
    listeners = [Listener(port=0), listener(server_tls)]
    timeouts = Timeouts(handshake=1)
    async with (
        serving(listeners=listeners, timeouts=timeouts) as server,
        raw_connection(server, server.addresses[1][1]) as peer,
    ):
        await assert_alive(server)  # the handshake has begun by now, too
        await server.stop()
        assert await peer.rest() == b""


async def assert_alive_at(port: int, request: Callable[[int], object]) -> None:
    async with request(port) as association:  # type: ignore[attr-defined]
        assert (await association.c_echo()).status == 0
