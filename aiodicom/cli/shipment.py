"""Many files to one peer: over as many associations as they need, and what came of each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aiodicom.association import Association
from aiodicom.cli.exits import ExitCode, exit_code_of
from aiodicom.cli.words import amount, size
from aiodicom.client import AssociationRequest
from aiodicom.dimse.commands import CStoreRSP
from aiodicom.dimse.status import Category
from aiodicom.errors import DicomNetworkError, InvalidInstance, NoAcceptedContext
from aiodicom.part10 import InstanceFile
from aiodicom.planning import Plan
from aiodicom.upper_layer.presentation import ProposedContext


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one file: the peer's response, or why it was not sent.

    Args:
        file: which one.
        response: of the peer.
        error: what kept it from being sent; there is one of the two.
    """

    file: InstanceFile
    response: CStoreRSP | None = None
    error: InvalidInstance | NoAcceptedContext | None = None

    @property
    def category(self) -> Category:
        """SUCCESS, WARNING or FAILURE: what is neither of the first two is the third."""
        category = self.response.status.category if self.response is not None else Category.FAILURE
        return category if category in (Category.SUCCESS, Category.WARNING) else Category.FAILURE

    @property
    def exit_code(self) -> ExitCode:
        """What the command would end with, were it the only one."""
        if self.error is not None:
            return exit_code_of(self.error)
        match self.category:
            case Category.SUCCESS:
                return ExitCode.OK
            case Category.WARNING:
                return ExitCode.WARNINGS
            case _:
                return ExitCode.FAILURES


@dataclass(slots=True)
class Tally:
    """How far a shipment is.

    Attributes:
        files: how many there are; None until that is known.
        size: bytes in all of them.
        done: how many files are dealt with.
        bytes_done: on associations that are over.
        associations: those that are open.
    """

    files: int | None = None
    size: int = 0
    done: int = 0
    bytes_done: int = 0
    associations: tuple[Association, ...] = ()

    @property
    def bytes_sent(self) -> int:
        """How many bytes have gone out; never more than the files have, though messages have more."""
        return min(self.bytes_done + sum(each.bytes_sent for each in self.associations), self.size)

    # What is shown of it.

    @property
    def count(self) -> str:
        """How many files are dealt with, in words."""
        return "looking at the files" if self.files is None else f"{self.done:,} of {amount(self.files, 'file')}"

    @property
    def volume(self) -> str:
        """How many bytes have gone out, in words."""
        return "" if self.files is None else f"{size(self.bytes_sent)} of {size(self.size)}"

    @property
    def completed(self) -> int:
        """How many bytes have gone out."""
        return self.bytes_sent

    @property
    def total(self) -> int | None:
        """How many bytes there are."""
        return None if self.files is None else self.size


class Shipment:
    """Sends files, and keeps the account.

    Args:
        request: asks for an association with those contexts.
        associations: how many to have at a time.
        in_flight: how many instances may be on their way on each, if the peer agrees.
        decompress: whether pixel data may be decompressed.
        observe: told of each outcome.

    Attributes:
        outcomes: of the files dealt with, in that order.
        remaining: the files not dealt with.
        error: what ended an association before its files were sent.
    """

    def __init__(
        self,
        request: Callable[[Sequence[ProposedContext]], AssociationRequest],
        *,
        associations: int,
        in_flight: int,
        decompress: bool,
        observe: Callable[[Outcome], None],
    ) -> None:
        self.tally = Tally()
        self.outcomes: list[Outcome] = []
        self.error: DicomNetworkError | None = None
        self.remaining: deque[InstanceFile] = deque()
        self._request = request
        self._associations = associations
        self._in_flight = in_flight
        self._decompress = decompress
        self._observe = observe

    async def send(self, plans: Iterable[Plan[InstanceFile]]) -> None:
        """Send the files of each plan in turn; stop where none of its associations came to the end of them."""
        left = list(plans)
        files = [file for plan in left for file in plan.files]
        self.tally.files, self.tally.size = len(files), sum(file.size for file in files)
        try:
            while left and not self.remaining:
                plan = left.pop(0)
                self.remaining.extend(plan.files)
                count = min(self._associations, len(plan.files))
                await asyncio.gather(*(self._associate(plan.contexts) for _ in range(count)))
        finally:
            order = {id(file): index for index, file in enumerate(files)}  # those that were put back lost theirs
            left_over = (*self.remaining, *(file for plan in left for file in plan.files))
            self.remaining = deque(sorted(left_over, key=lambda file: order[id(file)]))

    async def _associate(self, contexts: Sequence[ProposedContext]) -> None:
        association: Association | None = None
        try:
            async with self._request(contexts) as association:
                self.tally.associations += (association,)
                # One file more than may be on its way, so that the next one is read meanwhile.
                count = min(self._in_flight, association.terms.maximum_invoked or self._in_flight) + 1
                for error in await asyncio.gather(*(self._work(association) for _ in range(count))):
                    if error is not None:
                        raise error
        except DicomNetworkError as error:
            self.error = self.error or error
        finally:
            if association is not None:
                self.tally.bytes_done += association.bytes_sent
                self.tally.associations = tuple(each for each in self.tally.associations if each is not association)

    async def _work(self, association: Association) -> DicomNetworkError | None:
        """Send file after file; return what ended the association, if it ended."""
        while self.remaining:
            file = self.remaining.popleft()
            try:
                outcome = Outcome(file, response=await association.c_store(file, decompress=self._decompress))
            except (InvalidInstance, NoAcceptedContext) as error:
                outcome = Outcome(file, error=error)
            except DicomNetworkError as error:
                self.remaining.appendleft(file)
                return error
            except asyncio.CancelledError:
                self.remaining.appendleft(file)
                raise
            self.outcomes.append(outcome)
            self.tally.done += 1
            self._observe(outcome)
        return None
