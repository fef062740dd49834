"""A remote AE that is Orthanc, dcmqrscp, pynetdicom or storescp: sent to, asked, and retrieved from in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from aiodicom import AssociationAborted, DimseError, EncodedInstance, Outcome, RemoteAE, Retrieval
from aiodicom.remote.retrieval import Way
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from bench.proxy import delaying
from tests.loopback import CT, data_set, element, instance_uid, uid_value
from tests.peers.conftest import StartArchive, StartPeer
from tests.peers.orthanc import Orthanc
from tests.peers.process import Peer, free_port
from tests.peers.pynetdicom_peer import ATTEMPTS
from tests.studies import instances_of, uid_of, write_studies

pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"]), pytest.mark.usefixtures("no_nagle")]

STUDIES = ("jane/chest", "mueller/head", "wang/liver")  # of several SOP classes
# What pynetdicom says where one of its threads took the response that the other waits for.
MISSED_RESPONSE = "DIMSE timeout reached while waiting for message response"
COMPRESSED = "papadopoulou/heart"  # in several transfer syntaxes


def remote_of(peer: Peer, **options: Any) -> RemoteAE:  # noqa: ANN401
    named = {"ae_title": peer.ae_title, "calling_ae_title": "ME", "observers": ()}
    return RemoteAE(peer.host, peer.port, **{**named, **options})


def study(remote: RemoteAE, label: str) -> Retrieval:
    return remote.retrieve(level="study", StudyInstanceUID=uid_of(label))


async def save_all(retrieval: Retrieval, folder: Path) -> Mapping[str, Dataset]:
    """Save all the instances; return what is in the files, by SOP Instance UID."""
    saved = {}
    async with retrieval:
        async for instance in retrieval:
            dataset = dcmread(await instance.save(folder))
            saved[str(dataset.SOPInstanceUID)] = dataset
    assert retrieval.status == 0
    assert retrieval.failed_uids == ()
    return saved


def check(saved: Mapping[str, Dataset], label: str) -> None:
    """It is the study, with all its pixels, and those that are compressed as they are stored."""
    assert sorted(saved) == sorted(str(each.SOPInstanceUID) for each in instances_of(label))
    for stored in instances_of(label):
        got = saved[str(stored.SOPInstanceUID)]
        if stored.file_meta.TransferSyntaxUID.is_compressed:
            assert got.file_meta.TransferSyntaxUID == stored.file_meta.TransferSyntaxUID
        assert got.get("PixelData") == stored.get("PixelData")


async def check_one_and_all(remote: RemoteAE, folder: Path, labels: Sequence[str], *, is_move: bool) -> None:
    """One study after the other, and then all of them at once."""
    for label in labels:
        retrieval = study(remote, label)
        check(await save_all(retrieval, folder / "one"), label)
        assert retrieval.is_move == is_move
    found = await asyncio.gather(*(save_all(study(remote, label), folder / "all") for label in labels))
    for label, saved in zip(labels, found, strict=True):
        check(saved, label)


async def check_leaving(remote: RemoteAE) -> None:
    """One that is left does not disturb another, and the peer can be asked again."""
    async with study(remote, "wang/liver") as other:
        uids = [(await anext(other)).sop_instance_uid]
        async with study(remote, "yamada/spine") as left:
            await anext(left)
        uids += [instance.sop_instance_uid async for instance in other]
    assert sorted(uids) == sorted(str(each.SOPInstanceUID) for each in instances_of("wang/liver"))
    assert (await remote.echo()).status == 0


def check_outcomes(outcomes: Iterable[Outcome], files: Iterable[Path]) -> None:
    """Each file has one outcome, and that is good."""
    outcomes = list(outcomes)
    assert sorted(outcome.path or Path() for outcome in outcomes) == sorted(files)
    assert [outcome for outcome in outcomes if not outcome.is_stored] == []


# Orthanc.


@pytest.mark.parametrize("prefers", ["get", "move"])
async def test_orthanc(orthanc: Orthanc, tmp_path: Path, prefers: Way) -> None:
    files = write_studies(tmp_path / "studies")
    port = free_port()
    await orthanc.add_modality("me", "ME", port, allow_transcoding=False)
    async with remote_of(orthanc.peer, listen_port=port, prefers=prefers) as remote:
        assert (await remote.echo()).status == 0
        check_outcomes([outcome async for outcome in remote.send(files)], files)
        matches = await remote.find(level="study", PatientName="DOE*").all()
        assert sorted(str(match.StudyInstanceUID) for match in matches) == sorted(
            uid_of(label) for label in ("jane/abdomen", "jane/chest", "jane-caps/knee")
        )
        await check_one_and_all(remote, tmp_path, [*STUDIES, COMPRESSED], is_move=prefers == "move")
        await check_leaving(remote)


async def test_orthanc_takes_a_window_that_is_offered(orthanc: Orthanc, tmp_path: Path) -> None:
    files = write_studies(tmp_path / "studies")
    async with remote_of(orthanc.peer, window=8) as remote:
        check_outcomes([outcome async for outcome in remote.send(files, associations=2)], files)
    assert len(await orthanc.instances()) == len(files)


# DCMTK.


@pytest.mark.parametrize("prefers", ["get", "move"])
async def test_dcmqrscp(dcmqrscp: StartArchive, studies: list[Path], tmp_path: Path, prefers: Way) -> None:
    port = free_port()
    peer = await dcmqrscp(studies, destinations={"ME": port})
    async with remote_of(peer, listen_port=port, prefers=prefers) as remote:
        await check_one_and_all(remote, tmp_path, STUDIES, is_move=prefers == "move")
        await check_leaving(remote)


async def test_storescp(storescp: StartPeer, studies: list[Path]) -> None:
    peer = await storescp("--fork", "+xa")
    async with remote_of(peer, maximum_associations=3) as remote:
        check_outcomes([outcome async for outcome in remote.send(studies)], studies)
    assert len(peer.received()) == len(studies)


async def test_storescp_that_takes_one_association_at_a_time(storescp: StartPeer, studies: list[Path]) -> None:
    peer = await storescp("+xa")
    async with remote_of(peer, maximum_associations=1) as remote:
        check_outcomes([outcome async for outcome in remote.send(studies)], studies)
    assert len(peer.received()) == len(studies)


@pytest.mark.parametrize("when", ["--abort-after", "--abort-during"])
async def test_storescp_that_always_aborts_is_tried_some_times(storescp: StartPeer, when: str) -> None:
    peer = await storescp("--fork", when)
    instances = [
        EncodedInstance(CT, instance_uid(number), "1.2.840.10008.1.2", data_set(number)) for number in range(4)
    ]
    async with remote_of(peer) as remote:
        outcomes = await remote.send(instances, retries=2, backoff=0.001).all()
    assert {outcome.attempts for outcome in outcomes} == {3}
    assert {type(outcome.error) for outcome in outcomes} == {AssociationAborted}


# Far away, and left to find out what serves them.


def whole_instance(number: int) -> EncodedInstance:
    """A small instance with what an archive asks for."""
    data = b"".join(
        (
            element(0x0008, 0x0016, uid_value(CT)),
            element(0x0008, 0x0018, uid_value(instance_uid(number))),
            element(0x0010, 0x0020, b"FAR1"),
            element(0x0020, 0x000D, uid_value("1.2.826.0.1.3680043.10.954.1.1")),
            element(0x0020, 0x000E, uid_value("1.2.826.0.1.3680043.10.954.1.2")),
        )
    )
    return EncodedInstance(CT, instance_uid(number), IMPLICIT_VR_LITTLE_ENDIAN, data)


async def send_far(peer: Peer, count: int) -> RemoteAE:
    """Send so many instances over a long way; each has one outcome, and that is good."""
    instances = [whole_instance(number) for number in range(count)]
    async with (
        delaying(peer.host, peer.port, round_trip=0.02) as proxy,
        RemoteAE("127.0.0.1", proxy.port, ae_title=peer.ae_title, observers=()) as remote,
    ):
        outcomes = await remote.send(instances).all()
    assert sorted(outcome.sop_instance_uid for outcome in outcomes) == sorted(map(instance_uid, range(count)))
    assert [outcome for outcome in outcomes if not outcome.is_stored] == []
    return remote


async def test_far_storescp_with_a_process_for_each(storescp: StartPeer) -> None:
    peer = await storescp("--fork")
    remote = await send_far(peer, 200)
    assert len(peer.received()) == 200
    assert remote._pool.best.window == 1
    assert remote._pool.best.associations > 1


async def test_far_storescp_that_takes_one_association_at_a_time(storescp: StartPeer) -> None:
    peer = await storescp()
    remote = await send_far(peer, 100)  # it does not answer a second one as long as the first is there
    assert len(peer.received()) == 100
    assert remote._pool.best == (1, 1)


async def test_far_orthanc(orthanc: Orthanc) -> None:
    remote = await send_far(orthanc.peer, 200)
    assert len(await orthanc.instances()) == 200
    assert remote._pool.best.concurrency > 1


async def test_far_pynetdicom(pynetdicom_scp: StartPeer) -> None:
    peer = await pynetdicom_scp()
    await send_far(peer, 60)
    assert len(peer.received()) == 60


# pynetdicom.


@pytest.mark.parametrize("prefers", ["get", "move"])
async def test_pynetdicom(
    pynetdicom_query_scp: StartArchive, studies: list[Path], tmp_path: Path, prefers: Way
) -> None:
    port = free_port()
    peer = await pynetdicom_query_scp(studies, destinations={"ME": port})
    async with remote_of(peer, listen_port=port, prefers=prefers) as remote:
        # It does not tell the SOP classes, so that it is proposed the commonest transfer syntaxes alone for C-GET.
        labels = STUDIES if prefers == "get" else [*STUDIES, COMPRESSED]
        for attempt in range(ATTEMPTS):
            before = len(peer.output())
            try:
                await check_one_and_all(remote, tmp_path, labels, is_move=prefers == "move")
                await check_leaving(remote)
                break
            except (AssertionError, DimseError):
                if MISSED_RESPONSE not in peer.output(before) or attempt == ATTEMPTS - 1:
                    raise
