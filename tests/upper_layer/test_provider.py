"""One upper layer against hostile, early, late and fragmented input: the exact bytes of its answers."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodicom.errors import LocalProtocolError
from aiodicom.upper_layer.items import PresentationContextAC, encode_item
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
)
from aiodicom.upper_layer.provider import ProviderAbort, UpperLayer
from aiodicom.upper_layer.state_machine import Event, State
from tests.upper_layer.joined import (
    ACCEPTANCE,
    FRAGMENT,
    RECEIVED,
    REQUEST,
    WAYS,
    abort_bytes,
    cut,
    drive,
    outcome,
    rejection_bytes,
    sent,
    upper_layer_in,
)

ANNOUNCED: Final = 131_072
NO_CONTEXT: Final = REQUEST.encode()[6:74] + encode_item(0x10, b"1.2.840.10008.3.1.1.1")


def pdu(pdu_type: int, body: bytes) -> bytes:
    """A PDU of that type and body."""
    return bytes((pdu_type, 0)) + len(body).to_bytes(4) + body


def with_context(body: bytes) -> bytes:
    """An A-ASSOCIATE-RQ with a presentation context of that body."""
    return pdu(1, NO_CONTEXT + encode_item(0x20, body))


SYNTAXES: Final = encode_item(0x30, b"1.2.3") + encode_item(0x40, b"1.2.840.10008.1.2")

# What a peer may send instead of an A-ASSOCIATE-RQ: AA-1, so A-ABORT 0/0.
IN_STA2: Final = {
    "T01 4 GiB": bytes.fromhex("0100FFFFFFFF"),
    "T02 P-DATA": bytes.fromhex("040000020001"),
    "T03 unknown": bytes.fromhex("42000000000400000000"),
    "T03 HTTP": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "T03 HTTP first byte": b"G",
    "T03 TLS": bytes.fromhex("160301020001"),
    "T03 TLS first byte": b"\x16",
    "T04 P-DATA": RECEIVED[Event.EVT10],
    "T04 RELEASE-RQ": RECEIVED[Event.EVT12],
    "T04 RELEASE-RP": RECEIVED[Event.EVT13],
    "T04 AC": RECEIVED[Event.EVT3],
    "T04 RJ": RECEIVED[Event.EVT4],
    "T05 short": bytes.fromhex("01000000000400010000"),
    "T05 no context": pdu(1, NO_CONTEXT),
    "T05 item overrun": pdu(1, NO_CONTEXT + b"\x20\0\xff\xff"),
    "T05 nested overrun": with_context(b"\1\0\0\0" + SYNTAXES + b"\x40\0\xff\xff"),
    "T05 context 2": with_context(b"\2\0\0\0" + SYNTAXES),
    "T05 context 0": with_context(b"\0\0\0\0" + SYNTAXES),
    "T05 context 1 twice": pdu(1, NO_CONTEXT + 2 * encode_item(0x20, b"\1\0\0\0" + SYNTAXES)),
    "T05 129 contexts": pdu(
        1, NO_CONTEXT + b"".join(encode_item(0x20, bytes((n & 0xFF, 0, 0, 0)) + SYNTAXES) for n in range(1, 259, 2))
    ),
    "T05 no abstract syntax": with_context(b"\1\0\0\0" + SYNTAXES[9:]),
    "T16 empty P-DATA": bytes.fromhex("040000000000"),
}


@pytest.mark.parametrize("data", IN_STA2.values(), ids=IN_STA2)
def test_before_the_request_every_mistake_is_an_abort_of_the_user(data: bytes) -> None:
    upper_layer = upper_layer_in(State.STA2, maximum_length=ANNOUNCED)
    upper_layer.receive_data(data)
    done = outcome(upper_layer)
    assert done.sent == abort_bytes(0, 0)
    assert done.events == ()
    assert (done.state, done.artim_running, done.artim_starts) == (State.STA13, True, 2)
    assert not done.must_close


# The same once there is an association: AA-8, so A-ABORT 2 and the reason.
IN_STA6: Final = {
    "T01 4 GiB": (bytes.fromhex("0100FFFFFFFF"), 6),
    "T02 above announced": (bytes.fromhex("040000020001"), 6),
    "T03 unknown": (bytes.fromhex("42000000000400000000"), 1),
    "T03 HTTP": (b"GET / HTTP/1.1\r\n", 1),
    "T03 TLS": (b"\x16\x03\x01", 1),
    "T04 second RQ": (RECEIVED[Event.EVT6], 2),
    "T04 AC": (RECEIVED[Event.EVT3], 2),
    "T04 RJ": (RECEIVED[Event.EVT4], 2),
    "T04 RELEASE-RP": (RECEIVED[Event.EVT13], 2),
    "T05 malformed RQ": (bytes.fromhex("01000000000400010000"), 6),
    "T16 empty P-DATA": (bytes.fromhex("040000000000"), 6),
    "T16 P-DATA of 4": (bytes.fromhex("04000000000400000000"), 6),
    "T16 PDV of 0": (bytes.fromhex("040000000006000000000103"), 6),
    "T16 PDV of 1": (bytes.fromhex("040000000006000000010103"), 6),
    "T16 PDV overrun": (bytes.fromhex("040000000006FFFFFFFC0103"), 6),
    "T16 endless empty PDVs": (1025 * bytes.fromhex("040000000006000000020100"), 6),
}


@pytest.mark.parametrize("role", ["requestor", "acceptor"])
@pytest.mark.parametrize(("data", "reason"), IN_STA6.values(), ids=IN_STA6)
@pytest.mark.parametrize("size", [1, 6, 1 << 20])
def test_in_an_association_every_mistake_is_an_abort_with_its_reason(
    role: str, data: bytes, reason: int, size: int
) -> None:
    upper_layer = upper_layer_in(State.STA6, role, maximum_length=ANNOUNCED)
    for chunk in cut(data, range(0, len(data), size)):
        upper_layer.receive_data(chunk)
    assert sent(upper_layer) == abort_bytes(2, reason)
    *fragments, last = upper_layer.events()
    assert isinstance(last, ProviderAbort)
    assert last.reason == reason
    assert all(isinstance(each, PDV) for each in fragments)
    assert (upper_layer.state, upper_layer.artim_running) == (State.STA13, True)


def test_t02_as_long_as_announced_is_taken() -> None:
    upper_layer = upper_layer_in(State.STA6, maximum_length=ANNOUNCED)
    upper_layer.receive_data(bytes.fromhex("040000020000"))
    assert outcome(upper_layer).state is State.STA6
    assert upper_layer.inside_pdu


@pytest.mark.parametrize("version", [0, 2, 0xFFFE])
def test_t06_protocol_version(version: int) -> None:
    upper_layer = upper_layer_in(State.STA2)
    request = AAssociateRQ("A", "B", REQUEST.presentation_contexts, protocol_version=version)
    upper_layer.receive_data(request.encode())
    done = outcome(upper_layer)
    assert (done.sent, done.events, done.state) == (rejection_bytes(1, 2, 2), (), State.STA13)
    assert (done.artim_running, done.artim_starts) == (True, 2)


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_only_bit_0_of_the_protocol_version_is_tested(version: int) -> None:
    upper_layer = upper_layer_in(State.STA2)
    request = AAssociateRQ("A", "B", REQUEST.presentation_contexts, protocol_version=version)
    upper_layer.receive_data(request.encode())
    assert outcome(upper_layer).events == (request,)


def test_t07_application_context_name() -> None:
    upper_layer = upper_layer_in(State.STA2)
    request = AAssociateRQ("A", "B", REQUEST.presentation_contexts, application_context_name="1.2.3")
    upper_layer.receive_data(request.encode())
    done = outcome(upper_layer)
    assert (done.sent, done.events, done.state) == (rejection_bytes(1, 1, 2), (), State.STA13)


def test_the_protocol_version_of_an_answer_is_not_our_business() -> None:
    upper_layer = upper_layer_in(State.STA5, "requestor")
    answer = AAssociateAC(
        "?", "?", (PresentationContextAC(1, 0, "1.2.840.10008.1.2"),), (), "1.2.3", protocol_version=0
    )
    upper_layer.receive_data(answer.encode())
    assert outcome(upper_layer).events == (answer,)


# --- Sta13: waiting for the transport connection to close


@pytest.mark.parametrize("event", [Event.EVT3, Event.EVT4, Event.EVT10, Event.EVT12, Event.EVT13])
def test_in_sta13_data_and_release_are_ignored(event: Event) -> None:
    upper_layer = upper_layer_in(State.STA13)
    before = outcome(upper_layer)
    for _ in range(3):
        drive(upper_layer, event)
    assert outcome(upper_layer) == before


@pytest.mark.parametrize(("event", "reason"), [(Event.EVT6, 2), (Event.EVT19, 1)])
def test_in_sta13_a_request_or_a_bad_pdu_is_answered_with_one_abort(event: Event, reason: int) -> None:
    upper_layer = upper_layer_in(State.STA13)
    for _ in range(3):
        drive(upper_layer, event)
    assert sent(upper_layer) == abort_bytes(2, reason)
    assert not upper_layer.events()
    assert upper_layer.state is State.STA13


def test_after_an_abort_there_is_no_other() -> None:
    upper_layer = upper_layer_in(State.STA6)
    upper_layer.abort()
    assert sent(upper_layer) == abort_bytes(0, 0)
    for event in (Event.EVT6, Event.EVT6, Event.EVT15, Event.EVT19):
        drive(upper_layer, event)
    assert sent(upper_layer) == b""


@pytest.mark.parametrize("event", [Event.EVT16, Event.EVT18])
def test_sta13_ends_with_the_peers_abort_or_with_artim(event: Event) -> None:
    upper_layer = upper_layer_in(State.STA13)
    drive(upper_layer, event)
    done = outcome(upper_layer)
    assert (done.sent, done.events, done.state) == (b"", (), State.STA1)
    assert done.must_close
    assert not done.artim_running


# --- Many PDUs in one chunk


def test_several_pdus_in_one_chunk_act_one_after_the_other() -> None:
    upper_layer = upper_layer_in(State.STA6)
    upper_layer.receive_data(RECEIVED[Event.EVT10] * 2 + RECEIVED[Event.EVT12] + RECEIVED[Event.EVT16])
    done = outcome(upper_layer)
    assert done.events == (FRAGMENT, FRAGMENT, AReleaseRQ(), AAbort(0, 0))
    assert done.state is State.STA1


def test_nothing_is_told_after_the_end() -> None:
    upper_layer = upper_layer_in(State.STA6)
    upper_layer.receive_data(RECEIVED[Event.EVT16] + RECEIVED[Event.EVT10])
    upper_layer.receive_data(RECEIVED[Event.EVT10] + b"rubbish")
    done = outcome(upper_layer)
    assert (done.sent, done.events, done.state) == (b"", (AAbort(0, 0),), State.STA1)


def test_nothing_is_read_after_what_cannot_be_read() -> None:
    upper_layer = upper_layer_in(State.STA6)
    upper_layer.receive_data(b"\x42" + RECEIVED[Event.EVT16])
    upper_layer.receive_data(RECEIVED[Event.EVT16])
    assert upper_layer.state is State.STA13
    assert not upper_layer.inside_pdu


def test_data_is_told_before_its_pdu_has_ended() -> None:
    upper_layer = upper_layer_in(State.STA6)
    encoded = PDataTF((PDV(1, False, True, b"abcdef"),)).encode()
    upper_layer.receive_data(encoded[:15])
    assert upper_layer.events() == [PDV(1, False, False, b"abc")]
    assert upper_layer.inside_pdu
    upper_layer.receive_data(encoded[15:])
    assert upper_layer.events() == [PDV(1, False, True, b"def")]
    assert not upper_layer.inside_pdu


# --- What the user may do


def test_fragments_go_out_each_in_a_pdu_of_its_own_and_are_not_copied() -> None:
    upper_layer = upper_layer_in(State.STA6)
    data = memoryview(b"data")
    upper_layer.send_pdata(iter([FRAGMENT, PDV(1, False, True, data)]))
    parts = upper_layer.data_to_send()
    assert parts[3] is data
    assert b"".join(parts) == PDataTF((FRAGMENT,)).encode() + PDataTF((PDV(1, False, True, b"data"),)).encode()
    assert upper_layer.data_to_send() == []


def test_data_may_be_sent_while_the_peer_waits_for_our_release_response() -> None:
    upper_layer = upper_layer_in(State.STA8)
    upper_layer.send_pdata([FRAGMENT])
    assert (sent(upper_layer), upper_layer.state) == (RECEIVED[Event.EVT10], State.STA8)


def test_an_abort_says_what_the_user_wants() -> None:
    upper_layer = upper_layer_in(State.STA6)
    upper_layer.abort(2, 5)
    assert sent(upper_layer) == abort_bytes(2, 5)


@pytest.mark.parametrize("role_and_state", WAYS, ids=lambda each: f"{each[0]}-{each[1].name}")
def test_after_an_abort_by_the_user_only_the_close_is_left(role_and_state: tuple[str, State]) -> None:
    role, state = role_and_state
    upper_layer = upper_layer_in(state, role)
    upper_layer.abort()
    assert upper_layer.must_close != sent(upper_layer).endswith(abort_bytes(0, 0))
    upper_layer.transport_closed()
    assert upper_layer.state is State.STA1
    assert not upper_layer.artim_running


def test_what_cannot_be_encoded_leaves_everything_as_it_was() -> None:
    upper_layer = upper_layer_in(State.STA3)
    before = outcome(upper_layer)
    traced: list[ControlPDU | PDV] = []
    upper_layer.trace = lambda _, each: traced.append(each)
    with pytest.raises(LocalProtocolError):
        upper_layer.accept(AAssociateAC("A", "\\", ()))
    assert outcome(upper_layer) == before
    assert traced == []
    upper_layer.reject(AAssociateRJ(1, 1, 1))
    assert sent(upper_layer) == rejection_bytes(1, 1, 1)


def test_the_trace_sees_what_goes_and_what_comes() -> None:
    upper_layer = UpperLayer(maximum_length=0)
    traced: list[tuple[bool, ControlPDU | PDV]] = []
    upper_layer.trace = lambda is_sent, each: traced.append((is_sent, each))
    upper_layer.associate(REQUEST)
    upper_layer.transport_connected()
    upper_layer.receive_data(ACCEPTANCE.encode())
    upper_layer.send_pdata([FRAGMENT])
    upper_layer.receive_data(PDataTF((FRAGMENT,)).encode())
    upper_layer.release()
    upper_layer.receive_data(AReleaseRP().encode())
    assert traced == [
        (True, REQUEST),
        (False, ACCEPTANCE),
        (True, FRAGMENT),
        (False, FRAGMENT),
        (True, AReleaseRQ()),
        (False, AReleaseRP()),
    ]


# --- Anything at all


chunks: Final = st.lists(st.binary(max_size=40) | st.sampled_from(list(RECEIVED.values())), max_size=6)


@pytest.mark.parametrize("role_and_state", WAYS, ids=lambda each: f"{each[0]}-{each[1].name}")
@given(chunks=chunks, places=st.lists(st.integers(0, 400), max_size=8))
@settings(deadline=None, max_examples=20)
def test_bytes_never_raise_and_their_cuts_make_no_difference(
    role_and_state: tuple[str, State], chunks: list[bytes], places: list[int]
) -> None:
    role, state = role_and_state
    data = b"".join(chunks)
    whole = upper_layer_in(state, role, maximum_length=64)
    whole.receive_data(data)
    pieces = upper_layer_in(state, role, maximum_length=64)
    for chunk in cut(data, places):
        pieces.receive_data(bytearray(chunk))
    done = outcome(whole)
    assert outcome(pieces) == done
    assert done.sent.count(abort_bytes(0, 0)[:8]) <= 1
    assert done.artim_running == (done.state in (State.STA2, State.STA13))
    whole.transport_closed()
    assert whole.state is State.STA1
    assert not whole.artim_running
