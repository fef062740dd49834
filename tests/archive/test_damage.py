"""The index held by others, read-only, damaged, removed: refused or built of the files, and never Success without a row."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from aiodicom.archive import Archive
from aiodicom.archive.index import explained
from aiodicom.archive.rebuilding import DAMAGED, INDEX, OLD
from aiodicom.archive.shelf import INCOMING
from aiodicom.errors import ArchiveError, DimseError
from aiodicom.part10 import file_meta
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import data_set_at, files, instance, keep, path_of, paths_in_index, query, uid
from tests.loopback import CT

ROOT: Final = Path(__file__).parents[2]
NUMBERS: Final = range(40)
WAL: Final = f"{INDEX}-wal"
OUT_OF_RESOURCES: Final = 0xA700


def part10(number: int, **attributes: Any) -> bytes:  # noqa: ANN401 - of DICOM
    data = instance(number, **attributes).data
    assert isinstance(data, bytes)
    return file_meta(CT, uid(number), EXPLICIT_VR_LITTLE_ENDIAN) + data


async def refused(archive: Archive, number: int) -> None:
    with pytest.raises(DimseError) as caught:
        await archive.add(instance(number))
    assert caught.value.status == OUT_OF_RESOURCES


# ---- while it is open


def remove(folder: Path) -> None:
    (folder / INDEX).unlink()


def remove_log(folder: Path) -> None:
    (folder / WAL).unlink()


def remove_both(folder: Path) -> None:
    remove(folder)
    remove_log(folder)


def replace(folder: Path) -> None:
    shutil.copy(folder / INDEX, folder / "copy")
    (folder / "copy").replace(folder / INDEX)


@pytest.mark.parametrize("take_away", [remove, remove_log, remove_both, replace])
async def test_an_index_that_is_taken_away_is_written_no_more(
    tmp_path: Path, take_away: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        take_away(tmp_path)
        for number in (2, 3):
            await refused(archive, number)
    assert "the index was removed or replaced; start again" in caplog.text
    (tmp_path / INDEX).unlink(missing_ok=True)  # what was copied, or closed without its log, knows less than the files
    await keep(tmp_path, instance(4))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(4)]


async def test_an_open_archive_whose_index_was_removed_builds_it_again(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        remove(tmp_path)
        await refused(archive, 2)
        assert (await archive.rebuild()).instances == 1
        await archive.add(instance(2))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(2)]


async def test_an_index_that_is_found_damaged_is_built_at_the_next_start(tmp_path: Path) -> None:
    await keep(tmp_path, *map(instance, NUMBERS))
    async with Archive(tmp_path) as archive:
        overwrite(tmp_path / INDEX, 4096, (tmp_path / INDEX).stat().st_size - 4096)
        await refused(archive, 100)
        assert (tmp_path / DAMAGED).exists()
    await keep(tmp_path, instance(101))
    assert files(tmp_path) == paths_in_index(tmp_path) == sorted(map(path_of, [*NUMBERS, 101]))
    assert not (tmp_path / DAMAGED).exists()
    assert (tmp_path / OLD).exists()


async def test_an_index_that_may_not_be_written(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        assert archive._writer is not None
        connection = archive._writer._index.connection
        connection.execute("PRAGMA query_only = 1")
        await refused(archive, 2)
        connection.execute("PRAGMA query_only = 0")
        await archive.add(instance(3))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(3)]


# ---- when it is opened


def overwrite(path: Path, at: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(random.Random(1).randbytes(length))


@pytest.mark.parametrize(("at", "length"), [(0, 16), (0, 100), (0, 4096), (4096, 8192)])
async def test_a_damaged_index_is_built_when_it_is_opened(
    tmp_path: Path, at: int, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    await keep(tmp_path, *map(instance, NUMBERS))
    overwrite(tmp_path / INDEX, at, length)
    (tmp_path / WAL).touch()  # as after a crash: it is looked at thoroughly
    await keep(tmp_path, instance(100))
    assert "it is built of the files" in caplog.text
    assert files(tmp_path) == paths_in_index(tmp_path) == sorted(map(path_of, [*NUMBERS, 100]))
    assert not (tmp_path / DAMAGED).exists()
    assert (tmp_path / OLD).exists()


async def test_flipped_bytes_lose_nothing(tmp_path: Path) -> None:
    """Wherever a byte flips: what is refused is refused, and when the index is built again all is there."""
    whole = tmp_path / "whole"
    await keep(whole, *map(instance, NUMBERS))
    size = (whole / INDEX).stat().st_size
    rng = random.Random(2)
    for flip in range(20):
        folder = tmp_path / str(flip)
        shutil.copytree(whole, folder)
        at = rng.randrange(size)
        content = bytearray((folder / INDEX).read_bytes())
        content[at] ^= 1 << rng.randrange(8)
        (folder / INDEX).write_bytes(content)
        is_kept = await kept_or_refused(folder)
        (folder / INDEX).unlink()
        await keep(folder)
        wanted = [*NUMBERS, 100] if is_kept else list(NUMBERS)
        assert paths_in_index(folder) == sorted(map(path_of, wanted)), at
        for number in wanted:
            assert data_set_at(folder, number) == instance(number).data


async def kept_or_refused(folder: Path) -> bool:
    try:
        async with Archive(folder) as archive:
            await archive.add(instance(100))
    except (ArchiveError, DimseError):
        return False
    return query(folder, f"SELECT count(*) FROM instances WHERE SOPInstanceUID = '{uid(100)}'") == [(1,)]


async def test_an_empty_index_is_none(tmp_path: Path) -> None:
    await keep(tmp_path, *map(instance, NUMBERS))
    (tmp_path / INDEX).write_bytes(b"")
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path) == sorted(map(path_of, NUMBERS))


async def test_the_worklist_outlives_damage_elsewhere(tmp_path: Path) -> None:
    await keep(tmp_path, *map(instance, NUMBERS))
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(worklist)")][1:-2]
        marks = ", ".join("?" * (len(columns) + 1))
        connection.execute(f"INSERT INTO worklist ({', '.join(columns)}, item) VALUES ({marks})", [*columns, b"item"])
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'instances'").fetchone()
    overwrite(tmp_path / INDEX, 4096 * (page - 1), 4096)
    (tmp_path / WAL).touch()
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path) == sorted(map(path_of, NUMBERS))
    assert query(tmp_path, "SELECT item FROM worklist") == [(b"item",)]


READ_ONLY: Final = """\
import asyncio, sys
from aiodicom.archive import Archive
from tests.archive.keeping import instance
async def main():
    async with Archive(sys.argv[1], minimum_free=0, minimum_free_share=0) as archive:
        await archive.add(instance(2))
