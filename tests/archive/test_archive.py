"""Asking an archive: matches come as they are taken, whoever leaves lets go of the index, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import aclosing, closing
from io import BytesIO
from itertools import count
from pathlib import Path
from threading import Event
from typing import Final

import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset

from aiodicom.archive import Archive
from aiodicom.archive.archive import FIRST_ROWS, ROWS_AT_ONCE
from aiodicom.archive.rebuilding import INDEX
from aiodicom.errors import ArchiveError, DimseError, LocalProtocolError
from aiodicom.limits import Limits
from aiodicom.part10 import open_instance
from aiodicom.query import QueryOptions
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import STUDY, instance, keep, path_of, uid
from tests.studies import instances_of, uid_of, write_studies

RELATIONAL: Final = QueryOptions(relational=True)


def identifier(level: str, **keys: str | list[str]) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


async def test_matches_are_encoded_identifiers(tmp_path: Path) -> None:
    write_studies(tmp_path / "received")
    async with Archive(tmp_path, ae_title="ARCHIVE") as archive:
        asked = identifier("SERIES", StudyInstanceUID=uid_of("jane/chest"), Modality="", RetrieveAETitle="")
        for syntax, implicit in ((IMPLICIT_VR_LITTLE_ENDIAN, True), ("1.2.840.10008.1.2.1", False)):
            found = [match async for match in archive.find(asked, transfer_syntax_uid=syntax)]
            decoded = [read_dataset(BytesIO(match), implicit, True) for match in found]
            assert sorted(ds.Modality for ds in decoded) == ["CR", "CT", "SR"]
            assert {ds.RetrieveAETitle for ds in decoded} == {"ARCHIVE"}


async def test_instances_are_what_a_retrieval_asks_for(tmp_path: Path) -> None:
    write_studies(tmp_path / "received")
    async with Archive(tmp_path) as archive:
        found = await archive.instances(identifier("STUDY", StudyInstanceUID=uid_of("papadopoulou/heart")))
        wanted = {ds.SOPInstanceUID: ds for ds in instances_of("papadopoulou/heart")}
        assert {each.sop_instance_uid for each in found} == wanted.keys()
        for each in found:
            assert each == open_instance(each.path)
        assert await archive.instances(identifier("STUDY", StudyInstanceUID="1.2.3")) == []


async def test_a_question_that_is_not_allowed(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        for asked, model in ((identifier("PATIENT"), "study"), (Dataset(), "study"), (identifier("SERIES"), "patient")):
            with pytest.raises(DimseError):
                archive.find(asked, model)
            with pytest.raises(DimseError):
                await archive.instances(asked, model)
        with pytest.raises(LocalProtocolError, match="no information model"):
            archive.find(identifier("STUDY"), "nonsense")


async def test_whose_instances_they_are_may_be_asked_of_as_many(tmp_path: Path) -> None:
    async with Archive(tmp_path, limits=Limits(maximum_uids=2)) as archive:
        await archive.add(instance(1))
        asked = identifier("STUDY", StudyInstanceUID=[STUDY, "1.2"])
        assert len(await archive.instances(asked)) == 1
        assert (await archive.subjects(asked)).keys() == {uid(1)}
        for ask in (archive.instances, archive.subjects):
            with pytest.raises(DimseError) as caught:
                await ask(identifier("STUDY", StudyInstanceUID=[*asked.StudyInstanceUID, "1.3"]))
            assert caught.value.status == 0xC000


@pytest.mark.parametrize("count", [0, 1, FIRST_ROWS, FIRST_ROWS + 1, 3 * FIRST_ROWS, 100])
async def test_every_match_comes_once(tmp_path: Path, count: int) -> None:
    await keep(tmp_path, *map(instance, range(count)), sync=False)
    async with Archive(tmp_path) as archive:
        matches = archive.find(identifier("IMAGE", SOPInstanceUID=""), "study", options=RELATIONAL)
        assert len({match async for match in matches}) == count


# ---- the pace


class Endless:
    """A query without an end, that counts the rows it was asked for."""

    def __init__(self) -> None:
        self.rows = 0
        self.closed = Event()

    def __call__(self, connection: sqlite3.Connection) -> Iterator[int]:
        assert connection.execute("SELECT count(*) FROM instances").fetchone() == (0,)
        try:
            while True:
                self.rows += 1
                yield self.rows
        finally:
            self.closed.set()


async def test_no_more_is_read_than_a_batch_ahead(tmp_path: Path) -> None:
    endless = Endless()
    async with Archive(tmp_path) as archive:
        async with aclosing(archive.rows(endless)) as rows:
            for taken in range(1, 5 * ROWS_AT_ONCE):
                assert await anext(rows) == taken
                assert endless.rows <= 2 * taken + 2 * FIRST_ROWS
                assert endless.rows <= taken + 2 * ROWS_AT_ONCE
        assert endless.closed.is_set()
        assert archive._readers is not None
        assert archive._readers.close(0)


async def test_whoever_leaves_gives_the_connection_back(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        for taken in (0, 1, FIRST_ROWS, 3 * FIRST_ROWS):
            rows = archive.rows(Endless())
            for _ in range(taken):
                await anext(rows)
            await rows.aclose()
        assert archive._readers is not None
        assert archive._readers.close(0)


async def test_with_the_last_rows_the_connection_is_back(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        rows = archive.rows(lambda _: iter(range(FIRST_ROWS - 1)))
        await anext(rows)
        assert archive._readers is not None
        assert archive._readers.close(0)
        assert [each async for each in rows] == list(range(1, FIRST_ROWS - 1))


FOREVER = (
    "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n FROM numbers WHERE n < 0"
)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_query_under_way_is_interrupted(tmp_path: Path, first: int) -> None:
    """SQLite searches for a row that there is not, in a thread that nobody can stop."""
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def search(connection: sqlite3.Connection) -> Iterator[int]:
        yield from range(FIRST_ROWS * first)
        loop.call_soon_threadsafe(begun.set)
        yield from connection.execute(FOREVER)

    async def ask() -> None:
        async for _ in archive.rows(search):
            pass

    async with Archive(tmp_path) as archive:
        asking = asyncio.ensure_future(ask())
        await begun.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert archive._readers is not None
        assert archive._readers.close(0)


async def test_a_query_does_not_hold_up_what_is_kept(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        async with aclosing(archive.find(identifier("IMAGE", SOPInstanceUID=""), options=RELATIONAL)) as matches:
            await anext(matches)
            await archive.add(instance(2))
            assert [each async for each in matches] == []  # it goes on in the state in which it began
        found = await archive.instances(identifier("STUDY", StudyInstanceUID=STUDY))
        assert {each.path for each in found} == {tmp_path / path_of(number) for number in (1, 2)}


# ---- what goes wrong


async def test_a_closed_archive_answers_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    async with archive:
        pass
    with pytest.raises(ArchiveError, match="closed"):
        await anext(archive.find(identifier("STUDY")))
    with pytest.raises(ArchiveError, match="closed"):
        await archive.instances(identifier("STUDY", StudyInstanceUID="1.2"))


async def test_an_archive_that_nobody_opened_opens_itself(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    await asyncio.gather(*(archive.add(instance(number)) for number in range(20)))
    assert len(await archive.instances(identifier("STUDY", StudyInstanceUID=STUDY))) == 20
    await archive.close()


async def test_closing_does_not_wait_for_whoever_does_not_go_on(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    await archive.open()
    rows = archive.rows(Endless())
    await anext(rows)
    await archive.close()
    await rows.aclose()
    async with archive:
        await archive.add(instance(1))


async def refused(archive: Archive) -> None:
    """Ask until it refuses."""
    while await archive.instances(identifier("STUDY", StudyInstanceUID=STUDY)):
        pass


async def test_building_the_index_again_waits_for_queries(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        matches = archive.rows(lambda _: count())
        await anext(matches)
        rebuilding = asyncio.ensure_future(archive.rebuild())
        with pytest.raises(ArchiveError, match="being built again"):
            await refused(archive)
        assert not rebuilding.done()
        await matches.aclose()
        assert (await rebuilding).instances == 1
        assert len(await archive.instances(identifier("STUDY", StudyInstanceUID=STUDY))) == 1


async def test_building_the_index_again_gives_up_on_a_query_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiodicom.archive.archive._PATIENCE_WITH_QUERIES", 0)
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        async with aclosing(archive.rows(lambda _: count())) as matches:
            await anext(matches)
            with pytest.raises(ArchiveError, match="queries are still under way"):
                await archive.rebuild()
            await archive.add(instance(2))
        assert (await archive.rebuild()).instances == 2


async def test_a_damaged_index_is_said_to_be_unreadable(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection:
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        pages = [page for (page,) in connection.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0")]
    async with Archive(tmp_path) as archive:
        with (tmp_path / INDEX).open("r+b") as file:
            for page in pages:
                file.seek((page - 1) * page_size)
                file.write(b"\xff" * page_size)
        with pytest.raises(ArchiveError, match="cannot be read: database disk image is malformed"):
            await archive.instances(identifier("STUDY", StudyInstanceUID=STUDY))
        with pytest.raises(DimseError) as caught:
            await archive.add(instance(2))
        assert caught.value.status == 0xA700
        assert (await archive.rebuild()).instances == 1
        await archive.add(instance(2))
        found = await archive.instances(identifier("STUDY", StudyInstanceUID=STUDY))
        assert {each.sop_instance_uid for each in found} == {uid(1), uid(2)}
