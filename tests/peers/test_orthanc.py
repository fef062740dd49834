"""Orthanc at the other end: as our receiver, and as a sender to our server, told to by its REST API."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

import pytest

from aiodicom import Category, InstanceFile, Server, associate, contexts_for
from tests.peers.archive import check_file_meta, keep_in
from tests.peers.comparing import bundled, differences, encoded, parse, read, rounds, take_all, well_formed_instances
from tests.peers.orthanc import Orthanc, OrthancError

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

# In a transfer syntax each, and encoded as Orthanc encodes what it sends, so that no byte need change.
CANONICAL = [
    "examples_overlay.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "SC_rgb_rle.dcm",
]


@cache
def identified_instances() -> tuple[InstanceFile, ...]:
    """Those that Orthanc takes: it files them by patient, study and series."""
    identifiers = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
    return tuple(each for each in well_formed_instances() if any(read(each.path).get(name) for name in identifiers))


async def downloads(orthanc: Orthanc) -> dict[str, bytes]:
    """What Orthanc holds, by SOP Instance UID."""
    files = [await orthanc.download(identifier) for identifier in await orthanc.instances()]
    return {str(parse(file).file_meta.MediaStorageSOPInstanceUID): file for file in files}


@both_loops
async def test_orthanc_answers_c_echo(orthanc: Orthanc) -> None:
    peer = orthanc.peer
    async with associate(peer.host, peer.port, called_ae_title=peer.ae_title, observers=()) as association:
        assert (await association.c_echo()).status.category is Category.SUCCESS


async def test_orthanc_gets_every_instance(orthanc: Orthanc) -> None:
    peer = orthanc.peer
    for share in rounds(identified_instances()):
        await orthanc.clear()
        paths = [instance.path for instance in share.values()]
        async with associate(peer.host, peer.port, contexts=contexts_for(paths), observers=()) as association:
            for path in paths:
                response = await association.c_store(path)
                assert response.status.category is Category.SUCCESS, (path.name, response)
        received = await downloads(orthanc)
        for uid, instance in share.items():
            name = instance.path.name
            assert parse(received[uid]).file_meta.TransferSyntaxUID == instance.transfer_syntax_uid, name
            assert differences(instance.path, received[uid]) == [], name
            assert name not in CANONICAL or encoded(received[uid]) == encoded(instance.path), name


async def test_orthanc_says_that_it_cannot_file_an_instance(orthanc: Orthanc) -> None:
    path = bundled("JPEGLSNearLossless_08.dcm").path
    peer = orthanc.peer
    async with associate(peer.host, peer.port, contexts=contexts_for([path]), observers=()) as association:
        response = await association.c_store(path)
        assert response.status.category is Category.FAILURE
        assert (await association.c_echo()).status.category is Category.SUCCESS


async def test_orthanc_has_no_operations_window_and_many_tasks_store_all_the_same(orthanc: Orthanc) -> None:
    [share, *_] = rounds(identified_instances())
    paths = [instance.path for instance in share.values()][:20]
    peer = orthanc.peer
    async with associate(
        peer.host, peer.port, contexts=contexts_for(paths), operations_window=(8, 1), observers=()
    ) as association:
        assert association.terms.maximum_invoked == 1
        responses = await asyncio.gather(*(association.c_store(path) for path in paths))
    assert {response.status.category for response in responses} == {Category.SUCCESS}
    assert len(await orthanc.instances()) == len(paths)


async def test_orthanc_sends_every_instance(orthanc: Orthanc, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    async with keep_in(folder, Server(port=0, observers=())) as server:
        for share in rounds(identified_instances()):
            await orthanc.clear()
            await orthanc.add_modality("us", "AIODICOM", server.port, allow_transcoding=False)
            await orthanc.echo("us")
            identifiers = [await orthanc.upload(instance.path.read_bytes()) for instance in share.values()]
            report = await orthanc.store("us", identifiers)
            assert (report["InstancesCount"], report["FailedInstancesCount"]) == (len(share), 0)
            kept = take_all(folder.iterdir())
            assert kept.keys() == share.keys()
            for uid, instance in share.items():
                name, syntax = instance.path.name, instance.transfer_syntax_uid
                check_file_meta(kept[uid], instance.sop_class_uid, uid, syntax, "ORTHANC")
                assert differences(instance.path, kept[uid]) == [], name
                assert name not in CANONICAL or encoded(kept[uid]) == encoded(instance.path), name


async def test_orthanc_is_told_that_the_called_ae_title_is_wrong(orthanc: Orthanc) -> None:
    async with Server("RIGHT", port=0, require_called_ae_title=True, observers=()) as server:
        await orthanc.add_modality("wrong", "WRONG", server.port)
        await orthanc.add_modality("right", "RIGHT", server.port)
        await orthanc.echo("right")
        with pytest.raises(OrthancError, match="Association Rejected"):
            await orthanc.echo("wrong")


@pytest.mark.parametrize("length", [4_096, 16_384, 131_072, 0])
async def test_orthanc_sends_no_longer_pdu_than_we_take(orthanc: Orthanc, tmp_path: Path, length: int) -> None:
    instance, folder = bundled("examples_overlay.dcm"), tmp_path / "kept"
    identifier = await orthanc.upload(instance.path.read_bytes())
    async with keep_in(folder, Server(port=0, maximum_length=length, observers=())) as server:
        await orthanc.add_modality("us", "AIODICOM", server.port)
        await orthanc.store("us", [identifier])
    [kept] = take_all(folder.iterdir()).values()
    assert encoded(kept) == encoded(instance.path)
