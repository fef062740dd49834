"""`aiodicom find`, `get` and `move`, as processes, against Orthanc and dcmqrscp."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.holding import kept, names_of
from tests.cli.running import PROGRAM, run
from tests.peers.comparing import take_all
from tests.peers.conftest import StartArchive, StartPeer, StartWorklist
from tests.peers.orthanc import Orthanc
from tests.peers.process import Peer, execute, free_port
from tests.peers.test_query_peers_start import load, uids_below, worklist_entry
from tests.studies import uid_of

# Which loop waits for two processes makes no difference.
pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"]), pytest.mark.usefixtures("no_nagle")]

CHEST = f"StudyInstanceUID={uid_of('jane/chest')}"
JANES = [uid_of(study) for study in ("jane/abdomen", "jane/chest", "jane-caps/knee")]


def address(peer: Peer) -> str:
    return f"{peer.ae_title}@{peer.host}:{peer.port}"


async def test_orthanc_until_it_knows_us(orthanc: Orthanc, tmp_path: Path, studies: list[Path]) -> None:
    await load(orthanc, studies, "jane")
    peer = address(orthanc.peer)
    here = ("-od", tmp_path / "here")
    for command in (
        ["find", peer],
        ["get", peer, "-k", CHEST, *here],
        ["move", peer, "--to", "self", "-k", CHEST, *here],
    ):
        stranger = await run(*command)
        assert stranger.exit_code == 70
        assert "perhaps the peer does not know our AE title, AIODICOM: " in stranger.errors
    port = free_port()
    await orthanc.add_modality("aiodicom", "AIODICOM", port)

    found = await run("find", peer, "-k", "PatientName=doe*", "--output", "uids")
    assert (found.exit_code, found.errors) == (0, "")
    assert sorted(found.output.split()) == sorted(JANES)

    got = await run("get", peer, "-k", CHEST, *here)
    assert (got.exit_code, got.errors) == (0, "")
    assert got.output.startswith("got 7 instances (")
    assert kept(tmp_path / "here").keys() == names_of("jane/chest")

    moved = await run("move", peer, "--to", "self", "--port", str(port), "-k", CHEST, "-od", tmp_path / "moved")
    assert (moved.exit_code, moved.errors) == (0, "")
    assert moved.output.startswith("got 7 instances (")
    assert kept(tmp_path / "moved") == kept(tmp_path / "here")


async def test_what_is_found_in_orthanc_is_piped_into_get(
    orthanc: Orthanc, tmp_path: Path, studies: list[Path]
) -> None:
    await load(orthanc, studies, "jane")
    await orthanc.add_modality("aiodicom", "AIODICOM", 104)
    peer = address(orthanc.peer)
    found = await run("find", peer, "--level", "series", "-k", "Modality=MR")
    assert len(list(map(json.loads, found.output.splitlines()))) == 2
    got = await execute([*PROGRAM, "get", peer, "-", "-od", str(tmp_path / "here")], stdin=found.output.encode())
    assert (got.exit_code, got.errors) == (0, "")
    assert kept(tmp_path / "here").keys() == names_of("jane-caps/knee")


async def test_orthanc_moves_to_another_orthanc(two_orthancs: tuple[Orthanc, Orthanc], studies: list[Path]) -> None:
    orthanc, other = two_orthancs
    await load(orthanc, studies, "mueller")
    await orthanc.add_modality("aiodicom", "AIODICOM", 104)
    head = f"StudyInstanceUID={uid_of('mueller/head')}"
    moved = await run("move", address(orthanc.peer), "--to", "OTHER", "-k", head)
    assert (moved.exit_code, moved.errors) == (0, "")
    assert moved.output.startswith(f"moved 6 instances from {address(orthanc.peer)} to OTHER in ")
    assert len(await other.instances()) == 6
    unknown = await run("move", address(orthanc.peer), "--to", "NOBODY", "-k", head)
    assert unknown.exit_code == 69
    assert "answered 0xC000 Failure" in unknown.errors
    assert "does not know NOBODY" in unknown.errors


async def test_dcmqrscp(dcmqrscp: StartArchive, storescp: StartPeer, tmp_path: Path, studies: list[Path]) -> None:
    receiver, port = await storescp("+B"), free_port()
    peer = await dcmqrscp(studies, destinations={receiver.ae_title: receiver.port, "AIODICOM": port})
    there = [peer.host, str(peer.port), "-aec", peer.ae_title]

    found = await run(
        "find", *there, "-S", "-k", "0008,0052=STUDY", "-k", "PatientID=1001", "-k", "0020,000d", "--output", "uids"
    )
    assert (found.exit_code, found.errors) == (0, "")
    assert sorted(found.output.split()) == sorted(JANES)

    got = await run("get", *there, "-S", "-k", CHEST, "-od", tmp_path / "here")
    assert (got.exit_code, got.errors) == (0, "")
    assert kept(tmp_path / "here").keys() == names_of("jane/chest")

    ourselves = await run("move", *there, "--to", "self", "+P", str(port), "-k", CHEST, "-od", tmp_path / "moved")
    assert (ourselves.exit_code, ourselves.errors) == (0, "")
    assert kept(tmp_path / "moved").keys() == names_of("jane/chest")

    moved = await run("move", *there, "-aem", receiver.ae_title, "-S", "-k", CHEST)
    assert (moved.exit_code, moved.errors) == (0, "")
    assert moved.output.startswith(f"moved 7 instances from {address(peer)} to {receiver.ae_title} in ")
    assert take_all(receiver.received()).keys() == uids_below("jane/chest")

    unknown = await run("move", *there, "-aem", "NOBODY", "-k", CHEST)
    assert unknown.exit_code == 69
    assert "it does not know NOBODY: add that there" in unknown.errors


async def test_dcmqrscp_ignores_keys_of_another_level(dcmqrscp: StartArchive, studies: list[Path]) -> None:
    peer = await dcmqrscp(studies)
    found = await run("find", address(peer), "--level", "series", "-k", "PatientName=Doe*", "-k", "Modality=MR")
    assert found.exit_code == 0
    assert "PatientName is not what was asked for: the peer does not match by it here" in found.errors


async def test_a_worklist(wlmscpfs: StartWorklist) -> None:
    peer = await wlmscpfs([worklist_entry("Müller^Anna", "CT"), worklist_entry("Maier^Ida", "MR")])
    modality = "ScheduledProcedureStepSequence[0].Modality=CT"
    found = await run("find", address(peer), "-W", "-k", modality, "--output", "table")
    assert (found.exit_code, found.errors) == (0, "")
    heading, entry = found.output.splitlines()
    assert heading.split()[:5] == ["StartDate", "StartTime", "Modality", "Station", "PatientName"]
    assert entry.split()[:5] == ["2020-01-01", "09:30", "CT", "STATION", "Müller^Anna"]


async def test_dcmqrscp_cannot_send_what_it_has_compressed(
    dcmqrscp: StartArchive, tmp_path: Path, studies: list[Path]
) -> None:
    peer = await dcmqrscp(studies)
    heart = f"StudyInstanceUID={uid_of('papadopoulou/heart')}"
    got = await run("get", address(peer), "-k", heart, "-od", tmp_path / "here")
    assert got.exit_code == 69
    assert got.output.splitlines()[1] == "3 failed:"
    assert len(kept(tmp_path / "here")) == 2
