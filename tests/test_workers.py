"""Worker threads: what becomes of a job whose caller is cancelled."""

from __future__ import annotations

import asyncio
from threading import Event

import pytest

from aiodicom.workers import Workers


@pytest.mark.parametrize("fails", [False, True])
async def test_a_job_that_ends_in_the_turn_in_which_its_caller_is_cancelled(fails: bool) -> None:
    workers = Workers(1)
    go_on = Event()

    def work() -> None:
        go_on.wait()
        if fails:
            raise ValueError

    caller = asyncio.ensure_future(workers(work))
    await asyncio.sleep(0)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    # The thread hands its result over while the loop is held up here; then the caller is cancelled before it is told.
    threads = list(workers._threads)
    go_on.set()
    workers.stop()
    for thread in threads:
        thread.join()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert failures == []


async def test_a_caller_that_is_cancelled_again_waits_for_its_job_all_the_same() -> None:
    workers = Workers(1)
    go_on = Event()
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    caller = asyncio.ensure_future(workers(go_on.wait))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.wait({caller}, timeout=0)
    was_left = caller.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not was_left
    for thread in workers._threads:
        workers.stop()
        thread.join()
    await asyncio.sleep(0)
    assert failures == []
