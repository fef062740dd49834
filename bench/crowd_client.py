"""A script: the visitors of `bench.crowd`: some store at once, some take the time of C-ECHOs, one dawdles, one floods."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Final

import uvloop

import aiodicom
from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CGetRQ, CStoreRQ
from aiodicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    VERIFICATION,
)
from aiodicom.upper_layer.items import ImplementationClassUID, MaximumLength, PresentationContextRQ, RoleSelection
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ, PDataTF
from aiodicom.version import IMPLEMENTATION_CLASS_UID
from bench.aiodicom_scu import AT_A_TIME, CT
from bench.archives import AE_TITLE
from bench.client import allow_many_sockets
from bench.objects import study_uid
from bench.processes import LOOPBACK
from bench.raw_find import element, request

BYTES_A_SECOND: Final = 1024
SECONDS_BETWEEN_ECHOS: Final = 0.001
FIND, GET, STORE = 1, 3, 5  # presentation contexts
"""Presentation contexts of the slow peers."""


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["store", "echo", "open", "flood", "slow-find", "slow-get", "slow-store"])
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int, help="store: associations; open: how many C-ECHOs; else: seconds")
    parser.add_argument("--instances", type=Path, help="a folder: what is stored, or of which the first is retrieved")
    arguments = parser.parse_args()
    allow_many_sockets()
    match arguments.what:
        case "store":
            uvloop.run(store(arguments.port, arguments.count, _files(arguments.instances)))
        case "flood":
            uvloop.run(flood(arguments.port, arguments.count, *_files(arguments.instances)))
        case "echo":
            uvloop.run(echo(arguments.port, arguments.count))
        case "open":
            uvloop.run(echo_anew(arguments.port, arguments.count))
        case slow:
            dawdle(slow, arguments.port, arguments.count, arguments.instances)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def store(port: int, associations: int, paths: Sequence[Path]) -> None:
    """Open associations, print an empty line, store all instances on each at once; print when each was ready, in seconds."""
    contexts = aiodicom.contexts_for(paths)
    turns, opened = asyncio.Semaphore(AT_A_TIME), asyncio.Barrier(associations)
    ready: list[float] = []

    async def send_all() -> None:
        async with turns:
            association = await aiodicom.associate(LOOPBACK, port, contexts=contexts)
        async with association:
            if await opened.wait() == 0:
                print(flush=True)
            begun = time.perf_counter()
            for path in paths:
                (await association.c_store(path)).raise_for_status()
            ready.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        for _ in range(associations):
            group.create_task(send_all())
    print(json.dumps(ready))


async def flood(port: int, seconds: float, path: Path) -> None:
    """Print an empty line, and store an instance again and again."""
    end = time.perf_counter() + seconds
    async with aiodicom.associate(LOOPBACK, port, contexts=aiodicom.contexts_for([path])) as association:
        print(flush=True)
        while time.perf_counter() < end:
            (await association.c_store(path)).raise_for_status()


async def echo(port: int, seconds: float) -> None:
    """Send C-ECHOs on one association, a little apart; print how long each took, in seconds."""
    end = time.perf_counter() + seconds
    times = []
    async with aiodicom.associate(LOOPBACK, port, contexts=[VERIFICATION]) as association:
        while time.perf_counter() < end:
            times.append(await _time(association.c_echo()))
            await asyncio.sleep(SECONDS_BETWEEN_ECHOS)
    print(json.dumps(times))


async def echo_anew(port: int, count: int) -> None:
    """Send each on an association of its own; print how long that took from its request to its release."""

    async def once() -> None:
        async with aiodicom.associate(LOOPBACK, port, contexts=[VERIFICATION]) as association:
            await association.c_echo()

    print(json.dumps([await _time(once()) for _ in range(count)]))


async def _time(work: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


def dawdle(what: str, port: int, seconds: int, instance: Path | None) -> None:
    """Store, find or retrieve a kilobyte a second; print an empty line when that has begun."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BYTES_A_SECOND)
        connection.connect((LOOPBACK, port))
        connection.sendall(slow_association().encode())
        head = connection.recv(6, socket.MSG_WAITALL)
        connection.recv(int.from_bytes(head[2:]), socket.MSG_WAITALL)
        message = slow_message(what, instance)
        connection.sendall(message[:BYTES_A_SECOND])
        print(flush=True)
        for second in range(1, seconds):
            time.sleep(1)
            if what == "slow-store":
                connection.sendall(message[second * BYTES_A_SECOND :][:BYTES_A_SECOND])
            elif not connection.recv(BYTES_A_SECOND):
                raise SystemExit("the server closed the connection")


def slow_association() -> AAssociateRQ:
    """Return the request of a slow peer."""
    contexts = (
        PresentationContextRQ(FIND, STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        PresentationContextRQ(GET, STUDY_ROOT_GET, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        PresentationContextRQ(STORE, CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    )
    information = (
        MaximumLength(128 * BYTES_A_SECOND),
        ImplementationClassUID(IMPLEMENTATION_CLASS_UID),
        RoleSelection(CT, scu_role=True, scp_role=True),
    )
    return AAssociateRQ(AE_TITLE, "SLOW", contexts, information)


def slow_message(what: str, instance: Path | None) -> bytes:
    """Return what it asks then; of a store, the beginning of a data set that does not end."""
    if what == "slow-find":
        return request()
    assert instance is not None
    if what == "slow-get":
        command = encode_command(CGetRQ(message_id=1, affected_sop_class_uid=STUDY_ROOT_GET), has_data_set=True)
        identifier = element(0x0008, 0x0052, "STUDY") + element(0x0020, 0x000D, study_uid(instance))
        pdvs = (
            PDV(GET, is_command=True, is_last=True, data=command),
            PDV(GET, is_command=False, is_last=True, data=identifier),
        )
        return PDataTF(pdvs).encode()
    file = aiodicom.open_instance(instance)
    store = CStoreRQ(
        message_id=1, affected_sop_class_uid=file.sop_class_uid, affected_sop_instance_uid=file.sop_instance_uid
    )
    data = instance.read_bytes()[file.data_set_offset :]
    return _encoded(STORE, encode_command(store, has_data_set=True), data)


def _encoded(context_id: int, command: bytes, data: bytes) -> bytes:
    fragments = ((True, command), (False, data))
    pdvs = [PDV(context_id, is_command=which, is_last=True, data=each) for which, each in fragments]
    return b"".join(PDataTF((pdv,)).encode() for pdv in pdvs)


if __name__ == "__main__":
    main()
