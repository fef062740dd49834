"""An archive that several use at once: each has its turn, and none loses what is another's, whoever is killed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import IO, Any, Final

import pytest

from aiodicom.archive import Archive, index, rebuild
from aiodicom.archive.rebuilding import INDEX
from aiodicom.archive.shelf import INCOMING
from aiodicom.archive.store import Keeping
from aiodicom.errors import ArchiveError, DimseError
from tests.archive.keeping import data_set_at, files, instance, keep, path_of, paths_in_index, query, uid
from tests.archive.storing import pixels
from tests.loopback import until

ROOT: Final = Path(__file__).parents[2]
ROUNDS: Final = 3
INSTANCES_BEFORE_A_KILL: Final = 150
DUPLICATE: Final = 0x0111
OTHER_SERIES: Final = "1.2.840.1.2"
LARGE: Final = bytes(400_000)


@asynccontextmanager
async def sharing(folder: Path, count: int = 2, **options: Any) -> AsyncIterator[list[Archive]]:  # noqa: ANN401 - its own
    """An archive that somebody shares, opened by so many others."""
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(Archive(folder, **options))
        await keeper.share()
        archives = [Archive(folder, shared=True, **options) for _ in range(count)]
        for each in archives:
            await stack.enter_async_context(each)
        yield archives


async def instances_found(archive: Archive) -> set[str]:
    def run(connection: sqlite3.Connection) -> Iterator[tuple[str]]:
        return iter(connection.execute("SELECT SOPInstanceUID FROM instances").fetchall())

    return {row[0] async for row in archive.rows(run)}


async def test_what_one_keeps_the_others_find(tmp_path: Path) -> None:
    numbers = range(30)
    async with sharing(tmp_path, 3) as archives:
        await asyncio.gather(*(archives[number % 3].add(instance(number)) for number in numbers))
        for archive in archives:
            assert await instances_found(archive) == set(map(uid, numbers))
    assert files(tmp_path) == paths_in_index(tmp_path) == sorted(map(path_of, numbers))


async def test_nobody_joins_who_was_not_let_in(tmp_path: Path) -> None:
    async with Archive(tmp_path):
        with pytest.raises(ArchiveError, match="is in use by another process"):
            await Archive(tmp_path, shared=True).open()
    with pytest.raises(ArchiveError, match="nobody has put the archive in order"):
        await Archive(tmp_path / "new", shared=True).open()
    with pytest.raises(ArchiveError, match="is closed"):
        await Archive(tmp_path).share()


async def test_nobody_has_it_to_himself_while_it_is_shared(tmp_path: Path) -> None:
    async with sharing(tmp_path) as [archive, _]:
        await archive.add(instance())
        with pytest.raises(ArchiveError, match="is in use by another process"):
            await Archive(tmp_path).open()
        with pytest.raises(ArchiveError, match="is in use by another process"):
            rebuild(tmp_path)
        with pytest.raises(ArchiveError, match="when they have ended"):
            await archive.rebuild()
        await archive.add(instance(2))
    assert rebuild(tmp_path).instances == 2


async def test_an_archive_that_was_shared_can_be_had_alone_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    async with archive:
        await archive.share()
    async with archive:
        assert (await archive.rebuild()).instances == 0


# The same instance at the same time.


@pytest.mark.parametrize("is_missing", [False, True])
async def test_of_several_that_contradict_each_other_one_is_kept(tmp_path: Path, is_missing: bool) -> None:
    names = [f"Doe^{number}" for number in range(8)]
    async with sharing(tmp_path, 4) as archives:
        if is_missing:  # what there was has lost its file
            await archives[0].add(instance())
            (tmp_path / path_of(1)).unlink()
        adding = (archives[n % 4].add(instance(PatientName=name)) for n, name in enumerate(names))
        ends = await asyncio.gather(*adding, return_exceptions=True)
    [kept] = [name for name, end in zip(names, ends, strict=True) if end is None]
    assert [end.status for end in ends if isinstance(end, DimseError)] == [DUPLICATE] * (len(names) - 1)
    assert data_set_at(tmp_path, 1) == instance(PatientName=kept).data
    assert files(tmp_path) == paths_in_index(tmp_path)


async def test_of_several_that_replace_each_other_one_is_left(tmp_path: Path) -> None:
    names = [f"Doe^{number}" for number in range(24)]
    async with sharing(tmp_path, 3, on_duplicate="replace") as archives:
        await asyncio.gather(*(archives[n % 3].add(instance(PatientName=name)) for n, name in enumerate(names)))
    assert data_set_at(tmp_path, 1) in [instance(PatientName=name).data for name in names]
    [path] = paths_in_index(tmp_path)
    assert files(tmp_path) == [path]


async def test_what_takes_the_name_of_a_missing_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_kept, go_on, settle = Event(), Event(), Keeping.settle

    def settle_late(job: Keeping) -> None:
        if not is_kept.is_set():  # the first one
            is_kept.set()
            go_on.wait()
        settle(job)

    async with sharing(tmp_path, on_duplicate="replace") as [one, other]:
        await one.add(instance())
        await one.add(instance(PatientName="Doe^1"))
        [path] = files_of(tmp_path)
        path.unlink()
        monkeypatch.setattr(Keeping, "settle", settle_late)
        adding = asyncio.create_task(one.add(instance(PatientName="Doe^2")))
        try:
            await until(is_kept.is_set)
            await other.add(instance(PatientName="Doe^3"))  # at the name that was missing
        finally:
            go_on.set()
        await adding
        assert files_of(tmp_path) == [path]
    assert data_set_at(tmp_path, 1) == instance(PatientName="Doe^3").data


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


async def test_a_series_that_another_one_emptied_is_made_again(tmp_path: Path) -> None:
    async with sharing(tmp_path, on_duplicate="replace") as [one, other]:
        await one.add(instance(1))
        await other.add(instance(1, SeriesInstanceUID=OTHER_SERIES))
        await one.add(instance(2))
    rows = query(tmp_path, "SELECT SeriesInstanceUID FROM instances JOIN series ON series.pk = series ORDER BY 1")
    assert rows == [("1.2.840.1.1",), (OTHER_SERIES,)]


# Turns.


async def test_whoever_comes_needs_no_turn(tmp_path: Path) -> None:
    async with sharing(tmp_path, 0):
        with writing(tmp_path):
            async with Archive(tmp_path, shared=True) as newcomer:
                assert await instances_found(newcomer) == set()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Somebody else writes in the index."""
    with closing(sqlite3.connect(folder / INDEX, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


async def test_it_waits_while_another_one_writes(tmp_path: Path) -> None:
    async with sharing(tmp_path, 1) as [archive]:
        with writing(tmp_path):
            adding = asyncio.create_task(archive.add(instance()))
            await until(lambda: list((tmp_path / INCOMING).glob("*/.*.part")))
            assert not adding.done()
        await adding
    assert files(tmp_path) == [path_of(1)]


async def test_it_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_TURN_TIMEOUT", 0.01)
    async with sharing(tmp_path, 1) as [archive]:
        with writing(tmp_path), pytest.raises(DimseError) as caught:
            await archive.add(instance())
        assert caught.value.status == 0xA700
        await archive.add(instance())
    assert files(tmp_path) == [path_of(1)]


# Temporary files.


async def test_whoever_comes_leaves_alone_what_is_arriving(tmp_path: Path) -> None:
    whole = instance(pixels=LARGE)
    half_arrived, go_on = asyncio.Event(), asyncio.Event()

    async def arriving() -> AsyncIterator[bytes]:
        assert isinstance(whole.data, bytes)
        yield whole.data[:300_000]
        half_arrived.set()
        await go_on.wait()
        yield whole.data[300_000:]

    async with sharing(tmp_path, 1) as [archive]:
        adding = asyncio.create_task(archive.add(replace(whole, data=arriving())))
        await half_arrived.wait()
        async with Archive(tmp_path, shared=True) as newcomer:
            await newcomer.add(instance(2))
        go_on.set()
        await adding
    assert files(tmp_path) == [path_of(1), path_of(2)]
    assert data_set_at(tmp_path, 1) == whole.data


async def test_whoever_comes_removes_what_a_dead_one_left(tmp_path: Path) -> None:
    async with sharing(tmp_path, 1):
        dead = tmp_path / INCOMING / "0123456789abcdef"
        dead.mkdir()
        (dead / ".half.part").write_bytes(b"half")
        linked = dead / ".placed.part"
        linked.write_bytes(b"whole")
        linked.with_name("other").hardlink_to(linked)
        async with Archive(tmp_path, shared=True):
            assert not (dead / ".half.part").exists()
            assert linked.exists()  # the index may not know of it: see `recover`
    await keep(tmp_path)
    assert files(tmp_path) == []


async def test_what_a_dead_one_placed_and_others_replaced_meanwhile_goes(tmp_path: Path) -> None:
    async with sharing(tmp_path, 1, on_duplicate="replace") as [archive]:
        await archive.add(instance())
        dead = tmp_path / INCOMING / "0123456789abcdef"
        dead.mkdir()
        placed = tmp_path / path_of(1).replace(".dcm", "-2.dcm")
        placed.write_bytes((tmp_path / path_of(1)).read_bytes())
        (dead / ".placed.part").hardlink_to(placed)  # it died before its row was there
        await archive.add(instance(PatientName="Roe^Jane"))
    await keep(tmp_path)
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1).replace(".dcm", "-3.dcm")]


