"""What the upper layer is to refuse: T01 to T06, T16 to T18 (PS3.8)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, NotApplicable, expect, unseen
from aiodicom.conformance.messages import COMMAND, DATA, ECHO, LAST, STORE
from aiodicom.conformance.peer import association, connection, request_to
from aiodicom.conformance.target import Target
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

ABORTED_BEFORE: Final = "A-ABORT 0/0, closed"
"""What AA-1 looks like: in Sta2 an abort gives no reason (PS3.8 Table 9-9)."""

MEBIBYTE: Final = 1 << 20
_HELD: Final = 11
_FIXED: Final = 74  # bytes before the first item
_REPEATS: Final = 10_000
_AT_A_TIME: Final = 50


def _before(name: str, title: str, section: str, data: bytes, expected: str = ABORTED_BEFORE) -> Case:
    """Return a case in which bytes come where an A-ASSOCIATE-RQ is due (Sta2)."""

    async def run(target: Target) -> None:
        async with connection(target) as peer:
            await peer.say(data)
            expect(await peer.heard(), expected)

    return Case(name, title, section, run, memory=MEBIBYTE)


def _within(name: str, title: str, section: str, data: bytes, expected: str, *, needs: tuple[str, ...] = ()) -> Case:
    """Return a case in which bytes come over an association (Sta6)."""

    async def run(target: Target) -> None:
        async with association(target) as peer:
            await peer.say(data)
            expect(await peer.heard(), expected)

    return Case(name, title, section, run, needs, memory=MEBIBYTE)


def _rejected(name: str, title: str, section: str, expected: str, ask: Callable[[Target], bytes]) -> Case:
    """Return a case in which a request is rejected."""

    async def run(target: Target) -> None:
        async with connection(target) as peer:
            await peer.say(ask(target))
            expect(await peer.heard(), f"A-ASSOCIATE-RJ {expected}, closed")

    return Case(name, title, section, run)


async def _beyond_announced(target: Target) -> None:
    if not target.maximum_length:
        raise NotApplicable("it announces no maximum length")
    async with association(target) as peer:
        await peer.say(struct.pack(">BxI", 0x04, target.maximum_length + 1))
        expect(await peer.heard(), "A-ABORT 2/6, closed")


async def _many_held(target: Target) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connection(target)) for _ in range(_HELD)]
        for peer in peers:
            await peer.say(messages.HTTP)
        async with association(target) as good:
            await good.say(messages.echo())
            expect(await good.answers(1), "C-ECHO-RSP 0x0000")
        for peer in peers:
            expect(await peer.heard(), ABORTED_BEFORE)


async def _many_malformed(target: Target) -> None:
    if target.memory is None:
        raise NotApplicable("its memory is seen with --local only")
    for _ in range(_REPEATS // _AT_A_TIME):
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(connection(target)) for _ in range(_AT_A_TIME)]
            for peer in peers:
                await peer.say(_MALFORMED["short"][1])
            for peer in peers:
                expect(await peer.heard(), ABORTED_BEFORE)


def _patched(length_at: bytes, length: bytes) -> bytes:
    """Return a request that is right but for the length of the item that begins with those bytes."""
    request = messages.handmade_request(
        messages.APPLICATION_CONTEXT_ITEM, messages.context_item(1), messages.USER_INFORMATION_ITEM
    )
    at = request.index(length_at, _FIXED) + 2
    return request[:at] + length + request[at + 2 :]


def _request(*contexts: bytes, information: bytes = messages.USER_INFORMATION_ITEM) -> bytes:
    return messages.handmade_request(messages.APPLICATION_CONTEXT_ITEM, *contexts, information)


_VERIFICATION_ITEM: Final = messages.item(0x30, VERIFICATION.encode())
_SYNTAX_ITEM: Final = messages.item(0x40, IMPLICIT_VR_LITTLE_ENDIAN.encode())
_MALFORMED: Final = {
    "short": ("a request of 4 bytes", bytes.fromhex("01 00 00000004 0001 0000")),
    "item-overrun": ("an item that is longer than its PDU", _patched(b"\x10\x00\x00\x15", b"\xff\xff")),
    "context-overrun": ("a presentation context that is longer than its PDU", _patched(b"\x20\x00", b"\xff\xff")),
    "nested-overrun": ("a syntax that is longer than its presentation context", _patched(b"\x30\x00", b"\x00\xff")),
    "user-overrun": ("a sub-item that is longer than the user information", _patched(b"\x51\x00", b"\x00\xff")),
    "identity-overrun": (
        "a username that is longer than its user identity",
        _request(messages.context_item(1), information=messages.item(0x50, messages.item(0x58, b"\x01\x00\xff\xff"))),
    ),
    "zero-id": ("presentation context ID 0", _request(messages.context_item(0))),
    "even-id": ("presentation context ID 2", _request(messages.context_item(2))),
    "duplicate-id": ("presentation context ID 1 twice", _request(messages.context_item(1), messages.context_item(1))),
    "no-context": ("no presentation context", _request()),
    "too-many": (
        "129 presentation contexts",
        _request(*(messages.context_item((1 + 2 * index) & 0xFF) for index in range(129))),
    ),
    "no-abstract-syntax": (
        "a presentation context without an abstract syntax",
        _request(messages.context_item(1, _SYNTAX_ITEM)),
    ),
    "no-transfer-syntax": (
        "a presentation context without a transfer syntax",
        _request(messages.context_item(1, _VERIFICATION_ITEM)),
    ),
    "no-application-context": (
        "no application context name",
        messages.handmade_request(messages.context_item(1), messages.USER_INFORMATION_ITEM),
    ),
}


def _with_title(target: Target, title: bytes) -> bytes:
    """Return a request whose calling AE title is whatever bytes."""
    request = request_to(target)
    return request[:26] + title.ljust(16)[:16] + request[42:]


async def _release_inside_store(target: Target) -> None:
    instance = messages.new_instance()
    data = instance.data_set()
    async with association(target) as peer:
        await peer.say(
            messages.store_rq(1, instance.uid),
            messages.pdv(STORE, DATA, data[: len(data) // 2 & ~1]),
            messages.RELEASE_RQ,
        )
        expect(await peer.heard(), "A-RELEASE-RP, closed")
    if messages.FIND not in target.accepted:
        return
    async with association(target) as peer:
        await peer.say(messages.find(1, messages.identifier((0x0020, 0x000D, messages.text(instance.study)))))
        count, response = await peer.final()
        expect(f"{count} matches, {response}", "0 matches, C-FIND-RSP 0x0000")


_EMPTY: Final = messages.pdv(ECHO, COMMAND)
_ECHO_SET: Final = messages.command(0x0030, 2, VERIFICATION)
_STORE_BEGUN: Final = messages.store_rq(1, "1.2.3")

CASES: Final = (
    _before("T01", "an A-ASSOCIATE-RQ of 4 GiB", "PS3.8 §9.3.2", bytes.fromhex("01 00 ffffffff")),
    Case("T02", "a P-DATA-TF beyond the announced length", "PS3.8 §D.1", _beyond_announced, memory=MEBIBYTE),
    _within("T02/4-GiB", "a P-DATA-TF of 4 GiB", "PS3.8 §D.1", bytes.fromhex("04 00 ffffffff"), "A-ABORT 2/6, closed"),
    _before("T03/unknown", "a PDU of an unknown type", "PS3.8 §9.3.1", messages.UNKNOWN_PDU),
    _before("T03/HTTP", "a client of HTTP", "PS3.8 §9.3.1", messages.HTTP),
    _before("T03/TLS", "a client of TLS, where none is spoken", "PS3.8 §9.3.1", messages.TLS_HELLO),
    _within(
        "T03/established",
        "an unknown PDU on an association",
        "PS3.8 §9.3.8",
        messages.UNKNOWN_PDU,
        "A-ABORT 2/1, closed",
    ),
    Case("T03/held", f"{_HELD} clients of HTTP that stay", "PS3.8 §9.3.1", _many_held),
    *(_before(f"T05/{name}", title, "PS3.8 §9.3.2", data) for name, (title, data) in _MALFORMED.items()),
    Case(
        "T05/repeats",
        f"{_REPEATS:,} malformed requests",
        "PS3.8 §9.3.2",
        _many_malformed,
        is_slow=True,
        memory=MEBIBYTE,
    ),
    *(
        _rejected(
            f"T06/{version:04x}",
            f"protocol version {version:04X}",
            "PS3.8 §9.3.2",
            "1/2/2",
            lambda target, version=version: request_to(target, version=version),  # type: ignore[misc]
        )
        for version in (0, 2)
    ),
    _rejected(
        "T07",
        "another application context",
        "PS3.7 §A.2.1",
        "1/1/2",
        lambda target: request_to(target, application_context="1.2.3"),
    ),
    *(
        _rejected(
            f"T36/{name}",
            f"a calling AE title with {words}",
            "PS3.5 §6.2",
            "1/1/3",
            lambda target, title=title: _with_title(target, title),  # type: ignore[misc]
        )
        for name, words, title in (
            ("line-break", "a line break", b"EVIL\r\nERROR x"),
            ("backslash", "a backslash", b"EVIL\\X"),
            ("control", "an escape sequence", b"EVIL\x1b[31m"),
            ("latin", "a character beyond ASCII", b"EVIL\xe9"),
            ("blank", "spaces alone", b""),
        )
    ),
    *(
        _within(f"T16/{name}", title, "PS3.8 §9.3.5", data, "A-ABORT 2/6, closed")
        for name, title, data in (
            ("empty", "an empty P-DATA-TF", bytes.fromhex("04 00 00000000")),
            ("short", "a P-DATA-TF that ends inside a PDV's length", bytes.fromhex("04 00 00000004 00000000")),
            ("length-0", "a PDV of length 0", bytes.fromhex("04 00 00000006 00000000 0103")),
            ("length-1", "a PDV of length 1", bytes.fromhex("04 00 00000006 00000001 0103")),
            ("overrun", "a PDV that is longer than its P-DATA-TF", bytes.fromhex("04 00 00000006 fffffffc 0103")),
            ("endless", "1,025 empty fragments of a command set", _EMPTY * 1025),
        )
    ),
    _within(
        "T17/context",
        "a presentation context that was not accepted",
        "PS3.8 §E.2",
        messages.pdv(messages.NOT_ACCEPTED, COMMAND | LAST, _ECHO_SET),
        "A-ABORT 2/6, closed",
    ),
    _within(
        "T17/no-command",
        "a data set without a command set",
        "PS3.8 §E.2",
        messages.pdv(ECHO, DATA | LAST, b"12"),
        "A-ABORT 2/5, closed",
    ),
    _within(
        "T17/interleaved",
        "a C-ECHO inside of a C-STORE",
        "PS3.8 §E.2",
        _STORE_BEGUN + messages.pdv(STORE, DATA, b"12") + messages.echo(2),
        "A-ABORT 2/5, closed",
        needs=("storage",),
    ),
    _within(
        "T17/other-context",
        "a data set in another context than its command set",
        "PS3.8 §E.2",
        _STORE_BEGUN + messages.pdv(ECHO, DATA | LAST, b"12"),
        "A-ABORT 2/5, closed",
        needs=("storage",),
    ),
    Case("T18/store", "a release in the middle of a data set", "PS3.8 §9.2.3", _release_inside_store, ("storage",)),
    Case("T19", "a resolver that never answers", "PS3.8 §9.1", unseen("it is the acceptor's resolver")),
)
