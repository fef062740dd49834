"""How things are said."""

from __future__ import annotations

import pytest

from aiodicom.cli.words import amount, duration, rate, size, status_words, with_uid_names
from aiodicom.dimse.status import Status
from aiodicom.logs import printable


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (39_205, "39.2 kB"), (999_960, "1.0 MB"), (5e12, "5.0 TB")],
)
def test_sizes(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.000412, "0.41 ms"), (0.012, "12 ms"), (3.21, "3.2 s"), (125, "2 min 05 s"), (3600, "60 min 00 s")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_amounts() -> None:
    assert [amount(count, "file") for count in (0, 1, 12_000)] == ["0 files", "1 file", "12,000 files"]
    assert [amount(count, "study", "studies") for count in (1, 2)] == ["1 study", "2 studies"]


@pytest.mark.parametrize(
    ("count", "volume", "words"),
    [(1, 1000, ""), (20, 4_000_000, ": 2.0 MB/s, 10 instances/s"), (20, 0, ": 10 instances/s")],
)
def test_rates(count: int, volume: int, words: str) -> None:
    assert rate(count, volume, 2.0) == words
    assert rate(count, volume, 0.0) == ""


def test_a_peer_cannot_paint_the_terminal() -> None:
    assert printable("disk\x1b[31m full\n\x9bé") == "disk\\x1b[31m full\\n\\x9bé"


def test_statuses() -> None:
    assert status_words(Status(0)) == "0x0000 Success"
    assert status_words(Status(0xA700), "disk\a") == "0xA700 Failure, Refused: Out of Resources (disk\\x07)"


def test_uids_by_name() -> None:
    text = "1.2.840.10008.5.1.4.1.1.2 in 1.2.840.10008.1.2.1; 1.2.840.10008.1.2.99999, 1.2.3"
    words = "CT Image Storage in Explicit VR Little Endian; 1.2.840.10008.1.2.99999, 1.2.3"
    assert with_uid_names(text) == words
