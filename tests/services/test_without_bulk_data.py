"""Retrieval without bulk data (PS3.4 Annex Z): pixels and the like are gone, and everything else is as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from aiodicom import (
    EncodedInstance,
    InstanceFile,
    Operation,
    Progress,
    contexts_to_retrieve,
    open_instance,
)
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.part10 import file_meta
from aiodicom.services.retrieve import get_service
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import CT, connect, ct_instance, instance_uid, serving
from tests.peers.comparing import well_formed_instances
from tests.peers.synthetic import element, sop_common
from tests.services.retrieving import a_large_file, encapsulated, returning

BULK = (0x7FE00010, 0x7FE00008, 0x7FE00009, 0x00287FE0, 0x56000020, 0x00420011, 0x60003000, 0x60023000)


async def retrieved(*instances: InstanceFile | EncodedInstance | Path) -> tuple[dict[str, Dataset], Progress]:
    """What comes of instances without their bulk data, by SOP Instance UID."""
    classes = {each.sop_class_uid for each in instances if not isinstance(each, Path)}
    service = get_service(returning(*instances), "no-bulk-data", sop_classes=classes or [CT])
    contexts = contexts_to_retrieve(sorted(classes or {CT}), models=["no-bulk-data"])
    found: dict[str, Dataset] = {}
    async with serving(services=[service]) as server, connect(server, contexts=contexts) as association:
        instances_ = association.c_get(model="no-bulk-data", SOPInstanceUID="1.2.3")
        async for each in instances_:
            assert isinstance(each, Operation)
            assert each.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN
            found[each.sop_instance_uid] = await each.dataset()
    return found, instances_.progress


def less(dataset: Dataset) -> Dataset:
    """A data set without its bulk data, by the Standard's list."""
    for tag in BULK:
        dataset.pop(tag, None)
    for waveform in dataset.get("WaveformSequence", ()):
        waveform.pop("WaveformData", None)
    return dataset


async def test_of_real_instances_everything_but_the_bulk_data_comes() -> None:
    files = {each.sop_instance_uid: each for each in well_formed_instances()}
    found, progress = await retrieved(*files.values())
    assert progress == Progress(None, len(files), 0, 0)
    assert set(found) == set(files)
    had = 0
    for uid, file in files.items():
        whole = dcmread(file.path)
        had += any(tag in whole for tag in BULK)
        expected = encode_data_set(less(whole), IMPLICIT_VR_LITTLE_ENDIAN) if not compressed(file) else None
        assert not any(tag in found[uid] for tag in BULK)
        if expected is not None:
            assert encode_data_set(found[uid], IMPLICIT_VR_LITTLE_ENDIAN) == expected, file.path
        else:
            assert set(found[uid].keys()) == {tag for tag in less(whole).keys() if tag & 0xFFFF}  # noqa: SIM118
    assert had > 20


def compressed(file: InstanceFile) -> bool:
    return file.transfer_syntax_uid.startswith("1.2.840.10008.1.2.4") or file.transfer_syntax_uid.endswith(".1.2.5")


async def test_waveforms_lose_their_samples_and_nothing_else() -> None:
    file = open_instance(str(get_testdata_file("waveform_ecg.dcm")))
    found, _ = await retrieved(file)
    (waveform, *_) = found[file.sop_instance_uid].WaveformSequence
    assert "WaveformData" not in waveform
    assert waveform.NumberOfWaveformChannels == 12
    assert len(waveform.ChannelDefinitionSequence) == 12


async def test_long_values_that_are_no_bulk_data_come_whole(tmp_path: Path) -> None:
    uid = instance_uid(1)
    head = sop_common(CT, uid)
    long = (
        bytes.fromhex("09001000 4c4f0400")
        + b"TEST"
        + bytes.fromhex("09001010 4f420000")
        + (70_000).to_bytes(4, "little")
    )
    text = element(0x0010, 0x4000, b"LT", "x" * 9000)
    path = tmp_path / "1"
    pixels = bytes.fromhex("e07f1000 4f570000") + (4000).to_bytes(4, "little") + bytes(4000)
    path.write_bytes(file_meta(CT, uid, EXPLICIT_VR_LITTLE_ENDIAN) + head + long + b"y" * 70_000 + text + pixels)
    found, _ = await retrieved(open_instance(path))
    assert found[uid][0x00091010].value == b"y" * 70_000
    assert found[uid].PatientComments == "x" * 9000
    assert "PixelData" not in found[uid]


async def test_encoded_instances_lose_theirs_too(tmp_path: Path) -> None:
    found, progress = await retrieved(ct_instance(1), encapsulated(2), a_large_file(tmp_path / "3", 3))
    assert set(found) == {instance_uid(number) for number in (1, 2, 3)}
    assert not any("PixelData" in each for each in found.values())
    assert progress.completed == 3


async def test_what_cannot_be_read_has_failed(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b""

    missing = a_large_file(tmp_path / "1", 1)
    missing.path.unlink()
    no_file = a_large_file(tmp_path / "2", 2)
    no_file.path.write_text("Dear colleague")
    damaged = EncodedInstance(CT, instance_uid(3), IMPLICIT_VR_LITTLE_ENDIAN, b"\xff" * 20)
    in_chunks = EncodedInstance(CT, instance_uid(4), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
    found, progress = await retrieved(missing, no_file, damaged, in_chunks, ct_instance(5))
    assert list(found) == [instance_uid(5)]
    assert progress == Progress(None, 1, 4, 0)


@pytest.mark.parametrize("tag", [0x60003000, 0x601E3000, 0x50003000, 0x5000200C, 0x56000020, 0x00420011, 0x7FE00008])
async def test_every_kind_of_bulk_data_is_left_out(tag: int) -> None:
    uid = instance_uid(1)
    value = bytes(8)
    bulk = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + b"OB\0\0\x08\0\0\0" + value
    data = sop_common(CT, uid) + element(0x0010, 0x0020, b"LO", "1")
    instance = EncodedInstance(CT, uid, EXPLICIT_VR_LITTLE_ENDIAN, data + bulk)
    assert tag in decode_data_set(data + bulk, EXPLICIT_VR_LITTLE_ENDIAN)
    found, _ = await retrieved(instance)
    assert encode_data_set(found[uid], EXPLICIT_VR_LITTLE_ENDIAN) == data
