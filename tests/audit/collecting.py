"""What the tests of audit messages share: the schema, messages looked into, and a collector of syslog over TLS."""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from lxml import etree

from aiodicom.audit.messages import Message

PATIENCE: Final = 60.0
# RFC 5424 §6, as PS3.15 §A.6 narrows it: the priority, and the message ID.
_LINE: Final = re.compile(
    rb"<85>1 (?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z) (?P<host>[!-~]{1,255}) aiodicom "
    rb"(?P<process>[0-9]+) DICOM\+RFC3881 - \xef\xbb\xbf(?P<xml><\?xml [^\n]*)"
)


@cache
def schema() -> Any:  # noqa: ANN401 - lxml has no types
    return etree.RelaxNG(etree.parse(Path(__file__).with_name("audit-message.rng")))


class Told:
    """An audit message, valid by the schema, and what is in it."""

    def __init__(self, xml: bytes) -> None:
        self.root = etree.fromstring(xml)
        assert schema().validate(self.root), f"{schema().error_log}\n{xml.decode()}"
        self.xml = xml.decode()
        [identification] = self.root.iter("EventIdentification")
        self.event = self._text(identification, "EventID")
        self.action = identification.get("EventActionCode")
        self.outcome = int(identification.get("EventOutcomeIndicator"))
        self.types = [each.get("originalText") for each in identification.iter("EventTypeCode")]
        self.participants = list(self.root.iter("ActiveParticipant"))
        self.objects = list(self.root.iter("ParticipantObjectIdentification"))

    def __repr__(self) -> str:
        return f"{self.event} {self.action} {self.outcome} {self.types}"

    @staticmethod
    def _text(parent: Any, name: str) -> str:  # noqa: ANN401
        [element] = parent.iter(name)
        return str(element.get("originalText"))

    def with_role(self, role: str) -> Any:  # noqa: ANN401
        """The participant in that role."""
        [found] = [each for each in self.participants if role in [code.get("originalText") for code in each]]
        return found

    def object(self, kind: str) -> Any:  # noqa: ANN401
        """The object whose identifier is of that kind."""
        [found] = [each for each in self.objects if each[0].get("originalText") == kind]
        return found

    def detail(self, kind: str) -> bytes:
        """A value of an object."""
        [found] = [each for each in self.root.iter("ParticipantObjectDetail") if each.get("type") == kind]
        return b64decode(found.get("value"), validate=True)

    @property
    def subject(self) -> tuple[str, str, str]:
        """Study, ID and name of the patient."""
        study, patient = self.object("Study Instance UID"), self.object("Patient Number")
        name = patient.find("ParticipantObjectName").text or ""
        return study.get("ParticipantObjectID"), patient.get("ParticipantObjectID"), name

    @property
    def sop_classes(self) -> dict[str, int]:
        """How many instances of which SOP class."""
        return {each.get("UID"): int(each.get("NumberOfInstances")) for each in self.root.iter("SOPClass")}


class Kept:
    """A destination in memory; `fault` is what it raises instead."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.fault: Exception | None = None
        self.attempts = 0
        self.is_closed = False

    def __str__(self) -> str:
        return "the memory"

    async def deliver(self, messages: Sequence[Message], encode: Callable[[Message], bytes]) -> None:
        self.attempts += 1
        if self.fault is not None:
            raise self.fault
        self.told += [Told(encode(message)) for message in messages]

    async def close(self) -> None:
        self.is_closed = True

    def of(self, event: str) -> list[Told]:
        """Those about that kind of event."""
        return [each for each in self.told if each.event == event]


class Collector:
    """Takes syslog over TLS, and nothing that is not exactly that (RFC 5425 §4.3)."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.lines: list[re.Match[bytes]] = []
        self.certificates: list[Any] = []
        self.faults: list[str] = []
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.certificates.append(writer.get_extra_info("peercert"))
        try:
            while (digits := await self._digits(reader)) is not None:
                self._line(await reader.readexactly(int(digits)))
        except (asyncio.IncompleteReadError, OSError, AssertionError) as error:
            self.faults.append(repr(error))
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self._changed.set()

    async def _digits(self, reader: asyncio.StreamReader) -> bytes | None:
        digits = b""
        while (octet := await reader.read(1)) not in (b" ", b""):
            digits += octet
            assert re.fullmatch(rb"[1-9][0-9]{0,6}", digits), digits
        assert not digits or octet == b" ", "cut inside the length"
        return digits or None

    def _line(self, line: bytes) -> None:
        found = _LINE.fullmatch(line)
        assert found, line
        self.lines.append(found)
        self.told.append(Told(found["xml"]))
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what came makes that true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def collecting(tls: ssl.SSLContext, *, port: int = 0) -> AsyncIterator[Collector]:
    """A collector on 127.0.0.1."""
    collector = Collector()
    server = await asyncio.start_server(collector.take, "127.0.0.1", port, ssl=tls)
    collector.port = server.sockets[0].getsockname()[1]
    try:
        yield collector
    finally:
        server.close()
        collector.cut()
        await collector.until(lambda: not collector._writers)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true that threads, timers or processes make true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.005)
