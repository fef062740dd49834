# ruff: noqa: S608 - statements are made of names of ours; values are parameters
"""What a matcher says, as an SQL condition (PS3.4 §C.2.2.2). Values are parameters, never part of the statement.

SQLite compares where that is the same as matching. About the other rows, such as names of several component groups, it asks
functions of ours, which ask the very matcher.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydicom.datadict import tag_for_keyword

from aiodicom.services.matchers import (
    Matcher,
    Moments,
    Names,
    OneOf,
    Range,
    Wildcards,
    combined,
    in_zone,
    matcher,
    pair_in_zone,
)
from aiodicom.services.matching import vr_of

__all__ = ["COMPOUND", "Column", "Conditions", "add_functions", "matching_items"]

COMPOUND: Final = r"GLOB '*[=\]*'"
"""Holds for a folded name of several component groups, or for several names; as an index of them is declared by it."""

_SEVERAL: Final = r"GLOB '*\*'"
_DAY: Final = "[0-9]" * 8
_MAXIMUM_ALTERNATIVES: Final = 100  # SQLite bounds the depth of an expression, and the parts of a UNION
_LAST: Final = "\U0010ffff"  # is greater than any other character


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the index that a key is matched against.

    Args:
        sql: the expression; of a person name, the folded column.
        vr: its value representation.
        several: whether it may have several values.
        table: the one that has an index by it, if there is one.
    """

    sql: str
    vr: str
    several: bool = False
    table: str = ""


class Conditions:
    """Makes conditions, and collects their parameters.

    Args:
        fuzzy_names: whether fuzzy semantic matching of person names was negotiated.
        zone: the offset from UTC of dates and times in the keys, if it was negotiated that this counts.
    """

    def __init__(self, *, fuzzy_names: bool = False, zone: str = "") -> None:
        self.parameters: dict[str, str] = {}
        self.zone = zone
        self._fuzzy_names = fuzzy_names

    def bind(self, value: str) -> str:
        """Return the parameter that has this value."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"

    def on(self, column: Column, key: str) -> str | None:
        """Return the condition that a key sets to a column; None for universal matching."""
        if column.vr == "DT":
            key = in_zone(key, self.zone)
        test = matcher(column.vr, key, fuzzy_names=self._fuzzy_names)
        if _alternatives(test) > _MAXIMUM_ALTERNATIVES:
            return self._asked(column, key)
        match test:
            case None:
                return None
            case OneOf(values):
                plain = self._equals(column, values)
            case Wildcards(patterns):
                plain = _either(self._like(column.sql, pattern) for pattern in patterns)
            case Moments("DA", ranges):
                plain = _either(f"{self._within(column.sql, each)} AND {column.sql} GLOB '{_DAY}'" for each in ranges)
            case Moments(_, ranges) if all(each.zone is None for each in ranges):
                within = _either(self._within(column.sql, each) for each in ranges)
                plain = f"{within} AND {self._asked(column, key)}"
            case Names(names):
                return self._name(column, key, names)
            case _:
                return f"({column.sql} <> '' AND {self._asked(column, key)})"
        if column.several:
            asked = f"{column.sql} {_SEVERAL} AND {self._asked(column, key)}"
            return _either((f"{plain} AND NOT {column.sql} {_SEVERAL}", asked))
        return f"({plain})"

    def on_pair(self, date: Column, date_key: str, time: Column, time_key: str) -> str | None:
        """Return the condition that the keys for a date and its time set together; None if they are not to be combined."""
        moments = combined(date_key, time_key)
        if moments is None:
            return None
        days = _either(self._within(date.sql, Range(low[:8], high[:8])) for low, high, _ in moments.ranges)
        keys = f"{self.bind(date_key)}, {self.bind(time_key)}"
        return f"({days} AND matches_pair({keys}, {date.sql}, {time.sql}))"

    def on_items(self, sql: str, items: Iterable[Mapping[str, str]]) -> str | None:
        """Return the condition that the items of a key set to a column of JSON: of one all text keys have to match.

        Args:
            sql: the column.
            items: the keys in each item, by keyword.
        """
        asked = [{keyword: key for keyword, key in item.items() if _matcher(_vr(keyword), key, 0)} for item in items]
        if not all(asked) or not asked:
            return None
        return f"matches_items({self.bind(json.dumps(asked))}, {int(self._fuzzy_names)}, {sql})"

    def _asked(self, column: Column, key: str) -> str:
        return f"matches_key('{column.vr}', {self.bind(key)}, {int(self._fuzzy_names)}, {column.sql})"

    def _equals(self, column: Column, values: Iterable[str]) -> str:
        found = sorted(values)
        if len(found) > 1:
            equal = f"IN (SELECT value FROM json_each({self.bind(json.dumps(found))}))"
        else:
            equal = f"= {self.bind(found[0])}"
        return f"{column.sql} {equal} AND {column.sql} <> ''"  # so that an index without empty values can be used

    def _like(self, sql: str, pattern: str) -> str:
        prefix, *wild = re.split(r"[*?]", pattern, maxsplit=1)
        if not wild:
            return f"{sql} = {self.bind(pattern)}"
        glob = f"{sql} GLOB {self.bind(pattern.replace('[', '[[]'))}"
        return f"{self._within(sql, Range(prefix, prefix + _LAST))} AND {glob}" if prefix else glob

    def _within(self, sql: str, bounds: Range) -> str:
        ends = [f"{sql} >= {self.bind(bounds.low)}"] if bounds.low else []
        ends += [f"{sql} <= {self.bind(bounds.high)}"] if bounds.high else []
        return " AND ".join(ends)

    def _name(self, column: Column, key: str, names: Iterable[tuple[tuple[str, ...], ...]]) -> str:
        # What has one component group is compared by SQLite; a key of several asks about all names.
        compound = f"{column.sql} {COMPOUND} AND {self._asked(column, key)}"
        patterns = [pattern for name in names for pattern in name[0] if len(name) == 1]
        if any(len(name) > 1 for name in names):
            return f"({column.sql} <> '' AND {self._asked(column, key)})"
        plain = [f"{self._like(column.sql, pattern)} AND NOT {column.sql} {COMPOUND}" for pattern in patterns]
        if not column.table or any(pattern.startswith(("*", "?")) for pattern in patterns):
            return _either((*plain, compound))
        # An OR, SQLite would look up in no index.
        looked_up = (f"SELECT pk FROM {column.table} WHERE {condition}" for condition in (*plain, compound))
        return f"{column.table}.pk IN ({' UNION ALL '.join(looked_up)})"


def _alternatives(test: Matcher | None) -> int:
    """How many conditions a matcher would become."""
    match test:
        case Wildcards(patterns):
            return len(patterns)
        case Moments(_, ranges):
            return len(ranges)
        case Names(names):
            return sum(len(patterns) for name in names for patterns in name)
    return 0


def _either(conditions: Iterable[str]) -> str:
    return f"({' OR '.join(f'({condition})' for condition in conditions)})"


# ---- functions of ours in SQL


def add_functions(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that conditions ask."""
    for name, (arguments, function) in _FUNCTIONS.items():
        connection.create_function(name, arguments, function, deterministic=True)


