"""Both ends of an association joined in memory: whole conversations, and random ones."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodicom.errors import LocalProtocolError
from aiodicom.upper_layer.pdu import PDV, AAbort, AAssociateAC, AAssociateRJ, AAssociateRQ, AReleaseRP, AReleaseRQ
from aiodicom.upper_layer.provider import ProviderAbort, UpperLayer
from aiodicom.upper_layer.state_machine import Event, State
from tests.upper_layer.joined import (
    ACCEPTANCE,
    FRAGMENT,
    LOCAL,
    RECEIVED,
    REJECTION,
    REQUEST,
    UNKNOWN_PDU,
    Joined,
    abort_bytes,
    read,
)


def states(joined: Joined) -> tuple[State, State]:
    return joined.requestor.state, joined.acceptor.state


def test_an_association_from_its_request_to_its_release() -> None:
    joined = Joined().establish()
    requestor, acceptor = joined.ends
    assert states(joined) == (State.STA6, State.STA6)
    requestor.send_pdata([FRAGMENT])
    joined.pump()
    acceptor.send_pdata([FRAGMENT])
    joined.pump()
    requestor.release()
    joined.pump()
    assert states(joined) == (State.STA7, State.STA8)
    acceptor.release_response()
    joined.pump()
    assert joined.told[acceptor] == [REQUEST, FRAGMENT, AReleaseRQ()]
    assert joined.told[requestor] == [ACCEPTANCE, FRAGMENT, AReleaseRP()]
    assert states(joined) == (State.STA1, State.STA13)
    assert (requestor.must_close, acceptor.must_close) == (True, False)
    assert acceptor.artim_running
    joined.close()
    assert states(joined) == (State.STA1, State.STA1)
    assert not acceptor.artim_running


def test_the_acceptor_may_release_too() -> None:
    joined = Joined().establish()
    requestor, acceptor = joined.ends
    acceptor.release()
    joined.pump()
    assert states(joined) == (State.STA8, State.STA7)
    requestor.release_response()
    joined.pump()
    assert states(joined) == (State.STA13, State.STA1)


def test_a_rejection_closes_the_requestor() -> None:
    joined = Joined()
    joined.requestor.associate(REQUEST)
    joined.connect()
    joined.pump()
    joined.acceptor.reject(REJECTION)
    joined.pump()
    assert joined.told[joined.requestor] == [REJECTION]
    assert states(joined) == (State.STA1, State.STA13)
    assert joined.requestor.must_close


@pytest.mark.parametrize("aborting", [0, 1])
def test_an_abort_reaches_the_other_end(aborting: int) -> None:
    joined = Joined().establish()
    ours, theirs = joined.ends[aborting], joined.ends[1 - aborting]
    ours.abort()
    joined.pump()
    assert joined.told[theirs][-1] == AAbort(0, 0)
    assert (ours.state, theirs.state) == (State.STA13, State.STA1)
    assert theirs.must_close


def test_aborts_that_cross_end_both() -> None:
    joined = Joined().establish()
    for end in joined.ends:
        end.abort()
    joined.pump()
    assert states(joined) == (State.STA1, State.STA1)
    assert all(end.must_close for end in joined.ends)


@pytest.mark.parametrize("closed_in", [State.STA5, State.STA6])
def test_a_lost_connection_is_an_abort_without_reason(closed_in: State) -> None:
    joined = Joined()
    joined.requestor.associate(REQUEST)
    joined.connect()
    if closed_in is State.STA6:
        joined.pump()
        joined.acceptor.accept(ACCEPTANCE)
        joined.pump()
    joined.close()
    (lost,) = [event for event in joined.told[joined.requestor] if isinstance(event, ProviderAbort)]
    assert lost.reason is None
    assert states(joined) == (State.STA1, State.STA1)


# --- Release collision


def colliding() -> Joined:
    """Both ends have asked for the release before either heard of the other's."""
    joined = Joined().establish()
    joined.requestor.release()
    joined.acceptor.release()
    joined.pump()
    assert states(joined) == (State.STA9, State.STA10)
    assert [told[-1] for told in joined.told.values()] == [AReleaseRQ(), AReleaseRQ()]
    return joined


