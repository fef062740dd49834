"""Who may come in, and how many: T08 to T11, T41 (PS3.8 §9.3.4, PS3.7 §D.3.3.7)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, expect
from aiodicom.conformance.messages import DATA, LAST, STORE
from aiodicom.conformance.peer import association, connection, identity_of, request_to
from aiodicom.conformance.storing import stored
from aiodicom.conformance.target import Target

_PAUSE: Final = 0.01  # seconds between two attempts
_SILENT: Final = 5  # connections that have not spoken, and so must not count


async def _rejected(target: Target, request: bytes, expected: str) -> None:
    async with connection(target) as peer:
        await peer.say(request)
        expect(await peer.heard(), f"A-ASSOCIATE-RJ {expected}, closed")


async def _unknown_calling(target: Target) -> None:
    await _rejected(target, request_to(target, calling=target.unknown_calling), "1/1/3")


async def _wrong_called(target: Target) -> None:
    await _rejected(target, request_to(target, called=target.wrong_called), "1/1/7")


async def _wrong_identity(target: Target) -> None:
    assert target.wrong_identity is not None
    await _rejected(target, request_to(target, items=(identity_of(*target.wrong_identity),)), "1/1/1")


async def _no_identity(target: Target) -> None:
    await _rejected(target, request_to(target, items=()), "1/1/1")


async def _too_many(target: Target) -> None:
    assert target.maximum_associations is not None
    async with AsyncExitStack() as stack:
        for _ in range(_SILENT):
            await stack.enter_async_context(connection(target))
        # One is that of the peer that asks for C-ECHO meanwhile.
        for _ in range(target.maximum_associations - 2):
            await stack.enter_async_context(association(target))
        async with association(target) as last:
            await _rejected(target, request_to(target), "2/3/2")
            await last.say(messages.echo(), messages.RELEASE_RQ)
            expect(await last.heard(), "C-ECHO-RSP 0x0000, A-RELEASE-RP, closed")
        await _answered_at_last(target, "A-ASSOCIATE-RJ 2/3/2", "A-ASSOCIATE-AC")


async def _answered_at_last(target: Target, at_first: str, expected: str) -> None:
    """Ask for associations until the answer is another than at first: the acceptor hears of a change when it has time."""
    async with asyncio.timeout(target.patience):
        answer = at_first
        while answer == at_first:
            await asyncio.sleep(_PAUSE)
            async with connection(target) as peer:
                await peer.say(request_to(target))
                answer = await peer.next_pdu()
    expect(answer, expected)


async def _stopping(target: Target) -> None:
    assert target.stop is not None
    instance = messages.new_instance()
    data = instance.data_set()
    async with association(target) as busy:
        # What is being performed holds the end up.
        await busy.say(messages.store_rq(1, instance.uid), messages.pdv(STORE, DATA, data[:64]))
        async with association(target):
            pass  # by the time that this is accepted, the acceptor has what was said before
        target.stop()
        await _answered_at_last(target, "A-ASSOCIATE-AC", "A-ASSOCIATE-RJ 2/3/1")
        await busy.say(messages.pdv(STORE, DATA | LAST, data[64:]))
        expect(await busy.answers(1), "C-STORE-RSP 0x0000")


async def _not_allowed(target: Target) -> None:
    instance = messages.new_instance()
    async with association(target, calling=target.may_not_store) as peer:
        await stored(peer, messages.store(1, instance.uid, instance.data_set()), "0x0124")


_REJECTION: Final = "PS3.8 §9.3.4"

CASES: Final = (
    Case("T08/calling", "an unknown calling AE title", _REJECTION, _unknown_calling, ("calling AE titles",)),
    Case("T08/called", "another called AE title", _REJECTION, _wrong_called, ("called AE titles",)),
    Case("T09/passcode", "a wrong passcode", "PS3.7 §D.3.3.7", _wrong_identity, ("passcodes",)),
    Case("T09/missing", "no user identity", "PS3.7 §D.3.3.7", _no_identity, ("identities",)),
    Case("T10", "one association too many", _REJECTION, _too_many, ("association limit",)),
    Case("T41", "a C-STORE of who may not store", "PS3.7 Annex C", _not_allowed, ("storage", "rights")),
)

LAST_CASES: Final = (Case("T11", "a request while it stops", _REJECTION, _stopping, ("storage", "stop"), is_last=True),)
