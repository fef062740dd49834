"""A file that is there whole, or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # the last is Windows'


class PartialFile:
    """A file that gets its name when it is complete; its methods block, and belong in a worker thread.

    It works on plain strings and a bare descriptor: for a small object everything else costs more than the writing.

    Args:
        folder: where it is; made if need be.
        name: below the folder; or a function that makes it of the complete temporary file.
        mode: who may read and write it, further narrowed by the umask.
    """

    def __init__(self, folder: str, name: str | Callable[[Path], str], mode: int = 0o666) -> None:
        self._mode = mode
        self._folder = folder
        self._name = name
        self.path = os.path.join(folder, f".{uuid4().hex}.part")  # noqa: PTH118
        """Its temporary name."""
        self._descriptor: int | None = None
        self.is_there = False
        """Whether there is a temporary file."""

    def write(self, chunks: list[bytes]) -> None:
        """Write what comes next; the first time, there is a file from then on."""
        if self._descriptor is None:
            self._descriptor = self._create()
            self.is_there = True
        for chunk in chunks:
            if os.write(self._descriptor, chunk) < len(chunk):
                raise OSError(errno.ENOSPC, "the file system took only a part")

    def finish(self, chunks: list[bytes], *, sync: bool = False) -> None:
        """Write the last of it, and leave it under its temporary name; with `sync`, on the disk."""
        self.write(chunks)
        if sync and self._descriptor is not None:
            os.fsync(self._descriptor)
        self._close()

    def complete(self, chunks: list[bytes]) -> Path:
        """Write the last of it, and give it its name."""
        self.finish(chunks)
        name = self._name(Path(self.path)) if callable(self._name) else self._name
        final = os.path.join(self._folder, name)  # noqa: PTH118
        try:
            os.replace(self.path, final)  # noqa: PTH105
        except FileNotFoundError:
            Path(final).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.path, final)  # noqa: PTH105
        self.is_there = False
        return Path(final)

    def remove(self) -> None:
        """Let there be no file, unless it has its name."""
        self._close()
        Path(self.path).unlink(missing_ok=True)
        self.is_there = False

    def _create(self) -> int:
        try:
            return os.open(self.path, _CREATE, self._mode)
        except FileNotFoundError:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            return os.open(self.path, _CREATE, self._mode)

    def _close(self) -> None:
        # Forgotten first: were it closed twice, the number might be another file's by then.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
