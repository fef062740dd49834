"""Group commit: jobs that wait share a transaction, none suffers for another, and every event loop gets its answers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from aiodicom.archive.index import Index, open_index
from aiodicom.archive.writer import COMMITTED_AT_ONCE, GroupCommit, Job
from aiodicom.errors import ArchiveError, DimseError
from tests.loopback import SHORT


class Note(Job):
    """Writes a number in a table, and what happens to it in a list."""

    def __init__(self, number: int, happened: list[str], error: Exception | None = None) -> None:
        super().__init__()
        self.number = number
        self.happened = happened
        self.error = error

    def perform(self, index: Index) -> None:
        self.happened.append(f"perform {self.number}")
        if isinstance(self.error, DimseError | OSError):
            raise self.error
        index.connection.execute("INSERT INTO notes VALUES (?)", (self.number,))
        if self.error is not None:
            raise self.error

    def undo(self) -> None:
        self.happened.append(f"undo {self.number}")

    def settle(self) -> None:
        self.happened.append(f"settle {self.number}{' failed' if self.failure else ''}")

    def abandon(self) -> None:
        self.happened.append(f"abandon {self.number}")


class Gate(Job):
    """Holds the writer back until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.opened = Event(), Event()

    def perform(self, index: Index) -> None:  # noqa: ARG002 - as jobs have it
        self.reached.set()
        assert self.opened.wait(60)


