"""Many instances to one peer: taken ahead, sent over several associations, tried again where that may help."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count, islice
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
from aiodicom.outgoing import prepare
from aiodicom.remote.carrier import Carrier
from aiodicom.remote.pacing import LARGEST_WINDOW, ONE, Climb, Setting
from aiodicom.remote.parcels import Outcome, Parcel, Proposals, Source, one_by_one, packed
from aiodicom.remote.pool import TRANSIENT, Lease, Pool
from aiodicom.workers import InThread

LOOK_AHEAD: Final = 64
"""How many instances are taken ahead of the outcomes that were given, where no more can be on their way."""

MUCH: Final = 16
"""How many instances make it worth while to offer an operations window to a peer that may drop the connection at that."""

LONGEST_BACKOFF: Final = 30.0
"""How long is waited before a retry at most; and before a peer that was given up is tried again, in seconds."""

LONGEST_LEASE: Final = 1.0
"""How long an association is used while others wait for one, in seconds."""

_OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)  # PS3.4 §B.2.3

_log: Final = logging.getLogger("aiodicom.remote")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to send, see `RemoteAE.send`.

    Args:
        associations: how many to use at a time; None is as many as help, and as the pool may have.
        window: how many stores may be outstanding on each; None likewise.
        priority: of the stores.
        decompress: whether compressed pixel data may be decompressed.
        retries: how often an instance, or the peer, is tried again.
        backoff: how long to wait before the first retry, in seconds.
        patience: how long to wait for what is on its way when the loop is left, in seconds.
        in_thread: runs what blocks.
    """

    associations: int | None
    window: int | None
    priority: Priority
    decompress: bool
    retries: int
    backoff: float
    patience: float
    in_thread: InThread

    def __post_init__(self) -> None:
        if (
            self.associations == 0
            or self.window == 0
            or min(self.associations or 1, self.window or 1, self.retries + 1) < 1
        ):
            raise LocalProtocolError("associations and window are 1 or more, retries are 0 or more")

    def climb(self, pool: Pool) -> Climb:
        """Return what looks for that which is left open, within the limits of the pool, and from where it got before."""
        associations = None if self.associations is None else min(self.associations, pool.maximum)
        least = Setting(associations or 1, self.window or 1)
        return Climb(least, Setting(associations or pool.maximum, self.window or LARGEST_WINDOW), pool.best)

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
        self._climb = manner.climb(pool)
        self._known = len(source) if isinstance(source, list | tuple) else 0
        self._carriers: list[Carrier] = []
        self._group = asyncio.TaskGroup()
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
    def _look_ahead(self) -> int:
        """How many instances are taken ahead; in half as many there are enough for all who are to send."""
        setting = self._climb.setting
        return max(LOOK_AHEAD, 3 * setting.associations * (setting.window + 1))

    @property
    def bytes_sent(self) -> int:
        """How many bytes went out."""
        return self._bytes_sent + sum(lease.bytes_sent for lease in self._leases)

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
        if self._open == self._look_ahead // 2:
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
                while any(carrier.busy for carrier in self._carriers):
                    await self._change()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        async with self._group:
            self._feeder = self._group.create_task(self._feed())
            self._adjust()
        self._pool.best = self._climb.kept

    async def _change(self) -> None:
        """Wait until something is otherwise."""
        self._changed.clear()
        await self._changed.wait()

    # The source.

    async def _feed(self) -> None:
        """Take instances from the source, as long as there is room."""
        try:
            async with aclosing(one_by_one(self._source)) as instances:
                async for instance in instances:
                    self._accept(await packed(instance, self._manner.in_thread))
                    if self._open >= self._look_ahead:
                        while self._open > self._look_ahead // 2:
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

    @property
    def _leases(self) -> list[Lease]:
        """The associations that are in use."""
        return [carrier.lease for carrier in self._carriers if carrier.lease is not None]

    def _adjust(self) -> None:
        """Have as many carriers as the setting says, each as wide as that and the peer say."""
        setting = self._climb.setting
        staying = [carrier for carrier in self._carriers if not carrier.is_leaving]
        for carrier in sorted(staying, key=lambda carrier: carrier.lease is None)[setting.associations :]:
            carrier.leave()
        for _ in range(setting.associations - len(staying)):
            carrier = Carrier()
            self._carriers.append(carrier)
            carrier.task = self._group.create_task(self._carry(carrier))
        for carrier in self._carriers:
            carrier.widen(setting.window)
        self._changed.set()

    async def _carry(self, carrier: Carrier) -> None:
        """Send instance after instance: over one association as long as it will do, and as something is ready."""
        tries = 0
        try:
            while (parcel := await self._next(carrier)) is not None:
                if (outage := self._current_outage()) is not None:
                    self._take_out(parcel)
                    self._report(parcel, error=outage)
                    continue
                try:
                    lease = await self._take(carrier, parcel)
                except DicomNetworkError as error:
                    tries += 1
                    await self._not_reached(carrier, error, tries)
                    continue
                tries, self._outage = 0, None
                await self._use(carrier, lease)
        finally:
            self._carriers.remove(carrier)
            self._changed.set()

    async def _take(self, carrier: Carrier, parcel: Parcel) -> Lease:
        """Borrow an association for an instance, and others like it."""
        carrier.is_opening = True
        try:
            return await self._pool.take([parcel.needed], self._proposals.of(parcel), window=self._offer())
        finally:
            carrier.is_opening = False

    def _offer(self) -> int:
        """Return which operations window to offer: where that is ours to choose, only if there is more than a little."""
        if self._manner.window is not None:
            return self._manner.window
        is_much = max(len(self._ready), self._known) >= MUCH or self._climb.setting != ONE
        return LARGEST_WINDOW if is_much else 1

    async def _use(self, carrier: Carrier, lease: Lease) -> None:
        """Send over an association, several instances at a time."""
        self._climb.agreed(lease.association.terms.maximum_invoked)
        try:
            # However many wait for the association, it serves for one instance at least.
            if (parcel := self._first_ready(lease)) is not None:
                self._take_out(parcel)
                await carrier.use(lease, self._climb.setting.window, partial(self._work, carrier, lease), first=parcel)
        finally:
            self._bytes_sent += lease.bytes_sent
            lease.give_back()
        if not lease.association.is_open:
            self._retreat()

    async def _next(self, carrier: Carrier) -> Parcel | None:
        """Wait for an instance that needs another association; return None when there will be none."""
        while not (self._is_stopping or carrier.is_leaving):
            # The first ones are for the carriers that are opening associations by now.
            opening = sum(each.is_opening for each in self._carriers)
            if (parcel := self._first_ready(after=opening)) is not None:
                return parcel
            if self._is_done():
                for each in self._carriers:
                    each.leave()
                self._changed.set()
                return None
            due = self._put_off[0][0] if self._put_off else None
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._change()
        return None

    def _is_done(self) -> bool:
        return self._is_drained and not (self._ready or self._put_off or self._held)

    def _first_ready(self, lease: Lease | None = None, *, after: int = 0) -> Parcel | None:
        """Return the first instance that is ready, behind so many, and that the association is for."""
        now = self._now()
        while self._put_off and self._put_off[0][0] <= now:
            self._ready.append(heappop(self._put_off)[2])
        fitting = (parcel for parcel in self._ready if lease is None or lease.has(parcel.needed))
        return next(islice(fitting, after, None), None)

    def _take_out(self, parcel: Parcel) -> None:
        """Take an instance that is ready: it is held from then on."""
        self._ready.remove(parcel)
        self._held += 1

    async def _not_reached(self, carrier: Carrier, error: DicomNetworkError, tries: int) -> None:
        """Wait for a while since there is no association to be had; or give the peer up."""
        is_hopeless = tries > self._manner.retries or not _may_pass(error, was_reached=self._pool.was_reached)
        if is_hopeless and not self._leases:  # else others are at work, and the peer has no more than that for us
            _log.info("%s is given up for now: %s", self._peer, str(error))
            self._outage = error, self._now() + LONGEST_BACKOFF
            self._ready.extend(parcel for *_, parcel in self._put_off)
            self._put_off.clear()
            if (parcel := self._first_ready()) is not None:
                self._take_out(parcel)
                self._report(parcel, error=error)
            return
        if self._leases and self._climb.refused(len(self._leases), self._now()):
            _log.info("%s takes no further association: %s", self._peer, str(error))
            self._adjust()
        self._changed.set()
        delay = self._manner.delay(tries)
        level = logging.WARNING if self._leases and not self._was_told else logging.INFO
        self._was_told = self._was_told or bool(self._leases)
        _log.log(level, "no association with %s: %s; again in %.1f s", self._peer, error, delay)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                while not (self._is_stopping or carrier.is_leaving or self._is_done()):
                    await self._change()

    def _current_outage(self) -> DicomNetworkError | None:
        if self._outage is None or self._leases:
            return None
        error, until = self._outage
        return error if self._now() < until else None

    async def _work(self, carrier: Carrier, lease: Lease, parcel: Parcel | None = None) -> None:
        """Send instance after instance over one association, beside others who do."""
        while parcel := parcel or await self._another(carrier, lease):
            carrier.busy += 1
            try:
                await self._store(carrier, lease, parcel)
            finally:
                carrier.busy -= 1
                if not carrier.busy:
                    self._changed.set()
            parcel = None

    async def _another(self, carrier: Carrier, lease: Lease) -> Parcel | None:
        """Return an instance for that association; None when it is time to give it back, or for others to do so."""
        while not (self._is_stopping or carrier.is_leaving) and lease.association.is_open:
            if self._pool.is_awaited and lease.age > LONGEST_LEASE:
                return None
            if carrier.has_too_many:
                return None
            if (parcel := self._first_ready(lease)) is not None:
                self._take_out(parcel)
                return parcel
            self._climb.starved()
            if not carrier.busy:
                return None
            await self._change()
        return None

    async def _store(self, carrier: Carrier, lease: Lease, parcel: Parcel) -> None:
        """Send one instance, and see what comes of it."""
        association = lease.association
        try:
            _, encoded = await prepare(
                parcel.cargo,
                association.terms.contexts_of,
                association.terms.proposed,
                decompress=self._manner.decompress,
                in_thread=self._manner.in_thread,
            )
            await carrier.turns.take()
            try:
                is_whole = parcel.is_repeatable or encoded is parcel.cargo  # else its chunks are taken
                if is_whole and (self._is_stopping or not association.is_open):
                    self._put_back(parcel, 0)
                    return
                parcel.attempts += 1
                response = await association.c_store(encoded, priority=self._manner.priority)
            finally:
                carrier.turns.give_back()
        except Exception as error:  # noqa: BLE001 - one that is wrong does not stop the others
            if parcel.is_repeatable and self._is_to_be_repeated(parcel) and _may_pass(error, was_reached=True):
                self._try_again(parcel, str(error))
            else:
                self._report(parcel, error=error)
            return
        is_refused = response.status in _OUT_OF_RESOURCES or response.status == RESOURCE_LIMITATION
        if is_refused:
            self._retreat()
        if is_refused and parcel.is_repeatable and self._is_to_be_repeated(parcel):
            self._try_again(parcel, repr(response.status))
        else:
            self._report(parcel, response=response)
            self._pace()

    def _pace(self) -> None:
        """See whether it goes better otherwise; not for the last few."""
        staying = sum(not carrier.is_leaving for carrier in self._carriers)
        in_effect = len(self._leases) == staying == self._climb.setting.associations
        is_enough = not self._is_drained or len(self._ready) > self._climb.setting.concurrency
        if (
            is_enough
            and not self._is_stopping
            and self._climb.completed(self._now(), self.bytes_sent, in_effect=in_effect)
        ):
            _log.debug("%s: %d associations with a window of %d", self._peer, *self._climb.setting)
            self._adjust()

    def _retreat(self) -> None:
        """Take back what is on trial: it was too much for the peer."""
        if not self._is_stopping and self._climb.too_much(self._now()):
            self._adjust()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _is_to_be_repeated(self, parcel: Parcel) -> bool:
        return parcel.attempts <= self._manner.retries and not self._is_stopping

    def _try_again(self, parcel: Parcel, why: str) -> None:
        delay = self._manner.delay(parcel.attempts)
        _log.info("%r to %s, attempt %d: %s; again in %.1f s", parcel, self._peer, parcel.attempts, why, delay)
        self._put_back(parcel, delay)

    def _put_back(self, parcel: Parcel, delay: float) -> None:
        self._held -= 1
        due = self._now() + delay
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
