"""Results as Markdown."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bench.case import KB, MB
from bench.processes import Cores, PeerMissing, find
from bench.results import Aim, Outcome, Report, Result, Row

NOTHING: Final = "–"
ALMOST: Final = 0.9995  # what three digits round up to 1
UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def markdown(report: Report) -> str:
    """Return the tables: every contender of every case, and every target."""
    rounds = "one round" if report.rounds == 1 else f"{report.rounds} rounds"
    lines = [
        f"{report.date[:10]}, `{report.command}`: {rounds} in {report.seconds / 60:.1f} minutes. {report.machine}",
        *(f"Missing: {words}." for words in report.missing.values()),
        "",
    ]
    lines += table(
        ("case", "SCU → SCP", "median rate (range)", "CPU each, SCU / SCP", "memory SCU / SCP: peak (added)"),
        (row for result in report.results for row in _outcome_rows(result)),
    )
    lines.append("")
    lines += table(
        ("case", "target", "reached", "", "by CPU"),
        (
            (result.title, aim.words, *_verdict(aim, result.reached(aim)), _by_cpu(result, aim))
            for result in report.results
            for aim in result.aims
        ),
    )
    if report.crowds:
        lines += ["", *row_table("crowd", report.crowds)]
    return "\n".join(lines) + "\n"


def row_table(title: str, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table of cases that have more than one figure each."""
    reached = {True: "yes", False: "**no**", None: ""}
    yield from table(
        (title, "", "measured", "target", "reached"),
        ((row.case, row.what, row.value, row.target, reached[row.met]) for row in rows),
    )


def machine(cores: Cores) -> str:
    """Return one line about the machine and the versions of all that took part."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    parts = [
        f"{model}, {os.cpu_count()} processors, SCU on {cores.client}, SCP on {cores.server}",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {_version_of(name)}" for name in ("aiodicom", "uvloop", "pynetdicom")),
        f"DCMTK {_said_version('storescp')}",
        f"Orthanc {_said_version('Orthanc')}",
    ]
    return "; ".join(parts) + "."


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _said_version(program: str) -> str:
    """The version in the first line that a program says of it: `… v3.6.7 …`, or `… 1.10.1`."""
    try:
        said = subprocess.run([find(program), "--version"], capture_output=True, text=True, check=False).stdout
    except PeerMissing:
        return "not installed"
    found = re.search(r"\bv?(\d+(?:\.\d+)+)", said.partition("\n")[0])
    return found[1] if found else "of unknown version"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _outcome_rows(result: Result) -> Iterator[tuple[str, ...]]:
    title = result.title
    for outcome in result.outcomes:
        name = outcome.name
        if not outcome.samples:
            yield title, name, outcome.error or NOTHING, NOTHING, NOTHING
        else:
            yield title, name, _rate(outcome, result.unit), _cpu(outcome), _memory(outcome)
        title = ""


def _rate(outcome: Outcome, unit: str) -> str:
    rates = outcome.values("rate")
    digits = 0 if max(rates) >= 100 else 1
    median = outcome.median("rate")
    text = f"{median:,.{digits}f} {unit}"
    return text if len(rates) == 1 else f"{text} ({min(rates):,.{digits}f}–{max(rates):,.{digits}f})"


def _cpu(outcome: Outcome) -> str:
    idle = outcome.median("idle_cpu")
    if idle is not None:
        return f"{idle:.0%} of a processor while idle"
    times = (outcome.median("client_cpu"), outcome.median("server_cpu"))
    return " / ".join(NOTHING if time is None else _duration(time) for time in times)


def _duration(seconds: float) -> str:
    size, unit = next((each for each in UNITS if seconds >= each[0] * ALMOST), UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def _memory(outcome: Outcome) -> str:
    each = outcome.median("memory_each")
    if each is not None:
        return f"{each / KB:.1f} KB each"
    ends: list[str] = []
    for end in ("client", "server"):
        peak, added = outcome.median(f"{end}_peak"), outcome.median(f"{end}_added")
        ends.append(NOTHING if peak is None or added is None else f"{peak / MB:.0f} (+{added / MB:.0f}) MB")
    return " / ".join(ends)


def _verdict(aim: Aim, reached: float | None) -> tuple[str, str]:
    """Return what was reached in words, and whether that is enough."""
    if reached is None:
        return "not measured", ""
    enough = reached <= aim.limit if aim.is_ceiling else reached >= aim.limit
    if aim.against is not None:
        words = f"{reached:.0%}" if aim.limit < 1 else f"{reached:.2f} ×"
    elif aim.quantity == "rate":
        words = f"{reached:,.0f}/s"
    elif aim.quantity == "idle_cpu":
        words = f"{reached:.1%}"
    elif aim.quantity == "memory_each":
        words = f"{reached / KB:.1f} KB"
    else:
        words = f"{reached / MB:.1f} MB"
    return words, "yes" if enough else "**no**"


def _by_cpu(result: Result, aim: Aim) -> str:
    ratio = result.cpu_ratio(aim)
    return NOTHING if ratio is None else f"{ratio:.2f} ×"
