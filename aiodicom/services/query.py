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
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, cast

from aiodicom.dataset import encode_data_set
from aiodicom.dimse.commands import CFindRQ
from aiodicom.dimse.status import PENDING, SUCCESS
from aiodicom.handlers import Service
from aiodicom.operation import Conclusion, Operation
from aiodicom.query import NO_OPTIONS, QueryOptions, model_of
from aiodicom.rows import encode_row
from aiodicom.upper_layer.presentation import SupportedSyntax
from aiodicom.workers import in_any_thread

if TYPE_CHECKING:
    from pydicom import Dataset

Match: TypeAlias = Union[Mapping[Any, Any], "Dataset", bytes, Conclusion]
"""What a handler yields: a row by keyword, a Dataset, an encoded identifier, or a whole Pending response."""

FindHandler: TypeAlias = Callable[
    [Operation], AsyncIterable[Match] | Awaitable[Iterable[Match] | AsyncIterable[Match]] | Iterable[Match]
]
"""A handler of C-FIND: an async generator function, best; or a coroutine or plain function that returns matches. A plain
generator runs in a worker thread."""

_SPECIFIC_CHARACTER_SET: Final = 0x00080005

MATCHES_AT_ONCE: Final = 64
"""How many matches of a plain generator are taken in one change of threads."""


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
    sop_class = model_of(model).find
    return Service(CFindRQ, _Find(handler), {sop_class: SupportedSyntax()}, options=options)


class _Find:
    """Performs a C-FIND with a user's handler."""

    def __init__(self, handler: FindHandler) -> None:
        self._handler = handler

    async def __call__(self, operation: Operation) -> int:
        identifier = await operation.read_identifier()
        assert operation.exchange is not None
        answer = _Answer(identifier, operation.transfer_syntax_uid)
        async with aclosing(_matches(self._handler, operation)) as matches:
            async for match in matches:
                await operation.exchange.respond(operation, answer.to(match))
        return SUCCESS


async def _matches(handler: FindHandler, operation: Operation) -> AsyncGenerator[Match, None]:
    """Yield what a handler yields, of whatever kind it is."""
    found: object = handler(operation)
    if inspect.isawaitable(found):
        found = await found
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
    if isinstance(found, Iterator):
        while batch := await in_any_thread(lambda: list(islice(found, MATCHES_AT_ONCE))):
            for match in batch:
                yield match
    else:
        for match in found:
            yield match


class _Answer:
    """Makes Pending responses of matches.

    Args:
        identifier: what was asked.
        transfer_syntax_uid: how answers are encoded.
    """

    def __init__(self, identifier: Dataset, transfer_syntax_uid: str) -> None:
        from pydicom.datadict import keyword_for_tag

        self._syntax = transfer_syntax_uid
        asked = map(int, identifier.keys())
        # The keys by name where they have one; the level is always answered (PS3.4 §C.4.1.1.3.2).
        self._asked = {keyword_for_tag(tag) or tag: None for tag in asked if tag != _SPECIFIC_CHARACTER_SET}
        self._level = identifier.get("QueryRetrieveLevel")

    def to(self, match: Match) -> Conclusion:
        """Return the response with that match."""
        if isinstance(match, Conclusion):
            return match
        if isinstance(match, bytes):
            return Conclusion(PENDING, data_set=match)
        if isinstance(match, Mapping):
            return Conclusion(PENDING, data_set=encode_row(self._row(match), self._syntax))
        return Conclusion(PENDING, data_set=encode_data_set(match, self._syntax))

    def _row(self, match: Mapping[Any, Any]) -> dict[str | int, Any]:
        row: dict[str | int, Any] = {key: match.get(key) for key in self._asked}
        if self._level is not None:
            row["QueryRetrieveLevel"] = self._level
        if "SpecificCharacterSet" in match:
            row["SpecificCharacterSet"] = match["SpecificCharacterSet"]
        return row
