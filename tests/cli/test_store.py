"""`aiodicom store`, as a process, against real servers."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pytest

from aiodicom import Association, DimseError, Observer, Operation, storage_service
from aiodicom.cli.progress import Lines, shown
from aiodicom.server import Server
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.cli.running import PROGRAM, SECONDS_FOR_A_LINE, once, run, serving, started, write_files
from tests.loopback import instance_uid
from tests.peers.comparing import bundled
from tests.peers.dcmtk import running_storescp
from tests.peers.process import free_port

pytestmark = once


@dataclass
class Received(Observer):
    """A server, and what it was sent."""

    port: int = 0
    uids: list[str] = field(default_factory=list)
    associations: list[Association] = field(default_factory=list)

    @property
    def peer(self) -> str:
        return f"SCP@127.0.0.1:{self.port}"

    def association_opened(self, association: Association) -> None:
        self.associations.append(association)

    async def keep(self, operation: Operation) -> int:
        await operation.read()
        self.uids.append(operation.sop_instance_uid)
        return 0


@asynccontextmanager
async def receiving(*, require_called_ae_title: bool = False) -> AsyncIterator[Received]:
    """A server that takes every instance."""
    received = Received()
    async with serving(received.keep, observers=[received], require_called_ae_title=require_called_ae_title) as server:
        received.port = server.port
        yield received


async def test_files_and_folders_are_sent(tmp_path: Path) -> None:
    write_files(tmp_path / "study" / "deep", 2)
    write_files(tmp_path / "study", 1, first=3)
    [alone] = write_files(tmp_path, 1, first=4)
    async with receiving() as received:
        done = await run("store", received.peer, tmp_path / "study", alone)
    assert (done.exit_code, done.errors) == (0, "")
    assert sorted(received.uids) == [instance_uid(number) for number in (1, 2, 3, 4)]
    assert done.output.startswith(f"sent 4 instances (2.6 kB) to {received.peer} in ")
    assert done.output.count("\n") == 1


async def test_options_may_stand_between_the_words(tmp_path: Path) -> None:
    [file] = write_files(tmp_path, 1)
    async with receiving() as received:
        done = await run("store", "127.0.0.1", str(received.port), "-aec", "PACS", file, "-aet", "ME")
    assert done.exit_code == 0, done
    peer = received.associations[0].peer
    assert (peer.called_ae_title, peer.calling_ae_title) == ("PACS", "ME")


async def test_storescp_receives_jpeg_lossless_as_it_is(tmp_path: Path) -> None:
    file = bundled("SC_rgb_jpeg_gdcm.dcm").path
    with running_storescp(tmp_path, "+xs", "+B") as peer:
        done = await run("store", f"{peer.ae_title}@{peer.host}:{peer.port}", file)
        [kept] = peer.received()
    assert done.exit_code == 0, done
    assert kept.name.endswith(bundled("SC_rgb_jpeg_gdcm.dcm").sop_instance_uid)


async def test_what_cannot_be_sent_is_named_and_the_others_are_sent(tmp_path: Path) -> None:
    files = write_files(tmp_path, 3)
    (tmp_path / "notes.txt").write_text("no DICOM")
    files[1].write_bytes(files[1].read_bytes()[:-7])
    (tmp_path / "bare.dcm").write_bytes(files[2].read_bytes()[files[2].read_bytes().index(b"\x08\0\x16\0") :])
    async with receiving() as received:
        done = await run("store", received.peer, tmp_path)
    assert (done.exit_code, done.errors) == (22, "")
    assert received.uids == [instance_uid(1), instance_uid(3)]
    lines = done.output.splitlines()
    assert lines[0].startswith("sent 2 instances ")
    assert lines[1] == "3 cannot be sent:"
    assert lines[2].startswith(f"  {files[1]}: truncated: (7FE0,0010) at offset ")
    assert lines[3].startswith(f"  {tmp_path / 'bare.dcm'}: is a DICOM data set without File Meta Information")
    assert lines[4].startswith(f"  {tmp_path / 'notes.txt'}: is not a DICOM file")


async def test_none_can_be_sent(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff.dcm")).write_text("no DICOM")
    done = await run("store", "SCP@127.0.0.1:1", tmp_path)
    assert (done.exit_code, done.output) == (23, "")
    assert "bad\\udcff.dcm: is not a DICOM file" in done.errors
    assert done.errors.endswith("error: none of the files can be sent\n")


async def test_there_are_no_files(tmp_path: Path) -> None:
    done = await run("store", "SCP@127.0.0.1:1", tmp_path)
    assert (done.exit_code, done.output, done.errors) == (21, "", "error: there are no files in these folders\n")


async def test_a_path_that_is_not_there_stops_it_before_it_begins(tmp_path: Path) -> None:
    write_files(tmp_path, 1)
    async with receiving() as received:
        done = await run("store", received.peer, tmp_path, tmp_path / "missing")
    assert (done.exit_code, done.output) == (20, "")
    assert done.errors == f"error: {tmp_path / 'missing'}: no such file or folder\n"
    assert received.uids == []


async def test_failures_and_warnings_are_listed_by_file(tmp_path: Path) -> None:
    files = write_files(tmp_path, 3)
    answers = {instance_uid(1): 0xA700, instance_uid(2): 0xB000, instance_uid(3): 0}

    async def answer(operation: Operation) -> int:
        if (status := answers[operation.sop_instance_uid]) == 0xA700:
            raise DimseError(status, "disk full")
        return status

    async with serving(answer) as server:
        done = await run("store", f"SCP@127.0.0.1:{server.port}", tmp_path, "--retries", "0")
        warned = await run("store", f"SCP@127.0.0.1:{server.port}", files[1], "-q")
        quiet = await run("store", f"SCP@127.0.0.1:{server.port}", tmp_path, "-q", "--retries", "0")
    assert done.exit_code == 69
    coercion = "Coercion of Data Elements, or sub-operations complete with failures or warnings"
    assert done.output.splitlines()[1:] == [
        "1 with a warning:",
        f"  {files[1]}: C-STORE-RSP 0xB000 Warning, {coercion}",
        "1 failed:",
        f"  {files[0]}: C-STORE-RSP 0xA700 Failure, Refused: Out of Resources (disk full)",
    ]
    assert done.output.startswith("sent 2 instances ")
    assert (warned.exit_code, warned.output) == (68, "")
    assert (quiet.exit_code, quiet.output.splitlines()) == (69, done.output.splitlines()[3:])


async def test_no_context_is_accepted(tmp_path: Path) -> None:
    [file] = write_files(tmp_path, 1)
    async with serving() as server:
        done = await run("store", f"SCP@127.0.0.1:{server.port}", file)
    assert done.exit_code == 66
    [title, line] = done.output.splitlines()[1:]
    assert title == "1 failed:"
    assert line == (
        f"  {file}: no accepted presentation context for CT Image Storage in transfer syntax Implicit VR Little Endian: "
        "proposed Implicit VR Little Endian | Explicit VR Little Endian; accepted nothing; "
        "the peer does not support that SOP class"
    )


async def test_decompression_needs_leave() -> None:
    file = bundled("SC_rgb_rle.dcm")
    received = Received()
    service = storage_service(received.keep, [file.sop_class_uid], [EXPLICIT_VR_LITTLE_ENDIAN])
    async with serving(services=[service]) as server:
        refused = await run("store", f"SCP@127.0.0.1:{server.port}", file.path)
        allowed = await run("store", f"SCP@127.0.0.1:{server.port}", file.path, "--decompress")
    assert refused.exit_code == 66
    assert "allow decompression" in refused.output
    assert "--decompress" in refused.output
    assert allowed.exit_code == 0, allowed
    assert received.uids == [file.sop_instance_uid]


@pytest.mark.parametrize(("already_sent", "exit_code"), [(2, 75), (0, 70)])
async def test_cut_off_midway(tmp_path: Path, already_sent: int, exit_code: int) -> None:
    files = write_files(tmp_path, 5)
    received = Received()
    aborts: list[asyncio.Task[None]] = []
    server = Server(port=0, observers=())

    @server.on_c_store
    async def keep(operation: Operation) -> int:
        if len(received.uids) == already_sent:
            aborts.extend(asyncio.create_task(association.abort()) for association in server.associations)
            await asyncio.Event().wait()
        return await received.keep(operation)

    async with server:
        done = await run("store", f"127.0.0.1:{server.port}", tmp_path, "--retries", "0")
        await asyncio.gather(*aborts)
    assert done.exit_code == exit_code
    assert done.errors == "error: association aborted by the peer (service-user: reason not specified)\n"
    assert done.output.startswith(f"sent {already_sent} instances " if already_sent else "sent nothing ")
    remaining = [f"  {path}" for path in files[already_sent:]]
    title = ["3 not sent, and can be sent again:"]
    assert done.output.splitlines()[1:] == ([*title, *remaining] if already_sent else [])


async def test_what_may_go_better_later_is_tried_again(tmp_path: Path) -> None:
    write_files(tmp_path, 5)
    received = Received()
    refused: set[str] = set()

    async def refuse_once(operation: Operation) -> int:
        if operation.sop_instance_uid not in refused:
            refused.add(operation.sop_instance_uid)
            return 0xA700
        return await received.keep(operation)

    async with serving(refuse_once) as server:
        done = await run("store", f"127.0.0.1:{server.port}", tmp_path, "--associations", "2")
    assert (done.exit_code, done.errors) == (0, "")
    assert done.output.startswith("sent 5 instances ")
    assert len(set(received.uids)) == 5


async def test_interrupted(tmp_path: Path) -> None:
    files = write_files(tmp_path, 4)
    blocked = asyncio.Event()
    received = Received()

    async def keep(operation: Operation) -> int:
        if len(received.uids) == 2:
            blocked.set()
            await asyncio.Event().wait()
        return await received.keep(operation)

    async with serving(keep) as server, started("store", f"127.0.0.1:{server.port}", tmp_path) as program:
        await blocked.wait()
        program.process.send_signal(signal.SIGINT)
        done = await program.end()
    assert (done.exit_code, done.errors) == (130, "")
    # The second response may have come at the very moment of the interruption; the third request proves the first.
    sent = int(done.output.split()[1])
    assert sent in {1, 2}
    title = f"{4 - sent} not sent, and can be sent again:"
    assert done.output.splitlines()[1:] == [title, *(f"  {path}" for path in files[sent:])]


async def test_connecting_and_association_fail_as_they_do_for_echo(tmp_path: Path) -> None:
    [file] = write_files(tmp_path, 1)
    port = free_port()
    refused = await run("store", f"127.0.0.1:{port}", file)
    assert refused.exit_code == 60
    assert f"error: no connection to 127.0.0.1:{port}" in refused.errors
    async with receiving(require_called_ae_title=True) as received:
        rejected = await run("store", f"WRONG@127.0.0.1:{received.port}", file)
    assert rejected.exit_code == 61


async def test_more_contexts_than_an_association_has(tmp_path: Path) -> None:
    classes = [f"1.2.826.0.1.3680043.10.954.9.{number}" for number in range(1, 71)]
    for number, sop_class in enumerate(classes, 1):
        write_files(tmp_path, 1, sop_class=sop_class, first=number)
    received = Received()
    service = storage_service(received.keep, classes, [IMPLICIT_VR_LITTLE_ENDIAN])
    async with serving(services=[service], observers=[received]) as server:
        done = await run("store", f"127.0.0.1:{server.port}", tmp_path)
    assert done.exit_code == 0, done
    assert len(received.uids) == 70
    assert len(received.associations) == 2


@pytest.mark.parametrize("option", ["--window", "--associations"])
async def test_three_at_a_time(tmp_path: Path, option: str) -> None:
    write_files(tmp_path, 6)
    received = Received()
    three = asyncio.Barrier(3)

    async def keep(operation: Operation) -> int:
        await three.wait()
        return await received.keep(operation)

    async with serving(keep, observers=[received]) as server:
        done = await run("store", f"127.0.0.1:{server.port}", tmp_path, option, "3")
    assert done.exit_code == 0, done
    assert len(set(received.uids)) == 6
    assert len(received.associations) == (1 if option == "--window" else 3)


async def test_other_associations_take_over_from_one_that_is_rejected(tmp_path: Path) -> None:
    write_files(tmp_path, 4)
    rejected = asyncio.Event()
    received = Received()

    class Watch(Observer):
        def association_refused(self, *_: object) -> None:
            rejected.set()

    async def keep(operation: Operation) -> int:
        await rejected.wait()
        return await received.keep(operation)

    async with serving(keep, observers=[Watch()], maximum_associations=1) as server:
        done = await run("store", f"127.0.0.1:{server.port}", tmp_path, "--associations", "2")
    assert done.exit_code == 0, done
    assert len(received.uids) == 4
    assert done.errors.startswith("warning: no association with 'ANY-SCP': association rejected: local limit exceeded")


async def test_verbose_tells_each_context_and_each_status(tmp_path: Path) -> None:
    [file] = write_files(tmp_path, 1)
    jpeg = bundled("SC_rgb_jpeg_gdcm.dcm")
    received = Received()
    service = storage_service(received.keep, ["1.2.840.10008.5.1.4.1.1.2"], [EXPLICIT_VR_LITTLE_ENDIAN])
    async with serving(services=[service]) as server:
        done = await run("store", "-v", f"127.0.0.1:{server.port}", file, jpeg.path, "--window", "2")
    assert done.exit_code == 69
    told = done.errors
    assert "  asynchronous operations window: invoked 2, performed 1\n" in told
    assert "      3  CT Image Storage\n           transfer-syntaxes-not-supported\n" in told
    assert "      5  CT Image Storage\n           acceptance: Explicit VR Little Endian\n" in told
    assert "      7  Secondary Capture Image Storage\n           abstract-syntax-not-supported\n" in told
    assert f"{file}: C-STORE-RSP 0x0000 Success\n" in told
    assert f"{jpeg.path}: no accepted presentation context for Secondary Capture Image Storage in" in told


async def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    [file] = write_files(tmp_path, 1)
    async with receiving() as received:
        full = os.open("/dev/full", os.O_WRONLY)
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "store", received.peer, str(file), stdout=full, stderr=subprocess.PIPE
        )
        os.close(full)
        _, errors = await process.communicate()
    assert process.returncode == 40
    assert errors.decode() == "error: the output cannot be written: No space left on device\n"


async def test_a_bar_on_a_terminal_that_goes_away(tmp_path: Path) -> None:
    write_files(tmp_path, 3)
    drawn = asyncio.Event()
    received = Received()

    async def keep(operation: Operation) -> int:
        await drawn.wait()
        return await received.keep(operation)

    terminal, end = pty.openpty()
    printed = bytearray()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}

    def read() -> None:
        try:
            printed.extend(os.read(terminal, 65536))
        except OSError:  # the program has ended
            loop.remove_reader(terminal)
        if b"0 of 3 files" in printed:
            drawn.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(terminal, read)
    try:
        async with serving(keep) as server:
            command = [*PROGRAM, "store", f"127.0.0.1:{server.port}", str(tmp_path)]
            process = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.PIPE, stderr=end, env=environment
            )
            output, _ = await process.communicate()
    finally:
        loop.remove_reader(terminal)
        os.close(terminal)
        os.close(end)
    assert process.returncode == 0
    assert output.startswith(b"sent 3 instances ")
    text = printed.decode()
    assert "looking at the files" in text or "0 of 3 files" in text
    assert "━" in text
    assert text.rstrip().endswith("\x1b[2K")  # the line was wiped


class Waiting(StringIO):
    """A stream that says when a line was printed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = asyncio.Event()

    def flush(self) -> None:
        self.printed.set()


@dataclass
class Account:
    """A `Tally`."""

    count: str = "looking at the files"
    volume: str = ""
    completed: int = 0
    total: int | None = None


async def test_lines_where_there_is_no_terminal() -> None:
    stream, tally = Waiting(), Account()
    async with asyncio.timeout(SECONDS_FOR_A_LINE), shown(tally, display=Lines(stream, interval=0)):
        await stream.printed.wait()
        stream.printed.clear()
        tally.count, tally.volume = "600 of 1,200 files", "2.5 MB of 5.0 MB"
        await stream.printed.wait()
    first, *_, last = stream.getvalue().splitlines()
    assert first.startswith("looking at the files, after ")
    assert last.startswith("600 of 1,200 files, 2.5 MB of 5.0 MB, after ")
