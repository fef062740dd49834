"""How things are said on a terminal: sizes, statuses, UIDs by their names, and nothing that a peer could paint with."""

from __future__ import annotations

import re
from typing import Final

from aiodicom.dimse.status import Status
from aiodicom.logs import printable

_UID: Final = re.compile(r"\b1\.2\.840\.10008(?:\.[0-9]+)+\b")


def with_uid_names(text: str) -> str:
    """Return text in which the Standard's UIDs are replaced by their names (PS3.6 Annex A)."""

    def name(match: re.Match[str]) -> str:
        from aiodicom.uids import uid_name

        return uid_name(match[0])

    return _UID.sub(name, text)


def status_words(status: Status, comment: str | None = None) -> str:
    """Return a status code, its category and what it says: "0xA700 Failure, Refused: Out of Resources (disk full)"."""
    category, description = status.category.value, status.description
    words = f"0x{status:04X} {category}"
    if description != category:
        words += f", {description}"
    return f"{words} ({printable(comment)})" if comment else words


def size(count: float) -> str:
    """Return a number of bytes: "39.2 kB"."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def amount(count: int, noun: str, plural: str = "") -> str:
    """Return a number of things: "1 file", "12,000 files"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def rate(count: int, volume: int, seconds: float) -> str:
    """Return how fast instances went, as what stands behind their time: ": 4.2 MB/s, 120 instances/s"; empty for one.

    Args:
        count: how many instances.
        volume: how many bytes they have; 0 where that is not known.
        seconds: in which time.
    """
    if count < 2 or seconds <= 0:
        return ""
    speeds = (f"{size(volume / seconds)}/s" if volume else "", f"{count / seconds:,.0f} instances/s")
    return f": {', '.join(filter(None, speeds))}"


def duration(seconds: float) -> str:
    """Return a time: "0.41 ms", "12 ms", "3.2 s", "2 min 05 s"."""
    if seconds < 0.01:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"
