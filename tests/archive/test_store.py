"""Keeping instances: what is refused and with which status, what becomes of duplicates, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, Final, Literal, TypeAlias

import pytest
from pydicom import dcmread

from aiodicom import (
    EncodedInstance,
    InvalidInstance,
    Limits,
    Operation,
    ProposedContext,
    Server,
    associate,
    open_instance,
)
from aiodicom.archive import Archive
from aiodicom.archive.rebuilding import INDEX
from aiodicom.archive.store import Keeping
from aiodicom.archive.writer import Job
from aiodicom.errors import ArchiveError, DimseError, LocalProtocolError
from aiodicom.part10 import file_meta
from aiodicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import (
    SERIES,
    STUDY,
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
from tests.loopback import (
    ABORT_BY_USER,
    CT,
    MR,
    RELEASE_RQ,
    ct_instance,
    fragment_pdu,
    raw_association,
    serving,
    store_pdu,
)
from tests.peers.comparing import well_formed_instances
from tests.studies import world

Policy: TypeAlias = Literal["keep", "replace"]
LARGE: Final = b"\1\2\3\4" * 1024 * 1024


async def status_of(folder: Path, *instances: EncodedInstance, **options: Any) -> list[int]:  # noqa: ANN401 - those of Archive
    """Send instances to a server with an archive; return what it answered."""
    server = Server(port=0, observers=())
    contexts = {(each.sop_class_uid, each.transfer_syntax) for each in instances}
    proposed = [ProposedContext(sop_class, (syntax,)) for sop_class, syntax in sorted(contexts)]
    async with Archive(folder, **options) as archive:

        @server.on_c_store
        async def store(operation: Operation) -> None:
            await archive.store(operation)

        async with server, associate("127.0.0.1", server.port, contexts=proposed, observers=()) as association:
            return [int((await association.c_store(each)).status) for each in instances]


def bytes_of(encoded: EncodedInstance) -> bytes:
    assert isinstance(encoded.data, bytes)
    return encoded.data


# ---- what is kept


async def test_real_instances_are_kept_byte_by_byte(tmp_path: Path) -> None:
    sent = {each.sop_instance_uid: each for each in well_formed_instances()}
    server = Server(port=0, observers=())
    async with Archive(tmp_path, on_duplicate="replace") as archive:

        @server.on_c_store
        async def store(operation: Operation) -> None:
            await archive.store(operation)

        contexts = {(each.sop_class_uid, each.transfer_syntax_uid) for each in sent.values()}
        proposed = [ProposedContext(sop_class, (syntax,)) for sop_class, syntax in sorted(contexts)]
        async with server, associate("127.0.0.1", server.port, contexts=proposed, observers=()) as association:
            for each in sent.values():
                assert (await association.c_store(each)).status == 0
    rows = query(tmp_path, "SELECT SOPInstanceUID, path, data_set_offset, size, TransferSyntaxUID FROM instances")
    assert {row[0] for row in rows} == set(sent)
    for sop_instance_uid, path, offset, size, syntax in rows:
        original = sent[sop_instance_uid]
        kept = open_instance(tmp_path / path)
        assert (kept.data_set_offset, kept.size, kept.transfer_syntax_uid) == (offset, size, syntax)
        data = original.path.read_bytes()[original.data_set_offset :]
        assert kept.path.read_bytes()[offset:] == data + b"\0" * (len(data) % 2)
        assert kept.path.read_bytes()[:128] == bytes(128)
    assert files(tmp_path) == sorted(row[1] for row in rows)


@pytest.mark.parametrize("size", [100, len(LARGE)])
@pytest.mark.parametrize("sync", [True, False])
async def test_an_instance_has_its_file_and_its_row(tmp_path: Path, size: int, sync: bool) -> None:
    encoded = instance(pixels=LARGE[:size])
    assert await status_of(tmp_path, encoded, sync=sync) == [0]
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]
    assert data_set_at(tmp_path, 1) == encoded.data
    meta = dcmread(tmp_path / path_of(1)).file_meta
    assert meta.SourceApplicationEntityTitle == "AIODICOM"
    assert meta.MediaStorageSOPInstanceUID == uid(1)


async def test_whatever_is_an_instance_can_be_added(tmp_path: Path) -> None:
    ds = next(iter(world().values()))
    ds.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    large = instance(2, pixels=LARGE)
    (tmp_path / "two").write_bytes(b"MZ" + file_meta(CT, uid(2), large.transfer_syntax)[2:] + bytes_of(large))

    chunks = in_chunks(instance(3, pixels=LARGE))
    async with Archive(tmp_path / "archive") as archive:
        await archive.add(tmp_path / "one.dcm")
        await archive.add(ds)
        await archive.add(open_instance(tmp_path / "two"))
        await archive.add(str(tmp_path / "two"))
        await archive.add(EncodedInstance(CT, uid(3), large.transfer_syntax, chunks))
        await archive.add(EncodedInstance(CT, uid(4), large.transfer_syntax, memoryview(bytes_of(instance(4)))))
    assert len(files(tmp_path / "archive")) == 4
    assert data_set_at(tmp_path / "archive", 2) == large.data
    assert (tmp_path / "archive" / path_of(2)).read_bytes()[:2] == b"\0\0"  # what another program might run is left out


async def test_an_instance_without_study_or_series_is_kept(tmp_path: Path) -> None:
    instances = [instance(1, StudyInstanceUID=None), instance(2, SeriesInstanceUID="")]
    assert await status_of(tmp_path, *instances) == [0, 0]
    assert files(tmp_path) == [path_of(2, series="no-series"), path_of(1, "no-study")]


async def test_text_in_no_known_character_set_is_no_reason_to_refuse(tmp_path: Path) -> None:
    encoded = instance(PatientName="Mueller")
    data = bytes_of(encoded).replace(b"Mueller ", b"M\xfcller\xff ")
    data = data.replace(b"\x08\0\x16\0UI", b"\x08\0\x05\0CS\x0a\0ISO_IR 192\x08\0\x16\0UI")
    assert await status_of(tmp_path, replace(encoded, data=data)) == [0]
    assert query(tmp_path, "SELECT PatientName FROM patients") == [("M\ufffdller\ufffd",)]


# ---- what is refused


@pytest.mark.parametrize("text", ["../1", "/1.2", "1.2/3", "1.2\\..\\3", "..", "1" * 65, "1.2 3", "x"])
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
async def test_a_uid_that_leads_elsewhere_is_refused(tmp_path: Path, keyword: str, text: str) -> None:
    folder = tmp_path / "archive"
    encoded = instance(StudyInstanceUID="1.77777", SeriesInstanceUID="1.88888")
    placeholder, value = (
        (b"1.77777\0" if keyword[1] == "t" else b"1.88888\0"),
        text.encode().ljust(len(text) + len(text) % 2),
    )
    at = bytes_of(encoded).index(placeholder)
    data = bytes_of(encoded)
    data = data[: at - 2] + len(value).to_bytes(2, "little") + value + data[at + len(placeholder) :]
    assert await status_of(folder, replace(encoded, data=data)) == [0xA900]
    assert files(folder) == paths_in_index(folder) == []
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("text", ["../1", "", "1.2\x001", "1" * 65])
async def test_a_sop_instance_uid_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    async with Archive(tmp_path) as archive:
        with pytest.raises(DimseError) as caught:
            await archive.add(replace(instance(), sop_instance_uid=text))
    assert caught.value.status == 0x0117
    assert files(tmp_path) == []


@pytest.mark.parametrize("size", [100, len(LARGE)])
@pytest.mark.parametrize("fields", [{"sop_instance_uid": uid(2)}, {"sop_class_uid": MR}])
async def test_a_data_set_of_another_instance_is_refused(tmp_path: Path, size: int, fields: dict[str, Any]) -> None:
    encoded = instance(pixels=LARGE[:size])
    assert await status_of(tmp_path, replace(encoded, **fields), encoded) == [0xA900, 0]
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]


@pytest.mark.parametrize("size", [100, len(LARGE)])
async def test_a_damaged_data_set_is_refused(tmp_path: Path, size: int) -> None:
    encoded = instance(pixels=LARGE[:size])
    whole = bytes_of(encoded)
    damaged = [
        replace(encoded, data=whole[:-2]),
        replace(encoded, data=whole + b"\0\0"),
        replace(encoded, data=whole[:200]),
        replace(encoded, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN),
        replace(encoded, transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ]
    assert await status_of(tmp_path, *damaged, encoded) == [0xC000] * len(damaged) + [0]
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]


async def test_nothing_is_no_instance(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        with pytest.raises(DimseError) as caught:
            await archive.add(replace(instance(), data=b""))
    assert caught.value.status == 0xA900
    assert files(tmp_path) == []


async def test_limits_of_a_data_set(tmp_path: Path) -> None:
    assert await status_of(tmp_path, instance(), limits=Limits(maximum_elements=5)) == [0xC000]
    assert files(tmp_path) == []


async def test_a_bomb_is_kept_as_it_came(tmp_path: Path) -> None:
    data = bytes_of(instance(pixels=bytes(2**27)))
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(data) + deflater.flush()
    bomb += b"\0" * (len(bomb) % 2)
    encoded = EncodedInstance(CT, uid(1), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, bomb)
    assert await status_of(tmp_path, encoded) == [0]
    assert data_set_at(tmp_path, 1) == bomb


async def test_what_is_no_dicom_file_is_not_added(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    async with Archive(tmp_path / "archive") as archive:
        with pytest.raises(InvalidInstance, match="is not a DICOM file"):
            await archive.add(tmp_path / "text")
        with pytest.raises(FileNotFoundError):
            await archive.add(tmp_path / "absent")
    assert files(tmp_path / "archive") == []


# ---- duplicates


@pytest.mark.parametrize("size", [100, len(LARGE)])
async def test_the_same_again_is_fine_and_changes_nothing(tmp_path: Path, size: int) -> None:
    encoded = instance(pixels=LARGE[:size])
    assert await status_of(tmp_path, encoded) == [0]
    before = (tmp_path / path_of(1)).stat()
    assert await status_of(tmp_path, encoded, encoded) == [0, 0]
    after = (tmp_path / path_of(1)).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]


@pytest.mark.parametrize("size", [100, len(LARGE)])
@pytest.mark.parametrize(
    "attributes",
    [{"PatientName": "Other"}, {"StudyInstanceUID": "1.9", "SeriesInstanceUID": "1.9.1"}, {"StudyInstanceUID": None}],
)
async def test_something_else_under_its_uid_is_refused(tmp_path: Path, size: int, attributes: dict[str, Any]) -> None:
    first, second = instance(pixels=LARGE[:size]), instance(pixels=LARGE[:size], **attributes)
    assert await status_of(tmp_path, first, second, first) == [0, 0x0111, 0]
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]
    assert data_set_at(tmp_path, 1) == first.data
    assert query(tmp_path, "SELECT count(*) FROM series") == [(1,)]


async def test_the_same_in_another_uncompressed_transfer_syntax_is_there_already(tmp_path: Path) -> None:
    data = bytes_of(instance())
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(data) + deflater.flush()
    other = EncodedInstance(CT, uid(1), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, deflated + b"\0" * (len(deflated) % 2))
    assert await status_of(tmp_path, instance(), other) == [0, 0]
    assert data_set_at(tmp_path, 1) == data


@pytest.mark.parametrize("size", [100, len(LARGE)])
@pytest.mark.parametrize(
    ("attributes", "path"),
    [
        ({"PatientName": "Other"}, path_of(1).replace(".dcm", "-2.dcm")),
        ({"StudyInstanceUID": "1.9", "SeriesInstanceUID": "1.9.1", "PatientID": "2"}, path_of(1, "1.9", "1.9.1")),
        ({"StudyInstanceUID": None}, path_of(1, "no-study")),
    ],
)
async def test_what_is_replaced_goes_when_the_new_one_is_there(
    tmp_path: Path, size: int, attributes: dict[str, Any], path: str
) -> None:
    first, second = instance(pixels=LARGE[:size]), instance(pixels=LARGE[:size], **attributes)
    assert await status_of(tmp_path, first, second, on_duplicate="replace") == [0, 0]
    assert files(tmp_path) == paths_in_index(tmp_path) == [path]
    assert data_set_at(tmp_path, 1) == second.data
    study = attributes.get("StudyInstanceUID", STUDY)
    assert query(tmp_path, "SELECT StudyInstanceUID FROM studies") == ([(study,)] if study else [])
    assert await status_of(tmp_path, first, on_duplicate="replace") == [0]
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]
    assert data_set_at(tmp_path, 1) == first.data


async def test_a_replaced_study_has_the_patient_of_its_last_instance(tmp_path: Path) -> None:
    wrong = [instance(number, PatientID="wrong", PatientName="Wrong") for number in range(1, 4)]
    right = [instance(number, PatientID="right", PatientName="Right") for number in range(1, 4)]
    await keep(tmp_path, *wrong, *right, on_duplicate="replace")
    assert query(tmp_path, "SELECT PatientID, PatientName FROM patients") == [("right", "Right")]
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("on_duplicate", ["keep", "replace"])
async def test_one_uid_from_many_senders_at_once(tmp_path: Path, on_duplicate: Policy) -> None:
    variants = [instance(pixels=bytes([number]) * 64) for number in range(20)] * 2
    async with Archive(tmp_path, on_duplicate=on_duplicate) as archive:
        ends = await asyncio.gather(*map(archive.add, variants), return_exceptions=True)
    statuses = [end.status if isinstance(end, DimseError) else end for end in ends]
    assert [path.count("/") for path in files(tmp_path)] == [2]
    assert files(tmp_path) == paths_in_index(tmp_path)
    kept = data_set_at(tmp_path, 1)
    if on_duplicate == "keep":
        same = [status for variant, status in zip(variants, statuses, strict=True) if variant.data == kept]
        assert same == [None, None]
        assert statuses.count(0x0111) == 38
    else:
        assert statuses == [None] * 40
        assert kept in [variant.data for variant in variants]


async def test_many_instances_at_once(tmp_path: Path) -> None:
    many = [instance(number, SeriesInstanceUID=f"{SERIES}.{number % 7}") for number in range(500)]
    async with Archive(tmp_path) as archive:
        await asyncio.gather(*map(archive.add, many))
    assert files(tmp_path) == paths_in_index(tmp_path)
    assert len(files(tmp_path)) == 500
    assert query(tmp_path, "SELECT count(*) FROM series") == [(7,)]
    assert [data_set_at(tmp_path, number) for number in (0, 99, 499)] == [many[number].data for number in (0, 99, 499)]


def test_one_archive_for_several_event_loops(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    asyncio.run(archive.open())

    async def some(start: int) -> None:
        await asyncio.gather(*(archive.add(instance(number)) for number in range(start, start + 50)))

    threads = [Thread(target=asyncio.run, args=(some(1000 * number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(archive.close())
    assert len(paths_in_index(tmp_path)) == 200
    assert files(tmp_path) == paths_in_index(tmp_path)


# ---- what goes wrong


async def test_a_file_that_the_index_does_not_know_is_not_overwritten(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        (tmp_path / path_of(1)).parent.mkdir(parents=True)
        (tmp_path / path_of(1)).write_bytes(b"somebody's")
        await archive.add(instance())
    assert (tmp_path / path_of(1)).read_bytes() == b"somebody's"
    assert paths_in_index(tmp_path) == [path_of(1).replace(".dcm", "-2.dcm")]
    assert data_set_at(tmp_path, 1) == instance().data


@pytest.mark.parametrize("on_duplicate", ["keep", "replace"])
@pytest.mark.parametrize("name", ["Doe^Jane", "Other"])
async def test_a_file_missing_behind_the_index_is_kept_when_it_comes_again(
    tmp_path: Path,
    on_duplicate: Policy,
    name: str,
) -> None:
    async with Archive(tmp_path, on_duplicate=on_duplicate) as archive:
        await archive.add(instance())
        (tmp_path / path_of(1)).unlink()
        await archive.add(instance(PatientName=name))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]
    assert data_set_at(tmp_path, 1) == instance(PatientName=name).data


@pytest.mark.parametrize("size", [30_000, len(LARGE)])
async def test_a_full_disk_is_out_of_resources(tmp_path: Path, size: int) -> None:
    small = instance(2)
    async with Archive(tmp_path) as archive:
        await archive.add(instance(3))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        # As the kernel has it: a file that grows beyond this takes a part, or nothing, and the write fails with EFBIG.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(DimseError) as caught:
                await archive.add(instance(1, pixels=LARGE[:size]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.status == 0xA700
        await archive.add(small)
        await archive.add(instance(1, pixels=LARGE[:size]))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(number) for number in (1, 2, 3)]


async def test_an_index_that_cannot_be_written_keeps_no_file(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        await archive.add(instance(1))
        assert archive._writer is not None
        connection = archive._writer._index.connection
        connection.execute("PRAGMA query_only = 1")
        ends = await asyncio.gather(*(archive.add(instance(number)) for number in (2, 3)), return_exceptions=True)
        assert [isinstance(end, DimseError) and end.status for end in ends] == [0xA700] * 2
        assert files(tmp_path) == [path_of(1)]
        connection.execute("PRAGMA query_only = 0")
        await archive.add(instance(2))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(2)]


@pytest.mark.parametrize("new_name", [False, True])
async def test_a_row_that_cannot_be_written_loses_no_file(tmp_path: Path, new_name: bool) -> None:
    """The file has its place already: it goes, and what it was to replace stays."""
    async with Archive(tmp_path, on_duplicate="replace") as archive:
        number = 2 if new_name else 1
        await archive.add(instance(1))
        (tmp_path / path_of(2)).touch()
        before = files(tmp_path)
        assert archive._writer is not None
        connection = archive._writer._index.connection
        connection.execute("CREATE TRIGGER no_update BEFORE UPDATE ON instances BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(DimseError) as caught:
            await archive.add(instance(number, PatientName="Other"))
        assert caught.value.status == 0xA700
        assert files(tmp_path) == before
        assert paths_in_index(tmp_path) == [path_of(1)]
        assert data_set_at(tmp_path, 1) == instance(1).data
        connection.execute("DROP TRIGGER no_update")
        await archive.add(instance(number, PatientName="Other"))
        assert data_set_at(tmp_path, number) == instance(number, PatientName="Other").data


@pytest.mark.parametrize("call", ["link", "fsync"])
@pytest.mark.parametrize("on_duplicate", ["keep", "replace"])
async def test_a_folder_that_cannot_be_written_keeps_no_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    on_duplicate: Policy,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with Archive(tmp_path, on_duplicate=on_duplicate) as archive:
        await archive.add(instance(1))
        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            for each in (instance(1, PatientName="Other"), instance(2)):
                with pytest.raises(DimseError) as caught:
                    await archive.add(each)
                assert caught.value.status in (0xA700, 0x0111)
        assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]
        assert data_set_at(tmp_path, 1) == instance(1).data
        await archive.add(instance(2))
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1), path_of(2)]


async def test_where_a_file_can_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    await keep(tmp_path, instance(1), instance(2), instance(1, PatientName="Other"), on_duplicate="replace")
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1).replace(".dcm", "-2.dcm"), path_of(2)]


@pytest.mark.parametrize("step", ["take", "write", "finish"])
async def test_whoever_is_cancelled_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The coroutine is cancelled while a worker thread is at it: the thread cannot be stopped."""
    size = 100 if step == "take" else len(LARGE)
    loop, original = asyncio.get_running_loop(), getattr(Keeping, step)

    def cancelling(self: Keeping, *arguments: list[bytes]) -> None:
        loop.call_soon_threadsafe(task.cancel)
        original(self, *arguments)

    monkeypatch.setattr(Keeping, step, cancelling)
    async with Archive(tmp_path) as archive:
        encoded = EncodedInstance(CT, uid(1), EXPLICIT_VR_LITTLE_ENDIAN, in_chunks(instance(pixels=LARGE[:size])))
        task = asyncio.ensure_future(archive.add(encoded))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert files(tmp_path) == paths_in_index(tmp_path) == []


