"""The suite's end of a connection: it says bytes, and puts into words what comes back."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, cast

from aiodicom.conformance import messages
from aiodicom.conformance.case import Differs
from aiodicom.conformance.target import Target
from aiodicom.upper_layer.items import IdentityType, UserIdentity

_HEADER: Final = 6
_PDUS: Final = {
    0x01: "A-ASSOCIATE-RQ",
    0x02: "A-ASSOCIATE-AC",
    0x03: "A-ASSOCIATE-RJ",
    0x04: "P-DATA-TF",
    0x05: "A-RELEASE-RQ",
    0x06: "A-RELEASE-RP",
    0x07: "A-ABORT",
}
_COMMANDS: Final = {0x0001: "C-STORE", 0x0010: "C-GET", 0x0020: "C-FIND", 0x0021: "C-MOVE", 0x0030: "C-ECHO"}
_RESPONSE: Final = 0x8000
CLOSED: Final = "closed"
RESET: Final = "reset"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that has come (PS3.7 §6.3).

    Args:
        context_id: of its presentation context.
        elements: of its command set, the value of each by element number.
        data_set: encoded; None where it has none.
    """

    context_id: int
    elements: dict[int, bytes]
    data_set: bytes | None

    def number(self, element: int) -> int:
        """Return the value of an element of VR US; 0 where it is not there."""
        return int.from_bytes(self.elements.get(element, b"")[:2], "little")

    @property
    def status(self) -> int:
        """Its Status (0000,0900)."""
        return self.number(0x0900)

    @property
    def is_pending(self) -> bool:
        """Whether more responses follow it."""
        return self.status in (0xFF00, 0xFF01)

    def __str__(self) -> str:
        field = self.number(0x0100)
        name = _COMMANDS.get(field & ~_RESPONSE, f"0x{field:04X}")
        return f"{name}-RSP 0x{self.status:04X}" if field & _RESPONSE else f"{name}-RQ"


