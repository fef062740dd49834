"""The loss of power: every state that it may leave on the disk while an archive works, and what comes back from each.

    uv run python -m bench.power                       # all states, some minutes
    uv run python -m bench.power --states 500          # so many of them, by chance

`aiodicom serve` runs under strace and keeps instances: new ones, others again, some under a UID that is there. It is killed,
runs again, and gets them again. For each C-STORE that was answered with Success, the trace must show in this order: the
file synced, linked to its name, the folders synced that this changed, the row in the write-ahead log, that synced, the
answer sent. Then the trace is done again on a disk that may lose whatever is not synced; an archive is opened on each
state that this leaves, and all that was acknowledged up to then must be there, unaltered, and nothing that is not whole.
On a disk that keeps the order of what happens to names, as those with a journal do, the index must also hold exactly the
files that are there, and nothing temporary may be left. Its end is 1 where anything was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

import aiodicom
from aiodicom.archive.rebuilding import INDEX
from aiodicom.archive.shelf import INCOMING, SUFFIX
from aiodicom.dimse.codec import decode_command
from aiodicom.dimse.commands import CStoreRSP
from aiodicom.errors import ArchiveError, DicomNetworkError
from bench.disk import Disk, Image
from bench.processes import LOOPBACK, MEMORY, BenchError
from bench.served import AE_TITLE, Served
from bench.syscalls import Call, read, tracing
from bench.versions import CT, SYNTAX, Version, number_of

Policy: TypeAlias = Literal["keep", "replace"]
INSTANCES: Final = 24
SENDERS: Final = 4
SIZES: Final = (64, 1_000, 3_000, 40_000, 1_500_000)  # the last one is written part by part
SHARES: Final = (4, 4, 4, 2, 1)
SHOWN: Final = 20  # violations
WAL: Final = f"{INDEX}-wal"
PDU_HEADER: Final = 6
PDV_HEADER: Final = 6
P_DATA: Final = 0x04
DUPLICATE: Final = 0x0111
LINKS: Final = ("link", "linkat", "rename", "renameat", "renameat2")
WRITES: Final = ("write", "writev", "pwrite64")
SYNCS: Final = ("fsync", "fdatasync")


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, in order.

    Args:
        policy: what becomes of other content under a UID that is there.
        sent: by the number of an instance, its versions as they are sent; the same one may come again.
    """

    policy: Policy
    sent: Mapping[int, Sequence[Version]]

    @classmethod
    def drawn(cls, policy: Policy, instances: int, rng: random.Random) -> Load:
        """Draw one."""
        sent = {}
        for number in range(instances):
            [size] = rng.choices(SIZES, SHARES)
            again = rng.choice(((), (0,), (1,), (1, 0), (1, 1)))
            sent[number] = tuple(Version(number, version, size) for version in (0, *again))
        return cls(policy, sent)

    def kept(self, number: int) -> list[Version]:
        """Return the versions that are answered with Success, in order."""
        versions = self.sent[number]
        return [each for each in versions if self.policy == "replace" or each == versions[0]]


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        calls: how many calls changed the disk.
        acknowledged: how many answers were looked at.
        states: how many different states of the disk there were.
        opened: on how many of them an archive was opened.
        violations: what was not as it must be.
    """

    calls: int = 0
    acknowledged: int = 0
    states: int = 0
    opened: int = 0
    violations: list[str] = field(default_factory=list)


# ---- the trace


async def trace(folder: Path, load: Load, *options: str) -> list[list[Call]]:
    """Run the archive below a folder twice, killed the first time, and return what each asked of the system."""
    logs = [folder / "killed.strace", folder / "ended.strace"]
    for log, kill_after in zip(logs, (len(load.sent) // 2, None), strict=True):
        served = Served(folder, f"--on-duplicate={load.policy}", *options, under=partial(tracing, log=log))
        async with served:
            await _send_all(served, load, kill_after)
            if kill_after is None:
                await served.end()
    return read(logs)


async def _send_all(served: Served, load: Load, kill_after: int | None) -> None:
    """Send all that there is to send; kill the server after so many instances, with others on their way."""
    waiting = iter(load.sent.values())
    done = 0

    async def send() -> None:
        nonlocal done
        async with aiodicom.associate(
            LOOPBACK, served.port, called_ae_title=AE_TITLE, contexts=(aiodicom.ProposedContext(CT, (SYNTAX,)),)
        ) as association:
            for versions in waiting:
                for each in versions:
                    response = await association.c_store(each.instance())
                    if response.status not in (0, DUPLICATE):
                        raise BenchError(f"{each} was answered with {response.status}")
                done += 1
                if done == kill_after:
                    await served.kill()

    async with asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(send() if kill_after is None else _forgiving(send()))


async def _forgiving(sending: Awaitable[None]) -> None:
    with suppress(DicomNetworkError):  # it was killed
        await sending


# ---- the oracle


def _successes(data: bytes) -> Iterator[int]:
    """The numbers of the instances that answers among some PDUs are about."""
    while len(data) > PDU_HEADER + PDV_HEADER:
        kind, length = data[0], int.from_bytes(data[2:PDU_HEADER])
        pdu, data = data[PDU_HEADER : PDU_HEADER + length], data[PDU_HEADER + length :]
        if kind == P_DATA:
            command, _ = decode_command(pdu[PDV_HEADER:])
            if isinstance(command, CStoreRSP) and command.status == 0:
                yield number_of(command.affected_sop_instance_uid or "")


def out_of_order(calls: Sequence[Call], root: Path) -> list[str]:
    """Return which answers were sent before all was on the disk that they rely on."""
    return [
        f"instance {number} was answered at line {call.begun} without {missing}"
        for at, call in enumerate(calls)
        for number in _answered(call)
        if (missing := _missing(calls[:at], call, number, root))
    ]


def _answered(call: Call) -> list[int]:
    return list(_successes(call.data)) if call.where.startswith("socket:") else []


def _missing(before: Sequence[Call], answer: Call, number: int, root: Path) -> str | None:
    """What had not ended when an answer began, in words."""
    uid = Version(number, 0, 0).sop_instance_uid
    is_its = re.compile(rf"/{re.escape(uid)}(-\d+)?{re.escape(SUFFIX)}$").search
    link = next((call for call in reversed(before) if call.name in LINKS and is_its(call.paths[-1])), None)
    if link is None:
        return "a file"
    temporary, name = link.paths
    written = max(call.ended for call in before if call.name in WRITES and call.where == temporary)
    if not _synced(before, temporary, written, link.begun):
        return "a sync of the file before its link"
    log = str(root / WAL)
    rows = (call for call in before if call.name in WRITES and call.where == log and uid.encode() in call.data)
    row = next((call for call in rows if call.begun > link.begun), None)
    if row is None:
        return "a row after its link"
    if not _synced(before, log, row.ended, answer.begun):
        return "a sync of the write-ahead log behind its row"
    if not _synced(before, os.path.dirname(name), link.ended, row.begun):  # noqa: PTH120
        return "a sync of its folder before its row"
    made = (call for call in before if call.name == "mkdir" and name.startswith(f"{call.paths[0]}/"))
    for call in made:
        if not _synced(before, os.path.dirname(call.paths[0]), call.ended, row.begun):  # noqa: PTH120
            return f"a sync of what {call.paths[0]} was made in"
    return None


def _synced(calls: Iterable[Call], path: str, after: int, before: int) -> bool:
    """Tell whether a file or folder was synced between two places in the trace."""
    syncs = (call for call in calls if call.name == "sync" or (call.name in SYNCS and call.where == path))
    return any(after < call.begun and call.ended < before for call in syncs)


# ---- the replay


@dataclass(slots=True)
class State:
    """A state of the disk, and the most that had been answered when it may have been left.

    Args:
        image: what is on the disk.
        acknowledged: for each instance, which of what is answered with Success in both runs was the last one by then.
        line: where in the trace.
    """

    image: Image
    acknowledged: Mapping[int, int]
    line: int


def states(runs: Iterable[Sequence[Call]], root: Path, load: Load, report: Report) -> list[State]:
    """Return every state that a loss of power may leave, each once."""
    disk = Disk(str(root.parent))
    found: dict[int, State] = {}
    acknowledged: dict[int, int] = {}
    for run, calls in enumerate(runs):
        of_run: Counter[int] = Counter()
        for call in calls:
            if answered := _answered(call):
                report.acknowledged += len(answered)
                of_run.update(answered)
                acknowledged = acknowledged | {each: run * len(load.kept(each)) + of_run[each] for each in answered}
            elif disk.do(call):
                report.calls += 1
            else:
                continue
            for image in disk.images():
                key = image.fingerprint()
                is_ordered = image.ordered or (key in found and found[key].image.ordered)
                found[key] = State(replace(image, ordered=is_ordered), acknowledged, call.begun)
    if (seen := _content(disk.image())) != (there := _content_of(root.parent, seen)):
        odd = min(path for path in {*seen, *there} if seen.get(path) != there.get(path))
        raise BenchError(f"the trace does not say how {odd} came to be what it is")
    report.states = len(found)
    return list(found.values())


def _content(image: Image) -> dict[str, bytes]:
    return {path: data for path, (_, data) in image.files.items()}


def _content_of(folder: Path, seen: Iterable[str]) -> dict[str, bytes]:
    """What is below a folder, in the parts of it of which something was seen."""
    tops = {path.split("/")[0] for path in seen}
    paths = [
        path for top in tops for path in (folder / top).rglob("*") if path.is_file() and not path.name.endswith("-shm")
    ]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


async def open_all(found: Iterable[State], load: Load, folder: Path, report: Report) -> None:
    """Open an archive on each state, and see what is there."""
    where = folder / "disk"
    for state in found:
        where.mkdir()
        try:
            state.image.write(where)
            report.opened += 1
            for violation in await _violations(where / "archive", state, load):
                how = "a disk with a journal" if state.image.ordered else "a disk that keeps no order"
                report.violations.append(f"power lost at line {state.line}, {how}: {violation}")
        finally:
            shutil.rmtree(where)


async def _violations(archive: Path, state: State, load: Load) -> list[str]:
    try:
        async with aiodicom.Archive(archive, on_duplicate=load.policy, sync=False):
            pass
    except (ArchiveError, OSError) as error:
        return [f"it cannot be opened: {error}"]
    with closing(sqlite3.connect(archive / INDEX)) as connection:
        rows = connection.execute("SELECT SOPInstanceUID, path, data_set_offset, size FROM instances").fetchall()
    found = []
    kept = {}
    for uid, path, offset, size in rows:
        number = number_of(uid)
        content = (archive / path).read_bytes() if (archive / path).is_file() else b""
        whole = {each.data_set(): each for each in load.sent[number]}
        kept[number] = whole.get(content[offset:]) if len(content) == size else None
        if kept[number] is None:
            found.append(f"{path} is not what was sent" if content else f"there is no {path}")
    for number, count in state.acknowledged.items():
        if number not in kept:
            found.append(f"instance {number} is lost")
        elif kept[number] not in (2 * load.kept(number))[count - 1 :]:  # it is all sent again
            found.append(f"instance {number} is {kept[number]}, and another one was answered last")
    if state.image.ordered:
        files = set(_below(archive, f"*{SUFFIX}"))
        if strangers := files ^ {row[1] for row in rows}:
            found.append(f"{min(strangers)} is in the folder or in the index, and not in both")
        if left := next(_below(archive / INCOMING, "*"), None):
            found.append(f"{left} is left of what came in")
    return found


def _below(folder: Path, pattern: str) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob(pattern))


async def lose_power(folder: Path, load: Load, options: Sequence[str], most: int | None, rng: random.Random) -> Report:
    """Do it all, and open an archive on so many states, or on all."""
    report = Report()
    root = folder / "archive"
    runs = await trace(folder, load, *options)
    report.violations += out_of_order([call for calls in runs for call in calls], root)
    found = states(runs, root, load, report)
    if most is not None and most < len(found):
        found = rng.sample(found, most)
    await open_all(found, load, folder, report)
    return report


def main() -> None:
    """Do what the command line asks for."""
    first, _, last = __doc__.strip().split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m bench.power", description=f"{first} {last}")
    parser.add_argument("--instances", type=int, default=INSTANCES, help="how many are sent (%(default)s)")
    parser.add_argument("--states", type=int, help="on how many states an archive is opened; by default on all")
    parser.add_argument("--workers", type=int, default=1, help="of the server (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of all chance; default: any")
    arguments = parser.parse_args()
    violations = []
    for policy in ("keep", "replace"):
        rng = random.Random(arguments.seed)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="aiodicom-power-", dir=MEMORY if MEMORY.is_dir() else None) as name:
            load = Load.drawn(policy, arguments.instances, rng)
            options = [f"--workers={arguments.workers}"]
            report = asyncio.run(lose_power(Path(name).resolve(), load, options, arguments.states, rng))
        print(
            f"seed {arguments.seed}, on duplicates {policy}: {report.calls:,} calls that change the disk, "
            f"{report.acknowledged:,} answers, {report.states:,} states of the disk, {report.opened:,} opened: "
            f"{len(report.violations)} violations in {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        violations += report.violations
    for violation in violations[:SHOWN]:
        print(f"violation: {violation}")
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
