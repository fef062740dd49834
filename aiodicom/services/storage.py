"""Instances kept as PS3.10 files, in folders by study and series (PS3.4 Annex B, PS3.10 §7)."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.operation import Operation
from aiodicom.part10 import InstanceFile, open_instance, valid_uid
from aiodicom.receiving import CANNOT_UNDERSTAND, DOES_NOT_MATCH
from aiodicom.scanner import data_set_encoding
from aiodicom.uids import DEFLATED

if TYPE_CHECKING:
    from pydicom import Dataset

SPECIFIC_CHARACTER_SET: Final = 0x00080005
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E

_LONGEST_VALUE: Final = 4096
_INFLATED_AT_MOST: Final = 16 * 1024 * 1024  # the two UIDs stand in the first groups; a bomb gets no further
_BEGINNING: Final = 16  # enough bytes to see how the first element is encoded


def decoding_errors() -> tuple[type[Exception], ...]:
    """Return what pydicom raises about a damaged data set or value, besides errors of this package."""
    from pydicom.errors import BytesLengthException

    return (
        ArithmeticError,
        AttributeError,
        BytesLengthException,
        EOFError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    )


async def save_by_study(operation: Operation, folder: str | os.PathLike[str]) -> Path:
    """Keep the instance of a C-STORE as `<Study>/<Series>/<SOP Instance UID>.dcm` below the folder; return its path.

    The data set is written as it arrives and as it is encoded. An instance that has no study or series, such as a hanging
    protocol, is kept in `no-study`, `no-series`. One of the same name is replaced::

        @server.on_c_store
        async def keep(operation):
            await save_by_study(operation, "received")

    Args:
        operation: a C-STORE, its data set not taken yet.
        folder: where to; made if need be.

    Raises:
        DimseError: 0xA900 where the Study or Series Instance UID is no UID, 0xC000 where the data set cannot be read
            (PS3.4 §B.2.3), and those of `Operation.save`.
        AssociationError: the association ended before the data set did.
    """
    return await operation.save(folder, name_by_study)


def name_by_study(path: Path) -> str:
    """Return `<Study>/<Series>/<SOP Instance UID>.dcm` for a PS3.10 file; its parts are UIDs, so it leads nowhere else.

    It blocks while it reads the head of the file.

    Raises:
        DimseError: as `save_by_study` does.
    """
    file, elements = read_head(path, (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID))
    study, series = (_uid(elements, tag) for tag in (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID))
    for uid, name in ((study, "Study"), (series, "Series")):
        if uid and not valid_uid(uid):
            raise DimseError(DOES_NOT_MATCH, f"{name} Instance UID is no UID")
    return f"{study or 'no-study'}/{series or 'no-series'}/{file.sop_instance_uid}.dcm"


def _uid(elements: Dataset, tag: int) -> str:
    if tag not in elements:
        return ""
    value = elements.get_item(tag).value  # the raw bytes: nothing is to be converted, or to go wrong there
    return value.strip(b"\0 ").decode("latin-1") if isinstance(value, bytes) else ""


def read_head(path: Path, tags: Sequence[int]) -> tuple[InstanceFile, Dataset]:
    """Return a PS3.10 file and those of its elements; what comes behind the last of them is not read.

    It blocks while it reads. A value longer than 4 KiB ends the reading, too.

    Args:
        path: the file.
        tags: of elements of the data set, not of its items.

    Raises:
        DimseError: 0xC000 where the data set cannot be read (PS3.4 §B.2.3).
    """
    try:
        file = open_instance(path, check=False)
        with path.open("rb") as stream:
            return file, _elements(stream, file, tags)
    except InvalidInstance as error:
        raise DimseError(CANNOT_UNDERSTAND, "The data set is empty or not in its transfer syntax") from error
    except decoding_errors() as error:
        raise DimseError(CANNOT_UNDERSTAND, "The data set cannot be decoded") from error


def _elements(stream: BinaryIO, file: InstanceFile, tags: Sequence[int]) -> Dataset:
    from pydicom.filereader import read_dataset

    stream.seek(file.data_set_offset)
    if file.transfer_syntax_uid in DEFLATED:
        stream = BytesIO(_inflate_beginning(stream))
    start = stream.tell()
    encoding = data_set_encoding(file.transfer_syntax_uid, stream.read(_BEGINNING), "data set")
    stream.seek(start)
    last, wanted = max(tags), {*tags, SPECIFIC_CHARACTER_SET}

    def is_behind(tag: int, _vr: str | None, length: int) -> bool:
        return tag > last or (tag in wanted and length > _LONGEST_VALUE)

    return read_dataset(stream, *encoding, stop_when=is_behind, specific_tags=list(tags))


def _inflate_beginning(stream: BinaryIO) -> bytes:
    """Inflate the first of a deflated data set (PS3.5 §A.5)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    beginning = b""
    while len(beginning) < _INFLATED_AT_MOST and not inflater.eof and (piece := stream.read(_INFLATED_AT_MOST // 64)):
        beginning += inflater.decompress(piece, _INFLATED_AT_MOST - len(beginning))
    return beginning
