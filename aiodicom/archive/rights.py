"""Who may ask what of the archive: its nodes, each with its rights, and everybody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from aiodicom.dimse.status import NOT_AUTHORIZED
from aiodicom.errors import DimseError, LocalProtocolError
from aiodicom.nodes import Node, format_node, node_name
from aiodicom.operation import Operation

Nodes: TypeAlias = Mapping[str, Node] | Iterable[Node]

UNKNOWN_MAY: Final = frozenset({"echo", "store"})
"""What an AE may do that is no node: it tells us something, and gets nothing."""

_USUAL_PORT: Final = 104
_log: Final = logging.getLogger("aiodicom.archive")


class Rights:
    """The nodes by AE title, and what each may do. An AE title proves nothing about who has it.

    Args:
        nodes: those that are known; or a function that returns them, which is called again for each operation.
        unknown_may: the rights of everybody else.

    Raises:
        LocalProtocolError: two nodes have one AE title.
    """

    def __init__(self, nodes: Nodes | Callable[[], Nodes], unknown_may: frozenset[str] = UNKNOWN_MAY) -> None:
        if callable(nodes):
            self._source = nodes
        else:
            fixed = nodes if isinstance(nodes, Mapping) else tuple(nodes)
            self._source = lambda: fixed
        self._unknown_may = unknown_may
        self._seen = self._source()
        self._nodes = _by_ae_title(self._seen)

    def node(self, ae_title: str) -> Node | None:
        """Return the node of that AE title, if there is one."""
        self._look_again()
        return self._nodes.get(ae_title)

    def _look_again(self) -> None:
        try:
            if (nodes := self._source()) is not self._seen:
                self._nodes, self._seen = _by_ae_title(nodes), nodes
        except LocalProtocolError as error:
            _log.warning("the nodes stay as they were: %s", error)

    @property
    def limit_echo(self) -> bool:
        """Whether there is anybody who may not even send a C-ECHO."""
        return "echo" not in self._unknown_may or any("echo" not in node.may for node in self._nodes.values())

    def check(self, operation: Operation, right: str) -> None:
        """See that whoever asks for an operation may do so.

        Raises:
            DimseError: 0x0124, Not Authorized (PS3.7 §C.5.10); the log says which lines would allow it.
        """
        peer = operation.peer
        self._look_again()
        if right in self._of(peer.ae_title):
            return
        if node := self._nodes.get(peer.ae_title):
            _log.warning("refused to %s: the node %r may not %s; its `may` has to name that", peer, node.name, right)
            raise DimseError(NOT_AUTHORIZED, f"{peer.ae_title} may not {right}")
        host = peer.address[0] if peer.address else "HOST"
        lines = format_node(Node(node_name(peer.ae_title), peer.ae_title, host, _USUAL_PORT))
        _log.warning(
            "refused %s to %s, which is no node. To allow it, add these lines to aiodicom.toml, with the port at which it "
            "listens itself, or let `aiodicom nodes add` do so:\n\n%s\n",
            right,
            peer,
            lines,
        )
        raise DimseError(NOT_AUTHORIZED, f"{peer.ae_title} is not known here: it may not {right}")

    def _of(self, ae_title: str) -> frozenset[str]:
        node = self._nodes.get(ae_title)
        return node.may if node else self._unknown_may


def _by_ae_title(nodes: Nodes) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for node in nodes.values() if isinstance(nodes, Mapping) else nodes:
        if other := found.get(node.ae_title):
            raise LocalProtocolError(f"the nodes {other.name!r} and {node.name!r} have one AE title: {node.ae_title}")
        found[node.ae_title] = node
    return found
