"""`aiodicom nodes`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiodicom.cli import main
from aiodicom.nodes import RIGHTS, Node, add_node, read_nodes
from tests.cli.running import PROGRAM, once

FILE = "aiodicom.toml"


@pytest.fixture(autouse=True)
def in_an_empty_folder(empty: Path) -> None:
    """All of them."""


def say(capsys: pytest.CaptureFixture[str], *arguments: str, exit_code: int = 0) -> str:
    """What a command prints."""
    assert main(["nodes", *arguments]) == exit_code
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_add_and_list(capsys: pytest.CaptureFixture[str], empty: Path) -> None:
    file = empty / "home" / "aiodicom" / FILE
    assert say(capsys) == ""
    added = say(capsys, "add", "pacs", "PACS@10.0.0.5:104")
    assert added == f"added pacs, PACS@10.0.0.5:104, to {file}\ntry it:  aiodicom echo pacs\n"
    assert say(capsys, "-q", "add", "ct", "--may", "store, echo", "::1", "11112", "-aec", "CT 1") == ""
    say(capsys, "add", "nothing", "NO@h:1", "--may", "", "--tls-no-host-check")
    bound = ("--networks", "10.0.0.0/24 10.1.0.5", "--certificate", "RT.example", "--may", "find,worklist", "--tls")
    say(capsys, "add", "bound", "RT@10.0.0.9:104", *bound)
    anybody: dict[str, object] = {"networks": [], "certificate": "", "tls": False, "tls_host_check": True}
    assert list(map(json.loads, say(capsys, "list").splitlines())) == [
        {
            "name": "pacs",
            "ae_title": "PACS",
            "host": "10.0.0.5",
            "port": 104,
            **anybody,
            "may": ["echo", "store", "find", "get", "move", "worklist"],
        },
        {"name": "ct", "ae_title": "CT 1", "host": "::1", "port": 11112, **anybody, "may": ["echo", "store"]},
        {
            "name": "nothing",
            "ae_title": "NO",
            "host": "h",
            "port": 1,
            **anybody,
            "may": [],
            "tls": True,
            "tls_host_check": False,
        },
        {
            "name": "bound",
            "ae_title": "RT",
            "host": "10.0.0.9",
            "port": 104,
            "networks": ["10.0.0.0/24", "10.1.0.5"],
            "certificate": "rt.example",
            "may": ["find", "worklist"],
            "tls": True,
            "tls_host_check": True,
        },
    ]
    assert not (empty / FILE).exists()


def test_the_file_that_is_there_or_named_is_added_to(capsys: pytest.CaptureFixture[str], empty: Path) -> None:
    (empty / FILE).write_text("# mine\n")
    assert f"to {FILE}\n" in say(capsys, "add", "here", "HERE@h:1")
    say(capsys, "add", "named", "NAMED@h:1", "--config", "new/other.toml")
    assert list(read_nodes(FILE)) == ["here"]
    assert list(read_nodes("new/other.toml")) == ["named"]


def test_a_table_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert say(capsys) == "there are no nodes yet; write  aiodicom nodes add NAME AET@HOST:PORT\n"
    add_node(FILE, Node("pacs", "PACS", "10.0.0.5", 104))
    add_node(FILE, Node("ct", "CT 1", "ct.example", 11112, frozenset({"store", "echo"})))
    add_node(FILE, Node("old", "OLD", "h", 1, frozenset()))
    assert say(capsys).splitlines() == [
        "3 nodes in aiodicom.toml",
        "",
        "NAME  AE TITLE  HOST        PORT   MAY",
        "pacs  PACS      10.0.0.5    104    everything",
        "ct    CT 1      ct.example  11112  echo, store",
        "old   OLD       h           1      nothing",
    ]
    add_node(FILE, Node("ws", "WS", "h", 1, RIGHTS, ("10.0.0.0/24",), "ab" * 32))
    assert say(capsys).splitlines()[2:4] == [
        "NAME  AE TITLE  HOST        PORT   MAY          ONLY FROM",
        "pacs  PACS      10.0.0.5    104    everything",
    ]
    assert say(capsys).splitlines()[-1] == (
        "ws    WS        h           1      everything   10.0.0.0/24, with abababab…"
    )
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[1mNAME  AE TITLE " in say(capsys)


def test_import_from_orthanc(capsys: pytest.CaptureFixture[str], empty: Path) -> None:
    add_node(FILE, Node("pacs", "PACS", "10.0.0.5", 104))
    (empty / "orthanc.json").write_text(
        """{ // both forms
        "DicomCheckModalityHost": true,
        "DicomModalities": {
          "main": ["PACS", "10.0.0.5", 104],
          "pacs": ["OTHER", "10.0.0.6", 104],
          "backup": ["PACS", "10.0.0.7", 104],
          "ws 1": {"AET": "WS1", "Host": "::1", "Port": 11112, "AllowFind": false}
        }}"""
    )
    assert say(capsys, "import", "orthanc.json", exit_code=68).splitlines() == [
        f"1 added to {FILE}:",
        "  ws-1, WS1@[::1]:11112, may echo, store, get, move, only from ::1",
        "1 there already:",
        "  main, PACS@10.0.0.5:104, as pacs",
        "2 not added:",
        "  pacs, OTHER@10.0.0.6:104: there is another node of that name, PACS@10.0.0.5:104",
        "  backup, PACS@10.0.0.7:104: its AE title is that of pacs, PACS@10.0.0.5:104",
    ]
    assert read_nodes(FILE)["ws-1"].may == RIGHTS - {"find", "worklist"}
    assert len(read_nodes(FILE)) == 2


def test_import_from_dcmqrscp(capsys: pytest.CaptureFixture[str], empty: Path) -> None:
    (empty / "dcmqrscp.cfg").write_text(
        "HostTable BEGIN\na = (A, h, 1)\nb = (B, h, 2)\nboth = a, b\nHostTable END\n", encoding="latin-1"
    )
    for expected in ("2 added to new.toml:", "2 there already:"):
        printed = say(capsys, "import", "dcmqrscp.cfg", "--config", "new.toml").splitlines()
        assert [printed[0], len(printed)] == [expected, 3]
    assert list(read_nodes("new.toml")) == ["a", "b"]
    (empty / "empty.cfg").write_text("HostTable BEGIN\nHostTable END\n")
    assert say(capsys, "import", "empty.cfg") == "there are no nodes in empty.cfg\n"


@pytest.mark.parametrize(
    ("text", "exit_code", "message"),
    [
        (None, 20, "file: No such file or directory\n"),
        ("neither", 1, "file: is no configuration of Orthanc: "),
        ("HostTable BEGIN", 1, "file: is no configuration of dcmqrscp: "),
    ],
)
def test_what_cannot_be_imported(
    capsys: pytest.CaptureFixture[str], empty: Path, text: str | None, exit_code: int, message: str
) -> None:
    if text is not None:
        (empty / "file").write_text(text)
    assert say(capsys, "import", "file", exit_code=exit_code).startswith(f"error: {message}")


def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str], empty: Path) -> None:
    (empty / "plain").write_text("")
    words = ("add", "pacs", "PACS@h:1", "--config", "plain/new.toml")
    assert say(capsys, *words, exit_code=40) == "error: plain/new.toml: File exists\n"


def test_a_node_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    add_node(FILE, Node("pacs", "PACS", "h", 1))
    words = ("add", "pacs", "OTHER@h:1")
    assert say(capsys, *words, exit_code=1) == "error: aiodicom.toml: there is a node 'pacs' already: PACS@h:1\n"


@once
async def test_a_reader_that_has_read_enough(empty: Path) -> None:
    add_node(empty / FILE, Node("pacs", "PACS", "h", 1))
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(*PROGRAM, "nodes", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (40, b"")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["remove", "a"], "'remove' is none of list, add, import"),
        (["list", "a"], "'list' is none of list, add, import, or has too many words behind it"),
        (["add"], "write add NAME AET@HOST:PORT"),
        (["add", "a"], "write add NAME AET@HOST:PORT"),
        (["add", "a", "h:1"], "name its AE title"),
        (["add", "a", "h"], "'h' names no port"),
        (["add", "a", "A@h:1", "b"], "unexpected: b"),
        (["add", "a:b", "A@h:1"], "name: 'a:b' is none for a node"),
        (["add", "a", "A@h:1", "--may", "fly"], "may: 'fly' is no right"),
        (["import"], "write import FILE"),
        (["import", "a", "b"], "write import FILE"),
        (["add", "a", "A@h:1", "--networks", "10.0.0.1/8"], "networks: '10.0.0.1/8' is no network"),
        (["import", "a", "-aec", "A"], "-aec, --may, --networks, --certificate and --tls… belong to add"),
        (["--may", "echo"], "-aec, --may, --networks, --certificate and --tls… belong to add"),
        (["--networks", "::1"], "-aec, --may, --networks, --certificate and --tls… belong to add"),
        (["list", "--certificate", "a"], "-aec, --may, --networks, --certificate and --tls… belong to add"),
        (["--tls"], "-aec, --may, --networks, --certificate and --tls… belong to add"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["nodes", *words])
    assert raised.value.code == 1
    assert f"error: {message}" in capsys.readouterr().err
