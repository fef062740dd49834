"""Kills at any time, in the dose of every day: nothing that was answered for is lost or altered, and nothing else is left."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

import pytest

from bench.kills import kill

KILLS: Final = 25
SEED: Final = 7


@pytest.mark.timeout(900)
def test_nothing_that_was_answered_for_is_lost(tmp_path: Path) -> None:
    ledger = asyncio.run(kill(tmp_path, KILLS, random.Random(SEED)))
    assert ledger.violations == []
    assert ledger.answers > KILLS
    assert ledger.retrieved >= len([each for each in ledger.holdings.values() if each.acknowledged])
