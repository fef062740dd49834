"""The way of audit messages to where they are kept: a bounded queue for each destination, which nobody waits for."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol, Self

from aiodicom.audit.messages import APPLICATION as APPLICATION_ROLE
from aiodicom.audit.messages import (
    AUDIT_RECORDING_STARTED,
    Message,
    Outcome,
    Participant,
    application_activity,
    security_alert,
)
from aiodicom.errors import DicomNetworkError
from aiodicom.logs import described

MAXIMUM_QUEUED: Final = 1000
"""How many messages wait for each destination, at most; those that come then are dropped, and counted."""

STOP_TIMEOUT: Final = 5.0
"""How long what is queued may take to be delivered once the trail is to stop, in seconds."""

FIRST_PAUSE: Final = 1.0
"""How many seconds pass before a destination is tried again; twice as many after each attempt that fails."""

LONGEST_PAUSE: Final = 60.0

AT_ONCE: Final = 16
"""How many messages are delivered at a time: to make XML of them takes some milliseconds."""

_log: Final = logging.getLogger("aiodicom.audit")


class Destination(Protocol):
    """Where messages are kept."""

    async def deliver(self, messages: Sequence[Message], encode: Callable[[Message], bytes]) -> None:
        """Deliver messages, in their order.

        Raises:
            OSError: they were not, or not all, delivered; they are to be delivered again.
            DicomNetworkError: likewise.
        """

    async def close(self) -> None:
        """Let go of it."""

    def __str__(self) -> str:
        """What it is, in words."""


class AuditTrail:
    """Takes audit messages, and delivers them to one destination or several; an async context manager.

    `add` never waits. What is queued while a destination is not to be had is delivered when it is back; what does not fit
    into the queue is dropped and counted, and the trail itself tells so, in a Security Alert, as soon as it goes on. When it
    begins and ends it says that the application does (Application Activity).

    Args:
        destinations: where to; each has a queue of its own.
        ae_title: the application's.
        source_id: which system reports; by default the name of this machine.
        site_id: where that is, in an enterprise of several sites.
        maximum: how many messages wait for each destination.
        stop_timeout: how long they may take in the end, in seconds.
        first_pause: how long to wait before a destination is tried again, in seconds, for the first time.
        on_drop: called for each message that is dropped.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        *,
        ae_title: str = "AIODICOM",
        source_id: str = "",
        site_id: str = "",
        maximum: int = MAXIMUM_QUEUED,
        stop_timeout: float = STOP_TIMEOUT,
        first_pause: float = FIRST_PAUSE,
        on_drop: Callable[[], None] | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.source_id = source_id or socket.gethostname()
        self.site_id = site_id
        self.stop_timeout = stop_timeout
        self._channels = [
            _Channel(self, destination, maximum, first_pause, on_drop or _nothing) for destination in destinations
        ]

    def __repr__(self) -> str:
        return f"<AuditTrail to {', '.join(str(each.destination) for each in self._channels)}>"

    @property
    def queued(self) -> int:
        """How many messages wait, for the destination for which most do."""
        return max((channel.queued for channel in self._channels), default=0)

    @property
    def dropped(self) -> int:
        """How many messages were dropped, at all destinations."""
        return sum(channel.dropped for channel in self._channels)

    @property
    def application(self) -> Participant:
        """The application itself, as it takes part in what is told: a process of this machine, with its AE title."""
        return Participant(
            user_id=str(os.getpid()),
            ae_title=self.ae_title,
            host=self.source_id,
            is_machine_name=True,
            user_name="aiodicom",
        )

    def add(self, message: Message) -> None:
        """Take a message; or drop it where there is no room."""
        for channel in self._channels:
            channel.add(message)

    def encode(self, message: Message) -> bytes:
        """Return a message as XML."""
        return message.encode(self.source_id, self.site_id)

    async def __aenter__(self) -> Self:
        """Begin to deliver."""
        self.add(self._activity(starts=True))
        for channel in self._channels:
            channel.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Deliver what is queued, as far as it can be in time."""
        self.add(self._activity(starts=False))
        await asyncio.gather(*(channel.stop(self.stop_timeout) for channel in self._channels))

    def _activity(self, *, starts: bool) -> Message:
        return application_activity(replace(self.application, roles=(APPLICATION_ROLE,)), starts=starts)


class _Channel:
    """A destination, its queue, and the task that empties it."""

    def __init__(
        self, trail: AuditTrail, destination: Destination, maximum: int, first_pause: float, on_drop: Callable[[], None]
    ) -> None:
        self.destination = destination
        self.dropped = 0
        self._trail = trail
        self._maximum = maximum
        self._first_pause = first_pause
        self._on_drop = on_drop
        self._queue: deque[Message] = deque()
        self._untold = 0  # of those dropped
        self._filled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        return len(self._queue)

    def add(self, message: Message) -> None:
        if len(self._queue) < self._maximum:
            self._queue.append(message)
            self._filled.set()
            return
        if not self._untold:
            _log.warning("%s does not keep up: audit messages are dropped from now on", self.destination)
        self._drop(1)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, timeout: float) -> None:
        self._stopping.set()
        self._filled.set()
        assert self._task is not None
        _, late = await asyncio.wait({self._task}, timeout=timeout)
        for task in late:
            task.cancel()
            await asyncio.wait({task})
        self._drop(len(self._queue))
        if self._untold:
            _log.error("%d audit messages for %s are lost", self._untold, self.destination)
        self._queue.clear()
        await self.destination.close()

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._untold += count
        for _ in range(count):
            self._on_drop()

    async def _run(self) -> None:
        pause = self._first_pause
        while True:
            if not self._queue:
                if self._stopping.is_set():
                    return
                self._filled.clear()
                await self._filled.wait()
                continue
            try:
                await self._deliver()
                pause = self._first_pause
            except Exception as error:  # noqa: BLE001 - no fault of a destination may end the trail
                why = error if isinstance(error, OSError | DicomNetworkError) else described(error)
                _log.warning("%s: audit messages wait, and are tried again in %g s: %s", self.destination, pause, why)
                if self._stopping.is_set():
                    return  # nobody will wait until it is back
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _deliver(self) -> None:
        """Deliver the oldest messages; they are taken from the queue once they are."""
        count = min(AT_ONCE, len(self._queue))
        await self.destination.deliver([self._queue[index] for index in range(count)], self._trail.encode)
        for _ in range(count):
            self._queue.popleft()
        if self._untold:
            # There is room for it now, and it goes out behind what it follows.
            lost, self._untold = self._untold, 0
            words = f"{lost} audit messages were dropped: they came faster than they could be delivered"
            _log.warning("%s is back: %s", self.destination, words)
            application = self._trail.application
            self._queue.append(
                security_alert(
                    (application,), AUDIT_RECORDING_STARTED, application.host, words, outcome=Outcome.SERIOUS_FAILURE
                )
            )


def _nothing() -> None:
    """Do nothing."""
