"""C-GET and C-MOVE from the acceptor's side: one loop over instances, each a C-STORE sub-operation (PS3.4 §C.4.2, §C.4.3).

C-GET sends them on the association that it came on, C-MOVE on one to the move destination. What the loop counts, and which
status that comes to, is the same.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, cast

from anyio import CancelScope

from aiodicom.client import associate
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.dimse.commands import CGetRQ, CMoveRQ, CStoreRSP
from aiodicom.dimse.status import CANCEL, PENDING, SUCCESS, Category
from aiodicom.errors import (
    AssociationError,
    DicomNetworkError,
    DimseError,
    InvalidInstance,
    LocalProtocolError,
    NoAcceptedContext,
    OperationTimeout,
)
from aiodicom.handlers import Service
from aiodicom.limits import Timeouts
from aiodicom.logs import about, described, printable
from aiodicom.nodes import Node, credentials_for
from aiodicom.operation import Conclusion, Operation
from aiodicom.outgoing import EncodedInstance, Instance, encode_instance
from aiodicom.part10 import InstanceFile, open_instance, valid_uid
from aiodicom.planning import plan_associations
from aiodicom.query import MODELS, NO_OPTIONS, QueryOptions, model_of
from aiodicom.rows import encode_row
from aiodicom.services.query import called
from aiodicom.services.turns import Turns
from aiodicom.tls import Credentials
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, storage_sop_classes, transfer_syntaxes
from aiodicom.upper_layer.presentation import SupportedSyntax
from aiodicom.workers import in_any_thread

RetrieveHandler: TypeAlias = Callable[
    [Operation], Awaitable[Iterable[Instance]] | AsyncIterable[Instance] | Iterable[Instance]
]
"""A handler of C-GET or C-MOVE: a coroutine function that returns the instances which the identifier asks for, or an async
generator function that yields them. A plain function or generator runs in a worker thread. They are gathered before the first
is sent, since a response tells how many remain."""


class Destinations(Protocol):
    """The move destinations: which node an AE title stands for."""

    def __call__(self, ae_title: str, operation: Operation, /) -> Node | Awaitable[Node | None] | None:
        """Return the node; None where there is none, which is answered with 0xA801."""


PENDING_INTERVAL: Final = 0.1
"""How long it is between two Pending responses, in seconds, while sub-operations succeed each other faster."""

PATIENCE: Final = 10.0
"""How long a sub-operation may take, in seconds, before a Pending response tells that there is one."""

GRACE: Final = 2.0
"""How long a sub-operation to a move destination may take after a C-CANCEL, in seconds."""

# PS3.4 Table C.4-2 and Table C.4-3.
_UNABLE_TO_PERFORM: Final = 0xA702
_DESTINATION_UNKNOWN: Final = 0xA801
_SOME_FAILED: Final = 0xB000

_MOST: Final = 0xFFFF  # what a counter can say
# PS3.4 Table Z.1-1: the attributes left out of a retrieval without bulk data.
_BULK_DATA: Final = frozenset(
    (0x7FE00010, 0x7FE00008, 0x7FE00009, 0x00287FE0, 0x56000020, 0x00420011, 0x7FE00001, 0x7FE00002)
)
_REPEATING_BULK_DATA: Final = frozenset((0x60003000, 0x50003000, 0x5000200C))  # of the groups 60xx and 50xx

_WITHOUT_VALUES: Final = (AssociationError, InvalidInstance, LocalProtocolError, OSError)  # others may quote them

_log: Final = logging.getLogger("aiodicom.retrieve")

Item: TypeAlias = InstanceFile | EncodedInstance
Store: TypeAlias = Callable[[Item], Awaitable[CStoreRSP]]


def get_service(
    handler: RetrieveHandler,
    model: str = "study",
    *,
    sop_classes: Iterable[str] | None = None,
    syntaxes: Iterable[str] | None = None,
    options: QueryOptions = NO_OPTIONS,
) -> Service:
    """Return the service that answers C-GET for an information model with the instances that a handler returns.

    Each is sent in its own transfer syntax where the requestor accepts it, else transcoded between the uncompressed ones;
    what cannot be sent counts as failed. The model `no-bulk-data` leaves out pixels and the like (PS3.4 Annex Z).

    Args:
        handler: returns the instances.
        model: the information model, by name or SOP class UID.
        sop_classes: UIDs of what may be sent; by default every Storage SOP Class.
        syntaxes: UIDs of the transfer syntaxes that it may be sent in; by default every one.
        options: which options of extended negotiation the handler honours.

    Raises:
        LocalProtocolError: there is no such model, or it has no C-GET.
    """
    chosen = model_of(model)
    if not chosen.get:
        raise LocalProtocolError(f"the model {chosen.name!r} has no C-GET")
    storage = SupportedSyntax(
        frozenset(transfer_syntaxes() if syntaxes is None else syntaxes), requestor_scu=True, requestor_scp=True
    )
    return Service(
        CGetRQ,
        _Get(handler, without_bulk_data=chosen is MODELS["no-bulk-data"]),
        {chosen.get: SupportedSyntax()},
        options=options,
        sub_operations=dict.fromkeys(storage_sop_classes() if sop_classes is None else sop_classes, storage),
    )


def move_service(
    handler: RetrieveHandler,
    destinations: Mapping[str, Node | tuple[str, int]] | Destinations,
    model: str = "study",
    *,
    ae_title: str | None = None,
    options: QueryOptions = NO_OPTIONS,
    timeouts: Timeouts | None = None,
    tls: Credentials | None = None,
    turns: Turns | None = None,
) -> Service:
    """Return the service that answers C-MOVE for an information model with the instances that a handler returns.

    They go to the move destination, over as many associations as their presentation contexts need, one after the other.
    Where one is lost, another one is tried for what remains, as long as that gets on.

    Args:
        handler: returns the instances.
        destinations: nodes, or hosts and ports, by AE title; or a function that finds one. Nobody else is sent anything.
        model: the information model, by name or SOP class UID.
        ae_title: our own; by default the one by which we were called.
        options: which options of extended negotiation the handler honours.
        timeouts: of the associations to move destinations, or `Limits`; by default the limits of the operation, but for
            `idle`, since we are who falls silent there.
        tls: who we are to those nodes that want TLS, and whom we believe; by default those that the system believes.
        turns: how many of these C-MOVEs send to one destination at a time, where several services share that; by default
            `MOVES_PER_DESTINATION`.

    Raises:
        LocalProtocolError: there is no such model, or it has no C-MOVE.
    """
    chosen = model_of(model)
    if not chosen.move:
        raise LocalProtocolError(f"the model {chosen.name!r} has no C-MOVE")
    find = destinations if callable(destinations) else _table(destinations)
    move = _Move(handler, find, ae_title, timeouts, tls or Credentials(), turns or Turns())
    return Service(CMoveRQ, move, {chosen.move: SupportedSyntax()}, options=options)


def _table(nodes: Mapping[str, Node | tuple[str, int]]) -> Destinations:
    def find(ae_title: str, _operation: Operation, /) -> Node | None:
        node = nodes.get(ae_title)
        return Node("destination", ae_title, *node) if isinstance(node, tuple) else node

    return find


class _Get:
    """Performs a C-GET with a user's handler."""

    def __init__(self, handler: RetrieveHandler, *, without_bulk_data: bool) -> None:
        self._handler = handler
        self._without_bulk_data = without_bulk_data

    async def __call__(self, operation: Operation) -> Conclusion:
        await operation.read_identifier()
        items, suboperations = await _gathered(self._handler, operation)
        assert operation.exchange is not None
        store: Store = operation.exchange.c_store
        if self._without_bulk_data:
            store = partial(_store_without_bulk_data, store)
        return await suboperations.concluded(suboperations.perform(deque(items), store))


