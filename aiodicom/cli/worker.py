"""A script: one worker of `aiodicom serve --workers`, which its supervisor starts: see `supervising`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from aiodicom.activity import Counters, described
from aiodicom.cli import perform, serve
from aiodicom.cli.auditing import audited
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.options import Command, start_logging
from aiodicom.cli.pacs import Ending, Pacs, ending_of, opened_archive


def main(arguments: Sequence[str]) -> int:
    """Serve.

    Args:
        arguments: the row of the counters, the descriptor of their file, and those of `aiodicom serve`.
    """
    row, descriptor, *rest = arguments
    return perform(Command(serve.HELP, serve.parse, partial(_run, int(row), int(descriptor))), rest)


async def _run(row: int, descriptor: int, options: Namespace) -> ExitCode:
    start_logging(options, with_time=True, worker=row + 1)
    counters = Counters(options.workers, descriptor)
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=os.dup(sys.stdin.fileno())))
    try:
        async with opened_archive(options, shared=True) as archive, audited(options, counters, row) as auditors:
            server = Pacs(options, archive, counters, row, reuse_port=True, observers=auditors)
            ending = ending_of(server)
            orders = _Orders(reader, writer, server, ending)
            obeying = asyncio.create_task(orders.obey())
            with ending.on_signals(orders.end):
                await orders.wait_to_listen()
                if not ending.asked.is_set():
                    async with server:
                        orders.answer("listening")
                        await ending.asked.wait()
            obeying.cancel()
            await asyncio.wait([obeying])
    finally:
        writer.close()
    return ExitCode.INTERRUPTED if ending.aborted else ExitCode.OK


class _Orders:
    """What the supervisor says, and what it is answered."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Pacs, ending: Ending
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._server = server
        self._ending = ending
        self._may_go_on = asyncio.Event()

    async def obey(self) -> None:
        """Do what is said; without a supervisor, end."""
        with suppress(ConnectionError):
            while line := await self._reader.readline():
                match line.decode().strip():
                    case "listen":
                        self._may_go_on.set()
                    case "status":
                        self.answer(described(self._server.associations))
                    case "stop":
                        self.end()
                    case "abort":
                        self._ending.abort()
                        self.end()
        self.end()

    async def wait_to_listen(self) -> None:
        """Say that all is ready, and wait until we are to listen, or to end."""
        self.answer("ready")
        await self._may_go_on.wait()

    def answer(self, message: object) -> None:
        """Answer, in JSON."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    def end(self) -> None:
        """End in good order; more than once is as good as once."""
        self._ending.asked.set()
        self._may_go_on.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
