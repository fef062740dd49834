"""TLS (PS3.15 Annex B): the peer's certificate."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

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
        names: whose it is, for rules: its alternative names that are of DNS (in lower case), IP addresses or URIs; only
            where it has no alternative names at all, its common names.
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
    return tuple(value for part in certificate["subject"] for kind, value in part if kind == "commonName")


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
