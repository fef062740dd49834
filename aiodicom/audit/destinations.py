"""Where audit messages are kept: a file, or a collector that is told by syslog over TLS (RFC 5424, RFC 5425; PS3.15 §A.6)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiodicom.audit.messages import Message
from aiodicom.errors import OperationTimeout
from aiodicom.tls import Credentials, client_context, explained
from aiodicom.workers import in_any_thread

SYSLOG_TLS_PORT: Final = 6514
"""The registered port of syslog over TLS (RFC 5425 §4.1)."""

CLOSE_TIMEOUT: Final = 1.0
"""How long the end of a connection may take, in seconds, before it is cut."""

PRIORITY: Final = 10 * 8 + 5
"""Facility 10, security and authorization messages; severity 5, normal but significant (PS3.15 §A.6)."""

MESSAGE_ID: Final = "DICOM+RFC3881"
"""MSGID of what complies with PS3.15 §A.6."""

_BOM: Final = b"\xef\xbb\xbf"  # what follows is UTF-8 (RFC 5424 §6.4)


class AuditFile:
    """Appends messages to a file that only its owner may read, one in a line.

    It is opened for each batch, so that whoever rotates it may rename it at any time. Several processes may write to one:
    each message is written at once.

    Args:
        path: the file; made, with mode 0600, if need be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._is_torn = False  # the last line of it, where the disk was full

    def __str__(self) -> str:
        return f"the audit file {self.path}"

    async def deliver(self, messages: Sequence[Message], encode: Callable[[Message], bytes]) -> None:
        """Append messages.

        Raises:
            OSError: the file cannot be written.
        """
        await in_any_thread(self._append, messages, encode)

    def append(self, lines: bytes) -> None:
        """Append lines; blocks.

        Raises:
            OSError: the file cannot be written.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(b"\n" + lines if self._is_torn else lines)
            while rest:
                count = os.write(descriptor, rest)
                self._is_torn = count < len(rest)
                rest = rest[count:]
        finally:
            os.close(descriptor)

    def _append(self, messages: Iterable[Message], encode: Callable[[Message], bytes]) -> None:
        self.append(b"".join(encode(message) + b"\n" for message in messages))

    async def close(self) -> None:
        """Do nothing: it is closed."""


class SyslogCollector:
    """Sends messages to a collector by syslog over TLS.

    Syslog knows no acknowledgement: what was written when the connection broke may be lost, or arrive twice.

    Args:
        host: name or address of the collector.
        port: its port.
        tls: who we are, and whom we believe.
        host_name: how we call this machine; by default by its name.
        connect_timeout: how long the connection and its handshake may take, in seconds.
        send_timeout: how long it may take none of what we write, in seconds.
        settling_time: how long to listen to a new connection before anything is sent, in seconds. In TLS 1.3 a collector that
            does not take our certificate says so when for us the handshake is over; what was sent by then would be lost.
    """

    def __init__(
        self,
        host: str,
        port: int = SYSLOG_TLS_PORT,
        *,
        tls: Credentials | ssl.SSLContext,
        host_name: str = "",
        connect_timeout: float = 10,
        send_timeout: float = 10,
        settling_time: float = 0.5,
    ) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._send_timeout = send_timeout
        self._settling_time = settling_time
        name = host_name or socket.gethostname()
        self._origin = f"{_header_word(name, 255)} aiodicom {os.getpid()} {MESSAGE_ID} -".encode()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def __str__(self) -> str:
        return f"the audit collector {self.host}:{self.port}"

    async def deliver(self, messages: Sequence[Message], encode: Callable[[Message], bytes]) -> None:
        """Send messages, over the connection that there is, or else a new one.

        Raises:
            OSError: they were not, or not all, sent; OperationTimeout, likewise.
            LocalProtocolError: a file of the credentials is wrong.
        """
        frames = b"".join(frame(self._line(message, encode(message))) for message in messages)
        reader, writer = await self._connected()
        try:
            writer.write(frames)
            async with asyncio.timeout(self._send_timeout):
                await writer.drain()
            if reader.at_eof():
                raise ConnectionResetError("it has closed the connection")
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise OperationTimeout("send", self._send_timeout, "it has stopped reading") from None
            raise

    def _line(self, message: Message, xml: bytes) -> bytes:
        """Return a SYSLOG-MSG (RFC 5424 §6)."""
        time = message.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return b"<%d>1 %s %s %s%s" % (PRIORITY, time.encode(), self._origin, _BOM, xml)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is not None:
            reader, writer = self._connection
            if not (reader.at_eof() or writer.is_closing()):
                return self._connection
            await self.close()
        try:
            async with asyncio.timeout(self._connect_timeout):
                self._connection = await asyncio.open_connection(
                    self.host, self.port, ssl=client_context(self._tls), server_hostname=self.host
                )
            await self._settle(self._connection[0])
        except BaseException as error:
            await self.close()
            if isinstance(error, ssl.SSLError):
                raise ConnectionError(explained(error)) from error
            if isinstance(error, TimeoutError):
                raise OperationTimeout("connect", self._connect_timeout) from None
            raise
        return self._connection

    async def _settle(self, reader: asyncio.StreamReader) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settling_time):
                if not await reader.read(1):
                    raise ConnectionResetError("it closed the connection at once: does it take our certificate?")

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is None:
            return
        (_, writer), self._connection = self._connection, None
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await writer.wait_closed()
        writer.transport.abort()


def frame(line: bytes) -> bytes:
    """Return a SYSLOG-FRAME: how many octets follow, then those (RFC 5425 §4.3)."""
    return b"%d %s" % (len(line), line)


def _header_word(text: str, longest: int) -> str:
    """Return text as a field of the header, which is PRINTUSASCII without a space; "-" for none (RFC 5424 §6)."""
    return "".join(each for each in text if "!" <= each <= "~")[:longest] or "-"
