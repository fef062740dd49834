# ruff: noqa: S608 - statements are made of names of ours; values are parameters
"""Identifiers → SQL over the index: what a C-FIND answers, and what a C-MOVE or C-GET retrieves (PS3.4 §C.4, §C.6).

Each key becomes a condition on a column. Keys of levels above that of the query are matched and returned, too, as are the
patient's in Study Root (PS3.4 §C.6.2.1). Keys of levels below have many values: an entity matches if one of them does, and
they are not returned. Matches are encoded as the cursor delivers them, so that there may be any number.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pydicom.datadict import dictionary_VM, keyword_for_tag, tag_for_keyword

from aiodicom.archive.attributes import ATTRIBUTES, Attribute
from aiodicom.archive.conditions import COMPOUND, Column, Conditions, matching_items
from aiodicom.archive.schema import PARENTS, REQUEST_ATTRIBUTES, TABLES, folded
from aiodicom.dataset import SPECIFIC_CHARACTER_SET
from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.query import NO_OPTIONS, Level, Model, QueryOptions, unique_key
from aiodicom.rows import character_set, encode_row
from aiodicom.services.matchers import check_length, values_of
from aiodicom.services.matching import (
    IN_NO_ZONE,
    QUERY_RETRIEVE_LEVEL,
    TIMEZONE_OFFSET_FROM_UTC,
    items_of,
    keys_of,
    pair_of,
    pairs_in,
    text_of,
    vr_of,
)
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "INDEXES",
    "Query",
    "Retrieval",
    "character_set_of",
    "check_values",
    "checked_text",
    "compile_query",
    "compile_retrieval",
    "encode_answer",
]

INDEXES: Final = (
    "CREATE INDEX patients_by_name ON patients (PatientName_folded)",
    f"CREATE INDEX patients_by_compound_name ON patients (PatientName_folded) WHERE PatientName_folded {COMPOUND}",
    "CREATE INDEX studies_by_date ON studies (StudyDate)",
    "CREATE INDEX studies_by_accession_number ON studies (AccessionNumber) WHERE AccessionNumber <> ''",
    "CREATE INDEX series_by_modality ON series (Modality, study)",
)
"""The indexes, beside those that keep keys unique and lead to parents, without which the usual queries read whole tables."""

MAXIMUM_LENGTH: Final = 10_240
"""How many characters a key may have that has one value: as many as the longest of those with a limit (PS3.5 §6.2)."""

# PS3.4 §C.4.1.1.4.
_MATCHES: Final = 0xFF00
_MATCHES_BUT_KEYS_UNSUPPORTED: Final = 0xFF01
_DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
_UNABLE_TO_PROCESS: Final = 0xC000

RETRIEVE_AE_TITLE: Final = 0x00080054
INSTANCE_AVAILABILITY: Final = 0x00080056

_LEVELS: Final = tuple(Level)
_INDEXED: Final = {
    **{unique_key(level): TABLES[level] for level in Level},
    "PatientName": TABLES[Level.PATIENT],
    "StudyDate": TABLES[Level.STUDY],
    "AccessionNumber": TABLES[Level.STUDY],
    "Modality": TABLES[Level.SERIES],
}

# What is not stored but computed: an attribute of which level it is, and from what (PS3.4 Table C.3-1).
_COUNTS: Final[Mapping[str, tuple[Level, Level]]] = {
    "NumberOfPatientRelatedStudies": (Level.PATIENT, Level.STUDY),
    "NumberOfPatientRelatedSeries": (Level.PATIENT, Level.SERIES),
    "NumberOfPatientRelatedInstances": (Level.PATIENT, Level.IMAGE),
    "NumberOfStudyRelatedSeries": (Level.STUDY, Level.SERIES),
    "NumberOfStudyRelatedInstances": (Level.STUDY, Level.IMAGE),
    "NumberOfSeriesRelatedInstances": (Level.SERIES, Level.IMAGE),
}
_GATHERED: Final[Mapping[str, tuple[Level, str]]] = {
    "ModalitiesInStudy": (Level.STUDY, "Modality"),
    "SOPClassesInStudy": (Level.STUDY, "SOPClassUID"),
}
_REQUEST_ATTRIBUTES_TAG: Final = 0x00400275
_AVAILABLE_TRANSFER_SYNTAX: Final = "AvailableTransferSyntaxUID"
_LEVEL_OF: Final[Mapping[str, Level]] = {
    **{keyword: attribute.level for keyword, attribute in ATTRIBUTES.items()},
    **{keyword: level for keyword, (level, _) in (*_COUNTS.items(), *_GATHERED.items())},
    _AVAILABLE_TRANSFER_SYNTAX: Level.IMAGE,
    REQUEST_ATTRIBUTES: Level.SERIES,
}

_FILE: Final = ", ".join(
    f"instances.{column}"
    for column in ("path", "SOPClassUID", "SOPInstanceUID", "TransferSyntaxUID", "data_set_offset", "size")
)

_SUBJECT: Final = "instances.SOPInstanceUID, studies.StudyInstanceUID, patients.PatientID, patients.PatientName"

_Items = list[dict[str, str]]  # of a sequence: text by keyword

_log: Final = logging.getLogger("aiodicom.archive")


def compile_query(
    identifier: Dataset,
    model: Model,
    *,
    options: QueryOptions = NO_OPTIONS,
    retrieve_ae_title: str = "",
    maximum_values: int = DEFAULT_LIMITS.maximum_uids,
) -> Query:
    """Compile the identifier of a C-FIND (PS3.4 §C.4.1.1.3.1, §C.4.1.3).

    Args:
        identifier: of the request.
        model: the information model, one with levels.
        options: what was negotiated. Without relational queries, the unique key of each level above that of the query
            has to have a single value.
        retrieve_ae_title: Retrieve AE Title (0008,0054) of the answers.
        maximum_values: how many values a key may have, such as a list of UIDs.

    Raises:
        DimseError: 0xA900 where the level or a unique key is missing or is not one of the model; 0xC000 where a key cannot
            be decoded or has too many or too long values. A key that the index does not have is no error.
    """
    check_values(identifier, maximum_values)
    level = _level_of(identifier, model)
    if not options.relational:
        for above in model.levels[: model.levels.index(level)]:
            _single_value(identifier, above, level)
    statement = _Statement(level, options, checked_text(identifier, TIMEZONE_OFFSET_FROM_UTC))
    answers: dict[int, str] = {}
    constants = {QUERY_RETRIEVE_LEVEL: level.value, RETRIEVE_AE_TITLE: retrieve_ae_title}
    keys: dict[str, str | _Items] = {}
    status = _MATCHES
    for tag in keys_of(identifier):
        keyword = keyword_for_tag(tag)
        if tag == INSTANCE_AVAILABILITY:
            constants[tag] = "ONLINE"
        elif keyword in _LEVEL_OF:
            keys[keyword] = _item_keys(identifier, tag) if vr_of(tag) == "SQ" else checked_text(identifier, tag)
            if _LEVEL_OF[keyword] in _to(level):
                answers[tag] = statement.answer(keyword)
            else:
                status = _MATCHES_BUT_KEYS_UNSUPPORTED
        elif tag not in constants:
            status = _MATCHES_BUT_KEYS_UNSUPPORTED
    statement.match(keys)
    requested = keys.get(REQUEST_ATTRIBUTES)
    return Query(
        status,
        statement.sql(answers.values()),
        statement.conditions.parameters,
        tuple(answers),
        constants,
        requested if isinstance(requested, list) else [],
        options.fuzzy_names,
        character_set_of(identifier),
    )


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled C-FIND.

    Attributes:
        status: of its Pending responses: 0xFF00, or 0xFF01 where a key is not supported (PS3.4 §C.4.1.1.4).
        sql: the statement; it holds no value of the identifier.
        parameters: the values, by name.
        columns: the tags of the attributes that it selects.
        constants: what else each answer has, by tag.
        requested: the keys in the items of the Request Attributes Sequence (0040,0275).
        fuzzy_names: whether fuzzy semantic matching of person names was negotiated.
        character_set: Specific Character Set (0008,0005) of the request.
    """

    status: int
    sql: str
    parameters: Mapping[str, str] = field(repr=False)
    columns: tuple[int, ...]
    constants: Mapping[int, str]
    requested: _Items = field(repr=False)
    fuzzy_names: bool
    character_set: str

    def run(self, connection: sqlite3.Connection, transfer_syntax_uid: str) -> Iterator[bytes]:
        """Yield the matches, encoded, in no particular order, while they are found.

        Text is in the character set of the request if that can hold it; else in UTF-8, which is then declared.

        Args:
            connection: one of `Readers`; until the iterator is exhausted or closed, it reads one state of it.
            transfer_syntax_uid: one of `aiodicom.dataset.UNCOMPRESSED`.

        Raises:
            sqlite3.Error: the index cannot be read.
        """
        with closing(connection.execute(self.sql, self.parameters)) as rows:
            for values in rows:
                yield self._encoded(dict(zip(self.columns, values, strict=False)), transfer_syntax_uid)

    def _encoded(self, row: dict[int, object], transfer_syntax_uid: str) -> bytes:
        stored = row.get(_REQUEST_ATTRIBUTES_TAG)
        if isinstance(stored, str):
            row[_REQUEST_ATTRIBUTES_TAG] = matching_items(self.requested, stored, fuzzy_names=self.fuzzy_names)
        if not row.get(TIMEZONE_OFFSET_FROM_UTC, True):
            del row[TIMEZONE_OFFSET_FROM_UTC]  # it shall not be empty
        return encode_answer({**row, **self.constants}, self.character_set, transfer_syntax_uid)


