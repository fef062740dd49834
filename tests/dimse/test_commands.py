"""The command dataclasses (PS3.7 §9.3, §10.3, Annex E), with pydicom's dictionary and pynetdicom's tables as oracles."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Final

import pytest
from pydicom._dicom_dict import DicomDictionary
from pynetdicom import dimse_messages

from aiodicom.dimse.commands import (
    COMMANDS,
    ELEMENTS,
    RESPONSE_BIT,
    RESPONSES,
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    Command,
    CStoreRQ,
    CStoreRSP,
    NActionRQ,
    NActionRSP,
    NCreateRQ,
    NCreateRSP,
    NDeleteRQ,
    NDeleteRSP,
    NEventReportRQ,
    NEventReportRSP,
    NGetRQ,
    NGetRSP,
    NSetRQ,
    NSetRSP,
    Priority,
    Request,
    Response,
    UnrecognizedRQ,
    UnrecognizedRSP,
    respond,
)
from aiodicom.dimse.status import Category, Status
from aiodicom.errors import DimseError

CLASS: Final = "1.2.840.10008.5.1.4.1.1.2"
INSTANCE: Final = "1.2.3.4"

# What Annex C adds to a response by its status, where the oracle has it in some tables only.
OF_THE_STATUS: Final = {"OffendingElement", "ErrorComment", "ErrorID", "AttributeIdentifierList"}
OF_THE_MESSAGE: Final = {"CommandGroupLength", "CommandField", "CommandDataSetType"}


KEYWORDS: Final = {row[4].lower(): row[4] for tag, row in DicomDictionary.items() if tag <= 0xFFFF}


def keyword(name: str) -> str:
    """Return the Standard's keyword for one of our field names."""
    return KEYWORDS[name.replace("_", "")]


def class_name(message_name: str) -> str:
    """Return the name of our class for the Standard's name of a message, in lower case."""
    return message_name.replace("-", "").lower()


class TestRegistry:
    """PS3.7 Table E.1-1."""

    def test_it_has_the_tags_and_vrs_of_the_dictionary(self) -> None:
        ours = {element.tag: (element.vr, keyword(name)) for name, element in ELEMENTS.items()}
        assert ours == {
            tag: (row[0], row[4]) for tag, row in DicomDictionary.items() if tag <= 0xFFFF and row[3] != "Retired"
        }

    def test_it_is_in_ascending_order(self) -> None:
        tags = [element.tag for element in ELEMENTS.values()]
        assert tags == sorted(tags)


class TestTables:
    """The fields of PS3.7 Tables 9.3-1 to 9.3-13 and 10.3-1 to 10.3-12."""

    def test_there_are_22_messages_and_c_cancel(self) -> None:
        assert len(COMMANDS) == 23
        assert COMMANDS[0x0FFF] is CCancelRQ

    def test_command_fields_are_those_of_the_oracle(self) -> None:
        ours = {command_field: command.__name__.lower() for command_field, command in COMMANDS.items()}
        assert ours == {number: class_name(row[0]) for number, row in dimse_messages._MESSAGE_TYPES.items()}

    @pytest.mark.parametrize("command", COMMANDS.values())
    def test_fields_are_those_of_the_oracle(self, command: type[Command]) -> None:
        ours = {keyword(name) for name in command.__dataclass_fields__}
        tables = {class_name(name): set(table) for name, table in dimse_messages._COMMAND_SET_KEYWORDS.items()}
        theirs = tables[command.__name__.lower()] - OF_THE_MESSAGE
        assert ours >= theirs
        assert ours - theirs <= (OF_THE_STATUS if issubclass(command, Response) else set())

    @pytest.mark.parametrize("command", RESPONSES)
    def test_a_response_is_its_request_with_bit_15(self, command: type[Request]) -> None:
        if command is not UnrecognizedRQ:
            assert RESPONSES[command].command_field == command.command_field | RESPONSE_BIT

    def test_every_command_but_c_cancel_is_request_or_response(self) -> None:
        assert {*RESPONSES, *RESPONSES.values(), CCancelRQ} == {*COMMANDS.values(), UnrecognizedRQ, UnrecognizedRSP}
        assert not issubclass(CCancelRQ, Request | Response)

    def test_optional_fields_are_absent_and_priority_is_medium(self) -> None:
        command = CStoreRQ(message_id=1, affected_sop_class_uid=CLASS, affected_sop_instance_uid=INSTANCE)
        assert command.priority is Priority.MEDIUM
        assert command.move_originator_application_entity_title is None
        assert command.move_originator_message_id is None
        assert [int(priority) for priority in (Priority.MEDIUM, Priority.HIGH, Priority.LOW)] == [0, 1, 2]


