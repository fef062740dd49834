"""Audit messages as values, and as XML by the schema of PS3.15 §A.5.1.

Each function at the end makes one of the messages of §A.5.3, with the mandatory fields and those optional ones that are
known here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from aiodicom.accounts import Effect, Subject
from aiodicom.logs import printable

MAXIMUM_QUERY: Final = 12 * 1024
"""How many bytes of an identifier a message holds: collectors must take messages of 32 KiB (PS3.15 §A.6), in base64."""


class Outcome(IntEnum):
    """How an event ended (PS3.15 Table A.5.2-1)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


class Code(NamedTuple):
    """A coded value: what the schema calls csd-code, codeSystemName and originalText."""

    value: str
    meaning: str
    scheme: str = "DCM"


# PS3.16 CID 400, 401, 402, 403, 404; PS3.15 §A.5.1.2.4.
APPLICATION_ACTIVITY: Final = Code("110100", "Application Activity")
BEGIN_TRANSFERRING: Final = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
QUERY: Final = Code("110112", "Query")
SECURITY_ALERT: Final = Code("110113", "Security Alert")
USER_AUTHENTICATION: Final = Code("110114", "User Authentication")

APPLICATION_START: Final = Code("110120", "Application Start")
APPLICATION_STOP: Final = Code("110121", "Application Stop")
LOGIN: Final = Code("110122", "Login")
NODE_AUTHENTICATION: Final = Code("110126", "Node Authentication")
USE_OF_RESTRICTED_FUNCTION: Final = Code("110132", "Use of Restricted Function")
AUDIT_RECORDING_STARTED: Final = Code("110134", "Audit Recording Started")

APPLICATION: Final = Code("110150", "Application")
DESTINATION: Final = Code("110152", "Destination Role ID")
SOURCE: Final = Code("110153", "Source Role ID")

STUDY_INSTANCE_UID: Final = Code("110180", "Study Instance UID")
SOP_CLASS_UID: Final = Code("110181", "SOP Class UID")
NODE_ID: Final = Code("110182", "Node ID")
PATIENT_NUMBER: Final = Code("2", "Patient Number", "RFC-3881")

_PERSON, _SYSTEM = "1", "2"  # ParticipantObjectTypeCode
_PATIENT, _REPORT, _SECURITY_RESOURCE = "1", "3", "13"  # ParticipantObjectTypeCodeRole
_MACHINE, _ADDRESS = "1", "2"  # NetworkAccessPointTypeCode
_APPLICATION_SERVER: Final = "4"  # AuditSourceTypeCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who took an active part (ActiveParticipant).

    Args:
        user_id: which process, node or user (PS3.15 §A.5.2.1).
        ae_title: by which it calls or is called; "" for a user.
        is_requestor: whether it asked for what happened.
        roles: which it played.
        host: the address that it was at, or the name of the machine it is.
        is_machine_name: whether that is a name.
        user_name: as whom a user presents itself.
    """

    user_id: str
    ae_title: str = ""
    is_requestor: bool = False
    roles: tuple[Code, ...] = ()
    host: str = ""
    is_machine_name: bool = False
    user_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjected:
    """What it was done to (ParticipantObjectIdentification).

    Args:
        identifier: which one.
        code: of what kind the identifier is.
        type_code: ParticipantObjectTypeCode.
        role: ParticipantObjectTypeCodeRole.
        name: in words; the schema wants a name where there is no query.
        query: what was asked, encoded.
        details: further values, by what they are.
        sop_classes: how many instances of which SOP class.
    """

    identifier: str
    code: Code
    type_code: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: Mapping[str, bytes] = field(default_factory=dict)
    sop_classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An audit message.

    Args:
        event: what happened.
        action: C created, R read, U updated, D deleted, E executed.
        outcome: how it ended.
        types: what kind of that event.
        description: how it ended, in words.
        participants: who took part; at least one.
        objects: what it was done to.
        time: when.
    """

    event: Code
    action: str
    participants: Sequence[Participant]
    outcome: Outcome = Outcome.SUCCESS
    types: Sequence[Code] = ()
    description: str = ""
    objects: Sequence[Subjected] = ()
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __repr__(self) -> str:
        return f"<Message {self.event.meaning}>"  # what is in it is for no log

    def encode(self, source_id: str, site_id: str = "") -> bytes:
        """Return it as XML in UTF-8, in one line.

        Args:
            source_id: which system reports it.
            site_id: where that is, in an enterprise of several sites; "" is not said.
        """
        root = Element("AuditMessage")
        identification = _sub(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=self.time.isoformat(timespec="milliseconds"),
            EventOutcomeIndicator=str(int(self.outcome)),
        )
        _code(identification, "EventID", self.event)
        for code in self.types:
            _code(identification, "EventTypeCode", code)
        if self.description:
            SubElement(identification, "EventOutcomeDescription").text = printable(self.description)
        for participant in self.participants:
            _participant(root, participant)
        source = _sub(root, "AuditSourceIdentification", AuditEnterpriseSiteID=site_id, AuditSourceID=source_id)
        _sub(source, "AuditSourceTypeCode", **{"csd-code": _APPLICATION_SERVER})
        for each in self.objects:
            _object(root, each)
        return b'<?xml version="1.0" encoding="UTF-8"?>' + bytes(tostring(root, "utf-8"))


