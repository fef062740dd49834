"""An association (PS3.8 §7): messages over an established upper layer, from either end.

There is one reader, the connection's callback, and it never waits for a handler: it hands fragments to the data set
they belong to, wakes whoever awaits a response, starts a task for each request of the peer. An association that is idle
therefore holds no task at all. Handlers are the association's own tasks: its end cancels them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from anyio import CancelScope

from aiodicom.accounts import Account, Counts
from aiodicom.dataset import encode_data_set
from aiodicom.dimse.commands import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    Command,
    CStoreRQ,
    CStoreRSP,
    Priority,
    Request,
    Response,
    SuboperationsRSP,
    respond,
)
from aiodicom.dimse.fragments import Assembler, DataFragment, ReceivedCommand
from aiodicom.errors import (
    AssociationAborted,
    AssociationError,
    AssociationReleased,
    LocalProtocolError,
    NoAcceptedContext,
    OperationTimeout,
    ProtocolError,
    RemoteProtocolError,
)
from aiodicom.inquiring import Inquiry, inquire
from aiodicom.invoking import Invoker
from aiodicom.limits import Limits
from aiodicom.operation import (
    Conclusion,
    IncomingDataSet,
    Operation,
    ReceivedResponse,
    ReceiveWindow,
    Reserve,
    Responses,
)
from aiodicom.outgoing import Instance, choose_context, prepare
from aiodicom.performing import Dispatch, Performer, fields_of
from aiodicom.query import NO_OPTIONS, QueryOptions
from aiodicom.scoped import Instances, Intake, Matches, Movement
from aiodicom.sending import DataSetSource, Sender
from aiodicom.terms import Peer, Terms
from aiodicom.transport import Connection, Pace
from aiodicom.uids import VERIFICATION
from aiodicom.upper_layer.pdu import PDV, AAbort, AReleaseRP, AReleaseRQ, ControlPDU
from aiodicom.upper_layer.presentation import PresentationContext
from aiodicom.upper_layer.provider import ProviderAbort, UpperLayerEvent
from aiodicom.upper_layer.state_machine import State
from aiodicom.workers import InThread, in_any_thread

if TYPE_CHECKING:
    from pydicom import Dataset

ResponseType = TypeVar("ResponseType", bound=Response)


MAXIMUM_FAILED_LIST: Final = 8 * 1024 * 1024
"""The longest data set of a response to a C-GET or C-MOVE, in bytes: it names each instance that failed."""


class Observer:
    """Hooks, called as things happen, in the event loop: override those you need, and be quick.

    Logs and metrics are made of them. What a command holds is no patient data; a data set, which does, is not shown.
    """

    def association_opened(self, association: Association) -> None:
        """An association is established, by either end."""

    def association_closed(self, association: Association, error: AssociationError) -> None:
        """An association is over: `AssociationReleased`, or `AssociationAborted`."""

    def association_refused(self, peer: Peer | None, error: Exception) -> None:
        """A connection did not become an association: it was rejected, aborted, lost, or never spoke."""

    def connection_turned_away(self, address: str) -> None:
        """A connection from that address was closed by a server, since there are too many."""

    def message_sent(self, association: Association, command: Command) -> None:
        """A command set is about to be written; its data set, if any, follows."""

    def message_received(self, association: Association, command: Command) -> None:
        """A command set has arrived; its data set, if any, follows."""

    def operation_failed(self, association: Association, operation: Operation, error: Exception) -> None:
        """A handler raised `error`, which was not meant as a status."""

    def transfer_begun(self, association: Association, operation: Operation, intended: Counts) -> None:
        """A C-GET or C-MOVE that is being performed is about to send that many instances of those patients."""

    def operation_concluded(self, association: Association, operation: Operation, status: int | None) -> None:
        """What comes of an operation is known: a response with that status; None where its association ended before.

        Where an observer has this hook, `operation.account` tells what was transferred, with values of patients.
        """

    def pdu_sent(self, connection: Connection, pdu: ControlPDU | PDV) -> None:
        """A PDU was written; of a P-DATA-TF, the PDV it holds."""

    def pdu_received(self, connection: Connection, pdu: ControlPDU | PDV) -> None:
        """A PDU has arrived; of a P-DATA-TF, a part of a PDV, whose data is valid during this call alone."""


class Audience:
    """Observers, and those of their hooks for messages and PDUs that do something: to call the others would cost as much.

    Args:
        observers: who is told; one audience serves any number of associations.
    """

    __slots__ = (
        "_pdu_received",
        "_pdu_sent",
        "message_received",
        "message_sent",
        "observers",
        "operation_concluded",
        "transfer_begun",
    )

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = tuple(observers)
        self.message_sent = self._hooks("message_sent")
        self.message_received = self._hooks("message_received")
        self.operation_concluded = self._hooks("operation_concluded")
        self.transfer_begun = self._hooks("transfer_begun")
        self._pdu_sent = self._hooks("pdu_sent")
        self._pdu_received = self._hooks("pdu_received")

    def trace(self, connection: Connection) -> Callable[[bool, ControlPDU | PDV], None] | None:
        """Return what tells of each PDU of a connection; None where nobody wants to know."""
        if not (self._pdu_sent or self._pdu_received):
            return None

        def trace(sent: bool, pdu: ControlPDU | PDV) -> None:
            for hook in self._pdu_sent if sent else self._pdu_received:
                hook(connection, pdu)

        return trace

    def _hooks(self, name: str) -> tuple[Callable[..., None], ...]:
        idle = getattr(Observer, name)
        return tuple(getattr(each, name) for each in self.observers if getattr(type(each), name) is not idle)


class Association:
    """An established association; safe to use from many tasks of its event loop.

    Attributes:
        terms: what was negotiated.
        since: when it was established.
        is_requestor: whether this end asked for it.
        limits: how long each wait may take, how much is taken of the peer.
        in_thread: runs what blocks.
    """

    def __init__(
        self,
        connection: Connection,
        terms: Terms,
        *,
        is_requestor: bool,
        dispatch: Dispatch,
        limits: Limits,
        audience: Audience,
        reserve: Reserve | None = None,
        in_thread: InThread = in_any_thread,
    ) -> None:
        self.terms = terms
        self.since = datetime.now(UTC)
        self.is_requestor = is_requestor
        self.in_thread = in_thread
        self._connection = connection
        self._upper_layer = connection.upper_layer
        self._dispatch = dispatch
        self.limits = limits
        self._audience = audience
        self._loop = asyncio.get_running_loop()
        self._assembler = Assembler(terms.contexts, limits.maximum_command_set)
        self._error: AssociationError | None = None
        # What we ask of the peer.
        self._sender = Sender(connection, terms.maximum_length, on_message=self._tell_sent, on_cut=self._abort)
        self._window = ReceiveWindow(connection, limits.maximum_buffered, reserve)
        self._invoker = Invoker(self._sender, self._window, terms.maximum_invoked, self._watch_by)
        self._response: tuple[Response, bytearray] | None = None  # one whose data set is arriving
        self._intake: Intake | None = None  # of our C-GET
        self._leaving: tuple[asyncio.Task[None], ...] = ()  # operations of ours that were abandoned
        # What the peer asks of us.
        self._incoming: IncomingDataSet | None = None  # the data set that is arriving
        self._performer = Performer(
            self._sender,
            terms.maximum_performed,
            inflow=connection,
            on_end=self._performed,
            on_failure=self._tell_failed,
            on_conclusion=self._tell_concluded if audience.operation_concluded else None,
        )
        self._peer_releases = False
        self._quiet_since = self._loop.time()  # when the last operation ended, of either side
        self._taken = 0  # how many bytes the peer had taken when the watch last looked
        connection.receiver = self
        for observer in audience.observers:
            observer.association_opened(self)
        self._watch_period = min(limits.stall, limits.rate_period, limits.idle or math.inf)
        self._watch = self._loop.call_later(self._watch_period, self._watch_peer)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Association {state} with {self.peer}, {len(self.terms.contexts)} contexts>"

    # What it is.

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        return self.terms.peer

    @property
    def name(self) -> str:
        """A word for it in logs: no other association of this process has it, and hardly one of another process."""
        return f"{int(self.since.timestamp() * 1_000_000):x}-{id(self) >> 4 & 0xFFFF:x}"

    @property
    def contexts(self) -> tuple[PresentationContext, ...]:
        """The accepted presentation contexts."""
        return tuple(self.terms.contexts.values())

    @property
    def is_open(self) -> bool:
        """Whether messages can be exchanged."""
        return self._error is None

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations that are being performed for the peer now."""
        return self._performer.operations

    @property
    def bytes_received(self) -> int:
        """How many bytes came over its transport connection."""
        return self._connection.bytes_received

    @property
    def bytes_sent(self) -> int:
        """How many bytes were given to its transport connection."""
        return self._connection.bytes_sent

    # What can be asked of the peer.

    async def c_echo(self) -> CEchoRSP:
        """Ask the peer whether it is there (C-ECHO, PS3.7 §9.1.5; PS3.4 Annex A).

        Raises:
            NoAcceptedContext: Verification was not proposed, or not accepted.
            AssociationError: the association ended before the response came.
            OperationTimeout: the peer did not answer; the association is aborted.
        """
        context = self._context_for(VERIFICATION)
        request = partial(CEchoRQ, affected_sop_class_uid=VERIFICATION)
        return await self._exchange(context, request, CEchoRSP)

    async def c_store(
        self,
        instance: Instance,
        *,
        priority: Priority = Priority.MEDIUM,
        decompress: bool = False,
        move_originator: tuple[str, int] | None = None,
    ) -> CStoreRSP:
        """Send an instance (C-STORE, PS3.7 §9.1.1; PS3.4 Annex B).

        It goes out in its own transfer syntax where that was accepted, else transcoded between the uncompressed ones.
        Pixel data is never dropped, and decompressed only where that is allowed.

        Args:
            instance: the path of a Part 10 file, an `InstanceFile`, a pydicom Dataset, or an `EncodedInstance`.
            priority: PS3.7 §9.1.1.1.6.
            decompress: allow compressed pixel data to be decompressed, where the peer did not accept it as it is; needs
                the decoders of `aiodicom[codecs]`.
            move_originator: the AE title and the Message ID of the C-MOVE that this is a sub-operation of.

        Raises:
            InvalidInstance: it is no DICOM file, is damaged, or lacks what is needed to send it.
            NoAcceptedContext: none of the accepted contexts can carry it.
            AssociationError: the association ended before the response came.
            OperationTimeout: the peer did not answer, or stopped reading; the association is aborted.
        """
        self._raise_if_over()
        context, outgoing = await prepare(
            instance, self.terms.contexts_of, self.terms.proposed, decompress=decompress, in_thread=self.in_thread
        )
        originator, originator_id = move_originator or (None, None)
        request = partial(
            CStoreRQ,
            affected_sop_class_uid=outgoing.sop_class_uid,
            affected_sop_instance_uid=outgoing.sop_instance_uid,
            priority=priority,
            move_originator_application_entity_title=originator,
            move_originator_message_id=originator_id,
        )
        return await self._exchange(context, request, CStoreRSP, outgoing.data)

    def c_find(
        self,
        identifier: Dataset | Mapping[str, Any] | None = None,
        *,
        level: str | None = None,
        model: str | None = None,
        priority: Priority = Priority.MEDIUM,
        idle_timeout: float | None = None,
        total_timeout: float | None = None,
        **keys: Any,  # noqa: ANN401 - whatever pydicom takes as the value of an element
    ) -> Matches:
        """Ask the peer what it has (C-FIND, PS3.7 §9.1.2; PS3.4 §C.4.1, §K.4.1).

        It is iterated over, best in a block of its own::

            async with association.c_find(level="study", PatientName="A*") as matches:
                async for match in matches: ...

        Nothing is sent before the block is entered, or the first match is asked for.

        Args:
            identifier: a Dataset, which goes out as it is; or keys by keyword, to which the usual return keys of the level
                are added.
            level: patient, study, series or image; that of the identifier if it has one. The worklist has none.
            model: an information model (`patient`, `study`, `patient-study`, `worklist`) or the UID of a SOP class; by
                default Patient Root at the patient level, Study Root at the others.
            priority: PS3.7 §9.1.2.1.5.
            idle_timeout: how long each response may take, in seconds; by default `Timeouts.pending`.
            total_timeout: how long all of it may take, in seconds; by default for ever.
            keys: further keys by keyword; None asks for the attribute.

        Raises:
            LocalProtocolError: the identifier has no level, an unknown one or an unknown keyword.
            NoAcceptedContext: the SOP class was not proposed, or not accepted.
        """
        inquiry = inquire("find", identifier, level=level, model=model, keys=keys, priority=priority)
        self._context_for(inquiry.sop_class_uid)
        return Matches(self, partial(self.ask, inquiry, idle_timeout), total_timeout, self._syntax_of)

    def c_get(
        self,
        identifier: Dataset | Mapping[str, Any] | None = None,
        *,
        level: str | None = None,
        model: str | None = None,
        priority: Priority = Priority.MEDIUM,
        idle_timeout: float | None = None,
        total_timeout: float | None = None,
        **keys: Any,  # noqa: ANN401 - likewise
    ) -> Instances:
        """Retrieve instances over this association (C-GET, PS3.7 §9.1.3; PS3.4 §C.4.3).

        They are taken one after the other::

            async with association.c_get(level="series", SeriesInstanceUID=uid) as instances:
                async for instance in instances:
                    await instance.save(folder)

        The association must propose the SOP classes of the instances, in the role of SCP: `contexts_to_retrieve()`.

        Args:
            identifier: a Dataset, or keys by keyword: the unique keys of the level and of those above.
            level: patient, study, series or image; by default that of the lowest unique key.
            model: as for `c_find`; `composite` and `no-bulk-data`, too.
            priority: PS3.7 §9.1.3.1.5.
            idle_timeout: how long the next response or instance may take, in seconds; by default `Timeouts.pending`.
            total_timeout: how long all of it may take, in seconds; by default for ever.
            keys: further keys by keyword.

        Raises:
            LocalProtocolError: the identifier lacks its unique key.
            NoAcceptedContext: the SOP class was not accepted, or none to receive instances in.
        """
        inquiry = inquire("get", identifier, level=level, model=model, keys=keys, priority=priority)
        self._context_to_get(inquiry)
        intake = Intake()
        begin = partial(self.ask_to_get, inquiry, idle_timeout, intake)
        return Instances(self, begin, total_timeout, self._syntax_of, intake)

    def c_move(
        self,
        identifier: Dataset | Mapping[str, Any] | None = None,
        *,
        destination: str,
        level: str | None = None,
        model: str | None = None,
        priority: Priority = Priority.MEDIUM,
        idle_timeout: float | None = None,
        total_timeout: float | None = None,
        **keys: Any,  # noqa: ANN401 - likewise
    ) -> Movement:
        """Let the peer send instances to a third party (C-MOVE, PS3.7 §9.1.4; PS3.4 §C.4.2).

        How far it is comes one by one::

            async for progress in association.c_move(level="study", StudyInstanceUID=uid, destination="WS1"):
                print(progress.completed, progress.remaining)

        Args:
            identifier: as for `c_get`.
            destination: the AE title of who is to get them; the peer must know it.
            level: likewise.
            model: likewise.
            priority: PS3.7 §9.1.4.1.5.
            idle_timeout: how long the next response may take, in seconds; by default `Timeouts.pending`. A peer need not
                send any before the last.
            total_timeout: how long all of it may take, in seconds; by default for ever.
            keys: further keys by keyword.

        Raises:
            LocalProtocolError: the identifier lacks its unique key.
            NoAcceptedContext: the SOP class was not accepted.
        """
        request = {"priority": priority, "move_destination": destination}
        inquiry = inquire("move", identifier, level=level, model=model, keys=keys, **request)
        self._context_for(inquiry.sop_class_uid)
        begin = partial(self.ask, inquiry, idle_timeout)
        return Movement(self, begin, total_timeout, self._syntax_of, self.touch)

    async def release(self) -> None:
        """End the association in order (A-RELEASE, PS3.8 §7.2). One that is over already is left as it is.

        Raises:
            OperationTimeout: the peer did not answer; the association was aborted.
        """
        if self._error is not None:
            await self._wait_closed()
            return
        try:
            for responses in self._invoker.scopes:
                await self.leave(responses, AssociationReleased("the association was released"))
            await self._sender.wait_until_quiet(self.limits.send)
            if self._error is None and self._upper_layer.state is State.STA6:
                self._upper_layer.release()
                self._connection.flush()
            async with asyncio.timeout(self.limits.release):
                await self._connection.wait_closed()
        except TimeoutError:
            self._abort("the peer did not answer our A-RELEASE-RQ")
            raise OperationTimeout("release", self.limits.release, "the association was aborted") from None
        except asyncio.CancelledError:
            self._abort("we gave up waiting for the release")
            raise

    async def abort(self) -> None:
        """End the association at once (A-ABORT, PS3.8 §7.3): what is outstanding fails. One that is over stays over."""
        self._abort("the user of this end aborted it")
        await self._wait_closed()

    async def wait_idle(self) -> None:
        """Wait until nothing is being performed for the peer."""
        await self._performer.wait_idle()

    async def wait_closed(self) -> None:
        """Wait until the association is over and its transport connection closed, by whichever end."""
        await self._connection.wait_closed()

    async def __aenter__(self) -> Self:
        """Return the association; leaving the block releases it, or aborts it where an exception leaves the block."""
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Release, or abort; in either case within its deadline, even where the task is being cancelled."""
        with CancelScope(shield=True):
            if exc_type is None:
                await self.release()
            else:
                await self.abort()

    async def _wait_closed(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self._connection.wait_closed()
        except TimeoutError:
            self._connection.cut()
            await self._connection.wait_closed()

    # Requests of ours.

    def _context_for(self, abstract_syntax: str) -> PresentationContext:
        context = choose_context(self.terms.contexts_of(abstract_syntax))
        if context is None:
            items = (item for item in self.terms.proposed if item.abstract_syntax == abstract_syntax)
            raise NoAcceptedContext(abstract_syntax, None, proposed=[item.transfer_syntaxes for item in items])
        return context

    def _context_to_get(self, inquiry: Inquiry) -> PresentationContext:
        context = self._context_for(inquiry.sop_class_uid)
        if not any(each.as_scp for each in self.contexts):
            advice = "propose storage SOP classes in the role of SCP: associate(…, contexts=contexts_to_retrieve())"
            raise NoAcceptedContext("storage as SCP", None, proposed=[], advice=advice)
        return context

    def _syntax_of(self, context_id: int) -> str:
        return self.terms.contexts[context_id].transfer_syntax

    async def _exchange(
        self,
        context: PresentationContext,
        make_request: Callable[..., Request],
        expected: type[ResponseType],
        data_set: DataSetSource | None = None,
    ) -> ResponseType:
        """Send a request, and return its only response."""
        responses = await self._invoker.begin(context.context_id, make_request, data_set, idle=self.limits.response)
        try:
            response = (await responses.next()).response
        except BaseException:
            responses.discard()  # what still comes is nobody's
            raise
        assert isinstance(response, expected)  # _response_received looked
        return response

    # What scopes ask for, and those who lend associations to them; it is not for users.

    @property
    def is_quiet(self) -> bool:
        """Whether it is open, and nothing is outstanding on it, from either end."""
        return self._error is None and not (self._invoker.is_waiting or self._performer.is_busy)

    async def ask(self, inquiry: Inquiry, idle_timeout: float | None = None) -> Responses:
        """Send a request that has an identifier and, perhaps, many responses.

        Raises:
            NoAcceptedContext: its SOP class was not proposed, or not accepted.
            AssociationError: the association ended.
            OperationTimeout: the peer has stopped reading.
        """
        self._raise_if_over()
        context = self._context_for(inquiry.sop_class_uid)
        encoded = encode_data_set(inquiry.identifier, context.transfer_syntax)
        idle = self.limits.pending if idle_timeout is None else idle_timeout
        return await self._invoker.begin(context.context_id, inquiry.make_request, encoded, idle=idle)

    async def ask_to_get(self, inquiry: Inquiry, idle_timeout: float | None, intake: Intake) -> Responses:
        """Send a C-GET, whose sub-operations go to that intake from the moment it is sent; raises as `ask` does."""
        self._context_to_get(inquiry)

        def make(message_id: int) -> Request:
            # A sub-operation does not say which C-GET it belongs to.
            if self._intake is not None and not self._intake.is_over:
                raise LocalProtocolError(
                    "a C-GET is open on this association: end it first, or use another association"
                )
            self._intake = intake
            return inquiry.make_request(message_id=message_id)

        intake.responses = responses = await self.ask(replace(inquiry, make_request=make), idle_timeout)
        return responses

    def touch(self, responses: Responses) -> None:
        """Let the deadline of the next response begin anew."""
        self._invoker.expect(responses)

    def finish(self, responses: Responses) -> None:
        """Take note that an operation of ours is over and all its responses are taken, which changes nothing here."""

    async def leave(self, responses: Responses, error: AssociationError | None = None) -> None:
        """Cancel an operation of ours and wait for its end; beyond `Timeouts.cancel` abort (for scopes, not for users)."""
        if self._error is not None:
            return
        try:
            async with asyncio.timeout(self.limits.cancel):
                await self._invoker.cancel(responses, error)
        except TimeoutError:
            self._abort("the peer did not answer our C-CANCEL")
        except asyncio.CancelledError:
            self._abort("we gave up waiting for the answer to our C-CANCEL")
            raise
        except AssociationError:
            pass  # which says it to whoever goes on using it

    def abandon(self, responses: Responses) -> None:
        """Do the same for an operation that nobody refers to any more, from whichever thread finds that out."""
        responses.holder = None
        with suppress(RuntimeError):  # the loop is closed, and with it the association
            self._loop.call_soon_threadsafe(self._leave_soon, responses)

    def _leave_soon(self, responses: Responses) -> None:
        if self._intake is not None and self._intake.responses is responses:
            self._intake.leave()
        if self._error is None:
            task = self._loop.create_task(self.leave(responses))
            self._leaving += (task,)  # which an idle association has no set for
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving = tuple(each for each in self._leaving if each is not task)

    # What an operation of the peer asks of us.

    def options_for(self, sop_class_uid: str) -> QueryOptions:
        """Return what was negotiated of a SOP class (PS3.4 §C.5)."""
        return self.terms.options.get(sop_class_uid, NO_OPTIONS)

    async def respond(self, operation: Operation, conclusion: Conclusion) -> None:
        """Send a response to an operation that is being performed, not the last one (for services, not for users).

        Raises:
            AssociationError: the association ended.
            OperationTimeout: the peer has stopped reading.
        """
        context_id, response = operation.context.context_id, operation.last_response
        if conclusion.fields or conclusion.comment or response is None or response.status != conclusion.status:
            response = respond(operation.command, conclusion.status, **fields_of(conclusion))
        if conclusion.data_set is None:
            await self._sender.send(context_id, response)
        else:  # those of a C-FIND differ in nothing else
            operation.last_response = response
            await self._sender.send_among_many(context_id, response, conclusion.data_set)

    # What arrives.

    def event_received(self, event: UpperLayerEvent) -> None:
        """Act upon an event of the upper layer (for the connection, not for users)."""
        if isinstance(event, PDV):
            self._pdv_received(event)
        elif isinstance(event, AReleaseRQ):
            self._release_requested()
        elif isinstance(event, AReleaseRP):
            if self._upper_layer.state is State.STA12:  # release collision: now we answer
                self._answer_release()
            else:
                self._end(AssociationReleased("the association was released"))
        elif isinstance(event, AAbort):
            self._end(AssociationAborted(event.source, event.reason))
        elif isinstance(event, ProviderAbort):
            self._end(_aborted_by_provider(event))

    @property
    def inside_message(self) -> bool:
        """Whether the peer is inside a message (for the connection, not for users)."""
        return self._assembler.inside_message

    @property
    def awaits_answer(self) -> bool:
        """Whether the peer owes a response (for the connection, not for users)."""
        return self._invoker.is_waiting

    def connection_closed(self) -> None:
        """Note that the transport connection is gone (for the connection, not for users)."""
        self._end(AssociationAborted(None))

    def _pdv_received(self, pdv: PDV) -> None:
        if self._error is not None:
            return
        try:
            received = self._assembler.receive(pdv)
            if isinstance(received, DataFragment):
                self._data_received(received)
            elif isinstance(received, ReceivedCommand):
                self._command_received(received)
        except ProtocolError as error:
            self._abort(str(error), source=error.source, reason=error.reason)

    def _command_received(self, received: ReceivedCommand) -> None:
        command = received.command
        for hook in self._audience.message_received:
            hook(self, command)
        if isinstance(command, Response):
            self._response_received(command, received.has_data_set)
        elif isinstance(command, CCancelRQ):
            # Soon: a handler that came in with the same bytes has not begun, and then could not answer.
            self._loop.call_soon(self._performer.cancel, command.message_id_being_responded_to)
        elif isinstance(command, Request):
            self._begin(command, self.terms.contexts[received.context_id], received.has_data_set)

    def _data_received(self, received: DataFragment) -> None:
        if self._incoming is not None:
            self._incoming.feed(received.data, received.is_last)
            if self._incoming.is_without_end:
                self._abort(f"the peer goes on with a data set of more than {self._incoming.limit} bytes", source=2)
            elif received.is_last:
                self._incoming = None
        elif self._response is not None:
            response, data = self._response
            data += received.data
            limit = MAXIMUM_FAILED_LIST if isinstance(response, SuboperationsRSP) else self.limits.maximum_identifier
            if len(data) > limit:
                raise RemoteProtocolError(f"a response with more than {limit} bytes of data set")
            if received.is_last:
                self._response = None
                self._deliver(ReceivedResponse(response, bytes(data)))

    def _response_received(self, response: Response, has_data_set: bool) -> None:
        self._invoker.check(response)
        if has_data_set:
            self._response = response, bytearray()
        else:
            self._deliver(ReceivedResponse(response, None))

    def _deliver(self, received: ReceivedResponse) -> None:
        if self._invoker.deliver(received):
            self._quiet_since = self._loop.time()

    # Requests of the peer.

    def _begin(self, request: Request, context: PresentationContext, has_data_set: bool) -> None:
        is_instance = isinstance(request, CStoreRQ)
        limit = self.limits.maximum_instance if is_instance else self.limits.maximum_identifier
        data_set = IncomingDataSet(context.transfer_syntax, self._window, is_empty=not has_data_set, limit=limit)
        if has_data_set:
            self._incoming = data_set
        operation = Operation(request, context, self.peer, data_set, self.in_thread, self, self.limits)
        if self._audience.operation_concluded:
            operation.account = Account(partial(self._tell_begun, operation))
        is_suboperation = self._intake is not None and not self._intake.is_over and is_instance
        self._performer.begin(operation, self._intake if self._intake and is_suboperation else self._dispatch)

    def _performed(self) -> None:
        self._quiet_since = self._loop.time()
        if self._peer_releases:
            self._answer_release()

    def _tell_sent(self, command: Command) -> None:
        for hook in self._audience.message_sent:
            hook(self, command)

    def _tell_failed(self, operation: Operation, error: Exception) -> None:
        is_consequence = self._peer_releases and isinstance(error, AssociationReleased)
        if self._error is None and not is_consequence:
            for observer in self._audience.observers:
                observer.operation_failed(self, operation, error)

    def _tell_begun(self, operation: Operation, intended: Counts) -> None:
        for hook in self._audience.transfer_begun:
            hook(self, operation, intended)

    def _tell_concluded(self, operation: Operation, status: int | None) -> None:
        for hook in self._audience.operation_concluded:
            hook(self, operation, status)

    # The end.

    def _release_requested(self) -> None:
        self._peer_releases = True
        error = AssociationReleased("the peer released the association")
        if self._incoming is not None:
            self._incoming.fail(error)
        self._invoker.fail(error)
        self._answer_release()

    def _answer_release(self) -> None:
        # What is being performed may finish first: responses are allowed until we answer (PS3.8 Table 9-10, AR-7).
        if self._performer.is_busy or self._error is not None:
            return
        if self._upper_layer.state in (State.STA8, State.STA9, State.STA12):
            self._upper_layer.release_response()
            self._connection.flush()
            if self._upper_layer.is_over:
                self._end(AssociationReleased("the peer released the association"))

    def _abort(self, detail: str, *, source: int = 0, reason: int = 0) -> None:
        if self._error is None:
            self._upper_layer.abort(source, reason)
            self._end(AssociationAborted(source, reason, detail, by_peer=False))
            self._connection.flush()

    def _end(self, error: AssociationError) -> None:
        """Let everybody know, once, that it is over."""
        if self._error is not None:
            return
        self._error = error
        self._watch.cancel()
        if self._incoming is not None:
            self._incoming.fail(error)
        self._invoker.end(error)
        self._sender.end(error)
        self._performer.end()
        self._window.leave_reserve()
        for observer in self._audience.observers:
            observer.association_closed(self, error)

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)  # which would else grow with every raise

    # The peer's silence.

    def _watch_peer(self) -> None:
        """Abort where a response is overdue, where the peer stalls inside a message, or has been silent for too long."""
        now = self._loop.time()
        due = self._invoker.deadline
        unsent = self._connection.unsent
        taken, self._taken = self._taken, self._connection.bytes_sent - unsent
        if due <= now:
            due = self._due_after_all(now, is_taking=unsent > 0 and self._taken > taken)
        if due <= now:
            self._response_overdue()
            return
        pace = self._connection.pace
        if pace.is_open:
            words, limit = "the peer stopped in the middle of a message", self.limits.stall
            since = self._connection.last_received
            if self._is_too_slow(pace, now):
                slow = f"the peer sent less than {self.limits.minimum_rate} bytes/s for {self.limits.rate_period:g} s"
                self._abort(slow, source=2)
                return
            due = min(due, pace.since + self.limits.rate_period)
        elif self._performer.is_busy or self._invoker.is_waiting:
            words, limit, since = "", math.inf, now  # somebody works, or waits under a deadline of its own
        else:
            words, limit = "the peer had nothing to say", self.limits.idle or math.inf
            since = max(self._connection.last_received, self._quiet_since)
        if self._connection.is_held:
            since = now  # the silence is of our making
        if since + limit <= now:
            self._abort(f"{words} for {limit:g} s", source=2)
        else:
            self._watch_by(min(since + limit, due, now + self._watch_period), anew=True)

    def _is_too_slow(self, pace: Pace, now: float) -> bool:
        """Judge what the peer has begun and not ended, once for each period."""
        connection = self._connection
        if connection.is_held or connection.last_resumed > pace.since:
            pace.judge(now, connection.bytes_received)  # that was of our making
            return False
        if now < pace.since + self.limits.rate_period:
            return False
        return pace.judge(now, connection.bytes_received) < self.limits.minimum_rate

    def _due_after_all(self, now: float, *, is_taking: bool) -> float:
        """Return when a response is due that seems overdue, but that the peer could not send yet."""
        if is_taking or self._connection.is_held:
            return self._invoker.put_off(now)  # it is still getting our request, or we do not read
        if self._intake is not None and not self._intake.is_over:
            # While we perform its sub-operations it waits for us; after that, and while one arrives, its time begins anew.
            return self._invoker.put_off(now if self._performer.is_busy else self._connection.last_received)
        return self._invoker.put_off(self._connection.last_resumed)

    def _watch_by(self, when: float, *, anew: bool = False) -> None:
        """Look after the peer at that time, if not before; `anew` forgets about before."""
        if self._error is None and (anew or self._watch.when() > when):
            self._watch.cancel()
            self._watch = self._loop.call_at(when, self._watch_peer)

    def _response_overdue(self) -> None:
        overdue = self._invoker.overdue()
        advice = f"the peer did not answer our {type(overdue.request).__name__}; the association was aborted"
        overdue.fail(OperationTimeout("response", overdue.idle or 0, advice))
        self._abort(advice)


def _aborted_by_provider(event: ProviderAbort) -> AssociationAborted:
    if event.reason is None:
        return AssociationAborted(None)
    return AssociationAborted(2, event.reason, event.detail, by_peer=False)
