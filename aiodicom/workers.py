"""Worker threads: where everything runs that blocks, such as writing files and decoding data sets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar

from anyio import CancelScope, to_thread

T = TypeVar("T")


class InThread(Protocol):
    """Runs a function in a worker thread, to its end even where the caller is cancelled, and returns its result."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]:  # noqa: ANN401 - any arguments
        """Run `function(*args)`; what it raises is raised."""


async def in_any_thread(function: Callable[..., T], /, *args: Any) -> T:  # noqa: ANN401 - any arguments
    """Run `function(*args)` in one of anyio's threads, which everything in the process shares: an `InThread`."""
    return await to_thread.run_sync(function, *args)


class _Job(NamedTuple):
    function: Callable[..., Any]
    args: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Workers:
    """A few threads that take small jobs from one queue: an `InThread` for a server, which has one job per instance.

    Such a job, of some 50 µs, costs a third here of what it costs by way of anyio's or concurrent.futures' threads.

    Args:
        count: how many threads; they are started when the first job comes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[Thread] = []

    async def __call__(self, function: Callable[..., T], /, *args: Any) -> T:  # noqa: ANN401 - any arguments
        """Run `function(*args)`; what it raises is raised. A caller that is cancelled waits for its end all the same."""
        if not self._threads:
            self._threads = [Thread(target=self._work, name="aiodicom-worker", daemon=True) for _ in range(self._count)]
            for thread in self._threads:
                thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(function, args, loop, future))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with CancelScope(shield=True):
                await asyncio.wait((future,))
            future.exception()  # nobody is there to hear of it
            raise

    def stop(self) -> None:
        """Let the threads end once the jobs are done that wait."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads = []

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                result = job.function(*job.args)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
                self._settle(job, job.future.set_exception, error)
            else:
                self._settle(job, job.future.set_result, result)
            del job

    def _settle(self, job: _Job, settle: Callable[[Any], None], outcome: object) -> None:
        if not job.loop.is_closed():
            job.loop.call_soon_threadsafe(settle, outcome)
