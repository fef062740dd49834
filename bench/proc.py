"""What Linux tells of a process in /proc: its processor time, its memory, its children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_KILOBYTE: Final = 1024
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_TIMES: Final = slice(11, 15)  # in /proc/PID/stat behind the name: utime, stime, and those of children that have ended


def reset_peak(pid: int | None = None) -> int:
    """Forget the peak of the memory of a process, by default our own; return what it has now, in bytes."""
    folder = _folder(pid)
    (folder / "clear_refs").write_text("5")
    return _bytes(folder / "status", "VmRSS")


def peak(pid: int | None = None) -> int:
    """Return the most memory that a process has had since `reset_peak`, in bytes."""
    return _bytes(_folder(pid) / "status", "VmHWM")


def memory(pid: int) -> int:
    """Return the memory of a process and all its descendants, of what they share each its part, in bytes."""
    total = 0
    for each in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            total += _bytes(_folder(each) / "smaps_rollup", "Pss")
    return total


def cpu_time(pid: int) -> float:
    """Return the processor time of a process and all its descendants, in seconds."""
    ticks = 0
    for each in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            behind_name = (_folder(each) / "stat").read_text().rpartition(")")[2]
            ticks += sum(map(int, behind_name.split()[_TIMES]))
    return ticks * _TICK


def family(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in (_folder(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def _folder(pid: int | None) -> Path:
    return Path("/proc", "self" if pid is None else str(pid))


def _bytes(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * _KILOBYTE
    return 0
