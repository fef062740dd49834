"""`python -m aiodicom.conformance`: its options, what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from aiodicom import Server
from aiodicom.conformance.__main__ import main
from tests.conformance.hosting import AE_TITLE, PASSCODE, SUITE, USER, hosted

PATIENCE = 60.0


async def command(*arguments: object) -> tuple[int, str, str]:
    """Run it in a process of its own; return its exit code, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aiodicom.conformance", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_it_runs_the_cases_that_were_asked_for(tmp_path: Path) -> None:
    async with hosted(tmp_path) as target:
        code, output, errors = await command(
            *("127.0.0.1", target.port, "-aec", AE_TITLE, "-aet", SUITE, "--identity", USER, PASSCODE),
            *("--only", "T01,t05/short,T08", "--unknown-aet", "NOBODY", "--patience", PATIENCE),
        )
    lines = output.splitlines()
    assert code == 0, output + errors
    assert [line.split()[0] for line in lines] == ["T01", "T05/short", "T08/calling", "T08/called"]
    assert all(line.endswith(" pass") for line in lines[:3])
    assert lines[3].endswith("not applicable: say --wrong-aec AET")
    assert "4 cases: 3 pass, 0 differs, 1 not applicable" in errors


async def test_a_difference_is_a_line_and_an_exit_code() -> None:
    async with Server("ANY", port=0, observers=()) as server:
        code, output, _ = await command(
            "127.0.0.1", server.port, "--only", "T08/calling", "--unknown-aet", "NOBODY", "--patience", 1, "--json"
        )
    (line,) = output.splitlines()
    result = json.loads(line)
    assert code == 1
    assert (result["id"], result["verdict"], result["section"]) == ("T08/calling", "differs", "PS3.8 §9.3.4")
    assert result["expected"] == "A-ASSOCIATE-RJ 1/1/3, closed"
    assert result["got"].startswith("A-ASSOCIATE-AC")
    assert result["echo_ms"] > 0


async def test_an_acceptor_that_is_not_there_or_accepts_nothing() -> None:
    async with Server("ANY", port=0, observers=()) as server:
        port = server.port
    code, output, errors = await command("127.0.0.1", port)
    assert (code, output) == (2, "")
    assert errors.startswith(f"error: 127.0.0.1:{port} accepts no association: ")
    async with Server("ANY", port=0, observers=(), calling_ae_titles=["OTHER"]) as server:
        code, output, errors = await command("127.0.0.1", server.port)
    assert (code, output) == (2, "")
    assert "A-ASSOCIATE-RJ 1/1/3" in errors


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "T15,T41"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{'T41':<23} {'a C-STORE of who may not store':<55} {'PS3.7 Annex C':<18} storage, rights",
        f"{'T15':<23} {'an association without a word':<55} {'PS3.8 §9.3.8':<18} slow",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["127.0.0.1", "104", "--only", "T99"], "error: there is no case T99; --list shows all"),
        ([], "error: say HOST and PORT"),
        (["127.0.0.1"], "error: say HOST and PORT"),
    ],
)
def test_a_wrong_usage(arguments: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.strip() == words


def test_a_certificate_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.pem")
    assert main(["127.0.0.1", "104", "--tls", "--certificate", missing, missing]) == 2
    assert capsys.readouterr().err.startswith("error: ")
