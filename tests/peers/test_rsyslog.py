"""Audit messages at a collector of another maker: rsyslog, by syslog over TLS with certificates at both ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiodicom.audit import AuditTrail, SyslogCollector
from aiodicom.audit.messages import NODE_AUTHENTICATION, Outcome, Participant, security_alert
from tests.audit.collecting import PATIENCE, Told, until
from tests.certificates import Certificates
from tests.peers.process import Peer, free_port, require, running

# What it has understood of each message, in a line.
CONFIGURATION = """\
global(
    workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="ossl" parser.escapeControlCharactersOnReceive="off"
    defaultNetstreamDriverCAFile="{authority}" defaultNetstreamDriverCertFile="{certificate}"
    defaultNetstreamDriverKeyFile="{key}"
)
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="understood" type="string" string="%pri%|%hostname%|%app-name%|%procid%|%msgid%|%msg%\\n")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="audit")
ruleset(name="audit") {{ action(type="omfile" file="{file}" template="understood" asyncWriting="off" flushInterval="1") }}
"""


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@contextmanager
def running_rsyslog(folder: Path, certificates: Certificates) -> Iterator[tuple[int, Path]]:
    """A collector: its port, and the file in which it writes what it hears."""
    port, file, configuration = free_port(), folder / "heard", folder / "rsyslog.conf"
    pair = certificates.server
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            authority=certificates.authority(),
            certificate=pair.certificate,
            key=pair.key,
            port=port,
            file=file,
        )
    )
    program = require("rsyslogd", "rsyslog and rsyslog-openssl")
    command = [program, "-n", "-iNONE", "-f", str(configuration)]
    with running(Peer("rsyslog", "", port, folder, folder / "rsyslog.log"), command):
        yield port, file


async def test_rsyslog_understands_what_it_hears(tmp_path: Path, certificates: Certificates) -> None:
    words = [f"number {number} Ω {'x' * 5_000}" for number in range(50)]
    with running_rsyslog(tmp_path, certificates) as (port, file):
        tls = certificates.credentials(certificates.client)
        syslog = SyslogCollector("127.0.0.1", port, tls=tls, host_name="pacs.example")
        async with AuditTrail([syslog], source_id="pacs.example") as trail:
            for each in words:
                who = Participant(user_id="1")
                trail.add(security_alert((who,), NODE_AUTHENTICATION, "10.0.0.5", each, outcome=Outcome.MINOR_FAILURE))
        await until(lambda: file.exists() and len(file.read_bytes().splitlines()) == len(words) + 2)
    lines = [line.split(b"|", 5) for line in file.read_bytes().splitlines()]
    assert {tuple(line[:3]) for line in lines} == {(b"85", b"pacs.example", b"aiodicom")}
    assert {line[4] for line in lines} == {b"DICOM+RFC3881"}
    told = [Told(line[5].lstrip(b" \xef\xbb\xbf")) for line in lines]
    assert [each.detail("Alert Description").decode() for each in told[1:-1]] == words
    assert (told[0].types, told[-1].types) == (["Application Start"], ["Application Stop"])


async def test_rsyslog_hears_nobody_without_a_certificate(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    with running_rsyslog(tmp_path, certificates) as (port, file):
        syslog = SyslogCollector("127.0.0.1", port, tls=certificates.credentials(), settling_time=PATIENCE)
        async with AuditTrail([syslog], stop_timeout=0) as trail:
            await until(lambda: any("tried again" in each.getMessage() for each in caplog.records))
            assert trail.queued == 1
        assert not file.exists()
