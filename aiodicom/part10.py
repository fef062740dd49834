"""PS3.10 files: where their data set begins, whether it is whole, and the bytes that go in front of a received one.

`open_instance` reads the File Meta Information by hand, and then walks over the headers of the data set's elements to
prove that the last one ends where the file ends. Values are never parsed, so that a file of any size costs a few reads.
`check_data_set` does the same in memory. `file_meta` writes the preamble, the prefix and the File Meta Information.
All of it is plain, blocking code for worker threads.
"""

from __future__ import annotations

import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final, NoReturn, TypeAlias

from aiodicom.errors import InvalidInstance
from aiodicom.uids import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MEDIA_STORAGE_DIRECTORY,
)
from aiodicom.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = [
    "Buffer",
    "InstanceFile",
    "Walk",
    "check_data_set",
    "file_meta",
    "find_instance",
    "inflate",
    "inflated",
    "open_instance",
    "read_instance",
    "valid_uid",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Encoded data in memory; a memoryview has format "B"."""

MAXIMUM_DEPTH: Final = 64
"""How many sequences of undefined length may be nested in one another, unless told otherwise."""

PREAMBLE: Final = bytes(128) + b"DICM"  # PS3.10 §7.1
UNDEFINED: Final = 0xFFFFFFFF  # PS3.5 §7.1.1: the length of a value that ends with a delimiter
ITEM: Final = 0xFFFEE000  # PS3.5 §7.5
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD

# PS3.5 Table 7.1-1: explicit VRs with a 32-bit length after two reserved bytes; Table 7.1-2: those with a 16-bit one.
LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_VRS: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

_HEADER: Final = 12  # the longest header of an element
_FIRST_READ: Final = 64 * 1024  # the whole of most small files, and the header of nearly every large one
_NEXT_READ: Final = 4 * 1024
_INFLATED_AT_ONCE: Final = 256 * 1024
_DEFLATED_TAIL: Final = 9  # the padding NUL (PS3.5 §A.5), and the eight bytes of a gzip trailer that some writers leave
_META_VALUE: Final = 66  # the longest value of the File Meta Information that is read: a padded UID, with some grace
_META_ELEMENT: Final = _HEADER + _META_VALUE
_META: Final = Struct("<HH2sH")
_NO_META: Final = (
    "is a DICOM data set without File Meta Information, so that its transfer syntax is unknown; "
    "write it as a PS3.10 file first"
)
_PIXEL_DATA: Final = b"\xe0\x7f\x10\x00"  # its tag, in little endian
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")

Read: TypeAlias = Callable[[int, int], Buffer]  # (offset, size): up to that many bytes, or more where they cost nothing
Begin: TypeAlias = Callable[[], "Walk"]


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


def open_instance(path: str | os.PathLike[str], *, check: bool = True, max_depth: int = MAXIMUM_DEPTH) -> InstanceFile:
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


def read_instance(file: BinaryIO, path: Path, *, check: bool = True, max_depth: int = MAXIMUM_DEPTH) -> InstanceFile:
    """Do as `open_instance` does, with a file that is open for reading, best without a buffer."""

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    size = os.fstat(file.fileno()).st_size
    return _examine(read, read(0, _FIRST_READ), size, path, _prove_whole if check else None, max_depth)


def find_instance(data: bytes, path: Path) -> InstanceFile:
    """Do as `open_instance` does, with a file that was read whole, in less time.

    Where Pixel Data (7FE0,0010) ends as the file does, the file is whole, and the elements before it are not walked over:
    an image has hundreds of them.

    Args:
        data: the content of the file.
        path: the file.

    Raises:
        InvalidInstance: likewise.
    """
    return _examine(lambda offset, size: data[offset : offset + size], data, len(data), path, _prove_end, MAXIMUM_DEPTH)


def _examine(
    read: Read, head: bytes, size: int, path: Path, prove: Callable[[Begin, bytes, int], None] | None, max_depth: int
) -> InstanceFile:
    name = str(path)
    values, offset = _read_meta(head, read, size, name)
    sop_class, sop_instance, syntax = _meta_uids(values, name)
    if offset >= size:
        raise InvalidInstance(f"{name}: truncated: ends after its File Meta Information, without a data set")
    if prove is not None:
        if syntax in DEFLATED:
            _check_deflated(_chunks(read, offset, size), name)
        else:
            prove(partial(Walk, read, head, size, syntax, name, max_depth), head, offset)
    if not (sop_class and sop_instance):
        found = _identify(bytes(read(offset, _FIRST_READ)), syntax, name)
        sop_class, sop_instance = sop_class or found[0], sop_instance or found[1]
    for uid, what in ((sop_class, "SOP class"), (sop_instance, "SOP instance"), (syntax, "transfer syntax")):
        if not valid_uid(uid):
            raise InvalidInstance(f"{name}: its {what} UID is missing or no UID; correct it before sending")
    return InstanceFile(path, sop_class, sop_instance, syntax, offset, size)


def check_data_set(
    data: Buffer,
    transfer_syntax_uid: str,
    *,
    max_depth: int = MAXIMUM_DEPTH,
    max_elements: int | None = None,
    name: str = "data set",
) -> None:
    """Prove that the elements of an encoded data set end exactly where `data` ends (PS3.5 §7).

    Sequences and items of undefined length are entered, to any depth that is allowed and without recursion; those of
    defined length, and values, are passed over as a whole. Of a deflated data set only the end of its compressed stream
    is checked, inflating it piece by piece.

    Args:
        data: the data set, without preamble and File Meta Information.
        transfer_syntax_uid: how it is encoded.
        max_depth: how many sequences of undefined length may be nested.
        max_elements: how many elements may be met on the way; None is no limit.
        name: what to call the data in an error.

    Raises:
        InvalidInstance: it is truncated, has a tail, or is no data set of that transfer syntax. The message gives the
            offset and the tag, never a value.
    """
    view = memoryview(data)
    if transfer_syntax_uid in DEFLATED:
        _check_deflated((view,), name)
    else:
        walk = Walk(
            lambda offset, _: view[offset:], view, len(view), transfer_syntax_uid, name, max_depth, max_elements
        )
        walk.run(0)


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


def inflate(data: Buffer, max_size: int, *, name: str = "data set") -> bytes:
    """Return a deflated data set inflated (PS3.5 §A.5: a raw RFC 1951 stream), if that takes at most `max_size` bytes.

    Raises:
        InvalidInstance: the stream is damaged, truncated, or grows beyond `max_size`.
    """
    pieces: list[bytes] = []
    size = 0
    for piece in inflated((memoryview(data),), name):
        size += len(piece)
        if size > max_size:
            raise InvalidInstance(
                f"{name}: inflates to more than {max_size} bytes; raise the limit if it can be trusted"
            )
        pieces.append(piece)
    return b"".join(pieces)


def data_set_encoding(transfer_syntax_uid: str, data: Buffer, name: str) -> tuple[bool, bool]:
    """Return (implicit VR, little endian) of a data set that begins with `data` and is not deflated (PS3.5 Annex A).

    A private transfer syntax does not say: the data does.

    Raises:
        InvalidInstance: the data contradicts its transfer syntax.
    """
    vr = bytes(data[4:6])
    looks_implicit = len(vr) == 2 and not (vr.isalpha() and vr.isupper())
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        implicit, contradicted = True, vr in SHORT_VRS or vr in LONG_VRS
    elif transfer_syntax_uid.startswith("1.2.840.10008.1.2."):
        implicit, contradicted = False, looks_implicit
    else:
        implicit, contradicted = looks_implicit, False
    if contradicted:
        named, found = ("implicit", "explicit") if implicit else ("explicit", "implicit")
        raise InvalidInstance(
            f"{name}: begins in {found} VR, but its transfer syntax {transfer_syntax_uid} has {named} VR; "
            "correct the Transfer Syntax UID"
        )
    return implicit, transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN


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
    if head[:2] in (b"\x08\x00", b"\x00\x08") and len(head) > _HEADER:
        raise InvalidInstance(f"{name}: {_NO_META}")
    raise InvalidInstance(f"{name}: is not a DICOM file: 'DICM' is not at byte 128")


def _identify(begin: bytes, syntax: str, name: str) -> tuple[str, str]:
    """SOP class and instance UID from the data set: (0008,0016) and (0008,0018) stand among its first elements."""
    from pydicom.filereader import read_dataset

    if syntax in DEFLATED:
        begin = next(inflated((memoryview(begin),), name))
    encoding = data_set_encoding(syntax, begin, name)
    try:
        ds = read_dataset(BytesIO(begin), *encoding, stop_when=lambda tag, *_: tag > 0x00080018)
        return str(ds.get("SOPClassUID", "")), str(ds.get("SOPInstanceUID", ""))
    except (OSError, RecursionError, ValueError):  # what pydicom meets in a damaged data set
        return "", ""


# ---- deflated data sets


def _chunks(read: Read, offset: int, size: int) -> Iterator[memoryview]:
    for start in range(offset, size, _FIRST_READ):
        yield memoryview(read(start, _FIRST_READ))


def inflated(chunks: Iterable[memoryview], name: str) -> Iterator[bytes]:
    """Inflate in pieces of bounded size, whatever the ratio; behind the stream only a short tail may stand."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    tail = 0
    try:
        for chunk in chunks:
            if stream.eof:
                tail += len(chunk)
                continue
            yield stream.decompress(chunk, _INFLATED_AT_ONCE)
            while stream.unconsumed_tail and not stream.eof:
                yield stream.decompress(stream.unconsumed_tail, _INFLATED_AT_ONCE)
            tail += len(stream.unused_data)
        while not stream.eof and (piece := stream.decompress(b"", _INFLATED_AT_ONCE)):
            yield piece
    except zlib.error:
        raise InvalidInstance(f"{name}: its deflated data set is damaged; copy or export it again") from None
    if not stream.eof:
        raise InvalidInstance(f"{name}: truncated: its deflated data set has no end; copy or export it again")
    if tail > _DEFLATED_TAIL:
        raise InvalidInstance(f"{name}: {tail} bytes follow the end of its deflated data set; export it again")


def _check_deflated(chunks: Iterable[memoryview], name: str) -> None:
    for _ in inflated(chunks, name):
        pass


# ---- the walk over the headers of a data set


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


def _headers(order: str) -> tuple[Callable[[Buffer, int], tuple[Any, ...]], ...]:
    return tuple(Struct(order + layout).unpack_from for layout in ("HHL", "H2xL", "4x2sH", "L"))


# How to read, by little endian or not: any tag and length; group and length of implicit VR; VR and length of explicit VR,
# and its 32-bit length.
_HEADERS: Final = {False: _headers(">"), True: _headers("<")}


class Walk:
    """A walk over the headers of an encoded data set, element by element, that ends at its end or in an error.

    Where it stands: among the elements of the data set or of an item (`run`, `_over_elements`, `_enter`), or between
    the items of the innermost open sequence (`_over_items`). Encapsulated pixel data is a sequence whose items are
    fragments (PS3.5 §A.4).
    """

    def __init__(
        self,
        read: Read,
        head: Buffer,
        end: int,
        syntax: str,
        name: str,
        max_depth: int,
        max_elements: int | None = None,
    ) -> None:
        self._read = read
        self._base, self._buffer, self._limit = 0, head, len(head) - _HEADER
        self._end = end
        self._syntax = syntax
        self._name = name
        self._max_depth = max_depth
        self._max_elements = math.inf if max_elements is None else max_elements
        self._elements = 0
        self._between_items = False
        self._open: list[tuple[int, int, bool, tuple[bool, bool]]] = []  # tag, offset, fragments?, encoding around it

    def run(self, pos: int) -> None:
        """Walk from `pos` to the end of the data."""
        if pos == self._end:
            return
        self._encode_as((False, True))
        self._header(pos)
        at = pos - self._base
        self._encode_as(data_set_encoding(self._syntax, self._buffer[at : at + 8], self._name))
        while pos < self._end:
            if self._between_items:
                pos = self._over_items(pos)
            else:
                pos = self._over_implicit(pos) if self._encoding[0] else self._over_explicit(pos)
                if pos < self._end:
                    pos = self._enter(pos)
        if self._open:
            tag, offset, *_ = self._open[-1]
            self._fail(f"truncated: the sequence or pixel data {_tag(tag)} at offset {offset} has no end", again=True)

    def _encode_as(self, encoding: tuple[bool, bool]) -> None:
        self._encoding = encoding
        self._tag_and_length, self._group_and_length, self._vr_and_length, self._long_length = _HEADERS[encoding[1]]

    def _look(self, pos: int) -> int:
        """Have the header at `pos` in the buffer, behind its base; return the offset behind the last such header."""
        if not self._base <= pos <= self._limit:
            chunk = self._read(pos, _NEXT_READ)
            if not chunk:
                self._fail(f"truncated: ended at offset {pos} while it was read", again=True)
            # Near the end zeros complete the header: what it then says reaches beyond the end, or is refused.
            self._buffer = chunk if len(chunk) >= _HEADER else bytes(chunk).ljust(_HEADER, b"\0")
            self._base, self._limit = pos, pos + len(self._buffer) - _HEADER
        return self._limit - self._base + 1

    def _over_explicit(self, pos: int) -> int:
        """Pass over elements of defined length; return the offset of the first other one, or of the end."""
        vr_and_length, long_length, short_vrs = self._vr_and_length, self._long_length, SHORT_VRS
        last = 0
        while pos < self._end:
            behind = self._look(pos)
            buffer, at, count = self._buffer, pos - self._base, 0
            while at < behind:
                vr, length = vr_and_length(buffer, at)
                if vr in short_vrs:
                    last = at
                    at += 8 + length
                elif vr in LONG_VRS and (length := long_length(buffer, at + 8)[0]) != UNDEFINED:
                    last = at
                    at += 12 + length
                else:
                    self._count(count)
                    return self._base + at
                count += 1
            self._count(count)
            pos = self._base + at
            if pos > self._end:
                self._truncated(self._base + last, pos)
        return pos

    def _over_implicit(self, pos: int) -> int:
        """Pass over elements of defined length; return the offset of the first other one, or of the end."""
        group_and_length = self._group_and_length
        last = 0
        while pos < self._end:
            behind = self._look(pos)
            buffer, at, count = self._buffer, pos - self._base, 0
            while at < behind:
                group, length = group_and_length(buffer, at)
                if length == UNDEFINED or not 0 < group < 0xFFFE:
                    self._count(count)
                    return self._base + at
                last = at
                at += 8 + length
                count += 1
            self._count(count)
            pos = self._base + at
            if pos > self._end:
                self._truncated(self._base + last, pos)
        return pos

    def _over_items(self, pos: int) -> int:
        """Pass over items of defined length, into one of undefined length, or out of the sequence."""
        open_tag, open_offset, fragments, encoding = self._open[-1]
        while pos < self._end:
            tag, length = self._header(pos)
            self._count(1)
            if tag == SEQUENCE_DELIMITATION:
                self._open.pop()
                if encoding is not self._encoding:
                    self._encode_as(encoding)
                self._between_items = False
                return pos + 8
            if tag != ITEM or (fragments and length == UNDEFINED):
                self._fail(f"damaged: {_tag(open_tag)} at offset {open_offset} goes on with no item at offset {pos}")
            if length == UNDEFINED:
                self._between_items = False
                return pos + 8
            if pos + 8 + length > self._end:
                self._truncated(pos, pos + 8 + length)
            pos += 8 + length
        return pos

    def _count(self, elements: int) -> None:
        self._elements += elements
        if self._elements > self._max_elements:
            self._fail(f"more than {self._max_elements} elements and items; raise the limit")

    def _enter(self, pos: int) -> int:
        """Deal with the element at `pos` that has an undefined length, no known VR, or is a delimiter."""
        tag, _ = self._header(pos)
        if tag == ITEM_DELIMITATION and self._open:
            self._between_items = True
            return pos + 8
        at = pos - self._base
        vr = bytes(self._buffer[at + 4 : at + 6])
        implicit = self._encoding[0]
        if not 0 < tag >> 16 < 0xFFFE or not (implicit or (vr.isalpha() and vr.isupper())):
            self._fail(f"damaged: no data element begins at offset {pos}, but {_tag(tag)}")
        if implicit or vr in (b"OB", b"OW", b"SQ", b"UN"):
            return self._open_sequence(tag, pos, vr)
        if vr in LONG_VRS:
            self._fail(f"damaged: {_tag(tag)} at offset {pos} has an undefined length, which its VR does not allow")
        # A VR of a later edition: those have a 32-bit length after two reserved bytes (PS3.5 §7.1.2).
        _, short = self._vr_and_length(self._buffer, at)
        (long,) = self._long_length(self._buffer, at + 8)
        behind: int = pos + 8 + short if short else pos + 12 + long
        if behind > self._end:
            self._truncated(pos, behind)
        return behind

    def _open_sequence(self, tag: int, pos: int, vr: bytes) -> int:
        if len(self._open) == self._max_depth:
            self._fail(
                f"more than {self._max_depth} sequences are nested at {_tag(tag)}, offset {pos}; raise the limit"
            )
        implicit, little = self._encoding
        self._open.append((tag, pos, not implicit and vr in (b"OB", b"OW"), self._encoding))
        self._between_items = True
        behind = pos + (8 if implicit else 12)
        if vr == b"UN" and not implicit and behind < self._end:  # PS3.5 §6.2.2: implicit VR inside, little endian
            self._look(behind)
            self._encode_as((True, little or self._buffer[behind - self._base] == 0xFE))
        return behind

    def _header(self, pos: int) -> tuple[int, int]:
        """Return tag and 32-bit length of the header at `pos`."""
        if pos + 8 > self._end:
            self._fail(
                f"truncated: ends at offset {self._end} within the header of an element at offset {pos}", again=True
            )
        self._look(pos)
        group, element, length = self._tag_and_length(self._buffer, pos - self._base)
        return group << 16 | element, length

    def _truncated(self, pos: int, behind: int) -> NoReturn:
        tag, _ = self._header(pos)
        missing = behind - self._end
        self._fail(f"truncated: {_tag(tag)} at offset {pos} reaches {missing} bytes beyond the end", again=True)

    def _fail(self, what: str, *, again: bool = False) -> NoReturn:
        raise InvalidInstance(f"{self._name}: {what}{'; copy or export it again' if again else ''}")


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
