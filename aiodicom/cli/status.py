"""`aiodicom status`: what a running `aiodicom serve` has done and is doing."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Final

from aiodicom.cli.columns import Columns
from aiodicom.cli.console import bold, complain, say
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.options import Command, Parser
from aiodicom.cli.view import View, ask
from aiodicom.cli.words import amount, size
from aiodicom.logs import printable

HELP: Final = "show the associations and counters of a running aiodicom serve"
NOTES: Final = """\
FOLDER is the one that the server keeps its archive in (./archive). A table on a terminal; elsewhere
a JSON object: workers, total, associations. Instances are those whose C-STORE succeeded, also where
they were there before; bytes are those of the network. Whoever runs the server may ask, and nobody
else."""

WORKERS: Final = ("WORKER", "PID", "SINCE", "RESTARTS", "OPEN", "ACCEPTED", "REJECTED", "ABORTED", "INSTANCES")
ASSOCIATIONS: Final = ("CALLING", "CALLED", "FROM", "WORKER", "SINCE")
TRAFFIC: Final = ("RECEIVED", "SENT")
DOES: Final = ("DOES",)


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom status", "aiodicom status [FOLDER]", HELP, NOTES)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, help="see below")
    parser.add_argument(
        "--storage", metavar="DIR", type=Path, default=Path("archive"), help="the same, as serve has it"
    )
    options = parser.parse_args(arguments)
    options.folder = options.folder or options.storage
    return options


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    try:
        view = await ask(options.folder)
    except (FileNotFoundError, ConnectionRefusedError):
        complain(f"nobody serves {options.folder}: it is done by  aiodicom serve --storage {options.folder}")
        return ExitCode.NETWORK
    except PermissionError:
        complain(f"{options.folder}: no permission to ask; whoever runs the server may")
        return ExitCode.CANNOT_USE_FOLDER
    except (OSError, ValueError) as error:
        complain(f"{options.folder}: the server does not answer: {str(error) or 'it takes too long'}")
        return ExitCode.NETWORK
    if sys.stdout.isatty():
        say("\n".join(_table(view)))
    else:
        say(json.dumps(view))
    return ExitCode.OK


def _table(view: View) -> Iterable[str]:
    workers = view["workers"]
    count = f"{amount(len(workers), 'worker')}, " if len(workers) > 1 else ""
    yield f"{view['ae_title']} at {view['host'] or 'every address'}, port {view['port']}: {count}since {_time(view['since'])}"
    rows = [_worker(each) for each in workers]
    if len(workers) > 1:
        rows.append(_worker({**view["total"], "worker": "all"}))
    yield from _columns((*WORKERS, *TRAFFIC), rows, right=range(3, len(WORKERS) + len(TRAFFIC)))
    if dropped := view["total"]["audit_dropped"]:
        yield f"{amount(dropped, 'audit message was', 'audit messages were')} dropped"
    yield ""
    yield amount(len(view["associations"]), "association")
    if view["associations"]:
        rows = [_association(each) for each in view["associations"]]
        first = len(ASSOCIATIONS)
        yield from _columns((*ASSOCIATIONS, *TRAFFIC, *DOES), rows, right=range(first, first + len(TRAFFIC)))


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str]], right: range) -> Iterable[str]:
    columns = Columns([headings, *rows], get_terminal_size().columns, right=right, whole=right)
    return "", bold(columns.line(headings)), *map(columns.line, rows)


def _worker(row: Mapping[str, Any]) -> tuple[str, ...]:
    counted = (row[name.lower()] for name in WORKERS[4:])
    return (
        str(row["worker"]),
        str(row.get("pid") or ""),
        _time(row.get("since")),
        f"{row.get('restarts', 0):,}",
        *(f"{each:,}" for each in counted),
        *_traffic(row),
    )


def _association(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        printable(row["calling_ae_title"]),
        printable(row["called_ae_title"]),
        f"{row['host']}:{row['port']}",
        str(row["worker"]),
        _time(row["since"]),
        *_traffic(row),
        ", ".join(row["operations"]),
    )


def _traffic(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(size(row[name]) for name in ("bytes_received", "bytes_sent"))


def _time(text: str | None) -> str:
    """Return a moment in the time of this place; without its date if that is today's."""
    if not text:
        return ""
    moment = datetime.fromisoformat(text).astimezone()
    is_today = moment.date() == datetime.now(moment.tzinfo).date()
    return moment.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")


COMMAND: Final = Command(HELP, parse, run)
