"""Files that hold a query: PS3.10 files, bare data sets, and dumps as DCMTK's dump2dcm takes them."""

from __future__ import annotations

import re
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiodicom.cli.keys import Key, make_item, vr_of
from aiodicom.dataset import decode_data_set
from aiodicom.errors import InvalidInstance
from aiodicom.services.storage import decoding_errors
from aiodicom.uids import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom import Dataset

STANDARD_INPUT: Final = Path("-")
LARGEST: Final = 16 * 1024 * 1024
"""How many bytes a query may have."""

_BEHIND_PREFIX: Final = 132  # PS3.10 §7.1
ITEM: Final = 0xFFFEE000
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD

_DUMP: Final = re.compile(rb"(?:\s*#[^\n]*\n|\s+)*\s*\([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\)")
_LINE: Final = re.compile(
    r"\s*\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)\s+([A-Z]{2}|na|\?\?)"  # tag and VR
    r"(?:\s+(?:\[(?P<text>.*)\]|\([^)]*\)|(?P<word>[^\s#=(\[][^\s#]*)))?\s*(?:#.*)?"
)


def read_input(path: Path, limit: int = -1) -> bytes:
    """Return what a file holds, or standard input where that is what is meant; not more than so many bytes.

    Raises:
        OSError: it cannot be read.
    """
    if path == STANDARD_INPUT:
        return sys.stdin.buffer.read(limit)
    with path.open("rb") as file:
        return file.read(limit)


def read_query_file(path: Path) -> Dataset:
    """Return the query that a file holds.

    Raises:
        InvalidInstance: it holds none; the message names the file.
        OSError: it cannot be read.
    """
    return parse_query(read_input(path, LARGEST + 1), path)


def text_of_list(data: bytes) -> str | None:
    """Return the text of a file that is none of a query: text, and no dump; None for any other file."""
    if _DUMP.match(data):
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if all(each.isprintable() or each.isspace() for each in text) else None


def parse_query(data: bytes, path: Path) -> Dataset:
    """Return the query that the bytes of a file are.

    Raises:
        InvalidInstance: they are none; the message names the file.
    """
    if len(data) > LARGEST:
        raise InvalidInstance(f"{path}: is no query: it has more than {LARGEST:,} bytes")
    if not data:
        raise InvalidInstance(f"{path}: is no query: it is empty")
    if _DUMP.match(data):
        return _read_dump(data, path)
    if data[128:132] == b"DICM":
        return _read_part_10(data, path)
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN):
        try:
            return decode_data_set(data, syntax)
        except InvalidInstance:
            continue
    raise InvalidInstance(f"{path}: is no query: neither a DICOM file, nor a dump such as dump2dcm takes")


def _read_part_10(data: bytes, path: Path) -> Dataset:
    from pydicom.filereader import read_dataset

    stream = BytesIO(data)
    stream.seek(_BEHIND_PREFIX)
    try:
        meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        return decode_data_set(data[stream.tell() :], meta.TransferSyntaxUID)
    except InvalidInstance as error:
        raise InvalidInstance(f"{path}: {error}") from None
    except decoding_errors() as error:
        raise InvalidInstance(f"{path}: its File Meta Information is damaged; write the file again") from error


def _read_dump(data: bytes, path: Path) -> Dataset:
    from pydicom import Dataset

    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    dataset = Dataset()
    around: list[tuple[int, int]] = []  # the sequences that are open, and the number of the latest item of each
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                _read_line(line, around, dataset)
            except (IndexError, ValueError) as error:
                reason = "there is no sequence around it" if isinstance(error, IndexError) else error
                raise InvalidInstance(f"{path}: line {number}: {reason}") from None
    return dataset


def _read_line(line: str, around: list[tuple[int, int]], dataset: Dataset) -> None:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError("is none of a dump: write (gggg,eeee) VR [value]")
    tag, vr, value = int(found[1] + found[2], 16), found[3], found["text"] or found["word"] or ""
    if tag == ITEM:
        sequence, item = around.pop()
        around.append((sequence, item + 1))
        make_item(dataset, tuple(around))
    elif tag == SEQUENCE_DELIMITATION:
        around.pop()
    elif tag != ITEM_DELIMITATION and tag >> 16 != 2:
        if any(item < 0 for _, item in around):
            raise ValueError("is in a sequence, but in no item of it")
        vr = vr_of(tag) if vr == "??" else vr
        Key(tuple(around), tag, vr, value).put(dataset)
        if vr == "SQ":
            around.append((tag, -1))
