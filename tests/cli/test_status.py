"""`aiodicom status`, as a process, and the limit of open files that `aiodicom serve` says it needs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import socket
import subprocess
from pathlib import Path

import pytest

from aiodicom.cli import status, view
from aiodicom.cli.descriptors import ensure_descriptors
from aiodicom.cli.serve import descriptors_of
from aiodicom.cli.view import SOCKET
from aiodicom.limits import DEFAULT_LIMITS
from tests.cli.running import PROGRAM, Running, once, run, write_files
from tests.cli.test_serve import connected, serving

pytestmark = once


async def test_a_pipe_gets_json(tmp_path: Path) -> None:
    [file] = write_files(tmp_path / "sent", 1)
    async with serving(tmp_path, "--aet", "MY ARCHIVE") as server, connected(server.port):
        await run("store", f"127.0.0.1:{server.port}", file)
        done = await run("status", server.storage)
        assert (server.storage / SOCKET).stat().st_mode & 0o777 == 0o600
        stopped = await server.stop()
    view = json.loads(done.output)
    [worker], [association] = view["workers"], view["associations"]
    assert (done.exit_code, stopped.exit_code) == (0, 0)
    assert (view["ae_title"], view["host"], view["port"]) == ("MY ARCHIVE", "127.0.0.1", server.port)
    assert worker["pid"] == server.program.process.pid
    counted = {"restarts": 0, "open": 1, "accepted": 2, "rejected": 0, "aborted": 0, "instances": 1}
    assert {name: view["total"][name] for name in counted} == counted
    assert worker["bytes_received"] > file.stat().st_size
    assert (association["calling_ae_title"], association["host"], association["operations"]) == ("RAW", "127.0.0.1", [])
    assert not (server.storage / SOCKET).exists()


async def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    terminal, follower = pty.openpty()
    async with serving(tmp_path) as server, connected(server.port):
        process = await asyncio.create_subprocess_exec(
            *(*PROGRAM, "status", server.storage),
            stdout=follower,
            stderr=subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
        )
        _, errors = await process.communicate()
        pid = server.program.process.pid
    os.close(follower)
    title, _, headings, worker, _, count, _, further, association = os.read(terminal, 65536).decode().splitlines()
    os.close(terminal)
    assert errors == b""
    assert title.startswith(f"AIODICOM at 127.0.0.1, port {server.port}: since ")
    assert headings.split() == (
        [
            "WORKER",
            "PID",
            "SINCE",
            "RESTARTS",
            "OPEN",
            "ACCEPTED",
            "REJECTED",
            "ABORTED",
            "INSTANCES",
            "RECEIVED",
            "SENT",
        ]
    )
    assert worker.split()[:2] == ["1", str(pid)]
    assert worker.split()[3:8] == ["0", "1", "1", "0", "0"]
    assert count == "1 association"
    assert further.split() == ["CALLING", "CALLED", "FROM", "WORKER", "SINCE", "RECEIVED", "SENT", "DOES"]
    assert association.split()[:2] == ["RAW", "SCP"]


async def test_nobody_serves(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        done = await run("status", folder)
        assert (done.exit_code, done.output) == (60, "")
        assert done.errors == f"error: nobody serves {folder}: it is done by  aiodicom serve --storage {folder}\n"


async def test_a_socket_that_a_dead_server_left(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.program.process.kill()
        await server.program.end()
        assert (server.storage / SOCKET).exists()
        assert (await run("status", server.storage)).exit_code == 60
        async with serving(tmp_path):
            assert (await run("status", server.storage)).exit_code == 0


async def test_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(view, "DEADLINE", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(SOCKET)
        silent.listen()
        assert await status.run(status.parse(["."])) == 60
    assert capsys.readouterr().err == "error: .: the server does not answer: it takes too long\n"


async def test_a_folder_of_a_long_name(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    async with serving(folder) as server:
        assert (await run("status", server.storage)).exit_code == 0


# The limit of open files.


async def test_a_soft_limit_is_raised() -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(soft, 512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        assert ensure_descriptors(low + 1) == ""
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("soft", "needed"), [(600, 600), (600, 601), (600, 500), (resource.RLIM_INFINITY, 600)])
async def test_no_hard_limit(monkeypatch: pytest.MonkeyPatch, soft: int, needed: int) -> None:
    limits = [(soft, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert ensure_descriptors(needed) == ""
    assert limits[-1] == (soft if soft == resource.RLIM_INFINITY else max(soft, needed), resource.RLIM_INFINITY)


async def test_a_limit_that_cannot_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert ensure_descriptors(256) == ""
    assert "and the system allows 256: " in ensure_descriptors(257)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_limit_that_is_too_low_is_told_at_the_start(tmp_path: Path, workers: str) -> None:
    serve = [*PROGRAM, "serve", "--port", "0", "--storage", str(tmp_path / "kept"), "--workers", workers]
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'ulimit -n 600; exec "$@"', "sh", *serve), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    program = Running(process)
    warning = await program.error_with("warning: ")
    assert "port" in await program.line()
    process.terminate()
    assert (await program.end()).exit_code == 0
    needed = descriptors_of(DEFAULT_LIMITS)
    assert f"it may need {needed:,} files and connections at a time, and the system allows 600: " in warning
    assert f"`ulimit -n {needed}`" in warning
