"""PEER on the command line."""

from __future__ import annotations

import re

import pytest

from aiodicom.cli.peer import PeerAddress, parse_peer
from aiodicom.nodes import Node

NODES = {"pacs": Node("pacs", "PACS", "::1", 104), "host": Node("host", "OTHER", "elsewhere", 105)}


@pytest.mark.parametrize(
    ("words", "called", "expected", "rest"),
    [
        (["PACS@host:104"], None, ("PACS", "host", 104), []),
        (["PACS@host:104", "a", "5"], None, ("PACS", "host", 104), ["a", "5"]),
        (["MY PACS@127.0.0.1:4242"], None, ("MY PACS", "127.0.0.1", 4242), []),
        (["A@B@host:104"], None, ("A@B", "host", 104), []),
        (["PACS@[::1]:11112", "x"], None, ("PACS", "::1", 11112), ["x"]),
        (["host:104", "11112"], "PACS", ("PACS", "host", 104), ["11112"]),
        (["[fe80::1]:104"], "PACS", ("PACS", "fe80::1", 104), []),
        (["host", "104", "x"], "PACS", ("PACS", "host", 104), ["x"]),
        (["::1", "104"], "PACS", ("PACS", "::1", 104), []),
        (["[::1]", "104"], None, ("ANY-SCP", "::1", 104), []),
        (["PACS@host", "104"], None, ("PACS", "host", 104), []),
        (["host", "104"], None, ("ANY-SCP", "host", 104), []),
        (["PACS@host:104"], "PACS", ("PACS", "host", 104), []),
    ],
)
def test_the_forms(words: list[str], called: str | None, expected: tuple[str, str, int], rest: list[str]) -> None:
    assert parse_peer(words, called) == (PeerAddress(*expected), rest)


@pytest.mark.parametrize(
    ("words", "called", "message"),
    [
        (["host"], None, "'host' names no port"),
        (["host", "x.dcm"], "PACS", "'host' names no port"),
        (["::1"], None, "'::1' names no port"),
        (["[::1]"], None, "names no port"),
        (["host:0"], None, "'0' is no port"),
        (["host", "65536"], None, "'65536' is no port"),
        (["host:x"], None, "'x' is no port"),
        (["@host:104"], None, "'' is no AE title"),
        (["SEVENTEEN LETTERS@host:104"], None, "is no AE title"),
        (["host:104"], "back\\slash", "is no AE title"),
        (["PACS@host:104"], "OTHER", "two AE titles for one peer: 'PACS' and, by -aec, 'OTHER'"),
    ],
)
def test_what_names_no_peer(words: list[str], called: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_peer(words, called)


@pytest.mark.parametrize(
    ("words", "called", "expected", "rest"),
    [
        (["pacs"], None, ("PACS", "::1", 104), []),
        (["pacs", "file", "5"], None, ("PACS", "::1", 104), ["file", "5"]),
        (["pacs"], "ANOTHER", ("ANOTHER", "::1", 104), []),
        (["host", "104"], None, ("ANY-SCP", "host", 104), []),
        (["host:104"], None, ("ANY-SCP", "host", 104), []),
        (["PACS@host:104"], None, ("PACS", "host", 104), []),
    ],
)
def test_the_name_of_a_node(
    words: list[str], called: str | None, expected: tuple[str, str, int], rest: list[str]
) -> None:
    assert parse_peer(words, called, lambda: NODES) == (PeerAddress(*expected), rest)


def test_no_name_of_a_node() -> None:
    message = re.escape("'pac' is no node (pacs, host), and names no port: write AET@HOST:PORT")
    with pytest.raises(ValueError, match=message):
        parse_peer(["pac"], None, lambda: NODES)
    with pytest.raises(ValueError, match="is no AE title"):
        parse_peer(["pacs"], "back\\slash", lambda: NODES)


def test_nodes_are_not_asked_for_where_there_is_an_address() -> None:
    def unreadable() -> dict[str, Node]:
        raise AssertionError

    for words in (["PACS@host:104"], ["host", "104"]):
        parse_peer(words, None, unreadable)


@pytest.mark.parametrize("host", ["host", "::1"])
def test_what_is_printed_is_understood(host: str) -> None:
    peer = PeerAddress("PACS", host, 104)
    assert parse_peer([str(peer)], None) == (peer, [])
