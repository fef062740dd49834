"""A script: the SCP of `bench.crowd`, on uvloop: it discards what it gets, finds without end, and returns one instance."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

import aiodicom
from bench.aiodicom_scp import serve_until_terminated
from bench.client import allow_many_sockets
from bench.soak_server import ROOM


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("instance", type=Path, help="what every C-GET returns")
    arguments = parser.parse_args()
    allow_many_sockets()
    uvloop.run(serve(arguments.port, arguments.instance))


async def serve(port: int, instance: Path) -> None:
    """Answer C-ECHO, C-STORE, C-FIND and C-GET."""
    server = aiodicom.Server(
        port=port,
        limits=aiodicom.Limits(bulk=True, minimum_rate=0),
        maximum_associations=ROOM,
        maximum_connections=ROOM,
    )

    @server.on_c_store
    async def discard(_operation: aiodicom.Operation) -> None:
        pass

    @server.on_c_find()
    async def find(_operation: aiodicom.Operation) -> AsyncIterator[dict[str, str]]:
        for number in itertools.count():
            yield {"StudyInstanceUID": f"1.2.3.{number}", "PatientName": "Crowd"}

    @server.on_c_get()
    async def get(_operation: aiodicom.Operation) -> list[Path]:
        return [instance]

    await serve_until_terminated(server)


if __name__ == "__main__":
    main()
