"""A script: bytes over a loopback TCP connection and nothing else, the limit that a transfer of any protocol has here.

Over TLS it is OpenSSL's own speed: blocking sockets of Python's `ssl`, which give it 1 MiB at a time to send, and do nothing
but call it again for each record that it receives.
"""

from __future__ import annotations

import argparse
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.certificates import tls_context
from bench.client import reported
from bench.processes import LOOPBACK

CHUNK: Final = 1024 * 1024


def main() -> None:
    """Receive connections for ever, or send as many bytes as the files of a folder have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tls", type=Path, help="the folder of the certificates, for a connection over TLS")
    parser.add_argument("role", choices=["serve", "send"])
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.role == "serve":
        serve(arguments.port, tls_context(arguments.tls, ssl.Purpose.CLIENT_AUTH))
    else:
        length = sum(path.stat().st_size for path in arguments.folder.iterdir())
        send(arguments.port, length, tls_context(arguments.tls, ssl.Purpose.SERVER_AUTH))


def serve(port: int, tls: ssl.SSLContext | None) -> None:
    """Read each connection to its end, and end it, too."""
    buffer = bytearray(CHUNK)
    with socket.create_server((LOOPBACK, port)) as listener:
        while True:
            connection, _ = listener.accept()
            with suppress(OSError), secured(connection, tls, server_side=True) as peer:  # who looks says nothing
                while peer.recv_into(buffer):
                    pass
                if isinstance(peer, ssl.SSLSocket):
                    peer.unwrap()


def send(port: int, length: int, tls: ssl.SSLContext | None) -> None:
    """Send so many bytes, and wait until all were read."""
    chunk = bytes(CHUNK)
    with reported(), secured(socket.create_connection((LOOPBACK, port)), tls) as peer:
        for _ in range(length // CHUNK):
            peer.sendall(chunk)
        peer.sendall(chunk[: length % CHUNK])
        if isinstance(peer, ssl.SSLSocket):
            peer.unwrap()
        else:
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)


def secured(connection: socket.socket, tls: ssl.SSLContext | None, *, server_side: bool = False) -> socket.socket:
    """Return the connection with TLS over it, if that is wanted."""
    if tls is None:
        return connection
    name = None if server_side else LOOPBACK
    return tls.wrap_socket(connection, server_side=server_side, server_hostname=name)


if __name__ == "__main__":
    main()
