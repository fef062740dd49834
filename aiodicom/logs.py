"""What happens on associations, as log records of the standard library: loggers `aiodicom.association`, `.dimse`, `.pdu`.

No data set, no identity and no message of a handler's exception is ever logged: they may hold patient data.
"""

from __future__ import annotations

import logging
from pathlib import PurePath
from traceback import extract_tb
from typing import Final

from aiodicom.association import Association, Observer
from aiodicom.dimse.commands import Command, Response
from aiodicom.dimse.status import Category
from aiodicom.errors import AssociationError, AssociationReleased
from aiodicom.operation import Operation
from aiodicom.terms import Peer

_association_log: Final = logging.getLogger("aiodicom.association")
logging.getLogger("aiodicom").addHandler(logging.NullHandler())  # unless asked for, nothing is printed
_dimse_log: Final = logging.getLogger("aiodicom.dimse")


class LoggingObserver(Observer):
    """Logs associations at INFO and WARNING, failures of handlers at ERROR, every message at DEBUG."""

    def association_opened(self, association: Association) -> None:
        """INFO: who, and with how many contexts."""
        _association_log.info(
            "association with %s established, %d contexts accepted", association.peer, len(association.contexts)
        )

    def association_closed(self, association: Association, error: AssociationError) -> None:
        """INFO for a release, WARNING for anything else."""
        level = logging.INFO if isinstance(error, AssociationReleased) else logging.WARNING
        _association_log.log(level, "association with %s: %s", association.peer, error)

    def association_refused(self, peer: Peer | None, error: Exception) -> None:
        """WARNING: who, and why."""
        _association_log.warning("no association with %s: %s", peer or "an unknown peer", error)

    def message_sent(self, association: Association, command: Command) -> None:
        """DEBUG; a response of failure at WARNING."""
        if isinstance(command, Response) and command.status and command.status.category is Category.FAILURE:
            _dimse_log.warning("to %s: %r", association.peer, command)
        elif _dimse_log.isEnabledFor(logging.DEBUG):
            _dimse_log.debug("to %s: %r", association.peer, command)

    def message_received(self, association: Association, command: Command) -> None:
        """DEBUG."""
        if _dimse_log.isEnabledFor(logging.DEBUG):
            _dimse_log.debug("from %s: %r", association.peer, command)

    def operation_failed(self, association: Association, operation: Operation, error: Exception) -> None:
        """ERROR: what kind of exception, and where it was raised."""
        _dimse_log.error("%r of %s failed: %s", operation, association.peer, described(error))


def described(error: Exception) -> str:
    """Return what kind of exception it is, and where it was raised: what it says may hold patient data."""
    frames = extract_tb(error.__traceback__)
    where = ", ".join(f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames[-3:])
    what = f"{type(error).__name__} ({error.strerror})" if isinstance(error, OSError) else type(error).__name__
    return f"{what} at {where}"
