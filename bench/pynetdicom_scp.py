"""A script: an SCP by pynetdicom that discards what it gets or keeps it, without decoding it, and finds studies."""

from __future__ import annotations

import argparse
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from bench.archives import RETURN_KEYS
from bench.certificates import tls_context
from bench.processes import LOOPBACK
from bench.pynetdicom_scu import TUNED_LENGTH, without_nagle


def main() -> None:
    """Serve for ever."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to keep instances; by default they are discarded")
    parser.add_argument("--tuned", action="store_true", help="TCP_NODELAY, and PDUs of 128 KB")
    parser.add_argument("--chunked", action="store_true", help="receive data sets into files, not into memory")
    parser.add_argument("--studies", type=Path, help="the files of the studies that are found, whatever is asked")
    parser.add_argument("--tls", type=Path, help="the folder of the certificates, for a connection over TLS")
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

    matches = [match(path) for path in sorted(arguments.studies.iterdir())] if arguments.studies else []

    def find(_event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        for found in matches:
            yield 0xFF00, found

    _config.STORE_RECV_CHUNKED_DATASET = arguments.chunked
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, keep), (evt.EVT_C_FIND, find)]
    entity = AE()
    entity.maximum_associations = 200
    if arguments.tuned:
        entity.maximum_pdu_size = TUNED_LENGTH
        handlers.append((evt.EVT_CONN_OPEN, without_nagle))
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(Verification)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    tls = tls_context(arguments.tls, ssl.Purpose.CLIENT_AUTH)
    entity.start_server((LOOPBACK, arguments.port), evt_handlers=handlers, ssl_context=tls)


def match(path: Path) -> Dataset:
    """What is returned of the study of one instance."""
    instance, found = dcmread(path), Dataset()
    found.QueryRetrieveLevel = "STUDY"
    for _group, _number, keyword in RETURN_KEYS:
        setattr(found, keyword, instance.get(keyword))
    found.ModalitiesInStudy, found.NumberOfStudyRelatedInstances = instance.Modality, 1
    return found


if __name__ == "__main__":
    main()
