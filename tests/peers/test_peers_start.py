"""Each real peer starts and answers another one: where this fails, the other tests here say nothing about us."""

from __future__ import annotations

import asyncio
import os
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

from tests.peers.conftest import StartPeer
from tests.peers.dcmtk import run
from tests.peers.orthanc import Orthanc, OrthancError
from tests.peers.process import execute, free_port, require
from tests.peers.pynetdicom_peer import run_pynetdicom_scu
from tests.peers.tshark import LONGEST_SEGMENT, dissect, dissect_fields

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
DATA_SET_TRAILING_PADDING = 0xFFFCFFFC
# Each run of pynetdicom takes seconds, and which loop waits for it makes no difference.
once = pytest.mark.asyncio(loop_factories=["asyncio"])


def bundled(name: str) -> Path:
    """A DICOM file that comes with pydicom."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


def elements(file: bytes) -> list[DataElement]:
    """The data set of a Part 10 file, without its padding: storescu leaves that out (PS3.10 §7.2)."""
    return [element for element in dcmread(BytesIO(file)) if element.tag != DATA_SET_TRAILING_PADDING]


async def test_echoscu_reaches_storescp(storescp: StartPeer) -> None:
    peer = await storescp()
    echo = await run("echoscu", "-v", peer.host, str(peer.port))
    assert echo.exit_code == 0, echo
    assert "Received Echo Response" in echo.output + echo.errors


async def test_storescu_reaches_a_forking_storescp(storescp: StartPeer) -> None:
    peer = await storescp("--fork", "+B")
    file = bundled("MR_small.dcm")
    stored = await run("storescu", peer.host, str(peer.port), file)
    assert stored.exit_code == 0, stored
    [received] = peer.received()
    assert elements(received.read_bytes()) == elements(file.read_bytes())


async def test_several_peers_run_at_once(storescp: StartPeer) -> None:
    peers = [await storescp(ae_title=title) for title in ("ONE", "TWO")]
    echoes = await asyncio.gather(*(run("echoscu", peer.host, str(peer.port)) for peer in peers))
    assert [echo.exit_code for echo in echoes] == [0, 0]


async def test_echoscu_fails_where_nobody_listens() -> None:
    echo = await run("echoscu", "127.0.0.1", str(free_port()))
    assert echo.exit_code != 0


async def test_orthanc_receives_and_sends(orthanc: Orthanc, storescp: StartPeer) -> None:
    file = bundled("SC_rgb_jpeg_gdcm.dcm").read_bytes()
    identifier = await orthanc.upload(file)
    assert await orthanc.instances() == [identifier]
    assert elements(await orthanc.download(identifier)) == elements(file)

    peer = await storescp("+xs", "+B")
    await orthanc.add_modality("receiver", peer.ae_title, peer.port, allow_transcoding=False)
    await orthanc.echo("receiver")
    report = await orthanc.store("receiver", [identifier])
    assert report["InstancesCount"] == 1
    assert report["FailedInstancesCount"] == 0
    [received] = peer.received()
    assert elements(received.read_bytes()) == elements(file)


async def test_orthanc_is_empty_at_the_start_of_each_test(orthanc: Orthanc) -> None:
    assert await orthanc.instances() == []
    assert (await orthanc.system())["DicomAet"] == orthanc.peer.ae_title
    stored = await run("storescu", orthanc.peer.host, str(orthanc.peer.port), bundled("MR_small.dcm"))
    assert stored.exit_code == 0, stored
    assert len(await orthanc.instances()) == 1


async def test_orthanc_reports_a_failed_echo(orthanc: Orthanc) -> None:
    await orthanc.add_modality("nobody", "NOBODY", free_port())
    with pytest.raises(OrthancError, match="HTTP status 500"):
        await orthanc.echo("nobody")


@once
async def test_pynetdicom_reaches_storescp(storescp: StartPeer) -> None:
    peer = await storescp("+B")
    assert (await run_pynetdicom_scu("echo", peer.port)).statuses == [0x0000]
    file = bundled("MR_small_bigendian.dcm")
    assert (await run_pynetdicom_scu("store", peer.port, [file])).statuses == [0x0000]
    [received] = peer.received()
    assert elements(received.read_bytes()) == elements(file.read_bytes())


@once
async def test_pynetdicom_answers_dcmtk(pynetdicom_scp: StartPeer) -> None:
    peer = await pynetdicom_scp()
    file = bundled("MR_small.dcm")
    stored = await run("storescu", peer.host, str(peer.port), file)
    assert stored.exit_code == 0, stored
    [received] = peer.received()
    assert elements(received.read_bytes()) == elements(file.read_bytes())


@once
async def test_pynetdicom_answers_with_the_status_and_the_rejection_asked_for(pynetdicom_scp: StartPeer) -> None:
    peer = await pynetdicom_scp("--status", "0xA700", "--require-called")
    refused = await run_pynetdicom_scu("store", peer.port, [bundled("MR_small.dcm")], called_ae_title=peer.ae_title)
    assert (refused.outcome, refused.statuses) == ("accepted", [0xA700])
    rejected = await run_pynetdicom_scu("echo", peer.port, called_ae_title="WRONG")
    assert (rejected.outcome, rejected.rejection) == ("rejected", [1, 1, 7])


async def test_tshark_dissects_an_association_request() -> None:
    fields = await dissect_fields(
        [("client", associate_rq()), ("server", release_rq())], "tcp.srcport", "dicom.pdu.type", "dicom.actx"
    )
    assert [packet["dicom.pdu.type"] for packet in fields] == [["0x01"], ["0x05"]]
    assert [packet["tcp.srcport"] for packet in fields] == [["50000"], ["11112"]]
    text = await dissect([("client", associate_rq())])
    assert "A-ASSOCIATE request STORESCU --> STORESCP" in text
    assert VERIFICATION in text
    assert "Malformed" not in text


async def test_tshark_joins_the_segments_of_a_long_pdu() -> None:
    data = bytes(2 * LONGEST_SEGMENT)
    pdu = b"\x04\x00" + (len(data) + 6).to_bytes(4) + (len(data) + 2).to_bytes(4) + b"\x01\x02" + data
    chunks = [associate_rq(), pdu, release_rq()]
    packets = await dissect_fields([("client", chunk) for chunk in chunks], "dicom.pdu.type", "dicom.pdu.len")
    assert packets[1:] == [
        {"dicom.pdu.type": ["0x04"], "dicom.pdu.len": [str(len(data) + 6)]},
        {"dicom.pdu.type": ["0x05"], "dicom.pdu.len": ["4"]},
    ]


async def test_tshark_sees_what_is_malformed() -> None:
    damaged = associate_rq()[:74] + b"\x10\x00\xff\xff" + associate_rq()[78:]
    assert "Malformed" in await dissect([("client", damaged)])


def associate_rq() -> bytes:
    """An A-ASSOCIATE-RQ for Verification, as pynetdicom encodes it."""
    length = MaximumLengthNotification()
    length.maximum_length_received = 16_384
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title = "STORESCU"
    primitive.called_ae_title = "STORESCP"
    context = build_context(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def release_rq() -> bytes:
    """An A-RELEASE-RQ, as pynetdicom encodes it."""
    pdu = A_RELEASE_RQ()
    pdu.from_primitive(A_RELEASE())
    return pdu.encode()


def test_a_script_of_pynetdicom_is_no_program_of_dcmtk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "echoscu"
    script.write_text("#!/usr/bin/env python\nfrom pynetdicom.apps.echoscu.echoscu import main\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert require("echoscu", "dcmtk") != str(script)


@pytest.mark.parametrize("setting", ["CI", "AIODICOM_REQUIRE_PEERS"])
def test_a_missing_program_fails_where_peers_are_required(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(setting, "1")
    with pytest.raises(pytest.fail.Exception, match="install the Debian package dcmtk to run this test"):
        require("no-such-scu", "dcmtk")


def test_a_missing_program_skips_the_test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("AIODICOM_REQUIRE_PEERS", "0")
    with pytest.raises(pytest.skip.Exception, match="install the Debian package dcmtk to run this test"):
        require("no-such-scu", "dcmtk")


async def test_a_program_that_does_not_end_fails_with_its_output() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"(?s)did not end within 0\.5 s.*listening"):
        await execute(["sh", "-c", "echo listening; exec sleep 60"], deadline=0.5)
