"""What the tests of a remote AE share: peers of ours with a few studies, which move as the test wants it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from aiodicom import (
    CMoveRQ,
    Conclusion,
    CStoreRSP,
    EncodedInstance,
    Observer,
    Operation,
    Outcome,
    ProposedContext,
    RemoteAE,
    Retrieval,
    Server,
    Service,
    SupportedSyntax,
    associate,
    find_service,
    get_service,
)
from aiodicom.association import Association
from aiodicom.dimse.status import PENDING
from aiodicom.query import MODELS
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import CT, PATIENCE, Recorder, ct_instance, instance_uid

STUDIES: Final[Mapping[str, tuple[int, ...]]] = {"1.2.1": (11, 12, 13), "1.2.2": (21, 22, 23)}
"""The numbers of the instances in each study."""

ONE, OTHER = STUDIES


def instances_of(study: str) -> list[EncodedInstance]:
    """The instances of a study."""
    return [ct_instance(number) for number in STUDIES[study]]


def remote_of(server: Server, **options: Any) -> RemoteAE:  # noqa: ANN401
    """A server of ours as a remote AE; what happens here is not logged."""
    named = {"ae_title": server.ae_title, "calling_ae_title": "ME", "observers": ()}
    return RemoteAE("127.0.0.1", server.port, **{**named, **options})


@asynccontextmanager
async def listening(ae_title: str = "ME", **options: Any) -> AsyncIterator[Server]:  # noqa: ANN401
    """A server of ours that peers can move to."""
    async with Server(ae_title, port=0, observers=(), stop_timeout=0, **options) as server:
        yield server


async def find(operation: Operation) -> AsyncIterator[dict[str, str]]:
    """A handler of C-FIND: the study asked for, with its SOP class."""
    yield {"StudyInstanceUID": str(operation.identifier.StudyInstanceUID), "SOPClassesInStudy": CT}


async def stored_instances(operation: Operation) -> list[EncodedInstance]:
    """A handler of C-GET or C-MOVE."""
    return instances_of(str(operation.identifier.StudyInstanceUID))


Step = Callable[["Move", EncodedInstance], Any]


class Move:
    """A C-MOVE that is being performed by a script of the test."""

    def __init__(self, operation: Operation, association: Association, *, names_originator: bool) -> None:
        command = operation.command
        self.operation = operation
        self.association = association
        self.study = str(operation.identifier.StudyInstanceUID)
        self.originator = (operation.peer.ae_title, command.message_id) if names_originator else None

    async def store(self, instance: EncodedInstance) -> CStoreRSP:
        """Invoke one sub-operation."""
        return await self.association.c_store(instance, move_originator=self.originator)

    async def tell(self, completed: int = 0) -> None:
        """Send a Pending response."""
        assert self.operation.exchange is not None
        counted = {"number_of_completed_suboperations": completed, "number_of_remaining_suboperations": 1}
        await self.operation.exchange.respond(self.operation, Conclusion(PENDING, fields=counted))


Script = Callable[[Move], Any]


def done(completed: int, *, failed: int = 0, status: int = 0) -> Conclusion:
    """A final response."""
    counted = {
        "number_of_completed_suboperations": completed,
        "number_of_failed_suboperations": failed,
        "number_of_warning_suboperations": 0,
    }
    return Conclusion(status, fields=counted)


async def move_all(move: Move) -> Conclusion:
    """A script: one sub-operation after the other, without a Pending response."""
    responses = [await move.store(instance) for instance in instances_of(move.study)]
    failed = sum(response.status != 0 for response in responses)
    return done(len(responses) - failed, failed=failed, status=0xB000 if failed else 0)


def scripted_move(listener: Server, script: Script = move_all, *, names_originator: bool = True) -> Service:
    """A service of C-MOVE, Study Root, to a server of ours whatever the destination."""

    async def perform(operation: Operation) -> Any:  # noqa: ANN401 - a status or a conclusion
        await operation.read_identifier()
        assert isinstance(operation.command, CMoveRQ)
        async with associate(
            "127.0.0.1",
            listener.port,
            called_ae_title=operation.command.move_destination,
            calling_ae_title=operation.peer.called_ae_title,
            contexts=(ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),),
            observers=(),
        ) as association:
            return await script(Move(operation, association, names_originator=names_originator))

    return Service(CMoveRQ, perform, {MODELS["study"].move: SupportedSyntax()})


@asynccontextmanager
async def pacs(*services: Service, finds: bool = True, gets: bool = True, **options: Any) -> AsyncIterator[Server]:  # noqa: ANN401
    """A peer that has the studies."""
    offered = [*([find_service(find)] if finds else []), *([get_service(stored_instances)] if gets else []), *services]
    options = {"observers": (), "stop_timeout": 0, **options}
    async with asyncio.timeout(PATIENCE), Server("PACS", port=0, services=offered, **options) as server:
        yield server


def opened(recorder: Recorder) -> int:
    """How many associations a server has had."""
    return recorder.calls.count("opened")


def numbers(uids: Iterable[str]) -> list[int]:
    """The numbers of test instances, by their UIDs."""
    return [int(uid.rpartition(".")[2]) for uid in uids]


def turns() -> Iterator[int]:
    """How many turns of the loop a task is given before it is cancelled: all of the first, then fewer and fewer."""
    turn = 0
    while True:
        yield turn
        turn += 1 + turn // 64


# What is retrieved.


@asynccontextmanager
async def moving(
    script: Any = move_all,  # noqa: ANN401 - what scripted_move takes
    *,
    names_originator: bool = True,
    gets: bool = False,
    observer: Observer | None = None,
    listener: Server | None = None,
    **options: Any,  # noqa: ANN401 - those of RemoteAE
) -> AsyncIterator[tuple[RemoteAE, Server]]:
    """A remote AE that has C-MOVE, and C-GET only where the test says so; and our server that it moves to."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(listening()) if listener is None else listener
        service = scripted_move(ours, script, names_originator=names_originator)
        observers = () if observer is None else (observer,)
        server = await stack.enter_async_context(pacs(service, gets=gets, observers=observers))
        options = {"listener": ours, **options}
        yield await stack.enter_async_context(remote_of(server, **options)), ours


