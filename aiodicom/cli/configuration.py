"""Where the command line finds its nodes: `--config FILE`, `./aiodicom.toml`, or that of the user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from aiodicom.errors import LocalProtocolError
from aiodicom.nodes import Node, read_audit, read_credentials, read_limits, read_nodes, read_unknown
from aiodicom.tls import Credentials

FILE_NAME: Final = "aiodicom.toml"
T = TypeVar("T")


def user_file() -> Path:
    """Return the user's file, as the XDG Base Directory Specification has it; it need not be there."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "aiodicom" / FILE_NAME


def configuration_file(named: Path | None) -> Path | None:
    """Return the file that is named, or else the first that is there; None where there is none."""
    if named is not None:
        return named
    return next((path for path in (Path(FILE_NAME), user_file()) if path.is_file()), None)


def known_nodes(named: Path | None) -> dict[str, Node]:
    """Return the nodes by name; none where there is no file.

    Raises:
        LocalProtocolError: the file is wrong, or cannot be read.
    """
    return _read(named, read_nodes) or {}


def known_limits(named: Path | None) -> dict[str, Any]:
    """Return the limits that the configuration sets, by the names of the fields of `Limits`; none where there is no file.

    Raises:
        LocalProtocolError: the file is wrong, or cannot be read.
    """
    return _read(named, read_limits) or {}


def known_credentials(named: Path | None) -> Credentials:
    """Return what the file has in its table `[tls]`; where there is none, those of nobody.

    Raises:
        LocalProtocolError: the file is wrong, or cannot be read.
    """
    return _read(named, read_credentials) or Credentials()


def known_audit(named: Path | None) -> dict[str, Any]:
    """Return what the file says of the audit trail, in its table `[audit]`; nothing where there is none.

    Raises:
        LocalProtocolError: the file is wrong, or cannot be read.
    """
    return _read(named, read_audit) or {}


def known_unknown(named: Path | None) -> frozenset[str] | None:
    """Return what everybody may who is no node; None where the file does not say, or there is none.

    Raises:
        LocalProtocolError: the file is wrong, or cannot be read.
    """
    return _read(named, read_unknown)


def _read(named: Path | None, read: Callable[[Path], T]) -> T | None:
    path = configuration_file(named)
    if path is None:
        return None
    try:
        return read(path)
    except OSError as error:
        raise LocalProtocolError(f"{path}: cannot be read: {error.strerror}") from None


class KnownNodes:
    """The nodes by name, and what everybody else may, read again where the file has changed.

    Args:
        named: the file that is named, if one is.

    Raises:
        LocalProtocolError: when it is called: the file is wrong, or cannot be read.
    """

    def __init__(self, named: Path | None) -> None:
        self._named = named
        self._seen: tuple[Path, int, int] | bool | None = False  # nothing yet
        self._nodes: dict[str, Node] = {}
        self.unknown_may: frozenset[str] | None = None
        """What everybody else may, as of the last call; None where the file does not say."""

    def __call__(self) -> dict[str, Node]:
        """Return them."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen  # a file that is wrong is told of once
            nodes, unknown_may = known_nodes(self._named), known_unknown(self._named)
            self._nodes, self.unknown_may = nodes, unknown_may
        return self._nodes

    def _look(self) -> tuple[Path, int, int] | None:
        path = configuration_file(self._named)
        try:
            found = None if path is None else os.stat(path)  # noqa: PTH116 - for each operation, and so in haste
        except OSError:  # `known_nodes` says what is wrong
            return None
        return None if path is None or found is None else (path, found.st_mtime_ns, found.st_size)
