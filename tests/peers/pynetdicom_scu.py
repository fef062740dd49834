"""A script: an SCU by pynetdicom that asks for C-ECHO or stores files, and prints a report in JSON.

The data set of a file goes out as it is, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when it is imported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--called", default="ANY-SCP")
    parser.add_argument("--calling", default="PYNETDICOM")
    parser.add_argument("--user", help="identify as that user, and ask for a positive response")
    parser.add_argument("--passcode", default="")
    parser.add_argument("operation", choices=["echo", "store"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("files", type=Path, nargs="*")
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO)
    _config.STORE_SEND_CHUNKED_DATASET = True
    entity = AE(ae_title=arguments.calling)
    if arguments.operation == "echo":
        entity.add_requested_context(Verification)
    for sop_class, transfer_syntax in sorted({needed_context(path) for path in arguments.files}):
        entity.add_requested_context(sop_class, transfer_syntax)
    association = entity.associate(
        arguments.host,
        arguments.port,
        ae_title=arguments.called,
        ext_neg=[user_identity(arguments.user, arguments.passcode)] if arguments.user else None,
    )
    print(json.dumps(report(association, arguments.files)), flush=True)


def needed_context(path: Path) -> tuple[str, str]:
    """The SOP class of a file, and the transfer syntax it is in."""
    meta = dcmread(path, specific_tags=[]).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def user_identity(user: str, passcode: str) -> UserIdentityNegotiation:
    """Username and passcode (PS3.7 §D.3.3.7)."""
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field = user.encode()
    identity.secondary_field = passcode.encode()
    identity.positive_response_requested = True
    return identity


def report(association: Association, files: list[Path]) -> dict[str, object]:
    """Ask for what was wanted on the association, if there is one, and tell what became of it."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer:
        return {"outcome": "rejected", "rejection": [answer.result, answer.result_source, answer.diagnostic]}
    if not association.is_established:
        return {"outcome": "aborted"}
    if files:
        responses = [association.send_c_store(path, message_id) for message_id, path in enumerate(files, 1)]
    else:
        responses = [association.send_c_echo()]
    association.release()
    return {"outcome": "accepted", "statuses": [response.get("Status") for response in responses]}


if __name__ == "__main__":
    main()
