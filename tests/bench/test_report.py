"""What the benchmark says of a run, and what a saved run brings back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.report import markdown
from bench.results import Report, UnknownFormat
from tests.bench.reports import report


def rows(table: str, words: str) -> list[list[str]]:
    """The cells of the rows of a table that have these words."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if words in line]


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    [row] = rows(markdown(report()), "2 × DCMTK")
    assert row == ["39 KB, discarded", "2 × DCMTK", "2.00 ×", "yes", "3.00 ×"]  # of 2, 4 and 1


def test_a_rate_has_its_median_and_its_range() -> None:
    [row] = rows(markdown(report()), "| 39 KB, discarded | aiodicom → aiodicom")
    assert row[2:] == ["3,000 objects/s (2,000–4,000)", "100 µs / 100 µs", "20 (+1) MB / 30 (+2) MB"]


def test_what_was_not_reached_says_so() -> None:
    [row] = rows(markdown(report()), "25,000/s")
    assert row[2:] == ["3,000/s", "**no**", "–"]


def test_less_memory_is_better() -> None:
    [row] = rows(markdown(report()), "SCP memory")
    assert row[2:] == ["30.0 MB", "yes", "–"]


def test_a_missing_peer_is_named_at_the_top_and_in_its_row_and_at_its_target() -> None:
    tables = markdown(report())
    assert "Missing: pynetdicom is not installed." in tables.partition("| case")[0]
    outcome, aim = rows(tables.partition("| case")[2], "pynetdicom")
    assert (outcome[2], aim[2]) == ("pynetdicom is not installed", "not measured")


def test_json_brings_everything_back() -> None:
    assert Report.from_json(report().to_json()) == report()


def test_json_says_what_was_reached() -> None:
    [case, _] = json.loads(report().to_json())["results"]
    assert [aim["reached"] for aim in case["aims"]] == [2.0, None, 3000, 30_000_000]
    assert case["aims"][0]["by_cpu"] == pytest.approx(3)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "results": [{}]}'])
def test_json_of_something_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(UnknownFormat, match=r"measure again|no samples"):
        Report.from_json(text)


def test_tables_and_pictures_are_made_from_a_saved_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, tables, folder = tmp_path / "samples.json", tmp_path / "table.md", tmp_path / "pictures"
    samples.write_text(report().to_json(), encoding="utf-8")
    main(["--from", str(samples), "--markdown", str(tables), "--pictures", str(folder)])
    assert tables.read_text(encoding="utf-8") == markdown(report())
    assert capsys.readouterr().out.strip() == markdown(report()).strip()
    assert {path.name for path in folder.iterdir()} == {"first.svg", "storage.svg", "associations.svg"}


def test_a_saved_run_that_is_none_ends_with_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--from", str(tmp_path / "nothing.json")])
    assert "nothing.json" in capsys.readouterr().err
