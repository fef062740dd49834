"""Faults to plant in a server of ours: each takes one guard away, and names the cases that must see that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from aiodicom import Archive, Association, Node, Observer, Operation, Server
from aiodicom.admission import Doorkeeper
from aiodicom.archive import services, store
from aiodicom.dimse.fragments import Assembler, DataFragment, ReceivedCommand
from aiodicom.dimse.status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, UNRECOGNIZED_OPERATION
from aiodicom.errors import AssociationRejected, RemoteProtocolError
from aiodicom.handlers import Dispatcher
from aiodicom.limits import Limits
from aiodicom.operation import Conclusion
from aiodicom.terms import Peer
from aiodicom.transport import Connection
from aiodicom.uids import APPLICATION_CONTEXT_NAME
from aiodicom.upper_layer import items, pdu
from aiodicom.upper_layer.items import PresentationContextRQ
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ
from aiodicom.upper_layer.provider import UpperLayer
from aiodicom.upper_layer.state_machine import AA_6, TABLE, Event, State
from tests.conformance.hosting import CAP, IMPATIENT, LIMITS, READER, READER_NODE

NEVER: Final = 1000.0  # seconds
Plant: TypeAlias = Callable[[pytest.MonkeyPatch], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A guard that is missing.

    Args:
        seen_by: the cases that must differ; all others must not.
        plant: takes it away; returns options of `hosted`.
    """

    seen_by: str
    plant: Plant


def _instead(target: str, value: object) -> Plant:
    return lambda monkeypatch: monkeypatch.setattr(target, value)


def _options(**options: Any) -> Plant:  # noqa: ANN401
    return lambda _: options


def _limits(limits: Limits = LIMITS, **changes: Any) -> Plant:  # noqa: ANN401
    """Other limits, of which the suite is not told."""
    told = {"artim": limits.artim, "stall": limits.stall, "idle": limits.idle, "closing": limits.close}
    return _options(limits=limits.changed(**changes), target={**told, "handshake": limits.handshake})


# The upper layer.


def lenient_split(data: memoryview) -> Any:  # noqa: ANN401
    """Items that end where their PDU does, whatever their length says."""
    position = 0
    while len(data) - position >= 4:
        item_type, length = data[position], int.from_bytes(data[position + 2 : position + 4], "big")
        yield item_type, data[position + 4 : position + 4 + length]
        position += 4 + length


def lenient_field(data: memoryview, position: int) -> tuple[memoryview, int]:
    length = int.from_bytes(data[position : position + 2], "big")
    return data[position + 2 : position + 2 + length], min(len(data), position + 2 + length)


def lenient_context(data: memoryview) -> tuple[int, list[tuple[int, memoryview]]]:
    return data[0], list(items.split_items(data[4:]))


def _lenient_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "split_items", lenient_split)
    monkeypatch.setattr(pdu, "split_items", lenient_split)


def _unlike_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(cls: type[AAssociateRQ], body: memoryview) -> AAssociateRQ:
        version, called, calling, found = pdu._split_associate(body)
        contexts = tuple(PresentationContextRQ.decode(item) for kind, item in found if kind == 0x20)
        unique = tuple({context.context_id: context for context in contexts}.values())
        return cls(called, calling, unique, pdu._user_information(found), pdu._application_context(found), version)

    monkeypatch.setattr(AAssociateRQ, "decode", classmethod(decode))


