"""What `-v` and `-d` tell of the PDUs of an association, in the Standard's words (PS3.8 §9.3, PS3.7 Annex D)."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Iterator
from typing import Final
from weakref import WeakKeyDictionary

from aiodicom.association import Observer
from aiodicom.errors import ABORT_REASONS, ABORT_SOURCES, AssociationRejected
from aiodicom.logs import printable
from aiodicom.terms import find_item
from aiodicom.tls import certificate_of
from aiodicom.transport import Connection
from aiodicom.uids import uid_name
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    UserIdentity,
    UserInformationItem,
)
from aiodicom.upper_layer.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    ControlPDU,
)

_log: Final = logging.getLogger("aiodicom.negotiation")

# PS3.8 Table 9-18.
_RESULTS: Final = {
    ContextResult.ACCEPTANCE: "acceptance",
    ContextResult.USER_REJECTION: "user-rejection",
    ContextResult.NO_REASON: "no-reason (provider rejection)",
    ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED: "abstract-syntax-not-supported",
    ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED: "transfer-syntaxes-not-supported",
}


class Narrator(Observer):
    """Logs the negotiation, and the release or the abort, at INFO; where they are asked for, fragments at DEBUG."""

    def __init__(self, *, fragments: bool = False) -> None:
        self._fragments = fragments
        uid_name("")  # loads the dictionary of UIDs now, not while a peer waits
        self._requests: WeakKeyDictionary[Connection, AAssociateRQ] = WeakKeyDictionary()

    def pdu_sent(self, connection: Connection, pdu: ControlPDU | PDV) -> None:
        """Tell of it."""
        self._tell(connection, pdu, "sent", "to")

    def pdu_received(self, connection: Connection, pdu: ControlPDU | PDV) -> None:
        """Tell of it."""
        self._tell(connection, pdu, "received", "from")

    def _tell(self, connection: Connection, pdu: ControlPDU | PDV, verb: str, preposition: str) -> None:
        if isinstance(pdu, PDV):
            if self._fragments:
                _log.debug("%s P-DATA-TF, %s", verb, _fragment(pdu))
            return
        address = connection.extra_info("peername")
        where, fields = "", {}
        if isinstance(address, tuple):
            where, fields = f" {preposition} {address[0]}:{address[1]}", {"host": address[0], "port": address[1]}
        if isinstance(pdu, AAssociateRQ):
            self._requests[connection] = pdu
            self._tell_of_tls(connection, where)
        _log.info("%s", "\n".join((f"{verb} {_title(pdu)}{where}", *self._details(connection, pdu))), extra=fields)

    def _tell_of_tls(self, connection: Connection, where: str) -> None:
        tls = connection.extra_info("ssl_object")
        if isinstance(tls, ssl.SSLObject):
            suite = (tls.cipher() or ("no cipher suite",))[0]
            shown = certificate_of(tls) or "no certificate"
            _log.info("%s, %s%s; the peer shows %s", tls.version(), suite, where, shown)

    def _details(self, connection: Connection, pdu: ControlPDU) -> Iterator[str]:
        match pdu:
            case AAssociateRQ():
                yield f"  called AE title {pdu.called_ae_title!r}, calling AE title {pdu.calling_ae_title!r}"
                yield from _user_information(pdu.user_information)
                yield from _proposals(pdu)
            case AAssociateAC():
                yield from _user_information(pdu.user_information)
                yield from _answers(pdu, self._requests.pop(connection, None))
            case AAssociateRJ():
                yield f"  {AssociationRejected(pdu.result, pdu.source, pdu.reason)}"
            case AAbort():
                source, reason = ABORT_SOURCES.get(pdu.source, pdu.source), ABORT_REASONS.get(pdu.reason, pdu.reason)
                yield f"  source: {source}; reason: {reason}"
            case AReleaseRQ() | AReleaseRP():
                pass


def _title(pdu: ControlPDU) -> str:
    match pdu:
        case AAssociateRQ():
            return "A-ASSOCIATE-RQ"
        case AAssociateAC():
            return "A-ASSOCIATE-AC"
        case AAssociateRJ():
            return "A-ASSOCIATE-RJ"
        case AReleaseRQ():
            return "A-RELEASE-RQ"
        case AReleaseRP():
            return "A-RELEASE-RP"
        case AAbort():
            return "A-ABORT"


def _fragment(pdv: PDV) -> str:
    kind = "command" if pdv.is_command else "data set"
    last = ", last fragment" if pdv.is_last else ""
    return f"presentation context {pdv.context_id}: {len(pdv.data):,} bytes of {kind}{last}"


def _user_information(items: Iterable[UserInformationItem]) -> Iterator[str]:
    items = tuple(items)
    if length := find_item(items, MaximumLength):
        yield f"  maximum length {length.maximum_length:,}{'' if length.maximum_length else ' (no limit)'}"
    if implementation := find_item(items, ImplementationClassUID):
        version = find_item(items, ImplementationVersionName)
        name = f"{printable(version.name)}, " if version else ""
        yield f"  implementation {name}{printable(implementation.uid)}"
    if window := find_item(items, AsynchronousOperationsWindow):
        invoked, performed = window.maximum_number_operations_invoked, window.maximum_number_operations_performed
        yield f"  asynchronous operations window: invoked {invoked}, performed {performed}"
    for item in items:
        if isinstance(item, RoleSelection):
            yield f"  SCP/SCU role selection of {_name(item.sop_class_uid)}: {_roles(item)}"
        elif isinstance(item, UserIdentity):
            yield f"  user identity of type {item.identity_type} (not shown)"


def _roles(item: RoleSelection) -> str:
    return " and ".join(word for word, has in (("SCU", item.scu_role), ("SCP", item.scp_role)) if has) or "neither"


def _proposals(pdu: AAssociateRQ) -> Iterator[str]:
    yield f"  presentation contexts proposed: {len(pdu.presentation_contexts)}"
    for context in pdu.presentation_contexts:
        yield f"  {context.context_id:>5}  {_name(context.abstract_syntax)}"
        yield from (f"           {_name(syntax)}" for syntax in context.transfer_syntaxes)


def _answers(pdu: AAssociateAC, request: AAssociateRQ | None) -> Iterator[str]:
    proposed = {item.context_id: item.abstract_syntax for item in request.presentation_contexts} if request else {}
    accepted = sum(answer.result == ContextResult.ACCEPTANCE for answer in pdu.presentation_contexts)
    yield f"  presentation contexts accepted: {accepted} of {len(proposed)}"
    for answer in pdu.presentation_contexts:
        yield f"  {answer.context_id:>5}  {_name(proposed.get(answer.context_id, 'never proposed'))}"
        if answer.result == ContextResult.ACCEPTANCE:
            yield f"           acceptance: {_name(answer.transfer_syntax)}"
        else:
            words = _RESULTS.get(ContextResult(answer.result)) if answer.result in _RESULTS else None
            yield f"           {words or f'result {answer.result}'}"


def _name(uid: str) -> str:
    return printable(uid_name(uid))
