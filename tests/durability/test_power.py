"""The loss of power, in a small dose: nothing acknowledged is lost, and a trace in which a sync is missing is found out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from bench.power import Load, Policy, Report, State, open_all, out_of_order, states, trace
from bench.syscalls import Call

INSTANCES: Final = 6
OPENED: Final = 150
FEWEST_FILES: Final = 20
SEED: Final = 4

Runs = list[list[Call]]
Traced = tuple[Path, Load, Runs]


@pytest.fixture(scope="module", params=["keep", "replace"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    folder = tmp_path_factory.mktemp("power").resolve()
    policy: Policy = request.param
    load = Load.drawn(policy, INSTANCES, random.Random(SEED))
    return folder, load, asyncio.run(trace(folder, load))


def opened(traced: Traced, runs: Runs, choose: Callable[[list[State]], list[State]]) -> Report:
    folder, load, _ = traced
    report = Report()
    found = states(runs, folder / "archive", load, report)
    asyncio.run(open_all(choose(found), load, folder, report))
    return report


@pytest.mark.timeout(600)
def test_whatever_is_left_all_that_was_acknowledged_is_there(traced: Traced) -> None:
    folder, load, runs = traced
    assert out_of_order([call for calls in runs for call in calls], folder / "archive") == []
    report = opened(traced, runs, lambda found: random.Random(SEED).sample(found, OPENED))
    assert report.violations == []
    assert report.acknowledged >= sum(len(load.kept(number)) for number in load.sent)
    assert report.opened == OPENED


def is_of_folders(call: Call) -> bool:
    return call.name == "fsync" and not call.where.endswith(".part")


FAULTS: Final[dict[str, tuple[Callable[[Call], bool], str]]] = {
    "file": (lambda call: call.name == "fsync" and call.where.endswith(".part"), "a sync of the file before its link"),
    "folder": (lambda call: call.name == "sync" or is_of_folders(call), "a sync of its folder before its row"),
    "log": (lambda call: call.name in ("sync", "fdatasync"), "a sync of the write-ahead log behind its row"),
    "link": (lambda call: call.name == "link", "a file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_left_out_is_missed(traced: Traced, fault: str) -> None:
    folder, _, runs = traced
    is_left_out, words = FAULTS[fault]
    faulty = [call for calls in runs for call in calls if not is_left_out(call)]
    found = out_of_order(faulty, folder / "archive")
    assert found
    assert all(words in each for each in found)


def test_what_was_not_synced_is_lost_with_the_power(traced: Traced) -> None:
    _, _, runs = traced
    faulty = [[call for call in calls if not is_of_folders(call) and call.name != "sync"] for calls in runs]
    report = opened(
        traced, faulty, lambda found: sorted(found, key=lambda state: len(state.image.files))[:FEWEST_FILES]
    )
    assert any("is lost" in violation for violation in report.violations)
