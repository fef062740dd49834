"""The web service: it serves DICOM in its own loop, and a study leaves it while it comes in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import uvicorn
from pydicom import FileDataset

import aiodicom
from tests.examples.loading import load, on_a_free_port
from tests.loopback import CANARY, Recorder, ct_instance, data_set, instance_uid, serving, until
from tests.peers.comparing import parse
from tests.peers.process import LOOPBACK, free_port

STUDY = "1.2.826.0.1.3680043.10.954.99"
LARGE = 32 * 1024 * 1024


class Archive:
    """Has three instances; the last comes when its gate is open, and may be one that cannot be sent."""

    def __init__(self, size: int = 200) -> None:
        self.gate = asyncio.Event()
        self.size = size
        self.last_syntax = ct_instance().transfer_syntax

    async def retrieve(self, operation: aiodicom.Operation) -> list[aiodicom.EncodedInstance]:
        if operation.identifier.StudyInstanceUID != STUDY:
            return []
        first, second, last = (ct_instance(number, self.size) for number in (1, 2, 3))
        return [first, second, replace(last, data=self.gated(), transfer_syntax=self.last_syntax)]

    async def gated(self) -> AsyncIterator[bytes]:
        await self.gate.wait()
        yield data_set(3, self.size)

    async def search(self, operation: aiodicom.Operation) -> AsyncIterator[dict[str, str]]:
        for name in ("Doe^Jane", "Roe^Richard"):
            if name.startswith(operation.identifier.PatientName.family_name.rstrip("*")):
                yield {"PatientName": name, "PatientID": "1"}


@asynccontextmanager
async def archiving(archive: Archive) -> AsyncIterator[tuple[ModuleType, Recorder]]:
    """The example, with that archive to ask."""
    services = (aiodicom.get_service(archive.retrieve), aiodicom.find_service(archive.search, "patient"))
    recorder = Recorder()
    async with serving(services=services, observers=(recorder,)) as server:
        yield loaded(server.port), recorder


def loaded(port: int) -> ModuleType:
    """The example, with whoever is at that port for its archive."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ARCHIVE_HOST", LOOPBACK)
        environment.setenv("ARCHIVE_PORT", str(port))
        environment.setenv("ARCHIVE_AE_TITLE", "ARCHIVE")
        module = load("asgi")
    on_a_free_port(module)
    return module


