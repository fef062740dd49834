"""Values of a peer's data sets as text: as they were sent, or as one likes to read them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from aiodicom.cli.keys import Key
from aiodicom.cli.words import amount
from aiodicom.logs import printable
from aiodicom.services.storage import decoding_errors
from aiodicom.uids import uid_name

if TYPE_CHECKING:
    from pydicom import Dataset

LONGEST: Final = 200
"""How many characters of a value are shown."""

# PS3.5 §6.2: the parts of a date, and of a time.
_DATE: Final = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME: Final = re.compile(r"(\d\d):?(\d\d)(?::?(\d\d)(?:\.\d+)?)?")
_DATE_TIME: Final = re.compile(r"(\d{8})(\d{4,6})(?:\.\d+)?([+-]\d{4})?")


def written(dataset: Dataset, key: Key) -> str:
    """Return a value as it was sent: a backslash between several, a sequence as JSON; empty where there is none."""
    found = key.find(dataset)
    if found is None:
        return ""
    try:
        element = found[key.tag]
        if element.VR == "SQ":
            return json.dumps([json_of(item) for item in element.value], ensure_ascii=False) if element.value else ""
        return "\\".join(_texts(element.value))
    except decoding_errors():
        return _raw(found, key.tag)


def readable(dataset: Dataset, key: Key) -> str:
    """Return a value for people: on one line, dates as 2024-12-31, and without what could paint on a terminal."""
    found = key.find(dataset)
    if found is None:
        return ""
    try:
        element = found[key.tag]
        if element.VR == "SQ":
            text = amount(len(element.value), "item") if element.value else ""
        else:
            text = ", ".join(_readable(each, element.VR) for each in _texts(element.value) if each)
    except decoding_errors():
        text = _raw(found, key.tag)
    text = printable(" ".join(text.split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _texts(value: object) -> list[str]:
    """Return each of the values of an element."""
    from pydicom.multival import MultiValue

    if value is None:
        return []
    values = value if isinstance(value, MultiValue) else [value]
    return [each.hex() if isinstance(each, bytes) else str(each).rstrip(" \0") for each in values]


def _readable(text: str, vr: str) -> str:
    match vr:
        case "PN":
            return text.rstrip("^=")
        case "UI":
            return uid_name(text)
        case "DA" if found := _DATE.fullmatch(text):
            return "-".join(found.groups())
        case "TM" if found := _TIME.fullmatch(text):
            return ":".join(filter(None, found.groups()))
        case "DT" if found := _DATE_TIME.fullmatch(text):
            date, time, zone = found.groups()
            return " ".join(filter(None, (_readable(date, "DA"), _readable(time, "TM"), zone)))
        case _:
            return text


def _raw(dataset: Dataset, tag: int) -> str:
    """Return a value that is none of its VR, as it came."""
    value = dataset.get_item(tag).value
    if isinstance(value, bytes):
        return value.decode("latin-1").rstrip(" \0")
    return "\\".join(_texts(value))


def json_of(dataset: Dataset) -> dict[str, Any]:
    """Return a data set in the DICOM JSON Model (PS3.18 Annex F); what is no value of its VR is there as it came."""
    model: dict[str, Any] = {}
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                items = [json_of(item) for item in element.value]
                model[f"{tag:08X}"] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
            else:
                model[f"{tag:08X}"] = element.to_json_dict(None, 0)
        except decoding_errors():
            model[f"{tag:08X}"] = {"vr": str(dataset.get_item(tag).VR or "UN"), "Value": [_raw(dataset, tag)]}
    if "00080005" in model:
        model["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # what JSON is in
    return model


def legible(dataset: Dataset) -> Dataset:
    """Return a data set in which everything can be read: what is no value of its VR is there as bytes."""
    from pydicom import Dataset as New

    made = New()
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                made.add_new(tag, "SQ", [legible(item) for item in element.value])
            else:
                made[tag] = element
        except decoding_errors():
            made.add_new(tag, "UN", dataset.get_item(tag).value)
    return made
