"""A script: an SCP by aiodicom, on uvloop, that discards what it gets or keeps it."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

import aiodicom
from bench.client import allow_many_sockets


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to keep instances; by default they are discarded")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    allow_many_sockets()
    uvloop.run(serve(arguments.port, arguments.folder))


async def serve(port: int, folder: Path | None) -> None:
    """Answer C-ECHO and C-STORE."""
    server = aiodicom.Server(port=port, maximum_associations=20_000, maximum_connections=20_000)

    @server.on_c_store
    async def keep(operation: aiodicom.Operation) -> None:
        if folder is not None:
            await operation.save(folder)

    async with server:
        serving = asyncio.ensure_future(server.serve_forever())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        await asyncio.wait([serving])


if __name__ == "__main__":
    main()