@asynccontextmanager
async def in_process(module: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(module.app)
    async with (
        module.app.router.lifespan_context(module.app),
        httpx.AsyncClient(transport=transport, base_url="http://web") as client,
    ):
        yield client


@asynccontextmanager
async def by_uvicorn(module: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    server = uvicorn.Server(uvicorn.Config(module.app, ws="none", log_config=None))
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await until(lambda: server.started or serving.done())
            async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{listener.getsockname()[1]}") as client:
                yield client
        finally:
            server.should_exit = True
            await serving


def instances_in(response: httpx.Response) -> list[FileDataset]:
    """What the parts of a multipart/related are."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + response.content)
    assert not message.defects
    payloads = [part.get_payload(decode=True) for part in message.iter_parts()]
    return [parse(payload) for payload in payloads if isinstance(payload, bytes)]


async def test_its_server_lives_as_long_as_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with archiving(Archive()) as (module, _), in_process(module):
        contexts = [aiodicom.ProposedContext(ct_instance().sop_class_uid)]
        async with aiodicom.associate(LOOPBACK, module.server.port, contexts=contexts) as association:
            (await association.c_store(ct_instance())).raise_for_status()
    assert (tmp_path / "received" / f"{instance_uid(1)}.dcm").is_file()
    assert module.server.addresses == ()


async def test_echo() -> None:
    async with archiving(Archive()) as (module, _), in_process(module) as client:
        response = await client.get("/echo")
    assert (response.status_code, response.json()) == (200, {"status": 0})


async def test_an_archive_that_is_not_there() -> None:
    async with in_process(loaded(free_port())) as client:
        for path in ("/echo", f"/studies/{STUDY}"):
            response = await client.get(path)
            assert response.status_code == 502
            assert "is a DICOM server running on that port?" in response.json()["error"]


async def test_patients() -> None:
    async with archiving(Archive()) as (module, _), in_process(module) as client:
        (match,) = (await client.get("/patients", params={"name": "Doe*"})).json()
    assert match["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]


async def test_a_study_that_the_archive_does_not_have() -> None:
    async with archiving(Archive()) as (module, _), in_process(module) as client:
        assert (await client.get("/studies/1.2.3")).status_code == 404


@pytest.mark.parametrize("run", [in_process, by_uvicorn])
async def test_a_study(run: Callable[[ModuleType], AbstractAsyncContextManager[httpx.AsyncClient]]) -> None:
    archive = Archive()
    archive.gate.set()
    async with archiving(archive) as (module, _), run(module) as client:
        response = await client.get(f"/studies/{STUDY}")
    instances = instances_in(response)
    assert [instance.SOPInstanceUID for instance in instances] == [instance_uid(number) for number in (1, 2, 3)]
    assert all(instance.PatientName == CANARY for instance in instances)


async def test_a_study_from_an_archive_that_has_no_c_get() -> None:
    archive, web = Archive(), dict[str, tuple[str, int]]()
    archive.gate.set()
    async with serving(services=[aiodicom.move_service(archive.retrieve, web)]) as server:
        module = loaded(server.port)
        async with in_process(module) as client:
            web["WEB"] = LOOPBACK, module.server.port
            response = await client.get(f"/studies/{STUDY}")
    assert len(instances_in(response)) == 3


async def test_the_first_instance_is_there_before_the_last_has_left_the_archive() -> None:
    archive = Archive()
    async with (
        archiving(archive) as (module, _),
        by_uvicorn(module) as client,
        client.stream("GET", f"/studies/{STUDY}") as response,
    ):
        chunks = response.aiter_bytes()
        body = b""
        while instance_uid(2).encode() not in body:  # which stands behind the first instance
            body += await anext(chunks)
        archive.gate.set()
        body += b"".join([chunk async for chunk in chunks])
    assert instance_uid(3).encode() in body


async def test_a_client_that_reads_slowly_holds_the_archive_back() -> None:
    archive, asking = Archive(LARGE), Recorder()
    archive.gate.set()
    async with archiving(archive) as (module, recorder), by_uvicorn(module) as client:
        # The same, but that it is watched.
        module.__dict__["archive"] = aiodicom.RemoteAE(LOOPBACK, module.archive.port, observers=[asking])
        async with client.stream("GET", f"/studies/{STUDY}") as response:
            association = asking.associations[-1]
            await until(lambda: association._connection.is_held)
            assert recorder.calls.count("sent CStoreRQ") == 1
            assert sum([len(chunk) async for chunk in response.aiter_bytes()]) > 3 * LARGE


async def test_a_client_that_goes_away_cancels_the_retrieval() -> None:
    archive = Archive()
    async with archiving(archive) as (module, recorder), by_uvicorn(module) as client:
        async with client.stream("GET", f"/studies/{STUDY}") as response:
            await anext(response.aiter_bytes())
        await recorder.until(lambda: "received CCancelRQ" in recorder.calls)
        seen = len(recorder.calls)
        archive.gate.set()
        await recorder.until(lambda: "sent CGetRSP" in recorder.calls[seen:])
        assert (await client.get("/echo")).status_code == 200


async def test_a_response_that_lacks_an_instance_does_not_look_complete() -> None:
    archive = Archive()
    archive.gate.set()
    archive.last_syntax = "1.2.3"  # in which nobody takes it
    async with archiving(archive) as (module, _), by_uvicorn(module) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"/studies/{STUDY}")
