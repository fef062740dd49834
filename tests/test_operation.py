"""An operation as its handler sees it: the data set as stream, bytes, Dataset and file."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pydicom
import pytest

from aiodicom import AssociationError, BlockingOperation, DimseError, Operation, open_instance
from aiodicom.operation import _PartialFile
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    CT,
    RELEASE_RP,
    RELEASE_RQ,
    RawPeer,
    Recorder,
    connect,
    ct_instance,
    data_set,
    echo_pdu,
    fragment_pdu,
    instance_uid,
    raw_association,
    serving,
    store_pdu,
)

LARGE = 5 * 1024 * 1024 + 7


async def store(handler: Any, size: int = 200, **options: Any) -> int:
    """Store one instance with that handler; return the status."""
    async with serving(handler, **options) as server, connect(server) as association:
        status = (await association.c_store(ct_instance(1, size))).status
        assert (await association.c_echo()).status == 0
        return status


def files(folder: Path) -> list[str]:
    """The names of everything below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# In memory.


@pytest.mark.parametrize("size", [0, 200, LARGE])
async def test_the_stream_is_the_data_set(size: int) -> None:
    chunks: list[bytes] = []

    async def handler(operation: Operation) -> None:
        chunks.extend([chunk async for chunk in operation.stream()])
        assert [chunk async for chunk in operation.stream()] == []  # it is there once

    assert await store(handler, size) == 0
    assert all(chunks)
    assert b"".join(chunks) == data_set(1, size)


async def test_the_stream_does_not_wait_for_the_end() -> None:
    got_first = asyncio.Event()

    async def handler(operation: Operation) -> int:
        parts = []
        async for chunk in operation.stream():
            parts.append(chunk)
            got_first.set()
        return 0 if b"".join(parts) == data_set() else 0x0110

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set()[:99], is_last=False))
        await got_first.wait()
        peer.send(fragment_pdu(b"", is_last=False), fragment_pdu(data_set()[99:], is_last=False), fragment_pdu(b""))
        assert (await peer.response()).status == 0


@pytest.mark.parametrize(("limit", "status"), [(None, 0), (len(data_set()), 0), (len(data_set()) - 1, 0xA700), (0, 0xA700)])
async def test_read_takes_no_more_than_its_limit(limit: int | None, status: int) -> None:
    kept: list[bytes] = []

    async def handler(operation: Operation) -> None:
        kept.append(await operation.read(limit=limit))

    assert await store(handler) == status
    assert kept == ([data_set()] if status == 0 else [])


async def test_a_data_set_beyond_the_limit_takes_no_memory() -> None:
    seen: list[int] = []

    async def handler(operation: Operation) -> None:
        try:
            await operation.read(limit=1000)
        finally:
            seen.append(operation.data_set.length)

    assert await store(handler, LARGE) == 0xA700
    assert seen[0] < LARGE


async def test_a_dataset_is_pydicoms() -> None:
    kept: list[pydicom.Dataset] = []

    async def handler(operation: Operation) -> None:
        kept.append(await operation.dataset())

    assert await store(handler) == 0
    (dataset,) = kept
    assert dataset.PatientName == CANARY
    assert dataset.file_meta.TransferSyntaxUID == IMPLICIT_VR_LITTLE_ENDIAN


async def test_a_data_set_that_cannot_be_decoded_is_not_understood() -> None:
    async def handler(operation: Operation) -> None:
        await operation.dataset()

    async with serving(handler) as server, raw_association(server) as peer:
        for data in (data_set()[:-10], b"\x08\x00", b"rubbish that goes on for some time"):
            peer.send(store_pdu(), fragment_pdu(data))
            assert (await peer.response()).status == 0xC000
        peer.send(echo_pdu())
        assert (await peer.response()).status == 0


async def test_a_request_without_a_data_set_has_an_empty_one() -> None:
    kept: list[bytes] = []

    async def handler(operation: Operation) -> None:
        kept.append(await operation.read())

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu(has_data_set=False))
        assert (await peer.response()).status == 0
    assert kept == [b""]


async def test_an_operation_prints_itself_without_patient_data() -> None:
    printed: list[str] = []

    async def handler(operation: Operation) -> None:
        await operation.read()
        printed.append(f"{operation!r} {operation.peer!r} {operation.context!r} {operation.command!r}")

    assert await store(handler) == 0
    assert printed[0].startswith("<Operation CStoreRQ 1 from 'SCU'@127.0.0.1:")
    assert CANARY not in printed[0]


# To a file.


