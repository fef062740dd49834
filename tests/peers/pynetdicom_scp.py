"""A script: an SCP by pynetdicom that answers C-ECHO and keeps each instance it receives as a Part 10 file.

The data set goes to the file as it came, byte for byte. Every storage SOP class is accepted in every transfer syntax.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when it is imported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ae-title", default="PYNETDICOM")
    parser.add_argument("--max-pdu", type=int, default=16_382, help="longest P-DATA it takes, in bytes; 0: any")
    parser.add_argument("--status", type=lambda text: int(text, 0), default=0, help="answer each C-STORE with this")
    parser.add_argument("--require-called", action="store_true", help="reject any other called AE title")
    parser.add_argument("--token", help="admit only who identifies with it, or with this username")
    parser.add_argument("port", type=int, help="0: a free one")
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()

    def keep(event: evt.Event) -> int:
        path = arguments.directory / f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return int(arguments.status)

    def admit(event: evt.Event) -> tuple[bool, bytes]:
        identity = event.assoc.requestor.user_identity
        known = arguments.token is None or (identity and identity.primary_field == arguments.token.encode())
        return bool(known), b"admitted"

    logging.basicConfig(level=logging.INFO)
    entity = AE(ae_title=arguments.ae_title)
    entity.maximum_pdu_size = arguments.max_pdu
    entity.require_called_aet = arguments.require_called
    entity.add_supported_context(Verification)
    for sop_class in filter(None, (context.abstract_syntax for context in AllStoragePresentationContexts)):
        entity.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, keep), (evt.EVT_USER_ID, admit)]
    server = entity.make_server(("127.0.0.1", arguments.port), evt_handlers=handlers)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
