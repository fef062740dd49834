"""The upper layer service provider (PS3.8 §7 and §9.2): the state machine put to work, without a socket and a clock.

Whoever owns the transport connection gives `receive_data` what arrived, makes the requests, and after each such call
has three duties: write out what `data_to_send()` returns, act upon `events()`, follow `artim_running` and `must_close`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiodicom.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from aiodicom.limits import DEFAULT_LIMITS, Limits
from aiodicom.uids import APPLICATION_CONTEXT_NAME
from aiodicom.upper_layer.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    ControlPDU,
    PDUReader,
)
from aiodicom.upper_layer.state_machine import (
    AE_6_REJECT,
    AR_8,
    AR_8_ACCEPTOR,
    TABLE,
    Action,
    Effect,
    Event,
    State,
)


@dataclass(frozen=True, slots=True)
class ProviderAbort:
    """A-P-ABORT indication (PS3.8 §7.4): the upper layer itself ended the association.

    Args:
        reason: what our A-ABORT said (PS3.8 Table 9-26); None where the transport connection was lost.
        detail: what went wrong, in words.
    """

    reason: int | None
    detail: str


UpperLayerEvent: TypeAlias = ControlPDU | PDV | ProviderAbort

_RECEIVED: Final[dict[type[ControlPDU], Event]] = {
    AAssociateAC: Event.EVT3,
    AAssociateRJ: Event.EVT4,
    AAssociateRQ: Event.EVT6,
    AReleaseRQ: Event.EVT12,
    AReleaseRP: Event.EVT13,
    AAbort: Event.EVT16,
}
_UNEXPECTED_PDU: Final = 2
_MAY_RECEIVE_DATA: Final = (State.STA6, State.STA7)
_NOT_CONNECTED: Final = frozenset({State.STA1, State.STA4})
_LOST: Final = ProviderAbort(None, "the transport connection was closed")


class UpperLayer:
    """One end of one association, from the transport connection's opening to its close.

    Args:
        maximum_length: the longest variable field of a P-DATA-TF to take, in bytes, as announced to the peer (PS3.8
            §D.1); 0 is no limit.
        limits: of what else the peer may send.

    Attributes:
        state: PS3.8 Tables 9-1 to 9-5.
        artim_running: whether the ARTIM timer is to run.
        artim_starts: how often it was started: a change means that it starts anew.
        protocol_error: what the peer did wrong. Before there is an association it is not indicated (AA-1), only kept here.
        must_close: whether the transport connection is to be closed.
        trace: called with each PDU, or part of a P-DATA-TF, that is sent (True) or was received (False).
    """

    def __init__(self, *, maximum_length: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self.state = State.STA1
        self.artim_running = False
        self.artim_starts = 0
        self.must_close = False
        self.protocol_error: ProtocolError | None = None
        self.trace: Callable[[bool, ControlPDU | PDV], None] | None = None
        self._is_requestor = False
        self._has_aborted = False
        self._request: AAssociateRQ | None = None
        self._reader: PDUReader | None = PDUReader(maximum_length, limits)
        self._out: list[bytes | memoryview] = []
        self._events: list[UpperLayerEvent] = []

    # What the transport reports.

    def transport_connected(self) -> None:
        """The transport connection is open: ours (Evt2, after `associate`) or the peer's (Evt5)."""
        if self.state is State.STA4:
            self._step(Event.EVT2, send=self._request)
        else:
            self._step(Event.EVT5)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the transport, all of them; a PDU that breaks the rules becomes an abort, never an exception.

        A PDV among the events refers to `data`, not to a copy: use it before `data` changes.
        """
        if self._reader is None or self.state in _NOT_CONNECTED:
            return  # what a closing connection still brings
        try:
            for received in self._reader.feed(memoryview(data)):
                if self.trace is not None:
                    self.trace(False, received)
                if isinstance(received, PDV):
                    if self.state in _MAY_RECEIVE_DATA:  # DT-2 and AR-6: indicate, and stay
                        self._events.append(received)
                    else:
                        self._unexpected(Event.EVT10, "P-DATA-TF")
                else:
                    self._control_pdu(received)
                if self._reader is None or self.state is State.STA1:
                    return
        except RemoteProtocolError as error:
            self._reader = None  # where the next PDU begins is not known any more
            self._step(Event.EVT19, error=error)

    def transport_closed(self) -> None:
        """The transport connection is closed (Evt17)."""
        if (self.state, Event.EVT17) in TABLE:
            self._step(Event.EVT17)

    def artim_expired(self) -> None:
        """The ARTIM timer ran out (Evt18). Its length is the owner's (PS3.8 §9.1.5)."""
        if (self.state, Event.EVT18) in TABLE:
            self._step(Event.EVT18)

    # What the user requests. Each raises LocalProtocolError where the state does not allow it.

    def associate(self, request: AAssociateRQ) -> None:
        """Be the requestor: A-ASSOCIATE request (Evt1). Then open the transport, and say `transport_connected`."""
        self._step(Event.EVT1)
        self._is_requestor = True
        self._request = request

    def accept(self, answer: AAssociateAC) -> None:
        """A-ASSOCIATE response, accept (Evt7)."""
        self._step(Event.EVT7, send=answer)

    def reject(self, answer: AAssociateRJ) -> None:
        """A-ASSOCIATE response, reject (Evt8)."""
        self._step(Event.EVT8, send=answer)

    def send_pdata(self, pdvs: Iterable[PDV]) -> None:
        """P-DATA request (Evt9): each fragment goes out in a P-DATA-TF of its own, and is not copied.

        Keeping within the length that the peer announced is the caller's part.
        """
        action = self._action(Event.EVT9)
        for pdv in pdvs:
            if self.trace is not None:
                self.trace(True, pdv)
            self._out += pdv.encode_parts()
        self.state = action.next_state

    def release(self) -> None:
        """A-RELEASE request (Evt11)."""
        self._step(Event.EVT11, send=AReleaseRQ())

    def release_response(self) -> None:
        """A-RELEASE response (Evt14)."""
        self._step(Event.EVT14, send=AReleaseRP())

    def abort(self, source: int = 0, reason: int = 0) -> None:
        """A-ABORT request (Evt15). Where an abort makes no sense any more, the transport is closed."""
        if (self.state, Event.EVT15) in TABLE:
            self._step(Event.EVT15, send=AAbort(source, reason))
        else:
            self.must_close = True

    # What the owner of the transport does next.

    def data_to_send(self) -> list[bytes | memoryview]:
        """Return what is to be written to the transport, in order, and forget it."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[UpperLayerEvent]:
        """Return what the user is to be told, in order, and forget it."""
        events, self._events = self._events, []
        return events

    @property
    def is_over(self) -> bool:
        """Whether all that is left is to wait for the transport connection to close (Sta13), or nothing (Sta1)."""
        return self.state in (State.STA1, State.STA13)

    @property
    def inside_pdu(self) -> bool:
        """Whether the peer has begun a PDU and not ended it."""
        return self._reader is not None and self._reader.inside_pdu

    # The machine.

    def _control_pdu(self, pdu: ControlPDU) -> None:
        event = _RECEIVED[type(pdu)]
        if isinstance(pdu, AAssociateRQ) and self.state is State.STA2 and (refusal := _unsupported(pdu)):
            self._step(event, send=refusal, action=AE_6_REJECT)
            return
        if event in (Event.EVT3, Event.EVT4, Event.EVT6, Event.EVT12, Event.EVT13):
            action = TABLE.get((self.state, event))
            if action is None or Effect.INDICATE not in action.effects:
                self._unexpected(event, type(pdu).__name__)
                return
        self._step(event, indicate=pdu)

    def _unexpected(self, event: Event, name: str) -> None:
        words = f"{name} is not expected in state {self.state.name.capitalize()}"
        self._step(event, error=RemoteProtocolError(words, reason=_UNEXPECTED_PDU))

    def _action(self, event: Event) -> Action:
        action = TABLE.get((self.state, event))
        if action is None:
            raise LocalProtocolError(
                f"{event.name.capitalize()} is not allowed in state {self.state.name.capitalize()} (PS3.8 Table 9-10)"
            )
        return AR_8_ACCEPTOR if action is AR_8 and not self._is_requestor else action

    def _step(
        self,
        event: Event,
        *,
        send: ControlPDU | None = None,
        indicate: ControlPDU | None = None,
        error: ProtocolError | None = None,
        action: Action | None = None,
    ) -> None:
        """Perform one cell of the table."""
        action = action or self._action(event)
        self.protocol_error = error or self.protocol_error
        for effect in action.effects:
            match effect:
                case Effect.SEND:
                    self._send(send or self._abort_about(error))
                case Effect.INDICATE if indicate is not None:
                    self._events.append(indicate)
                case Effect.INDICATE_P_ABORT:
                    self._events.append(ProviderAbort(error.reason, str(error)) if error else _LOST)
                case Effect.START_ARTIM:
                    self.artim_running = True
                    self.artim_starts += 1
                case Effect.STOP_ARTIM:
                    self.artim_running = False
                case Effect.CLOSE:
                    self.must_close = True
        self.state = action.next_state

    def _send(self, pdu: ControlPDU) -> None:
        if isinstance(pdu, AAbort):
            if self._has_aborted:
                return  # AA-7 again: one A-ABORT is enough, however often the peer asks for another
            self._has_aborted = True
        encoded = pdu.encode()
        if self.trace is not None:
            self.trace(True, pdu)
        self._out.append(encoded)

    def _abort_about(self, error: ProtocolError | None) -> AAbort:
        # Before there is an association the user's side aborts (AA-1), afterwards the provider with a reason (AA-8).
        if error is None or self.state is State.STA2:
            return AAbort(0, 0)
        return AAbort(error.source, error.reason)


def _unsupported(request: AAssociateRQ) -> AAssociateRJ | None:
    """Return the rejection by the upper layer itself, where it cannot support the request (AE-6, PS3.8 §9.3.4)."""
    if not request.protocol_version & 1:
        return AAssociateRJ(1, 2, 2)
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return AAssociateRJ(1, 1, 2)
    return None
