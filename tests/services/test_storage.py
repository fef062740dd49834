"""`save_by_study`: where an instance is kept, and what is refused."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

import pytest
from pydicom import dcmread

from aiodicom import EncodedInstance, InstanceFile, Operation, ProposedContext, associate
from aiodicom.dimse.status import Status
from aiodicom.part10 import file_meta
from aiodicom.server import Server
from aiodicom.services.storage import name_by_study, save_by_study
from aiodicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import CT, element, instance_uid, uid_value
from tests.peers.comparing import well_formed_instances

UID = instance_uid(1)


def encoded(study: bytes | None, series: bytes | None = b"1.2.4") -> bytes:
    """A data set in Implicit VR Little Endian."""
    parts = [element(0x0008, 0x0016, uid_value(CT)), element(0x0008, 0x0018, uid_value(UID))]
    for number, value in ((0x000D, study), (0x000E, series)):
        if value is not None:
            parts.append(element(0x0020, number, value + b"\0" * (len(value) % 2)))
    return b"".join([*parts, element(0x7FE0, 0x0010, bytes(100))])


async def store(folder: Path, *instances: InstanceFile | EncodedInstance) -> list[tuple[Status, str | None]]:
    """Send instances to a server that keeps them; return what it answered."""
    server = Server(port=0, observers=())

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        await save_by_study(operation, folder)

    contexts = {
        (each.sop_class_uid, each.transfer_syntax if isinstance(each, EncodedInstance) else each.transfer_syntax_uid)
        for each in instances
    }
    proposed = [ProposedContext(sop_class, (syntax,)) for sop_class, syntax in sorted(contexts)]
    async with server, associate("127.0.0.1", server.port, contexts=proposed, observers=()) as association:
        responses = [await association.c_store(each) for each in instances]
    return [(response.status, response.error_comment) for response in responses]


def kept(folder: Path) -> list[str]:
    """The files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


async def test_real_instances_are_kept_by_study_and_series(tmp_path: Path) -> None:
    instances = well_formed_instances()
    answers = await store(tmp_path, *instances)
    assert set(answers) == {(Status(0), None)}
    expected = set()
    for instance in instances:
        sent = dcmread(instance.path, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
        study, series = sent.get("StudyInstanceUID") or "no-study", sent.get("SeriesInstanceUID") or "no-series"
        expected.add(f"{study}/{series}/{instance.sop_instance_uid}.dcm")
    assert set(kept(tmp_path)) == expected
    assert DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN in {instance.transfer_syntax_uid for instance in instances}


@pytest.mark.parametrize(
    ("study", "series", "name"),
    [
        (b"1.2.3", b"1.2.4", f"1.2.3/1.2.4/{UID}.dcm"),
        (b"1.2.3 ", b"1.2.4\0", f"1.2.3/1.2.4/{UID}.dcm"),
        (None, None, f"no-study/no-series/{UID}.dcm"),
        (b"", b"", f"no-study/no-series/{UID}.dcm"),
        (b"1.2.3", None, f"1.2.3/no-series/{UID}.dcm"),
    ],
)
async def test_names(tmp_path: Path, study: bytes | None, series: bytes | None, name: str) -> None:
    instance = EncodedInstance(CT, UID, IMPLICIT_VR_LITTLE_ENDIAN, encoded(study, series))
    assert await store(tmp_path, instance) == [(0, None)]
    assert kept(tmp_path) == [name]


@pytest.mark.parametrize("uid", [b"..", b"../../1.2", b"/etc", b"1.2/3", b"1.2\\3.4", b"1" * 66, b"1.2\xb2", b"a"])
async def test_a_uid_that_leads_elsewhere_is_refused(tmp_path: Path, uid: bytes) -> None:
    instances = [
        EncodedInstance(CT, UID, IMPLICIT_VR_LITTLE_ENDIAN, data) for data in (encoded(uid), encoded(b"1.2.3", uid))
    ]
    assert await store(tmp_path / "kept", *instances) == [
        (0xA900, "Study Instance UID is no UID"),
        (0xA900, "Series Instance UID is no UID"),
    ]
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("syntax", "data"),
    [
        (EXPLICIT_VR_LITTLE_ENDIAN, encoded(b"1.2.3")),
        (IMPLICIT_VR_LITTLE_ENDIAN, b""),
        (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, b"\xff" * 100),
    ],
    ids=["another syntax", "nothing", "not deflated"],
)
async def test_what_is_no_data_set_is_refused(tmp_path: Path, syntax: str, data: bytes) -> None:
    [(status, comment)] = await store(tmp_path, EncodedInstance(CT, UID, syntax, data))
    assert status == 0xC000
    assert comment is not None
    assert comment.startswith("The data set ")
    assert kept(tmp_path) == []


async def test_the_same_instance_again_replaces_the_first(tmp_path: Path) -> None:
    instance = EncodedInstance(CT, UID, IMPLICIT_VR_LITTLE_ENDIAN, encoded(b"1.2.3"))
    assert await store(tmp_path, instance, instance) == [(0, None)] * 2
    assert len(kept(tmp_path)) == 1


async def test_many_at_once_into_one_new_folder(tmp_path: Path) -> None:
    instance = EncodedInstance(CT, UID, IMPLICIT_VR_LITTLE_ENDIAN, encoded(b"1.2.3"))
    answers = await asyncio.gather(*(store(tmp_path / "new", instance) for _ in range(8)))
    assert answers == [[(0, None)]] * 8
    assert kept(tmp_path) == [f"new/1.2.3/1.2.4/{UID}.dcm"]


def test_a_bomb_is_inflated_only_at_its_beginning(tmp_path: Path) -> None:
    long = b"\x09\0\x10\x10OB\0\0" + (2**26).to_bytes(4, "little") + bytes(2**26)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(b"\x08\0\x60\0CS\x02\0CT" + long) + deflater.flush()
    path = tmp_path / "bomb"
    path.write_bytes(file_meta(CT, UID, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN) + bomb)
    assert len(bomb) < path.stat().st_size < 100_000
    assert name_by_study(path) == f"no-study/no-series/{UID}.dcm"
