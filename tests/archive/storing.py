"""A script that keeps instances until it is killed, and prints the number of each that is safe."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiodicom.archive import Archive
from tests.archive.keeping import instance


def pixels(number: int) -> bytes:
    """Of sizes around the border between small and large."""
    return number.to_bytes(4, "big") * (64 if number % 10 else 400_000)


async def main(folder: Path, start: int, *, shared: bool) -> None:
    async with Archive(folder, on_duplicate="replace", shared=shared) as archive:
        print("ready", flush=True)
        numbers = iter(range(start, start + 1_000_000))

        async def send() -> None:
            for number in numbers:
                again = number % 7 == 0  # this one is replaced by itself with another name
                for name in ("Doe^Jane", "Roe^Jane") if again else ("Doe^Jane",):
                    await archive.add(instance(number, pixels=pixels(number), PatientName=name))
                    sys.stdout.write(f"{number} {name}\n")
                    sys.stdout.flush()

        await asyncio.gather(*(send() for _ in range(16)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), shared="shared" in sys.argv[3:]))
