"""What an application offers its peers: which abstract syntaxes, which requests, performed by whom.

A handler is a coroutine function of one `Operation`; a plain function will do, gets a `BlockingOperation`, and runs in a
worker thread. It returns a status (None is Success), or raises a `DimseError`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeAlias, cast

from anyio import CapacityLimiter, to_thread

from aiodicom.dimse.commands import CEchoRQ, CStoreRQ, Request, UnrecognizedRQ
from aiodicom.dimse.status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, UNRECOGNIZED_OPERATION
from aiodicom.operation import BlockingOperation, Conclusion, Operation
from aiodicom.query import NO_OPTIONS, QueryOptions
from aiodicom.sequences import sequence_tags
from aiodicom.uids import VERIFICATION, storage_sop_classes, transfer_syntaxes
from aiodicom.upper_layer.presentation import SupportedSyntax

CoroutineHandler: TypeAlias = Callable[[Operation], Awaitable[object]]
BlockingHandler: TypeAlias = Callable[[BlockingOperation], object]
Limiter: TypeAlias = Callable[[], CapacityLimiter | None]
Handler: TypeAlias = CoroutineHandler | BlockingHandler
"""A handler returns a status as an int (`Status` is one), a `Conclusion` where that says too little, or anything else for
Success."""


class Authority(Protocol):
    """Decides who may ask for what."""

    def check(self, operation: Operation) -> None:
        """Raise a `DimseError` where the peer may not ask for the operation."""


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of request, for some abstract syntaxes, and its handler.

    Args:
        request: the class of the request: `CStoreRQ`, `CEchoRQ`, …
        handler: performs it; None is Success at once.
        abstract_syntaxes: for which SOP classes, each with the transfer syntaxes and roles that are accepted.
        options: which options of Query/Retrieve and the worklist it takes, where a requestor offers them (PS3.4 §C.5.1.1).
        sub_operations: the SOP classes that it invokes on the same association, as a C-GET does, likewise.
        rights: who may ask for it; by default what the server says.
    """

    request: type[Request]
    handler: Handler | None
    abstract_syntaxes: Mapping[str, SupportedSyntax]
    options: QueryOptions = NO_OPTIONS
    sub_operations: Mapping[str, SupportedSyntax] = field(default_factory=dict)
    rights: Authority | None = None


VERIFICATION_SERVICE: Final = Service(CEchoRQ, None, {VERIFICATION: SupportedSyntax()})
"""Answers C-ECHO with Success: more is not asked of it (PS3.4 Annex A)."""


def storage_service(
    handler: Handler, sop_classes: Iterable[str] | None = None, syntaxes: Iterable[str] | None = None
) -> Service:
    """Return the Storage service (PS3.4 Annex B) with a handler of C-STORE.

    Args:
        handler: performs it.
        sop_classes: UIDs; by default every Storage SOP Class of the Standard, which loads pydicom's dictionary.
        syntaxes: UIDs of transfer syntaxes; by default every one of the Standard, for nothing needs to be decoded to keep
            an instance.
    """
    sequence_tags()  # now, and not while the first instance is scanned
    syntax = SupportedSyntax(frozenset(transfer_syntaxes() if syntaxes is None else syntaxes))
    return Service(CStoreRQ, handler, dict.fromkeys(sop_classes or storage_sop_classes(), syntax))


class Dispatcher:
    """Finds the handler of an operation, and runs it.

    Args:
        services: what is offered; a later one replaces an earlier one for the same request and abstract syntax.
        limiter: returns that of the worker threads for plain functions, when one is to run.
        rights: who may ask for the services that do not say so themselves; by default everybody.
    """

    def __init__(
        self, services: Iterable[Service], limiter: Limiter = lambda: None, rights: Authority | None = None
    ) -> None:
        self.supported: dict[str, SupportedSyntax] = {}
        """What is accepted for each abstract syntax: what any of its services accepts."""
        self.options: dict[str, QueryOptions] = {}
        """What of Query/Retrieve and the worklist is negotiated for each abstract syntax."""
        self._handlers: dict[tuple[type[Request], str], tuple[CoroutineHandler | None, Authority | None]] = {}
        for service in services:
            handler = None if service.handler is None else _as_coroutine(service.handler, limiter)
            for uid, syntax in service.abstract_syntaxes.items():
                self._handlers[service.request, uid] = handler, service.rights or rights
                self.options[uid] = service.options
                self._support(uid, syntax)
            for uid, syntax in service.sub_operations.items():
                self._support(uid, syntax)

    def _support(self, uid: str, syntax: SupportedSyntax) -> None:
        self.supported[uid] = _union(self.supported[uid], syntax) if uid in self.supported else syntax

    def status_at_once(self, operation: Operation) -> int | None:
        """Return the status of an operation that needs no handler; None where one must run.

        Where the SOP class of the command is not the abstract syntax of its context, or the peer has not the role of SCU
        there, that is 0x0122, SOP Class Not Supported; where PS3.7 does not know the command, or nobody offers it,
        0x0211, Unrecognized Operation (PS3.7 Annex C).

        Raises:
            DimseError: the peer may not ask for it.
        """
        context, command = operation.context, operation.command
        if not context.as_scp or operation.sop_class_uid != context.abstract_syntax:
            return UNRECOGNIZED_OPERATION if isinstance(command, UnrecognizedRQ) else SOP_CLASS_NOT_SUPPORTED
        found = self._handlers.get((type(command), context.abstract_syntax))
        if found is None:
            return UNRECOGNIZED_OPERATION
        handler, rights = found
        if rights is not None:
            rights.check(operation)
        return SUCCESS if handler is None else None

    async def __call__(self, operation: Operation) -> int | Conclusion | None:
        """Run the handler of an operation and return its status; None is Success."""
        handler, _ = self._handlers[type(operation.command), operation.context.abstract_syntax]
        result = None if handler is None else await handler(operation)
        return result if isinstance(result, int | Conclusion) and not isinstance(result, bool) else None


def _union(one: SupportedSyntax, other: SupportedSyntax) -> SupportedSyntax:
    return SupportedSyntax(
        one.transfer_syntaxes | other.transfer_syntaxes,
        one.requestor_scu or other.requestor_scu,
        one.requestor_scp or other.requestor_scp,
    )


def _as_coroutine(handler: Handler, limiter: Limiter) -> CoroutineHandler:
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
        return cast("CoroutineHandler", handler)
    return partial(_in_worker_thread, cast("BlockingHandler", handler), limiter)


async def _in_worker_thread(handler: BlockingHandler, limiter: Limiter, operation: Operation) -> object:
    result = await to_thread.run_sync(handler, BlockingOperation(operation), limiter=limiter())
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("the handler returned a coroutine that nobody awaits: make it an `async def`")
    return result
