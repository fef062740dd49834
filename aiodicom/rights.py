"""Who may ask what of us: the nodes, each with its rights, and everybody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from aiodicom.dimse.commands import CEchoRQ, CFindRQ, CGetRQ, CMoveRQ, CStoreRQ, Request
from aiodicom.dimse.status import NOT_AUTHORIZED
from aiodicom.errors import AssociationRejected, DimseError, LocalProtocolError
from aiodicom.limits import Limits
from aiodicom.logs import about, operation_name
from aiodicom.nodes import (
    RIGHTS,
    Node,
    check_rights,
    format_header,
    format_key,
    format_node,
    is_loopback,
    node_name,
    rights_in_order,
)
from aiodicom.operation import Operation
from aiodicom.terms import Peer
from aiodicom.tls import PeerCertificate
from aiodicom.uids import MODALITY_WORKLIST_FIND

Nodes: TypeAlias = Mapping[str, Node] | Iterable[Node]
UnknownMay: TypeAlias = frozenset[str] | None

UNKNOWN_ON_LOOPBACK: Final = frozenset({"echo", "store"})
"""What an AE on this machine may do that is no node, unless it is said: it tells us something, and gets nothing."""

UNKNOWN_ELSEWHERE: Final = frozenset({"echo"})
"""The same of an AE on another machine."""

_RIGHT_TO: Final[Mapping[type[Request], str]] = {
    CEchoRQ: "echo",
    CStoreRQ: "store",
    CFindRQ: "find",
    CGetRQ: "get",
    CMoveRQ: "move",
}
_IN_WORDS: Final = {"worklist": "see the worklist", "": "do that"}  # of what is no word for what is done
_NOTHING: Final[frozenset[str]] = frozenset()
_OF_NODES: Final = RIGHTS | {""}  # whoever is a node may ask for what has no right of its own
_UNKNOWN_RULE: Final = "`may` of [unknown]"
_USUAL_PORT: Final = 104
_CALLING_AE_TITLE_NOT_RECOGNIZED: Final = (1, 1, 3)  # PS3.8 Table 9-21
_DESTINATION_UNKNOWN: Final = 0xA801  # PS3.4 Table C.4-2
_log: Final = logging.getLogger("aiodicom.rights")


class Rights:
    """The nodes by AE title, and what each may do; and what everybody else may.

    An AE title alone proves nothing about who has it: nodes can be bound to networks and certificates, see `Node`. Whoever
    has the AE title of a node, and is not that node, may do nothing. What none of the rights is about, such as the DIMSE-N
    services, every node may ask for, and nobody else.

    Args:
        nodes: those that are known; or a function that returns them, which is called again for each operation.
        unknown_may: the rights of everybody else; or a function that returns them, likewise. None is echo and store for who
            calls from this machine, and echo for the others. (Behind a proxy everybody calls from where that is.)

    Raises:
        LocalProtocolError: two nodes have one AE title, or there is no such right.
    """

    def __init__(
        self,
        nodes: Nodes | Callable[[], Nodes] = (),
        unknown_may: UnknownMay | Callable[[], UnknownMay] = None,
    ) -> None:
        if callable(nodes):
            self._source = nodes
        else:
            fixed = nodes if isinstance(nodes, Mapping) else tuple(nodes)
            self._source = lambda: fixed
        self._unknown_source = unknown_may if callable(unknown_may) else lambda: unknown_may
        self._seen = self._source()
        self._nodes = _by_ae_title(self._seen)
        self._unknown_may = self._unknown_source()
        check_rights(self._unknown_may or _NOTHING)

    def node(self, ae_title: str) -> Node | None:
        """Return the node of that AE title, if there is one."""
        self._look_again()
        return self._nodes.get(ae_title)

    def admit(self, peer: Peer) -> None:
        """See that a peer may have an association: who may do nothing, may not.

        Raises:
            AssociationRejected: calling AE title not recognized (PS3.8 Table 9-21); it says which lines would allow it.
        """
        if not self._may(peer):
            raise AssociationRejected(*_CALLING_AE_TITLE_NOT_RECOGNIZED, rule=self._refusal(peer, "echo"))

    def limits_of(self, peer: Peer, limits: Limits) -> Limits:
        """Return the limits for a peer: where it is a node, with those that are its own."""
        node = self.node(peer.ae_title)
        if node is None or not node.limits or node.rule_against(_host(peer), peer.certificate):
            return limits
        return limits.changed(**node.limits)

    def check(self, operation: Operation) -> None:
        """See that whoever asks for an operation may do so.

        Raises:
            DimseError: 0x0124, Not Authorized (PS3.7 §C.5.10); the log says which lines would allow it.
        """
        right = _RIGHT_TO.get(type(operation.command), "")
        if right == "find" and operation.context.abstract_syntax == MODALITY_WORKLIST_FIND:
            right = "worklist"
        peer = operation.peer
        if right in self._may(peer):
            return
        words = right or operation_name(operation.command), peer, self._refusal(peer, right)
        _log.warning("refused %s to %s, %s", *words, extra=about(peer=peer, command=operation.command))
        known = "" if peer.ae_title in self._nodes else " is not known here: it"
        raise DimseError(NOT_AUTHORIZED, f"{peer.ae_title}{known} may not {_IN_WORDS.get(right, right)}")

    def destination(self, ae_title: str, peer: Peer, *, own: str = "") -> Node:
        """Return the node that is a move destination.

        Args:
            ae_title: what the C-MOVE says.
            peer: whose it is.
            own: our AE title: nobody sends to himself, whatever the nodes say.

        Raises:
            DimseError: 0xA801, Move Destination unknown (PS3.4 §C.4.2.1.5); the log says which lines would make it known.
        """
        node = self.node(ae_title)
        if node is None:
            why = f"since no node has that AE title{self._lines(Peer(ae_title, '', '', None), _NOTHING)}"
        elif ae_title == own and peer.local_address is not None and node.port == peer.local_address[1]:
            why = f"since {format_header(node)} is ourselves"
        else:
            return node
        _log.warning("refused move to %s, to %r, %s", peer, ae_title, why, extra=about(peer=peer))
        raise DimseError(_DESTINATION_UNKNOWN, f"Move destination {ae_title} is unknown")

    def _look_again(self) -> None:
        try:
            nodes, self._unknown_may = self._source(), self._unknown_source()
            if nodes is not self._seen:
                self._nodes, self._seen = _by_ae_title(nodes), nodes
        except LocalProtocolError as error:
            _log.warning("the nodes stay as they were: %s", error)

    def _may(self, peer: Peer) -> frozenset[str]:
        """Return what a peer may; a node also "", which is what has no right of its own."""
        self._look_again()
        node = self._nodes.get(peer.ae_title)
        if node is None:
            return self._unknown(peer)
        if node.rule_against(_host(peer), peer.certificate):
            return _NOTHING
        return _OF_NODES if node.may == RIGHTS else node.may | {""} if node.may else _NOTHING

    def _unknown(self, peer: Peer) -> frozenset[str]:
        if self._unknown_may is not None:
            return self._unknown_may
        return UNKNOWN_ON_LOOPBACK if is_loopback(_host(peer)) else UNKNOWN_ELSEWHERE

    # What the log says.

    def _refusal(self, peer: Peer, right: str) -> str:
        """Return which rule refuses a peer, and the lines that would allow it."""
        node, certificate = self._nodes.get(peer.ae_title), peer.certificate
        if node is None:
            may = self._unknown(peer) | {right} - {""}
            return f"which is no node, by the rule {_UNKNOWN_RULE}{self._lines(peer, may)}"
        rule = node.rule_against(_host(peer), certificate) or "may"
        said = f"by the rule `{rule}` of {format_header(node)}"
        match rule:
            case "networks":
                line = format_key(rule, (*node.networks, _host(peer) or ""))
            case "certificate" if certificate is not None:
                line = format_key(rule, _name_in(certificate))
            case "certificate":
                return f"{said}: it showed none. To be allowed, it has to call by TLS, with that of {node.certificate}"
            case _:
                line = format_key(rule, rights_in_order(node.may | {right} - {""}))
        return f"{said}. To allow it, let that say:\n\n{format_header(node)}\n{line}\n"

    def _lines(self, peer: Peer, may: frozenset[str]) -> str:
        """Return the lines that would make a peer a node with those rights; empty where nothing could."""
        host, certificate = _host(peer), peer.certificate
        try:
            node = Node(
                self._free_name(peer.ae_title),
                peer.ae_title,
                host or "HOST",
                _USUAL_PORT,
                may,
                (host,) if host else (),
                _name_in(certificate) if certificate else "",
            )
        except LocalProtocolError:
            return ""
        return (
            ". To allow it, add these lines to aiodicom.toml, with the port at which it listens itself, or let "
            f"`aiodicom nodes add` do so:\n\n{format_node(node)}\n"
        )

    def _free_name(self, ae_title: str) -> str:
        """Return a name for a node of that AE title that no other has."""
        name, taken = node_name(ae_title), {node.name for node in self._nodes.values()}
        return next(each for each in (name, *(f"{name}-{count}" for count in range(2, 1000))) if each not in taken)


def _host(peer: Peer) -> str | None:
    return peer.address[0] if peer.address else None


def _name_in(certificate: PeerCertificate) -> str:
    return next(filter(str.isprintable, certificate.names), certificate.fingerprint)


def _by_ae_title(nodes: Nodes) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for node in nodes.values() if isinstance(nodes, Mapping) else nodes:
        if other := found.get(node.ae_title):
            raise LocalProtocolError(f"the nodes {other.name!r} and {node.name!r} have one AE title: {node.ae_title}")
        found[node.ae_title] = node
    return found
