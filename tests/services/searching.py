"""What the tests of C-FIND as SCP share: handlers, and what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiodicom import Operation, Timeouts
from aiodicom.dimse.commands import CFindRSP, Response
from aiodicom.services.query import find_service
from aiodicom.uids import STUDY_ROOT_FIND
from tests.inquiries import STUDY, asking, find_pdu
from tests.loopback import RELEASE_RP, RELEASE_RQ, RawPeer, serving

ROWS: list[dict[str, Any]] = [
    {"StudyInstanceUID": f"{STUDY}.{number}", "PatientID": str(number)} for number in range(3)
]


def searching(handler: Any, **options: Any) -> Any:  # noqa: ANN401
    """A server with a handler of C-FIND."""
    return serving(services=[find_service(handler)], **{"timeouts": Timeouts(idle=None), **options})


async def answers(peer: RawPeer) -> tuple[list[bytes], Response]:
    """The matches that come, encoded, and the final response."""
    found: list[bytes] = []
    while (response := await peer.response()).status in (0xFF00, 0xFF01):
        data = b""
        while (pdu := await peer.pdu())[11] == 0:
            data += pdu[12:]
        found.append(data + pdu[12:])
    return found, response


async def coroutine(_operation: Operation) -> list[Any]:
    await asyncio.sleep(0)
    return ROWS


async def peer_is_served(peer: RawPeer) -> None:
    peer.send(RELEASE_RQ)
    assert await peer.pdu() == RELEASE_RP


async def asked_for(handler: Any, identifier: bytes | None = None) -> tuple[list[bytes], Response]:  # noqa: ANN401
    async with searching(handler) as server, asking(server) as peer:
        peer.send(find_pdu(7, identifier))
        found, response = await answers(peer)
        assert isinstance(response, CFindRSP)
        assert response.message_id_being_responded_to == 7
        assert response.affected_sop_class_uid == STUDY_ROOT_FIND
        return found, response


def yielding(*matches: Any) -> Callable[[Operation], AsyncIterator[Any]]:  # noqa: ANN401
    async def handler(_operation: Operation) -> AsyncIterator[Any]:
        for each in matches:
            yield each

    return handler


class Searching:
    """A handler that waits for ever after its first match, and notes how it ends."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.cleaned_up = False

    async def __call__(self, operation: Operation) -> AsyncIterator[Any]:
        try:
            yield ROWS[0]
            await asyncio.Event().wait()
        finally:
            self.was_cancelled = operation.is_cancelled
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.cleaned_up = True
            self.ended.set()
