"""Whatever is cancelled, and wherever, leaves nothing behind: see `tests.cancelling`, which plays all of it, and counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiodicom.workers import to_its_end
from tests.cancelling import Moment, play
from tests.cancelling_scenes import LEAST, SCENES
from tests.loopback import until

POINTS = 1500
LOOPS = 2


# Of what asyncio accepts in the moment that its server is closed it makes a transport that nobody gets to see.
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", SCENES)
async def test_cancelled_at_every_await_nothing_is_left(name: str, tmp_path: Path) -> None:
    for moment in Moment:
        assert await play(SCENES[name], tmp_path / moment.name, moment) >= LEAST[name]


def test_there_are_enough_points() -> None:
    assert LEAST.keys() == SCENES.keys()
    assert LOOPS * len(Moment) * sum(LEAST.values()) >= POINTS


async def test_what_runs_to_its_end_does_so_however_often_its_caller_is_cancelled() -> None:
    go, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        ended.set()

    task = asyncio.create_task(to_its_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    await until(task.done)
    assert ended.is_set()
    assert task.cancelled()


async def test_what_runs_to_its_end_gives_its_result_or_raises() -> None:
    async def work(result: object) -> object:
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert await to_its_end(work(7)) == 7
    with pytest.raises(KeyError):
        await to_its_end(work(KeyError()))
