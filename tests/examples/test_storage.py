"""The short examples about storage, each used by a real association."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pydicom
import pytest
from pydicom.data import get_testdata_file

import aiodicom
from tests.examples.loading import load, on_a_free_port

CT: Final = str(get_testdata_file("CT_small.dcm"))
JPEG: Final = str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm"))


async def test_store_scp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    async with (
        on_a_free_port(load("store_scp")) as server,
        aiodicom.associate("127.0.0.1", server.port, contexts=aiodicom.contexts_for([CT])) as association,
    ):
        (await association.c_store(CT)).raise_for_status()
    (kept,) = (tmp_path / "received").iterdir()
    assert pydicom.dcmread(kept) == pydicom.dcmread(CT)
    assert str(kept.name) in capsys.readouterr().out


async def test_send_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ct.dcm").write_bytes(Path(CT).read_bytes())
    (tmp_path / "notes.txt").write_text("no DICOM")
    received: list[str] = []
    server = aiodicom.Server("ARCHIVE", port=0)

    @server.on_c_store
    async def count(operation: aiodicom.Operation) -> None:
        received.append(operation.sop_instance_uid)

    async with server:
        await load("send_folder").send("127.0.0.1", server.port, str(tmp_path))
    assert len(received) == 1
    printed = capsys.readouterr().out
    assert "notes.txt" in printed
    assert "ct.dcm: <Status 0x0000 Success>" in printed


async def test_blocking_handler(capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        on_a_free_port(load("blocking_handler")) as server,
        aiodicom.associate("127.0.0.1", server.port, contexts=aiodicom.contexts_for([JPEG])) as association,
    ):
        (await association.c_store(JPEG)).raise_for_status()
    assert "× 100 pixels" in capsys.readouterr().out
