"""A script: an SCP by pynetdicom that discards what it gets or keeps it, without decoding it."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when it is imported

from bench.processes import LOOPBACK
from bench.pynetdicom_scu import TUNED_LENGTH, without_nagle


def main() -> None:
    """Serve for ever."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to keep instances; by default they are discarded")
    parser.add_argument("--tuned", action="store_true", help="TCP_NODELAY, and PDUs of 128 KB")
    parser.add_argument("--chunked", action="store_true", help="receive data sets into files, not into memory")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()

    def keep(event: evt.Event) -> int:
        if arguments.folder is not None:
            path = arguments.folder / f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm"
            if arguments.chunked:
                shutil.copyfile(event.dataset_path, path)
            else:
                path.write_bytes(event.encoded_dataset())
        return 0

    _config.STORE_RECV_CHUNKED_DATASET = arguments.chunked
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, keep)]
    entity = AE()
    entity.maximum_associations = 200
    if arguments.tuned:
        entity.maximum_pdu_size = TUNED_LENGTH
        handlers.append((evt.EVT_CONN_OPEN, without_nagle))
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(Verification)
    entity.start_server((LOOPBACK, arguments.port), evt_handlers=handlers)


if __name__ == "__main__":
    main()
