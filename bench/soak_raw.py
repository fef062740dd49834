"""Peers that break off: bytes made beforehand over a bare connection, which ends at any of them."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from struct import pack
from typing import Final

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CStoreRQ
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND
from aiodicom.upper_layer.items import ImplementationClassUID, MaximumLength, PresentationContextRQ
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ, PDataTF
from aiodicom.version import IMPLEMENTATION_CLASS_UID
from bench.archives import AE_TITLE
from bench.processes import LOOPBACK
from bench.raw_find import MAXIMUM_LENGTH, request
from bench.soak_objects import CT, SYNTAX, Name, data_set

STORE_CONTEXT, FIND_CONTEXT = 3, 1
SECONDS_FOR_AN_ANSWER: Final = 20.0  # of a server that a crowd keeps busy
SECONDS_OF_GRACE: Final = 20.0  # the same, beyond its patience
MOST_UNREAD: Final = 200_000

_CONTEXTS: Final = (
    PresentationContextRQ(FIND_CONTEXT, STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(STORE_CONTEXT, CT, (SYNTAX,)),
)
REQUEST: Final = AAssociateRQ(
    AE_TITLE, "RAW", _CONTEXTS, (MaximumLength(MAXIMUM_LENGTH), ImplementationClassUID(IMPLEMENTATION_CLASS_UID))
).encode()
"""An A-ASSOCIATE-RQ, to find and to store."""


class NotEnded(Exception):
    """The server let a silent connection be."""


async def cut_off(port: int, name: Name, rng: random.Random, patience: float | None) -> str:
    """Begin to store an instance, and stop at any byte: by a TCP reset, by a close, or by saying nothing more.

    Args:
        port: of the server.
        name: the instance.
        rng: decides.
        patience: after how many seconds of silence the server is to end it; None resets or closes.

    Returns:
        What it was, in words.

    Raises:
        NotEnded: the server did not end it.
    """
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        if rng.random() < 0.2:
            writer.write(REQUEST[: rng.randrange(1, len(REQUEST))])
        else:
            message = store(name)
            writer.write(REQUEST)
            await answer(reader)
            writer.write(message[: rng.randrange(1, len(message))])
        if patience is not None:
            await ended(reader, patience)
            return "silence"
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(rng.uniform(0, 0.1)):
                await writer.drain()
        if rng.random() < 0.3:
            return "TCP close"
        _reset(writer)
        return "TCP reset"
    finally:
        writer.close()


async def leave_unread(port: int, rng: random.Random) -> None:
    """Ask for all studies, read some of the answer, and reset the connection."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(REQUEST)
        await answer(reader)
        writer.write(request())
        async with asyncio.timeout(SECONDS_FOR_AN_ANSWER):
            await reader.read(rng.randrange(1, MOST_UNREAD))
        _reset(writer)
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> None:
    """Take the answer to `REQUEST`."""
    async with asyncio.timeout(SECONDS_FOR_AN_ANSWER):
        head = await reader.readexactly(6)
        await reader.readexactly(int.from_bytes(head[2:]))


async def ended(reader: asyncio.StreamReader, patience: float) -> bytes:
    """Wait until the server ends a connection, and return what it said before; b"" where it reset it.

    Raises:
        NotEnded: it did not, within so many seconds and some more.
    """
    try:
        async with asyncio.timeout(patience + SECONDS_OF_GRACE):
            with suppress(ConnectionError):
                return await reader.read()
    except TimeoutError:
        raise NotEnded(f"{patience:g} s of silence, and the connection was still there much later") from None
    return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    known: socket.socket = writer.get_extra_info("socket")
    known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    writer.transport.abort()


def store(name: Name) -> bytes:
    """Return the C-STORE of an instance, as PDUs."""
    command = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid=name.sop_instance_uid)
    encoded = encode_command(command, has_data_set=True)
    data = data_set(name)
    step = MAXIMUM_LENGTH - 6
    pdvs = [PDV(STORE_CONTEXT, is_command=True, is_last=True, data=encoded)]
    pdvs += [
        PDV(STORE_CONTEXT, is_command=False, is_last=at + step >= len(data), data=data[at : at + step])
        for at in range(0, len(data), step)
    ]
    return b"".join(PDataTF((pdv,)).encode() for pdv in pdvs)
