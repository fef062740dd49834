"""What an association is agreed on: with whom, in which contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from aiodicom.query import QueryOptions
from aiodicom.tls import PeerCertificate, certificate_of
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    PresentationContextRQ,
    UserIdentity,
    UserIdentityResponse,
    UserInformationItem,
)
from aiodicom.upper_layer.pdu import AAssociateRQ
from aiodicom.upper_layer.presentation import PresentationContext

Item = TypeVar("Item", bound=UserInformationItem)

NO_NEGOTIATION: Final[Mapping[str, QueryOptions]] = MappingProxyType({})

DEFAULT_WINDOW: Final = AsynchronousOperationsWindow(1, 1)
"""What holds where no operations window was negotiated (PS3.7 §D.3.3.3)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of an association.

    Args:
        ae_title: its AE title.
        called_ae_title: the AE title that the requestor asked for: the acceptor's.
        calling_ae_title: the AE title that the requestor gave: its own.
        address: its host and port; None where the transport has none.
        implementation_class_uid: which implementation it says to be; empty where it does not say.
        implementation_version_name: the same.
        identity: who the requestor says to be (PS3.7 §D.3.3.7); nothing of it is ever printed.
        certificate: what it proved to be in the TLS handshake; None where it showed none, or there was none.
        is_encrypted: whether the connection is one of TLS.
        local_address: our own end of the connection; None where the transport has none.
        identity_is_verified: whether our handler of user identities accepted `identity`; else it is what anybody may say.
    """

    ae_title: str
    called_ae_title: str
    calling_ae_title: str
    address: tuple[str, int] | None
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    identity: UserIdentity | None = None
    certificate: PeerCertificate | None = None
    is_encrypted: bool = False
    local_address: tuple[str, int] | None = None
    identity_is_verified: bool = False

    @property
    def host(self) -> str:
        """The host of its address; empty where the transport has none."""
        return self.address[0] if self.address else ""

    def __str__(self) -> str:
        where = f"{self.address[0]}:{self.address[1]}" if self.address else ""
        # repr() escapes what a hostile peer may have put into its AE title.
        return (
            "@".join(filter(None, (repr(self.ae_title) if self.calling_ae_title else "", where))) or "an unknown peer"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was negotiated for an association.

    Args:
        peer: who is at the other end.
        contexts: the accepted presentation contexts, by ID.
        proposed: what was proposed.
        maximum_length: the longest variable field of a P-DATA-TF that the peer takes; 0 is no limit (PS3.8 §D.1).
        maximum_invoked: how many operations we may have outstanding; 0 is no limit (PS3.7 §D.3.3.3).
        maximum_performed: how many the peer may; 0 is no limit.
        user_information: everything the peer said about itself.
        options: what was agreed on for the SOP classes of Query/Retrieve and the worklist (PS3.4 §C.5.1.1).
    """

    peer: Peer
    contexts: Mapping[int, PresentationContext]
    proposed: tuple[PresentationContextRQ, ...]
    maximum_length: int
    maximum_invoked: int = 1
    maximum_performed: int = 1
    user_information: tuple[UserInformationItem, ...] = ()
    options: Mapping[str, QueryOptions] = field(default_factory=lambda: NO_NEGOTIATION)

    _known: dict[str, tuple[PresentationContext, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def identity_response(self) -> bytes | None:
        """What the acceptor answered to our user identity, b"" for a mere yes; None where it did not confirm it."""
        item = find_item(self.user_information, UserIdentityResponse)
        return None if item is None else item.server_response

    def contexts_of(self, abstract_syntax: str) -> tuple[PresentationContext, ...]:
        """Return the accepted presentation contexts of an abstract syntax, in their order."""
        if (known := self._known.get(abstract_syntax)) is None:
            known = tuple(each for each in self.contexts.values() if each.abstract_syntax == abstract_syntax)
            self._known[abstract_syntax] = known
        return known


def find_item(items: Iterable[UserInformationItem], kind: type[Item]) -> Item | None:
    """Return the first user-information sub-item of that kind, or None."""
    return next((item for item in items if isinstance(item, kind)), None)


def announced_length(items: Iterable[UserInformationItem]) -> int:
    """Return the maximum length that a peer announced, in bytes; 0 where it did not, which is no limit (PS3.8 §D.1)."""
    item = find_item(items, MaximumLength)
    return item.maximum_length if item else 0


def describe_peer(
    request: AAssociateRQ,
    ae_title: str,
    extra_info: Callable[[str], object],
    said: tuple[UserInformationItem, ...],
) -> Peer:
    """Return who is at the other end.

    Args:
        request: what the association began with.
        ae_title: of the two AE titles in it the peer's.
        extra_info: what the transport knows by a name: see `Connection.extra_info`.
        said: the peer's user information.
    """
    implementation = find_item(said, ImplementationClassUID)
    version = find_item(said, ImplementationVersionName)
    ssl_object = extra_info("ssl_object")
    return Peer(
        ae_title,
        request.called_ae_title,
        request.calling_ae_title,
        _host_and_port(extra_info("peername")),
        implementation.uid if implementation else "",
        version.name if version else "",
        find_item(request.user_information, UserIdentity),
        certificate_of(ssl_object),
        ssl_object is not None,
        _host_and_port(extra_info("sockname")),
    )


def stranger(extra_info: Callable[[str], object]) -> Peer | None:
    """Return what is known of a peer that has not said who it is, its address; None where that is not known, either."""
    address = _host_and_port(extra_info("peername"))
    return None if address is None else Peer("", "", "", address)


def _host_and_port(address: object) -> tuple[str, int] | None:
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) and len(address) >= 2 else None
