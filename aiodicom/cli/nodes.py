"""`aiodicom nodes`: the nodes that this program knows, one more, or those of an Orthanc or of a dcmqrscp."""

from __future__ import annotations

import json
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Final

from aiodicom.cli.columns import Columns
from aiodicom.cli.configuration import configuration_file, known_nodes, user_file
from aiodicom.cli.console import bold, complain, say, say_list
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.options import Command, Parser, add_config
from aiodicom.cli.peer import ANY_AE_TITLE, parse_peer
from aiodicom.cli.words import amount
from aiodicom.errors import LocalProtocolError
from aiodicom.nodes import RIGHTS, Node, add_node, nodes_from_dcmqrscp, nodes_from_orthanc, rights_in_order

HELP: Final = "list the nodes that are known by name, add one, import those of another program"
NOTES: Final = """\
  list                     the default; JSON Lines where the output is no terminal
  add NAME AET@HOST:PORT   or, as DCMTK's tools have it, add NAME HOST PORT -aec AET
  import FILE              from a configuration of Orthanc, or from a dcmqrscp.cfg

The nodes are in ./aiodicom.toml where there is one, else in ~/.config/aiodicom/aiodicom.toml.
Other commands take NAME for a PEER, and `aiodicom serve` allows a node what it may: echo, store,
find, get, move, and worklist, which is to find in that. Whoever has the AE title of a node, but
calls from elsewhere, or without that certificate, may do nothing."""