class _Move:
    """Performs a C-MOVE with a user's handler."""

    def __init__(
        self,
        handler: RetrieveHandler,
        destinations: Destinations,
        ae_title: str | None,
        timeouts: Timeouts | None,
        tls: Credentials,
        turns: Turns,
    ) -> None:
        self._handler = handler
        self._destinations = destinations
        self._ae_title = ae_title
        self._timeouts = timeouts
        self._tls = tls
        self._turns = turns

    async def __call__(self, operation: Operation) -> Conclusion:
        await operation.read_identifier()
        command = operation.command
        assert isinstance(command, CMoveRQ)
        found = self._destinations(command.move_destination, operation)
        destination = await found if inspect.isawaitable(found) else found
        if destination is None:
            _log.warning(
                "%s asked for a C-MOVE to %r, which is no known node",
                operation.peer,
                command.move_destination,
                extra=about(peer=operation.peer, command=command),
            )
            raise DimseError(_DESTINATION_UNKNOWN, f"Move destination {command.move_destination} is unknown")
        items, suboperations = await _gathered(self._handler, operation)
        work = self._send_in_turn(operation, destination, items, suboperations)
        return await suboperations.concluded(work, grace=GRACE)

    async def _send_in_turn(
        self, operation: Operation, destination: Node, items: Sequence[Item], suboperations: _Suboperations
    ) -> None:
        async with self._turns.turn(destination):
            await self._send(operation, destination, items, suboperations)

    async def _send(
        self, operation: Operation, destination: Node, items: Sequence[Item], suboperations: _Suboperations
    ) -> None:
        originator = (operation.peer.calling_ae_title, operation.command.message_id)
        timeouts = operation.limits.changed(idle=None) if self._timeouts is None else self._timeouts
        for plan in plan_associations(items):
            left = deque(plan.files)
            while left and not suboperations.is_cancelled:
                stored = suboperations.stored
                try:
                    async with associate(
                        destination.host,
                        destination.port,
                        called_ae_title=destination.ae_title,
                        calling_ae_title=self._ae_title or operation.peer.called_ae_title,
                        contexts=plan.contexts,
                        timeouts=timeouts,
                        tls=credentials_for(destination, self._tls),
                    ) as association:
                        store = partial(association.c_store, move_originator=originator)
                        await suboperations.perform(left, store, lambda: association.is_open)
                except DicomNetworkError as error:
                    fields = about(peer=operation.peer, command=operation.command, error=error)
                    _log.warning(
                        "C-MOVE for %s to %s: %s", operation.peer, destination, printable(str(error)), extra=fields
                    )
                    suboperations.comment = f"{type(error).__name__} at the move destination"
                    if suboperations.stored == stored:  # it is not to be had, or does not get on
                        suboperations.give_up(left)


