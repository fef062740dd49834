"""Every exception of aiodicom.

::

    DicomNetworkError
      ProtocolError(source, reason)         what an A-ABORT must say
        LocalProtocolError                  you asked for what PS3.7 or PS3.8 forbids now
        RemoteProtocolError                 the peer sent it
      AssociationError
        AssociationRejected(result, source, reason)
        AssociationAborted(source, reason)
        AssociationReleased
        ConnectionFailed                    the transport could not be opened
        NoAcceptedContext
      DimseError(status, comment)           a failure status: raised by a handler, or for one
      InvalidInstance                       a file or data set that cannot be sent or kept
      ArchiveError                          the embedded archive, or its index, cannot be used
      OperationTimeout (also a TimeoutError), naming its phase

Every message says what happened and, where there is a likely cause, what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = [
    "ArchiveError",
    "AssociationAborted",
    "AssociationError",
    "AssociationRejected",
    "AssociationReleased",
    "ConnectionFailed",
    "DicomNetworkError",
    "DimseError",
    "InvalidInstance",
    "LocalProtocolError",
    "NoAcceptedContext",
    "OperationTimeout",
    "ProtocolError",
    "RemoteProtocolError",
]

# PS3.8 Table 9-21: (source, reason) of an A-ASSOCIATE-RJ, in words, with the likely cause.
REJECTION_REASONS: Final = {
    (1, 1): ("no reason given", "the peer may know neither of the two AE titles: check them on both sides"),
    (1, 2): ("application context name not supported", "the peer is no DICOM application entity"),
    (1, 3): (
        "calling AE title not recognized",
        "the peer does not know us: add our AE title, host and port to its configuration",
    ),
    (1, 7): ("called AE title not recognized", "the peer has another AE title: ask for it by that one"),
    (2, 1): ("no reason given", "the peer's upper layer refused: its log knows more"),
    (2, 2): ("protocol version not supported", "the peer speaks another version of the DICOM upper layer"),
    (3, 1): ("temporary congestion", "the peer is busy or shutting down: try again later"),
    (3, 2): ("local limit exceeded", "the peer holds as many associations as it allows: use fewer, or try again later"),
}
REJECTION_RESULTS: Final = {1: "rejected-permanent", 2: "rejected-transient"}
REJECTION_SOURCES: Final = {1: "service-user", 2: "service-provider (ACSE)", 3: "service-provider (presentation)"}

# PS3.8 Table 9-26: source and reason of an A-ABORT.
ABORT_SOURCES: Final = {0: "service-user", 1: "reserved", 2: "service-provider"}
ABORT_REASONS: Final = {
    0: "reason not specified",
    1: "unrecognized PDU",
    2: "unexpected PDU",
    4: "unrecognized PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}


class DicomNetworkError(Exception):
    """The root of all that aiodicom raises by itself."""


class ProtocolError(DicomNetworkError):
    """A rule of PS3.7 or PS3.8 was broken; `source` and `reason` are what an A-ABORT about it says (PS3.8 §9.3.8)."""

    def __init__(self, message: str, *, source: int = 2, reason: int = 0) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """What was asked of aiodicom is not allowed in this state of the association, or cannot be encoded."""


class RemoteProtocolError(ProtocolError):
    """What the peer sent breaks the protocol."""


class AssociationError(DicomNetworkError):
    """There is no association, or none any more."""


class ConnectionFailed(AssociationError):
    """The transport connection to the peer could not be opened."""


class AssociationRejected(AssociationError):
    """The peer answered with A-ASSOCIATE-RJ (PS3.8 §9.3.4); raised by a server's hook, it is the answer given.

    Args:
        result: 1 permanent, 2 transient.
        source: 1 service-user, 2 service-provider (ACSE), 3 service-provider (presentation).
        reason: its meaning depends on the source (PS3.8 Table 9-21).
        rule: which rule of ours rejected it, and what would allow it; no peer sees that.
    """

    def __init__(self, result: int = 1, source: int = 1, reason: int = 1, *, rule: str = "") -> None:
        self.result = result
        self.source = source
        self.reason = reason
        self.rule = rule
        words, self.hint = REJECTION_REASONS.get((source, reason), (f"reason {reason}", "see the peer's log"))
        super().__init__(
            f"association rejected: {words} "
            f"({REJECTION_RESULTS.get(result, f'result {result}')}, "
            f"by the {REJECTION_SOURCES.get(source, f'source {source}')}){f', {rule}' if rule else f'; {self.hint}'}"
        )


class AssociationAborted(AssociationError):
    """The association ended by A-ABORT, by either side, or by the loss of its transport connection.

    Args:
        source: 0 service-user, 2 service-provider (PS3.8 §9.3.8); None where the connection was lost without a word.
        reason: PS3.8 Table 9-26; 0 where none is given.
        detail: what is known beyond that.
        by_peer: whether the peer sent the A-ABORT.
    """

    def __init__(self, source: int | None, reason: int = 0, detail: str = "", *, by_peer: bool = True) -> None:
        self.source = source
        self.reason = reason
        self.by_peer = by_peer
        if source is None:
            text = "association lost: the transport connection closed without A-RELEASE or A-ABORT"
        else:
            text = (
                f"association aborted by {'the peer' if by_peer else 'us'} "
                f"({ABORT_SOURCES.get(source, f'source {source}')}: {ABORT_REASONS.get(reason, f'reason {reason}')})"
            )
        super().__init__(f"{text}; {detail}" if detail else text)


class AssociationReleased(AssociationError):
    """The association was released, so that nothing more can be asked on it."""


class NoAcceptedContext(AssociationError):
    """No accepted presentation context can carry what is to be sent.

    Args:
        sop_class: the abstract syntax that was needed.
        transfer_syntax: the transfer syntax that the instance has; None for a message without a data set.
        proposed: (abstract syntax, transfer syntaxes) of every context proposed for that abstract syntax.
        accepted: the transfer syntaxes accepted for it.
        advice: what to do next.
    """

    def __init__(
        self,
        sop_class: str,
        transfer_syntax: str | None,
        *,
        proposed: Sequence[Sequence[str]] = (),
        accepted: Sequence[str] = (),
        advice: str = "",
    ) -> None:
        self.sop_class = sop_class
        self.transfer_syntax = transfer_syntax
        self.proposed = proposed
        self.accepted = accepted
        wanted = f"{sop_class} in transfer syntax {transfer_syntax}" if transfer_syntax else sop_class
        offers = " | ".join(", ".join(syntaxes) for syntaxes in proposed) or "nothing"
        if not advice:
            advice = (
                "the peer does not support that SOP class"
                if proposed
                else "name that SOP class in the contexts of the association"
            )
        super().__init__(
            f"no accepted presentation context for {wanted}: proposed {offers}; "
            f"accepted {', '.join(accepted) or 'nothing'}; {advice}"
        )


class DimseError(DicomNetworkError):
    """A failure status (PS3.7 Annex C, PS3.4): a handler raises it to choose its response; raised for a failed response.

    Args:
        status: the status code, 0-65535.
        comment: Error Comment (0000,0902), at most 64 characters on the wire.
    """

    def __init__(self, status: int, comment: str = "") -> None:
        self.status = int(status)
        self.comment = comment
        super().__init__(f"status 0x{self.status:04X}{f': {comment}' if comment else ''}")


class InvalidInstance(DicomNetworkError, ValueError):
    """A file or data set that is no DICOM instance, is damaged, or lacks what it needs to be sent or kept."""


class ArchiveError(DicomNetworkError):
    """The folder or the index of an embedded archive cannot be used as it is."""


class OperationTimeout(DicomNetworkError, TimeoutError):
    """A wait ran out of time.

    Args:
        phase: which one: connect, associate, response, send, release.
        seconds: how long was waited.
        advice: what to do next.
    """

    def __init__(self, phase: str, seconds: float, advice: str = "") -> None:
        self.phase = phase
        self.seconds = seconds
        text = f"no progress in phase '{phase}' for {seconds:g} s"
        super().__init__(f"{text}; {advice}" if advice else text)
