"""What the tests of associations share: instances to send, servers on a free port, and peers made of bare bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiodicom import AssociationRequest, EncodedInstance, Observer, ProposedContext, Server, Timeouts, associate
from aiodicom.association import Association
from aiodicom.dimse.codec import decode_command, encode_command
from aiodicom.dimse.commands import CEchoRQ, Command, CStoreRQ, Response
from aiodicom.errors import AssociationError
from aiodicom.handlers import Handler
from aiodicom.operation import Operation
from aiodicom.terms import Peer
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    UserInformationItem,
)
from aiodicom.upper_layer.pdu import PDV, AAssociateAC, AAssociateRQ
from tests.canaries import PATIENT_ID, PATIENT_NAME

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
CANARY: Final = PATIENT_NAME

# A test that waits longer than this has found a wait that does not end.
PATIENCE: Final = 10.0
# Deadlines for the tests of deadlines: as short as the event loops' timers are precise.
SHORT: Final = 0.05

ECHO_CONTEXT, CT_CONTEXT = 1, 3
RELEASE_RQ: Final = bytes.fromhex("050000000004 00000000")
RELEASE_RP: Final = bytes.fromhex("060000000004 00000000")
ABORT_BY_USER: Final = bytes.fromhex("070000000004 00000000")


def abort_pdu(source: int, reason: int) -> bytes:
    """An A-ABORT (PS3.8 §9.3.8)."""
    return bytes.fromhex("070000000004 0000") + bytes((source, reason))


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
    return bytes.fromhex("030000000004 00") + bytes((result, source, reason))


class Unpaused:
    """Nothing comes from there, so that it need not be paused."""

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


# Instances.


def element(group: int, number: int, value: bytes) -> bytes:
    """A data element in Implicit VR Little Endian (PS3.5 §7.1.3)."""
    return struct.pack("<HHI", group, number, len(value)) + value


def uid_value(uid: str) -> bytes:
    """A UID as the value of a data element: of even length."""
    return uid.encode() + b"\0" * (len(uid) % 2)


def instance_uid(number: int) -> str:
    """The SOP Instance UID of the n-th test instance."""
    return f"1.2.826.0.1.3680043.10.954.{number}"


def data_set(number: int = 1, size: int = 200, sop_class: str = CT) -> bytes:
    """A small data set in Implicit VR Little Endian, with canaries for its patient and `size` bytes of pixels."""
    return b"".join(
        (
            element(0x0008, 0x0016, uid_value(sop_class)),
            element(0x0008, 0x0018, uid_value(instance_uid(number))),
            element(0x0010, 0x0010, CANARY.encode() + b" " * (len(CANARY) % 2)),
            element(0x0010, 0x0020, PATIENT_ID.encode() + b" " * (len(PATIENT_ID) % 2)),
            element(0x7FE0, 0x0010, bytes(index & 0xFF for index in range(256)) * (size // 256) + bytes(size % 256)),
        )
    )


def ct_instance(number: int = 1, size: int = 200) -> EncodedInstance:
    """An instance that is encoded already."""
    return EncodedInstance(CT, instance_uid(number), IMPLICIT_VR_LITTLE_ENDIAN, data_set(number, size))


# Servers and clients of ours.


@asynccontextmanager
async def serving(
    store: Handler | None = None,
    *,
    services: Iterable[Any] = (),
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Server]:
    """A server on a free port of 127.0.0.1 that keeps silent; `store` is its handler of C-STORE."""
    options = {"port": 0, "stop_timeout": 0, "observers": (), **options}
    server = Server("SCP", services=services, **options)
    if store is not None:
        server.on_c_store(store)
    async with asyncio.timeout(PATIENCE), server:
        yield server


def connect(server: Server, **options: Any) -> AssociationRequest:  # noqa: ANN401
    """Ask a server for an association with Verification and CT Image Storage."""
    contexts = (
        ProposedContext(VERIFICATION),
        ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    )
    return associate(
        options.pop("host", "127.0.0.1"),
        options.pop("port", server.port),
        **{"contexts": contexts, "observers": (), "called_ae_title": "SCP", "calling_ae_title": "SCU", **options},
    )


async def assert_alive(server: Server) -> None:
    """Prove that the server serves others."""
    async with connect(server) as association:
        assert (await association.c_echo()).status == 0


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until a condition that nobody announces is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it looks on from outside, where there is no event to wait for
            await asyncio.sleep(0)


class Recorder(Observer):
    """Remembers which hooks were called, in words, and with what; lets a test wait for one."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.closed: list[AssociationError] = []
        self.refused: list[Exception] = []
        self.turned_away: list[str] = []
        self.failed: list[Exception] = []
        self.associations: list[Association] = []
        self._changed = asyncio.Event()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a call has made the condition true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def association_opened(self, association: Association) -> None:
        self.associations.append(association)
        self._note("opened")

    def association_closed(self, _association: Association, error: AssociationError) -> None:
        self.closed.append(error)
        self._note(f"closed {type(error).__name__}")

    def association_refused(self, _peer: Peer | None, error: Exception) -> None:
        self.refused.append(error)
        self._note(f"refused {type(error).__name__}")

    def connection_turned_away(self, address: str) -> None:
        self.turned_away.append(address)
        self._note("turned away")

    def message_sent(self, _association: Association, command: Command) -> None:
        self._note(f"sent {type(command).__name__}")

    def message_received(self, _association: Association, command: Command) -> None:
        self._note(f"received {type(command).__name__}")

    def operation_failed(self, _association: Association, _operation: Operation, error: Exception) -> None:
        self.failed.append(error)
        self._note(f"failed {type(error).__name__}")