async def _gathered(handler: RetrieveHandler, operation: Operation) -> tuple[list[Item], _Suboperations]:
    """Return what a handler returns or yields, as what can be planned and sent; what cannot be has failed."""
    found = await called(handler, operation)
    if isinstance(found, AsyncIterable):
        instances: list[Instance] = [instance async for instance in found]
    elif isinstance(found, Iterable):
        instances = await in_any_thread(list, found) if isinstance(found, Iterator) else list(found)
    else:
        raise TypeError(f"a handler of C-GET or C-MOVE returns instances, not {type(found).__name__}")
    suboperations = _Suboperations(operation, len(instances))
    if all(isinstance(instance, InstanceFile | EncodedInstance) for instance in instances):
        items = cast("list[Item]", instances)
    else:
        items = await in_any_thread(_items, instances, suboperations)
    if operation.account is not None:
        operation.account.begin((item.sop_class_uid, item.sop_instance_uid) for item in items)
    return items, suboperations


def _items(instances: Iterable[Instance], suboperations: _Suboperations) -> list[Item]:
    items: list[Item] = []
    for instance in instances:
        try:
            items.append(_item(instance))
        except Exception as error:  # noqa: BLE001 - whatever pydicom meets in a data set
            suboperations.fail(_uid_of(instance), error)
    return items