class TestValues:
    """Commands are values."""

    @pytest.mark.parametrize("command", COMMANDS.values())
    def test_they_have_nothing_but_slots(self, command: type[Command]) -> None:
        assert not hasattr(object.__new__(command), "__dict__")

    def test_they_are_frozen_equal_and_hashable(self) -> None:
        command = CEchoRQ(message_id=1, affected_sop_class_uid="1.2")
        with pytest.raises(FrozenInstanceError):
            setattr(command, "message_id", 2)  # noqa: B010  (written so that mypy does not forbid the test)
        assert command == CEchoRQ(message_id=1, affected_sop_class_uid="1.2")
        assert hash(command) == hash(CEchoRQ(message_id=1, affected_sop_class_uid="1.2"))

    def test_repr_is_one_line_of_what_is_there(self) -> None:
        request = CFindRQ(message_id=7, affected_sop_class_uid="1.2")
        assert repr(request) == "CFindRQ(message_id=7, affected_sop_class_uid='1.2')"
        response = CGetRSP(message_id_being_responded_to=7, status=Status(0xFF00), number_of_remaining_suboperations=0)
        assert repr(response) == (
            "CGetRSP(message_id_being_responded_to=7, status=<Status 0xFF00 Pending>, "
            "number_of_remaining_suboperations=0)"
        )

    def test_repr_shows_attribute_tags_in_hexadecimal(self) -> None:
        command = NGetRQ(
            message_id=1,
            requested_sop_class_uid="1.2",
            requested_sop_instance_uid="1.3",
            attribute_identifier_list=(0x00100020, 0x0020000D),
        )
        assert repr(command).endswith("attribute_identifier_list=(0x00100020, 0x0020000D))")

    def test_repr_does_not_show_the_error_comment(self) -> None:
        response = CEchoRSP(message_id_being_responded_to=1, status=Status(0x0110), error_comment="about Jane Doe")
        assert "Jane" not in repr(response)


class TestRaiseForStatus:
    """`Response.raise_for_status`."""

    @pytest.mark.parametrize("code", [0x0000, 0x0001, 0x0107, 0xB000, 0xB007, 0xFE00, 0xFF00, 0xFF01])
    def test_what_is_no_failure_passes(self, code: int) -> None:
        CEchoRSP(message_id_being_responded_to=1, status=Status(code)).raise_for_status()

    @pytest.mark.parametrize("comment", ["disk full", None])
    def test_a_failure_raises_its_status_and_comment(self, comment: str | None) -> None:
        response = CStoreRSP(message_id_being_responded_to=1, status=Status(0xA700), error_comment=comment)
        with pytest.raises(DimseError) as caught:
            response.raise_for_status()
        assert (caught.value.status, caught.value.comment) == (0xA700, comment or "")


AFFECTED: Final[dict[str, object]] = {"affected_sop_class_uid": CLASS, "affected_sop_instance_uid": INSTANCE}

