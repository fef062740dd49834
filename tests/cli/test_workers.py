"""`aiodicom serve --workers`, as processes: some are killed, all are stopped, and `aiodicom status` sees them all."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import dcmread

from aiodicom import ProposedContext, associate
from aiodicom.cli import serve
from aiodicom.cli.supervising import ATTEMPTS
from aiodicom.cli.view import SOCKET, ask
from aiodicom.errors import DicomNetworkError
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import data_set_at, files, instance, keep, paths_in_index, query
from tests.cli.running import Running, once, run, write_files
from tests.cli.test_serve import Serving, connected, serving
from tests.loopback import CT, RawPeer, data_set, fragment_pdu, reject_pdu, request_pdu, store_pdu, until
from tests.peers.process import execute, require

pytestmark = once

PATIENCE: Final = 60.0
# The chance that so many connections all come to one of two workers is nil.
CONNECTIONS: Final = 40
KILLS: Final = 3
STORES_BEFORE_A_KILL: Final = 100


async def status_when(server: Serving, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """What `aiodicom status` is told, once that is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition(view := await ask(server.storage)):
            pass
    return view


def of_workers(view: dict[str, Any], name: str) -> list[Any]:
    return [worker[name] for worker in view["workers"]]


def open_again(number: int, pid: int | None) -> Callable[[dict[str, Any]], object]:
    """Whether a worker lives in another process than that."""
    return lambda view: view["workers"][number - 1]["pid"] not in (None, pid)


async def stopped_by(server: Serving, signal_number: int = 0) -> int:
    server.program.process.send_signal(signal_number)
    return (await server.program.end()).exit_code


# Together.


async def test_all_of_them_serve_and_are_seen(tmp_path: Path) -> None:
    [file] = write_files(tmp_path / "sent", 1)
    async with serving(tmp_path, "--workers", "2", "--bulk") as server, AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            await stack.enter_async_context(connected(server.port))
        view = await ask(server.storage)
        sent = await run("store", f"127.0.0.1:{server.port}", file, "-aet", "ME")
        after = await status_when(server, lambda view: view["total"]["open"] == CONNECTIONS)
        assert (server.storage / SOCKET).stat().st_mode & 0o777 == 0o600
        assert await stopped_by(server, signal.SIGTERM) == 0
    assert sent.exit_code == 0, sent
    assert (view["port"], view["total"]["open"]) == (server.port, CONNECTIONS)
    assert all(count > 0 for count in of_workers(view, "open"))
    assert len(set(of_workers(view, "pid")) - {server.program.process.pid}) == 2
    assert [each["worker"] for each in view["associations"]].count(1) == view["workers"][0]["open"]
    assert {(each["calling_ae_title"], each["called_ae_title"]) for each in view["associations"]} == {("RAW", "SCP")}
    assert all(each["bytes_received"] > 0 and each["operations"] == [] for each in view["associations"])
    assert (after["total"]["accepted"], after["total"]["instances"]) == (CONNECTIONS + 1, 1)
    assert after["total"]["bytes_received"] > file.stat().st_size
    assert not (server.storage / SOCKET).exists()


