"""Audit messages as XML: valid by the schema of PS3.15 §A.5.1, with what the tables of §A.5.3 make mandatory."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone

import pytest

from aiodicom.accounts import Subject
from aiodicom.audit.messages import (
    APPLICATION,
    DESTINATION,
    MAXIMUM_QUERY,
    NODE_AUTHENTICATION,
    SOURCE,
    Message,
    Outcome,
    Participant,
    application_activity,
    begin_transferring,
    instances_transferred,
    query,
    security_alert,
    user_authentication,
)
from tests.audit.collecting import Told
from tests.canaries import PATIENT_ID, PATIENT_NAME, sung

PEER = Participant(user_id="CT1", ae_title="CT1", roles=(SOURCE,), is_requestor=True, host="10.0.0.5")
US = Participant(user_id="4711", ae_title="PACS", roles=(DESTINATION,), host="pacs", is_machine_name=True)
SUBJECT = Subject("1.2.3", PATIENT_ID, PATIENT_NAME)


def told(message: Message, site_id: str = "") -> Told:
    assert not sung(repr(message))
    return Told(message.encode("pacs.example", site_id))


@pytest.mark.parametrize("starts", [True, False])
def test_application_activity(starts: bool) -> None:
    application = Participant(user_id="4711", ae_title="PACS", roles=(APPLICATION,))
    message = told(application_activity(application, starts=starts), "north")
    assert (message.event, message.action, message.outcome) == ("Application Activity", "E", 0)
    assert message.types == ["Application Start" if starts else "Application Stop"]
    [participant] = message.participants
    assert participant.get("UserID") == "4711"
    assert participant.get("AlternativeUserID") == "AETITLES=PACS"
    assert message.with_role("Application") is participant
    [source] = message.root.iter("AuditSourceIdentification")
    assert dict(source.attrib) == {"AuditEnterpriseSiteID": "north", "AuditSourceID": "pacs.example"}


def test_begin_transferring() -> None:
    message = told(begin_transferring((PEER, US), SUBJECT, {"1.2.840.10008.5.1.4.1.1.2": 3}))
    assert (message.event, message.action) == ("Begin Transferring DICOM Instances", "E")
    assert message.subject == SUBJECT
    assert message.sop_classes == {"1.2.840.10008.5.1.4.1.1.2": 3}


@pytest.mark.parametrize("effect", ["C", "R", "U"])
@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.MINOR_FAILURE])
def test_instances_transferred(effect: str, outcome: Outcome) -> None:
    message = told(
        instances_transferred((PEER, US), SUBJECT, {"1.2.840.10008.5.1.4.1.1.2": 3}, effect=effect, outcome=outcome)  # type: ignore[arg-type]
    )
    assert (message.event, message.action, message.outcome) == ("DICOM Instances Transferred", effect, outcome)
    assert message.subject == SUBJECT
    source, destination = message.with_role("Source Role ID"), message.with_role("Destination Role ID")
    assert (source.get("UserIsRequestor"), destination.get("UserIsRequestor")) == ("true", "false")
    points = [
        (each.get("NetworkAccessPointTypeCode"), each.get("NetworkAccessPointID")) for each in (source, destination)
    ]
    assert points == [("2", "10.0.0.5"), ("1", "pacs")]
    study, patient = message.objects
    assert (study.get("ParticipantObjectTypeCode"), study.get("ParticipantObjectTypeCodeRole")) == ("2", "3")
    assert (patient.get("ParticipantObjectTypeCode"), patient.get("ParticipantObjectTypeCodeRole")) == ("1", "1")


def test_what_is_not_known_leaves_the_message_valid() -> None:
    nobody = Participant(user_id="")
    message = told(instances_transferred((nobody, US), Subject(), {}, effect="R", outcome=Outcome.SUCCESS))
    assert message.subject == ("", "", "")


def test_query() -> None:
    identifier = bytes(range(256))
    message = told(
        query((PEER, US), "1.2.840.10008.5.1.4.31", identifier, "1.2.840.10008.1.2", outcome=Outcome.SUCCESS)
    )
    assert (message.event, message.action) == ("Query", "E")
    [asked] = message.objects
    assert asked.get("ParticipantObjectID") == "1.2.840.10008.5.1.4.31"
    assert b64decode(asked.find("ParticipantObjectQuery").text, validate=True) == identifier
    assert message.detail("TransferSyntax") == b"1.2.840.10008.1.2"


def test_a_query_of_any_size_fits_into_what_collectors_must_take() -> None:
    message = query((PEER, US), "1.2.3", b"x" * 1_000_000, "1.2.840.10008.1.2", outcome=Outcome.SUCCESS)
    assert len(message.objects[0].query or b"") == MAXIMUM_QUERY
    assert len(message.encode("x" * 255)) < 32_768
    told(message)


def test_security_alert() -> None:
    words = "association with 'EVIL': rejected"
    message = told(security_alert((US, PEER), NODE_AUTHENTICATION, "10.0.0.5", words, outcome=Outcome.MINOR_FAILURE))
    assert (message.event, message.types, message.outcome) == ("Security Alert", ["Node Authentication"], 4)
    assert message.detail("Alert Description").decode() == words
    assert message.object("Node ID").get("ParticipantObjectID") == "10.0.0.5"


def test_user_authentication() -> None:
    user = Participant(user_id="ada", user_name="ada", is_requestor=True, host="10.0.0.5")
    message = told(user_authentication((user, US), outcome=Outcome.SERIOUS_FAILURE, description="wrong passcode"))
    assert (message.event, message.types, message.outcome) == ("User Authentication", ["Login"], 8)
    assert message.participants[0].get("UserName") == "ada"


EVIL = "A\"'<&>]]>\r\n\x00\x1b\x85\u2028\ufffe\ud800Ω"


def test_no_value_breaks_out() -> None:
    evil = Participant(user_id=EVIL, ae_title=EVIL, host=EVIL, user_name=EVIL)
    subject = Subject(EVIL, EVIL, EVIL)
    message = instances_transferred((evil, evil), subject, {EVIL: 1}, effect="C", outcome=Outcome.SUCCESS)
    alert = security_alert((evil,), NODE_AUTHENTICATION, EVIL, EVIL, outcome=Outcome.SUCCESS)
    for each in (message, alert):
        xml = each.encode(EVIL, EVIL)
        assert b"\n" not in xml
        assert xml.decode().isprintable()
    escaped = "A\"'<&>]]>\\r\\n\\x00\\x1b\\x85\\u2028\\ufffe\\ud800Ω"
    assert told(message).subject == (escaped,) * 3
    assert told(alert).detail("Alert Description").decode() == escaped


def test_the_time_is_that_of_the_event_and_says_its_zone() -> None:
    time = datetime(2026, 2, 28, 23, 59, 59, 999_600, UTC)
    message = Message(event=NODE_AUTHENTICATION, action="E", participants=(US,), time=time)
    assert 'EventDateTime="2026-02-28T23:59:59.999+00:00"' in told(message).xml
    elsewhere = Message(
        event=NODE_AUTHENTICATION, action="E", participants=(US,), time=time.astimezone(timezone(timedelta(hours=5)))
    )
    assert "+05:00" in told(elsewhere).xml
    assert Message(event=NODE_AUTHENTICATION, action="E", participants=(US,)).time.tzinfo is UTC
