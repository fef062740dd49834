"""Who the user is (T09): types 1 to 5 on both ends, verified or rejected with the Standard's bytes; and no secret is told."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any, Final

import pytest
import trustme

from aiodicom import (
    AssociationRejected,
    IdentityType,
    Listener,
    LocalProtocolError,
    LoggingObserver,
    Peer,
    Server,
    UserIdentity,
)
from aiodicom.remote import RemoteAE
from tests.canaries import PASSCODE, TOKEN
from tests.loopback import (
    PATIENCE,
    Recorder,
    assert_alive,
    connect,
    raw_connection,
    reject_pdu,
    request_pdu,
    serving,
    until,
)

TICKET: Final = b"\x6e\x82\x00\xff ticket"
ASSERTION: Final = "<saml:Assertion>ä</saml:Assertion>"
IDENTITIES: Final = (
    UserIdentity.of_user("ada ä", confirm=True),
    UserIdentity.of_user("ada", PASSCODE, confirm=True),
    UserIdentity.of_kerberos(TICKET, confirm=True),
    UserIdentity.of_saml(ASSERTION, confirm=True),
    UserIdentity.of_jwt(TOKEN, confirm=True),
)


def test_what_identities_are_made_of() -> None:
    assert [each.identity_type for each in IDENTITIES] == list(IdentityType)
    assert [each.primary_field for each in IDENTITIES] == [
        "ada ä".encode(),
        b"ada",
        TICKET,
        ASSERTION.encode(),
        TOKEN.encode(),
    ]
    assert [each.secondary_field for each in IDENTITIES] == [b"", PASSCODE.encode(), b"", b"", b""]
    assert [each.username for each in IDENTITIES] == ["ada ä", "ada", None, None, None]
    assert UserIdentity(1, b"\xff").username is None
    for each in IDENTITIES:
        assert UserIdentity.decode(memoryview(each.encode())[4:]) == each


@pytest.mark.parametrize(
    ("identity", "expected", "is_right"),
    [
        (UserIdentity.of_user("ada", "secret"), "secret", True),
        (UserIdentity.of_user("ada", b"secret"), b"secret", True),
        (UserIdentity.of_user("ada", "geheimß"), "geheimß", True),
        (UserIdentity.of_user("ada", "secret"), "Secret", False),
        (UserIdentity.of_user("ada", "secret"), "secre", False),
        (UserIdentity.of_user("ada", "secret"), "", False),
        (UserIdentity.of_user("ada", ""), "", True),
        (UserIdentity.of_user("ada", "secret"), None, False),
        (UserIdentity.of_user("ada", ""), None, False),
        (UserIdentity.of_user("ada"), "", False),
        (UserIdentity(IdentityType.JWT, b"t", b"secret"), "secret", False),
    ],
)
def test_a_passcode_is_right_or_wrong(identity: UserIdentity, expected: str | bytes | None, is_right: bool) -> None:
    assert identity.has_passcode(expected) is is_right


def test_a_field_too_long_to_say_is_refused_without_its_words() -> None:
    with pytest.raises(LocalProtocolError, match="a field of 66000 bytes") as refused:
        UserIdentity.of_jwt("secret" * 11_000).encode()
    assert "secret" not in str(refused.value)


# Both ends.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def secrets_in(text: str) -> list[str]:
    secrets = [PASSCODE, TOKEN, "ticket", "saml:", "ada"]
    return [secret for secret in secrets if secret in text or secret.encode().hex() in text]


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.identity_type.name)
async def test_each_type_is_verified_over_tls(
    identity: UserIdentity, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    recorder = Recorder()
    async with serving(listeners=[Listener(port=0, tls=server_tls)], observers=(LoggingObserver(), recorder)) as server:
        seen: list[tuple[UserIdentity, Peer]] = []
        response = b"" if identity.username else b"ticket of the server"

        @server.on_user_identity()
        async def verify(identity: UserIdentity, peer: Peer) -> bool | bytes:
            await asyncio.sleep(0)
            seen.append((identity, peer))
            return response or True

        options: dict[str, Any] = {"tls": client_tls, "identity": identity, "observers": (LoggingObserver(),)}
        async with connect(server, **options) as association:
            assert association.terms.identity_response == response
            assert (await association.c_echo()).status == 0
            await recorder.until(lambda: recorder.associations)
            [accepted] = recorder.associations
            told = f"{association!r} {association.terms!r} {accepted!r} {accepted.terms!r} {server!r} {seen!r}"
        [(given, peer)] = seen
        await recorder.until(lambda: recorder.closed)
    assert given == identity
    assert (peer.identity, peer.is_encrypted, peer.identity_is_verified) == (identity, True, False)
    assert accepted.peer.identity_is_verified
    assert secrets_in(told + caplog.text) == []


# Rejected (T09).

RIGHT: Final = UserIdentity.of_user("ada", PASSCODE)
WRONG: Final = UserIdentity.of_user("ada", f"{PASSCODE}?")


async def rejected(server: Server, identity: UserIdentity | None) -> bytes:
    """All that a server says to a request with that identity."""
    async with raw_connection(server) as peer:
        peer.send(request_pdu(items=() if identity is None else (identity,)))
        return await peer.rest()


@pytest.mark.parametrize(
    ("identity", "rule"),
    [
        (None, "by the rule `required` of on_user_identity: it gave none"),
        (WRONG, "by the rule `verify` of on_user_identity: it is of type 2, and was not accepted"),
        (UserIdentity.of_user("ada"), "by the rule `verify`"),
        (UserIdentity.of_kerberos(TICKET), "by the rule `verify`"),
        (UserIdentity.of_saml(ASSERTION), "by the rule `verify`"),
        (UserIdentity.of_jwt(TOKEN), "by the rule `verify`"),
        (UserIdentity(0, b"ada"), "by the rule `types` of on_user_identity: it is of type 0, and there are 1 to 5"),
        (UserIdentity(6, b"ada"), "by the rule `types`"),
        (UserIdentity(255, b"ada"), "by the rule `types`"),
    ],
)
async def test_who_is_not_verified_is_rejected(
    identity: UserIdentity | None, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A-ASSOCIATE-RJ 1/1/1 for whatever is wrong, one line of the log, and the next one is answered."""
    caplog.set_level(logging.DEBUG)
    recorder = Recorder()
    async with serving(observers=(LoggingObserver(), recorder)) as server:

        @server.on_user_identity(allow_plain_passcode=True)
        async def verify(identity: UserIdentity, _peer: Peer) -> bool:
            return identity.has_passcode({"ada": PASSCODE}.get(identity.username or ""))

        assert await rejected(server, identity) == reject_pdu(1, 1, 1)
        async with connect(server, identity=RIGHT, allow_plain_passcode=True) as association:
            assert (await association.c_echo()).status == 0
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert rule in line
    assert line.isprintable()
    assert secrets_in(caplog.text + repr(recorder.refused)) == []