def compile_retrieval(
    identifier: Dataset,
    model: Model,
    *,
    options: QueryOptions = NO_OPTIONS,
    maximum_values: int = DEFAULT_LIMITS.maximum_uids,
) -> Retrieval:
    """Compile the identifier of a C-MOVE or C-GET (PS3.4 §C.4.2.1.4.1, §C.4.3.1.3.1, §Y.4, §Z.4).

    It has unique keys alone: at the level of the retrieval one value or a list of UIDs, above it a single value each, which
    may be missing if relational retrieval was negotiated.

    Args:
        identifier: of the request.
        model: the information model, one with levels.
        options: what was negotiated.
        maximum_values: how many values a key may have.

    Raises:
        DimseError: 0xA900 where the level or a unique key is missing or is not one of the model, or there is a value in any
            other key; 0xC000 where a key cannot be decoded or has too many values.
    """
    check_values(identifier, maximum_values)
    level = _level_of(identifier, model)
    above = model.levels[: model.levels.index(level)]
    allowed = {unique_key(each): each for each in _to(level)}
    keys: dict[str, str | _Items] = {}
    for tag in keys_of(identifier):
        keyword = keyword_for_tag(tag)
        if tag == QUERY_RETRIEVE_LEVEL or not _has_value(identifier, tag):
            continue
        if keyword not in allowed:
            raise DimseError(_DOES_NOT_MATCH_SOP_CLASS, f"{keyword[:30]} is no unique key of this retrieval")
        of = allowed[keyword]
        single = of is not level or of is Level.PATIENT
        keys[keyword] = _single_value(identifier, of, level) if single else checked_text(identifier, tag)
    for each in (level, *(() if options.relational else above)):
        if unique_key(each) not in keys:
            raise DimseError(
                _DOES_NOT_MATCH_SOP_CLASS, f"{unique_key(each)} is missing in a retrieval at level {level}"
            )
    statement = _Statement(level, options)
    statement.match(keys)
    return Retrieval(
        statement.of_instances(_FILE), statement.conditions.parameters, statement.of_instances(_SUBJECT, Level.PATIENT)
    )


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A compiled C-MOVE or C-GET.

    Attributes:
        sql: the statement; it holds no value of the identifier.
        parameters: the values, by name.
        subjects_sql: the same statement, for whose instances these are.
    """

    sql: str
    parameters: Mapping[str, str] = field(repr=False)
    subjects_sql: str = field(repr=False)

    def subjects(self, connection: sqlite3.Connection) -> Iterator[tuple[str, str, str, str]]:
        """Yield SOP Instance UID, Study Instance UID, Patient ID and Patient's Name of each, as `run` does the instances.

        What has no series, and so no study, is not among them.
        """
        with closing(connection.execute(self.subjects_sql, self.parameters)) as rows:
            yield from rows

    def run(self, connection: sqlite3.Connection) -> Iterator[tuple[str, str, str, str, int, int]]:
        """Yield the instances while they are found.

        Each is path, SOP Class UID, SOP Instance UID, Transfer Syntax UID, offset of the data set, size of the file.

        Args:
            connection: one of `Readers`; until the iterator is exhausted or closed, it reads one state of it.

        Raises:
            sqlite3.Error: the index cannot be read.
        """
        with closing(connection.execute(self.sql, self.parameters)) as rows:
            yield from rows


# ---- identifiers


def _level_of(identifier: Dataset, model: Model) -> Level:
    said = checked_text(identifier, QUERY_RETRIEVE_LEVEL)
    if not said:
        raise DimseError(_DOES_NOT_MATCH_SOP_CLASS, "Query/Retrieve Level (0008,0052) is missing")
    if said not in model.levels:
        raise DimseError(_DOES_NOT_MATCH_SOP_CLASS, f"Query/Retrieve Level is none of {', '.join(model.levels)}")
    return Level(said)


def _single_value(identifier: Dataset, of: Level, level: Level) -> str:
    """The one value of the unique key of a level."""
    keyword = unique_key(of)
    text = checked_text(identifier, tag_for_keyword(keyword) or 0)
    if len([value for value in text.split("\\") if value]) != 1 or (
        of is Level.PATIENT and not {"*", "?"}.isdisjoint(text)
    ):
        raise DimseError(_DOES_NOT_MATCH_SOP_CLASS, f"one {keyword} is needed at level {level}")
    return text


def checked_text(identifier: Dataset, tag: int) -> str:
    """Return the text of a key.

    Raises:
        DimseError: 0xC000 where it cannot be decoded, or has too many or too long values.
    """
    try:
        text = text_of(identifier, tag)
    except InvalidInstance as error:
        raise DimseError(_UNABLE_TO_PROCESS, str(error)) from None
    vr = vr_of(tag)
    values = values_of(vr, text)
    if max(map(len, values)) > MAXIMUM_LENGTH:
        raise DimseError(_UNABLE_TO_PROCESS, f"more than {MAXIMUM_LENGTH} characters in {keyword_for_tag(tag)}")
    try:
        check_length(vr, values)
    except InvalidInstance as error:
        raise DimseError(_UNABLE_TO_PROCESS, str(error)) from None
    return text


def check_values(identifier: Dataset, at_most: int) -> None:
    """See that no key has more values than that.

    Raises:
        DimseError: 0xC000: one has.
    """
    for tag in keys_of(identifier):
        if vr_of(tag) == "SQ":
            for item in items_of(identifier, tag):
                check_values(item, at_most)
        elif _multiplicity(identifier.get_item(tag).value) > at_most:
            raise DimseError(_UNABLE_TO_PROCESS, f"more than {at_most} values in {keyword_for_tag(tag)}")


def _multiplicity(value: object) -> int:
    if isinstance(value, bytes):  # as it came
        return value.count(b"\\") + 1
    return len(value) if isinstance(value, Sized) and not isinstance(value, str) else 1


def _item_keys(identifier: Dataset, tag: int) -> _Items:
    return [
        {keyword_for_tag(each): checked_text(item, each) for each in keys_of(item) if vr_of(each) != "SQ"}
        for item in items_of(identifier, tag)
    ]


def _has_value(identifier: Dataset, tag: int) -> bool:
    return bool(items_of(identifier, tag) if vr_of(tag) == "SQ" else checked_text(identifier, tag))


def character_set_of(identifier: Dataset) -> str:
    """Return the Specific Character Set (0008,0005) of an identifier; '' where it has none that is known."""
    text = text_of(identifier, SPECIFIC_CHARACTER_SET, errors="replace")
    return text if text and character_set(text) is not None else ""


def encode_answer(row: Mapping[int, object], character_set: str, transfer_syntax_uid: str) -> bytes:
    """Return an answer encoded: in the character set of the request if that can hold it, else in UTF-8.

    Args:
        row: the attributes by tag.
        character_set: Specific Character Set (0008,0005) of the request; empty where it has none that is known.
        transfer_syntax_uid: one of `aiodicom.dataset.UNCOMPRESSED`.
    """
    if character_set:
        with suppress(InvalidInstance):
            return encode_row({**row, SPECIFIC_CHARACTER_SET: character_set}, transfer_syntax_uid)
    try:
        return encode_row(row, transfer_syntax_uid)
    except InvalidInstance as error:
        _log.warning("a match is answered without an attribute that no answer can hold: %s", error)
        return encode_row(_encodable(row), transfer_syntax_uid)


def _encodable(row: Mapping[int, object]) -> dict[int, object]:
    found: dict[int, object] = dict.fromkeys(row)
    for tag, value in row.items():
        with suppress(InvalidInstance):
            encode_row({tag: value}, EXPLICIT_VR_LITTLE_ENDIAN)
            found[tag] = value
    return found


# ---- SQL


def _to(level: Level) -> tuple[Level, ...]:
    return _LEVELS[: _LEVELS.index(level) + 1]


def _below(level: Level) -> Level:
    return _LEVELS[_LEVELS.index(level) + 1]


def _tables(top: Level, bottom: Level) -> str:
    joined = TABLES[bottom]
    for lower, upper in pairwise(reversed(_LEVELS[_LEVELS.index(top) : _LEVELS.index(bottom) + 1])):
        joined += f" JOIN {TABLES[upper]} ON {TABLES[upper]}.pk = {_parent(lower)}"
    return joined


def _parent(level: Level) -> str:
    return f"{TABLES[level]}.{PARENTS[level]}"


def _stored(keyword: str) -> str:
    """The expression for an attribute."""
    of = _LEVEL_OF[keyword]
    if keyword in _COUNTS:
        child = _below(of)
        return f"(SELECT count(*) FROM {_tables(child, _COUNTS[keyword][1])} WHERE {_parent(child)} = {TABLES[of]}.pk)"
    if keyword in _GATHERED:
        child, gathered = _below(of), _stored(_GATHERED[keyword][1])
        there = _tables(child, _LEVEL_OF[_GATHERED[keyword][1]])
        values = f"SELECT DISTINCT {gathered} AS each FROM {there} WHERE {_parent(child)} = {TABLES[of]}.pk"
        return f"(SELECT group_concat(each, '\\') FROM ({values} AND {gathered} <> '' ORDER BY each))"
    return f"{TABLES[of]}.{'TransferSyntaxUID' if keyword == _AVAILABLE_TRANSFER_SYNTAX else keyword}"


class _Statement:
    """A SELECT of entities of a level: the tables that it needs, and its conditions."""

    def __init__(self, level: Level, options: QueryOptions, zone: str = "") -> None:
        self.level = level
        self.conditions = Conditions(fuzzy_names=options.fuzzy_names, zone=zone if options.timezone else "")
        self._options = options
        self._levels = {level}
        self._where: list[str] = []
        self._is_narrow = False  # whether an index leads to few entities

    def sql(self, columns: Iterable[str]) -> str:
        top = min(self._levels, key=_LEVELS.index)
        return (
            f"SELECT {', '.join(columns) or 1} FROM {_tables(top, self.level)} WHERE {' AND '.join(self._where) or 1}"
        )

    def of_instances(self, columns: str, top: Level = Level.IMAGE) -> str:
        """The statement, for the instances of the entities; `top` is the highest level that the columns need."""
        top = min(*self._levels, top, key=_LEVELS.index)
        return f"SELECT {columns} FROM {_tables(top, Level.IMAGE)} WHERE {' AND '.join(self._where)}"

    def answer(self, keyword: str) -> str:
        """The expression for an attribute that is answered."""
        self._levels.add(_LEVEL_OF[keyword])
        return _stored(keyword)

    def match(self, keys: Mapping[str, str | _Items]) -> None:
        """Add the conditions that keys set."""
        here = {keyword: key for keyword, key in keys.items() if _LEVEL_OF[keyword] in _to(self.level)}
        below = {keyword: key for keyword, key in keys.items() if keyword not in here}
        self._where += [condition for _, condition in self._all(here)]
        self._where += self._any_below(self.level, below)

    def _all(self, keys: Mapping[str, str | _Items]) -> Iterator[tuple[str, str]]:
        """The conditions that keys set to one entity and those above it, each with the keyword of its key."""
        rest = dict(keys)
        tags = {tag_for_keyword(keyword) or 0: keyword for keyword in keys}
        for date, time in pairs_in(tags) if self._options.combined_datetime else ():
            day, clock = tags[date], tags[time]
            condition = self.conditions.on_pair(
                self._column(day), str(keys[day]), self._column(clock), str(keys[clock])
            )
            if condition is not None:
                self._levels.add(_LEVEL_OF[day])
                yield day, condition
                del rest[day], rest[clock]
        for keyword, key in sorted(rest.items(), key=lambda each: each[0] in _GATHERED):
            condition = self._one(keyword, key)
            if condition is not None:
                self._levels.add(_LEVEL_OF[keyword])
                self._is_narrow |= keyword in _INDEXED
                yield keyword, condition

    def _one(self, keyword: str, key: str | _Items) -> str | None:
        if keyword in _GATHERED:
            return next(iter(self._any_below(Level.STUDY, {_GATHERED[keyword][1]: key})), None)
        if keyword == "TimezoneOffsetFromUTC" and self._options.timezone:
            return None
        if isinstance(key, str):
            return self.conditions.on(self._column(keyword), key)
        return self.conditions.on_items(_stored(keyword), key)

    def _any_below(self, level: Level, keys: Mapping[str, str | _Items]) -> list[str]:
        """The condition that among the entities below one of a level, one matches keys; none if they are universal."""
        look_up = not self._is_narrow
        conditions = dict(self._all(keys))
        if not conditions:
            return []
        child = _below(level)
        there = _tables(child, max((_LEVEL_OF[keyword] for keyword in conditions), key=_LEVELS.index))
        where = " AND ".join(conditions.values())
        if look_up and conditions.keys() & _INDEXED.keys():
            return [f"{TABLES[level]}.pk IN (SELECT {_parent(child)} FROM {there} WHERE {where})"]
        return [f"EXISTS (SELECT 1 FROM {there} WHERE {_parent(child)} = {TABLES[level]}.pk AND {where})"]

    def _column(self, keyword: str) -> Column:
        if keyword in _COUNTS:
            return Column(f"CAST({_stored(keyword)} AS TEXT)", "IS")
        if keyword == _AVAILABLE_TRANSFER_SYNTAX:
            return Column(_stored(keyword), "UI")
        attribute = ATTRIBUTES[keyword]
        sql = f"{TABLES[attribute.level]}.{folded(keyword) if attribute.vr == 'PN' else keyword}"
        if self.conditions.zone:
            sql = self._in_zone(attribute, sql)
        return Column(sql, attribute.vr, dictionary_VM(attribute.tag) != "1", _INDEXED.get(keyword, ""))

    def _in_zone(self, attribute: Attribute, sql: str) -> str:
        """A date or time as it is with the offset from UTC of the identifier."""
        offset, pair = _stored("TimezoneOffsetFromUTC"), pair_of(attribute.tag)
        if attribute.vr == "DT":
            self._levels.add(Level.STUDY)
            return f"DT_in_zone({sql}, {offset})"
        names = [keyword_for_tag(tag) for tag in pair or ()]
        if not ATTRIBUTES.keys() >= set(names) or not names or attribute.tag in IN_NO_ZONE:
            return sql
        self._levels.add(Level.STUDY)
        date, time = map(_stored, names)
        return f"{attribute.vr}_in_zone({date}, {time}, {offset}, {self.conditions.bind(self.conditions.zone)})"
