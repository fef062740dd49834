"""Credentials: what their files may be, what is said where they are wrong, and that they are read again."""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives import serialization

from aiodicom import ConnectionFailed, Credentials, Listener, LocalProtocolError, read_credentials
from aiodicom.tls import PROFILES
from tests.certificates import Certificates
from tests.loopback import connect, serving

TLS_1_3 = {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_the_profiles_are_those_of_the_standard_that_are_not_retired() -> None:
    assert [(profile.section, profile.title) for profile in PROFILES.values()] == [
        ("B.12", "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile"),
        ("B.13", "Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile"),
    ]


@pytest.mark.parametrize("name", PROFILES)
def test_a_context_has_what_its_profile_has_and_nothing_else(certificates: Certificates, name: str) -> None:
    credentials = certificates.credentials(certificates.server, profile=name)
    for context in (credentials.server_context(), credentials.client_context()):
        suites = [suite["name"] for suite in context.get_ciphers()]
        assert [suite for suite in suites if suite not in TLS_1_3] == list(PROFILES[name].cipher_suites)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.maximum_version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.MAXIMUM_SUPPORTED)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert credentials.client_context().check_hostname
    assert not credentials.without_host_check().client_context().check_hostname


def test_authorities_may_be_in_der_or_in_a_folder(certificates: Certificates, tmp_path: Path) -> None:
    pem = certificates.authority().read_text()
    (tmp_path / "one.der").write_bytes(ssl.PEM_cert_to_DER_cert(pem))
    (tmp_path / "other.pem").write_text(certificates.authority("foreign").read_text())
    (tmp_path / "notes.txt").write_text("nothing of ours")
    for authorities, count in ((tmp_path / "one.der", 1), (tmp_path, 2)):
        context = certificates.credentials(authorities=authorities).client_context()
        assert len(context.get_ca_certs()) == count


def test_what_is_wrong_is_said_with_its_file(certificates: Certificates, tmp_path: Path) -> None:
    good, other = certificates.server, certificates.client
    nothing, text, folder = tmp_path / "nothing.pem", tmp_path / "text.pem", tmp_path / "folder"
    text.write_text("no certificate")
    folder.mkdir()
    encrypted = tmp_path / "encrypted.key"
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    encrypted.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    faults: dict[str, Callable[[], Credentials]] = {
        f"{nothing}: cannot be read: No such file": lambda: Credentials(nothing),
        f"{text} and {text}: are no certificate and private key in PEM": lambda: Credentials(text),
        f"{other.key}: is not the key of the certificate in {good.certificate}": lambda: Credentials(
            good.certificate, other.key
        ),
        f"{encrypted}: the key is encrypted: write it in clear": lambda: Credentials(good.certificate, encrypted),
        f"{text}: is no certificate in PEM or DER": lambda: Credentials(authorities=[text]),
        f"{folder}: is a folder without certificates": lambda: Credentials(authorities=folder),
        f"{good.key}: is a key without a certificate": lambda: Credentials(key=good.key),
        "profile: 'bcp196' is none: say bcp195 or bcp195-modified": lambda: Credentials(profile="bcp196"),
        "verify: 'maybe' is none": lambda: Credentials(verify="maybe"),  # type: ignore[arg-type]
    }
    for said, credentials in faults.items():
        with pytest.raises(LocalProtocolError) as raised:
            credentials().client_context()
        assert said in str(raised.value)


def test_a_server_needs_a_certificate_and_somebody_to_believe(certificates: Certificates) -> None:
    with pytest.raises(LocalProtocolError, match=r"^certificate: is missing.*--tls-cert"):
        certificates.credentials().server_context()
    pair = certificates.server
    with pytest.raises(LocalProtocolError, match=r"^authorities: are missing.*--tls-ca.*--tls-verify none"):
        Credentials(pair.certificate, pair.key).server_context()
    assert Credentials(pair.certificate, pair.key, verify="none").server_context().verify_mode is ssl.CERT_NONE