@pytest.mark.parametrize("size", [200, LARGE])
async def test_save_writes_a_part_10_file(tmp_path: Path, size: int) -> None:
    paths: list[Path] = []

    async def handler(operation: Operation) -> None:
        paths.append(await operation.save(tmp_path / "a" / "b"))

    assert await store(handler, size) == 0
    assert files(tmp_path) == ["a", "a/b", f"a/b/{instance_uid(1)}.dcm"]
    file = open_instance(paths[0])
    assert (file.sop_class_uid, file.sop_instance_uid) == (CT, instance_uid(1))
    assert file.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    assert paths[0].read_bytes()[file.data_set_offset :] == data_set(1, size)
    assert pydicom.dcmread(paths[0]).file_meta.SourceApplicationEntityTitle == "SCU"
    assert paths[0].read_bytes()[:132] == bytes(128) + b"DICM"


async def test_save_takes_a_name(tmp_path: Path) -> None:
    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path, "study/series/1.dcm")

    assert await store(handler) == 0
    assert files(tmp_path) == ["study", "study/series", "study/series/1.dcm"]


async def test_save_asks_for_a_name_when_the_file_is_complete(tmp_path: Path) -> None:
    def name(partial: Path) -> str:
        assert threading.current_thread() is not threading.main_thread()
        assert open_instance(partial).sop_instance_uid == instance_uid(1)
        return f"{pydicom.dcmread(partial, stop_before_pixels=True).SOPClassUID}/x.dcm"

    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path, name)

    assert await store(handler) == 0
    assert files(tmp_path) == [CT, f"{CT}/x.dcm"]


async def test_a_name_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def name(_partial: Path) -> str:
        raise DimseError(0xA900, "No Study Instance UID")

    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path, name)

    assert await store(handler) == 0xA900
    assert files(tmp_path) == []


async def test_a_plain_function_saves_and_decodes_too(tmp_path: Path) -> None:
    def save(operation: BlockingOperation) -> None:
        assert operation.save(tmp_path).name == f"{instance_uid(1)}.dcm"

    def decode(operation: BlockingOperation) -> None:
        assert operation.dataset().PatientName == CANARY

    assert await store(save, LARGE) == 0
    assert await store(decode) == 0
    assert files(tmp_path) == [f"{instance_uid(1)}.dcm"]


async def test_one_worker_thread_is_enough(tmp_path: Path) -> None:
    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with (
        serving(handler, worker_threads=1) as server,
        connect(server, operations_window=(8, 1)) as association,
    ):
        responses = await asyncio.gather(*(association.c_store(ct_instance(number)) for number in range(1, 9)))
        assert {response.status for response in responses} == {0}
    assert len(files(tmp_path)) == 8


@pytest.mark.parametrize(
    "uid",
    ["../X", "/abs/X", "..", "1.2/../3", "1.2\x00X", "1.2\r\nX", "1." + "2" * 63, "1..2", ".1", "1.", "a.b", "1.2 3"],
)
async def test_a_uid_that_is_none_is_no_file_name(tmp_path: Path, uid: str) -> None:
    folder = tmp_path / "store"

    async def handler(operation: Operation) -> None:
        await operation.save(folder)

    placeholder = "9." * 16  # of even length, so that it can be replaced in place
    async with serving(handler) as server, raw_association(server) as peer:
        request = store_pdu(uid=placeholder[: len(uid)] if len(uid) <= 32 else "9" * 64, has_data_set=True)
        peer.send(with_uid(request, uid), fragment_pdu(data_set()))
        assert (await peer.response()).status == 0x0117
        peer.send(store_pdu(2), fragment_pdu(data_set()))
        assert (await peer.response()).status == 0
    assert files(tmp_path) == ["store", f"store/{instance_uid(1)}.dcm"]


async def test_an_empty_uid_is_no_file_name(tmp_path: Path) -> None:
    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(with_uid(store_pdu(uid="1.2"), ""), fragment_pdu(data_set()))
        assert (await peer.response()).status == 0x0117
    assert files(tmp_path) == []


def with_uid(pdu: bytes, uid: str) -> bytes:
    """Put any Affected SOP Instance UID into a C-STORE-RQ, with the lengths that it makes."""
    command = pdu[12:]
    start = command.index(b"\x00\x00\x00\x10")
    length = int.from_bytes(command[start + 4 : start + 8], "little")
    value = uid.encode("latin-1") + b"\0" * (len(uid) % 2)
    command = command[:start] + b"\x00\x00\x00\x10" + len(value).to_bytes(4, "little") + value + command[start + 8 + length :]
    command = command[:8] + (len(command) - 12).to_bytes(4, "little") + command[12:]
    return b"\x04\x00" + (len(command) + 6).to_bytes(4, "big") + (len(command) + 2).to_bytes(4, "big") + pdu[10:12] + command


