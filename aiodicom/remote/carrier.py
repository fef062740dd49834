"""Who sends over one association at a time, several instances at once: as many as the setting and the peer allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiodicom.invoking import Turns
from aiodicom.remote.parcels import Parcel
from aiodicom.remote.pool import Lease

Work: TypeAlias = Callable[[Parcel | None], Coroutine[Any, Any, None]]
"""Sends instance after instance, beginning with that one."""


@dataclass(eq=False, slots=True)
class Carrier:
    """Sends over one association after the other.

    Attributes:
        task: that it runs in.
        lease: the association that it has.
        turns: who may send over it now.
        busy: how many of its workers have an instance.
        is_opening: whether it waits for an association; it holds no instance meanwhile, and may be cancelled.
        is_leaving: whether it is to come to its end.
    """

    task: asyncio.Task[None] | None = None
    lease: Lease | None = None
    turns: Turns = field(default_factory=lambda: Turns(1))
    busy: int = 0
    is_opening: bool = False
    is_leaving: bool = False
    _group: asyncio.TaskGroup | None = None
    _work: Work | None = None
    _width: int = 1
    _workers: int = 0

    @property
    def has_too_many(self) -> bool:
        """Whether one of its workers may go."""
        return self._workers > self._width + 1

    async def use(self, lease: Lease, window: int, work: Work, *, first: Parcel) -> None:
        """Send over an association, as long as its workers find something to send.

        Args:
            lease: the association.
            window: see `widen`.
            work: what each worker does.
            first: what one of them begins with.
        """
        self.lease, self._work = lease, work
        try:
            async with asyncio.TaskGroup() as self._group:
                self._start(first)
                self.widen(window)
        finally:
            self.lease = self._group = self._work = None

    def widen(self, window: int) -> None:
        """Let so many be sent at a time, or as many as the peer agreed to; one more is read meanwhile."""
        if self.lease is None or not self._workers:  # they are about to give it back
            return
        self._width = min(window, self.lease.association.terms.maximum_invoked or window)
        self.turns.resize(self._width)
        while self._workers <= self._width:
            self._start(None)

    def leave(self) -> None:
        """Come to an end: at once, or when what is on its way is answered."""
        self.is_leaving = True
        if self.is_opening and self.task is not None:
            self.task.cancel()

    def _start(self, first: Parcel | None) -> None:
        assert self._group is not None
        assert self._work is not None
        self._workers += 1
        self._group.create_task(self._run(self._work, first))

    async def _run(self, work: Work, first: Parcel | None) -> None:
        # A callback of the task would come later, and all who look in between would see that there is one too many, and go.
        try:
            await work(first)
        finally:
            self._workers -= 1
