"""The index made again from the files, and an archive put in order after a crash."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from aiodicom.archive import Archive, rebuild
from aiodicom.archive.rebuilding import INDEX
from aiodicom.archive.shelf import INCOMING
from aiodicom.errors import ArchiveError
from aiodicom.part10 import file_meta
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import (
    data_set_at,
    every_file,
    files,
    instance,
    keep,
    path_of,
    paths_in_index,
    query,
    uid,
)
from tests.loopback import CT
from tests.studies import world, write_studies

TABLES: Final = ("patients", "studies", "series", "instances")


def rows(folder: Path) -> dict[str, set[tuple[object, ...]]]:
    """What the index says, without the numbers of its rows."""
    names = {
        table: [
            name for _, name, *_ in query(folder, f"PRAGMA table_info({table})") if name[0].isupper() or name == "path"
        ]
        for table in TABLES
    }
    return {table: set(query(folder, f"SELECT {', '.join(columns)} FROM {table}")) for table, columns in names.items()}


def part10(number: int, **attributes: Any) -> bytes:  # noqa: ANN401 - of DICOM
    data = instance(number, **attributes).data
    assert isinstance(data, bytes)
    return file_meta(CT, uid(number), EXPLICIT_VR_LITTLE_ENDIAN) + data


async def test_the_index_is_the_same_as_before(tmp_path: Path) -> None:
    for number in range(3):
        study, numbers = f"1.{number}", range(number, 100, 3)
        some = [
            instance(each, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", PatientID=f"{number % 2}")
            for each in numbers
        ]
        await keep(tmp_path, *some)
    before = rows(tmp_path)
    assert len(before["instances"]) == 100
    for prepare in (lambda: None, (tmp_path / INDEX).unlink, lambda: (tmp_path / INDEX).write_bytes(b"damaged")):
        prepare()
        progress: list[int] = []
        report = rebuild(tmp_path, progress=progress.append)
        assert (report.patients, report.studies, report.series, report.instances) == (2, 3, 3, 100)
        assert (report.failed, report.problems) == (0, [])
        assert progress == [64, 100]
        assert rows(tmp_path) == before
        assert not {path for path in every_file(tmp_path) if path.startswith(INDEX)} - {INDEX}
    await keep(tmp_path, instance(100))
    assert len(paths_in_index(tmp_path)) == 101


async def test_files_of_any_name_are_entered_where_they_are(tmp_path: Path) -> None:
    write_studies(tmp_path / "some" / "folder")
    (tmp_path / "image").write_bytes(part10(1))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "image").write_bytes(part10(2))
    report = rebuild(tmp_path)
    assert (report.instances, report.failed) == (len(world()) + 1, 0)
    assert "image" in paths_in_index(tmp_path)
    async with Archive(tmp_path, on_duplicate="replace") as archive:
        await archive.add(instance(1))
    assert not (tmp_path / "image").exists()
    assert data_set_at(tmp_path, 1) == instance(1).data


def test_what_cannot_be_read_is_reported(tmp_path: Path) -> None:
    whole = part10(1, PatientName="Canary^Tweety")
    damaged = {
        "cut": (whole[:-10], "truncated: (7FE0,0010) at offset"),
        "empty": (b"", "is empty"),
        "text": (b"%PDF-1.7" * 100, "is not a DICOM file"),
        "another": (
            whole.replace(uid(1).encode(), uid(2).encode(), 1),
            "The data set has another SOP Class or Instance UID",
        ),
        "nowhere": (part10(3, StudyInstanceUID="1.777").replace(b"1.777\0", b"../../"), "Study Instance UID is no UID"),
        os.fsdecode(b"name\xff"): (whole, "its name is no UTF-8"),
    }
    for name, (content, _) in damaged.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "whole.dcm").write_bytes(whole)
    (tmp_path / "nothing").symlink_to("nowhere at all")
    (tmp_path / "loop").symlink_to(tmp_path)
    report = rebuild(tmp_path)
    assert report.instances == 1
    assert report.failed == len(damaged)
    problems = dict(report.problems)
    assert problems.keys() == damaged.keys()
    for name, (_, reason) in damaged.items():
        assert problems[name].startswith(reason)
        assert "Canary" not in problems[name]


@pytest.mark.parametrize("newer", ["a.dcm", "b.dcm"])
def test_of_two_files_with_one_instance_the_newer_one_is_taken(tmp_path: Path, newer: str) -> None:
    for name, patient in (("a.dcm", "A"), ("b.dcm", "B")):
        (tmp_path / name).write_bytes(part10(1, PatientName=patient))
        os.utime(tmp_path / name, (0, 1 if name == newer else 0))
    report = rebuild(tmp_path)
    assert paths_in_index(tmp_path) == [newer]
    [(path, reason)] = report.problems
    assert {path, newer} == {"a.dcm", "b.dcm"}
    assert reason.startswith("holds the same instance")
    assert every_file(tmp_path) == [".lock", "a.dcm", "b.dcm", INDEX]


async def test_nobody_may_be_using_it(tmp_path: Path) -> None:
    async with Archive(tmp_path):
        with pytest.raises(ArchiveError, match="is in use"):
            rebuild(tmp_path)
    assert rebuild(tmp_path).instances == 0


def test_a_rebuild_that_fails_leaves_the_old_index(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(part10(1))
    rebuild(tmp_path)
    before = (tmp_path / INDEX).read_bytes()

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(tmp_path, progress=stop)
    assert (tmp_path / INDEX).read_bytes() == before
    assert rebuild(tmp_path).instances == 1
    assert every_file(tmp_path) == [".lock", "image", INDEX]


async def test_what_sqlite_fails_at_is_an_archive_error(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(part10(1))
    (tmp_path / ".lock").write_bytes(b"no database" * 100)
    with pytest.raises(ArchiveError, match="cannot be locked"):
        rebuild(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / INDEX).mkdir()
    with pytest.raises(ArchiveError, match="see that it may be read and written"):
        await Archive(tmp_path).open()


async def test_a_damaged_index_after_a_crash(tmp_path: Path) -> None:
    await keep(tmp_path, instance(1))
    temporary(tmp_path, part10(2))
    os.link(temporary(tmp_path, part10(2)), tmp_path / path_of(2))
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection, connection:
        connection.execute("DROP TABLE instances")
    with pytest.raises(ArchiveError, match="aiodicom index rebuild"):
        await Archive(tmp_path).open()
    assert rebuild(tmp_path).instances == 2


# ---- an archive that is open


async def test_an_open_archive_builds_its_index_again(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        (tmp_path / "image").write_bytes(part10(2))
        report = await archive.rebuild()
        assert report.instances == 2
        await archive.add(instance(3))
    assert len(paths_in_index(tmp_path)) == 3


async def test_files_without_an_index_are_entered_when_it_is_opened(tmp_path: Path) -> None:
    write_studies(tmp_path / "received")
    await keep(tmp_path, instance(1))
    assert len(paths_in_index(tmp_path)) == len(world()) + 1


# ---- after a crash


def temporary(folder: Path, content: bytes, name: str = ".1.part") -> Path:
    path = folder / INCOMING / name
    path.write_bytes(content)
    return path


async def test_what_was_not_whole_is_gone(tmp_path: Path) -> None:
    await keep(tmp_path, instance(1))
    temporary(tmp_path, part10(2)[:100])
    temporary(tmp_path, part10(2), ".2.part")
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]


async def test_what_had_its_place_but_no_row_gets_one(tmp_path: Path) -> None:
    await keep(tmp_path, instance(1))
    os.link(temporary(tmp_path, part10(2)), tmp_path / path_of(2))
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(2)]
    assert data_set_at(tmp_path, 2) == instance(2).data


async def test_what_had_its_row_loses_its_second_name(tmp_path: Path) -> None:
    await keep(tmp_path, instance(1))
    os.link(tmp_path / path_of(1), tmp_path / INCOMING / ".1.part")
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]


@pytest.mark.parametrize(
    ("which", "name", "kept"),
    [
        ("new", "Other", "Doe^Jane"),  # the crash came before the commit
        ("old", "Doe^Jane", "Doe^Jane"),
    ],
)
async def test_one_of_two_is_left_of_what_was_being_replaced(tmp_path: Path, which: str, name: str, kept: str) -> None:
    await keep(tmp_path, instance(1))
    second = path_of(1).replace(".dcm", "-2.dcm")
    if which == "new":
        os.link(temporary(tmp_path, part10(1, PatientName=name)), tmp_path / second)
    else:
        os.link(tmp_path / path_of(1), tmp_path / INCOMING / ".1.part")
        (tmp_path / second).write_bytes(part10(1))
        with closing(sqlite3.connect(tmp_path / INDEX)) as connection, connection:
            connection.execute("UPDATE instances SET path = ?", (second,))
    await keep(tmp_path, on_duplicate="replace")
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1) if which == "new" else second]
    assert data_set_at(tmp_path, 1) == instance(1, PatientName=kept).data


@pytest.mark.parametrize("removed", range(4))
async def test_a_kill_between_any_two_removals_leaves_no_file_of_what_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    await keep(tmp_path, instance(1))
    unlink, left = os.unlink, iter(range(removed))

    def unlink_unless_killed(path: str | Path) -> None:
        if next(left, None) is not None:
            unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink_unless_killed)
        await keep(tmp_path, instance(1, PatientName="Other"), on_duplicate="replace")
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path)
    assert data_set_at(tmp_path, 1) == instance(1, PatientName="Other").data


async def test_the_only_file_of_an_instance_is_not_removed(tmp_path: Path) -> None:
    """The index is an older one, that knows the file of before."""
    await keep(tmp_path, instance(1))
    second = path_of(1).replace(".dcm", "-2.dcm")
    os.link(temporary(tmp_path, part10(1, PatientName="Other")), tmp_path / second)
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection, connection:
        connection.execute("UPDATE instances SET path = 'elsewhere.dcm'")
    await keep(tmp_path)
    assert paths_in_index(tmp_path) == [second]
    assert data_set_at(tmp_path, 1) == instance(1, PatientName="Other").data
    assert files(tmp_path) == [second, path_of(1)]


async def test_with_the_index_gone_too_nothing_is_lost(tmp_path: Path) -> None:
    await keep(tmp_path, *map(instance, range(10)))
    os.link(tmp_path / path_of(3), tmp_path / INCOMING / ".1.part")
    (tmp_path / INDEX).unlink()
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path) == sorted(map(path_of, range(10)))
