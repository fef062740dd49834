"""The bulk transfer: several associations, a report, and only what is missing the next time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import aiodicom
from aiodicom.part10 import file_meta
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.examples.loading import load
from tests.loopback import CT, Recorder, data_set, instance_uid, serving, until
from tests.peers.process import LOOPBACK

COUNT: Final = 100
UIDS: Final = frozenset(map(instance_uid, range(COUNT)))


@dataclass
class Archive:
    """Takes instances, and notes which; refuses some, and keeps the rest waiting while its gate is closed."""

    received: list[str] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    patience: int = COUNT
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self, operation: aiodicom.Operation) -> int:
        if len(self.received) >= self.patience:
            await self.gate.wait()
        if operation.sop_instance_uid in self.refused:
            return 0xC000
        self.received.append(operation.sop_instance_uid)
        return 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred instances, and one file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        meta = file_meta(CT, instance_uid(number), IMPLICIT_VR_LITTLE_ENDIAN)
        (folder / f"{number}.dcm").write_bytes(meta + data_set(number))
    (folder / "notes.txt").write_text("no DICOM")
    return folder


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.jsonl"


@pytest.fixture
def example() -> ModuleType:
    return load("bulk_transfer")


@asynccontextmanager
async def archiving(archive: Archive) -> AsyncIterator[tuple[aiodicom.Server, Recorder]]:
    recorder = Recorder()
    async with serving(archive.keep, observers=[recorder]) as server:
        yield server, recorder


def entries(report: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.read_text().splitlines()]


async def test_all_of_it(example: ModuleType, folder: Path, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = Archive()
    async with archiving(archive) as (server, recorder):
        assert await example.main(LOOPBACK, str(server.port), "SCP", str(folder), str(report)) == 1
    assert sorted(archive.received) == sorted(UIDS)
    assert len(recorder.associations) > 1
    assert {entry["sop_instance_uid"] for entry in entries(report) if entry["is_stored"]} == UIDS
    printed = capsys.readouterr().err
    assert "notes.txt: " in printed
    assert printed.endswith(f"{COUNT} of {COUNT}, 1 failed\n")


async def test_what_was_interrupted_goes_on(example: ModuleType, folder: Path, report: Path) -> None:
    archive = Archive(patience=10)
    async with archiving(archive) as (server, _):
        task = asyncio.create_task(example.main(LOOPBACK, str(server.port), "SCP", str(folder), str(report)))
        await until(lambda: len(archive.received) >= archive.patience and report.exists() and report.read_text())
        task.cancel()
        archive.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    first = list(archive.received)
    assert 0 < len(first) < COUNT
    assert {entry["sop_instance_uid"] for entry in entries(report)} == set(first)
    archive.received.clear()
    async with archiving(archive) as (server, _):
        await example.main(LOOPBACK, str(server.port), "SCP", str(folder), str(report))
    assert sorted(archive.received) == sorted(UIDS - set(first))


async def test_what_failed_is_tried_again_and_nothing_else(example: ModuleType, folder: Path, report: Path) -> None:
    archive = Archive(refused=frozenset([instance_uid(7)]))
    async with archiving(archive) as (server, _):
        assert await example.main(LOOPBACK, str(server.port), "SCP", str(folder), str(report)) == 2
        (failed,) = (entry for entry in entries(report) if not entry["is_stored"])
        assert (failed["sop_instance_uid"], failed["path"]) == (instance_uid(7), str(folder / "7.dcm"))
        assert "0xC000" in failed["said"]
        archive.refused, archive.received = frozenset(), []
        for _ in range(2):
            assert await example.main(LOOPBACK, str(server.port), "SCP", str(folder), str(report)) == 1
    assert archive.received == [instance_uid(7)]


async def test_half_a_line_of_the_report_does_not_matter(example: ModuleType, folder: Path, report: Path) -> None:
    archive = Archive()
    async with archiving(archive) as (server, _):
        await example.main(LOOPBACK, str(server.port), "SCP", str(folder), str(report))
        lines = report.read_text().splitlines(keepends=True)
        report.write_text("".join(lines[:-1]) + lines[-1][:20])
        archive.received.clear()
        await example.main(LOOPBACK, str(server.port), "SCP", str(folder), str(report))
    assert archive.received == [json.loads(lines[-1])["sop_instance_uid"]]
