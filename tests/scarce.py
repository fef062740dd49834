"""A script: a server on the event loop that is named, with few descriptors to spare.

It prints its port; when its standard input ends, how many records asyncio has logged.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from pathlib import Path

from aiodicom import Server
from tests.conftest import DESCRIPTORS, pytest_asyncio_loop_factories


class Counter(logging.Handler):
    """Counts records."""

    count = 0

    def emit(self, _record: logging.LogRecord) -> None:
        self.count += 1


async def serve(spare: int) -> None:
    counter = Counter()
    logging.getLogger("asyncio").addHandler(counter)
    async with Server(port=0) as server:
        end = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(end), sys.stdin)
        limit = max(int(link.name) for link in Path(DESCRIPTORS).iterdir()) + spare
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        print(server.port, flush=True)
        await end.read()
    print(counter.count, flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=pytest_asyncio_loop_factories()[sys.argv[1]]) as runner:
        runner.run(serve(int(sys.argv[2])))
