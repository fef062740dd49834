"""The log: what happened, in words and fields; never what a data set, an identity or an exception of a handler says."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiodicom import (
    Archive,
    AssociationRejected,
    DimseError,
    IdentityType,
    JSONFormatter,
    LoggingObserver,
    Node,
    Operation,
    UserIdentity,
)
from aiodicom.cli.negotiation import Narrator
from aiodicom.cli.pacs import Diary
from aiodicom.dimse.commands import CMoveRQ, CStoreRQ, CStoreRSP
from aiodicom.dimse.status import Status
from aiodicom.logs import FIELDS, LineFormatter, about, operation_name
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_MOVE
from aiodicom.upper_layer.items import ImplementationClassUID, ImplementationVersionName, PresentationContextRQ
from tests.canaries import CANARIES, PASSCODE, PATIENT_ID, TOKEN, Watch, faults
from tests.loopback import (
    CANARY,
    CT_CONTEXT,
    RELEASE_RP,
    RawPeer,
    Recorder,
    accept_pdu,
    command_pdu,
    connect,
    context_items,
    ct_instance,
    data_set,
    element,
    fragment_pdu,
    raw_association,
    raw_connection,
    raw_server,
    reach,
    reject_pdu,
    request_pdu,
    serving,
    store_pdu,
)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def lines(log: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> list[str]:
    """What aiodicom has logged, from that level on."""
    return [r.getMessage() for r in log.records if r.name.startswith("aiodicom.") and r.levelno >= level]


async def test_an_association_is_told_from_its_beginning_to_its_end(log: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    async with serving(observers=(LoggingObserver(), recorder)) as server:
        async with connect(server) as association:
            await association.c_echo()
        await recorder.until(lambda: recorder.closed)
    told = lines(log, logging.INFO)
    assert "'SCU'@127.0.0.1" in told[0]
    assert "1 contexts accepted" in told[0]
    assert "released" in told[-1]
    assert any("CEchoRQ(message_id=1" in line for line in lines(log))
    assert any("CEchoRSP(" in line for line in lines(log))
    assert lines(log, logging.WARNING) == []


async def test_a_rejection_is_told_with_its_reason(log: pytest.LogCaptureFixture) -> None:
    async with serving(observers=(LoggingObserver(),), require_called_ae_title=True) as server:
        with pytest.raises(AssociationRejected):
            await connect(server, called_ae_title="WRONG", observers=(LoggingObserver(),))
    ours, theirs = lines(log, logging.WARNING)
    for line in (ours, theirs):
        assert "called AE title not recognized" in line
    assert "'SCU'@127.0.0.1" in ours + theirs


async def test_http_on_our_port_is_told_in_one_line(log: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    async with serving(observers=(LoggingObserver(), recorder)) as server:
        async with raw_connection(server) as peer:
            peer.send(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n")
            await peer.rest()
        await recorder.until(lambda: recorder.refused)
    (line,) = lines(log, logging.WARNING)
    assert "the peer does not speak DICOM here" in line


async def test_a_hostile_ae_title_cannot_forge_a_line(log: pytest.LogCaptureFixture) -> None:
    evil = request_pdu(calling="EVILXXERROR x").replace(b"EVILXXERROR x", b"EVIL\r\nERROR x")
    recorder = Recorder()
    async with serving(observers=(LoggingObserver(), recorder)) as server, raw_connection(server) as peer:
        peer.send(evil)
        assert await peer.pdu() == reject_pdu(1, 1, 3)
        await recorder.until(lambda: recorder.refused)
    (line,) = lines(log)
    assert "\r" not in line
    assert "\n" not in line


@pytest.mark.parametrize("error", [ValueError, DimseError])
async def test_nothing_of_patients_and_passcodes_is_logged(
    log: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    async def keep(operation: Operation) -> None:
        dataset = await operation.dataset()
        assert dataset.PatientName == CANARY
        if error is DimseError:
            raise DimseError(0xC000, f"{dataset.PatientName} is odd")
        raise ValueError(f"{dataset.PatientName} is odd")

    identity = UserIdentity(
        IdentityType.USERNAME_AND_PASSCODE, CANARY.encode(), PASSCODE.encode(), positive_response_requested=True
    )
    recorder = Recorder()
    async with serving(keep, observers=(LoggingObserver(), recorder)) as server:
        async with connect(
            server, identity=identity, allow_plain_passcode=True, observers=(LoggingObserver(),)
        ) as association:
            response = await association.c_store(ct_instance())
            assert response.status in (0x0110, 0xC000)
            told = f"{association!r} {server!r} {server.associations!r} {identity!r} {association.terms!r} {response!r}"
        await recorder.until(lambda: recorder.closed)
    told += "\n".join(record.getMessage() + str(record.exc_text) for record in log.records)
    assert "CStoreRQ" in told
    assert [secret for secret in CANARIES if secret in told] == []


async def test_a_failed_handler_is_told_with_its_place(log: pytest.LogCaptureFixture) -> None:
    async def keep(_operation: Operation) -> None:
        raise ZeroDivisionError

    async with serving(keep, observers=(LoggingObserver(),)) as server, connect(server) as association:
        await association.c_store(ct_instance())
    (line,) = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert "ZeroDivisionError" in line
    assert "test_logs.py:" in line
    assert "in keep" in line


async def test_a_failure_that_is_answered_is_told(log: pytest.LogCaptureFixture) -> None:
    async def keep(_operation: Operation) -> int:
        return 0xA700

    async with serving(keep, observers=(LoggingObserver(),)) as server, connect(server) as association:
        await association.c_store(ct_instance())
    assert any("0xA700" in line for line in lines(log, logging.WARNING))


async def test_a_client_without_observers_is_silent(log: pytest.LogCaptureFixture) -> None:
    async with serving() as server, connect(server) as association:
        await association.c_echo()
    assert lines(log) == []


def test_a_canary_is_heard() -> None:
    watch = Watch()
    for words, fields, error in (
        (f"found {CANARY}", {}, None),
        (f"found {CANARY.encode()!r}", {}, None),
        (f"found {PASSCODE.encode().hex()}", {}, None),
        ("found", {"host": PATIENT_ID}, None),
        ("found", {}, KeyError(TOKEN)),
        ("found\nERROR forged", {}, None),
        ("found", {"host": "\x1b[31m"}, None),
        ("found", {"nobody_knows": 1}, None),
    ):
        record = record_of(words, **fields)
        record.exc_info = (type(error), error, None) if error else None
        watch.emit(record)
        assert watch.take(), (words, fields, error)
    watch.emit(record_of("nothing", host="127.0.0.1"))
    assert watch.take() == []


def record_of(
    words: str, *, level: int = logging.INFO, name: str = "aiodicom.dimse", **fields: object
) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": words, "name": name, "levelno": level, "levelname": "WARNING", **fields})


@pytest.mark.parametrize(
    "identity",
    [
        UserIdentity(IdentityType.USERNAME, CANARY.encode()),
        UserIdentity(IdentityType.USERNAME_AND_PASSCODE, CANARY.encode(), PASSCODE.encode()),
        UserIdentity(IdentityType.KERBEROS, PASSCODE.encode()),
        UserIdentity(IdentityType.SAML, PASSCODE.encode()),
        UserIdentity(IdentityType.JWT, TOKEN.encode()),
    ],
    ids=lambda identity: identity.identity_type.name,
)
async def test_no_identity_is_told_when_everything_is(log: pytest.LogCaptureFixture, identity: UserIdentity) -> None:
    recorder = Recorder()
    observers = LoggingObserver(), Narrator(fragments=True), recorder
    async with serving(observers=observers) as server:
        async with connect(
            server, identity=identity, allow_plain_passcode=True, observers=observers[:2]
        ) as association:
            await association.c_echo()
        server.calling_ae_titles = ()
        with pytest.raises(AssociationRejected):
            await connect(server, identity=identity, allow_plain_passcode=True, observers=observers[:2])
        await recorder.until(lambda: recorder.closed and recorder.refused)
    told = "\n".join(lines(log))
    assert f"user identity of type {identity.identity_type} (not shown)" in told
    assert [secret for secret in CANARIES if secret in told] == []


# Fields.


async def test_records_have_fields(log: pytest.LogCaptureFixture) -> None:
    async def keep(_operation: Operation) -> int:
        return 0xA700

    recorder = Recorder()
    async with serving(keep, observers=(LoggingObserver(), recorder)) as server:
        async with connect(server) as association, connect(server) as other:
            await association.c_store(ct_instance())
            await other.c_echo()
        await recorder.until(lambda: len(recorder.closed) == 2)
        one, another = (each.name for each in recorder.associations)
    assert one != another
    records = [vars(each) for each in log.records if each.name.startswith("aiodicom.")]
    about_one = [each for each in records if each["association"] == one]
    assert {each["name"] for each in about_one} == {"aiodicom.association", "aiodicom.dimse"}
    assert {each["association"] for each in records} == {one, another}
    for each in about_one:
        assert (each["calling_ae_title"], each["called_ae_title"], each["host"]) == ("SCU", "SCP", "127.0.0.1")
        assert isinstance(each["port"], int)
    [refused] = [each for each in about_one if each["levelname"] == "WARNING"]
    request = ct_instance()
    fields = "operation", "direction", "message_id", "status", "sop_class_uid", "sop_instance_uid"
    assert [refused[each] for each in fields] == [
        "C-STORE",
        "sent",
        1,
        "0xA700",
        request.sop_class_uid,
        request.sop_instance_uid,
    ]
    assert about_one[-1]["error"] == "AssociationReleased"


async def test_below_debug_no_instance_is_named_that_is_kept(log: pytest.LogCaptureFixture) -> None:
    async def keep(operation: Operation) -> None:
        await operation.read()

    recorder = Recorder()
    async with serving(keep, observers=(LoggingObserver(), recorder)) as server:
        async with connect(server) as association:
            await association.c_store(ct_instance())
        await recorder.until(lambda: recorder.closed)
    uid = ct_instance().sop_instance_uid
    assert any(uid in line for line in lines(log))
    assert not any(uid in line for line in lines(log, logging.INFO))


def test_every_field_is_described() -> None:
    command = CStoreRSP(message_id_being_responded_to=1, status=Status(0xA700), affected_sop_instance_uid="1.2\r\n3")
    fields = about(command=command, error=KeyError(CANARY))
    assert fields == {
        "operation": "C-STORE",
        "message_id": 1,
        "status": "0xA700",
        "sop_instance_uid": "1.2\\r\\n3",
        "error": "KeyError",
    }
    assert fields.keys() < FIELDS.keys()


def test_operations_are_called_as_the_standard_does() -> None:
    request = CStoreRQ(message_id=1, affected_sop_class_uid="1.2", affected_sop_instance_uid="1.2")
    assert operation_name(request) == "C-STORE"
    move = CMoveRQ(message_id=1, affected_sop_class_uid="1.2", move_destination="WS")
    assert operation_name(move) == "C-MOVE"


def test_json_is_an_object_a_line() -> None:
    record = record_of("refused\nto 'É'", host="10.0.0.5", status="0xA700")
    record.exc_info = (KeyError, KeyError(CANARY), None)
    line = JSONFormatter({"worker": 2}).format(record)
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told.pop("exception").startswith("KeyError at")
    assert told == {
        "level": "warning",
        "logger": "aiodicom.dimse",
        "message": "refused\nto 'É'",
        "worker": 2,
        "host": "10.0.0.5",
        "status": "0xA700",
    }


def test_text_begins_a_line_once_a_record() -> None:
    record = record_of("refused, add\n\n[nodes.x]\n  ae_title\x1b\u2028", level=logging.WARNING)
    text = LineFormatter("%(message)s").format(record)
    assert text == "warning: refused, add\n\n  [nodes.x]\n  ae_title\\x1b\\u2028"
    assert LineFormatter("%(message)s").format(record_of("fine")) == "fine"


# What a peer says, in every place that there is.


EVIL = "E\r\nERROR x\x1b["


class Sheet(logging.Handler):
    """Keeps what a formatter of the command line makes of each record."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.formatter = formatter
        self.text = ""
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.text += self.format(record) + "\n"


