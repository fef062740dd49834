"""Z1 the PDUs, Z2 the state machine, Z8 the items of the User Information: bytes into the upper layer."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final, TypeAlias

from aiodicom.errors import LocalProtocolError, RemoteProtocolError
from aiodicom.query import options_of
from aiodicom.upper_layer.items import (
    INVALID_PARAMETER_VALUE,
    ImplementationVersionName,
    PresentationContextRQ,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserInformationItem,
    decode_user_information,
)
from aiodicom.upper_layer.pdu import PDV, UNRECOGNIZED_PDU, AAbort, AAssociateAC, AAssociateRQ, ControlPDU, PDUReader
from aiodicom.upper_layer.presentation import SupportedSyntax, accepted_contexts, negotiate
from aiodicom.upper_layer.provider import UpperLayer, UpperLayerEvent
from aiodicom.upper_layer.state_machine import TABLE, Event, State
from tests.fuzz.target import expect
from tests.upper_layer.joined import ACCEPTANCE, FRAGMENT, MAXIMUM_LENGTH, REJECTION, REQUEST, cut, join_pieces

Refusal: TypeAlias = tuple[int, int, str]


# ---- Z1


def read(chunks: Iterable[bytes]) -> tuple[list[ControlPDU | PDV], Refusal | None]:
    """What a reader makes of the chunks, and what it refuses them for (I1: nothing else may be raised)."""
    reader = PDUReader(MAXIMUM_LENGTH)
    received: list[ControlPDU | PDV] = []
    try:
        for chunk in chunks:
            received += reader.feed(memoryview(chunk))
    except RemoteProtocolError as error:
        return received, (error.source, error.reason, str(error))
    return received, None


def pdus(data: bytes) -> None:
    """Every control PDU that was taken is the same when it is sent on (I6); nothing comes out of nothing (I5)."""
    received, refusal = read((data,))
    expect(len(received) <= len(data), "I5: more PDUs than bytes")
    expect(refusal is None or (refusal[0] == 2 and refusal[1] in (1, 6)), "the reason of an abort", refusal)
    for each in received:
        if not isinstance(each, PDV):
            round_trip(each)


def pdus_in_pieces(data: bytes) -> None:
    """However the bytes are cut, the same comes out (I3)."""
    received, refusal = read((data,))
    whole = join_pieces(received), refusal
    for chunks in cuts(data):
        received, refusal = read(chunks)
        expect((join_pieces(received), refusal) == whole, "I3: another cut, other PDUs")


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """`data` byte by byte, and cut at places that only it decides."""
    yield [data[place : place + 1] for place in range(len(data))]
    chance = random.Random(zlib.crc32(data))
    yield cut(data, sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(8))))


def round_trip(pdu: ControlPDU) -> None:
    """Encoded and decoded again it is the same, unless it is what we never send."""
    try:
        encoded = pdu.encode()
    except LocalProtocolError:
        return
    again, refusal = read((encoded,))
    expect(refusal is None and len(again) == 1, "I6: our own PDU is refused", pdu, refusal)
    if not _has_version_name(pdu):
        expect(again[0] == pdu, "I6: another PDU after a round trip", pdu, again)
        expect(
            not isinstance(again[0], PDV) and again[0].encode() == encoded, "I6: other bytes after a round trip", pdu
        )


def _has_version_name(pdu: ControlPDU) -> bool:
    # Of it only 16 characters in ASCII are ever sent.
    return isinstance(pdu, AAssociateRQ | AAssociateAC) and any(
        isinstance(item, ImplementationVersionName) for item in pdu.user_information
    )


# ---- Z8

SUPPORTED: Final = {
    uid: SupportedSyntax(requestor_scu=scu, requestor_scp=scp)
    for uid, scu, scp in (("1.2.840.10008.1.1", True, False), ("1.2.840.10008.5.1.4.1.1.2", True, True))
}
PROPOSED: Final = tuple(
    PresentationContextRQ(2 * index + 1, uid, ("1.2.840.10008.1.2",)) for index, uid in enumerate(SUPPORTED)
)


def user_information(data: bytes) -> None:
    """Items are taken or refused, and negotiated without an error of another kind (I1, I6)."""
    try:
        items = decode_user_information(memoryview(data))
    except RemoteProtocolError as error:
        expect((error.source, error.reason) == (2, 6), "the reason of an abort")
        return
    _same_items(items)
    roles = [item for item in items if isinstance(item, RoleSelection)]
    if roles:
        negotiation = negotiate(PROPOSED, roles, SUPPORTED)
        asked = {role.sop_class_uid: role for role in roles}
        for role in negotiation.roles:
            expect(role.scu_role <= asked[role.sop_class_uid].scu_role, "a role that was not asked for")
            expect(role.scp_role <= asked[role.sop_class_uid].scp_role, "a role that was not asked for")
        accepted_contexts(PROPOSED, negotiation.roles, negotiation.answers, roles)
    for item in items:
        if isinstance(item, SOPClassExtendedNegotiation):
            options_of(item).agree(item)


def _same_items(items: tuple[UserInformationItem, ...]) -> None:
    for item in items:
        try:
            encoded = item.encode()
        except LocalProtocolError:
            continue
        (again,) = decode_user_information(memoryview(encoded))
        if isinstance(item, ImplementationVersionName):
            continue  # of which only 16 characters in ASCII are ever sent
        expect(again == item and again.encode() == encoded, "I6: another item", item, again)
        if isinstance(item, UserIdentity):
            expect(repr(item) == repr(replace(item, primary_field=b"", secondary_field=b"")), "an identity shows")


def user_information_in_a_request(data: bytes) -> None:
    """As part of a request the items are taken, or refused, just as they are by themselves."""
    if len(data) > 0xFFFF:
        return
    try:
        alone: tuple[UserInformationItem, ...] | None = decode_user_information(memoryview(data))
    except RemoteProtocolError:
        alone = None
    empty = AAssociateRQ("A", "B", REQUEST.presentation_contexts).encode()
    body = empty[6:-2] + len(data).to_bytes(2, "big") + data
    received, refusal = read((empty[:2] + len(body).to_bytes(4, "big") + body,))
    if alone is None:
        expect(refusal is not None, "malformed items in a request that is taken")
    else:
        expect(isinstance(received[0], AAssociateRQ) and received[0].user_information == alone, "other items")


# ---- Z2

RECEIVE: Final = 0
_LOCAL: Final[tuple[tuple[Event, Callable[[UpperLayer], None]], ...]] = (
    (Event.EVT1, lambda machine: machine.associate(REQUEST)),
    (Event.EVT2, lambda machine: machine.transport_connected()),
    (Event.EVT7, lambda machine: machine.accept(ACCEPTANCE)),
    (Event.EVT8, lambda machine: machine.reject(REJECTION)),
    (Event.EVT9, lambda machine: machine.send_pdata((FRAGMENT,))),
    (Event.EVT11, lambda machine: machine.release()),
    (Event.EVT14, lambda machine: machine.release_response()),
    (Event.EVT15, lambda machine: machine.abort()),
    (Event.EVT17, lambda machine: machine.transport_closed()),
    (Event.EVT18, lambda machine: machine.artim_expired()),
)
# What asks nothing of the state: where the table has nothing for it, nothing is done.
_ALWAYS_ALLOWED: Final = frozenset({Event.EVT15, Event.EVT17, Event.EVT18})
LOCAL: Final = {event: index + 1 for index, (event, _) in enumerate(_LOCAL)}


def script(*steps: bytes | Event) -> bytes:
    """Encode what happens to a machine: what it receives, and what its owner and its timer do."""
    return b"".join(
        bytes((LOCAL[step],))
        if isinstance(step, Event)
        else b"".join(bytes((RECEIVE, len(piece))) + piece for piece in cut(step, range(255, len(step), 255)))
        for step in steps
    )


def steps_of(data: bytes) -> Iterator[bytes | int]:
    """Decode a script: bytes that are received, or the number of a local event; adjoining bytes come as one."""
    position, received = 0, b""
    while position < len(data):
        operation = data[position] % (len(_LOCAL) + 1)
        position += 1
        if operation == RECEIVE:
            length = data[position] if position < len(data) else 0
            received += data[position + 1 : position + 1 + length]
            position += 1 + length
            continue
        if received:
            yield received
            received = b""
        yield operation - 1
    if received:
        yield received


class _Driven:
    # A machine, what it sent and indicated, and how often its connection was closed.

    def __init__(self) -> None:
        self.machine = UpperLayer(maximum_length=MAXIMUM_LENGTH)
        self.sent: list[bytes] = []
        self.aborts = 0
        self.indicated: list[UpperLayerEvent] = []
        self.machine.trace = self._trace
        self.was_open = False

    def _trace(self, is_sent: bool, pdu: ControlPDU | PDV) -> None:
        self.aborts += is_sent and isinstance(pdu, AAbort)

    @property
    def is_over(self) -> bool:
        return self.was_open and self.machine.state is State.STA1

    def receive(self, chunk: bytes) -> None:
        machine = self.machine
        silent = machine.state in (State.STA1, State.STA4, State.STA13)
        machine.receive_data(chunk)
        self._look()
        expect(not (silent and self._news), "I7: the peer is still heard", machine.state)

    def do(self, index: int) -> None:
        event, act = _LOCAL[index]
        machine, state = self.machine, self.machine.state
        if event is Event.EVT2 and state is not State.STA4:
            event = Event.EVT5
        allowed = (state, event) in TABLE
        try:
            act(machine)
        except LocalProtocolError:
            expect(not allowed and event not in _ALWAYS_ALLOWED, "I1: refused", event, state)
            expect(machine.state is state, "I2: what is refused changes the state", event, state)
        else:
            expect(allowed or event in _ALWAYS_ALLOWED, "I1: taken", event, state)
            expect(allowed or machine.state is state, "I1: it changes the state", event, state)
        self._look()

    def _look(self) -> None:
        machine = self.machine
        self._news = machine.events()
        self.indicated += self._news
        self.sent += map(bytes, machine.data_to_send())
        self.was_open = self.was_open or machine.state not in (State.STA1, State.STA4)
        expect(self.aborts <= 1, "I7: more than one A-ABORT")
        expect(machine.artim_running <= (machine.state in (State.STA2, State.STA13)), "the ARTIM timer runs elsewhere")

    def end(self) -> None:
        machine = self.machine
        machine.abort()
        machine.transport_closed()
        self._look()
        expect(machine.state is State.STA1, "I7: closed, but not in Sta1", machine.state)
        machine.receive_data(bytes(1024))
        self._look()
        expect(not self._news and not machine.data_to_send(), "I2: input is taken after the end")
        error = machine.protocol_error
        if error is not None and error.reason in (UNRECOGNIZED_PDU, INVALID_PARAMETER_VALUE):
            expect(not machine.inside_pdu, "I2: what follows an error is kept")

    @property
    def outcome(self) -> tuple[object, ...]:
        return b"".join(self.sent), join_pieces(self.indicated), self.machine.state, self.machine.must_close


def machine(data: bytes) -> None:
    """Every sequence of events leads through the states of the table, and back to Sta1 (I1, I2, I7)."""
    _drive(steps_of(data)).end()


def machine_in_pieces(data: bytes) -> None:
    """However what is received is cut, the machine does the same (I3)."""
    whole = _drive(steps_of(data)).outcome
    pieces = (
        piece
        for step in steps_of(data)
        for piece in ((step,) if isinstance(step, int) else (step[place : place + 1] for place in range(len(step))))
    )
    expect(_drive(pieces).outcome == whole, "I3: another cut, another end")


def _drive(steps: Iterable[bytes | int]) -> _Driven:
    driven = _Driven()
    for step in steps:
        if driven.is_over:
            break  # a machine is for one association
        if isinstance(step, int):
            driven.do(step)
        else:
            driven.receive(step)
    return driven
