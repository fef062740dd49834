"""Nodes: the other AEs that an application knows, and what each may ask of it; kept in an `aiodicom.toml`.

A node is a table of that file, of which the last three may be left out: by default it may do everything, and whoever has its
AE title is taken for it. An AE title proves nothing, a certificate does. `unknown` is everybody else::

    [nodes.pacs]
    ae_title = "PACS"
    host = "10.0.0.5"
    port = 104
    networks = ["10.0.0.0/24"]
    certificate = "pacs.example"
    may = ["echo", "find", "get"]
    tls = true

    [unknown]
    may = ["echo"]

They are also read from what the users of Orthanc and of DCMTK's dcmqrscp have: their configurations.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from aiodicom.errors import LocalProtocolError
from aiodicom.limits import limits_from, per_node
from aiodicom.tls import Credentials, PeerCertificate, credentials_from
from aiodicom.upper_layer.pdu import valid_ae_title

__all__ = [
    "RIGHTS",
    "Node",
    "add_node",
    "check_rights",
    "credentials_for",
    "format_address",
    "format_header",
    "format_key",
    "format_node",
    "is_loopback",
    "node_name",
    "nodes_from_dcmqrscp",
    "nodes_from_orthanc",
    "read_audit",
    "read_credentials",
    "read_limits",
    "read_nodes",
    "read_unknown",
    "rights_in_order",
]

T = TypeVar("T")

_RIGHTS_IN_ORDER: Final = ("echo", "store", "find", "get", "move", "worklist")
RIGHTS: Final = frozenset(_RIGHTS_IN_ORDER)
"""What a node may be allowed: `find` is C-FIND in the models of Query/Retrieve, `worklist` that in the Modality Worklist."""

Network: TypeAlias = IPv4Network | IPv6Network

_NAME: Final = re.compile(r"\w[\w.-]*")
_RESERVED: Final = "self"  # what `--to self` means
_HOST: Final = re.compile(r"[\w.:%-]+")  # a name, or an address of IPv4 or IPv6, with its scope
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    "ae_title": (str, "a string"),
    "host": (str, "a string"),
    "port": (int, "a number"),
    "networks": (list, "an array of strings"),
    "certificate": (str, "a string"),
    "may": (list, "an array of strings"),
    "tls": (bool, "true or false"),
    "tls_host_check": (bool, "true or false"),
    "limits": (dict, "a table"),
}
_AUDIT_KEYS: Final[Mapping[str, tuple[type, str]]] = {
    "file": (str, "a string"),
    "syslog": (str, 'a string, such as "collector.example:6514"'),
    "source": (str, "a string"),
    "site": (str, "a string"),
    "tls": (dict, 'a table: write [audit.tls], and below it such as certificate = "us.pem"'),
}
_FINGERPRINT: Final = re.compile(r"(?:sha-?256[:=]?)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)
_ORTHANC_RIGHTS: Final = {
    "AllowEcho": "echo",
    "AllowStore": "store",
    "AllowFind": "find",
    "AllowGet": "get",
    "AllowMove": "move",
    "AllowFindWorklist": "worklist",
}


@dataclass(frozen=True, slots=True)
class Node:
    """Another AE: where it is, and what it may ask of us.

    Args:
        name: how it is called here: letters, digits, and `-`, `_`, `.` behind the first; not "self".
        ae_title: by which it calls, and is called.
        host: its name or address.
        port: on which it listens.
        may: some of `RIGHTS`; by default all of them.
        networks: from where it calls, such as "10.0.0.0/24" or "10.0.0.5"; by default from anywhere.
        certificate: what it shows when it calls by TLS: an alternative name that an authority of ours certified, or the
            SHA-256 fingerprint; by default it need not show any.
        tls: whether it listens for DICOM over TLS there.
        tls_host_check: whether its certificate must be for `host` then, see `Credentials`.
        limits: those of `Limits` that a node may have of its own, where it calls: `idle`, `minimum_rate`, `maximum_instance`.

    Raises:
        LocalProtocolError: one of these is none; the message begins with which.
    """

    name: str
    ae_title: str
    host: str
    port: int
    may: frozenset[str] = RIGHTS
    networks: tuple[str, ...] = ()
    certificate: str = ""
    tls: bool = False
    tls_host_check: bool = True
    limits: Mapping[str, Any] = field(default_factory=dict, hash=False)
    _networks: tuple[Network, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == _RESERVED:
            raise LocalProtocolError(
                f"name: {self.name!r} is none for a node: letters, digits, and '-', '_', '.' behind the first; not 'self'"
            )
        if not valid_ae_title(self.ae_title) or self.ae_title != self.ae_title.strip():
            raise LocalProtocolError(
                f"ae_title: {self.ae_title!r} is no AE title: 1 to 16 ASCII characters, without a backslash"
            )
        if not _HOST.fullmatch(self.host):
            raise LocalProtocolError(f"host: {self.host!r} is no host: write its name or its address, without a port")
        if not 0 < self.port < 65536:
            raise LocalProtocolError(f"port: {self.port} is no port: a number from 1 to 65535")
        check_rights(self.may)
        object.__setattr__(self, "limits", _own_limits(self.limits))
        object.__setattr__(self, "_networks", tuple(map(_network, self.networks)))
        object.__setattr__(self, "certificate", _normal_certificate(self.certificate))

    def __str__(self) -> str:
        return format_address(self.ae_title, self.host, self.port)

    @property
    def rights(self) -> tuple[str, ...]:
        """What it may, in the order of the Standard's services."""
        return rights_in_order(self.may)

    def rule_against(self, host: str | None, certificate: PeerCertificate | None) -> str:
        """Return which rule says that a peer is not this node, though it has its AE title.

        Args:
            host: the address that the peer calls from.
            certificate: what it showed in its TLS handshake.

        Returns:
            "networks" or "certificate"; empty where the peer is this node.
        """
        if self._networks:
            address = _address(host)
            if address is None or not any(address in network for network in self._networks):
                return "networks"
        if self.certificate and (
            certificate is None or self.certificate not in (certificate.fingerprint, *certificate.names)
        ):
            return "certificate"
        return ""


