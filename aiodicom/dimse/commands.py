"""The commands of DIMSE: one frozen dataclass for each message of PS3.7 §9.3 (DIMSE-C) and §10.3 (DIMSE-N).

A field bears the Standard's name for its command element, in snake case; `ELEMENTS` gives its tag and its value
representation, and is all that the codec knows about it. A field without a default is mandatory; None says that the
element is absent. Attribute tags are numbers: (0010,0020) is 0x00100020. Whether a data set follows, Command Data Set
Type (0000,0800), is a property of the message and no field here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from enum import IntEnum
from typing import ClassVar, Final, NamedTuple

from aiodicom.dimse.status import Category, Status
from aiodicom.errors import DimseError

__all__ = [
    "COMMANDS",
    "ELEMENTS",
    "MAXIMUM_UID_LENGTH",
    "RESPONSES",
    "RESPONSE_BIT",
    "CCancelRQ",
    "CEchoRQ",
    "CEchoRSP",
    "CFindRQ",
    "CFindRSP",
    "CGetRQ",
    "CGetRSP",
    "CMoveRQ",
    "CMoveRSP",
    "CStoreRQ",
    "CStoreRSP",
    "Command",
    "Element",
    "NActionRQ",
    "NActionRSP",
    "NCreateRQ",
    "NCreateRSP",
    "NDeleteRQ",
    "NDeleteRSP",
    "NEventReportRQ",
    "NEventReportRSP",
    "NGetRQ",
    "NGetRSP",
    "NSetRQ",
    "NSetRSP",
    "Priority",
    "Request",
    "Response",
    "SuboperationsRSP",
    "UnrecognizedRQ",
    "UnrecognizedRSP",
    "respond",
]


RESPONSE_BIT: Final = 0x8000
"""What the Command Field of a response has more than that of its request (PS3.7 §E.1)."""

MAXIMUM_UID_LENGTH: Final = 64
"""The characters of a UID at most (PS3.5 §9.1)."""


class Element(NamedTuple):
    """A row of the registry of command elements: the tag, and the value representation (PS3.5 §6.2)."""

    tag: int
    vr: str


# PS3.7 Table E.1-1, in its order, without the retired rows of Table E.2-1.
ELEMENTS: Final[Mapping[str, Element]] = {
    "command_group_length": Element(0x0000_0000, "UL"),
    "affected_sop_class_uid": Element(0x0000_0002, "UI"),
    "requested_sop_class_uid": Element(0x0000_0003, "UI"),
    "command_field": Element(0x0000_0100, "US"),
    "message_id": Element(0x0000_0110, "US"),
    "message_id_being_responded_to": Element(0x0000_0120, "US"),
    "move_destination": Element(0x0000_0600, "AE"),
    "priority": Element(0x0000_0700, "US"),
    "command_data_set_type": Element(0x0000_0800, "US"),
    "status": Element(0x0000_0900, "US"),
    "offending_element": Element(0x0000_0901, "AT"),
    "error_comment": Element(0x0000_0902, "LO"),
    "error_id": Element(0x0000_0903, "US"),
    "affected_sop_instance_uid": Element(0x0000_1000, "UI"),
    "requested_sop_instance_uid": Element(0x0000_1001, "UI"),
    "event_type_id": Element(0x0000_1002, "US"),
    "attribute_identifier_list": Element(0x0000_1005, "AT"),
    "action_type_id": Element(0x0000_1008, "US"),
    "number_of_remaining_suboperations": Element(0x0000_1020, "US"),
    "number_of_completed_suboperations": Element(0x0000_1021, "US"),
    "number_of_failed_suboperations": Element(0x0000_1022, "US"),
    "number_of_warning_suboperations": Element(0x0000_1023, "US"),
    "move_originator_application_entity_title": Element(0x0000_1030, "AE"),
    "move_originator_message_id": Element(0x0000_1031, "US"),
}
"""The command elements by field name: PS3.7 Table E.1-1."""


class Priority(IntEnum):
    """The values of Priority (0000,0700)."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


class Command:
    """A command set; each subclass is a table of the Standard and says its `command_field` (0000,0100)."""

    __slots__ = ()

    command_field: int
    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    def __repr__(self) -> str:
        shown = ((each.name, getattr(self, each.name), each.default) for each in fields(self) if each.repr)
        text = ", ".join(f"{name}={_in_hexadecimal(value)}" for name, value, default in shown if value != default)
        return f"{type(self).__name__}({text})"


