"""A script: sends a folder by `RemoteAE.send`, on uvloop, at a fixed setting or left alone, and reports what that took."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvloop

import aiodicom
from bench.archives import AE_TITLE
from bench.client import reported
from bench.processes import LOOPBACK


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=4, help="associations that there may be")
    parser.add_argument("--associations", type=int, help="associations at a time; by default as many as help")
    parser.add_argument("--window", type=int, help="stores on their way on each; by default as many as help")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.iterdir())
    uvloop.run(send(arguments.port, paths, arguments.most, arguments.associations, arguments.window))


async def send(port: int, paths: list[Path], most: int, associations: int | None, window: int | None) -> None:
    """Send the files."""
    async with aiodicom.RemoteAE(LOOPBACK, port, ae_title=AE_TITLE, maximum_associations=most) as remote:
        with reported():
            outcomes = await remote.send(paths, associations=associations, window=window).all()
    assert all(outcome.is_stored for outcome in outcomes)


if __name__ == "__main__":
    main()
