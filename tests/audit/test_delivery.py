"""The way of audit messages: a queue that has a bound and nobody waits for, a file, and syslog over TLS (RFC 5425)."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from aiodicom.audit import AuditFile, AuditTrail, SyslogCollector
from aiodicom.audit.messages import NODE_AUTHENTICATION, Message, Outcome, Participant, security_alert
from aiodicom.errors import LocalProtocolError
from tests.audit.collecting import PATIENCE, Collector, Kept, Told, collecting, until
from tests.loopback import RawPeer, raw_server


def alert(words: str) -> Message:
    return security_alert(
        (Participant(user_id="1"),), NODE_AUTHENTICATION, "10.0.0.5", words, outcome=Outcome.MINOR_FAILURE
    )


def words_of(told: list[Told]) -> list[str]:
    """What the alerts say."""
    return [each.detail("Alert Description").decode() for each in told if each.event == "Security Alert"]


# The queue.


async def test_what_is_told_is_delivered_between_the_start_and_the_end_of_the_application() -> None:
    kept = Kept()
    async with AuditTrail([kept], ae_title="PACS") as trail:
        for number in range(100):
            trail.add(alert(str(number)))
    first, *between, last = kept.told
    assert (first.types, last.types) == (["Application Start"], ["Application Stop"])
    assert words_of(between) == [str(number) for number in range(100)]
    assert kept.is_closed
    assert (trail.queued, trail.dropped) == (0, 0)


async def test_each_destination_has_a_queue_of_its_own() -> None:
    good, bad = Kept(), Kept()
    bad.fault = ConnectionRefusedError(111, "nobody there")
    async with AuditTrail([bad, good], stop_timeout=0) as trail:
        trail.add(alert("one"))
        await until(lambda: words_of(good.told))
    assert len(good.told) == 3
    assert trail.dropped == 3


async def test_beyond_its_bound_messages_are_dropped_counted_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    kept, drops = Kept(), 0
    kept.fault = ConnectionRefusedError(111, "nobody there")

    def dropped() -> None:
        nonlocal drops
        drops += 1

    async with AuditTrail([kept], maximum=10, first_pause=0.01, on_drop=dropped) as trail:
        for number in range(50):
            trail.add(alert(str(number)))
        assert (trail.queued, trail.dropped, drops) == (10, 41, 41)  # the start of the application is among the ten
        kept.fault = None
        await until(lambda: len(kept.told) == 11)
        trail.add(alert("later"))
        await until(lambda: len(kept.told) == 12)
    told = [*(str(number) for number in range(9)), "41 audit messages were dropped", "later"]
    for words, expected in zip(words_of(kept.told), told, strict=True):
        assert words.startswith(expected)
    assert kept.told[10].types == ["Audit Recording Started"]
    assert kept.told[10].outcome == 8
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("are dropped from now on" in each for each in warnings) == 1
    assert sum("41 audit messages were dropped" in each for each in warnings) == 1


async def test_a_destination_that_comes_back_gets_all_in_their_order() -> None:
    kept = Kept()
    kept.fault = OSError(28, "No space left on device")
    async with AuditTrail([kept], first_pause=0.001) as trail:
        for number in range(100):
            trail.add(alert(str(number)))
        await until(lambda: kept.attempts >= 3)
        assert kept.told == []
        kept.fault = None
    assert words_of(kept.told) == [str(number) for number in range(100)]
    assert trail.dropped == 0


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_the_end_waits_no_longer_than_it_may(timeout: float, caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Kept):
        async def deliver(self, *_: object) -> None:
            await asyncio.Event().wait()

    stuck = Stuck()
    async with AuditTrail([stuck], stop_timeout=timeout) as trail:
        trail.add(alert("one"))
    assert stuck.is_closed
    assert trail.dropped == 3
    assert any("3 audit messages for the memory are lost" in each.getMessage() for each in caplog.records)


async def test_the_end_does_not_wait_for_what_is_not_there() -> None:
    kept = Kept()
    kept.fault = ConnectionRefusedError(111, "nobody there")
    async with AuditTrail([kept], first_pause=3600, stop_timeout=3600) as trail:
        await until(lambda: kept.attempts)
    assert kept.attempts == 2  # once more in the end, at once
    assert trail.dropped == 2


# A file.


async def test_a_file_is_its_owners_alone_and_has_a_message_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.xml"
    before = os.umask(0)
    try:
        async with AuditTrail([AuditFile(path)]) as trail:
            trail.add(alert("one"))
    finally:
        os.umask(before)
    async with AuditTrail([AuditFile(path)]):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    events = [Told(line).event for line in path.read_bytes().splitlines()]
    assert events == ["Application Activity", "Security Alert", *["Application Activity"] * 3]


async def test_a_file_may_be_renamed_at_any_time(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.xml", tmp_path / "audit.xml.1"
    async with AuditTrail([AuditFile(path)]) as trail:
        await until(path.exists)
        path.rename(old)
        trail.add(alert("one"))
    assert len(old.read_bytes().splitlines()) == 1
    assert len(path.read_bytes().splitlines()) == 2


async def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "folder" / "audit.xml"
    async with AuditTrail([AuditFile(path)], first_pause=0.001) as trail:
        await until(lambda: any("tried again" in each.getMessage() for each in caplog.records))
        path.parent.mkdir()
    assert len(path.read_bytes().splitlines()) == 2
    assert trail.dropped == 0


def test_a_message_that_was_cut_spoils_none_that_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: memoryview) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:-5])

    real, file = os.write, AuditFile(tmp_path / "audit.xml")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            file.append(b"<one and more/>\n")
    file.append(b"<one and more/>\n")
    file.append(b"<two/>\n")
    assert file.path.read_bytes() == b"<one and mo\n<one and more/>\n<two/>\n"


# A collector.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def collectors(authority: trustme.CA) -> ssl.SSLContext:
    """The collector's end: who shows no certificate of the authority is not heard."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(scope="module")
