"""The command: measure the cases, print the tables. See the README beside this file."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import crowd
from bench.case import Case, Scale
from bench.cases import all_cases
from bench.measure import measure
from bench.objects import Objects
from bench.peers import PEERS, missing_peers
from bench.pictures import write_pictures
from bench.processes import MEMORY, Cores
from bench.progress import Progress
from bench.report import machine, markdown
from bench.results import Report, UnknownFormat

CROWD: Final = "crowd-"
CROWDS: Final = {
    f"{CROWD}{name}": (measured.__doc__ or "").partition("\n")[0] for name, measured in crowd.CASES.items()
}
LONG: Final = ("far-20-medium", "far-100-small", "far-100-medium", "crowd-storing", "crowd-slow")
ROUNDS: Final = 3
ROUNDS_OF_QUICK: Final = 1


def main(words: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    words = sys.argv[1:] if words is None else words
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.samples is not None:
        try:
            report = Report.from_json(arguments.samples.read_text(encoding="utf-8"))
        except (OSError, UnknownFormat) as error:
            parser.error(f"{arguments.samples}: {error}")
    else:
        scale: Scale = (lambda _full, quick: quick) if arguments.quick else (lambda full, _quick: full)
        cases = all_cases(scale)
        known = [*(case.name for case in cases), *CROWDS]
        if unknown := set(arguments.only or ()) - set(known):
            parser.error(f"no such case: {', '.join(sorted(unknown))}; --list names them")
        names = arguments.only or [name for name in known if not (arguments.quick and name in LONG)]
        chosen = [case.beside(arguments.peers) for case in cases if case.name in names]
        chosen = [case for case in chosen if case.contenders]
        crowds = {name: words for name, words in CROWDS.items() if name in names}
        if arguments.list:
            titles = {**{case.name: case.title for case in chosen}, **crowds}
            print("\n".join(f"{name:28} {title}" for name, title in titles.items()))
            return
        for path in (arguments.markdown, arguments.json):
            if path is not None and not path.parent.is_dir():
                parser.error(f"{path}: there is no folder {path.parent}")
        rounds = arguments.rounds or (ROUNDS_OF_QUICK if arguments.quick else ROUNDS)
        command = shlex.join(["python", "-m", "bench", *words])
        report = run(chosen, tuple(crowds), scale, arguments.peers, rounds, arguments.cores, command)
    tables = markdown(report)
    print(tables)
    if arguments.markdown is not None:
        arguments.markdown.write_text(tables, encoding="utf-8")
    if arguments.json is not None:
        arguments.json.write_text(report.to_json(), encoding="utf-8")
    if arguments.pictures is not None:
        write_pictures(report, arguments.pictures)


def run(
    cases: Sequence[Case],
    crowds: Sequence[str],
    scale: Scale,
    peers: Sequence[str],
    rounds: int,
    cores: Cores,
    command: str,
) -> Report:
    """Measure the cases one after the other, and then the crowds, with progress on the standard error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that no server is left behind
    progress = Progress(len(cases) + len(crowds))
    missing = {name: words for name, words in missing_peers().items() if name in peers}
    for words in missing.values():
        progress.say(f"{words}: it takes no part")
    results, rows = [], []
    with tempfile.TemporaryDirectory(prefix="aiodicom-bench-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        objects = Objects(folder / "objects")
        for case in cases:
            progress.case(case.title)
            results.append(measure(case, rounds=rounds, cores=cores, objects=objects, folder=folder, progress=progress))
        for name in crowds:
            progress.case(CROWDS[name])
            rows += crowd.measure(scale, cores, folder, only=[name.removeprefix(CROWD)], say=progress.say)
    seconds = progress.seconds
    progress.say(f"done; missing: {', '.join(missing) or 'nobody'}")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(command, date, machine(cores), seconds, rounds, missing, results, tuple(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="aiodicom side by side with its peers: measures the cases, and prints the tables.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"one round and smaller counts, without {', '.join(LONG)} unless they are named: less than three minutes",
    )
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these cases; `--list` names them")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        metavar="PEER",
        help=f"aiodicom beside these and nobody else: {', '.join(PEERS)}; all by default, none without a name",
    )
    parser.add_argument(
        "--rounds", type=_rounds, metavar="N", help=f"default: {ROUNDS}, or {ROUNDS_OF_QUICK} if --quick"
    )
    parser.add_argument(
        "--cores",
        type=_cores,
        default=_default_cores(),
        metavar="SCU,SCP",
        help="the processors that the ends run on; default: the first and the last",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw the results there, as SVG")
    parser.add_argument(
        "--from", dest="samples", type=Path, metavar="FILE", help="measure nothing: report what --json wrote there"
    )
    parser.add_argument("--list", action="store_true", help="name the cases, and end")
    return parser


def _rounds(word: str) -> int:
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{word} is less than one round")
    return value


def _cores(words: str) -> Cores:
    client, server = map(int, words.split(","))
    usable = os.sched_getaffinity(0)
    if missing := {client, server} - usable:
        there = ", ".join(map(str, sorted(usable)))
        raise argparse.ArgumentTypeError(
            f"no such processor: {', '.join(map(str, sorted(missing)))}; there are {there}"
        )
    return Cores(client, server)


def _default_cores() -> Cores:
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[-1])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    main()