def matching_items(
    items: Iterable[Mapping[str, str]], stored: str, *, fuzzy_names: bool = False
) -> list[dict[str, str]]:
    """Return the items of a column of JSON that match a key, each with the attributes that the key asks for.

    Args:
        items: the keys in each item, by keyword; without any, whole items are returned.
        stored: a list of objects, text by keyword.
        fuzzy_names: whether fuzzy semantic matching of person names was negotiated.
    """
    asked = [item for item in items if item]
    there: list[dict[str, str]] = json.loads(stored or "[]")
    if not asked:
        return there
    fitting = ((item, next((keys for keys in asked if _fits(keys, item, fuzzy_names)), None)) for item in there)
    return [{keyword: item.get(keyword, "") for keyword in keys} for item, keys in fitting if keys is not None]


def _fits(keys: Mapping[str, str], item: Mapping[str, str], fuzzy_names: bool) -> bool:
    return all(_matches_key(_vr(keyword), key, fuzzy_names, item.get(keyword, "")) for keyword, key in keys.items())


def _vr(keyword: str) -> str:
    return vr_of(tag_for_keyword(keyword) or 0)


@lru_cache(maxsize=512)
def _matcher(vr: str, key: str, fuzzy_names: int) -> Matcher | None:
    return matcher(vr, key, fuzzy_names=bool(fuzzy_names))


@lru_cache(maxsize=64)
def _combined(date_key: str, time_key: str) -> Moments | None:
    return combined(date_key, time_key)


def _matches_key(vr: str, key: str, fuzzy_names: int, stored: str) -> bool:
    test = _matcher(vr, key, fuzzy_names)
    return test is None or test(stored)


def _matches_pair(date_key: str, time_key: str, date: str, time: str) -> bool:
    moments = _combined(date_key, time_key)
    return moments is None or (len(date) == len("YYYYMMDD") and moments(date + time))


def _matches_items(items: str, fuzzy_names: int, stored: str) -> bool:
    return bool(matching_items(json.loads(items), stored, fuzzy_names=bool(fuzzy_names)))


def _date_in_zone(date: str, time: str, stored: str, wanted: str) -> str:
    return pair_in_zone(date, time, stored, wanted)[0]


def _time_in_zone(date: str, time: str, stored: str, wanted: str) -> str:
    return pair_in_zone(date, time, stored, wanted)[1]


_FUNCTIONS: Final[Mapping[str, tuple[int, Callable[..., Any]]]] = {
    "matches_key": (4, _matches_key),
    "matches_pair": (4, _matches_pair),
    "matches_items": (3, _matches_items),
    "DA_in_zone": (4, _date_in_zone),
    "TM_in_zone": (4, _time_in_zone),
    "DT_in_zone": (2, in_zone),
}
