"""Orthanc: kept running, and asked through its REST API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from tests.peers.process import LOOPBACK, Peer, free_port, require, running

SECONDS_TO_ANSWER: Final = 60.0


class OrthancError(Exception):
    """Orthanc's REST API refused, or an operation asked of it failed."""

    def __init__(self, request: str, status: int, body: bytes) -> None:
        self.status = status
        super().__init__(f"{request}: HTTP status {status}: {body.decode(errors='replace')}")


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A running Orthanc: `peer` is its DICOM side, the methods its REST API, called in a worker thread."""

    peer: Peer
    http_port: int

    async def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Send one request, bytes as they are and the rest as JSON, and return the answer's body."""
        return await asyncio.to_thread(self._ask, method, path, body)

    def _ask(self, method: str, path: str, body: object) -> bytes:
        connection = HTTPConnection(self.peer.host, self.http_port, timeout=SECONDS_TO_ANSWER)
        try:
            connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode())
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise OrthancError(f"{method} {path}", response.status, answer)
        return answer

    async def system(self) -> dict[str, object]:
        """Its version, AE title and so on."""
        system: dict[str, object] = json.loads(await self.ask("GET", "/system"))
        return system

    async def clear(self) -> None:
        """Forget every instance, and every modality added."""
        await self.ask("POST", "/tools/bulk-delete", {"Resources": await self.instances()})
        for name in json.loads(await self.ask("GET", "/modalities")):
            await self.ask("DELETE", f"/modalities/{name}")

    async def upload(self, file: bytes) -> str:
        """Give it a Part 10 file; returns the identifier that Orthanc has for the instance."""
        return str(json.loads(await self.ask("POST", "/instances", file))["ID"])

    async def instances(self) -> list[str]:
        """Orthanc's identifiers of all the instances it holds."""
        identifiers: list[str] = json.loads(await self.ask("GET", "/instances"))
        return identifiers

    async def download(self, identifier: str) -> bytes:
        """The Part 10 file of an instance, as it is stored."""
        return await self.ask("GET", f"/instances/{identifier}/file")

    async def add_modality(
        self,
        name: str,
        ae_title: str,
        port: int,
        *,
        host: str = LOOPBACK,
        allow_transcoding: bool = True,
        forbidden: Iterable[str] = (),
        tls: bool = False,
    ) -> None:
        """Make a remote AE known to it under that name; "Find", "Get", "Move" … may be forbidden to it."""
        modality = {
            "AET": ae_title,
            "Host": host,
            "Port": port,
            "AllowTranscoding": allow_transcoding,
            "UseDicomTls": tls,
        }
        await self.ask("PUT", f"/modalities/{name}", {**modality, **{f"Allow{what}": False for what in forbidden}})

    async def echo(self, modality: str) -> None:
        """Let it send C-ECHO; raises OrthancError when that failed."""
        await self.ask("POST", f"/modalities/{modality}/echo", {})

    async def store(self, modality: str, identifiers: Sequence[str]) -> dict[str, object]:
        """Let it send instances by C-STORE, and return its report; raises OrthancError when one failed."""
        request = {"Resources": list(identifiers), "Synchronous": True}
        report: dict[str, object] = json.loads(await self.ask("POST", f"/modalities/{modality}/store", request))
        return report

    async def find(self, modality: str, level: str, query: Mapping[str, str]) -> list[dict[str, str]]:
        """Let it send C-FIND, and return the answers, values by keyword; raises OrthancError when that failed.

        Args:
            modality: whom to ask.
            level: "Patient", "Study", "Series" or "Instance".
            query: keys by keyword; those of the level, it asks for by itself.
        """
        request = {"Level": level, "Query": query}
        identifier = json.loads(await self.ask("POST", f"/modalities/{modality}/query", request))["ID"]
        answers: list[dict[str, str]] = json.loads(
            await self.ask("GET", f"/queries/{identifier}/answers?expand&simplify")
        )
        return answers

    async def find_worklist(self, modality: str, query: Mapping[str, object]) -> list[dict[str, object]]:
        """Let it ask for a worklist, and return the entries, values by keyword."""
        entries: list[dict[str, object]] = json.loads(
            await self.ask("POST", f"/modalities/{modality}/find-worklist", query)
        )
        return entries

    async def move(self, modality: str, level: str, resource: Mapping[str, str], destination: str) -> dict[str, object]:
        """Let it send C-MOVE, and return its report; raises OrthancError when that failed.

        Args:
            modality: whom to ask.
            level: "Patient", "Study", "Series" or "Instance".
            resource: the unique keys of what is wanted.
            destination: the AE title that it is to be sent to.
        """
        request = {"Level": level, "Resources": [resource], "TargetAet": destination, "Synchronous": True}
        report: dict[str, object] = json.loads(await self.ask("POST", f"/modalities/{modality}/move", request))
        return report


@contextmanager
def running_orthanc(
    directory: Path, *, ae_title: str = "ORTHANC", options: Mapping[str, object] | None = None
) -> Iterator[Orthanc]:
    """An Orthanc that takes C-ECHO and C-STORE from everybody on this machine and keeps what comes below that directory.

    C-FIND, C-GET and C-MOVE it takes from the modalities it knows. `options` are more of its configuration.
    """
    program = require("Orthanc", "orthanc")
    peer = Peer("Orthanc", ae_title, free_port(), directory / "storage", directory / "orthanc.log")
    http_port = free_port()
    peer.directory.mkdir(parents=True)
    configuration = directory / "orthanc.json"
    configuration.write_text(json.dumps({**settings(peer, http_port), **(options or {})}))
    # Orthanc opens its HTTP port last, so that it answers on both when it answers there.
    with running(peer, [program, "--verbose", str(configuration)], ready_port=http_port):
        yield Orthanc(peer, http_port)


def settings(peer: Peer, http_port: int) -> dict[str, object]:
    """Orthanc's configuration; what is not said is as Orthanc has it by default."""
    return {
        "Name": peer.name,
        "DicomAet": peer.ae_title,
        "DicomPort": peer.port,
        "HttpPort": http_port,
        "StorageDirectory": str(peer.directory),
        "IndexDirectory": str(peer.directory),
        "Plugins": [],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "AcceptedTransferSyntaxes": ["1.2.840.10008.1.*"],
        # Otherwise it keeps an association open for a while after each job, and tests wait for its end.
        "DicomAssociationCloseDelay": 0,
    }
