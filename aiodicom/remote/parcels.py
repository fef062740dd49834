"""What is sent to a peer: instances as they are given, what goes out of them, and what comes of each."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Final, TypeAlias, cast

from anyio import to_thread

from aiodicom.dimse.commands import CStoreRSP
from aiodicom.dimse.status import Category, Status
from aiodicom.outgoing import EncodedInstance, Instance, identify, open_in_time
from aiodicom.part10 import InstanceFile
from aiodicom.planning import plan_associations
from aiodicom.upper_layer.presentation import ProposedContext
from aiodicom.workers import LONGEST_TURN, InThread

Source: TypeAlias = Instance | Iterable[Instance] | AsyncIterable[Instance]
"""Where instances come from: several of them, or one."""

BATCH: Final = 16
"""How many instances of a plain iterator are taken in one change of threads, at most."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Outcome:
    """What came of one instance.

    Args:
        instance: which one, as it was given.
        sop_instance_uid: which one; empty where it could not be read.
        attempts: how often it was sent, or begun to be; 0 for one that never was.
        response: the peer's, to the last attempt; None where there is none.
        error: what kept it from being stored where there is no response; there is one of the two.
    """

    instance: Instance
    sop_instance_uid: str = ""
    attempts: int = 0
    response: CStoreRSP | None = None
    error: Exception | None = None

    def __repr__(self) -> str:
        what = self.path or self.sop_instance_uid or type(self.instance).__name__
        came = self.error if self.response is None else self.response.status
        return f"<Outcome of {what}: {came!r}, {self.attempts} attempts>"

    @property
    def path(self) -> Path | None:
        """The file that it is in; None for one in memory."""
        return _path_of(self.instance)

    @property
    def status(self) -> Status | None:
        """The status of the response; None where there is none."""
        return None if self.response is None else self.response.status

    @property
    def category(self) -> Category:
        """SUCCESS, WARNING or FAILURE: what is neither of the first two is the third."""
        category = Category.FAILURE if self.response is None else self.response.status.category
        return category if category in (Category.SUCCESS, Category.WARNING) else Category.FAILURE

    @property
    def is_stored(self) -> bool:
        """Whether the peer has it now: warnings mean so, too (PS3.4 §B.2.3)."""
        return self.category is not Category.FAILURE


def _path_of(instance: Instance) -> Path | None:
    if isinstance(instance, InstanceFile):
        return Path(instance.path)
    return Path(instance) if isinstance(instance, str | os.PathLike) else None


@dataclass(eq=False, slots=True, repr=False)
class Parcel:
    """An instance that is to be sent: as it was given, and what goes out of it."""

    instance: Instance
    cargo: Instance
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    attempts: int = 0

    def __repr__(self) -> str:
        return f"<Parcel {_path_of(self.instance) or self.sop_instance_uid}>"

    @property
    def needed(self) -> ProposedContext:
        """What must have been proposed."""
        return ProposedContext(self.sop_class_uid, (self.transfer_syntax,))

    @property
    def is_repeatable(self) -> bool:
        """Whether it can be sent again: chunks come once."""
        return not (isinstance(self.cargo, EncodedInstance) and isinstance(self.cargo.data, AsyncIterable))


async def packed(instance: Instance, in_thread: InThread) -> Parcel | Outcome:
    """Look at an instance; one that cannot be sent has its outcome."""
    try:
        cargo = await open_in_time(instance, in_thread) if isinstance(instance, str | os.PathLike) else instance
        if isinstance(cargo, InstanceFile):
            uids = cargo.sop_class_uid, cargo.sop_instance_uid, cargo.transfer_syntax_uid
        elif isinstance(cargo, EncodedInstance):
            uids = cargo.sop_class_uid, cargo.sop_instance_uid, cargo.transfer_syntax
        else:
            uids = identify(cargo)
    except Exception as error:  # noqa: BLE001 - one that is wrong does not stop the others
        return Outcome(instance, error=error)
    return Parcel(instance, cargo, *uids)


async def one_by_one(source: Source) -> AsyncGenerator[Instance, None]:
    """Yield the instances of a source; a plain iterator may block, and is asked in a worker thread."""
    is_one = isinstance(source, str | os.PathLike | InstanceFile | EncodedInstance)
    if is_one or hasattr(source, "original_encoding"):  # a Dataset, which could be iterated over as well
        yield cast("Instance", source)
    elif isinstance(source, AsyncIterable):
        asynchronous = aiter(source)
        try:
            async for instance in asynchronous:
                yield instance
        finally:
            if isinstance(asynchronous, AsyncGenerator):
                await asynchronous.aclose()  # what it has open is closed now, not when the collector comes by
    elif isinstance(source, Sequence):
        for instance in source:
            yield instance
    else:
        iterator = iter(cast("Iterable[Instance]", source))
        while batch := await to_thread.run_sync(_next_of, iterator, abandon_on_cancel=True):
            for each in batch:
                if isinstance(each, _Failure):
                    raise each.error
                yield each


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


def _next_of(instances: Iterator[Instance]) -> list[Instance | _Failure]:
    """Take the next ones: not too many, and not for long; what the iterator raises comes last."""
    found: list[Instance | _Failure] = []
    end = monotonic() + LONGEST_TURN
    try:
        for instance in islice(instances, BATCH):
            found.append(instance)
            if monotonic() > end:
                break
    except Exception as error:  # noqa: BLE001 - it is raised where the outcomes are awaited
        found.append(_Failure(error))
    return found


class Proposals:
    """What to propose: the contexts of an instance and, as far as there is room, of all others that are known of.

    Args:
        source: the instances to come; those in it that are open are known of.
    """

    def __init__(self, source: Source) -> None:
        self._kinds: dict[tuple[str, str], EncodedInstance] = {}
        self._plans: dict[str, tuple[ProposedContext, ...]] = {}
        for instance in source if isinstance(source, list | tuple) else ():
            if isinstance(instance, InstanceFile):
                self._add(instance.sop_class_uid, instance.transfer_syntax_uid)
            elif isinstance(instance, EncodedInstance):
                self._add(instance.sop_class_uid, instance.transfer_syntax)

    def add(self, parcel: Parcel) -> None:
        """Take note of an instance."""
        self._add(parcel.sop_class_uid, parcel.transfer_syntax)

    def of(self, parcel: Parcel) -> tuple[ProposedContext, ...]:
        """Return what to propose for an instance."""
        if not self._plans:
            plans = plan_associations(tuple(self._kinds.values()))
            self._plans = {each.sop_class_uid: plan.contexts for plan in plans for each in plan.files}
        return self._plans[parcel.sop_class_uid]

    def _add(self, sop_class_uid: str, transfer_syntax: str) -> None:
        kind = sop_class_uid, transfer_syntax
        if kind not in self._kinds:
            self._kinds[kind] = EncodedInstance(sop_class_uid, "", transfer_syntax, b"")
            self._plans = {}