@pytest.fixture(params=[LineFormatter("%(name)s %(message)s"), JSONFormatter()], ids=["text", "json"])
def sheet(request: pytest.FixtureRequest) -> Iterator[Sheet]:
    sheet = Sheet(request.param)
    logging.getLogger("aiodicom").addHandler(sheet)
    yield sheet
    logging.getLogger("aiodicom").removeHandler(sheet)


async def test_who_asks_begins_no_line_and_paints_nothing(sheet: Sheet) -> None:
    recorder = Recorder()
    observers = LoggingObserver(), Narrator(fragments=True), recorder
    padding = "X" * len(EVIL)
    async with serving(observers=observers) as server:
        for request, reason in ((request_pdu(calling=padding), 3), (request_pdu(called=padding), 7)):
            async with raw_connection(server) as peer:
                peer.send(request.replace(padding.encode(), EVIL.encode()))
                assert await peer.pdu() == reject_pdu(1, 1, reason)
        async with raw_connection(server) as peer:
            request = request_pdu(items=(ImplementationVersionName(padding),))
            peer.send(request.replace(padding.encode(), EVIL.encode()).replace(b"1.2.3", b"1\r\n\x1b3"))
            assert (await peer.pdu())[0] == 2
        await recorder.until(lambda: len(recorder.closed) == 1 and len(recorder.refused) == 2)
    assert sheet.text.count("ERROR x") >= 3
    assert_clean(sheet)


