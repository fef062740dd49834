"""No room: what is refused on a full disk, below the floor of free space, and beyond the limit of an archive."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from aiodicom import Association, Operation, ProposedContext, Server, associate
from aiodicom.archive import Archive, room
from aiodicom.archive.rebuilding import INDEX
from aiodicom.errors import DimseError, LocalProtocolError
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.archive.disks import small_disk
from tests.archive.keeping import data_set_at, files, instance, keep, path_of, paths_in_index, query, uid
from tests.loopback import CT

MIB: Final = 1024 * 1024
LARGE: Final = bytes(700_000)
OUT_OF_RESOURCES: Final = 0xA700


@asynccontextmanager
async def sending_to(archive: Archive) -> AsyncIterator[Association]:
    """An association with a server that keeps what comes in an archive."""
    server = Server(port=0, observers=())

    @server.on_c_store
    async def store(operation: Operation) -> None:
        await archive.store(operation)

    contexts = [ProposedContext(VERIFICATION), ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,))]
    async with server, associate("127.0.0.1", server.port, contexts=contexts, observers=()) as association:
        yield association


async def statuses(association: Association, numbers: range, **attributes: Any) -> list[int]:  # noqa: ANN401 - of DICOM
    return [int((await association.c_store(instance(number, **attributes))).status) for number in numbers]


# ---- full disks


async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(2 * MIB))
        folder = disk / "archive"
        async with Archive(folder, minimum_free=0, minimum_free_share=0) as archive, sending_to(archive) as association:
            answers = await statuses(association, range(20), pixels=LARGE)
            kept = answers.index(OUT_OF_RESOURCES)
            assert kept >= 5
            assert answers == [0] * kept + [OUT_OF_RESOURCES] * (20 - kept)
            assert files(folder) == paths_in_index(folder) == sorted(map(path_of, range(kept)))
            assert (await association.c_echo()).status == 0
            ballast.unlink()
            assert await statuses(association, range(20, 22), pixels=LARGE) == [0, 0]
        assert files(folder) == paths_in_index(folder)
        assert data_set_at(folder, 20) == instance(20, pixels=LARGE).data


async def test_a_full_disk_of_the_index_keeps_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    with small_disk(tmp_path / "disk", MIB) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(MIB // 4))
        (folder / INDEX).symlink_to(disk / INDEX)
        async with Archive(folder, minimum_free=0, minimum_free_share=0) as archive, sending_to(archive) as association:
            if not os.path.ismount(disk):
                limit_pages(archive, 2)
            answers = await statuses(association, range(100))
            kept = answers.index(OUT_OF_RESOURCES)
            assert kept >= 1
            assert answers[-1] == OUT_OF_RESOURCES
            assert len(files(folder)) == len(paths_in_index(folder)) == answers.count(0)
            assert (await association.c_echo()).status == 0
            ballast.unlink()
            if not os.path.ismount(disk):
                limit_pages(archive, 10_000)
            assert await statuses(association, range(100, 102)) == [0, 0]
        assert files(folder) == paths_in_index(folder)


def limit_pages(archive: Archive, more: int) -> None:
    """Let the index have so many more pages, where no file system limits it."""
    assert archive._writer is not None
    connection = archive._writer._index.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + more}")


# ---- the floor of free space


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the system says of the disk: 100 GiB, all of it free; and it is asked each time."""
    status = SimpleNamespace(f_frsize=4096, f_blocks=100 * 1024 * MIB // 4096, f_bavail=100 * 1024 * MIB // 4096)
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    monkeypatch.setattr(room, "_LOOKS_APART", 0)
    return status


@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ({"minimum_free": 1024 * MIB, "minimum_free_share": 5.0}, 5 * 1024 * MIB),
        ({"minimum_free": 8 * 1024 * MIB, "minimum_free_share": 5.0}, 8 * 1024 * MIB),
        ({"minimum_free": MIB, "minimum_free_share": 0.0}, MIB),
        ({"minimum_free": 0, "minimum_free_share": 0.0}, 0),
    ],
)
async def test_below_the_floor_nothing_is_received(
    tmp_path: Path, disk: SimpleNamespace, options: dict[str, Any], floor: int
) -> None:
    async with Archive(tmp_path, **options) as archive, sending_to(archive) as association:
        disk.f_bavail = floor // 4096
        assert await statuses(association, range(1)) == [0]
        disk.f_bavail = floor // 4096 - 1
        if floor:
            assert await statuses(association, range(1, 3), pixels=LARGE) == [OUT_OF_RESOURCES] * 2
            with pytest.raises(DimseError) as caught:
                await archive.add(instance(3))
            assert caught.value.status == OUT_OF_RESOURCES
        disk.f_bavail = floor // 4096
        assert await statuses(association, range(4, 5)) == [0]
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(0), path_of(4)]


