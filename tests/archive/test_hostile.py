"""What a peer may store that is meant to hurt: the status, no file, and that the rest goes on (T26 to T31, T34, T37)."""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from aiodicom import DimseError, EncodedInstance, Limits, Operation
from aiodicom.archive import Archive
from aiodicom.dataset import decode_data_set
from aiodicom.scanner import Scanner
from aiodicom.services.storage import save_by_study
from aiodicom.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import files, instance, path_of
from tests.loopback import CT, MR, connect, data_set, fragment_pdu, instance_uid, raw_association, serving, store_pdu

UNDEFINED: Final = 0xFFFFFFFF
MIB: Final = 1024 * 1024


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def items(count: int) -> bytes:
    return element(0x00081140, element(0xFFFEE000, b"") * count)


def nested(depth: int) -> bytes:
    begin = element(0x00081140, element(0xFFFEE000, b"", UNDEFINED), UNDEFINED)
    return begin * depth + (element(0xFFFEE00D, b"") + element(0xFFFEE0DD, b"")) * depth


def defined(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = element(0x00081140, element(0xFFFEE000, data))
    return data


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def whole(more: bytes) -> EncodedInstance:
    head = data_set(1, 16)
    return EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, head[:-24] + more + head[-24:])


HOSTILE: Final = {
    "a length beyond the end": whole(element(0x00104000, b"", 1 << 20)),
    "65 sequences": whole(nested(65)),
    "100,000 sequences": whole(nested(100_000)),
    "65 sequences of defined length": whole(defined(65)),
    "500,000 elements": whole(element(0x00104000, b"") * 500_000),
    "a million empty items": whole(items(1_000_000)),
    "a million empty items without a length": whole(
        element(0x00081140, element(0xFFFEE000, b"") * 1_000_000 + element(0xFFFEE0DD, b""), UNDEFINED)
    ),
    "a sequence without an end": whole(element(0x00081140, b"", UNDEFINED)),
    "a header beyond the limit": whole(element(0x00104000, bytes(16 * MIB))),
}


async def stored(archive: Archive | Path, *instances: EncodedInstance) -> list[int]:
    async def keep(operation: Operation) -> None:
        if isinstance(archive, Archive):
            await archive.store(operation)
        else:
            await save_by_study(operation, archive)

    contexts = [(each.sop_class_uid, each.transfer_syntax) for each in instances]
    async with serving(keep) as server, connect(server, contexts=_proposed(contexts)) as association:
        statuses = [int((await association.c_store(each)).status) for each in instances]
        assert (await association.c_echo()).status == 0
    return statuses


def _proposed(contexts: list[tuple[str, str]]) -> Any:  # noqa: ANN401
    from aiodicom import ProposedContext
    from aiodicom.uids import VERIFICATION

    stores = [ProposedContext(sop_class, (syntax,)) for sop_class, syntax in sorted(set(contexts))]
    return [*stores, ProposedContext(VERIFICATION)]


@pytest.mark.parametrize("where", ["archive", "folder"])
@pytest.mark.parametrize("what", HOSTILE)
async def test_it_is_refused_with_c000_and_leaves_no_file(tmp_path: Path, what: str, where: str) -> None:
    if where == "folder":
        assert await stored(tmp_path, HOSTILE[what]) == [0xC000]
        assert list(tmp_path.rglob("*")) == []
        return
    async with Archive(tmp_path) as archive:
        assert await stored(archive, HOSTILE[what]) == [0xC000]
    assert files(tmp_path) == []


async def test_what_is_within_the_limits_is_kept(tmp_path: Path) -> None:
    many = element(0x00104000, b"") * 50_000
    assert await stored(tmp_path, whole(many + nested(64) + items(40_000) + defined(64))) == [0]


async def test_no_scan_runs_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[bool] = set()
    advance = Scanner._advance

    def watched(scanner: Scanner) -> None:
        threads.add(threading.current_thread() is threading.main_thread())
        advance(scanner)

    monkeypatch.setattr(Scanner, "_advance", watched)

    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(keep) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(data_set(1, 100)))
        await peer.pdu()
    assert threads == {False}


@pytest.mark.parametrize("large", [b"", bytes(3 * MIB)], ids=["small", "large"])
async def test_what_is_something_else_than_the_command_says_is_refused_with_a900(tmp_path: Path, large: bytes) -> None:
    data = instance(pixels=large or bytes(64)).data
    assert isinstance(data, bytes)
    own = instance()
    wrong = [replace(own, data=data, sop_instance_uid="1.2.3"), replace(own, data=data, sop_class_uid=MR)]
    assert await stored(tmp_path / "saved", *wrong) == [0xA900, 0xA900]
    assert list(tmp_path.rglob("*.*")) == []
    async with Archive(tmp_path / "archive") as archive:
        assert await stored(archive, *wrong) == [0xA900, 0xA900]
    assert files(tmp_path / "archive") == []


