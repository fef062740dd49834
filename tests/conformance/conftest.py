"""Certificates for the cases of TLS: right ones, an expired one, and one of an issuer that nobody knows."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme


@pytest.fixture
def tls_options() -> dict[str, Any]:
    """What the suite is told of a server over TLS; and, as `server_tls`, the context of that server."""
    authority, stranger = trustme.CA(), trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED

    def client(certificate: trustme.LeafCert) -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        certificate.configure_cert(context)
        return context

    yesterday = datetime.now(UTC) - timedelta(days=1)
    return {
        "server_tls": server,
        "tls": client(authority.issue_cert("suite")),
        "presents_certificate": True,
        "tls_foreign": client(stranger.issue_cert("suite")),
        "tls_expired": client(authority.issue_cert("suite", not_after=yesterday)),
    }
