"""Our own server as a receiver for the tests: it keeps what comes in a folder."""

from __future__ import annotations

from pathlib import Path

from aiodicom import Operation, Server
from tests.peers.comparing import data_set, parse

UP_TO_GROUP_LENGTH = 144  # preamble, prefix and (0002,0000): the bytes that its value does not count (PS3.10 §7.1)


def keep_in(folder: Path, server: Server) -> Server:
    """Let a server keep every instance it receives in a folder, which is made now."""
    folder.mkdir(exist_ok=True)

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        await operation.save(folder)

    return server


def check_file_meta(file: bytes, sop_class: str, sop_instance: str, transfer_syntax: str, source: str) -> None:
    """Assert that a file that was kept begins as PS3.10 §7.1 has it, read by pydicom."""
    assert file[:132] == bytes(128) + b"DICM"
    meta = parse(file).file_meta
    assert meta.FileMetaInformationGroupLength == len(file) - len(data_set(file)) - UP_TO_GROUP_LENGTH
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPClassUID == sop_class
    assert meta.MediaStorageSOPInstanceUID == sop_instance
    assert meta.TransferSyntaxUID == transfer_syntax
    assert meta.SourceApplicationEntityTitle == source
    assert meta.ImplementationClassUID