async def test_whoever_is_cancelled_later_leaves_a_whole_instance(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        assert archive._writer is not None
        submitted = asyncio.Event()
        do = archive._writer.do

        async def submit(job: Job) -> None:
            submitted.set()
            await do(job)

        archive._writer.do = submit  # type: ignore[method-assign]
        for conflict in (False, True):
            submitted.clear()
            task = asyncio.ensure_future(archive.add(instance(1, PatientName=f"{conflict}")))
            await submitted.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
    assert files(tmp_path) == paths_in_index(tmp_path) == [path_of(1)]
    assert data_set_at(tmp_path, 1) == instance(1, PatientName="False").data


async def in_chunks(encoded: EncodedInstance) -> AsyncIterator[bytes]:
    data = bytes_of(encoded)
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


@pytest.mark.parametrize("end", [ABORT_BY_USER, RELEASE_RQ, None], ids=["abort", "release", "reset"])
@pytest.mark.parametrize("size", [200, 3 * 1024 * 1024])
async def test_an_association_that_ends_midway_leaves_what_was_kept(
    tmp_path: Path, size: int, end: bytes | None
) -> None:
    kept = ct_instance(1, size)
    async with Archive(tmp_path, on_duplicate="replace") as archive:
        await archive.add(kept)
        before = files(tmp_path)
        begun, over = asyncio.Event(), asyncio.Event()

        async def store(operation: Operation) -> None:
            begun.set()
            try:
                await archive.store(operation)
            finally:
                over.set()

        async with serving(store) as server, raw_association(server) as peer:
            data = bytes_of(ct_instance(1, size)).replace(b"Canary", b"Parrot")
            chunks = [data[start : start + 65536] for start in range(0, len(data), 65536)]
            peer.send(store_pdu(), *(fragment_pdu(chunk, is_last=False) for chunk in chunks))
            await begun.wait()
            if end is None:
                peer.reset()
            else:
                peer.send(end)
            await over.wait()
    assert files(tmp_path) == paths_in_index(tmp_path) == before
    assert (tmp_path / before[0]).read_bytes().endswith(bytes_of(kept))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not say which file a descriptor is")
@pytest.mark.parametrize("size", [100, len(LARGE)])
async def test_everything_is_on_the_disk_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """What the power must not find otherwise: file, name, folders, row, answer; each before the next."""
    happened: list[str] = []
    fsync, link = os.fsync, os.link

    def named(path: str) -> str:
        relative = Path(path).relative_to(tmp_path).as_posix()
        return "temporary file" if relative.startswith(".incoming/") else relative

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        happened.append(f"sync {named(os.readlink(f'/proc/self/fd/{descriptor}'))}")  # noqa: PTH115

    def recorded_link(source: str, target: str) -> None:
        link(source, target)
        happened.append(f"link {named(source)} to {named(target)}")

    async with Archive(tmp_path) as archive:
        assert archive._writer is not None
        connection = archive._writer._index.connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: the log is synced at each commit
        connection.set_trace_callback(lambda sql: happened.append(sql) if sql == "COMMIT" else None)
        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "link", recorded_link)
        for number in (1, 2):
            await archive.add(instance(number, pixels=LARGE[:size]))
            happened.append("answer")
        connection.set_trace_callback(None)
    name = f"link temporary file to {path_of(1)}"
    folders = {f"sync {STUDY}/{SERIES}", f"sync {STUDY}", "sync ."}
    assert happened[:2] == ["sync temporary file", name]
    assert set(happened[2:5]) == folders
    assert happened[5:7] == ["COMMIT", "answer"]
    assert happened[7:] == [
        "sync temporary file",
        f"link temporary file to {path_of(2)}",
        f"sync {STUDY}/{SERIES}",
        "COMMIT",
        "answer",
    ]