class Peer(asyncio.Protocol):
    """One connection with the acceptor.

    Args:
        target: the acceptor.
        is_tls: whether it is a connection of TLS.

    Attributes:
        ended: how it ended, in a word; empty while it has not.
    """

    def __init__(self, target: Target, *, is_tls: bool) -> None:
        self.target = target
        self.ended = ""
        self.answer = b""
        self._is_tls = is_tls
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._received += data
        self._changed.set()

    def eof_received(self) -> bool:
        """Take note of the acceptor's last word, and stay able to speak."""
        self._end(CLOSED)
        return not self._is_tls

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        if isinstance(exc, ssl.SSLError):
            self._end(f"TLS alert ({exc.reason})")
        self._end(RESET if exc else CLOSED)
        self._gone.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """Wait before more is said."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable.set()

    def _end(self, how: str) -> None:
        self.ended = self.ended or how
        self._changed.set()

    # The suite's side.

    @property
    def transport(self) -> asyncio.Transport:
        """The connection itself."""
        assert self._transport is not None
        return self._transport

    async def say(self, *parts: bytes) -> None:
        """Write, in one go; an acceptor that has hung up does not hear it."""
        self.transport.write(b"".join(parts))
        await self._writable.wait()

    def hang_up(self) -> None:
        """Say that nothing more comes, by a FIN."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def reset(self) -> None:
        """End the connection by a RST."""
        raw: Any = self.transport.get_extra_info("socket")
        raw.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def close(self) -> None:
        """End the connection, and wait until that is so."""
        self.transport.abort()
        await self._gone.wait()

    @property
    def is_gone(self) -> bool:
        """Whether the acceptor has closed both ways, as far as can be told."""
        return self._gone.is_set()

    async def pdu(self) -> bytes:
        """Return the next PDU, or whatever else comes; empty where the connection ends first."""
        while True:
            length = _HEADER
            if len(self._received) >= _HEADER:
                length += int.from_bytes(self._received[2:_HEADER], "big")
                if self._received[0] not in _PDUS:
                    length = len(self._received)
            if len(self._received) >= length:
                taken = bytes(self._received[:length])
                del self._received[:length]
                return taken
            if self.ended:
                return b""
            self._changed.clear()
            await self._changed.wait()

    async def next_pdu(self) -> str:
        """Return the next PDU in words, or how the connection ends before it."""
        try:
            async with asyncio.timeout(self.target.patience):
                pdu = await self.pdu()
        except TimeoutError:
            return f"nothing in {self.target.patience:g} s"
        return describe(pdu) if pdu else self.ended

    async def heard(self, patience: float | None = None) -> str:
        """Return all that comes until the connection ends, in words, and how it ends."""
        patience = self.target.patience if patience is None else patience
        words: list[str] = []
        try:
            async with asyncio.timeout(patience):
                while pdu := await self.pdu():
                    words.append(describe(pdu))
        except TimeoutError:
            words.append(f"still open after {patience:g} s")
        else:
            words.append(self.ended)
        return ", ".join(words)

    async def everything(self) -> bytes:
        """Return the bytes that come until the connection ends, or the patience does, whatever they are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.target.patience):
                while not self.ended:
                    self._changed.clear()
                    await self._changed.wait()
        return bytes(self._received)

    async def message(self) -> Message:
        """Return the next message.

        Raises:
            Differs: something else comes, or nothing.
        """
        command, data = bytearray(), bytearray()
        context_id = 0
        elements: dict[int, bytes] | None = None
        try:
            async with asyncio.timeout(self.target.patience):
                while True:
                    pdu = await self.pdu()
                    if not pdu or pdu[0] != 0x04:
                        raise Differs("a message", describe(pdu) if pdu else self.ended)
                    for context_id, control, fragment in _fragments(pdu):
                        if control & messages.COMMAND:
                            command += fragment
                        else:
                            data += fragment
                        if not control & messages.LAST:
                            continue
                        elements = elements or _elements(command)
                        has_data_set = elements.get(0x0800, b"\x01\x01") != b"\x01\x01"
                        if not (control & messages.COMMAND and has_data_set):
                            return Message(context_id, elements, bytes(data) if has_data_set else None)
        except TimeoutError:
            raise Differs("a message", f"nothing in {self.target.patience:g} s") from None

    async def answers(self, count: int) -> str:
        """Return the next messages, in words."""
        return ", ".join([str(await self.message()) for _ in range(count)])

    async def final(self) -> tuple[int, Message]:
        """Return how many pending responses come, and the one that ends them."""
        count = 0
        while (message := await self.message()).is_pending:
            count += 1
        return count, message


def describe(pdu: bytes) -> str:
    """Return a PDU in words; anything else as the bytes that it is."""
    name = _PDUS.get(pdu[0])
    if name is None:
        return f"bytes {pdu[:8].hex(' ')}"
    if pdu[0] == 0x03:
        return f"{name} {pdu[7]}/{pdu[8]}/{pdu[9]}"
    if pdu[0] == 0x07:
        return f"{name} {pdu[8]}/{pdu[9]}"
    if pdu[0] == 0x04:
        return _describe_data(pdu)
    return name


def _describe_data(pdu: bytes) -> str:
    for context_id, control, fragment in _fragments(pdu):
        if control == messages.COMMAND | messages.LAST:
            return str(Message(context_id, _elements(fragment), None))
    return _PDUS[0x04]


def _fragments(pdu: bytes) -> list[tuple[int, int, bytes]]:
    found, position = [], _HEADER
    while position + 6 <= len(pdu):
        length, context_id, control = struct.unpack_from(">IBB", pdu, position)
        found.append((context_id, control, pdu[position + 6 : position + 4 + length]))
        position += 4 + max(length, 2)
    return found


def _elements(command_set: bytes | bytearray) -> dict[int, bytes]:
    found, position = {}, 0
    while position + 8 <= len(command_set):
        number, length = struct.unpack_from("<2xHI", command_set, position)
        found[number] = bytes(command_set[position + 8 : position + 8 + length])
        position += 8 + length
    return found


# How to get one.


@asynccontextmanager
async def connection(
    target: Target, *, is_plain: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """A connection, over TLS where the target has it.

    Args:
        target: the acceptor.
        is_plain: use bare TCP in any case.
        tls: another context than the target's.
    """
    context = None if is_plain else tls or target.tls
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(target.patience):
        _, peer = await loop.create_connection(
            lambda: Peer(target, is_tls=context is not None),
            target.host,
            target.port,
            ssl=context,
            server_hostname=target.host if context else None,
        )
    try:
        yield peer
    finally:
        await peer.close()


@asynccontextmanager
async def association(target: Target, **options: Any) -> AsyncIterator[Peer]:  # noqa: ANN401 - those of `request`
    """A connection on which an association is established.

    Raises:
        Differs: it is not.
    """
    async with connection(target) as peer:
        await peer.say(request_to(target, **options))
        peer.answer = await established(peer)
        yield peer


async def established(peer: Peer) -> bytes:
    """Return the A-ASSOCIATE-AC that comes.

    Raises:
        Differs: something else does, or nothing.
    """
    try:
        async with asyncio.timeout(peer.target.patience):
            answer = await peer.pdu()
    except TimeoutError:
        raise Differs("A-ASSOCIATE-AC", f"nothing in {peer.target.patience:g} s") from None
    if not answer or answer[0] != 0x02:
        raise Differs("A-ASSOCIATE-AC", describe(answer) if answer else peer.ended)
    return answer


def request_to(target: Target, **options: Any) -> bytes:  # noqa: ANN401 - those of `request`
    """Return an A-ASSOCIATE-RQ that the target is to accept, unless the options say otherwise."""
    options.setdefault("items", () if target.identity is None else (identity_of(*target.identity),))
    called, calling = options.pop("called", target.called), options.pop("calling", target.calling)
    return messages.request(called, calling, **options)


def identity_of(username: str, passcode: str) -> UserIdentity:
    """Return a user identity of type 2 (PS3.7 §D.3.3.7)."""
    return UserIdentity(IdentityType.USERNAME_AND_PASSCODE, username.encode(), passcode.encode())
