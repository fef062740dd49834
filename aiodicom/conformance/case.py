"""What a case of the suite is, what it may come to, and how it says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from aiodicom.conformance.target import Target


class Verdict(Enum):
    """What a case came to."""

    PASS = "pass"  # noqa: S105 - no password
    DIFFERS = "differs"
    NOT_APPLICABLE = "not applicable"


class Differs(Exception):
    """The acceptor did something else.

    Args:
        expected: what it should have done, in words.
        got: what it did.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.expected = expected
        self.got = got


class NotApplicable(Exception):
    """The case says nothing about this acceptor; the message says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the suite.

    Args:
        id: what it is called: a threat, and which variant of it, as `T05/short`.
        title: what happens to the acceptor.
        section: of the Standard.
        run: does it, and raises `Differs` or `NotApplicable`.
        needs: what it needs of the acceptor, see `needs.NEEDS`.
        is_slow: whether it waits for a time limit of the acceptor; such cases run side by side.
        memory: how much the acceptor's memory may grow, in bytes, where that can be seen; None does not look.
        is_last: whether the acceptor is gone after it.
    """

    id: str
    title: str
    section: str
    run: Callable[[Target], Awaitable[None]]
    needs: tuple[str, ...] = ()
    is_slow: bool = False
    memory: int | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a case came to.

    Args:
        case: which.
        verdict: likewise.
        expected: what should have happened, where it differs.
        got: what happened instead; or why the case does not apply.
        probe: the longest that another peer waited for a C-ECHO meanwhile, in seconds; None where none was asked.
    """

    case: Case
    verdict: Verdict
    expected: str = ""
    got: str = ""
    probe: float | None = None


def expect(got: str, *expected: str) -> None:
    """Compare what an acceptor did with what it may do, both in words.

    Raises:
        Differs: it is none of them.
    """
    if got not in expected:
        raise Differs(" or ".join(expected), got)


def unseen(why: str) -> Callable[[Target], Awaitable[None]]:
    """Return what runs a case that cannot be seen from outside."""

    async def run(_target: Target) -> NoReturn:
        raise NotApplicable(why)

    return run
