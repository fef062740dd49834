"""`aiodicom get`, as a process, against real servers."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from aiodicom import DimseError, EncodedInstance, InstanceFile, Operation, open_instance
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.cli.holding import KEY, OTHER_KEY, OTHER_STUDY, STUDY, holding, kept, names_of, write
from tests.cli.running import PROGRAM, once, run, serving, started
from tests.loopback import Recorder, ct_instance, data_set
from tests.peers.process import execute, free_port
from tests.studies import instances_of, uid_of

pytestmark = once

DATA = data_set()


async def test_a_study_lands_by_study_and_series(tmp_path: Path) -> None:
    async with holding(tmp_path / "there") as server:
        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("get", peer, "-k", KEY, "-od", tmp_path / "here")
    assert (done.exit_code, done.errors) == (0, "")
    assert done.output.startswith(f"got 7 instances (5.0 kB) from {peer} into {tmp_path / 'here'} in ")
    assert done.output.count("\n") == 1
    files = kept(tmp_path / "here")
    assert files.keys() == names_of("jane/chest")
    for name in files:
        sent, got = open_instance(tmp_path / "there" / Path(name).name), open_instance(tmp_path / "here" / name)
        assert content(got) == content(sent)


def content(file: InstanceFile) -> tuple[str, bytes]:
    return file.transfer_syntax_uid, file.path.read_bytes()[file.data_set_offset :]


async def test_an_instance_that_comes_again_replaces_its_file(tmp_path: Path) -> None:
    async with holding(tmp_path / "there") as server:
        for _ in range(2):
            done = await run("get", f"127.0.0.1:{server.port}", "-k", KEY, "-od", tmp_path / "here")
            assert done.exit_code == 0, done
    assert kept(tmp_path / "here").keys() == names_of("jane/chest")


async def test_files_are_named_by_a_template(tmp_path: Path) -> None:
    series = uid_of("jane/chest/1")
    async with holding(tmp_path / "there") as server:
        done = await run(
            "get",
            f"127.0.0.1:{server.port}",
            "-k",
            KEY,
            "-k",
            f"SeriesInstanceUID={series}",
            "-od",
            tmp_path / "here",
            "--name",
            "{PatientID}/{Modality}-{InstanceNumber:03}.dcm",
        )
    assert done.exit_code == 0, done
    assert kept(tmp_path / "here").keys() == {f"1001/CT-{number:03}.dcm" for number in (1, 2, 3, 4)}


async def test_what_find_prints_is_what_get_takes(tmp_path: Path) -> None:
    """As `aiodicom find … | aiodicom get … -` does."""
    lines = [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in (STUDY, OTHER_STUDY, STUDY)]
    for name, text in (("json", "\n".join(map(json.dumps, lines))), ("uids", f"{STUDY}\n{OTHER_STUDY}\n{STUDY}\n")):
        async with holding(tmp_path / f"there-{name}") as server:
            command = [*PROGRAM, "get", f"SCP@127.0.0.1:{server.port}", "-", "-od", str(tmp_path / name)]
            done = await execute(command, stdin=text.encode())
        assert (done.exit_code, done.errors) == (0, "")
        assert done.output.startswith("got 13 instances (")
        assert kept(tmp_path / name).keys() == names_of("jane/chest", "mueller/head")


async def test_a_list_may_name_what_is_not_there(tmp_path: Path) -> None:
    listed = tmp_path / "uids.txt"
    listed.write_text(f"1.2.3\n{STUDY}\n1.2.4\n")
    async with holding(tmp_path / "there") as server:
        done = await run("get", f"127.0.0.1:{server.port}", listed, "-od", tmp_path / "here")
        series = await run("get", f"127.0.0.1:{server.port}", "-k", "SeriesInstanceUID=1.2", "-od", tmp_path / "here")
    assert (done.exit_code, done.errors) == (69, "")
    assert done.output.splitlines()[1:] == [
        "2 asked for, and not there:",
        "  StudyInstanceUID 1.2.3",
        "  StudyInstanceUID 1.2.4",
    ]
    assert kept(tmp_path / "here").keys() == names_of("jane/chest")
    assert series.output.splitlines()[1:] == [
        "1 asked for, and not there:",
        "  SeriesInstanceUID 1.2; its StudyInstanceUID might help",
    ]


async def test_nothing_is_listed(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    done = await run("get", "127.0.0.1:1", empty)
    assert (done.exit_code, done.output, done.errors) == (21, "", "error: the list names nothing to retrieve\n")


async def test_a_key_that_chooses_nothing_is_told(tmp_path: Path) -> None:
    async with holding(tmp_path / "there") as server:
        done = await run(
            "get",
            f"127.0.0.1:{server.port}",
            "-k",
            KEY,
            "-k",
            "Modality=SR",
            "-od",
            tmp_path / "here",
            "--level",
            "study",
        )
    assert done.exit_code == 0
    assert done.errors.startswith("warning: Modality does not choose what is retrieved: ")
    assert len(kept(tmp_path / "here")) == 7


async def test_instances_that_fail_are_named(tmp_path: Path) -> None:
    files = write(tmp_path / "there", "jane/chest")
    unknown = EncodedInstance("1.2.826.0.1.3680043.10.954.9.1", "1.2.3.4", files[0].transfer_syntax_uid, b"")
    broken = replace(
        ct_instance(),
        sop_instance_uid="1.2.3.5",
        data=b"\x08\0\x05\0\x09\0\0\0",
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
    )
    async with serving() as server:

        @server.on_c_get()
        async def get(operation: Operation) -> list[InstanceFile | EncodedInstance]:
            return [files[0], unknown, broken] if operation.identifier.StudyInstanceUID == STUDY else [unknown]

        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("get", peer, "-k", KEY, "-od", tmp_path / "here")
        quiet = await run("get", peer, "-k", KEY, "-od", tmp_path / "here", "-q")
        none = await run("get", peer, "-k", OTHER_KEY, "-od", tmp_path / "here")
    assert done.exit_code == 69
    unreadable = (
        "0xC000 Failure, Error: Cannot understand, or unable to process "
        "(The data set is damaged, beyond a limit or not in its transfer syntax)"
    )
    assert done.output.splitlines()[1:] == [
        "2 failed:",
        "  1.2.3.4: the peer could not send it, perhaps in no presentation context that it accepted (-v shows them)",
        f"  1.2.3.5: {unreadable}",
    ]
    assert done.errors.startswith(f"warning: {peer} answered 0xB000 Warning, ")
    assert (quiet.exit_code, quiet.output.splitlines()) == (69, done.output.splitlines()[1:])
    assert none.exit_code == 69
    assert none.output.startswith(f"got nothing from {peer} in ")
    assert f"error: {peer} answered 0xA702 Failure, " in none.errors


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = await run("get", "127.0.0.1:1", "-k", KEY, "-od", tmp_path / "file" / "deep")
    assert (done.exit_code, done.output) == (45, "")
    assert (
        done.errors == f"error: cannot keep files in {tmp_path / 'file' / 'deep'}: {tmp_path / 'file'} is no folder\n"
    )


async def test_a_disk_that_is_full_ends_it(tmp_path: Path) -> None:
    listed = tmp_path / "uids.txt"
    listed.write_text(f"{STUDY}\n{OTHER_STUDY}\n")
    full = (
        "import errno, os, sys\n"
        "from aiodicom.cli import main\n"
        "def write(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "os.write = write\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    here = str(tmp_path / "here")
    async with holding(tmp_path / "there") as server:
        peer = f"SCP@127.0.0.1:{server.port}"
        done = await execute([sys.executable, "-c", full, "get", peer, str(listed), "-od", here])
    assert done.exit_code == 45
    assert done.output.startswith(f"got nothing from {peer} in ")
    first = instances_of("jane/chest")[0].SOPInstanceUID
    assert done.output.splitlines()[1] == "1 failed:"
    assert done.output.splitlines()[2].startswith(f"  {first}: 0xA700 Failure, Refused: Out of Resources (")
    assert done.output.splitlines()[3] == "2 not retrieved, and can be asked for again:"
    assert done.errors == f"error: {here}: No space left on device\n"
    assert kept(tmp_path / "here") == {}


@pytest.mark.parametrize(("already", "exit_code"), [(2, 75), (0, 70)])
async def test_cut_off_midway(tmp_path: Path, already: int, exit_code: int) -> None:
    """The peer aborts in the first of two studies, after so many instances."""
    files = write(tmp_path / "there", "jane/chest")
    listed = tmp_path / "uids.txt"
    listed.write_text(f"{STUDY}\n{OTHER_STUDY}\n")
    async with serving() as server:

        async def cut() -> AsyncIterator[bytes]:
            yield DATA[:100]
            await asyncio.gather(*(association.abort() for association in server.associations))

        @server.on_c_get()
        async def get(_operation: Operation) -> list[InstanceFile | EncodedInstance]:
            return [*files[:already], replace(ct_instance(), data=cut())]

        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("get", peer, listed, "-od", tmp_path / "here")
    assert done.exit_code == exit_code
    assert done.output.startswith(f"got {already} instances (" if already else f"got nothing from {peer}")
    assert done.output.splitlines()[1:] == [
        "2 not retrieved, and can be asked for again:",
        f"  StudyInstanceUID {STUDY}",
        f"  StudyInstanceUID {OTHER_STUDY}",
    ]
    assert done.errors.startswith("error: association aborted by the peer (service-user: reason not specified)")
    assert len(kept(tmp_path / "here")) == already


async def test_interrupted(tmp_path: Path) -> None:
    """What has come is there, what is on its way is not; the peer is told by C-CANCEL."""
    files = write(tmp_path / "there", "jane/chest")
    told = Recorder()
    stuck = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield DATA[:100]
        stuck.set()
        await told.until(lambda: "received CCancelRQ" in told.calls)
        yield DATA[100:]

    async with serving(observers=[told]) as server:

        @server.on_c_get()
        async def get(_operation: Operation) -> list[InstanceFile | EncodedInstance]:
            slow = replace(ct_instance(), data=slowly())
            return [files[0], slow, files[1]]

        arguments = ("get", f"127.0.0.1:{server.port}", "-k", KEY, "-od", tmp_path / "here")
        async with started(*arguments) as program:
            await stuck.wait()
            program.process.send_signal(signal.SIGINT)
            done = await program.end()
    assert done.exit_code == 130
    assert done.errors == "error: interrupted: there is more, which can be asked for again\n"
    assert done.output.startswith("got 1 instance (")
    assert [Path(name).name for name in kept(tmp_path / "here")] == [files[0].path.name]


async def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    files = write(tmp_path / "there", "jane/chest")
    terminal, end = pty.openpty()
    printed = bytearray()
    drawn = asyncio.Event()

    def read() -> None:
        printed.extend(os.read(terminal, 65536))
        if b"1 of 3 instances" in printed:
            drawn.set()

    async def slowly() -> AsyncIterator[bytes]:
        await drawn.wait()
        yield DATA

    loop = asyncio.get_running_loop()
    loop.add_reader(terminal, read)
    try:
        async with serving() as server:

            @server.on_c_get()
            async def get(_operation: Operation) -> list[InstanceFile | EncodedInstance]:
                return [files[0], replace(ct_instance(), data=slowly()), files[1]]

            command = [*PROGRAM, "get", f"127.0.0.1:{server.port}", "-k", KEY, "-od", str(tmp_path / "here")]
            environment = {**os.environ, "TERM": "xterm", "COLUMNS": "70"}
            process = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.PIPE, stderr=end, env=environment
            )
            output, _ = await process.communicate()
    finally:
        loop.remove_reader(terminal)
        os.close(terminal)
        os.close(end)
    assert process.returncode == 0
    assert output.startswith(b"got 3 instances (")


async def test_refused_before_it_begins(tmp_path: Path) -> None:
    port = free_port()
    done = await run("get", f"127.0.0.1:{port}", "-k", KEY, "-od", tmp_path / "here")
    assert done.exit_code == 60
    assert f"error: no connection to 127.0.0.1:{port}" in done.errors
    async with serving() as server:
        without = await run("get", f"127.0.0.1:{server.port}", "-k", KEY, "-od", tmp_path / "here")
    assert without.exit_code == 66
    assert without.errors.endswith("; aiodicom move PEER --to self may do instead\n")
    assert not (tmp_path / "here").exists()


async def test_what_holds_for_all_is_not_asked_again(tmp_path: Path) -> None:
    listed = tmp_path / "uids.txt"
    listed.write_text(f"{STUDY}\n{OTHER_STUDY}\n")
    async with serving() as server:

        @server.on_c_get()
        async def get(_operation: Operation) -> list[InstanceFile]:
            raise DimseError(0x0124, "not you")

        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("get", peer, listed, "-od", tmp_path / "here")
    assert done.exit_code == 69
    assert done.output.splitlines()[1:] == [
        "1 not retrieved, and can be asked for again:",
        f"  StudyInstanceUID {OTHER_STUDY}",
    ]
    assert done.errors.startswith(
        f"error: StudyInstanceUID {STUDY}: {peer} answered 0x0124 Failure, Refused: Not authorized (not you); take an AE "
    )


async def test_verbose_names_each_file(tmp_path: Path) -> None:
    async with holding(tmp_path / "there") as server:
        done = await run("get", f"127.0.0.1:{server.port}", "-k", KEY, "-od", tmp_path / "here", "-v")
    assert done.exit_code == 0
    for name in names_of("jane/chest"):
        assert f" bytes: {tmp_path / 'here' / name}\n" in done.errors
    assert "SCP/SCU role selection of CT Image Storage" in done.errors