def _in_hexadecimal(value: object) -> str:
    # Attribute tags are read in hexadecimal only.
    if isinstance(value, tuple):
        return f"({', '.join(f'0x{tag:08X}' for tag in value)})"
    return repr(value)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Request(Command):
    """What invokes an operation or a notification.

    Args:
        message_id: 0-65535, unique among the outstanding requests of its sender.
    """

    message_id: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Response(Command):
    """What answers a request: the fields that every response has, and those that PS3.7 Annex C ties to the status.

    Args:
        message_id_being_responded_to: the Message ID of the request.
        status: how the operation went.
        affected_sop_class_uid: the SOP class of the request.
        offending_element: the tags of the elements in error.
        error_comment: what went wrong; at most 64 characters are sent. Free text, so no `repr` shows it.
        error_id: a code of the application that responds.
    """

    message_id_being_responded_to: int
    status: Status
    affected_sop_class_uid: str | None = None
    offending_element: tuple[int, ...] | None = None
    error_comment: str | None = field(default=None, repr=False)
    error_id: int | None = None

    def raise_for_status(self) -> None:
        """Do nothing, unless the operation failed.

        Raises:
            DimseError: the status is a failure; it carries the status and the Error Comment.
        """
        if self.status.category is Category.FAILURE:
            raise DimseError(self.status, self.error_comment or "")


# --- DIMSE-C, PS3.7 §9.3


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CStoreRQ(Request):
    """C-STORE-RQ, PS3.7 Table 9.3-1; the two last fields say which C-MOVE it belongs to."""

    command_field = 0x0001

    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM
    affected_sop_instance_uid: str
    move_originator_application_entity_title: str | None = None
    move_originator_message_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CStoreRSP(Response):
    """C-STORE-RSP, PS3.7 Table 9.3-2."""

    command_field = 0x8001

    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CFindRQ(Request):
    """C-FIND-RQ, PS3.7 Table 9.3-3."""

    command_field = 0x0020

    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CFindRSP(Response):
    """C-FIND-RSP, PS3.7 Table 9.3-4."""

    command_field = 0x8020


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CGetRQ(Request):
    """C-GET-RQ, PS3.7 Table 9.3-6."""

    command_field = 0x0010

    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SuboperationsRSP(Response):
    """What the responses of C-GET and C-MOVE have in common: the counters of their C-STORE sub-operations.

    Which of them a response has depends on its status (PS3.4 §C.4.2.1.6-9).
    """

    number_of_remaining_suboperations: int | None = None
    number_of_completed_suboperations: int | None = None
    number_of_failed_suboperations: int | None = None
    number_of_warning_suboperations: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CGetRSP(SuboperationsRSP):
    """C-GET-RSP, PS3.7 Table 9.3-7."""

    command_field = 0x8010


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CMoveRQ(Request):
    """C-MOVE-RQ, PS3.7 Table 9.3-9."""

    command_field = 0x0021

    affected_sop_class_uid: str
    priority: int = Priority.MEDIUM
    move_destination: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CMoveRSP(SuboperationsRSP):
    """C-MOVE-RSP, PS3.7 Table 9.3-10."""

    command_field = 0x8021


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CCancelRQ(Command):
    """C-CANCEL-RQ of C-FIND, C-GET and C-MOVE, PS3.7 Tables 9.3-5, 9.3-8 and 9.3-11.

    It has no Message ID of its own and is not responded to.

    Args:
        message_id_being_responded_to: the Message ID of the request to cancel.
    """

    command_field = 0x0FFF

    message_id_being_responded_to: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CEchoRQ(Request):
    """C-ECHO-RQ, PS3.7 Table 9.3-12."""

    command_field = 0x0030

    affected_sop_class_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CEchoRSP(Response):
    """C-ECHO-RSP, PS3.7 Table 9.3-13."""

    command_field = 0x8030


