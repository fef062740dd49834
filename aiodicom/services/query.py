"""C-FIND from the acceptor's side: a generator of matches becomes the responses of a query (PS3.4 §C.4.1, §K.4.1)."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, cast

from anyio import CancelScope

from aiodicom.dataset import SPECIFIC_CHARACTER_SET, encode_data_set
from aiodicom.dimse.commands import CFindRQ
from aiodicom.dimse.status import PENDING, SUCCESS, Category, Status
from aiodicom.errors import LocalProtocolError
from aiodicom.handlers import Service
from aiodicom.operation import Conclusion, Operation
from aiodicom.query import NO_OPTIONS, QueryOptions, model_of
from aiodicom.rows import encode_row
from aiodicom.upper_layer.presentation import SupportedSyntax
from aiodicom.workers import LONGEST_TURN, Turn, in_any_thread

if TYPE_CHECKING:
    from pydicom import Dataset

Match: TypeAlias = Union[Mapping[Any, Any], "Dataset", bytes, Conclusion]
"""What a handler yields: a row by keyword (by tag, what has none), a Dataset, an encoded identifier, or a whole Pending
response."""

FindHandler: TypeAlias = Callable[
    [Operation], AsyncIterable[Match] | Awaitable[Iterable[Match] | AsyncIterable[Match]] | Iterable[Match]
]
"""A handler of C-FIND: an async generator function, best; or a coroutine function that returns matches. A plain function or
generator runs in worker threads, the latter not always in the same."""

MATCHES_AT_ONCE: Final = 64
"""How many matches of a plain generator are taken in one change of threads, at most."""


def find_service(handler: FindHandler, model: str = "study", *, options: QueryOptions = NO_OPTIONS) -> Service:
    """Return the service that answers C-FIND for an information model with what a handler yields.

    The handler gets the `Operation`, whose `identifier` is decoded. Of a row, those attributes are answered that were asked
    for, the others are left out; those that it lacks are answered empty. What the handler raises becomes the status; a
    C-CANCEL or the end of the association cancels it, at its next await.

    Args:
        handler: yields the matches.
        model: the information model, by name or SOP class UID.
        options: which options of extended negotiation the handler honours: `operation.options` tells it what was agreed.

    Raises:
        LocalProtocolError: there is no such model, or it has no C-FIND.
    """
    import pydicom.filereader  # noqa: F401 - now, and not in the event loop when the first query comes

    chosen = model_of(model)
    if not chosen.find:
        raise LocalProtocolError(f"the model {chosen.name!r} has no C-FIND")
    return Service(CFindRQ, _Find(handler), {chosen.find: SupportedSyntax()}, options=options)


class _Find:
    """Performs a C-FIND with a user's handler."""

    def __init__(self, handler: FindHandler) -> None:
        self._handler = handler

    async def __call__(self, operation: Operation) -> int:
        identifier = await operation.read_identifier()
        assert operation.exchange is not None
        syntax = operation.transfer_syntax_uid
        answer = await in_any_thread(_Answer, identifier, syntax) if operation.is_large else _Answer(identifier, syntax)
        turn = Turn()
        async with aclosing(_matches(self._handler, operation)) as matches:
            async for match in matches:
                await operation.exchange.respond(operation, answer.to(match))
                if turn.is_over:  # neither the handler nor the peer may make us wait
                    await turn.next()
        return SUCCESS


async def _matches(handler: FindHandler, operation: Operation) -> AsyncGenerator[Match, None]:
    """Yield what a handler yields, of whatever kind it is."""
    found = await called(handler, operation)
    if isinstance(found, AsyncIterable):
        iterator = cast("AsyncIterator[Match]", aiter(found))
        try:
            async for match in iterator:
                yield match
        finally:
            if inspect.isasyncgen(iterator):
                await iterator.aclose()  # now, not when the collector comes by
        return
    if not isinstance(found, Iterable):
        raise TypeError(f"a handler of C-FIND yields or returns matches, not {type(found).__name__}")
    if not isinstance(found, Iterator):
        for match in found:
            yield match
        return
    try:
        while batch := await in_any_thread(_batch, found):
            for match in batch:
                yield match
    finally:
        if inspect.isgenerator(found):
            with CancelScope(shield=True):
                await in_any_thread(found.close)


