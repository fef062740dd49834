"""What every Python client of the bench has in common: its stopwatch, and its report."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import proc


@contextmanager
def reported() -> Iterator[None]:
    """Measure the block, and print wall time, processor time and memory as one line of JSON."""
    resident = proc.reset_peak()
    cpu, begun = time.process_time(), time.perf_counter()
    yield
    seconds = time.perf_counter() - begun
    peak = proc.peak()
    used = {"cpu": time.process_time() - cpu, "peak": peak, "added": max(peak - resident, 0)}
    print(json.dumps({"seconds": seconds, **used}), flush=True)


def allow_many_sockets() -> None:
    """Raise the limit of open files as far as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
