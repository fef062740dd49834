"""Each real peer of query and retrieval starts and answers another one: where this fails, the other tests say little."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from aiodicom.uids import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from tests.peers.comparing import take_all
from tests.peers.conftest import StartArchive, StartPeer, StartWorklist
from tests.peers.dcmtk import run_findscu, run_getscu, run_movescu, write_identifier
from tests.peers.orthanc import Orthanc, OrthancError
from tests.peers.pynetdicom_peer import run_pynetdicom_query
from tests.studies import instances_of, uid_of

# Which loop waits for two processes makes no difference.
pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"]), pytest.mark.usefixtures("no_nagle")]

STUDY_LEVEL = "QueryRetrieveLevel=STUDY"
SUCCESS, PENDING, CANCEL = 0x0000, 0xFF00, 0xFE00
JANES = {uid_of(study) for study in ("jane/abdomen", "jane/chest", "jane-caps/knee")}


def key_of(study: str) -> str:
    return f"StudyInstanceUID={uid_of(study)}"


def study_identifier(**keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def uids_below(label: str) -> set[str]:
    return {instance.SOPInstanceUID for instance in instances_of(label)}


async def load(orthanc: Orthanc, studies: list[Path], start: str = "") -> None:
    """Give an Orthanc the files whose label starts like that."""
    for path in studies:
        if path.name.startswith(start):
            await orthanc.upload(path.read_bytes())


# Orthanc.


async def test_findscu_is_refused_by_orthanc_until_it_is_known(orthanc: Orthanc, studies: list[Path]) -> None:
    await load(orthanc, studies, "jane")
    keys = [STUDY_LEVEL, "PatientName=doe*", "StudyInstanceUID"]
    stranger = await run_findscu(orthanc.peer.port, *keys)
    assert stranger.statuses == []
    assert "Peer Aborted Association" in stranger.log
    await orthanc.add_modality("findscu", "FINDSCU", 104)
    known = await run_findscu(orthanc.peer.port, *keys)
    assert known.statuses == [*[PENDING] * 3, SUCCESS]
    assert {match.StudyInstanceUID for match in known.matches} == JANES
    await orthanc.add_modality("findscu", "FINDSCU", 104, forbidden=["Find"])
    assert (await run_findscu(orthanc.peer.port, *keys)).statuses == []


async def test_movescu_makes_orthanc_send_to_storescp(
    orthanc: Orthanc, storescp: StartPeer, studies: list[Path]
) -> None:
    await load(orthanc, studies, "jane")
    peer = await storescp("+B")
    await orthanc.add_modality("movescu", "MOVESCU", 104)
    await orthanc.add_modality("receiver", peer.ae_title, peer.port)
    moved = await run_movescu(orthanc.peer.port, peer.ae_title, STUDY_LEVEL, key_of("jane/chest"))
    assert moved.statuses[-1] == SUCCESS
    assert moved.counters == {"Completed": 7, "Failed": 0, "Warning": 0}
    assert take_all(peer.received()).keys() == uids_below("jane/chest")


async def test_getscu_fetches_from_orthanc(orthanc: Orthanc, tmp_path: Path, studies: list[Path]) -> None:
    await load(orthanc, studies, "jane")
    await orthanc.add_modality("getscu", "GETSCU", 104)
    got = await run_getscu(orthanc.peer.port, tmp_path / "got", STUDY_LEVEL, key_of("jane/abdomen"))
    assert got.statuses == [*[PENDING] * 10, SUCCESS]
    assert got.counters == {"Completed": 10, "Failed": 0, "Warning": 0}
    assert take_all((tmp_path / "got").iterdir()).keys() == uids_below("jane/abdomen")


async def test_one_orthanc_sends_to_another(two_orthancs: tuple[Orthanc, Orthanc], studies: list[Path]) -> None:
    orthanc, other = two_orthancs
    await load(orthanc, studies, "mueller")
    [answer] = await other.find("ORTHANC", "Study", {"StudyDate": "20200301"})
    assert answer["StudyInstanceUID"] == uid_of("mueller/head")
    await other.move("ORTHANC", "Study", {"StudyInstanceUID": answer["StudyInstanceUID"]}, "OTHER")
    assert len(await other.instances()) == 6
    with pytest.raises(OrthancError):
        await other.move("ORTHANC", "Study", {"StudyInstanceUID": answer["StudyInstanceUID"]}, "NOBODY")


# dcmqrscp.


async def test_findscu_finds_in_dcmqrscp(dcmqrscp: StartArchive, studies: list[Path]) -> None:
    peer = await dcmqrscp(studies)
    found = await run_findscu(
        peer.port, STUDY_LEVEL, "PatientID=1001", "StudyInstanceUID", options=["-aec", peer.ae_title]
    )
    assert found.statuses == [*[PENDING] * 3, SUCCESS]
    assert {match.StudyInstanceUID for match in found.matches} == JANES


async def test_findscu_takes_a_query_file_and_cancels(
    dcmqrscp: StartArchive, tmp_path: Path, studies: list[Path]
) -> None:
    peer = await dcmqrscp(studies)
    query = tmp_path / "query.dcm"
    write_identifier(study_identifier(PatientID="", StudyInstanceUID=""), query)
    options = ["-aec", peer.ae_title]
    everything = await run_findscu(peer.port, options=options, query=query)
    cancelled = await run_findscu(peer.port, options=[*options, "--cancel", "1"], query=query)
    assert everything.statuses == [*[PENDING] * 14, SUCCESS]
    assert cancelled.statuses[-1] in {CANCEL, SUCCESS}  # as fast as it is


async def test_movescu_makes_dcmqrscp_send_to_whom_it_knows(
    dcmqrscp: StartArchive, storescp: StartPeer, studies: list[Path]
) -> None:
    receiver = await storescp("+B")
    peer = await dcmqrscp(studies, destinations={receiver.ae_title: receiver.port})
    options = ["-aec", peer.ae_title]
    moved = await run_movescu(peer.port, receiver.ae_title, STUDY_LEVEL, key_of("wang/liver"), options=options)
    assert moved.statuses == [*[PENDING] * 14, SUCCESS]
    assert moved.counters == {"Completed": 14, "Failed": 0, "Warning": 0}
    assert take_all(receiver.received()).keys() == uids_below("wang/liver")
    unknown = await run_movescu(peer.port, "NOBODY", STUDY_LEVEL, key_of("wang/liver"), options=options)
    assert unknown.statuses == [0xA801]


async def test_getscu_fetches_from_dcmqrscp(dcmqrscp: StartArchive, tmp_path: Path, studies: list[Path]) -> None:
    peer = await dcmqrscp(studies)
    got = await run_getscu(
        peer.port, tmp_path / "got", STUDY_LEVEL, key_of("wang/liver"), options=["-aec", peer.ae_title]
    )
    assert got.statuses == [*[PENDING] * 14, SUCCESS]
    assert take_all((tmp_path / "got").iterdir()).keys() == uids_below("wang/liver")


async def test_dcmqrscp_keeps_what_is_sent_to_it(dcmqrscp: StartArchive, orthanc: Orthanc, studies: list[Path]) -> None:
    peer = await dcmqrscp()
    await load(orthanc, studies, "odd.other")
    await orthanc.add_modality("archive", peer.ae_title, peer.port)
    await orthanc.store("archive", await orthanc.instances())
    assert take_all(peer.received()).keys() == uids_below("odd/other")


# wlmscpfs.


async def test_findscu_and_orthanc_find_in_wlmscpfs(wlmscpfs: StartWorklist, orthanc: Orthanc) -> None:
    peer = await wlmscpfs([worklist_entry("Müller^Anna", "CT"), worklist_entry("Maier^Ida", "MR")])
    found = await run_findscu(
        peer.port,
        "PatientName",
        "ScheduledProcedureStepSequence[0].Modality=CT",
        model="-W",
        options=["-aec", peer.ae_title],
    )
    assert found.statuses == [PENDING, SUCCESS]
    assert [str(match.PatientName) for match in found.matches] == ["Müller^Anna"]
    await orthanc.add_modality("worklist", peer.ae_title, peer.port)
    entries = await orthanc.find_worklist("worklist", {"PatientName": "Ma*"})
    assert [entry["PatientName"] for entry in entries] == ["Maier^Ida"]


def worklist_entry(name: str, modality: str) -> Dataset:
    """A scheduled procedure step with all that wlmscpfs insists on."""
    step = Dataset()
    step.Modality = modality
    step.ScheduledStationAETitle = "STATION"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20200101", "0930"
    step.ScheduledPerformingPhysicianName = step.ScheduledStationName = step.ScheduledProcedureStepLocation = ""
    step.ScheduledProcedureStepDescription, step.ScheduledProcedureStepID = "Step", "1"
    entry = Dataset()
    entry.SpecificCharacterSet = "ISO_IR 100"
    entry.PatientName, entry.PatientID, entry.AccessionNumber = name, "1", "1"
    entry.StudyInstanceUID = "1.2.3"
    entry.RequestedProcedureID, entry.RequestedProcedureDescription = "1", "Procedure"
    entry.ScheduledProcedureStepSequence = [step]
    return entry


# pynetdicom.


async def test_dcmtk_asks_pynetdicom(
    pynetdicom_query_scp: StartArchive, storescp: StartPeer, tmp_path: Path, studies: list[Path]
) -> None:
    receiver = await storescp("+xa", "+B")
    peer = await pynetdicom_query_scp(studies, destinations={receiver.ae_title: receiver.port})
    found = await run_findscu(peer.port, STUDY_LEVEL, "PatientName=doe*", "StudyInstanceUID")
    assert found.statuses == [*[PENDING] * 3, SUCCESS]
    assert {match.StudyInstanceUID for match in found.matches} == JANES
    got = await run_getscu(peer.port, tmp_path / "got", STUDY_LEVEL, key_of("jane/chest"))
    assert got.counters["Completed"] == 7
    assert take_all((tmp_path / "got").iterdir()).keys() == uids_below("jane/chest")
    moved = await run_movescu(peer.port, receiver.ae_title, STUDY_LEVEL, key_of("papadopoulou/heart"))
    assert moved.counters["Completed"] == 5
    assert take_all(receiver.received()).keys() == uids_below("papadopoulou/heart")
    unknown = await run_movescu(peer.port, "NOBODY", STUDY_LEVEL, key_of("jane/chest"))
    assert unknown.statuses == [0xA801]


async def test_pynetdicom_asks_dcmqrscp(
    dcmqrscp: StartArchive, storescp: StartPeer, tmp_path: Path, studies: list[Path]
) -> None:
    receiver = await storescp("+B")
    peer = await dcmqrscp(studies, destinations={receiver.ae_title: receiver.port})
    called = ["--called", peer.ae_title]
    janes = study_identifier(PatientID="1001", StudyInstanceUID="")
    found = await run_pynetdicom_query("find", peer.port, STUDY_ROOT_FIND, janes, *called)
    assert found.statuses == [*[PENDING] * 3, SUCCESS]
    assert {match.StudyInstanceUID for match in found.matches} == JANES
    chest = study_identifier(StudyInstanceUID=uid_of("jane/chest"))
    keep = ["--directory", str(tmp_path)]
    got = await run_pynetdicom_query("get", peer.port, STUDY_ROOT_GET, chest, *called, *keep)
    assert got.counters == {"Completed": 7, "Failed": 0, "Warning": 0}
    assert {dcmread(path).SOPInstanceUID for path in tmp_path.glob("*.dcm")} == uids_below("jane/chest")
    to_receiver = ["--destination", receiver.ae_title]
    moved = await run_pynetdicom_query("move", peer.port, STUDY_ROOT_MOVE, chest, *called, *to_receiver)
    assert moved.counters == {"Completed": 7, "Failed": 0, "Warning": 0}
    assert take_all(receiver.received()).keys() == uids_below("jane/chest")


async def test_pynetdicom_cancels_what_it_asked_pynetdicom(
    pynetdicom_query_scp: StartArchive, studies: list[Path]
) -> None:
    peer = await pynetdicom_query_scp(studies)
    everything = study_identifier(StudyInstanceUID="")
    everything.QueryRetrieveLevel = "IMAGE"
    report = await run_pynetdicom_query("find", peer.port, STUDY_ROOT_FIND, everything, "--cancel-after", "2")
    assert report.statuses[-1] in {CANCEL, SUCCESS}  # as fast as it is
    assert len(report.matches) >= 2