def _uid_of(instance: Instance) -> str:
    """Return the SOP Instance UID of what may be no instance; "" where it has none that can be told."""
    with suppress(Exception):
        uid = str(getattr(instance, "SOPInstanceUID", ""))
        return uid if valid_uid(uid) else ""
    return ""


def _item(instance: Instance) -> Item:
    if isinstance(instance, InstanceFile | EncodedInstance):
        return instance
    if isinstance(instance, str | os.PathLike):
        return open_instance(instance, check=False)
    return encode_instance(instance)


@dataclass(slots=True)
class _Suboperations:
    """The sub-operations of a C-GET or C-MOVE: their counters, and the responses that tell them (PS3.4 §C.4.2.1.6-9)."""

    operation: Operation
    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)
    comment: str = ""
    is_cancelled: bool = False
    reason: str = ""  # why the first of them failed that did not get as far as the peer
    told: float = 0.0  # when the last Pending response went out, in the event loop's time

    @property
    def stored(self) -> int:
        """How many instances have arrived."""
        return self.completed + self.warning

    async def perform(self, left: deque[Item], store: Store, is_open: Callable[[], bool] = lambda: True) -> None:
        """Store the instances one after the other; those dealt with are taken from the queue.

        Args:
            left: the instances.
            store: stores one.
            is_open: whether there still is an association; an instance of ours may cost it, when it breaks off.

        Raises:
            AssociationError: the association they go out on ended; OperationTimeout, likewise.
        """
        while left and not self.is_cancelled:
            item = left.popleft()
            try:
                self._count(item, await store(item))
            except Exception as error:  # whatever the source of an instance raises is the failure of that instance
                self._fail(item, error)
                if isinstance(error, AssociationError | OperationTimeout) and not isinstance(error, NoAcceptedContext):
                    raise
            await self._tell()
            # Not before the first: of an association that is over already its error tells, and it has got nowhere.
            if not is_open():
                return

    def give_up(self, left: deque[Item]) -> None:
        """Count the instances as failed, and take them from the queue."""
        while left:
            self._fail(left.popleft())

    def fail(self, sop_instance_uid: str, error: Exception | None = None) -> None:
        """Count an instance as failed; where its UID is not known, it is not in the list of those that failed."""
        self.remaining -= 1
        self.failed += 1
        if sop_instance_uid:
            self.failed_uids.append(sop_instance_uid)
        if error is not None:
            reason = printable(str(error)) if isinstance(error, _WITHOUT_VALUES) else described(error)
            self.reason = self.reason or reason
            _log.debug("sub-operation for %s failed: %s", self.operation.peer, reason, extra=self._fields(error))

    async def concluded(self, work: Coroutine[Any, Any, None], *, grace: float | None = None) -> Conclusion:
        """Do the work, and return the final response.

        A C-CANCEL ends it after the sub-operation that has begun, the end of the association at once.

        Args:
            work: performs the sub-operations.
            grace: how long that sub-operation may still take, in seconds; None is for ever.
        """
        task = asyncio.get_running_loop().create_task(work)  # of its own: what cancels us does not cut a sub-operation
        try:
            await self._tell()
            while not (await asyncio.wait({task}, timeout=PATIENCE))[0]:
                await self._tell()
        except asyncio.CancelledError:
            self.is_cancelled = self.operation.is_cancelled
            if not self.is_cancelled:
                raise
            await asyncio.wait({task}, timeout=grace)
        finally:
            task.cancel()
            with CancelScope(shield=True):
                await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()
        if self.failed:
            total = self.stored + self.failed + self.remaining
            words = f", the first of ours because: {self.reason}" if self.reason else ""
            told = self.failed, total, self.operation.peer, words
            _log.warning("%d of %d sub-operations for %s failed%s", *told, extra=self._fields())
        return self._final(CANCEL if self.is_cancelled and self.remaining else self._status())

    def _fields(self, error: Exception | None = None) -> dict[str, object]:
        return about(peer=self.operation.peer, command=self.operation.command, error=error)

    def _count(self, item: Item, response: CStoreRSP) -> None:
        category = response.status.category
        if category is Category.SUCCESS:
            self.completed += 1
        elif category is Category.WARNING:
            self.warning += 1
        else:
            self._fail(item)
            return
        self.remaining -= 1
        if self.operation.account is not None:
            self.operation.account.enter(item.sop_instance_uid, item.sop_class_uid)

    def _fail(self, item: Item, error: Exception | None = None) -> None:
        self.fail(item.sop_instance_uid, error)
        if self.operation.account is not None:
            self.operation.account.enter(item.sop_instance_uid, item.sop_class_uid, succeeded=False)

    async def _tell(self) -> None:
        """Send a Pending response, unless the last one went out a moment ago."""
        now = asyncio.get_running_loop().time()
        if self.remaining and now - self.told >= PENDING_INTERVAL:
            self.told = now
            assert self.operation.exchange is not None
            await self.operation.exchange.respond(
                self.operation, Conclusion(PENDING, fields=self._counters(with_remaining=True))
            )

    def _status(self) -> int:
        if not self.failed and not self.warning:
            return SUCCESS
        return _SOME_FAILED if self.completed or self.warning else _UNABLE_TO_PERFORM

    def _final(self, status: int) -> Conclusion:
        identifier = None
        if self.failed_uids and status != SUCCESS:
            row = {"FailedSOPInstanceUIDList": self.failed_uids}
            identifier = encode_row(row, self.operation.transfer_syntax_uid)
        comment = self.comment if self.failed else ""
        return Conclusion(status, comment, self._counters(with_remaining=status == CANCEL), identifier)

    def _counters(self, *, with_remaining: bool) -> dict[str, object]:
        counters = {
            "number_of_completed_suboperations": min(self.completed, _MOST),
            "number_of_failed_suboperations": min(self.failed, _MOST),
            "number_of_warning_suboperations": min(self.warning, _MOST),
        }
        if with_remaining:
            counters["number_of_remaining_suboperations"] = min(self.remaining, _MOST)
        return {**counters}


