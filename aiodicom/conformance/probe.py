"""The other peer: it asks for C-ECHO as long as a case runs, and once more on a new association after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import perf_counter
from typing import Final, Self

from aiodicom.conformance import messages
from aiodicom.conformance.case import Differs, expect
from aiodicom.conformance.peer import Peer, association
from aiodicom.conformance.target import Target

PAUSE: Final = 0.01
"""Seconds between an answer and the next question."""

SUCCESS: Final = "C-ECHO-RSP 0x0000"


class Probe:
    """A peer that wants nothing but C-ECHO, over an association of its own.

    Args:
        target: whom it asks.

    Attributes:
        worst: the longest that it has waited since `watching` began, in seconds.
        failure: what it got instead of an answer; empty where it got one each time.
    """

    def __init__(self, target: Target) -> None:
        self.worst = 0.0
        self.failure = ""
        self._target = target
        self._stack = AsyncExitStack()
        self._peer: Peer | None = None
        self._message_id = 0

    async def __aenter__(self) -> Self:
        """Open its association."""
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self._stack.aclose()

    @asynccontextmanager
    async def watching(self, *, is_last: bool = False) -> AsyncIterator[None]:
        """Ask while the block runs, and once more on a new association after it, unless nobody is there any more."""
        self.worst, self.failure = 0.0, ""
        enough = asyncio.Event()
        asking = asyncio.create_task(self._ask_until(enough))
        try:
            yield
        finally:
            enough.set()
            await asking  # a question that was asked is to be answered
        if is_last:
            self.failure = ""
            return
        if not self.failure:
            try:
                await self._ask_anew()
            except (Differs, OSError, TimeoutError) as error:
                self.failure = _words(error)
        if self.failure:
            await self._stack.aclose()
            await self._open()

    async def _open(self) -> None:
        self._peer = await self._stack.enter_async_context(association(self._target))

    async def _ask_until(self, enough: asyncio.Event) -> None:
        assert self._peer is not None
        try:
            while not enough.is_set():
                await self._ask(self._peer)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE):
                        await enough.wait()
        except (Differs, OSError) as error:
            self.failure = _words(error)

    async def _ask_anew(self) -> None:
        async with association(self._target) as peer:
            await self._ask(peer)
            await peer.say(messages.RELEASE_RQ)
            expect(await peer.heard(), "A-RELEASE-RP, closed")

    async def _ask(self, peer: Peer) -> None:
        begun = perf_counter()
        self._message_id = self._message_id % 0xFFFF + 1
        await peer.say(messages.echo(self._message_id))
        expect(str(await peer.message()), SUCCESS)
        self.worst = max(self.worst, perf_counter() - begun)


def _words(error: BaseException) -> str:
    return error.got if isinstance(error, Differs) else f"{type(error).__name__}: {error}"