def _sub(parent: Element, name: str, **attributes: str) -> Element:
    """Add an element; attributes that are "" are left out. XML allows no control characters: they are escaped."""
    return SubElement(parent, name, {key: printable(value) for key, value in attributes.items() if value})


def _code(parent: Element, name: str, code: Code) -> None:
    _sub(parent, name, **{"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})


def _participant(root: Element, participant: Participant) -> None:
    element = _sub(
        root,
        "ActiveParticipant",
        AlternativeUserID=f"AETITLES={participant.ae_title}" if participant.ae_title else "",
        UserName=participant.user_name,
        UserIsRequestor=str(participant.is_requestor).lower(),
        NetworkAccessPointID=participant.host,
        NetworkAccessPointTypeCode=(_MACHINE if participant.is_machine_name else _ADDRESS) if participant.host else "",
    )
    element.set("UserID", printable(participant.user_id))  # which must be there
    for role in participant.roles:
        _code(element, "RoleIDCode", role)


def _object(root: Element, subjected: Subjected) -> None:
    element = _sub(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectTypeCode=subjected.type_code,
        ParticipantObjectTypeCodeRole=subjected.role,
    )
    element.set("ParticipantObjectID", printable(subjected.identifier))  # which must be there
    _code(element, "ParticipantObjectIDTypeCode", subjected.code)
    if subjected.query is None:
        SubElement(element, "ParticipantObjectName").text = printable(subjected.name)
    else:
        SubElement(element, "ParticipantObjectQuery").text = b64encode(subjected.query).decode()
    for kind, value in subjected.details.items():
        _sub(element, "ParticipantObjectDetail", type=kind).set("value", b64encode(value).decode())
    if subjected.sop_classes:
        description = SubElement(element, "ParticipantObjectDescription")
        for uid, count in subjected.sop_classes.items():
            _sub(description, "SOPClass", UID=uid, NumberOfInstances=str(count))


# The messages of PS3.15 §A.5.3.


def application_activity(application: Participant, *, starts: bool) -> Message:
    """An application starts or stops (§A.5.3.1)."""
    return Message(
        event=APPLICATION_ACTIVITY,
        action="E",
        types=(APPLICATION_START if starts else APPLICATION_STOP,),
        participants=(application,),
    )


def begin_transferring(
    participants: Sequence[Participant], subject: Subject, sop_classes: Mapping[str, int]
) -> Message:
    """Instances of one patient are about to go from one AE to another (§A.5.3.3)."""
    objects = _study_and_patient(subject, sop_classes)
    return Message(event=BEGIN_TRANSFERRING, action="E", participants=participants, objects=objects)


def instances_transferred(
    participants: Sequence[Participant],
    subject: Subject,
    sop_classes: Mapping[str, int],
    *,
    effect: Effect,
    outcome: Outcome,
) -> Message:
    """Instances of one patient have gone from one AE to another, or were to (§A.5.3.7)."""
    objects = _study_and_patient(subject, sop_classes)
    return Message(
        event=INSTANCES_TRANSFERRED, action=effect, outcome=outcome, participants=participants, objects=objects
    )


def query(
    participants: Sequence[Participant],
    sop_class_uid: str,
    identifier: bytes,
    transfer_syntax_uid: str,
    *,
    outcome: Outcome,
) -> Message:
    """Somebody asked what there is, by C-FIND (§A.5.3.10). Of an identifier that is too long only the beginning is there."""
    asked = Subjected(
        identifier=sop_class_uid,
        code=SOP_CLASS_UID,
        type_code=_SYSTEM,
        role=_REPORT,
        query=identifier[:MAXIMUM_QUERY],
        details={"TransferSyntax": transfer_syntax_uid.encode()},
    )
    return Message(event=QUERY, action="E", outcome=outcome, participants=participants, objects=(asked,))


def security_alert(
    participants: Sequence[Participant], kind: Code, node: str, description: str, *, outcome: Outcome
) -> Message:
    """Somebody was kept from what is not for him, or the audit trail has a gap (§A.5.3.11).

    Args:
        participants: who reports it, and who did it.
        kind: what it is about.
        node: whom it is about: an address.
        description: what happened.
        outcome: success is for information, a minor or serious failure was parried.
    """
    alert = Subjected(
        identifier=node,
        code=NODE_ID,
        type_code=_SYSTEM,
        role=_SECURITY_RESOURCE,
        name=node,
        details={"Alert Description": printable(description).encode()},
    )
    return Message(
        event=SECURITY_ALERT, action="E", outcome=outcome, types=(kind,), participants=participants, objects=(alert,)
    )


def user_authentication(participants: Sequence[Participant], *, outcome: Outcome, description: str = "") -> Message:
    """A user said who he is, and was believed or not (§A.5.3.12)."""
    return Message(
        event=USER_AUTHENTICATION,
        action="E",
        outcome=outcome,
        types=(LOGIN,),
        description=description,
        participants=participants,
    )


def _study_and_patient(subject: Subject, sop_classes: Mapping[str, int]) -> tuple[Subjected, Subjected]:
    study = Subjected(
        identifier=subject.study_instance_uid,
        code=STUDY_INSTANCE_UID,
        type_code=_SYSTEM,
        role=_REPORT,
        name=subject.study_instance_uid,
        sop_classes=sop_classes,
    )
    patient = Subjected(
        identifier=subject.patient_id,
        code=PATIENT_NUMBER,
        type_code=_PERSON,
        role=_PATIENT,
        name=subject.patient_name,
    )
    return study, patient