def test_credentials_stand_in_a_table_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "aiodicom.toml"

    def read(table: str) -> Credentials:
        file.write_text(f"{table}\n[limits]\nidle = 1\n")
        return read_credentials(file)

    found = read('[tls]\ncertificate = "a.pem"\nkey = "/k/a.key"\nauthorities = ["b.pem"]\nverify = "optional"')
    assert (found.certificate, found.key) == (tmp_path / "a.pem", Path("/k/a.key"))
    assert found == Credentials(tmp_path / "a.pem", Path("/k/a.key"), [tmp_path / "b.pem"], verify="optional")
    assert read("") == Credentials()
    for table, said in {
        'cert = "a"': "cert: is no key of TLS; they are certificate, key, authorities",
        "certificate = 1": "certificate: is not the name of a file",
        "authorities = [1]": "authorities: is not the name of a file or a folder, or an array of such names",
        'check_host = "no"': "check_host: is not true or false",
        'profile = "aes"': "profile: 'aes' is none",
    }.items():
        with pytest.raises(LocalProtocolError) as raised:
            read(f"[tls]\n{table}")
        assert str(raised.value).startswith(f"{file}: [tls]: {said}")
    with pytest.raises(LocalProtocolError, match="is no table; write \\[tls\\]"):
        read("tls = true").client_context()


async def shown(server: object, credentials: Credentials) -> str:
    """The fingerprint of what a server shows."""
    async with connect(server, tls=credentials) as association:  # type: ignore[arg-type]
        assert association.peer.certificate is not None
        return association.peer.certificate.fingerprint


async def test_a_certificate_is_renewed_without_a_restart(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aiodicom.tls.LOOK_EVERY", 0.0)
    caplog.set_level(logging.INFO, "aiodicom.tls")
    pair, new = certificates.issue("renewed"), certificates.issue("new")
    client = certificates.credentials(certificates.client)
    tls = certificates.credentials(pair)
    async with serving(listeners=[Listener(port=0, tls=tls)]) as server, connect(server, tls=client) as before:
        first = await shown(server, client)
        pair.certificate.write_bytes(new.certificate.read_bytes())  # and not yet its key
        assert await shown(server, client) == first
        assert await shown(server, client) == first
        assert [record.levelname for record in caplog.records] == ["ERROR"]  # said once
        assert f"{pair.key}: is not the key of the certificate" in caplog.text
        pair.key.write_bytes(new.key.read_bytes())
        assert await shown(server, client) != first
        assert (await before.c_echo()).status == 0  # what is established stays
        pair.certificate.unlink()
        second = await shown(server, client)
    assert second != first
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]


def test_a_folder_that_cannot_be_read_any_more_leaves_those_before_in_use(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("aiodicom.tls.LOOK_EVERY", 0.0)
    (tmp_path / "one.pem").write_bytes(certificates.authority().read_bytes())
    tls = certificates.credentials(certificates.server, authorities=tmp_path)
    before = tls.server_context()
    (tmp_path / "other.pem").write_bytes(certificates.authority("foreign").read_bytes())
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert tls.server_context() is before
    assert f"{tmp_path}: cannot be read: Permission denied" in caplog.text
    with pytest.raises(LocalProtocolError, match="cannot be read"):
        certificates.credentials(certificates.server, authorities=tmp_path).server_context()


async def test_an_authority_that_is_no_longer_believed_lets_nobody_in(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodicom.tls.LOOK_EVERY", 0.0)
    believed = certificates.folder / "believed.pem"
    believed.write_bytes(certificates.authority().read_bytes())
    tls = certificates.credentials(certificates.server, authorities=believed)
    ours = certificates.credentials(certificates.client)
    theirs = certificates.credentials(certificates.foreign)
    async with serving(listeners=[Listener(port=0, tls=tls)]) as server:
        await shown(server, ours)
        with pytest.raises(ConnectionFailed):
            await shown(server, theirs)
        believed.write_bytes(certificates.authority("foreign").read_bytes())
        with pytest.raises(ConnectionFailed, match="does not believe who issued our certificate"):
            await shown(server, ours)
        await shown(server, theirs)
