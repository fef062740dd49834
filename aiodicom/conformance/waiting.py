"""Peers that wait: T12 to T15, and the end of T18. Each case takes as long as the time limit that it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, Differs, expect
from aiodicom.conformance.messages import COMMAND, DATA, ECHO, STORE
from aiodicom.conformance.peer import CLOSED, RESET, Peer, association, connection, request_to
from aiodicom.conformance.target import Target

_LONG: Final = 2  # how much more tolerance the longer waits have
_TICKS: Final = 20  # how many bytes a slow peer sends within a time limit


async def due(heard: Coroutine[None, None, str], seconds: float, tolerance: float, *expected: str) -> None:
    """Compare what is heard, and when, with what is due after so many seconds."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    got = await heard
    passed = loop.time() - begun
    when = f"after {seconds:g} s ± {tolerance:g} s"
    if got not in expected or abs(passed - seconds) > tolerance:
        raise Differs(f"{' or '.join(expected)}, {when}", f"{got}, after {passed:.2f} s")


async def _silence(target: Target) -> None:
    async with connection(target) as peer:
        patience = target.artim + target.tolerance + target.patience
        await due(peer.heard(patience), target.artim, target.tolerance, CLOSED, RESET)


async def _trickle(peer: Peer, data: Callable[[int], bytes], period: float) -> None:
    number = 0
    while not peer.ended:
        await peer.say(data(number))
        number += 1
        await asyncio.sleep(period)


async def _slowly(peer: Peer, data: Callable[[int], bytes], limit: float, tolerance: float, *expected: str) -> None:
    """Speak a little at a time, until the acceptor has had enough."""
    speaking = asyncio.create_task(_trickle(peer, data, limit / _TICKS))
    try:
        await due(peer.heard(limit + tolerance + peer.target.patience), limit, tolerance, *expected)
    finally:
        speaking.cancel()
        await asyncio.wait([speaking])


async def _slow_request(target: Target) -> None:
    request = request_to(target)
    async with connection(target) as peer:
        # A byte that crosses the close is answered by a reset.
        await _slowly(peer, lambda number: request[number : number + 1], target.artim, target.tolerance, CLOSED, RESET)


def _stall(name: str, title: str, data: bytes, *, needs: tuple[str, ...] = ()) -> Case:
    async def run(target: Target) -> None:
        async with association(target) as peer:
            await peer.say(data)
            tolerance = _LONG * target.tolerance
            patience = target.stall + tolerance + target.patience
            await due(peer.heard(patience), target.stall, tolerance, "A-ABORT 2/0, closed")

    return Case(f"T14/{name}", title, "PS3.8 §9.3.8", run, needs, is_slow=True)


def _crawl(name: str, title: str, begin: Callable[[], bytes], data: bytes, *, needs: tuple[str, ...] = ()) -> Case:
    """Return a case of a peer that goes on, but too slowly."""

    async def run(target: Target) -> None:
        async with association(target) as peer:
            await peer.say(begin())
            await _slowly(
                peer,
                lambda _: data,
                target.stall,
                _LONG * target.tolerance,
                "A-ABORT 2/0, closed",
                "A-ABORT 2/0, reset",
            )

    return Case(f"T14/{name}", title, "PS3.8 §9.3.8", run, needs, is_slow=True)


async def _idle(target: Target) -> None:
    async with association(target) as peer:
        tolerance = _LONG * target.tolerance
        await due(peer.heard(target.idle + tolerance + target.patience), target.idle, tolerance, "A-ABORT 2/0, closed")


async def _never_closes(target: Target) -> None:
    """Stay on the line after the release: it is closed both ways in the end, which a PDU that is to be ignored shows."""
    async with association(target) as peer:
        await peer.say(messages.RELEASE_RQ)
        expect(await peer.heard(), "A-RELEASE-RP, closed")
        limit = target.closing + _LONG * target.tolerance + 1
        try:
            async with asyncio.timeout(limit):
                while not peer.is_gone:
                    await peer.say(messages.RELEASE_RP)
                    await asyncio.sleep(target.closing / _TICKS)
        except TimeoutError:
            raise Differs(f"closed both ways within {target.closing:g} s", f"still open after {limit:g} s") from None


_LONG_DATA: Final = messages.pdv(STORE, DATA, bytes(16_000))

CASES: Final = (
    Case("T12", "a connection without a word", "PS3.8 §9.1.5", _silence, is_slow=True),
    Case("T13", "a request byte by byte", "PS3.8 §9.1.5", _slow_request, is_slow=True),
    _stall("pdu", "silence inside of a P-DATA-TF", messages.echo()[:16]),
    _stall("header", "silence inside of a PDU's header", messages.echo()[:3]),
    _stall("command", "silence inside of a command set", messages.pdv(ECHO, COMMAND, b"12")),
    _stall("message", "silence between command set and data set", messages.store_rq(1, "1.2.3"), needs=("storage",)),
    _crawl(
        "floor",
        "a data set of some bytes a second",
        lambda: messages.store_rq(1, messages.new_uid()),
        messages.pdv(STORE, DATA, b"12"),
        needs=("storage",),
    ),
    _crawl(
        "floor-pdu",
        "a P-DATA-TF byte by byte",
        lambda: messages.store_rq(1, messages.new_uid()) + _LONG_DATA[:14],
        b"\0",
        needs=("storage",),
    ),
    Case("T15", "an association without a word", "PS3.8 §9.3.8", _idle, is_slow=True),
    Case("T18/never-closes", "a peer that does not close after the release", "PS3.8 §9.2", _never_closes, is_slow=True),
)
