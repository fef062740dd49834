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
from pydicom import DataElement, FileDataset, dcmread
from pydicom.dataelem import RawDataElement
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
    """Those whose data set names the SOP instance that the File Meta Information names, and names it in the right VR.

    Peers that parse what they send or receive refuse the others.
    """
    return tuple(instance for instance in bundled_instances() if is_well_formed(instance))


def is_well_formed(instance: InstanceFile) -> bool:
    uids = {0x00080016: instance.sop_class_uid, 0x00080018: instance.sop_instance_uid}
    dataset = dcmread(instance.path, specific_tags=list(uids))
    as_read = [dataset.get_item(tag) for tag in uids]  # before pydicom replaces UN by the VR it knows
    return all(
        element and element.VR in ("UI", None) and dataset[element.tag].value == uids[element.tag]
        for element in as_read
    )


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
        dataset = parse(file)
        dataset.walk(lambda _dataset, _element: None)
    return dataset


def parse(file: Path | bytes) -> FileDataset:
    """A Part 10 file as pydicom reads it, no value parsed yet."""
    return dcmread(BytesIO(file) if isinstance(file, bytes) else file, force=True)


def take_all(files: Iterable[Path]) -> dict[str, bytes]:
    """The Part 10 files by their Media Storage SOP Instance UID (0002,0003); they are removed from where they are."""
    found = {}
    for path in files:
        file = path.read_bytes()
        found[str(parse(file).file_meta.MediaStorageSOPInstanceUID)] = file
        path.unlink()
    return found


def data_set(file: Path | bytes) -> bytes:
    """The data set of a Part 10 file, byte for byte."""
    stream = BytesIO(file if isinstance(file, bytes) else file.read_bytes())
    read_preamble(stream, force=True)
    _read_file_meta_info(stream)
    return stream.read()


def encoded(file: Path | bytes) -> bytes:
    """The data set of a Part 10 file, byte for byte, of even length as it has to be sent (PS3.5 §A.5)."""
    data = data_set(file)
    return data + bytes(len(data) % 2)


def differences(sent: Path | bytes, arrived: Path | bytes, *, transcoded: bool = False) -> list[str]:
    """What of an instance is not as it was sent: tags, and "pixels".

    Padding, and group lengths, which are retired, do not count. Where it was `transcoded`, Implicit VR leaves pydicom
    without the VR of some elements, so that the same bytes are as good; and of pixel data its pixels are compared.
    """
    one, other = read(sent), read(arrived)
    ours, theirs = elements(one), elements(other)
    found = {tag for tag in ours.keys() | theirs.keys() if ours.get(tag) != theirs.get(tag)}
    if transcoded:
        ours_raw, theirs_raw = raw_values(sent), raw_values(arrived)
        found -= {tag for tag in ours_raw.keys() & theirs_raw.keys() if ours_raw[tag] == theirs_raw[tag]}
        found.discard(PIXEL_DATA)
    words = [f"{tag:08X}" for tag in sorted(found)]
    if transcoded and PIXEL_DATA in one:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about padding behind the last pixel
            same_pixels = np.array_equal(one.pixel_array, other.pixel_array)
        words += [] if same_pixels else ["pixels"]
    return words


def raw_values(file: Path | bytes) -> dict[int, bytes]:
    """The encoded values of the elements that are no sequences, by tag."""
    items = parse(file).values()
    return {int(item.tag): item.value or b"" for item in items if isinstance(item, RawDataElement) or item.is_empty}


def elements(dataset: FileDataset) -> dict[int, DataElement]:
    """What is compared of a data set, by tag; encapsulated pixel data may be in OW where it should be in OB."""
    found = {int(each.tag): each for each in dataset if each.tag != DATA_SET_TRAILING_PADDING and each.tag.element != 0}
    if PIXEL_DATA in found and dataset["PixelData"].is_undefined_length:
        found[PIXEL_DATA].VR = "OB"
    return found


def is_uncompressed(instance: InstanceFile) -> bool:
    return instance.transfer_syntax_uid in UNCOMPRESSED