def _any_syntaxes(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(cls: type[PresentationContextRQ], data: memoryview) -> PresentationContextRQ:
        context_id, syntaxes = items._split_context(data)
        found = list(syntaxes)
        abstract = [items.decode_uid(body) for kind, body in found if kind == 0x30] or ["1.2.3"]
        return cls(context_id, abstract[0], tuple(items.decode_uid(body) for kind, body in found if kind == 0x40))

    monkeypatch.setattr(PresentationContextRQ, "decode", classmethod(decode))


def _no_context_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(found: list[tuple[int, memoryview]]) -> str:
        with suppress(RemoteProtocolError):
            return original(found)
        return APPLICATION_CONTEXT_NAME

    original = pdu._application_context
    monkeypatch.setattr(pdu, "_application_context", name)


def _any_pdata_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(reader: pdu.PDUReader, header: memoryview) -> None:
        if header[0] == 0x04 and int.from_bytes(header[2:6], "big") < 6:
            reader._pdu_left = int.from_bytes(header[2:6], "big")
        else:
            original(reader, header)

    original = pdu.PDUReader._begin_pdu
    monkeypatch.setattr(pdu.PDUReader, "_begin_pdu", begin)


def _any_pdv_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(reader: pdu.PDUReader, header: memoryview) -> PDV | None:
        length = min(max(int.from_bytes(header[:4], "big"), 2), reader._pdu_left - 4)
        return original(reader, memoryview(length.to_bytes(4, "big") + bytes(header[4:])))

    original = pdu.PDUReader._begin_pdv
    monkeypatch.setattr(pdu.PDUReader, "_begin_pdv", begin)


def _silent_ones_stay(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    def come(doorkeeper: Doorkeeper, visitor: Any) -> None:  # noqa: ANN401
        original(doorkeeper, visitor)
        doorkeeper.seat(visitor)

    original = Doorkeeper.come
    monkeypatch.setattr(Doorkeeper, "come", come)
    return {"limits": LIMITS.changed(maximum_connections=12)}


def _artim_anew(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    def updated(connection: Connection, nbytes: int) -> None:
        original(connection, nbytes)
        if connection.upper_layer.state is State.STA2:
            connection._follow_artim()

    original = Connection.buffer_updated
    monkeypatch.setattr(Connection, "buffer_updated", updated)
    return {"limits": IMPATIENT}


class AnyAssembler(Assembler):
    """Takes fragments as they come, and says nothing of what it cannot understand."""

    def receive(self, pdv: PDV) -> ReceivedCommand | DataFragment | None:
        try:
            return super().receive(pdv)
        except RemoteProtocolError:
            return None


class Undisturbed(Server):
    """Goes on accepting while it stops."""

    def check(self, peer: Peer) -> None:
        is_stopping, self.is_stopping = self.is_stopping, False
        try:
            super().check(peer)
        finally:
            self.is_stopping = is_stopping


# Operations.


def any_class(dispatcher: Dispatcher, operation: Operation) -> int | None:
    status = _status_at_once(dispatcher, operation)
    if status != SOP_CLASS_NOT_SUPPORTED:
        return status
    found = dispatcher._handlers.get((type(operation.command), operation.context.abstract_syntax))
    return UNRECOGNIZED_OPERATION if found is None else SUCCESS


def any_operation(dispatcher: Dispatcher, operation: Operation) -> int | None:
    status = _status_at_once(dispatcher, operation)
    return SUCCESS if status == UNRECOGNIZED_OPERATION else status


_status_at_once = Dispatcher.status_at_once


def any_instance(header: Any, _class: str, _instance: str, file: Any) -> Any:  # noqa: ANN401
    return _entry_of(header, header.text(store._SOP_CLASS_UID), header.text(store._SOP_INSTANCE_UID), file)


_entry_of = store.entry_of


def _slow_matcher(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(performer: Any, query: Any, operation: Any) -> AsyncIterator[Conclusion]:  # noqa: ANN401
        if str(operation.identifier.get("PatientName", "")).count("*") > 4:
            await asyncio.sleep(NEVER)
        async for answer in original(performer, query, operation):
            yield answer

    original = services._Performer._answers
    monkeypatch.setattr(services._Performer, "_answers", answers)


def _first_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(archive: Archive, operation: Operation) -> None:
        uid = operation.command.affected_sop_instance_uid  # type: ignore[attr-defined]
        for file in Path(archive.folder).rglob(f"{uid}.dcm"):
            file.unlink()
        await original(archive, operation)

    original = Archive.store
    monkeypatch.setattr(Archive, "store", keep)


# What one peer does to others, and what it leaves.


class Crosstalk(Observer):
    """Aborts every association where one is rejected."""

    def __init__(self) -> None:
        self.associations: set[Association] = set()
        self.aborting: set[asyncio.Task[None]] = set()

    def association_opened(self, association: Association) -> None:
        self.associations.add(association)

    def association_refused(self, _peer: Peer | None, error: Exception) -> None:
        if isinstance(error, AssociationRejected):
            loop = asyncio.get_running_loop()
            self.aborting.update(loop.create_task(each.abort()) for each in self.associations)
            self.associations.clear()


class Hoarder(Observer):
    """Keeps a descriptor open for each association that is rejected."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def __del__(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def association_refused(self, _peer: Peer | None, error: Exception) -> None:
        if isinstance(error, AssociationRejected):
            self.descriptors.append(os.open(os.devnull, os.O_RDONLY))


class Forgetful(Observer):
    """Leaves a task behind for each association that is rejected."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def association_refused(self, _peer: Peer | None, error: Exception) -> None:
        if isinstance(error, AssociationRejected):
            self.tasks.append(asyncio.get_running_loop().create_task(asyncio.sleep(NEVER)))


_REJECTING: Final = "T04/Sta3-Evt8 T08 T09 T10 T36"
FAULTS: Final[Mapping[str, Fault]] = {
    "the length of an A-ASSOCIATE-RQ": Fault("T01", _limits(maximum_associate_pdu=1 << 33)),
    "the length of a P-DATA-TF": Fault(
        "T02",
        _instead("aiodicom.server.UpperLayer", lambda **others: UpperLayer(**{**others, "maximum_length": 0})),
    ),
    "the type of a PDU": Fault(
        "T03/unknown T03/established T04/Sta2-Evt19 T04/Sta3-Evt19 T04/Sta6-Evt19 T04/Sta8-Evt19",
        _instead("aiodicom.upper_layer.pdu._check_type", lambda _: None),
    ),
    "the state where data comes": Fault(
        "T04/Sta2-Evt10",
        _instead("aiodicom.upper_layer.provider._MAY_RECEIVE_DATA", (State.STA2, State.STA6, State.STA7)),
    ),
    "a cell of the table": Fault(
        "T04/Sta6-Evt6",
        lambda monkeypatch: monkeypatch.setitem(TABLE, (State.STA6, Event.EVT6), AA_6),
    ),
    "odd presentation context IDs": Fault(
        "T05/zero-id T05/even-id", _instead("aiodicom.upper_layer.items._split_context", lenient_context)
    ),
    "presentation context IDs of their own": Fault("T05/duplicate-id T05/too-many T05/no-context", _unlike_contexts),
    "the length of an item": Fault("T05/context-overrun", _lenient_items),
    "the length of a field": Fault(
        "T05/identity-overrun", _instead("aiodicom.upper_layer.items._take_prefixed", lenient_field)
    ),
    "syntaxes": Fault("T05/no-abstract-syntax T05/no-transfer-syntax", _any_syntaxes),
    "an application context": Fault("T05/no-application-context", _no_context_name),
    "what the upper layer supports": Fault(
        "T06 T07", _instead("aiodicom.upper_layer.provider._unsupported", lambda _: None)
    ),
    "the characters of an AE title": Fault(
        "T36 T08/calling T04/Sta3-Evt8",
        lambda monkeypatch: (
            monkeypatch.setattr("aiodicom.server.valid_ae_title", lambda _: True) or {"calling_ae_titles": None}
        ),
    ),
    "calling AE titles": Fault("T08/calling", _options(calling_ae_titles=None)),
    "called AE titles": Fault("T08/called", _options(require_called_ae_title=False)),
    "user identities": Fault("T09", _options(admit=None)),
    "the limit of associations": Fault("T10", _limits(maximum_associations=1000)),
    "the stop": Fault("T11", _options(server_class=Undisturbed)),
    "ARTIM": Fault("T12 T13", _limits(IMPATIENT, artim=NEVER)),
    "an ARTIM that is absolute": Fault("T13", _artim_anew),
    "the end of a stall": Fault("T14", _limits(IMPATIENT, stall=NEVER, minimum_rate=0)),
    "the rate floor": Fault("T14/floor T14/floor-pdu", _limits(IMPATIENT, minimum_rate=0)),
    "the end of idleness": Fault("T15", _limits(IMPATIENT, idle=None)),
    "the shortest P-DATA-TF": Fault("T16/empty T16/short", _any_pdata_length),
    "the length of a PDV": Fault("T16/length-0 T16/length-1 T16/overrun", _any_pdv_length),
    "empty fragments": Fault("T16/endless", _limits(maximum_tiny_pdvs=1 << 30)),
    "the order of fragments": Fault(
        "T04/Sta6-Evt15 T17 T21 T22/length T22/truncated T22/no-id T22/no-field T22/twice",
        _instead("aiodicom.association.Assembler", AnyAssembler),
    ),
    "a release in the middle of a message": Fault(
        "T18/store", _instead("aiodicom.operation.IncomingDataSet.fail", lambda *_: None)
    ),
    "the close after a release": Fault("T18/never-closes", _limits(IMPATIENT, close=NEVER)),
    "the length of a command set": Fault("T21", _limits(maximum_command_set=1 << 30)),
    "responses to nothing": Fault("T22/response", _instead("aiodicom.invoking.Invoker.check", lambda *_: None)),
    "operations": Fault("T23", _instead("aiodicom.handlers.Dispatcher.status_at_once", any_operation)),
    "SOP classes": Fault("T24", _instead("aiodicom.handlers.Dispatcher.status_at_once", any_class)),
    "Message IDs": Fault("T25", _instead("aiodicom.performing.Performer._is_outstanding", lambda *_: False)),
    "UIDs": Fault("T26", _instead("aiodicom.archive.store.valid_uid", lambda _: True)),
    "UIDs in the data set": Fault("T27", _instead("aiodicom.archive.store.entry_of", any_instance)),
    "matching in time": Fault("T33", _slow_matcher),
    "the first instance": Fault("T38/other", _options(archive_options={"on_duplicate": "replace"})),
    "the first instance until the second one is there": Fault("T38/other T39", _first_removed),
    "the length of a list of UIDs": Fault("T34/long-list", _limits(maximum_uids=1 << 30)),
    "the length of an instance": Fault("T29", _options(target={"instance_cap": CAP})),
    "the depth of sequences": Fault("T31/depth T31/identifier-depth", _limits(maximum_depth=1000)),
    "the number of elements": Fault("T31/elements T31/items", _limits(maximum_elements=1 << 30)),
    "destinations": Fault(
        "T35/unknown",
        _options(nodes=[READER_NODE, Node("x", "NOWHERE-KNOWN", "127.0.0.1", 104)]),
    ),
    "rights": Fault("T41", _options(nodes=[Node("reader", READER, "127.0.0.1", 104)])),
    "room for those who speak DICOM": Fault("T03/held T10", _silent_ones_stay),
    "other peers": Fault(_REJECTING, lambda _: {"observers": [Crosstalk()]}),
    "descriptors": Fault(_REJECTING, lambda _: {"observers": [Hoarder()]}),
    "tasks": Fault(_REJECTING, lambda _: {"observers": [Forgetful()]}),
}
"""By what is guarded."""