async def test_a_passcode_without_tls_is_refused_before_it_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[UserIdentity] = []
    async with serving(observers=(LoggingObserver(),)) as server:

        @server.on_user_identity()
        async def verify(identity: UserIdentity, _peer: Peer) -> bool:
            asked.append(identity)
            return True

        assert await rejected(server, RIGHT) == reject_pdu(1, 1, 1)
        assert asked == []
        async with connect(server, identity=UserIdentity.of_jwt(TOKEN)) as association:  # others are no passcodes
            assert (await association.c_echo()).status == 0
    assert "by the rule `allow_plain_passcode` of on_user_identity: a passcode came without TLS" in caplog.text


async def test_nor_does_ours_go_out_without_tls() -> None:
    async with serving() as server:
        with pytest.raises(LocalProtocolError, match="use TLS, or allow it with allow_plain_passcode") as refused:
            connect(server, identity=RIGHT)
        with pytest.raises(LocalProtocolError, match="for everybody to read"):
            RemoteAE("127.0.0.1", server.port, identity=RIGHT)
        assert secrets_in(str(refused.value)) == []
        async with RemoteAE(
            "127.0.0.1", server.port, identity=RIGHT, allow_plain_passcode=True, observers=()
        ) as remote:
            assert (await remote.echo()).status == 0


