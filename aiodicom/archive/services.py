"""The archive as services that a server mounts: what each operation asks of it, by whom it may be asked (PS3.4)."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from aiodicom.accounts import Subject
from aiodicom.archive.query import Query, compile_query
from aiodicom.archive.worklist import WorklistQuery, compile_worklist_query
from aiodicom.handlers import VERIFICATION_SERVICE, Service, storage_service
from aiodicom.nodes import Node
from aiodicom.operation import Conclusion, Operation
from aiodicom.part10 import InstanceFile
from aiodicom.query import MODELS, Model, QueryOptions
from aiodicom.rights import Rights
from aiodicom.services.query import find_service
from aiodicom.services.retrieve import get_service, move_service
from aiodicom.services.turns import Turns
from aiodicom.tls import Credentials
from aiodicom.workers import in_any_thread

if TYPE_CHECKING:
    from pydicom import Dataset

OPTIONS: Final = QueryOptions(relational=True, combined_datetime=True, fuzzy_names=True, timezone=True)
"""What the archive agrees to in extended negotiation (PS3.4 §C.5.1.1, §K.5.1)."""


class Holdings(Protocol):
    """What the services need of the archive."""

    ae_title: str

    async def store(self, operation: Operation) -> None:
        """Keep the instance of a C-STORE."""

    async def instances(self, identifier: Dataset, model: str, *, options: QueryOptions) -> list[InstanceFile]:
        """Return the instances that a retrieval asks for."""

    async def subjects(self, identifier: Dataset, model: str, *, options: QueryOptions) -> dict[str, Subject]:
        """Return whose those are."""

    def rows(self, run: Callable[[sqlite3.Connection], Iterator[bytes]]) -> AsyncGenerator[bytes, None]:
        """Yield what a query of the index finds."""


def services_of(archive: Holdings, rights: Rights, tls: Credentials | None, turns: Turns) -> Iterator[Service]:
    """Yield the services: Verification, Storage, Query/Retrieve in every information model, the Modality Worklist.

    Args:
        archive: keeps, finds and retrieves.
        rights: who may ask what; the nodes are the move destinations.
        tls: see `move_service`.
        turns: likewise.
    """
    move = partial(move_service, ae_title=archive.ae_title, options=OPTIONS, tls=tls, turns=turns)
    for service in _services_of(archive, _Performer(archive, rights), move):
        yield replace(service, rights=rights)


def _services_of(archive: Holdings, performer: _Performer, move: Callable[..., Service]) -> Iterator[Service]:
    yield VERIFICATION_SERVICE
    yield storage_service(archive.store)
    yield find_service(performer.find_steps, "worklist", options=OPTIONS)
    for model in MODELS.values():
        if model.levels and model.find:
            yield find_service(partial(performer.find, model), model.name, options=OPTIONS)
        if model.get:
            yield get_service(partial(performer.retrieve, model), model.name, options=OPTIONS)
        if model.move:
            yield move(partial(performer.retrieve, model), performer.destination, model.name)


class _Performer:
    """The handlers."""

    def __init__(self, archive: Holdings, rights: Rights) -> None:
        self._archive = archive
        self._rights = rights

    def find(self, model: Model, operation: Operation) -> AsyncGenerator[Conclusion, None]:
        compiled = partial(compile_query, model=model, retrieve_ae_title=self._archive.ae_title)
        return self._answers(compiled, operation)

    def find_steps(self, operation: Operation) -> AsyncGenerator[Conclusion, None]:
        return self._answers(compile_worklist_query, operation)

    async def _answers(
        self, compiled: Callable[..., Query | WorklistQuery], operation: Operation
    ) -> AsyncGenerator[Conclusion, None]:
        compiled = partial(compiled, options=operation.options, maximum_values=operation.limits.maximum_uids)
        identifier = operation.identifier
        query = await in_any_thread(compiled, identifier) if operation.is_large else compiled(identifier)
        run = partial(query.run, transfer_syntax_uid=operation.transfer_syntax_uid)
        async with aclosing(self._archive.rows(run)) as rows:
            async for row in rows:
                yield Conclusion(query.status, data_set=row)

    async def retrieve(self, model: Model, operation: Operation) -> list[InstanceFile]:
        asked = operation.identifier, model.name
        if operation.account is not None:
            operation.account.subjects = await self._archive.subjects(*asked, options=operation.options)
        return await self._archive.instances(*asked, options=operation.options)

    def destination(self, ae_title: str, operation: Operation, /) -> Node:
        return self._rights.destination(ae_title, operation.peer, own=self._archive.ae_title)
