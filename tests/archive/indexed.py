"""What the tests of queries and retrievals share: instances in an index, and identifiers as they come from a peer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset

from aiodicom.archive.conditions import add_functions
from aiodicom.archive.header import read_header
from aiodicom.archive.index import Entry, Index, StoredFile, open_index
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.query import QueryOptions
from aiodicom.rows import encode_row
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.studies import world

Keys = Mapping[str, Any]

RELATIONAL: Final = QueryOptions(relational=True)


def store(index: Index, instances: Mapping[str, Dataset]) -> None:
    """Enter instances by their labels, as if their files were there."""
    for label, instance in instances.items():
        data = encode_data_set(instance, instance.file_meta.TransferSyntaxUID)
        header = read_header(data, instance.file_meta.TransferSyntaxUID)
        file = StoredFile(f"{label}.dcm", instance.file_meta.TransferSyntaxUID, 300, 300 + len(data))
        study, series, sop = (str(instance.get(f"{each}InstanceUID", "")) for each in ("Study", "Series", "SOP"))
        assert index.insert(Entry(header, study, series, sop, file))


@contextmanager
def world_in_index(path: Path) -> Iterator[sqlite3.Connection]:
    """An index of the studies of tests/studies.py."""
    with closing(open_index(path, sync=False)) as connection:
        add_functions(connection)
        store(Index(connection), world())
        yield connection


def identifier(level: str = "STUDY", **keys: Any) -> Dataset:  # noqa: ANN401
    """As it comes from a peer."""
    data = encode_row({"QueryRetrieveLevel": level, **keys}, EXPLICIT_VR_LITTLE_ENDIAN)
    return decode_data_set(data, EXPLICIT_VR_LITTLE_ENDIAN)
