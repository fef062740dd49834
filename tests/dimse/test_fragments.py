"""Messages cut into fragments and put together again, and what an assembler refuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CEchoRQ, Command, CStoreRQ, CStoreRSP
from aiodicom.dimse.fragments import (
    MAXIMUM_COMMAND_SET,
    Assembler,
    DataFragment,
    ReceivedCommand,
    fragment,
    fragment_length,
)
from aiodicom.dimse.status import Status
from aiodicom.errors import RemoteProtocolError
from aiodicom.upper_layer.pdu import PDV, PDUReader
from tests.dimse.test_codec import BOTH

ECHO: Final = CEchoRQ(message_id=1, affected_sop_class_uid="1.2.840.10008.1.1")
STORE: Final = CStoreRQ(message_id=2, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.3.4")
STORED: Final = CStoreRSP(message_id_being_responded_to=2, status=Status(0))
ECHO_SET: Final = encode_command(ECHO, has_data_set=False)
STORE_SET: Final = encode_command(STORE, has_data_set=True)


def command(data: bytes, *, context_id: int = 1, is_last: bool = True) -> PDV:
    return PDV(context_id, True, is_last, data)


def data(octets: bytes, *, context_id: int = 1, is_last: bool = True) -> PDV:
    return PDV(context_id, False, is_last, octets)


# --- How long a fragment may be


@pytest.mark.parametrize(
    ("announced", "length"),
    [
        (16_384, 16_378),
        (16_383, 16_376),
        (16_382, 16_376),
        (8, 2),
        (9, 2),
        (10, 4),
        (131_072, 131_066),
        (0xFFFFFFFF, 0xFFFFFFF8),
    ],
)
def test_a_fragment_and_its_header_are_no_longer_than_announced(announced: int, length: int) -> None:
    assert fragment_length(announced, default=1000) == length


@pytest.mark.parametrize("announced", [0, 1, 6, 7])
def test_without_a_limit_that_makes_sense_the_default_is_one(announced: int) -> None:
    assert fragment_length(announced, default=1000) == 994
    assert fragment_length(announced, default=1001) == 994
    assert fragment_length(announced, default=0) == 2


@given(st.integers(8, 100_000))
@settings(deadline=None, max_examples=100)
def test_the_longest_even_length_is_used(announced: int) -> None:
    length = fragment_length(announced, default=0)
    assert length % 2 == 0
    assert announced - 2 < length + 6 <= announced


# --- Cutting


def test_data_is_cut_and_not_copied() -> None:
    original = bytes(range(10))
    pdvs = list(fragment(3, original, 4))
    assert pdvs == [
        PDV(3, False, False, original[:4]),
        PDV(3, False, False, original[4:8]),
        PDV(3, False, True, original[8:]),
    ]
    assert all(isinstance(pdv.data, memoryview) and pdv.data.obj is original for pdv in pdvs)


def test_data_as_long_as_its_fragments_makes_no_empty_one() -> None:
    assert [(len(pdv.data), pdv.is_last) for pdv in fragment(1, bytes(8), 4)] == [(4, False), (4, True)]
    assert [(len(pdv.data), pdv.is_last) for pdv in fragment(1, bytes(4), 4)] == [(4, True)]


@pytest.mark.parametrize("is_command", [False, True])
@pytest.mark.parametrize("is_last", [False, True])
def test_no_data_makes_one_empty_fragment(is_command: bool, is_last: bool) -> None:
    assert list(fragment(5, b"", 4, is_command=is_command, is_last=is_last)) == [PDV(5, is_command, is_last, b"")]


def test_a_part_that_is_not_the_last_has_no_last_fragment() -> None:
    assert [pdv.is_last for pdv in fragment(1, bytes(10), 4, is_last=False)] == [False, False, False]


@given(
    st.binary(max_size=200).filter(lambda octets: len(octets) % 2 == 0), st.integers(1, 40).map(lambda half: 2 * half)
)
@settings(deadline=None, max_examples=100)
def test_fragments_are_even_in_length_and_together_are_the_data(octets: bytes, length: int) -> None:
    pdvs = list(fragment(1, octets, length))
    assert b"".join(pdv.data for pdv in pdvs) == octets
    assert all(len(pdv.data) % 2 == 0 and len(pdv.data) <= length for pdv in pdvs)
    assert [pdv.is_last for pdv in pdvs] == [False] * (len(pdvs) - 1) + [True]
    assert all(pdv.data for pdv in pdvs) or not octets


# --- Putting together


def assembled(pdvs: Iterable[PDV], context_ids: frozenset[int] = frozenset({1, 3})) -> list[ReceivedCommand | bytes]:
    """What an assembler makes of the fragments: commands, and data sets joined."""
    assembler = Assembler(context_ids)
    received: list[ReceivedCommand | bytes] = []
    data_set = b""
    for pdv in pdvs:
        each = assembler.receive(pdv)
        if isinstance(each, DataFragment):
            data_set += each.data
            if each.is_last:
                received.append(data_set)
                data_set = b""
        elif each is not None:
            received.append(each)
    assert not assembler.inside_message
    assert data_set == b""
    return received


@pytest.mark.parametrize("length", [2, 16, 1 << 16])
@pytest.mark.parametrize("has_data_set", [False, True])
@pytest.mark.parametrize("message", BOTH, ids=lambda each: type(each).__name__)
def test_every_message_survives_being_cut(message: Command, has_data_set: bool, length: int) -> None:
    pdvs = list(fragment(3, encode_command(message, has_data_set=has_data_set), length, is_command=True))
    if has_data_set:
        pdvs += fragment(3, b"a data set", length)
    assert assembled(pdvs) == [ReceivedCommand(3, message, has_data_set), *([b"a data set"] if has_data_set else [])]


@pytest.mark.parametrize("message", BOTH, ids=lambda each: type(each).__name__)
def test_every_message_survives_the_way_over_the_wire(message: Command) -> None:
    pdvs = [*fragment(1, encode_command(message, has_data_set=True), 40, is_command=True), *fragment(1, b"data", 2)]
    stream = b"".join(bytes(part) for pdv in pdvs for part in pdv.encode_parts())
    reader = PDUReader(46)
    received = [pdv for octet in stream for pdv in reader.feed(memoryview(bytes((octet,)))) if isinstance(pdv, PDV)]
    assert assembled(received) == [ReceivedCommand(1, message, True), b"data"]


def test_messages_of_several_contexts_one_after_the_other() -> None:
    pdvs = [command(STORE_SET), data(b"1"), command(ECHO_SET, context_id=3), command(STORE_SET, context_id=3)]
    assert assembled([*pdvs, data(b"2", context_id=3)]) == [
        ReceivedCommand(1, STORE, True),
        b"1",
        ReceivedCommand(3, ECHO, False),
        ReceivedCommand(3, STORE, True),
        b"2",
    ]


def test_empty_and_odd_fragments_are_taken() -> None:
    pdvs = [
        command(b"", is_last=False),
        command(STORE_SET[:7], is_last=False),
        command(b"", is_last=False),
        command(STORE_SET[7:], is_last=False),
        command(b""),
        data(b"", is_last=False),
        data(b"abc", is_last=False),
        data(b""),
    ]
    assert assembled(pdvs) == [ReceivedCommand(1, STORE, True), b"abc"]
    assert assembled([command(b"", is_last=False), command(ECHO_SET)]) == [ReceivedCommand(1, ECHO, False)]


def test_a_data_set_may_be_empty() -> None:
    assert assembled([command(STORE_SET), data(b"")]) == [ReceivedCommand(1, STORE, True), b""]


def test_the_fragments_of_a_data_set_are_handed_on_as_they_come() -> None:
    assembler = Assembler({1})
    assembler.receive(command(STORE_SET))
    octets = memoryview(b"some data")
    received = assembler.receive(PDV(1, False, False, octets))
    assert isinstance(received, DataFragment)
    assert received.data is octets
    assert not received.is_last


def test_inside_message_lasts_from_the_first_fragment_to_the_last() -> None:
    assembler = Assembler({1})
    for pdv, inside in (
        (command(b"", is_last=False), True),
        (command(STORE_SET[:9], is_last=False), True),
        (command(STORE_SET[9:]), True),
        (data(b"x", is_last=False), True),
        (data(b"x"), False),
        (command(ECHO_SET), False),
    ):
        assembler.receive(pdv)
        assert assembler.inside_message is inside


# --- What is refused

REFUSED: Final[dict[str, tuple[list[PDV], int]]] = {
    "T17 unknown context, command": ([command(ECHO_SET, context_id=99)], 6),
    "T17 unknown context, data": ([data(b"x", context_id=99)], 6),
    "T17 unknown context inside a data set": ([command(STORE_SET), data(b"x", context_id=99)], 6),
    "T17 data without a command": ([data(b"x")], 5),
    "T17 data after a command without any": ([command(ECHO_SET), data(b"x")], 5),
    "T17 data after the last": ([command(STORE_SET), data(b"x"), data(b"x")], 5),
    "T17 C-ECHO instead of the data set": ([command(STORE_SET), command(ECHO_SET)], 5),
    "T17 C-ECHO inside the data set": ([command(STORE_SET), data(b"x", is_last=False), command(ECHO_SET)], 5),
    "C-ECHO of another context inside": ([command(STORE_SET), command(ECHO_SET, context_id=3)], 5),
    "command of another context inside": ([command(b"x", is_last=False), command(ECHO_SET, context_id=3)], 5),
    "the same with an empty beginning": ([command(b"", is_last=False), command(ECHO_SET, context_id=3)], 5),
    "data inside a command": ([command(STORE_SET[:9], is_last=False), data(b"x")], 5),
    "data of another context": ([command(STORE_SET), data(b"x", context_id=3)], 5),
}


@pytest.mark.parametrize(("pdvs", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_out_of_place_is_refused(pdvs: list[PDV], reason: int) -> None:
    assembler = Assembler({1, 3})
    for pdv in pdvs[:-1]:
        assembler.receive(pdv)
    with pytest.raises(RemoteProtocolError) as caught:
        assembler.receive(pdvs[-1])
    assert (caught.value.source, caught.value.reason) == (2, reason)


def test_t21_a_command_set_has_a_limit_however_it_is_cut() -> None:
    for length in (1024, 2, MAXIMUM_COMMAND_SET + 2, MAXIMUM_COMMAND_SET):
        assembler = Assembler({1})
        pdvs = fragment(1, bytes(MAXIMUM_COMMAND_SET + 2), length, is_command=True)
        with pytest.raises(RemoteProtocolError, match="more than 65536 bytes") as caught:
            list(map(assembler.receive, pdvs))
        assert (caught.value.source, caught.value.reason) == (2, 6)


def test_a_command_set_as_long_as_the_limit_is_taken() -> None:
    # An element of group 0000 that no command has: it is passed over.
    padding = MAXIMUM_COMMAND_SET - len(ECHO_SET) - 8
    longest = ECHO_SET + b"\0\0\0\x50" + padding.to_bytes(4, "little") + bytes(padding)
    for length in (1024, MAXIMUM_COMMAND_SET):
        assert assembled(fragment(1, longest, length, is_command=True)) == [ReceivedCommand(1, ECHO, False)]


@pytest.mark.parametrize("octets", [b"", b"rubbish", ECHO_SET[:-1]])
def test_a_command_set_that_cannot_be_decoded_is_an_abort_of_the_user(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Assembler({1}).receive(command(octets))
    assert (caught.value.source, caught.value.reason) == (0, 0)


pieces: Final = st.sampled_from([ECHO_SET, STORE_SET, ECHO_SET[:9], b""]) | st.binary(max_size=20)


@given(st.lists(st.builds(PDV, st.sampled_from([1, 3, 5]), st.booleans(), st.booleans(), pieces), max_size=10))
@settings(deadline=None, max_examples=200)
def test_any_fragments_are_taken_or_refused_as_a_protocol_error(pdvs: list[PDV]) -> None:
    assembler = Assembler({1, 3})
    try:
        for pdv in pdvs:
            received = assembler.receive(pdv)
            assert isinstance(received, DataFragment) != (pdv.is_command)
            assert pdv.context_id != 5
    except RemoteProtocolError:
        return
    assert assembler.inside_message or not pdvs or pdvs[-1].is_last


def test_a_response_has_its_own_command_set() -> None:
    assert assembled(fragment(1, encode_command(STORED, has_data_set=False), 2, is_command=True)) == [
        ReceivedCommand(1, STORED, False)
    ]
