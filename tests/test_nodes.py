"""Nodes: what one is, `aiodicom.toml`, and the configurations of Orthanc and of dcmqrscp."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiodicom.errors import LocalProtocolError
from aiodicom.nodes import (
    RIGHTS,
    Node,
    add_node,
    credentials_for,
    format_node,
    is_loopback,
    node_name,
    nodes_from_dcmqrscp,
    nodes_from_orthanc,
    read_nodes,
    read_unknown,
)
from aiodicom.tls import Credentials, PeerCertificate
from tests.peers.orthanc import Orthanc, settings
from tests.peers.process import Peer, free_port, require, running

PACS = Node("pacs", "PACS", "10.0.0.5", 104)


def test_a_node() -> None:
    rights = ("echo", "store", "find", "get", "move", "worklist")
    assert (PACS.may, PACS.rights, str(PACS)) == (RIGHTS, rights, "PACS@10.0.0.5:104")
    assert str(Node("six", "SIX", "fe80::1%eth0", 104)) == "SIX@[fe80::1%eth0]:104"
    assert Node("some", "SOME", "h", 1, frozenset({"move", "echo"})).rights == ("echo", "move")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name: '' is none for a node"),
        ({"name": "-v"}, "name: '-v' is none for a node"),
        ({"name": "A@h"}, "name: 'A@h' is none for a node"),
        ({"name": "host:104"}, "name: 'host:104' is none for a node"),
        ({"name": "two words"}, "name: 'two words' is none for a node"),
        ({"name": "self"}, "name: 'self' is none for a node"),
        ({"ae_title": "SEVENTEEN LETTERS"}, "ae_title: 'SEVENTEEN LETTERS' is no AE title"),
        ({"ae_title": " PACS"}, "ae_title: ' PACS' is no AE title"),
        ({"ae_title": ""}, "ae_title: '' is no AE title"),
        ({"host": ""}, "host: '' is no host"),
        ({"host": "[::1]"}, "host: '[::1]' is no host"),
        ({"host": "${HOST}"}, "host: '${HOST}' is no host"),
        ({"port": 0}, "port: 0 is no port"),
        ({"port": 65536}, "port: 65536 is no port"),
        (
            {"may": frozenset({"echo", "delete"})},
            "may: 'delete' is no right: say echo, store, find, get, move, worklist",
        ),
        ({"networks": ("10.0.0.1/24",)}, "networks: '10.0.0.1/24' is no network: 10.0.0.1/24 has host bits set"),
        ({"networks": ("10.0.0.0/8", "ct.example")}, "networks: 'ct.example' is no network: "),
        ({"certificate": " pacs.example"}, "certificate: ' pacs.example' is neither a name nor a SHA-256 fingerprint"),
        ({"certificate": "pacs\nexample"}, "certificate: 'pacs\\nexample' is neither"),
    ],
)
def test_what_is_no_node(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LocalProtocolError, match=re.escape(message)):
        Node(**{"name": "pacs", "ae_title": "PACS", "host": "h", "port": 104, **changes})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CT Room 2", "CT-Room-2"),
        ("--a@b--", "a-b"),
        ("Röntgen_1.2", "Röntgen_1.2"),
        ("self", "node-self"),
        ("***", "node"),
        ("", "node"),
    ],
)
def test_names_made_of_any_text(text: str, name: str) -> None:
    assert node_name(text) == name
    assert Node(name, "A", "h", 1).name == name


# Who it is.


@pytest.mark.parametrize(
    ("networks", "host", "rule"),
    [
        ((), None, ""),
        (("10.0.0.0/24", "192.168.1.7"), "10.0.0.255", ""),
        (("10.0.0.0/24", "192.168.1.7"), "192.168.1.7", ""),
        (("10.0.0.0/24", "192.168.1.7"), "192.168.1.8", "networks"),
        (("10.0.0.0/24",), "10.0.1.0", "networks"),
        (("10.0.0.0/24",), "::ffff:10.0.0.9", ""),
        (("10.0.0.0/24",), "::a00:9", "networks"),
        (("10.0.0.0/24",), None, "networks"),
        (("10.0.0.0/24",), "no address", "networks"),
        (("fe80::/10",), "fe80::1%eth0", ""),
        (("0.0.0.0/0",), "::1", "networks"),
        (("::/0",), "127.0.0.1", "networks"),
    ],
)
def test_the_networks_of_a_node(networks: tuple[str, ...], host: str | None, rule: str) -> None:
    assert replace(PACS, networks=networks).rule_against(host, None) == rule


SHOWN = PeerCertificate("ab" * 32, True, names=("pacs.example", "2001:db8::1", "https://pacs.example/A"))


@pytest.mark.parametrize(
    ("certificate", "rule"),
    [
        ("pacs.example", ""),
        ("PACS.Example", ""),
        ("example", "certificate"),
        ("*.example", "certificate"),
        ("2001:DB8:0::1", ""),
        ("https://pacs.example/A", ""),
        ("https://pacs.example/a", "certificate"),
        ("ab" * 32, ""),
        ("AB:" * 31 + "AB", ""),
        ("sha256:" + "ab" * 32, ""),
        ("SHA256=" + "AB:" * 31 + "AB", ""),
        ("ab" * 31 + "ac", "certificate"),
        ("ab" * 31, "certificate"),
    ],
)
def test_the_certificate_of_a_node(certificate: str, rule: str) -> None:
    node = replace(PACS, certificate=certificate)
    assert node.rule_against("10.0.0.5", SHOWN) == rule
    assert node.rule_against("10.0.0.5", None) == "certificate"
    # What nobody certified has no names.
    assert node.rule_against(None, PeerCertificate("cd" * 32)) == "certificate"


def test_networks_and_certificate_have_both_to_be_right() -> None:
    node = replace(PACS, networks=("10.0.0.5",), certificate="pacs.example")
    assert node.rule_against("10.0.0.5", SHOWN) == ""
    assert node.rule_against("10.0.0.6", SHOWN) == "networks"
    assert node.rule_against("10.0.0.5", None) == "certificate"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True)]
    + [(host, False) for host in ("10.0.0.1", "::2", "localhost", "", None)],
)
def test_what_is_of_this_machine(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected


# aiodicom.toml.


def write(folder: Path, text: str) -> Path:
    path = folder / "aiodicom.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nodes_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [serve]
        storage = "elsewhere"

        [nodes.pacs]
        ae_title = "PACS"
        host = "10.0.0.5"
        port = 104

        [nodes."röntgen"]
        ae_title = "RT 1"
        host = "::1"
        port = 11112
        may = ["find", "echo"]
        networks = ["::1", "10.0.0.0/24"]
        certificate = "RT.example"

        [unknown]
        may = ["echo"]
        """,
    )
    assert read_nodes(path) == {
        "pacs": PACS,
        "röntgen": Node(
            "röntgen", "RT 1", "::1", 11112, frozenset({"echo", "find"}), ("::1", "10.0.0.0/24"), "rt.example"
        ),
    }
    assert read_unknown(path) == frozenset({"echo"})