def _batch(matches: Iterator[Match]) -> list[Match]:
    """Return the next matches: some at a time, where they come fast."""
    batch: list[Match] = []
    end = monotonic() + LONGEST_TURN
    for match in matches:
        batch.append(match)
        if len(batch) == MATCHES_AT_ONCE or monotonic() > end:
            break
    return batch


async def called(handler: Callable[[Operation], object], operation: Operation) -> object:
    """Return what a handler returns; a coroutine is awaited, and a plain function runs in a worker thread.

    Of a generator, plain or asynchronous, nothing runs yet.
    """
    found = await in_any_thread(handler, operation) if _blocks(handler) else handler(operation)
    return await found if inspect.isawaitable(found) else found


def _blocks(handler: object) -> bool:
    """Whether something works as soon as it is called."""
    is_one = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    functions = (handler, getattr(handler, "__call__", None))  # noqa: B004 - what an object has instead of being a function
    return not any(ask(function) for ask in is_one for function in functions)


class _Answer:
    """Makes Pending responses of matches.

    Args:
        identifier: what was asked.
        transfer_syntax_uid: how answers are encoded.
    """

    def __init__(self, identifier: Dataset, transfer_syntax_uid: str) -> None:
        self._syntax = transfer_syntax_uid
        # Group lengths, which old peers send, are no keys; neither is what a data set cannot have.
        keys = (tag for tag in map(int, identifier.keys()) if tag & 0xFFFF and 2 < tag >> 16 < 0xFFFE)
        self._asked = [(tag, _keyword(tag)) for tag in keys if tag != SPECIFIC_CHARACTER_SET]
        level = identifier.get_item("QueryRetrieveLevel")
        self._level = None if level is None else level.value
        self._known: set[object] = {name for _, name in self._asked}  # keys of rows that are no misspelt ones

    def to(self, match: Match) -> Conclusion:
        """Return the response with that match."""
        if isinstance(match, Conclusion):
            if Status(match.status).category is not Category.PENDING:
                raise TypeError("a handler of C-FIND yields Pending responses: the final one is made of how it ends")
            return match
        if isinstance(match, bytes):
            return Conclusion(PENDING, data_set=match)
        if isinstance(match, Mapping):
            return Conclusion(PENDING, data_set=encode_row(self._row(match), self._syntax))
        return Conclusion(PENDING, data_set=encode_data_set(match, self._syntax))

    def _row(self, match: Mapping[Any, Any]) -> dict[str | int, Any]:
        if unknown := match.keys() - self._known:
            self._check(unknown)
        row: dict[str | int, Any] = {
            name: match[name] if name in match else match.get(tag) for tag, name in self._asked
        }
        if self._level is not None:  # it is always answered (PS3.4 §C.4.1.1.3.2)
            row["QueryRetrieveLevel"] = self._level
        if "SpecificCharacterSet" in match:
            row["SpecificCharacterSet"] = match["SpecificCharacterSet"]
        return row

    def _check(self, keys: Iterable[object]) -> None:
        """See that keys of a row that nobody asked for are no misspelt ones."""
        from pydicom.datadict import tag_for_keyword

        for key in keys:
            if not isinstance(key, int) and not (key and tag_for_keyword(str(key))):
                raise LocalProtocolError(f"{key!r} is no keyword of the data dictionary (PS3.6 §6)")
            self._known.add(key)


def _keyword(tag: int) -> str | int:
    """Return the keyword of a tag; the tag where it has none of its own, as in the groups that repeat."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    keyword = keyword_for_tag(tag)
    return keyword if keyword and tag_for_keyword(keyword) == tag else tag
