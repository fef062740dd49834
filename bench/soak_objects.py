"""The instances that `bench.soak` stores: each is made of its name alone, so that it can be compared without being kept."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from struct import pack
from typing import Final, NamedTuple

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from aiodicom import EncodedInstance
from aiodicom.dataset import encode_data_set
from bench.objects import ROOT

CT: Final = str(CTImageStorage)
SYNTAX: Final = str(ExplicitVRLittleEndian)
_FIRST_STUDY: Final = 9_000_000_000
_FIRST_NUMBER: Final = 90_000
# What stands in their place in what all instances of a size have in common; neither can come to be in the other.
_STUDY: Final = "8888888888"
_NUMBER: Final = "77777"


@dataclass(frozen=True, slots=True)
class Size:
    """A size of instances.

    Args:
        pixels: bytes of pixel data; 0 is an instance of 374 bytes without any.
        share: how often it is drawn, against the others.
        distinct: how many of them there are, all in one study: the same ones come again and again, so that the disk does
            not fill up. None draws new ones, in the study of whoever stores them.
    """

    pixels: int
    share: float
    distinct: int | None = None


SIZES: Final = (
    Size(0, 600),
    Size(3_000, 150),
    Size(39_000, 200),
    Size(500_000, 30, 400),
    Size(5_000_000, 8, 60),
    Size(30_000_000, 3, 16),
    Size(200_000_000, 0.3, 2),
)
LARGE: Final = 1_000_000
"""From this many bytes of pixel data on, only a few are sent at a time."""


class Name(NamedTuple):
    """What tells an instance from all others.

    Args:
        study: of ten digits, the first of them a 9.
        size: its place in `SIZES`.
        number: which one of its study and size it is.
    """

    study: str
    size: int
    number: int

    @property
    def series_instance_uid(self) -> str:
        """Its Series Instance UID: those of a size are a series."""
        return f"{study_uid(self.study)}.{self.size + 1}"

    @property
    def sop_instance_uid(self) -> str:
        """Its SOP Instance UID."""
        return f"{self.series_instance_uid}.{_FIRST_NUMBER + self.number}"

    @property
    def is_large(self) -> bool:
        """Whether only a few like it are to be sent at a time."""
        return SIZES[self.size].pixels >= LARGE


def name_of(sop_instance_uid: str) -> Name:
    """Return the name that a SOP Instance UID is made of."""
    study, size, number = sop_instance_uid.rsplit(".", 3)[1:]
    return Name(study, int(size) - 1, int(number) - _FIRST_NUMBER)


def study_of(client: int, number: int) -> str:
    """Return the study that a client makes as its so-manieth one; client 0 is everybody's."""
    return str(_FIRST_STUDY + client * 100_000 + number)


def study_uid(study: str) -> str:
    """Return its Study Instance UID."""
    return f"{ROOT}.{study}"


def draw(rng: random.Random, study: str, number: int) -> Name:
    """Draw an instance: a new one of that study, or one of those that come again."""
    [size] = rng.choices(range(len(SIZES)), _shares())
    distinct = SIZES[size].distinct
    return Name(study, size, number) if distinct is None else Name(study_of(0, size), size, rng.randrange(distinct))


def instance(name: Name) -> EncodedInstance:
    """Return an instance, ready to be sent."""
    return EncodedInstance(CT, name.sop_instance_uid, SYNTAX, data_set(name))


def data_set(name: Name) -> bytes:
    """Return its data set; the pixel data begins and ends with what it has alone."""
    study, number = name.study.encode(), f"{_FIRST_NUMBER + name.number}".encode()
    head = _head(name.size).replace(_NUMBER.encode(), number).replace(_STUDY.encode(), study)
    pixels = SIZES[name.size].pixels
    if not pixels:
        return head
    mark = (study + number).ljust(16)
    element = pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, pixels)
    return b"".join((head, element, mark, _noise(pixels - 2 * len(mark)), mark))


@cache
def _shares() -> Sequence[float]:
    return [size.share for size in SIZES]


@cache
def _head(size: int) -> bytes:
    made = Dataset()
    made.SOPClassUID = CT
    made.StudyInstanceUID = study_uid(_STUDY)
    made.SeriesInstanceUID = series = Name(_STUDY, size, 0).series_instance_uid
    made.SOPInstanceUID = f"{series}.{_NUMBER}"
    made.PatientName, made.PatientID, made.Modality = f"Soak^{_STUDY}", f"P{_STUDY}", "CT"
    made.PatientComments = "." * 130  # 374 bytes in all
    return encode_data_set(made, SYNTAX)


@cache
def _noise(length: int) -> bytes:
    return random.Random(length).randbytes(length)