async def test_nothing_is_lost_when_some_of_those_who_share_are_killed(tmp_path: Path) -> None:
    """All of them keep the same instances at the same time, and replace each other's."""
    acknowledged: set[int] = set()
    rng = random.Random(2)
    async with sharing(tmp_path, 0, on_duplicate="replace"):
        with ExitStack() as stack:
            processes = [stack.enter_context(storing(tmp_path)) for _ in range(2)]
            for _ in range(ROUNDS):
                for process in processes:
                    note(read(process, rng.randrange(1, INSTANCES_BEFORE_A_KILL)), acknowledged)
                processes.append(stack.enter_context(storing(tmp_path)))
                dying = processes.pop(0)
                dying.kill()
                note(output_of(dying), acknowledged)
            for process in processes:
                process.kill()
                note(output_of(process), acknowledged)
    await keep(tmp_path)  # opened alone, put in order, closed
    assert files(tmp_path) == paths_in_index(tmp_path)
    assert len(acknowledged) > ROUNDS
    for number in acknowledged:
        names = {"Doe^Jane"} if number % 7 else {"Doe^Jane", "Roe^Jane"}
        sent = [instance(number, pixels=pixels(number), PatientName=name).data for name in names]
        assert data_set_at(tmp_path, number) in sent


@contextmanager
def storing(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that keeps instances until it is killed."""
    command = [sys.executable, "-m", "tests.archive.storing", str(folder), "0", "shared"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert output_of(process).readline() == "ready\n"
            yield process
        finally:
            process.kill()


def output_of(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def read(process: subprocess.Popen[str], count: int) -> Iterator[str]:
    return (output_of(process).readline() for _ in range(count))


def note(lines: Iterable[str], acknowledged: set[int]) -> None:
    for line in lines:
        if line.endswith("\n"):  # the last one may be cut
            acknowledged.add(int(line.split()[0]))