# Peers made of bytes.


class RawPeer:
    """A connection on which a test says, byte for byte, what a peer says; it closes it in the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *parts: bytes) -> None:
        """Write."""
        self.writer.write(b"".join(parts))

    async def pdu(self) -> bytes:
        """The next PDU, header included."""
        async with asyncio.timeout(PATIENCE):
            header = await self.reader.readexactly(6)
            return header + await self.reader.readexactly(int.from_bytes(header[2:], "big"))

    async def rest(self) -> bytes:
        """Everything until the other end closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def command(self) -> Command:
        """The next message, which is a command set in one fragment."""
        pdu = await self.pdu()
        assert (pdu[0], pdu[11]) == (4, 3), pdu[:12].hex()
        return decode_command(pdu[12:])[0]

    async def response(self) -> Response:
        """The next message, which is a response in one fragment."""
        command = await self.command()
        assert isinstance(command, Response), command
        return command

    def reset(self) -> None:
        """Close the connection with a RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the connection; what was said has gone out by now, or nobody wants it."""
        self.writer.transport.abort()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.writer.wait_closed()
        except OSError:
            pass  # it was reset, which some tests are about


@asynccontextmanager
async def raw_connection(server: Server, port: int | None = None) -> AsyncIterator[RawPeer]:
    """A bare connection to a server."""
    peer = RawPeer(*await asyncio.open_connection("127.0.0.1", server.port if port is None else port))
    try:
        yield peer
    finally:
        await peer.close()


@asynccontextmanager
async def raw_association(server: Server, **options: Any) -> AsyncIterator[RawPeer]:  # noqa: ANN401
    """A bare connection on which an association is established."""
    async with raw_connection(server) as peer:
        peer.send(request_pdu(**options))
        answer = await peer.pdu()
        assert answer[0] == 2, answer.hex()
        yield peer


class RawServer:
    """Listens, and runs a script of bytes against whoever connects."""

    def __init__(self, script: Callable[[RawPeer], Any]) -> None:
        self._script = script
        self.peers: list[RawPeer] = []
        self.done = asyncio.Event()
        self.failure: BaseException | None = None
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawPeer(reader, writer)
        try:
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, AssertionError) as error:
            self.failure = error
        finally:
            await peer.close()
            self.done.set()


