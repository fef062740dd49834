"""What cases need of an acceptor, and what to say where it has not got it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.target import Need, Target


def _accepts(context_id: int, otherwise: str) -> Need:
    return Need(lambda target: context_id in target.accepted, otherwise)


NEEDS: Final[Mapping[str, Need]] = {
    "storage": _accepts(messages.STORE, "it takes no CT images"),
    "Explicit VR": _accepts(messages.STORE_EXPLICIT, "it takes no Explicit VR Little Endian"),
    "deflated": _accepts(messages.STORE_DEFLATED, "it takes no Deflated Explicit VR Little Endian"),
    "JPEG": _accepts(messages.STORE_JPEG, "it takes no JPEG Baseline"),
    "Q/R": _accepts(messages.FIND, "it has no C-FIND (Study Root)"),
    "deflated Q/R": _accepts(messages.FIND_DEFLATED, "it takes no deflated identifiers"),
    "C-MOVE": _accepts(messages.MOVE, "it has no C-MOVE (Study Root)"),
    "C-GET": _accepts(messages.GET, "it has no C-GET (Study Root)"),
    "calling AE titles": Need(lambda target: target.unknown_calling, "say --unknown-aet AET"),
    "called AE titles": Need(lambda target: target.wrong_called, "say --wrong-aec AET"),
    "passcodes": Need(lambda target: target.wrong_identity, "say --wrong-identity USER PASSCODE"),
    "identities": Need(lambda target: target.requires_identity, "say --requires-identity"),
    "rights": Need(lambda target: target.may_not_store, "say --may-not-store AET"),
    "association limit": Need(lambda target: target.maximum_associations, "say --max-associations N"),
    "cap": Need(lambda target: target.instance_cap, "say --instance-cap BYTES"),
    "full quota": Need(lambda target: target.quota_full, "say --quota-full"),
    "stop": Need(lambda target: target.stop, "say --stop PID"),
    "TLS": Need(lambda target: target.tls, "it is asked without TLS"),
    "certificate": Need(lambda target: target.presents_certificate, "say --certificate FILE, which it asks for"),
    "foreign certificate": Need(lambda target: target.tls_foreign, "say --foreign-certificate FILE KEY"),
    "expired certificate": Need(lambda target: target.tls_expired, "say --expired-certificate FILE KEY"),
}
"""By the words that `Case.needs` has for it."""


def missing(target: Target, needs: tuple[str, ...]) -> str:
    """Return why a case does not apply to a target; empty where it does."""
    return next((NEEDS[need].otherwise for need in needs if not NEEDS[need].is_met(target)), "")
