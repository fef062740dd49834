"""What is told of what happens at a server: the messages of PS3.15 §A.5.3, by real associations."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from aiodicom import (
    Archive,
    AssociationError,
    AssociationRejected,
    DimseError,
    EncodedInstance,
    IdentityType,
    Listener,
    Node,
    Operation,
    Peer,
    ProposedContext,
    RemoteAE,
    Server,
    UserIdentity,
    associate,
)
from aiodicom.accounts import Subject
from aiodicom.audit import Auditor, AuditTrail
from aiodicom.audit import auditor as auditor_module
from aiodicom.dimse.commands import CStoreRQ, CStoreRSP
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND, VERIFICATION
from tests.archive.keeping import STUDY, instance
from tests.audit.collecting import Kept, Told, until
from tests.canaries import PASSCODE, PATIENT_ID, PATIENT_NAME, TOKEN
from tests.loopback import CT, connect, ct_instance, raw_connection, reject_pdu, request_pdu, serving

ME: Final = Node("me", "SCU", "127.0.0.1", 104)
WHOSE: Final[dict[str, Any]] = {"PatientID": PATIENT_ID, "PatientName": PATIENT_NAME}
SUBJECT: Final = (STUDY, PATIENT_ID, PATIENT_NAME)


@asynccontextmanager
async def audited(**options: Any) -> AsyncIterator[tuple[Server, Kept]]:  # noqa: ANN401
    """A server, and what is told of it."""
    kept = Kept()
    async with (
        AuditTrail([kept], ae_title="SCP", source_id="pacs") as trail,
        serving(observers=[Auditor(trail)], **options) as server,
    ):
        yield server, kept


@asynccontextmanager
async def archived(folder: Path, *nodes: Node, **options: Any) -> AsyncIterator[tuple[Server, Kept]]:  # noqa: ANN401
    async with (
        Archive(folder, nodes=[ME, *nodes], **options) as archive,
        audited(services=archive.services()) as (server, kept),
    ):
        yield server, kept


async def store(server: Server, *instances: EncodedInstance) -> list[int]:
    contexts = [ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
    async with connect(server, contexts=contexts) as association:
        return [(await association.c_store(each)).status for each in instances]


async def stored(kept: Kept, count: int = 1) -> list[Told]:
    """The messages about what was transferred, once that many have come."""
    await until(lambda: len(kept.of("DICOM Instances Transferred")) >= count)
    return kept.of("DICOM Instances Transferred")


# Storing.


async def test_what_is_stored_is_told_once_for_each_association_and_study(tmp_path: Path) -> None:
    other: dict[str, Any] = {**WHOSE, "StudyInstanceUID": "1.2.840.2", "SeriesInstanceUID": "1.2.840.2.1"}
    async with archived(tmp_path) as (server, kept):
        assert set(await store(server, *(instance(number, **WHOSE) for number in range(5)), instance(9, **other))) == {
            0
        }
        one, another = await stored(kept, 2)
    assert (one.subject, another.subject) == (SUBJECT, ("1.2.840.2", PATIENT_ID, PATIENT_NAME))
    assert (one.sop_classes, another.sop_classes) == ({CT: 5}, {CT: 1})
    assert {(each.action, each.outcome) for each in (one, another)} == {("C", 0)}
    source, destination = one.with_role("Source Role ID"), one.with_role("Destination Role ID")
    assert (source.get("UserID"), source.get("NetworkAccessPointID")) == ("SCU", "127.0.0.1")
    assert (destination.get("AlternativeUserID"), destination.get("NetworkAccessPointID")) == ("AETITLES=SCP", "pacs")
    begun = kept.of("Begin Transferring DICOM Instances")
    assert [each.subject for each in begun] == [one.subject, another.subject]
    events = [each.event for each in kept.told]
    assert events.index("Begin Transferring DICOM Instances") < events.index("DICOM Instances Transferred")


@pytest.mark.parametrize(
    ("on_duplicate", "change", "status", "told"),
    [
        ("keep", {}, 0, ("R", 0)),
        ("keep", {"StudyDescription": "other"}, 0x0111, ("R", 4)),
        ("replace", {"StudyDescription": "other"}, 0, ("U", 0)),
    ],
    ids=["again", "refused", "replaced"],
)
async def test_what_comes_again_is_told_as_that(
    tmp_path: Path, on_duplicate: str, change: dict[str, Any], status: int, told: tuple[str, int]
) -> None:
    async with archived(tmp_path, on_duplicate=on_duplicate) as (server, kept):
        await store(server, instance(1, **WHOSE))
        assert await store(server, instance(1, **WHOSE, **change)) == [status]
        first, second = await stored(kept, 2)
    assert (first.action, first.outcome) == ("C", 0)
    assert (second.action, second.outcome) == told
    assert second.subject == SUBJECT


async def test_what_failed_and_what_succeeded_are_told_apart(tmp_path: Path) -> None:
    other = replace(instance(2, **WHOSE), sop_instance_uid="1.2.3.4")
    async with archived(tmp_path) as (server, kept):
        statuses = await store(server, instance(1, **WHOSE), other, instance(3, **WHOSE))
        assert [bool(status) for status in statuses] == [False, True, False]
        good, bad = await stored(kept, 2)
    assert (good.outcome, good.subject, good.sop_classes) == (0, SUBJECT, {CT: 2})
    assert (bad.outcome, bad.subject, bad.sop_classes) == (4, ("", "", ""), {CT: 1})


async def test_a_handler_may_say_whose_instance_it_keeps() -> None:
    async def keep(operation: Operation) -> None:
        dataset = await operation.dataset()
        assert operation.account is not None
        subject = Subject("1.2.3", dataset.PatientID, str(dataset.PatientName))
        operation.account.enter(subject, operation.sop_class_uid, effect="C")

    async with audited(store=keep) as (server, kept):
        async with connect(server) as association:
            await association.c_store(ct_instance())
        [message] = await stored(kept)
    assert message.subject == ("1.2.3", PATIENT_ID, PATIENT_NAME)
    assert message.action == "C"


async def test_a_handler_that_says_nothing_leaves_the_message_valid() -> None:
    async def keep(operation: Operation) -> None:
        await operation.read()

    async with audited(store=keep) as (server, kept):
        async with connect(server) as association:
            await association.c_store(ct_instance())
        [message] = await stored(kept)
    assert (message.subject, message.action, message.outcome) == (("", "", ""), "R", 0)


async def test_there_is_no_account_where_nobody_keeps_one() -> None:
    async def keep(operation: Operation) -> None:
        accounts.append(operation.account)

    accounts: list[object] = []
    async with serving(keep) as server, connect(server) as association:
        await association.c_store(ct_instance())
    assert accounts == [None]


async def test_an_association_that_does_not_end_is_told_of_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor_module, "SUMMED_UP_AFTER", 0.01)
    contexts = [ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
    async with archived(tmp_path) as (server, kept), connect(server, contexts=contexts) as association:
        for number in (1, 2):
            await association.c_store(instance(number, **WHOSE))
            await stored(kept, number)
    assert len(await stored(kept, 2)) == 2
    assert len(kept.of("Begin Transferring DICOM Instances")) == 2


async def test_studies_without_end_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor_module, "SUMMED_UP_AT_MOST", 3)
    contexts = [ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
    async with archived(tmp_path) as (server, kept), connect(server, contexts=contexts) as association:
        for number in range(1, 8):
            uids: dict[str, Any] = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1"}
            await association.c_store(instance(number, **WHOSE, **uids))
        await until(lambda: len(kept.of("DICOM Instances Transferred")) == 6)
    assert len(await stored(kept, 7)) == 7


async def test_an_association_that_breaks_while_it_stores_is_not_kept_in_memory() -> None:
    async def keep(operation: Operation) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if operation.sop_instance_uid.endswith(".2"):
                assert operation.account is not None
                operation.account.enter(Subject(*SUBJECT), CT, effect="C")

    begun = asyncio.Event()
    async with audited(store=keep) as (server, kept):
        for number in (1, 2):
            begun.clear()
            async with connect(server, contexts=[ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]) as association:
                storing = asyncio.create_task(association.c_store(instance(number)))
                await begun.wait()
                await association.abort()
                with pytest.raises(AssociationError):
                    await storing
        [message] = await stored(kept)
        [auditor] = server.observers
        assert isinstance(auditor, Auditor)
        await until(lambda: not server.associations)
        assert not auditor._sums
    assert (message.subject, message.sop_classes) == (SUBJECT, {CT: 1})


async def test_sop_classes_without_end_are_not_kept_in_memory() -> None:
    async with audited(store=lambda _: None) as (server, kept):
        async with connect(server, contexts=[ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]) as association:
            [context] = association.contexts
            for number in range(5):
                request = partial(CStoreRQ, affected_sop_class_uid=f"1.2.{number}", affected_sop_instance_uid="1.2")
                response = await association._exchange(context, request, CStoreRSP, b"")
                assert response.status == 0x0122
        [message] = await stored(kept)
    assert (message.outcome, message.sop_classes) == (4, {CT: 5})


# Asking.


async def test_a_query_is_told_with_what_was_asked(tmp_path: Path) -> None:
    async with archived(tmp_path) as (server, kept):
        await store(server, instance(1, **WHOSE))
        async with connect(server, contexts=[STUDY_ROOT_FIND]) as association:
            matches = await association.c_find(level="study", PatientID=PATIENT_ID).all()
        assert len(matches) == 1
        await until(lambda: kept.of("Query"))
    [message] = kept.of("Query")
    [asked] = message.objects
    assert asked.get("ParticipantObjectID") == STUDY_ROOT_FIND
    assert PATIENT_ID.encode() in b64decode(asked.find("ParticipantObjectQuery").text)
    assert message.detail("TransferSyntax").decode() == EXPLICIT_VR_LITTLE_ENDIAN
    assert (message.action, message.outcome) == ("E", 0)
    assert message.with_role("Source Role ID").get("UserID") == "SCU"


async def test_a_query_that_fails_is_told_as_that(tmp_path: Path) -> None:
    async with archived(tmp_path) as (server, kept):
        async with connect(server, contexts=[STUDY_ROOT_FIND]) as association:
            with pytest.raises(DimseError, match="0xA900"):
                await association.c_find(level="series", SeriesInstanceUID="").all()
        await until(lambda: kept.of("Query"))
    assert [each.outcome for each in kept.of("Query")] == [4]


async def test_what_a_get_sends_is_told(tmp_path: Path) -> None:
    async with archived(tmp_path) as (server, kept):
        await store(server, *(instance(number, **WHOSE) for number in (1, 2, 3)))
        await stored(kept)
        async with RemoteAE("127.0.0.1", server.port, ae_title="SCP", calling_ae_title="SCU") as remote:
            got = [each async for each in remote.retrieve(level="study", StudyInstanceUID=STUDY)]
        assert len(got) == 3
        *_, message = await stored(kept, 2)
    assert (message.action, message.outcome, message.subject, message.sop_classes) == ("R", 0, SUBJECT, {CT: 3})
    assert message.with_role("Source Role ID").get("AlternativeUserID") == "AETITLES=SCP"
    assert message.with_role("Destination Role ID").get("UserID") == "SCU"
    begun = kept.of("Begin Transferring DICOM Instances")[-1]
    assert (begun.subject, begun.sop_classes) == (SUBJECT, {CT: 3})
    assert begun.with_role("Destination Role ID").get("UserID") == "SCU"


async def test_what_a_move_sends_is_told_with_who_asked_for_it(tmp_path: Path) -> None:
    async def keep(operation: Operation) -> int:
        await operation.read()
        return 0xA700 if operation.sop_instance_uid.endswith(".2") else 0

    async with serving(keep) as destination:
        node = Node("there", "THERE", "127.0.0.1", destination.port)
        async with archived(tmp_path, node) as (server, kept):
            await store(server, *(instance(number, **WHOSE) for number in (1, 2, 3)))
            await stored(kept)
            async with associate("127.0.0.1", server.port, calling_ae_title="SCU", observers=()) as association:
                movement = association.c_move(level="study", StudyInstanceUID=STUDY, destination="THERE")
                assert [each async for each in movement][-1].failed == 1
            await stored(kept, 3)
    good, bad = kept.of("DICOM Instances Transferred")[1:]
    assert (good.outcome, good.sop_classes, bad.outcome, bad.sop_classes) == (0, {CT: 2}, 4, {CT: 1})
    for each in (good, bad):
        assert each.with_role("Destination Role ID").get("UserID") == "THERE"
        requestors = [who for who in each.participants if who.get("UserIsRequestor") == "true"]
        assert [who.get("UserID") for who in requestors] == ["SCU"]


# Who must not.


async def alerts(kept: Kept, count: int = 1) -> list[Told]:
    await until(lambda: len(kept.of("Security Alert")) >= count)
    return kept.of("Security Alert")


async def test_a_peer_that_is_rejected_is_an_alert() -> None:
    async with audited(require_called_ae_title=True, calling_ae_titles={"KNOWN"}) as (server, kept):
        for options in ({"called_ae_title": "WRONG"}, {"calling_ae_title": "NOBODY"}):
            with pytest.raises(AssociationRejected):
                await connect(server, **options)
        called, calling = await alerts(kept, 2)
    assert called.types == calling.types == ["Node Authentication"]
    assert (called.outcome, calling.outcome) == (4, 4)
    assert "called AE title not recognized" in called.detail("Alert Description").decode()
    assert "'NOBODY'" in calling.detail("Alert Description").decode()
    assert calling.object("Node ID").get("ParticipantObjectID") == "127.0.0.1"
    assert [who.get("UserID") for who in calling.participants][1:] == ["NOBODY"]


async def test_who_comes_when_there_is_no_room_is_none() -> None:
    async with audited(maximum_associations=0) as (server, kept):
        with pytest.raises(AssociationRejected):
            await connect(server)
        async with raw_connection(server) as peer:
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            await peer.rest()
    assert kept.of("Security Alert") == []


async def test_what_is_not_authorized_is_an_alert(tmp_path: Path) -> None:
    stranger = Node("reader", "READER", "127.0.0.1", 104, frozenset({"echo", "find"}))
    async with archived(tmp_path, stranger) as (server, kept):
        contexts = [VERIFICATION, ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
        async with connect(server, calling_ae_title="READER", contexts=contexts) as association:
            assert (await association.c_store(instance(1, **WHOSE))).status == 0x0124
        [alert] = await alerts(kept)
    assert alert.types == ["Use of Restricted Function"]
    assert alert.detail("Alert Description") == b"C-STORE is not authorized"
    assert [who.get("UserID") for who in alert.participants][1:] == ["READER"]
    assert kept.of("DICOM Instances Transferred") == []


USERNAME: Final = UserIdentity(IdentityType.USERNAME_AND_PASSCODE, b"ada", PASSCODE.encode())


@pytest.mark.parametrize(
    ("identity", "user"),
    [
        (USERNAME, "ada"),
        (UserIdentity(IdentityType.USERNAME, b"ad\r\na"), "ad\\r\\na"),
        (UserIdentity(IdentityType.USERNAME, b"\xff"), "user with identity of type 1"),
        (UserIdentity(IdentityType.JWT, TOKEN.encode()), "user with identity of type 5"),
    ],
    ids=["passcode", "hostile", "no UTF-8", "token"],
)
async def test_a_user_who_is_believed_and_one_who_is_not(identity: UserIdentity, user: str) -> None:
    answers = iter((True, False))
    async with audited() as (server, kept):
        async with connect(server, identity=identity, allow_plain_passcode=True):
            pass  # nobody has verified it, which is no login

        @server.on_user_identity(allow_plain_passcode=True)
        async def verify(_identity: UserIdentity, _peer: Peer) -> bool:
            return next(answers)

        async with connect(server, identity=identity, allow_plain_passcode=True):
            pass
        with pytest.raises(AssociationRejected):
            await connect(server, identity=identity, allow_plain_passcode=True)
        [alert] = await alerts(kept)
    [login, failure] = kept.of("User Authentication")
    assert (login.types, login.outcome, failure.outcome) == (["Login"], 0, 4)
    for message in (login, failure):
        assert message.participants[0].get("UserID") == user
        assert message.participants[0].get("NetworkAccessPointID") == "127.0.0.1"
    assert alert.participants[-1].get("UserID") == user
    for message in kept.told:
        assert PASSCODE not in message.xml
        assert TOKEN not in message.xml


async def test_what_a_handler_raises_is_an_alert_without_its_words() -> None:
    async with audited() as (server, kept):

        @server.on_user_identity(allow_plain_passcode=True)
        async def verify(identity: UserIdentity, _peer: Peer) -> bool:
            raise KeyError(identity.secondary_field.decode())

        with pytest.raises(AssociationRejected):
            await connect(server, identity=USERNAME, allow_plain_passcode=True)
        [alert] = await alerts(kept)
    words = alert.detail("Alert Description").decode()
    assert "KeyError" in words
    assert PASSCODE not in words
    [failure] = kept.of("User Authentication")
    assert failure.outcome == 4


async def test_who_comes_to_no_tls_connection_is_an_alert() -> None:
    authority, strangers = trustme.CA(), trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    stranger = ssl.create_default_context()
    authority.configure_trust(stranger)
    strangers.issue_cert("stranger.example").configure_cert(stranger)
    async with audited(listeners=[Listener(port=0, tls=tls)]) as (server, kept):
        with pytest.raises(AssociationError):
            await connect(server, tls=stranger)
        [alert] = await alerts(kept)
    assert alert.types == ["Node Authentication"]
    assert "certificate" in alert.detail("Alert Description").decode()
    assert alert.object("Node ID").get("ParticipantObjectID") == "127.0.0.1"


async def test_a_thousand_failures_while_the_collector_is_down_hurt_nobody() -> None:
    kept = Kept()
    kept.fault = ConnectionRefusedError(111, "nobody there")
    async with (
        AuditTrail([kept], first_pause=0.01) as trail,
        Server("SCP", port=0, observers=[Auditor(trail)]) as server,  # without the deadline that those of tests have
    ):

        @server.on_associate
        async def verify(peer: Peer) -> bytes | None:
            if peer.identity is not None:
                raise AssociationRejected
            return None

        request = request_pdu(items=(UserIdentity(IdentityType.USERNAME_AND_PASSCODE, b"ada", PASSCODE.encode()),))
        async with connect(server) as association:
            for number in range(1, 1001):
                async with raw_connection(server) as peer:
                    peer.send(request)
                    assert await peer.pdu() == reject_pdu(1, 1, 1)
                assert trail.queued <= 1000
                assert trail.queued + trail.dropped == 2 * number + 1  # two for each, and the start
                if number % 50 == 0:
                    assert (await association.c_echo()).status == 0
        assert (trail.queued, trail.dropped) == (1000, 1001)
        kept.fault = None
        await until(lambda: len(kept.told) == 1001)
    assert kept.told[1000].detail("Alert Description").startswith(b"1001 audit messages were dropped")
    assert {each.event for each in kept.told[1:1000]} == {"Security Alert", "User Authentication"}
