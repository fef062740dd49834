"""Upper layers for tests: brought into any state, joined in memory, and what they did as values that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from aiodicom.upper_layer.items import MaximumLength, PresentationContextAC, PresentationContextRQ
from aiodicom.upper_layer.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    ControlPDU,
    PDataTF,
    PDUReader,
)
from aiodicom.upper_layer.provider import UpperLayer, UpperLayerEvent
from aiodicom.upper_layer.state_machine import Event, State

VERIFICATION: Final = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
MAXIMUM_LENGTH: Final = 16_384

REQUEST: Final = AAssociateRQ(
    "ACCEPTOR",
    "REQUESTOR",
    (PresentationContextRQ(1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),),
    (MaximumLength(MAXIMUM_LENGTH),),
)
ACCEPTANCE: Final = AAssociateAC(
    "ACCEPTOR",
    "REQUESTOR",
    (PresentationContextAC(1, 0, IMPLICIT_VR_LITTLE_ENDIAN),),
    (MaximumLength(MAXIMUM_LENGTH),),
)
REJECTION: Final = AAssociateRJ(1, 1, 3)
FRAGMENT: Final = PDV(1, is_command=True, is_last=True, data=b"fragment")
UNKNOWN_PDU: Final = b"\x42\x00\x00\x00\x00\x04\x00\x00\x00\x00"


def abort_bytes(source: int, reason: int) -> bytes:
    """An A-ABORT as PS3.8 Table 9-26 lays it out."""
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))


def rejection_bytes(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ as PS3.8 Table 9-21 lays it out."""
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


# Each event of Table 9-10, made to happen.
LOCAL: Final[dict[Event, Callable[[UpperLayer], None]]] = {
    Event.EVT1: lambda upper_layer: upper_layer.associate(REQUEST),
    Event.EVT2: lambda upper_layer: upper_layer.transport_connected(),
    Event.EVT5: lambda upper_layer: upper_layer.transport_connected(),
    Event.EVT7: lambda upper_layer: upper_layer.accept(ACCEPTANCE),
    Event.EVT8: lambda upper_layer: upper_layer.reject(REJECTION),
    Event.EVT9: lambda upper_layer: upper_layer.send_pdata([FRAGMENT]),
    Event.EVT11: lambda upper_layer: upper_layer.release(),
    Event.EVT14: lambda upper_layer: upper_layer.release_response(),
    Event.EVT15: lambda upper_layer: upper_layer.abort(),
    Event.EVT17: lambda upper_layer: upper_layer.transport_closed(),
    Event.EVT18: lambda upper_layer: upper_layer.artim_expired(),
}
RECEIVED: Final[dict[Event, bytes]] = {
    Event.EVT3: ACCEPTANCE.encode(),
    Event.EVT4: REJECTION.encode(),
    Event.EVT6: REQUEST.encode(),
    Event.EVT10: PDataTF((FRAGMENT,)).encode(),
    Event.EVT12: AReleaseRQ().encode(),
    Event.EVT13: AReleaseRP().encode(),
    Event.EVT16: AAbort(0, 0).encode(),
    Event.EVT19: UNKNOWN_PDU,
}

# The way into each state, for each end that can be in it.
_ACCEPTED: Final = (Event.EVT5, Event.EVT6, Event.EVT7)
_REQUESTED: Final = (Event.EVT1, Event.EVT2, Event.EVT3)
WAYS: Final[dict[tuple[str, State], tuple[Event, ...]]] = {
    ("acceptor", State.STA1): (),
    ("acceptor", State.STA2): _ACCEPTED[:1],
    ("acceptor", State.STA3): _ACCEPTED[:2],
    ("acceptor", State.STA6): _ACCEPTED,
    ("acceptor", State.STA7): (*_ACCEPTED, Event.EVT11),
    ("acceptor", State.STA8): (*_ACCEPTED, Event.EVT12),
    ("acceptor", State.STA10): (*_ACCEPTED, Event.EVT11, Event.EVT12),
    ("acceptor", State.STA12): (*_ACCEPTED, Event.EVT11, Event.EVT12, Event.EVT13),
    ("acceptor", State.STA13): (*_ACCEPTED[:2], Event.EVT8),
    ("requestor", State.STA4): _REQUESTED[:1],
    ("requestor", State.STA5): _REQUESTED[:2],
    ("requestor", State.STA6): _REQUESTED,
    ("requestor", State.STA7): (*_REQUESTED, Event.EVT11),
    ("requestor", State.STA8): (*_REQUESTED, Event.EVT12),
    ("requestor", State.STA9): (*_REQUESTED, Event.EVT11, Event.EVT12),
    ("requestor", State.STA11): (*_REQUESTED, Event.EVT11, Event.EVT12, Event.EVT14),
    ("requestor", State.STA13): (*_REQUESTED, Event.EVT12, Event.EVT14),
}


