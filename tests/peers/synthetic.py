"""Instances made for the tests, where no real file is of the kind or size that is needed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from aiodicom import InstanceFile, open_instance
from aiodicom.part10 import file_meta
from aiodicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, storage_sop_classes

SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5")
SOP_CLASSES: Final = (
    48  # with a context for each of the syntaxes and one for the fallbacks, too many for one association
)

MULTI_FRAME_GRAYSCALE_WORD: Final = "1.2.840.10008.5.1.4.1.1.7.3"
FRAMES: Final = 250
FRAME_SIDE: Final = 1_000  # pixels of two bytes: 500 MB in all
PIXEL_BYTES: Final = FRAMES * FRAME_SIDE * FRAME_SIDE * 2
MARKER_DISTANCE: Final = 999_983  # bytes; a prime, so that no two PDUs, chunks or frames are alike


def element(group: int, number: int, vr: bytes, value: str | int) -> bytes:
    """A data element with a value of text, or one US, in Explicit VR Little Endian (PS3.5 §7.1.2)."""
    data = value.to_bytes(2, "little") if isinstance(value, int) else value.encode("ascii")
    data += (b"\0" if vr == b"UI" else b" ") * (len(data) % 2)
    return group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr + len(data).to_bytes(2, "little") + data


def sop_common(sop_class: str, sop_instance: str) -> bytes:
    """The elements that every instance begins with."""
    return element(0x0008, 0x0016, b"UI", sop_class) + element(0x0008, 0x0018, b"UI", sop_instance)


def many_sop_classes(folder: Path) -> list[InstanceFile]:
    """Small instances without pixel data that need more than 128 presentation contexts."""
    folder.mkdir()
    return list(instances(folder, storage_sop_classes()[:SOP_CLASSES]))


def instances(folder: Path, sop_classes: Iterable[str]) -> Iterable[InstanceFile]:
    for number, sop_class in enumerate(sop_classes, 1):
        for syntax_number, syntax in enumerate(SYNTAXES, 1):
            uid = f"1.2.3.{number}.{syntax_number}"
            data = sop_common(sop_class, uid) + element(0x0010, 0x0020, b"LO", f"PATIENT {number}")
            path = folder / f"{uid}.dcm"
            path.write_bytes(file_meta(sop_class, uid, syntax) + data)
            yield open_instance(path)


def large_instance(path: Path) -> InstanceFile:
    """A multi-frame instance of 500 MB: zeros, with a number now and then to tell every part from every other."""
    uid = "1.2.3.500"
    head = (
        sop_common(MULTI_FRAME_GRAYSCALE_WORD, uid)
        + element(0x0028, 0x0002, b"US", 1)
        + element(0x0028, 0x0004, b"CS", "MONOCHROME2")
        + element(0x0028, 0x0008, b"IS", str(FRAMES))
        + element(0x0028, 0x0010, b"US", FRAME_SIDE)
        + element(0x0028, 0x0011, b"US", FRAME_SIDE)
        + element(0x0028, 0x0100, b"US", 16)
        + element(0x0028, 0x0101, b"US", 16)
        + element(0x0028, 0x0102, b"US", 15)
        + element(0x0028, 0x0103, b"US", 0)
        + bytes.fromhex("e07f1000 4f570000")
        + PIXEL_BYTES.to_bytes(4, "little")
    )
    with path.open("wb") as file:
        file.write(file_meta(MULTI_FRAME_GRAYSCALE_WORD, uid, EXPLICIT_VR_LITTLE_ENDIAN) + head)
        start = file.tell()
        for position in range(0, PIXEL_BYTES - 8, MARKER_DISTANCE):
            file.seek(start + position)
            file.write((position + 1).to_bytes(8, "little"))
        file.truncate(start + PIXEL_BYTES)
    return open_instance(path)


def deflated_without_padding(path: Path) -> InstanceFile:
    """An instance of 1.5 MB, deflated to an odd number of bytes, which its file does not pad as PS3.5 §A.5 has it."""
    uid = "1.2.3.99"
    seven_bits = bytes(code & 0x7F for code in range(256))  # noise of less than 8 bits deflates a little
    for seed in count():
        value = Random(seed).randbytes(1_500_000).translate(seven_bits)
        data_set = (
            sop_common(MULTI_FRAME_GRAYSCALE_WORD, uid)
            + bytes.fromhex("09001000 4c4f0400")
            + b"TEST"
            + bytes.fromhex("09001010 4f420000")
        )
        stream = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
        deflated = stream.compress(data_set + len(value).to_bytes(4, "little") + value) + stream.flush()
        if len(deflated) % 2:
            break
    path.write_bytes(file_meta(MULTI_FRAME_GRAYSCALE_WORD, uid, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN) + deflated)
    return open_instance(path)
