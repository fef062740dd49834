"""What tests get: nothing of a patient and no secret may be logged, and asynchronous ones run on each event loop in turn.

These must leave nothing behind, either.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from pytest_asyncio import is_async_test

from tests.canaries import Watch

DESCRIPTORS: Final = Path("/dev/fd")
# A task that was cancelled or told to end may take some turns of the loop, but needs nothing from outside for it.
TURNS_TO_END: Final = 20
# A closing socket may first have to deliver what was written to it.
SECONDS_TO_CLOSE: Final = 2.0
SECONDS_BETWEEN_LOOKS: Final = 0.01
WATCH: Final = Watch()


def pytest_configure() -> None:
    """Hear all that is logged from now on."""
    WATCH.begin()


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each asynchronous test on every event loop that there is."""
    if sys.platform == "win32":
        return {"asyncio": asyncio.new_event_loop}
    import uvloop

    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def no_canary_sings() -> Iterator[None]:
    """Fail a test during which a value of a patient or a secret was logged, at whichever level."""
    yield
    if heard := WATCH.take():
        pytest.fail("\n".join(heard), pytrace=False)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> None:
    """Add `leak_check` to the asynchronous tests; the others need no event loop for it."""
    if is_async_test(request.node):
        request.getfixturevalue("leak_check")


@pytest.fixture
async def leak_check() -> AsyncIterator[None]:
    """Fail a test that leaves a task, a network socket or a file open.

    It is set up before the other fixtures of the test, so it looks after they have cleaned up.
    """
    before = open_descriptors()
    yield
    await tasks_end()
    await descriptors_close(before)


async def tasks_end() -> None:
    """Wait some turns of the loop until only this task is left."""
    for _ in range(TURNS_TO_END):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail(f"tasks left behind: {sorted(map(repr, left))}", pytrace=False)


async def descriptors_close(before: set[str]) -> None:
    """Wait until no descriptor is open that was not open before."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SECONDS_TO_CLOSE
    while left := open_descriptors() - before:
        if loop.time() > deadline:
            pytest.fail(f"left open: {sorted(left)}", pytrace=False)
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


def open_descriptors() -> set[str]:
    """The network sockets and files of this process, in words; empty where the system does not list descriptors.

    Pipes, local socket pairs and devices are left out: an event loop makes some for itself whenever it likes.
    """
    if not DESCRIPTORS.exists():
        return set()
    return {words for link in DESCRIPTORS.iterdir() if (words := describe(int(link.name)))}


def describe(descriptor: int) -> str:
    """What is behind a descriptor; empty for what is not checked."""
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return f"descriptor {descriptor}: file {DESCRIPTORS.joinpath(str(descriptor)).resolve()}"
        if not stat.S_ISSOCK(status.st_mode):
            return ""
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            if copy.family not in {socket.AF_INET, socket.AF_INET6}:
                return ""
            return f"descriptor {descriptor}: socket {status.st_ino} at {copy.getsockname()}"
    except OSError:  # closed meanwhile: by a worker thread, or it was that of the listing itself
        return ""
