"""Exit codes that tell the truth: 0 only where everything was done. The numbers are DCMTK's where it has named one."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final

from aiodicom.errors import (
    ArchiveError,
    AssociationError,
    AssociationRejected,
    ConnectionFailed,
    DicomNetworkError,
    InvalidInstance,
    LocalProtocolError,
    NoAcceptedContext,
    OperationTimeout,
    ProtocolError,
)


class ExitCode(IntEnum):
    """How a command ended, for scripts."""

    OK = 0
    USAGE = 1
    CANNOT_READ_INPUT = 20
    NO_INPUT = 21
    INVALID_INPUT = 22
    NO_VALID_INPUT = 23
    CANNOT_WRITE_OUTPUT = 40
    CANNOT_USE_FOLDER = 45
    NETWORK = 60
    REJECTED = 61
    NO_PRESENTATION_CONTEXT = 66
    WARNINGS = 68
    FAILURES = 69
    ABORTED = 70
    PARTIAL = 75
    INTERRUPTED = 130


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "everything was done",
    ExitCode.USAGE: "the command line, or aiodicom.toml, is wrong",
    ExitCode.CANNOT_READ_INPUT: "a file or folder cannot be read; nothing was done",
    ExitCode.NO_INPUT: "there is nothing to send, or to retrieve",
    ExitCode.INVALID_INPUT: "some files cannot be sent; the others were",
    ExitCode.NO_VALID_INPUT: "none of the files can be sent, or the query file is none",
    ExitCode.CANNOT_WRITE_OUTPUT: "the output cannot be written",
    ExitCode.CANNOT_USE_FOLDER: "the storage folder cannot be used",
    ExitCode.NETWORK: "network: no connection, or no answer in time",
    ExitCode.REJECTED: "the association was rejected",
    ExitCode.NO_PRESENTATION_CONTEXT: "no presentation context was accepted for what was to be sent or asked",
    ExitCode.WARNINGS: "done, with warnings",
    ExitCode.FAILURES: "finished, with failures",
    ExitCode.ABORTED: "the association was aborted or lost, or TLS failed",
    ExitCode.PARTIAL: "cut off midway: what remains can be sent, or retrieved, again",
    ExitCode.INTERRUPTED: "interrupted",
}


def table() -> str:
    """Return the exit codes as `--help` prints them."""
    return "exit codes:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())


def exit_code_of(error: DicomNetworkError) -> ExitCode:
    """Return the exit code that an error is, where it ends a command."""
    match error:
        case OperationTimeout():
            return ExitCode.NETWORK
        case ConnectionFailed():
            return ExitCode.ABORTED if isinstance(error.__cause__, ssl.SSLError) else ExitCode.NETWORK
        case AssociationRejected():
            return ExitCode.REJECTED
        case NoAcceptedContext():
            return ExitCode.NO_PRESENTATION_CONTEXT
        case InvalidInstance():
            return ExitCode.INVALID_INPUT
        case ArchiveError():
            return ExitCode.CANNOT_USE_FOLDER
        case LocalProtocolError():
            return ExitCode.USAGE
        case AssociationError() | ProtocolError():
            return ExitCode.ABORTED
        case _:
            return ExitCode.FAILURES


def combined(codes: Iterable[ExitCode]) -> ExitCode:
    """Return one exit code for several troubles: their own where all are of one kind, else FAILURES; OK for none."""
    kinds = set(codes) - {ExitCode.OK}
    if len(kinds) > 1:
        kinds.discard(ExitCode.WARNINGS)  # there is worse
    return kinds.pop() if len(kinds) == 1 else ExitCode.FAILURES if kinds else ExitCode.OK