class Writing:
    """A writer in a temporary database, with a list of its commits."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "index"
        index = Index(open_index(self.path))
        index.connection.execute("CREATE TABLE notes (number INTEGER UNIQUE)")
        self.commits = 0
        self.before: Callable[[], None] = lambda: None
        self.writer = GroupCommit(index, self._before_commit)
        self.happened: list[str] = []

    def _before_commit(self) -> None:
        self.commits += 1
        self.before()

    def note(self, number: int, error: Exception | None = None) -> Awaitable[None]:
        return self.writer.do(Note(number, self.happened, error))

    async def held_back(self) -> tuple[Gate, asyncio.Task[None]]:
        gate = Gate()
        task = asyncio.create_task(self.writer.do(gate))
        assert await asyncio.to_thread(gate.reached.wait, 60)
        return gate, task

    def numbers(self) -> list[int]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM notes ORDER BY number")]


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    made = Writing(tmp_path)
    yield made
    made.writer.stop()


async def together(writing: Writing, *jobs: Awaitable[None]) -> list[BaseException | None]:
    """Have jobs wait while the writer is busy, so that they share the next transaction; return how each of them ended."""
    gate, held = await writing.held_back()
    tasks = [asyncio.ensure_future(job) for job in jobs]
    await asyncio.sleep(0)
    gate.opened.set()
    await held
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_jobs_that_wait_share_a_transaction(writing: Writing) -> None:
    assert await together(writing, *map(writing.note, range(100))) == [None] * 100
    assert writing.commits == 2
    assert writing.numbers() == list(range(100))
    assert writing.happened[-100:] == [f"settle {number}" for number in range(100)]


async def test_not_more_than_so_many(writing: Writing) -> None:
    await together(writing, *map(writing.note, range(COMMITTED_AT_ONCE + 1)))
    assert writing.commits == 3
    assert len(writing.numbers()) == COMMITTED_AT_ONCE + 1


async def test_an_answer_comes_after_the_commit(writing: Writing) -> None:
    for number in range(20):
        await writing.note(number)
        assert writing.numbers() == list(range(number + 1))


@pytest.mark.parametrize("error", [DimseError(0x0111), OSError(28, "No space left on device")])
async def test_what_may_not_be_done_fails_alone(writing: Writing, error: Exception) -> None:
    assert await together(writing, writing.note(1), writing.note(2, error), writing.note(3)) == [None, error, None]
    assert writing.numbers() == [1, 3]
    assert writing.commits == 2
    assert "undo 1" not in writing.happened
    assert "settle 2 failed" in writing.happened


@pytest.mark.parametrize("error", [ValueError("a bug"), sqlite3.OperationalError("disk I/O error")])
async def test_what_breaks_the_transaction_fails_alone(writing: Writing, error: Exception) -> None:
    assert await together(writing, writing.note(1), writing.note(2, error), writing.note(3)) == [None, error, None]
    assert writing.numbers() == [1, 3]
    assert [each for each in writing.happened if each.endswith(" 1")] == [
        "perform 1",
        "undo 1",
        "perform 1",
        "settle 1",
    ]
    assert [each for each in writing.happened if " 2" in each] == ["perform 2", "perform 2", "settle 2 failed"]


async def test_without_the_folders_on_the_disk_nothing_is_committed(writing: Writing) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    gate, held = await writing.held_back()
    tasks = [asyncio.ensure_future(writing.note(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    writing.before = fail
    gate.opened.set()
    assert [type(each) for each in await asyncio.gather(held, *tasks, return_exceptions=True)] == [OSError] * 3
    assert writing.numbers() == []
    writing.before = lambda: None
    await writing.note(3)
    assert writing.numbers() == [3]


async def test_another_process_that_holds_the_database(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    await writing.note(1)
    monkeypatch.setattr("aiodicom.archive.index._TURN_TIMEOUT", SHORT)
    with closing(sqlite3.connect(writing.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        failures = await asyncio.gather(writing.note(2), writing.note(3), return_exceptions=True)
        other.execute("ROLLBACK")
    assert [type(each) for each in failures] == [sqlite3.OperationalError] * 2
    await writing.note(2)
    assert writing.numbers() == [1, 2]


async def test_a_full_database(writing: Writing) -> None:
    connection = writing.writer._index.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")

    class Large(Note):
        def perform(self, index: Index) -> None:
            super().perform(index)
            index.connection.execute("CREATE TABLE large AS SELECT zeroblob(100000)")

    ends = await together(writing, writing.note(1), writing.writer.do(Large(2, writing.happened)), writing.note(3))
    assert [type(each) for each in ends] == [type(None), sqlite3.OperationalError, type(None)]
    assert writing.numbers() == [1, 3]


async def test_many_loops_in_many_threads(writing: Writing) -> None:
    async def some(start: int) -> None:
        await asyncio.gather(*(writing.note(number) for number in range(start, start + 50)))

    threads = [Thread(target=asyncio.run, args=(some(1000 * number),)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    await some(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(writing.numbers()) == 250


async def test_whoever_is_cancelled_leaves_the_job_to_the_writer(writing: Writing) -> None:
    gate, held = await writing.held_back()
    task = asyncio.ensure_future(writing.note(1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await held
    await writing.note(2)
    assert writing.numbers() == [1, 2]
    assert "abandon 1" in writing.happened


def test_a_loop_that_is_closed_misses_its_answer_alone(writing: Writing) -> None:
    gate = Gate()

    async def leave() -> None:
        waiting = [asyncio.ensure_future(writing.writer.do(gate)), asyncio.ensure_future(writing.note(1))]
        assert await asyncio.to_thread(gate.reached.wait, 60)
        for each in waiting:
            each.cancel()

    async def go_on() -> None:
        await writing.note(2)

    asyncio.run(leave())
    gate.opened.set()
    asyncio.run(go_on())
    assert writing.numbers() == [1, 2]


async def test_stopping_does_what_waits_and_takes_no_more(writing: Writing) -> None:
    gate, held = await writing.held_back()
    tasks = [asyncio.ensure_future(writing.note(number)) for number in range(10)]
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(asyncio.to_thread(writing.writer.stop))
    gate.opened.set()
    await asyncio.gather(stopping, held, *tasks)
    assert writing.numbers() == list(range(10))
    with pytest.raises(ArchiveError, match="closed"):
        await writing.note(11)


async def test_nothing_of_a_job_is_in_the_log_but_the_kind_of_its_error(
    writing: Writing, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="Canary"):
        await writing.note(1, ValueError("Canary^Tweety"))
    assert [record.getMessage() for record in caplog.records] == ["the archive cannot be written: ValueError"]
