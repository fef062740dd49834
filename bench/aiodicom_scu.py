"""A script: an SCU by aiodicom, on uvloop: it stores, echoes, opens associations, and reports what that took."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path

import uvloop

import aiodicom
from aiodicom.uids import VERIFICATION
from bench.client import allow_many_sockets, reported
from bench.processes import LOOPBACK

AT_A_TIME = 64  # associations that are being opened at once


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-memory", action="store_true", help="read the instances before the clock starts")
    parser.add_argument("--associations", type=int, default=1, help="how many send at once, each all the instances")
    parser.add_argument("operation", choices=["store", "echo", "open", "hold"])
    parser.add_argument("port", type=int)
    parser.add_argument("what", help="store: a folder; echo, open, hold: how many")
    arguments = parser.parse_args()
    allow_many_sockets()
    if arguments.operation == "store":
        paths = sorted(Path(arguments.what).iterdir())
        uvloop.run(store(arguments.port, paths, arguments.associations, in_memory=arguments.in_memory))
    else:
        operations = {"echo": echo, "open": open_and_release, "hold": hold}
        uvloop.run(operations[arguments.operation](arguments.port, int(arguments.what)))


async def store(port: int, paths: Sequence[Path], associations: int, *, in_memory: bool) -> None:
    """Store all instances on each of some concurrent associations."""
    contexts = aiodicom.contexts_for(paths)
    instances: Sequence[aiodicom.EncodedInstance | Path] = [_read(path) for path in paths] if in_memory else paths

    async def send_all() -> None:
        async with aiodicom.associate(LOOPBACK, port, contexts=contexts) as association:
            for instance in instances:
                (await association.c_store(instance)).raise_for_status()

    with reported():
        await _all(send_all() for _ in range(associations))


async def echo(port: int, count: int) -> None:
    """Send C-ECHOs on one association."""
    async with aiodicom.associate(LOOPBACK, port, contexts=[VERIFICATION]) as association:
        with reported():
            for _ in range(count):
                await association.c_echo()


async def open_and_release(port: int, count: int) -> None:
    """Open one association after the other, with a C-ECHO on each."""
    with reported():
        for _ in range(count):
            async with aiodicom.associate(LOOPBACK, port, contexts=[VERIFICATION]) as association:
                await association.c_echo()


async def hold(port: int, count: int) -> None:
    """Open associations and leave them alone until the standard input is closed."""
    turns = asyncio.Semaphore(AT_A_TIME)
    associations: list[aiodicom.Association] = []

    async def open_one() -> None:
        async with turns:
            associations.append(await aiodicom.associate(LOOPBACK, port, contexts=[VERIFICATION]))

    with reported():
        await _all(open_one() for _ in range(count))
    await asyncio.get_running_loop().run_in_executor(None, partial(sys.stdin.buffer.read, 1))
    await _all(association.abort() for association in associations)


def _read(path: Path) -> aiodicom.EncodedInstance:
    file = aiodicom.open_instance(path)
    data = path.read_bytes()[file.data_set_offset :]
    return aiodicom.EncodedInstance(file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, data)


async def _all(coroutines: Iterable[Coroutine[object, object, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


if __name__ == "__main__":
    main()
