"""A script: our client or our server in a process of its own, so that its memory can be measured.

`send HOST PORT FILE…` stores the files one after the other, and prints after each how much memory it has had at most;
`receive FOLDER` prints its port, and keeps what comes until its standard input ends.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import uvloop

from aiodicom import Operation, Server, associate, contexts_for


def peak_memory(process: int | str = "self") -> int:
    """The most resident memory that a process of Linux has had, in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


async def send(host: str, port: int, files: list[Path]) -> None:
    async with associate(host, port, contexts=contexts_for(files)) as association:
        for file in files:
            (await association.c_store(file)).raise_for_status()
            print(peak_memory(), flush=True)


async def receive(folder: Path) -> None:
    server = Server(port=0)

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        await operation.save(folder)

    async with server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "send":
        uvloop.run(send(arguments[0], int(arguments[1]), [Path(name) for name in arguments[2:]]))
    else:
        uvloop.run(receive(Path(arguments[0])))
