"""Group commit: one thread writes in the index, and commits many jobs in one transaction.

A commit that is on the disk takes milliseconds, whether there is one row in it or hundreds. So the jobs that come while
one is under way wait, and share the next.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Final, Generic, NamedTuple, TypeVar

from aiodicom.archive.index import Index
from aiodicom.archive.locking import is_busy
from aiodicom.errors import ArchiveError, DimseError

__all__ = ["COMMITTED_AT_ONCE", "GroupCommit", "Job", "Writing"]

T = TypeVar("T")

COMMITTED_AT_ONCE: Final = 512
"""How many jobs share a transaction at most."""

_log: Final = logging.getLogger("aiodicom.archive")


class Job:
    """Something to be written.

    The thread that writes calls `perform` within a transaction. If that is rolled back it calls `undo`, and perhaps
    `perform` again; in the end `settle`, with `failure` set or not.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        """Why it was not done."""
        self.waiter: _Waiter | None = None

    def perform(self, index: Index) -> None:
        """Write rows, and do to files what belongs to them.

        Raises:
            DimseError: it may not be done, and nothing was.
            OSError: it could not be done, and nothing was.
        """
        raise NotImplementedError

    def undo(self) -> None:
        """Take back what `perform` did to files."""

    def settle(self) -> None:
        """Tidy up behind it."""

    def abandon(self) -> None:
        """Tidy up what was left for the coroutine that submitted it, which does not wait any more."""


class _Waiter(NamedTuple):
    """The coroutine that submitted a job."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]


class Writing(Job, Generic[T]):
    """A job that writes rows alone.

    Attributes:
        result: what came of it, once it is done.
    """

    def __init__(self, write: Callable[[sqlite3.Connection], T]) -> None:
        super().__init__()
        self._write = write
        self.result: T | None = None

    def perform(self, index: Index) -> None:
        """Write them."""
        self.result = self._write(index.connection)


class GroupCommit:
    """The thread that writes.

    Args:
        index: where to; the thread's alone from now on, and closed at its end.
        before_commit: called before each commit, to bring on the disk what the rows rely on.
        failed: called with what a job, or all of them, failed at.
    """

    def __init__(
        self, index: Index, before_commit: Callable[[], None], failed: Callable[[Exception], None] = lambda _: None
    ) -> None:
        self._index = index
        self._before_commit = before_commit
        self._failed = failed
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = Lock()
        self._is_stopping = False
        self._thread = Thread(target=self._work, name="aiodicom-archive", daemon=True)
        self._thread.start()

    async def do(self, job: Job) -> None:
        """Have a job done; from any event loop.

        Raises:
            ArchiveError: the thread is stopping.
            DimseError: the job was refused.
            sqlite3.Error: the index could not be written.
            OSError: a file or a folder could not.
        """
        loop = asyncio.get_running_loop()
        job.waiter = _Waiter(loop, loop.create_future())
        with self._lock:
            if self._is_stopping:
                raise ArchiveError("the archive is closed")
            self._queue.put(job)
        try:
            await job.waiter.future
        except asyncio.CancelledError:
            job.abandon()
            raise

    def stop(self) -> None:
        """Do what waits, and end; blocks until then."""
        with self._lock:
            self._is_stopping = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while jobs := self._next():
                self._commit(jobs)
                _answer(jobs)
                del jobs  # and with them what they hold
        finally:
            self._index.connection.close()

    def _next(self) -> list[Job]:
        """The jobs that wait, at least one; none is the end."""
        jobs = []
        while (job := self._queue.get()) is not None:
            jobs.append(job)
            if len(jobs) == COMMITTED_AT_ONCE or self._queue.empty():
                return jobs
        if jobs:
            self._queue.put(None)
        return jobs

    def _commit(self, jobs: Sequence[Job]) -> None:
        """Do jobs in one transaction; if that fails by one of them, each in its own, so that none suffers for another."""
        try:
            self._transact(jobs)
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever a job meets
            is_everybodys = isinstance(error, OSError) or (isinstance(error, sqlite3.Error) and is_busy(error))
            if len(jobs) > 1 and not is_everybodys:
                for job in jobs:
                    self._commit([job])
                return
            _log.error("the archive cannot be written: %s", _in_words(error))
            self._failed(error)
            for job in jobs:
                job.failure = job.failure or error
        for job in jobs:
            job.settle()

    def _transact(self, jobs: Sequence[Job]) -> None:
        connection, done = self._index.connection, []
        try:
            self._index.begin()
            for job in jobs:
                if job.failure is None:
                    try:
                        job.perform(self._index)
                    except (DimseError, OSError) as error:
                        job.failure = error
                    else:
                        done.append(job)
            self._before_commit()
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self._index.forget()
            for job in reversed(done):
                job.undo()
            raise


def _answer(jobs: Sequence[Job]) -> None:
    """Wake each event loop once."""
    by_loop = defaultdict(list)
    for job in jobs:
        if job.waiter is not None:
            by_loop[job.waiter.loop].append(job)
    for loop, its_jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_answer_in_loop, its_jobs)
        except RuntimeError:  # it is closed
            for job in its_jobs:
                job.abandon()


def _answer_in_loop(jobs: Sequence[Job]) -> None:
    for job in jobs:
        assert job.waiter is not None
        if job.waiter.future.done():
            job.abandon()
        elif job.failure is not None:
            job.waiter.future.set_exception(job.failure)
        else:
            job.waiter.future.set_result(None)


def _in_words(error: Exception) -> str:
    """What a log may say: no patient data, as the message of any other exception might."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
