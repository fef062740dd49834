"""The acceptor: listen, accept or reject associations, dispatch operations to handlers, stop in good order.

PS3.8 §7.1 and §9.2. Every association lives in the event loop that started the server; handlers are coroutines in it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Self, TypeAlias, TypeVar

from anyio import CapacityLimiter

from aiodicom.admission import TEMPORARY_CONGESTION, Doorkeeper, LocalTally, Tally
from aiodicom.association import Association, Audience, Observer
from aiodicom.dimse.commands import CEchoRQ
from aiodicom.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    ConnectionFailed,
    LocalProtocolError,
)
from aiodicom.handlers import VERIFICATION_SERVICE, Dispatcher, Handler, Service, storage_service
from aiodicom.identity import IdentityHandler, IdentityRule
from aiodicom.limits import DEFAULT_LIMITS, Limits, Timeouts
from aiodicom.logs import LoggingObserver
from aiodicom.nodes import Node
from aiodicom.query import NO_OPTIONS, QUERY_RETRIEVE_CLASSES, QueryOptions
from aiodicom.rights import Rights
from aiodicom.secure_transport import SecureTransport
from aiodicom.services.query import FindHandler, find_service
from aiodicom.services.retrieve import Destinations, RetrieveHandler, get_service, move_service
from aiodicom.terms import (
    DEFAULT_WINDOW,
    NO_NEGOTIATION,
    Peer,
    Terms,
    announced_length,
    describe_peer,
    find_item,
    stranger,
)
from aiodicom.tls import Credentials, server_context
from aiodicom.transport import Connection
from aiodicom.uids import VERIFICATION
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentityResponse,
    UserInformationItem,
)
from aiodicom.upper_layer.pdu import AAbort, AAssociateAC, AAssociateRJ, AAssociateRQ, valid_ae_title
from aiodicom.upper_layer.presentation import SupportedSyntax, negotiate
from aiodicom.upper_layer.provider import ProviderAbort, UpperLayer, UpperLayerEvent
from aiodicom.upper_layer.state_machine import State
from aiodicom.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from aiodicom.workers import Workers, to_its_end

AssociateHandler: TypeAlias = Callable[[Peer], Awaitable[bytes | None]]
H = TypeVar("H", bound=Handler)
A = TypeVar("A", bound=AssociateHandler)
I = TypeVar("I", bound=IdentityHandler)  # noqa: E741 - as the others are
F = TypeVar("F", bound=FindHandler)
R = TypeVar("R", bound=RetrieveHandler)
T = TypeVar("T")

BACKLOG: Final = 1024
"""How many connections may wait to be accepted."""

ACCEPTED_AT_A_TIME: Final = 1
"""How many are accepted before others have their turn. asyncio takes its `backlog` for that, too, and where the descriptors
have run out it tries, and logs an error with a traceback, as often; then again after a second."""

_NO_AE_TITLE: Final = (
    "since that is none: 1 to 16 characters of ASCII, no backslash, no control characters (PS3.5 §6.2)"
)

# PS3.8 Table 9-21: result, source, reason.
_NO_REASON_GIVEN: Final = (1, 1, 1)
_CALLING_AE_TITLE_NOT_RECOGNIZED: Final = (1, 1, 3)
_CALLED_AE_TITLE_NOT_RECOGNIZED: Final = (1, 1, 7)


@dataclass(frozen=True, slots=True)
class Listener:
    """An address to accept transport connections at.

    Args:
        host: name or address; "" is every address of this machine, of IPv4 and IPv6.
        port: 0 takes a free one.
        tls: by which rules to speak TLS, and with which certificate (PS3.15 §B.12); a context of yours has rules of its own.
            None is no TLS: the two never share a port.
        reuse_port: let other processes listen at the same address, and the system share connections out among them.
    """

    host: str = "127.0.0.1"
    port: int = 11112
    tls: Credentials | ssl.SSLContext | None = None
    reuse_port: bool = False


class Server:
    """Accepts associations, and performs what is asked on them.

    C-ECHO is answered by itself; everything else needs a handler, and what has none is refused, context by context::

        server = aiodicom.Server("ARCHIVE", port=11112)

        @server.on_c_store
        async def keep(operation):
            await operation.save("received")

        async with server:
            await server.serve_forever()

    Args:
        ae_title: our own.
        host: where to listen, see `Listener`.
        port: likewise.
        listeners: where to listen instead, at several addresses.
        services: what is offered, besides what the `on_…` decorators add.
        require_called_ae_title: reject who asks for another AE title than ours.
        calling_ae_titles: reject everybody else; None admits all. An AE title proves nothing about who has it.
        rights: who may ask for which operations; who may ask for none is rejected. None lets everybody ask for all.
        limits: how many may come in, how much is taken of them, how long each wait may take.
        maximum_associations: that limit, if it is another one: how many may be established at a time; beyond that they are
            rejected as transient.
        maximum_connections: likewise: how many transport connections, those included that have not spoken yet.
        maximum_length: likewise: the longest variable field of a P-DATA-TF that we take, in bytes; 0 is no limit (PS3.8
            §D.1).
        maximum_operations: likewise: how many operations a requestor may have outstanding, where it asks for more than one; 0
            is no limit (PS3.7 §D.3.3.3). Each may have a handler at work and an instance in memory; a peer that is far away
            sends up to three times as fast over one association with 64.
        timeouts: likewise, all those that are waits.
        stop_timeout: the limit `stop`: how long `stop()` lets operations run that have begun, in seconds.
        worker_threads: how many threads there are to write files and decode data sets in, and as many again for handlers
            that are plain functions.
        observers: hooks; by default one that logs.
        tally: counts connections and associations; by default those of this server.
    """

    def __init__(
        self,
        ae_title: str = "AIODICOM",
        *,
        host: str = "127.0.0.1",
        port: int = 11112,
        listeners: Sequence[Listener] | None = None,
        services: Iterable[Service] = (),
        require_called_ae_title: bool = False,
        calling_ae_titles: Collection[str] | None = None,
        rights: Rights | None = None,
        limits: Limits = DEFAULT_LIMITS,
        maximum_associations: int | None = None,
        maximum_connections: int | None = None,
        maximum_length: int | None = None,
        maximum_operations: int | None = None,
        timeouts: Timeouts | None = None,
        stop_timeout: float | None = None,
        worker_threads: int = 8,
        observers: Sequence[Observer] | None = None,
        tally: Tally | None = None,
    ) -> None:
        if not valid_ae_title(ae_title):
            raise LocalProtocolError(f"{ae_title!r} is no AE title (PS3.5 §6.2)")
        self.ae_title = ae_title
        self.listeners = tuple(listeners) if listeners is not None else (Listener(host, port),)
        self.services = [VERIFICATION_SERVICE, *services]
        self.require_called_ae_title = require_called_ae_title
        self.calling_ae_titles = calling_ae_titles
        self.rights = rights
        changes = {} if timeouts is None else asdict(timeouts)
        for name, value in (
            ("maximum_associations", maximum_associations),
            ("maximum_connections", maximum_connections),
            ("maximum_length", maximum_length),
            ("maximum_operations", maximum_operations),
            ("stop", stop_timeout),
        ):
            if value is not None:
                changes[name] = value
        self.limits = limits.changed(**changes)
        self.worker_threads = worker_threads
        self.observers: tuple[Observer, ...] = (LoggingObserver(),) if observers is None else tuple(observers)
        self.associate_handler: AssociateHandler | None = None
        self.identity_rule: IdentityRule | None = None
        self._acceptors: set[_Acceptor] = set()
        self._servers: list[asyncio.Server] = []
        self._tally = tally or LocalTally()
        self._roll = _Roll(self._tally)
        self.doorkeeper = Doorkeeper(self.limits, self._tally, self._turned_away)
        self.workers = Workers(worker_threads)
        self._limiter: CapacityLimiter | None = None  # there is one when the event loop is known
        self.audience = Audience((*self.observers, self._roll))
        self.dispatcher = self._dispatcher()
        self.is_stopping = False
        self._stopped: asyncio.Event | None = None

    def __repr__(self) -> str:
        where = ", ".join(f"{host}:{port}" for host, port in self.addresses) or "not started"
        return f"<Server {self.ae_title!r} {where}, {len(self.associations)} associations>"

    # What it offers.

    def on_c_echo(self, handler: H) -> H:
        """Register the handler of C-ECHO, instead of the one that answers Success (PS3.4 Annex A)."""
        self.add(Service(CEchoRQ, handler, {VERIFICATION: SupportedSyntax()}))
        return handler

    def on_c_store(self, handler: H) -> H:
        """Register the handler of C-STORE, for every Storage SOP Class and transfer syntax (PS3.4 Annex B).

        Where that is too much, `add(storage_service(handler, sop_classes, transfer_syntaxes))`.
        """
        self.add(storage_service(handler))
        return handler

    def on_c_find(self, model: str = "study", *, options: QueryOptions = NO_OPTIONS) -> Callable[[F], F]:
        """Register a handler of C-FIND for an information model: `@server.on_c_find(model="study")`, see `find_service`."""
        return self._registrar(model, lambda handler: find_service(handler, model, options=options))

    def on_c_get(self, model: str = "study", *, options: QueryOptions = NO_OPTIONS) -> Callable[[R], R]:
        """Register a handler of C-GET for an information model, see `get_service`."""
        return self._registrar(model, lambda handler: get_service(handler, model, options=options))

    def on_c_move(
        self,
        model: str = "study",
        *,
        destinations: Mapping[str, Node | tuple[str, int]] | Destinations,
        options: QueryOptions = NO_OPTIONS,
    ) -> Callable[[R], R]:
        """Register a handler of C-MOVE for an information model, see `move_service`."""
        return self._registrar(
            model, lambda handler: move_service(handler, destinations, model, ae_title=self.ae_title, options=options)
        )

    def _registrar(self, model: str, service: Callable[[Any], Service]) -> Callable[[T], T]:
        if callable(model):
            raise TypeError("this decorator wants its parentheses: @server.on_c_find()")

        def register(handler: T) -> T:
            self.add(service(handler))
            return handler

        return register

    def on_associate(self, handler: A) -> A:
        """Register a coroutine that is asked before an association is accepted, with the `Peer` that requests it.

        It raises `AssociationRejected` to reject. What it returns is the response to a user identity, b"" where there is
        none to give (PS3.7 §D.3.3.7); None confirms no identity. Where identities are verified, see `on_user_identity`,
        that comes first, and `Peer.identity_is_verified` tells of it.
        """
        self.associate_handler = handler
        return handler

    def on_user_identity(self, *, required: bool = True, allow_plain_passcode: bool = False) -> Callable[[I], I]:
        """Register a coroutine that verifies the user identity of who asks for an association (PS3.7 §D.3.3.7).

        It gets the `UserIdentity` and the `Peer`. It returns True to accept, or the bytes of the server response, which the
        requestor of a Kerberos ticket, a SAML assertion or a JSON Web Token may have asked for. If it returns anything
        else, or raises, the association is rejected, for no reason given (1/1/1)::

            @server.on_user_identity()
            async def verify(identity, peer):
                return identity.has_passcode(passcodes.get(identity.username))

        Args:
            required: reject who gives no identity, too.
            allow_plain_passcode: take a username and passcode that came without TLS, where everybody on the way could read
                it; else that is rejected, and the coroutine not asked.
        """

        def register(handler: I) -> I:
            self.identity_rule = IdentityRule(handler, required, allow_plain_passcode)
            return handler

        return register

    def add(self, service: Service) -> None:
        """Offer a service to associations from now on."""
        self.services.append(service)
        self.dispatcher = self._dispatcher()

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(self.services, lambda: self._limiter, self.rights)

    # Its life.

    async def start(self) -> None:
        """Listen.

        Raises:
            ConnectionFailed: an address cannot be listened at; none is, then.
        """
        if self._servers:
            raise LocalProtocolError("the server is started already")
        self._limiter = CapacityLimiter(self.worker_threads)
        self.audience = Audience((*self.observers, self._roll))
        self.dispatcher = self._dispatcher()  # `services` is a list that its owner may have changed
        self.doorkeeper = Doorkeeper(self.limits, self._tally, self._turned_away)  # likewise
        self.is_stopping = False
        self._stopped = asyncio.Event()
        try:
            for listener in self.listeners:
                await self._listen(listener)
        except BaseException:
            await _closed(self._close_listeners())
            raise

    async def stop(self) -> None:
        """Stop in good order: no new associations, running operations may end within `Limits.stop`, the rest is aborted.

        While operations end, new associations are rejected as transient: temporary congestion. Where the task is cancelled
        that waits for it, it comes to its end all the same.
        """
        self.is_stopping = True
        await to_its_end(self._stop())

    async def _stop(self) -> None:
        endings = [asyncio.create_task(acceptor.finish(self.limits.stop)) for acceptor in self._acceptors]
        if endings:
            await asyncio.wait(endings)
        servers = self._close_listeners()
        while self._acceptors:  # who came meanwhile
            await asyncio.wait([asyncio.create_task(acceptor.finish(0)) for acceptor in self._acceptors])
        await _closed(servers)
        self.workers.stop()
        if self._stopped is not None:
            self._stopped.set()

    async def serve_forever(self) -> None:
        """Serve until `stop` is called or the task is cancelled; starts the server unless it is started."""
        if not self._servers:
            await self.start()
        assert self._stopped is not None
        try:
            await self._stopped.wait()
        finally:
            if not self.is_stopping:
                await self.stop()

    def run(self) -> None:
        """Serve in an event loop of its own, until interrupted (Ctrl-C); for a program that does nothing else.

        Raises:
            ConnectionFailed: an address cannot be listened at.
        """
        with suppress(KeyboardInterrupt):
            asyncio.run(self.serve_forever())

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    # What it is doing.

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where it listens: hosts and ports, those that the system chose included."""
        names = (each.getsockname() for server in self._servers for each in server.sockets)
        return tuple((str(name[0]), int(name[1])) for name in names)

    @property
    def port(self) -> int:
        """The port of the first listener; before the start the one that was asked for."""
        return self.addresses[0][1] if self._servers else self.listeners[0].port

    @property
    def associations(self) -> tuple[Association, ...]:
        """The associations that are established now: each knows its peer, since when, its bytes, its operations."""
        return tuple(self._roll.associations)

    # What its connections ask of it.

    def check(self, peer: Peer) -> None:
        """Decide whether a peer may have an association now.

        Raises:
            AssociationRejected: it may not.
        """
        if self.is_stopping:
            raise AssociationRejected(*TEMPORARY_CONGESTION)
        self.doorkeeper.check(peer.host)
        self._check_ae_titles(peer.called_ae_title, peer.calling_ae_title)
        if self.rights is not None:
            self.rights.admit(peer)

    def _check_ae_titles(self, called: str, calling: str) -> None:
        if not valid_ae_title(called):
            raise AssociationRejected(*_CALLED_AE_TITLE_NOT_RECOGNIZED, rule=_NO_AE_TITLE)
        if self.require_called_ae_title and called != self.ae_title:
            rule = f"by the rule require_called_ae_title: {called!r} was called, and this is {self.ae_title!r}. "
            rule += "To allow any, set require_called_ae_title=False (aiodicom serve --any-called-aet)"
            raise AssociationRejected(*_CALLED_AE_TITLE_NOT_RECOGNIZED, rule=rule)
        if not valid_ae_title(calling):
            raise AssociationRejected(*_CALLING_AE_TITLE_NOT_RECOGNIZED, rule=_NO_AE_TITLE)
        if self.calling_ae_titles is not None and calling not in self.calling_ae_titles:
            rule = f"by the rule calling_ae_titles: it has to name {calling!r}"
            raise AssociationRejected(*_CALLING_AE_TITLE_NOT_RECOGNIZED, rule=rule)

    @contextmanager
    def admission(self, peer: Peer) -> Iterator[None]:
        """Admit a peer: what is done within gives it its association, and none is given elsewhere meanwhile.

        Raises:
            AssociationRejected: it may not have one.
        """
        self.check(peer)
        yield

    def window(self, offered: AsynchronousOperationsWindow) -> AsynchronousOperationsWindow:
        """Return the operations window to answer with: never more than was offered (PS3.7 §D.3.3.3)."""
        return AsynchronousOperationsWindow(
            _smaller(offered.maximum_number_operations_invoked, self.limits.maximum_operations),
            _smaller(offered.maximum_number_operations_performed, self.limits.maximum_operations),
        )

    # Its parts.

    async def _listen(self, listener: Listener) -> None:
        if listener.tls is not None:
            server_context(listener.tls)  # what is wrong with its files is said now
        try:
            server = await asyncio.get_running_loop().create_server(
                partial(self._connection, listener.tls),
                listener.host or None,
                listener.port,
                reuse_port=listener.reuse_port or None,
                backlog=ACCEPTED_AT_A_TIME,
                start_serving=False,
            )
            self._servers.append(server)  # before there is anything to wait for: who is cancelled then must close it
            await server.start_serving()
        except OSError as error:
            raise ConnectionFailed(
                f"cannot listen at {listener.host}:{listener.port}: {error.strerror or error}; "
                "is the port taken by another program, or below 1024 and so reserved?"
            ) from error
        for each in server.sockets:
            with socket.fromfd(each.fileno(), each.family, each.type) as listening:
                listening.listen(BACKLOG)

    def _close_listeners(self) -> list[asyncio.Server]:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        return servers

    def _connection(self, tls: Credentials | ssl.SSLContext | None) -> asyncio.BaseProtocol:
        upper_layer = UpperLayer(maximum_length=self.limits.maximum_length, limits=self.limits)
        connection = Connection(upper_layer, self.limits)
        upper_layer.trace = self.audience.trace(connection)
        self._acceptors.add(_Acceptor(self, connection))
        if tls is None:
            return connection
        return SecureTransport(connection, server_context(tls), timeout=self.limits.handshake, server_side=True)

    def forget(self, acceptor: _Acceptor) -> None:
        """Count a connection no more."""
        self._acceptors.discard(acceptor)
        self.doorkeeper.leave(acceptor)

    def _turned_away(self, address: str) -> None:
        for observer in self.observers:
            observer.connection_turned_away(address)


