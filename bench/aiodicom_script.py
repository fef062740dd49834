"""A script: aiodicom in the roles that pynetdicom has in its own benchmark script, on uvloop. See `bench.script`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import uvloop
from pydicom import Dataset, dcmread

import aiodicom
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from bench.aiodicom_scp import serve_until_terminated
from bench.client import reported
from bench.processes import LOOPBACK

CT = "1.2.840.10008.5.1.4.1.1.2"


def main() -> None:
    """Serve until SIGTERM, or send one data set as many times as there are files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apart", action="store_true", help="send: an association for each")
    parser.add_argument(
        "--write", choices=["data-set", "bytes"], help="serve: write what comes to a file, decoded or not"
    )
    parser.add_argument("--unlimited", action="store_true", help="serve: take P-DATA-TFs of any length")
    parser.add_argument("role", choices=["serve", "send"])
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path, help="of the files; or of those that are written, and removed again")
    arguments = parser.parse_args()
    if arguments.role == "serve":
        uvloop.run(serve(arguments.port, arguments.folder, arguments.write, unlimited=arguments.unlimited))
    else:
        paths = sorted(arguments.folder.iterdir())
        uvloop.run(send(arguments.port, dcmread(paths[0]), len(paths), apart=arguments.apart))


async def serve(port: int, folder: Path, write: str | None, *, unlimited: bool) -> None:
    """Take CT images in Implicit VR Little Endian."""

    async def keep(operation: aiodicom.Operation) -> None:
        if write == "data-set":
            dataset = await operation.dataset()
            with tempfile.TemporaryFile(dir=folder) as file:
                dataset.save_as(file)
        elif write == "bytes":
            (await operation.save(folder)).unlink()

    service = aiodicom.storage_service(keep, [CT], [IMPLICIT_VR_LITTLE_ENDIAN])
    longest = 0 if unlimited else DEFAULT_LIMITS.maximum_length
    await serve_until_terminated(
        aiodicom.Server(port=port, services=[service], limits=aiodicom.Limits(bulk=True), maximum_length=longest)
    )


async def send(port: int, dataset: Dataset, count: int, *, apart: bool) -> None:
    """Send a Dataset, encoded anew each time, on one association or each time on another."""
    contexts = [aiodicom.ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,))]
    with reported():
        for _ in range(count if apart else 1):
            async with aiodicom.associate(LOOPBACK, port, contexts=contexts) as association:
                for _ in range(1 if apart else count):
                    (await association.c_store(dataset)).raise_for_status()


if __name__ == "__main__":
    main()