def drive(upper_layer: UpperLayer, event: Event) -> None:
    """Let an event of Table 9-10 happen to it."""
    if event in RECEIVED:
        upper_layer.receive_data(RECEIVED[event])
    else:
        LOCAL[event](upper_layer)


def upper_layer_in(state: State, role: str = "acceptor", *, maximum_length: int = MAXIMUM_LENGTH) -> UpperLayer:
    """One end in that state, with nothing left to send or to tell."""
    upper_layer = UpperLayer(maximum_length=maximum_length)
    for event in WAYS[role, state]:
        drive(upper_layer, event)
    assert upper_layer.state is state
    upper_layer.data_to_send()
    upper_layer.events()
    return upper_layer


def sent(upper_layer: UpperLayer) -> bytes:
    """What it has to send, as one string of bytes."""
    return b"".join(upper_layer.data_to_send())


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that can be seen of an upper layer after something happened to it."""

    sent: bytes
    events: tuple[UpperLayerEvent, ...]
    state: State
    artim_running: bool
    artim_starts: int
    must_close: bool


def outcome(upper_layer: UpperLayer) -> Outcome:
    """What it did, and where it stands."""
    return Outcome(
        sent(upper_layer),
        tuple(join_pieces(upper_layer.events())),
        upper_layer.state,
        upper_layer.artim_running,
        upper_layer.artim_starts,
        upper_layer.must_close,
    )


def join_pieces(events: Iterable[UpperLayerEvent]) -> list[UpperLayerEvent]:
    """Join the pieces in which a PDV came: neighbours of one context and kind, the last of which may be the last."""
    joined: list[UpperLayerEvent] = []
    for event in events:
        before = joined[-1] if joined else None
        if isinstance(event, PDV):
            if (
                isinstance(before, PDV)
                and not before.is_last
                and (before.context_id, before.is_command) == (event.context_id, event.is_command)
            ):
                joined.pop()
                event = PDV(event.context_id, event.is_command, event.is_last, bytes(before.data) + event.data)
            else:
                event = PDV(event.context_id, event.is_command, event.is_last, bytes(event.data))
        joined.append(event)
    return joined


def read(data: bytes | memoryview, *, maximum_length: int = 0) -> list[ControlPDU | PDV]:
    """What a reader makes of the bytes, given at once."""
    return list(PDUReader(maximum_length).feed(memoryview(data)))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The bytes cut at those places."""
    borders = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


class Joined:
    """Both ends of a transport connection, in memory: what one sends reaches the other when it is pumped."""

    def __init__(self, *, maximum_length: int = MAXIMUM_LENGTH) -> None:
        self.requestor = UpperLayer(maximum_length=maximum_length)
        self.acceptor = UpperLayer(maximum_length=maximum_length)
        self.told: dict[UpperLayer, list[UpperLayerEvent]] = {self.requestor: [], self.acceptor: []}
        self.wire: dict[UpperLayer, bytearray] = {self.requestor: bytearray(), self.acceptor: bytearray()}
        self.sent: dict[UpperLayer, bytearray] = {self.requestor: bytearray(), self.acceptor: bytearray()}
        self.carried: list[tuple[UpperLayer, bytes]] = []  # what arrived, and who had sent it
        self.closed = False

    @property
    def ends(self) -> Sequence[UpperLayer]:
        return self.requestor, self.acceptor

    def peer(self, end: UpperLayer) -> UpperLayer:
        return self.acceptor if end is self.requestor else self.requestor

    def connect(self) -> None:
        """Open the transport connection that the requestor has asked for."""
        self.acceptor.transport_connected()
        self.requestor.transport_connected()
        self.collect()

    def establish(self) -> Joined:
        """Make the association of `REQUEST` and `ACCEPTANCE`."""
        self.requestor.associate(REQUEST)
        self.connect()
        self.pump()
        self.acceptor.accept(ACCEPTANCE)
        self.pump()
        return self

    def collect(self) -> None:
        """Put on the wire what either end has to send, and note what it has to tell."""
        for end in self.ends:
            data = sent(end)
            self.wire[end] += data
            self.sent[end] += data
            self.told[end] += join_pieces(end.events())

    def carry(self, sender: UpperLayer, size: int) -> None:
        """Let that many bytes of what the sender has sent arrive."""
        self.collect()
        data, self.wire[sender] = bytes(self.wire[sender][:size]), self.wire[sender][size:]
        if data and not self.closed:
            self.carried.append((sender, data))
            self.peer(sender).receive_data(data)
        self.collect()

    def pump(self) -> None:
        """Carry bytes in both directions until there are none."""
        self.collect()
        while any(self.wire.values()):
            for end in self.ends:
                self.carry(end, len(self.wire[end]))

    def close(self) -> None:
        """Close the transport connection, which both ends learn."""
        self.closed = True
        for end in self.ends:
            end.transport_closed()
        self.collect()