# ---- its life


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    async with Archive(tmp_path):
        with pytest.raises(ArchiveError, match="is in use"):
            await Archive(tmp_path).open()
    async with Archive(tmp_path):
        pass


async def test_a_closed_archive_keeps_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for _ in range(2):
        with pytest.raises(ArchiveError, match="closed"):
            await archive.rebuild()
        async with archive:
            await archive.add(instance())
            with pytest.raises(LocalProtocolError, match="open already"):
                await archive.open()
    with pytest.raises(DimseError) as caught:
        await archive.add(instance(2))
    assert caught.value.status == 0xA700
    assert files(tmp_path) == [path_of(1)]
    assert "closed" in repr(archive)


async def test_closing_keeps_what_is_under_way(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    await archive.open()
    tasks = [asyncio.ensure_future(archive.add(instance(number))) for number in range(50)]
    await asyncio.sleep(0)
    await archive.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [path_of(number) for number, end in enumerate(ends) if end is None]
    assert files(tmp_path) == paths_in_index(tmp_path) == sorted(kept)


def test_what_is_to_become_of_duplicates_is_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="'keep' or 'replace'"):
        Archive(tmp_path, on_duplicate="discard")  # type: ignore[arg-type]


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        await Archive(tmp_path / "file").open()
    folder = tmp_path / "archive"
    (folder / INDEX).mkdir(parents=True)
    with pytest.raises(ArchiveError, match="unable to open database file; see that it may be read and written"):
        await Archive(folder).open()
    assert [path for path in every_file(folder) if not path.startswith(".")] == []
