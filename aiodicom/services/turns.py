"""Turns at a move destination: whoever may ask for C-MOVEs must not be able to flood a third party by us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from aiodicom.nodes import Node

MOVES_PER_DESTINATION: Final = 4
"""How many C-MOVEs send to one move destination at a time, unless it is said."""


class Turns:
    """Lets so many C-MOVEs send to a move destination at a time; the others wait for their turn, first come, first served.

    Args:
        maximum: how many.
    """

    def __init__(self, maximum: int = MOVES_PER_DESTINATION) -> None:
        self._maximum = maximum
        # Of each event loop, and only as long as somebody sends or waits.
        self._semaphores: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str, int], asyncio.Semaphore]
        self._semaphores = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, destination: Node) -> AsyncIterator[None]:
        """Wait for a turn at a node, and have it."""
        key = asyncio.get_running_loop(), destination.host, destination.port
        semaphore = self._semaphores.get(key)
        if semaphore is None:
            semaphore = self._semaphores[key] = asyncio.Semaphore(self._maximum)
        async with semaphore:
            yield
