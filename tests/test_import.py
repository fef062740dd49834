"""`import aiodicom`: light, and with everything public in it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import aiodicom


def test_importing_is_light() -> None:
    script = (
        "import sys, aiodicom; "
        "print([name for name in ('pydicom', 'numpy', 'uvloop', 'rich', 'sqlite3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_public_is_listed_once_and_in_order() -> None:
    assert len(set(aiodicom.__all__)) == len(aiodicom.__all__)
    assert list(aiodicom.__all__) == sorted(aiodicom.__all__)


@pytest.mark.parametrize("name", aiodicom.__all__)
def test_everything_public_is_there_and_documented(name: str) -> None:
    thing = getattr(aiodicom, name)
    if name == "__version__":
        assert thing
        return
    assert thing.__module__.startswith("aiodicom.")
    # A dataclass without a docstring gets its signature for one.
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("name", [name for name in aiodicom.__all__ if inspect.isclass(getattr(aiodicom, name))])
def test_every_public_method_is_documented(name: str) -> None:
    cls = getattr(aiodicom, name)
    described_by_their_module = {"encode", "decode"}
    members = {
        key: value.fget if isinstance(value, property) else value
        for key, value in vars(cls).items()
        if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, property | classmethod))
    }
    assert {key for key, value in members.items() if not inspect.getdoc(value)} <= described_by_their_module
