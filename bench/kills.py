"""Kills: an archive under load is killed at any time, again and again, and has everything that it answered for.

    uv run python -m bench.kills                   # 25 kills, a minute
    uv run python -m bench.kills --kills 1000

Senders store in `aiodicom serve`, each over an association of its own: new instances of 2 KB to 8 MB, some again, some with
other content under a UID that is there, which is refused, or replaces the first, from one start to the next. SIGKILL comes
at a random time, also before the server listens. After each start, what was answered with Success since the last one, and
some of what was before, is retrieved by C-GET and compared by SHA-256; at the end, everything. The index must hold exactly
the files that are there, and nothing temporary may be left. Its end is 1 where anything was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

import aiodicom
from aiodicom.archive.rebuilding import INDEX
from aiodicom.archive.shelf import INCOMING, SUFFIX
from aiodicom.errors import DicomNetworkError
from aiodicom.uids import STUDY_ROOT_GET
from bench.processes import LOOPBACK
from bench.served import AE_TITLE, READER, Served
from bench.versions import CT, SYNTAX, Version, number_of

SENDERS: Final = 4
SIZES: Final = (2_048, 40_960, 524_288, 8_388_608)
SHARES: Final = (60, 25, 12, 3)
MOST_LARGE: Final = 1 << 30  # bytes of new instances, of which those that come later are small
SECONDS_OF_LOAD: Final = 0.8  # at most, before a kill
SECONDS_OF_START: Final = 0.6  # within which a server is killed that has not come up yet
KILLED_BEFORE_IT_LISTENS: Final = 0.15  # of all
CHECKED_AGAIN: Final = 50  # instances that were retrieved before, after each start
ASKED_AT_ONCE: Final = 100
DUPLICATE: Final = 0x0111
SHOWN: Final = 20  # violations


@dataclass(slots=True)
class Holding:
    """What must be there of an instance.

    Args:
        acknowledged: the version that was answered with Success last, if any.
        possible: others that may have taken its place: they were sent since, and not answered.
    """

    acknowledged: Version | None = None
    possible: set[Version] = field(default_factory=set)


@dataclass(slots=True)
class Ledger:
    """What was sent, and what came of it.

    Attributes:
        holdings: by the number of the instance.
        changed: the numbers of those that were not retrieved since they changed.
        associations: how many senders were let in.
        answers: how many C-STOREs were answered with Success.
        refused: how many with 0x0111.
        retrieved: how many instances were retrieved and compared.
        starts: how many seconds each start took.
        violations: what was not as it must be.
    """

    holdings: dict[int, Holding] = field(default_factory=lambda: defaultdict(Holding))
    changed: set[int] = field(default_factory=set)
    associations: int = 0
    answers: int = 0
    refused: int = 0
    retrieved: int = 0
    starts: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


class Senders:
    """Those who store, each its own instances.

    Args:
        ledger: what they do.
        rng: of all chance.
    """

    def __init__(self, ledger: Ledger, rng: random.Random) -> None:
        self._ledger = ledger
        self._rng = rng
        self._numbers = count()
        self._own: list[list[Version]] = [[] for _ in range(SENDERS)]
        self._bytes = 0

    async def send(self, port: int, *, replaces: bool) -> None:
        """Store until the server is killed."""
        await asyncio.gather(*(self._send(port, own, replaces=replaces) for own in self._own))

    async def _send(self, port: int, own: list[Version], *, replaces: bool) -> None:
        contexts = [aiodicom.ProposedContext(CT, (SYNTAX,))]
        with suppress(DicomNetworkError):  # it was killed
            async with aiodicom.associate(LOOPBACK, port, called_ae_title=AE_TITLE, contexts=contexts) as association:
                self._ledger.associations += 1
                while True:
                    await self._store(association, self._draw(own), replaces=replaces)

    def _draw(self, own: list[Version]) -> Version:
        """A new instance, one again, or another version of one."""
        what = self._rng.random()
        if own and what < 0.4:
            version = self._rng.choice(own)
            return version if what < 0.2 else version._replace(version=self._rng.randrange(1000))
        [size] = self._rng.choices(SIZES, SHARES)
        if self._bytes > MOST_LARGE:
            size = SIZES[0]
        self._bytes += size
        version = Version(next(self._numbers), 0, size)
        own.append(version)
        return version

    async def _store(self, association: aiodicom.Association, version: Version, *, replaces: bool) -> None:
        holding = self._ledger.holdings[version.number]
        is_other = holding.acknowledged not in (None, version)
        if replaces or not is_other:
            holding.possible.add(version)
        self._ledger.changed.add(version.number)  # though it may never be answered, and yet be there
        response = await association.c_store(version.instance())
        if response.status == 0:
            self._ledger.answers += 1
            if is_other and not replaces:  # what took its place without an answer is known since the last look
                self._ledger.violations.append(f"{version} was accepted beside {holding.acknowledged}")
            holding.acknowledged, holding.possible = version, set()
        elif response.status == DUPLICATE and (is_other or len(holding.possible) > 1):
            self._ledger.refused += 1
            holding.possible.discard(version)
        else:
            self._ledger.violations.append(f"{version} was answered with {response.status!r}")


async def check(ledger: Ledger, port: int, numbers: Iterable[int]) -> None:
    """Retrieve instances, and compare them with what must be there."""
    by_study = defaultdict(list)
    for number in numbers:
        by_study[Version(number, 0, 0).study_instance_uid].append(number)
    contexts: tuple[aiodicom.ProposedContext | str, ...] = (
        STUDY_ROOT_GET,
        aiodicom.ProposedContext(CT, (SYNTAX,), scu_role=True, scp_role=True),
    )
    async with aiodicom.associate(
        LOOPBACK, port, called_ae_title=AE_TITLE, calling_ae_title=READER, contexts=contexts
    ) as association:
        for study, all_of_it in by_study.items():
            for some in _batches(all_of_it):
                got = await _retrieve(ledger, association, study, some)
                for number in some:
                    _compare(ledger, number, got.get(number))


def _batches(numbers: list[int]) -> Iterator[list[int]]:
    return (numbers[at : at + ASKED_AT_ONCE] for at in range(0, len(numbers), ASKED_AT_ONCE))


async def _retrieve(
    ledger: Ledger, association: aiodicom.Association, study: str, numbers: Collection[int]
) -> dict[int, Version]:
    """Retrieve instances of a study, and return which versions they are."""
    found = {}
    uids = [Version(number, 0, 0).sop_instance_uid for number in numbers]
    async with association.c_get(
        level="image", StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", SOPInstanceUID=uids
    ) as instances:
        async for each in instances:
            digest, size, end = sha256(), 0, b""
            async for chunk in each.stream():
                digest.update(chunk)
                size, end = size + len(chunk), (end + chunk)[-16:]
            number = number_of(each.sop_instance_uid)
            expected = Version(number, int(end[8:]) - 10_000_000 if end[8:].isdigit() else 0, 0)
            version = expected._replace(size=size - len(expected.head()))
            ledger.retrieved += 1
            if sha256(version.data_set()).digest() == digest.digest():
                found[number] = version
            else:
                ledger.violations.append(f"instance {number} was altered")
    if instances.status != 0:
        ledger.violations.append(f"a C-GET ended with {instances.status!r}")
    return found


def _compare(ledger: Ledger, number: int, got: Version | None) -> None:
    """See that what came is what must be there; from now on it is that which was answered for."""
    holding = ledger.holdings[number]
    if got is None:
        if holding.acknowledged is not None:
            ledger.violations.append(f"{holding.acknowledged} is lost")
    elif got != holding.acknowledged and got not in holding.possible:
        ledger.violations.append(f"{got} came, and {holding.acknowledged} was answered for")
    holding.acknowledged, holding.possible = got, set()


def disorder(archive: Path) -> list[str]:
    """Return what is temporary in an archive, and what is in its index or its folder alone."""
    with closing(sqlite3.connect(f"{(archive / INDEX).as_uri()}?mode=ro", uri=True)) as connection:
        indexed = {path for (path,) in connection.execute("SELECT path FROM instances")}
    files = {path.relative_to(archive).as_posix() for path in archive.rglob(f"*{SUFFIX}")}
    found = [f"{path} is in the folder or in the index, and not in both" for path in sorted(files ^ indexed)]
    return found + [f"{path.name} is left of what came in" for path in (archive / INCOMING).iterdir()]


async def kill(folder: Path, kills: int, rng: random.Random) -> Ledger:
    """Do it below a folder, so many times."""
    ledger = Ledger()
    senders = Senders(ledger, rng)
    for number in range(kills + 1):
        replaces = rng.random() < 0.5
        if number < kills and rng.random() < KILLED_BEFORE_IT_LISTENS:
            await _killed_while_it_starts(folder, rng.uniform(0, SECONDS_OF_START))
            continue
        begun = time.monotonic()
        async with Served(folder, "--on-duplicate", "replace" if replaces else "keep") as served:
            ledger.starts.append(time.monotonic() - begun)
            await _look(ledger, served, rng, everything=number == kills)
            if number < kills:
                sending = asyncio.ensure_future(senders.send(served.port, replaces=replaces))
                await asyncio.wait([sending], timeout=rng.uniform(0, SECONDS_OF_LOAD))
                await served.kill()
                await sending
        _say(number, kills, ledger)
    return ledger


async def _look(ledger: Ledger, served: Served, rng: random.Random, *, everything: bool) -> None:
    """Look at an archive at rest."""
    ledger.violations += await asyncio.to_thread(disorder, served.archive)
    numbers = set(ledger.holdings) if everything else ledger.changed
    again = rng.sample(sorted(ledger.holdings), min(CHECKED_AGAIN, len(ledger.holdings)))
    await check(ledger, served.port, sorted(numbers | set(again)))
    ledger.changed.clear()


async def _killed_while_it_starts(folder: Path, after: float) -> None:
    served = Served(folder)
    await served.start()
    await asyncio.sleep(after)
    await served.kill()


def _say(number: int, kills: int, ledger: Ledger) -> None:
    if number % 25 == 0 or number == kills:
        print(
            f"{number} of {kills} kills, {ledger.answers:,} answers, {len(ledger.violations)} violations",
            file=sys.stderr,
            flush=True,
        )
        for violation in ledger.violations[:SHOWN]:
            print(f"violation: {violation}", file=sys.stderr, flush=True)


def main() -> None:
    """Do what the command line asks for."""
    first, _, last = __doc__.strip().split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=f"{first} {last}")
    parser.add_argument("--kills", type=int, default=25, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of all chance; default: any")
    parser.add_argument("--folder", type=Path, help="where the archive goes; by default a temporary one")
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aiodicom-kills-", dir=arguments.folder) as name:
        ledger = asyncio.run(kill(Path(name), arguments.kills, random.Random(arguments.seed)))
    lost = sum("is lost" in violation for violation in ledger.violations)
    there = sum(holding.acknowledged is not None for holding in ledger.holdings.values())
    print(
        f"seed {arguments.seed}: {lost} of {there:,} acknowledged instances lost in {arguments.kills} kills, "
        f"{len(ledger.violations)} violations; {ledger.answers:,} answered with Success, {ledger.refused:,} refused as "
        f"duplicates, {ledger.retrieved:,} retrieved; started in {median(ledger.starts):.2f} s, {max(ledger.starts):.2f} s "
        f"at most; {time.monotonic() - begun:.0f} s"
    )
    for violation in ledger.violations[:SHOWN]:
        print(f"violation: {violation}")
    sys.exit(bool(ledger.violations))


if __name__ == "__main__":
    main()
