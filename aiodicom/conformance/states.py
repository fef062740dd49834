"""T04: the cells of PS3.8 Table 9-10 that a requestor can bring an acceptor into, each one a case.

Sta1 to Sta3, Sta6, Sta8 and Sta13 can be entered from outside; Sta7 and Sta9 to Sta12 are for an end that asks for a release,
and Sta4, Sta5, Sta9 and Sta11 for the requestor. The two cells in which ARTIM runs out are T12 and T18/never-closes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, NotApplicable, expect
from aiodicom.conformance.messages import COMMAND, ECHO, LAST
from aiodicom.conformance.peer import Peer, association, connection, request_to
from aiodicom.conformance.target import Target
from aiodicom.upper_layer.state_machine import TABLE, Event, State

Entrance: TypeAlias = Callable[[Target], AbstractAsyncContextManager[tuple[Peer, bytes, str]]]
"""Brings the acceptor into a state: the connection, what is still to be said for it, and what that would be answered with."""

_PDUS: Final[dict[Event, tuple[str, Callable[[Target], bytes]]]] = {
    Event.EVT3: ("A-ASSOCIATE-AC", lambda target: messages.acceptance(target.called, target.calling)),
    Event.EVT4: ("A-ASSOCIATE-RJ", lambda _: messages.REJECTION),
    Event.EVT6: ("A-ASSOCIATE-RQ", lambda target: request_to(target)),
    Event.EVT10: ("P-DATA-TF", lambda _: messages.echo()),
    Event.EVT12: ("A-RELEASE-RQ", lambda _: messages.RELEASE_RQ),
    Event.EVT13: ("A-RELEASE-RP", lambda _: messages.RELEASE_RP),
    Event.EVT16: ("A-ABORT", lambda _: messages.ABORT),
    Event.EVT19: ("an unknown PDU", lambda _: messages.UNKNOWN_PDU),
}
_SECTION: Final = "PS3.8 Table 9-10"
_LAST_WORDS: Final = {
    "AA-1": "A-ABORT 0/0, ",
    "AA-2": "",
    "AA-3": "",
    "AE-6": "A-ASSOCIATE-AC, ",
    "DT-2": "C-ECHO-RSP 0x0000, ",
    "AR-2": "A-RELEASE-RP, ",
}
_GOES_ON: Final = ("AE-6", "DT-2")
"""The actions after which there is an association, so that whoever wants to hear the end has to ask for it."""


@asynccontextmanager
async def _awaiting_request(target: Target) -> AsyncIterator[tuple[Peer, bytes, str]]:
    async with connection(target) as peer:
        yield peer, b"", ""


@asynccontextmanager
async def _deciding(target: Target) -> AsyncIterator[tuple[Peer, bytes, str]]:
    # With the bytes that follow in one write: an acceptor that has answered before it sees those is not in Sta3 any more.
    async with connection(target) as peer:
        yield peer, request_to(target), "A-ASSOCIATE-AC"


@asynccontextmanager
async def _established(target: Target) -> AsyncIterator[tuple[Peer, bytes, str]]:
    async with association(target) as peer:
        yield peer, b"", ""


@asynccontextmanager
async def _releasing(target: Target) -> AsyncIterator[tuple[Peer, bytes, str]]:
    async with association(target) as peer:
        yield peer, messages.RELEASE_RQ, "A-RELEASE-RP"


@asynccontextmanager
async def _over(target: Target) -> AsyncIterator[tuple[Peer, bytes, str]]:
    async with association(target) as peer:
        await peer.say(messages.RELEASE_RQ)
        expect(await peer.next_pdu(), "A-RELEASE-RP")
        yield peer, b"", ""


_ENTRANCES: Final[dict[State, Entrance]] = {
    State.STA2: _awaiting_request,
    State.STA3: _deciding,
    State.STA6: _established,
    State.STA8: _releasing,
    State.STA13: _over,
}


def _name(state: State, event: Event) -> str:
    return f"T04/{state.name.capitalize()}-{event.name.capitalize()}"


def _expected(state: State, event: Event) -> tuple[str, ...]:
    """Return what an acceptor may be heard to do in a cell."""
    action = TABLE[state, event].name
    if action in _GOES_ON:
        return (f"{_LAST_WORDS[action]}A-RELEASE-RP, closed",)
    if state is State.STA13:
        # What is left of its association is to close; whoever has closed one way already cannot abort again (AA-7).
        return "closed", "A-ABORT 0/0, closed", f"A-ABORT 2/{1 if event is Event.EVT19 else 2}, closed"
    if action == "AA-8":
        return (f"A-ABORT 2/{1 if event is Event.EVT19 else 2}, closed",)
    return (f"{_LAST_WORDS[action]}closed",)


def _received(state: State, event: Event) -> Case:
    """Return the case in which a PDU comes in a state."""
    words, pdu = _PDUS[event]
    expected = _expected(state, event)

    async def run(target: Target) -> None:
        async with _ENTRANCES[state](target) as (peer, before, too_early):
            await peer.say(before, pdu(target))
            heard = ""
            if TABLE[state, event].name in _GOES_ON:
                heard = f"{await peer.next_pdu()}, "
                await peer.say(messages.RELEASE_RQ)
            heard += await peer.heard()
            if too_early and heard.startswith(too_early):
                raise NotApplicable(f"it had answered by {too_early} already")
            if state is State.STA13:
                peer.hang_up()
            expect(heard, *expected)

    return Case(_name(state, event), f"{words} in {state.name.capitalize()}", _SECTION, run)


def _lost(state: State) -> Case:
    """Return the case in which the connection is lost in a state: nothing can be heard, but others must not notice."""

    async def run(target: Target) -> None:
        async with _ENTRANCES[state](target) as (peer, before, _):
            await peer.say(before)
            peer.reset()

    return Case(_name(state, Event.EVT17), f"the connection is lost in {state.name.capitalize()}", _SECTION, run)


def _asked(state: State, event: Event, title: str, run: Callable[[Target], Awaitable[None]]) -> Case:
    return Case(_name(state, event), title, _SECTION, run)


def _conversation(data: bytes, expected: str) -> Callable[[Target], Awaitable[None]]:
    async def run(target: Target) -> None:
        async with association(target) as peer:
            await peer.say(data)
            expect(await peer.heard(), expected)

    return run


async def _connected(target: Target) -> None:
    async with connection(target) as peer:
        await peer.say(request_to(target))
        expect(await peer.next_pdu(), "A-ASSOCIATE-AC")


async def _sends(target: Target) -> None:
    async with association(target) as peer:
        await peer.say(messages.echo(1), messages.echo(2))
        expect(await peer.answers(2), "C-ECHO-RSP 0x0000, C-ECHO-RSP 0x0000")


async def _rejecting(target: Target) -> None:
    request = request_to(target)
    async with connection(target) as peer:
        await peer.say(request[:26] + b"\\".ljust(16) + request[42:])
        expect(await peer.heard(), "A-ASSOCIATE-RJ 1/1/3, closed")


_MALFORMED_COMMAND: Final = messages.pdv(ECHO, COMMAND | LAST, bytes.fromhex("00000000feffffff"))

CASES: Final = (
    _asked(State.STA1, Event.EVT5, "a connection in Sta1", _connected),
    *(_received(State.STA2, event) for event in _PDUS),
    _lost(State.STA2),
    *(_received(State.STA3, event) for event in _PDUS),
    _asked(State.STA3, Event.EVT7, "its user accepts in Sta3", _connected),
    _asked(State.STA3, Event.EVT8, "its user rejects in Sta3", _rejecting),
    _lost(State.STA3),
    *(_received(State.STA6, event) for event in _PDUS),
    _asked(
        State.STA6,
        Event.EVT9,
        "its user sends in Sta6",
        _sends,
    ),
    _asked(
        State.STA6, Event.EVT15, "its user aborts in Sta6", _conversation(_MALFORMED_COMMAND, "A-ABORT 0/0, closed")
    ),
    _lost(State.STA6),
    *(_received(State.STA8, event) for event in _PDUS),
    _asked(
        State.STA8,
        Event.EVT9,
        "its user sends in Sta8",
        _conversation(messages.echo() + messages.RELEASE_RQ, "C-ECHO-RSP 0x0000, A-RELEASE-RP, closed"),
    ),
    _asked(
        State.STA8,
        Event.EVT14,
        "its user answers the release in Sta8",
        _conversation(messages.RELEASE_RQ, "A-RELEASE-RP, closed"),
    ),
    _lost(State.STA8),
    *(_received(State.STA13, event) for event in _PDUS),
    _lost(State.STA13),
)
