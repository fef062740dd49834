"""The scenes that are cancelled everywhere: what we ask of others, what they ask of us, and the archive."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import trustme

from aiodicom import (
    Archive,
    Association,
    EncodedInstance,
    Listener,
    Node,
    Operation,
    ProposedContext,
    RemoteAE,
    Server,
    Service,
    Timeouts,
    find_service,
    get_service,
    move_service,
    storage_service,
)
from aiodicom.archive.shelf import INCOMING
from aiodicom.dimse.commands import CStoreRQ, Response
from aiodicom.query import MODELS, make_query
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND, STUDY_ROOT_GET
from tests.archive.keeping import instance as image
from tests.cancelling import Cancelled, Scene, SceneMaker
from tests.inquiries import ask, asking, find, find_pdu, get, get_pdu, message, move, move_pdu
from tests.loopback import (
    CT,
    CT_CONTEXT,
    RawPeer,
    assert_alive,
    connect,
    ct_instance,
    data_set,
    fragment_pdu,
    instance_uid,
    raw_association,
    store_pdu,
)
from tests.remote.peers import find as find_study
from tests.remote.peers import remote_of, scripted_move, stored_instances, study, take_all
from tests.services.retrieving import answer_to

MATCHES: Final = 36
LENGTH: Final = 4096
"""How long a P-DATA-TF may be: short, so that there is much to wait for."""

UNTIMED: Final = Timeouts(idle=None)


async def search(_operation: Operation) -> AsyncIterator[dict[str, str]]:
    for number in range(MATCHES):
        await asyncio.sleep(0)
        yield {"StudyInstanceUID": f"1.2.{number}"}


async def retrieve(_operation: Operation) -> list[Any]:
    await asyncio.sleep(0)
    return [ct_instance(number, 3 * LENGTH) for number in range(8)]


async def keep(operation: Operation) -> None:
    async for _ in operation.stream():
        pass


async def chunks(count: int = 36) -> AsyncIterator[bytes]:
    data = data_set(1, count * LENGTH)
    for start in range(0, len(data), LENGTH):
        await asyncio.sleep(0)
        yield data[start : start + LENGTH]


def serving(*services: Service, **options: Any) -> Server:  # noqa: ANN401 - those of Server
    """A server with those services; nothing but what a test does ends anything."""
    named = {"ae_title": "SCP", "port": 0, "observers": (), "stop_timeout": 0, "timeouts": UNTIMED}
    return Server(services=services, **{**named, **options})


@asynccontextmanager
async def everything() -> AsyncIterator[Server]:
    """A server that stores, finds, gets and moves."""
    async with serving(storage_service(keep)) as destination:
        services = (
            storage_service(keep),
            find_service(search),
            get_service(retrieve, sop_classes=[CT]),
            move_service(retrieve, {"WS1": ("127.0.0.1", destination.port)}),
        )
        async with serving(*services, maximum_length=LENGTH) as server:
            yield server


def associations_of(*servers: Server) -> Callable[[], str]:
    return lambda: ", ".join(repr(each) for server in servers for each in server.associations)


# ---- what we ask: the association is opened before, and left by way of the cancellation


def asked(what: Callable[[Association, Path], Coroutine[Any, Any, object]], **options: Any) -> SceneMaker:  # noqa: ANN401
    @asynccontextmanager
    async def make(folder: Path) -> AsyncIterator[Scene]:
        async with everything() as server:

            async def act(cancelled: Cancelled[Any]) -> None:
                association = await ask(server, **{"timeouts": UNTIMED, **options})
                async with association:
                    await cancelled(what(association, folder))
                assert not association.is_open

            def left() -> str:
                return associations_of(server)() or ", ".join(map(str, folder.rglob("*.part")))

            yield Scene(act, left, lambda: assert_alive(server))

    return make


async def echo(association: Association, _folder: Path) -> None:
    for _ in range(24):
        await association.c_echo()


async def echoes_at_once(association: Association, _folder: Path) -> None:
    await asyncio.gather(*(association.c_echo() for _ in range(4)))


async def store(association: Association, _folder: Path) -> None:
    for number in range(3):
        await association.c_store(ct_instance(number, 20 * LENGTH))


async def store_stream(association: Association, _folder: Path) -> None:
    await association.c_store(EncodedInstance(CT, instance_uid(1), IMPLICIT_VR_LITTLE_ENDIAN, chunks()))


async def store_large(association: Association, _folder: Path) -> None:
    await association.c_store(ct_instance(1, 8 * 1024 * 1024))


async def find_some(association: Association, _folder: Path) -> None:
    async with find(association) as matches:
        async for _ in matches:
            await association.c_echo()


async def get_some(association: Association, _folder: Path) -> None:
    async with get(association) as instances:
        async for each in instances:
            async for _ in each.stream():
                pass


async def save_some(association: Association, folder: Path) -> None:
    async with get(association) as instances:
        async for each in instances:
            (await each.save(folder)).unlink()


async def move_some(association: Association, _folder: Path) -> None:
    async with move(association) as movement:
        async for _ in movement:
            pass


async def release(association: Association, _folder: Path) -> None:
    await association.release()


async def leave_and_release(association: Association, _folder: Path) -> None:
    async for _ in find(association):
        break
    await association.release()


async def abort(association: Association, _folder: Path) -> None:
    await association.abort()
    await association.wait_closed()


# ---- associations that are opened


def opened(*, tls: bool = False) -> SceneMaker:
    @asynccontextmanager
    async def make(_folder: Path) -> AsyncIterator[Scene]:
        authority = trustme.CA()
        theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("127.0.0.1").configure_cert(theirs)
        authority.configure_trust(ours)
        listener = Listener(port=0, tls=theirs if tls else None)
        async with serving(listeners=[listener]) as server:

            async def act(cancelled: Cancelled[Any]) -> None:
                await cancelled(associate())

            async def associate() -> None:
                async with connect(server, host="localhost" if not tls else "127.0.0.1", tls=ours if tls else None):
                    pass

            yield Scene(act, associations_of(server), associate)

    return make


# ---- a remote AE


def remotely(what: Callable[[RemoteAE], Coroutine[Any, Any, object]], **options: Any) -> SceneMaker:  # noqa: ANN401
    @asynccontextmanager
    async def make(_folder: Path) -> AsyncIterator[Scene]:
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(serving(ae_title="ME"))
            services = find_service(find_study), get_service(stored_instances), scripted_move(listener)
            server = await stack.enter_async_context(serving(storage_service(keep), *services))

            async def act(cancelled: Cancelled[Any]) -> None:
                async with remote_of(server, **{"listener": listener, "maximum_associations": 2, **options}) as remote:
                    await cancelled(what(remote))

            def left() -> str:
                busy = [association for association in server.associations if association.operations]
                return f"operations of {busy}" if busy else associations_of(server)()

            async def probe() -> None:
                async with remote_of(server) as other:
                    await other.echo()

            yield Scene(act, left, probe)

    return make


async def send_some(remote: RemoteAE) -> None:
    await remote.send([ct_instance(number, 3000) for number in range(8)]).all()


async def find_remotely(remote: RemoteAE) -> None:
    await remote.echo()
    async for _ in remote.find(level="study", StudyInstanceUID="1.2.1"):
        await remote.echo()


async def close_remote(remote: RemoteAE) -> None:
    sending = remote.send([ct_instance(number, 3000) for number in range(8)])
    async for _ in sending:
        break
    await remote.aclose()


async def retrieve_all(remote: RemoteAE) -> None:
    await take_all(study(remote))


# ---- what is asked of us: it is the handler that is cancelled, as the end of the association does


def performed(service: Callable[[Server, Path], Service], *requests: bytes) -> SceneMaker:
    @asynccontextmanager
    async def make(folder: Path) -> AsyncIterator[Scene]:
        async with serving(storage_service(keep)) as destination:
            offered = service(destination, folder)
            handler: Any = offered.handler
            playing: list[Cancelled[Any]] = []
            ended = asyncio.Event()

            async def perform(operation: Operation) -> Any:  # noqa: ANN401 - what the handler returns
                try:
                    return await playing[-1](handler(operation))
                finally:
                    ended.set()

            async with serving(replace(offered, handler=perform)) as server:

                async def act(cancelled: Cancelled[Any]) -> None:
                    playing[:] = [cancelled]
                    ended.clear()
                    storing = offered.request is CStoreRQ
                    async with raw_association(server) if storing else asking(server) as peer:
                        for request in requests:
                            peer.send(request)
                            await asyncio.sleep(0)
                        answering = asyncio.create_task(_answers(peer))
                        await ended.wait()
                        await asyncio.sleep(0)
                    await answering

                def left() -> str:
                    return associations_of(server, destination)() or ", ".join(map(str, folder.rglob("*.part")))

                yield Scene(act, left, lambda: assert_alive(server), may_end_otherwise=True)

    return make


async def _answers(peer: RawPeer) -> None:
    """Perform sub-operations until the association ends, or the final response is there."""
    while True:
        try:
            command, _ = await message(peer)
        except (asyncio.IncompleteReadError, OSError, IndexError, AssertionError):
            return
        if isinstance(command, CStoreRQ):
            peer.send(answer_to(command, 0))
        elif isinstance(command, Response) and command.status != 0xFF00:
            return


def _saving(_destination: Server, folder: Path) -> Service:
    async def save(operation: Operation) -> None:
        (await operation.save(folder)).unlink()

    return storage_service(save)


def _stored_in_pieces() -> tuple[bytes, ...]:
    data = data_set(1, 8 * LENGTH)
    pieces = [data[start : start + LENGTH] for start in range(0, len(data), LENGTH)]
    return (
        store_pdu(),
        *(fragment_pdu(piece, is_last=piece is pieces[-1], context_id=CT_CONTEXT) for piece in pieces),
    )


# ---- servers


@asynccontextmanager
async def started_and_stopped(_folder: Path) -> AsyncIterator[Scene]:
    """A server that somebody uses starts and stops."""
    server = serving()

    async def serve() -> None:
        async with server, connect(server) as association:
            await association.c_echo()

    async def act(cancelled: Cancelled[Any]) -> None:
        await cancelled(serve())

    yield Scene(act, associations_of(server), serve)


@asynccontextmanager
async def stopped_at_work(_folder: Path) -> AsyncIterator[Scene]:
    """A server is stopped while it performs something that does not end by itself."""
    begun = asyncio.Event()

    async def never(_operation: Operation) -> None:
        begun.set()
        await asyncio.Event().wait()

    server = serving(stop_timeout=0.01)
    server.on_c_echo(never)

    async def stop(cancelled: Cancelled[Any]) -> None:
        await server.start()
        begun.clear()
        association = await connect(server)
        asking = asyncio.create_task(association.c_echo())
        await begun.wait()
        try:
            await cancelled(server.stop())
        finally:
            await asyncio.wait([asking])
            asking.exception()
            await server.stop()

    yield Scene(stop, associations_of(server))


# ---- the archive


def kept(what: Callable[[Archive], Coroutine[Any, Any, object]]) -> SceneMaker:
    @asynccontextmanager
    async def make(folder: Path) -> AsyncIterator[Scene]:
        numbers = iter(range(1000, 1_000_000))
        async with Archive(folder / "archive", on_duplicate="replace") as archive:
            for number in range(1, 4):
                await archive.add(image(number))

            async def act(cancelled: Cancelled[Any]) -> None:
                await cancelled(what(archive))

            yield Scene(
                act, lambda: _left_in(archive), lambda: archive.add(image(next(numbers))), pooled="index.sqlite"
            )

    return make


def _left_in(archive: Archive) -> str:
    if files := list((archive.folder / INCOMING).iterdir()):
        return f"temporary files: {files}"
    assert archive._writer is not None
    assert archive._readers is not None
    if archive._readers._taken:
        return f"{archive._readers._taken} queries"
    if archive._writer._index.connection.in_transaction:
        return "a transaction"
    return ""


async def add_some(archive: Archive) -> None:
    for number in range(6):
        await archive.add(image(number, pixels=bytes(64)))
        await archive.add(image(number, pixels=bytes(2 * 1024 * 1024)))


async def add_stream(archive: Archive) -> None:
    whole = image(5, pixels=bytes(8 * LENGTH))
    assert isinstance(whole.data, bytes)
    data = whole.data

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(data), LENGTH):
            await asyncio.sleep(0)
            yield data[start : start + LENGTH]

    await archive.add(replace(whole, data=parts()))


async def find_in_archive(archive: Archive) -> None:
    identifier = make_query({"StudyInstanceUID": "1.2.840.1"}, model=MODELS["study"], level="study", keys={})
    for _ in range(3):
        async with aclosing(archive.find(identifier)) as matches:
            async for _ in matches:
                await asyncio.sleep(0)
                break
    await archive.instances(identifier)


@asynccontextmanager
async def opened_and_closed(folder: Path) -> AsyncIterator[Scene]:
    """An archive is opened, used, and closed."""

    async def use() -> None:
        async with Archive(folder / "archive") as archive:
            await archive.add(image(1))

    async def act(cancelled: Cancelled[Any]) -> None:
        await cancelled(use())

    yield Scene(act, probe=use)


_OF_ARCHIVE: Final = (STUDY_ROOT_FIND, STUDY_ROOT_GET, ProposedContext(CT, scp_role=True))


@asynccontextmanager
async def archive_served(folder: Path) -> AsyncIterator[Scene]:
    """A client stores into an archive, finds and gets it again, and is cancelled."""
    node = Node("scu", "SCU", "127.0.0.1", 11113)
    archive = Archive(folder / "archive", nodes=[node], on_duplicate="replace")
    async with archive, serving(*archive.services()) as server:

        async def work() -> None:
            async with connect(server, contexts=_OF_ARCHIVE) as association:
                await association.c_store(image(1))
                async for _ in find(association, StudyInstanceUID=""):
                    pass
                async with association.c_get(StudyInstanceUID="1.2.840.1") as instances:
                    async for each in instances:
                        await each.read()

        async def act(cancelled: Cancelled[Any]) -> None:
            await cancelled(work())

        yield Scene(act, lambda: associations_of(server)() or _left_in(archive), work, pooled="index.sqlite")


SCENES: Final[Mapping[str, SceneMaker]] = {
    "associate": opened(),
    "associate over TLS": opened(tls=True),
    "c_echo": asked(echo),
    "c_echo, several at once": asked(echoes_at_once, operations_window=(4, 1)),
    "c_store": asked(store),
    "c_store of a stream": asked(store_stream),
    "c_store of 8 MB": asked(store_large),
    "c_find": asked(find_some),
    "c_get": asked(get_some),
    "c_get into files": asked(save_some),
    "c_move": asked(move_some),
    "release": asked(release),
    "release after leaving a query": asked(leave_and_release),
    "abort": asked(abort),
    "RemoteAE.find": remotely(find_remotely),
    "RemoteAE.send": remotely(send_some),
    "RemoteAE.aclose": remotely(close_remote),
    "RemoteAE.retrieve by C-GET": remotely(retrieve_all, prefers="get"),
    "RemoteAE.retrieve by C-MOVE": remotely(retrieve_all, prefers="move"),
    "SCP of C-STORE": performed(lambda _server, _folder: storage_service(keep), *_stored_in_pieces()),
    "SCP of C-STORE into files": performed(_saving, *_stored_in_pieces()),
    "SCP of C-FIND": performed(lambda _server, _folder: find_service(search), find_pdu(1)),
    "SCP of C-GET": performed(lambda _server, _folder: get_service(retrieve, sop_classes=[CT]), get_pdu(1)),
    "SCP of C-MOVE": performed(
        lambda server, _folder: move_service(retrieve, {"DEST": ("127.0.0.1", server.port)}), move_pdu(1)
    ),
    "a server starts and stops": started_and_stopped,
    "a server is stopped at work": stopped_at_work,
    "Archive.add": kept(add_some),
    "Archive.add of a stream": kept(add_stream),
    "Archive.find and .instances": kept(find_in_archive),
    "an archive is opened and closed": opened_and_closed,
    "an archive is served": archive_served,
}

LEAST: Final[Mapping[str, int]] = {
    "associate": 4,
    "associate over TLS": 4,
    "c_echo": 24,
    "c_echo, several at once": 1,
    "c_store": 3,
    "c_store of a stream": 36,
    "c_store of 8 MB": 1,
    "c_find": 36,
    "c_get": 4,
    "c_get into files": 24,
    "c_move": 1,
    "release": 1,
    "release after leaving a query": 2,
    "abort": 1,
    "RemoteAE.find": 6,
    "RemoteAE.send": 5,
    "RemoteAE.aclose": 3,
    "RemoteAE.retrieve by C-GET": 6,
    "RemoteAE.retrieve by C-MOVE": 4,
    "SCP of C-STORE": 1,
    "SCP of C-STORE into files": 2,
    "SCP of C-FIND": 36,
    "SCP of C-GET": 2,
    "SCP of C-MOVE": 2,
    "a server starts and stops": 4,
    "a server is stopped at work": 1,
    "Archive.add": 24,
    "Archive.add of a stream": 9,
    "Archive.find and .instances": 6,
    "an archive is opened and closed": 5,
    "an archive is served": 6,
}
"""At how many points each scene is cancelled at least: those that do not depend on how the bytes arrive."""
