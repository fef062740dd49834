"""Only a clock that never jumps decides about a deadline: `loop.time()`, `time.monotonic()`, `time.perf_counter()` (F11)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent / "aiodicom"
OF_THE_WALL: Final = frozenset(
    {"time", "time_ns", "ctime", "localtime", "gmtime", "strftime", "asctime", "clock_gettime", "clock_gettime_ns"}
)
NOW: Final = frozenset({"now", "utcnow", "today"})
# What tells a person, a file or an auditor when something was; no deadline is made of it.
TOLD: Final = frozenset(
    {
        "association.py",
        "audit/messages.py",
        "cli/status.py",
        "cli/view.py",
    }
)


def uses(source: str) -> Iterator[tuple[int, str]]:
    """The line and the name of each look at the clock on the wall."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr=name) if name in OF_THE_WALL:
                yield node.lineno, f"time.{name}"
            case ast.ImportFrom(module="time", names=names):
                yield from ((node.lineno, f"time.{each.name}") for each in names if each.name in OF_THE_WALL)
            case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name) if name in NOW:
                yield node.lineno, f"datetime.{name}"
            case ast.Attribute(value=ast.Attribute(attr="datetime" | "date"), attr=name) if name in NOW:
                yield node.lineno, f"datetime.{name}"


def test_nothing_else_looks_at_the_clock_on_the_wall() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{line}: {name}"
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).as_posix() not in TOLD
        for line, name in uses(path.read_text(encoding="utf-8"))
    }
    assert found == set(), "use loop.time() or time.monotonic(); or say in TOLD that no deadline is made of it"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import time\ndeadline = time.time() + 5", "time.time"),
        ("from time import time", "time.time"),
        ("from datetime import datetime\ndatetime.now()", "datetime.now"),
        ("import datetime\ndatetime.datetime.utcnow()", "datetime.utcnow"),
        ("from datetime import date\ndate.today()", "datetime.today"),
    ],
)
def test_a_planted_look_is_found(source: str, name: str) -> None:
    assert [found for _, found in uses(source)] == [name]


@pytest.mark.parametrize("source", ["import time\ntime.monotonic()", "loop.time()", "self._loop.time()"])
def test_other_clocks_may_be_looked_at(source: str) -> None:
    assert list(uses(source)) == []
