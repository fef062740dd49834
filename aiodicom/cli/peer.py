"""A peer as it is written on the command line: `AET@HOST:PORT`, DCMTK's `HOST PORT` with `-aec AET`, or a node's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiodicom.nodes import Node, format_address
from aiodicom.upper_layer.pdu import valid_ae_title

ANY_AE_TITLE: Final = "ANY-SCP"
"""What is asked for where nobody says: DCMTK's tools do the same, and most peers do not look."""

FORMS: Final = """\
PEER is one of
  AET@HOST:PORT            such as ORTHANC@127.0.0.1:4242 or PACS@[::1]:11112
  HOST:PORT -aec AET
  HOST PORT -aec AET       as DCMTK's tools have it
  NAME                     of a node, see aiodicom nodes
without AET, ANY-SCP is asked for"""

# An address of IPv6 has colons of its own, and so needs brackets where a port follows.
_HOST_AND_PORT: Final = re.compile(r"(\[[^]]+\]|[^:\[\]]+):(.*)")


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer is, by which name it is asked for, and what is known of its TLS, see `Node`."""

    ae_title: str
    host: str
    port: int
    tls: bool = False
    tls_host_check: bool = True

    def __str__(self) -> str:
        return format_address(self.ae_title, self.host, self.port)


def parse_peer(
    words: Sequence[str], called_ae_title: str | None, nodes: Callable[[], Mapping[str, Node]] = dict
) -> tuple[PeerAddress, list[str]]:
    """Return the peer that the first words name, and the words that are left.

    Args:
        words: one or more.
        called_ae_title: what `-aec` says.
        nodes: tells the nodes by name; called only where the words are no address.

    Raises:
        ValueError: they name no peer; the message says why.
        LocalProtocolError: the nodes cannot be told.
    """
    first, *rest = words
    ae_title, has_ae_title, address = first.rpartition("@")
    if found := _HOST_AND_PORT.fullmatch(address):
        host, port = found.groups()
    elif address and rest and rest[0].isdecimal():
        host, port, *rest = address, *rest
    else:
        node = _node(first, nodes())
        title = _checked(called_ae_title or node.ae_title)
        return PeerAddress(title, node.host, node.port, node.tls, node.tls_host_check), rest
    if has_ae_title and called_ae_title not in (None, ae_title):
        raise ValueError(f"two AE titles for one peer: {ae_title!r} and, by -aec, {called_ae_title!r}")
    title = _checked(ae_title if has_ae_title else called_ae_title or ANY_AE_TITLE)
    return PeerAddress(title, host.strip("[]"), parse_port(port)), rest


def parse_host_and_port(text: str, port: int) -> tuple[str, int]:
    """Return the host and the port that a text names.

    Args:
        text: HOST or HOST:PORT, an address of IPv6 in brackets.
        port: the port where it names none.

    Raises:
        ValueError: it names none.
    """
    if found := _HOST_AND_PORT.fullmatch(text):
        return found[1].strip("[]"), parse_port(found[2])
    host = text.strip("[]")
    if not host or (":" in host and text == host) or any(each.isspace() for each in host):
        raise ValueError(f"{text!r} is no HOST:PORT; write an address of IPv6 in brackets")
    return host, port


def _node(name: str, nodes: Mapping[str, Node]) -> Node:
    """Return the node of that name, or say what could have been written."""
    if name in nodes:
        return nodes[name]
    is_none = f" is no node ({', '.join(nodes)}), and" if nodes else ""
    raise ValueError(f"{name!r}{is_none} names no port: write AET@HOST:PORT, or HOST PORT -aec AET")


def _checked(ae_title: str) -> str:
    if not valid_ae_title(ae_title):
        raise ValueError(f"{ae_title!r} is no AE title: 1 to 16 ASCII characters, without a backslash")
    return ae_title


def parse_port(text: str) -> int:
    """Return a port number.

    Raises:
        ValueError: it is none.
    """
    if not (text.isdecimal() and text.isascii() and 0 < int(text) < 65536):
        raise ValueError(f"{text!r} is no port: a number from 1 to 65535")
    return int(text)
