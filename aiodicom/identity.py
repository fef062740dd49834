"""Who the user is that asks for an association (PS3.7 §D.3.3.7), as the acceptor sees it: verified, or rejected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from aiodicom.errors import AssociationRejected, LocalProtocolError
from aiodicom.terms import Peer
from aiodicom.upper_layer.items import IdentityType, UserIdentity

IdentityHandler: TypeAlias = Callable[[UserIdentity, Peer], Awaitable[bool | bytes]]
"""Verifies a user identity: returns True, or the server response of a Kerberos ticket, a SAML assertion or a token; whatever
else it returns or raises is a no."""

_TYPES: Final = frozenset(IdentityType)
_NO_REASON_GIVEN: Final = (1, 1, 1)  # PS3.8 Table 9-21: who guesses is not told how near it came


def check_plain_passcode(identity: UserIdentity | None, *, is_encrypted: bool) -> None:
    """See that a passcode goes over TLS.

    Raises:
        LocalProtocolError: it would go over the network for everybody to read.
    """
    if identity is not None and identity.identity_type == IdentityType.USERNAME_AND_PASSCODE and not is_encrypted:
        raise LocalProtocolError(
            "the passcode would go over the network as it is, for everybody to read: use TLS, or allow it with "
            "allow_plain_passcode (--allow-plain-passcode)"
        )


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """Which user identities an acceptor takes.

    Args:
        verify: decides.
        required: reject who gives none.
        allow_plain_passcode: take a username and passcode that came without TLS.
    """

    verify: IdentityHandler
    required: bool = True
    allow_plain_passcode: bool = False

    async def check(self, peer: Peer) -> tuple[Peer, bytes | None]:
        """Verify who a peer says to be.

        Returns:
            The peer, verified if there is an identity; and the server response to it, None if there is none.

        Raises:
            AssociationRejected: it is not verified.
            Exception: whatever `verify` raises, which is to reject it, too.
        """
        identity = peer.identity
        if identity is None:
            if self.required:
                raise _rejected("required", "it gave none")
            return peer, None
        if identity.identity_type not in _TYPES:
            raise _rejected("types", f"it is of type {identity.identity_type}, and there are 1 to 5")
        if not self.allow_plain_passcode:
            try:
                check_plain_passcode(identity, is_encrypted=peer.is_encrypted)
            except LocalProtocolError:
                raise _rejected("allow_plain_passcode", "a passcode came without TLS") from None
        answer = await self.verify(identity, peer)
        if answer is not True and not isinstance(answer, bytes):
            raise _rejected("verify", f"it is of type {identity.identity_type}, and was not accepted")
        return replace(peer, identity_is_verified=True), answer if isinstance(answer, bytes) else b""


def _rejected(rule: str, why: str) -> AssociationRejected:
    return AssociationRejected(*_NO_REASON_GIVEN, rule=f"by the rule `{rule}` of on_user_identity: {why}")
