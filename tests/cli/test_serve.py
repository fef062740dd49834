"""`aiodicom serve`, as a process: what it prints is run, and what it receives is looked at."""

from __future__ import annotations

import asyncio
import gc
import shlex
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread

from aiodicom.cli import serve
from aiodicom.cli.pacs import opened_archive
from tests.cli.running import PROGRAM, Running, once, run, started, write_files
from tests.loopback import RawPeer, data_set, fragment_pdu, request_pdu, store_pdu
from tests.peers.comparing import bundled
from tests.peers.dcmtk import run as run_dcmtk
from tests.peers.dcmtk import run_findscu, run_getscu, run_movescu, running_storescp, write_identifier
from tests.peers.process import Finished, execute, require
from tests.peers.test_query_peers_start import worklist_entry

pytestmark = once


@dataclass
class Serving:
    """A running `aiodicom serve`, and the lines it printed at its start."""

    program: Running
    lines: list[str]
    storage: Path
    port: int

    def command(self, title: str, *files: Path) -> list[str]:
        """The command it printed behind that title, for those files."""
        [line] = [line for line in self.lines if line.startswith(title)]
        *words, placeholder = shlex.split(line.removeprefix(title))
        assert placeholder == "FILES"
        return [*words, *map(str, files)]

    def kept(self) -> list[Path]:
        return sorted(self.storage.rglob("*.dcm"))

    async def stop(self, signal_number: int = signal.SIGTERM) -> Finished:
        self.program.process.send_signal(signal_number)
        return await self.program.end()


@asynccontextmanager
async def serving(folder: Path, *options: str, called: str = "--any-called-aet") -> AsyncIterator[Serving]:
    storage = folder / "kept"
    async with started("serve", "--port", "0", "--storage", storage, *filter(None, (called, *options))) as program:
        lines = [await program.line() for _ in range(4)]
        port = int(lines[0].split(", port ")[1].split(",")[0])
        yield Serving(program, lines, storage, port)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawPeer]:
    """An association made of bytes."""
    peer = RawPeer(*await asyncio.open_connection("127.0.0.1", port))
    try:
        peer.send(request_pdu())
        assert (await peer.pdu())[0] == 2
        yield peer
    finally:
        await peer.close()


async def test_the_commands_it_prints_work(tmp_path: Path) -> None:
    small, lossless = bundled("CT_small.dcm"), bundled("SC_rgb_jpeg_gdcm.dcm")
    async with serving(tmp_path, "--aet", "MY ARCHIVE", called="") as server:
        storescu = server.command("with DCMTK:", small.path)
        by_dcmtk = await execute([require(storescu[0], "dcmtk"), *storescu[1:]])
        store = server.command("send to it:", lossless.path)
        assert store.pop(0) == "aiodicom"
        by_us = await execute([*PROGRAM, *store])
        stopped = await server.stop()
    assert (by_dcmtk.exit_code, by_us.exit_code) == (0, 0), (by_dcmtk, by_us)
    assert server.lines[0].startswith("MY ARCHIVE listens at 127.0.0.1, port ")
    kept = {path.stem: path for path in server.kept()}
    assert set(kept) == {small.sop_instance_uid, lossless.sop_instance_uid}
    assert (stopped.exit_code, stopped.errors) == (0, "")


async def test_storescu_sends_jpeg_lossless_and_it_is_kept_by_study_and_series(tmp_path: Path) -> None:
    file = bundled("SC_rgb_jpeg_gdcm.dcm")
    sent = dcmread(file.path)
    async with serving(tmp_path) as server:
        done = await run_dcmtk("storescu", "-xs", "127.0.0.1", str(server.port), file.path)
    assert done.exit_code == 0, done
    [path] = server.kept()
    name = f"{sent.StudyInstanceUID}/{sent.SeriesInstanceUID}/{file.sop_instance_uid}.dcm"
    assert path.relative_to(server.storage).as_posix() == name
    kept = dcmread(path)
    assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert kept.PixelData == sent.PixelData


async def test_echo_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        echo = await run_dcmtk("echoscu", "127.0.0.1", str(server.port))
    assert echo.exit_code == 0, echo


async def test_quiet_and_debug_exclude_each_other(tmp_path: Path) -> None:
    async with started("serve", "-q", "--port", "0", "--storage", tmp_path / "x", "-d") as program:
        done = await program.end()
    assert done.exit_code == 1


async def test_verbose_prints_a_line_for_each_association_and_instance(tmp_path: Path) -> None:
    file = bundled("CT_small.dcm")
    async with serving(tmp_path, "-v") as server:
        sent = await run("store", f"127.0.0.1:{server.port}", file.path, "-aet", "ME")
        established = await server.program.error_with("association with 'ME'")
        instance = await server.program.error_with("CT Image Storage")
        await server.program.error_with("association with 'ME'")
    assert sent.exit_code == 0, sent
    assert "established, 3 contexts accepted" in established
    assert f"CT Image Storage, {file.sop_instance_uid}, for 'ME'@127.0.0.1:" in instance
    assert instance.endswith(", 0x0000 Success\n")


