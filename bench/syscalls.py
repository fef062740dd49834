"""What a program asks of the system about its files, as strace saw it, in order, with every byte."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import BenchError

CALLS: Final = (
    *(
        "openat",
        "write",
        "writev",
        "pwrite64",
        "ftruncate",
        "fsync",
        "fdatasync",
        "link",
        "linkat",
        "rename",
        "renameat",
    ),
    *("renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "sync", "sendto", "sendmsg"),
)
"""What is traced: all that changes files or syncs them, and what goes to peers."""

_LONGEST: Final = 64 * 1024 * 1024  # bytes of a write that strace shows
_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)")
_UNFINISHED: Final = " <unfinished ...>"
_RESULT: Final = re.compile(r"\) += (-?\d+|\?)")
_SYNCS: Final = ("fsync", "fdatasync", "sync")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FOLDER_OR_FILE: Final = re.compile(r"(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)>")
_NUMBER: Final = re.compile(r", (\d+)\)?$")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that succeeded.

    Args:
        name: which.
        begun: its place among all that begins and ends, in order.
        ended: likewise.
        where: the file, folder or socket of its descriptor, or ''.
        texts: the strings among its arguments: paths, or what it wrote.
        arguments: all of them, as strace wrote them.
    """

    name: str
    begun: int
    ended: int
    where: str
    texts: tuple[bytes, ...]
    arguments: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths among its arguments, absolute."""
        return tuple(os.path.join(self.where, os.fsdecode(text)) for text in self.texts)  # noqa: PTH118

    @property
    def data(self) -> bytes:
        """What it wrote."""
        return b"".join(self.texts)

    @property
    def last_number(self) -> int:
        """The last of its arguments: an offset, or a length."""
        found = _NUMBER.search(self.arguments)
        assert found is not None
        return int(found[1])


def tracing(command: Sequence[str], log: Path) -> list[str]:
    """Return the command that runs another one under strace.

    Raises:
        BenchError: there is no strace.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise BenchError("strace is not installed; it is the Debian package of that name")
    options = ("-f", "-y", "-xx", f"-s{_LONGEST}", f"-etrace={','.join(CALLS)}", "--seccomp-bpf", f"-o{log}")
    return [strace, *options, "--", *command]


def read(logs: Iterable[Path]) -> list[list[Call]]:
    """Read what strace wrote, the logs of programs that ran one after the other; return the calls of each as they began."""
    runs = []
    first = 0
    for log in logs:
        lines = log.read_text(encoding="ascii").splitlines()
        runs.append(sorted(_calls(lines, first), key=lambda call: call.begun))
        first += len(lines)
    return runs


def _calls(lines: Sequence[str], first: int) -> Iterator[Call]:
    under_way: dict[str, tuple[int, str, str]] = {}  # by thread
    for at, line in enumerate(lines, first):
        found = _LINE.match(line)
        if found is None:  # a signal, or an end
            continue
        thread, name, how, rest = found.groups()
        begun = at
        if how != "(":
            begun, _, beginning = under_way.pop(thread)
            rest = beginning + rest
        if rest.endswith(_UNFINISHED):
            under_way[thread] = begun, name, rest.removesuffix(_UNFINISHED)
            continue
        result = _RESULT.search(rest)
        assert result is not None
        if result[1] == "?":
            under_way[thread] = begun, name, rest[: result.start() + 1]
        elif int(result[1]) >= 0:
            yield _call(name, begun, at, rest[: result.start() + 1])
    for begun, name, arguments in under_way.values():
        if name not in _SYNCS:  # it was killed, and its last call done all the same
            yield _call(name, begun, first + len(lines), arguments)


def _call(name: str, begun: int, ended: int, arguments: str) -> Call:
    where = _FOLDER_OR_FILE.match(arguments)
    texts = tuple(map(_bytes, _TEXT.findall(arguments)))
    return Call(name, begun, ended, os.fsdecode(_bytes(where[1])) if where else "", texts, _TEXT.sub('""', arguments))


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))
