"""A script: C-ECHOs from bytes made beforehand, over a blocking socket: the rate of a server without a client's cost."""

from __future__ import annotations

import argparse
import socket
import ssl
from pathlib import Path

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CEchoRQ
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import ImplementationClassUID, MaximumLength, PresentationContextRQ
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ, AReleaseRQ, PDataTF
from aiodicom.version import IMPLEMENTATION_CLASS_UID
from bench.certificates import tls_context
from bench.client import reported
from bench.processes import LOOPBACK
from bench.raw_tcp import secured


def main() -> None:
    """Send as many C-ECHOs as asked for, on one association."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tls", type=Path, help="the folder of the certificates, for a connection over TLS")
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    context = PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))
    information = (MaximumLength(16_384), ImplementationClassUID(IMPLEMENTATION_CLASS_UID))
    command = encode_command(CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION), has_data_set=False)
    echo = PDataTF((PDV(1, is_command=True, is_last=True, data=command),)).encode()
    tls = tls_context(arguments.tls, ssl.Purpose.SERVER_AUTH)
    with secured(socket.create_connection((LOOPBACK, arguments.port)), tls) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(AAssociateRQ("ANY-SCP", "BENCH", (context,), information).encode())
        _pdu_type(connection, 2)
        with reported():
            for _ in range(arguments.count):
                connection.sendall(echo)
                _pdu_type(connection, 4)
        connection.sendall(AReleaseRQ().encode())
        _pdu_type(connection, 6)


def _pdu_type(connection: socket.socket, expected: int) -> None:
    """Read one PDU (PS3.8 §9.3.1), and make sure that it is of that type."""
    received = connection.recv(16_384)
    while len(received) < 6 or len(received) < 6 + int.from_bytes(received[2:6]):
        more = connection.recv(16_384)
        if not more:
            raise SystemExit("the server closed the connection")
        received += more
    if received[0] != expected:
        raise SystemExit(f"PDU type {received[0]} instead of {expected}")


if __name__ == "__main__":
    main()
