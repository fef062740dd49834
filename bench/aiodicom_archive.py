"""A script: aiodicom as an archive, on uvloop: the embedded one, or rows in memory, whatever is asked."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import uvloop
from pydicom import dcmread

import aiodicom
from aiodicom.archive import rebuild
from aiodicom.handlers import Service
from aiodicom.nodes import RIGHTS
from bench.aiodicom_scp import serve_until_terminated
from bench.archives import AE_TITLE, MOVE_AE_TITLE, RETURN_KEYS, move_port, own_folder
from bench.processes import LOOPBACK


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, help="the files of the studies that are found, without an archive")
    parser.add_argument("--archive", type=Path, help="the folder of the archive")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    if arguments.rows is not None:
        uvloop.run(serve(arguments.port, [of_rows([row(path) for path in sorted(arguments.rows.iterdir())])]))
    else:
        uvloop.run(serve_archive(arguments.port, arguments.archive))


def prepare(_port: int, folder: Path, holdings: Path) -> None:
    """Make an archive of the files of a folder: links to them, and an index."""
    archive = own_folder(folder)
    archive.mkdir(parents=True)
    for path in holdings.iterdir():
        (archive / path.name).hardlink_to(path)
    rebuild(archive)


def held(folder: Path) -> int:
    """Return how many instances our archive holds."""
    return sum(1 for _ in own_folder(folder).rglob("*.dcm"))


def row(path: Path) -> dict[str, str]:
    """Return what is asked of a study."""
    dataset = dcmread(path)
    return {
        **{keyword: str(dataset.get(keyword, "")) for _group, _number, keyword in RETURN_KEYS},
        "ModalitiesInStudy": str(dataset.Modality),
        "NumberOfStudyRelatedInstances": "1",
    }


def of_rows(rows: Iterable[dict[str, str]]) -> Service:
    """Return a service that finds them all."""

    async def find(_operation: aiodicom.Operation) -> AsyncIterator[dict[str, str]]:
        for each in rows:
            yield each

    return aiodicom.find_service(find)


async def serve_archive(port: int, folder: Path) -> None:
    """Let everybody ask everything of an archive."""
    nodes = [aiodicom.Node("move", MOVE_AE_TITLE, LOOPBACK, move_port(port))]
    async with aiodicom.Archive(folder, nodes=nodes, ae_title=AE_TITLE) as archive:
        await serve(port, archive.services(unknown_may=RIGHTS))


async def serve(port: int, services: Iterable[Service]) -> None:
    """Offer services."""
    await serve_until_terminated(
        aiodicom.Server(AE_TITLE, port=port, services=services, limits=aiodicom.Limits(bulk=True))
    )


if __name__ == "__main__":
    main()
