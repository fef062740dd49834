"""DCMTK's programs: each of its SCUs run to its end, and storescp kept running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers.process import Finished, Peer, execute, free_port, require, running


async def run(program: str, *arguments: str | Path, deadline: float = 60.0) -> Finished:
    """Run echoscu, storescu, dcmsend, dcmdump … to its end."""
    return await execute([require(program, "dcmtk"), *map(str, arguments)], deadline=deadline)


@contextmanager
def running_storescp(directory: Path, *options: str, ae_title: str = "STORESCP") -> Iterator[Peer]:
    """DCMTK's storescp, keeping what it receives in `received` below that directory; options as on its command line."""
    program = require("storescp", "dcmtk")
    peer = Peer("storescp", ae_title, free_port(), directory / "received", directory / "storescp.log")
    peer.directory.mkdir(parents=True)
    command = [program, "-v", "-aet", ae_title, "-od", str(peer.directory), *options, str(peer.port)]
    with running(peer, command) as started:
        yield started
