"""TLS with DCMTK and Orthanc, in both directions: who has a certificate of our authority is let in, nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aiodicom import (
    Archive,
    AssociationError,
    ConnectionFailed,
    Credentials,
    Listener,
    Node,
    Operation,
    RemoteAE,
    Server,
    associate,
    contexts_for,
)
from tests.certificates import Certificates, Pair
from tests.peers.comparing import bundled
from tests.peers.conftest import StartPeer, emptied
from tests.peers.dcmtk import run, run_findscu, run_movescu, running_storescp
from tests.peers.orthanc import Orthanc, OrthancError, running_orthanc
from tests.peers.process import LOOPBACK, free_port

pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"]), pytest.mark.usefixtures("no_nagle")]
both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

FILE = "examples_overlay.dcm"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def ours(certificates: Certificates) -> Credentials:
    return certificates.credentials(certificates.server)


def dcmtk(certificates: Certificates, pair: Pair | None, *more: str) -> tuple[str, ...]:
    """DCMTK's options; without a pair it shows none."""
    who = ("+tla",) if pair is None else ("+tls", str(pair.key), str(pair.certificate))
    return (*who, "+cf", str(certificates.authority()), *more)


@asynccontextmanager
async def keeping(folder: Path, tls: Credentials) -> AsyncIterator[Server]:
    """A server of ours that keeps what it receives."""
    server = Server("SCP", listeners=[Listener(port=0, tls=tls)], observers=())

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        await operation.save(folder)

    async with server:
        yield server


@both_loops
async def test_dcmtk_calls_us(certificates: Certificates, ours: Credentials, tmp_path: Path) -> None:
    path = bundled(FILE).path
    async with keeping(tmp_path, ours) as server:
        options = dcmtk(certificates, certificates.client)
        assert (await run("echoscu", *options, LOOPBACK, str(server.port))).exit_code == 0
        assert (await run("storescu", *options, LOOPBACK, str(server.port), path)).exit_code == 0
        assert len(list(tmp_path.iterdir())) == 1
        for pair in (None, certificates.expired, certificates.foreign):
            assert (await run("echoscu", *dcmtk(certificates, pair), LOOPBACK, str(server.port))).exit_code != 0
        assert (await run("echoscu", LOOPBACK, str(server.port))).exit_code != 0


async def test_dcmtk_without_a_certificate_calls_us_where_it_need_not_show_one(
    certificates: Certificates, tmp_path: Path
) -> None:
    tls = certificates.credentials(certificates.server, verify="optional")
    async with keeping(tmp_path, tls) as server:
        assert (await run("echoscu", *dcmtk(certificates, None), LOOPBACK, str(server.port))).exit_code == 0
        bad = dcmtk(certificates, certificates.foreign)
        assert (await run("echoscu", *bad, LOOPBACK, str(server.port))).exit_code != 0


@both_loops
async def test_we_call_storescp(certificates: Certificates, storescp: StartPeer) -> None:
    peer = await storescp(*dcmtk(certificates, certificates.server))
    path, ours = bundled(FILE).path, certificates.credentials(certificates.client)
    contexts = contexts_for([path])
    async with associate(LOOPBACK, peer.port, contexts=contexts, tls=ours, observers=()) as association:
        assert association.peer.certificate is not None
        assert "localhost" in association.peer.certificate.names
        (await association.c_store(path)).raise_for_status()
    assert len(peer.received()) == 1
    for tls in (certificates.credentials(), certificates.credentials(certificates.foreign), None):
        with pytest.raises(AssociationError):
            await associate(LOOPBACK, peer.port, tls=tls, observers=())
    with pytest.raises(ConnectionFailed, match="if you believe who issued it"):
        await associate(
            LOOPBACK, peer.port, tls=Credentials(authorities=certificates.authority("foreign")), observers=()
        )


