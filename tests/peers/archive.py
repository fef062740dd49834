"""Our own server as a receiver for the tests: it keeps what comes in a folder."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from aiodicom import Operation, Server


def keep_in(folder: Path, server: Server) -> Server:
    """Let a server keep every instance it receives in a folder, which is made now."""
    folder.mkdir(exist_ok=True)

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        await operation.save(folder)

    return server


def check_file_meta(path: Path, sop_class: str, sop_instance: str, transfer_syntax: str, source_ae_title: str) -> None:
    """Assert that a file we keep begins as PS3.10 §7.1 wants it, as pydicom reads it."""
    with path.open("rb") as file:
        assert file.read(132) == bytes(128) + b"DICM"
    meta = dcmread(path, specific_tags=[]).file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPClassUID == sop_class
    assert meta.MediaStorageSOPInstanceUID == sop_instance
    assert meta.TransferSyntaxUID == transfer_syntax
    assert meta.SourceApplicationEntityTitle == source_ae_title
    assert meta.ImplementationClassUID
    assert meta.FileMetaInformationGroupLength == path.stat().st_size - 144 - len(read_rest(path))


def read_rest(path: Path) -> bytes:
    raise NotImplementedError
