"""A server of ours for the conformance suite to be pointed at, in the same event loop, and what the suite is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiodicom import Archive, AssociationRejected, Node, Server
from aiodicom.archive.shelf import INCOMING
from aiodicom.conformance.case import Case, Result, Verdict
from aiodicom.conformance.cases import CASES
from aiodicom.conformance.suite import run
from aiodicom.conformance.target import Target
from aiodicom.limits import Limits
from aiodicom.nodes import RIGHTS
from aiodicom.terms import Peer

AE_TITLE, SUITE, READER = "AIODICOM", "CONFORMANCE", "READER"
USER, PASSCODE = "conformance", "right"
IDENTITY: Final = f"{USER}:{PASSCODE}".encode()

READER_NODE: Final = Node("reader", READER, "127.0.0.1", 104, frozenset({"echo", "find"}))

LIMITS: Final = Limits(maximum_associations=16)
"""Few associations, so that it takes few to reach the limit."""

IMPATIENT: Final = LIMITS.changed(artim=1, stall=2, rate_period=2, idle=4, close=1, handshake=1)
"""Limits that a test can wait for."""

CAP: Final = 1 << 20
"""The longest instance, in bytes, where there is to be one."""

LONG: Final = 60.0
"""Seconds that an answer may take on a busy machine."""

UNSEEN: Final = frozenset({"T19", "T30/identifier", "T37", "T40", "T42", "T43", "T44"})
"""The cases that say nothing about a server of ours that is looked at from outside."""


async def known(peer: Peer) -> None:
    """Admit those who give the right user identity."""
    identity = peer.identity
    if identity is None or identity.primary_field + b":" + identity.secondary_field != IDENTITY:
        raise AssociationRejected(1, 1, 1)


@asynccontextmanager
async def hosted(
    folder: Path,
    *,
    limits: Limits = LIMITS,
    server_class: type[Server] = Server,
    archive_options: Mapping[str, Any] | None = None,
    admit: Any = known,  # noqa: ANN401
    nodes: Iterable[Node] = (READER_NODE,),
    target: Mapping[str, Any] | None = None,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Target]:
    """An archive on a free port of 127.0.0.1, guarded in every way, and all that can be said of it.

    Args:
        folder: where it keeps what it is sent.
        limits: of the server and the archive.
        server_class: another one, with a fault.
        archive_options: further ones of `Archive`.
        admit: decides about user identities.
        nodes: those that it knows.
        target: what the suite is told besides, or otherwise.
        options: further ones of `Server`.
    """
    archive = Archive(folder, ae_title=AE_TITLE, nodes=tuple(nodes), sync=False, limits=limits, **archive_options or {})
    guards = {"require_called_ae_title": True, "calling_ae_titles": {SUITE, READER}, "port": 0, "observers": ()}
    async with archive:
        server = server_class(
            AE_TITLE, limits=limits, services=archive.services(unknown_may=RIGHTS), **{**guards, **options}
        )
        if admit is not None:
            server.on_associate(admit)
        stopping: list[asyncio.Task[None]] = []
        async with server:
            told: dict[str, Any] = {
                "port": server.port,
                "called": AE_TITLE,
                "calling": SUITE,
                "artim": limits.artim,
                "stall": limits.stall,
                "idle": limits.idle,
                "closing": limits.close,
                "handshake": limits.handshake,
                "tolerance": LONG,
                "patience": LONG,
                "unknown_calling": "NOBODY",
                "wrong_called": "WRONG",
                "identity": (USER, PASSCODE),
                "wrong_identity": (USER, "wrong"),
                "requires_identity": True,
                "may_not_store": READER,
                "maximum_associations": LIMITS.maximum_associations,
                "counts": partial(_counts, server, folder),
                "stop": lambda: stopping.append(asyncio.get_running_loop().create_task(server.stop())),
            }
            yield Target(host="127.0.0.1", **{**told, **(target or {})})
            await asyncio.gather(*stopping)


def _counts(server: Server, folder: Path) -> dict[str, int]:
    """What a server holds, by name: the suite's own share of it is the same before each case and after it."""
    return {
        "tasks": len(asyncio.all_tasks()),
        "connections": len(server._acceptors),
        "associations": len(server.associations),
        "descriptors": len(list(Path("/dev/fd").iterdir())),
        "temporary files": len(list((folder / INCOMING).iterdir())),
    }


async def verdicts(target: Target, cases: Iterable[Case] = CASES, **changes: Any) -> dict[str, Result]:  # noqa: ANN401
    """Run cases, and return what each came to, by its ID."""
    results = await run(replace(target, **changes), tuple(cases))
    return {result.case.id: result for result in results}


def differing(results: Mapping[str, Result]) -> dict[str, str]:
    """The cases that differ, and how, in words."""
    return {
        name: f"expected {result.expected}; got {result.got}"
        for name, result in results.items()
        if result.verdict is Verdict.DIFFERS
    }


def not_applicable(results: Mapping[str, Result]) -> set[str]:
    """The cases that do not apply."""
    return {name for name, result in results.items() if result.verdict is Verdict.NOT_APPLICABLE}