async def test_findscu_asks_our_archive_over_tls_which_sends_to_storescp_over_tls(
    certificates: Certificates, ours: Credentials, studies: list[Path], tmp_path: Path
) -> None:
    options = dcmtk(certificates, certificates.client)
    with running_storescp(tmp_path / "storescp", *dcmtk(certificates, certificates.client, "-aet", "DEST")) as peer:
        nodes = [
            Node("asks", "FINDSCU", LOOPBACK, 104),
            Node("moves", "MOVESCU", LOOPBACK, 104),
            Node("destination", "DEST", LOOPBACK, peer.port, tls=True, tls_host_check=False),
            Node("named", "NAMED", LOOPBACK, peer.port, tls=True),  # its certificate is for modality.example alone
        ]
        archive = Archive(tmp_path / "archive", nodes=nodes, ae_title="SCP", tls=ours)
        listeners = [Listener(port=0, tls=ours), Listener(port=0)]  # movescu knows no TLS
        server = Server("SCP", listeners=listeners, services=archive.services(), observers=())
        async with archive, server:
            plain = server.addresses[1][1]
            for path in studies[:3]:
                await archive.add(path)
            found = await run_findscu(server.port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", options=options)
            uid = found.matches[0].StudyInstanceUID
            keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid}")
            moved = await run_movescu(plain, "DEST", *keys)
            assert moved.counters["Completed"] >= 1, moved.log
            assert len(peer.received()) == moved.counters["Completed"]
            refused = await run_movescu(plain, "NAMED", *keys)
            assert refused.counters["Failed"] == moved.counters["Completed"], refused.log


# Orthanc.


@pytest.fixture(scope="module")
def orthanc_over_tls(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Orthanc]:
    """Orthanc, which takes nothing but TLS, and wants a certificate of our authority."""
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificates.server.certificate),
        "DicomTlsPrivateKey": str(certificates.server.key),
        "DicomTlsTrustedCertificates": str(certificates.authority()),
        "DicomTlsRemoteCertificateRequired": True,
    }
    with running_orthanc(tmp_path_factory.mktemp("orthanc-tls"), options=options) as orthanc:
        yield orthanc


async def test_orthanc_over_tls_in_both_directions(
    certificates: Certificates, orthanc_over_tls: Orthanc, tmp_path: Path
) -> None:
    path, ours = bundled(FILE).path, certificates.credentials(certificates.client)
    port = orthanc_over_tls.peer.port
    async with (
        emptied(orthanc_over_tls) as orthanc,
        keeping(tmp_path, certificates.credentials(certificates.server)) as server,
    ):
        async with associate(LOOPBACK, port, contexts=contexts_for([path]), tls=ours, observers=()) as association:
            (await association.c_store(path)).raise_for_status()
        for tls in (certificates.credentials(certificates.foreign), None):
            with pytest.raises(AssociationError):
                await associate(LOOPBACK, port, tls=tls, observers=())
        await orthanc.add_modality("ours", "SCP", server.port, tls=True)
        await orthanc.echo("ours")
        await orthanc.store("ours", await orthanc.instances())
        assert len(list(tmp_path.iterdir())) == 1
        await orthanc.add_modality("plain", "SCP", server.port)
        with pytest.raises(OrthancError):
            await orthanc.echo("plain")


async def test_orthanc_moves_to_us_over_tls(certificates: Certificates, orthanc_over_tls: Orthanc) -> None:
    path, port = bundled(FILE).path, free_port()
    ours = certificates.credentials(certificates.client)
    listening = certificates.credentials(certificates.server)
    async with emptied(orthanc_over_tls) as orthanc:
        await orthanc.add_modality("us", "US", port, tls=True)
        await orthanc.upload(await asyncio.to_thread(path.read_bytes))
        node = Node("orthanc", "ORTHANC", LOOPBACK, orthanc.peer.port, tls=True)
        options = {"calling_ae_title": "US", "tls": ours, "observers": ()}
        async with RemoteAE.of(node, prefers="move", listen_port=port, listen_tls=listening, **options) as ae:
            async with ae.find(level="study") as matches:
                [study] = [match async for match in matches]
            async with ae.retrieve(level="study", StudyInstanceUID=study.StudyInstanceUID) as instances:
                assert len([instance async for instance in instances]) == 1
