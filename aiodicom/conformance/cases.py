"""The table of all cases, in the order in which they run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from aiodicom.conformance import admission, asking, dimse, security, states, storing, upper_layer, waiting
from aiodicom.conformance.case import Case, unseen

_UNSEEN: Final = (
    Case("T42", "a handler that fails", "PS3.7 Annex C", unseen("it is the acceptor's handler")),
    Case("T43", "a hostile acceptor", "PS3.7 §9.3", unseen("it is about requestors")),
    Case("T44", "a collector of audit messages that is down", "PS3.15 §A.5", unseen("it is the acceptor's collector")),
)

CASES: Final[tuple[Case, ...]] = (
    *upper_layer.CASES,
    *states.CASES,
    *admission.CASES,
    *security.CASES,
    *dimse.CASES,
    *storing.CASES,
    *asking.CASES,
    *_UNSEEN,
    *waiting.CASES,
    *admission.LAST_CASES,
)
"""Every case, by an ID of its own."""


def chosen(only: Collection[str]) -> tuple[Case, ...]:
    """Return the cases of these IDs: `T05` is all of its variants, `T05/short` one of them.

    Args:
        only: IDs; none is all cases.

    Raises:
        LookupError: an ID is that of no case; it is the message.
    """
    for name in only:
        if not any(_is_called(case, name) for case in CASES):
            raise LookupError(name)
    return tuple(case for case in CASES if not only or any(_is_called(case, name) for name in only))


def _is_called(case: Case, name: str) -> bool:
    return name.lower() in (case.id.lower(), case.id.partition("/")[0].lower())