RESPONSES_EXPECTED: Final[list[tuple[Request, type[Response], dict[str, object]]]] = [
    (CStoreRQ(message_id=3, affected_sop_class_uid=CLASS, affected_sop_instance_uid=INSTANCE), CStoreRSP, AFFECTED),
    (CFindRQ(message_id=3, affected_sop_class_uid=CLASS), CFindRSP, {"affected_sop_class_uid": CLASS}),
    (CGetRQ(message_id=3, affected_sop_class_uid=CLASS), CGetRSP, {"affected_sop_class_uid": CLASS}),
    (
        CMoveRQ(message_id=3, affected_sop_class_uid=CLASS, move_destination="WS1"),
        CMoveRSP,
        {"affected_sop_class_uid": CLASS},
    ),
    (CEchoRQ(message_id=3, affected_sop_class_uid=CLASS), CEchoRSP, {"affected_sop_class_uid": CLASS}),
    (
        NEventReportRQ(message_id=3, affected_sop_class_uid=CLASS, affected_sop_instance_uid=INSTANCE, event_type_id=2),
        NEventReportRSP,
        {**AFFECTED, "event_type_id": 2},
    ),
    (
        NGetRQ(
            message_id=3,
            requested_sop_class_uid=CLASS,
            requested_sop_instance_uid=INSTANCE,
            attribute_identifier_list=(0x00100010,),
        ),
        NGetRSP,
        AFFECTED,
    ),
    (NSetRQ(message_id=3, requested_sop_class_uid=CLASS, requested_sop_instance_uid=INSTANCE), NSetRSP, AFFECTED),
    (
        NActionRQ(message_id=3, requested_sop_class_uid=CLASS, requested_sop_instance_uid=INSTANCE, action_type_id=1),
        NActionRSP,
        {**AFFECTED, "action_type_id": 1},
    ),
    (
        NCreateRQ(message_id=3, affected_sop_class_uid=CLASS, affected_sop_instance_uid=INSTANCE),
        NCreateRSP,
        AFFECTED,
    ),
    (NCreateRQ(message_id=3, affected_sop_class_uid=CLASS), NCreateRSP, {"affected_sop_class_uid": CLASS}),
    (
        NDeleteRQ(message_id=3, requested_sop_class_uid=CLASS, requested_sop_instance_uid=INSTANCE),
        NDeleteRSP,
        AFFECTED,
    ),
    (UnrecognizedRQ(message_id=3, command_field=0x0777), UnrecognizedRSP, {"command_field": 0x8777}),
]


def present(command: Command) -> dict[str, object]:
    """Return the fields that are there."""
    values = {name: getattr(command, name) for name in command.__dataclass_fields__}
    return {name: value for name, value in values.items() if value is not None}


class TestRespond:
    """The response to a request: Message ID, UIDs (Requested become Affected), type IDs."""

    @pytest.mark.parametrize(("request_", "response", "expected"), RESPONSES_EXPECTED)
    def test_what_it_repeats(self, request_: Request, response: type[Response], expected: dict[str, object]) -> None:
        answer = respond(request_, 0x0211)
        assert type(answer) is response
        assert present(answer) == {"message_id_being_responded_to": 3, "status": 0x0211, **expected}
        assert answer.status.category is Category.FAILURE

    def test_every_request_is_tried(self) -> None:
        assert {type(request) for request, _, _ in RESPONSES_EXPECTED} == set(RESPONSES)

    def test_further_fields(self) -> None:
        request = CMoveRQ(message_id=1, affected_sop_class_uid=CLASS, move_destination="WS1")
        response = respond(request, 0xFF00, number_of_remaining_suboperations=4, number_of_completed_suboperations=0)
        assert response == CMoveRSP(
            message_id_being_responded_to=1,
            status=Status(0xFF00),
            affected_sop_class_uid=CLASS,
            number_of_remaining_suboperations=4,
            number_of_completed_suboperations=0,
        )

    def test_the_performer_of_n_create_assigns_the_instance(self) -> None:
        request = NCreateRQ(message_id=1, affected_sop_class_uid=CLASS, affected_sop_instance_uid=INSTANCE)
        response = respond(request, 0, affected_sop_instance_uid="2.25.1")
        assert present(response)["affected_sop_instance_uid"] == "2.25.1"

    def test_a_field_that_the_response_does_not_have(self) -> None:
        with pytest.raises(TypeError, match="event_type_id"):
            respond(CEchoRQ(message_id=1, affected_sop_class_uid=CLASS), 0, event_type_id=1)

    @pytest.mark.parametrize("uid", ["", "1." + "2" * 63])
    def test_a_uid_that_cannot_be_sent_is_left_out(self, uid: str) -> None:
        request = CStoreRQ(message_id=1, affected_sop_class_uid=uid, affected_sop_instance_uid=uid)
        assert present(respond(request, 0x0117)) == {"message_id_being_responded_to": 1, "status": 0x0117}

    def test_the_longest_uid_is_repeated(self) -> None:
        uid = "1." + "2" * 62
        request = CStoreRQ(message_id=1, affected_sop_class_uid=uid, affected_sop_instance_uid=uid)
        assert present(respond(request, 0))["affected_sop_instance_uid"] == uid
