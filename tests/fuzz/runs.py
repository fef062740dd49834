"""Runs of libFuzzer, one slice after another, and the sheet that adds them up.

A folder holds all that outlives a run, so that the next one goes on where it ended: `corpus/Z1/` the inputs that reach
something of their own, `findings/Z1/` those that broke an invariant, and `totals.jsonl` a line for each slice. What
runs ends after `echo > stop`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Final

from tests.fuzz.target import Target

MEMORY_MB: Final = 512
SECONDS_FOR_ONE: Final = 60
"""More than that for one input is a finding (I5): by the clock, which also runs while others have the processor."""

_STATISTIC: Final = re.compile(r"^stat::(\w+):\s+(\d+)$", re.MULTILINE)
_EDGES: Final = re.compile(r" cov: (\d+) ")
_LOCK: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Slice:
    """What one run of libFuzzer did.

    Args:
        target: its id.
        executions: how many inputs were put to it.
        seconds: of processor time.
        edges: how many branches the corpus reaches.
        added: how many inputs were added to the corpus.
        slowest: seconds that one input took at most.
        peak_mb: of memory, of the whole process.
        findings: how many inputs broke an invariant: at most one, which ends the run.
    """

    target: str
    executions: int
    seconds: float
    edges: int = 0
    added: int = 0
    slowest: int = 0
    peak_mb: int = 0
    findings: int = 0


class Folder:
    """Where the corpora, the findings and the totals are.

    Args:
        path: the folder; it is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def corpus(self, target: Target) -> Path:
        """Return the folder of a target's corpus, in which its seeds are."""
        folder = self.path / "corpus" / target.name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in target.seeds():
            path = folder / hashlib.sha1(seed, usedforsecurity=False).hexdigest()  # libFuzzer's own way to name them
            if not path.exists():
                path.write_bytes(seed)
        return folder

    def findings(self, target: Target) -> Path:
        """Return the folder of a target's findings."""
        folder = self.path / "findings" / target.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has_findings(self, target: Target) -> bool:
        """Say whether a finding of a target waits for somebody to look at it."""
        return any(self.findings(target).iterdir())

    @property
    def stop(self) -> Path:
        """A file that ends what is running, once it is there and not empty."""
        return self.path / "stop"

    def add(self, done: Slice) -> None:
        """Add a line to the sheet."""
        with _LOCK, self._sheet.open("a", encoding="utf-8") as sheet:
            sheet.write(json.dumps(asdict(done)) + "\n")

    def slices(self) -> list[Slice]:
        """Return all that was ever run."""
        if not self._sheet.exists():
            return []
        return [Slice(**json.loads(line)) for line in self._sheet.read_text(encoding="utf-8").splitlines()]

    @property
    def _sheet(self) -> Path:
        return self.path / "totals.jsonl"


def run_slice(target: Target, folder: Folder, *, executions: int, seconds: int = 0, seed: int = 0) -> Slice:
    """Put so many inputs to a target, or as many as fit into so many seconds; return what came of it, and note it.

    Args:
        target: the target.
        folder: where its corpus is.
        executions: inputs at most.
        seconds: at most; 0 is no limit.
        seed: of libFuzzer's chance; 0 is another one each time.
    """
    command = [
        *(sys.executable, "-m", "tests.fuzz.engine", target.name),
        *(f"-runs={executions}", f"-max_total_time={seconds}", f"-max_len={target.maximum_length}", f"-seed={seed}"),
        *(f"-rss_limit_mb={MEMORY_MB}", f"-timeout={SECONDS_FOR_ONE}", "-print_final_stats=1", "-reload=0"),
        *(f"-stop_file={folder.stop}", f"-report_slow_units={SECONDS_FOR_ONE}"),
        *(f"-artifact_prefix={folder.findings(target)}{os.sep}", str(folder.corpus(target))),
    ]
    status, used, said = _run(command)
    found = {name: int(value) for name, value in _STATISTIC.findall(said)}
    if "number_of_executed_units" not in found:
        raise RuntimeError(f"libFuzzer did not run on {target.name}:\n{said[-4000:]}")
    if status:
        (folder.path / f"{target.name}.log").write_text(said, encoding="utf-8")
    edges = _EDGES.findall(said)
    result = Slice(
        target.name,
        found["number_of_executed_units"],
        round(used, 1),
        int(edges[-1]) if edges else 0,
        found["new_units_added"],
        found["slowest_unit_time_sec"],
        found["peak_rss_mb"],
        int(status != 0),
    )
    folder.add(result)
    return result


def _run(command: Sequence[str]) -> tuple[int, float, str]:
    """Run a command; return its status, the processor time that it used, and what it said."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        return process.returncode, used.ru_utime + used.ru_stime, said.read()


def run(
    targets: Sequence[Target],
    folder: Folder,
    *,
    executions: Callable[[Target], int],
    seconds: float,
    at_once: int,
    slice_seconds: int,
    report: Callable[[Slice], None],
) -> bool:
    """Run targets in turn, slice by slice; return whether none broke an invariant.

    A target with a finding is left out until somebody has taken the finding away. Once there is something in the folder's
    file `stop`, all that runs ends.

    Args:
        targets: in turn.
        folder: where everything is.
        executions: says how many of a target at most, in this run.
        seconds: after which no further slice begins, and the last one ends.
        at_once: processes.
        slice_seconds: how long a slice is at most, and so what is lost where this process is killed.
        report: told of each slice.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.stop.unlink(missing_ok=True)
    until = time.monotonic() + seconds
    left = {target.name: executions(target) for target in targets}
    turns: Queue[Target] = Queue()
    for target in targets:
        turns.put(target)

    def work() -> None:
        while (remaining := int(until - time.monotonic())) > 0 and left and not folder.stop.exists():
            try:
                target = turns.get(timeout=1)
            except Empty:
                continue  # the others are at work on all that are left
            allowed = max(1, min(remaining, slice_seconds))
            done = run_slice(target, folder, executions=left[target.name], seconds=allowed)
            report(done)
            left[target.name] -= done.executions
            if left[target.name] > 0 and not folder.has_findings(target):
                turns.put(target)
            else:
                del left[target.name]

    with ThreadPoolExecutor(at_once) as pool:
        for worker in [pool.submit(work) for _ in range(at_once)]:
            worker.result()
    return not any(folder.has_findings(target) for target in targets)


def replay(target: Target, paths: Iterable[Path]) -> int:
    """Put what is in those files to all invariants of a target; return how many there were."""
    count = 0
    for path in paths:
        data = path.read_bytes()
        try:
            target.thorough(data)
        except Exception as error:
            error.add_note(f"{target.name} on {path}: {data.hex()}")
            raise
        count += 1
    return count
