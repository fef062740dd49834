"""Many instances to one peer: taken ahead, sent over several associations, tried again where that may help."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing, suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import uniform
from typing import Final, Self

from anyio import CancelScope

from aiodicom.dimse.commands import CStoreRSP, Priority
from aiodicom.dimse.status import RESOURCE_LIMITATION
from aiodicom.errors import (
    AssociationError,
    AssociationRejected,
    DicomNetworkError,
    LocalProtocolError,
    NoAcceptedContext,
    OperationTimeout,
)
from aiodicom.invoking import Turns
from aiodicom.outgoing import prepare
from aiodicom.remote.parcels import Outcome, Parcel, Proposals, Source, one_by_one, packed
from aiodicom.remote.pool import TRANSIENT, Lease, Pool
from aiodicom.workers import InThread

LOOK_AHEAD: Final = 64
"""How many instances are taken ahead of the outcomes that were given, where no more can be on their way."""

LONGEST_BACKOFF: Final = 30.0
"""How long is waited before a retry at most; and before a peer that was given up is tried again, in seconds."""

LONGEST_LEASE: Final = 1.0
"""How long an association is used while others wait for one, in seconds."""

_OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)  # PS3.4 §B.2.3

_log: Final = logging.getLogger("aiodicom.remote")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to send, see `RemoteAE.send`; `patience` is for what is on its way when the loop is left, in seconds."""

    associations: int
    window: int
    priority: Priority
    decompress: bool
    retries: int
    backoff: float
    patience: float
    in_thread: InThread

    def __post_init__(self) -> None:
        if self.associations < 1 or self.window < 1 or self.retries < 0:
            raise LocalProtocolError("associations and window are 1 or more, retries are 0 or more")

    @property
    def look_ahead(self) -> int:
        """How many instances are taken ahead."""
        return max(LOOK_AHEAD, 2 * self.associations * (self.window + 1))

    def delay(self, attempts: int) -> float:
        """Return how long to wait after so many attempts: twice as long each time, and not all until the same moment."""
        longest = min(self.backoff * 2.0 ** min(attempts - 1, 16), LONGEST_BACKOFF)
        return longest * uniform(0.5, 1)  # noqa: S311 - nothing secret


def _may_pass(error: Exception, *, was_reached: bool) -> bool:
    """Whether things may go better later: not with a peer that never took an association, unless it says so."""
    match error:
        case AssociationRejected():
            return error.result == TRANSIENT
        case NoAcceptedContext():
            return False
        case AssociationError() | OperationTimeout():
            return was_reached
        case _:
            return False


@dataclass(eq=False, slots=True)
class _Load:
    """What is on its way over one association."""

    lease: Lease
    turns: Turns
    busy: int = 0


