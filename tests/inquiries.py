"""What the tests of C-FIND, C-GET and C-MOVE share: contexts, messages byte for byte, and the count of a task's waits."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar

from aiodicom import Association, AssociationRequest, ProposedContext, Server, Timeouts, associate
from aiodicom.dimse.codec import decode_command
from aiodicom.dimse.commands import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    Command,
    CStoreRQ,
    CStoreRSP,
)
from aiodicom.dimse.status import Status
from aiodicom.rows import encode_row
from aiodicom.scoped import Instances, Matches, Movement
from aiodicom.uids import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserInformationItem,
)
from tests.loopback import (
    CT,
    RELEASE_RP,
    RELEASE_RQ,
    RawPeer,
    RawServer,
    accept_pdu,
    command_pdu,
    connect,
    data_set,
    fragment_pdu,
    instance_uid,
    raw_association,
    raw_server,
)

T = TypeVar("T")

ECHO, FIND, GET, MOVE, STORE = 1, 3, 5, 7, 9  # presentation context IDs

_CONTEXTS: Final = (
    ProposedContext(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ProposedContext(STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ProposedContext(STUDY_ROOT_GET, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ProposedContext(STUDY_ROOT_MOVE, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,), scp_role=True),
)
FRAGMENT: Final = 16_000
STUDY: Final = "1.2.826.0.1.3680043.10.954.7"


def ask(server: Server, **options: Any) -> AssociationRequest:  # noqa: ANN401
    """Ask a server of ours for an association to query and retrieve."""
    return connect(server, **{"contexts": _CONTEXTS, "timeouts": Timeouts(idle=None), **options})


def row(number: int, size: int = 0) -> bytes:
    """A match, encoded; of about so many bytes."""
    return encode_row(
        {"StudyInstanceUID": f"{STUDY}.{number}", "PatientID": str(number), "TextValue": "x" * size},
        IMPLICIT_VR_LITTLE_ENDIAN,
    )


# A peer of ours that is asked, byte for byte.


@asynccontextmanager
async def asked(
    script: Callable[[RawPeer], Awaitable[None]],
    *,
    window: tuple[int, int] | None = None,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Association]:
    """An association with a script, which is run once that is established."""

    async def whole(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(acceptance(window))
        await script(peer)

    options = {"timeouts": Timeouts(idle=None), **options}
    if window is not None:
        options["operations_window"] = window
    async with raw_server(whole) as scp:
        association = await reach(scp, **options)
        try:
            yield association
        finally:
            await association.abort()


def reach(scp: RawServer, **options: Any) -> AssociationRequest:  # noqa: ANN401
    """Ask a hostile acceptor for an association to query and retrieve."""
    return associate("127.0.0.1", scp.port, contexts=_CONTEXTS, observers=(), **options)


def acceptance(window: tuple[int, int] | None = None) -> bytes:
    """An A-ASSOCIATE-AC that accepts what `reach` proposes."""
    answers = [PresentationContextAC(number, 0, IMPLICIT_VR_LITTLE_ENDIAN) for number in (ECHO, FIND, GET, MOVE, STORE)]
    items: list[UserInformationItem] = [RoleSelection(CT, True, True)]
    if window is not None:
        items.append(AsynchronousOperationsWindow(*window))
    return accept_pdu(*answers, items=tuple(items))


async def message(peer: RawPeer) -> tuple[Command, bytes]:
    """The next message: its command set, which is in one fragment, and its data set."""
    pdu = await peer.pdu()
    assert (pdu[0], pdu[11]) == (4, 3), pdu[:12].hex()
    command, has_data_set = decode_command(pdu[12:])
    data, is_last = b"", not has_data_set
    while not is_last:
        pdu = await peer.pdu()
        data, is_last = data + pdu[12:], pdu[11] == 2
    return command, data


async def released(peer: RawPeer) -> None:
    """Answer a release, which comes next."""
    assert await peer.pdu() == RELEASE_RQ
    peer.send(RELEASE_RP)


async def echoed(peer: RawPeer) -> None:
    """Answer a C-ECHO, which comes next: its sender has a usable association."""
    command = await peer.command()
    assert isinstance(command, CEchoRQ), command
    peer.send(command_pdu(ECHO, CEchoRSP(message_id_being_responded_to=command.message_id, status=Status(0))))


async def cancelled(peer: RawPeer, message_id: int) -> None:
    """Take a C-CANCEL, which comes next."""
    assert await peer.command() == CCancelRQ(message_id_being_responded_to=message_id)


def match(message_id: int, number: int = 1, *, status: int = 0xFF00, size: int = 0) -> bytes:
    """A C-FIND-RSP with a match."""
    response = CFindRSP(message_id_being_responded_to=message_id, status=Status(status))
    return command_pdu(FIND, response, has_data_set=True) + fragment_pdu(row(number, size), context_id=FIND)


def end(message_id: int, status: int = 0, comment: str | None = None, data: bytes | None = None) -> bytes:
    """The final C-FIND-RSP."""
    response = CFindRSP(message_id_being_responded_to=message_id, status=Status(status), error_comment=comment)
    pdu = command_pdu(FIND, response, has_data_set=data is not None)
    return pdu if data is None else pdu + fragment_pdu(data, context_id=FIND)


def counted(
    kind: type[CGetRSP | CMoveRSP],
    message_id: int,
    status: int,
    counters: tuple[int | None, int | None, int | None, int | None] = (None, None, None, None),
    *,
    comment: str | None = None,
    data: bytes | None = None,
) -> bytes:
    """A C-GET-RSP or C-MOVE-RSP with how many remain, are completed, failed, or with a warning."""
    remaining, completed, failed, warning = counters
    response = kind(
        message_id_being_responded_to=message_id,
        status=Status(status),
        error_comment=comment,
        number_of_remaining_suboperations=remaining,
        number_of_completed_suboperations=completed,
        number_of_failed_suboperations=failed,
        number_of_warning_suboperations=warning,
    )
    context = GET if kind is CGetRSP else MOVE
    pdu = command_pdu(context, response, has_data_set=data is not None)
    return pdu if data is None else pdu + fragments(data, context)


def instance(
    message_id: int, number: int = 1, size: int = 200, *, context_id: int = STORE, sop_class: str = CT, uid: str = ""
) -> bytes:
    """A C-STORE-RQ with its data set."""
    request = CStoreRQ(
        message_id=message_id,
        affected_sop_class_uid=sop_class,
        affected_sop_instance_uid=uid or instance_uid(number),
    )
    return command_pdu(context_id, request, has_data_set=True) + fragments(data_set(number, size), context_id)


def fragments(data: bytes, context_id: int) -> bytes:
    """A data set in P-DATA-TFs that are not too long for anybody."""
    starts = range(0, len(data), FRAGMENT)
    return b"".join(
        fragment_pdu(data[start : start + FRAGMENT], is_last=start + FRAGMENT >= len(data), context_id=context_id)
        for start in starts
    )


# What is asked of it.


def find(association: Association, **options: Any) -> Matches:  # noqa: ANN401
    """Ask for studies."""
    return association.c_find(level="study", **options)


def get(association: Association, **options: Any) -> Instances:  # noqa: ANN401
    """Retrieve a study."""
    return association.c_get(StudyInstanceUID=STUDY, **options)


def move(association: Association, **options: Any) -> Movement:  # noqa: ANN401
    """Let a study be moved."""
    return association.c_move(StudyInstanceUID=STUDY, destination="WS1", **options)


async def asked_to_find(peer: RawPeer) -> int:
    """Take a C-FIND-RQ; return its Message ID."""
    request, _ = await message(peer)
    assert isinstance(request, CFindRQ)
    return request.message_id


async def asked_to_get(peer: RawPeer) -> int:
    """Take a C-GET-RQ; return its Message ID."""
    request, _ = await message(peer)
    assert isinstance(request, CGetRQ)
    return request.message_id


async def asked_to_move(peer: RawPeer) -> int:
    """Take a C-MOVE-RQ; return its Message ID."""
    request, _ = await message(peer)
    assert isinstance(request, CMoveRQ)
    assert request.move_destination == "WS1"
    return request.message_id


async def stored(peer: RawPeer) -> Status:
    """The response to a sub-operation, which comes next."""
    response = await peer.command()
    assert isinstance(response, CStoreRSP), response
    return response.status


# A peer of ours that asks, byte for byte.


def asking(server: Server, **options: Any) -> AbstractAsyncContextManager[RawPeer]:  # noqa: ANN401
    """A bare association with Verification, C-FIND, C-GET, C-MOVE and CT, this one as SCP, too."""
    contexts = tuple(
        PresentationContextRQ(2 * index + 1, each.abstract_syntax, each.transfer_syntaxes)
        for index, each in enumerate(_CONTEXTS)
    )
    return raw_association(server, **{"contexts": contexts, "items": (RoleSelection(CT, True, True),), **options})


def find_pdu(message_id: int = 1, identifier: bytes | None = None) -> bytes:
    """A C-FIND-RQ with its identifier."""
    request = CFindRQ(message_id=message_id, affected_sop_class_uid=STUDY_ROOT_FIND)
    data = study_keys() if identifier is None else identifier
    return command_pdu(FIND, request, has_data_set=True) + fragments(data, FIND)


def get_pdu(message_id: int = 1) -> bytes:
    """A C-GET-RQ of a study."""
    request = CGetRQ(message_id=message_id, affected_sop_class_uid=STUDY_ROOT_GET)
    return command_pdu(GET, request, has_data_set=True) + fragment_pdu(study_keys(STUDY), context_id=GET)


def move_pdu(message_id: int = 1, destination: str = "DEST") -> bytes:
    """A C-MOVE-RQ of a study."""
    request = CMoveRQ(message_id=message_id, affected_sop_class_uid=STUDY_ROOT_MOVE, move_destination=destination)
    return command_pdu(MOVE, request, has_data_set=True) + fragment_pdu(study_keys(STUDY), context_id=MOVE)


def study_keys(uid: str = "") -> bytes:
    """The identifier of a study, or of all."""
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uid, "PatientID": None, "StudyDescription": None}
    return encode_row(keys, IMPLICIT_VR_LITTLE_ENDIAN)


def cancel_pdu(message_id: int = 1, context_id: int = FIND) -> bytes:
    """A C-CANCEL-RQ."""
    return command_pdu(context_id, CCancelRQ(message_id_being_responded_to=message_id))


# Cancellation at every await.


@types.coroutine
def cancelled_at(
    coroutine: Coroutine[Any, Any, T],
    at: int,
    waits: list[object],
    cancel: Callable[[asyncio.Task[object]], object] = asyncio.Task.cancel,
    *,
    again: bool = False,
) -> Generator[Any, Any, T]:
    """Run a coroutine, and cancel its task when it waits for the n-th time; what it waits for is put on a list.

    With `again` it is cancelled whenever it waits after that, too.
    """
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            awaited = step(value)
        except StopIteration as stop:
            result: T = stop.value
            return result
        waits.append(awaited)
        if len(waits) == at or (again and len(waits) > at):
            task = asyncio.current_task()
            assert task is not None
            cancel(task)
        try:
            value = yield awaited
            step = coroutine.send
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the coroutine's
            value, step = error, coroutine.throw


async def cancelled_everywhere(
    scenario: Callable[[], Coroutine[Any, Any, object]], after: Callable[[], Awaitable[None]]
) -> int:
    """Run a scenario again and again, cancelled when it waits for the first time, the second, …; return how often it waits.

    Args:
        scenario: what is to be cancelled.
        after: looks what is left, after each.
    """
    for at in range(1, 10_000):
        waits: list[object] = []
        task = asyncio.create_task(_as_coroutine(scenario(), at, waits))
        try:
            await task
            if len(waits) < at:
                return len(waits)
        except asyncio.CancelledError:
            pass
        finally:
            await after()
    raise AssertionError("the scenario has no end")


async def _as_coroutine(coroutine: Coroutine[Any, Any, T], at: int, waits: list[object]) -> T:
    return await cancelled_at(coroutine, at, waits)


async def assert_usable(association: Association) -> None:
    """Prove that an association can be used, and holds nothing back."""
    assert (await association.c_echo()).status == 0
    assert association._window.buffered == 0
    assert not association._invoker.is_waiting