@pytest.mark.parametrize("answer", [False, None, "", "yes", 1, 0, object()])
async def test_only_a_clear_yes_is_one(answer: object) -> None:
    async with serving() as server:

        @server.on_user_identity()
        async def verify(_identity: UserIdentity, _peer: Peer) -> Any:  # noqa: ANN401
            return answer

        assert await rejected(server, UserIdentity.of_user("ada")) == reject_pdu(1, 1, 1)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(PASSCODE),
        RecursionError(),
        MemoryError(),
        asyncio.CancelledError(PASSCODE),
        ssl.SSLError(PASSCODE),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_handler_that_fails_lets_nobody_in(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(observers=(LoggingObserver(),)) as server:
        fails = [True]

        @server.on_user_identity()
        async def verify(_identity: UserIdentity, _peer: Peer) -> bool:
            if fails:
                raise error
            return True

        assert await rejected(server, UserIdentity.of_user("ada")) == reject_pdu(1, 1, 1)
        fails.clear()
        async with connect(server, identity=UserIdentity.of_user("ada")) as association:
            assert (await association.c_echo()).status == 0
    assert secrets_in(caplog.text) == []


async def test_a_handler_may_say_for_which_reason() -> None:
    async with serving() as server:

        @server.on_user_identity()
        async def verify(_identity: UserIdentity, _peer: Peer) -> bool:
            raise AssociationRejected(2, 3, 1)

        assert await rejected(server, UserIdentity.of_user("ada")) == reject_pdu(2, 3, 1)


# Not required.


async def test_without_an_identity_where_none_is_required() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server:

        @server.on_user_identity(required=False)
        async def verify(identity: UserIdentity, _peer: Peer) -> bool:
            return identity.username == "ada"

        await assert_alive(server)
        assert await rejected(server, UserIdentity.of_user("eve")) == reject_pdu(1, 1, 1)
        async with connect(server, identity=UserIdentity.of_user("ada")) as association:
            assert association.terms.identity_response is None  # it did not ask for one
    assert [each.peer.identity_is_verified for each in recorder.associations] == [False, True]


async def test_both_handlers_are_asked_and_the_identity_comes_first() -> None:
    asked: list[str] = []
    async with serving() as server:

        @server.on_associate
        async def decide(peer: Peer) -> bytes | None:
            asked.append(f"associate, {peer.identity_is_verified}")
            if peer.calling_ae_title == "NOBODY":
                raise AssociationRejected(1, 1, 3)
            return b"of the other"

        @server.on_user_identity()
        async def verify(_identity: UserIdentity, _peer: Peer) -> bytes:
            asked.append("identity")
            return b"response"

        assert await rejected(server, None) == reject_pdu(1, 1, 1)
        assert asked == []
        me = UserIdentity.of_jwt(TOKEN, confirm=True)
        async with connect(server, identity=me) as association:
            assert association.terms.identity_response == b"response"
        with pytest.raises(AssociationRejected):
            await connect(server, identity=me, calling_ae_title="NOBODY")
    assert asked == ["identity", "associate, True"] * 2


async def test_a_peer_that_goes_while_it_is_verified() -> None:
    thinks, over = asyncio.Event(), asyncio.Event()
    async with serving() as server:

        @server.on_user_identity()
        async def verify(_identity: UserIdentity, _peer: Peer) -> bool:
            thinks.set()
            try:
                await asyncio.Event().wait()
            finally:
                over.set()
            return True

        async with raw_connection(server) as peer:
            peer.send(request_pdu(items=(UserIdentity.of_user("ada"),)))
            async with asyncio.timeout(PATIENCE):
                await thinks.wait()
        async with asyncio.timeout(PATIENCE):
            await over.wait()
        await until(lambda: not server._acceptors)
