"""The audit trail of `aiodicom serve`: its options, the configuration, and real collectors."""

from __future__ import annotations

import json
import stat
from argparse import Namespace
from pathlib import Path

import pytest

from aiodicom import Credentials
from aiodicom.cli import COMMANDS
from aiodicom.cli.peer import parse_host_and_port
from tests.audit.collecting import Told, collecting
from tests.certificates import Certificates
from tests.cli.running import once, run, started
from tests.cli.test_serve import serving
from tests.peers.comparing import bundled

CT_SMALL = ("CompressedSamples^CT1", "1CT1")


def parsed(*arguments: object) -> Namespace:
    return COMMANDS["serve"].parse([str(each) for each in arguments])


def events(path: Path) -> list[Told]:
    return [Told(line) for line in path.read_bytes().splitlines()]


# Options.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("collector", ("collector", 6514)),
        ("collector:1514", ("collector", 1514)),
        ("10.0.0.5:1", ("10.0.0.5", 1)),
        ("[::1]:1514", ("::1", 1514)),
        ("[::1]", ("::1", 6514)),
    ],
)
def test_hosts_and_ports(text: str, expected: tuple[str, int]) -> None:
    assert parse_host_and_port(text, 6514) == expected


@pytest.mark.parametrize("text", ["", ":1", "host:", "host:0", "host:65536", "host:x", "::1", "a b"])
def test_what_is_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_host_and_port(text, 6514)


@pytest.mark.usefixtures("empty")
def test_without_an_option_there_is_no_trail() -> None:
    audit = parsed().audit
    assert (audit.file, audit.collector) == (None, None)


