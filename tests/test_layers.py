"""The floors of the package: imports point down, go in no circle, and keep the protocol core free of I/O."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Final

import pytest

PACKAGE: Final = "aiodicom"

# The modules and packages directly in aiodicom/, from the ground up. Each imports from the lines above its own, and
# from its own line where that makes no circle.
FLOORS: Final[tuple[frozenset[str], ...]] = (
    frozenset({"errors", "version", "uids", "limits"}),
    frozenset({"upper_layer"}),
    frozenset({"dimse", "sequences", "inflating", "scanner", "scanning", "part10", "dataset", "partial", "rows"}),
    frozenset(
        {
            "transport",
            "secure_transport",
            "terms",
            "identity",
            "accounts",
            "tls",
            "workers",
            "nodes",
            "operation",
            "identifiers",
            "receiving",
            "outgoing",
            "sending",
            "planning",
            "query",
            "inquiring",
            "invoking",
            "performing",
            "scoped",
        }
    ),
    frozenset({"association", "handlers", "logs", "rights"}),
    frozenset({"client"}),
    frozenset({"services"}),
    frozenset({"admission", "server"}),
    frozenset({"activity", "audit", "remote"}),
    frozenset({"archive"}),
    frozenset({"cli", "conformance"}),
    frozenset({"__main__"}),
)
HEIGHT: Final = {unit: height for height, floor in enumerate(FLOORS) for unit in floor}
# These share a floor and still do not import each other.
STRANGERS: Final = ({"client", "server"}, {"dimse", "part10"}, {"dimse", "dataset"})
# Values and bytes, without I/O, without a clock.
PURE: Final = frozenset({"upper_layer", "dimse"})
IMPURE: Final = frozenset({"asyncio", "anyio", "socket", "ssl", "threading", "time", "logging", "pydicom"})
# aiodicom/__init__.py re-exports all the floors, so that inside nothing but this may be taken from it.
TAKEN_FROM_THE_ROOT: Final = frozenset({f"{PACKAGE}.__version__"})


def test_the_package_keeps_to_its_floors() -> None:
    root = Path(__file__).parent.parent
    sources = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in (root / PACKAGE).rglob("*.py")
    }
    assert f"{PACKAGE}/errors.py" in sources
    assert faults(sources) == []


def faults(sources: Mapping[str, str]) -> list[str]:
    """What is wrong with the imports of these source files, given by their path; one line each."""
    modules = {module_name(path): path for path in sources}
    found = []
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        if name == PACKAGE:
            continue
        if unit_of(name) not in HEIGHT:
            found.append(f"{path}: '{unit_of(name)}' stands on no floor: add it to FLOORS in tests/test_layers.py")
            continue
        graph[name] = set()
        for line, imported in imports(path, sources[path]):
            target = resolve(imported, modules)
            if fault := fault_of(name, imported, target):
                found.append(f"{path}:{line}: {fault}")
            elif target not in {PACKAGE, ""}:
                graph[name].add(target)
    return [*found, *circles(graph)]


def fault_of(importer: str, imported: str, target: str) -> str:
    """Why a module may not import that; empty when it may. `target` is the module of ours that it resolves to."""
    unit, target_unit = unit_of(importer), unit_of(target)
    if not target:
        outsider = imported.partition(".")[0]
        return f"{unit} imports {outsider}, but is to stay pure" if unit in PURE and outsider in IMPURE else ""
    if target == PACKAGE:
        return "" if imported in TAKEN_FROM_THE_ROOT else f"{imported} is taken from the root, or does not exist"
    if target_unit == unit or target_unit not in HEIGHT:  # the latter is a fault of its own
        return ""
    if {unit, target_unit} in STRANGERS:
        return f"{unit} and {target_unit} do not import each other"
    return f"{unit} imports {target_unit}, which is above it" if HEIGHT[target_unit] > HEIGHT[unit] else ""


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """The first circle of modules that import each other, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"imports go in a circle: {' ← '.join(error.args[1])}"]
    return []


