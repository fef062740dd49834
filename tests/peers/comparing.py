"""Real instances to send, and what arrived compared with what was sent: by elements, by bytes, by pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import pydicom.data
from pydicom import FileDataset, dcmread
from pydicom.filereader import _read_file_meta_info, read_preamble

from aiodicom import InstanceFile, InvalidInstance, open_instance
from aiodicom.uids import UNCOMPRESSED

DATA_SET_TRAILING_PADDING: Final = 0xFFFCFFFC  # PS3.10 §7.2: senders may leave it out
PIXEL_DATA: Final = 0x7FE00010


@cache
def bundled_instances() -> tuple[InstanceFile, ...]:
    """Every file that comes with pydicom and holds an instance that can be sent; some hold the same one."""
    found = []
    for path in sorted(Path(pydicom.data.__file__).with_name("test_files").rglob("*")):
        if path.is_file():
            try:
                found.append(open_instance(path))
            except InvalidInstance:
                continue
    return tuple(found)


@cache
def well_formed_instances() -> tuple[InstanceFile, ...]:
    """Those whose data set says what their File Meta Information says, and which study and series they belong to.

    Peers that parse what they send or receive refuse the others.
    """
    return tuple(instance for instance in bundled_instances() if is_well_formed(instance))


def is_well_formed(instance: InstanceFile) -> bool:
    dataset = read(instance.path)
    own = (dataset.get("SOPClassUID"), dataset.get("SOPInstanceUID"))
    identified = all(dataset.get(name) for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))
    return own == (instance.sop_class_uid, instance.sop_instance_uid) and identified


def bundled(name: str) -> InstanceFile:
    """The one of that name."""
    [found] = [instance for instance in bundled_instances() if instance.path.name == name]
    return found


def rounds(instances: Iterable[InstanceFile]) -> list[dict[str, InstanceFile]]:
    """Shared out, by SOP Instance UID, so that no round holds one instance twice: receivers keep one of each."""
    shares: list[dict[str, InstanceFile]] = []
    for instance in instances:
        share = next((share for share in shares if instance.sop_instance_uid not in share), None)
        if share is None:
            shares.append(share := {})
        share[instance.sop_instance_uid] = instance
    return shares


def read(file: Path | bytes) -> FileDataset:
    """A Part 10 file as pydicom reads it, all values parsed; what pydicom finds odd about a value is no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(BytesIO(file) if isinstance(file, bytes) else file, force=True)
        dataset.walk(lambda _dataset, _element: None)
    return dataset


def take_all(files: Iterable[Path]) -> dict[str, bytes]:
    """The Part 10 files by their Media Storage SOP Instance UID (0002,0003); they are removed from where they are."""
    found = {}
    for path in files:
        file = path.read_bytes()
        found[str(read(file).file_meta.MediaStorageSOPInstanceUID)] = file
        path.unlink()
    return found


def encoded(file: Path | bytes) -> bytes:
    """The data set of a Part 10 file, byte for byte, of even length as it is sent (PS3.5 §A.5)."""
    stream = BytesIO(file if isinstance(file, bytes) else file.read_bytes())
    read_preamble(stream, force=True)
    _read_file_meta_info(stream)
    data = stream.read()
    return data + bytes(len(data) % 2)


def differences(sent: Path | bytes, arrived: Path | bytes, *, transcoded: bool = False) -> list[str]:
    """What of an instance is not as it was sent: tags, and "pixels".

    Padding, and group lengths, which are retired, do not count; nor do, where it was `transcoded`, the encoding of pixel
    data, and elements that pydicom knows by another VR, or in another order of bytes, than they were sent in.
    """
    one, other = read(sent), read(arrived)
    ours, theirs = values(one, transcoded), values(other, transcoded)
    found = [f"{tag:08X}" for tag in sorted(ours.keys() | theirs.keys()) if ours.get(tag) != theirs.get(tag)]
    if transcoded and PIXEL_DATA in one and not np.array_equal(one.pixel_array, other.pixel_array):
        found.append("pixels")
    return found


def values(dataset: FileDataset, transcoded: bool) -> dict[int, object]:
    """What is compared of each element, by tag."""
    return {
        int(element.tag): element.value if transcoded or element.tag == PIXEL_DATA else element
        for element in dataset
        if element.tag != DATA_SET_TRAILING_PADDING
        and element.tag.element != 0
        and not (transcoded and (element.tag == PIXEL_DATA or element.VR in ("OW", "UN")))
    }


def is_uncompressed(instance: InstanceFile) -> bool:
    return instance.transfer_syntax_uid in UNCOMPRESSED
