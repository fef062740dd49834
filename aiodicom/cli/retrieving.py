"""Retrievals from one peer, one after the other: what came of each, and what is said of all of them."""

from __future__ import annotations

import asyncio
import logging
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Final, TypeAlias

from aiodicom.cli.advice import HOPELESS, Facts, tell_status, trouble
from aiodicom.cli.console import complain, say, say_list
from aiodicom.cli.exits import ExitCode, exit_code_of
from aiodicom.cli.keeping import Keeper
from aiodicom.cli.progress import shown
from aiodicom.cli.wanted import Wanted
from aiodicom.cli.words import amount, duration, rate, size
from aiodicom.dimse.status import SUCCESS, Category, Status
from aiodicom.errors import AssociationError, DimseError, OperationTimeout
from aiodicom.operation import Operation
from aiodicom.query import Level
from aiodicom.scoped import Instances, Movement, Progress

Scope: TypeAlias = Instances | Movement

_NOUNS: Final[Mapping[Level, tuple[str, str]]] = {
    Level.PATIENT: ("patient", "patients"),
    Level.STUDY: ("study", "studies"),
    Level.SERIES: ("series", "series"),
    Level.IMAGE: ("image", "images"),
}
_log: Final = logging.getLogger("aiodicom.retrieve")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one retrieval.

    Args:
        wanted: what was asked for.
        status: of the final response; None where it was ended before.
        comment: likewise.
        progress: what the peer counted.
        is_counted: whether it counted at all.
        arrived: how many instances came here, where they were to come here.
        failed_uids: those that the peer names.
    """

    wanted: Wanted
    status: Status | None
    comment: str
    progress: Progress
    is_counted: bool
    arrived: int | None
    failed_uids: tuple[str, ...]

    @property
    def is_refused(self) -> bool:
        """Whether the peer did not perform it, or not to its end."""
        return self.status is not None and self.status.category in (Category.FAILURE, Category.CANCEL)

    @property
    def is_empty(self) -> bool:
        """Whether the peer has nothing of the kind."""
        is_known = self.is_counted or self.arrived is not None
        return self.status == SUCCESS and is_known and not (self.progress.total or self.arrived)

    @property
    def missing(self) -> int:
        """How many instances the peer says to have sent that did not come."""
        sent = self.progress.completed + self.progress.warning
        return 0 if self.arrived is None else max(sent - self.arrived, 0)


class Retrieving:
    """Retrieves what is wanted, one after the other, and keeps the account; it is a `Tally` of its progress.

    It ends early where the next one would meet the same trouble.

    Args:
        wanted: what, one or more.
        begin: asks for one of them.
        keeper: keeps what comes; None where it goes elsewhere.

    Attributes:
        results: of what is done, and of what was cut off, in that order.
        remaining: what is not done.
        error: what ended it, if it was the network.
    """

    def __init__(self, wanted: Sequence[Wanted], begin: Callable[[Wanted], Scope], keeper: Keeper | None) -> None:
        self.wanted = wanted
        self.keeper = keeper
        self.results: list[Result] = []
        self.remaining = deque(wanted)
        self.error: AssociationError | OperationTimeout | None = None
        self._begin = begin
        self._scope: Scope | None = None
        self._arrived_before = 0

    async def run(self) -> None:
        """Do it."""
        while self.remaining and not self._is_hopeless:
            self._scope = scope = self._begin(self.remaining[0])
            has_ended = False
            try:
                has_ended = await self._take(scope)
            except (AssociationError, OperationTimeout) as error:
                self.error = error
            finally:
                self.results.append(self._result(scope, has_ended=has_ended))
                self._arrived_before = self._arrived
                self._scope = None
            if not self._is_cut:
                self.remaining.popleft()

    async def _take(self, scope: Scope) -> bool:
        """Take all that comes; return whether that was to its end."""
        async with scope:
            with suppress(DimseError):  # its status says it
                async for each in scope:
                    if isinstance(each, Operation) and self.keeper is not None and not await self.keeper.keep(each):
                        return False
            return True

    @property
    def _is_cut(self) -> bool:
        """Whether the last one was ended by the network, or by the folder."""
        return self.error is not None or (self.keeper is not None and self.keeper.error is not None)

    @property
    def _is_hopeless(self) -> bool:
        """Whether the next one would end as the last one did."""
        return self._is_cut or (bool(self.results) and self.results[-1].status in HOPELESS)

    def _result(self, scope: Scope, *, has_ended: bool) -> Result:
        return Result(
            self.remaining[0],
            scope.status if has_ended else None,  # not that of our own cancelling
            scope.comment,
            scope.progress,
            getattr(scope.response, "number_of_completed_suboperations", None) is not None,
            None if self.keeper is None else self._arrived - self._arrived_before,
            scope.failed_uids,
        )

    # What came of it.

    @property
    def stored(self) -> int:
        """How many instances are where they were to go."""
        return self._performed if self.keeper is None else self.keeper.count

    @property
    def failed(self) -> int:
        """How many are not."""
        counted = sum(result.progress.failed for result in self.results)
        return max(counted, len(self.failures())) + sum(result.missing for result in self.results)

    @property
    def warnings(self) -> int:
        """How many are there with a warning."""
        return sum(result.progress.warning for result in self.results)

    def failures(self) -> dict[str, str]:
        """Return why instances are not where they were to go, by SOP Instance UID; empty where the peer knows."""
        there = {uid: "" for result in self.results for uid in result.failed_uids}
        return there if self.keeper is None else there | self.keeper.failures

    @property
    def _performed(self) -> int:
        """How many the peer counts as sent."""
        return sum(result.progress.completed + result.progress.warning for result in self.results)

    @property
    def _arrived(self) -> int:
        return 0 if self.keeper is None else self.keeper.count + len(self.keeper.failures)

    # What is shown of it meanwhile.

    @property
    def count(self) -> str:
        """How many instances are done, in words; of several retrievals, how many of these."""
        done = self._done + sum(result.progress.total for result in self.results)
        if len(self.wanted) > 1:
            noun = _NOUNS[self.wanted[0].level]
            return f"{len(self.results):,} of {amount(len(self.wanted), *noun)}, {amount(done, 'instance')}"
        if self.total is not None:
            return f"{done:,} of {amount(self.total, 'instance')}"
        return amount(done, "instance") if done else "waiting for the peer"

    @property
    def volume(self) -> str:
        """How many bytes have come, in words."""
        return "" if self.keeper is None else size(self.keeper.volume)

    @property
    def completed(self) -> int:
        """How many instances are done; of several retrievals, how many of these."""
        return self._done if len(self.wanted) == 1 else len(self.results)

    @property
    def total(self) -> int | None:
        """How many there are; None until the peer says so."""
        if len(self.wanted) > 1:
            return len(self.wanted)
        return (self._scope.progress.total or None) if self._scope is not None else None

    @property
    def _done(self) -> int:
        """How many instances of the current retrieval are done."""
        if self._scope is None:
            return 0
        progress = self._scope.progress
        return max(progress.total - (progress.remaining or 0), self._arrived - self._arrived_before)


async def perform(options: Namespace, retrieving: Retrieving, verb: str, where: str, facts: Facts) -> ExitCode:
    """Do it, while its progress is shown; say what came of it, and return what that comes to.

    Args:
        options: of the command line.
        retrieving: what is to be done.
        verb: what has been done, then: "got".
        where: where the instances are, then: "into received".
        facts: what advice is made of.
    """
    if not retrieving.wanted:
        complain("the list names nothing to retrieve")
        return ExitCode.NO_INPUT
    for keyword in {keyword for each in retrieving.wanted for keyword in each.ignored}:
        _log.warning("%s does not choose what is retrieved: find it first, and retrieve what was found", keyword)
    began = perf_counter()
    try:
        async with shown(retrieving, hidden=options.quiet or options.verbose or options.debug):
            await retrieving.run()
    except asyncio.CancelledError:
        _report(options, retrieving, verb, where, perf_counter() - began, facts)
        complain("interrupted: there is more, which can be asked for again")
        raise
    _report(options, retrieving, verb, where, perf_counter() - began, facts)
    return _exit_code(retrieving)


def _report(options: Namespace, retrieving: Retrieving, verb: str, where: str, seconds: float, facts: Facts) -> None:
    """Print what was done, and everything that was not."""
    results, keeper = retrieving.results, retrieving.keeper
    if not options.quiet:
        _say_what_was_done(retrieving, f"{verb} {{}} from {options.peer}", where, seconds)
    say_list("failed", _failures(retrieving, facts))
    say_list("asked for, and not there", [_absent(result.wanted) for result in results if result.is_empty])
    is_list = len(retrieving.wanted) > 1
    for result in results:
        if result.status is not None:
            tell_status(result.status, result.comment, options.peer, facts, str(result.wanted) if is_list else "")
    if is_list and results:
        say_list("not retrieved, and can be asked for again", list(map(str, retrieving.remaining)))
    if missing := sum(result.missing for result in results):
        complain(f"{amount(missing, 'instance')} did not come: does the peer have {facts.aet} with {facts.address}?")
    if keeper is not None and keeper.error is not None:
        complain(f"{keeper.folder}: {keeper.error.strerror}")
    if retrieving.error is not None:
        was_answered = any(result.progress.total or result.arrived for result in results)
        complain(trouble(retrieving.error, facts, was_answered=was_answered))


def _say_what_was_done(retrieving: Retrieving, form: str, where: str, seconds: float) -> None:
    stored = retrieving.stored
    if not stored:
        say(f"{form.format('nothing')} in {duration(seconds)}")
        return
    volume = 0 if retrieving.keeper is None else retrieving.keeper.volume
    what = f"{amount(stored, 'instance')}{f' ({size(volume)})' if volume else ''}"
    say(f"{form.format(what)} {where} in {duration(seconds)}{rate(stored, volume, seconds)}")
    if retrieving.warnings:
        say(f"{retrieving.warnings:,} of these with a warning")


def _failures(retrieving: Retrieving, facts: Facts) -> list[str]:
    """Return a line for each instance that failed, and one for those that nobody names."""
    unknown = "the peer could not send it"
    if facts.service == "get":
        unknown += ", perhaps in no presentation context that it accepted (-v shows them)"
    named = [f"{uid}: {words or unknown}" for uid, words in retrieving.failures().items()]
    unnamed = retrieving.failed - len(named)
    return [*named, f"{amount(unnamed, 'instance')} that the peer does not name"] if unnamed else named


def _absent(wanted: Wanted) -> str:
    return f"{wanted}; its {' and '.join(wanted.lacking)} might help" if wanted.lacking else str(wanted)


def _exit_code(retrieving: Retrieving) -> ExitCode:
    keeper, results = retrieving.keeper, retrieving.results
    if keeper is not None and keeper.error is not None:
        return ExitCode.CANNOT_USE_FOLDER
    if retrieving.remaining and retrieving.stored:
        return ExitCode.PARTIAL
    if retrieving.error is not None:
        return exit_code_of(retrieving.error)
    if retrieving.failed or any(result.is_refused or result.is_empty for result in results):
        return ExitCode.FAILURES
    has_warning = any(result.status is not None and result.status.category is Category.WARNING for result in results)
    return ExitCode.WARNINGS if has_warning or retrieving.warnings else ExitCode.OK