async def take_all(retrieval: Retrieval) -> list[int]:
    """Take all the instances; return their numbers."""
    taken = []
    async with retrieval:
        async for instance in retrieval:
            assert instance.sop_instance_uid.encode() in await instance.read()
            taken += numbers([instance.sop_instance_uid])
    return taken


def study(remote: RemoteAE, uid: str = ONE, **options: Any) -> Retrieval:  # noqa: ANN401
    """Retrieve a study."""
    return remote.retrieve(level="study", StudyInstanceUID=uid, **options)


# What is sent.


async def keep_nothing(operation: Operation) -> None:
    """A handler of C-STORE."""
    await operation.read()


def uids(outcomes: list[Outcome]) -> list[str]:
    """The SOP Instance UIDs, in order."""
    return sorted(outcome.sop_instance_uid for outcome in outcomes)


def expected(count: int) -> list[str]:
    """Those of so many test instances."""
    return sorted(instance_uid(number) for number in range(count))


def instances(count: int) -> list[EncodedInstance]:
    """So many test instances."""
    return [ct_instance(number) for number in range(count)]


class Keeper:
    """A handler of C-STORE that counts what comes, and answers as it is told: statuses by number of the attempt."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = statuses
        self.received: Counter[str] = Counter()

    async def __call__(self, operation: Operation) -> int:
        await operation.read()
        self.received[operation.sop_instance_uid] += 1
        attempt = self.received[operation.sop_instance_uid]
        return self.statuses[attempt - 1] if attempt <= len(self.statuses) else 0