def check_rights(rights: frozenset[str]) -> None:
    """See that rights are some.

    Raises:
        LocalProtocolError: one is none; the message begins with "may".
    """
    if unknown := rights - RIGHTS:
        raise LocalProtocolError(f"may: {min(unknown)!r} is no right: say {', '.join(_RIGHTS_IN_ORDER)}")


def rights_in_order(rights: Iterable[str]) -> tuple[str, ...]:
    """Return rights in the order of the Standard's services."""
    return tuple(sorted(rights, key=_RIGHTS_IN_ORDER.index))


def _own_limits(limits: Mapping[str, Any]) -> Mapping[str, Any]:
    names = per_node()
    for name in limits:
        if name not in names:
            raise LocalProtocolError(f"limits: {name}: is none that a node may have of its own: say {', '.join(names)}")
    try:
        return limits_from(limits)
    except LocalProtocolError as error:
        raise LocalProtocolError(f"limits: {error}") from None


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        advice = "write such as '10.0.0.0/24' or '10.0.0.5'"
        raise LocalProtocolError(f"networks: {text!r} is no network: {error}; {advice}") from None


@lru_cache(maxsize=1024)
def _address(host: str | None) -> IPv4Address | IPv6Address | None:
    """Return the address of a peer, that of IPv4 behind one of IPv6 where it is mapped to it."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str | None) -> bool:
    """Return whether an address is one of this machine's to itself."""
    address = _address(host)
    return address is not None and address.is_loopback


def _normal_certificate(text: str) -> str:
    """Return a fingerprint or a name as `PeerCertificate` has them."""
    if not text.isprintable() or text != text.strip():
        raise LocalProtocolError(f"certificate: {text!r} is neither a name nor a SHA-256 fingerprint")
    if found := _FINGERPRINT.fullmatch(text):
        return found[1].replace(":", "").lower()
    if "://" in text:
        return text  # a URI
    address = _address(text)
    return text.lower() if address is None else str(address)


def format_address(ae_title: str, host: str, port: int) -> str:
    """Return `AET@HOST:PORT`, an address of IPv6 in brackets."""
    return f"{ae_title}@[{host}]:{port}" if ":" in host else f"{ae_title}@{host}:{port}"


def credentials_for(node: Node, tls: Credentials) -> Credentials | None:
    """Return with which credentials to call a node, of those that we have; None for one that wants no TLS."""
    if not node.tls:
        return None
    return tls if node.tls_host_check else tls.without_host_check()


def node_name(text: str) -> str:
    """Return a name for a node that comes as near to `text` as it may: "CT Room 2" is called "CT-Room-2"."""
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.")
    return name if name and name != _RESERVED else f"node-{name}".rstrip("-")


# ---- aiodicom.toml