async def test_what_is_asked_begins_no_line_and_paints_nothing(sheet: Sheet, tmp_path: Path) -> None:
    recorder = Recorder()
    node = Node("me", "RAW", "127.0.0.1", 104)
    async with Archive(tmp_path, nodes=[node]) as archive:
        observers = LoggingObserver(), Diary(), recorder
        async with serving(observers=observers, services=archive.services()) as server:
            contexts = (*context_items(), PresentationContextRQ(5, STUDY_ROOT_MOVE, (IMPLICIT_VR_LITTLE_ENDIAN,)))
            async with raw_association(server, contexts=contexts) as peer:
                peer.send(store_pdu(1, uid=f"1.2{EVIL}"), fragment_pdu(data_set()))
                assert (await peer.response()).status == 0x0117
                move = CMoveRQ(message_id=2, affected_sop_class_uid=STUDY_ROOT_MOVE, move_destination=EVIL[:16])
                identifier = element(0x0008, 0x0052, b"STUDY ") + element(0x0020, 0x000D, b"1.2\0")
                peer.send(command_pdu(5, move, has_data_set=True), fragment_pdu(identifier, context_id=5))
                assert (await peer.response()).status == 0xA801
            await recorder.until(lambda: recorder.closed)
    assert sheet.text.count("ERROR x") >= 3
    assert_clean(sheet)


