"""The benchmark's pictures: they are XML, their bars are as long as what they stand for, and they go dark."""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

import pytest

from bench.pictures import pictures
from tests.bench.reports import report

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn() -> dict[str, Element]:
    return {name: fromstring(svg) for name, svg in pictures(report())}


def texts(picture: Element) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text")]


def bars(picture: Element, colour: str) -> list[float]:
    """The lengths of the bars of a colour; what the legend has is too short to be one."""
    found = [bar for bar in picture.iter(f"{SVG}rect") if bar.get("class") == colour]
    return [float(bar.attrib["width"]) for bar in found if bar.attrib["width"] != "12"]


def test_there_is_one_for_each_group_and_one_for_all(drawn: dict[str, Element]) -> None:
    assert sorted(drawn) == ["associations", "first", "storage"]


def test_bars_are_in_proportion_to_the_medians(drawn: dict[str, Element]) -> None:
    [ours], [dcmtk] = bars(drawn["storage"], "both"), bars(drawn["storage"], "none")
    assert ours / dcmtk == pytest.approx(3000 / 1500, rel=0.01)


def test_the_range_of_the_rounds_is_drawn_to_the_same_scale(drawn: dict[str, Element]) -> None:
    [ours], line = bars(drawn["storage"], "both"), next(drawn["storage"].iter(f"{SVG}line"))
    assert (float(line.attrib["x2"]) - float(line.attrib["x1"])) / ours == pytest.approx(2000 / 3000, rel=0.01)


def test_who_was_not_measured_is_named_without_a_bar(drawn: dict[str, Element]) -> None:
    said = texts(drawn["storage"])
    assert said[said.index("pynetdicom → pynetdicom") + 1] == "not measured"


def test_the_first_one_says_how_many_times_better_we_do(drawn: dict[str, Element]) -> None:
    said = texts(drawn["first"])
    assert [text for text in said if text.endswith("×")] == ["2 ×", "35 ×"]  # objects/s; memory, where less is better
    assert "pynetdicom" not in said


def test_names_are_escaped(drawn: dict[str, Element]) -> None:
    assert "scu → <scp>" in texts(drawn["storage"])


def test_everything_lies_within_the_picture(drawn: dict[str, Element]) -> None:
    for picture in drawn.values():
        height = float(picture.attrib["height"])
        for text in picture.iter(f"{SVG}text"):
            assert 0 < float(text.attrib["y"]) < height
        for bar in picture.iter(f"{SVG}rect"):
            assert float(bar.get("x", 0)) + float(bar.attrib["width"]) <= float(picture.attrib["width"])


def test_every_colour_has_another_in_the_dark() -> None:
    for _, svg in pictures(report()):
        light, _, dark = svg.partition("@media (prefers-color-scheme: dark)")
        for name in (".page", ".faint", ".both", ".one", ".none", ".range", "svg"):
            assert f"{name} {{" in light
            assert f"{name} {{" in dark.partition("</style>")[0]
