"""What a C-FIND, C-GET or C-MOVE of ours asks, made before it is known on which association (PS3.7 §9.1.2-4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from aiodicom.dimse.commands import CFindRQ, CGetRQ, CMoveRQ, Request
from aiodicom.errors import LocalProtocolError
from aiodicom.query import Model, choose_model, make_query, make_retrieval

if TYPE_CHECKING:
    from pydicom import Dataset

Service: TypeAlias = Literal["find", "get", "move"]

_REQUESTS: Final[Mapping[Service, Callable[..., Request]]] = {"find": CFindRQ, "get": CGetRQ, "move": CMoveRQ}


@dataclass(frozen=True, slots=True)
class Inquiry:
    """One request with an identifier.

    Args:
        model: the information model.
        sop_class_uid: of the model, for the service; the abstract syntax of the context that it goes out on.
        identifier: what goes with the request.
        make_request: makes the request of `message_id`.
    """

    model: Model
    sop_class_uid: str
    identifier: Dataset = field(repr=False)
    make_request: Callable[..., Request]


def inquire(
    service: Service,
    identifier: Dataset | Mapping[str, Any] | None,
    *,
    level: str | None,
    model: str | None,
    keys: Mapping[str, Any],
    **fields: object,
) -> Inquiry:
    """Return what is to be asked.

    Args:
        service: by which of the three.
        identifier: see `Association.c_find` and `Association.c_get`.
        level: likewise.
        model: likewise.
        keys: likewise.
        fields: more of the request: its priority, the move destination.

    Raises:
        LocalProtocolError: the identifier is wrong, see there; there is no such model, or it has no such service.
    """
    chosen = choose_model(model, level, identifier, keys)
    sop_class: str = getattr(chosen, service)
    if not sop_class:
        raise LocalProtocolError(f"the model {chosen.name!r} has no C-{service.upper()}")
    make_identifier = make_query if service == "find" else make_retrieval
    dataset = make_identifier(identifier, model=chosen, level=level, keys=keys)
    return Inquiry(chosen, sop_class, dataset, partial(_REQUESTS[service], affected_sop_class_uid=sop_class, **fields))
