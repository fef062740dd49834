"""Who may ask what of the archive: its nodes, each with its rights, and everybody else."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from aiodicom.dimse.status import NOT_AUTHORIZED
from aiodicom.errors import DimseError, LocalProtocolError
from aiodicom.nodes import Node, format_node, node_name
from aiodicom.operation import Operation

UNKNOWN_MAY: Final = frozenset({"echo", "store"})
"""What an AE may do that is no node: it tells us something, and gets nothing."""

_USUAL_PORT: Final = 104
_log: Final = logging.getLogger("aiodicom.archive")


class Rights:
    """The nodes by AE title, and what each may do. An AE title proves nothing about who has it.

    Args:
        nodes: those that are known.
        unknown_may: the rights of everybody else.

    Raises:
        LocalProtocolError: two nodes have one AE title.
    """

    def __init__(self, nodes: Iterable[Node], unknown_may: frozenset[str] = UNKNOWN_MAY) -> None:
        self._nodes: dict[str, Node] = {}
        self._unknown_may = unknown_may
        for node in nodes:
            if other := self._nodes.get(node.ae_title):
                raise LocalProtocolError(
                    f"the nodes {other.name!r} and {node.name!r} have one AE title: {node.ae_title}"
                )
            self._nodes[node.ae_title] = node

    def node(self, ae_title: str) -> Node | None:
        """Return the node of that AE title, if there is one."""
        return self._nodes.get(ae_title)

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
        node = self._nodes.get(peer.ae_title)
        if right in (node.may if node else self._unknown_may):
            return
        if node:
            _log.warning("refused to %s: the node %r may not %s; its `may` has to name that", peer, node.name, right)
            raise DimseError(NOT_AUTHORIZED, f"{peer.ae_title} may not {right}")
        host = peer.address[0] if peer.address else "HOST"
        lines = format_node(Node(node_name(peer.ae_title), peer.ae_title, host, _USUAL_PORT))
        _log.warning(
            "refused %s to %s, which is no node. To allow it, add these lines to aiodicom.toml, with the port at which it "
            "listens itself, and start again:\n\n%s\n",
            right,
            peer,
            lines,
        )
        raise DimseError(NOT_AUTHORIZED, f"{peer.ae_title} is not known here: it may not {right}")
