"""Peers that mean harm: PDUs, messages and data sets that break the rules, each with the answer that it is to have."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from struct import pack
from typing import Final, NamedTuple

from aiodicom import EncodedInstance
from bench.processes import LOOPBACK
from bench.soak_objects import CT, SYNTAX, Name, data_set
from bench.soak_raw import REQUEST, SECONDS_FOR_AN_ANSWER, STORE_CONTEXT, answer, ended, store

MOST_NESTED: Final = 50_000
EMPTY_ITEMS: Final = 200_000
PART: Final = 65_536
_UNDEFINED: Final = 0xFFFFFFFF
_CANNOT_UNDERSTAND: Final = 0xC000
_DOES_NOT_MATCH: Final = 0xA900


class Offence(NamedTuple):
    """Bytes against the rules.

    Args:
        sent: they.
        answered: the A-ABORT that comes of them.
        is_associated: whether an association is established first.
    """

    sent: bytes
    answered: bytes
    is_associated: bool = True


class WrongAnswer(Exception):
    """What came was not what the Standard asks for."""


def _abort(source: int, reason: int = 0) -> bytes:
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))


def _data_pdu(context_id: int, control: int, data: bytes) -> bytes:
    return pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, context_id, control) + data


OFFENCES: Final[Mapping[str, Offence]] = {
    "an unknown PDU first": Offence(bytes.fromhex("4200 00000004 00000000"), _abort(0), False),
    "HTTP": Offence(b"GET / HTTP/1.1\r\nHost: archive\r\n\r\n", _abort(0), False),
    "P-DATA first": Offence(bytes.fromhex("0400 00000006 00000002 0103"), _abort(0), False),
    "a request of 4 GB": Offence(bytes.fromhex("0100 FFFFFFFF"), _abort(0), False),
    "a request too short": Offence(bytes.fromhex("0100 00000004 00010000"), _abort(0), False),
    "an item beyond its request": Offence(REQUEST[:76] + b"\xff\xff" + REQUEST[78:], _abort(0), False),
    "an unknown PDU": Offence(bytes.fromhex("4200 00000004 00000000"), _abort(2, 1)),
    "a second request": Offence(REQUEST, _abort(2, 2)),
    "P-DATA of 4 GB": Offence(bytes.fromhex("0400 FFFFFFFF"), _abort(2, 6)),
    "a fragment beyond its PDU": Offence(bytes.fromhex("0400 00000006 FFFFFFFC 0103"), _abort(2, 6)),
    "a fragment of nothing": Offence(bytes.fromhex("0400 00000004 00000000"), _abort(2, 6)),
    "an unknown context": Offence(_data_pdu(99, 3, bytes(8)), _abort(2, 6)),
    "a command set that is none": Offence(_data_pdu(STORE_CONTEXT, 3, bytes.fromhex("00000000 FEFFFFFF")), _abort(0)),
    "a command set without end": Offence(_data_pdu(STORE_CONTEXT, 1, bytes(1024)) * 65, _abort(2, 6)),
}
"""In words, what is done, in the association of a peer that may store."""


@asynccontextmanager
async def _connected(port: int, patience: float) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed in the end; where we were too slow for the server's patience, it may end it as it likes."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        yield reader, writer
    except (WrongAnswer, asyncio.IncompleteReadError, ConnectionError):
        if time.monotonic() - begun < patience:
            raise
    finally:
        writer.close()


async def offend(port: int, rng: random.Random, patience: float) -> None:
    """Do one of the `OFFENCES`, and see the answer.

    Raises:
        WrongAnswer: it is another one.
        NotEnded: there was none.
    """
    what = rng.choice(list(OFFENCES))
    offence = OFFENCES[what]
    async with _connected(port, patience) as (reader, writer):
        if offence.is_associated:
            writer.write(REQUEST)
            await answer(reader)
        writer.write(offence.sent)
        heard = await ended(reader, SECONDS_FOR_AN_ANSWER)
        if heard != offence.answered:
            raise WrongAnswer(f"{what} was answered by {heard.hex(' ') or 'nothing'}")


async def garble(port: int, rng: random.Random, patience: float) -> None:
    """Request an association with some bytes changed, look at the answer if there is any, and go."""
    request = bytearray(REQUEST)
    for _ in range(rng.randint(1, 8)):
        request[rng.randrange(len(request))] = rng.randrange(256)
    async with _connected(port, patience) as (reader, writer):
        writer.write(request)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(rng.uniform(0, 0.5)):
                await reader.read(1)


async def half_close(port: int, name: Name, rng: random.Random, patience: float) -> None:
    """Say that nothing more will come, at any byte of an association and a store, and listen on.

    Raises:
        NotEnded: the server did not end it.
    """
    async with _connected(port, patience) as (reader, writer):
        if rng.random() < 0.7:
            writer.write(REQUEST)
            await answer(reader)
            message = store(name)
            writer.write(message[: rng.randrange(1, len(message))])
        else:
            writer.write(REQUEST[: rng.randrange(len(REQUEST))])
        writer.write_eof()
        await ended(reader, patience)


async def say_nothing(port: int, patience: float) -> None:
    """Connect, and be silent until the server ends it, without a byte.

    Raises:
        WrongAnswer: there was one.
        NotEnded: it did not.
    """
    async with _connected(port, patience) as (reader, _):
        heard = await ended(reader, patience)
    if heard:
        raise WrongAnswer(f"silence was answered by {heard.hex(' ')}")


class Damaged(NamedTuple):
    """An instance that is not to be taken.

    Args:
        what: in words.
        instance: it.
        status: of the response.
    """

    what: str
    instance: EncodedInstance
    status: int


def damaged(name: Name, rng: random.Random) -> Damaged:
    """Return an instance with something wrong."""
    what = rng.choice(list(_DAMAGES))
    damage, status = _DAMAGES[what]
    return Damaged(what, EncodedInstance(CT, name.sop_instance_uid, SYNTAX, _in_parts(damage(name, rng))), status)


async def _in_parts(data: bytes) -> AsyncIterator[bytes]:
    """As it comes: what there is as a whole would be looked at before it is sent."""
    for at in range(0, len(data), PART):
        yield data[at : at + PART]


def _truncated(name: Name, rng: random.Random) -> bytes:
    whole = data_set(name._replace(size=2))
    return whole[: -rng.randrange(1, 30_000)]


def _too_long(name: Name, rng: random.Random) -> bytes:
    return data_set(name) + pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, rng.randrange(100, _UNDEFINED)) + bytes(64)


def _too_deep(name: Name, rng: random.Random) -> bytes:
    depth = rng.randint(100, MOST_NESTED)
    return data_set(name) + (_sequence() + _item(_UNDEFINED)) * depth + _ITEM_ENDS_AND_SEQUENCE * depth


def _too_many_items(name: Name, _rng: random.Random) -> bytes:
    return data_set(name) + _sequence() + _item(0) * EMPTY_ITEMS + pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _another(name: Name, _rng: random.Random) -> bytes:
    return data_set(name._replace(number=name.number + 1))


def _sequence() -> bytes:
    return pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, _UNDEFINED)


def _item(length: int) -> bytes:
    return pack("<HHI", 0xFFFE, 0xE000, length)


_ITEM_ENDS_AND_SEQUENCE: Final = pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
_DAMAGES: Final[Mapping[str, tuple[Callable[[Name, random.Random], bytes], int]]] = {
    "truncated": (_truncated, _CANNOT_UNDERSTAND),
    "longer than it is": (_too_long, _CANNOT_UNDERSTAND),
    "too deep": (_too_deep, _CANNOT_UNDERSTAND),
    "of too many items": (_too_many_items, _CANNOT_UNDERSTAND),
    "another one": (_another, _DOES_NOT_MATCH),
}
