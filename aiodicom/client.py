"""The requestor: open a transport connection, negotiate an association, hand it over (PS3.8 §7.1)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from aiodicom.association import Association, Audience, Observer
from aiodicom.errors import (
    AssociationAborted,
    AssociationRejected,
    ConnectionFailed,
    DicomNetworkError,
    OperationTimeout,
    RemoteProtocolError,
)
from aiodicom.handlers import Dispatcher
from aiodicom.identity import check_plain_passcode
from aiodicom.limits import DEFAULT_LIMITS, Timeouts, limits_of
from aiodicom.logs import LoggingObserver
from aiodicom.planning import default_contexts
from aiodicom.query import QUERY_RETRIEVE_CLASSES, QueryOptions, options_of
from aiodicom.secure_transport import SecureTransport
from aiodicom.terms import DEFAULT_WINDOW, Terms, announced_length, describe_peer, find_item
from aiodicom.tls import Credentials, client_context
from aiodicom.transport import Connection
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserInformationItem,
)
from aiodicom.upper_layer.pdu import AAbort, AAssociateAC, AAssociateRJ, AAssociateRQ
from aiodicom.upper_layer.presentation import ProposedContext, accepted_contexts, propose
from aiodicom.upper_layer.provider import ProviderAbort, UpperLayer, UpperLayerEvent
from aiodicom.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from aiodicom.workers import InThread, in_any_thread

DEFAULT_TIMEOUTS: Final = Timeouts(idle=None)
"""A requestor may keep an association for as long as it likes: the acceptor decides when it has been idle too long."""


def associate(
    host: str,
    port: int,
    *,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "AIODICOM",
    contexts: Sequence[ProposedContext | str] | None = None,
    maximum_length: int = DEFAULT_LIMITS.maximum_length,
    operations_window: tuple[int, int] | None = None,
    identity: UserIdentity | None = None,
    allow_plain_passcode: bool = False,
    options: QueryOptions | None = None,
    user_information: Sequence[UserInformationItem] = (),
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    tls: Credentials | ssl.SSLContext | None = None,
    observers: Sequence[Observer] | None = None,
    in_thread: InThread = in_any_thread,
) -> AssociationRequest:
    """Ask a peer for an association (A-ASSOCIATE, PS3.8 §7.1): `await` it, or use it in `async with`.

    `async with associate(…) as association` releases the association at the end of the block, and aborts it where an
    exception leaves the block. `association = await associate(…)` leaves that to `release()` and `abort()`, in whichever
    task.

    Args:
        host: name or address of the peer.
        port: its port; 104 and 11112 are registered for DICOM.
        called_ae_title: the AE title of the peer, at most 16 characters.
        calling_ae_title: our own.
        contexts: what to propose, at most 128: `ProposedContext`s, or UIDs of SOP classes, which are proposed with
            Explicit and Implicit VR Little Endian; `contexts_for(paths)` plans them. By default Verification and those of
            Query/Retrieve and the Modality Worklist.
        maximum_length: the longest variable field of a P-DATA-TF that we take, in bytes; 0 is no limit (PS3.8 §D.1).
        operations_window: how many operations we want to invoke, and how many to perform, at a time; 0 is no limit
            (PS3.7 §D.3.3.3). Not offered unless given: some peers drop the connection when they see the offer.
        identity: who we are (PS3.7 §D.3.3.7): `UserIdentity.of_user("ada", "passcode")`, `.of_jwt(token)`, …; what it is
            answered is `association.terms.identity_response`.
        allow_plain_passcode: let the passcode of an identity go over the network without TLS.
        options: what to ask for in the contexts of Query/Retrieve and the worklist (PS3.4 §C.5.1.1); the terms of the
            association tell what was granted. Not offered unless given.
        user_information: further sub-items to send.
        timeouts: how long each wait may take; may be `Limits`, too.
        tls: by which rules to speak TLS, and with which certificate (PS3.15 §B.12); a context of yours has rules of its own.
            None is no TLS.
        observers: hooks; by default one that logs. A sequence of none is silent.
        in_thread: runs what blocks, such as reading files and encoding data sets; by default in anyio's threads.

    Raises:
        ConnectionFailed: there is no transport connection to be had.
        AssociationRejected: the peer does not want the association; the error says why, and what helps.
        AssociationAborted: the peer aborted, or closed the connection, instead of answering.
        OperationTimeout: connecting, or the answer, took too long.
        LocalProtocolError: an AE title or a context that cannot be proposed, or a passcode without TLS.
    """
    proposals = default_contexts() if contexts is None else contexts
    items, roles = propose([ProposedContext(each) if isinstance(each, str) else each for each in proposals])
    information: list[UserInformationItem] = [
        MaximumLength(maximum_length),
        ImplementationClassUID(IMPLEMENTATION_CLASS_UID),
        ImplementationVersionName(IMPLEMENTATION_VERSION_NAME),
        *roles,
        *user_information,
    ]
    if operations_window is not None:
        information.append(AsynchronousOperationsWindow(*operations_window))
    if identity is not None:
        if not allow_plain_passcode:
            check_plain_passcode(identity, is_encrypted=tls is not None)
        information.append(identity)
    if options is not None:
        classes = dict.fromkeys(
            item.abstract_syntax for item in items if item.abstract_syntax in QUERY_RETRIEVE_CLASSES
        )
        information += [options.propose(uid) for uid in classes]
    request = AAssociateRQ(called_ae_title, calling_ae_title, items, tuple(information))
    request.encode()  # what cannot be encoded is said before anything is connected
    return AssociationRequest(
        host,
        port,
        request,
        maximum_length=maximum_length,
        timeouts=timeouts,
        tls=tls,
        observers=(LoggingObserver(),) if observers is None else observers,
        in_thread=in_thread,
    )


class AssociationRequest:
    """An association to be: awaitable, and an async context manager; made by `associate`, for one use."""

    def __init__(
        self,
        host: str,
        port: int,
        request: AAssociateRQ,
        *,
        maximum_length: int,
        timeouts: Timeouts,
        tls: Credentials | ssl.SSLContext | None,
        observers: Sequence[Observer],
        in_thread: InThread,
    ) -> None:
        self._host = host
        self._port = port
        self._request = request
        self._maximum_length = maximum_length
        self._limits = limits_of(timeouts)
        self._tls = tls
        self._observers = observers
        self._in_thread = in_thread
        self._association: Association | None = None

    def __await__(self) -> Generator[object, None, Association]:
        return self._associate().__await__()

    async def __aenter__(self) -> Association:
        """Return the established association."""
        self._association = await self._associate()
        return self._association

    async def __aexit__(self, exc_type: type[BaseException] | None, *details: object) -> None:
        """Release it, or abort it where an exception leaves the block."""
        assert self._association is not None
        await self._association.__aexit__(exc_type, *details)

    async def _associate(self) -> Association:
        upper_layer = UpperLayer(maximum_length=self._maximum_length, limits=self._limits)
        connection = Connection(upper_layer, self._limits)
        audience = Audience(self._observers)
        upper_layer.trace = audience.trace(connection)
        establish = partial(
            Association,
            connection,
            is_requestor=True,
            dispatch=Dispatcher(()),
            limits=self._limits,
            audience=audience,
            in_thread=self._in_thread,
        )
        answer = _Answer(self._request, connection, establish)
        upper_layer.associate(self._request)
        try:
            await self._connect(connection)
            try:
                async with asyncio.timeout(self._limits.associate):
                    return await answer.association
            except TimeoutError:
                advice = "the peer took the connection but did not answer our A-ASSOCIATE-RQ: is it a DICOM port?"
                raise OperationTimeout("associate", self._limits.associate, advice) from None
        except BaseException as error:
            upper_layer.abort()
            with suppress(RuntimeError):  # from uvloop, where we were cancelled the moment that it was connected
                connection.flush()
            connection.close()  # not at once: our A-ABORT is to go out
            if isinstance(error, DicomNetworkError):
                for observer in self._observers:
                    observer.association_refused(None, error)
            raise

    async def _connect(self, connection: Connection) -> None:
        where = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(self._limits.connect):
                await self._open(connection)
        except TimeoutError:
            is_there = connection.extra_info("peername") is not None
            advice = (
                f"{where} took the connection but no TLS handshake: is that its port for TLS?"
                if is_there
                else f"nothing at {where} answered: check the host, and the firewalls on the way"
            )
            raise OperationTimeout("connect", self._limits.connect, advice) from None
        except OSError as error:
            advice = "; is a DICOM server running on that port?" if isinstance(error, ConnectionRefusedError) else ""
            raise ConnectionFailed(f"no connection to {where}: {error.strerror or error}{advice}") from error

    async def _open(self, connection: Connection) -> None:
        open_to = asyncio.get_running_loop().create_connection
        if self._tls is None:
            await open_to(lambda: connection, self._host, self._port)
            return
        secure = SecureTransport(
            connection,
            client_context(self._tls),
            timeout=self._limits.connect,
            server_hostname=self._host.partition("%")[0],  # of an address of IPv6 without its scope
        )
        await open_to(lambda: secure, self._host, self._port)
        await secure.established()


class _Answer:
    """Receives the answer to an A-ASSOCIATE-RQ, and turns it into an association or an exception."""

    def __init__(
        self, request: AAssociateRQ, connection: Connection, establish: Callable[[Terms], Association]
    ) -> None:
        self._request = request
        self._connection = connection
        self._establish = establish
        connection.receiver = self
        self.association: asyncio.Future[Association] = asyncio.get_running_loop().create_future()
        self.association.add_done_callback(
            _look
        )  # whoever gives up before it is there does not, and asyncio would say so

    def event_received(self, event: UpperLayerEvent) -> None:
        if self.association.done():
            return
        match event:
            case AAssociateAC():
                try:
                    self.association.set_result(
                        self._establish(_terms(self._request, event, self._connection.extra_info))
                    )
                except RemoteProtocolError as error:
                    self._connection.upper_layer.abort(error.source, error.reason)
                    self._connection.flush()
                    self.association.set_exception(
                        AssociationAborted(error.source, error.reason, str(error), by_peer=False)
                    )
            case AAssociateRJ():
                self.association.set_exception(AssociationRejected(event.result, event.source, event.reason))
            case AAbort():
                advice = "that was its answer to our request: it may not know our AE title, or have no room for us"
                self.association.set_exception(AssociationAborted(event.source, event.reason, advice))
            case ProviderAbort(reason=None):
                self.connection_closed()
            case ProviderAbort():
                self.association.set_exception(AssociationAborted(2, event.reason or 0, event.detail, by_peer=False))

    inside_message = awaits_answer = False  # one PDU answers

    def connection_closed(self) -> None:
        if not self.association.done():
            plain = "" if self._connection.extra_info("ssl_object") else ", or is it for TLS (--tls)"
            advice = (
                f"the peer closed instead of answering our request: is it a DICOM port{plain}, does it know our host?"
            )
            loss = self._connection.loss  # over TLS 1.3 the acceptor looks at our certificate when we are done
            refusal = loss if isinstance(loss, ConnectionFailed) else AssociationAborted(None, 0, advice)
            self.association.set_exception(refusal)


def _look(answer: asyncio.Future[Association]) -> None:
    if not answer.cancelled():
        answer.exception()


def _terms(request: AAssociateRQ, answer: AAssociateAC, extra_info: Callable[[str], object]) -> Terms:
    """Return what the acceptor agreed to.

    Raises:
        RemoteProtocolError: it agreed to what was not proposed.
    """
    proposed_roles = [item for item in request.user_information if isinstance(item, RoleSelection)]
    answered_roles = [item for item in answer.user_information if isinstance(item, RoleSelection)]
    contexts = accepted_contexts(
        request.presentation_contexts, proposed_roles, answer.presentation_contexts, answered_roles
    )
    offered = find_item(request.user_information, AsynchronousOperationsWindow)
    agreed = find_item(answer.user_information, AsynchronousOperationsWindow)
    window = agreed if offered and agreed else DEFAULT_WINDOW
    offers = {
        item.sop_class_uid: item for item in request.user_information if isinstance(item, SOPClassExtendedNegotiation)
    }
    return Terms(
        peer=describe_peer(request, request.called_ae_title, extra_info, answer.user_information),
        contexts=contexts,
        proposed=request.presentation_contexts,
        maximum_length=announced_length(answer.user_information),
        maximum_invoked=window.maximum_number_operations_invoked,
        maximum_performed=window.maximum_number_operations_performed,
        user_information=answer.user_information,
        options={
            item.sop_class_uid: options_of(item).agree(offers[item.sop_class_uid])
            for item in answer.user_information
            if isinstance(item, SOPClassExtendedNegotiation) and item.sop_class_uid in offers
        },
    )
