"""What helps where a peer refuses."""

from __future__ import annotations

import pytest

from aiodicom.cli.advice import Facts, tell_status, trouble
from aiodicom.dimse.status import Status
from aiodicom.errors import AssociationAborted, DicomNetworkError, NoAcceptedContext, OperationTimeout
from aiodicom.uids import STUDY_ROOT_GET

MOVE = Facts("ME", "move", "WS1", "the address at which it listens")


@pytest.mark.parametrize(
    ("status", "facts", "advice"),
    [
        (0xA700, MOVE, ""),
        (0xA801, MOVE, "it does not know WS1: add that there, with the address at which it listens"),
        (0xA702, MOVE, "does it have WS1 with the address at which it listens?"),
        (0xA702, Facts("ME", "get"), ""),
        (0xC000, Facts("ME", "find"), ""),
        (0xC000, Facts("ME", "get"), "perhaps it has nothing of the kind (aiodicom find tells)"),
        (0xC000, MOVE, "perhaps it has nothing of the kind (aiodicom find tells), does not know WS1, or not with the"),
        (0x0124, MOVE, "take an AE title that may, by -aet, or allow ME there"),
        (0xA900, Facts("ME", "find"), "name the UIDs of the levels above as well, or try --relational, -P or -S"),
    ],
)
def test_statuses(status: int, facts: Facts, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell_status(Status(status), "why\x1b", "PACS@h:1", facts, "SeriesInstanceUID 1.2")
    words, _, told = capsys.readouterr().err.rstrip("\n").partition("; ")
    assert words.startswith(f"error: SeriesInstanceUID 1.2: PACS@h:1 answered 0x{status:04X} Failure, ")
    assert words.endswith(" (why\\x1b)")
    assert told.startswith(advice)
    assert bool(told) == bool(advice)


@pytest.mark.parametrize(
    ("error", "was_answered", "advice"),
    [
        (AssociationAborted(0), False, "perhaps the peer does not know our AE title, ME: "),
        (AssociationAborted(None), False, "perhaps the peer does not know our AE title, ME: "),
        (AssociationAborted(0), True, ""),
        (AssociationAborted(0, by_peer=False), False, ""),
        (OperationTimeout("response", 1), False, ""),
        (NoAcceptedContext(STUDY_ROOT_GET, None), False, "aiodicom move PEER --to self may do instead"),
    ],
)
def test_errors(error: DicomNetworkError, was_answered: bool, advice: str) -> None:
    words = trouble(error, Facts("ME", "get"), was_answered=was_answered)
    assert STUDY_ROOT_GET not in words
    assert (advice in words) if advice else words == str(error)
