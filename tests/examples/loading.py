"""The examples as modules, their servers on a free port."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

import aiodicom

EXAMPLES: Final = Path(__file__).parent.parent.parent / "examples"


def load(name: str) -> ModuleType:
    """Import an example anew."""
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_a_free_port(module: ModuleType) -> aiodicom.Server:
    """The server of an example."""
    server = module.server
    assert isinstance(server, aiodicom.Server)
    server.listeners = (aiodicom.Listener(port=0),)
    server.limits = server.limits.changed(stop=0)
    return server
