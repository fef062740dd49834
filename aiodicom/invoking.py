"""Requests of ours that are outstanding: Message IDs, turns in the operations window, responses (PS3.7 §9.3, §D.3.3.3)."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from aiodicom.dimse.commands import MAY_BE_PENDING, RESPONSES, CCancelRQ, CGetRQ, Request, Response
from aiodicom.dimse.status import Category
from aiodicom.errors import LocalProtocolError, RemoteProtocolError
from aiodicom.operation import ReceivedResponse, ReceiveWindow, Responses
from aiodicom.sending import DataSetSource, Sender

NESTED_BOUND: Final = 16 * 1024 * 1024
"""How many bytes of responses wait to be taken, at most, while a request waits for its turn."""


class Turns:
    """Who may have an operation outstanding: as many as the window allows, the others in the order they asked.

    Args:
        count: the window; 0 is no limit.
    """

    __slots__ = ("_count", "_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._count = self._free = count or 0xFFFF
        # Of most associations nobody ever waits for a turn, and an empty deque takes 760 bytes.
        self._waiting: deque[asyncio.Future[None]] | None = None

    @property
    def are_awaited(self) -> bool:
        """Whether somebody waits for one."""
        return bool(self._waiting)

    def take_at_once(self) -> bool:
        """Take one if that needs no waiting; return whether it is taken."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return True
        return False

    async def take(self) -> None:
        """Take one, when it is there."""
        if self.take_at_once():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting = self._waiting or deque()
        waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back()  # it came at the very moment its taker gave up
            elif turn in waiting:
                waiting.remove(turn)
            raise

    def give_back(self) -> None:
        """Give one to whoever waits longest."""
        self._free += 1
        self._hand_on()

    def resize(self, count: int) -> None:
        """Let there be so many from now on; where that is fewer, those beyond it are not given on."""
        self._free += count - self._count
        self._count = count
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and self._free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

    def refuse(self, error: BaseException) -> None:
        """Let nobody wait any longer."""
        waiting, self._waiting = self._waiting, None
        for turn in waiting or ():
            if not turn.done():
                turn.set_exception(error)


