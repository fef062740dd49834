"""PS3.10 files: where their data set begins, whether it is whole, and the bytes that go in front of a received one.

`open_instance` reads the File Meta Information by hand, and then walks over the headers of the data set's elements to
prove that the last one ends where the file ends. Values are never parsed, so that a file of any size costs a few reads.
`check_data_set` does the same in memory. `file_meta` writes the preamble, the prefix and the File Meta Information.
All of it is plain, blocking code for worker threads.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, TypeAlias

from aiodicom.errors import InvalidInstance
from aiodicom.inflating import inflated
from aiodicom.scanner import (
    AS_IT_IS,
    HEADER,
    IN_A_MOMENT,
    LONG_VRS,
    SHORT_VRS,
    Bounds,
    Buffer,
    Found,
    Read,
    Scanner,
    Wanted,
    wanted,
)
from aiodicom.scanning import Scan
from aiodicom.uids import (
    DEFLATED,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    MEDIA_STORAGE_DIRECTORY,
)
from aiodicom.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = [
    "IDENTITY",
    "InstanceFile",
    "check_data_set",
    "file_meta",
    "find_instance",
    "open_instance",
    "picked_uid",
    "read_instance",
    "valid_uid",
    "without_meta",
]

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018

IDENTITY: Final[Wanted] = wanted(SOP_CLASS_UID, SOP_INSTANCE_UID)
"""What an instance says that it is, for a scanner to pick."""

PREAMBLE_LENGTH: Final = 128
PREAMBLE: Final = bytes(PREAMBLE_LENGTH) + b"DICM"  # PS3.10 §7.1

_FIRST_READ: Final = 64 * 1024  # the whole of most small files, and the header of nearly every large one
_NEXT_READ: Final = 4 * 1024
_META_VALUE: Final = 66  # the longest value of the File Meta Information that is read: a padded UID, with some grace
_META_ELEMENT: Final = HEADER + _META_VALUE
_META: Final = Struct("<HH2sH")
_META_GROUPS: Final = (b"\2\0", b"\0\2")  # in little and big endian
_NO_META: Final = (
    "is a DICOM data set without File Meta Information, so that its transfer syntax is unknown; "
    "write it as a PS3.10 file first"
)
_PIXEL_DATA: Final = b"\xe0\x7f\x10\x00"  # its tag, in little endian
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")

Begin: TypeAlias = Callable[[], Scanner]


@dataclass(frozen=True, slots=True)
class InstanceFile:
    """A PS3.10 file that holds one SOP instance: what is needed to send it, without its data set.

    Attributes:
        path: the file.
        sop_class_uid: Media Storage SOP Class UID (0002,0002), or that of the data set where it is missing.
        sop_instance_uid: Media Storage SOP Instance UID (0002,0003), likewise.
        transfer_syntax_uid: Transfer Syntax UID (0002,0010): how the data set is encoded.
        data_set_offset: the byte of the file at which the data set begins; it reaches to the end of the file.
        size: bytes in the file.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    size: int


