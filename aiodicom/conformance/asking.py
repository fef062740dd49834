"""Hostile questions: T30 to T35 where they are asked in an identifier (PS3.4 Annex C)."""

from __future__ import annotations

import struct
from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, expect
from aiodicom.conformance.messages import FIND, FIND_DEFLATED
from aiodicom.conformance.peer import Peer, association
from aiodicom.conformance.storing import ELEMENTS, SUCCESS, stored
from aiodicom.conformance.target import Target

_FIND: Final = "PS3.4 §C.4.1"
_MOVE: Final = "PS3.4 §C.4.2"
_NAME, _STUDY = (0x0010, 0x0010), (0x0020, 0x000D)
LONGEST_LIST: Final = 10_000
_EXPLICIT_LEVEL: Final = messages.explicit(0x0008, 0x0052, "CS", b"STUDY ")


async def _matches(peer: Peer, message_id: int, identifier: bytes, *, context_id: int = FIND) -> str:
    await peer.say(messages.find(message_id, identifier, context_id=context_id))
    count, response = await peer.final()
    return f"{count} matches, {response}"


def _finds(
    name: str, title: str, identifier: bytes, expected: str, *, section: str = _FIND, context_id: int = FIND
) -> Case:
    """Return a case in which a C-FIND comes to that; the association must be usable after it."""

    async def run(target: Target) -> None:
        async with association(target) as peer:
            got = await _matches(peer, 1, identifier, context_id=context_id)
            await peer.say(messages.echo(2))
            expect(f"{got}, {await peer.answers(1)}", f"{expected}, C-ECHO-RSP 0x0000")

    needs = ("Q/R", "deflated Q/R") if context_id == FIND_DEFLATED else ("Q/R",)
    return Case(name, title, section, run, needs)


async def _wildcards(target: Target) -> None:
    """What takes a naive matcher minutes: it goes back over each asterisk."""
    instance = messages.new_instance("a" * 64)
    async with association(target) as peer:
        await stored(peer, messages.store(1, instance.uid, instance.data_set()), SUCCESS)
        keys = ((*_STUDY, messages.text(instance.study)), (*_NAME, messages.text("*a" * 8 + "b", b" ")))
        expect(await _matches(peer, 3, messages.identifier(*keys)), "0 matches, C-FIND-RSP 0x0000")


def _injection(name: str, value: bytes) -> Case:
    async def run(target: Target) -> None:
        instance = messages.new_instance()
        async with association(target) as peer:
            await stored(peer, messages.store(1, instance.uid, instance.data_set()), SUCCESS)
            got = await _matches(peer, 3, messages.identifier((*_NAME, messages.text(value, b" ")), (*_STUDY, b"")))
            expect(got, "0 matches, C-FIND-RSP 0x0000")
            mine = await _matches(peer, 5, messages.identifier((*_STUDY, messages.text(instance.study))))
            expect(mine, "1 matches, C-FIND-RSP 0x0000")

    return Case(f"T34/{name}", f"PatientName {value.decode()}", _FIND, run, ("storage", "Q/R"))


def _moves(name: str, title: str, own: bool) -> Case:
    async def run(target: Target) -> None:
        destination = target.called if own else "NOWHERE-KNOWN"
        async with association(target) as peer:
            identifier = messages.identifier((*_STUDY, messages.text(messages.new_uid())))
            await peer.say(messages.move(1, destination, identifier))
            _, response = await peer.final()
            expect(str(response), "C-MOVE-RSP 0xA801")

    return Case(name, title, _MOVE, run, ("C-MOVE",))


def _uids(count: int) -> bytes:
    return messages.text("\\".join(f"1.2.3.{number}" for number in range(count)))


_BOMB: Final = _EXPLICIT_LEVEL + struct.pack("<HH2sxxI", 0x0042, 0x0011, b"OB", 64 << 20)

CASES: Final = (
    _finds(
        "T28/identifier",
        "an identifier that ends inside of an element",
        messages.identifier((*_NAME, b"AB"))[:-1],
        "0 matches, C-FIND-RSP 0xC000",
        section="PS3.5 §7.1",
    ),
    _finds(
        "T30/identifier",
        "an identifier that is 64 MiB when it is inflated",
        messages.bomb(_BOMB, 64),
        "0 matches, C-FIND-RSP 0xC000",
        section="PS3.5 §A.5",
        context_id=FIND_DEFLATED,
    ),
    _finds(
        "T31/identifier-depth",
        "an identifier with sequences 65 deep",
        messages.identifier() + messages.nested(65),
        "0 matches, C-FIND-RSP 0xC000",
        section="PS3.5 §7.5",
    ),
    _finds(
        "T31/identifier-elements",
        "an identifier of more than 100,000 elements",
        messages.identifier() + messages.empty_elements(ELEMENTS + 1),
        "0 matches, C-FIND-RSP 0xC000",
        section="PS3.5 §7.1",
    ),
    _finds(
        "T31/identifier-items",
        "an identifier with more than 100,000 empty items",
        messages.identifier() + messages.empty_items(ELEMENTS + 1),
        "0 matches, C-FIND-RSP 0xC000",
        section="PS3.5 §7.5",
    ),
    Case("T33", "eight wildcards against 64 letters", "PS3.4 §C.2.2.2.4", _wildcards, ("storage", "Q/R")),
    _injection("always-true", b"' OR 1=1 --"),
    _injection("drop", b"x'); DROP TABLE instances;--"),
    _finds(
        "T34/list",
        f"a list of {LONGEST_LIST:,} UIDs",
        messages.identifier((*_STUDY, _uids(LONGEST_LIST))),
        "0 matches, C-FIND-RSP 0x0000",
        section="PS3.4 §C.2.2.2.2",
    ),
    _finds(
        "T34/long-list",
        f"a list of {LONGEST_LIST + 1:,} UIDs",
        messages.identifier((*_STUDY, _uids(LONGEST_LIST + 1))),
        "0 matches, C-FIND-RSP 0xC000",
        section="PS3.4 §C.2.2.2.2",
    ),
    _moves("T35/unknown", "a C-MOVE to an unknown destination", own=False),
    _moves("T35/self", "a C-MOVE to itself", own=True),
)
