"""Both ends of a measurement over TLS show a certificate, and look at the other's: the contexts, and certificates to use.

TLS 1.3 alone (PS3.15 §B.9 to §B.12 allow it), with what OpenSSL prefers of it, which is what DCMTK negotiates, too.
"""

from __future__ import annotations

import atexit
import shutil
import ssl
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

AUTHORITY: Final = "authority.pem"
CERTIFICATE: Final = "certificate.pem"
KEY: Final = "key.pem"


@cache
def certificates() -> Path:
    """Make an authority and a certificate of it for both ends; return their folder, which is gone when we are."""
    import trustme  # the ends need no more than the files

    folder = Path(tempfile.mkdtemp(prefix="aiodicom-bench-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / AUTHORITY)
    issued = authority.issue_cert("127.0.0.1", "localhost")
    (folder / CERTIFICATE).write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(folder / KEY)
    return folder


def dcmtk_options(folder: Path) -> tuple[str, ...]:
    """Return what makes a program of DCMTK speak TLS."""
    return ("+tls", str(folder / KEY), str(folder / CERTIFICATE), "+cf", str(folder / AUTHORITY))


def tls_context(folder: Path | None, purpose: ssl.Purpose) -> ssl.SSLContext | None:
    """Return the context of an end in Python, which checks who its peer is; None without certificates."""
    if folder is None:
        return None
    context = ssl.create_default_context(purpose, cafile=str(folder / AUTHORITY))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return context