@pytest.mark.parametrize("where", ["archive", "folder"])
async def test_a_deflate_bomb_is_kept_as_it_is_and_inflated_at_its_beginning_only(tmp_path: Path, where: str) -> None:
    encoded = instance(pixels=bytes(64))
    assert isinstance(encoded.data, bytes)
    head = encoded.data[: encoded.data.index(b"\xe0\x7f\x10\0")]
    pixels = struct.pack("<HH2s2xL", 0x7FE0, 0x10, b"OW", 2**26)
    bomb = deflated(head + pixels + bytes(2**26))
    bomb += bytes(len(bomb) % 2)
    sent = EncodedInstance(CT, encoded.sop_instance_uid, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, bomb)
    if where == "folder":
        assert await stored(tmp_path, sent) == [0]
    else:
        async with Archive(tmp_path) as archive:
            assert await stored(archive, sent) == [0]
        assert files(tmp_path) == [path_of(1)]
    assert (tmp_path / path_of(1)).read_bytes().endswith(bomb)


async def test_a_truncated_deflated_data_set_is_refused(tmp_path: Path) -> None:
    data = instance().data
    assert isinstance(data, bytes)
    cut = replace(instance(), transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, data=deflated(data)[:-4])
    assert await stored(tmp_path, cut) == [0xC000]


# ---- too long


async def test_a_longer_instance_than_is_allowed_is_refused_and_the_association_goes_on(tmp_path: Path) -> None:
    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(keep, limits=Limits(maximum_instance=MIB)) as server, connect(server) as association:
        for number, more in ((1, 2), (2, 0)):
            size = MIB + more - (len(data_set(number, 0)))
            encoded = EncodedInstance(CT, instance_uid(number), IMPLICIT_VR_LITTLE_ENDIAN, data_set(number, size))
            assert (await association.c_store(encoded)).status == (0xA700 if more else 0)
        assert (await association.c_echo()).status == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"{instance_uid(2)}.dcm"]


async def test_one_that_does_not_end_is_aborted(tmp_path: Path) -> None:
    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path)

    async with serving(keep, limits=Limits(maximum_instance=MIB)) as server, raw_association(server) as peer:
        begun = data_set(1, 2 * MIB)
        parts = (begun[start : start + 65536] for start in range(0, int(1.2 * MIB), 65536))
        peer.send(store_pdu(), *(fragment_pdu(part, is_last=False) for part in parts))
        assert (await peer.pdu()).hex() == "07000000000400000200"
    assert list(tmp_path.iterdir()) == []


# ---- file meta information


@pytest.mark.parametrize("first", [10, 1000], ids=["in two fragments", "in one"])
async def test_file_meta_information_that_comes_in_a_data_set_is_dropped(tmp_path: Path, first: int) -> None:
    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path)

    plain = data_set(1, 100)
    sent = element(0x00020003, b"6.6.6\0") + element(0x00020010, b"1.2\0") + plain
    async with serving(keep) as server, raw_association(server) as peer:
        peer.send(store_pdu(), fragment_pdu(sent[:first], is_last=False), fragment_pdu(sent[first:]))
        await peer.pdu()
    [path] = tmp_path.iterdir()
    kept = path.read_bytes()
    assert kept.endswith(plain)
    assert b"6.6.6" not in kept
    assert kept[:128] == bytes(128)


async def test_the_preamble_of_an_imported_file_is_not_kept_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Archive(tmp_path / "from") as archive:
        await archive.add(instance())
    [source] = (tmp_path / "from").rglob("*.dcm")
    source.chmod(0o600)
    source.write_bytes(b"MZ" + source.read_bytes()[2:])
    async with Archive(tmp_path / "to") as archive:
        with caplog.at_level(logging.WARNING, "aiodicom.archive"):
            await archive.add(source)
    kept = tmp_path / "to" / path_of(1)
    assert kept.read_bytes()[:132] == bytes(128) + b"DICM"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "preamble" in caplog.text


# ---- queries


async def test_sql_in_a_key_is_a_value(tmp_path: Path) -> None:
    from pydicom import Dataset

    async with Archive(tmp_path) as archive:
        await archive.add(instance())
        for text in ("' OR 1=1 --", "x'); DROP TABLE instances;--"):
            asked = Dataset()
            asked.QueryRetrieveLevel, asked.PatientID = "STUDY", text
            assert [match async for match in archive.find(asked)] == []
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.PatientID = "STUDY", "1"
        assert len([match async for match in archive.find(asked)]) == 1
        name = "\\".join(["a" + "\u0301" * 10_000] * 48).encode()
        keys = element(0x00080005, b"ISO_IR 192") + element(0x00080052, b"STUDY ") + element(0x00100010, name)
        asked = decode_data_set(keys, IMPLICIT_VR_LITTLE_ENDIAN)
        with pytest.raises(DimseError) as caught:
            archive.find(asked)
        assert caught.value.status == 0xC000