class _Roll(Observer):
    """The associations that are established."""

    def __init__(self, tally: Tally) -> None:
        self.associations: set[Association] = set()
        self._tally = tally

    def association_opened(self, association: Association) -> None:
        self.associations.add(association)
        self._tally.add("associations", association.peer.host, 1)

    def association_closed(self, association: Association, _error: AssociationError) -> None:
        self.associations.discard(association)
        self._tally.add("associations", association.peer.host, -1)


class _Acceptor:
    """One transport connection of a server, and its association from the moment there is one."""

    __slots__ = ("_association", "_connection", "_decision", "_is_told", "_peer", "_server", "address")

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._association: Association | None = None
        self._decision: asyncio.Task[None] | None = None
        self._peer: Peer | None = None
        self._is_told = False
        self.address = ""
        connection.receiver = self
        connection.on_opened = self._opened
        connection.on_closed = partial(server.forget, self)

    def _opened(self, transport: asyncio.Transport) -> None:
        address = transport.get_extra_info("peername")
        if isinstance(address, tuple):
            self.address = str(address[0])
        self._server.doorkeeper.come(self)

    def turn_away(self) -> None:
        """Close the connection at once: there are too many."""
        self._is_told = True
        self._connection.cut()

    async def finish(self, timeout: float) -> None:
        """End it: what is being performed may take `timeout` seconds more."""
        if self._association is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._association.wait_idle()
            try:
                await self._association.abort()
            finally:
                self._connection.cut()
        else:
            self._connection.upper_layer.abort()
            self._connection.flush()
            self._connection.cut()
        if self._connection.is_opened:
            await self._connection.wait_closed()
        else:
            self._server.forget(self)  # should its transport come, it is cut

    def event_received(self, event: UpperLayerEvent) -> None:
        match event:
            case AAssociateRQ():
                self._peer = describe_peer(
                    event, event.calling_ae_title, self._connection.extra_info, event.user_information
                )
                self._decide(event, self._peer)
            case AAbort():
                self._not_established(AssociationAborted(event.source, event.reason))
            case ProviderAbort(reason=reason, detail=detail):
                self._not_established(AssociationAborted(None if reason is None else 2, reason or 0, detail))

    inside_message = awaits_answer = False  # after its request it is our turn

    def connection_closed(self) -> None:
        if self._decision is not None:
            self._decision.cancel()
        loss = self._connection.loss
        refused = loss if isinstance(loss, ConnectionFailed) else None  # by TLS
        fault = refused or self._connection.upper_layer.protocol_error
        self._not_established(fault or AssociationAborted(None, 0, "before it was requested"))

    def _decide(self, request: AAssociateRQ, peer: Peer) -> None:
        server = self._server
        try:
            if server.associate_handler is None and server.identity_rule is None:
                with server.admission(peer):
                    self._accept(request, peer, None)
            else:
                server.check(peer)
                self._decision = asyncio.get_running_loop().create_task(self._ask(request, peer))
        except AssociationRejected as rejection:
            self._reject(rejection)

    async def _ask(self, request: AAssociateRQ, peer: Peer) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(self._server.limits.decision):
                peer, response = await self._answer_of_handlers(peer)
        except AssociationRejected as rejection:
            self._reject(rejection)
        except TimeoutError as error:
            self._reject(AssociationRejected(*TEMPORARY_CONGESTION), error)
        except asyncio.CancelledError:
            if task.cancelling():
                raise
            self._reject(AssociationRejected(*_NO_REASON_GIVEN, rule="since the handler was cancelled"))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the peer gets an answer
            self._reject(AssociationRejected(*_NO_REASON_GIVEN), error)
        else:
            try:
                with self._server.admission(peer):  # while the handlers thought, others may have come
                    self._accept(request, peer, response)
            except AssociationRejected as rejection:
                self._reject(rejection)

    async def _answer_of_handlers(self, peer: Peer) -> tuple[Peer, bytes | None]:
        """Return the peer, verified if it is, and the response to its user identity."""
        rule, handler = self._server.identity_rule, self._server.associate_handler
        response = None
        if rule is not None:
            peer, response = await rule.check(peer)
        if handler is not None:
            answer = await handler(peer)
            response = answer if response is None else response
        return peer, response

    def _reject(self, rejection: AssociationRejected, error: Exception | None = None) -> None:
        if self._connection.upper_layer.state is not State.STA3:
            return  # the peer has given up meanwhile
        self._connection.upper_layer.reject(AAssociateRJ(rejection.result, rejection.source, rejection.reason))
        self._connection.flush()
        self._not_established(error or rejection)

    def _accept(self, request: AAssociateRQ, peer: Peer, identity_response: bytes | None) -> None:
        if self._connection.upper_layer.state is not State.STA3:
            return  # the peer has given up meanwhile
        server = self._server
        roles = [item for item in request.user_information if isinstance(item, RoleSelection)]
        negotiation = negotiate(request.presentation_contexts, roles, server.dispatcher.supported)
        offered = find_item(request.user_information, AsynchronousOperationsWindow)
        window = server.window(offered) if offered else DEFAULT_WINDOW
        information: list[UserInformationItem] = [
            MaximumLength(server.limits.maximum_length),
            ImplementationClassUID(IMPLEMENTATION_CLASS_UID),
            ImplementationVersionName(IMPLEMENTATION_VERSION_NAME),
            *negotiation.roles,
        ]
        if offered:
            information.append(window)
        options: dict[str, QueryOptions] = {}
        offered_options = server.dispatcher.options.keys() & QUERY_RETRIEVE_CLASSES  # other service classes have others
        for item in request.user_information:
            if isinstance(item, SOPClassExtendedNegotiation) and item.sop_class_uid in offered_options:
                uid, length = item.sop_class_uid, len(item.service_class_application_information)
                options[uid] = server.dispatcher.options[uid].agree(item)
                information.append(SOPClassExtendedNegotiation(uid, options[uid].encode(uid, length)))
        if identity_response is not None and peer.identity and peer.identity.positive_response_requested:
            information.append(UserIdentityResponse(identity_response))
        self._connection.upper_layer.accept(
            AAssociateAC(request.called_ae_title, request.calling_ae_title, negotiation.answers, tuple(information))
        )
        self._association = Association(
            self._connection,
            Terms(
                peer=peer,
                contexts=negotiation.contexts,
                proposed=request.presentation_contexts,
                maximum_length=announced_length(request.user_information),
                # Both numbers describe the requestor: what it performs is what we invoke.
                maximum_invoked=window.maximum_number_operations_performed,
                maximum_performed=window.maximum_number_operations_invoked,
                user_information=request.user_information,
                options=options or NO_NEGOTIATION,
            ),
            is_requestor=False,
            dispatch=server.dispatcher,
            limits=server.limits if server.rights is None else server.rights.limits_of(peer, server.limits),
            audience=server.audience,
            reserve=server.doorkeeper.reserve,
            in_thread=server.workers,
        )
        server.doorkeeper.seat(self)
        self._connection.flush()  # the peer hears of an association that is counted

    def _not_established(self, error: Exception) -> None:
        """Tell the observers why there is no association; once, and not of those that the server's own stop ended."""
        if self._is_told or (self._server.is_stopping and not isinstance(error, AssociationRejected)):
            return
        self._is_told = True
        peer = self._peer or stranger(self._connection.extra_info)
        for observer in self._server.observers:
            observer.association_refused(peer, error)


async def _closed(servers: list[asyncio.Server]) -> None:
    # Some versions of asyncio wait here for connections in a TLS handshake, too, which has a deadline of its own.
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            for server in servers:
                await server.wait_closed()


def _smaller(one: int, other: int) -> int:
    """Return the smaller of two limits, of which 0 is none."""
    return min(one, other) if one and other else one or other