async def _store_without_bulk_data(store: Store, item: Item) -> CStoreRSP:
    try:
        instance = await in_any_thread(_without_bulk_data, item)
    except InvalidInstance:
        raise
    except Exception as error:  # noqa: BLE001 - whatever pydicom meets in a damaged file
        raise InvalidInstance(f"its bulk data cannot be left out: {type(error).__name__}") from None
    return await store(instance)


def _without_bulk_data(item: Item) -> EncodedInstance:
    """Return an instance less its bulk data, in Explicit VR Little Endian (PS3.4 §Z.1.3)."""
    from pydicom import Dataset, dcmread
    from pydicom.uid import UID

    dataset: Dataset
    if isinstance(item, InstanceFile):
        dataset = dcmread(item.path, defer_size=1024)
    elif isinstance(item.data, AsyncIterable):
        raise InvalidInstance("an instance that comes in chunks cannot be sent without its bulk data")
    else:
        dataset = decode_data_set(item.data, item.transfer_syntax)
    for tag in list(dataset.keys()):
        if int(tag) in _BULK_DATA or int(tag) & 0xFF00FFFF in _REPEATING_BULK_DATA:
            del dataset[tag]
    for waveform in dataset.get("WaveformSequence") or ():
        waveform.pop("WaveformData", None)
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_VR_LITTLE_ENDIAN)
    data = encode_data_set(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
    return EncodedInstance(item.sop_class_uid, item.sop_instance_uid, EXPLICIT_VR_LITTLE_ENDIAN, data)
