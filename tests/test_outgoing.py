"""An instance on its way out: which context carries it, and what is sent on it (PS3.4 §B.2)."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from aiodicom import (
    EncodedInstance,
    InvalidInstance,
    NoAcceptedContext,
    Operation,
    Priority,
    ProposedContext,
    Server,
    associate,
    storage_service,
)
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.outgoing import SMALL_FILE, choose_context
from aiodicom.part10 import file_meta
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from aiodicom.upper_layer.presentation import PresentationContext
from tests.loopback import CANARY, CT, connect, ct_instance, data_set, element, instance_uid, serving

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
UNCOMPRESSED = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)


def a_dataset(syntax: str | None = EXPLICIT_VR_LITTLE_ENDIAN) -> Dataset:
    """A small instance as pydicom has it."""
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = instance_uid(1)
    dataset.PatientName = CANARY
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = 2, 2, 16
    dataset.PixelData = bytes(range(8))
    dataset["PixelData"].VR = "OW"
    if syntax is not None:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


async def stored(instance: Any, accepts: str, *, proposes: str | None = None, **options: Any) -> tuple[str, bytes]:  # noqa: ANN401
    """The transfer syntax and the data set that arrive where one transfer syntax is accepted."""
    kept: list[tuple[str, bytes]] = []

    async def keep(operation: Operation) -> None:
        kept.append((operation.context.transfer_syntax, await operation.read()))

    service = storage_service(keep, [CT], [accepts])
    contexts = [ProposedContext(CT, (proposes or accepts,))]
    async with serving(services=[service]) as server, connect(server, contexts=contexts) as association:
        (await association.c_store(instance, **options)).raise_for_status()
    return kept[0]


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
async def test_a_dataset_goes_out_in_its_own_transfer_syntax(syntax: str) -> None:
    arrived = await stored(a_dataset(syntax), syntax)
    assert arrived == (syntax, encode_data_set(a_dataset(syntax), syntax))
    assert decode_data_set(arrived[1], syntax) == a_dataset(syntax)


@pytest.mark.parametrize("accepted", UNCOMPRESSED)
@pytest.mark.parametrize("own", UNCOMPRESSED)
async def test_an_uncompressed_one_is_transcoded_where_need_be(own: str, accepted: str) -> None:
    instance = EncodedInstance(CT, instance_uid(1), own, encode_data_set(a_dataset(own), own))
    syntax, data = await stored(instance, accepted)
    assert syntax == accepted
    received = decode_data_set(data, accepted)
    assert received.PatientName == CANARY
    expected = bytes(range(8))
    if (own == EXPLICIT_VR_BIG_ENDIAN) != (accepted == EXPLICIT_VR_BIG_ENDIAN):
        expected = bytes(byte for pair in zip(expected[1::2], expected[::2], strict=True) for byte in pair)
    assert received.PixelData == expected


async def test_chunks_go_out_as_they_are() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b"", data_set()[:101], b"", data_set()[101:], b""):
            yield part

    instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
    assert (await stored(instance, IMPLICIT_VR_LITTLE_ENDIAN))[1] == data_set()


async def test_chunks_are_transcoded_too() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data_set()[:101]
        yield data_set()[101:]

    instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, chunks())
    syntax, data = await stored(instance, EXPLICIT_VR_LITTLE_ENDIAN)
    assert decode_data_set(data, syntax).PatientName == CANARY


async def test_a_memoryview_will_do() -> None:
    instance = EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, memoryview(data_set()))
    assert (await stored(instance, IMPLICIT_VR_LITTLE_ENDIAN))[1] == data_set()


@pytest.mark.parametrize("size", [100, SMALL_FILE + 1000, 3 * SMALL_FILE + 2])
@pytest.mark.parametrize("as_string", [True, False])
async def test_a_file_goes_out_byte_for_byte(tmp_path: Path, size: int, as_string: bool) -> None:
    path = tmp_path / "ct.dcm"
    path.write_bytes(file_meta(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN) + data_set(1, size))
    instance = os.fspath(path) if as_string else path
    assert (await stored(instance, IMPLICIT_VR_LITTLE_ENDIAN))[1] == data_set(1, size)


@pytest.mark.parametrize("syntax", [None, IMPLICIT_VR_LITTLE_ENDIAN])
async def test_a_dataset_that_was_read_needs_no_file_meta(syntax: str | None) -> None:
    dataset = decode_data_set(data_set(), IMPLICIT_VR_LITTLE_ENDIAN)
    del dataset.file_meta
    if syntax is not None:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    assert await stored(dataset, IMPLICIT_VR_LITTLE_ENDIAN) == (IMPLICIT_VR_LITTLE_ENDIAN, data_set())


async def test_compressed_pixels_are_refused_with_what_to_do() -> None:
    instance = EncodedInstance(CT, instance_uid(1), JPEG_LOSSLESS, data_set())
    with pytest.raises(NoAcceptedContext, match=r"compressed: allow decompression .*--decompress") as caught:
        await stored(instance, EXPLICIT_VR_LITTLE_ENDIAN)
    error = caught.value
    assert (error.sop_class, error.transfer_syntax) == (CT, JPEG_LOSSLESS)
    assert list(error.accepted) == [EXPLICIT_VR_LITTLE_ENDIAN]
    assert [list(each) for each in error.proposed] == [[EXPLICIT_VR_LITTLE_ENDIAN]]


async def test_compressed_pixels_go_out_as_they_are_where_that_is_accepted() -> None:
    instance = EncodedInstance(CT, instance_uid(1), JPEG_LOSSLESS, b"anything")
    assert await stored(instance, JPEG_LOSSLESS) == (JPEG_LOSSLESS, b"anything")


async def test_what_cannot_be_sent_leaves_the_association_as_it_is(tmp_path: Path) -> None:
    not_dicom, cut = tmp_path / "letter.txt", tmp_path / "cut.dcm"
    not_dicom.write_text("Dear colleague")
    cut.write_bytes(file_meta(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN) + data_set()[:-10])
    nameless, syntaxless = a_dataset(), a_dataset(None)
    del nameless.SOPInstanceUID

    async def keep(operation: Operation) -> None:
        await operation.read()

    async with serving(keep) as server, connect(server) as association:
        sent = association.bytes_sent
        for instance, words in (
            (not_dicom, r"letter\.txt"),
            (cut, r"cut\.dcm: truncated"),
            (tmp_path / "missing.dcm", r"missing\.dcm: cannot be read"),
            (tmp_path, "cannot be read"),
            (nameless, "SOP Instance UID"),
        ):
            with pytest.raises(InvalidInstance, match=words):
                await association.c_store(instance)
        assert association.bytes_sent == sent
        assert (await association.c_store(syntaxless)).status == 0
        assert (await association.c_store(ct_instance())).status == 0


async def test_a_file_that_shrinks_while_it_is_sent_ends_the_association(tmp_path: Path) -> None:
    path = tmp_path / "ct.dcm"
    path.write_bytes(file_meta(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN) + data_set(1, 40 * SMALL_FILE))

    async def keep(operation: Operation) -> None:
        os.truncate(path, SMALL_FILE)  # by now a part is on its way, and the rest cannot be
        await operation.read()

    async with serving(keep) as server:
        association = await connect(server)
        with pytest.raises(InvalidInstance, match=r"ct\.dcm: was truncated"):
            await association.c_store(path)
        assert not association.is_open
        await association.abort()


async def test_the_command_says_what_was_asked() -> None:
    commands: list[Any] = []

    async def keep(operation: Operation) -> None:
        commands.append(operation.command)

    async with serving(keep) as server, connect(server) as association:
        await association.c_store(ct_instance(), priority=Priority.HIGH, move_originator=("MOVER", 7))
        await association.c_store(ct_instance())
    assert (commands[0].priority, commands[1].priority) == (Priority.HIGH, Priority.MEDIUM)
    assert commands[0].move_originator_application_entity_title == "MOVER"
    assert commands[0].move_originator_message_id == 7
    assert commands[1].move_originator_application_entity_title is None
    assert commands[0].affected_sop_instance_uid == instance_uid(1)


def test_nothing_of_the_data_shows() -> None:
    assert CANARY not in repr(ct_instance())
    assert "Canary" not in repr(ct_instance())
    assert instance_uid(1) in repr(ct_instance())


# The choice of a context.


def context(context_id: int, syntax: str, *, as_scu: bool = True) -> PresentationContext:
    return PresentationContext(context_id, CT, syntax, as_scu=as_scu)


def test_the_best_transfer_syntax_decides() -> None:
    contexts = [context(1, EXPLICIT_VR_LITTLE_ENDIAN), context(3, JPEG_LOSSLESS), context(5, JPEG_LOSSLESS)]
    assert choose_context(contexts, (JPEG_LOSSLESS, EXPLICIT_VR_LITTLE_ENDIAN)) == contexts[1]
    assert choose_context(contexts, (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)) == contexts[0]
    assert choose_context(contexts, (IMPLICIT_VR_LITTLE_ENDIAN,)) is None
    assert choose_context(contexts) == contexts[0]
    assert choose_context([]) is None


def test_a_context_without_the_role_of_scu_will_not_do() -> None:
    contexts = [context(1, EXPLICIT_VR_LITTLE_ENDIAN, as_scu=False), context(3, EXPLICIT_VR_LITTLE_ENDIAN)]
    assert choose_context(contexts, (EXPLICIT_VR_LITTLE_ENDIAN,)) == contexts[1]
    assert choose_context(contexts[:1]) is None


@pytest.mark.parametrize("form", ["file", "encoded"])
async def test_an_odd_last_element_is_padded(tmp_path: Path, form: str) -> None:
    odd = element(0x0008, 0x0016, CT.encode() + b"\0") + element(0x0008, 0x0018, b"1.2.3\0")
    odd += struct.pack("<HHI", 0x0010, 0x0020, 3) + b"ABC"
    path = tmp_path / "odd.dcm"
    path.write_bytes(file_meta(CT, "1.2.3", IMPLICIT_VR_LITTLE_ENDIAN) + odd)
    instance = path if form == "file" else EncodedInstance(CT, "1.2.3", IMPLICIT_VR_LITTLE_ENDIAN, odd)
    received: list[bytes] = []
    server = Server("ARCHIVE", port=0)

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        received.append(await operation.read())

    contexts = [ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,))]
    async with server, associate("127.0.0.1", server.port, contexts=contexts) as association:
        (await association.c_store(instance)).raise_for_status()
    assert received[0].endswith(struct.pack("<HHI", 0x0010, 0x0020, 4) + b"ABC ")
