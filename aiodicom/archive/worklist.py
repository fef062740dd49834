# ruff: noqa: S608 - statements are made of names of ours; values are parameters
"""The worklist that the archive serves: scheduled procedure steps, in a table beside the index (PS3.4 Annex K).

A row is one step, with the whole item as it is to be answered, encoded, and columns of what modalities ask for. SQL finds
the rows whose columns match; `aiodicom.services.matching` decides about all other keys, and makes the answers.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread

from aiodicom.archive.conditions import Column, Conditions
from aiodicom.archive.query import character_set_of, check_values, checked_text, encode_answer
from aiodicom.archive.schema import folded
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.query import NO_OPTIONS, QueryOptions
from aiodicom.services.matching import Keys, fold_name, items_of, keys_of, text_of, vr_of
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

__all__ = [
    "Imported",
    "WorklistQuery",
    "add_steps",
    "compile_worklist_query",
    "copy_worklist",
    "create_worklist",
    "read_folder",
    "remove_step",
    "replace_steps",
    "steps_of",
]

STEPS: Final = 0x00400100  # Scheduled Procedure Step Sequence
_MATCHES: Final = 0xFF00
_UNABLE_TO_PROCESS: Final = 0xC000

# What modalities ask for (PS3.4 Table K.6-1): of the item, and of the step in it.
_OF_ITEM: Final = ("StudyInstanceUID", "PatientName", "PatientID", "AccessionNumber", "RequestedProcedureID")
_OF_STEP: Final = (
    "ScheduledProcedureStepID",
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "Modality",
    "ScheduledPerformingPhysicianName",
)
_TAGS: Final = {keyword: tag_for_keyword(keyword) or 0 for keyword in (*_OF_ITEM, *_OF_STEP)}
_COLUMNS: Final = {
    keyword: Column(
        f"worklist.{folded(keyword) if dictionary_VR(tag) == 'PN' else keyword}",
        dictionary_VR(tag),
        dictionary_VM(tag) != "1",
    )
    for keyword, tag in _TAGS.items()
}
_NAMES: Final = tuple(column.sql.removeprefix("worklist.") for column in _COLUMNS.values())
_PATTERNS: Final = (".wl", ".dcm")

Step = dict[str, str | bytes]  # a row: values by column


def create_worklist(connection: sqlite3.Connection) -> None:
    """Make the table, unless it is there."""
    columns = ", ".join(f"{name} TEXT NOT NULL" for name in _NAMES)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS worklist (pk INTEGER PRIMARY KEY, {columns}, item BLOB NOT NULL, source BLOB, "
        "UNIQUE (StudyInstanceUID, ScheduledProcedureStepID))"
    )
    connection.execute("CREATE INDEX IF NOT EXISTS worklist_by_date ON worklist (ScheduledProcedureStepStartDate)")


def steps_of(item: Dataset) -> list[Step]:
    """Return the rows of a worklist item: one for each scheduled procedure step, as they are answered.

    Args:
        item: the attributes of PS3.4 Table K.6-1 that there are; at least a step in the Scheduled Procedure Step Sequence
            (0040,0100), and Study Instance UID (0020,000D) or the step's ID (0040,0009).

    Raises:
        InvalidInstance: the item lacks these, or cannot be encoded.
    """
    rows = [_row(item, step) for step in items_of(item, STEPS)]
    if not rows:
        raise InvalidInstance("a worklist item has a step in its Scheduled Procedure Step Sequence (0040,0100)")
    return rows


def add_steps(connection: sqlite3.Connection, steps: Iterable[Step], *, source: bytes | None = None) -> None:
    """Add steps to the worklist; those with the same Study Instance UID and Scheduled Procedure Step ID are replaced.

    Args:
        connection: to the index, in whatever transaction.
        steps: the rows.
        source: the folder that they come from, if they do.

    Raises:
        sqlite3.Error: the table cannot be written.
    """
    names, marks = ", ".join((*_NAMES, "item", "source")), ", ".join("?" * (len(_NAMES) + 2))
    statement = f"INSERT OR REPLACE INTO worklist ({names}) VALUES ({marks})"
    connection.executemany(statement, ((*step.values(), source) for step in steps))


def replace_steps(connection: sqlite3.Connection, steps: Iterable[Step], source: bytes) -> None:
    """Do as `add_steps` does, and remove whatever else came from that source."""
    connection.execute("DELETE FROM worklist WHERE source = ?", (source,))
    add_steps(connection, steps, source=source)


def remove_step(connection: sqlite3.Connection, study_instance_uid: str, step_id: str) -> bool:
    """Remove a step from the worklist; return whether it was there.

    Args:
        connection: to the index, in whatever transaction.
        study_instance_uid: Study Instance UID (0020,000D) of the item.
        step_id: Scheduled Procedure Step ID (0040,0009) of its step.

    Raises:
        sqlite3.Error: the table cannot be written.
    """
    statement = "DELETE FROM worklist WHERE StudyInstanceUID = ? AND ScheduledProcedureStepID = ?"
    return connection.execute(statement, (study_instance_uid, step_id)).rowcount > 0


@dataclass(slots=True)
class Imported:
    """What came of importing a folder.

    Attributes:
        steps: Study Instance UID and Scheduled Procedure Step ID of what is in the worklist now.
        problems: path and reason of each file that was not imported.
    """

    steps: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def read_folder(folder: str | os.PathLike[str]) -> tuple[list[Step], Imported]:
    """Return the rows of the worklist files in a folder, and a report.

    They are as DCMTK's wlmscpfs and Orthanc have them: `*.wl` and `*.dcm`. Folders in it are not looked
    into: wlmscpfs has one for each AE title.

    Args:
        folder: where they are.

    Raises:
        OSError: the folder cannot be read.
    """
    steps: list[Step] = []
    report = Imported()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in _PATTERNS and path.is_file():
            try:
                steps += steps_of(_read(path))
            except InvalidInstance as error:
                report.problems.append((path, str(error)))
            except OSError as error:
                report.problems.append((path, f"cannot be read: {error.strerror}"))
    report.steps = [(str(step["StudyInstanceUID"]), str(step["ScheduledProcedureStepID"])) for step in steps]
    return steps, report


def copy_worklist(source: str | os.PathLike[str], connection: sqlite3.Connection) -> None:
    """Take over the worklist of another database, such as of an index that is being built again.

    That database is whole then without the write-ahead log beside it.

    Args:
        source: the database; where there is none, or it has no worklist, nothing is taken over.
        connection: to the one with the new table, outside a transaction.

    Raises:
        sqlite3.Error: the source cannot be read, or the table not be written.
    """
    if not Path(source).exists():
        return
    connection.execute("ATTACH DATABASE ? AS source", (os.fspath(source),))
    try:
        [known] = connection.execute("SELECT count(*) FROM source.sqlite_schema WHERE name = 'worklist'").fetchone()
        if known:
            names = ", ".join((*_NAMES, "item", "source"))
            connection.execute(f"INSERT OR REPLACE INTO worklist ({names}) SELECT {names} FROM source.worklist")
            connection.execute("PRAGMA source.wal_checkpoint(TRUNCATE)")
    finally:
        connection.execute("DETACH DATABASE source")


def compile_worklist_query(
    identifier: Dataset, *, options: QueryOptions = NO_OPTIONS, maximum_values: int = DEFAULT_LIMITS.maximum_uids
) -> WorklistQuery:
    """Compile the identifier of a C-FIND of the Modality Worklist (PS3.4 §K.4.1).

    Args:
        identifier: of the request.
        options: what was negotiated.
        maximum_values: how many values a key may have.

    Raises:
        DimseError: 0xC000 where a key cannot be decoded, or has too many or too long values.
    """
    check_values(identifier, maximum_values)
    conditions = Conditions(fuzzy_names=options.fuzzy_names)
    steps = items_of(identifier, STEPS)
    asked = {keyword: (identifier, _TAGS[keyword]) for keyword in _OF_ITEM}
    if len(steps) == 1:  # several are alternatives
        asked |= {keyword: (steps[0], _TAGS[keyword]) for keyword in _OF_STEP if not _depends(keyword, options)}
    where = [conditions.on(_COLUMNS[keyword], checked_text(*key)) for keyword, key in asked.items()]
    try:
        keys = Keys(identifier, options)
    except InvalidInstance as error:
        raise DimseError(_UNABLE_TO_PROCESS, str(error)) from None
    sql = f"SELECT item FROM worklist WHERE {' AND '.join(filter(None, where)) or 1}"
    return WorklistQuery(_MATCHES, sql, conditions.parameters, keys, character_set_of(identifier))


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """A compiled C-FIND of the worklist.

    Attributes:
        status: of its Pending responses (PS3.4 §K.4.1.1.4).
        sql: the statement; it holds no value of the identifier.
        parameters: the values, by name.
        keys: all the keys.
        character_set: Specific Character Set (0008,0005) of the request.
    """

    status: int
    sql: str
    parameters: Mapping[str, str] = field(repr=False)
    keys: Keys
    character_set: str

    def run(self, connection: sqlite3.Connection, transfer_syntax_uid: str) -> Iterator[bytes]:
        """Yield the matches, encoded, while they are found; text as `aiodicom.archive.query.Query.run` has it.

        Args:
            connection: one of `Readers`; until the iterator is exhausted or closed, it reads one state of it.
            transfer_syntax_uid: one of `aiodicom.dataset.UNCOMPRESSED`.

        Raises:
            sqlite3.Error: the table cannot be read.
        """
        with closing(connection.execute(self.sql, self.parameters)) as rows:
            for (data,) in rows:
                item = decode_data_set(data, EXPLICIT_VR_LITTLE_ENDIAN)
                if self.keys.match(item):
                    yield encode_answer(_as_row(self.keys.answer(item)), self.character_set, transfer_syntax_uid)


def _depends(keyword: str, options: QueryOptions) -> bool:
    """Tell whether something else than the column has a say in whether a date or time matches."""
    return _COLUMNS[keyword].vr in ("DA", "TM") and (options.combined_datetime or options.timezone)


def _row(item: Dataset, step: Dataset) -> Step:
    one = Dataset({tag: item.get_item(tag) for tag in item.keys()})  # noqa: SIM118 - that would parse them
    implicit, little = item.original_encoding
    one.set_original_encoding(implicit, little, item.original_character_set)
    one[STEPS] = DataElement(STEPS, "SQ", [step])
    texts = {keyword: text_of(one, _TAGS[keyword], errors="replace") for keyword in _OF_ITEM}
    texts |= {keyword: text_of(step, _TAGS[keyword], errors="replace") for keyword in _OF_STEP}
    if not texts["StudyInstanceUID"] and not texts["ScheduledProcedureStepID"]:
        raise InvalidInstance("a worklist item has a Study Instance UID (0020,000D) or Scheduled Procedure Step ID")
    values = (fold_name(text) if _COLUMNS[keyword].vr == "PN" else text for keyword, text in texts.items())
    return {**dict(zip(_NAMES, values, strict=True)), "item": encode_data_set(one, EXPLICIT_VR_LITTLE_ENDIAN)}


def _read(path: Path) -> Dataset:
    try:
        return dcmread(path, force=True)  # some are without File Meta Information
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever pydicom makes of damaged bytes
        raise InvalidInstance(f"cannot be read: {type(error).__name__}") from None


def _as_row(answer: Dataset) -> dict[int, object]:
    """An answer as text, whatever its character set."""
    row: dict[int, object] = {}
    for tag in keys_of(answer):
        if vr_of(tag) == "SQ":
            row[tag] = [_as_row(item) for item in items_of(answer, tag)]
        else:
            value = answer[tag].value
            row[tag] = value if isinstance(value, bytes) else text_of(answer, tag, errors="replace")
    return row