def read_nodes(path: str | os.PathLike[str]) -> dict[str, Node]:
    """Return the nodes of an `aiodicom.toml` by name: its tables `[nodes.NAME]`; other tables are not looked at.

    Raises:
        LocalProtocolError: it is no TOML, or a table of a node is wrong, or two have one AE title: nobody could say
            then which of them calls. The message names the file, the table and the key.
        OSError: the file cannot be read.
    """
    return _nodes_of(_text_of(path), path)


def read_limits(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the limits of an `aiodicom.toml`, its table `[limits]`, by the names of the fields of `Limits`.

    Raises:
        LocalProtocolError: it is no TOML, or that table is wrong; the message names the file and the key.
        OSError: the file cannot be read.
    """
    return _read_table(path, "limits", "idle = 120", limits_from)


def read_credentials(path: str | os.PathLike[str]) -> Credentials:
    """Return who we are over TLS, and whom we believe: the table `[tls]` of an `aiodicom.toml`, see `Credentials`.

    What it names without a folder is in that of the file.

    Raises:
        LocalProtocolError: it is no TOML, or that table is wrong; the message names the file and the key.
        OSError: the file cannot be read.
    """
    return _read_table(path, "tls", 'certificate = "us.pem"', partial(credentials_from, Path(path).parent))


def read_audit(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what an `aiodicom.toml` says of the audit trail, its table `[audit]`, by its keys.

    They are `file`, `syslog`, `source` and `site`, and `tls`, a table as `read_credentials` has it, for the collector. What
    is named without a folder is in that of the file.

    Raises:
        LocalProtocolError: it is no TOML, or that table is wrong; the message names the file and the key.
        OSError: the file cannot be read.
    """
    return _read_table(path, "audit", 'file = "audit.xml"', partial(_audit_from, Path(path).parent))


def _audit_from(folder: Path, table: Mapping[str, object]) -> dict[str, Any]:
    values: dict[str, Any] = dict(table)
    for key, value in values.items():
        if key not in _AUDIT_KEYS:
            raise LocalProtocolError(f"{key}: is no key of an audit trail; they are {', '.join(_AUDIT_KEYS)}")
        kind, words = _AUDIT_KEYS[key]
        if not isinstance(value, kind):
            raise LocalProtocolError(f"{key}: is not {words}")
    if "file" in values:
        values["file"] = folder / values["file"]
    if "tls" in values:
        try:
            values["tls"] = credentials_from(folder, values["tls"])
        except LocalProtocolError as error:
            raise LocalProtocolError(f"tls: {error}") from None
    return values


def _read_table(path: str | os.PathLike[str], name: str, example: str, read: Callable[[Mapping[str, object]], T]) -> T:
    table = _tables_of(_text_of(path), path).get(name, {})
    try:
        if not isinstance(table, dict):
            raise LocalProtocolError(f"is no table; write [{name}], and below it such as {example}")
        return read(table)
    except LocalProtocolError as error:
        raise LocalProtocolError(f"{os.fspath(path)}: [{name}]: {error}") from None


def read_unknown(path: str | os.PathLike[str]) -> frozenset[str] | None:
    """Return what an `aiodicom.toml` allows to everybody who is no node: its table `[unknown]`.

    Returns:
        None where it does not say.

    Raises:
        LocalProtocolError: it is no TOML, or that table is wrong; the message names the file and the key.
        OSError: the file cannot be read.
    """
    return _read_table(path, "unknown", 'may = ["echo"]', _unknown_of)


def _unknown_of(table: Mapping[str, Any]) -> frozenset[str] | None:
    if not table:
        return None
    if table.keys() != {"may"}:
        raise LocalProtocolError("it has one key, may")
    _check_key("may", table["may"])
    may = frozenset(table["may"])
    check_rights(may)
    return may


def format_node(node: Node) -> str:
    """Return the lines of an `aiodicom.toml` that make the node known, without a newline at the end."""
    lines = [
        format_header(node),
        format_key("ae_title", node.ae_title),
        format_key("host", node.host),
        f"port = {node.port}",
    ]
    if node.networks:
        lines.append(format_key("networks", node.networks))
    if node.certificate:
        lines.append(format_key("certificate", node.certificate))
    if node.may != RIGHTS:
        lines.append(format_key("may", node.rights))
    if node.tls:
        lines.append("tls = true")
    if not node.tls_host_check:
        lines.append("tls_host_check = false")
    if node.limits:
        own = ((name, '"none"' if value is None else value) for name, value in node.limits.items())
        lines.append(f"limits = {{ {', '.join(f'{name} = {value}' for name, value in own)} }}")
    return "\n".join(lines)


def format_key(key: str, value: str | Iterable[str]) -> str:
    """Return the line of an `aiodicom.toml` that gives a key that string, or those strings."""
    written = _toml_string(value) if isinstance(value, str) else f"[{', '.join(map(_toml_string, value))}]"
    return f"{key} = {written}"


def format_header(node: Node) -> str:
    """Return the line of an `aiodicom.toml` with which the table of a node begins."""
    return f"[nodes.{_toml_key(node.name)}]"


def add_node(path: str | os.PathLike[str], node: Node) -> None:
    """Append a node to an `aiodicom.toml`; what stands there stays as it is. The file is made if need be.

    Raises:
        LocalProtocolError: there is a node of that name, or of that AE title, or the file is wrong, see `read_nodes`.
        OSError: the file cannot be read or written.
    """
    where = Path(path)
    text = _text_of(path) if where.exists() else ""
    if there := _nodes_of(text, path).get(node.name):
        raise LocalProtocolError(f"{where}: there is a node {node.name!r} already: {there}")
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    addition = f"{gap}{format_node(node)}\n"
    try:
        tomllib.loads(text + addition)
    except tomllib.TOMLDecodeError:
        raise LocalProtocolError(
            f"{where}: its nodes are written as one value, to which none can be appended; add this one by hand"
        ) from None
    _nodes_of(text + addition, path)
    where.parent.mkdir(parents=True, exist_ok=True)
    with where.open("a", encoding="utf-8", newline="") as file:
        file.write(addition)


def _text_of(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LocalProtocolError(f"{os.fspath(path)}: is no TOML: it is not in UTF-8") from None


def _tables_of(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LocalProtocolError(f"{os.fspath(path)}: is no TOML: {error}") from None


def _nodes_of(text: str, path: str | os.PathLike[str]) -> dict[str, Node]:
    where = os.fspath(path)
    tables = _tables_of(text, path).get("nodes", {})
    if not isinstance(tables, dict):
        raise LocalProtocolError(f"{where}: nodes: is no table; write [nodes.NAME]")
    nodes: dict[str, Node] = {}
    names: dict[str, str] = {}
    for name, table in tables.items():
        try:
            node = _node_of(name, table)
            if (other := names.setdefault(node.ae_title, name)) != name:
                raise LocalProtocolError(f"ae_title: {node.ae_title!r} is that of [nodes.{_toml_key(other)}], too")
        except LocalProtocolError as error:
            raise LocalProtocolError(f"{where}: [nodes.{_toml_key(name)}]: {error}") from None
        nodes[name] = node
    return nodes


def _node_of(name: str, table: object) -> Node:
    if not isinstance(table, dict):
        raise LocalProtocolError("is no table; write [nodes.NAME], and below it ae_title, host and port")
    values: dict[str, Any] = dict(table)
    for key, value in values.items():
        _check_key(key, value)
        if not value and key in ("networks", "certificate"):
            raise LocalProtocolError(f"{key}: says nothing; leave it out where anything will do")
    for key in ("ae_title", "host", "port"):
        if key not in values:
            raise LocalProtocolError(f"{key}: is missing")
    if "may" in values:
        values["may"] = frozenset(values["may"])
    if "networks" in values:
        values["networks"] = tuple(values["networks"])
    return Node(name, **values)


def _check_key(key: str, value: object) -> None:
    if key not in _TYPES:
        raise LocalProtocolError(f"{key}: is no key of a node; it has {', '.join(_TYPES)}")
    kind, words = _TYPES[key]
    if type(value) is not kind or (isinstance(value, list) and not all(isinstance(each, str) for each in value)):
        raise LocalProtocolError(f"{key}: is not {words}")


def _toml_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml_string(name)


def _toml_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # the escapes of JSON are among TOML's


# ---- the configurations of others


def nodes_from_orthanc(text: str) -> list[Node]:
    """Return the `DicomModalities` of a configuration of Orthanc, in either of its forms, with what each may.

    Comments and commas at an end are allowed there. Names are made such as nodes have, see `node_name`; they, and the AE
    titles, may be there more than once. Where it has `DicomCheckModalityHost`, those with an address call from there only.

    Raises:
        LocalProtocolError: it is none, or one of them is wrong; the message names that one.
    """
    try:
        configuration: Any = json.loads(_plain_json(text))
    except ValueError as error:
        raise LocalProtocolError(f"is no configuration of Orthanc: {error}") from None
    modalities = configuration.get("DicomModalities") if isinstance(configuration, dict) else None
    if not isinstance(modalities, dict):
        raise LocalProtocolError("is no configuration of Orthanc: it has no DicomModalities")
    nodes = [_node_from_orthanc(name, modality) for name, modality in modalities.items()]
    checks_hosts = configuration.get("DicomCheckModalityHost") is True
    return [replace(node, networks=(node.host,)) if checks_hosts and _address(node.host) else node for node in nodes]


def _plain_json(text: str) -> str:
    """Take away what JSON does not have: comments, then commas at the end of an array or an object."""
    string = r'("(?:[^"\\]|\\.)*")'
    text = re.sub(rf"{string}|//[^\n]*|/\*.*?\*/", lambda found: found[1] or " ", text, flags=re.DOTALL)
    return re.sub(rf"{string}|,(?=\s*[\]}}])", lambda found: found[1] or "", text, flags=re.DOTALL)


def _node_from_orthanc(name: str, modality: Any) -> Node:  # noqa: ANN401 - whatever JSON has
    match modality:
        case [ae_title, host, port, *_]:
            may, tls = RIGHTS, False
        case {"AET": ae_title, "Host": host, "Port": port}:
            allowed = {
                "AllowFindWorklist": modality.get("AllowFind", True),
                **modality,
            }  # older ones have one key for both
            may = frozenset(right for key, right in _ORTHANC_RIGHTS.items() if allowed.get(key, True))
            tls = modality.get("UseDicomTls") is True
        case _:
            raise LocalProtocolError(
                f'DicomModalities: {name!r} is not ["AET", "host", port], nor has AET, Host and Port'
            )
    return replace(_node_from(name, str(ae_title), str(host), str(port), may), tls=tls)


def nodes_from_dcmqrscp(text: str) -> list[Node]:
    """Return the nodes of the `HostTable` of a `dcmqrscp.cfg`: those of a symbolic name for one AE are called by it.

    A symbolic name for a group of AEs gives those in it that have no name of their own: `NAME-1`, `NAME-2` … A name
    is made such as nodes have, see `node_name`. AE titles may be there more than once.

    Raises:
        LocalProtocolError: there is no such table, or a line of it is wrong; the message names its symbolic name.
    """
    table = re.search(
        r"^\s*HostTable\s+BEGIN\b[^\n]*\n(.*?)^\s*HostTable\s+END\b", text, flags=re.DOTALL | re.MULTILINE
    )
    if table is None:
        raise LocalProtocolError("is no configuration of dcmqrscp: there is no HostTable BEGIN … HostTable END in it")
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for line in table[1].splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            _read_host_line(line, groups)
    named = {peers[0] for peers in groups.values() if len(peers) == 1}
    nodes = []
    for name, peers in groups.items():
        if len(peers) == 1:
            nodes.append(_node_from(name, *peers[0], RIGHTS))
        for number, peer in enumerate(peers, 1):
            if peer not in named:
                nodes.append(_node_from(f"{name}-{number}", *peer, RIGHTS))
                named.add(peer)
    return nodes


def _read_host_line(line: str, groups: dict[str, list[tuple[str, str, str]]]) -> None:
    """Add what a line `NAME = (AET, host, port), …` or `NAME = NAME, …` says."""
    # Gaps and quotes are what DCMTK takes for them; what is quoted and has commas is an AE.
    (name, _), *values = _host_words(line) or [("", False)]
    peers = []
    for value, is_quoted in values:
        parts = tuple(part.strip() for part in value.split(","))
        if is_quoted and len(parts) == 3:
            peers.append((parts[0], parts[1], parts[2]))
        elif value in groups:
            peers += groups[value]
        else:
            raise LocalProtocolError(
                f"HostTable: {name!r}: {value!r} is no (AET, host, port), nor a name that came before"
            )
    if not peers:
        raise LocalProtocolError(f"HostTable: {name!r} stands for nothing")
    groups[name] = peers


def _host_words(line: str) -> list[tuple[str, bool]]:
    """Return the words of a line of the HostTable, and whether each is in quotes or parentheses."""
    found = re.findall(r"""["'(]([^"'()]*)["')]|([^\s=,"'()]+)""", line)
    return [(bare or quoted, not bare) for quoted, bare in found]


def _node_from(name: str, ae_title: str, host: str, port: str, may: frozenset[str]) -> Node:
    if not (port.isascii() and port.isdecimal()):
        raise LocalProtocolError(f"{name!r}: port: {port!r} is no port: a number from 1 to 65535")
    try:
        return Node(node_name(name), ae_title.strip(), host.strip(), int(port), may)
    except LocalProtocolError as error:
        raise LocalProtocolError(f"{name!r}: {error}") from None
