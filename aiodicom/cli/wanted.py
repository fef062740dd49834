"""What is to be retrieved: what `-k` and a query file name, or each line of a list that `aiodicom find` has printed."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiodicom.cli.queries import level_in, level_said, with_keys
from aiodicom.cli.query_files import STANDARD_INPUT, parse_query, read_input, text_of_list
from aiodicom.errors import InvalidInstance, LocalProtocolError
from aiodicom.part10 import valid_uid
from aiodicom.query import Level, Model, choose_model, level_of, make_retrieval, unique_key

if TYPE_CHECKING:
    from pydicom import Dataset

FORMS: Final = """\
KEY is a unique key: StudyInstanceUID=…, SeriesInstanceUID=…, SOPInstanceUID=…, PatientID=…; name
the level that is wanted and those above it. FILE is a query (a DICOM file, or a dump such as
dump2dcm takes), or a list: UIDs, one a line, or what aiodicom find prints into a pipe. - is
standard input:
  aiodicom find PEER -k PatientName='A*' | {command} -"""

_TAGS: Final = {Level.PATIENT: "00100020", Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.IMAGE: "00080018"}
_LEVEL_TAG: Final = "00080052"
_ALLOWED: Final = ("QueryRetrieveLevel", "SpecificCharacterSet", *map(unique_key, Level))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one C-GET or C-MOVE asks for.

    Args:
        identifier: as it goes out.
        model: for which information model.
    """

    identifier: Dataset = field(repr=False)
    model: Model

    def __str__(self) -> str:
        key = unique_key(self.level)
        return f"{key} {self.identifier.get(key)}"

    @property
    def level(self) -> Level:
        """At which level."""
        return Level(self.identifier.QueryRetrieveLevel)

    @property
    def lacking(self) -> list[str]:
        """The unique keys of the levels above that it does not name, though most peers want them."""
        above = self.model.levels[: self.model.levels.index(self.level)]
        return [unique_key(each) for each in above if not self.identifier.get(unique_key(each))]

    @property
    def ignored(self) -> list[str]:
        """The keywords of its keys that a retrieval does not choose by (PS3.4 §C.4.2.1.4)."""
        return [element.keyword for element in self.identifier if element.value and element.keyword not in _ALLOWED]


def wanted_of(options: Namespace, file: Path | None) -> tuple[Wanted, ...]:
    """Return what `-k` and the file say, by default at the level of the lowest UID; of a list, each line, and once.

    Raises:
        ValueError: a key, or two together, cannot be asked for.
        LocalProtocolError: neither can the level, or its unique key is missing.
        InvalidInstance: the file is no query, and no list.
        OSError: it cannot be read.
    """
    from pydicom import Dataset

    if file is None:
        return (_wanted(options, Dataset()),)
    data = read_input(file)
    text = text_of_list(data)
    if text is None:
        return (_wanted(options, parse_query(data, file)),)
    name = "standard input" if file == STANDARD_INPUT else str(file)
    found: dict[tuple[str, ...], Wanted] = {}
    for keys in _lines(text, name, options):
        if tuple(keys.values()) not in found:
            base = Dataset()
            for keyword, value in keys.items():
                setattr(base, keyword, value)
            found[tuple(keys.values())] = _wanted(options, base)
    return tuple(found.values())


def _wanted(options: Namespace, base: Dataset) -> Wanted:
    level = level_said(options, options.keys) or level_in(base)
    identifier = with_keys(base, options.keys)
    if level is None:
        level = next((each.value for each in reversed(Level) if identifier.get(unique_key(each))), None)
    model = choose_model(options.model, level)
    if level is None and model.levels:
        raise ValueError("name what to retrieve: -k StudyInstanceUID=…, or another unique key")
    return Wanted(make_retrieval(identifier, model=model, level=level, keys={}), model)


def _lines(text: str, name: str, options: Namespace) -> Iterator[dict[str, str]]:
    """Yield the level and the unique keys that each line of a list names."""
    said = level_said(options, options.keys)
    level = level_of(said) if said else None
    for number, line in enumerate(text.splitlines(), 1):
        if not (line := line.strip()):
            continue
        try:
            yield _of_json(line, level, options.model) if line.startswith("{") else _of_uid(line, level or Level.STUDY)
        except (ValueError, LocalProtocolError) as error:
            raise InvalidInstance(f"{name}, line {number}: {error}") from None


def _of_uid(line: str, level: Level) -> dict[str, str]:
    if level is not Level.PATIENT and not valid_uid(line):
        raise ValueError("is no UID")
    return {"QueryRetrieveLevel": level.value, unique_key(level): line}


def _of_json(line: str, level: Level | None, model: str | None) -> dict[str, str]:
    """Return what a match says of itself, in the DICOM JSON Model (PS3.18 §F.2)."""
    try:
        match: Mapping[str, Any] = json.loads(line)
        values = {each: _text(match, tag) for each, tag in _TAGS.items()}
        said = _text(match, _LEVEL_TAG)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
        raise ValueError("is no match, as aiodicom find prints one") from None
    at = level or (level_of(said) if said else next((each for each in reversed(Level) if values[each]), None))
    if at is None or not values[at]:
        raise ValueError(f"names no {unique_key(at or Level.STUDY)}")
    levels = choose_model(model, at).levels
    above = levels[: levels.index(at)] if at in levels else ()
    return {"QueryRetrieveLevel": at.value, **{unique_key(each): values[each] for each in (*above, at) if values[each]}}


def _text(model: Mapping[str, Any], tag: str) -> str:
    value = model.get(tag, {}).get("Value", [""])[0]
    return value if isinstance(value, str) else ""
