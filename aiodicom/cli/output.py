"""Matches on standard output, one by one as they come: `--output table|tree|json|csv|dump|uids`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final, Protocol

from aiodicom.cli.columns import Columns
from aiodicom.cli.console import bold, say
from aiodicom.cli.keys import Key, parse_key
from aiodicom.cli.options import Parser
from aiodicom.cli.queries import Query
from aiodicom.cli.tree import Tree
from aiodicom.cli.values import json_of, legible, readable, written
from aiodicom.logs import printable
from aiodicom.query import unique_key

if TYPE_CHECKING:
    from pydicom import Dataset

ROWS_AT_ONCE: Final = 100
"""How many rows of a table are gathered before its columns are made as wide as these need."""

_NUMBERS: Final = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "UL", "US"})
_TIMES: Final = frozenset({"AS", "DA", "DT", "TM"})
# Headings that are shorter than the keyword; what they count is plain from the level.
_HEADINGS: Final = {
    "ModalitiesInStudy": "Modalities",
    "NumberOfPatientRelatedStudies": "Studies",
    "NumberOfPatientRelatedSeries": "Series",
    "NumberOfPatientRelatedInstances": "Instances",
    "NumberOfStudyRelatedSeries": "Series",
    "NumberOfStudyRelatedInstances": "Instances",
    "NumberOfSeriesRelatedInstances": "Instances",
    "ScheduledProcedureStepStartDate": "StartDate",
    "ScheduledProcedureStepStartTime": "StartTime",
    "ScheduledStationAETitle": "Station",
}


class Output(Protocol):
    """Where matches are printed; those that inherit from it print each as it comes."""

    def show(self, match: Dataset) -> None:
        """Take a match, and print it now or later.

        Raises:
            OutputFailed: standard output cannot be written.
        """

    def flush(self) -> None:
        """Print what can be printed already, since the peer lets us wait.

        Raises:
            OutputFailed: standard output cannot be written.
        """
        return

    def end(self) -> None:
        """Print what is left.

        Raises:
            OutputFailed: standard output cannot be written.
        """
        return


def add_output(parser: Parser) -> None:
    """Add `--output`."""
    parser.add_argument(
        "--output", metavar="FORM", choices=FORMS, help=f"{', '.join(FORMS)} (table on a terminal, json elsewhere)"
    )


def output_of(form: str | None, query: Query) -> Output:
    """Return where the matches of a query go, by default as standard output is a terminal or not.

    Raises:
        ValueError: they cannot be shown in that form.
    """
    return FORMS[form or ("table" if sys.stdout.isatty() else "json")](query)


class Table:
    """Aligned columns, readable values; on a terminal as wide as that is.

    Rows are gathered until there are enough to know how wide the columns are, and printed as they come from then on.
    """

    def __init__(self, query: Query) -> None:
        self._keys = query.columns
        self._headings = [_heading(key) for key in self._keys]
        self._rows: list[list[str]] = []
        self._columns: Columns | None = None

    def show(self, match: Dataset) -> None:
        """Gather its row, or print it."""
        row = [readable(match, key) for key in self._keys]
        if self._columns is not None:
            say(self._columns.line(row))
            return
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self._begin()

    def flush(self) -> None:
        """Print the rows that were gathered."""
        if self._columns is None and self._rows:
            self._begin()

    def end(self) -> None:
        """Print the rows that were gathered."""
        self.flush()

    def _begin(self) -> None:
        room = get_terminal_size().columns if sys.stdout.isatty() else None
        right, whole = (
            {index for index, key in enumerate(self._keys) if key.vr in vrs} for vrs in (_NUMBERS, _NUMBERS | _TIMES)
        )
        columns = Columns([self._headings, *self._rows], room, right=right, whole=whole)
        say("\n".join((bold(columns.line(self._headings)), *map(columns.line, self._rows))))
        self._columns = columns


def _heading(key: Key) -> str:
    keyword = key.keyword.rpartition(".")[2]
    return _HEADINGS.get(keyword, keyword)


class Json(Output):
    """JSON Lines: each match an object of the DICOM JSON Model (PS3.18 Annex F)."""

    def __init__(self) -> None:
        self._escape = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"

    def show(self, match: Dataset) -> None:
        """Print it."""
        text = json.dumps(json_of(match), ensure_ascii=self._escape)
        say(text if text.isprintable() else "".join(map(_escaped, text)))


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


class Csv(Output):
    """Comma-separated values as they were sent, below a line with their keywords."""

    def __init__(self, query: Query) -> None:
        self._keys = query.columns
        self._has_header = False

    def show(self, match: Dataset) -> None:
        """Print it."""
        self._say_header()
        values = [written(match, key) for key in self._keys]
        _say_csv(list(map(printable, values)) if sys.stdout.isatty() else values)

    def end(self) -> None:
        """Print the header if nothing came."""
        self._say_header()

    def _say_header(self) -> None:
        if not self._has_header:
            self._has_header = True
            _say_csv([key.keyword for key in self._keys])


def _say_csv(values: Sequence[str]) -> None:
    line = StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)  # which makes it quote either
    say(line.getvalue().removesuffix("\r\n"))


class Dump(Output):
    """pydicom's text of each match, an empty line between two."""

    def __init__(self) -> None:
        self._is_first = True

    def show(self, match: Dataset) -> None:
        """Print it."""
        if not self._is_first:
            say("")
        self._is_first = False
        say("\n".join(map(printable, str(legible(match)).split("\n"))))


class Uids(Output):
    """The unique key of each match, a line each, for pipes."""

    def __init__(self, query: Query) -> None:
        if query.level is None:
            raise ValueError("what is on a worklist has no unique key: choose another --output")
        self._key = parse_key(unique_key(query.level))

    def show(self, match: Dataset) -> None:
        """Print it, if there is one."""
        if value := written(match, self._key):
            say(printable(value))


FORMS: Final[Mapping[str, Callable[[Query], Output]]] = {
    "table": Table,
    "tree": Tree,
    "json": lambda _: Json(),
    "csv": Csv,
    "dump": lambda _: Dump(),
    "uids": Uids,
}
