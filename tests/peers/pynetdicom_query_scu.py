"""A script: an SCU by pynetdicom that asks for C-FIND, C-GET or C-MOVE, and prints a report in JSON."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.association import Association

MOST_CONTEXTS: Final = 128
COUNTERS: Final = ("Remaining", "Completed", "Failed", "Warning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--called", default="ANY-SCP")
    parser.add_argument("--calling", default="PYNETDICOM")
    parser.add_argument("--destination", default="", help="of C-MOVE: an AE title")
    parser.add_argument("--directory", type=Path, help="of C-GET: keep there what comes")
    parser.add_argument("--cancel-after", type=int, metavar="N", help="send C-CANCEL after so many responses")
    parser.add_argument("operation", choices=["find", "get", "move"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("model", help="the UID of the SOP class")
    parser.add_argument("identifier", help="as JSON (PS3.18 §F)")
    arguments = parser.parse_args()

    def keep(event: evt.Event) -> int:
        path = arguments.directory / f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return 0

    logging.basicConfig(level=logging.INFO)
    entity = AE(ae_title=arguments.calling)
    entity.add_requested_context(arguments.model)
    roles = []
    if arguments.operation == "get":
        for context in StoragePresentationContexts[: MOST_CONTEXTS - 1]:
            assert context.abstract_syntax is not None
            entity.add_requested_context(context.abstract_syntax, context.transfer_syntax)
            roles.append(build_role(context.abstract_syntax, scp_role=True))
    association = entity.associate(
        arguments.host,
        arguments.port,
        ae_title=arguments.called,
        ext_neg=list(roles),
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    if not association.is_established:
        raise SystemExit("no association")
    responses = ask(association, arguments, Dataset.from_json(arguments.identifier))
    print(json.dumps(report(responses, association, arguments.cancel_after, arguments.model)), flush=True)
    association.release()


Responses = Iterator[tuple[Dataset, Dataset | None]]


def ask(association: Association, arguments: argparse.Namespace, identifier: Dataset) -> Responses:
    """Send the request; the responses come as they are asked for."""
    match arguments.operation:
        case "find":
            return association.send_c_find(identifier, arguments.model)
        case "get":
            return association.send_c_get(identifier, arguments.model)
        case _:
            return association.send_c_move(identifier, arguments.destination, arguments.model)


def report(responses: Responses, association: Association, cancel_after: int | None, model: str) -> dict[str, object]:
    """The statuses, the matches, and the counters of the last response."""
    statuses, matches = [], []
    counters: dict[str, int] = {}
    for number, (status, identifier) in enumerate(responses, 1):
        statuses.append(status.get("Status"))
        counters = {
            name: status[f"NumberOf{name}Suboperations"].value
            for name in COUNTERS
            if f"NumberOf{name}Suboperations" in status
        }
        if identifier:
            matches.append(identifier.to_json_dict())
        if number == cancel_after:
            association.send_c_cancel(1, query_model=model)
    return {"statuses": statuses, "counters": counters, "matches": matches}


if __name__ == "__main__":
    main()
