"""A process that keeps instances is killed: what was acknowledged is there, whole, and nothing else is left."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.archive.keeping import data_set_at, files, instance, keep, paths_in_index
from tests.archive.storing import pixels

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = 5
INSTANCES_BEFORE_A_KILL: Final = 150


async def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    acknowledged: dict[int, str] = {}
    rng = random.Random(1)
    for kill in range(KILLS):
        start = 1000 * kill
        store_and_kill(tmp_path, start, rng.randrange(1, INSTANCES_BEFORE_A_KILL), acknowledged)
        await keep(tmp_path)  # opened, put in order, closed
        assert files(tmp_path) == paths_in_index(tmp_path)
        assert len(paths_in_index(tmp_path)) >= len(acknowledged)
    assert len(acknowledged) > KILLS
    for number, name in acknowledged.items():
        kept = data_set_at(tmp_path, number)
        names = {name} if number % 7 or name == "Roe^Jane" else {name, "Roe^Jane"}  # the last one may have come through
        assert kept in [instance(number, pixels=pixels(number), PatientName=each).data for each in names]


def store_and_kill(folder: Path, start: int, count: int, acknowledged: dict[int, str]) -> None:
    """Keep instances in a process, and kill it after so many acknowledgements, or some more."""
    script = "tests.archive.storing"
    command = [sys.executable, "-m", script, str(folder), str(start)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
        lines += process.stdout.readlines()
    for line in lines:
        if line.endswith("\n"):  # the last one may be cut
            number, name = line.split()
            acknowledged[int(number)] = name
