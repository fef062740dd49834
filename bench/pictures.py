"""Results as pictures: bars in SVG, which a browser shows light or dark, as its user likes it.

One picture for each group of cases, and `first.svg` for who has only one look: aiodicom beside its peers. Bars begin at zero
and are as long as what they stand for; a thin line shows the least and the most of all rounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from bench.case import KB
from bench.peers import NOBODYS, OURS
from bench.results import Outcome, Report, Result

WIDTH: Final = 880
MARGIN: Final = 20
LINE: Final = 20
BAR: Final = 12
GAP: Final = 14
LETTER: Final = 6.9  # the width of one in a label, about: there is no font to ask
VALUE: Final = 110  # the width of what stands behind the longest bar
FIRST: Final = "first"

STYLE: Final = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328; }
.page { fill: #ffffff; } .title { font-size: 16px; font-weight: 600; } .head { font-weight: 600; }
.faint { fill: #59636e; } .end { text-anchor: end; } .both { fill: #0969da; } .one { fill: #74b0f4; } .none { fill: #afb8c1; }
.range { stroke: #1f2328; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  svg { fill: #e6edf3; } .page { fill: #0d1117; } .faint { fill: #9198a1; }
  .both { fill: #4493f8; } .one { fill: #2a5b9c; } .none { fill: #57606a; } .range { stroke: #e6edf3; }
}
"""
LEGEND: Final = (("both", "aiodicom at both ends"), ("one", "at one end"), ("none", "at none"))
NAMES: Final[Mapping[str, str]] = {"dcmtk": "DCMTK", "orthanc": "Orthanc", "tcp": "bare TCP"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a label, its values (of all rounds, with the median first), the words behind it, its colour, and a note."""

    label: str
    values: Sequence[float]
    words: str
    colour: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Bars to be compared with each other."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """In pixels."""
        return LINE * (len(self.bars) + 1) + GAP


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the first picture: a case, and of it the first contender of each peer."""

    title: str
    case: str
    quantity: str = "rate"


FIRST_PANELS: Final = (
    Panel("39 KB objects stored each second, one association", "small-discarded"),
    Panel("39 KB objects stored each second, ten associations", "concurrent-10"),
    Panel("39 KB objects into an archive each second", "small-to-archive"),
    Panel("500 MB object: MB each second", "large-discarded"),
    Panel("C-FIND: matches each second (DCMTK has 500 studies)", "find-some"),
    Panel("KB of memory for an idle association (less is better)", "idle", "memory_each"),
)


def pictures(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the name of each picture, and its SVG."""
    source = f"{report.date[:10]}, {_rounds(report)}. {report.machine}"
    panels = {result.name: result for result in report.results}
    first = [_panel(panel, panels[panel.case]) for panel in FIRST_PANELS if panel.case in panels]
    if first:
        note = "At the right: how far aiodicom is ahead, by medians. Peers with TCP_NODELAY, without which they crawl."
        yield FIRST, _svg("aiodicom beside its peers", first, [note, source], columns=2)
    for group, results in groupby(sorted(report.results, key=lambda each: each.group), key=lambda each: each.group):
        blocks = [block for result in results for block in _blocks(result)]
        yield _file_name(group), _svg(group, blocks, [source], legend=True)


def write_pictures(report: Report, folder: Path) -> None:
    """Write the pictures into a folder, which is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures(report):
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")


def _file_name(group: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", group.lower().replace("'", "")).strip("-")


def _rounds(report: Report) -> str:
    return "one round" if report.rounds == 1 else f"medians of {report.rounds} rounds"


def _panel(panel: Panel, result: Result) -> Block:
    """Take the first contender of each peer, and compare it with ours."""
    firsts: dict[str, Outcome] = {}
    for outcome in result.outcomes:
        if outcome.values(panel.quantity):
            peers = [end for end in (outcome.client, outcome.server) if end not in (OURS, NOBODYS)]
            firsts.setdefault(peers[0] if peers else OURS, outcome)
    ours = firsts[OURS].median(panel.quantity) if OURS in firsts else None
    bars = []
    for peer, outcome in firsts.items():
        value = outcome.median(panel.quantity) or 0.0
        ratio = ""
        if peer != OURS and ours and value:
            ahead = value / ours if panel.quantity != "rate" else ours / value
            ratio = f"{ahead:.0f} ×" if ahead >= 10 else f"{ahead:.2g} ×"
        scale = KB if panel.quantity == "memory_each" else 1
        colour = "both" if peer == OURS else "none"
        bars.append(Bar(NAMES.get(peer, peer), [value], _number(value / scale), colour, ratio))
    return Block(panel.title, bars)


def _blocks(result: Result) -> Iterator[Block]:
    yield Block(f"{result.title}: {result.unit}", [_bar(outcome, "rate") for outcome in result.outcomes])
    if any(outcome.values("memory_each") for outcome in result.outcomes):
        bars = [_bar(outcome, "memory_each", KB) for outcome in result.outcomes]
        yield Block(f"{result.title}: KB of memory each (less is better)", bars)


def _bar(outcome: Outcome, quantity: str, scale: int = 1) -> Bar:
    values = outcome.values(quantity)
    ours = [outcome.client, outcome.server].count(OURS)
    colour = ("none", "one", "both")[ours]
    median = outcome.median(quantity)
    if median is None:
        return Bar(outcome.name, [], "not measured", colour)
    return Bar(outcome.name, [median, *values], _number(median / scale), colour)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _svg(title: str, blocks: Sequence[Block], notes: Sequence[str], *, columns: int = 1, legend: bool = False) -> str:
    """Draw the blocks row by row below the title, and the notes below them."""
    width = (WIDTH - MARGIN * (columns + 1)) / columns
    body = [_text(MARGIN, 28, title, "title")]
    if legend:
        body += _legend()
    label_width = max(len(bar.label) for block in blocks for bar in block.bars) * LETTER
    top = 48
    for row in (blocks[start : start + columns] for start in range(0, len(blocks), columns)):
        for column, block in enumerate(row):
            body += _drawn(block, MARGIN + column * (width + MARGIN), top, width, label_width)
        top += max(block.height for block in row)
    for line in [line for note in notes for line in _wrapped(note)]:
        top += 16
        body.append(_text(MARGIN, top, line, "faint"))
    height = top + MARGIN
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
                f' role="img" aria-label={quoteattr(title)}>'
            ),
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}"/>',
            *body,
            "</svg>\n",
        ]
    )


