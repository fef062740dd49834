"""What happens on associations, as log records of the standard library: loggers `aiodicom.association`, `.dimse`, `.rights`.

No data set, no identity, no Error Comment and no message of a handler's exception is ever logged, at any level: they may
hold patient data or secrets. UIDs of instances stand in records of DEBUG, and in those about an instance that was refused or
lost; nobody is found by them who cannot ask the archive. What a peer says of itself is escaped: no record has a control
character of a peer's in its words or its fields, and no peer can begin a line.

Records have fields, as `extra` sets them, for whoever searches or counts: `FIELDS`. `JSONFormatter` writes them.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import PurePath
from time import monotonic
from traceback import extract_tb
from typing import Final

from aiodicom.association import Association, Observer
from aiodicom.dimse.commands import Command, Response
from aiodicom.dimse.status import Category
from aiodicom.errors import AssociationError, AssociationRejected, AssociationReleased, DicomNetworkError
from aiodicom.operation import Operation
from aiodicom.terms import Peer

__all__ = [
    "FIELDS",
    "JSONFormatter",
    "LineFormatter",
    "LoggingObserver",
    "about",
    "described",
    "operation_name",
    "printable",
]

QUIET: Final = 60.0
"""After so many seconds without one, a connection that is turned away is worth a warning again."""

FIELDS: Final[Mapping[str, str]] = {
    "association": "which association: the same word in all records about it, and in no others",
    "calling_ae_title": "the AE title of who asked for the association",
    "called_ae_title": "the AE title that was asked for",
    "host": "the address of the peer",
    "port": "its port",
    "certificate": "whose certificate it showed by TLS, and its fingerprint; no more of it",
    "operation": "the command, by the Standard's name: C-STORE, C-FIND, …",
    "direction": "whether the message was sent or received",
    "message_id": "which operation of its association",
    "status": "the status code of a response: 0xA700",
    "sop_class_uid": "of the command",
    "sop_instance_uid": "of the command; in records of DEBUG, and about an instance that was refused or lost",
    "error": "the kind of error that ended an association, an operation, or what led up to it",
}
"""The fields of a record, each there where it is known; a field of that name means nothing else in any record of ours."""

_association_log: Final = logging.getLogger("aiodicom.association")
logging.getLogger("aiodicom").addHandler(logging.NullHandler())  # unless asked for, nothing is printed
_dimse_log: Final = logging.getLogger("aiodicom.dimse")
_rights_log: Final = logging.getLogger("aiodicom.rights")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}  # what every record has


class LoggingObserver(Observer):
    """Logs associations at INFO and WARNING, failures of handlers at ERROR, every message at DEBUG."""

    _turned_away = -math.inf  # when a connection was, the last time

    def association_opened(self, association: Association) -> None:
        """INFO: who, and with how many contexts."""
        _association_log.info(
            "association with %s established, %d contexts accepted",
            association.peer,
            len(association.contexts),
            extra=about(association),
        )

    def association_closed(self, association: Association, error: AssociationError) -> None:
        """INFO for a release, WARNING for anything else."""
        level = logging.INFO if isinstance(error, AssociationReleased) else logging.WARNING
        words = association.peer, printable(str(error))
        _association_log.log(level, "association with %s: %s", *words, extra=about(association, error=error))

    def association_refused(self, peer: Peer | None, error: Exception) -> None:
        """WARNING: who, and why; where a rule of ours rejected it, by the logger `aiodicom.rights`, in lines to copy."""
        is_ruled = isinstance(error, AssociationRejected) and error.rule
        log, why = (_rights_log, str(error)) if is_ruled else (_association_log, _why(error))
        log.warning("no association with %s: %s", peer or "an unknown peer", why, extra=about(peer=peer, error=error))

    def connection_turned_away(self, address: str) -> None:
        """WARNING the first time; DEBUG for the next ones, until none was for `QUIET` seconds: who floods us fills no log."""
        now = monotonic()
        level = logging.WARNING if now - self._turned_away > QUIET else logging.DEBUG
        self._turned_away = now
        words = (
            "a connection from %s was closed, since there are too many: see maximum_connections in examples/limits.md"
        )
        _association_log.log(level, words, address or "an unknown address")

    def message_sent(self, association: Association, command: Command) -> None:
        """DEBUG; a response of failure at WARNING."""
        is_failure = isinstance(command, Response) and command.status and command.status.category is Category.FAILURE
        self._message(logging.WARNING if is_failure else logging.DEBUG, "to", association, command)

    def message_received(self, association: Association, command: Command) -> None:
        """DEBUG."""
        self._message(logging.DEBUG, "from", association, command)

    def _message(self, level: int, preposition: str, association: Association, command: Command) -> None:
        if _dimse_log.isEnabledFor(level):
            fields = about(association, command=command)
            fields["direction"] = "sent" if preposition == "to" else "received"
            _dimse_log.log(level, "%s %s: %r", preposition, association.peer, command, extra=fields)

    def operation_failed(self, association: Association, operation: Operation, error: Exception) -> None:
        """ERROR: what kind of exception, and where it was raised."""
        fields = about(association, command=operation.command, error=error)
        _dimse_log.error("%r of %s failed: %s", operation, association.peer, described(error), extra=fields)


def about(
    association: Association | None = None,
    *,
    peer: Peer | None = None,
    command: Command | None = None,
    error: Exception | None = None,
) -> dict[str, object]:
    """Return the fields of a record, as `extra` takes them.

    Args:
        association: which it is about, with its peer.
        peer: who it is about, where there is no association.
        command: which message.
        error: what went wrong; of it no more than its kind.
    """
    fields: dict[str, object] = {}
    if association is not None:
        fields["association"], peer = association.name, association.peer
    if peer is not None:
        fields["calling_ae_title"] = printable(peer.calling_ae_title)
        fields["called_ae_title"] = printable(peer.called_ae_title)
        if peer.address is not None:
            fields["host"], fields["port"] = peer.address
        if peer.certificate is not None:
            fields["certificate"] = str(peer.certificate)
    if command is not None:
        fields["operation"] = operation_name(command)
        for name, of_command in _OF_COMMANDS.items():
            for each in of_command:
                if (value := getattr(command, each, None)) is not None:
                    fields[name] = printable(value) if isinstance(value, str) else value
    if "status" in fields:
        fields["status"] = f"0x{fields['status']:04X}"
    if error is not None:
        fields["error"] = type(error).__name__
    return fields


# What is told of a command, and what the Standard calls it there.
_OF_COMMANDS: Final = {
    "message_id": ("message_id", "message_id_being_responded_to"),
    "status": ("status",),
    "sop_class_uid": ("affected_sop_class_uid", "requested_sop_class_uid"),
    "sop_instance_uid": ("affected_sop_instance_uid", "requested_sop_instance_uid"),
}


def operation_name(command: Command) -> str:
    """Return the Standard's name of an operation, by its request or its response: "C-STORE", "N-EVENT-REPORT"."""
    return _in_the_standard(type(command).__name__)