# --- DIMSE-N, PS3.7 §10.3


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NEventReportRQ(Request):
    """N-EVENT-REPORT-RQ, PS3.7 Table 10.3-1."""

    command_field = 0x0100

    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    event_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NEventReportRSP(Response):
    """N-EVENT-REPORT-RSP, PS3.7 Table 10.3-2; a response with an event reply names its Event Type ID."""

    command_field = 0x8100

    affected_sop_instance_uid: str | None = None
    event_type_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NGetRQ(Request):
    """N-GET-RQ, PS3.7 Table 10.3-3; without an attribute identifier list it asks for all attributes."""

    command_field = 0x0110

    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    attribute_identifier_list: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NGetRSP(Response):
    """N-GET-RSP, PS3.7 Table 10.3-4; the list is that of an Attribute List warning (Annex C)."""

    command_field = 0x8110

    affected_sop_instance_uid: str | None = None
    attribute_identifier_list: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NSetRQ(Request):
    """N-SET-RQ, PS3.7 Table 10.3-5."""

    command_field = 0x0120

    requested_sop_class_uid: str
    requested_sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NSetRSP(Response):
    """N-SET-RSP, PS3.7 Table 10.3-6; the list is that of the statuses about attributes (Annex C)."""

    command_field = 0x8120

    affected_sop_instance_uid: str | None = None
    attribute_identifier_list: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NActionRQ(Request):
    """N-ACTION-RQ, PS3.7 Table 10.3-7."""

    command_field = 0x0130

    requested_sop_class_uid: str
    requested_sop_instance_uid: str
    action_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NActionRSP(Response):
    """N-ACTION-RSP, PS3.7 Table 10.3-8; a response with an action reply names its Action Type ID."""

    command_field = 0x8130

    affected_sop_instance_uid: str | None = None
    action_type_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NCreateRQ(Request):
    """N-CREATE-RQ, PS3.7 Table 10.3-9; without an instance UID the performer assigns one."""

    command_field = 0x0140

    affected_sop_class_uid: str
    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NCreateRSP(Response):
    """N-CREATE-RSP, PS3.7 Table 10.3-10; the list is that of the statuses about attributes (Annex C)."""

    command_field = 0x8140

    affected_sop_instance_uid: str | None = None
    attribute_identifier_list: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NDeleteRQ(Request):
    """N-DELETE-RQ, PS3.7 Table 10.3-11."""

    command_field = 0x0150

    requested_sop_class_uid: str
    requested_sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NDeleteRSP(Response):
    """N-DELETE-RSP, PS3.7 Table 10.3-12."""

    command_field = 0x8150

    affected_sop_instance_uid: str | None = None


# --- What is no command of the Standard, and can be answered all the same: status 0x0211


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class UnrecognizedRQ(Request):
    """A request with a Command Field that PS3.7 does not know, read as far as a response needs it.

    Args:
        command_field: Command Field (0000,0100) as the peer sent it.
    """

    command_field: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class UnrecognizedRSP(Response):
    """The response to an `UnrecognizedRQ`: "Unrecognized operation" (PS3.7 Annex C).

    Args:
        command_field: the request's with bit 15 set, as in every response of PS3.7.
    """

    command_field: int


RESPONSES: Final[Mapping[type[Request], type[Response]]] = {
    CStoreRQ: CStoreRSP,
    CFindRQ: CFindRSP,
    CGetRQ: CGetRSP,
    CMoveRQ: CMoveRSP,
    CEchoRQ: CEchoRSP,
    NEventReportRQ: NEventReportRSP,
    NGetRQ: NGetRSP,
    NSetRQ: NSetRSP,
    NActionRQ: NActionRSP,
    NCreateRQ: NCreateRSP,
    NDeleteRQ: NDeleteRSP,
    UnrecognizedRQ: UnrecognizedRSP,
}
"""The response class of each request class."""

MAY_BE_PENDING: Final = (CFindRQ, CGetRQ, CMoveRQ)
"""The requests that may have responses before the final one, and that C-CANCEL is for (PS3.7 §9.3.2.3)."""

_CLASSES: Final[tuple[type[Command], ...]] = (*RESPONSES, *RESPONSES.values(), CCancelRQ)

COMMANDS: Final[Mapping[int, type[Command]]] = {
    each.command_field: each for each in _CLASSES if each not in (UnrecognizedRQ, UnrecognizedRSP)
}
"""The command class of each Command Field that PS3.7 knows."""

# The fields that a response repeats, for each request class: (name in the response, name in the request). The UIDs
# that are "Requested" in an operation on an existing instance are "Affected" in every response.
_REPEATED: Final[Mapping[type[Request], tuple[tuple[str, str], ...]]] = {
    request: tuple(
        (name, source)
        for name in ("affected_sop_class_uid", "affected_sop_instance_uid", "event_type_id", "action_type_id")
        for source in (name, name.replace("affected", "requested"))
        if name in response.__dataclass_fields__ and source in request.__dataclass_fields__
    )
    for request, response in RESPONSES.items()
}


def respond(request: Request, status: int, **fields: object) -> Response:
    """Return the response to `request` with that status: of its class, with its Message ID and its UIDs.

    A UID that is empty or too long to be sent is left out. N-EVENT-REPORT and N-ACTION repeat their type ID.

    Args:
        request: what is responded to.
        status: a status code.
        fields: further fields of the response, by name; they go before what the request gives.

    Raises:
        TypeError: the response has no such field.
    """
    kind = type(request)
    values: dict[str, object] = {"message_id_being_responded_to": request.message_id, "status": Status(status)}
    for name, source in _REPEATED[kind]:
        value = getattr(request, source)
        if isinstance(value, int) or (value and len(value) <= MAXIMUM_UID_LENGTH):
            values[name] = value
    if isinstance(request, UnrecognizedRQ):
        values["command_field"] = request.command_field | RESPONSE_BIT
    if fields:
        values.update(fields)
    make: Callable[..., Response] = RESPONSES[kind]
    return make(**values)
