"""What the suite is pointed at, and what it must be told or finds out about that."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

Counts: TypeAlias = Mapping[str, int]

DEFAULT_CALLED: Final = "ANY-SCP"
DEFAULT_CALLING: Final = "CONFORMANCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An acceptor, and what it is said to be. What is None was not said: cases that need it do not apply.

    Args:
        host: name or address.
        port: likewise.
        called: the AE title to ask for.
        calling: the AE title to give.
        tls: the context of TLS connections, which a good peer has; None is plain TCP.
        presents_certificate: whether the good peer presents a certificate, for which the acceptor asks.
        tls_foreign: one with a certificate of an issuer that it does not trust.
        tls_expired: one with a certificate that has expired.
        artim: how long it waits for a complete A-ASSOCIATE-RQ, in seconds.
        stall: how long it waits for more of a PDU or message, in seconds.
        idle: how long an association may be idle, in seconds.
        closing: how long it waits for the peer to close after the end of an association, in seconds.
        handshake: how long it waits for the end of a TLS handshake, in seconds.
        tolerance: how much earlier or later than those it may be, in seconds; `stall` and `idle` have twice as much.
        patience: how long to wait for anything else, in seconds.
        patience_beside: how long the other peer waits, which asks for C-ECHO, and whoever finds out what there is; by default
            as long.
        unknown_calling: a calling AE title that it does not know.
        wrong_called: a called AE title that it does not have.
        identity: a username and a passcode to give, which it takes.
        wrong_identity: a username and a passcode that it refuses.
        requires_identity: whether it refuses who gives no user identity.
        may_not_store: a calling AE title that is known, and may not store.
        maximum_associations: how many associations it lets this address have.
        instance_cap: the longest instance that it takes, in bytes.
        quota_full: whether its quota is used up, so that it must refuse whatever is new.
        counts: what it holds now, by name, where that can be seen: descriptors, tasks, temporary files.
        memory: how many bytes of memory it has now, where that can be seen.
        stop: tells it to stop in good order, where that may be done.
    """

    host: str
    port: int
    called: str = DEFAULT_CALLED
    calling: str = DEFAULT_CALLING
    tls: ssl.SSLContext | None = None
    presents_certificate: bool = False
    tls_foreign: ssl.SSLContext | None = None
    tls_expired: ssl.SSLContext | None = None
    artim: float = 10
    stall: float = 30
    idle: float = 60
    closing: float = 5
    handshake: float = 10
    tolerance: float = 0.5
    patience: float = 10
    patience_beside: float | None = None
    unknown_calling: str | None = None
    wrong_called: str | None = None
    identity: tuple[str, str] | None = None
    wrong_identity: tuple[str, str] | None = None
    requires_identity: bool = False
    may_not_store: str | None = None
    maximum_associations: int | None = None
    instance_cap: int | None = None
    quota_full: bool = False
    counts: Callable[[], Counts] | None = None
    memory: Callable[[], int] | None = None
    stop: Callable[[], None] | None = None
    # What the first association has shown.
    accepted: frozenset[int] = frozenset()
    maximum_length: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a case needs of its target.

    Args:
        is_met: whether it has it.
        otherwise: why the case does not apply, where it has not.
    """

    is_met: Callable[[Target], object]
    otherwise: str
