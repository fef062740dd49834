"""Results as Markdown and as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bench.cases import KB, MB, Target
from bench.measure import Outcome, Result
from bench.processes import Cores, PeerMissing, find

NOTHING: Final = "–"
ALMOST: Final = 0.9995  # what three digits round up to 1
UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def markdown(results: Sequence[Result], *, cores: Cores, rounds: int) -> str:
    """Return the tables: every contender of every case, and every target."""
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, {rounds} rounds. {machine(cores)}", ""]
    lines += table(
        ("case", "SCU → SCP", "median rate (range)", "CPU each, SCU / SCP", "memory SCU / SCP: peak (added)"),
        (row for result in results for row in _outcome_rows(result)),
    )
    lines.append("")
    lines += table(
        ("case", "target", "reached", "", "by CPU"),
        (
            (result.case.title, target.words, *_verdict(target, result.reached(target)), _by_cpu(result, target))
            for result in results
            for target in result.case.targets
        ),
    )
    return "\n".join(lines) + "\n"


def as_json(results: Sequence[Result], *, cores: Cores, rounds: int) -> str:
    """Return everything that was measured, round by round."""
    cases = [
        {
            "case": result.case.name,
            "unit": result.case.unit,
            "contenders": [
                {
                    "name": outcome.contender.name,
                    "count": outcome.contender.job.total,
                    "error": outcome.error,
                    "samples": [asdict(sample) for sample in outcome.samples],
                }
                for outcome in result.outcomes
            ],
            "targets": [
                {
                    "target": target.words,
                    "limit": target.limit,
                    "reached": result.reached(target),
                    "by_cpu": result.cpu_ratio(target),
                }
                for target in result.case.targets
            ],
        }
        for result in results
    ]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"date": date, "machine": machine(cores), "rounds": rounds, "cases": cases}, indent=2) + "\n"


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
    title = result.case.title
    for outcome in result.outcomes:
        name = outcome.contender.name
        if not outcome.samples:
            yield title, name, outcome.error or NOTHING, NOTHING, NOTHING
        else:
            yield title, name, _rate(outcome, result.case.unit), _cpu(outcome), _memory(outcome)
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


def _verdict(target: Target, reached: float | None) -> tuple[str, str]:
    """Return what was reached in words, and whether that is enough."""
    if reached is None:
        return "not measured", ""
    enough = reached <= target.limit if target.is_ceiling else reached >= target.limit
    if target.against is not None:
        words = f"{reached:.0%}" if target.limit < 1 else f"{reached:.2f} ×"
    elif target.quantity == "rate":
        words = f"{reached:,.0f}/s"
    elif target.quantity == "idle_cpu":
        words = f"{reached:.1%}"
    elif target.quantity == "memory_each":
        words = f"{reached / KB:.1f} KB"
    else:
        words = f"{reached / MB:.1f} MB"
    return words, "yes" if enough else "**no**"


def _by_cpu(result: Result, target: Target) -> str:
    ratio = result.cpu_ratio(target)
    return NOTHING if ratio is None else f"{ratio:.2f} ×"
