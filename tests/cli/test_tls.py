"""DICOM over TLS on the command line: the options, DCMTK's among them, the configuration, and `serve` with it."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from aiodicom import Archive, Credentials, Listener, Node, Server, add_node
from aiodicom.cli import COMMANDS, main
from aiodicom.cli.exits import ExitCode
from tests.certificates import Certificates
from tests.cli.running import once, run, started, write_files
from tests.peers.comparing import bundled
from tests.peers.dcmtk import run as run_dcmtk
from tests.peers.process import free_port

FILE = "aiodicom.toml"


def parsed(command: str, *arguments: object) -> Namespace:
    return COMMANDS[command].parse([str(each) for each in arguments])


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("command", ["echo", "store", "find", "get", "move"])
def test_every_command_takes_our_options_and_those_of_dcmtk(certificates: Certificates, command: str) -> None:
    pair, authority = certificates.client, certificates.authority()
    needed = {"store": ["x.dcm"], "move": ["--to", "DEST", "-k", "PatientID=1"], "get": ["-k", "PatientID=1"]}
    for options in (
        ["--tls-cert", pair.certificate, "--tls-key", pair.key, "--tls-ca", authority],
        ["+tls", pair.key, pair.certificate, "+cf", authority],
        ["--enable-tls", pair.key, pair.certificate, "--add-cert-file", authority],
    ):
        found = parsed(command, "PACS@h:1", *needed.get(command, []), *options)
        assert found.credentials == Credentials(pair.certificate, pair.key, [authority])
    assert parsed(command, "PACS@h:1", *needed.get(command, [])).credentials is None


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("options", "credentials"),
    [
        (["--tls"], Credentials()),
        (["+tla"], Credentials()),
        (["-ic"], Credentials(verify="none")),
        (["--tls-verify", "none"], Credentials(verify="none")),
        (["+tla", "-rc"], Credentials(verify="required")),
        (["-vc"], Credentials(verify="optional")),
        (["+pm"], Credentials(profile="bcp195-modified")),
        (["--tls-profile", "bcp195"], Credentials(profile="bcp195")),
        (["--tls-no-host-check"], Credentials(check_host=False)),
        (["--tls-no-host-check", "-tls"], None),
    ],
)
def test_what_the_options_come_to(options: list[str], credentials: Credentials | None) -> None:
    assert parsed("echo", "PACS@h:1", *options).credentials == credentials


def test_what_is_not_said_stands_in_the_configuration(certificates: Certificates, empty: Path) -> None:
    pair, other = certificates.client, certificates.server
    (empty / FILE).write_text(
        f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\nauthorities = "{certificates.authority()}"\n'
    )
    add_node(FILE, Node("pacs", "PACS", "h", 2762, tls=True))
    add_node(FILE, Node("named", "NAMED", "h", 2762, tls=True, tls_host_check=False))
    add_node(FILE, Node("plain", "PLAIN", "h", 104))
    whole = Credentials(pair.certificate, pair.key, [certificates.authority()])
    for words, expected in {
        "pacs": whole,
        "named": whole.without_host_check(),
        "plain": None,
        "plain --tls": whole,
        "pacs -tls": None,
        "pacs --tls-verify none": Credentials(pair.certificate, pair.key, [certificates.authority()], verify="none"),
    }.items():
        assert parsed("echo", *words.split()).credentials == expected, words
    shown = parsed("echo", "pacs", "--tls-cert", other.certificate, "--tls-key", other.key).credentials
    assert (shown.certificate, shown.key) == (other.certificate, other.key)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["echo", "P@h:1", "--tls-cert", "nothing.pem"], "nothing.pem: cannot be read"),
        (["echo", "P@h:1", "--tls-key", "k.pem"], "k.pem: is a key without a certificate"),
        (["echo", "P@h:1", "--tls-ca", "."], ".: is a folder without certificates"),
        (["echo", "P@h:1", "--tls-profile", "aes"], "invalid choice: 'aes'"),
        (["echo", "P@h:1", "+pa"], "unrecognized arguments: +pa"),  # a profile that is retired
        (
            ["serve", "--tls"],
            "certificate: is missing: a server shows one; name its file and that of its key (--tls-cert",
        ),
        (["serve", "--plain-port", "1"], "--plain-port is for a server that speaks TLS at --port"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: Sequence[str], said: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(empty.iterdir()) == []
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_one_port_is_for_tls_or_for_connections_without(
    certificates: Certificates, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert empty.is_dir()
    pair = certificates.server
    tls = ["--tls-cert", pair.certificate, "--tls-key", pair.key, "--tls-ca", certificates.authority()]
    assert parsed("serve", *tls).port == 2762
    assert parsed("serve").port == 11112
    with pytest.raises(SystemExit):
        parsed("serve", *tls, "--port", "1", "--plain-port", "1")
    assert "port 1 cannot be for TLS and for connections without: name two ports" in capsys.readouterr().err


@once
async def test_serve_over_tls_by_several_workers(certificates: Certificates, empty: Path) -> None:
    ours, theirs = certificates.server, certificates.client
    listen = ("--tls-cert", ours.certificate, "--tls-key", ours.key, "--tls-ca", certificates.authority())
    call = ("--tls-cert", theirs.certificate, "--tls-key", theirs.key, "--tls-ca", certificates.authority())
    [path] = write_files(empty / "in", 1)
    options = ("--port", "0", "--plain-port", "0", "--workers", "2", "--storage", empty / "kept")
    async with started("serve", *listen, *options) as program:
        first = await program.line()
        assert "over TLS (BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile)" in first
        port = first.split(", port ")[1].split(",")[0]
        assert f"--tls-cert CERT --tls-key KEY --tls-ca CA AIODICOM@127.0.0.1:{port}" in await program.line()
        dcmtk = (await program.line()).removeprefix("with DCMTK:").strip()
        files = {"KEY": theirs.key, "CERT": theirs.certificate, "CA": certificates.authority(), "FILES": path}
        words = [str(files.get(word, word)) for word in shlex.split(dcmtk)]
        assert (await run_dcmtk(*words)).exit_code == 0
        assert (await run("echo", f"AIODICOM@127.0.0.1:{port}", *call)).exit_code == 0
        refused = await run("echo", f"AIODICOM@127.0.0.1:{port}", "--tls-ca", certificates.authority())
        assert refused.exit_code == ExitCode.ABORTED
        assert "the peer wants a certificate of ours: name its file" in refused.errors
        assert "(--tls-cert, --tls-key)" in refused.errors
        await program.error_with("the peer shows no certificate")
    assert len(list((empty / "kept").rglob("*.dcm"))) == 1


@once
async def test_move_to_self_listens_for_tls_where_we_have_a_certificate(
    certificates: Certificates, empty: Path
) -> None:
    port = free_port()
    tls = certificates.credentials(certificates.server)
    nodes = [Node("us", "AIODICOM", "127.0.0.1", port, tls=True)]
    archive = Archive(empty / "archive", nodes=nodes, ae_title="SCP", tls=tls)
    server = Server("SCP", listeners=[Listener(port=0, tls=tls)], services=archive.services())
    async with archive, server:
        await archive.add(bundled("CT_small.dcm").path)
        pair = certificates.issue("self")
        options: list[str | Path] = [
            "--tls-cert",
            pair.certificate,
            "--tls-key",
            pair.key,
            "--tls-ca",
            certificates.authority(),
        ]
        keys: list[str | Path] = ["-k", "PatientID=1CT1", "--port", str(port), "-od", empty / "got"]
        done = await run("move", f"SCP@127.0.0.1:{server.port}", "--to", "self", *keys, *options)
        assert done.exit_code == 0, done.errors
    assert len(list((empty / "got").rglob("*.dcm"))) == 1