@pytest.mark.parametrize("size", [200, LARGE])
async def test_a_disk_error_is_out_of_resources(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_text("a file")

    async def into_a_file(operation: Operation) -> None:
        await operation.save(tmp_path / "a")

    async def below_a_file(operation: Operation) -> None:
        await operation.save(tmp_path / "a" / "b")

    async def onto_a_folder(operation: Operation) -> None:
        await operation.save(tmp_path, "folder")

    (tmp_path / "folder" / "c").mkdir(parents=True)
    for handler in (into_a_file, below_a_file, onto_a_folder):
        assert await store(handler, size) == 0xA700
    assert files(tmp_path) == ["a", "folder", "folder/c"]


async def test_an_older_file_is_replaced_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / f"{instance_uid(1)}.dcm"
    path.write_bytes(b"older")
    waits = asyncio.Event()

    async def handler(operation: Operation) -> None:
        waits.set()
        await operation.save(tmp_path)

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set()[:100], is_last=False))
        await waits.wait()
        assert path.read_bytes() == b"older"
        peer.send(fragment_pdu(data_set()[100:]))
        assert (await peer.response()).status == 0
    assert path.read_bytes().endswith(data_set())
    assert files(tmp_path) == [path.name]


@pytest.mark.parametrize("end", ["abort", "reset", "half-close", "release", "garbage"])
@pytest.mark.parametrize("size", [200, 3 * 1024 * 1024])
async def test_a_cut_association_leaves_the_older_file_and_no_other(tmp_path: Path, end: str, size: int) -> None:
    path = tmp_path / f"{instance_uid(1)}.dcm"
    path.write_bytes(b"older")
    begun, over = asyncio.Event(), asyncio.Event()

    async def handler(operation: Operation) -> None:
        begun.set()
        try:
            await operation.save(tmp_path)
        finally:
            over.set()

    async with serving(handler) as server, raw_association(server) as peer:
        data = data_set(1, size)
        chunks = [data[start : start + 65536] for start in range(0, len(data) - 10, 65536)]
        peer.send(store_pdu(), *(fragment_pdu(chunk[:-1], is_last=False) for chunk in chunks))
        await begun.wait()
        await cut(peer, end)
        await over.wait()
    assert path.read_bytes() == b"older"
    assert files(tmp_path) == [path.name]


async def cut(peer: RawPeer, how: str) -> None:
    """End an association in the middle of a message."""
    if how == "abort":
        peer.send(ABORT_BY_USER)
        assert await peer.rest() == b""
    elif how == "reset":
        peer.reset()
    elif how == "half-close":
        peer.writer.write_eof()
        assert await peer.rest() == b""
    elif how == "release":
        peer.send(RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP  # and no response: it was not performed
    else:
        peer.send(b"garbage")
        assert (await peer.pdu())[0] == 7


async def test_a_file_that_a_thread_is_making_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The association ends while the worker thread opens the temporary file: the thread cannot be stopped."""
    opening, go_on = threading.Event(), threading.Event()
    create = _PartialFile._create

    def slowly(self: _PartialFile) -> object:
        opening.set()
        go_on.wait()
        return create(self)

    monkeypatch.setattr(_PartialFile, "_create", slowly)
    recorder = Recorder()

    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(handler, observers=(recorder,)) as server, raw_association(server) as peer:
        peer.send(store_pdu(), *(fragment_pdu(bytes(65536), is_last=False) for _ in range(32)))
        await asyncio.to_thread(opening.wait)
        (operation,) = server.associations[0]._performing
        peer.reset()
        await recorder.until(lambda: recorder.closed)
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([operation])
    assert files(tmp_path) == []


async def test_what_was_cut_raises_in_the_handler() -> None:
    begun = asyncio.Event()
    raised: list[BaseException] = []

    async def handler(operation: Operation) -> None:
        begun.set()
        try:
            await operation.read()
        except (AssociationError, asyncio.CancelledError) as error:
            raised.append(error)
            raise

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set(), is_last=False))
        await begun.wait()
        peer.send(RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP
    assert [type(each).__name__ for each in raised] == ["AssociationReleased"]


async def test_a_plain_function_whose_peer_goes_is_told() -> None:
    begun, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    raised: list[BaseException] = []

    def handler(operation: BlockingOperation) -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            operation.read()
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            loop.call_soon_threadsafe(over.set)

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set(), is_last=False))
        await begun.wait()
        peer.reset()
        await over.wait()
    assert len(raised) == 1
