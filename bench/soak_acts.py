"""What the clients of `bench.soak` do to the server: what is in order, what is left half-way, what means harm."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Final, TypeAlias

import aiodicom
from aiodicom.uids import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE, VERIFICATION
from bench.archives import AE_TITLE, MOVE_AE_TITLE
from bench.processes import LOOPBACK
from bench.soak_hostile import damaged, garble, half_close, offend, say_nothing
from bench.soak_objects import CT, SYNTAX, Name, data_set, draw, instance, name_of, study_of, study_uid
from bench.soak_raw import cut_off, leave_unread

MOST_IN_A_STUDY: Final = 30
WINDOW: Final = 8
LARGE_AT_A_TIME: Final = 3
AT_A_TIME: Final = 64  # associations that are being opened at once

_CONTEXTS: Final = (
    VERIFICATION,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    aiodicom.ProposedContext(CT, (SYNTAX,), scu_role=True, scp_role=True),
)


class Violation(Exception):
    """Something that must not happen, in words."""


class Ledger:
    """What the server said to have.

    Attributes:
        acknowledged: the instances that were answered with Success, by study.
        attempted: those of which it is not known whether they arrived.
        done: how many operations of each kind ended as they should.
        acts: the same of what clients do, which is some operations each.
        violations: what went wrong.
    """

    def __init__(self) -> None:
        self.acknowledged: dict[str, set[Name]] = {}
        self.attempted: set[Name] = set()
        self.done: Counter[str] = Counter()
        self.acts: Counter[str] = Counter()
        self.violations: list[str] = []

    def acknowledge(self, name: Name) -> None:
        """Note that an instance was answered with Success."""
        self.acknowledged.setdefault(name.study, set()).add(name)
        self.done["C-STORE"] += 1

    def of(self, study: str) -> frozenset[Name]:
        """Return the instances of a study that are there for certain."""
        return frozenset(self.acknowledged.get(study, ()))

    def check(self, study: str, expected: Collection[Name], got: Collection[Name]) -> None:
        """See that a study that was retrieved is whole, and that there is nothing in it that nobody stored.

        Raises:
            Violation: it is not.
        """
        if lost := set(expected) - set(got):
            raise Violation(f"{len(lost)} acknowledged instances of study {study} did not come")
        if strangers := set(got) - self.of(study) - self.attempted:
            raise Violation(f"{len(strangers)} instances of study {study} came that nobody stored")


class Crowd:
    """All clients, and what they share.

    Args:
        port: of the server.
        move_port: of the destination of C-MOVE.
        patience: how long the server lets a peer be silent inside a message, in seconds.
    """

    def __init__(self, port: int, move_port: int, patience: float) -> None:
        self.port = port
        self.patience = patience
        self.ledger = Ledger()
        self.destination = aiodicom.Server(
            MOVE_AE_TITLE, port=move_port, limits=aiodicom.Limits(bulk=True), maximum_associations=1000
        )
        self.destination.on_c_store(self._take)
        self.large = asyncio.Semaphore(LARGE_AT_A_TIME)
        self._opening = asyncio.Semaphore(AT_A_TIME)

    @asynccontextmanager
    async def association(self, window: int | None = None) -> AsyncIterator[aiodicom.Association]:
        """Open an association, and release it."""
        async with self._opening:
            association = await aiodicom.associate(
                LOOPBACK,
                self.port,
                called_ae_title=AE_TITLE,
                contexts=_CONTEXTS,
                operations_window=None if window is None else (window, 1),
            )
        async with association:
            yield association
        self.ledger.done["association"] += 1

    async def _take(self, operation: aiodicom.Operation) -> None:
        try:
            await compare(operation)
        except Violation as violation:
            self.ledger.violations.append(f"C-MOVE: {violation}")
            raise
        self.ledger.done["instance moved"] += 1


async def compare(operation: aiodicom.Operation) -> Name:
    """See that an instance that comes is the one that it says to be, and return its name.

    Raises:
        Violation: it is not.
    """
    name = name_of(operation.sop_instance_uid)
    expected, at = data_set(name), 0
    async for chunk in operation.stream():
        if expected[at : at + len(chunk)] != chunk:
            raise Violation(f"{name} came with other bytes, from {at} on")
        at += len(chunk)
    if at != len(expected):
        raise Violation(f"{name} came with {at} bytes instead of {len(expected)}")
    return name


async def retrieve(association: aiodicom.Association, studies: Collection[str]) -> set[Name]:
    """Retrieve studies by C-GET, comparing each instance, and return what came."""
    got = set()
    async with association.c_get(level="study", StudyInstanceUID=[study_uid(study) for study in studies]) as instances:
        async for each in instances:
            got.add(await compare(each))
    if instances.progress.failed or instances.status != 0:
        raise Violation(f"a C-GET ended with {instances.status!r}, {instances.progress.failed} failed")
    return got


Act: TypeAlias = Callable[["Client"], Awaitable[None]]


class Client:
    """One client: what it does follows from the seed and its number alone.

    Args:
        crowd: to which it belongs.
        number: from 1 on.
        seed: of all chance.
    """

    def __init__(self, crowd: Crowd, number: int, seed: int) -> None:
        self._crowd = crowd
        self._ledger = crowd.ledger
        self._number = number
        self._rng = random.Random(f"{seed}/{number}")
        self._studies = 0

    async def run_until(self, end: float) -> None:
        """Do one thing after the other until that time of the event loop."""
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            [(name, act)] = self._rng.choices(list(ACTS), list(ACTS.values()))
            if not self._studies:
                name, act = "store", Client.store
            try:
                await act(self)
            except Exception as error:  # noqa: BLE001 - all that was not expected is what we are after
                self._ledger.violations.append(f"client {self._number}, {name}: {_root(error)!r}")
            else:
                self._ledger.acts[name] += 1

    # In order.

    async def echo(self) -> None:
        """Some C-ECHOs."""
        async with self._crowd.association() as association:
            for _ in range(self._rng.randint(1, 10)):
                await association.c_echo()
                self._ledger.done["C-ECHO"] += 1

    async def store(self) -> None:
        """A new study, and perhaps some of the instances that everybody stores."""
        study = self._new_study()
        async with self._crowd.association() as association:
            for number in range(self._rng.randint(1, MOST_IN_A_STUDY)):
                await self._send(association, draw(self._rng, study, number))

    async def store_at_once(self) -> None:
        """The same with an operations window."""
        study = self._new_study()
        names = [draw(self._rng, study, number) for number in range(self._rng.randint(2, MOST_IN_A_STUDY))]
        async with self._crowd.association(WINDOW) as association, asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self._send(association, name))

    async def find(self) -> None:
        """A study, by its UID, and its instances."""
        study, expected = self._any_study()
        async with self._crowd.association() as association:
            [match] = await association.c_find(level="study", StudyInstanceUID=study_uid(study)).all()
            if not int(match.NumberOfStudyRelatedInstances) >= len(expected):
                raise Violation(f"a study of {len(expected)} instances is found with fewer")
            series = await association.c_find(level="series", StudyInstanceUID=study_uid(study)).all()
            uids = {
                "StudyInstanceUID": study_uid(study),
                "SeriesInstanceUID": self._rng.choice(series).SeriesInstanceUID,
            }
            found = {name_of(match.SOPInstanceUID) async for match in association.c_find(uids, level="image")}
        asked = {name for name in expected if name.series_instance_uid == uids["SeriesInstanceUID"]}
        self._ledger.check(study, asked, found)
        self._ledger.done["C-FIND"] += 3

    async def get(self) -> None:
        """A study, compared."""
        study, expected = self._any_study()
        async with self._crowd.association() as association:
            self._ledger.check(study, expected, await retrieve(association, [study]))
        self._ledger.done["C-GET"] += 1

    async def get_slowly(self) -> None:
        """A study, whose instances are taken one by one with pauses between."""
        study, _ = self._any_study()
        async with (
            self._crowd.association() as association,
            association.c_get(StudyInstanceUID=study_uid(study)) as instances,
        ):
            async for each in instances:
                await asyncio.sleep(self._rng.uniform(0, 0.1))
                await compare(each)
        self._ledger.done["C-GET"] += 1

    async def move(self) -> None:
        """A study, to the destination."""
        study, expected = self._any_study()
        async with (
            self._crowd.association() as association,
            association.c_move(StudyInstanceUID=study_uid(study), destination=MOVE_AE_TITLE) as progress,
        ):
            async for _ in progress:
                pass
        if progress.status != 0 or progress.progress.completed < len(expected):
            raise Violation(f"a C-MOVE of {len(expected)} ended with {progress.status!r}, {progress.progress}")
        self._ledger.done["C-MOVE"] += 1

    # Left half-way.

    async def find_and_leave(self) -> None:
        """All studies, left after some; then a C-ECHO on the same association."""
        async with self._crowd.association() as association:
            wanted = self._rng.randint(1, 20)
            async with association.c_find(level="study", PatientName="Soak*") as matches:
                async for _ in matches:
                    wanted -= 1
                    if not wanted:
                        break
            await association.c_echo()
        self._ledger.done["C-FIND left"] += 1

    async def get_and_leave(self) -> None:
        """A study, left after some instances, or in the middle of one; then a C-ECHO."""
        study, _ = self._any_study()
        async with self._crowd.association() as association:
            wanted = self._rng.randint(1, 5)
            async with association.c_get(StudyInstanceUID=study_uid(study)) as instances:
                async for each in instances:
                    async for _ in each.stream():
                        if wanted == 1 and self._rng.random() < 0.5:
                            break
                    wanted -= 1
                    if not wanted:
                        break
            await association.c_echo()
        self._ledger.done["C-GET left"] += 1

    async def abort(self) -> None:
        """A-ABORT, while a store, a find or a retrieval is under way."""
        study, _ = self._any_study()
        name = draw(self._rng, self._new_study(), 0)
        work: Callable[[aiodicom.Association], Awaitable[object]] = self._rng.choice(
            (
                lambda association: association.c_store(instance(name)),
                lambda association: association.c_find(level="study", PatientName="Soak*").all(),
                lambda association: retrieve(association, [study]),
            )
        )
        self._ledger.attempted.add(name)
        async with self._crowd.association() as association:
            task = asyncio.ensure_future(work(association))
            await asyncio.wait([task], timeout=self._rng.uniform(0, 0.05))
            await association.abort()
            with suppress(aiodicom.AssociationError, aiodicom.DimseError):
                await task
        self._ledger.done["A-ABORT"] += 1

    async def cancel(self) -> None:
        """A task that stores and is cancelled; the association is released all the same."""
        name = draw(self._rng, self._new_study(), 0)
        self._ledger.attempted.add(name)
        async with self._crowd.association() as association:
            with suppress(TimeoutError, aiodicom.AssociationError):
                async with asyncio.timeout(self._rng.uniform(0, 0.02)):
                    await association.c_store(instance(name))
        self._ledger.done["store cancelled"] += 1

    # Against the rules.

    async def reset(self) -> None:
        """A TCP reset, or a close, at any byte of an association and a store."""
        await self._cut_off(wait=False)

    async def fall_silent(self) -> None:
        """The same bytes, and then nothing until the server ends it."""
        await self._cut_off(wait=True)

    async def read_nothing(self) -> None:
        """All studies asked for, some of the answer read, and a TCP reset."""
        await leave_unread(self._crowd.port, self._rng)
        self._ledger.done["TCP reset"] += 1

    # With intent.

    async def offend(self) -> None:
        """PDUs and messages against the rules, and the A-ABORT that they are to have."""
        await offend(self._crowd.port, self._rng, self._crowd.patience)
        self._ledger.done["offence"] += 1

    async def garble(self) -> None:
        """An A-ASSOCIATE-RQ with some bytes changed."""
        await garble(self._crowd.port, self._rng, self._crowd.patience)
        self._ledger.done["garbled request"] += 1

    async def store_damaged(self) -> None:
        """Instances that are truncated, nested too deep, or others than they say; then a C-ECHO on the same association."""
        async with self._crowd.association() as association:
            for _ in range(self._rng.randint(1, 3)):
                what, instance, status = damaged(Name(self._new_study(), 0, 0), self._rng)
                response = await association.c_store(instance)
                if response.status != status:
                    raise Violation(f"an instance that is {what} was answered with {response.status!r}")
                self._ledger.done["damaged instance"] += 1
            await association.c_echo()

    async def half_close(self) -> None:
        """A connection closed by half, at any byte of an association and a store."""
        name = draw(self._rng, self._new_study(), 0)
        self._ledger.attempted.add(name)
        async with self._turn(name):
            await half_close(self._crowd.port, name, self._rng, self._crowd.patience)
        self._ledger.done["half-closed"] += 1

    async def say_nothing(self) -> None:
        """A connection, and nothing more until the server ends it."""
        await say_nothing(self._crowd.port, self._crowd.patience)
        self._ledger.done["said nothing"] += 1

    async def _cut_off(self, *, wait: bool) -> None:
        name = draw(self._rng, self._new_study(), 0)
        self._ledger.attempted.add(name)
        async with self._turn(name):
            how = await cut_off(self._crowd.port, name, self._rng, self._crowd.patience if wait else None)
        self._ledger.done[how] += 1

    # What they are made of.

    async def _send(self, association: aiodicom.Association, name: Name) -> None:
        self._ledger.attempted.add(name)
        async with self._turn(name):
            response = await association.c_store(instance(name))
        if response.status != 0:
            raise Violation(f"{name} was answered with {response.status!r} {response.error_comment or ''}")
        self._ledger.acknowledge(name)
        self._ledger.attempted.discard(name)

    def _turn(self, name: Name) -> AbstractAsyncContextManager[None]:
        return self._crowd.large if name.is_large else nullcontext()

    def _new_study(self) -> str:
        self._studies += 1
        return study_of(self._number, self._studies)

    def _any_study(self) -> tuple[str, frozenset[Name]]:
        """One of our own that the server has, or any there is, with what is certain to be in it."""
        own = [study_of(self._number, number) for number in range(1, self._studies + 1)]
        known = [study for study in own if study in self._ledger.acknowledged] or list(self._ledger.acknowledged)
        study = self._rng.choice(known)
        return study, self._ledger.of(study)


def _root(error: Exception) -> Exception:
    return _root(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


ACTS: Final[dict[tuple[str, Act], float]] = {
    ("echo", Client.echo): 10,
    ("store", Client.store): 30,
    ("store at once", Client.store_at_once): 10,
    ("find", Client.find): 10,
    ("find and leave", Client.find_and_leave): 4,
    ("get", Client.get): 6,
    ("get slowly", Client.get_slowly): 2,
    ("get and leave", Client.get_and_leave): 6,
    ("move", Client.move): 4,
    ("abort", Client.abort): 6,
    ("cancel", Client.cancel): 4,
    ("reset", Client.reset): 8,
    ("fall silent", Client.fall_silent): 2,
    ("read nothing", Client.read_nothing): 2,
    ("offend", Client.offend): 10,
    ("garble", Client.garble): 4,
    ("store damaged", Client.store_damaged): 6,
    ("half-close", Client.half_close): 4,
    ("say nothing", Client.say_nothing): 2,
}
"""What they do, and how often, one against the other."""
