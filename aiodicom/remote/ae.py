"""`RemoteAE`: a known peer, asked for whatever it offers, over as many associations as that takes."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from anyio import CancelScope

from aiodicom.association import Observer
from aiodicom.client import DEFAULT_TIMEOUTS, AssociationRequest, associate
from aiodicom.dimse.commands import CEchoRSP, Priority
from aiodicom.errors import AssociationAborted, AssociationReleased, LocalProtocolError
from aiodicom.inquiring import inquire
from aiodicom.limits import DEFAULT_LIMITS, Timeouts
from aiodicom.nodes import Node, credentials_for, format_address
from aiodicom.planning import default_contexts
from aiodicom.query import QueryOptions
from aiodicom.remote.delivery import Delivery, Manner, Shipment
from aiodicom.remote.loan import Loan
from aiodicom.remote.parcels import Source
from aiodicom.remote.pool import Pool
from aiodicom.remote.reception import Landing
from aiodicom.remote.retrieval import Arrivals, Retrieval, Retriever, Way, begin, find
from aiodicom.scoped import Instances, Matches, Movement
from aiodicom.server import Server
from aiodicom.tls import Credentials
from aiodicom.uids import VERIFICATION
from aiodicom.upper_layer.items import UserIdentity
from aiodicom.upper_layer.presentation import ProposedContext
from aiodicom.workers import InThread, in_any_thread

if TYPE_CHECKING:
    from pydicom import Dataset


MAXIMUM_ASSOCIATIONS: Final = 4
"""How many associations a `RemoteAE` has at a time, unless it is told otherwise."""


class RemoteAE:
    """A known peer, and a pool of associations with it; safe to use from many tasks of one event loop.

    Associations are opened when they are needed, used for one operation after the other, and released when they have been
    idle for a while; presentation contexts are planned from what is asked::

        async with aiodicom.RemoteAE("127.0.0.1", 4242, ae_title="ORTHANC", calling_ae_title="ME") as orthanc:
            await orthanc.echo()
            async for outcome in orthanc.send(paths): ...
            async for instance in orthanc.retrieve(level="study", StudyInstanceUID=uid): ...

    Without `async with`, `await orthanc.aclose()` when it is no longer needed, in whichever task.

    An operation that is asked for while all associations are at work waits until it is its turn. One that meets an idle
    association which the peer has ended meanwhile is asked again on a new one.

    Args:
        host: name or address of the peer.
        port: its port.
        ae_title: its AE title.
        calling_ae_title: ours.
        maximum_associations: how many there may be at a time, idle ones included.
        keep_alive: how long an idle one is kept, in seconds: less than the peer would keep it.
        window: how many stores of `send` may be outstanding on an association; by default as many as help. More than 1 is
            offered to the peer (PS3.7 §D.3.3.3); where it drops the connection at that, it is asked without, from then on.
        prefers: by which of "get" and "move" it is to be asked first by `retrieve`.
        listener: a server of ours which the peer knows, for C-MOVEs to ourselves. Storing instances that no retrieval waits
            for is left to the handlers of C-STORE that it has by now. It is started when it is first needed, unless it runs.
        listen_host: where to listen for them instead; "" is every address of this machine.
        listen_port: likewise, once it is needed, under our AE title; None is nowhere.
        listen_tls: with which certificate it listens, where the peer is to send over TLS.
        maximum_length: see `associate`; so are identity, allow_plain_passcode, options, timeouts, tls, observers, in_thread.

    Raises:
        LocalProtocolError: an AE title that is none, or no association to be had at all.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ae_title: str = "ANY-SCP",
        calling_ae_title: str = "AIODICOM",
        maximum_associations: int = MAXIMUM_ASSOCIATIONS,
        keep_alive: float = 5,
        window: int | None = None,
        prefers: Way = "get",
        listener: Server | None = None,
        listen_host: str = "127.0.0.1",
        listen_port: int | None = None,
        listen_tls: Credentials | ssl.SSLContext | None = None,
        maximum_length: int = DEFAULT_LIMITS.maximum_length,
        identity: UserIdentity | None = None,
        allow_plain_passcode: bool = False,
        options: QueryOptions | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        tls: Credentials | ssl.SSLContext | None = None,
        observers: Sequence[Observer] | None = None,
        in_thread: InThread = in_any_thread,
    ) -> None:
        self.host = host
        self.port = port
        self.ae_title = ae_title
        self.calling_ae_title = calling_ae_title
        self._window = window
        self._timeouts = timeouts
        self._in_thread = in_thread
        self._associate = partial(
            associate,
            host,
            port,
            called_ae_title=ae_title,
            calling_ae_title=calling_ae_title,
            maximum_length=maximum_length,
            identity=identity,
            allow_plain_passcode=allow_plain_passcode,
            options=options,
            timeouts=timeouts,
            tls=tls,
            observers=observers,
            in_thread=in_thread,
        )
        self._request(default_contexts(), 1 if window is None else window)  # what cannot be asked for is said now
        self._pool = Pool(self._request, maximum=maximum_associations, keep_alive=keep_alive)
        self._landing = Landing(
            listener,
            ae_title=calling_ae_title,
            host=listen_host,
            port=listen_port,
            observers=observers,
            tls=listen_tls,
        )
        self._retriever = Retriever(
            self._pool, self._landing, ae_title=ae_title, calling_ae_title=calling_ae_title, prefers=prefers
        )
        self._shipments: set[Shipment] = set()

    @classmethod
    def of(cls, node: Node, **options: Any) -> Self:  # noqa: ANN401 - those of __init__
        """Return the peer that a node is; `options` are those of `RemoteAE`, `calling_ae_title` among them.

        A node that wants TLS gets it, by the `Credentials` that `tls` is; the others do not.
        """
        tls = options.pop("tls", None)
        if isinstance(tls, Credentials | None):
            tls = credentials_for(node, tls or Credentials())
        return cls(node.host, node.port, ae_title=node.ae_title, tls=tls, **options)

    def __repr__(self) -> str:
        where, pool = format_address(self.ae_title, self.host, self.port), self._pool
        return f"<RemoteAE {where}, {pool.count} of at most {pool.maximum} associations, {pool.idle} idle>"

    # Its life.

    async def __aenter__(self) -> Self:
        """Return it; there is no association before one is needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    async def aclose(self) -> None:
        """End what is going on, and all associations: idle ones in order, the others at once; and our listener."""
        with CancelScope(shield=True):
            for shipment in tuple(self._shipments):
                shipment.failure = LocalProtocolError("the RemoteAE was closed before all was sent")
                await shipment.stop()
            await self._pool.aclose()
            await self._landing.aclose()

    # What can be asked of it.

    async def echo(self) -> CEchoRSP:
        """Ask the peer whether it is there, see `Association.c_echo`.

        Raises:
            AssociationError: there is no association to be had.
            OperationTimeout: it did not answer in time.
        """
        while True:
            lease = await self._pool.take([ProposedContext(VERIFICATION)], default_contexts())
            try:
                return await lease.association.c_echo()
            except (AssociationAborted, AssociationReleased):
                if lease.is_fresh:
                    raise
            finally:
                lease.give_back()

    def find(
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
        """Ask the peer what it has, see `Association.c_find`: an association is borrowed when that begins.

        Raises:
            LocalProtocolError: the identifier has no level, an unknown one or an unknown keyword.
        """
        inquiry = inquire("find", identifier, level=level, model=model, keys=keys, priority=priority)
        return find(self._pool, inquiry, idle_timeout=idle_timeout, total_timeout=total_timeout)

    def get(
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
        """Retrieve instances by C-GET, see `Association.c_get`.

        Where the peer tells which SOP classes are to come, they are proposed in the transfer syntaxes that they may be
        stored in; else those that are usual, see `contexts_to_retrieve`.

        Raises:
            LocalProtocolError: the identifier lacks its unique key.
        """
        inquiry = inquire("get", identifier, level=level, model=model, keys=keys, priority=priority)
        arrivals = Arrivals()
        loan = Loan(self._pool, arrivals)
        work = partial(self._retriever.begin_get, loan, inquiry, idle_timeout, arrivals)
        return Instances(loan, work, total_timeout, loan.syntax_of, arrivals)

    def move(
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
        """Let the peer send instances to a third party, see `Association.c_move`.

        Raises:
            LocalProtocolError: the identifier lacks its unique key.
        """
        request = {"priority": priority, "move_destination": destination}
        inquiry = inquire("move", identifier, level=level, model=model, keys=keys, **request)
        loan = Loan(self._pool)
        work = partial(begin, loan, inquiry, idle_timeout)
        return Movement(loan, work, total_timeout, loan.syntax_of, loan.touch)

    def retrieve(
        self,
        identifier: Dataset | Mapping[str, Any] | None = None,
        *,
        level: str | None = None,
        model: str | None = None,
        priority: Priority = Priority.MEDIUM,
        idle_timeout: float | None = None,
        total_timeout: float | None = None,
        **keys: Any,  # noqa: ANN401 - likewise
    ) -> Retrieval:
        """Retrieve instances, by C-GET where the peer has that, else by C-MOVE to ourselves.

        The result is the same::

            async with orthanc.retrieve(level="study", StudyInstanceUID=uid) as instances:
                async for instance in instances:
                    await instance.save(folder)

        For C-MOVE the peer must know our AE title, and where we listen: `listener` or `listen_port` of this `RemoteAE`.
        Several retrievals go on at a time, each as fast as its consumer; those by C-MOVE from a peer that does not name the
        originator of its sub-operations, one after the other.

        Args:
            identifier: a Dataset, or keys by keyword: the unique keys of the level and of those above.
            level: patient, study, series or image; by default that of the lowest unique key.
            model: as for `Association.c_get`.
            priority: of the C-GET or C-MOVE.
            idle_timeout: how long the next response or instance may take, in seconds; by default `Timeouts.pending`.
            total_timeout: how long all of it may take, in seconds; by default for ever.
            keys: further keys by keyword.

        Raises:
            LocalProtocolError: the identifier lacks its unique key.
        """
        ask = partial(inquire, identifier=identifier, level=level, model=model, keys=keys, priority=priority)
        inquiry = ask("get")
        destination = self._landing.ae_title
        move = ask("move", move_destination=destination) if destination and inquiry.model.move else None
        arrivals = Arrivals()
        loan = Loan(self._pool, arrivals)
        idle = self._timeouts.pending if idle_timeout is None else idle_timeout
        work = partial(self._retriever.begin, loan, inquiry, move, idle, arrivals)
        return Retrieval(loan, work, total_timeout, arrivals, idle)

    def send(
        self,
        instances: Source,
        *,
        associations: int | None = None,
        window: int | None = None,
        priority: Priority = Priority.MEDIUM,
        decompress: bool = False,
        retries: int = 3,
        backoff: float = 0.5,
    ) -> Delivery:
        """Send instances over several associations, and tell what came of each, in the order in which they are done.

        ::

            async for outcome in orthanc.send(paths):
                if not outcome.is_stored:
                    print(outcome.path, outcome.status, outcome.error)

        Every instance has one outcome. What may go better later is tried again: where the association was lost, where the
        peer is out of resources (0xA7xx, 0x0213) or does not answer, where it takes no association for the moment, or none
        any more. Where nobody could be reached after all retries, what is left fails with that error, and the peer is tried
        again from time to time, should there be more. A peer may have stored an instance whose response was lost: it then
        gets it twice, and may say so (0x0111).

        It begins with one association, and one store at a time. It measures how fast that goes, offers an operations window,
        and widens that up to 64, then opens further associations, each change as long as it gains 10 % or more; else it is
        taken back, and after a while (30 s, then longer) looked for again. What is sent next begins with what was found.
        So a long way to the peer costs little, and a peer that rejects a further association, does not answer it, or drops
        one or is out of resources (0xA7xx) when several instances are on their way, gets what it can take. A few instances
        never come to that.

        Instances are taken ahead of being sent, but never more than some hundred, so that there may be any number of them;
        a plain iterator is asked in a worker thread. Leaving the loop stops it: nothing more is begun, what is on its way
        is finished within `Timeouts.cancel`.

        Args:
            instances: see `Association.c_store`; several of them, or one.
            associations: how many to use at a time; by default as many as help; at most as many as there may be.
            window: how many stores may be outstanding on each; by default as this `RemoteAE` says.
            priority: PS3.7 §9.1.1.1.6.
            decompress: allow compressed pixel data to be decompressed where the peer does not take it as it is.
            retries: how often an instance, or the peer, is tried again.
            backoff: how long to wait before the first retry, in seconds; before each further one twice as long.
        """
        manner = Manner(
            associations=associations,
            window=self._window if window is None else window,
            priority=priority,
            decompress=decompress,
            retries=retries,
            backoff=backoff,
            patience=self._timeouts.cancel,
            in_thread=self._in_thread,
        )
        shipment = Shipment(self._pool, instances, manner, peer=repr(self.ae_title))
        return Delivery(shipment, self._shipments, self._pool)

    def _request(self, contexts: Sequence[ProposedContext], window: int) -> AssociationRequest:
        return self._associate(contexts=contexts, operations_window=(window, 1) if window != 1 else None)
