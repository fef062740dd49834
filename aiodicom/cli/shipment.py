"""Many files to one peer, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiodicom.cli.words import amount, size
from aiodicom.errors import AssociationError, NoAcceptedContext, OperationTimeout
from aiodicom.part10 import InstanceFile
from aiodicom.remote import Delivery, Outcome


class Shipment:
    """Keeps the account of a delivery; it is a `Tally` of its progress.

    Args:
        begin: sends files.
        observe: told of each outcome.

    Attributes:
        outcomes: of the files dealt with, in that order.
        remaining: the files not dealt with.
        error: what kept one of them from that, if it was the network.
    """

    def __init__(self, begin: Callable[[Sequence[InstanceFile]], Delivery], observe: Callable[[Outcome], None]) -> None:
        self.outcomes: list[Outcome] = []
        self.remaining: list[InstanceFile] = []
        self.error: AssociationError | OperationTimeout | None = None
        self._begin = begin
        self._observe = observe
        self._delivery: Delivery | None = None
        self._files = 0
        self._size = 0

    async def send(self, files: Sequence[InstanceFile]) -> None:
        """Send the files."""
        self._files, self._size = len(files), sum(file.size for file in files)
        self._delivery = self._begin(files)
        try:
            async with self._delivery:
                async for outcome in self._delivery:
                    self._take(outcome)
        finally:
            for outcome in self._delivery.unreported:
                self._take(outcome)
            done = {id(outcome.instance) for outcome in self.outcomes}
            self.remaining = [file for file in files if id(file) not in done]

    def _take(self, outcome: Outcome) -> None:
        error = outcome.error
        if isinstance(error, AssociationError | OperationTimeout) and not isinstance(error, NoAcceptedContext):
            self.error = self.error or error
        else:
            self.outcomes.append(outcome)
            self._observe(outcome)

    # What is shown of it.

    @property
    def count(self) -> str:
        """How many files are dealt with, in words."""
        if self._delivery is None:
            return "looking at the files"
        return f"{len(self.outcomes):,} of {amount(self._files, 'file')}"

    @property
    def volume(self) -> str:
        """How many bytes have gone out, in words."""
        return "" if self._delivery is None else f"{size(self.completed)} of {size(self._size)}"

    @property
    def completed(self) -> int:
        """How many bytes have gone out; never more than the files have, though messages have more."""
        return 0 if self._delivery is None else min(self._delivery.bytes_sent, self._size)

    @property
    def total(self) -> int | None:
        """How many bytes there are; None until that is known."""
        return None if self._delivery is None else self._size