class Shipment:
    """Sends instances; it knows nothing of the `Delivery` that tells of it, so that that one is gone when it is dropped.

    One task takes instances from the source, others carry them, each over an association: an instance is ready, or put off
    until a retry is due, or held by a carrier, and in the end has an outcome.

    Args:
        pool: associations with the peer.
        source: the instances.
        manner: how to send them.
        peer: who gets them, for the log.

    Attributes:
        failure: what ended it besides: what the source raised, or the end of the pool.
        outcomes: those that were not given yet.
    """

    def __init__(self, pool: Pool, source: Source, manner: Manner, *, peer: str) -> None:
        self.failure: Exception | None = None
        self.outcomes: deque[Outcome] = deque()
        self._pool = pool
        self._source = source
        self._manner = manner
        self._peer = peer
        self._proposals = Proposals(source)
        self._ready: deque[Parcel] = deque()
        self._put_off: list[tuple[float, int, Parcel]] = []
        self._numbers = count()
        self._held = 0
        self._open = 0  # taken from the source, and the outcome not given
        self._bytes_sent = 0  # on associations that were given back
        self._loads: set[_Load] = set()
        self._outage: tuple[DicomNetworkError, float] | None = None  # why the peer is given up, and until when
        self._was_told = False  # that the peer takes fewer associations than we want
        self._is_drained = False  # the source
        self._is_stopping = False
        self._changed = asyncio.Event()  # for the tasks
        self._told = asyncio.Event()  # for whoever waits for outcomes
        self._task: asyncio.Task[None] | None = None
        self._feeder: asyncio.Task[None] | None = None

    # Its life.

    def start(self) -> asyncio.Task[None]:
        """Begin; return the task that all of it runs in."""
        self._pool.raise_if_closed()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: self._told.set())
        return self._task

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be done."""
        return self._task is not None and self._task.done()

    @property
    def bytes_sent(self) -> int:
        """How many bytes went out."""
        return self._bytes_sent + sum(load.lease.bytes_sent for load in self._loads)

    async def next(self) -> Outcome:
        """Return the next outcome.

        Raises:
            StopAsyncIteration: there is none.
            LocalProtocolError: there will be none as long as this task holds all associations.
            Exception: what the source raised, when all that it gave has its outcome.
        """
        assert self._task is not None
        while not self.outcomes:
            if self._task.done():
                if self.failure is not None:
                    raise self.failure
                if not self._task.cancelled():
                    self._task.result()
                raise StopAsyncIteration
            self._told.clear()
            with self._pool.blocked():
                await self._told.wait()
        self._open -= 1
        if self._open == self._manner.look_ahead // 2:
            self._changed.set()
        return self.outcomes.popleft()

    async def stop(self) -> None:
        """Begin nothing more; let what is on its way come to its end, for a while."""
        if self._task is None or self._task.done():
            return
        self._is_stopping = True
        if self._feeder is not None:
            self._feeder.cancel()
        self._changed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._manner.patience):
                while any(load.busy for load in self._loads):
                    await self._change()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._feeder = group.create_task(self._feed())
            for _ in range(self._manner.associations):
                group.create_task(self._carry())

    async def _change(self) -> None:
        """Wait until something is otherwise."""
        self._changed.clear()
        await self._changed.wait()

    # The source.

    async def _feed(self) -> None:
        """Take instances from the source, as long as there is room."""
        most = self._manner.look_ahead
        try:
            async with aclosing(one_by_one(self._source)) as instances:
                async for instance in instances:
                    self._accept(await packed(instance, self._manner.in_thread))
                    if self._open >= most:
                        while self._open > most // 2:
                            await self._change()
        except Exception as error:  # noqa: BLE001 - whatever a source raises is raised where its outcomes are awaited
            self.failure = error
        finally:
            self._is_drained = True
            self._changed.set()

    def _accept(self, found: Parcel | Outcome) -> None:
        self._open += 1
        if isinstance(found, Outcome):
            self.outcomes.append(found)
            self._told.set()
        else:
            self._proposals.add(found)
            self._ready.append(found)
            self._changed.set()

    # The carriers.

    async def _carry(self) -> None:
        """Send instance after instance: over one association as long as it will do, and as something is ready."""
        tries = 0
        while (parcel := await self._next()) is not None:
            if (outage := self._current_outage()) is not None:
                self._report(parcel, error=outage)
                continue
            try:
                lease = await self._pool.take([parcel.needed], self._proposals.of(parcel), window=self._manner.window)
            except DicomNetworkError as error:
                tries += 1
                await self._not_reached(parcel, error, tries)
                continue
            tries, self._outage = 0, None
            width = min(self._manner.window, lease.association.terms.maximum_invoked or self._manner.window)
            load = _Load(lease, Turns(width))
            self._loads.add(load)
            try:
                async with asyncio.TaskGroup() as group:
                    # One more than may be on its way, so that the next one is read meanwhile.
                    for first in (parcel, *(None for _ in range(width))):
                        group.create_task(self._work(load, first))
            finally:
                self._loads.discard(load)
                self._bytes_sent += lease.bytes_sent
                lease.give_back()

    async def _next(self) -> Parcel | None:
        """Wait for an instance to send; return None when there will be none."""
        while not self._is_stopping:
            if (parcel := self._take_ready()) is not None:
                return parcel
            if self._is_done():
                self._changed.set()
                return None
            due = self._put_off[0][0] if self._put_off else None
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._change()
        return None

    def _is_done(self) -> bool:
        return self._is_drained and not (self._ready or self._put_off or self._held)

    def _take_ready(self, lease: Lease | None = None) -> Parcel | None:
        """Take the first instance that is ready, and that the association is for."""
        now = asyncio.get_running_loop().time()
        while self._put_off and self._put_off[0][0] <= now:
            self._ready.append(heappop(self._put_off)[2])
        for index, parcel in enumerate(self._ready):
            if lease is None or lease.has(parcel.needed):
                del self._ready[index]
                self._held += 1
                return parcel
        return None

    async def _not_reached(self, parcel: Parcel, error: DicomNetworkError, tries: int) -> None:
        """Put an instance back since there is no association to be had, and wait for a while; or give the peer up."""
        is_hopeless = tries > self._manner.retries or not _may_pass(error, was_reached=self._pool.was_reached)
        if is_hopeless and not self._loads:  # else others are at work, and the peer has no more than that for us
            _log.info("%s is given up for now: %s", self._peer, error)
            self._outage = error, asyncio.get_running_loop().time() + LONGEST_BACKOFF
            self._ready.extend(parcel for *_, parcel in self._put_off)
            self._put_off.clear()
            self._report(parcel, error=error)
            return
        self._held -= 1
        self._ready.appendleft(parcel)
        self._changed.set()
        delay = self._manner.delay(tries)
        level = logging.WARNING if self._loads and not self._was_told else logging.INFO
        self._was_told = self._was_told or bool(self._loads)
        _log.log(level, "no association with %s: %s; again in %.1f s", self._peer, error, delay)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                while not (self._is_stopping or self._is_done()):
                    await self._change()

    def _current_outage(self) -> DicomNetworkError | None:
        if self._outage is None or self._loads:
            return None
        error, until = self._outage
        return error if asyncio.get_running_loop().time() < until else None

    async def _work(self, load: _Load, parcel: Parcel | None) -> None:
        """Send instance after instance over one association, beside others who do."""
        while parcel := parcel or await self._another(load):
            load.busy += 1
            try:
                await self._store(load, parcel)
            finally:
                load.busy -= 1
                if not load.busy:
                    self._changed.set()
            parcel = None

    async def _another(self, load: _Load) -> Parcel | None:
        """Return an instance for that association; None when it is time to give it back."""
        lease = load.lease
        while not self._is_stopping and lease.association.is_open:
            if self._pool.is_awaited and lease.age > LONGEST_LEASE:
                return None
            if (parcel := self._take_ready(lease)) is not None:
                return parcel
            if not load.busy:
                return None
            await self._change()
        return None

    async def _store(self, load: _Load, parcel: Parcel) -> None:
        """Send one instance, and see what comes of it."""
        association = load.lease.association
        try:
            _, encoded = await prepare(
                parcel.cargo,
                association.terms.contexts_of,
                association.terms.proposed,
                decompress=self._manner.decompress,
                in_thread=self._manner.in_thread,
            )
            await load.turns.take()
            try:
                is_whole = parcel.is_repeatable or encoded is parcel.cargo  # else its chunks are taken
                if is_whole and (self._is_stopping or not association.is_open):
                    self._put_back(parcel, 0)
                    return
                parcel.attempts += 1
                response = await association.c_store(encoded, priority=self._manner.priority)
            finally:
                load.turns.give_back()
        except Exception as error:  # noqa: BLE001 - one that is wrong does not stop the others
            if parcel.is_repeatable and self._is_to_be_repeated(parcel) and _may_pass(error, was_reached=True):
                self._try_again(parcel, str(error))
            else:
                self._report(parcel, error=error)
            return
        is_refused = response.status in _OUT_OF_RESOURCES or response.status == RESOURCE_LIMITATION
        if is_refused and parcel.is_repeatable and self._is_to_be_repeated(parcel):
            self._try_again(parcel, repr(response.status))
        else:
            self._report(parcel, response=response)

    def _is_to_be_repeated(self, parcel: Parcel) -> bool:
        return parcel.attempts <= self._manner.retries and not self._is_stopping

    def _try_again(self, parcel: Parcel, why: str) -> None:
        delay = self._manner.delay(parcel.attempts)
        _log.info("%r to %s, attempt %d: %s; again in %.1f s", parcel, self._peer, parcel.attempts, why, delay)
        self._put_back(parcel, delay)

    def _put_back(self, parcel: Parcel, delay: float) -> None:
        self._held -= 1
        due = asyncio.get_running_loop().time() + delay
        heappush(self._put_off, (due, next(self._numbers), parcel))
        self._changed.set()

    def _report(self, parcel: Parcel, *, response: CStoreRSP | None = None, error: Exception | None = None) -> None:
        self._held -= 1
        if not self._held:
            self._changed.set()
        self.outcomes.append(Outcome(parcel.instance, parcel.sop_instance_uid, parcel.attempts, response, error))
        self._told.set()


class Delivery:
    """What comes of instances that are sent: `async for outcome in delivery`, an `Outcome` for each, once it is done.

    Made by `RemoteAE.send`; nothing is sent before it is iterated over, or its block is entered. Leaving the loop early
    stops it, in the block of `async with`, by `aclose`, or when it is no longer referred to.

    Attributes:
        unreported: after it was left, the outcomes of instances that were on their way by then.
    """

    def __init__(self, shipment: Shipment, shipments: set[Shipment], pool: Pool) -> None:
        self.unreported: tuple[Outcome, ...] = ()
        self._shipment = shipment
        self._shipments = shipments
        self._pool = pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_awaited = False
        self._is_left = False

    def __repr__(self) -> str:
        state = "left" if self._is_left else "over" if self._shipment.is_over else "open" if self._loop else "new"
        return f"<Delivery {state}>"

    @property
    def bytes_sent(self) -> int:
        """How many bytes have gone out for it."""
        return self._shipment.bytes_sent

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome.

        Raises:
            LocalProtocolError: the `RemoteAE` was closed; two tasks iterate.
            Exception: what the source of the instances raised, when all that it gave has its outcome.
        """
        if self._is_left:
            raise StopAsyncIteration
        if self._is_awaited:
            raise LocalProtocolError("two tasks iterate over one delivery: let one of them hand the outcomes on")
        self._begin()
        self._is_awaited = True
        try:
            return await self._shipment.next()
        finally:
            self._is_awaited = False

    async def all(self) -> list[Outcome]:
        """Return all the outcomes."""
        async with self:
            return [outcome async for outcome in self]

    async def aclose(self) -> None:
        """Leave it: begin nothing more, and let what is on its way come to its end, for a while."""
        if not self._is_left:
            self._is_left = True
            with CancelScope(shield=True):
                await self._shipment.stop()
            self.unreported = tuple(self._shipment.outcomes)

    async def __aenter__(self) -> Self:
        """Begin."""
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave it, see `aclose`."""
        await self.aclose()

    def __del__(self) -> None:
        if self._loop is not None and not self._is_left and not self._shipment.is_over:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_stop_soon, self._pool, self._shipment)

    def _begin(self) -> None:
        if self._loop is None:
            task = self._shipment.start()
            self._loop = asyncio.get_running_loop()
            self._shipments.add(self._shipment)
            shipments, shipment = self._shipments, self._shipment
            task.add_done_callback(lambda _: shipments.discard(shipment))


def _stop_soon(pool: Pool, shipment: Shipment) -> None:
    pool.spawn(shipment.stop())
