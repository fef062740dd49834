"""The cases of associations as such: C-ECHO, opening and closing, and many that are idle."""

from __future__ import annotations

from typing import Final

from bench.case import KB, Case, Contender, Scale, Target
from bench.peers import Job, aiodicom_scp, aiodicom_scu, pynetdicom_scp, pynetdicom_scu, raw_echo, storescp

GROUP: Final = "Associations"


def cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    return (_echo(scale), _open(scale), _idle(scale))


def _echo(scale: Scale) -> Case:
    job = Job("echo", scale(20_000, 3000))
    dcmtk = storescp("--ignore", tuned=True)
    ours = Contender(aiodicom_scu(), aiodicom_scp(), job)
    raw = Contender(raw_echo(), dcmtk, job)
    return Case(
        "echo",
        "C-ECHO on one association",
        "echoes/s",
        (
            ours,
            Contender(raw_echo(), aiodicom_scp(), job),
            raw,
            Contender(aiodicom_scu(), dcmtk, job),
            Contender(aiodicom_scu(), storescp("--ignore", tuned=False), job),
            Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True), Job("echo", scale(400, 100))),
        ),
        (Target("25,000/s", ours, 25_000), Target("1.8 × storescp", ours, 1.8, raw)),
        group=GROUP,
    )


def _open(scale: Scale) -> Case:
    job = Job("open", scale(2000, 300))
    ours = Contender(aiodicom_scu(), aiodicom_scp(), job)
    return Case(
        "open",
        "associations with one C-ECHO, one after the other",
        "associations/s",
        (
            ours,
            Contender(aiodicom_scu(), storescp("--ignore", tuned=True), job),
            Contender(aiodicom_scu(), storescp("--fork", "--ignore", tuned=True), Job("open", scale(500, 100))),
            Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True), Job("open", scale(50, 20))),
        ),
        (Target("2,500/s", ours, 2500),),
        group=GROUP,
    )


def _idle(scale: Scale) -> Case:
    ours = Contender(aiodicom_scu(), aiodicom_scp(), Job("hold", scale(10_000, 1000)))
    return Case(
        "idle",
        "idle associations",
        "associations/s",
        (
            ours,
            Contender(aiodicom_scu(), storescp("--fork", tuned=True), Job("hold", scale(500, 60))),
            Contender(aiodicom_scu(), pynetdicom_scp(tuned=True), Job("hold", scale(100, 20))),
        ),
        (
            Target("opened at 3,000/s", ours, 3000),
            Target("≤ 6 KB each", ours, 6 * KB, quantity="memory_each"),
            Target("no polling: ≤ 1 % of a processor", ours, 0.01, quantity="idle_cpu"),
        ),
        group=GROUP,
    )
