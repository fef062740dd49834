"""Turns of the event loop, and worker threads: where everything runs that blocks, such as writing files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Protocol, TypeVar

from anyio import CancelScope, to_thread

T = TypeVar("T")

LONGEST_TURN: Final = 0.005
"""How long a coroutine may work before others are due, in seconds."""


class Turn:
    """The turn of a coroutine that may have much to do, and nothing to wait for: after some milliseconds it is over."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = 0.0

    @property
    def is_over(self) -> bool:
        """Whether others are due."""
        return asyncio.get_running_loop().time() > self._end

    async def next(self) -> None:
        """Let the others have theirs; this is a new one."""
        await asyncio.sleep(0)
        self._end = asyncio.get_running_loop().time() + LONGEST_TURN


class InThread(Protocol):
    """Runs a function in a worker thread, to its end even where the caller is cancelled, and returns its result."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]:  # noqa: ANN401 - any arguments
        """Run `function(*args)`; what it raises is raised."""


async def in_any_thread(function: Callable[..., T], /, *args: Any) -> T:  # noqa: ANN401 - any arguments
    """Run `function(*args)` in one of anyio's threads, which everything in the process shares: an `InThread`."""
    return await to_thread.run_sync(function, *args)


async def to_its_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, and return its result; a caller that is cancelled meanwhile hears of that then."""
    task = asyncio.get_running_loop().create_task(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        # A shield keeps off the scopes of anyio, but not a task's `cancel`, which may come again.
        try:
            with CancelScope(shield=True):
                await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None or task.cancelled():
        return task.result()
    task.exception()  # of which the caller hears no more
    raise cancelled


class _Job:
    """A function to run, and the loop that waits for it."""

    __slots__ = ("_args", "_function", "_loop", "future", "has_ended", "last_word")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()
        self.last_word: asyncio.Future[None] | None = None  # for a caller whose future was cancelled
        self.has_ended = False

    def run(self) -> None:
        """Run it, in a worker thread."""
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self._function(*self._args)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
            failure = error
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end, result, failure)

    def _end(self, result: object, failure: BaseException | None) -> None:
        self.has_ended = True
        if isinstance(failure, StopIteration):  # which no future can hold
            failure = RuntimeError("a function in a worker thread raised StopIteration")
        if self.last_word is not None:
            if not self.last_word.done():  # it is where its caller was cancelled again
                self.last_word.set_result(None)
        elif self.future.cancelled():
            pass  # its caller is about to hear of that, and then that it has ended
        elif failure is not None:
            self.future.set_exception(failure)
        else:
            self.future.set_result(result)


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
        job = _Job(function, args)
        self._jobs.put(job)
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            while not job.has_ended:
                job.last_word = asyncio.get_running_loop().create_future()
                # A shield keeps off the scopes of anyio, but not a task's `cancel`, which may come again.
                with suppress(asyncio.CancelledError), CancelScope(shield=True):
                    await job.last_word
            raise
        return result

    def stop(self) -> None:
        """Let the threads end once the jobs are done that wait."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads = []

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # and with it what it returned