asyncio.run(main())
"""


def run(script: str, *arguments: str, under: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*under, sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_read_only_index_refuses_and_is_no_damaged_one(tmp_path: Path) -> None:
    asyncio.run(keep(tmp_path, instance(1)))
    (tmp_path / INDEX).chmod(0o444)
    # root may write all the same, unless it gives that up
    under = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-all") if os.geteuid() == 0 else ()
    done = run(READ_ONLY, str(tmp_path), under=under)
    assert "0xA700" in done.stderr
    assert not (tmp_path / DAMAGED).exists()
    (tmp_path / INDEX).chmod(0o644)
    asyncio.run(keep(tmp_path, instance(3)))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(3)]


# ---- what is advised


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (sqlite3.SQLITE_BUSY, "another program has it open"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "another program has it open"),
        (sqlite3.SQLITE_LOCKED, "another program has it open"),
        (sqlite3.SQLITE_CANTOPEN, "ulimit -n"),
        (sqlite3.SQLITE_READONLY, "see that it may be read and written"),
        (sqlite3.SQLITE_IOERR_FSYNC, "see that its disk is in order"),
        (sqlite3.SQLITE_FULL, "see that there is room"),
        (sqlite3.SQLITE_CORRUPT, "aiodicom index rebuild"),
        (sqlite3.SQLITE_NOTADB, "aiodicom index rebuild"),
        (sqlite3.SQLITE_ERROR, "aiodicom index rebuild"),
    ],
)
def test_what_is_advised_helps(tmp_path: Path, code: int, advice: str) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    with pytest.raises(ArchiveError, match="what SQLite says") as caught, explained(tmp_path):
        raise error
    assert advice in str(caught.value)
    assert ("rebuild" in str(caught.value)) == ("rebuild" in advice)


LACKING: Final = """\
import asyncio, os, resource, sys
from aiodicom.archive import Archive
limit = max(map(int, os.listdir("/proc/self/fd"))) + int(sys.argv[2])
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    await Archive(sys.argv[1]).open()
asyncio.run(main())
"""


@pytest.mark.parametrize("spare", [4, 6])
def test_a_lack_of_descriptors_is_no_damage(tmp_path: Path, spare: int) -> None:
    asyncio.run(keep(tmp_path, instance(1)))
    done = run(LACKING, str(tmp_path), str(spare))
    assert "rebuild" not in done.stderr
    assert not (tmp_path / DAMAGED).exists()
    asyncio.run(keep(tmp_path))
    assert paths_in_index(tmp_path) == [path_of(1)]


async def test_who_writes_elsewhere_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep(tmp_path, instance(1))
    monkeypatch.setattr("aiodicom.archive.index._TURN_TIMEOUT", 0)
    (tmp_path / INCOMING / ".left.part").touch()
    with closing(sqlite3.connect(tmp_path / INDEX, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveError, match="database is locked; another program has it open"):
            await Archive(tmp_path).open()
        other.execute("ROLLBACK")
    await keep(tmp_path, instance(2))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(2)]


# ---- files that the index does not know of, after a crash


async def test_whole_files_get_a_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await keep(tmp_path, instance(1), instance(2))
    (tmp_path / path_of(3)).write_bytes(part10(3))
    (tmp_path / path_of(2)).rename(tmp_path / "moved.dcm")
    (tmp_path / path_of(1).replace(".dcm", "-2.dcm")).write_bytes(part10(1, PatientName="Other"))
    (tmp_path / "text").write_text("no instance")
    (tmp_path / WAL).touch()
    await keep(tmp_path)
    assert paths_in_index(tmp_path) == [path_of(1), path_of(3), "moved.dcm"]
    assert data_set_at(tmp_path, 1) == instance(1).data
    assert (tmp_path / path_of(1).replace(".dcm", "-2.dcm")).exists()
    assert "2 files were not in the index, and are now" in caplog.text
    assert "2 files are not in the index: no instances, or in other files, too" in caplog.text


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="there are no such names there")
async def test_a_stranger_whose_name_is_no_utf_8_keeps_nothing_from_being_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await keep(tmp_path, instance(1))
    (tmp_path / os.fsdecode(b"copy\xff.dcm")).write_bytes(part10(2))
    (tmp_path / WAL).touch()
    await keep(tmp_path, instance(3))
    assert paths_in_index(tmp_path) == [path_of(1), path_of(3)]
    assert "1 files are not in the index" in caplog.text


async def test_damage_that_cannot_be_noted_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    def perform(*_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    async with Archive(tmp_path) as archive:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "touch", refuse)
            patch.setattr("aiodicom.archive.store.Keeping.perform", perform)
            patch.setattr("aiodicom.archive.recovering.is_damaged", lambda _: True)
            async with asyncio.timeout(60):
                await refused(archive, 1)
        await archive.add(instance(2))


async def test_a_folder_that_is_gone_refuses_who_is_in_it_and_nobody_later(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        archive._shelf._touched.add(os.fspath(tmp_path / "gone"))
        await refused(archive, 1)
        await archive.add(instance(2))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(2)]


async def test_whoever_closed_it_is_believed(tmp_path: Path) -> None:
    await keep(tmp_path, instance(1))
    (tmp_path / path_of(2)).write_bytes(part10(2))
    await keep(tmp_path)
    assert paths_in_index(tmp_path) == [path_of(1)]
