"""Peers that break off, by a FIN or a RST, at some two hundred points: an instance is kept entirely, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from aiodicom.archive.shelf import INCOMING
from aiodicom.conformance import messages
from aiodicom.conformance.messages import DATA, LAST, STORE, Instance
from aiodicom.conformance.peer import association, connection, established, request_to
from aiodicom.conformance.probe import Probe
from aiodicom.conformance.suite import survey
from aiodicom.conformance.target import Counts, Target
from tests.conformance.hosting import LONG, hosted

POINTS: Final = 200
WHOLE: Final = 1 << 30  # more than there is to say
PIECES: Final = 5  # P-DATA-TFs that the data set comes in


def conversation(target: Target, instance: Instance) -> list[bytes]:
    """What a peer says to have an instance stored, PDU by PDU."""
    data = instance.data_set(pixels=bytes(3000))
    step = len(data) // PIECES + 1
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    return [
        request_to(target),
        messages.store_rq(1, instance.uid),
        *(messages.pdv(STORE, DATA | (LAST if piece is pieces[-1] else 0), piece) for piece in pieces),
        messages.RELEASE_RQ,
    ]


def points(pdus: list[bytes]) -> list[int]:
    """Where to break off: at each border of a PDU, at each byte of its headers, and all over its content."""
    ends = [0, *(sum(map(len, pdus[:count])) for count in range(1, len(pdus) + 1))]
    near = {at for start, end in pairwise(ends) for at in (*range(start, min(start + 14, end)), end - 1)}
    near.discard(ends[-1])
    rest = [at for at in range(1, ends[-1]) if at not in near]
    spread = rest[:: max(1, len(rest) // (POINTS - len(near)))]
    return sorted({*near, *spread, ends[-1]})


def test_the_points() -> None:
    target = Target(host="127.0.0.1", port=0)
    pdus = conversation(target, messages.new_instance())
    chosen = points(pdus)
    assert len(chosen) >= POINTS
    assert {0, len(pdus[0]), len(b"".join(pdus))} <= set(chosen)


@pytest.mark.parametrize("how", ["half-close", "reset"])
async def test_wherever_a_peer_breaks_off(how: str, tmp_path: Path) -> None:
    async with hosted(tmp_path, admit=None, target={"identity": None}) as told, Probe(await survey(told)) as probe:
        target = await survey(told)
        assert await matches(target, messages.new_instance()) == 0  # what that opens stays open
        assert target.counts is not None
        before = {**target.counts(), "connections": 1, "associations": 1, "temporary files": 0}
        # UIDs are not all of one length, so that the whole is a point of its own.
        for at in [*points(conversation(target, messages.new_instance())), WHOLE]:
            instance = messages.new_instance()
            async with probe.watching():
                await break_off(target, conversation(target, instance), at, how)
            await let_go(target, before)
            assert probe.failure == "", (how, at)
            kept = list(files(tmp_path, instance))
            whole = instance.data_set(pixels=bytes(3000))
            assert [file.read_bytes()[-len(whole) :] for file in kept] in ([], [whole]), (how, at)
            assert list((tmp_path / INCOMING).iterdir()) == [], (how, at)
            assert await matches(target, instance) == len(kept), (how, at)
        assert len(kept) == 1, "where nothing is left to be said, it is kept"


async def break_off(target: Target, pdus: list[bytes], at: int, how: str) -> None:
    """Say so many bytes of a conversation, and no more; what is said after the request waits for its answer."""
    said, first = b"".join(pdus)[:at], len(pdus[0])
    async with connection(target) as peer:
        await peer.say(said[:first])
        if at >= first:
            await established(peer)
            await peer.say(said[first:])
        if at == WHOLE:
            assert await peer.heard() == "C-STORE-RSP 0x0000, A-RELEASE-RP, closed"
        if how == "reset":
            peer.reset()
        else:
            peer.hang_up()
            await peer.heard()


async def let_go(target: Target, before: Counts) -> None:
    """Wait until the server holds no more than before: what it has begun to keep may end in other threads."""
    assert target.counts is not None
    async with asyncio.timeout(LONG):
        while any(count > before[name] for name, count in target.counts().items()):  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0)


def files(folder: Path, instance: Instance) -> Iterator[Path]:
    return folder.rglob(f"{instance.uid}.dcm")


async def matches(target: Target, instance: Instance) -> int:
    """How many studies the archive finds of an instance's."""
    async with association(target) as peer:
        await peer.say(messages.find(1, messages.identifier((0x0020, 0x000D, messages.text(instance.study)))))
        count, _ = await peer.final()
        return count