@asynccontextmanager
async def raw_server(script: Callable[[RawPeer], Any]) -> AsyncIterator[RawServer]:
    """A hostile acceptor; in the end its script must have run, without a failure."""
    scripted = RawServer(script)
    server = await asyncio.start_server(scripted, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(PATIENCE):
            yield scripted
            await scripted.done.wait()
    finally:
        server.close()
        await server.wait_closed()
    if scripted.failure is not None:
        raise scripted.failure


def reach(peer: RawServer, **options: Any) -> AssociationRequest:  # noqa: ANN401
    """Ask a hostile acceptor for an association."""
    return associate(
        "127.0.0.1",
        peer.port,
        **{
            "contexts": (VERIFICATION, ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,))),
            "observers": (),
            "timeouts": Timeouts(idle=None),
            **options,
        },
    )


# PDUs.


def context_items() -> tuple[PresentationContextRQ, ...]:
    """Verification as context 1, CT Image Storage as context 3."""
    return (
        PresentationContextRQ(ECHO_CONTEXT, VERIFICATION, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),
        PresentationContextRQ(CT_CONTEXT, CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    )


def request_pdu(
    *,
    called: str = "SCP",
    calling: str = "RAW",
    contexts: tuple[PresentationContextRQ, ...] | None = None,
    maximum_length: int = 0,
    window: tuple[int, int] | None = None,
    items: tuple[UserInformationItem, ...] = (),
) -> bytes:
    """An A-ASSOCIATE-RQ."""
    information: list[UserInformationItem] = [MaximumLength(maximum_length), ImplementationClassUID("1.2.3"), *items]
    if window is not None:
        information.append(AsynchronousOperationsWindow(*window))
    return AAssociateRQ(called, calling, contexts or context_items(), tuple(information)).encode()


def accept_pdu(
    *answers: PresentationContextAC, maximum_length: int = 0, items: tuple[UserInformationItem, ...] = ()
) -> bytes:
    """An A-ASSOCIATE-AC; unless told otherwise it accepts what `reach` proposes."""
    contexts = answers or (
        PresentationContextAC(ECHO_CONTEXT, 0, EXPLICIT_VR_LITTLE_ENDIAN),
        PresentationContextAC(CT_CONTEXT, 0, IMPLICIT_VR_LITTLE_ENDIAN),
    )
    return AAssociateAC("SCP", "RAW", contexts, (MaximumLength(maximum_length), *items)).encode()


def data_pdu(*pdvs: PDV) -> bytes:
    """A P-DATA-TF with those fragments."""
    body = b"".join(
        struct.pack(">IBB", len(pdv.data) + 2, pdv.context_id, pdv.is_command | pdv.is_last << 1) + bytes(pdv.data)
        for pdv in pdvs
    )
    return struct.pack(">BxI", 4, len(body)) + body


def command_pdu(context_id: int, command: Command, *, has_data_set: bool = False) -> bytes:
    """A P-DATA-TF with a whole command set."""
    return data_pdu(PDV(context_id, True, True, encode_command(command, has_data_set=has_data_set)))


def echo_pdu(message_id: int = 1) -> bytes:
    """A C-ECHO-RQ."""
    return command_pdu(ECHO_CONTEXT, CEchoRQ(message_id=message_id, affected_sop_class_uid=VERIFICATION))


def store_pdu(
    message_id: int = 1,
    number: int = 1,
    *,
    uid: str | None = None,
    context_id: int = CT_CONTEXT,
    has_data_set: bool = True,
) -> bytes:
    """A C-STORE-RQ, without its data set."""
    request = CStoreRQ(
        message_id=message_id,
        affected_sop_class_uid=CT,
        affected_sop_instance_uid=instance_uid(number) if uid is None else uid,
    )
    return command_pdu(context_id, request, has_data_set=has_data_set)


def fragment_pdu(data: bytes, *, is_last: bool = True, context_id: int = CT_CONTEXT) -> bytes:
    """A P-DATA-TF with a fragment of a data set."""
    return data_pdu(PDV(context_id, False, is_last, data))
