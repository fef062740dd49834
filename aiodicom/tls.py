"""TLS by the profiles of PS3.15 Annex B: by which rules, who we are, whom we believe, and who the peer proved to be.

Only the two profiles that are not retired are here; TLS 1.1 and older, suites without forward secrecy or without AEAD, and
connections without encryption are not to be had.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, TypeAlias

from aiodicom.errors import LocalProtocolError

TLS_PORT: Final = 2762
"""The registered port of DICOM over TLS, `dicom-tls` (PS3.15 §B.12); never one for connections without TLS, too."""

Verify: TypeAlias = Literal["required", "optional", "none"]
VERIFY: Final = ("required", "optional", "none")

LOOK_EVERY: Final = 1.0
"""How many seconds pass at least between two looks whether a file has changed."""

_CERTIFICATE_SUFFIXES: Final = frozenset({".pem", ".crt", ".cer", ".der"})
_log: Final = logging.getLogger("aiodicom.tls")


@dataclass(frozen=True, slots=True)
class Profile:
    """A TLS Secure Transport Connection Profile (PS3.15 Annex B), of TLS 1.2 and 1.3.

    Args:
        name: how it is called here.
        title: how the Standard calls it.
        section: where it stands in PS3.15.
        cipher_suites: those of TLS 1.2, as OpenSSL calls them. Of TLS 1.3 there are those that OpenSSL has by default:
            AES-256-GCM, ChaCha20-Poly1305, AES-128-GCM.
    """

    name: str
    title: str
    section: str
    cipher_suites: tuple[str, ...]


_RECOMMENDED: Final = (  # RFC 9325 §4.2
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("bcp195", "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile", "B.12", _RECOMMENDED),
            Profile(
                "bcp195-modified",
                "Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile",
                "B.13",
                (
                    *_RECOMMENDED,
                    "ECDHE-ECDSA-CHACHA20-POLY1305",
                    "ECDHE-RSA-CHACHA20-POLY1305",
                    "ECDHE-ECDSA-AES256-CCM",
                    "ECDHE-ECDSA-AES128-CCM",
                    "ECDHE-ECDSA-AES256-CCM8",
                    "ECDHE-ECDSA-AES128-CCM8",
                ),
            ),
        )
    }
)
"""By name."""

DEFAULT_PROFILE: Final = "bcp195"

_FILE: Final = (str, "the name of a file")
_KEYS: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "certificate": _FILE,
    "key": _FILE,
    "authorities": ((str, list), "the name of a file or a folder, or an array of such names"),
    "profile": (str, "a string"),
    "verify": (str, "a string"),
    "check_host": (bool, "true or false"),
}

_BAD_CERTIFICATE: Final = (
    "the peer does not take our certificate: is it for this purpose, and of an authority that the peer knows?"
)
_NO_TLS: Final = "the peer speaks no TLS: switch it on there, or do without: -tls to call, --plain-port to listen"
_NO_CERTIFICATE: Final = (
    "the peer wants a certificate of ours: name its file and that of its key (--tls-cert, --tls-key)"
)
_OTHER_RULES: Final = (
    "no version of TLS, or no cipher suite, in common: we take TLS 1.2 and 1.3 with those of our profile"
)

# What OpenSSL calls it, and what to do next.
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer shows no certificate: give it one, or ask for none (--tls-verify)",
    "UNSUPPORTED_PROTOCOL": _OTHER_RULES,
    "NO_SHARED_CIPHER": _OTHER_RULES,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OTHER_RULES,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _OTHER_RULES,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": f"{_OTHER_RULES}; or {_NO_CERTIFICATE}",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NO_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not believe who issued our certificate: make that authority known to it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: renew it",
    "SSLV3_ALERT_BAD_CERTIFICATE": _BAD_CERTIFICATE,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _BAD_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _BAD_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _BAD_CERTIFICATE,
}
_UNKNOWN_AUTHORITY: Final = "if you believe who issued it, name the file of that authority (--tls-ca)"
_OTHER_HOST: Final = "ask for the peer by a name in its certificate, or leave that check out (--tls-no-host-check)"

# X509_V_ERR_…, and what to do next.
_VERIFICATION: Final = {
    9: "is the clock of either side wrong?",
    10: "whoever runs the peer must renew it; or is our clock wrong?",
    **dict.fromkeys((18, 19, 20, 21), _UNKNOWN_AUTHORITY),
    **dict.fromkeys((62, 63, 64), _OTHER_HOST),
}


def explained(error: Exception) -> str:
    """Return why there is no TLS connection, and what to do next.

    Args:
        error: of the handshake, or of what came behind it.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _VERIFICATION.get(error.verify_code, "")
        return f"the peer's certificate: {error.verify_message.rstrip('.')}{f'; {advice}' if advice else ''}"
    if isinstance(error, ssl.SSLError) and error.reason:
        advice = _REASONS.get(error.reason, "")
        words = error.reason.replace("_", " ").lower()
        return f"{advice} ({words})" if advice else words
    return str(error)


