"""A script: an SCU by aiodicom, on uvloop: it stores, echoes, finds and so on, and reports what that took."""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path

import uvloop

import aiodicom
from aiodicom.uids import VERIFICATION
from bench.archives import AE_TITLE, MOVE_AE_TITLE, RETURN_KEYS, move_port
from bench.certificates import tls_context
from bench.client import allow_many_sockets, reported
from bench.objects import study_uid
from bench.processes import LOOPBACK

CT = "1.2.840.10008.5.1.4.1.1.2"
AT_A_TIME = 64  # associations that are being opened at once


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-memory", action="store_true", help="read the instances before the clock starts")
    parser.add_argument("--associations", type=int, default=1, help="how many send at once, each all the instances")
    parser.add_argument("--tls", type=Path, help="the folder of the certificates, for a connection over TLS")
    parser.add_argument("operation", choices=["store", "echo", "open", "hold", "find-all", "get", "move"])
    parser.add_argument("port", type=int)
    parser.add_argument("what", help="store, get, move: a folder; echo, open, hold, find-all: how many")
    arguments = parser.parse_args()
    allow_many_sockets()
    tls = tls_context(arguments.tls, ssl.Purpose.SERVER_AUTH)
    if arguments.operation == "store":
        paths = sorted(Path(arguments.what).iterdir())
        uvloop.run(store(arguments.port, paths, arguments.associations, tls, in_memory=arguments.in_memory))
    elif arguments.operation in ("get", "move"):
        retrieve = get if arguments.operation == "get" else move
        uvloop.run(retrieve(arguments.port, study_uid(next(Path(arguments.what).iterdir()))))
    elif arguments.operation in ("echo", "open"):
        operation = echo if arguments.operation == "echo" else open_and_release
        uvloop.run(operation(arguments.port, int(arguments.what), tls))
    else:
        many = hold if arguments.operation == "hold" else find_all
        uvloop.run(many(arguments.port, int(arguments.what)))


async def store(
    port: int, paths: Sequence[Path], associations: int, tls: ssl.SSLContext | None, *, in_memory: bool
) -> None:
    """Store all instances on each of some concurrent associations."""
    contexts = aiodicom.contexts_for(paths)
    instances: Sequence[aiodicom.EncodedInstance | Path] = [encoded(path) for path in paths] if in_memory else paths

    async def send_all() -> None:
        request = aiodicom.associate(LOOPBACK, port, called_ae_title=AE_TITLE, contexts=contexts, tls=tls)
        async with request as association:
            for instance in instances:
                (await association.c_store(instance)).raise_for_status()

    with reported():
        await _all(send_all() for _ in range(associations))


async def echo(port: int, count: int, tls: ssl.SSLContext | None) -> None:
    """Send C-ECHOs on one association."""
    async with aiodicom.associate(LOOPBACK, port, contexts=[VERIFICATION], tls=tls) as association:
        with reported():
            for _ in range(count):
                await association.c_echo()


async def open_and_release(port: int, count: int, tls: ssl.SSLContext | None) -> None:
    """Open one association after the other, with a C-ECHO on each."""
    with reported():
        for _ in range(count):
            async with aiodicom.associate(LOOPBACK, port, contexts=[VERIFICATION], tls=tls) as association:
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


async def find_all(port: int, count: int) -> None:
    """Ask for all studies until there are as many matches as wanted, and look at every value."""
    keys = {keyword: None for _group, _number, keyword in RETURN_KEYS}
    async with aiodicom.associate(LOOPBACK, port, called_ae_title=AE_TITLE) as association:
        with reported():
            while count > 0:
                async for match in association.c_find(keys, level="study"):
                    for element in match:
                        assert element.value is not Ellipsis
                    count -= 1


async def get(port: int, study: str) -> None:
    """Retrieve a study by C-GET, and forget it."""
    contexts = aiodicom.contexts_to_retrieve([CT])
    async with aiodicom.associate(LOOPBACK, port, called_ae_title=AE_TITLE, contexts=contexts) as association:
        with reported():
            async with association.c_get(StudyInstanceUID=study) as instances:
                async for instance in instances:
                    await _forget(instance)
    assert instances.status == 0


async def move(port: int, study: str) -> None:
    """Retrieve a study by C-MOVE to a server in the same loop, and forget it."""
    async with aiodicom.Server(MOVE_AE_TITLE, port=move_port(port)) as server:
        server.on_c_store(_forget)
        async with aiodicom.associate(LOOPBACK, port, called_ae_title=AE_TITLE) as association:
            with reported():
                async with association.c_move(StudyInstanceUID=study, destination=MOVE_AE_TITLE) as progress:
                    async for _ in progress:
                        pass
    assert progress.status == 0


async def _forget(operation: aiodicom.Operation) -> None:
    async for _ in operation.stream():
        pass


def encoded(path: Path) -> aiodicom.EncodedInstance:
    """Return the instance of a file, read whole."""
    file = aiodicom.open_instance(path)
    data = path.read_bytes()[file.data_set_offset :]
    return aiodicom.EncodedInstance(file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, data)


async def _all(coroutines: Iterable[Coroutine[object, object, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


if __name__ == "__main__":
    main()
