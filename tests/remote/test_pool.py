"""The pool of a remote AE: reuse, limits, ends on either side, and tasks that are cancelled anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest

from aiodicom import (
    AssociationAborted,
    AssociationRejected,
    CEchoRSP,
    IdentityType,
    LocalProtocolError,
    Node,
    Operation,
    Priority,
    QueryOptions,
    RemoteAE,
    Timeouts,
    UserIdentity,
)
from aiodicom.dimse.commands import CEchoRQ, CFindRQ, CFindRSP
from aiodicom.dimse.status import Status
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from aiodicom.upper_layer.items import PresentationContextAC, SOPClassExtendedNegotiation
from tests.loopback import (
    ECHO_CONTEXT,
    RELEASE_RP,
    SHORT,
    RawPeer,
    Recorder,
    accept_pdu,
    command_pdu,
    ct_instance,
    raw_server,
    reject_pdu,
    serving,
    until,
)
from tests.remote.peers import keep_nothing, opened, pacs, remote_of, turns

STUDY_FIND_CONTEXT = 9  # of the default contexts


def answer(message_id: int) -> bytes:
    return command_pdu(ECHO_CONTEXT, CEchoRSP(message_id_being_responded_to=message_id, status=Status(0)))


async def take_echo(peer: RawPeer) -> int:
    request = await peer.command()
    assert isinstance(request, CEchoRQ)
    return request.message_id


async def accept(peer: RawPeer) -> None:
    """Accept Verification, and Study Root C-FIND."""
    await peer.pdu()
    peer.send(
        accept_pdu(
            PresentationContextAC(ECHO_CONTEXT, 0, EXPLICIT_VR_LITTLE_ENDIAN),
            PresentationContextAC(STUDY_FIND_CONTEXT, 0, EXPLICIT_VR_LITTLE_ENDIAN),
        )
    )


# Reuse.


async def test_an_association_is_opened_when_it_is_needed_and_used_again() -> None:
    recorder = Recorder()
    async with pacs(observers=(recorder,)) as server, remote_of(server) as remote:
        assert opened(recorder) == 0
        for _ in range(3):
            assert (await remote.echo()).status == 0
        assert len(await remote.find(level="study", StudyInstanceUID="1.2.1").all()) == 1
        assert opened(recorder) == 1
        assert repr(remote) == f"<RemoteAE PACS@127.0.0.1:{server.port}, 1 of at most 4 associations, 1 idle>"
    await recorder.until(lambda: recorder.closed)
    assert "closed AssociationReleased" in recorder.calls


async def test_one_whose_contexts_do_not_fit_is_not_used() -> None:
    recorder = Recorder()
    async with serving(keep_nothing, observers=(recorder,)) as server, remote_of(server) as remote:
        await remote.echo()
        for number in (1, 2):
            (outcome,) = await remote.send(ct_instance(number), associations=1).all()
            assert outcome.is_stored
        assert opened(recorder) == 2
        await remote.echo()  # which any association can do
        assert opened(recorder) == 2


async def test_an_idle_one_is_released_after_a_while() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server, remote_of(server, keep_alive=SHORT) as remote:
        await remote.echo()
        await recorder.until(lambda: recorder.closed)
        assert recorder.calls[-1] == "closed AssociationReleased"
        await until(lambda: "0 of at most" in repr(remote))
        await remote.echo()
        assert opened(recorder) == 2


async def test_without_keep_alive_each_operation_has_its_own() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server, remote_of(server, keep_alive=0) as remote:
        await remote.echo()
        await remote.echo()
        assert opened(recorder) == 2


async def test_a_node_is_a_remote_ae() -> None:
    async with serving() as server:
        node = Node("scp", "SCP", "127.0.0.1", server.port)
        async with RemoteAE.of(node, calling_ae_title="ME", observers=()) as remote:
            assert (remote.ae_title, remote.calling_ae_title) == ("SCP", "ME")
            await remote.echo()
            assert server.associations[0].peer.ae_title == "ME"


async def test_every_association_is_asked_for_in_the_same_way() -> None:
    identity = UserIdentity(IdentityType.USERNAME, b"me")
    options = QueryOptions(relational=True, fuzzy_names=True)
    async with pacs() as server, remote_of(server, identity=identity, options=options, maximum_length=16_384) as remote:
        await remote.echo()
        async with remote.get(level="study", StudyInstanceUID="1.2.1"):
            found = server.associations
    assert len(found) == 2
    for association in found:
        assert association.peer.identity == identity
        assert association.terms.maximum_length == 16_384
        offered = association.terms.user_information
        assert any(isinstance(item, SOPClassExtendedNegotiation) for item in offered)


@pytest.mark.parametrize(
    "options", [{"ae_title": "x" * 17}, {"calling_ae_title": " "}, {"maximum_associations": 0}], ids=str
)
async def test_what_cannot_be_asked_for_is_said_at_once(options: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        RemoteAE("127.0.0.1", 104, **options)  # type: ignore[arg-type]


# Limits.


async def test_there_are_never_more_than_the_maximum() -> None:
    most, served = 0, 0

    async def answer_slowly(_operation: Operation) -> None:
        nonlocal most, served
        most = max(most, len(server.associations))
        served += 1
        await asyncio.sleep(0)

    async with serving() as server:
        server.on_c_echo(answer_slowly)
        async with remote_of(server, maximum_associations=3) as remote:
            await asyncio.gather(*(remote.echo() for _ in range(20)))
    assert (most, served) == (3, 20)


async def test_an_idle_one_gives_way_to_one_with_other_contexts() -> None:
    recorder = Recorder()
    async with (
        serving(keep_nothing, observers=(recorder,)) as server,
        remote_of(server, maximum_associations=1) as remote,
    ):
        await remote.echo()
        assert [outcome.is_stored for outcome in await remote.send(ct_instance()).all()] == [True]
        assert opened(recorder) == 2
        assert len(server.associations) == 1
        assert "1 of at most 1" in repr(remote)


async def test_who_waits_longest_is_next() -> None:
    served: list[str] = []
    go = asyncio.Event()

    async def hold(_operation: Operation) -> None:
        await go.wait()

    async def ask(name: str) -> None:
        await remote.echo()
        served.append(name)

    async with serving() as server:
        server.on_c_echo(hold)
        async with remote_of(server, maximum_associations=1) as remote:
            tasks = []
            for name in "abcd":
                tasks.append(asyncio.create_task(ask(name)))
                await asyncio.sleep(0)
            tasks[1].cancel()
            go.set()
            await asyncio.wait(tasks)
    assert served == ["a", "c", "d"]


async def test_a_peer_that_takes_fewer_gets_rid_of_the_idle_ones() -> None:
    async with (
        serving(keep_nothing, maximum_associations=1) as server,
        remote_of(server, maximum_associations=4) as remote,
    ):
        await remote.echo()
        outcomes = await remote.send([ct_instance(1)], associations=1, retries=0).all()
        assert [outcome.is_stored for outcome in outcomes] == [True]


async def test_nothing_else_is_waited_for_then() -> None:
    over = asyncio.Event()

    async def something_else() -> None:
        await over.wait()

    async with (
        serving(keep_nothing, maximum_associations=1) as server,
        remote_of(server, maximum_associations=4) as remote,
    ):
        await remote.echo()
        remote._pool.spawn(something_else())
        try:
            outcomes = await remote.send([ct_instance(1)], associations=1, retries=0).all()
        finally:
            over.set()
        assert [outcome.is_stored for outcome in outcomes] == [True]


async def test_operations_within_each_other_fail_rather_than_wait_for_ever() -> None:
    async with pacs() as server, remote_of(server, maximum_associations=1) as remote:
        async with remote.find(level="study", StudyInstanceUID="1.2.1") as matches:
            with pytest.raises(LocalProtocolError, match="end an operation first"):
                await remote.echo()
            with pytest.raises(LocalProtocolError, match="end an operation first"):
                await remote.send(ct_instance()).all()
            assert len([match async for match in matches]) == 1
        await remote.echo()


async def test_operations_within_each_other_have_an_association_each() -> None:
    async with pacs() as server, remote_of(server, maximum_associations=2) as remote:
        async for _ in remote.find(level="study", StudyInstanceUID="1.2.1"):
            async for _ in remote.find(level="study", StudyInstanceUID="1.2.2"):
                with pytest.raises(LocalProtocolError):
                    await remote.echo()


# The end of an association.


async def test_an_idle_one_that_the_peer_aborted_is_no_error() -> None:
    recorder = Recorder()
    async with serving(observers=(recorder,)) as server, remote_of(server) as remote:
        await remote.echo()
        await server.associations[0].abort()
        await remote.echo()
        assert opened(recorder) == 2


async def test_an_idle_one_that_the_peer_released_is_no_error() -> None:
    async with serving() as server, remote_of(server) as remote:
        await remote.echo()
        await server.associations[0].release()
        await remote.echo()


async def test_one_that_ends_when_it_is_used_again_is_no_error_either() -> None:
    connections = 0

    async def script(peer: RawPeer) -> None:
        nonlocal connections
        connections += 1
        await accept(peer)
        peer.send(answer(await take_echo(peer)))
        if connections == 1:
            await take_echo(peer)
            peer.reset()
        else:
            peer.send(answer(await take_echo(peer)))
            await peer.pdu()
            peer.send(RELEASE_RP)

    async with raw_server(script) as scp, RemoteAE("127.0.0.1", scp.port, observers=()) as remote:
        for _ in range(3):
            assert (await remote.echo()).status == 0
    assert connections == 2


async def test_so_it_is_with_a_query() -> None:
    connections = 0

    async def script(peer: RawPeer) -> None:
        nonlocal connections
        connections += 1
        await accept(peer)
        if connections == 1:
            peer.send(answer(await take_echo(peer)))
        await peer.pdu()  # the query
        if connections == 1:
            peer.reset()
            return
        response = CFindRSP(message_id_being_responded_to=1, status=Status(0))
        peer.send(command_pdu(STUDY_FIND_CONTEXT, response))
        await peer.pdu()
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp, RemoteAE("127.0.0.1", scp.port, observers=()) as remote:
        await remote.echo()
        assert await remote.find(level="study", PatientID="1").all() == []
    assert connections == 2


async def test_a_new_one_that_ends_is_an_error() -> None:
    async def script(peer: RawPeer) -> None:
        await accept(peer)
        await take_echo(peer)
        peer.reset()

    async with raw_server(script) as scp, RemoteAE("127.0.0.1", scp.port, observers=()) as remote:
        with pytest.raises(AssociationAborted):
            await remote.echo()


async def test_one_with_something_outstanding_is_not_used_again() -> None:
    recorder = Recorder()
    asked = asyncio.Event()

    async def never(_operation: Operation) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(observers=(recorder,)) as server:
        server.on_c_echo(never)
        async with remote_of(server) as remote:
            task = asyncio.create_task(remote.echo())
            await asked.wait()
            task.cancel()
            await recorder.until(lambda: recorder.closed)
            assert isinstance(recorder.closed[0], AssociationAborted)


async def test_a_rejection_is_told() -> None:
    async with serving(require_called_ae_title=True) as server, remote_of(server, ae_title="WRONG") as remote:
        with pytest.raises(AssociationRejected, match="called AE title not recognized"):
            await remote.echo()
        with pytest.raises(AssociationRejected):
            await remote.find(level="study", PatientID="1").all()
        assert "0 of at most" in repr(remote)


# The operations window.


async def test_a_window_is_offered_where_it_is_asked_for() -> None:
    async with serving(keep_nothing) as server:
        async with remote_of(server, window=8) as remote:
            await remote.send(ct_instance(), associations=1).all()
            assert server.associations[0].terms.maximum_performed == 8
            await remote.echo()  # needs none, and does not mind
            assert len(server.associations) == 1
        async with remote_of(server) as remote:
            await remote.echo()
            assert server.associations[-1].terms.maximum_performed == 1


async def test_a_peer_that_drops_the_connection_at_the_sight_of_it_is_asked_without() -> None:
    offers: list[bool] = []

    async def script(peer: RawPeer) -> None:
        request = await peer.pdu()
        offers.append(b"\x53\x00\x00\x04" in request)
        if offers[-1]:
            peer.reset()
            return
        peer.send(reject_pdu(1, 1, 3))

    async with raw_server(script) as scp, RemoteAE("127.0.0.1", scp.port, observers=(), window=4) as remote:
        (outcome,) = await remote.send(ct_instance()).all()
        assert isinstance(outcome.error, AssociationRejected)
    assert offers == [True, False]


async def test_a_peer_that_rejects_us_at_the_sight_of_it_likewise() -> None:
    offers: list[bool] = []

    async def script(peer: RawPeer) -> None:
        request = await peer.pdu()
        offers.append(b"\x53\x00\x00\x04" in request)
        peer.send(reject_pdu(1, 1, 1) if offers[-1] else reject_pdu(1, 1, 3))

    async with raw_server(script) as scp, RemoteAE("127.0.0.1", scp.port, observers=(), window=4) as remote:
        (outcome,) = await remote.send(ct_instance()).all()
        assert isinstance(outcome.error, AssociationRejected)
        assert outcome.error.reason == 3
    assert offers == [True, False]


async def test_from_then_on_it_is_not_offered_any_more() -> None:
    offers: list[bool] = []

    async def script(peer: RawPeer) -> None:
        request = await peer.pdu()
        offers.append(b"\x53\x00\x00\x04" in request)
        if offers[-1]:
            peer.reset()
            return
        peer.send(accept_pdu(PresentationContextAC(ECHO_CONTEXT, 0, EXPLICIT_VR_LITTLE_ENDIAN)))
        await peer.pdu()
        peer.send(RELEASE_RP)

    options = {"observers": (), "window": 4, "keep_alive": 0}
    async with raw_server(script) as scp, RemoteAE("127.0.0.1", scp.port, **options) as remote:  # type: ignore[arg-type]
        for _ in range(2):
            await remote.send(ct_instance()).all()
    assert offers == [True, False, False]


# Cancellation, and the end of all.


@pytest.mark.parametrize("what", ["echo", "find", "get", "send"])
async def test_cancelled_at_every_step_it_leaks_nothing(what: str) -> None:
    async def work(remote: RemoteAE) -> None:
        match what:
            case "echo":
                await remote.echo()
            case "find":
                await remote.find(level="study", StudyInstanceUID="1.2.1").all()
            case "get":
                async with remote.get(level="study", StudyInstanceUID="1.2.1") as instances:
                    async for instance in instances:
                        await instance.read()
            case "send":
                await remote.send([ct_instance(number) for number in range(3)]).all()

    async with pacs() as server:
        server.on_c_store(keep_nothing)
        async with remote_of(server, maximum_associations=1) as remote:
            for count in turns():
                task = asyncio.create_task(work(remote))
                for _ in range(count):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    task.result()
                    break
                with anyio.fail_after(5):
                    await remote.echo()  # its association came back, or another one may be opened


async def test_closing_ends_what_is_lent_and_refuses_who_waits() -> None:
    asked = asyncio.Event()

    async def never(_operation: Operation) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving() as server:
        server.on_c_echo(never)
        remote = remote_of(server, maximum_associations=1)
        lent = asyncio.create_task(remote.echo())
        await asked.wait()
        waiting = asyncio.create_task(remote.echo())
        await asyncio.sleep(0)
        await asyncio.create_task(remote.aclose())  # another task may
        with pytest.raises(AssociationAborted):
            await lent
        with pytest.raises(LocalProtocolError, match="closed"):
            await waiting
        with pytest.raises(LocalProtocolError, match="closed"):
            await remote.echo()
        with pytest.raises(LocalProtocolError, match="closed"):
            await remote.send(ct_instance()).all()
        await remote.aclose()
        assert "0 of at most" in repr(remote)


async def test_closing_while_an_association_is_opened() -> None:
    requested, go = asyncio.Event(), asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.pdu()
        requested.set()
        await go.wait()
        peer.send(accept_pdu(PresentationContextAC(ECHO_CONTEXT, 0, EXPLICIT_VR_LITTLE_ENDIAN)))
        await peer.pdu()
        peer.send(RELEASE_RP)

    async with raw_server(script) as scp:
        remote = RemoteAE("127.0.0.1", scp.port, observers=(), timeouts=Timeouts(idle=None))
        task = asyncio.create_task(remote.echo())
        await requested.wait()
        await remote.aclose()
        go.set()
        with pytest.raises(LocalProtocolError, match="closed"):
            await task


def test_made_outside_of_an_event_loop() -> None:
    async def main() -> None:
        async with serving() as server:
            remote.port = server.port
            await remote.aclose()

    remote = RemoteAE("127.0.0.1", 104, observers=())
    asyncio.run(main())


async def test_a_query_is_asked_as_it_was_said() -> None:
    seen: list[tuple[int, str]] = []

    async def search(operation: Operation) -> AsyncIterator[dict[str, str]]:
        assert isinstance(operation.command, CFindRQ)
        seen.append((operation.command.priority, str(operation.identifier.PatientName)))
        for _ in ():
            yield {}

    async with serving() as server:
        server.on_c_find()(search)
        async with remote_of(server) as remote:
            matches = remote.find(level="study", PatientName="A*", priority=Priority.LOW)
            assert await matches.all() == []
            assert matches.status == 0
    assert seen == [(Priority.LOW, "A*")]
