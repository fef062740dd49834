"""Cancellation at every await: a scene is played again and again, cancelled where it waits for the n-th time, n = 1, 2, ….

After each cancellation nothing may be left: no task, no socket, no open file, no temporary file, no place that is taken;
and what the scene is played with must go on working. `python -m tests.cancelling` plays every scene on every event loop,
and counts.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from tests.conftest import open_descriptors, pytest_asyncio_loop_factories
from tests.inquiries import cancelled_at

T = TypeVar("T")

PATIENCE: Final = 50.0
_TURNS: Final = 100
_SECONDS_BETWEEN_LOOKS: Final = 0.002

Cancelled: TypeAlias = Callable[[Coroutine[Any, Any, T]], Awaitable[T]]
"""Awaits a coroutine that is cancelled where it waits for the n-th time."""


class Moment(Enum):
    """When a task is cancelled."""

    WAITING = "while it waits"
    READY = "when what it waits for is there, but it has not gone on"
    AGAIN = "while it waits, and wherever it then waits, by somebody who has no patience"


def _nothing() -> str:
    return ""


async def _fine() -> None:
    return


@dataclass(frozen=True, slots=True)
class Scene:
    """Something to be cancelled.

    Args:
        act: plays it; what is to be cancelled it awaits by way of the function that it gets.
        left: says in words what is left of it besides tasks and descriptors; "" where nothing is.
        probe: fails where things do not go on.
        pooled: part of the names of files of which there may be some more or less, since a pool keeps them open.
        may_end_otherwise: whether `act` itself may come to an end in another way, since it is another task that is
            cancelled.
    """

    act: Callable[[Cancelled[Any]], Coroutine[Any, Any, object]]
    left: Callable[[], str] = _nothing
    probe: Callable[[], Awaitable[object]] = _fine
    pooled: str = "\0"
    may_end_otherwise: bool = False


SceneMaker: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Scene]]


async def play_everywhere(scene: Scene, moment: Moment) -> int:
    """Play a scene until it comes to its end uncancelled; return at how many points it was cancelled.

    Raises:
        AssertionError: something was left, the cancellation was swallowed, or asyncio had something to complain about.
    """
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(repr(context)))
    await scene.probe()  # what is opened once and kept, such as connections to an index, is there
    descriptors, tasks = open_descriptors(), asyncio.all_tasks()
    for at in count(1):
        waits: list[object] = []

        async def cancelled(coroutine: Coroutine[Any, Any, T], at: int = at, waits: list[object] = waits) -> T:
            return await cancelled_at(coroutine, at, waits, _canceller(moment, waits), again=moment is Moment.AGAIN)

        task = asyncio.create_task(scene.act(cancelled))
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
        assert done, f"point {at}: it does not end, but waits for {waits[-1:]}: {task}"
        is_last = len(waits) < at
        if not task.cancelled() and (error := task.exception()) is not None:
            raise AssertionError(f"point {at}: it raised instead of being cancelled") from error
        # Cancelled when all was there, it may have come to its end.
        may_end = is_last or moment is Moment.READY or scene.may_end_otherwise
        assert task.cancelled() or may_end, f"point {at}: the cancellation is swallowed"
        del task, done

        def left() -> str:
            return (
                scene.left()
                or ", ".join(map(repr, asyncio.all_tasks() - tasks))
                or ", ".join(each for each in open_descriptors() - descriptors if scene.pooled not in each)
            )

        await _settled(left, at)
        await scene.probe()
        await _settled(left, at)
        assert not complaints, f"point {at}: {complaints}"
        if is_last:
            gc.collect()
            assert not complaints, complaints
            return at - 1
    raise AssertionError


def _canceller(moment: Moment, waits: Sequence[object]) -> Callable[[asyncio.Task[object]], object]:
    if moment is not Moment.READY:
        return asyncio.Task.cancel

    def when_ready(task: asyncio.Task[object]) -> None:
        awaited = waits[-1]
        if isinstance(awaited, asyncio.Future):
            awaited.add_done_callback(lambda _: task.cancel())  # before the task's own callback, which is not there yet
        else:
            asyncio.get_running_loop().call_soon(task.cancel)

    return when_ready


async def _settled(left: Callable[[], str], at: int) -> None:
    """Wait until nothing is left: threads and the other end may still be at it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    turn = 0
    while what := left():
        assert loop.time() < until, f"point {at}: left: {what}"
        turn += 1
        if turn == _TURNS:
            gc.collect()  # asyncio itself leaves some to it: what is accepted while its server is closed
        await asyncio.sleep(0 if turn < _TURNS else _SECONDS_BETWEEN_LOOKS)


async def play(make: SceneMaker, folder: Path, moment: Moment) -> int:
    """Set a scene, play it, and put it away; return at how many points it was cancelled."""
    folder.mkdir(parents=True, exist_ok=True)
    async with make(folder) as scene:
        return await play_everywhere(scene, moment)


def main() -> int:
    """Play every scene on every event loop; print at how many points they were cancelled."""
    from tests.cancelling_scenes import SCENES

    total = 0
    for name, make in SCENES.items():
        counted = []
        for factory in pytest_asyncio_loop_factories().values():
            for moment in Moment:
                with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=factory) as runner:
                    counted.append(runner.run(play(make, Path(folder), moment)))
        total += sum(counted)
        print(f"{name:40} {' '.join(f'{each:5}' for each in counted)}", flush=True)
    print(f"{total} points, nothing left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
