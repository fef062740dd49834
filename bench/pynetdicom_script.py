"""A script: pynetdicom in the roles that it has in its own benchmark script, as its users run it. See `bench.script`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from bench.client import reported
from bench.processes import LOOPBACK

PREAMBLE: Final = bytes(128) + b"DICM"


def main() -> None:
    """Serve for ever, or send one data set as many times as there are files."""
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
        serve(arguments.port, arguments.folder, arguments.write, unlimited=arguments.unlimited)
    else:
        paths = sorted(arguments.folder.iterdir())
        send(arguments.port, dcmread(paths[0]), len(paths), apart=arguments.apart)


def serve(port: int, folder: Path, write: str | None, *, unlimited: bool) -> None:
    """Take CT images in Implicit VR Little Endian."""

    def keep(event: evt.Event) -> int:
        if write is not None:
            with tempfile.TemporaryFile(dir=folder) as file:
                if write == "data-set":
                    dataset = event.dataset
                    dataset.file_meta = event.file_meta
                    dataset.save_as(file)
                else:
                    file.write(PREAMBLE)
                    write_file_meta_info(file, event.file_meta)  # type: ignore[arg-type]  # it takes any file
                    file.write(event.request.DataSet.getvalue())  # type: ignore[union-attr]  # a C-STORE-RQ has one
        return 0

    entity = AE()
    entity.maximum_associations = 15
    if unlimited:
        entity.maximum_pdu_size = 0
    entity.add_supported_context(CTImageStorage, ImplicitVRLittleEndian)
    entity.start_server((LOOPBACK, port), evt_handlers=[(evt.EVT_C_STORE, keep)])


def send(port: int, dataset: Dataset, count: int, *, apart: bool) -> None:
    """Send a Dataset, encoded anew each time, on one association or each time on another."""
    entity = AE()
    entity.add_requested_context(CTImageStorage, ImplicitVRLittleEndian)
    with reported():
        for _ in range(count if apart else 1):
            association = entity.associate(LOOPBACK, port)
            if not association.is_established:
                raise SystemExit("no association")
            for _ in range(1 if apart else count):
                if association.send_c_store(dataset).get("Status") != 0:
                    raise SystemExit("it was not stored")
            association.release()


if __name__ == "__main__":
    main()
