"""A script: an SCP by aiodicom, on uvloop, that discards what it gets or keeps it."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from pathlib import Path

import uvloop

import aiodicom
from bench.certificates import tls_context
from bench.client import allow_many_sockets


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to keep instances; by default they are discarded")
    parser.add_argument("--tls", type=Path, help="the folder of the certificates, for a connection over TLS")
    parser.add_argument("--operations", type=int, default=16, help="the widest operations window to agree to")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    allow_many_sockets()
    tls = tls_context(arguments.tls, ssl.Purpose.CLIENT_AUTH)
    uvloop.run(serve(aiodicom.Listener(port=arguments.port, tls=tls), arguments.folder, arguments.operations))


async def serve(listener: aiodicom.Listener, folder: Path | None, operations: int) -> None:
    """Answer C-ECHO and C-STORE."""
    server = aiodicom.Server(
        listeners=[listener],
        limits=aiodicom.Limits(bulk=True),
        maximum_associations=20_000,
        maximum_connections=20_000,
        maximum_operations=operations,
    )

    @server.on_c_store
    async def keep(operation: aiodicom.Operation) -> None:
        if folder is not None:
            await operation.save(folder)

    await serve_until_terminated(server)


async def serve_until_terminated(server: aiodicom.Server) -> None:
    """Serve until SIGTERM."""
    async with server:
        serving = asyncio.ensure_future(server.serve_forever())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        await asyncio.wait([serving])


if __name__ == "__main__":
    main()
