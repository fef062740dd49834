"""The cases of a long way: stores through a proxy that delays them, one at a time and many at a time, beside DCMTK.

What is fixed: the operations window of one association, and associations without one. "left alone" is `RemoteAE.send`,
which is told nothing, with four associations at most as it comes, and with ten.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.case import Case, Contender, Scale, Target
from bench.objects import Kind
from bench.peers import (
    ClientKind,
    Job,
    ServerKind,
    aiodicom_scp,
    aiodicom_scu,
    pynetdicom_scp,
    pynetdicom_scu,
    python_command,
    storescp,
    storescu,
)
from bench.processes import Command

GROUP: Final = "Distance"
ROUND_TRIPS: Final = (0.02, 0.1)
POOLS: Final = (4, 10)
ROUND_TRIPS_EACH: Final = 60
"""How many round trips one after the other the slow ones do in a full run."""


def cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    return tuple(_case(scale, round_trip, kind) for round_trip in ROUND_TRIPS for kind in (Kind.SMALL, Kind.MEDIUM))


def _case(scale: Scale, round_trip: float, kind: Kind) -> Case:
    milliseconds = round(1000 * round_trip)
    few = Job("store", scale(ROUND_TRIPS_EACH, 10), kind)
    many = Job("store", scale(1000, 300), kind)
    server, forks = _far(aiodicom_scp(), round_trip), _far(storescp("--fork", "--ignore", tuned=True), round_trip)
    at_16 = Contender(_sender(associations=1, window=16), server, many)
    alone, alone_with_ten = Contender(_sender(), server, many), Contender(_sender(most=10), server, many)
    dcmtk = Contender(storescu(tuned=True), _far(storescp("--ignore", tuned=True), round_trip), few)
    at_4 = Contender(_sender(associations=1, window=4), server, many)
    wide = Contender(_sender(associations=1, window=64), _far(aiodicom_scp(operations=64), round_trip), many)
    pools = (Contender(_sender(associations=count, window=1), server, many) for count in POOLS)
    pynetdicom = pynetdicom_scu(tuned=True), _far(pynetdicom_scp(tuned=True), round_trip), few
    return Case(
        f"far-{milliseconds}-{kind.name.lower()}",
        f"{kind.value}, discarded, {milliseconds} ms there and back",
        "objects/s" if kind is Kind.SMALL else "MB/s",
        (
            Contender(aiodicom_scu(), server, few),
            at_16,
            at_4,
            wide,
            *pools,
            alone,
            alone_with_ten,
            Contender(_sender(), forks, many),
            dcmtk,
            Contender(storescu(tuned=False), _far(storescp("--ignore", tuned=False), round_trip), few),
            Contender(*pynetdicom),
        ),
        (
            Target("window of 16: 10 × DCMTK", at_16, 10, dcmtk),
            Target("left alone: 10 × DCMTK", alone, 10, dcmtk),
        ),
        group=GROUP,
    )


def _far(server: ServerKind, round_trip: float) -> ServerKind:
    return replace(server, round_trip=round_trip)


def _sender(*, associations: int | None = None, window: int | None = None, most: int = 4) -> ClientKind:
    """Our SCU by `RemoteAE.send`."""
    fixed = {"--associations": associations, "--window": window, "--most": max(most, associations or 1)}
    options = [str(word) for option, value in fixed.items() if value is not None for word in (option, value)]

    def command(port: int, _job: Job, folder: Path | None) -> Command:
        return python_command("aiodicom_sender", *options, port, folder)

    if associations is None or window is None:
        how = "left alone" if most == 4 else f"left alone, {most} at most"
    else:
        how = f"window of {window}" if associations == 1 else f"{associations} associations"
    return ClientKind(f"aiodicom ({how})", command)
