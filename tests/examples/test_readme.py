"""The list of examples is complete."""

from __future__ import annotations

from tests.examples.loading import EXAMPLES


def test_all_examples_are_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert {name for name in files if f"({name})" not in listed} == set()