class Invoker:
    """Sends requests, and brings their responses to those who wait for them.

    Args:
        sender: writes messages.
        window: counts what has come and nobody took.
        maximum: how many operations may be outstanding; 0 is no limit.
        on_deadline: told that a response is due earlier than any before.
    """

    __slots__ = ("_error", "_last_message_id", "_loop", "_on_deadline", "_outstanding", "_sender", "_turns", "_window")

    def __init__(
        self, sender: Sender, window: ReceiveWindow, maximum: int, on_deadline: Callable[[float], None]
    ) -> None:
        self._sender = sender
        self._window = window
        self._turns = Turns(maximum)
        self._on_deadline = on_deadline
        self._loop = asyncio.get_running_loop()
        self._last_message_id = 0
        self._outstanding: dict[int, Responses] = {}
        self._error: BaseException | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a response is awaited from the peer."""
        return bool(self._outstanding)

    @property
    def scopes(self) -> tuple[Responses, ...]:
        """Those of the operations that may have many responses, and that are not over."""
        return tuple(
            responses
            for responses in self._outstanding.values()
            if isinstance(responses.request, MAY_BE_PENDING) and not responses.is_over
        )

    @property
    def deadline(self) -> float:
        """When the next response is due, in the event loop's time."""
        return min((responses.deadline for responses in self._outstanding.values()), default=math.inf)

    async def begin(
        self,
        context_id: int,
        make_request: Callable[..., Request],
        data_set: DataSetSource | None = None,
        *,
        idle: float | None,
    ) -> Responses:
        """Send a request, made with a Message ID once it is its turn; return what its responses come to.

        Args:
            context_id: of the presentation context.
            make_request: makes the request of `message_id`.
            data_set: what goes with it.
            idle: how long each response may take, in seconds; None is for ever.

        Raises:
            LocalProtocolError: its turn would never come, since the same task holds another operation open.
            AssociationError: the association ended.
            OperationTimeout: the peer has stopped reading.
        """
        self._raise_if_over()
        if not self._turns.take_at_once():
            await self._wait_for_turn()
        try:
            request = make_request(message_id=self._new_message_id())
        except BaseException:
            self._turns.give_back()
            raise
        responses = Responses(request, context_id, self._window, idle)
        self._outstanding[request.message_id] = responses
        try:
            await self._sender.send(context_id, request, data_set)
        except BaseException:
            self._forget(request.message_id)
            raise
        # A caller that is cancelled while it waits leaves the request outstanding: it keeps its place in the window, and
        # its deadline, until the response comes.
        self.expect(responses)
        return responses

    def expect(self, responses: Responses) -> None:
        """Set the deadline of the next response anew."""
        if responses.idle is not None and not responses.is_over:
            responses.deadline = self._loop.time() + responses.idle
            self._on_deadline(responses.deadline)

    def put_off(self, since: float) -> float:
        """Let deadlines count from that moment, since the peer cannot or need not answer yet; return the next one."""
        for responses in self._outstanding.values():
            if responses.idle is not None:
                responses.deadline = max(responses.deadline, since + responses.idle)
        return self.deadline

    async def cancel(self, responses: Responses, error: BaseException | None = None) -> None:
        """Send C-CANCEL, and wait for the final response; what comes before it is discarded (PS3.7 §9.3.2.3).

        Args:
            responses: to what is cancelled.
            error: what is raised where they are still waited for.
        """
        was_left = responses.is_left
        responses.discard(error)
        if not (responses.is_over or was_left):
            message_id = responses.request.message_id
            await self._sender.send(responses.context_id, CCancelRQ(message_id_being_responded_to=message_id))
        await responses.wait_over()

    def overdue(self) -> Responses:
        """Return the one whose deadline comes first."""
        return min(self._outstanding.values(), key=lambda responses: responses.deadline)

    # What arrives.

    def check(self, response: Response) -> None:
        """See that a response answers something.

        Raises:
            RemoteProtocolError: it does not.
        """
        responses = self._outstanding.get(response.message_id_being_responded_to)
        if responses is None or RESPONSES[type(responses.request)] is not type(response):
            raise RemoteProtocolError(
                f"{type(response).__name__} to message {response.message_id_being_responded_to}, which asks for none",
                source=0,
            )

    def deliver(self, received: ReceivedResponse) -> bool:
        """Bring a complete response to whoever waits for it; return whether it is the final one.

        Raises:
            RemoteProtocolError: it is Pending, which such a response cannot be.
        """
        message_id = received.response.message_id_being_responded_to
        responses = self._outstanding[message_id]
        is_final = received.response.status.category is not Category.PENDING
        if not (is_final or isinstance(responses.request, MAY_BE_PENDING)):
            raise RemoteProtocolError(f"a {type(received.response).__name__} with a status of Pending", source=0)
        responses.deliver(received, is_final=is_final)
        if is_final:
            self._forget(message_id)
        else:
            self.expect(responses)
            if self._turns.are_awaited and self._window.buffered > NESTED_BOUND:
                self._turns.refuse(
                    LocalProtocolError(
                        f"more than {NESTED_BOUND} bytes of responses wait to be taken before it can be the turn of this "
                        "request: take them first, ask on another association, or negotiate an operations_window"
                    )
                )
        return is_final

    def fail(self, error: BaseException) -> None:
        """Say that no response will come to what is outstanding."""
        for responses in tuple(self._outstanding.values()):
            responses.fail(error)

    def end(self, error: BaseException) -> None:
        """Say that the association is over."""
        self._error = error
        self.fail(error)
        self._outstanding.clear()
        self._turns.refuse(error)

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)  # which would else grow with every raise

    def _new_message_id(self) -> int:
        # Unique among the outstanding ones (PS3.7 §9.1.1.1.1); 0 is legal and confuses peers.
        while True:
            self._last_message_id = self._last_message_id % 0xFFFF + 1
            if self._last_message_id not in self._outstanding:
                return self._last_message_id

    async def _wait_for_turn(self) -> None:
        """Wait for a turn, while the responses to what is outstanding may come in, though nobody takes them yet."""
        me = asyncio.current_task()
        for responses in self._outstanding.values():
            if responses.holder is me and isinstance(responses.request, CGetRQ):
                raise LocalProtocolError(
                    "this task holds a C-GET open on the same association, which goes on only when its instances are "
                    "taken: leave it first, ask on another association, or negotiate an operations_window"
                )
        self._window.set_bound(2 * NESTED_BOUND)
        try:
            await self._turns.take()
        finally:
            if not self._turns.are_awaited:
                self._window.set_bound(None)

    def _forget(self, message_id: int) -> None:
        if self._outstanding.pop(message_id, None) is not None:
            self._turns.give_back()
