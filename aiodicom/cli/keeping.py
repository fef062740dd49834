"""Instances kept as files below a folder, under names of the user's choice: `-od` and `--name`."""

from __future__ import annotations

import errno
import logging
import os
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import Final

from aiodicom.cli.console import complain
from aiodicom.cli.options import Parser
from aiodicom.cli.words import size, status_words
from aiodicom.dimse.status import Status
from aiodicom.errors import DimseError, LocalProtocolError
from aiodicom.operation import Operation
from aiodicom.services.naming import DEFAULT_TEMPLATE, NameTemplate
from aiodicom.uids import uid_name

DEFAULT_FOLDER: Final = Path("received")
NOTES: Final = """\
TEMPLATE is a path below DIR, such as {PatientID}/{Modality}/{InstanceNumber:04}.dcm. A file is
whole or not there; an instance that comes again replaces its file, another one of that name gets
a number."""

# What the next file would meet, too.
_LASTING: Final = frozenset({errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS})
_log: Final = logging.getLogger("aiodicom.get")


def add_keeping(parser: Parser) -> None:
    """Add `-od` and `--name`."""
    parser.add_argument(
        "-od",
        "--output-directory",
        dest="folder",
        metavar="DIR",
        type=Path,
        default=DEFAULT_FOLDER,
        help="where files go (./%(default)s)",
    )
    parser.add_argument(
        "--name",
        metavar="TEMPLATE",
        type=_template,
        default=DEFAULT_TEMPLATE,
        help="how they are named (STUDY/SERIES/INSTANCE.dcm, by UIDs)",
    )


def _template(text: str) -> NameTemplate:
    try:
        return NameTemplate(text)
    except LocalProtocolError as error:
        raise ArgumentTypeError(str(error)) from None


def keeper_of(options: Namespace) -> Keeper | None:
    """Return who keeps what comes as the options say; complain, and return None, where that cannot be."""
    if reason := _why_unusable(options.folder):
        complain(f"cannot keep files in {options.folder}: {reason}")
        return None
    return Keeper(options.folder, options.name)


def _why_unusable(folder: Path) -> str:
    """Return why no files can be kept in a folder, which need not be there yet; empty where they can."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else "no permission to write there"


class Keeper:
    """Keeps instances, and the account of them.

    Args:
        folder: where; it is made when the first one comes.
        name: names the files.

    Attributes:
        count: how many were kept.
        failures: why others were not, by SOP Instance UID.
        error: what keeps all further ones from being kept.
    """

    def __init__(self, folder: Path, name: NameTemplate) -> None:
        self.folder = folder
        self.count = 0
        self.failures: dict[str, str] = {}
        self.error: OSError | None = None
        self._name = name
        self._volume = 0
        self._arriving: Operation | None = None

    @property
    def volume(self) -> int:
        """How many bytes have come."""
        return self._volume + (self._arriving.data_set.length if self._arriving is not None else 0)

    async def keep(self, operation: Operation) -> bool:
        """Keep an instance; return whether the next one could be kept.

        Raises:
            AssociationError: the association ended before the data set did.
        """
        self._arriving = operation
        try:
            path = await operation.save(self.folder, self._name)
        except DimseError as error:
            self.failures[operation.sop_instance_uid] = status_words(Status(error.status), error.comment)
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _LASTING:
                self.error = error.__cause__
        else:
            self.count += 1
            self._volume += operation.data_set.length
            if _log.isEnabledFor(logging.INFO):
                _log.info("%s, %s: %s", uid_name(operation.sop_class_uid), size(operation.data_set.length), path)
        finally:
            self._arriving = None
        return self.error is None
