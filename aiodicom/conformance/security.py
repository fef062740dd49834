"""T20: who may not even begin, where TLS is spoken (PS3.15 Annex B.12)."""

from __future__ import annotations

import ssl
import struct
from typing import Final

from aiodicom.conformance.case import Case, Differs
from aiodicom.conformance.peer import CLOSED, RESET, Peer, connection, request_to
from aiodicom.conformance.target import Target
from aiodicom.conformance.waiting import due

_SECTION: Final = "PS3.15 §B.12"
_ALERT: Final = 0x15
_DICOM: Final = range(1, 8)  # what a PDU begins with

# A ClientHello that knows nothing beyond TLS 1.1, and suites of its time.
_BODY: Final = struct.pack(">H32xB", 0x0302, 0) + bytes.fromhex("0004 c013 002f 01 00")
_HANDSHAKE: Final = struct.pack(">BxH", 1, len(_BODY)) + _BODY
TLS_1_1_HELLO: Final = struct.pack(">BHH", 0x16, 0x0301, len(_HANDSHAKE)) + _HANDSHAKE


async def _plain(target: Target) -> None:
    async with connection(target, is_plain=True) as peer:
        await peer.say(request_to(target))
        heard = await _first_bytes(peer)
        if heard[:1] and heard[0] in _DICOM:
            raise Differs("not a byte of DICOM", heard[:10].hex(" "))


async def _old_version(target: Target) -> None:
    async with connection(target, is_plain=True) as peer:
        await peer.say(TLS_1_1_HELLO)
        heard = await _first_bytes(peer)
        if (heard[:1], heard[6:7]) != (bytes((_ALERT,)), b"\x46"):
            raise Differs("TLS alert 70 (protocol_version)", heard[:10].hex(" ") or peer.ended)


async def _first_bytes(peer: Peer) -> bytes:
    heard = await peer.everything()
    if not peer.ended:
        raise Differs(CLOSED, "still open")
    return heard


async def _silence(target: Target) -> None:
    async with connection(target, is_plain=True) as peer:
        patience = target.handshake + 2 * target.tolerance + target.patience
        await due(peer.heard(patience), target.handshake, 2 * target.tolerance, CLOSED, RESET)


async def _refused(target: Target, tls: ssl.SSLContext) -> None:
    """Be refused: with TLS 1.3 the client's part of the handshake is over before the acceptor has looked."""
    try:
        async with connection(target, tls=tls) as peer:
            await peer.say(request_to(target))
            heard = await peer.heard()
    except (ssl.SSLError, ConnectionError):
        return
    if heard not in (CLOSED, RESET) and not heard.startswith("TLS alert"):
        raise Differs("a handshake that fails", heard)


async def _no_certificate(target: Target) -> None:
    assert target.tls is not None
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE  # it is the other end's look that counts here
    await _refused(target, bare)


async def _foreign(target: Target) -> None:
    assert target.tls_foreign is not None
    await _refused(target, target.tls_foreign)


async def _expired(target: Target) -> None:
    assert target.tls_expired is not None
    await _refused(target, target.tls_expired)


CASES: Final = (
    Case("T20/plain", "an A-ASSOCIATE-RQ without TLS", _SECTION, _plain, ("TLS",)),
    Case("T20/TLS-1.1", "a ClientHello of TLS 1.1", _SECTION, _old_version, ("TLS",)),
    Case("T20/no-certificate", "a client without a certificate", _SECTION, _no_certificate, ("TLS", "certificate")),
    Case("T20/foreign", "a certificate of an unknown issuer", _SECTION, _foreign, ("TLS", "foreign certificate")),
    Case("T20/expired", "a certificate that has expired", _SECTION, _expired, ("TLS", "expired certificate")),
    Case("T20/silent", "a client that does not begin the handshake", _SECTION, _silence, ("TLS",), is_slow=True),
)