@pytest.mark.parametrize("option", ["", "--require-called-aet"])
async def test_another_called_ae_title_is_rejected(tmp_path: Path, option: str) -> None:
    async with serving(tmp_path, called=option) as server:
        done = await run("echo", f"OTHER@127.0.0.1:{server.port}")
        warning = await server.program.error_with("warning: ")
    assert done.exit_code == 61
    assert "called AE title not recognized" in warning


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_lets_what_is_being_received_end(tmp_path: Path, signal_number: int) -> None:
    async with serving(tmp_path) as server, connected(server.port) as peer:
        data = data_set()
        peer.send(store_pdu(), fragment_pdu(data[:100], is_last=False))
        await until_received(peer, server)
        server.program.process.send_signal(signal_number)
        warning = await server.program.error_with("stopping")
        peer.send(fragment_pdu(data[100:]))
        assert (await peer.response()).status == 0
        stopped = await server.program.end()
    assert "stopping: 1 association has 10 s to end what it does; once more to abort" in warning
    assert stopped.exit_code == 0
    assert len(server.kept()) == 1


async def until_received(peer: RawPeer, server: Serving) -> None:
    """Wait until the server has read what was sent: it has answered somebody who came later."""
    other = await run("echo", "-q", f"127.0.0.1:{server.port}")
    assert other.exit_code == 0
    assert not peer.reader.at_eof()


async def test_a_second_signal_aborts(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, connected(server.port) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set()[:100], is_last=False))
        await until_received(peer, server)
        server.program.process.send_signal(signal.SIGTERM)
        await server.program.error_with("stopping")
        stopped = await server.stop()
        assert (await peer.pdu())[0] == 7
    assert stopped.exit_code == 130
    assert server.kept() == []


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await run("serve", "--port", str(port), "--storage", tmp_path / "x")
    assert (done.exit_code, done.output) == (60, "")
    assert done.errors.startswith(f"error: cannot listen at 127.0.0.1:{port}: ")
    assert "is the port taken" in done.errors


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    [file] = write_files(tmp_path, 1)
    done = await run("serve", "--port", "0", "--storage", file / "below")
    assert (done.exit_code, done.output) == (45, "")
    assert done.errors == f"error: cannot keep files in {file / 'below'}: Not a directory\n"


@pytest.mark.parametrize(("host", "printed"), [("0.0.0.0", "127.0.0.1"), ("::1", "::1")])
async def test_commands_for_other_hosts(tmp_path: Path, host: str, printed: str) -> None:
    async with serving(tmp_path, "--host", host) as server:
        storescu = server.command("with DCMTK:")
        store = server.command("send to it:")
        done = await run("echo", store[2])
    assert storescu == ["storescu", "-aec", "AIODICOM", printed, str(server.port)]
    assert done.exit_code == 0, done


# As a PACS.


async def test_who_is_no_node_may_store_but_not_ask_and_the_log_says_which_lines_would_let_him(tmp_path: Path) -> None:
    file = bundled("CT_small.dcm")
    configuration = tmp_path / "aiodicom.toml"
    configuration.write_text("")
    async with serving(tmp_path, "--config", str(configuration)) as server:
        stored = await run_dcmtk("storescu", "-aet", "WORKSTATION", "127.0.0.1", str(server.port), file.path)
        keys, options = ("QueryRetrieveLevel=STUDY", "PatientID"), ["-aet", "WORKSTATION"]
        refused = await run_findscu(server.port, *keys, options=options)
        await server.program.error_with("refused find to 'WORKSTATION'@127.0.0.1")
        lines = [await server.program.error_with(word) for word in ("[nodes.", "ae_title", "host", "port")]
        configuration.write_text("".join(lines))
        answered = await run_findscu(server.port, *keys, options=options)
        configuration.write_text("nonsense")
        await run_findscu(server.port, *keys, options=["-aet", "STRANGER"])
        await server.program.error_with("the nodes stay as they were")
        still = await run_findscu(server.port, *keys, options=options)
    assert stored.exit_code == 0, stored
    assert refused.statuses == [0x0124]
    assert still.statuses == answered.statuses
    assert answered.statuses == [0xFF00, 0x0000]
    assert [match.PatientID for match in answered.matches] == ["1CT1"]


