"""A server that runs out of descriptors: it lives on, says so a few times, and takes associations again when it can."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import create_connection
from typing import Final

import pytest

from aiodicom import DicomNetworkError, Timeouts, associate

ROOT: Final = Path(__file__).parent.parent
SPARE: Final = 10
FEW: Final = 10  # asyncio tries again each second
ATTEMPTS: Final = 50
NO_PATIENCE: Final = Timeouts(associate=1.2)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of descriptors there")
@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
def test_a_server_outlives_a_lack_of_descriptors(event_loop: str) -> None:
    command = [sys.executable, "-m", "tests.scarce", event_loop, str(SPARE)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with ExitStack() as connections:
            for _ in range(3 * SPARE):
                connections.enter_context(create_connection(("127.0.0.1", port)))
            with pytest.raises(DicomNetworkError):
                asyncio.run(echo(port, NO_PATIENCE))
        asyncio.run(echo_at_last(port))
        process.stdin.close()
        assert int(process.stdout.readline()) <= FEW
    assert process.returncode == 0


async def echo_at_last(port: int) -> None:
    """Ask until the server has heard that the others are gone; each answer of its is a step on that way."""
    for _ in range(ATTEMPTS):
        with suppress(DicomNetworkError):
            await echo(port, Timeouts())
            break
    else:
        pytest.fail("the server takes no association any more")


async def echo(port: int, timeouts: Timeouts) -> None:
    async with associate("127.0.0.1", port, timeouts=timeouts) as association:
        await association.c_echo()
