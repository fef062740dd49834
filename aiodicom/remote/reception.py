"""Where the sub-operations of our C-MOVEs arrive that go to ourselves: a handler of C-STORE at a server of ours.

Which C-MOVE one belongs to it says by Move Originator AE title and Message ID (PS3.7 §9.1.1.1.7-8). One of a peer that
leaves them out is understood as long as one C-MOVE alone can be meant.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from secrets import randbelow
from typing import Final

from aiodicom.association import Observer
from aiodicom.dimse.commands import CStoreRQ
from aiodicom.dimse.status import NOT_AUTHORIZED
from aiodicom.handlers import Dispatcher, storage_service
from aiodicom.logs import about
from aiodicom.operation import Conclusion, Operation
from aiodicom.scoped import Intake
from aiodicom.server import Listener, Server
from aiodicom.tls import Credentials

_NOBODYS: Final = Conclusion(NOT_AUTHORIZED, "No retrieval waits for it")
_LAST_MESSAGE_ID: Final = 0xFFFF

_log: Final = logging.getLogger("aiodicom.remote")


@dataclass(eq=False, slots=True)
class Expected:
    """The sub-operations of one C-MOVE.

    Args:
        originator: the AE title that the C-MOVE comes from.
        peer: the AE title of who performs it.
        intake: who performs the sub-operations.
        is_named: whether they name their originator, as far as that is known.
        on_named: called when one does.
        message_id: of the C-MOVE; 0 before it is expected.
    """

    originator: str
    peer: str
    intake: Intake
    is_named: bool
    on_named: Callable[[], None]
    message_id: int = 0


class Reception:
    """Brings sub-operations to the C-MOVEs that they belong to, whoever of this process sent them.

    Args:
        others: performs what else is sent to the server; None refuses it.
    """

    def __init__(self, others: Dispatcher | None = None) -> None:
        self._others = others
        self._expected: dict[int, Expected] = {}
        # Not 1: there may be others of our AE title, and most begin with that.
        self._last_id = randbelow(_LAST_MESSAGE_ID)

    @classmethod
    def at(cls, server: Server) -> Reception:
        """Return the reception of a server; it is set up before the handlers of C-STORE that are there, if need be."""
        for service in server.services:
            if isinstance(service.handler, Reception):
                return service.handler
        stores = [service for service in server.services if service.request is CStoreRQ]
        reception = cls(server.dispatcher if stores else None)
        for service in stores or [storage_service(reception)]:
            server.add(replace(service, handler=reception))
        return reception

    def expect(self, expected: Expected) -> None:
        """Wait for the sub-operations of a C-MOVE, and give it a Message ID that no other one has."""
        while not expected.message_id:
            self._last_id = self._last_id % _LAST_MESSAGE_ID + 1
            if self._last_id not in self._expected:
                self._expected[self._last_id] = expected
                expected.message_id = self._last_id

    def forget(self, expected: Expected) -> None:
        """Wait for nothing more of it."""
        self._expected.pop(expected.message_id, None)

    async def __call__(self, operation: Operation) -> int | Conclusion | None:
        """Perform a C-STORE: bring it to its C-MOVE, or to the server's own handler."""
        expected = self._whose(operation)
        if expected is not None:
            return await expected.intake(operation)
        if self._others is not None:
            return await self._others(operation)
        _log.warning(
            "%s sent an instance that no retrieval waits for, which was refused: %r",
            operation.peer,
            operation.sop_instance_uid,
            extra=about(peer=operation.peer, command=operation.command),
        )
        return _NOBODYS

    def _whose(self, operation: Operation) -> Expected | None:
        command = operation.command
        assert isinstance(command, CStoreRQ)
        if command.move_originator_message_id:
            expected = self._expected.get(command.move_originator_message_id)
            title = (command.move_originator_application_entity_title or "").strip()
            # Some peers name themselves.
            if expected is None or title not in ("", expected.originator, expected.peer):
                return None
            expected.is_named = True
            expected.on_named()
            return expected
        candidates = [expected for expected in self._expected.values() if not expected.is_named]
        of_the_peer = [expected for expected in candidates if expected.peer == operation.peer.ae_title]
        if of_the_peer or self._others is not None:  # else it may call itself otherwise than we do
            candidates = of_the_peer
        return candidates[0] if len(candidates) == 1 else None


class Landing:
    """The server of ours that a peer is to move to; it listens from the first time that it is needed.

    Args:
        server: the server; None makes one of the rest.
        ae_title: its AE title.
        host: where it listens.
        port: likewise; None is nowhere.
        observers: its hooks.
        tls: its certificate, where it listens for TLS.
    """

    def __init__(
        self,
        server: Server | None,
        *,
        ae_title: str,
        host: str,
        port: int | None,
        observers: Sequence[Observer] | None,
        tls: Credentials | ssl.SSLContext | None = None,
    ) -> None:
        if server is None and port is not None:
            server = Server(ae_title, listeners=[Listener(host, port, tls)], observers=observers)
        self._server = server
        self._reception = None if server is None else Reception.at(server)
        self._was_started = False
        self._starting = asyncio.Lock()

    @property
    def ae_title(self) -> str | None:
        """The move destination; None where there is no such server."""
        return None if self._server is None else self._server.ae_title

    async def open(self) -> Reception:
        """Return what receives there.

        Raises:
            ConnectionFailed: the address cannot be listened at.
        """
        assert self._server is not None
        assert self._reception is not None
        async with self._starting:
            if not self._server.addresses:
                await self._server.start()
                self._was_started = True
        return self._reception

    async def aclose(self) -> None:
        """Stop the server, if it was not there before."""
        if self._was_started and self._server is not None:
            await self._server.stop()