async def test_it_is_said_once(tmp_path: Path, disk: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    async with Archive(tmp_path, minimum_free=MIB) as archive:
        disk.f_bavail = 0
        for number in range(3):
            with pytest.raises(DimseError):
                await archive.add(instance(number))
        disk.f_bavail = disk.f_blocks
        await archive.add(instance(4))
    words = [record.getMessage() for record in caplog.records if "free" in record.getMessage()]
    assert [each.rpartition("the archive ")[2] for each in words] == [
        "receives nothing until there is more",
        *(["receives again"] if len(words) > 1 else []),
    ]


async def test_a_disk_that_does_not_tell_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(room, "_LOOKS_APART", 0)
    async with Archive(tmp_path) as archive, sending_to(archive) as association:
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", refuse)
            assert await statuses(association, range(1)) == [OUT_OF_RESOURCES]
        assert await statuses(association, range(1, 2)) == [0]


async def test_nothing_of_the_data_set_is_taken(tmp_path: Path, disk: SimpleNamespace) -> None:
    async with Archive(tmp_path, minimum_free=MIB) as archive:
        await archive.add(instance(1))
        disk.f_bavail = 0

        class Untouched:
            """An operation whose data set nobody may ask for."""

            @property
            def data_set(self) -> None:
                raise AssertionError

        with pytest.raises(DimseError):
            await archive.store(Untouched())  # type: ignore[arg-type]


async def test_the_disk_is_not_asked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    statvfs = os.statvfs

    def ask(folder: Path) -> os.statvfs_result:
        asked.append(folder)
        return statvfs(folder)

    monkeypatch.setattr(os, "statvfs", ask)
    monkeypatch.setattr(room, "monotonic", lambda: 1.0)
    async with Archive(tmp_path, minimum_free=1, minimum_free_share=0) as archive:
        for number in range(10):
            await archive.add(instance(number))
    assert asked == [tmp_path]


@pytest.mark.parametrize(
    "options", [{"minimum_free": -1}, {"minimum_free_share": -1}, {"minimum_free_share": 100}, {"maximum_archive": -1}]
)
def test_a_floor_that_is_none(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError, match=next(iter(options))):
        Archive(tmp_path, **options)


# ---- the limit of an archive


async def test_what_exceeds_the_limit_is_refused_and_nothing_removed(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive, sending_to(archive) as association:
        assert await statuses(association, range(1)) == [0]
    [(size,)] = query(tmp_path, "SELECT size FROM instances")
    async with Archive(tmp_path, maximum_archive=3 * size) as archive, sending_to(archive) as association:
        assert await statuses(association, range(6)) == [0, 0, 0] + [OUT_OF_RESOURCES] * 3
        assert await statuses(association, range(3)) == [0, 0, 0]  # they are there
        assert await statuses(association, range(1), PatientName="Other") == [0x0111]
        assert (await association.c_echo()).status == 0
        assert files(tmp_path) == paths_in_index(tmp_path) == sorted(map(path_of, range(3)))
    async with Archive(tmp_path, maximum_archive=4 * size) as archive, sending_to(archive) as association:
        assert await statuses(association, range(6)) == [0, 0, 0, 0] + [OUT_OF_RESOURCES] * 2
    assert query(tmp_path, "SELECT bytes FROM totals") == [(4 * size,)]


async def test_what_is_replaced_makes_room(tmp_path: Path) -> None:
    await keep(tmp_path, instance(0, pixels=bytes(1000)))
    [(size,)] = query(tmp_path, "SELECT size FROM instances")
    async with Archive(tmp_path, maximum_archive=size, on_duplicate="replace") as archive:
        await archive.add(instance(0, pixels=b"\1" * 1000))
        with pytest.raises(DimseError) as caught:
            await archive.add(instance(0, pixels=bytes(1002)))
        assert caught.value.status == OUT_OF_RESOURCES
        assert data_set_at(tmp_path, 0) == instance(0, pixels=b"\1" * 1000).data
        await archive.add(instance(0, pixels=bytes(10)))
        assert query(tmp_path, "SELECT bytes FROM totals") == query(tmp_path, "SELECT size FROM instances")
    assert files(tmp_path) == paths_in_index(tmp_path)


async def test_the_limit_holds_for_all_who_share_it(tmp_path: Path) -> None:
    await keep(tmp_path, instance(0))
    [(size,)] = query(tmp_path, "SELECT size FROM instances")
    async with Archive(tmp_path, maximum_archive=2 * size) as archive:
        await archive.share()
        async with Archive(tmp_path, shared=True, maximum_archive=2 * size) as other:
            await other.add(instance(1))
            for each in (archive, other):
                with pytest.raises(DimseError):
                    await each.add(instance(2))
    assert paths_in_index(tmp_path) == [path_of(0), path_of(1)]


async def test_it_counts_after_a_rebuild_too(tmp_path: Path) -> None:
    async with Archive(tmp_path, maximum_archive=MIB) as archive:
        await archive.add(instance(1))
        await archive.rebuild()
        await archive.add(instance(2))
        assert query(tmp_path, "SELECT bytes FROM totals") == query(tmp_path, "SELECT sum(size) FROM instances")
        async with aclosing(
            archive.rows(lambda c: c.execute("SELECT SOPInstanceUID FROM instances ORDER BY 1"))
        ) as rows:
            assert [row[0] async for row in rows] == [uid(1), uid(2)]
