"""The index matches what `aiodicom.services.matching` does: small archives and queries made up by hypothesis."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from aiodicom.archive.attributes import ATTRIBUTES
from aiodicom.archive.conditions import add_functions
from aiodicom.archive.query import INDEXES, compile_query
from aiodicom.archive.schema import PARENTS, TABLES, create, folded
from aiodicom.dataset import decode_data_set
from aiodicom.query import MODELS, Level, QueryOptions, unique_key
from aiodicom.rows import encode_row
from aiodicom.services.matching import fold_name, matches
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

Row = dict[str, str]


def text(alphabet: str, max_size: int = 4) -> st.SearchStrategy[str]:
    return st.text(alphabet, max_size=max_size).map(str.strip)


def several(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map("\\".join).map(lambda joined: joined.strip("\\"))


WORDS: Final = text("aAb[*?]")
SENTENCES: Final = text("aäÄ\\*? ").map(str.rstrip)  # of VR LT
NAMES: Final = text("aAäÄß^= ", 6)
NUMBERS: Final = st.sampled_from(["", "1", "01", "+1", "1.0", "10", "x"])
DATES: Final = st.sampled_from(["", "20231231", "20240101", "20240102", "20240229", "2024", "x"])
TIMES: Final = st.sampled_from(
    ["", "00", "0000", "000000", "0000000", "1030", "103000", "103000.5", "103000.50", "2359", "x"]
)
ZONES: Final = st.sampled_from(["", "+0100", "-0500", "+0530", "x"])
MOMENTS: Final = st.sampled_from(
    ["", "2023", "202401", "20240101", "20240101103000", "20240101103000.5", "20240101103000-0500", "2024+0100", "x"]
)

STORED: Final[Mapping[Level, Mapping[str, st.SearchStrategy[str]]]] = {
    Level.PATIENT: {
        "PatientName": NAMES,
        "PatientBirthDate": DATES,
        "PatientBirthTime": TIMES,
        "OtherPatientIDs": several(WORDS),
        "PatientComments": SENTENCES,
    },
    Level.STUDY: {
        "StudyDate": DATES,
        "StudyTime": TIMES,
        "AccessionNumber": WORDS,
        "NameOfPhysiciansReadingStudy": several(NAMES),
        "PatientWeight": NUMBERS,
        "TimezoneOffsetFromUTC": ZONES,
    },
    Level.SERIES: {"Modality": WORDS, "SeriesNumber": NUMBERS, "OperatorsName": several(NAMES), "SeriesTime": TIMES},
    Level.IMAGE: {"ImageType": several(WORDS), "AcquisitionDateTime": MOMENTS, "ContentTime": TIMES},
}


def ranges(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return values | st.tuples(values, values).map("-".join)


KEYS: Final[Mapping[str, st.SearchStrategy[str]]] = {
    "AE": several(WORDS),
    "CS": several(WORDS),
    "SH": several(WORDS),
    "LO": several(WORDS),
    "LT": SENTENCES,
    "PN": several(text("aAäÄß^=*? ", 6)),
    "DA": ranges(DATES),
    "TM": ranges(TIMES),
    "DT": ranges(MOMENTS),
    "DS": NUMBERS,
    "IS": NUMBERS,
}


def near(value: str) -> st.SearchStrategy[str]:
    """Keys that match that value, or nearly so."""
    single = st.sampled_from([value, *value.split("\\"), *value.split("=")])
    cut = st.integers(0, max(len(value) - 1, 0))
    return st.one_of(
        single,
        single.map(str.swapcase),
        single.map(lambda one: f"{one}^"),
        single.map(lambda one: f"={one}"),
        single.map(lambda one: f"{one}\\x"),
        cut.map(lambda at: f"{value[:at]}*"),
        cut.map(lambda at: f"*{value[at:]}"),
        cut.map(lambda at: f"{value[:at]}?{value[at + 1 :]}"),
        cut.map(lambda at: f"{value[:at]}*{value[at + 1 :]}"),
        cut.map(lambda at: value[: at // 2 * 2]),
        st.sampled_from([f"-{value}", f"{value}-", f"{value}-{value}", f"{value[:2]}-{value}", f"{value[:4]}-{value}"]),
    )


def key_of(keyword: str, rows: Sequence[Row]) -> st.SearchStrategy[str]:
    """A key, mostly one near to what is stored."""
    if keyword == "TimezoneOffsetFromUTC":
        return ZONES
    made_up = KEYS["CS" if keyword == "ModalitiesInStudy" else ATTRIBUTES[keyword].vr]
    stored = sorted({row.get(keyword, "") for row in rows} - {""})
    return st.one_of(st.sampled_from(stored).flatmap(near), made_up) if stored else made_up


def keys_to(level: Level, rows: Sequence[Row]) -> st.SearchStrategy[Row]:
    """A few keys of a level and those above it."""
    there = [keyword for each in list(Level)[: list(Level).index(level) + 1] for keyword in STORED[each]]
    if level is not Level.PATIENT:
        there.append("ModalitiesInStudy")
    return st.lists(st.sampled_from(there), max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({keyword: key_of(keyword, rows) for keyword in chosen})
    )


def entities(level: Level) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries({}, optional=dict(STORED[level]))


Tree = tuple[Row, list[Any]]


def trees(level: Level) -> st.SearchStrategy[Tree]:
    """An entity, and what is below it."""
    if level is Level.IMAGE:
        return st.tuples(entities(level), st.just([]))
    below = list(Level)[list(Level).index(level) + 1]
    return st.tuples(entities(level), st.lists(trees(below), min_size=1, max_size=2))


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        add_functions(made)
        create(made, indexes=INDEXES)
        yield made


def insert(connection: sqlite3.Connection, level: Level, tree: Tree, numbers: Iterator[int], parent: int = 0) -> None:
    row, below = tree
    number = next(numbers)
    columns: dict[str, str | int] = {"pk": number, unique_key(level): f"1.{number}", **row}
    columns |= {folded(keyword): fold_name(name) for keyword, name in row.items() if ATTRIBUTES[keyword].vr == "PN"}
    if level in PARENTS:
        columns[PARENTS[level]] = parent
    if level is Level.IMAGE:
        columns |= {"TransferSyntaxUID": "1.2", "path": "x", "data_set_offset": 0, "size": 0}
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {TABLES[level]} ({names}) VALUES ({marks})", tuple(columns.values()))
    for each in below:
        insert(connection, list(Level)[list(Level).index(level) + 1], each, numbers, number)


def merged(level: Level, tree: Tree, at: Level, numbers: Iterator[int], above: Row) -> Iterator[Row]:
    """The entities of a level as they are numbered by `insert`, each with what those above it have."""
    row = {**above, **tree[0], unique_key(at): f"1.{next(numbers)}"}
    if at is Level.STUDY:
        row["ModalitiesInStudy"] = "\\".join({series[0].get("Modality", "") for series in tree[1]} - {""})
    if at is level:
        yield row
    for each in tree[1]:
        yield from merged(level, each, list(Level)[list(Level).index(at) + 1], numbers, row)


def data_set(row: Mapping[str, str]) -> Dataset:
    return decode_data_set(encode_row(row, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)


def check(
    connection: sqlite3.Connection, level: Level, patients: Sequence[Tree], keys: Row, options: QueryOptions
) -> None:
    """The index finds the entities of a level whose data sets match."""
    identifier = data_set({**keys, "QueryRetrieveLevel": level.value})
    rows = rows_of(patients, level)
    expected = [row[unique_key(level)] for row in rows if matches(identifier, data_set(row), options=options)]
    asked = data_set({**keys, "QueryRetrieveLevel": level.value, unique_key(level): keys.get(unique_key(level), "")})
    connection.execute("BEGIN")
    try:
        numbers = count(1)
        for tree in patients:
            insert(connection, Level.PATIENT, tree, numbers)
        found = compile_query(asked, MODELS["patient"], options=options).run(connection, EXPLICIT_VR_LITTLE_ENDIAN)
        uids = [str(decode_data_set(each, EXPLICIT_VR_LITTLE_ENDIAN)[unique_key(level)].value) for each in found]
    finally:
        connection.execute("ROLLBACK")
    assert sorted(uids) == sorted(expected)


def rows_of(patients: Sequence[Tree], level: Level) -> list[Row]:
    numbers = count(1)
    return [row for tree in patients for row in merged(level, tree, Level.PATIENT, numbers, {})]


OPTIONS: Final = st.builds(
    QueryOptions,
    relational=st.just(True),
    combined_datetime=st.booleans(),
    fuzzy_names=st.booleans(),
    timezone=st.booleans(),
)


@pytest.mark.parametrize("level", list(Level))
@given(data=st.data(), options=OPTIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_several_keys_over_all_levels(
    connection: sqlite3.Connection, level: Level, data: st.DataObject, options: QueryOptions
) -> None:
    patients = data.draw(st.lists(trees(Level.PATIENT), min_size=1, max_size=2), label="patients")
    keys = data.draw(keys_to(level, rows_of(patients, level)), label="keys")
    check(connection, level, patients, keys, options)


# An attribute by itself, or with that which it goes with.
TOGETHER: Final = (
    *((keyword,) for of_level in STORED.values() for keyword in of_level if keyword != "TimezoneOffsetFromUTC"),
    ("StudyDate", "StudyTime"),
    ("StudyDate", "StudyTime", "TimezoneOffsetFromUTC"),
    ("AcquisitionDateTime", "TimezoneOffsetFromUTC"),
    ("PatientBirthDate", "PatientBirthTime", "TimezoneOffsetFromUTC"),
)


@pytest.mark.parametrize("keywords", TOGETHER, ids="-".join)
@given(data=st.data(), options=OPTIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_attribute_after_the_other(
    connection: sqlite3.Connection, keywords: tuple[str, ...], data: st.DataObject, options: QueryOptions
) -> None:
    stored = {keyword: STORED[ATTRIBUTES[keyword].level][keyword] for keyword in keywords}
    rows = data.draw(st.lists(st.fixed_dictionaries(stored), min_size=1, max_size=4), label="stored")
    keys = {keyword: data.draw(key_of(keyword, rows), label=keyword) for keyword in keywords}
    patients = []
    for row in rows:
        tree: Tree = ({}, [])
        for level in reversed(Level):
            here = {keyword: value for keyword, value in row.items() if ATTRIBUTES[keyword].level is level}
            tree = (here, [tree] if level is not Level.IMAGE else [])
        patients.append(tree)
    check(connection, Level.IMAGE, patients, keys, options)
