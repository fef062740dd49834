"""Where the command line finds its nodes: `--config FILE`, `./aiodicom.toml`, or that of the user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from aiodicom.errors import LocalProtocolError
from aiodicom.nodes import Node, read_nodes

FILE_NAME: Final = "aiodicom.toml"


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
    path = configuration_file(named)
    if path is None:
        return {}
    try:
        return read_nodes(path)
    except OSError as error:
        raise LocalProtocolError(f"{path}: cannot be read: {error.strerror}") from None
