"""C-MOVE as SCP: the associations to the move destination, and whatever can become of them (PS3.4 §C.4.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from aiodicom import (
    DimseError,
    EncodedInstance,
    Node,
    Operation,
    Progress,
    QueryOptions,
    Server,
    Timeouts,
    storage_service,
)
from aiodicom.dimse.commands import CStoreRQ, CStoreRSP, SuboperationsRSP
from aiodicom.dimse.status import Status
from aiodicom.services import retrieve
from aiodicom.services.retrieve import move_service
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import PresentationContextAC
from aiodicom.upper_layer.pdu import AAssociateRQ
from tests.inquiries import MOVE, STUDY, ask, asking, cancel_pdu, message, move, move_pdu
from tests.loopback import (
    ABORT_BY_USER,
    CANARY,
    CT,
    MR,
    RELEASE_RP,
    RELEASE_RQ,
    SHORT,
    RawPeer,
    Recorder,
    accept_pdu,
    assert_alive,
    command_pdu,
    ct_instance,
    data_set,
    instance_uid,
    raw_server,
    reject_pdu,
    serving,
    until,
)
from tests.peers.synthetic import many_sop_classes
from tests.services.retrieving import counters, encapsulated, returning

QUICK = Timeouts(associate=SHORT, response=SHORT, idle=None)


def moving(handler: Any, destinations: Any, **options: Any) -> AbstractAsyncContextManager[Server]:  # noqa: ANN401
    """A server with a handler of C-MOVE."""
    service = move_service(handler, destinations, timeouts=options.pop("sub_timeouts", Timeouts(idle=None)))
    return serving(services=[service], **{"timeouts": Timeouts(idle=None), **options})


class Destination:
    """Keeps what comes, and answers with a status for each."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = statuses
        self.commands: list[CStoreRQ] = []
        self.syntaxes: list[str] = []
        self.data: list[bytes] = []
        self.peers: list[tuple[str, str]] = []

    async def __call__(self, operation: Operation) -> int:
        assert isinstance(operation.command, CStoreRQ)
        self.data.append(await operation.read())
        status = self.statuses[len(self.commands)] if len(self.commands) < len(self.statuses) else 0
        self.commands.append(operation.command)
        self.syntaxes.append(operation.transfer_syntax_uid)
        self.peers.append((operation.peer.calling_ae_title, operation.peer.called_ae_title))
        return status


async def ended(peer: RawPeer) -> tuple[SuboperationsRSP, list[SuboperationsRSP], list[str]]:
    """The final response of a C-MOVE, the Pending ones before it, and the UIDs of what failed."""
    pendings: list[SuboperationsRSP] = []
    while True:
        command, data = await message(peer)
        assert isinstance(command, SuboperationsRSP), command
        if command.status != 0xFF00:
            uids = data[8:].rstrip(b"\0").decode().split("\\") if data else []
            return command, pendings, uids
        pendings.append(command)


async def moved(
    handler: Any,  # noqa: ANN401
    destinations: Any,  # noqa: ANN401
    *,
    destination: str = "DEST",
    **options: Any,  # noqa: ANN401
) -> tuple[SuboperationsRSP, list[str]]:
    """What comes of a C-MOVE."""
    async with moving(handler, destinations, **options) as server, asking(server) as peer:
        peer.send(move_pdu(7, destination))
        final, _, uids = await ended(peer)
        assert final.message_id_being_responded_to == 7
        peer.send(RELEASE_RQ)
        assert await peer.pdu() == RELEASE_RP
    return final, uids


# Sub-operations.


async def test_instances_go_to_the_destination_and_say_who_asked_for_them() -> None:
    destination = Destination()
    async with serving(destination) as scp:
        final, uids = await moved(returning(*map(ct_instance, range(1, 4))), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, counters(final), uids) == (0, (None, 3, 0, 0), [])
    assert destination.data == [data_set(number) for number in (1, 2, 3)]
    assert destination.peers == [("SCP", "DEST")] * 3  # called as we were called, calling the destination by its title
    for command in destination.commands:
        assert command.move_originator_application_entity_title == "RAW"
        assert command.move_originator_message_id == 7
        assert command.affected_sop_class_uid == CT


