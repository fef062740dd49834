"""The log: what happened, in words; never what a data set, an identity or an exception of a handler says."""

from __future__ import annotations

import logging

import pytest

from aiodicom import (
    AssociationRejected,
    DimseError,
    IdentityType,
    LoggingObserver,
    Operation,
    UserIdentity,
)
from tests.loopback import (
    CANARY,
    Recorder,
    connect,
    ct_instance,
    raw_connection,
    reject_pdu,
    request_pdu,
    serving,
)

PASSCODE = "canary-passcode"


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
        async with connect(server, identity=identity, observers=(LoggingObserver(),)) as association:
            response = await association.c_store(ct_instance())
            assert response.status in (0x0110, 0xC000)
            told = f"{association!r} {server!r} {server.associations!r} {identity!r} {association.terms!r} {response!r}"
        await recorder.until(lambda: recorder.closed)
    told += "\n".join(record.getMessage() + str(record.exc_text) for record in log.records)
    assert "CStoreRQ" in told
    for secret in (CANARY, "Tweety", PASSCODE, data_hex(CANARY), data_hex(PASSCODE)):
        assert secret not in told


def data_hex(text: str) -> str:
    return text.encode().hex()


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
