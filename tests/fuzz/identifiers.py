"""Z5: identifiers of C-FIND and C-GET, from their bytes to rows of an index and to the reference matcher.

That both find the same is looked at in `tests/archive/test_query_matching.py`, with made-up archives.
"""

from __future__ import annotations

import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset

from aiodicom.archive.conditions import add_functions
from aiodicom.archive.index import Index, open_index
from aiodicom.archive.query import compile_query, compile_retrieval
from aiodicom.dataset import decode_data_set
from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.query import MODELS, QueryOptions
from aiodicom.rows import encode_row
from aiodicom.scanner import Bounds
from aiodicom.services.matching import Keys
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.archive.indexed import store
from tests.fuzz.target import expect
from tests.studies import world

OPTIONS: Final = tuple(
    QueryOptions(relational=True, combined_datetime=combined, fuzzy_names=fuzzy)
    for combined in (False, True)
    for fuzzy in (False, True)
)
STATUSES: Final = (0xA900, 0xC000)
_QUERIES: Final[tuple[dict[str, str | None], ...]] = (
    {"PatientName": "C*", "StudyInstanceUID": None, "StudyDate": "20200101-20211231", "ModalitiesInStudy": "CT"},
    {"PatientID": "' OR 1=1 --", "StudyInstanceUID": "1.2\\1.3", "StudyTime": "10-", "AccessionNumber": "?"},
    {"PatientName": "*a*a*a*a*a*b", "StudyDescription": "[a-z]*", "PatientBirthDate": "-19700101"},
)


@cache
def _index() -> sqlite3.Connection:
    connection = open_index(Path(tempfile.mkdtemp()) / "index.sqlite", sync=False)
    add_functions(connection)
    store(Index(connection), world())
    return connection


@cache
def _schema() -> list[Any]:
    return _index().execute("SELECT * FROM sqlite_schema").fetchall()


@cache
def _stored() -> Dataset:
    return next(iter(world().values()))


def _decoded(data: bytes) -> tuple[Dataset, QueryOptions] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            identifier = decode_data_set(data[1:], EXPLICIT_VR_LITTLE_ENDIAN, bounds=Bounds())
    except InvalidInstance:
        return None
    return identifier, OPTIONS[data[0] % len(OPTIONS)]


def compiled(data: bytes) -> None:
    """An identifier becomes a query, or is refused with a status of PS3.4 (I1)."""
    if not data or (decoded := _decoded(data)) is None:
        return
    identifier, options = decoded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for compile_one in (compile_query, compile_retrieval):
            try:
                compile_one(identifier, MODELS["study"], options=options)
            except DimseError as error:
                expect(error.status in STATUSES, "a status of another kind", error)
        with suppress(InvalidInstance):  # a key that cannot be decoded
            Keys(identifier, options).match(_stored())


def asked(data: bytes) -> None:
    """What was compiled can be asked, and changes nothing in the index (T34)."""
    if not data or (decoded := _decoded(data)) is None:
        return
    identifier, options = decoded
    connection = _index()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for answer in compile_query(identifier, MODELS["study"], options=options).run(
                connection, EXPLICIT_VR_LITTLE_ENDIAN
            ):
                decode_data_set(answer, EXPLICIT_VR_LITTLE_ENDIAN)
        except DimseError as error:
            expect(error.status in STATUSES, "a status of another kind", error)
    expect(connection.execute("SELECT * FROM sqlite_schema").fetchall() == _schema(), "T34: another schema")


def memory(_data: bytes) -> int:
    """Return how many bytes may be taken: those of pydicom's elements and of the statement."""
    return 1024 * 1024


def seeds() -> Iterator[bytes]:
    """Z5."""
    for number, keys in enumerate(_QUERIES):
        for level in ("STUDY", "SERIES", "IMAGE", "PATIENT"):
            yield bytes((number,)) + encode_row({"QueryRetrieveLevel": level, **keys}, EXPLICIT_VR_LITTLE_ENDIAN)
    yield b"\3" + encode_row(
        {"SpecificCharacterSet": "ISO_IR 192", "QueryRetrieveLevel": "STUDY", "PatientName": "Mül*"},
        EXPLICIT_VR_LITTLE_ENDIAN,
    )
