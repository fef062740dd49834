"""What a running `aiodicom serve` does, for whoever asks at the socket beside its archive: one JSON object, and the end.

The socket is for the user who runs it alone (0600). Nothing is said to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from aiodicom.activity import COUNTED

SOCKET: Final = ".status"
"""Its name in the folder of the archive."""

DEADLINE: Final = 10.0
"""How long asking and answering may take, in seconds."""

View: TypeAlias = dict[str, Any]

_DESCRIPTORS: Final = Path("/proc/self/fd")
_log: Final = logging.getLogger("aiodicom.serve")


def now() -> str:
    """Return this moment, as it is told."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def viewed(
    options: Namespace,
    port: int,
    since: str,
    workers: Iterable[Mapping[str, Any]],
    associations: Mapping[int, Sequence[Mapping[str, Any]]],
) -> View:
    """Return what is answered.

    Args:
        options: of `aiodicom serve`.
        port: where it listens.
        since: since when.
        workers: each with its number, what it is, and what it has counted.
        associations: those of each worker, by its number, see `aiodicom.activity.described`.
    """
    rows: list[dict[str, Any]] = []
    for worker in workers:
        live = associations.get(worker["worker"], ())
        traffic = {name: worker[name] + sum(each[name] for each in live) for name in ("bytes_received", "bytes_sent")}
        rows.append({**worker, **traffic})
    return {
        "ae_title": options.aet,
        "host": options.host,
        "port": port,
        "storage": os.fspath(options.storage.absolute()),
        "since": since,
        "workers": rows,
        "total": {name: sum(row[name] for row in rows) for name in ("restarts", *COUNTED)},
        "associations": [{"worker": number, **each} for number, some in associations.items() for each in some],
    }


@asynccontextmanager
async def shown(folder: Path, view: Callable[[], Awaitable[View]]) -> AsyncIterator[None]:
    """Answer whoever asks; where there can be no such socket, warn, and go on without.

    Args:
        folder: of an archive that is locked: a socket that is there is nobody's.
        view: returns what is answered.
    """

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                writer.write(json.dumps(await view()).encode())
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # whoever asked does not wait any more
        finally:
            writer.close()

    with _address(folder) as address:  # until the end, when some versions of asyncio look there
        try:
            server = await asyncio.start_unix_server(answer, sock=_socket(folder, address))
        except (AttributeError, OSError) as error:  # AttributeError where there are no Unix sockets
            _log.warning("aiodicom status will not work: %s", getattr(error, "strerror", None) or error)
            yield
            return
        try:
            yield
        finally:
            server.close()
            with suppress(OSError):
                (folder / SOCKET).unlink()


async def ask(folder: Path) -> View:
    """Return what is answered.

    Raises:
        OSError: nobody listens, or it may not be asked.
        TimeoutError: there is no answer in time.
    """
    async with asyncio.timeout(DEADLINE):
        with _address(folder) as address:
            reader, writer = await asyncio.open_unix_connection(address)
        try:
            view: View = json.loads(await reader.read())
        finally:
            writer.close()
    return view


def _socket(folder: Path, address: str) -> socket.socket:
    with suppress(FileNotFoundError):
        (folder / SOCKET).unlink()
    unix = socket.socket(socket.AF_UNIX)
    try:
        unix.bind(address)
        (folder / SOCKET).chmod(0o600)  # nobody can connect before it listens
    except BaseException:
        unix.close()
        raise
    return unix


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """The address of the socket, by way of a descriptor where that goes: it has room for some 100 bytes alone."""
    if not _DESCRIPTORS.is_dir():
        yield os.fspath(folder / SOCKET)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"{_DESCRIPTORS}/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