def test_in_a_release_collision_the_requestor_answers_first() -> None:
    joined = colliding()
    requestor, acceptor = joined.ends
    with pytest.raises(LocalProtocolError, match=r"Evt14 .* Sta10"):
        acceptor.release_response()
    requestor.release_response()
    joined.pump()
    assert states(joined) == (State.STA11, State.STA12)
    assert joined.told[acceptor][-1] == AReleaseRP()
    acceptor.release_response()
    joined.pump()
    assert states(joined) == (State.STA1, State.STA13)
    assert joined.told[requestor][-1] == AReleaseRP()
    assert (requestor.must_close, acceptor.artim_running) == (True, True)
    joined.close()
    assert states(joined) == (State.STA1, State.STA1)
    assert not any(isinstance(event, ProviderAbort) for told in joined.told.values() for event in told)


@pytest.mark.parametrize("end", [0, 1])
def test_in_a_release_collision_no_data_may_be_sent(end: int) -> None:
    joined = colliding()
    with pytest.raises(LocalProtocolError):
        joined.ends[end].send_pdata([FRAGMENT])


def test_data_sent_before_the_collision_still_arrives() -> None:
    joined = Joined().establish()
    requestor, acceptor = joined.ends
    for end in joined.ends:
        end.send_pdata([FRAGMENT])
        end.release()
    joined.pump()
    assert joined.told[requestor][-2:] == joined.told[acceptor][-2:] == [FRAGMENT, AReleaseRQ()]
    assert states(joined) == (State.STA9, State.STA10)


@pytest.mark.parametrize("releasing", [0, 1])
def test_data_during_release_arrives(releasing: int) -> None:
    joined = Joined().establish()
    ours, theirs = joined.ends[releasing], joined.ends[1 - releasing]
    ours.release()
    theirs.send_pdata([FRAGMENT])  # it has not heard of the release: DT-1
    joined.pump()
    assert (ours.state, theirs.state) == (State.STA7, State.STA8)
    theirs.send_pdata([FRAGMENT])  # AR-7
    joined.pump()
    assert joined.told[ours][-2:] == [FRAGMENT, FRAGMENT]  # AR-6
    assert (ours.state, theirs.state) == (State.STA7, State.STA8)
    with pytest.raises(LocalProtocolError):
        ours.send_pdata([FRAGMENT])
    theirs.release_response()
    joined.pump()
    assert (ours.state, theirs.state) == (State.STA1, State.STA13)


def test_data_of_a_peer_that_has_asked_for_the_release_is_an_error() -> None:
    joined = Joined().establish()
    joined.requestor.release()
    joined.pump()
    joined.acceptor.receive_data(RECEIVED[Event.EVT10])
    joined.collect()
    assert joined.sent[joined.acceptor].endswith(abort_bytes(2, 2))


# --- Anything that two ends can do


