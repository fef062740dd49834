"""A script: our client or our server in a process of its own, so that its memory can be measured.

`send HOST PORT FILE…` stores the files one after the other, and after each prints the most memory it has had so far;
`receive FOLDER` prints its port, and keeps what comes until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from aiodicom import Server, associate, contexts_for
from tests.peers.archive import keep_in
from tests.peers.memory import peak_memory


async def send(host: str, port: int, files: list[Path]) -> None:
    async with associate(host, port, contexts=contexts_for(files), observers=()) as association:
        for file in files:
            (await association.c_store(file)).raise_for_failure()
            print(peak_memory(), flush=True)


async def receive(folder: Path) -> None:
    async with keep_in(folder, Server(port=0, observers=())) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "send":
        uvloop.run(send(arguments[0], int(arguments[1]), [Path(name) for name in arguments[2:]]))
    else:
        uvloop.run(receive(Path(arguments[0])))