async def test_what_a_node_may_not_it_is_refused(tmp_path: Path) -> None:
    configuration = tmp_path / "aiodicom.toml"
    configuration.write_text('[nodes.reader]\nae_title = "READER"\nhost = "127.0.0.1"\nport = 104\nmay = ["find"]\n')
    async with serving(tmp_path, "--config", str(configuration)) as server:
        echoed = await run("echo", f"127.0.0.1:{server.port}", "-aet", "READER")
        stored = await run("store", f"127.0.0.1:{server.port}", bundled("CT_small.dcm").path, "-aet", "READER")
        warning = await server.program.error_with("refused store to 'READER'")
    assert (echoed.exit_code, stored.exit_code) == (69, 69)
    assert "by the rule `may` of [nodes.reader]" in warning
    assert server.kept() == []


async def test_who_is_no_node_stores_at_localhost_alone_unless_the_configuration_says_so(tmp_path: Path) -> None:
    configuration = tmp_path / "aiodicom.toml"
    configuration.write_text("")
    store = ("-aet", "NEW", "127.0.0.1")
    file = bundled("CT_small.dcm").path
    async with serving(tmp_path, "--host", "0.0.0.0", "--config", str(configuration)) as server:
        port = str(server.port)
        echoed = await run_dcmtk("echoscu", *store, port)
        refused = await run_dcmtk("storescu", *store, port, file)
        warning = await server.program.error_with("refused store to 'NEW'@127.0.0.1:")
        configuration.write_text('[unknown]\nmay = ["store"]\n')
        stored = await run_dcmtk("storescu", *store, port, file)
        configuration.write_text("[unknown]\nmay = []\n")
        rejected = await run_dcmtk("echoscu", *store, port)
        await server.program.error_with("no association with 'NEW'@127.0.0.1:")
    assert "which is no node, by the rule `may` of [unknown]" in warning
    assert (echoed.exit_code, stored.exit_code) == (0, 0), (echoed, stored)
    assert all(each.exit_code != 0 for each in (refused, rejected)), (refused, rejected)
    assert len(server.kept()) == 1


async def test_getscu_and_movescu_retrieve_from_it(tmp_path: Path) -> None:
    file = bundled("CT_small.dcm")
    study = f"StudyInstanceUID={dcmread(file.path).StudyInstanceUID}"
    configuration = tmp_path / "aiodicom.toml"
    with running_storescp(tmp_path / "destination", ae_title="STORESCP") as destination:
        configuration.write_text(
            '[nodes.me]\nae_title = "ME"\nhost = "127.0.0.1"\nport = 104\n\n'
            f'[nodes.there]\nae_title = "STORESCP"\nhost = "127.0.0.1"\nport = {destination.port}\n'
        )
        async with serving(tmp_path, "--config", str(configuration)) as server:
            await run("store", f"127.0.0.1:{server.port}", file.path)
            keys = ("QueryRetrieveLevel=STUDY", study)
            got = await run_getscu(server.port, tmp_path / "got", *keys, options=["-aet", "ME"])
            moved = await run_movescu(server.port, "STORESCP", *keys, options=["-aet", "ME"])
            nowhere = await run_movescu(server.port, "NOBODY", *keys, options=["-aet", "ME"])
        arrived = destination.received()
    assert got.statuses[-1] == moved.statuses[-1] == 0
    assert nowhere.statuses == [0xA801]
    assert len(list((tmp_path / "got").iterdir())) == len(arrived) == 1


async def test_a_second_server_on_the_same_folder_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        done = await run("serve", "--port", "0", "--storage", server.storage)
    assert done.exit_code == 45
    assert "the archive is in use" in done.errors


async def test_worklist_files_are_answered_from(tmp_path: Path) -> None:
    folder = tmp_path / "worklist"
    folder.mkdir()
    write_identifier(worklist_entry("Doe^Jane", "CT"), folder / "one.wl")
    (folder / "broken.wl").write_bytes(b"no item")
    configuration = tmp_path / "aiodicom.toml"
    configuration.write_text('[nodes.ct]\nae_title = "CT"\nhost = "127.0.0.1"\nport = 104\n')
    options = ("--worklist", str(folder), "--config", str(configuration))
    async with serving(tmp_path, *options) as server:
        await server.program.error_with("broken.wl is not in the worklist")
        keys = ("PatientName", "ScheduledProcedureStepSequence[0].Modality=CT")
        answered = await run_findscu(server.port, *keys, model="-W", options=["-aet", "CT"])
    assert answered.statuses == [0xFF00, 0x0000]
    assert [str(match.PatientName) for match in answered.matches] == ["Doe^Jane"]


async def test_garbage_collections_pass_over_what_is_loaded_as_long_as_it_serves(tmp_path: Path) -> None:
    options = serve.parse(["--storage", str(tmp_path)])
    async with opened_archive(options):
        assert gc.get_freeze_count() > 10_000  # pydicom alone has more
    assert gc.get_freeze_count() == 0