class Conversation:
    """Two joined ends, and what has to hold whatever they do."""

    LOCAL_EVENTS: Final = (Event.EVT7, Event.EVT8, Event.EVT11, Event.EVT14)

    def __init__(self) -> None:
        self.joined = Joined()
        self.data: dict[UpperLayer, bytearray] = {end: bytearray() for end in self.joined.ends}
        self.honest = True

    def act(self, end: UpperLayer, action: str, number: int) -> None:
        joined = self.joined
        match action:
            case "connect" if joined.requestor.state is State.STA4 and not joined.closed:
                joined.connect()
            case "carry":
                joined.carry(end, number)
            case "local":
                event = self.LOCAL_EVENTS[number % len(self.LOCAL_EVENTS)]
                self.request(end, event)
            case "send":
                self.send(end, bytes((number & 0xFF,)) * (number % 50))
            case "abort":
                end.abort()
            case "inject" if not joined.closed:
                self.honest = False
                end.receive_data([*RECEIVED.values(), b"\0", b"\1\0\0\0"][number % (len(RECEIVED) + 2)])
            case "artim" if end.artim_running:
                end.artim_expired()
        joined.collect()
        self.check()

    def request(self, end: UpperLayer, event: Event) -> None:
        before = end.state, end.artim_running, end.artim_starts, end.must_close
        try:
            LOCAL[event](end)
        except LocalProtocolError:
            assert (end.state, end.artim_running, end.artim_starts, end.must_close) == before
            assert end.data_to_send() == []

    def send(self, end: UpperLayer, data: bytes) -> None:
        try:
            end.send_pdata([PDV(1, False, False, data)])
        except LocalProtocolError:
            assert end.state not in (State.STA6, State.STA8)
        else:
            self.data[end] += data

    def check(self) -> None:
        for end in self.joined.ends:
            assert end.artim_running == (end.state in (State.STA2, State.STA13))
            pdus = read(bytes(self.joined.sent[end]))  # what it sends can always be read
            assert sum(isinstance(pdu, AAbort) for pdu in pdus) <= 1
            assert sum(isinstance(pdu, AReleaseRQ) for pdu in pdus) <= 1
            assert sum(isinstance(pdu, AReleaseRP) for pdu in pdus) <= 1
            told = self.joined.told[end]
            assert sum(isinstance(event, AAssociateRQ | AAssociateAC | AAssociateRJ) for event in told) <= 1
            assert sum(isinstance(event, AAbort | ProviderAbort) for event in told) <= 1
            if self.honest:
                self.check_what_arrived(end)

    def check_what_arrived(self, end: UpperLayer) -> None:
        told = self.joined.told[end]
        got = b"".join(bytes(event.data) for event in told if isinstance(event, PDV))
        assert self.data[self.joined.peer(end)].startswith(got)
        theirs = read(bytes(self.joined.sent[self.joined.peer(end)]))
        indicated = [event for event in told if not isinstance(event, PDV | ProviderAbort)]
        control = [pdu for pdu in theirs if not isinstance(pdu, PDV)]
        assert indicated == control[: len(indicated)]
        # Between two ends that obey, nothing is unexpected but what crosses an abort or an answer.
        assert all(event.reason in (None, 2) for event in told if isinstance(event, ProviderAbort))

    def end(self) -> None:
        for end in self.joined.ends:
            if end.artim_running:
                end.artim_expired()
        self.joined.collect()
        self.joined.close()
        self.check()
        for end in self.joined.ends:
            assert end.state is State.STA1
            assert not end.artim_running


ACTIONS: Final = ("connect", "carry", "carry", "carry", "local", "local", "send", "abort", "inject", "artim")
steps: Final = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS), st.integers(1, 400)), min_size=5, max_size=30
)


@given(st.booleans(), steps)
@settings(deadline=None, max_examples=150)
def test_whatever_two_ends_do(established: bool, actions: list[tuple[int, str, int]]) -> None:
    conversation = Conversation()
    if established:
        conversation.joined.establish()
    else:
        conversation.joined.requestor.associate(REQUEST)
    for end, action, number in actions:
        conversation.act(conversation.joined.ends[end], action, number)
    conversation.end()


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["send", "local", "carry"]), st.integers(1, 400))))
@settings(deadline=None, max_examples=100)
def test_two_ends_that_obey_never_abort(actions: list[tuple[int, str, int]]) -> None:
    conversation = Conversation()
    joined = conversation.joined.establish()
    for number_of_end, action, number in actions:
        conversation.act(joined.ends[number_of_end], action, number)
    joined.pump()
    told = [event for events in joined.told.values() for event in events]
    assert not any(isinstance(event, ProviderAbort | AAbort) for event in told)
    for end in joined.ends:
        arrived = b"".join(bytes(event.data) for event in joined.told[joined.peer(end)] if isinstance(event, PDV))
        assert arrived == conversation.data[end]


def test_the_pieces_of_an_unknown_pdu_change_nothing() -> None:
    joined = Joined().establish()
    for octet in UNKNOWN_PDU:
        joined.acceptor.receive_data(bytes((octet,)))
    joined.pump()
    assert joined.told[joined.requestor][-1] == AAbort(2, 1)
    assert isinstance(joined.told[joined.acceptor][-1], ProviderAbort)