def test_a_node_that_listens_for_tls(tmp_path: Path) -> None:
    node = Node("t", "T", "h", 2762, tls=True, tls_host_check=False)
    assert read_nodes(write(tmp_path, format_node(node))) == {"t": node}
    ours = Credentials(verify="required")
    assert credentials_for(replace(node, tls=False), ours) is None
    assert credentials_for(replace(node, tls_host_check=True), ours) is ours
    unchecked = credentials_for(node, ours)
    assert unchecked == Credentials(check_host=False)
    assert credentials_for(node, ours) is unchecked  # and so are its contexts


def test_a_file_without_nodes(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    assert read_nodes(path) == {}
    assert read_unknown(path) is None


def test_nobody_else_may_do_anything(tmp_path: Path) -> None:
    assert read_unknown(write(tmp_path, "[unknown]\nmay = []")) == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unknown", "is no TOML: "),
        ("unknown = 1", "[unknown]: is no table; write [unknown]"),
        ("[unknown]\nmay = []\nport = 1", "[unknown]: it has one key, may"),
        ("[unknown]\nmay = 'echo'", "[unknown]: may: is not an array of strings"),
        ("[unknown]\nmay = ['fly']", "[unknown]: may: 'fly' is no right"),
    ],
)
def test_what_is_wrong_about_everybody_else(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(LocalProtocolError, match=re.escape(f"{path}: {message}")):
        read_unknown(path)


GOOD = 'ae_title = "A"\nhost = "h"\nport = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes", "is no TOML: "),
        ("nodes = 1", "nodes: is no table; write [nodes.NAME]"),
        ("[nodes]\npacs = 1", "[nodes.pacs]: is no table"),
        ("[nodes.pacs]\nhost = 'h'\nport = 1", "[nodes.pacs]: ae_title: is missing"),
        (f"[nodes.pacs]\n{GOOD}hots = 'x'", "[nodes.pacs]: hots: is no key of a node"),
        ("[nodes.pacs]\nae_title = 'A'\nhost = 'h'\nport = '1'", "[nodes.pacs]: port: is not a number"),
        ("[nodes.pacs]\nae_title = 'A'\nhost = 'h'\nport = true", "[nodes.pacs]: port: is not a number"),
        ("[nodes.pacs]\nae_title = 5\nhost = 'h'\nport = 1", "[nodes.pacs]: ae_title: is not a string"),
        (f"[nodes.pacs]\n{GOOD}networks = '10.0.0.0/24'", "[nodes.pacs]: networks: is not an array of strings"),
        (f"[nodes.pacs]\n{GOOD}networks = []", "[nodes.pacs]: networks: says nothing"),
        (f"[nodes.pacs]\n{GOOD}networks = ['x']", "[nodes.pacs]: networks: 'x' is no network"),
        (f"[nodes.pacs]\n{GOOD}certificate = ['a']", "[nodes.pacs]: certificate: is not a string"),
        (f"[nodes.pacs]\n{GOOD}certificate = ''", "[nodes.pacs]: certificate: says nothing"),
        (f"[nodes.pacs]\n{GOOD}may = 'echo'", "[nodes.pacs]: may: is not an array of strings"),
        (f"[nodes.pacs]\n{GOOD}may = [1]", "[nodes.pacs]: may: is not an array of strings"),
        (f"[nodes.pacs]\n{GOOD}may = ['query']", "[nodes.pacs]: may: 'query' is no right"),
        (f'[nodes."a b"]\n{GOOD}', "[nodes.\"a b\"]: name: 'a b' is none"),
        (f"[nodes.one]\n{GOOD}[nodes.two]\n{GOOD}", "[nodes.two]: ae_title: 'A' is that of [nodes.one], too"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(LocalProtocolError, match=re.escape(f"{path}: {message}")):
        read_nodes(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "aiodicom.toml"
    path.write_bytes(b"# \xff\n")
    with pytest.raises(LocalProtocolError, match="not in UTF-8"):
        read_nodes(path)


def test_lines_of_a_node() -> None:
    assert format_node(PACS) == '[nodes.pacs]\nae_title = "PACS"\nhost = "10.0.0.5"\nport = 104'
    some = Node("a.b", 'SAY "A"', "h", 1, frozenset({"store", "echo"}))
    assert format_node(some) == '[nodes."a.b"]\nae_title = "SAY \\"A\\""\nhost = "h"\nport = 1\nmay = ["echo", "store"]'
    assert format_node(Node("none", "A", "h", 1, frozenset())).endswith("\nmay = []")
    over_tls = Node("t", "T", "h", 2762, tls=True, tls_host_check=False)
    assert format_node(over_tls).endswith("\nport = 2762\ntls = true\ntls_host_check = false")
    bound = replace(PACS, networks=("10.0.0.0/24", "::1"), certificate="PACS.example")
    assert format_node(bound).endswith('\nnetworks = ["10.0.0.0/24", "::1"]\ncertificate = "pacs.example"')


@pytest.mark.parametrize("before", ["", "# mine\n\n[serve]\nport = 1 # no newline at the end", "﻿[nodes]\r\n"])
def test_nodes_are_added_and_the_rest_stays(tmp_path: Path, before: str) -> None:
    path = tmp_path / "new" / "aiodicom.toml"
    if before:
        path.parent.mkdir()
        path.write_bytes(before.encode())
    bound = ("::1", "10.0.0.0/24"), "ab" * 32
    others = [
        Node("röntgen", "RT", "::1", 1, frozenset({"echo"}), *bound),
        Node("a.b", 'SAY "A"', "h", 65535, frozenset()),
    ]
    for node in (PACS, *others):
        add_node(path, node)
    assert read_nodes(path) == {node.name: node for node in (PACS, *others)}
    written = path.read_bytes().decode()
    assert written.startswith(before)
    assert f"\n{format_node(others[0])}\n\n{format_node(others[1])}\n" in written


@pytest.mark.parametrize(
    ("before", "node", "message"),
    [
        ("", Node("pacs", "OTHER", "h", 1), "there is a node 'pacs' already: PACS@10.0.0.5:104"),
        ("", Node("other", "PACS", "h", 1), "[nodes.other]: ae_title: 'PACS' is that of [nodes.pacs], too"),
        ("[broken", Node("other", "OTHER", "h", 1), "is no TOML"),
        ("nodes = { }\n", Node("other", "OTHER", "h", 1), "are written as one value, to which none can be appended"),
    ],
)
def test_what_cannot_be_added(tmp_path: Path, before: str, node: Node, message: str) -> None:
    path = write(tmp_path, before or f"{format_node(PACS)}\n")
    text = path.read_text()
    with pytest.raises(LocalProtocolError, match=re.escape(message)):
        add_node(path, node)
    assert path.read_text() == text


# Orthanc.


def test_modalities_in_both_forms_with_comments() -> None:
    text = r"""
    // the "first" line
    {
      "Name" : "http://not.a/comment", /* and
         "DicomModalities" : {} */
      "DicomModalities" : {
        "pacs" : [ "PACS", "10.0.0.5", 104 ],
        "CT \"1\"" : [ "CT 1 ", "ct.example", "11112", "GE", ],
        // "gone" : [ "GONE", "h", 1 ],
        "untrusted" : {
          "AET" : "ORTHANC", "Port" : 4242, "Host" : "::1", "Manufacturer" : "Generic",
          "AllowFind" : false, "AllowMove" : false, "AllowStore" : true, "AllowFindWorklist" : true,
          "UseDicomTls" : true
        },
        "old" : { "AET" : "OLD", "Port" : 4242, "Host" : "h", "AllowFind" : false }, // the last one
      },
    }
    """
    assert nodes_from_orthanc(text) == [
        PACS,
        Node("CT-1", "CT 1", "ct.example", 11112),
        Node("untrusted", "ORTHANC", "::1", 4242, frozenset({"echo", "store", "get", "worklist"}), tls=True),
        Node("old", "OLD", "h", 4242, RIGHTS - {"find", "worklist"}),
    ]


def test_where_orthanc_checks_hosts_so_do_we() -> None:
    modalities = '{"a": ["A", "10.0.0.5", 104], "b": ["B", "b.example", 104], "c": ["C", "::1", 104]}'
    nodes = nodes_from_orthanc(f'{{"DicomCheckModalityHost": true, "DicomModalities": {modalities}}}')
    assert [node.networks for node in nodes] == [("10.0.0.5",), (), ("::1",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HostTable BEGIN", "is no configuration of Orthanc"),
        ("[]", "it has no DicomModalities"),
        ('{"DicomModalities": []}', "it has no DicomModalities"),
        ('{"DicomModalities": {"a": ["A", "h"]}}', "DicomModalities: 'a' is not"),
        ('{"DicomModalities": {"a": {"AET": "A"}}}', "DicomModalities: 'a' is not"),
        ('{"DicomModalities": {"a": ["A", "h", "x"]}}', "'a': port: 'x' is no port"),
        ('{"DicomModalities": {"a": ["A", "h", 99999]}}', "'a': port: 99999 is no port"),
        ('{"DicomModalities": {"a": ["back\\\\slash", "h", 1]}}', "'a': ae_title: "),
    ],
)
def test_what_is_no_configuration_of_orthanc(text: str, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=re.escape(message)):
        nodes_from_orthanc(text)


async def test_orthanc_has_the_same_modalities(tmp_path: Path) -> None:
    """The real one takes such a text, with its comments and its commas."""
    peer = Peer("Orthanc", "ORTHANC", free_port(), tmp_path / "storage", tmp_path / "orthanc.log")
    http_port = free_port()
    peer.directory.mkdir()
    modalities = """
        "DicomModalities" : {
          "pacs" : ["PACS", "10.0.0.5", 104], // "old" : ["OLD", "10.0.0.5", 104],
          "some" : { "AET" : "SOME", "Port" : "4242", "Host" : "::1", "AllowFind" : false, "AllowGet" : false, },
          /* "other" : ["OTHER", "h", 1], */
        }, // the end
        """
    text = f"{{{modalities}{json.dumps(settings(peer, http_port))[1:]}"
    configuration = tmp_path / "orthanc.json"
    configuration.write_text(text)
    command = [require("Orthanc", "orthanc"), str(configuration)]
    with running(peer, command, ready_port=http_port):
        there = json.loads(await Orthanc(peer, http_port).ask("GET", "/modalities?expand"))
    expected = {
        name: (
            each["AET"],
            each["Host"],
            each["Port"],
            frozenset(right for right in RIGHTS if each[f"Allow{right.replace('worklist', 'find').title()}"]),
        )
        for name, each in there.items()
    }
    nodes = nodes_from_orthanc(text)
    assert {node.name: (node.ae_title, node.host, node.port, node.may) for node in nodes} == expected
    assert [node.name for node in nodes] == ["pacs", "some"]
    assert nodes[1].may == {"echo", "store", "move"}


# dcmqrscp.

HOST_TABLE = """\
NetworkTCPPort  = 104
AETable BEGIN
AETable END
HostTable BEGIN
# Entry Format: SymbolicName = ( AETitle, HostName, Portnumber ), ...
#gone           = (GONE, h, 1)

acme1           = (ACME1, acmehost1, 5678)
acme2\t= "ACME 2, acmehost2, 5679"
acmeCTcompany   = acme1, acme2
united          = (UNITED1, h1, 104), (UNITED2, h2, 105)
all = united acmeCTcompany, (LAST, h3 , 106)
again           = acme1
HostTable END
"""


def test_the_host_table_with_groups_of_groups() -> None:
    assert nodes_from_dcmqrscp(HOST_TABLE) == [
        Node("acme1", "ACME1", "acmehost1", 5678),
        Node("acme2", "ACME 2", "acmehost2", 5679),
        Node("united-1", "UNITED1", "h1", 104),
        Node("united-2", "UNITED2", "h2", 105),
        Node("all-5", "LAST", "h3", 106),
        Node("again", "ACME1", "acmehost1", 5678),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a = b", "HostTable: 'a': 'b' is no (AET, host, port), nor a name that came before"),
        ("a = (A, h)", "HostTable: 'a': 'A, h' is no (AET, host, port)"),
        ("a =", "HostTable: 'a' stands for nothing"),
        ("= ,", "HostTable: '' stands for nothing"),
        ("a = (A, h, x)", "'a': port: 'x' is no port"),
        ("a = (A, h[1], 1)", "'a': host: 'h[1]' is no host"),
    ],
)
def test_a_wrong_host_table(lines: str, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=re.escape(message)):
        nodes_from_dcmqrscp(f"HostTable BEGIN\n{lines}\nHostTable END\n")


@pytest.mark.parametrize("text", ["", "HostTable BEGIN\na = (A, h, 1)\n", "# HostTable BEGIN\n# HostTable END\n"])
def test_no_host_table(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="there is no HostTable BEGIN"):
        nodes_from_dcmqrscp(text)


def test_the_configuration_that_comes_with_dcmtk() -> None:
    path = Path("/etc/dcmtk/dcmqrscp.cfg")
    if not path.exists():
        pytest.skip("install the Debian package dcmtk to run this test")
    assert nodes_from_dcmqrscp(path.read_text()) == []


def test_a_node_has_limits_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "aiodicom.toml"
    node = Node("ct", "CT", "ct.example", 104, limits={"idle": None, "maximum_instance": "1 MiB"})
    assert node.limits == {"idle": None, "maximum_instance": 1024 * 1024}
    add_node(path, node)
    assert read_nodes(path) == {"ct": node}
    path.write_text('[nodes.ct]\nae_title = "CT"\nhost = "h"\nport = 104\n[nodes.ct.limits]\nidle = 600\n')
    assert read_nodes(path)["ct"].limits == {"idle": 600}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"artim": 5},
            "limits: artim: is none that a node may have of its own: say idle, minimum_rate, maximum_instance",
        ),
        ({"idle": 0}, "limits: idle: 0 is none: a number in s, more than 0, or none"),
    ],
)
def test_what_is_no_limit_of_a_node(limits: dict[str, int], words: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Node("ct", "CT", "ct.example", 104, limits=limits)
    assert str(caught.value) == words
