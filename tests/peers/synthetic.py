"""Instances made for the tests, where no real file is of the kind or size that is needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from aiodicom import InstanceFile, open_instance
from aiodicom.part10 import file_meta
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, storage_sop_classes

SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5")
SOP_CLASSES: Final = (
    48  # with a context for each of the syntaxes and one for the fallbacks, too many for one association
)


def element(group: int, number: int, vr: bytes, text: str) -> bytes:
    """A data element with a value of text in Explicit VR Little Endian (PS3.5 §7.1.2)."""
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr + len(value).to_bytes(2, "little") + value


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
