"""Every example runs: loaded as a module, its server on a free port, and used by a real association."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

import pydicom
import pytest
from pydicom.data import get_testdata_file

import aiodicom

EXAMPLES: Final = Path(__file__).parent.parent / "examples"
CT: Final = str(get_testdata_file("CT_small.dcm"))
JPEG: Final = str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm"))


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_a_free_port(module: ModuleType) -> aiodicom.Server:
    server = module.server
    assert isinstance(server, aiodicom.Server)
    server.listeners = (aiodicom.Listener(port=0),)
    return server


def test_all_examples_are_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({path.name})" in listed for path in EXAMPLES.glob("*.py"))


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