@pytest.mark.parametrize(
    ("statuses", "status", "expected", "failed"),
    [
        ((), 0x0000, (None, 3, 0, 0), []),
        ((0xB000, 0xA700, 0xC000), 0xB000, (None, 0, 2, 1), [2, 3]),
        ((0xA700, 0xC000, 0x0110), 0xA702, (None, 0, 3, 0), [1, 2, 3]),
        ((0xB000, 0xB006, 0xB007), 0xB000, (None, 0, 0, 3), []),
        ((0x0000, 0x0122, 0x0000), 0xB000, (None, 2, 1, 0), [2]),
    ],
)
async def test_answers_of_the_destination_are_counted(
    statuses: tuple[int, ...], status: int, expected: tuple[int | None, int, int, int], failed: list[int]
) -> None:
    async with serving(Destination(*statuses)) as scp:
        final, uids = await moved(returning(*map(ct_instance, range(1, 4))), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, counters(final)) == (status, expected)
    assert uids == [instance_uid(number) for number in failed]


async def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve, "PENDING_INTERVAL", 0.0)
    async with (
        serving(Destination(0, 0xA700)) as scp,
        moving(returning(*map(ct_instance, range(1, 4))), {"WS1": ("127.0.0.1", scp.port)}) as server,
        ask(server) as association,
    ):
        movement = move(association)
        assert [each async for each in movement] == [
            Progress(3, 0, 0, 0),
            Progress(2, 1, 0, 0),
            Progress(1, 1, 1, 0),
            Progress(None, 2, 1, 0),
        ]
        assert movement.failed_uids == (instance_uid(2),)


async def test_nothing_to_move_needs_no_association() -> None:
    final, uids = await moved(returning(), {"DEST": ("127.0.0.1", 1)})
    assert (final.status, counters(final), uids) == (0, (None, 0, 0, 0), [])


async def test_what_needs_more_than_128_contexts_goes_over_several_associations(tmp_path: Path) -> None:
    files = many_sop_classes(tmp_path / "files")
    destination, recorder = Destination(), Recorder()
    async with serving(destination, observers=(recorder,)) as scp:
        final, _ = await moved(returning(*files), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, counters(final)) == (0, (None, len(files), 0, 0))
    assert {each.affected_sop_instance_uid for each in destination.commands} == {
        each.sop_instance_uid for each in files
    }
    assert recorder.calls.count("opened") == 2
    assert recorder.calls.count("closed AssociationReleased") == 2
    # Each in its own transfer syntax.
    own = {each.sop_instance_uid: each.transfer_syntax_uid for each in files}
    sent = zip(destination.commands, destination.syntaxes, strict=True)
    assert all(own[command.affected_sop_instance_uid] == syntax for command, syntax in sent)


@pytest.mark.parametrize(
    ("instance", "accepted", "status"),
    [
        (ct_instance(1), [EXPLICIT_VR_LITTLE_ENDIAN], 0),
        (encapsulated(1), ["1.2.840.10008.1.2.4.50"], 0),
        (encapsulated(1), [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN], 0xA702),
    ],
    ids=["transcoded", "compressed", "compressed, not accepted"],
)
async def test_transfer_syntaxes_at_the_destination(
    instance: EncodedInstance, accepted: list[str], status: int
) -> None:
    destination = Destination()
    async with serving(services=[storage_service(destination, [CT], accepted)]) as scp:
        final, uids = await moved(returning(instance), {"DEST": ("127.0.0.1", scp.port)})
    assert final.status == status
    assert destination.syntaxes == ([] if status else accepted[:1])
    assert uids == ([instance_uid(1)] if status else [])


async def test_the_ae_title_may_be_our_own() -> None:
    destination = Destination()
    async with serving(destination) as scp:
        server = Server("OURSELVES", port=0, observers=())
        decorate = server.on_c_move(
            destinations={"DEST": ("127.0.0.1", scp.port)}, options=QueryOptions(relational=True)
        )

        @decorate
        async def handler(operation: Operation) -> list[EncodedInstance]:
            assert str(operation.identifier.StudyInstanceUID) == STUDY
            return [ct_instance()]

        async with server, asking(server) as peer:
            peer.send(move_pdu())
            assert (await ended(peer))[0].status == 0
    assert destination.peers == [("OURSELVES", "DEST")]


# Destinations.


