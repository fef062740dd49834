"""The ten scenarios of pynetdicom's own benchmark script (`pynetdicom/tests/benchmark_script.py`), by its numbers.

One CT image of 39 KB, as a Dataset in memory or by `storescu --repeat`; SCPs take it in Implicit VR Little Endian alone.
Everybody is as installed: nobody is tuned. Where the script has pynetdicom, aiodicom has the same role in turns with it. The
script sends 1,000; who sends twenty a second sends fewer here, which changes no rate.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from bench.case import Case, Contender, Scale, Target
from bench.objects import Kind
from bench.peers import OURS, ClientKind, Job, ServerKind, python_command, storescp
from bench.processes import LOOPBACK, Command, find

GROUP: Final = "pynetdicom's own benchmark"
AT_ONCE: Final = 10
PYNETDICOM: Final = "pynetdicom"
WRITING: Final = (
    (3, "", ()),
    (4, ", decoded and written", ("--write", "data-set")),
    (5, ", written", ("--write", "bytes")),
    (6, ", written, PDUs of any length", ("--write", "bytes", "--unlimited")),
)
"""The scenarios of an SCP that storescu feeds on one association: number, what it does, and how it is told so."""


def cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    many, few = scale(1000, 100), scale(100, 10)
    store, slow = Job("store", many, Kind.SMALL), Job("store", few, Kind.SMALL)
    fed = Job("store", few, Kind.SMALL, AT_ONCE)
    receiving = []
    for number, words, options in WRITING:
        contenders = _against(storescu(), _scp(OURS, options), _scp(PYNETDICOM, options), store, slow)
        receiving.append(_case(number, f"SCP, one association{words}", contenders))
    return (
        _case(1, "SCU, one association", _sending((), store, slow)),
        _case(2, "SCU, an association each", _sending(("--apart",), slow, slow)),
        *receiving,
        _case(7, "SCP, an association each", _against(storescu_apart(), _scp(OURS), _scp(PYNETDICOM), slow, slow)),
        _case(
            8,
            f"SCP, {AT_ONCE} associations at once",
            _against(storescu_at_once(), _scp(OURS), _scp(PYNETDICOM), fed, fed),
        ),
        _case(9, "SCU and SCP, one association", (_both(OURS, store), _both(PYNETDICOM, slow))),
        _case(
            10, "DCMTK's SCU and SCP, one association", (_both(OURS, store), Contender(storescu(), _storescp(), slow))
        ),
    )


def _case(number: int, title: str, contenders: tuple[Contender, Contender]) -> Case:
    ours, theirs = contenders
    words = f"1 × {'DCMTK' if number == 10 else 'pynetdicom'}"
    target = Target(words, ours, 1, theirs)
    return Case(f"pynetdicom-{number}", f"{number}. {title}", "objects/s", contenders, (target,), group=GROUP)


def _sending(options: tuple[str, ...], job: Job, slow: Job) -> tuple[Contender, Contender]:
    return Contender(_scu(OURS, options), _storescp(), job), Contender(_scu(PYNETDICOM, options), _storescp(), slow)


def _against(
    client: ClientKind, ours: ServerKind, theirs: ServerKind, job: Job, slow: Job
) -> tuple[Contender, Contender]:
    return Contender(client, ours, job), Contender(client, theirs, slow)


def _both(whose: str, job: Job) -> Contender:
    return Contender(_scu(whose), _scp(whose), job)


def _scp(whose: str, options: tuple[str, ...] = ()) -> ServerKind:
    def command(port: int, folder: Path) -> Command:
        return python_command(f"{whose}_script", *options, "serve", port, folder)

    return ServerKind(whose, command, peer=whose)


def _scu(whose: str, options: tuple[str, ...] = ()) -> ClientKind:
    def command(port: int, _job: Job, folder: Path | None) -> Command:
        return python_command(f"{whose}_script", *options, "send", port, folder)

    return ClientKind(whose, command, peer=whose)


def _storescp() -> ServerKind:
    return storescp("--ignore", tuned=False)


def storescu() -> ClientKind:
    """Return a storescu that sends one file many times on one association."""
    return ClientKind(
        "storescu", lambda port, job, folder: Command(_repeating(port, job.count, folder), {}), peer="dcmtk"
    )


def storescu_apart() -> ClientKind:
    """Return one storescu after the other, each of which sends one file."""

    def command(port: int, job: Job, folder: Path | None) -> Command:
        return python_command("repeat", job.count, shlex.join(_repeating(port, 1, folder)))

    return ClientKind("storescu", command, peer="dcmtk")


def storescu_at_once() -> ClientKind:
    """Return as many of storescu at once as there are associations."""

    def command(port: int, job: Job, folder: Path | None) -> Command:
        return python_command("repeat", "--at-once", job.associations, shlex.join(_repeating(port, job.count, folder)))

    return ClientKind("storescu", command, peer="dcmtk")


def _repeating(port: int, count: int, folder: Path | None) -> tuple[str, ...]:
    assert folder is not None
    return (find("storescu"), "--repeat", str(count), LOOPBACK, str(port), str(min(folder.iterdir())))
