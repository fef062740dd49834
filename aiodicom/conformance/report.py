"""How the suite's results read: a line each, or a line of JSON each, and a sentence about all of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from aiodicom.conformance.case import Case, Result, Verdict


def line(result: Result) -> str:
    """Return what a case came to, in a line."""
    return f"{_row(result.case)} {_verdict(result)}"


def _verdict(result: Result) -> str:
    match result.verdict:
        case Verdict.PASS:
            return "pass"
        case Verdict.DIFFERS:
            return f"DIFFERS: expected {result.expected}; got {result.got}"
        case Verdict.NOT_APPLICABLE:
            return f"not applicable: {result.got}"


def listing(case: Case) -> str:
    """Return a case in a line, with what it needs."""
    notes = [*case.needs, *(["slow"] if case.is_slow else [])]
    return f"{_row(case)} {', '.join(notes)}".rstrip()


def _row(case: Case) -> str:
    return f"{case.id:<23} {case.title:<55} {case.section:<18}"


def as_json(result: Result) -> str:
    """Return what a case came to as a line of JSON."""
    case = result.case
    return json.dumps(
        {
            "id": case.id,
            "title": case.title,
            "section": case.section,
            "verdict": result.verdict.value,
            "expected": result.expected,
            "got": result.got,
            "echo_ms": None if result.probe is None else round(1000 * result.probe, 1),
        },
        ensure_ascii=False,
    )


def summary(results: Sequence[Result]) -> str:
    """Return all of it in a sentence."""
    counts = Counter(result.verdict for result in results)
    asked = [result for result in results if result.probe is not None]
    words = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)
    if not asked:
        return f"{len(results)} cases: {words}"
    worst = max(asked, key=lambda result: result.probe or 0)
    return (
        f"{len(results)} cases: {words}; another peer waited at most {1000 * (worst.probe or 0):.1f} ms for a C-ECHO "
        f"({worst.case.id})"
    )