@pytest.mark.parametrize("title", ["NOBODY", "dest", "127.0.0.1:104", "EVIL\r\nx", "' OR 1=1"])
async def test_an_unknown_destination_is_refused_and_logged(title: str, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(_operation: Operation) -> list[Any]:
        raise AssertionError

    caplog.set_level(logging.WARNING, "aiodicom")
    final, _ = await moved(handler, {"DEST": ("127.0.0.1", 1)}, destination=title)
    assert final.status == 0xA801
    assert final.error_comment
    (record,) = caplog.records
    assert repr(title) in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("kind", ["node", "pair", "function", "coroutine"])
async def test_destinations_are_a_table_or_a_function(kind: str) -> None:
    async with serving(Destination()) as scp:
        node = Node("ws1", "DEST", "127.0.0.1", scp.port)

        def function(ae_title: str, operation: Operation) -> Node | None:
            return node if (ae_title, operation.peer.ae_title) == ("DEST", "RAW") else None

        async def coroutine(ae_title: str, operation: Operation) -> Node | None:
            return function(ae_title, operation)

        destinations: dict[str, Any] = {
            "node": {"DEST": node},
            "pair": {"DEST": ("127.0.0.1", scp.port)},
            "function": function,
            "coroutine": coroutine,
        }
        final, _ = await moved(returning(ct_instance()), destinations[kind])
        assert final.status == 0
        final, _ = await moved(returning(ct_instance()), destinations[kind], destination="OTHER")
        assert final.status == 0xA801


async def test_a_function_may_refuse_a_destination() -> None:
    def refuse(_ae_title: str, _operation: Operation) -> Node | None:
        raise DimseError(0x0124, "Not to there")

    final, _ = await moved(returning(ct_instance()), refuse)
    assert (final.status, final.error_comment) == (0x0124, "Not to there")


async def test_a_destination_that_is_not_there() -> None:
    async with serving() as gone:
        port = gone.port
    final, uids = await moved(returning(ct_instance(1), ct_instance(2)), {"DEST": ("127.0.0.1", port)})
    assert (final.status, counters(final)) == (0xA702, (None, 0, 2, 0))
    assert uids == [instance_uid(1), instance_uid(2)]
    assert final.error_comment == "ConnectionFailed at the move destination"


async def test_a_destination_that_rejects_us() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(reject_pdu(1, 1, 3))
        await peer.rest()

    async with raw_server(script) as scp:
        final, uids = await moved(returning(ct_instance()), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, uids) == (0xA702, [instance_uid(1)])
    assert final.error_comment == "AssociationRejected at the move destination"


async def test_a_destination_that_accepts_no_context() -> None:
    async def script(peer: RawPeer) -> None:
        request = AAssociateRQ.decode(memoryview(await peer.pdu())[6:])
        answers = [
            PresentationContextAC(
                each.context_id, 3 * (each.abstract_syntax != VERIFICATION), IMPLICIT_VR_LITTLE_ENDIAN
            )
            for each in request.presentation_contexts
        ]
        peer.send(accept_pdu(*answers))
        assert await peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp:
        final, uids = await moved(returning(ct_instance(1), ct_instance(2)), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, counters(final)) == (0xA702, (None, 0, 2, 0))
    assert uids == [instance_uid(1), instance_uid(2)]


async def test_a_destination_that_accepts_some_of_it() -> None:
    other = EncodedInstance(MR, instance_uid(2), IMPLICIT_VR_LITTLE_ENDIAN, data_set(2, sop_class=MR))
    async with serving(services=[storage_service(Destination(), [CT])]) as scp:
        instances = (ct_instance(1), other, ct_instance(3))
        final, uids = await moved(returning(*instances), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, counters(final)) == (0xB000, (None, 2, 1, 0))
    assert uids == [instance_uid(2)]


async def accept(peer: RawPeer) -> None:
    request = AAssociateRQ.decode(memoryview(await peer.pdu())[6:])
    peer.send(
        accept_pdu(
            *(
                PresentationContextAC(each.context_id, 0, each.transfer_syntaxes[0])
                for each in request.presentation_contexts
            )
        )
    )


async def store(peer: RawPeer) -> None:
    """Take an instance, and answer with Success."""
    command, _ = await message(peer)
    assert isinstance(command, CStoreRQ)
    response = CStoreRSP(message_id_being_responded_to=command.message_id, status=Status(0))
    peer.send(command_pdu(3, response))


@pytest.mark.parametrize("when", ["before the association", "before an answer"])
async def test_a_destination_that_stalls(when: str) -> None:
    async def script(peer: RawPeer) -> None:
        if when == "before an answer":
            await accept(peer)
            await message(peer)
        else:
            await peer.pdu()
        assert await peer.pdu() == ABORT_BY_USER

    async with raw_server(script) as scp:
        destinations = {"DEST": ("127.0.0.1", scp.port)}
        final, uids = await moved(returning(ct_instance(1), ct_instance(2)), destinations, sub_timeouts=QUICK)
    assert (final.status, counters(final)) == (0xA702, (None, 0, 2, 0))
    assert uids == [instance_uid(1), instance_uid(2)]
    assert final.error_comment == "OperationTimeout at the move destination"


async def test_a_destination_has_as_long_as_the_server_allows(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: RawPeer) -> None:
        await accept(peer)
        await message(peer)
        assert await peer.pdu() == ABORT_BY_USER

    caplog.set_level(logging.WARNING, "aiodicom.retrieve")
    async with raw_server(script) as scp:
        destinations = {"DEST": ("127.0.0.1", scp.port)}
        final, uids = await moved(
            returning(ct_instance(1)), destinations, sub_timeouts=None, timeouts=Timeouts(response=SHORT)
        )
    assert (final.status, uids) == (0xA702, [instance_uid(1)])
    assert f"no progress in phase 'response' for {SHORT:g} s" in caplog.text


class Mortal:
    """A destination that takes some instances on each association, and then dies with the next one in hand."""

    def __init__(self, *takes: int) -> None:
        self.takes = list(takes)
        self.associations = 0

    async def __call__(self, peer: RawPeer) -> None:
        self.associations += 1
        count = self.takes.pop(0) if self.takes else 0
        await accept(peer)
        for _ in range(count):
            await store(peer)
        command, _ = await message(peer)
        assert isinstance(command, CStoreRQ)
        peer.reset()


@pytest.mark.parametrize(
    ("takes", "associations", "completed"),
    [((0,), 1, 0), ((2,), 2, 2), ((1, 1, 1), 4, 3), ((3, 0, 3), 2, 3)],
    ids=["at once", "midway", "again and again", "for good"],
)
async def test_a_destination_that_dies_is_asked_again_as_long_as_that_gets_on(
    takes: tuple[int, ...], associations: int, completed: int
) -> None:
    mortal = Mortal(*takes)
    async with raw_server(mortal) as scp:
        final, uids = await moved(returning(*map(ct_instance, range(1, 11))), {"DEST": ("127.0.0.1", scp.port)})
    assert final.status == (0xB000 if completed else 0xA702)
    assert counters(final) == (None, completed, 10 - completed, 0)
    assert len(uids) == 10 - completed
    assert mortal.associations == associations
    assert final.error_comment == "AssociationAborted at the move destination"


async def test_a_destination_that_accepts_and_aborts_at_once_is_not_asked_for_ever() -> None:
    associations = 0

    async def script(peer: RawPeer) -> None:
        nonlocal associations
        associations += 1
        await peer.pdu()
        peer.send(accept_pdu(PresentationContextAC(1, 0, IMPLICIT_VR_LITTLE_ENDIAN)) + ABORT_BY_USER)

    async with raw_server(script) as scp:
        instances = map(ct_instance, range(1, 4))
        final, uids = await moved(returning(*instances), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, counters(final)) == (0xA702, (None, 0, 3, 0))
    assert final.error_comment == "AssociationAborted at the move destination"
    assert len(uids) == 3
    assert associations == 1


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyError(CANARY)], ids=["OSError", "KeyError"])
async def test_an_instance_of_ours_that_breaks_off_costs_its_association_and_not_the_others(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield data_set(2)[:100]
        yield data_set(2)[100:150]
        raise error

    bad = EncodedInstance(CT, instance_uid(2), IMPLICIT_VR_LITTLE_ENDIAN, broken())
    destination = Destination()
    async with serving(destination) as scp:
        instances = (ct_instance(1), bad, ct_instance(3), ct_instance(4))
        with caplog.at_level(logging.DEBUG, "aiodicom.retrieve"):
            final, uids = await moved(returning(*instances), {"DEST": ("127.0.0.1", scp.port)})
    assert "the first of ours because" in caplog.text
    assert "Tweety" not in caplog.text
    assert (final.status, counters(final)) == (0xB000, (None, 3, 1, 0))
    assert uids == [instance_uid(2)]


async def test_files_that_are_missing_have_failed_and_the_rest_goes_on(tmp_path: Path) -> None:
    files = many_sop_classes(tmp_path / "files")[:9]
    files[3].path.unlink()
    files[5].path.write_bytes(files[5].path.read_bytes()[:-4])
    async with serving(Destination()) as scp:
        final, uids = await moved(returning(*files, tmp_path / "none"), {"DEST": ("127.0.0.1", scp.port)})
    assert (final.status, counters(final)) == (0xB000, (None, 7, 3, 0))
    assert uids == [files[3].sop_instance_uid, files[5].sop_instance_uid]


# What ends it.


class Slow:
    """A destination whose answers wait for a sign."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, operation: Operation) -> None:
        await operation.read()
        self.reached.set()
        await self.go.wait()


async def test_a_cancel_lets_the_sub_operation_that_has_begun_come_to_its_end() -> None:
    slow, recorder = Slow(), Recorder()
    async with serving(slow, observers=(recorder,)) as scp:
        handler = returning(*map(ct_instance, range(1, 6)))
        async with moving(handler, {"DEST": ("127.0.0.1", scp.port)}) as server, asking(server) as peer:
            peer.send(move_pdu(7))
            await slow.reached.wait()
            peer.send(cancel_pdu(7, MOVE))
            await until(lambda: all(each.is_cancelled for each in server.associations[0].operations))
            slow.go.set()
            final, _, uids = await ended(peer)
            assert (final.status, counters(final), uids) == (0xFE00, (4, 1, 0, 0), [])
            await recorder.until(lambda: recorder.closed)
            assert recorder.calls[-1] == "closed AssociationReleased"


async def test_a_cancel_does_not_wait_for_a_destination_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve, "GRACE", SHORT)
    slow, recorder = Slow(), Recorder()
    async with serving(slow, observers=(recorder,)) as scp:
        handler = returning(*map(ct_instance, range(1, 6)))
        async with moving(handler, {"DEST": ("127.0.0.1", scp.port)}) as server, asking(server) as peer:
            peer.send(move_pdu(7))
            await slow.reached.wait()
            peer.send(cancel_pdu(7, MOVE))
            final, _, uids = await ended(peer)
            assert final.status == 0xFE00
            assert counters(final) == (5, 0, 0, 0)  # what became of the first one is not known
            assert uids == []
            await recorder.until(lambda: recorder.closed)
            assert recorder.calls[-1] == "closed AssociationAborted"
            peer.send(RELEASE_RQ)
            assert await peer.pdu() == RELEASE_RP


async def test_a_cancel_while_the_destination_does_not_answer_our_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        reached.set()
        assert await peer.pdu() == ABORT_BY_USER

    monkeypatch.setattr(retrieve, "GRACE", SHORT)
    reached = asyncio.Event()
    async with (
        raw_server(script) as scp,
        moving(returning(ct_instance()), {"DEST": ("127.0.0.1", scp.port)}) as server,
        asking(server) as peer,
    ):
        peer.send(move_pdu(7))
        await reached.wait()
        peer.send(cancel_pdu(7, MOVE))
        final, _, _ = await ended(peer)
        assert (final.status, counters(final)) == (0xFE00, (1, 0, 0, 0))


@pytest.mark.parametrize("how", ["abort", "reset", "stop"])
async def test_the_end_of_the_association_ends_that_to_the_destination(how: str) -> None:
    slow, recorder = Slow(), Recorder()
    async with serving(slow, observers=(recorder,)) as scp:
        handler = returning(*map(ct_instance, range(1, 6)))
        async with moving(handler, {"DEST": ("127.0.0.1", scp.port)}) as server, asking(server) as peer:
            peer.send(move_pdu(7))
            await slow.reached.wait()
            match how:
                case "abort":
                    peer.send(ABORT_BY_USER)
                case "reset":
                    peer.reset()
                case _:
                    await server.stop()
            await recorder.until(lambda: recorder.closed)
            assert recorder.calls[-1] == "closed AssociationAborted"
            await until(lambda: not server.associations)
        await assert_alive(scp)


async def test_two_moves_of_one_peer_at_once() -> None:
    async with serving(Destination()) as scp:
        handler = returning(*map(ct_instance, range(1, 6)))
        async with (
            moving(handler, {"WS1": ("127.0.0.1", scp.port)}) as server,
            ask(server, operations_window=(4, 1)) as association,
        ):

            async def all_of_it() -> Progress:
                movement = move(association)
                async for _ in movement:
                    pass
                return movement.progress

            assert await asyncio.gather(*(all_of_it() for _ in range(4))) == [Progress(None, 5, 0, 0)] * 4


async def test_left_by_our_own_requestor_it_ends() -> None:
    slow = Slow()
    async with serving(slow) as scp:
        handler = returning(*map(ct_instance, range(1, 6)))
        async with (
            moving(handler, {"WS1": ("127.0.0.1", scp.port)}) as server,
            ask(server) as association,
        ):
            async with move(association) as movement:
                async for _ in movement:
                    await slow.reached.wait()
                    asyncio.get_running_loop().call_soon(slow.go.set)
                    break
            assert movement.status in (0xFE00, 0)
            await association.c_echo()


def test_a_destination_is_said_in_full() -> None:
    node = Node("ws1", "DEST", "127.0.0.1", 104)
    find: Callable[..., Node | Awaitable[Node | None] | None] = retrieve._table({"A": node, "B": ("host", 11112)})
    assert find("A", None) is node
    assert str(find("B", None)) == "B@host:11112"
    assert find("C", None) is None