@dataclass(slots=True)
class Credentials:
    """Who we are over TLS, whom we believe, and by which profile; for servers and for clients.

    All files are read when they are first needed, and again when one has changed, so that a certificate is renewed without
    a restart: connections from then on have the new one. Where the new files are wrong, that is logged, and the ones before
    stay in use.

    Args:
        certificate: a PEM file with our certificate, and those between it and its authority; None shows none, which a
            server cannot.
        key: a PEM file with its private key, not encrypted; by default it stands in the same file.
        authorities: files with the certificates of those whom we believe, in PEM or DER, or folders of such files. By
            default a client believes those that the system does, and a server nobody.
        profile: a name of `PROFILES`.
        verify: whether the peer must show a certificate of an authority of ours: "required"; "optional", where a client may
            show none, but no other; or "none": then anybody is at the other end.
        check_host: whether the certificate of a server must be for the host that was asked for.

    Raises:
        LocalProtocolError: when it is made or first used: a file is wrong, or missing; the message begins with which.
    """

    certificate: Path | str | None = None
    key: Path | str | None = None
    authorities: Path | str | Iterable[Path | str] = ()
    profile: str = DEFAULT_PROFILE
    verify: Verify = "required"
    check_host: bool = True
    _authorities: tuple[Path, ...] = field(default=(), init=False, repr=False, compare=False)
    _unchecked: Credentials | None = field(default=None, init=False, repr=False, compare=False)
    _contexts: dict[bool, ssl.SSLContext] = field(default_factory=dict, init=False, repr=False, compare=False)
    _seen: object = field(default=None, init=False, repr=False, compare=False)
    _look_at: float = field(default=0.0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise LocalProtocolError(f"profile: {self.profile!r} is none: say {' or '.join(PROFILES)}")
        if self.verify not in VERIFY:
            raise LocalProtocolError(f"verify: {self.verify!r} is none: say {', '.join(VERIFY)}")
        if self.key is not None and self.certificate is None:
            raise LocalProtocolError(f"{os.fspath(self.key)}: is a key without a certificate: name that, too")
        names = self.authorities
        self._authorities = (Path(names),) if isinstance(names, str | Path) else tuple(map(Path, names))

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server for its next connection.

        Raises:
            LocalProtocolError: at the first time: see above.
        """
        return self._context(is_server=True)

    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client for its next connection.

        Raises:
            LocalProtocolError: at the first time: see above.
        """
        return self._context(is_server=False)

    def without_host_check(self) -> Credentials:
        """Return the same, except that the certificate of a server may be for any host."""
        if not self.check_host:
            return self
        if self._unchecked is None:  # made once, as are its contexts
            self._unchecked = replace(self, check_host=False)
        return self._unchecked

    def reload(self) -> bool:
        """Read all files again now; return whether they can be used. Where they cannot, the ones before stay in use."""
        try:
            self._contexts = {is_server: self._made(is_server=is_server) for is_server in self._contexts}
        except LocalProtocolError as error:
            _log.error("the TLS certificates were not read again, those before stay in use: %s", error)
            return False
        _log.info("the TLS certificates were read again")
        return True

    def _context(self, *, is_server: bool) -> ssl.SSLContext:
        now = time.monotonic()
        if now >= self._look_at or is_server not in self._contexts:
            self._look_at = now + LOOK_EVERY
            seen = tuple(map(_stamp, self._files()))
            if self._contexts and seen != self._seen:
                self.reload()
            self._seen = seen  # what is wrong is told of once
        if is_server not in self._contexts:
            self._contexts[is_server] = self._made(is_server=is_server)
        return self._contexts[is_server]

    def _files(self) -> Iterator[Path]:
        """Yield all that is read; of a folder its own time tells when a file is added or taken away."""
        yield from (Path(path) for path in (self.certificate, self.key) if path is not None)
        yield from self._authorities

    def _made(self, *, is_server: bool) -> ssl.SSLContext:
        if is_server and self.certificate is None:
            raise LocalProtocolError(
                "certificate: is missing: a server shows one; name its file and that of its key (--tls-cert, --tls-key)"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{':'.join(PROFILES[self.profile].cipher_suites)}:@SECLEVEL=2")
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        # Of the certificates that hospitals make themselves, many lack what RFC 5280 demands of an authority's; and whoever
        # names the certificate of one peer is to get that peer, and no other.
        context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = not is_server and self.check_host and self.verify != "none"
        context.verify_mode = self._verify_mode(is_server)
        if is_server:
            context.num_tickets = 0  # nobody resumes a session of DICOM
        self._load_certificate(context)
        if context.verify_mode is not ssl.CERT_NONE:
            self._load_authorities(context, is_server=is_server)
        return context

    def _verify_mode(self, is_server: bool) -> ssl.VerifyMode:
        if self.verify == "none":
            return ssl.CERT_NONE
        return ssl.CERT_OPTIONAL if is_server and self.verify == "optional" else ssl.CERT_REQUIRED

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        if self.certificate is None:
            return
        key = self.key or self.certificate
        for path in {os.fspath(self.certificate), os.fspath(key)}:
            _read(path)  # OpenSSL says only that one of them is missing

        def encrypted() -> NoReturn:
            raise LocalProtocolError(
                f"{key}: the key is encrypted: write it in clear, by openssl pkey -in {key} -out …"
            )

        try:
            context.load_cert_chain(self.certificate, key, encrypted)
        except ssl.SSLError as error:
            raise LocalProtocolError(self._why_not(error)) from None

    def _why_not(self, error: ssl.SSLError) -> str:
        certificate, key = self.certificate, self.key or self.certificate
        match error.reason:
            case "KEY_VALUES_MISMATCH":
                return f"{key}: is not the key of the certificate in {certificate}: name the two that belong together"
            case "EE_KEY_TOO_SMALL" | "CA_MD_TOO_WEAK" | "CA_KEY_TOO_SMALL":
                return (
                    f"{certificate}: is too weak ({error.reason}): RSA wants 2048 bits, ECDSA 256, and SHA-256 (PS3.15)"
                )
        return f"{certificate} and {key}: are no certificate and private key in PEM ({error.reason or error})"

    def _load_authorities(self, context: ssl.SSLContext, *, is_server: bool) -> None:
        paths = self._authorities
        if not paths and is_server:
            raise LocalProtocolError(
                "authorities: are missing: name the file of those who issue the certificates of your peers (--tls-ca), "
                "or do not look at these (--tls-verify none)"
            )
        if not paths:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        for path in paths:
            try:
                found = sorted(filter(_is_certificate, path.iterdir())) if path.is_dir() else [path]
            except OSError as error:
                raise LocalProtocolError(f"{path}: cannot be read: {error.strerror}") from None
            if not found:
                raise LocalProtocolError(f"{path}: is a folder without certificates (*.pem, *.crt, *.cer, *.der)")
            for file in found:
                _load_authority(context, file)


def server_context(tls: Credentials | ssl.SSLContext) -> ssl.SSLContext:
    """Return the context of a server for its next connection."""
    return tls.server_context() if isinstance(tls, Credentials) else tls


def client_context(tls: Credentials | ssl.SSLContext) -> ssl.SSLContext:
    """Return the context of a client for its next connection."""
    return tls.client_context() if isinstance(tls, Credentials) else tls


def credentials_from(folder: Path, table: Mapping[str, object]) -> Credentials:
    """Return the credentials that stand in a table `[tls]`: its keys are the arguments of `Credentials`.

    Args:
        folder: where the files are that are named without one.
        table: of an `aiodicom.toml`.

    Raises:
        LocalProtocolError: a key is none of them, or a value none of that key; the message begins with the key.
    """
    values: dict[str, Any] = dict(table)
    for key, value in values.items():
        if key not in _KEYS:
            raise LocalProtocolError(f"{key}: is no key of TLS; they are {', '.join(_KEYS)}")
        types, words = _KEYS[key]
        if not isinstance(value, types) or (
            isinstance(value, list) and not all(isinstance(each, str) for each in value)
        ):
            raise LocalProtocolError(f"{key}: is not {words}")
    for key in ("certificate", "key"):
        if key in values:
            values[key] = folder / values[key]
    if authorities := values.get("authorities"):
        names = [authorities] if isinstance(authorities, str) else authorities
        values["authorities"] = [folder / name for name in names]
    return Credentials(**values)


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise LocalProtocolError(f"{path}: cannot be read: {error.strerror}") from None


def _is_certificate(path: Path) -> bool:
    return path.suffix in _CERTIFICATE_SUFFIXES and path.is_file()


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    content = _read(path)
    try:
        is_pem = b"-----BEGIN" in content
        context.load_verify_locations(cadata=content.decode("ascii", "replace") if is_pem else content)
    except (ssl.SSLError, ValueError):
        raise LocalProtocolError(f"{path}: is no certificate in PEM or DER") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


_SHORT_NAMES: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "countryName": "C",
}


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate (RFC 5280) that a peer proved to have in its TLS handshake.

    Where we did not ask who issued it, only the fingerprint is known: everything else is what anybody may write into one.

    Args:
        fingerprint: SHA-256 of the certificate in DER, in lower-case hexadecimal digits.
        is_verified: whether an authority of ours issued it; where it is not, the rest is empty.
        subject: whose it is, such as "CN=ct1.example, O=Hospital".
        issuer: who issued it, likewise.
        names: whose it is, for rules: its alternative names that are of DNS, IP addresses or URIs; only where it has no
            alternative names at all, its common names. All but URIs are in lower case.
        serial_number: in upper-case hexadecimal digits.
        not_before: from when on it is valid, in UTC.
        not_after: until when it is valid, likewise.
    """

    fingerprint: str
    is_verified: bool = False
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    serial_number: str = ""
    not_before: datetime | None = None
    not_after: datetime | None = None

    def __str__(self) -> str:
        return f"{self.subject or 'a certificate not verified'} (SHA-256 {self.fingerprint})"


def certificate_of(ssl_object: object) -> PeerCertificate | None:
    """Return the certificate of the peer.

    Args:
        ssl_object: what the asyncio transport knows by that name.

    Returns:
        None where there is no TLS, or the peer showed none.
    """
    if not isinstance(ssl_object, ssl.SSLObject) or (encoded := ssl_object.getpeercert(binary_form=True)) is None:
        return None
    fingerprint = hashlib.sha256(encoded).hexdigest()
    # Of one that was not verified OpenSSL's bindings tell nothing.
    certificate: dict[str, Any] = dict(ssl_object.getpeercert() or {})
    if not certificate:
        return PeerCertificate(fingerprint)
    return PeerCertificate(
        fingerprint,
        is_verified=True,
        subject=_distinguished_name(certificate["subject"]),
        issuer=_distinguished_name(certificate["issuer"]),
        names=_names(certificate),
        serial_number=certificate["serialNumber"],
        not_before=_time(certificate["notBefore"]),
        not_after=_time(certificate["notAfter"]),
    )


def _names(certificate: dict[str, Any]) -> tuple[str, ...]:
    if alternatives := certificate.get("subjectAltName"):
        return tuple(_alternative_names(alternatives))
    return tuple(value.lower() for part in certificate["subject"] for kind, value in part if kind == "commonName")


def _alternative_names(names: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for kind, value in names:
        match kind:
            case "DNS":
                yield value.lower()
            case "IP Address":
                with suppress(ValueError):  # one that is none
                    yield str(ip_address(value.strip()))  # of all ways to write it the shortest
            case "URI":
                yield value


def _distinguished_name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """Return it in a line, the parts of a name as `_escaped` has them."""
    return ", ".join(
        "+".join(f"{_SHORT_NAMES.get(kind, kind)}={_escaped(value)}" for kind, value in part) for part in name
    )


def _escaped(text: str) -> str:
    """Return it without what ends a part of a name (RFC 4514 §2.4) or a line of a log."""
    return "".join(
        f"\\{each}" if each in ',+"\\<>;=' else each if each.isprintable() else f"\\u{ord(each):04x}" for each in text
    )


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