def ours(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    authority.issue_cert("pacs.example").configure_cert(context)
    return context


def syslog_to(port: int, tls: ssl.SSLContext) -> SyslogCollector:
    return SyslogCollector("127.0.0.1", port, tls=tls, settling_time=0.001)


@asynccontextmanager
async def collected(collectors: ssl.SSLContext, ours: ssl.SSLContext) -> AsyncIterator[tuple[Collector, AuditTrail]]:
    """A collector and a trail to it; in the end it has heard nothing but syslog."""
    async with (
        collecting(collectors) as collector,
        AuditTrail([syslog_to(collector.port, ours)], first_pause=0.001) as trail,
    ):
        yield collector, trail
    assert collector.faults == []


async def test_a_collector_hears_syslog_over_tls(collectors: ssl.SSLContext, ours: ssl.SSLContext) -> None:
    async with collected(collectors, ours) as (collector, trail):
        for number in range(200):
            trail.add(alert(f"{number} Ω"))
        await collector.until(lambda: len(collector.told) == 201)
    assert words_of(collector.told) == [f"{number} Ω" for number in range(200)]
    assert len(collector.told) == 202
    assert {line["process"] for line in collector.lines} == {str(os.getpid()).encode()}
    assert "pacs.example" in str(collector.certificates)
    assert len(collector.certificates) == 1  # one connection


async def test_a_connection_that_breaks_is_made_again(collectors: ssl.SSLContext, ours: ssl.SSLContext) -> None:
    async with collecting(collectors) as collector:
        syslog = syslog_to(collector.port, ours)
        async with AuditTrail([syslog], first_pause=0.001) as trail:
            await collector.until(lambda: collector.told)
            collector.cut()
            number = 0

            def heard() -> bool:
                return any(int(each) > 0 for each in words_of(collector.told))

            async with asyncio.timeout(PATIENCE):
                while not heard():  # what went into the broken connection is lost
                    trail.add(alert(str(number)))
                    number += 1
                    await asyncio.sleep(0.01)
    assert len(collector.certificates) >= 2
    words = list(map(int, words_of(collector.told)))
    assert words == sorted(words)


async def test_while_the_collector_is_down_messages_wait(collectors: ssl.SSLContext, ours: ssl.SSLContext) -> None:
    async with collecting(collectors) as collector:
        port = collector.port
    async with AuditTrail([syslog_to(port, ours)], first_pause=0.01) as trail:
        for number in range(20):
            trail.add(alert(str(number)))
        async with collecting(collectors, port=port) as collector:
            await collector.until(lambda: len(collector.told) == 21)
    assert words_of(collector.told) == [str(number) for number in range(20)]


async def test_a_collector_of_another_authority_gets_nothing(
    collectors: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = ssl.create_default_context()
    trustme.CA().configure_trust(stranger)
    async with collecting(collectors) as collector:
        async with AuditTrail([SyslogCollector("127.0.0.1", collector.port, tls=stranger)], stop_timeout=1):
            await until(lambda: any("tried again" in each.getMessage() for each in caplog.records))
        assert collector.told == []
    assert any("certificate" in each.getMessage() for each in caplog.records)


async def test_who_shows_no_certificate_keeps_what_it_has(
    collectors: ssl.SSLContext, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    nameless = ssl.create_default_context()
    authority.configure_trust(nameless)
    async with collecting(collectors) as collector:
        syslog = SyslogCollector("127.0.0.1", collector.port, tls=nameless, settling_time=PATIENCE)
        async with AuditTrail([syslog], stop_timeout=0, first_pause=0.001) as trail:
            trail.add(alert("one"))
            await until(lambda: any("tried again" in each.getMessage() for each in caplog.records))
            assert trail.queued == 2
        assert collector.told == []


async def test_a_collector_that_never_answers_the_handshake_is_given_up(
    ours: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def silence(peer: RawPeer) -> None:
        await peer.reader.read()

    async with raw_server(silence) as peer:
        syslog = SyslogCollector("127.0.0.1", peer.port, tls=ours, connect_timeout=0.05)
        async with AuditTrail([syslog], stop_timeout=0):
            await until(lambda: any("tried again" in each.getMessage() for each in caplog.records))


async def test_a_collector_that_reads_nothing_is_given_up(
    collectors: ssl.SSLContext, ours: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def stuffed(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.transport.abort()

    gone = asyncio.Event()
    server = await asyncio.start_server(stuffed, "127.0.0.1", 0, ssl=collectors, limit=1024)
    syslog = SyslogCollector("127.0.0.1", server.sockets[0].getsockname()[1], tls=ours, send_timeout=0.05)
    async with AuditTrail([syslog], stop_timeout=0, first_pause=0.001) as trail:

        def full() -> bool:
            for _ in range(200):
                trail.add(alert("x" * 20_000))
            return any("tried again" in each.getMessage() for each in caplog.records)

        await until(full)
        assert trail.queued <= 1000
    gone.set()
    server.close()


def test_wrong_files_are_told_of(tmp_path: Path) -> None:
    from aiodicom.tls import Credentials

    missing = Credentials(tmp_path / "none.pem", authorities=tmp_path / "ca.pem")
    syslog = SyslogCollector("127.0.0.1", 1, tls=missing)
    with pytest.raises(LocalProtocolError, match=r"none\.pem|ca\.pem"):
        asyncio.run(syslog.deliver([], Message.encode.__get__(alert("x"))))
