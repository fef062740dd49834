"""Which file the nodes are read from, and what `--config` and names of nodes do for a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiodicom.cli import main
from aiodicom.cli.configuration import configuration_file, known_nodes, user_file
from aiodicom.errors import LocalProtocolError
from aiodicom.nodes import Node, add_node
from tests.cli.running import once, run, serving


def test_there_is_none(empty: Path) -> None:
    assert configuration_file(None) is None
    assert known_nodes(None) == {}
    assert user_file() == empty / "home" / "aiodicom" / "aiodicom.toml"


def test_the_nearest_one_wins(empty: Path) -> None:
    user, here, named = Node("user", "USER", "h", 1), Node("here", "HERE", "h", 1), Node("named", "NAMED", "h", 1)
    add_node(user_file(), user)
    assert known_nodes(None) == {"user": user}
    add_node("aiodicom.toml", here)
    assert known_nodes(None) == {"here": here}
    add_node(empty / "other.toml", named)
    assert known_nodes(empty / "other.toml") == {"named": named}


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_file() == tmp_path / ".config" / "aiodicom" / "aiodicom.toml"


def test_one_that_is_named_must_be_there(empty: Path) -> None:
    with pytest.raises(LocalProtocolError, match=r"none\.toml: cannot be read: No such file"):
        known_nodes(empty / "none.toml")


def test_a_wrong_file_is_a_wrong_usage(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "aiodicom.toml").write_text("[nodes.pacs]\nport = '104'\n")
    with pytest.raises(SystemExit) as raised:
        main(["echo", "pacs"])
    assert raised.value.code == 1
    assert capsys.readouterr().err.endswith("error: aiodicom.toml: [nodes.pacs]: port: is not a number\n")


@once
async def test_echo_and_store_know_nodes(tmp_path: Path) -> None:
    file = tmp_path / "nodes.toml"
    async with serving() as server:
        port = server.port
        add_node(file, Node("scp", "SCP", "127.0.0.1", port))
        done = await run("echo", "scp", "--config", file)
        unknown = await run("store", "scq", tmp_path, "--config", file)
    assert done.exit_code == 0, done
    assert done.output.startswith(f"SCP@127.0.0.1:{port} answered C-ECHO")
    assert (unknown.exit_code, unknown.output) == (1, "")
    assert "error: 'scq' is no node (scp), and names no port" in unknown.errors