async def test_who_answers_begins_no_line_and_paints_nothing(sheet: Sheet) -> None:
    async def answer(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(items=(ImplementationClassUID("1.2.3"), ImplementationVersionName(EVIL))))
        while (await peer.pdu())[11] != 2:  # the last fragment of its data set
            pass
        peer.send(response_to_store(0xA700, f"1.2{EVIL}", comment=CANARY + EVIL))
        await peer.pdu()
        peer.send(RELEASE_RP)

    observers = LoggingObserver(), Narrator(fragments=True)
    async with raw_server(answer) as peer, reach(peer, observers=observers) as association:
        assert (await association.c_store(ct_instance())).status == 0xA700
    assert sheet.text.count("ERROR x") >= 2
    assert_clean(sheet)


def response_to_store(status: int, uid: str, *, comment: str) -> bytes:
    response = CStoreRSP(
        message_id_being_responded_to=1,
        status=Status(status),
        affected_sop_instance_uid=uid,
        error_comment=comment,
    )
    return command_pdu(CT_CONTEXT, response)


def assert_clean(sheet: Sheet) -> None:
    """Every line of what was written begins a record of ours, or goes on with one."""
    assert [fault for record in sheet.records for fault in faults(record)] == []
    assert all(line.isprintable() for line in sheet.text.split("\n"))
    begins = ("{", "aiodicom.", "warning: aiodicom.", "error: aiodicom.", "  ")
    assert all(line.startswith(begins) for line in sheet.text.split("\n") if line)
