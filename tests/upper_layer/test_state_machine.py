"""PS3.8 Table 9-10: cell by cell against pynetdicom's, and each cell driven through an upper layer, for both ends."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pytest
from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE

from aiodicom.errors import LocalProtocolError
from aiodicom.upper_layer.pdu import PDV, AAbort, AReleaseRP, AReleaseRQ, ControlPDU, PDataTF
from aiodicom.upper_layer.provider import ProviderAbort, UpperLayer
from aiodicom.upper_layer.state_machine import (
    AE_6_REJECT,
    AR_8_ACCEPTOR,
    TABLE,
    Action,
    Event,
    State,
)
from tests.upper_layer.joined import (
    ACCEPTANCE,
    FRAGMENT,
    MAXIMUM_LENGTH,
    RECEIVED,
    REJECTION,
    REQUEST,
    WAYS,
    Outcome,
    abort_bytes,
    drive,
    outcome,
    upper_layer_in,
)

ALL_CELLS: Final = [(state, event) for state in State for event in Event]
EMPTY_CELLS: Final = [cell for cell in ALL_CELLS if cell not in TABLE]

# Tables 9-6 to 9-9 in this test's own words. What is sent ("abort": an A-ABORT; "pdu": the one of the request), whether
# the PDU received is indicated ("pdu") or an A-P-ABORT ("abort"), what becomes of ARTIM, whether the transport is closed.
ACTIONS_OF_THE_STANDARD: Final[dict[str, tuple[str, str, str, bool]]] = {
    "AE-1": ("", "", "", False),
    "AE-2": ("pdu", "", "", False),
    "AE-3": ("", "pdu", "", False),
    "AE-4": ("", "pdu", "", True),
    "AE-5": ("", "", "start", False),
    "AE-6": ("", "pdu", "stop", False),
    "AE-7": ("pdu", "", "", False),
    "AE-8": ("pdu", "", "start", False),
    "DT-1": ("pdu", "", "", False),
    "DT-2": ("", "pdu", "", False),
    "AR-1": ("pdu", "", "", False),
    "AR-2": ("", "pdu", "", False),
    "AR-3": ("", "pdu", "", True),
    "AR-4": ("pdu", "", "start", False),
    "AR-5": ("", "", "stop", False),
    "AR-6": ("", "pdu", "", False),
    "AR-7": ("pdu", "", "", False),
    "AR-8": ("", "pdu", "", False),
    "AR-9": ("pdu", "", "", False),
    "AR-10": ("", "pdu", "", False),
    "AA-1": ("abort", "", "start", False),
    "AA-2": ("", "", "stop", True),
    "AA-3": ("", "pdu", "", True),
    "AA-4": ("", "abort", "", False),
    "AA-5": ("", "", "stop", False),
    "AA-6": ("", "", "", False),
    "AA-7": ("abort", "", "", False),
    "AA-8": ("abort", "abort", "start", False),
}

REQUESTED: Final[dict[Event, ControlPDU | PDataTF]] = {
    Event.EVT2: REQUEST,
    Event.EVT7: ACCEPTANCE,
    Event.EVT8: REJECTION,
    Event.EVT9: PDataTF((FRAGMENT,)),
    Event.EVT11: AReleaseRQ(),
    Event.EVT14: AReleaseRP(),
}
INDICATED: Final[dict[Event, ControlPDU | PDV]] = {
    Event.EVT3: ACCEPTANCE,
    Event.EVT4: REJECTION,
    Event.EVT6: REQUEST,
    Event.EVT10: FRAGMENT,
    Event.EVT12: AReleaseRQ(),
    Event.EVT13: AReleaseRP(),
    Event.EVT16: AAbort(0, 0),
}


def name(cell: tuple[State, Event]) -> tuple[str, str]:
    """A cell as pynetdicom has it."""
    state, event = cell
    return event.name.capitalize(), state.name.capitalize()


def test_the_table_is_pynetdicoms() -> None:
    assert {name(cell): action.name for cell, action in TABLE.items()} == TRANSITION_TABLE


def test_the_table_has_123_cells_and_28_actions() -> None:
    assert len(TABLE) == 123
    assert len(EMPTY_CELLS) == 124
    assert {action.name for action in TABLE.values()} == set(ACTIONS) == set(ACTIONS_OF_THE_STANDARD)
    assert len(ACTIONS) == 28


@pytest.mark.parametrize(
    "action", dict.fromkeys([*TABLE.values(), AE_6_REJECT, AR_8_ACCEPTOR]), ids=lambda action: action.name
)
def test_the_state_that_follows_is_pynetdicoms(action: Action) -> None:
    following = ACTIONS[action.name][2]
    assert action.next_state.name.capitalize() in ([following] if isinstance(following, str) else following)


def reason_of(state: State, event: Event) -> tuple[int, int]:
    """Source and reason of the A-ABORT that a cell sends."""
    if state is State.STA2 or event is Event.EVT15:
        return 0, 0
    return 2, 1 if event is Event.EVT19 else 2


def expected(before: Outcome, event: Event, role: str) -> tuple[Outcome, int | None]:
    """What Table 9-10 and the tables of the actions say of a cell; and the reason of its A-P-ABORT, if any."""
    action = TRANSITION_TABLE[name((before.state, event))]
    sends, indicates, artim, closes = ACTIONS_OF_THE_STANDARD[action]
    source, reason = reason_of(before.state, event)
    sent = {"abort": abort_bytes(source, reason), "pdu": REQUESTED[event].encode() if event in REQUESTED else b""}
    following = ACTIONS[action][2]
    if not isinstance(following, str):
        following = following[action == "AR-8" and role == "acceptor"]
    return (
        Outcome(
            sent.get(sends, b""),
            (INDICATED[event],) if indicates == "pdu" else (),
            State[following.upper()],
            {"start": True, "stop": False}.get(artim, before.artim_running),
            before.artim_starts + (artim == "start"),
            closes,
        ),
        reason if sends else None,
    )


DRIVEN: Final = [
    pytest.param(role, state, event, id=f"{role}-{name((state, event))[1]}-{name((state, event))[0]}")
    for role, state in WAYS
    for event in Event
    if (state, event) in TABLE
]


def test_every_cell_is_driven() -> None:
    assert {tuple(parameters.values[1:]) for parameters in DRIVEN} == set(TABLE)


@pytest.mark.parametrize(("role", "state", "event"), DRIVEN)
def test_a_cell_does_what_the_standard_says(role: str, state: State, event: Event) -> None:
    upper_layer = upper_layer_in(state, role)
    wanted, reason = expected(outcome(upper_layer), event, role)
    drive(upper_layer, event)
    done = outcome(upper_layer)
    if ACTIONS_OF_THE_STANDARD[TRANSITION_TABLE[name((state, event))]][1] == "abort":
        (abort,) = done.events
        assert isinstance(abort, ProviderAbort)
        assert abort.reason == reason
        assert abort.detail
        done = Outcome(done.sent, (), done.state, done.artim_running, done.artim_starts, done.must_close)
    assert done == wanted
    assert upper_layer.is_over == (upper_layer.state in (State.STA1, State.STA13))
    assert upper_layer.artim_running == (upper_layer.state in (State.STA2, State.STA13))


UNDRIVABLE: Final = {(State.STA1, Event.EVT2), (State.STA4, Event.EVT5)}  # the state says which of the two it is
EMPTY_DRIVEN: Final = [
    pytest.param(role, state, event, id=f"{role}-{name((state, event))[1]}-{name((state, event))[0]}")
    for role, state in WAYS
    for event in Event
    if (state, event) in EMPTY_CELLS and (state, event) not in UNDRIVABLE
]


def test_every_empty_cell_is_driven() -> None:
    assert {tuple(parameters.values[1:]) for parameters in EMPTY_DRIVEN} == set(EMPTY_CELLS) - UNDRIVABLE


@pytest.mark.parametrize(("role", "state", "event"), EMPTY_DRIVEN)
def test_an_empty_cell_changes_nothing(role: str, state: State, event: Event) -> None:
    upper_layer = upper_layer_in(state, role)
    before = outcome(upper_layer)
    if event is Event.EVT15:  # the user wants it to end, and there is nothing to send about it
        drive(upper_layer, event)
        assert upper_layer.must_close
        upper_layer.must_close = before.must_close
    elif event in RECEIVED or event in (Event.EVT17, Event.EVT18):  # comes too late, or too early
        drive(upper_layer, event)
    else:
        words = rf"{event.name.capitalize()}\b.* {state.name.capitalize()}\b"
        if event in (Event.EVT2, Event.EVT5):
            words = rf"Evt5\b.* {state.name.capitalize()}\b"
        with pytest.raises(LocalProtocolError, match=words):
            drive(upper_layer, event)
    assert outcome(upper_layer) == before


def test_whatever_happens_nothing_leads_elsewhere() -> None:
    """All that can follow each other, for both ends: the ways are complete, and no event leads out of the table."""
    reached: set[tuple[str, State]] = set()
    waiting: list[tuple[Event, ...]] = [()]
    seen: set[tuple[State, bool]] = set()
    while waiting:
        way = waiting.pop()
        upper_layer = UpperLayer(maximum_length=MAXIMUM_LENGTH)
        with suppress(LocalProtocolError):  # an event of the user's that is not allowed, and changes nothing
            for event in way:
                drive(upper_layer, event)
        if (key := (upper_layer.state, upper_layer._is_requestor)) not in seen:
            seen.add(key)
            reached.add(("requestor" if upper_layer._is_requestor else "acceptor", upper_layer.state))
            if (
                upper_layer.state is not State.STA1 or not way
            ):  # back in Sta1 it has been an association's, and is not used again
                waiting += [(*way, event) for event in Event]
    assert reached - {("requestor", State.STA1)} == WAYS.keys()


def test_a_request_that_is_not_allowed_leaves_the_role_as_it_is() -> None:
    upper_layer = upper_layer_in(State.STA6, "acceptor")
    with pytest.raises(LocalProtocolError):
        upper_layer.associate(REQUEST)
    upper_layer.release()
    drive(upper_layer, Event.EVT12)
    assert upper_layer.state is State.STA10


def test_before_anything_happened() -> None:
    upper_layer = UpperLayer(maximum_length=0)
    assert outcome(upper_layer) == Outcome(b"", (), State.STA1, False, 0, False)
    assert upper_layer.is_over
    assert not upper_layer.inside_pdu
