"""Inputs to begin with: what our own encoders make, and what real peers said (`recorded`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import (
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CMoveRQ,
    Command,
    CStoreRQ,
    NActionRQ,
    NCreateRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
    respond,
)
from aiodicom.dimse.fragments import fragment
from aiodicom.dimse.status import Status
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
    UserInformationItem,
)
from aiodicom.upper_layer.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
)
from aiodicom.upper_layer.state_machine import Event
from tests.fuzz.dimse import command_set, series
from tests.fuzz.upper_layer import script
from tests.upper_layer.joined import ACCEPTANCE, REJECTION, REQUEST, UNKNOWN_PDU

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
STUDY_ROOT: Final = "1.2.840.10008.5.1.4.1.2.2.1"
SYNTAXES: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90")

ITEMS: Final[tuple[UserInformationItem, ...]] = (
    MaximumLength(131_072),
    ImplementationClassUID("1.2.826.0.1.3680043.10.954"),
    AsynchronousOperationsWindow(16, 1),
    RoleSelection(CT, True, True),
    RoleSelection("1.2.840.10008.1.1", False, True),
    ImplementationVersionName("FUZZ 1"),
    SOPClassExtendedNegotiation(STUDY_ROOT, b"\1\1\1\1\0"),
    SOPClassCommonExtendedNegotiation(CT, "1.2.840.10008.4.2", ("1.2.840.10008.5.1.4.1.1.2.1",)),
    UserIdentity(1, b"user"),
    UserIdentity(2, b"user", b"secret", True),
    UserIdentity(3, bytes(range(32))),
    UserIdentity(4, b"<saml:Assertion ID='secret'/>"),
    UserIdentity(5, b"eyJhbGciOiJIUzI1NiJ9.e30.secret"),
    UserIdentityResponse(b"ticket"),
    UnknownItem(0x5A, b"later"),
)

PDUS: Final = (
    AAssociateRQ(
        "CALLED",
        "CALLING",
        (PresentationContextRQ(1, "1.2.840.10008.1.1", SYNTAXES[:2]), PresentationContextRQ(3, CT, SYNTAXES)),
        ITEMS[:3],
    ),
    AAssociateRQ("A", "B", (PresentationContextRQ(255, STUDY_ROOT, SYNTAXES[:1]),), ITEMS),
    AAssociateAC(
        "CALLED",
        "CALLING",
        (PresentationContextAC(1, 0, SYNTAXES[0]), PresentationContextAC(3, 4, SYNTAXES[1])),
        ITEMS[:3],
    ),
    AAssociateRJ(1, 1, 7),
    PDataTF((PDV(1, True, False, b"comm"), PDV(1, True, True, b"and"), PDV(3, False, False, b""))),
    PDataTF((PDV(1, False, True, bytes(80)),)),
    AReleaseRQ(),
    AReleaseRP(),
    AAbort(0, 0),
    AAbort(2, 6),
)

_REQUESTS: Final = (
    CEchoRQ(message_id=1, affected_sop_class_uid="1.2.840.10008.1.1"),
    CStoreRQ(
        message_id=2,
        affected_sop_class_uid=CT,
        affected_sop_instance_uid="1.2.3.4",
        move_originator_application_entity_title="MOVER",
        move_originator_message_id=7,
    ),
    CFindRQ(message_id=3, affected_sop_class_uid=STUDY_ROOT),
    CGetRQ(message_id=4, affected_sop_class_uid=STUDY_ROOT),
    CMoveRQ(message_id=5, affected_sop_class_uid=STUDY_ROOT, move_destination="THERE"),
    NEventReportRQ(message_id=6, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.3.4", event_type_id=1),
    NGetRQ(
        message_id=7,
        requested_sop_class_uid="1.2.3",
        requested_sop_instance_uid="1.2.3.4",
        attribute_identifier_list=(0x00100010, 0x00100020),
    ),
    NSetRQ(message_id=8, requested_sop_class_uid="1.2.3", requested_sop_instance_uid="1.2.3.4"),
    NActionRQ(message_id=9, requested_sop_class_uid="1.2.3", requested_sop_instance_uid="1.2.3.4", action_type_id=2),
    NCreateRQ(message_id=10, affected_sop_class_uid="1.2.3"),
)
COMMANDS: Final[tuple[Command, ...]] = (
    *_REQUESTS,
    *(respond(request, 0) for request in _REQUESTS),
    *(
        respond(request, 0x0110, error_comment="It did not work", offending_element=(0x00080018,))
        for request in _REQUESTS
    ),
    CFindRSP(message_id_being_responded_to=3, status=Status(0xFF00)),
    CCancelRQ(message_id_being_responded_to=3),
)
COMMAND_SETS: Final = tuple(
    encode_command(command, has_data_set=isinstance(command, CStoreRQ | CFindRQ)) for command in COMMANDS
)
_DATA_SET: Final = bytes.fromhex("08001600 0A000000") + b"1.2.840.1\0" + bytes.fromhex("10001000 04000000") + b"A^B "


def for_pdus() -> Iterator[bytes]:
    """Z1."""
    encoded = [pdu.encode() for pdu in PDUS]
    yield from encoded
    yield b"".join(encoded)
    yield UNKNOWN_PDU
    yield b"GET / HTTP/1.1\r\n"
    yield bytes.fromhex("0100FFFFFFFF")
    for data in COMMAND_SETS:
        yield PDataTF((PDV(1, True, True, data),)).encode()


def for_items() -> Iterator[bytes]:
    """Z8."""
    encoded = [item.encode() for item in ITEMS]
    yield from encoded
    yield b"".join(encoded)


def for_messages() -> Iterator[bytes]:
    """Z3."""
    for data in COMMAND_SETS:
        yield command_set(data)
        yield series(fragment(1, data, 20, is_command=True))
    store = PDV(3, True, True, COMMAND_SETS[1])
    yield series((store, *fragment(3, _DATA_SET, 12)))
    yield series((store, *fragment(3, _DATA_SET, 12), PDV(1, True, True, COMMAND_SETS[0])))
    yield series((store, PDV(3, False, False, b""), PDV(1, True, True, COMMAND_SETS[0])))


def for_machine() -> Iterator[bytes]:
    """Z2."""
    opened = (Event.EVT2, REQUEST.encode(), Event.EVT7)
    asked = (Event.EVT1, Event.EVT2, ACCEPTANCE.encode())
    echo = PDataTF((PDV(1, True, True, COMMAND_SETS[0]),)).encode()
    release, released = AReleaseRQ().encode(), AReleaseRP().encode()
    yield script(*opened, echo, Event.EVT9, release, Event.EVT14, Event.EVT17)
    yield script(*asked, Event.EVT9, echo, Event.EVT11, released)
    yield script(*asked, Event.EVT11, echo, release, Event.EVT14, released)
    yield script(*opened, Event.EVT11, release, released, Event.EVT14, Event.EVT17)
    yield script(Event.EVT2, REQUEST.encode(), Event.EVT8, Event.EVT18)
    yield script(Event.EVT1, Event.EVT2, REJECTION.encode())
    yield script(Event.EVT2, UNKNOWN_PDU, REQUEST.encode(), Event.EVT18)
    yield script(Event.EVT2, Event.EVT18)
    yield script(*opened, REQUEST.encode(), AAbort(2, 2).encode())
    yield script(*opened, release, Event.EVT9, echo, Event.EVT17)
    yield script(*opened, Event.EVT15, echo, AAbort().encode())
    yield script(Event.EVT1, Event.EVT15)
    yield script(Event.EVT1, Event.EVT17)
    yield script(Event.EVT1, Event.EVT2, ACCEPTANCE.encode() + echo + release)
    yield script(Event.EVT2, REQUEST.encode() + echo)
