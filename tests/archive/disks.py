"""Disks that are full: a small file system, or, where none may be mounted, the same errors at the same calls."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A folder that takes so many bytes and no more."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", Quota(folder, size).write)
            yield folder


class Quota:
    """Writes by `os.write` while there is room below a folder; SQLite has a limit of its own."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._write = os.write

    def write(self, descriptor: int, data: bytes) -> int:
        is_inside = Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(self._folder)
        if is_inside and self._used() + len(data) > self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(descriptor, data)

    def _used(self) -> int:
        inodes = {}
        for path in self._folder.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            inodes[status.st_ino] = status.st_blocks * 512
        return sum(inodes.values())
