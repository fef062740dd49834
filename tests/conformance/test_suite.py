"""The conformance suite, pointed at servers of ours: nothing differs, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiodicom import Listener
from aiodicom.conformance.case import Verdict
from aiodicom.conformance.cases import CASES
from aiodicom.conformance.needs import NEEDS
from aiodicom.upper_layer.state_machine import TABLE
from tests.conformance.hosting import CAP, IMPATIENT, LIMITS, UNSEEN, differing, hosted, not_applicable, verdicts

CAPPED = {"T29/cap", "T29/drain"}
QUICK = tuple(case for case in CASES if not case.is_slow)
SLOW = tuple(case for case in CASES if case.is_slow)


async def test_every_quick_case(tmp_path: Path) -> None:
    async with hosted(tmp_path) as target:
        results = await verdicts(target, QUICK)
    assert differing(results) == {}
    assert not_applicable(results) == UNSEEN | CAPPED | {case.id for case in QUICK if "TLS" in case.needs}
    asked = [result.probe for result in results.values() if result.verdict is Verdict.PASS]
    assert None not in asked, "another peer was asked beside every case"


async def test_every_slow_case(tmp_path: Path) -> None:
    async with hosted(tmp_path, limits=IMPATIENT) as target:
        results = await verdicts(target, SLOW)
    assert differing(results) == {}
    assert not_applicable(results) == {"T05/repeats", "T20/silent"}


async def test_an_instance_beyond_the_cap(tmp_path: Path) -> None:
    async with hosted(tmp_path, limits=LIMITS.changed(maximum_instance=CAP), target={"instance_cap": CAP}) as target:
        results = await verdicts(target, [case for case in CASES if "cap" in case.needs])
    assert results.keys() == CAPPED
    assert differing(results) == {}
    assert not_applicable(results) == set()


async def test_every_case_of_tls(tmp_path: Path, tls_options: dict[str, Any]) -> None:
    tls = tls_options.pop("server_tls")
    cases = [case for case in CASES if "TLS" in case.needs]
    listener = Listener(port=0, tls=tls)
    async with hosted(tmp_path, limits=IMPATIENT, listeners=[listener], target=tls_options) as target:
        results = await verdicts(target, cases)
    assert differing(results) == {}
    assert not_applicable(results) == set()


def test_the_table() -> None:
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids))
    threats = {name.partition("/")[0] for name in ids}
    assert threats == {f"T{number:02}" for number in range(1, 45)}
    assert {need for case in CASES for need in case.needs} <= NEEDS.keys()
    cells = {name.partition("/")[2] for name in ids if name.startswith("T04/")}
    assert len(cells) == 52  # of the 123; two more are T12 and T18/never-closes, where ARTIM runs out
    assert cells <= {f"{state.name.capitalize()}-{event.name.capitalize()}" for state, event in TABLE}
