"""Makes audit messages of what happens on the associations of a server (PS3.15 §A.5.3)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from aiodicom.accounts import Counts, Subject
from aiodicom.association import Association, Observer
from aiodicom.audit.messages import (
    DESTINATION,
    NODE_AUTHENTICATION,
    SOURCE,
    USE_OF_RESTRICTED_FUNCTION,
    Code,
    Outcome,
    Participant,
    begin_transferring,
    instances_transferred,
    query,
    security_alert,
    user_authentication,
)
from aiodicom.audit.trail import AuditTrail
from aiodicom.dimse.commands import CFindRQ, CGetRQ, CMoveRQ, CStoreRQ
from aiodicom.dimse.status import NOT_AUTHORIZED, Category, Status
from aiodicom.errors import AssociationError, AssociationRejected, ConnectionFailed, DicomNetworkError
from aiodicom.logs import described, operation_name
from aiodicom.operation import Operation
from aiodicom.terms import Peer

SUMMED_UP_AFTER: Final = 60.0
"""After how many seconds at the latest the instances are told that a peer has stored on an association."""

SUMMED_UP_AT_MOST: Final = 64
"""How many studies are summed up for an association at a time; with one more, all of them are told."""

_PERMANENT, _BY_USER, _NO_REASON_GIVEN = 1, 1, 1  # PS3.8 Table 9-21


class Auditor(Observer):
    """Tells an audit trail what happens: an observer of a `Server`, beside the others it has.

    - **Begin Transferring DICOM Instances** and **DICOM Instances Transferred**: what is stored here, summed up for each
      association, study and patient, told when the association ends or a minute has passed; and what a C-GET or C-MOVE sends.
      The archive knows of what study and patient an instance is. A handler of your own enters it in `operation.account`, or
      nobody knows.
    - **Query**: each C-FIND, with its identifier.
    - **User Authentication**: whoever said who he is, and was verified, or was not.
    - **Security Alert**: a peer that was rejected for what it is or says to be, one that came to no TLS connection, and an
      operation that was refused as not authorized.

    Args:
        trail: where messages go.
    """

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail
        self._sums: dict[Association, _Sum] = {}

    # Who comes.

    def association_opened(self, association: Association) -> None:
        """Tell of a user who was believed."""
        if association.peer.identity_is_verified:
            self._login(association.peer, Outcome.SUCCESS)

    def _login(self, peer: Peer, outcome: Outcome) -> None:
        if (user := _user(peer)) is not None:
            who = replace(user, is_requestor=True), self._trail.application
            self._trail.add(user_authentication(who, outcome=outcome))

    def association_refused(self, peer: Peer | None, error: Exception) -> None:
        """Tell of a peer that was rejected for what it is, or came to no TLS connection."""
        is_ours = not isinstance(error, DicomNetworkError)  # a handler raised it, which is a rejection without a reason
        is_rejected = isinstance(error, AssociationRejected) and (error.result, error.source) == (_PERMANENT, _BY_USER)
        if peer is None or not (is_ours or is_rejected or isinstance(error, ConnectionFailed)):
            return  # we are busy, or it speaks another language
        why = described(error) if is_ours else str(error).splitlines()[0]
        self._alert(peer, NODE_AUTHENTICATION, f"no association with {peer}: {why}")
        if is_ours or (isinstance(error, AssociationRejected) and error.reason == _NO_REASON_GIVEN):
            self._login(peer, Outcome.MINOR_FAILURE)  # which is what a user gets who is not believed

    def association_closed(self, association: Association, _error: AssociationError) -> None:
        """Tell what was stored."""
        if (total := self._sums.pop(association, None)) is not None:
            total.end()

    def _alert(self, peer: Peer, kind: Code, description: str) -> None:
        who = (self._trail.application, _participant(peer), *_users(peer))
        node = peer.host or peer.ae_title
        self._trail.add(security_alert(who, kind, node, description, outcome=Outcome.MINOR_FAILURE))

    # What is done.

    def transfer_begun(self, _association: Association, operation: Operation, intended: Counts) -> None:
        """Tell what a C-GET or C-MOVE is about to send."""
        participants = self._senders(operation)
        for (subject, *_), sop_classes in intended.items():
            self._trail.add(begin_transferring(participants, subject, sop_classes))

    def operation_concluded(self, association: Association, operation: Operation, status: int | None) -> None:
        """Tell what an operation has done, or that it was refused."""
        command, account = operation.command, operation.account
        if status == NOT_AUTHORIZED:
            self._alert(operation.peer, USE_OF_RESTRICTED_FUNCTION, f"{operation_name(command)} is not authorized")
        elif isinstance(command, CFindRQ):
            self._query(operation, status)
        elif isinstance(command, CGetRQ | CMoveRQ) and account is not None:
            self._transferred(self._senders(operation), account.counts)
        elif isinstance(command, CStoreRQ) and account is not None:
            if not account.counts and status is not None:
                # That of the context: of the command's, where it was refused, there may be any number.
                sop_class = operation.context.abstract_syntax
                account.enter(Subject(), sop_class, succeeded=_outcome(status) is Outcome.SUCCESS)
            self._stored(association, account.counts)

    def _query(self, operation: Operation, status: int | None) -> None:
        asks = _participant(operation.peer, SOURCE, is_requestor=True)
        answers = _with_role(self._trail.application, DESTINATION)
        self._trail.add(
            query(
                (asks, answers),
                operation.context.abstract_syntax,
                operation.encoded_identifier,
                operation.transfer_syntax_uid,
                outcome=_outcome(status),
            )
        )

    def _senders(self, operation: Operation) -> tuple[Participant, ...]:
        """Who sends the instances of a C-GET or C-MOVE, who gets them, and who asked for that."""
        command, peer = operation.command, operation.peer
        sends = _with_role(self._trail.application, SOURCE)
        if isinstance(command, CMoveRQ) and command.move_destination != peer.ae_title:
            title = command.move_destination
            gets = Participant(user_id=title, ae_title=title, roles=(DESTINATION,))
            return (sends, gets, _participant(peer, is_requestor=True), *_users(peer))
        return (sends, _participant(peer, DESTINATION, is_requestor=True), *_users(peer))

    def _stored(self, association: Association, counts: Counts) -> None:
        if (total := self._sums.get(association)) is None:
            total = _Sum(self, association.peer)
            if association.is_open:
                self._sums[association] = total
        total.add(counts)
        if not association.is_open:  # the handler has ended after it, behind `association_closed`
            total.end()

    def begun(self, peer: Peer, subject: Subject, sop_class_uids: Iterable[str]) -> None:
        """Tell that a peer has begun to store instances of a study."""
        counts = dict.fromkeys(sop_class_uids, 1)
        self._trail.add(begin_transferring(self._storers(peer), subject, counts))

    def stored(self, peer: Peer, counts: Counts) -> None:
        """Tell what a peer has stored."""
        self._transferred(self._storers(peer), counts)

    def _storers(self, peer: Peer) -> tuple[Participant, ...]:
        sends = _participant(peer, SOURCE, is_requestor=True)
        return (sends, _with_role(self._trail.application, DESTINATION), *_users(peer))

    def _transferred(self, participants: tuple[Participant, ...], counts: Counts) -> None:
        for (subject, effect, succeeded), sop_classes in counts.items():
            outcome = Outcome.SUCCESS if succeeded else Outcome.MINOR_FAILURE
            message = instances_transferred(participants, subject, sop_classes, effect=effect, outcome=outcome)
            self._trail.add(message)


class _Sum:
    """What a peer stores on an association, until it is told."""

    def __init__(self, auditor: Auditor, peer: Peer) -> None:
        self._auditor = auditor
        self._peer = peer
        self._counts: Counts = {}
        self._subjects: set[Subject] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, counts: Counts) -> None:
        for transfer, sop_classes in counts.items():
            if transfer.subject not in self._subjects:
                if len(self._subjects) == SUMMED_UP_AT_MOST:
                    self.end()
                self._subjects.add(transfer.subject)
                self._auditor.begun(self._peer, transfer.subject, sop_classes)
            self._counts.setdefault(transfer, Counter()).update(sop_classes)
        if self._timer is None and self._counts:
            self._timer = asyncio.get_running_loop().call_later(SUMMED_UP_AFTER, self.end)

    def end(self) -> None:
        """Tell it, and begin anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, {}
        self._subjects.clear()
        self._auditor.stored(self._peer, counts)


def _participant(peer: Peer, *roles: Code, is_requestor: bool = False) -> Participant:
    name = peer.ae_title or peer.host or "unknown"
    return Participant(user_id=name, ae_title=peer.ae_title, roles=roles, is_requestor=is_requestor, host=peer.host)


def _users(peer: Peer) -> tuple[Participant, ...]:
    return () if (user := _user(peer)) is None else (user,)


def _user(peer: Peer) -> Participant | None:
    """Return who the user says to be; of a ticket, an assertion or a token only that there is one: they are secrets."""
    if (identity := peer.identity) is None:
        return None
    if (name := identity.username) is not None:
        return Participant(user_id=name, user_name=name, host=peer.host)
    kind = f"user with identity of type {identity.identity_type}"
    return Participant(user_id=kind, host=peer.host)


def _with_role(participant: Participant, role: Code) -> Participant:
    return replace(participant, roles=(role,))


def _outcome(status: int | None) -> Outcome:
    """Return how an operation ended that came to a status; None is that its association ended before."""
    if status is None or Status(status).category is Category.FAILURE:
        return Outcome.MINOR_FAILURE
    return Outcome.SUCCESS
