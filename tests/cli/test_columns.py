"""Text in aligned columns."""

from __future__ import annotations

import pytest

from aiodicom.cli.columns import Columns, cut, width


@pytest.mark.parametrize(
    ("text", "cells"),
    [("", 0), ("Doe^John", 8), ("Müller", 6), ("Mu\u0308ller", 6), ("山田^太郎", 9), ("ﾔﾏﾀﾞ", 4), ("ทํา", 2)],
)
def test_widths(text: str, cells: int) -> None:
    assert width(text) == cells


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("Abdomen", 7, "Abdomen"),
        ("Abdomen", 6, "Abdom…"),
        ("山田太郎", 8, "山田太郎"),
        ("山田太郎", 7, "山田太…"),
        ("山田太郎", 6, "山田…"),
        ("1.2.840.10008.5.1.4", 9, "…08.5.1.4"),
        ("021234567", 8, "0212345…"),
        ("1.2.840.10008.5.1.4", 19, "1.2.840.10008.5.1.4"),
    ],
)
def test_cutting(text: str, limit: int, expected: str) -> None:
    assert cut(text, limit) == expected
    assert width(expected) <= limit


ROWS = [("NAME", "NUMBER"), ("Doe", "1"), ("山田", "22")]


def test_lines() -> None:
    columns = Columns(ROWS)
    assert [columns.line(row) for row in ROWS] == ["NAME  NUMBER", "Doe   1", "山田  22"]
    assert columns.rule() == "────  ──────"


def test_the_widest_is_cut_where_there_is_no_room() -> None:
    row = ("a" * 30, "b" * 20, "short")
    assert Columns([row], 60).line(row) == "  ".join(row)
    line = Columns([row], 45).line(row)
    assert line == f"{'a' * 17}…  {'b' * 17}…  short"
    assert Columns([row], 1).line(row) == "aaaaaaa…  bbbbbbb…  short"


def test_some_are_not_cut() -> None:
    row = ("a" * 30, "b" * 20, "2024-12-31")
    assert Columns([row], 1, whole={2}).line(row) == "aaaaaaa…  bbbbbbb…  2024-12-31"


def test_what_comes_later_and_is_too_long() -> None:
    assert Columns([("a", "b")]).line(("too long", "c")) == "too long  c"
    assert Columns([("heading", "b")], 80).line(("too long", "c")) == "too lo…  c"


def test_numbers_stand_at_the_right() -> None:
    columns = Columns(ROWS, right={1})
    assert [columns.line(row) for row in ROWS] == ["NAME  NUMBER", "Doe        1", "山田      22"]


def test_nothing() -> None:
    assert Columns([]).widths == []
    assert Columns([()], 10).line(()) == ""


def test_a_giant() -> None:
    assert Columns([("x" * 10_000_000, "y")], 20).widths == [17, 1]
