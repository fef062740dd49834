"""Reports of measurements that nobody made, for what is done with them."""

from __future__ import annotations

from bench.results import Aim, Outcome, Report, Result, Sample


def sample(rate: float, cpu: float = 1e-4) -> Sample:
    return Sample(rate, cpu, cpu, 20_000_000, 1_000_000, 30_000_000, 2_000_000)


def report() -> Report:
    """Two cases: one of three contenders in three rounds, of which the last is missing, and one of memory."""
    stored = [
        Outcome("aiodicom → aiodicom", "aiodicom", "aiodicom", 100, [sample(rate) for rate in (3000, 4000, 2000)]),
        Outcome("scu → <scp>", "dcmtk", "dcmtk", 100, [sample(rate, 3e-4) for rate in (1500, 1000, 2000)]),
        Outcome("pynetdicom → pynetdicom", "pynetdicom", "pynetdicom", 10, [], "pynetdicom is not installed"),
    ]
    ours = stored[0].name
    aims = [
        Aim("2 × DCMTK", ours, 2, stored[1].name, "rate"),
        Aim("50 × pynetdicom", ours, 50, stored[2].name, "rate"),
        Aim("25,000/s", ours, 25_000, None, "rate"),
        Aim("SCP memory ≤ 40 MB", ours, 40_000_000, None, "server_peak"),
    ]
    idle = [
        Outcome("aiodicom → aiodicom", "aiodicom", "aiodicom", 10, [Sample(5000, memory_each=5000, idle_cpu=0.0)]),
        Outcome("aiodicom → storescp", "aiodicom", "dcmtk", 10, [Sample(100, memory_each=175_000, idle_cpu=0.0)]),
    ]
    results = [
        Result("small-discarded", "39 KB, discarded", "objects/s", "Storage", stored, aims),
        Result("idle", "idle associations", "associations/s", "Associations", idle, []),
    ]
    missing = {"pynetdicom": "pynetdicom is not installed"}
    return Report("python -m bench", "2026-11-24T12:00:00+00:00", "A machine.", 90.0, 3, missing, results)
