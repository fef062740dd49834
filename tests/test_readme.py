"""What the README shows is true: its Python is run, and so are its commands, against each other."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pydicom
import pytest
from pydicom.data import get_testdata_file

import aiodicom
from tests.peers.process import execute, free_port

README: Final = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
CT: Final = str(get_testdata_file("CT_small.dcm"))
# What the documentation's port and `uv run` become here: a free port, and the environment that is there already.
PORT: Final = "11112"
BESIDE: Final = "11113"
UV_RUN: Final = "uv run aiodicom"
ELLIPSIS: Final = "…"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = (line for block in blocks("console") for line in block.splitlines())
    return [line.removeprefix("$ ").split(" && ")[-1] for line in lines if line.startswith("$ ")]


def python(marker: str) -> dict[str, Any]:
    (block,) = (block for block in blocks("python") if marker in block)
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def arguments(command: str, port: int) -> list[str]:
    assert command.startswith(UV_RUN)
    # The port beside it becomes another free one, whose number the archive learns from the same line.
    beside = str(port + 1)
    words = shlex.split(command.removeprefix(UV_RUN).replace(PORT, str(port)).replace(BESIDE, beside))
    return [sys.executable, "-m", "aiodicom", *words]


@asynccontextmanager
async def serving(port: int, folder: Path, command: str = f"{UV_RUN} serve") -> AsyncIterator[asyncio.StreamReader]:
    assert command in commands()
    process = await asyncio.create_subprocess_exec(
        *arguments(command, port),
        "--port",
        str(port),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.terminate()
        rest = await process.stdout.read()
        assert await process.wait() == 0, rest


async def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "image.dcm").write_bytes(Path(CT).read_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "jpeg.dcm").write_bytes(Path(get_testdata_file("SC_rgb_jpeg_gdcm.dcm")).read_bytes())  # type: ignore[arg-type]
    port = free_port()
    async with serving(port, tmp_path) as output:
        assert f"port {port}" in (await output.readline()).decode()
        said = {
            "echo": "0x0000 Success",
            "store": "sent 2 instances",
            "nodes": "added me, ",
            "find": "1CT1",
            "get": "got 1 instance",
            "move": "got 1 instance",
        }
        asked = [command for command in commands() if "AIODICOM@localhost" in command]
        assert [command.removeprefix(f"{UV_RUN} ").split()[0] for command in asked] == list(said)
        for command, words in zip(asked, said.values(), strict=True):
            finished = await execute(arguments(command, port))
            assert finished.exit_code == 0, finished.errors
            assert words in finished.output
    assert len(list((tmp_path / "archive").glob("*/*/*.dcm"))) == 2
    for folder in ("got", "moved"):
        assert len(list((tmp_path / folder).glob("*/*/*.dcm"))) == 1


async def test_the_rejection(tmp_path: Path) -> None:
    port = free_port()
    serve = next(line for line in commands() if "aiodicom serve" in line)
    (command,) = (line for line in commands() if "WRONG@" in line)
    (shown,) = re.findall(r"^error: .*$", README, flags=re.MULTILINE)
    async with serving(port, tmp_path, serve) as output:
        await output.readline()
        finished = await execute(arguments(command, port))
    assert finished.exit_code == 61
    assert finished.errors.startswith(shown.removesuffix(ELLIPSIS))


async def test_the_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    port = free_port()
    sender, receiver = python("contexts_for"), python("on_c_store")
    server = receiver["server"]
    server.listeners = (aiodicom.Listener(port=port),)
    at_port(monkeypatch, port)
    async with server:
        await sender["send"]([CT])
    (kept,) = (tmp_path / "received").iterdir()
    assert pydicom.dcmread(kept) == pydicom.dcmread(CT)
    assert "<Status 0x0000 Success>" in capsys.readouterr().out


async def test_the_archive_and_who_fetches_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    port = free_port()
    fetcher, holder = python("c_find"), python("Archive(")
    server, archive = holder["server"], holder["archive"]
    server.listeners = (aiodicom.Listener(port=port),)
    at_port(monkeypatch, port, calling_ae_title="WS1")
    async with server, archive:
        await archive.add(CT)
        await fetcher["fetch"]("C*")
    (got,) = (tmp_path / "got").iterdir()
    assert pydicom.dcmread(got) == pydicom.dcmread(CT)
    assert "CompressedSamples^CT1 20040119 CT" in capsys.readouterr().out


def at_port(monkeypatch: pytest.MonkeyPatch, port: int, **more: Any) -> None:  # noqa: ANN401
    """Let `associate` go to that port, wherever the README has it go."""
    associate = aiodicom.associate
    monkeypatch.setattr(aiodicom, "associate", lambda host, _port, **options: associate(host, port, **options, **more))


def test_the_tests_command_is_the_one_of_the_ci() -> None:
    assert "uv run pytest" in commands()
    assert "uv run pytest" in (Path(__file__).parent.parent / ".ci" / "run").read_text(encoding="utf-8")


def test_the_map_names_every_module() -> None:
    (listed,) = blocks("text")
    package = Path(__file__).parent.parent / "aiodicom"
    for path in package.iterdir():
        if path.name.startswith("__") or path.suffix not in {"", ".py"}:
            continue
        assert path.name in listed, f"{path.name} is missing from the map in README.md"
