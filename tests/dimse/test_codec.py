"""The command codec (PS3.7 §6.3.1, Annex E), with pydicom as the oracle in both directions."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING
from io import BytesIO
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue

from aiodicom.dimse.codec import decode_command, encode_command
from aiodicom.dimse.commands import (
    COMMANDS,
    ELEMENTS,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CMoveRQ,
    Command,
    CStoreRQ,
    CStoreRSP,
    NActionRQ,
    NEventReportRQ,
    UnrecognizedRQ,
    UnrecognizedRSP,
    respond,
)
from aiodicom.dimse.status import Status
from aiodicom.errors import LocalProtocolError, RemoteProtocolError

KEYWORDS: Final = {tag: row[4] for tag, row in DicomDictionary.items() if tag <= 0xFFFF}
VERIFICATION: Final = "1.2.840.10008.1.1"

# --- Commands of every class


uids: Final = st.from_regex(r"[1-9][0-9]{0,8}(\.(0|[1-9][0-9]{0,8})){0,5}", fullmatch=True)
numbers: Final = st.integers(0, 0xFFFF)
tags: Final = st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=5).map(tuple)


def texts(length: int) -> st.SearchStrategy[str]:
    """Text of the default repertoire without padding."""
    printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\")
    return st.text(printable, min_size=1, max_size=length).map(str.strip).filter(bool)


VALUES: Final[dict[str, st.SearchStrategy[object]]] = {
    "UI": uids,
    "US": numbers,
    "AT": tags,
    "AE": texts(16),
    "LO": texts(64),
}


def commands_of(command: type[Command]) -> st.SearchStrategy[Command]:
    """Every field at random, optional ones at times None."""
    values: dict[str, st.SearchStrategy[object]] = {}
    for name, field in command.__dataclass_fields__.items():
        value = numbers.map(Status) if name == "status" else VALUES[ELEMENTS[name].vr]
        values[name] = st.none() | value if field.default is None else value
    make: Callable[..., Command] = command
    return st.builds(make, **values)


commands: Final = st.one_of([commands_of(command) for command in COMMANDS.values()])

EXAMPLES: Final[dict[str, object]] = {
    "UI": "1.2.840.10008.5.1.4.1.1.2",
    "US": 0x1234,
    "AT": (0x00100020, 0x7FE00010),
    "AE": "STORESCP1",
    "LO": "Nothing left to store it on",
}


def make(command: type[Command], names: Iterable[str]) -> Command:
    """Return a command of that class with those fields."""
    values = {name: Status(0xB000) if name == "status" else EXAMPLES[ELEMENTS[name].vr] for name in names}
    build: Callable[..., Command] = command
    return build(**values)


def full(command: type[Command]) -> Command:
    """Return a command of that class with every field."""
    return make(command, command.__dataclass_fields__)


def minimal(command: type[Command]) -> Command:
    """Return a command of that class with its mandatory fields only."""
    return make(command, [name for name, field in command.__dataclass_fields__.items() if field.default is MISSING])


BOTH: Final = [full(command) for command in COMMANDS.values()] + [minimal(command) for command in COMMANDS.values()]


# --- pydicom's view of a command set


def written_by_pydicom(command: Command, *, has_data_set: bool) -> bytes:
    """Return the command set as pydicom writes it."""
    data_set = Dataset()
    data_set.CommandField = command.command_field
    data_set.CommandDataSetType = 0x0000 if has_data_set else 0x0101
    for name in command.__dataclass_fields__:
        value = getattr(command, name)
        if value is not None:
            setattr(data_set, KEYWORDS[ELEMENTS[name].tag], list(value) if isinstance(value, tuple) else value)
    return serialized(data_set)


def serialized(data_set: Dataset) -> bytes:
    """Return group 0000 in Implicit VR Little Endian, with its group length."""
    stream = DicomBytesIO()
    stream.is_little_endian = True
    stream.is_implicit_VR = True
    write_dataset(stream, data_set)
    elements: bytes = stream.getvalue()
    return element(0x0000, struct.pack("<I", len(elements))) + elements


def read_by_pydicom(data: bytes) -> dict[str, object]:
    """Return what pydicom finds in a command set, by keyword."""
    data_set = read_dataset(BytesIO(data), is_implicit_VR=True, is_little_endian=True)
    return {
        each.keyword: tuple(map(int, each.value)) if isinstance(each.value, MultiValue) else each.value
        for each in data_set
    }


def expected_by_keyword(command: Command, data: bytes, *, has_data_set: bool) -> dict[str, object]:
    """Return what pydicom has to find."""
    expected: dict[str, object] = {
        "CommandGroupLength": len(data) - 12,
        "CommandField": command.command_field,
        "CommandDataSetType": 0x0001 if has_data_set else 0x0101,
    }
    for name in command.__dataclass_fields__:
        value = getattr(command, name)
        if value is not None:
            alone = isinstance(value, tuple) and len(value) == 1
            expected[KEYWORDS[ELEMENTS[name].tag]] = value[0] if alone else value
    return expected


# --- Bytes


def element(number: int, value: bytes, *, group: int = 0x0000, length: int | None = None) -> bytes:
    """Return an element of group 0000, or of another one, with a length that may lie."""
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


def us(number: int, value: int) -> bytes:
    """Return a US element of group 0000."""
    return element(number, struct.pack("<H", value))


def elements_of(data: bytes) -> Iterator[bytes]:
    """Cut a well-formed command set into its elements."""
    offset = 0
    while offset < len(data):
        end = offset + 8 + int.from_bytes(data[offset + 4 : offset + 8], "little")
        yield data[offset:end]
        offset = end


ECHO_CLASS: Final = element(0x0002, VERIFICATION.encode() + b"\0")
ECHO_FIELD: Final = us(0x0100, 0x0030)
ECHO_ID: Final = us(0x0110, 7)
NO_DATA_SET: Final = us(0x0800, 0x0101)
ECHO: Final = ECHO_CLASS + ECHO_FIELD + ECHO_ID + NO_DATA_SET
ECHO_COMMAND: Final = CEchoRQ(message_id=7, affected_sop_class_uid=VERIFICATION)


class TestOracle:
    """What we write pydicom reads, what pydicom writes we read."""

    @pytest.mark.parametrize("has_data_set", [False, True])
    @pytest.mark.parametrize("command", BOTH, ids=repr)
    def test_pydicom_reads_ours(self, command: Command, has_data_set: bool) -> None:
        data = encode_command(command, has_data_set=has_data_set)
        assert read_by_pydicom(data) == expected_by_keyword(command, data, has_data_set=has_data_set)

    @pytest.mark.parametrize("has_data_set", [False, True])
    @pytest.mark.parametrize("command", BOTH, ids=repr)
    def test_we_read_pydicoms(self, command: Command, has_data_set: bool) -> None:
        decoded = decode_command(written_by_pydicom(command, has_data_set=has_data_set))
        assert decoded == (command, has_data_set)
        assert type(decoded[0]) is type(command)

    @given(commands, st.booleans())
    def test_pydicom_reads_ours_whatever_it_says(self, command: Command, has_data_set: bool) -> None:
        data = encode_command(command, has_data_set=has_data_set)
        assert read_by_pydicom(data) == expected_by_keyword(command, data, has_data_set=has_data_set)

    @given(commands, st.booleans())
    def test_we_read_pydicoms_whatever_it_says(self, command: Command, has_data_set: bool) -> None:
        assert decode_command(written_by_pydicom(command, has_data_set=has_data_set)) == (command, has_data_set)


class TestRoundTrip:
    """Decoding is the inverse of encoding."""

    @given(commands, st.booleans())
    def test_every_command(self, command: Command, has_data_set: bool) -> None:
        data = encode_command(command, has_data_set=has_data_set)
        decoded = decode_command(data)
        assert decoded == (command, has_data_set)
        assert encode_command(decoded[0], has_data_set=decoded[1]) == data

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_every_kind_of_buffer(self, kind: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
        assert decode_command(kind(ECHO)) == (ECHO_COMMAND, False)

    def test_a_decoded_command_is_as_good_as_a_made_one(self) -> None:
        command = full(CStoreRSP)
        decoded, _ = decode_command(encode_command(command, has_data_set=False))
        assert hash(decoded) == hash(command)
        assert repr(decoded) == repr(command)
        assert isinstance(decoded, CStoreRSP)
        assert repr(decoded.status) == repr(Status(0xB000))


class TestEncoding:
    """What goes out is exactly what PS3.7 §6.3.1 and PS3.5 say."""

    def test_a_command_set_byte_for_byte(self) -> None:
        group_length = element(0x0000, struct.pack("<I", len(ECHO)))
        assert encode_command(ECHO_COMMAND, has_data_set=False) == group_length + ECHO

    @given(commands, st.booleans())
    def test_group_length_order_and_even_lengths(self, command: Command, has_data_set: bool) -> None:
        data = encode_command(command, has_data_set=has_data_set)
        assert data[:12] == element(0x0000, struct.pack("<I", len(data) - 12))
        found = [struct.unpack_from("<HHI", each) for each in elements_of(data)]
        assert found == sorted(found)
        assert {group for group, _, _ in found} == {0}
        assert [length % 2 for _, _, length in found] == [0] * len(found)

    @pytest.mark.parametrize(
        ("comment", "sent"),
        [
            ("x" * 65, "x" * 64),
            ("Grün ist \u4e2d", "Gr?n ist ?"),
            ("first\r\nsecond\tthird\x7f", "first  second third"),
            (r"C:\store is full", "C:/store is full"),
        ],
    )
    def test_an_error_comment_is_made_to_fit(self, comment: str, sent: str) -> None:
        response = CEchoRSP(message_id_being_responded_to=1, status=Status(0x0110), error_comment=comment)
        assert read_by_pydicom(encode_command(response, has_data_set=False))["ErrorComment"] == sent

    def test_an_empty_comment_and_an_empty_list_are_absent(self) -> None:
        response = CEchoRSP(message_id_being_responded_to=1, status=Status(0), error_comment="", offending_element=())
        absent = CEchoRSP(message_id_being_responded_to=1, status=Status(0))
        assert encode_command(response, has_data_set=False) == encode_command(absent, has_data_set=False)

    @pytest.mark.parametrize(
        ("command", "name"),
        [
            (CEchoRQ(message_id=0x10000, affected_sop_class_uid="1.2"), "message_id"),
            (CEchoRQ(message_id=-1, affected_sop_class_uid="1.2"), "message_id"),
            (CEchoRQ(message_id=1, affected_sop_class_uid="1." + "2" * 63), "affected_sop_class_uid"),
            (CEchoRQ(message_id=1, affected_sop_class_uid=""), "affected_sop_class_uid"),
            (CEchoRQ(message_id=1, affected_sop_class_uid="1.2\u0663"), "affected_sop_class_uid"),
            (CMoveRQ(message_id=1, affected_sop_class_uid="1.2", move_destination="A" * 17), "move_destination"),
            (CMoveRQ(message_id=1, affected_sop_class_uid="1.2", move_destination=""), "move_destination"),
            (CMoveRQ(message_id=1, affected_sop_class_uid="1.2", move_destination="BÜRO"), "move_destination"),
            (CEchoRSP(message_id_being_responded_to=1, status=Status(0x10000)), "status"),
            (CEchoRSP(message_id_being_responded_to=1, status=Status(0), offending_element=(1 << 32,)), "offending"),
            (CEchoRSP(message_id_being_responded_to=1, status=Status(0), offending_element=(-1,)), "offending"),
        ],
    )
    def test_what_cannot_be_encoded_is_named(self, command: Command, name: str) -> None:
        with pytest.raises(LocalProtocolError, match=f"^{name}.* of a {type(command).__name__} "):
            encode_command(command, has_data_set=False)

    def test_a_mandatory_field_cannot_be_none(self) -> None:
        build: Callable[..., Command] = CEchoRQ
        with pytest.raises(
            LocalProtocolError, match="affected_sop_class_uid of a CEchoRQ cannot be sent: it is mandatory"
        ):
            encode_command(build(message_id=1, affected_sop_class_uid=None), has_data_set=False)

    def test_the_longest_values_are_sent(self) -> None:
        command = CMoveRQ(message_id=0xFFFF, affected_sop_class_uid="1." + "2" * 62, move_destination="A" * 16)
        assert decode_command(encode_command(command, has_data_set=True)) == (command, True)


class TestLeniency:
    """What a peer may get wrong without being misunderstood."""

    def test_any_order(self) -> None:
        assert decode_command(NO_DATA_SET + ECHO_ID + ECHO_FIELD + ECHO_CLASS) == (ECHO_COMMAND, False)

    @pytest.mark.parametrize("group_length", [0, 1, len(ECHO) - 2, len(ECHO) + 2, 0xFFFFFFFF])
    def test_a_wrong_group_length(self, group_length: int) -> None:
        assert decode_command(element(0x0000, struct.pack("<I", group_length)) + ECHO) == (ECHO_COMMAND, False)

    def test_no_group_length(self) -> None:
        assert decode_command(ECHO) == (ECHO_COMMAND, False)

    def test_a_group_length_of_another_length(self) -> None:
        assert decode_command(element(0x0000, b"\x4e\0") + ECHO) == (ECHO_COMMAND, False)

    @pytest.mark.parametrize(
        "extra",
        [
            element(0x0001, struct.pack("<I", 98)),  # Length to End, retired
            element(0x5110, b"FORMAT"),  # Display Format, retired
            element(0x7777, b""),
            element(0x7777, b"odd"),
            us(0x0700, 2),  # Priority, which C-ECHO does not have
            element(0x0058, b"1.2.3\0", group=0x0008),  # Failed SOP Instance UID List, which belongs to the data set
            element(0x1000, b"1.2.3.4\0"),
        ],
    )
    @pytest.mark.parametrize("at", range(5))
    def test_elements_that_the_command_does_not_have(self, extra: bytes, at: int) -> None:
        pieces = list(elements_of(ECHO))
        assert decode_command(b"".join([*pieces[:at], extra, *pieces[at:]])) == (ECHO_COMMAND, False)

    @pytest.mark.parametrize("padding", [b"", b" ", b"\0\0\0", b"  ", b"\0 "])
    def test_padding_of_a_uid(self, padding: bytes) -> None:
        data = element(0x0002, VERIFICATION.encode() + padding) + ECHO_FIELD + ECHO_ID + NO_DATA_SET
        assert decode_command(data) == (ECHO_COMMAND, False)

    def test_padding_of_an_ae_title(self) -> None:
        data = encode_command(minimal(CMoveRQ), has_data_set=True).replace(b"STORESCP1 ", b" A B\0     ")
        command, _ = decode_command(data)
        assert isinstance(command, CMoveRQ)
        assert command.move_destination == "A B"

    @pytest.mark.parametrize("data_set_type", [0x0000, 0x0001, 0x0100, 0x0102, 0x0202, 0xFEFE, 0xFFFF])
    def test_any_other_data_set_type_means_a_data_set(self, data_set_type: int) -> None:
        data = ECHO_CLASS + ECHO_FIELD + ECHO_ID + us(0x0800, data_set_type)
        assert decode_command(data) == (ECHO_COMMAND, True)

    @pytest.mark.parametrize("number", [0x0901, 0x0902, 0x0903, 0x1000])
    def test_an_element_without_a_value_is_absent(self, number: int) -> None:
        command = minimal(CStoreRSP)
        data = encode_command(command, has_data_set=False) + element(number, b"")
        assert decode_command(data) == (command, False)

    def test_text_of_padding_alone_is_absent(self) -> None:
        command = minimal(CStoreRQ)
        data = encode_command(command, has_data_set=True) + element(0x1030, b" " * 16)
        assert decode_command(data) == (command, True)

    def test_mandatory_values_that_a_handler_can_refuse(self) -> None:
        def received(command_field: int) -> Command:
            return decode_command(us(0x0100, command_field) + ECHO_ID + NO_DATA_SET)[0]

        assert received(0x0001) == CStoreRQ(message_id=7, affected_sop_class_uid="", affected_sop_instance_uid="")
        assert received(0x0021) == CMoveRQ(message_id=7, affected_sop_class_uid="", move_destination="")
        assert received(0x0100) == NEventReportRQ(
            message_id=7, affected_sop_class_uid="", affected_sop_instance_uid="", event_type_id=0
        )
        assert received(0x0130) == NActionRQ(
            message_id=7, requested_sop_class_uid="", requested_sop_instance_uid="", action_type_id=0
        )

    @pytest.mark.parametrize("uid", ["1." + "2" * 63, "../X", "1.2\0X", "1.2\r\nX"])
    def test_a_uid_that_is_none_can_be_refused(self, uid: str) -> None:
        data = encode_command(minimal(CStoreRQ), has_data_set=True)
        head, tail = data.split(element(0x1000, b"1.2.840.10008.5.1.4.1.1.2\0"))
        request, _ = decode_command(head + element(0x1000, uid.encode()) + tail)
        assert isinstance(request, CStoreRQ)
        assert request.affected_sop_instance_uid == uid
        response = respond(request, 0x0117)
        assert decode_command(encode_command(response, has_data_set=False)) == (response, False)

    def test_a_priority_that_the_standard_does_not_know(self) -> None:
        command = CFindRQ(message_id=7, affected_sop_class_uid=VERIFICATION, priority=7)
        assert decode_command(encode_command(command, has_data_set=True)) == (command, True)

    def test_a_comment_in_another_character_set(self) -> None:
        data = encode_command(minimal(CStoreRSP), has_data_set=False) + element(0x0902, b"Gr\xfcn ")
        command, _ = decode_command(data)
        assert isinstance(command, CStoreRSP)
        assert command.error_comment == "Gr\xfcn"


class TestUnrecognized:
    """A Command Field that PS3.7 does not know: answered with 0211, bit 15 set."""

    DATA: Final = us(0x0100, 0x7777) + ECHO_ID + NO_DATA_SET

    def test_a_request_can_be_answered(self) -> None:
        request, has_data_set = decode_command(self.DATA)
        assert (request, has_data_set) == (UnrecognizedRQ(message_id=7, command_field=0x7777), False)
        assert isinstance(request, UnrecognizedRQ)
        response = respond(request, 0x0211)
        assert response == UnrecognizedRSP(message_id_being_responded_to=7, status=Status(0x0211), command_field=0xF777)
        found = read_by_pydicom(encode_command(response, has_data_set=False))
        assert (found["CommandField"], found["MessageIDBeingRespondedTo"], found["Status"]) == (0xF777, 7, 0x0211)

    def test_its_data_set_is_announced(self) -> None:
        assert decode_command(us(0x0100, 0x7777) + ECHO_ID + us(0x0800, 1))[1] is True

    def test_without_a_message_id_nobody_can_answer(self) -> None:
        with pytest.raises(RemoteProtocolError, match="message_id"):
            decode_command(us(0x0100, 0x7777) + NO_DATA_SET)

    def test_a_response_that_answers_nothing(self) -> None:
        with pytest.raises(RemoteProtocolError, match="0xF777"):
            decode_command(us(0x0100, 0xF777) + us(0x0120, 7) + NO_DATA_SET + us(0x0900, 0))


class TestMalformed:
    """What cannot be understood: RemoteProtocolError, for an A-ABORT by the service user, reason 0."""

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "no command_field"),
            (b"\0", "ends inside"),
            (element(0x0000, b"\0\0"), "no command_field"),
            (element(0x0000, b"\0\0", length=4), "beyond"),
            (element(0x0000, b"", length=0xFFFFFFFE), "beyond"),
            (ECHO_CLASS + ECHO_ID + NO_DATA_SET, "no command_field"),
            (ECHO_CLASS + ECHO_FIELD + ECHO_ID, "no command_data_set_type"),
            (ECHO_CLASS + ECHO_FIELD + NO_DATA_SET, "CEchoRQ without message_id"),
            (ECHO_CLASS + ECHO_FIELD + element(0x0110, b"") + NO_DATA_SET, "CEchoRQ without message_id"),
            (us(0x0100, 0x8030) + NO_DATA_SET + us(0x0900, 0), "CEchoRSP without message_id_being_responded_to"),
            (us(0x0100, 0x8030) + us(0x0120, 7) + NO_DATA_SET, "CEchoRSP without status"),
            (us(0x0100, 0x0FFF) + NO_DATA_SET, "CCancelRQ without message_id_being_responded_to"),
            (ECHO + element(0x0010, b"1", length=2, group=0x0008), "beyond"),
            (ECHO_CLASS + ECHO, r"\(0000,0002\) is there twice"),
            (ECHO + ECHO_ID, r"\(0000,0110\) is there twice"),
            (ECHO + element(0x0903, b"\0\0\0\0"), r"\(0000,0903\) has 4 bytes"),
            (ECHO + element(0x0903, b"\0"), r"\(0000,0903\) has 1 bytes"),
            (ECHO + element(0x0901, b"\x10\0"), "ends inside a tag"),
            (ECHO + element(0x1005, b"\x10\0\x20\0\x10\0"), "ends inside a tag"),
            (ECHO + element(0x1000, b"1.2\xb2"), r"\(0000,1000\) has other characters than ASCII"),
            (ECHO + element(0x1000, b"1.2.3", length=0xFFFFFFFF), "beyond"),
            (ECHO + element(0x0901, b"\x10\0\x20\0", length=8), "ends inside a tag"),
            (ECHO + element(0x0903, b"", length=2), "beyond"),
            (ECHO + element(0x0903, b"\0", length=2), "beyond"),
            (ECHO + element(0x7777, b"abc", length=4), "beyond"),
            (ECHO + struct.pack("<HHI", 0, 0x0902, 0)[:7], "ends inside"),
        ],
        ids=lambda value: value if isinstance(value, str) else value[-16:].hex(" "),
    )
    def test_each_way(self, data: bytes, message: str) -> None:
        with pytest.raises(RemoteProtocolError, match=message) as caught:
            decode_command(data)
        assert (caught.value.source, caught.value.reason) == (0, 0)

    @pytest.mark.parametrize("command", [full(command) for command in COMMANDS.values()], ids=repr)
    def test_every_truncation(self, command: Command) -> None:
        data = encode_command(command, has_data_set=True)
        ends = [0]
        for each in elements_of(data):
            ends.append(ends[-1] + len(each))
        for size in range(len(data)):
            try:
                decode_command(data[:size])
            except RemoteProtocolError:
                continue
            assert size in ends

    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            decode_command(data)

    @given(commands, st.booleans(), st.data())
    def test_damaged_command_sets(self, command: Command, has_data_set: bool, data: st.DataObject) -> None:
        octets = bytearray(encode_command(command, has_data_set=has_data_set))
        for _ in range(data.draw(st.integers(1, 3))):
            octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
        try:
            decoded, _ = decode_command(octets)
        except RemoteProtocolError:
            return
        assert isinstance(decoded, Command)
