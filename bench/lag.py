"""How late an event loop is while hostile data comes: `python -m bench.lag`.

A server with an archive runs in a process of its own; a coroutine in it asks to be woken every 5 ms, and writes down how
late that was. Meanwhile a client sends, one after the other, what is meant to hold the loop up, and asks for a C-ECHO after
each. On a machine that has other work, the loop is also late because others have the processors. So the CPU time is taken,
too, that all threads of the process had in such a wait: of a lag, no more than that can be of our making.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import Final, NamedTuple

from pydicom import Dataset

from aiodicom import EncodedInstance, Node, ProposedContext, Server, associate
from aiodicom.archive import Archive
from aiodicom.cli.pacs import settled
from aiodicom.dataset import decode_data_set
from aiodicom.errors import DimseError
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND,
    VERIFICATION,
)

PERIOD: Final = 0.005
WORST: Final = 0.05
"""How late the loop may be, in seconds."""

_CT: Final = "1.2.840.10008.5.1.4.1.1.2"
_UNDEFINED: Final = 0xFFFFFFFF


class Lag(NamedTuple):
    """How late the loop was, and how much of that can be of our making, in seconds."""

    late: float
    ours: float


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    """Return an element in Implicit VR Little Endian."""
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def _head(uid: bytes) -> bytes:
    return element(0x00080016, _CT.encode() + b"\0") + element(0x00080018, uid + bytes(len(uid) % 2))


def _deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream_of = stream.compress(data) + stream.flush()
    return stream_of + bytes(len(stream_of) % 2)


def _bomb() -> bytes:
    def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value

    head = explicit(0x00080016, b"UI", _CT.encode() + b"\0") + explicit(0x00080018, b"UI", b"1.2.9\0")
    pixels = struct.pack("<HH2s2xL", 0x7FE0, 0x10, b"OW", 2**30)
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    parts = [stream.compress(head + pixels), *(stream.compress(bytes(2**20)) for _ in range(2**10)), stream.flush()]
    data = b"".join(parts)
    return data + bytes(len(data) % 2)


def instances() -> Iterator[tuple[str, EncodedInstance]]:
    """Yield what is stored: deep, of many elements, of many items, and a bomb (T30, T31)."""
    begin = element(0x00081140, element(0xFFFEE000, b"", _UNDEFINED), _UNDEFINED)
    empty = element(0x00104000, b"")
    hostile = {
        "100,000 nested sequences": begin * 100_000,
        "500,000 empty elements": empty * 500_000,
        "1,000,000 empty items": element(0x00081140, element(0xFFFEE000, b"") * 1_000_000),
        "99,000 empty elements": empty * 91_900,
    }
    for name, data in hostile.items():
        yield name, EncodedInstance(_CT, "1.2.8", IMPLICIT_VR_LITTLE_ENDIAN, _head(b"1.2.8") + data)
    yield "1 MiB that inflates to 1 GiB", EncodedInstance(_CT, "1.2.9", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, _bomb())


def identifiers() -> Iterator[tuple[str, Dataset]]:
    """Yield what is asked: wildcards, names of many accents, many items, many values (T33, T34)."""
    level = element(0x00080005, b"ISO_IR 192") + element(0x00080052, b"STUDY ")
    accents = "\\".join(["a" + "\u0301" * 10_000] * 48).encode()
    hostile = {
        "*a × 8 and b": element(0x00100020, b"*a" * 8 + b"b "),
        "48 names of 10,000 accents": element(0x00100010, accents + bytes(len(accents) % 2)),
        "5 names of 10,000 accents": element(0x00100010, (accents[: 5 * 20_002 - 1] + b" ")[: 2 * 50_005]),
        "10,000 UIDs": element(0x0020000D, b"\\".join([b"1.2.826.0.1.3680043.10.954.1"] * 10_000) + b"\0"),
        "1,900 items in a key": element(0x00400275, element(0xFFFEE000, b"") * 1_900),
        "1,900 keys": b"".join(element(0x00110000 | number, b"") for number in range(0x1000, 0x1000 + 1_900)),
    }
    for name, keys in hostile.items():
        data = level + keys if keys[:2] != b"\x08\0" else keys
        yield name, decode_data_set(data, IMPLICIT_VR_LITTLE_ENDIAN)


async def _serve(folder: Path, pipe: Connection, as_library: bool) -> None:
    loop = asyncio.get_running_loop()
    lags: list[Lag] = []

    async def sample() -> None:
        while True:
            due, cpu = loop.time() + PERIOD, process_time()
            await asyncio.sleep(PERIOD)
            late = loop.time() - due
            lags.append(Lag(late, min(late, process_time() - cpu)))

    nodes = [Node("scu", "SCU", "localhost", 11113)]
    archive = Archive(folder, nodes=nodes, sync=False)
    async with archive, Server("SCP", port=0, services=archive.services(), observers=()) as server:
        with nullcontext() if as_library else settled():
            sampler = asyncio.create_task(sample())
            pipe.send(server.port)
            while await asyncio.to_thread(pipe.recv):
                pipe.send(lags[:])
                lags.clear()
            sampler.cancel()


def _run_server(folder: Path, pipe: Connection, as_library: bool) -> None:
    asyncio.run(_serve(folder, pipe, as_library))


async def _measure(pipe: Connection) -> list[tuple[str, str, float, list[Lag]]]:
    def lags() -> list[Lag]:
        pipe.send(True)
        found: list[Lag] = pipe.recv()
        return found

    rows: list[tuple[str, str, float, list[Lag]]] = []
    port = await asyncio.to_thread(pipe.recv)
    contexts = [
        ProposedContext(VERIFICATION),
        ProposedContext(_CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        ProposedContext(_CT, (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)),
        ProposedContext(STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ]
    stored, asked = list(instances()), list(identifiers())  # which takes seconds that are not to be measured
    async with associate(
        "127.0.0.1", port, contexts=contexts, calling_ae_title="SCU", called_ae_title="SCP", observers=()
    ) as association:
        await association.c_echo()
        lags()
        await asyncio.sleep(0.5)
        rows.append(("nothing", "", 0.5, lags()))
        for name, instance in stored:
            begun = perf_counter()
            status = f"0x{int((await association.c_store(instance)).status):04X}"
            took = perf_counter() - begun
            await association.c_echo()
            rows.append((f"store: {name}", status, took, lags()))
        for name, identifier in asked:
            begun = perf_counter()
            try:
                await association.c_find(identifier).all()
                status = "0x0000"
            except DimseError as error:
                status = f"0x{error.status:04X}"
            took = perf_counter() - begun
            await association.c_echo()
            rows.append((f"find: {name}", status, took, lags()))
    return rows


def main() -> int:
    """Measure, print a table, and tell by the exit status whether the loop was too late."""
    parser = argparse.ArgumentParser(prog="python -m bench.lag", description=__doc__)
    parser.add_argument(
        "--as-library",
        action="store_true",
        help="leave garbage collections as they are in a program that mounts an archive; `aiodicom serve` does not",
    )
    options = parser.parse_args()
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = context.Process(target=_run_server, args=(Path(folder), theirs, options.as_library))
        server.start()
        try:
            rows = asyncio.run(_measure(ours))
            ours.send(False)
            server.join(10)
        finally:
            if server.is_alive():
                server.terminate()
                server.join()
    worst = Lag(0.0, 0.0)
    print("| what came | status | took ms | samples | p99.9 lag ms | max lag ms | of our making ms |")
    print("|---|---|---|---|---|---|---|")
    for name, status, took, lags in rows:
        ordered = sorted(lag.late for lag in lags) or [0.0]
        late = ordered[min(len(ordered) - 1, int(len(ordered) * 0.999))]
        longest = Lag(ordered[-1], max((lag.ours for lag in lags), default=0.0))
        worst = Lag(*map(max, worst, longest))
        figures = f"{late * 1e3:.1f} | {longest.late * 1e3:.1f} | {longest.ours * 1e3:.1f}"
        print(f"| {name} | {status} | {took * 1e3:.0f} | {len(lags)} | {figures} |")
    verdict = f"{'less than' if worst.late < WORST else 'MORE THAN'} {WORST * 1e3:.0f} ms"
    print(f"\nmax lag {worst.late * 1e3:.1f} ms, {verdict}; of our making {worst.ours * 1e3:.1f} ms at most")
    return 0 if worst.late < WORST else 1


if __name__ == "__main__":
    sys.exit(main())
