"""One target under libFuzzer, guided by the branches that aiodicom takes: `python -m tests.fuzz.engine Z1 OPTION… FOLDER`.

The options are libFuzzer's. It is a process of its own since libFuzzer ends the process that it runs in; `runs` starts it.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["aiodicom"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run libFuzzer on the target that the command line names first."""
    program, name, *options = sys.argv
    atheris.Setup([program, *options], TARGETS[name], internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
