"""Who sends over one association: as many workers as the width, and one more, however it changes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from aiodicom.remote.carrier import Carrier
from aiodicom.remote.parcels import Parcel

FIRST = cast("Parcel", object())


class Round:
    """What workers of a carrier do: all of them wait for the same moment, again and again."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.waiting = 0
        self._moment = asyncio.Event()
        self._is_over = False

    async def work(self, _first: Parcel | None) -> None:
        while not (self._is_over or self.carrier.has_too_many):
            self.waiting += 1
            await self._moment.wait()
            self.waiting -= 1

    async def settled(self) -> int:
        """How many wait when nothing more happens."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self.waiting

    async def go_on(self) -> int:
        self._moment, moment = asyncio.Event(), self._moment
        moment.set()
        return await self.settled()

    async def end(self) -> None:
        self._is_over = True
        assert await self.go_on() == 0


async def test_those_beyond_a_smaller_width_leave_and_no_others_though_all_look_at_once() -> None:
    carrier = Carrier()
    lease: Any = SimpleNamespace(association=SimpleNamespace(terms=SimpleNamespace(maximum_invoked=0)))
    workers = Round(carrier)
    using = asyncio.create_task(carrier.use(lease, 16, workers.work, first=FIRST))
    assert await workers.settled() == 17
    carrier.widen(4)
    assert await workers.go_on() == 5
    carrier.widen(8)
    assert await workers.settled() == 9
    await workers.end()
    await using
