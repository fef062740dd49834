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
