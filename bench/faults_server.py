"""A script: the SCP of `bench.faults`, on uvloop, with the limits that there are by default: it stores, finds and returns.

With `--jump` the clock on the wall jumps by a day, forward and back, twice a second, as `time.time` tells it.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

import aiodicom
from bench.aiodicom_scp import serve_until_terminated
from bench.client import allow_many_sockets

DAY = 86_400
SECONDS_BETWEEN_JUMPS = 0.5


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("instance", type=Path, help="what every C-GET returns")
    parser.add_argument("rows", type=int, help="how many a C-FIND finds")
    parser.add_argument("instances", type=int, help="how often a C-GET returns it")
    parser.add_argument("--files", type=int, help="RLIMIT_NOFILE; by default as many as the system allows")
    parser.add_argument("--jump", action="store_true", help="let the clock on the wall jump")
    arguments = parser.parse_args()
    if arguments.files is None:
        allow_many_sockets()
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.files, arguments.files))
    uvloop.run(serve(arguments.port, arguments.instance, arguments.rows, arguments.instances, jump=arguments.jump))


async def serve(port: int, instance: Path, rows: int, instances: int, *, jump: bool) -> None:
    """Answer C-ECHO, C-STORE, C-FIND and C-GET."""
    server = aiodicom.Server(port=port, observers=())

    @server.on_c_store
    async def discard(_operation: aiodicom.Operation) -> None:
        pass

    @server.on_c_find()
    async def find(_operation: aiodicom.Operation) -> AsyncIterator[dict[str, str]]:
        for number in range(rows):
            yield {"StudyInstanceUID": f"1.2.3.{number}", "PatientName": "Fault^Finder", "PatientID": str(number)}

    @server.on_c_get()
    async def get(_operation: aiodicom.Operation) -> list[Path]:
        return [instance] * instances

    jumping = asyncio.create_task(jump_about()) if jump else None
    await serve_until_terminated(server)
    if jumping is not None:
        jumping.cancel()


async def jump_about() -> None:
    """Let `time.time` jump."""
    real, days = time.time, 1
    while True:
        time.time = lambda days=days: real() + days * DAY  # type: ignore[misc]
        await asyncio.sleep(SECONDS_BETWEEN_JUMPS)
        days = -days


if __name__ == "__main__":
    main()
