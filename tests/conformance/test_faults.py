"""Planted faults: where a guard is missing, those cases of the suite see it that are about it, and no others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from aiodicom.conformance.case import Case
from aiodicom.conformance.cases import CASES, chosen
from tests.conformance.faults import FAULTS
from tests.conformance.hosting import LONG, differing, hosted, verdicts

# Cases that take their time, and are asked for where they are to see something.
HEAVY = {"T05/repeats", "T11", "T21", "T29/drain", "T30/store", "T31/depth-100000", "T31/elements", "T31/items"}
SHORT = 0.3


def others(seen_by: tuple[Case, ...]) -> list[Case]:
    """What must not see a fault: the other cases about the same threats, and the first one about each other threat."""
    threats = {threat(case) for case in seen_by}
    firsts = {threat(case): case for case in reversed(CASES)}.values()
    return [
        case
        for case in CASES
        if case not in seen_by
        and not case.is_slow
        and case.id not in HEAVY
        and (threat(case) in threats or case in firsts)
    ]


def threat(case: Case) -> str:
    return case.id.partition("/")[0]


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 25


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fault = FAULTS[name]
    seen_by = tuple(case for case in chosen(fault.seen_by.split()) if not case.is_last)
    last = tuple(case for case in chosen(fault.seen_by.split()) if case.is_last)
    options = fault.plant(monkeypatch) or {}

    async def look() -> None:
        async with hosted(tmp_path, **options) as target:
            undisturbed = await verdicts(target, others(seen_by))
            assert differing(undisturbed) == {}
            # What sees the fault has seen it by then; what does not, fails this test whenever it ends.
            found = await verdicts(
                replace(target, patience=SHORT, patience_beside=LONG, tolerance=SHORT), seen_by + last
            )
            assert set(differing(found)) == {case.id for case in seen_by + last}, differing(found)

    asyncio.run(look())
