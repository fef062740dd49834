"""A script: bytes over a loopback TCP connection and nothing else, the limit that a transfer of any protocol has here."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path
from typing import Final

from bench.client import reported
from bench.processes import LOOPBACK

CHUNK: Final = 1024 * 1024


def main() -> None:
    """Receive connections for ever, or send as many bytes as the files of a folder have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["serve", "send"])
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.role == "serve":
        serve(arguments.port)
    else:
        send(arguments.port, sum(path.stat().st_size for path in arguments.folder.iterdir()))


def serve(port: int) -> None:
    """Read each connection to its end, and answer with one byte."""
    buffer = bytearray(CHUNK)
    with socket.create_server((LOOPBACK, port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv_into(buffer):
                    pass
                connection.sendall(b"!")


def send(port: int, length: int) -> None:
    """Send so many bytes, and wait until all were read."""
    chunk = bytes(CHUNK)
    with reported(), socket.create_connection((LOOPBACK, port)) as connection:
        for _ in range(length // CHUNK):
            connection.sendall(chunk)
        connection.sendall(chunk[: length % CHUNK])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


if __name__ == "__main__":
    main()
