"""The command: measure the cases, print the tables. See the README beside this file."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.cases import Case, all_cases
from bench.measure import measure
from bench.objects import Objects
from bench.processes import Cores
from bench.report import as_json, markdown

MEMORY: Final = Path("/dev/shm")  # a file system in memory: disks are not what is measured
ROUNDS: Final = 3
ROUNDS_OF_QUICK: Final = 1


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round and smaller counts: less than three minutes")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these cases; `--list` names them")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}, or {ROUNDS_OF_QUICK} if --quick")
    parser.add_argument(
        "--cores", default=_default_cores(), metavar="SCU,SCP", help="the processors that the ends run on"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--list", action="store_true", help="name the cases, and end")
    arguments = parser.parse_args()
    cases = all_cases(lambda full, quick: quick if arguments.quick else full)
    if arguments.list:
        print("\n".join(f"{case.name:28} {case.title}" for case in cases))
        return
    if unknown := set(arguments.only or ()) - {case.name for case in cases}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; --list names them")
    chosen = [case for case in cases if not arguments.only or case.name in arguments.only]
    client, server = map(int, arguments.cores.split(","))
    rounds = arguments.rounds or (ROUNDS_OF_QUICK if arguments.quick else ROUNDS)
    run(chosen, rounds, Cores(client, server), arguments.markdown, arguments.json)


def run(cases: list[Case], rounds: int, cores: Cores, markdown_file: Path | None, json_file: Path | None) -> None:
    """Measure the cases one after the other, with progress on the standard error, and report."""
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s {line}", file=sys.stderr, flush=True)

    results = []
    with tempfile.TemporaryDirectory(prefix="aiodicom-bench-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        objects = Objects(folder / "objects")
        for case in cases:
            say(case.title)
            results.append(measure(case, rounds=rounds, cores=cores, objects=objects, folder=folder, say=say))
    tables = markdown(results, cores=cores, rounds=rounds)
    print(tables)
    if markdown_file is not None:
        markdown_file.write_text(tables, encoding="utf-8")
    if json_file is not None:
        json_file.write_text(as_json(results, cores=cores, rounds=rounds), encoding="utf-8")


def _default_cores() -> str:
    usable = sorted(os.sched_getaffinity(0))
    return f"{usable[0]},{usable[-1]}"


if __name__ == "__main__":
    main()
