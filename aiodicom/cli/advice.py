"""What helps where a peer refuses a query or a retrieval: in words for whoever sits at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiodicom.cli.words import status_words, with_uid_names
from aiodicom.dimse.status import NOT_AUTHORIZED, SOP_CLASS_NOT_SUPPORTED, Status
from aiodicom.errors import AssociationAborted, DicomNetworkError, NoAcceptedContext

_DESTINATION_UNKNOWN: Final = 0xA801
_UNABLE_TO_PERFORM: Final = 0xA702
_DOES_NOT_MATCH: Final = 0xA900

HOPELESS: Final = frozenset({_DESTINATION_UNKNOWN, NOT_AUTHORIZED, SOP_CLASS_NOT_SUPPORTED})
"""Statuses that the next request of the kind would be answered with, too."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What advice is made of.

    Args:
        aet: our AE title.
        instead: what may do where the peer does not accept the SOP class.
        destination: the AE title that a C-MOVE goes to; empty where there is none.
        address: where that is, in words.
    """

    aet: str
    instead: str
    destination: str = ""
    address: str = ""


_ADVICE: Final[Mapping[int, Callable[[Facts], str]]] = {
    NOT_AUTHORIZED: lambda facts: (
        f"it does not let {facts.aet} do that: take an AE title that may, by -aet, or allow it there "
        "(aiodicom serve prints the lines that do so)"
    ),
    _DESTINATION_UNKNOWN: lambda facts: (
        f"it does not know {facts.destination}: add that there, with {facts.address}"
    ),
    _UNABLE_TO_PERFORM: lambda facts: (
        f"does it have {facts.destination} with {facts.address}?" if facts.destination else ""
    ),
    _DOES_NOT_MATCH: lambda _: "name the UIDs of the levels above as well, or choose another model by -P or -S",
}


def refusal(status: Status, comment: str, facts: Facts) -> str:
    """Return what the final response of an operation says, and what helps."""
    advice = _ADVICE[status](facts) if status in _ADVICE else ""
    return "; ".join(filter(None, (status_words(status, comment), advice)))


def trouble(error: DicomNetworkError, facts: Facts, *, was_answered: bool) -> str:
    """Return what an error says that ended an operation, and what helps.

    Args:
        error: the error.
        facts: what advice is made of.
        was_answered: whether the peer has answered the operation, if not to its end.
    """
    words, advice = with_uid_names(str(error)), ""
    if isinstance(error, AssociationAborted) and error.by_peer and not was_answered:
        advice = (
            f"perhaps the peer does not know {facts.aet}, by which we call: give the AE title that it knows by -aet, "
            f"or add {facts.aet} there"
        )
    elif isinstance(error, NoAcceptedContext):
        advice = facts.instead
    return "; ".join(filter(None, (words, advice)))