def imports(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything a source file imports, function bodies and TYPE_CHECKING included."""
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(ast.parse(source, path)):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                base = [*package[: len(package) + 1 - node.level]] if node.level else []
                base += [node.module] if node.module else []
                yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def resolve(imported: str, modules: Mapping[str, str]) -> str:
    """The module of ours that a dotted name is, or is a name in; empty when it is none of ours."""
    while imported and imported not in modules:
        imported = imported.rpartition(".")[0]
    return imported


def module_name(path: str) -> str:
    """The dotted name of a source file; for an __init__.py that of its package."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(name: str) -> str:
    """The part of a dotted name that stands in FLOORS; empty for the package itself."""
    return name.split(".")[1] if "." in name else ""


# A small package that keeps to the floors: the planted files replace files of it, or come in addition.
GOOD: Final = {
    "aiodicom/__init__.py": "from aiodicom.client import associate",
    "aiodicom/errors.py": "class DicomNetworkError(Exception): ...",
    "aiodicom/version.py": "VERSION = '1'",
    "aiodicom/upper_layer/__init__.py": "",
    "aiodicom/upper_layer/items.py": "from aiodicom.errors import DicomNetworkError\nimport struct",
    "aiodicom/upper_layer/pdu.py": "from . import items\nfrom ..errors import DicomNetworkError",
    "aiodicom/dimse/__init__.py": "",
    "aiodicom/dimse/codec.py": "import aiodicom.upper_layer.pdu\nfrom aiodicom import errors, version",
    "aiodicom/dataset.py": "import pydicom\nfrom aiodicom.errors import DicomNetworkError",
    "aiodicom/transport.py": "import asyncio\nfrom aiodicom.upper_layer.pdu import PDU",
    "aiodicom/association.py": "from aiodicom.transport import Connection",
    "aiodicom/client.py": "from aiodicom.association import Association",
    "aiodicom/services/__init__.py": "from aiodicom.client import associate\nfrom aiodicom import __version__",
    "aiodicom/server.py": "from aiodicom.association import Association\nfrom aiodicom.services import echo",
    "aiodicom/cli/__init__.py": "from aiodicom.services import verification",
}


def test_good_imports_have_no_fault() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("aiodicom/errors.py", "import aiodicom.client", "errors.py:1: errors imports client, which is above it"),
        ("aiodicom/client.py", "import aiodicom.services", "client.py:1: client imports services, which is above it"),
        (
            "aiodicom/upper_layer/items.py",
            "import struct\ndef late():\n    from aiodicom.dimse import codec",
            "items.py:3: upper_layer imports dimse, which is above it",
        ),
        (
            "aiodicom/upper_layer/items.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..transport import Connection",
            "items.py:3: upper_layer imports transport, which is above it",
        ),
        (
            "aiodicom/transport.py",
            "from importlib import import_module\nimport_module('aiodicom.server')",
            "transport.py:2: transport imports server, which is above it",
        ),
        ("aiodicom/client.py", "from .server import Server", "client.py:1: client and server do not import each other"),
        ("aiodicom/dimse/codec.py", "from aiodicom import dataset", "dimse and dataset do not import each other"),
        ("aiodicom/dimse/codec.py", "import asyncio", "dimse imports asyncio, but is to stay pure"),
        (
            "aiodicom/upper_layer/pdu.py",
            "def name(uid):\n    from pydicom.uid import UID",
            "pdu.py:2: upper_layer imports pydicom, but is to stay pure",
        ),
        ("aiodicom/server.py", "import aiodicom", "server.py:1: aiodicom is taken from the root"),
        ("aiodicom/cli/__init__.py", "from aiodicom import Server", "aiodicom.Server is taken from the root"),
        ("aiodicom/misplaced.py", "", "'misplaced' stands on no floor: add it to FLOORS"),
        ("aiodicom/upper_layer/items.py", "from .pdu import PDU", "imports go in a circle: aiodicom.upper_layer."),
        ("aiodicom/version.py", "from .uids import ROOT", "version.py:1: aiodicom.uids.ROOT is taken from the root"),
    ],
)
def test_a_planted_fault_is_found(path: str, source: str, fault: str) -> None:
    found = faults({**GOOD, path: source})
    assert any(fault in line for line in found), found