@cache
def _in_the_standard(name: str) -> str:
    return re.sub("(?<=.)(?=[A-Z])", "-", re.sub("R(Q|SP)$", "", name)).upper()


def printable(text: str) -> str:
    """Return text of a peer with its control characters escaped, so that none reaches a terminal or ends a line."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _why(error: Exception) -> str:
    """Return why there is no association; of what a handler raised that was not meant for it no more than its kind."""
    return printable(str(error)) if isinstance(error, DicomNetworkError) else described(error)


def described(error: Exception) -> str:
    """Return what kind of exception it is, and where it was raised: what it says may hold patient data."""
    frames = extract_tb(error.__traceback__)
    where = ", ".join(f"{PurePath(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames[-3:])
    what = f"{type(error).__name__} ({error.strerror})" if isinstance(error, OSError) else type(error).__name__
    return f"{what} at {where}"


class LineFormatter(logging.Formatter):
    """Writes a record as text, from warnings on with its level first; further lines are indented, if they are not.

    Whatever is in it, no line but the first begins where the lines of the log do, and no control character is left.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        first, *rest = map(printable, super().format(record).split("\n"))
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return "\n".join((level + first, *(f"  {line}" if line[:1].strip() else line for line in rest)))


class JSONFormatter(logging.Formatter):
    """Writes a record as an object of JSON in one line, in ASCII: time in UTC, level, logger, message, and its fields.

    Of an exception it says the kind and the place: its message, and a traceback that ends in it, may hold patient data.

    Args:
        fields: further ones that every record has.
    """

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info and isinstance(record.exc_info[1], Exception):
            line["exception"] = described(record.exc_info[1])
        return json.dumps(line, default=str)