def test_the_configuration_says_what_the_options_do_not(empty: Path, certificates: Certificates) -> None:
    pair, authority = certificates.client, certificates.authority()
    (empty / "aiodicom.toml").write_text(
        f'[audit]\nfile = "audit.xml"\nsyslog = "127.0.0.1:1514"\nsource = "pacs"\nsite = "north"\n\n'
        f'[audit.tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\nauthorities = "{authority}"\n'
    )
    audit = parsed().audit
    assert (audit.file, audit.collector) == (Path("audit.xml"), ("127.0.0.1", 1514))
    assert (audit.source, audit.site) == ("pacs", "north")
    assert audit.credentials == Credentials(pair.certificate, pair.key, [authority])
    other = parsed(
        "--audit-syslog", "other", "--audit-source", "x", "--audit-tls-ca", certificates.authority("foreign")
    )
    assert (other.audit.file, other.audit.collector, other.audit.source) == (Path("audit.xml"), ("other", 6514), "x")
    assert other.audit.credentials == Credentials(pair.certificate, pair.key, [certificates.authority("foreign")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[audit]\nfiles = 1\n",
            "[audit]: files: is no key of an audit trail; they are file, syslog, source, site, tls",
        ),
        ("[audit]\nfile = 1\n", "[audit]: file: is not a string"),
        ("audit = 1\n", "[audit]: is no table"),
        ("[audit]\ntls = 1\n", "[audit]: tls: is not a table"),
        ("[audit.tls]\nkeys = 1\n", "[audit]: tls: keys: is no key of TLS"),
        ('[audit]\nsyslog = "a b"\n', "'a b' is no HOST:PORT"),
        ('[audit]\nfile = "none/audit.xml"\n', "the audit trail cannot be written: No such file or directory"),
        ('[audit]\nsyslog = "h"\ntls = { authorities = "none.pem" }\n', "none.pem: cannot be read"),
    ],
)
def test_what_is_wrong_is_said(empty: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    (empty / "aiodicom.toml").write_text(text)
    with pytest.raises(SystemExit) as exit_code:
        parsed()
    assert exit_code.value.code == 1
    assert words in capsys.readouterr().err


# As a process.


@once
async def test_a_file_tells_from_the_start_to_the_end(tmp_path: Path) -> None:
    path, file = tmp_path / "audit.xml", bundled("CT_small.dcm")
    options = ("--audit-file", str(path), "--audit-source", "pacs", "-d")
    async with serving(tmp_path, *options, called="") as server:
        stored = await run("store", f"AIODICOM@127.0.0.1:{server.port}", file.path, "-aet", "CT1")
        rejected = await run("echo", f"WRONG@127.0.0.1:{server.port}")
        refused = await run("find", f"AIODICOM@127.0.0.1:{server.port}", "--level", "study", "-aet", "NOBODY")
        stopped = await server.stop()
    assert (stored.exit_code, rejected.exit_code, refused.exit_code, stopped.exit_code) == (0, 61, 69, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = events(path)
    assert sorted(f"{each.event} {each.action} {each.outcome}" for each in told) == [
        "Application Activity E 0",
        "Application Activity E 0",
        "Begin Transferring DICOM Instances E 0",
        "DICOM Instances Transferred C 0",
        "Security Alert E 4",
        "Security Alert E 4",
    ]
    [transferred] = [each for each in told if each.event == "DICOM Instances Transferred"]
    assert transferred.subject[1:] == CT_SMALL[::-1]
    assert transferred.with_role("Source Role ID").get("UserID") == "CT1"


@once
async def test_a_collector_hears_several_workers(tmp_path: Path, certificates: Certificates) -> None:
    tls = certificates.credentials(certificates.server).server_context()
    pair = certificates.client
    async with collecting(tls) as collector:
        options = (
            *("--audit-syslog", f"127.0.0.1:{collector.port}", "--audit-tls-ca", str(certificates.authority())),
            *("--audit-tls-cert", str(pair.certificate), "--audit-tls-key", str(pair.key)),
            *("--workers", "2"),
        )
        async with serving(tmp_path, *options) as server:
            await collector.until(lambda: len(collector.told) == 2)
            await run("store", f"AIODICOM@127.0.0.1:{server.port}", bundled("CT_small.dcm").path)
            await collector.until(lambda: "DICOM Instances Transferred" in [each.event for each in collector.told])
            stopped = await server.stop()
        await collector.until(lambda: len(collector.told) == 6)
    assert stopped.exit_code == 0
    assert collector.faults == []
    assert len({line["process"] for line in collector.lines}) == 2
    assert [each.types for each in collector.told].count(["Application Stop"]) == 2


@once
async def test_what_is_dropped_is_in_the_status(tmp_path: Path) -> None:
    async with serving(tmp_path, "--audit-file", str(tmp_path / "audit.xml")) as server:
        status = json.loads((await run("status", str(server.storage))).output)
    assert status["total"]["audit_dropped"] == 0


@once
async def test_a_collector_that_is_down_keeps_nobody_from_anything(tmp_path: Path, certificates: Certificates) -> None:
    options = ("--audit-syslog", "127.0.0.1:1", "--audit-tls-ca", str(certificates.authority()))
    async with serving(tmp_path, *options) as server:
        warning = await server.program.error_with("audit messages wait")
        done = await run("store", f"AIODICOM@127.0.0.1:{server.port}", bundled("CT_small.dcm").path)
        stopped = await server.stop()
    assert "the audit collector 127.0.0.1:1" in warning
    assert (done.exit_code, stopped.exit_code) == (0, 0)
    assert "audit messages for the audit collector 127.0.0.1:1 are lost" in stopped.errors


@once
async def test_the_log_can_be_json(tmp_path: Path) -> None:
    async with serving(tmp_path, "-v", "--log-format", "json", called="") as server:
        await run("echo", f"WRONG@127.0.0.1:{server.port}")
        line = json.loads(await server.program.error_with("called AE title not recognized"))
        stopped = await server.stop()
    assert (line["level"], line["called_ae_title"], line["host"]) == ("warning", "WRONG", "127.0.0.1")
    assert all(json.loads(each) for each in stopped.errors.splitlines())


@once
async def test_a_trail_that_cannot_be_written_is_told_before_the_start(tmp_path: Path) -> None:
    async with started("serve", "--port", "0", "--audit-file", tmp_path / "none" / "audit.xml") as program:
        done = await program.end()
    assert done.exit_code == 1
    assert "none/audit.xml: the audit trail cannot be written: No such file or directory" in done.errors
