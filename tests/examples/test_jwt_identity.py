"""The token of an issuer lets in; one that is wrong in any way does not, and is not told."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import aiodicom
from tests.examples.loading import load, on_a_free_port
from tests.loopback import connect
from tests.peers.comparing import bundled
from tests.peers.dcmtk import run

FOR_EVER: Final = 100 * 365 * 24 * 3600  # seconds: no clock of a test's is to matter
CLAIMS: Final[Mapping[str, Any]] = {
    "iss": "https://login.hospital.example",
    "aud": "ARCHIVE",
    "sub": "ada",
    "ae_title": "SCU",
    "exp": time.time() + FOR_EVER,
}


def key_pair() -> tuple[str, str]:
    """A private and a public key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


PRIVATE, PUBLIC = key_pair()
FOREIGN, _ = key_pair()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> aiodicom.Server:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISSUER_KEY", str(tmp_path / "issuer.pem"))
    (tmp_path / "issuer.pem").write_text(PUBLIC)
    return on_a_free_port(load("jwt_identity"))


def token(key: str = PRIVATE, algorithm: str = "ES256", **changes: Any) -> str:  # noqa: ANN401 - of JSON
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm)


async def test_a_good_token_lets_in(server: aiodicom.Server) -> None:
    identity = aiodicom.UserIdentity.of_jwt(token(), confirm=True)
    async with server, connect(server, identity=identity) as association:
        assert association.terms.identity_response == b""
        assert (await association.c_echo()).status == 0


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(None, id="none"),
        pytest.param(aiodicom.UserIdentity.of_user("ada"), id="a username"),
        pytest.param(aiodicom.UserIdentity.of_saml(token()), id="of another type"),
        pytest.param(aiodicom.UserIdentity.of_jwt("no token"), id="no token"),
        pytest.param(aiodicom.UserIdentity.of_jwt(b"\xff" * 100), id="bytes"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token()[:-4]), id="a signature cut short"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token(FOREIGN)), id="of another issuer's key"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token("", "none")), id="not signed"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token("x" * 32, "HS256")), id="of another algorithm"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token(exp=1_000_000_000)), id="expired"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token(exp=None)), id="never expires"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token(aud="OTHER")), id="for another"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token(iss="https://evil.example")), id="of another issuer"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token(ae_title="OTHER")), id="of another AE title"),
        pytest.param(aiodicom.UserIdentity.of_jwt(token(ae_title=None)), id="of no AE title"),
    ],
)
async def test_no_other_does(
    server: aiodicom.Server, identity: aiodicom.UserIdentity | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with server:
        with pytest.raises(aiodicom.AssociationRejected) as rejected:
            await connect(server, identity=identity)
        error = rejected.value
        assert (error.result, error.source, error.reason) == (1, 1, 1)
        async with connect(server, identity=aiodicom.UserIdentity.of_jwt(token())) as association:
            assert (await association.c_echo()).status == 0
    if identity is not None and len(identity.primary_field) > 3:
        assert identity.primary_field.decode("latin-1") not in caplog.text


async def test_storescu_with_a_token(server: aiodicom.Server, tmp_path: Path) -> None:
    path = tmp_path / "token.jwt"
    path.write_text(token(ae_title="STORESCU"))
    async with server:
        command = ("127.0.0.1", str(server.port), bundled("CT_small.dcm").path)
        done = await run("storescu", "--jwt", path, "-rsp", *command)
        refused = await run("storescu", *command)
    assert done.exit_code == 0, done
    assert refused.exit_code != 0
    assert len(list((tmp_path / "received").iterdir())) == 1