async def test_the_limit_of_associations_is_one_for_all(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2", "--max-associations", "3") as server, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(connected(server.port))
        for _ in range(5):  # whichever worker they come to
            assert await answer_of(server.port) == reject_pdu(2, 3, 2)
        view = await ask(server.storage)
        await stack.aclose()
        await status_when(server, lambda view: view["total"]["open"] == 0)
        assert (await answer_of(server.port))[0] == 2
    assert (view["total"]["accepted"], view["total"]["rejected"]) == (3, 5)


async def test_no_more_are_admitted_where_many_ask_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2", "--max-associations", "3") as server, AsyncExitStack() as stack:
        peers = [RawPeer(*await asyncio.open_connection("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
        for peer in peers:
            stack.push_async_callback(peer.close)
        for peer in peers:
            peer.send(request_pdu())
        answers = [await peer.pdu() for peer in peers]
    assert sorted(answer[0] for answer in answers) == [2] * 3 + [3] * (CONNECTIONS - 3)


async def answer_of(port: int) -> bytes:
    """The answer to an A-ASSOCIATE-RQ."""
    peer = RawPeer(*await asyncio.open_connection("127.0.0.1", port))
    try:
        peer.send(request_pdu())
        return await peer.pdu()
    finally:
        await peer.close()


async def test_the_index_is_not_built_again_under_their_feet(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as server:
        rebuilt = await run("index", "rebuild", "--storage", server.storage)
        alone = await run("serve", "--port", "0", "--storage", server.storage)
        several = await run("serve", "--workers", "2", "--port", "0", "--storage", server.storage)
    for done in (rebuilt, alone, several):
        assert done.exit_code == 45
        assert "the archive is in use by another process; stop that first" in done.errors


# Stopped.


@pytest.mark.parametrize("is_aborted", [False, True])
async def test_a_signal_lets_what_is_being_received_end_and_a_second_one_aborts_it(
    tmp_path: Path, is_aborted: bool
) -> None:
    data = data_set()
    async with serving(tmp_path, "--workers", "2") as server, connected(server.port) as peer:
        peer.send(store_pdu(), fragment_pdu(data[:100], is_last=False))
        await status_when(server, lambda view: view["associations"][0]["operations"] == ["C-STORE CT Image Storage"])
        server.program.process.send_signal(signal.SIGTERM)
        warning = await server.program.error_with("stopping")
        if is_aborted:
            assert await stopped_by(server, signal.SIGTERM) == 130
            assert (await peer.pdu())[0] == 7
        else:
            peer.send(fragment_pdu(data[100:]))
            assert (await peer.response()).status == 0
            assert await stopped_by(server) == 0
    assert "stopping: 1 association has 10 s to end what it does; once more to abort" in warning
    assert len(server.kept()) == (0 if is_aborted else 1)


async def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as server, connected(server.port):
        view = await ask(server.storage)
        [number] = [each["worker"] for each in view["associations"]]
        os.kill(view["workers"][number - 1]["pid"], signal.SIGSTOP)
        server.program.process.send_signal(signal.SIGTERM)
        await server.program.error_with("stopping: 1 association")
        server.program.process.send_signal(signal.SIGTERM)
        await server.program.error_with(f"worker {number} does not end, and is killed")
        assert await stopped_by(server) == 130


async def test_a_worker_that_is_told_to_end_does_so_and_is_replaced(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as server:
        [pid, _] = of_workers(await ask(server.storage), "pid")
        os.kill(pid, signal.SIGTERM)
        await server.program.error_with("worker 1 ended by exit code 0; it is started again in 0.25 s")
        view = await status_when(server, open_again(1, pid))
        assert of_workers(view, "restarts") == [1, 0]


async def test_without_their_supervisor_they_end(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as server:
        server.program.process.kill()
        assert await stopped_by(server) == -signal.SIGKILL  # its output ends with that of the workers
        async with serving(tmp_path) as next_one:
            assert (await run("echo", f"127.0.0.1:{next_one.port}")).exit_code == 0


# Killed.


async def test_nothing_is_lost_when_workers_are_killed_while_they_store(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    numbers = iter(range(1, 1_000_000))
    stop = asyncio.Event()
    sent = write_files(tmp_path / "sent", 200, first=2_000_000)
    by_storescu: list[str] = []
    async with serving(tmp_path, "--workers", "2") as server:
        senders = [asyncio.create_task(send(server.port, numbers, acknowledged, stop)) for _ in range(4)]
        senders.append(asyncio.create_task(send_by_storescu(server.port, sent, by_storescu, stop)))
        for kill in range(KILLS):
            number, before = 1 + kill % 2, len(acknowledged)
            await until(partial(is_larger, acknowledged, before + STORES_BEFORE_A_KILL))
            pid = (await ask(server.storage))["workers"][number - 1]["pid"]
            os.kill(pid, signal.SIGKILL)
            await server.program.error_with(f"worker {number} ended by SIGKILL; it is started again")
            await status_when(server, open_again(number, pid))
        stop.set()
        await asyncio.gather(*senders)
        view = await ask(server.storage)
        assert await stopped_by(server, signal.SIGTERM) == 0
    assert view["total"]["restarts"] == KILLS
    assert view["total"]["open"] == 0
    await keep(server.storage)  # opened alone, put in order, closed
    assert files(server.storage) == paths_in_index(server.storage)
    assert len(acknowledged) > KILLS * STORES_BEFORE_A_KILL
    for number in acknowledged:
        assert data_set_at(server.storage, number) == instance(number).data
    paths = dict(query(server.storage, "SELECT SOPInstanceUID, path FROM instances"))
    assert by_storescu
    for name in by_storescu:
        uid = dcmread(name).SOPInstanceUID
        assert dcmread(server.storage / paths[uid]) == dcmread(name)


def is_larger(some: set[int], count: int) -> bool:
    return len(some) > count


async def send(port: int, numbers: Iterator[int], acknowledged: set[int], stop: asyncio.Event) -> None:
    """Send instances, over as many associations as that takes."""
    contexts = [ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
    while not stop.is_set():
        try:
            async with associate("127.0.0.1", port, called_ae_title="SCP", contexts=contexts) as association:
                while not stop.is_set():
                    number = next(numbers)
                    (await association.c_store(instance(number))).raise_for_status()
                    acknowledged.add(number)
        except DicomNetworkError:
            await asyncio.sleep(0.01)  # its worker was killed; the other one is there


async def send_by_storescu(port: int, paths: list[Path], acknowledged: list[str], stop: asyncio.Event) -> None:
    """Send files by storescu, run after run; note those that it saw acknowledged."""
    storescu = require("storescu", "dcmtk")
    while not stop.is_set():
        done = await execute([storescu, "-v", "127.0.0.1", str(port), *map(str, paths)])
        sending = ""
        for line in (done.output + done.errors).splitlines():
            if "Sending file: " in line:
                sending = line.partition("Sending file: ")[2]
            elif "Received Store Response (Success)" in line:
                acknowledged.append(sending)


async def test_one_that_dies_again_and_again_ends_it_all(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as server:
        pid: int | None = None
        for _ in range(ATTEMPTS):
            view = await status_when(server, open_again(2, pid))
            pid = view["workers"][1]["pid"]
            os.kill(pid, signal.SIGKILL)
        error = await server.program.error_with("error: worker 2 ended 5 times within 10 s, the last time by SIGKILL")
        assert error.endswith("; all of them are stopped\n")
        assert await stopped_by(server) == 69


async def test_one_that_is_killed_in_the_middle_of_what_it_says(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\nprintf '[{' >&0\nkill -9 $$\n")
    worker.chmod(0o755)
    arguments = ("serve", "--workers", "2", "--port", "0", "--storage", str(tmp_path / "kept"))
    done = await execute([sys.executable, "-c", main_with(worker), *arguments])
    assert done.exit_code == 69
    assert f"ended {ATTEMPTS} times within 10 s, the last time by SIGKILL" in done.errors


async def test_one_that_cannot_be_started_again_is_tried_again_while_the_others_go_on(tmp_path: Path) -> None:
    python, away = tmp_path / "python", tmp_path / "away"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    arguments = ("serve", "--workers", "2", "--port", "0", "--storage", str(tmp_path / "kept"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", main_with(python), *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    server = Serving(Running(process), [], tmp_path / "kept", 0)
    try:
        assert "port" in await server.program.line()
        pids = of_workers(await ask(server.storage), "pid")
        python.rename(away)
        os.kill(pids[0], signal.SIGKILL)
        await server.program.error_with("worker 1 cannot be started: No such file or directory")
        away.rename(python)
        view = await status_when(server, open_again(1, pids[0]))
        assert of_workers(view, "pid")[1] == pids[1]
        assert await stopped_by(server, signal.SIGTERM) == 0
    finally:
        if process.returncode is None:
            process.kill()


def main_with(executable: Path) -> str:
    """A program that is ours, but for what runs its workers."""
    return f"import sys; from aiodicom.cli import main; sys.executable = {str(executable)!r}; sys.exit(main())"


# What cannot be.


@pytest.mark.parametrize("options", [("--workers", "2"), ()])
async def test_a_port_that_is_taken_starts_no_worker(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with serving(tmp_path, "--workers", "2") as server:
        done = await run("serve", *options, "--port", str(server.port), "--storage", tmp_path / "other")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = await run("serve", *options, "--port", port, "--storage", tmp_path / "other")
    for each in (done, other):
        assert (each.exit_code, each.output) == (60, "")
        assert each.errors.startswith("error: cannot listen at 127.0.0.1:")
        assert "is the port taken" in each.errors


async def test_a_folder_that_cannot_be_used_starts_no_worker(tmp_path: Path) -> None:
    [file] = write_files(tmp_path, 1)
    done = await run("serve", "--workers", "2", "--port", "0", "--storage", file / "below")
    assert (done.exit_code, done.output) == (45, "")
    assert done.errors == f"error: cannot keep files in {file / 'below'}: Not a directory\n"


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "257"])
async def test_a_number_of_workers_that_is_none(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        serve.parse([f"--workers={count}"])
    assert ended.value.code == 1
    assert f"'{count}' is no number from 1 to 256" in capsys.readouterr().err


async def test_a_system_that_cannot_share_a_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(SystemExit) as ended:
        serve.parse(["--workers", "2"])
    assert ended.value.code == 1
    assert "--workers needs SO_REUSEPORT" in capsys.readouterr().err
    assert serve.parse(["--workers", "1"]).workers == 1
