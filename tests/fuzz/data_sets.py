"""Z4 the structure of encoded data sets, Z6 PS3.10 files: bytes that would be stored, sent or asked with."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Final

from aiodicom.archive.attributes import ATTRIBUTES
from aiodicom.archive.header import read_header
from aiodicom.dataset import decode_data_set, transcode
from aiodicom.errors import InvalidInstance
from aiodicom.part10 import InstanceFile, check_data_set, file_meta, find_instance, open_instance, valid_uid
from aiodicom.scanner import Bounds
from aiodicom.uids import (
    DEFLATED,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED,
)
from tests.fuzz.target import expect, twice

JPEG: Final = "1.2.840.10008.1.2.4.50"
SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    JPEG,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
BOUNDS: Final = Bounds()
MAXIMUM_INFLATED: Final = 1024 * 1024
NAME: Final = Path("fuzzed.dcm")


# ---- Z4


def encoded(data: bytes, syntax: str) -> bytes:
    """Encode an input: the transfer syntax, and a data set in it."""
    return bytes((SYNTAXES.index(syntax),)) + data


def _decoded(data: bytes) -> tuple[bytes, str]:
    return data[1:], SYNTAXES[data[0] % len(SYNTAXES) if data else 0]


def memory(data: bytes) -> int:
    """Return how many bytes may be taken: 4 MiB for what is deflated, whatever it inflates to (T30)."""
    return 4 * 1024 * 1024 if _decoded(data)[1] in DEFLATED else twice(data)


def structure(data: bytes) -> None:
    """A data set is taken or refused, by both walks alike; what is picked from it is text (I1)."""
    content, syntax = _decoded(data)
    is_whole = True
    try:
        check_data_set(content, syntax, bounds=BOUNDS)
    except InvalidInstance:
        is_whole = False
    try:
        header = read_header(content, syntax, bounds=BOUNDS)
    except InvalidInstance:
        expect(not is_whole or syntax in DEFLATED, "the index refuses what is whole")
        return
    expect(is_whole, "the index takes what is not whole")
    for attribute in ATTRIBUTES.values():
        header.text(attribute).encode()
    header.request_attributes().encode()


def reading(data: bytes) -> None:
    """What pydicom is given it reads; what was read in one transfer syntax is whole in the others (I1, I6)."""
    content, syntax = _decoded(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decode_data_set(content, syntax, max_inflated=MAXIMUM_INFLATED, bounds=BOUNDS)
        except InvalidInstance:
            return
        if syntax == JPEG:
            return
        for target in UNCOMPRESSED:
            try:
                other = transcode(content, syntax, target)
            except InvalidInstance:
                continue
            check_data_set(other, target)


# ---- Z6


def file(data: bytes) -> None:
    """A file is taken or refused; with a File Meta Information of ours before it, it is the same instance (I1, I6)."""
    found = _found(data)
    if found is None:
        return
    expect(0 < found.data_set_offset < found.size == len(data), "the data set is elsewhere")
    uids = found.sop_class_uid, found.sop_instance_uid, found.transfer_syntax_uid
    expect(all(map(valid_uid, uids)), "a UID that is none")
    again = _found(file_meta(*uids) + data[found.data_set_offset :])
    expect(again is not None, "I6: refused behind a File Meta Information of ours")
    assert again is not None
    expect(uids == (again.sop_class_uid, again.sop_instance_uid, again.transfer_syntax_uid), "I6: another instance")


def memory_of_file(data: bytes) -> int:
    """Return how many bytes may be taken: more where the data set is deflated."""
    return 4 * 1024 * 1024 if DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode() in data else twice(data)


def file_on_disk(data: bytes) -> None:
    """What is taken from the disk is taken from memory, as the same."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as there:
        there.write(data)
        there.flush()
        try:
            opened = open_instance(there.name)
        except InvalidInstance:
            return
    found = _found(data)
    expect(found is not None, "taken from the disk only")
    assert found is not None
    for name in ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid", "data_set_offset", "size"):
        expect(getattr(opened, name) == getattr(found, name), "another on the disk", name)


def _found(data: bytes) -> InstanceFile | None:
    try:
        return find_instance(data, NAME)
    except InvalidInstance:
        return None
