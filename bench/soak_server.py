"""A script: the archive that `bench.soak` loads, on uvloop, which says how it is when it is asked.

Each line on its standard input is a question, answered by one line of JSON on its standard output; the first line there is
the port. The end of its input ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import sys
from pathlib import Path
from typing import Final

import uvloop

import aiodicom
from aiodicom.nodes import RIGHTS
from bench.archives import AE_TITLE, MOVE_AE_TITLE
from bench.client import allow_many_sockets
from bench.processes import LOOPBACK

COUNT: Final = "count"
"""The question that has what the garbage collector knows counted, too, and free memory given back, which takes a while."""

ROOM: Final = 20_000  # associations and connections: who is turned away is another matter

_give_back: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc keeps what was freed, and more of it from hour to hour, as it is scattered: that is not what is looked for here."""


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patience", type=float, required=True, help="seconds of silence inside a message")
    parser.add_argument("folder", type=Path, help="of the archive")
    parser.add_argument("move_port", type=int, help="where the destination of C-MOVE listens")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    allow_many_sockets()
    uvloop.run(serve(arguments.folder, arguments.move_port, arguments.patience))


async def serve(folder: Path, move_port: int, patience: float) -> None:
    """Let everybody do everything with an archive."""
    timeouts = aiodicom.Timeouts(artim=patience, stall=patience)
    destination = aiodicom.Node("move", MOVE_AE_TITLE, LOOPBACK, move_port)
    async with (
        aiodicom.Archive(folder, nodes=[destination], ae_title=AE_TITLE) as archive,
        aiodicom.Server(
            AE_TITLE,
            port=0,
            services=archive.services(unknown_may=RIGHTS),
            limits=aiodicom.Limits(bulk=True),
            maximum_associations=ROOM,
            maximum_connections=ROOM,
            timeouts=timeouts,
        ) as server,
    ):
        questions = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
        print(server.port, flush=True)
        while question := await questions.readline():
            answer = {"tasks": len(asyncio.all_tasks()), "associations": len(server.associations)}
            if question.strip() == COUNT.encode():
                gc.collect()
                if _give_back is not None:
                    _give_back(0)
                answer["objects"] = len(gc.get_objects())
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