def valid_uid(text: str) -> bool:
    """Tell whether `text` is a UID by PS3.5 §9.1: digits in components between single dots, at most 64 characters.

    Leading zeros in a component are forbidden there but found in practice: they pass. What passes is a safe file name.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def open_instance(path: str | os.PathLike[str], *, check: bool = True, max_depth: int = AS_IT_IS.depth) -> InstanceFile:
    """Read the File Meta Information of a PS3.10 file and prove that its data set is whole (PS3.10 §7.1).

    A file that was cut exactly between two elements of the data set cannot be told from a whole one.

    Deviations that do no harm are accepted: a wrong or missing group length, values of odd length, a missing SOP class
    or instance UID (then read from the data set), no preamble, Data Set Trailing Padding (FFFC,FFFC).

    Args:
        path: the file.
        check: whether to walk over the data set, see `check_data_set`.
        max_depth: how many sequences of undefined length may be nested.

    Raises:
        InvalidInstance: the file is no DICOM file, has no File Meta Information, names no transfer syntax, is a
            DICOMDIR, or its data set is damaged or truncated. The message names the file.
        OSError: the file cannot be read.
    """
    where = path if isinstance(path, Path) else Path(path)
    if not stat.S_ISREG(os.stat(where).st_mode):  # noqa: PTH116 (likewise); a pipe would be waited for
        raise InvalidInstance(f"{where}: cannot be read: it is no regular file")
    with open(where, "rb", buffering=0) as file:  # noqa: PTH123 (Path.open costs as much again)
        return read_instance(file, where, check=check, max_depth=max_depth)


def read_instance(file: BinaryIO, path: Path, *, check: bool = True, max_depth: int = AS_IT_IS.depth) -> InstanceFile:
    """Do as `open_instance` does, with a file that is open for reading, best without a buffer."""

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    size = os.fstat(file.fileno()).st_size
    bounds = replace(AS_IT_IS, depth=max_depth)
    return _examine(read, read(0, _FIRST_READ), size, path, _prove_whole if check else None, bounds)


def find_instance(data: bytes, path: Path) -> InstanceFile:
    """Do as `open_instance` does, with a file that was read whole, in less time.

    Where Pixel Data (7FE0,0010) ends as the file does, the file is whole, and the elements before it are not walked over:
    an image has hundreds of them. A deflated one that grows as nothing honest does is inflated no further than that shows.

    Args:
        data: the content of the file.
        path: the file.

    Raises:
        InvalidInstance: likewise.
    """
    return _examine(lambda offset, size: data[offset : offset + size], data, len(data), path, _prove_end, IN_A_MOMENT)


def _examine(
    read: Read, head: bytes, size: int, path: Path, prove: Callable[[Begin, bytes, int], None] | None, bounds: Bounds
) -> InstanceFile:
    name = str(path)
    values, offset = _read_meta(head, read, size, name)
    sop_class, sop_instance, syntax = _meta_uids(values, name)
    if offset >= size:
        raise InvalidInstance(f"{name}: truncated: ends after its File Meta Information, without a data set")
    if prove is not None:
        if syntax in DEFLATED:
            _check_deflated(_chunks(read, offset, size), name, bounds)
        else:
            prove(partial(Scanner, read, head, size, syntax, name, bounds), head, offset)
    if not (sop_class and sop_instance):
        found = _identify(bytes(read(offset, _FIRST_READ)), syntax, name)
        sop_class, sop_instance = sop_class or found[0], sop_instance or found[1]
    for uid, what in ((sop_class, "SOP class"), (sop_instance, "SOP instance"), (syntax, "transfer syntax")):
        if not valid_uid(uid):
            raise InvalidInstance(f"{name}: its {what} UID is missing or no UID; correct it before sending")
    return InstanceFile(path, sop_class, sop_instance, syntax, offset, size)


def check_data_set(data: Buffer, transfer_syntax_uid: str, *, bounds: Bounds = AS_IT_IS, name: str = "data set") -> int:
    """Prove that the elements of an encoded data set end exactly where `data` ends, in bounds (PS3.5 §7).

    Sequences and items of undefined length are entered, those of defined length where the bounds say so; values are passed
    over as a whole. A deflated data set is inflated piece by piece.

    Args:
        data: the data set, without preamble and File Meta Information.
        transfer_syntax_uid: how it is encoded.
        bounds: how much it may hold; by default it only has to be whole.
        name: what to call the data in an error.

    Returns:
        How many elements and items were met; 0 where it is deflated.

    Raises:
        InvalidInstance: it is truncated, has a tail, is beyond a bound, or is no data set of that transfer syntax. The
            message gives the offset and the tag, never a value.
    """
    view = memoryview(data)
    if transfer_syntax_uid in DEFLATED:
        _check_deflated((view,), name, bounds)
        return 0
    scanner = Scanner(lambda offset, _: view[offset:], data, len(view), transfer_syntax_uid, name, bounds)
    scanner.run(0)
    return scanner.elements


def file_meta(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    *,
    source_ae_title: str | None = None,
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID,
    implementation_version_name: str = IMPLEMENTATION_VERSION_NAME,
) -> bytes:
    """Return what stands before the data set in a PS3.10 file: preamble, prefix, File Meta Information (PS3.10 §7.1).

    The UIDs are written as they are given.

    Args:
        sop_class_uid: Media Storage SOP Class UID (0002,0002).
        sop_instance_uid: Media Storage SOP Instance UID (0002,0003).
        transfer_syntax_uid: Transfer Syntax UID (0002,0010): the one in which the data set that follows *is* encoded.
        source_ae_title: Source Application Entity Title (0002,0016), absent by default.
        implementation_class_uid: Implementation Class UID (0002,0012) of the writer.
        implementation_version_name: Implementation Version Name (0002,0013) of the writer, at most 16 characters.
    """
    group = (
        b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
        + _meta_element(0x02, b"UI", sop_class_uid, "\0")
        + _meta_element(0x03, b"UI", sop_instance_uid, "\0")
        + _meta_element(0x10, b"UI", transfer_syntax_uid, "\0")
        + _meta_element(0x12, b"UI", implementation_class_uid, "\0")
        + _meta_element(0x13, b"SH", implementation_version_name, " ")
    )
    if source_ae_title is not None:
        group += _meta_element(0x16, b"AE", source_ae_title, " ")
    return PREAMBLE + b"\x02\x00\x00\x00UL\x04\x00" + len(group).to_bytes(4, "little") + group


# ---- File Meta Information


def _meta_element(element: int, vr: bytes, text: str, padding: str) -> bytes:
    value = (text + padding if len(text) % 2 else text).encode("ascii")
    return _META.pack(2, element, vr, len(value)) + value


def _uid(values: dict[int, bytes], element: int) -> str:
    """The UID of an element: some writers pad with a space, and other text must not pass as one."""
    return values.get(element, b"").strip(b"\0 ").decode("latin-1")


def _meta_uids(values: dict[int, bytes], name: str) -> tuple[str, str, str]:
    """SOP class, SOP instance (either may be empty) and transfer syntax UID of an instance."""
    sop_class, syntax = _uid(values, 0x02), _uid(values, 0x10)
    if sop_class == MEDIA_STORAGE_DIRECTORY:
        raise InvalidInstance(f"{name}: is a DICOMDIR, a directory of other files; send the files that it lists")
    if not syntax:
        raise InvalidInstance(
            f"{name}: its File Meta Information lacks the Transfer Syntax UID (0002,0010), so nobody can know how its "
            "data set is encoded; write the file again with the right one"
        )
    return sop_class, _uid(values, 0x03), syntax


def _read_meta(head: bytes, read: Read, size: int, name: str) -> tuple[dict[int, bytes], int]:
    """Return the short values of group 0002 by element number, and the offset behind that group.

    The group ends where another one begins. Its length (0002,0000) is often wrong and only decides where the data
    set is deflated, since a compressed stream can look like another element of the group.
    """
    start = pos = _meta_offset(head, name)
    values: dict[int, bytes] = {}
    declared = base = 0
    buffer = head[:_NEXT_READ]
    while pos < size:
        if base < pos and pos + _META_ELEMENT > base + len(buffer) < size:
            base, buffer = pos, bytes(read(pos, _NEXT_READ))
        at = pos - base + 8
        group, element, vr, length = _META.unpack(buffer[at - 8 : at].ljust(8, b"\0"))
        if group != 2 or (pos == declared and _uid(values, 0x10) in DEFLATED):
            break
        if vr in LONG_VRS:
            length = int.from_bytes(buffer[at : at + 4], "little")
            at += 4
        elif vr not in SHORT_VRS:  # written in implicit VR by mistake
            length = int.from_bytes(buffer[at - 4 : at], "little")
        pos = base + at + length
        if pos > size:
            raise InvalidInstance(
                f"{name}: truncated: (0002,{element:04X}) of its File Meta Information reaches {pos - size} bytes "
                "beyond the end of the file; copy or export it again"
            )
        values[element] = buffer[at : at + length] if length <= _META_VALUE else b""
        if element == 0:
            declared = pos + int.from_bytes(values[0], "little")
    if pos == start:
        raise InvalidInstance(f"{name}: {_NO_META}")
    return values, pos


def _meta_offset(head: bytes, name: str) -> int:
    """The offset of group 0002: behind preamble and prefix, or 0 where a writer left these out."""
    if head[128:132] == b"DICM":
        return 132
    if head[:2] == b"\x02\x00" and head[4:6] in SHORT_VRS | LONG_VRS:
        return 0
    if not head:
        raise InvalidInstance(f"{name}: is empty")
    if head[:2] in (b"\x08\x00", b"\x00\x08") and len(head) > HEADER:
        raise InvalidInstance(f"{name}: {_NO_META}")
    raise InvalidInstance(f"{name}: is not a DICOM file: 'DICM' is not at byte 128")


def _identify(begin: bytes, syntax: str, name: str) -> tuple[str, str]:
    """SOP class and instance UID from the data set: (0008,0016) and (0008,0018) stand among its first elements."""
    if syntax in DEFLATED:
        begin, syntax = next(inflated((memoryview(begin),), name)), EXPLICIT_VR_LITTLE_ENDIAN
    scanner = Scanner(lambda offset, _: begin[offset:], begin, len(begin), syntax, name, wanted=IDENTITY)
    with suppress(InvalidInstance):  # that begins here, and does not end
        scanner.run(0)
    return picked_uid(scanner.found, SOP_CLASS_UID), picked_uid(scanner.found, SOP_INSTANCE_UID)


def picked_uid(found: Found, tag: int) -> str:
    """Return a UID that a scanner picked, without padding; empty where it met none."""
    _, value = found.get(tag, (b"", b""))
    return value.strip(b"\0 ").decode("latin-1")


def without_meta(chunks: Sequence[bytes], transfer_syntax_uid: str) -> Sequence[bytes]:
    """Return the first chunks of a data set without the elements of group 0002 that some peers send before it.

    Behind our own File Meta Information they would count as a part of that.

    Raises:
        InvalidInstance: these elements are damaged, or do not end in those chunks.
    """
    if not chunks or transfer_syntax_uid in DEFLATED:
        return chunks
    begin = chunks[0] if len(chunks[0]) >= len(_META_GROUPS[0]) else b"".join(chunks)
    if not begin.startswith(_META_GROUPS):
        return chunks
    data = b"".join(chunks)
    scanner = Scanner(lambda offset, _: data[offset:], data, len(data), transfer_syntax_uid)
    return [data[scanner.behind_group(2) :]]


# ---- whole or not


def _chunks(read: Read, offset: int, size: int) -> Iterator[memoryview]:
    for start in range(offset, size, _FIRST_READ):
        yield memoryview(read(start, _FIRST_READ))


def _check_deflated(chunks: Iterable[memoryview], name: str, bounds: Bounds) -> None:
    scan = Scan(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, name, bounds)
    for chunk in chunks:
        scan.feed(chunk)
    scan.finish()


def _prove_whole(begin: Begin, _head: bytes, offset: int) -> None:
    begin().run(offset)


def _prove_end(begin: Begin, data: bytes, offset: int) -> None:
    """Walk from Pixel Data on; from the beginning where that does not lead to the end, which then says why."""
    pixel_data = data.find(_PIXEL_DATA, offset)
    if pixel_data >= 0:
        with suppress(InvalidInstance):
            begin().run(pixel_data)
            return
    begin().run(offset)
