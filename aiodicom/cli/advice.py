"""What helps where a peer refuses a query or a retrieval: in words for whoever sits at the terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiodicom.cli.console import complain
from aiodicom.cli.words import status_words, with_uid_names
from aiodicom.dimse.status import NOT_AUTHORIZED, SOP_CLASS_NOT_SUPPORTED, Category, Status
from aiodicom.errors import AssociationAborted, DicomNetworkError, NoAcceptedContext

_DESTINATION_UNKNOWN: Final = 0xA801
_UNABLE_TO_PERFORM: Final = 0xA702
_DOES_NOT_MATCH: Final = 0xA900
_UNABLE_TO_PROCESS: Final = 0xC000

HOPELESS: Final = frozenset({_DESTINATION_UNKNOWN, NOT_AUTHORIZED, SOP_CLASS_NOT_SUPPORTED})
"""Statuses that the next request of the kind would be answered with, too."""

_log: Final = logging.getLogger("aiodicom.response")


@dataclass(frozen=True, slots=True)
class Facts:
    """What advice is made of.

    Args:
        aet: our AE title.
        service: which of "find", "get" and "move" was asked for.
        destination: the AE title that a C-MOVE goes to; empty where there is none.
        address: where that is, in words.
    """

    aet: str
    service: str
    destination: str = ""
    address: str = ""


def _perhaps(facts: Facts) -> str:
    """Return what an Orthanc may mean by that."""
    if facts.service == "find":
        return ""
    nothing = "perhaps it has nothing of the kind (aiodicom find tells)"
    reach = f", does not know {facts.destination}, or not with {facts.address}" if facts.destination else ""
    return nothing + reach


_ADVICE: Final[Mapping[int, Callable[[Facts], str]]] = {
    NOT_AUTHORIZED: lambda facts: (
        f"take an AE title that may, by -aet, or allow {facts.aet} there (aiodicom serve prints the lines for that)"
    ),
    _DESTINATION_UNKNOWN: lambda facts: f"it does not know {facts.destination}: add that there, with {facts.address}",
    _UNABLE_TO_PERFORM: lambda facts: (
        f"does it have {facts.destination} with {facts.address}?" if facts.destination else ""
    ),
    _UNABLE_TO_PROCESS: _perhaps,
    _DOES_NOT_MATCH: lambda _: "name the UIDs of the levels above as well, or try --relational, -P or -S",
}

# Where the peer does not accept the SOP class.
_INSTEAD: Final = {
    "find": "another information model may do: -P, -S or -O",
    "get": "aiodicom move PEER --to self may do instead",
    "move": "aiodicom get may do instead",
}


def tell_status(status: Status, comment: str, peer: object, facts: Facts, of_what: str = "") -> None:
    """Tell what the final response of an operation says, as loudly as it deserves, and what helps.

    Args:
        status: of the response.
        comment: likewise.
        peer: whose response it is.
        facts: what advice is made of.
        of_what: which of several operations it was, if there are several.
    """
    words = f"{peer} answered {status_words(status, comment)}"
    if status.category in (Category.FAILURE, Category.CANCEL):
        advice = _ADVICE[status](facts) if status in _ADVICE else ""
        of_which = f"{of_what}: " if of_what else ""
        complain(of_which + "; ".join(filter(None, (words, advice))))
    else:  # which of them it was may be a patient's ID, and is for no log
        _log.log(logging.WARNING if status.category is Category.WARNING else logging.INFO, "%s", words)


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
            f"perhaps the peer does not know our AE title, {facts.aet}: give the one that it knows by -aet, or add "
            f"{facts.aet} there"
        )
    elif isinstance(error, NoAcceptedContext):
        advice = _INSTEAD[facts.service]
    return "; ".join(filter(None, (words, advice)))