HEADINGS: Final = ("NAME", "AE TITLE", "HOST", "PORT", "MAY")
BOUND: Final = "ONLY FROM"
EVERYTHING: Final = "everything"


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse its command line."""
    parser = Parser("aiodicom nodes", "aiodicom nodes [options] [list | add NAME PEER | import FILE]", HELP, NOTES)
    parser.add_argument("words", metavar="list, add, import", nargs="*", help="see below")
    parser.add_argument("-aec", "--call", metavar="AET", help="AE title of the node that is added")
    parser.add_argument(
        "--may", metavar="RIGHTS", help=f"what it may: some of {','.join(rights_in_order(RIGHTS))} (all)"
    )
    parser.add_argument("--networks", metavar="LIST", help="from where it calls: 10.0.0.0/24,10.1.0.5 (anywhere)")
    parser.add_argument(
        "--certificate",
        metavar="NAME",
        default="",
        help="what it shows by TLS: an alternative name or a fingerprint",
    )
    parser.add_argument("--tls", action="store_true", help="it listens for DICOM over TLS")
    parser.add_argument(
        "--tls-no-host-check", action="store_true", help="there its certificate may be for another host than it has"
    )
    add_config(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    options = parser.parse_intermixed_args(arguments)
    try:
        options.action, options.subject = _action(options)
    except (ValueError, LocalProtocolError) as error:
        parser.error(str(error))
    return options


def _action(options: Namespace) -> tuple[str, Node | Path | None]:
    """Return what is to be done, and with what."""
    match options.words:
        case ["add", name, *peer] if peer:
            return "add", _node(name, peer, options)
        case _ if (
            any(value is not None for value in (options.call, options.may, options.networks))
            or options.certificate
            or options.tls
            or options.tls_no_host_check
        ):
            raise ValueError("-aec, --may, --networks, --certificate and --tls… belong to add NAME AET@HOST:PORT")
        case [] | ["list"]:
            return "list", None
        case ["import", file]:
            return "import", Path(file)
        case ["add", *_]:
            raise ValueError("write add NAME AET@HOST:PORT")
        case ["import", *_]:
            raise ValueError("write import FILE")
        case _:
            raise ValueError(f"{options.words[0]!r} is none of list, add, import, or has too many words behind it")


def _node(name: str, peer: Sequence[str], options: Namespace) -> Node:
    address, rest = parse_peer(peer, options.call)
    if rest:
        raise ValueError(f"unexpected: {' '.join(rest)}")
    if address.ae_title == ANY_AE_TITLE:
        raise ValueError("name its AE title: AET@HOST:PORT, or HOST PORT -aec AET")
    may = RIGHTS if options.may is None else frozenset(_words(options.may))
    return Node(
        name,
        address.ae_title,
        address.host,
        address.port,
        may,
        tuple(_words(options.networks or "")),
        options.certificate,
        tls=options.tls or options.tls_no_host_check,
        tls_host_check=not options.tls_no_host_check,
    )


def _words(text: str) -> Iterator[str]:
    return filter(None, re.split(r"[,\s]+", text))


async def run(options: Namespace) -> ExitCode:
    """Do it."""
    match options.subject:
        case Node() as node:
            return _add(options, node)
        case Path() as file:
            return _import(options, file)
        case _:
            return _list(options)


def _list(options: Namespace) -> ExitCode:
    path, nodes = configuration_file(options.config), known_nodes(options.config)
    if not sys.stdout.isatty():
        for node in nodes.values():
            keys = ("name", "ae_title", "host", "port", "networks", "certificate", "tls", "tls_host_check")
            say(json.dumps({**{key: getattr(node, key) for key in keys}, "may": node.rights}))
    elif nodes:
        _say_table(nodes, f"{amount(len(nodes), 'node')} in {path}")
    else:
        say("there are no nodes yet; write  aiodicom nodes add NAME AET@HOST:PORT")
    return ExitCode.OK


def _say_table(nodes: Mapping[str, Node], title: str) -> None:
    rows: list[tuple[str, ...]] = [HEADINGS]
    rows += [(node.name, node.ae_title, node.host, str(node.port), _may(node)) for node in nodes.values()]
    if any(bounds := [*map(_bound, nodes.values())]):
        rows = [(*row, bound) for row, bound in zip(rows, (BOUND, *bounds), strict=True)]
    columns = Columns(rows, get_terminal_size().columns)
    heading, *lines = map(columns.line, rows)
    say("\n".join((title, "", bold(heading), *lines)))


def _may(node: Node) -> str:
    return EVERYTHING if node.may == RIGHTS else ", ".join(node.rights) or "nothing"


def _bound(node: Node) -> str:
    """Return from where, and with which certificate, it calls."""
    certificate = node.certificate if len(node.certificate) < 64 else f"{node.certificate[:8]}…"
    return ", ".join((*node.networks, *([f"with {certificate}"] if certificate else [])))


def _add(options: Namespace, node: Node) -> ExitCode:
    path = configuration_file(options.config) or user_file()
    if failure := _write(path, node):
        return failure
    if not options.quiet:
        say(f"added {node.name}, {node}, to {path}\ntry it:  aiodicom echo {shlex.quote(node.name)}")
    return ExitCode.OK


def _import(options: Namespace, file: Path) -> ExitCode:
    try:
        text = file.read_text(encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        complain(f"{file}: {error.strerror}")
        return ExitCode.CANNOT_READ_INPUT
    try:
        found = (nodes_from_dcmqrscp if "HostTable" in text else nodes_from_orthanc)(text)
    except LocalProtocolError as error:
        raise LocalProtocolError(f"{file}: {error}") from None
    path = configuration_file(options.config) or user_file()
    nodes = dict(known_nodes(path)) if path.exists() else {}
    added, there, refused = [], [], []
    for node in found:
        if other := _same(node, nodes):
            there.append(f"{node.name}, {node}" + (f", as {other.name}" if other.name != node.name else ""))
        elif reason := _conflict(node, nodes):
            refused.append(f"{node.name}, {node}: {reason}")
        else:
            if failure := _write(path, node):
                return failure
            nodes[node.name] = node
            only = f", only from {_bound(node)}" if _bound(node) else ""
            added.append(f"{node.name}, {node}, may {_may(node)}{only}")
    if not options.quiet:
        if not found:
            say(f"there are no nodes in {file}")
        say_list(f"added to {path}", added)
        say_list("there already", there)
    say_list("not added", refused)
    return ExitCode.WARNINGS if refused else ExitCode.OK


def _same(node: Node, nodes: Mapping[str, Node]) -> Node | None:
    """Return the node that is known by that AE title, at that address."""
    return next((each for each in nodes.values() if str(each) == str(node)), None)


def _conflict(node: Node, nodes: Mapping[str, Node]) -> str:
    """Return why a node cannot be one more; empty where it can."""
    if node.name in nodes:
        return f"there is another node of that name, {nodes[node.name]}"
    for other in nodes.values():
        if other.ae_title == node.ae_title:
            return f"its AE title is that of {other.name}, {other}"
    return ""


def _write(path: Path, node: Node) -> ExitCode | None:
    """Add a node to the file; return what went wrong."""
    try:
        add_node(path, node)
    except OSError as error:
        complain(f"{path}: {error.strerror}")
        return ExitCode.CANNOT_WRITE_OUTPUT
    return None


COMMAND: Final = Command(HELP, parse, run)
