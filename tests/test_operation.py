"""An operation as its handler sees it: the data set as stream, bytes, Dataset and file."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pydicom
import pytest

from aiodicom import AssociationError, BlockingOperation, DimseError, Operation, open_instance
from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CStoreRQ
from aiodicom.operation import IncomingDataSet, ReceiveWindow
from aiodicom.partial import PartialFile
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from aiodicom.upper_layer.pdu import PDV
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    CT,
    CT_CONTEXT,
    RELEASE_RP,
    RELEASE_RQ,
    RawPeer,
    Recorder,
    connect,
    ct_instance,
    data_pdu,
    data_set,
    echo_pdu,
    element,
    fragment_pdu,
    instance_uid,
    raw_association,
    serving,
    store_pdu,
)

LARGE = 5 * 1024 * 1024 + 8


async def store(handler: Any, size: int = 200, **options: Any) -> int:  # noqa: ANN401
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


class Reading:
    """Of which nothing is held up."""

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def test_two_bytes_at_a_time_are_kept_as_few_chunks() -> None:
    window = ReceiveWindow(Reading())
    data = IncomingDataSet(IMPLICIT_VR_LITTLE_ENDIAN, window)
    sent = random.Random(1).randbytes(100_000)
    for start in range(0, 50_000, 2):
        data.feed(memoryview(sent)[start : start + 2], False)
    data.feed(memoryview(sent)[50_000:90_000], False)
    for start in range(90_000, len(sent), 2):
        data.feed(memoryview(sent)[start : start + 2], False)
    assert (data.length, window.buffered) == (100_000, 100_000)
    assert len(data._chunks) < 10
    chunks = await data.take(100_000)
    assert b"".join(chunks) == sent
    assert all(type(chunk) is bytes for chunk in chunks)
    assert (len(chunks) < 10, window.buffered) == (True, 0)
    data.feed(b"ab", False)
    assert await data.take() == [b"ab"]
    data.feed(b"cd", False)
    data.discard()
    assert window.buffered == 0
    data.feed(b"", True)
    assert data.is_complete


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


@pytest.mark.parametrize(
    ("limit", "status"), [(None, 0), (len(data_set()), 0), (len(data_set()) - 1, 0xA700), (0, 0xA700)]
)
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

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu_with(uid), fragment_pdu(data_set()))
        assert (await peer.response()).status == 0x0117
        peer.send(store_pdu(2), fragment_pdu(data_set()))
        assert (await peer.response()).status == 0
    assert files(tmp_path) == ["store", f"store/{instance_uid(1)}.dcm"]


async def test_an_empty_uid_is_no_file_name(tmp_path: Path) -> None:
    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(handler) as server, raw_association(server) as peer:
        peer.send(store_pdu_with(""), fragment_pdu(data_set()))
        assert (await peer.response()).status == 0x0117
    assert files(tmp_path) == []


def store_pdu_with(uid: str) -> bytes:
    """A C-STORE-RQ with any Affected SOP Instance UID, which our own encoder would refuse."""
    request = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="9.9")
    value = uid.encode() + b"\0" * (len(uid) % 2)
    command = encode_command(request, has_data_set=True)
    command = command.replace(element(0x0000, 0x1000, b"9.9\0"), element(0x0000, 0x1000, value))
    return data_pdu(PDV(CT_CONTEXT, True, True, command))


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
    """The association ends while the worker thread is about to open its file: the thread cannot be stopped."""
    opening, go_on, written = threading.Event(), threading.Event(), threading.Event()
    write = PartialFile.write

    def slowly(self: PartialFile, chunks: list[bytes]) -> None:
        opening.set()
        go_on.wait()
        try:
            write(self, chunks)
        finally:
            written.set()

    monkeypatch.setattr(PartialFile, "write", slowly)
    recorder = Recorder()

    async def handler(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(handler, observers=(recorder,)) as server, raw_association(server) as peer:
        begun = data_set(1, 32 * 65536)
        parts = (begun[start : start + 65536] for start in range(0, 32 * 65536, 65536))
        peer.send(store_pdu(), *(fragment_pdu(part, is_last=False) for part in parts))
        await asyncio.to_thread(opening.wait)
        (operation,) = server.associations[0]._performer._running
        peer.reset()
        await recorder.until(lambda: recorder.closed)
        go_on.set()
        await asyncio.to_thread(written.wait)
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
