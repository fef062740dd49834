"""Whether two files hold the same instance, though in other bytes: it comes back as its last keeper wrote it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from aiodicom.dataset import transcode
from aiodicom.errors import InvalidInstance
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, UNCOMPRESSED

__all__ = ["Encoded", "same_instance"]

_COMPARED_AT_ONCE: Final = 1024 * 1024
_COMPARED_WHOLE: Final = 256 * 1024 * 1024
"""Up to this many bytes, files whose bytes differ are looked at in memory."""

_TRAILING_PADDING: Final = b"\xfc\xff\xfc\xffOB\0\0"  # Data Set Trailing Padding (FFFC,FFFC), PS3.10 §7.2


class Encoded(NamedTuple):
    """A file, where its data set begins, and how that is encoded."""

    path: Path
    offset: int
    transfer_syntax_uid: str


def same_instance(one: Encoded, other: Encoded) -> bool:
    """Tell whether two files hold the same data set; blocks.

    It may be in another of the uncompressed transfer syntaxes, and without the padding behind it, which means nothing and
    which DCMTK, and so Orthanc, leaves out.

    Raises:
        OSError: one of them cannot be read.
    """
    if one.transfer_syntax_uid == other.transfer_syntax_uid:
        if _same_bytes(one, other):
            return True
    elif not {one.transfer_syntax_uid, other.transfer_syntax_uid} <= set(UNCOMPRESSED):
        return False
    if max(each.path.stat().st_size for each in (one, other)) > _COMPARED_WHOLE:
        return False
    try:
        return _plain(one) == _plain(other)
    except InvalidInstance:
        return False


def _plain(file: Encoded) -> bytes:
    """The data set in Explicit VR Little Endian, unless it is compressed, without the padding behind it."""
    data = file.path.read_bytes()[file.offset :]
    if file.transfer_syntax_uid in UNCOMPRESSED:
        data = transcode(data, file.transfer_syntax_uid, EXPLICIT_VR_LITTLE_ENDIAN)
    at = data.rfind(_TRAILING_PADDING)
    behind = at + len(_TRAILING_PADDING) + 4
    is_last = at >= 0 and behind + int.from_bytes(data[behind - 4 : behind], "little") == len(data)
    return data[:at] if is_last else data


def _same_bytes(one: Encoded, other: Encoded) -> bool:
    with one.path.open("rb", buffering=0) as first, other.path.open("rb", buffering=0) as second:
        if os.fstat(first.fileno()).st_size - one.offset != os.fstat(second.fileno()).st_size - other.offset:
            return False
        first.seek(one.offset)
        second.seek(other.offset)
        while chunk := first.read(_COMPARED_AT_ONCE):
            if second.read(_COMPARED_AT_ONCE) != chunk:
                return False
    return True
