"""Data sets and files to begin with: small ones of every kind, those that pydicom brings, and some that are hostile."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pydicom.data

from aiodicom.errors import InvalidInstance
from aiodicom.part10 import PREAMBLE, file_meta, open_instance
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.fuzz.data_sets import JPEG, SYNTAXES, encoded

LONGEST: Final = 4096
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
_UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = ("OB", "OW", "SQ", "UN", "UT")


def element(tag: int, vr: str, value: bytes, syntax: str, *, undefined: bool = False) -> bytes:
    """An element, in any transfer syntax that is not deflated."""
    order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    length = _UNDEFINED if undefined else len(value)
    group, number = tag >> 16, tag & 0xFFFF
    if syntax == IMPLICIT_VR_LITTLE_ENDIAN or group == 0xFFFE:
        return struct.pack(order + "HHL", group, number, length) + value
    layout = "HH2s2xL" if vr in _LONG else "HH2sH"
    return struct.pack(order + layout, group, number, vr.encode(), length) + value


def instance(syntax: str) -> bytes:
    """A small data set with something of everything: sequences of both kinds, names, numbers, pixel data."""

    def make(tag: int, vr: str, value: bytes, *, undefined: bool = False) -> bytes:
        return element(tag, vr, value, syntax, undefined=undefined)

    item_end, sequence_end = make(0xFFFEE00D, "", b""), make(0xFFFEE0DD, "", b"")
    step = make(0x00400009, "SH", b"STEP")
    open_item = make(0xFFFEE000, "", step, undefined=True) + item_end
    pixels = (
        make(0x7FE00010, "OB", make(0xFFFEE000, "", b"") + make(0xFFFEE000, "", b"\xff\xd8\xff\xd9"), undefined=True)
        + sequence_end
        if syntax == JPEG
        else make(0x7FE00010, "OW", bytes(8))
    )
    return b"".join(
        (
            make(0x00080005, "CS", b"ISO_IR 192"),
            make(0x00080016, "UI", CT.encode() + b"\0"),
            make(0x00080018, "UI", b"1.2.3.4\0"),
            make(0x00081140, "SQ", make(0xFFFEE000, "", make(0x00081155, "UI", b"1.2.3\0"))),
            make(0x00100010, "PN", "Müller^Eva=x ".encode()),
            make(0x0020000D, "UI", b"1.2\0"),
            make(0x0020000E, "UI", b"1.2.1\0"),
            make(0x00280010, "US", struct.pack(">H" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<H", 2)),
            make(0x00400275, "SQ", open_item + open_item, undefined=True) + sequence_end,
            pixels,
        )
    )


def deflated(data: bytes) -> bytes:
    """A raw RFC 1951 stream (PS3.5 §A.5)."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def _hostile() -> Iterator[tuple[bytes, str]]:
    for syntax in SYNTAXES[:3]:
        sequence = element(0x00081140, "SQ", b"", syntax, undefined=True)
        item = element(0xFFFEE000, "", b"", syntax, undefined=True)
        yield (sequence + item) * 70, syntax
        yield sequence + element(0xFFFEE000, "", b"", syntax) * 200 + element(0xFFFEE0DD, "", b"", syntax), syntax
        nested = b""
        for _ in range(70):
            nested = element(0x00081140, "SQ", element(0xFFFEE000, "", nested, syntax), syntax)
        yield nested, syntax
        yield element(0x00090010, "UN", element(0xFFFEE000, "", b"", syntax), syntax, undefined=True), syntax
        yield element(0x00100020, "LO", b"A", syntax) * 100, syntax
    yield deflated(bytes(300_000)), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN


def _bundled() -> Iterator[tuple[bytes, str, int]]:
    # The smallest files of each transfer syntax that come with pydicom: their content and where the data set begins.
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        if path.stat().st_size <= LONGEST:
            try:
                found = open_instance(path, check=False)
            except InvalidInstance:
                continue
            yield path.read_bytes(), found.transfer_syntax_uid, found.data_set_offset


def for_structure() -> Iterator[bytes]:
    """Z4."""
    for syntax in SYNTAXES[:4]:
        yield encoded(instance(syntax), syntax)
    yield encoded(deflated(instance(EXPLICIT_VR_LITTLE_ENDIAN)), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    for data, syntax in _hostile():
        yield encoded(data, syntax)
    for content, syntax, offset in _bundled():
        if syntax in SYNTAXES:
            yield encoded(content[offset:], syntax)


def for_files() -> Iterator[bytes]:
    """Z6."""
    for syntax in SYNTAXES:
        data = instance(EXPLICIT_VR_LITTLE_ENDIAN if syntax == SYNTAXES[4] else syntax)
        yield file_meta(CT, "1.2.3.4", syntax) + (deflated(data) if syntax == SYNTAXES[4] else data)
    whole = file_meta(CT, "1.2.3.4", EXPLICIT_VR_LITTLE_ENDIAN, source_ae_title="SENDER")
    data = instance(EXPLICIT_VR_LITTLE_ENDIAN)
    yield whole[132:] + data  # without preamble and prefix
    yield b"MZ" + whole[2:] + data
    yield b"II*\0" + whole[4:] + data
    yield whole
    yield PREAMBLE + data
    yield data
    yield file_meta("", "", EXPLICIT_VR_LITTLE_ENDIAN) + data
    yield file_meta("1.2.840.10008.1.3.10", "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN) + data
    for content, _, _ in _bundled():
        yield content
