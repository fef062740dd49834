"""Fuzzing: `run` goes on with a campaign, `totals` adds it up, `replay` repeats inputs, `ci` is the quick run.

    uv run --group fuzz python -m tests.fuzz run --executions 1000000 --corpus fuzzing
    uv run --group fuzz python -m tests.fuzz totals --corpus fuzzing
    uv run --group fuzz python -m tests.fuzz replay --target Z1 fuzzing/findings/Z1/*

What a run adds to the corpus the next one begins with. See `tests.fuzz.targets` for the targets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.fuzz.runs import Folder, Slice, replay, run
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

_NO_LIMIT: Final = 10**9


def main(words: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status, 1 where an invariant broke."""
    arguments = _parser().parse_args(words)
    command: str = arguments.command
    targets = [TARGETS[name] for name in arguments.target or TARGETS]
    if command == "totals":
        return print_totals(Folder(arguments.corpus).slices())
    if command == "replay":
        return _replay(targets, arguments.inputs)
    if command == "ci":
        with tempfile.TemporaryDirectory() as scratch:
            return quick(targets, Folder(Path(scratch)), arguments.at_once, arguments.seconds)
    fine = run(
        targets,
        Folder(arguments.corpus),
        executions=lambda _target: arguments.executions,
        seconds=arguments.seconds,
        at_once=arguments.at_once,
        slice_seconds=arguments.slice,
        report=_print,
    )
    return int(not fine)


def quick(targets: Sequence[Target], folder: Folder, at_once: int, seconds: float) -> int:
    """Replay the seeds, then put as many inputs to each target as its `in_ci` says, or as time allows."""
    for target in targets:
        replay(target, sorted(folder.corpus(target).iterdir()))
    fine = run(
        targets,
        folder,
        executions=lambda target: target.in_ci,
        seconds=seconds,
        at_once=at_once,
        slice_seconds=int(seconds * at_once / len(targets)),
        report=_print,
    )
    return int(not fine)


def print_totals(slices: Iterable[Slice]) -> int:
    """Print what was run, as a table in Markdown."""
    print("| target | what | executions | a second | branches | slowest | peak | findings |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    everything = 0
    for target in TARGETS.values():
        own = [each for each in slices if each.target == target.name]
        if not own:
            continue
        executions = sum(each.executions for each in own)
        everything += executions
        print(
            f"| {target.name} | {target.what} | {executions:,} | "
            f"{executions / max(sum(each.seconds for each in own), 1):,.0f} | {own[-1].edges} | "
            f"{max(each.slowest for each in own)} s | {max(each.peak_mb for each in own)} MB | "
            f"{sum(each.findings for each in own)} |"
        )
    print(f"\n{everything:,} executions in all; those a second are of processor time.")
    return 0


def _print(done: Slice) -> None:
    found = " A FINDING" if done.findings else ""
    print(
        f"{done.target}: {done.executions:,} executions in {done.seconds} s, {done.edges} branches{found}", flush=True
    )


def _replay(targets: Iterable[Target], paths: Iterable[Path]) -> int:
    for target in targets:
        print(f"{target.name}: {replay(target, paths)} inputs")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("run", "go on with a campaign"),
        ("totals", "add up what was run"),
        ("replay", "put inputs to all invariants"),
        ("ci", "the seeds, and some inputs of each target"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument(
            "--target", action="append", choices=TARGETS, help="its id; several times for several (default: all)"
        )
        if name in ("run", "totals"):
            command.add_argument("--corpus", type=Path, required=True, help="the folder of the campaign")
        if name in ("run", "ci"):
            command.add_argument("--at-once", type=int, default=2, help="processes (default: 2)")
            command.add_argument("--seconds", type=float, default=60 if name == "ci" else _NO_LIMIT)
        if name == "run":
            command.add_argument("--executions", type=int, default=_NO_LIMIT, help="of each target, at most")
            command.add_argument(
                "--slice", type=int, default=60, help="seconds of one target before the next one's turn"
            )
        if name == "replay":
            command.add_argument("inputs", type=Path, nargs="+")
    return parser


if __name__ == "__main__":
    sys.exit(main())
