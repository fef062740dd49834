"""What a fuzz target is, and the invariants that hold for all of them.

An invariant is checked by `expect`, not by `assert`, so that `python -O` checks it, too. The cheap ones look at every
input; the dear ones at a sample of them, which the input itself decides, so that what fails once fails again.
"""

from __future__ import annotations

import gc
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

Check: TypeAlias = Callable[[bytes], None]

_MEMORY_IS_LOOKED_AT = 4096  # one input of so many


class Violation(AssertionError):
    """An invariant does not hold."""


def expect(condition: object, what: str, *details: object) -> None:
    """Say that an invariant holds.

    Raises:
        Violation: it does not; it names the details.
    """
    if not condition:
        raise Violation(what, *details)


def twice(data: bytes) -> int:
    """Return how many bytes may be taken for an input: twice its length, and 64 KiB."""
    return 2 * len(data) + 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes bytes from elsewhere, and what must be true whatever they are.

    Args:
        name: its id.
        what: what is fuzzed, in words.
        light: the invariants that every input is put to.
        heavy: those that one of `one_in` is put to.
        seeds: makes inputs to begin with.
        one_in: how rare the heavy ones are.
        memory: how many bytes the light ones may take for an input.
        maximum_length: of an input, in bytes.
        in_ci: how many inputs the quick run takes.
    """

    name: str
    what: str
    light: Check
    heavy: Check
    seeds: Callable[[], Iterable[bytes]]
    one_in: int = 64
    memory: Callable[[bytes], int] = twice
    maximum_length: int = 4096
    in_ci: int = 200_000

    def __call__(self, data: bytes) -> None:
        """Put an input to the light invariants, and to the heavy ones when it is its turn."""
        self.light(data)
        number = zlib.crc32(data)
        if number % self.one_in == 0:
            self.heavy(data)
        if number % _MEMORY_IS_LOOKED_AT == 1:
            self.weigh(data)

    def thorough(self, data: bytes) -> None:
        """Put an input to all invariants."""
        self.light(data)
        self.heavy(data)
        self.weigh(data)

    def weigh(self, data: bytes) -> None:
        """Look at how much memory the light invariants take at most (I4)."""
        self.light(data)  # so that what is cached or imported is there
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            self.light(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        allowed = self.memory(data)
        expect(peak - before <= allowed, f"I4: {peak - before} bytes for {len(data)}, where {allowed} are allowed")
