"""A script: an SCP by pynetdicom that answers C-FIND, C-GET and C-MOVE from files.

It matches one value, wildcards, ranges and lists of UIDs, in all elements alike, and returns what it is asked for as it
is in the first instance of each match. It sends instances as they are.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydicom import DataElement, Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, evt
from pynetdicom.presentation import (
    BasicWorklistManagementPresentationContexts,
    PresentationContext,
    QueryRetrievePresentationContexts,
)
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when it is imported

SECONDS_TO_ANSWER: Final = 3.0
UNIQUE_KEYS: Final = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
NOT_MATCHED: Final = {"SpecificCharacterSet", "QueryRetrieveLevel"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ae-title", default="PYNETDICOM")
    parser.add_argument("--destination", action="append", default=[], metavar="TITLE=PORT", help="where it may send to")
    parser.add_argument("port", type=int)
    parser.add_argument("files", type=Path, nargs="*")
    arguments = parser.parse_args()
    instances = [dcmread(path) for path in arguments.files]
    destinations = {title: int(port) for title, port in (pair.split("=") for pair in arguments.destination)}

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for match in first_of_each(matching(instances, event.identifier), event.identifier):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, answer(match, event.identifier)

    def get(event: evt.Event) -> Iterator[object]:
        found = list(matching(instances, event.identifier))
        yield len(found)
        yield from send(event, found)

    def move(event: evt.Event) -> Iterator[object]:
        if event.move_destination not in destinations:
            yield None, None
            return
        found = list(matching(instances, event.identifier))
        yield "127.0.0.1", destinations[event.move_destination], {"contexts": needed_contexts(found)}
        yield len(found)
        yield from send(event, found)

    logging.basicConfig(level=logging.INFO)
    entity = AE(ae_title=arguments.ae_title)
    entity.dimse_timeout = SECONDS_TO_ANSWER  # where one of its threads took the response that the other waits for
    entity.add_supported_context(Verification)
    for model in (*QueryRetrievePresentationContexts, *BasicWorklistManagementPresentationContexts):
        assert model.abstract_syntax is not None
        entity.add_supported_context(model.abstract_syntax)
    for sop_class in filter(None, (context.abstract_syntax for context in AllStoragePresentationContexts)):
        entity.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES, scu_role=False, scp_role=True)
    handlers: list[evt.EventHandlerType] = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get), (evt.EVT_C_MOVE, move)]
    entity.start_server(("127.0.0.1", arguments.port), evt_handlers=handlers)


def send(event: evt.Event, found: Iterable[Dataset]) -> Iterator[tuple[int, Dataset | None]]:
    """Yield what pynetdicom is to send, until it is told to stop."""
    for instance in found:
        if event.is_cancelled:
            yield 0xFE00, None
            return
        yield 0xFF00, instance


def needed_contexts(instances: Iterable[Dataset]) -> list[PresentationContext]:
    """One for each pair of SOP class and transfer syntax."""
    pairs = {(str(each.SOPClassUID), UID(each.file_meta.TransferSyntaxUID)) for each in instances}
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in sorted(pairs)]


def matching(instances: Iterable[Dataset], identifier: Dataset) -> Iterator[Dataset]:
    """The instances that have what the keys ask for."""
    keys = [key for key in identifier if key.keyword not in NOT_MATCHED and not key.is_empty]
    return (each for each in instances if all(matches(key, each.get(key.tag)) for key in keys))


def first_of_each(instances: Iterable[Dataset], identifier: Dataset) -> Iterator[Dataset]:
    """One instance of each patient, study or series; of a worklist, all."""
    keyword = UNIQUE_KEYS.get(identifier.get("QueryRetrieveLevel", ""), "SOPInstanceUID")
    seen = set()
    for instance in instances:
        unique = str(instance.get(keyword, id(instance)))
        if unique not in seen:
            seen.add(unique)
            yield instance


def matches(key: DataElement, element: DataElement | None) -> bool:
    """Whether an element has what a key asks for (PS3.4 §C.2.2.2), one of its values at least."""
    if key.VR == "SQ":
        items = [] if element is None else element.value
        return any(list(matching(items, item)) for item in key.value)
    values = [] if element is None else element.value if element.VM > 1 else [element.value]
    texts = [str(value or "") for value in values] or [""]
    if key.VR == "UI":
        return any(text in str(key.value) for text in texts if text)
    if key.VR in {"DA", "TM"} and "-" in str(key.value):
        first, _, last = str(key.value).partition("-")
        return any(first <= text <= (last or "9") for text in texts if text)
    pattern = re.escape(str(key.value)).replace(r"\*", ".*").replace(r"\?", ".")
    flags = re.DOTALL | (re.IGNORECASE if key.VR == "PN" else 0)
    return any(re.fullmatch(pattern, text, flags) for text in texts)


def answer(instance: Dataset, identifier: Dataset) -> Dataset:
    """What was asked for, of an instance."""
    found = Dataset()
    if "SpecificCharacterSet" in instance:
        found.SpecificCharacterSet = instance.SpecificCharacterSet
    for key in identifier:
        if key.keyword not in NOT_MATCHED:
            found.add(instance[key.tag] if key.tag in instance else DataElement(key.tag, key.VR, None))
    if "QueryRetrieveLevel" in identifier:
        found.QueryRetrieveLevel = identifier.QueryRetrieveLevel
    return found


if __name__ == "__main__":
    main()