def _legend() -> Iterator[str]:
    left = WIDTH - MARGIN - sum(len(words) * LETTER + 34 for _, words in LEGEND)
    for colour, words in LEGEND:
        yield f'<rect class="{colour}" x="{left:.0f}" y="17" width="{BAR}" height="{BAR}"/>'
        yield _text(left + BAR + 6, 28, words, "faint")
        left += len(words) * LETTER + 34


def _drawn(block: Block, left: float, top: float, width: float, label_width: float) -> Iterator[str]:
    """Draw a block: its title, and bars that begin behind the labels."""
    yield _text(left, top + BAR, block.title, "head")
    start = left + label_width + 8
    most = max((value for bar in block.bars for value in bar.values), default=0.0) or 1.0
    unit = (left + width - VALUE - start) / most
    for number, bar in enumerate(block.bars, start=1):
        y = top + number * LINE
        yield _text(left, y + BAR - 2, bar.label)
        end = start
        if bar.values:
            median, least, greatest = bar.values[0], min(bar.values), max(bar.values)
            yield (
                f'<rect class="{bar.colour}" x="{start:.1f}" y="{y}" width="{max(median * unit, 1):.1f}" height="{BAR}"/>'
            )
            if greatest > least:
                ends = f'x1="{start + least * unit:.1f}" x2="{start + greatest * unit:.1f}"'
                yield f'<line class="range" {ends} y1="{y + BAR / 2}" y2="{y + BAR / 2}"/>'
            end += greatest * unit
        yield _text(end + 6, y + BAR - 2, bar.words, "" if bar.values else "faint")
        if bar.note:
            yield _text(left + width, y + BAR - 2, bar.note, "faint end")


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.0f}" xml:space="preserve">{escape(words)}</text>'


def _wrapped(words: str) -> Iterable[str]:
    """Break a line that is too long for the picture."""
    fits = int((WIDTH - 2 * MARGIN) / LETTER)
    return re.findall(rf".{{1,{fits}}}(?:\s|$)", words)
