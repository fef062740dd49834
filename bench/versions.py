"""Instances of which there are several versions: other content under one SOP Instance UID, each made of numbers alone."""

from __future__ import annotations

import random
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
STUDIES: Final = 8
_FIRST_STUDY: Final = 8_000_000_000
# They stand for the numbers in what all instances have in common; neither can come to be by putting in the other.
_STUDY: Final = "8888888888"
_NUMBER: Final = "77777777"
_VERSION: Final = "66666666"


class Version(NamedTuple):
    """An instance, and which of its versions.

    Args:
        number: which instance.
        version: 0 is the first one.
        size: bytes of pixel data, even and at least 32.
    """

    number: int
    version: int
    size: int

    @property
    def sop_instance_uid(self) -> str:
        """Its SOP Instance UID, which its versions share."""
        return f"{ROOT}.{_study(self.number)}.1.{_number(self.number)}"

    @property
    def study_instance_uid(self) -> str:
        """Its Study Instance UID."""
        return f"{ROOT}.{_study(self.number)}"

    def instance(self) -> EncodedInstance:
        """Return it, ready to be sent."""
        return EncodedInstance(CT, self.sop_instance_uid, SYNTAX, self.data_set())

    def data_set(self) -> bytes:
        """Return its data set; the pixel data begins and ends with what this version has alone."""
        mark = f"{_number(self.number)}{10_000_000 + self.version}".encode()
        return b"".join((self.head(), mark, _noise(self.size - 2 * len(mark)), mark))

    def head(self) -> bytes:
        """Return what comes before the value of its pixel data."""
        head = _head()
        values = (_study(self.number), _number(self.number), str(10_000_000 + self.version))
        for placeholder, value in zip((_STUDY, _NUMBER, _VERSION), values, strict=True):
            head = head.replace(placeholder.encode(), value.encode())
        return head + pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, self.size)


def number_of(sop_instance_uid: str) -> int:
    """Return the number that a SOP Instance UID is made of."""
    return int(sop_instance_uid.rpartition(".")[2]) - 10_000_000


def _study(number: int) -> str:
    return str(_FIRST_STUDY + number % STUDIES)


def _number(number: int) -> str:
    return str(10_000_000 + number)


@cache
def _head() -> bytes:
    made = Dataset()
    made.SOPClassUID = CT
    made.StudyInstanceUID = f"{ROOT}.{_STUDY}"
    made.SeriesInstanceUID = f"{ROOT}.{_STUDY}.1"
    made.SOPInstanceUID = f"{ROOT}.{_STUDY}.1.{_NUMBER}"
    made.PatientID, made.PatientName, made.Modality = f"P{_STUDY}", f"Version^{_VERSION}", "CT"
    return encode_data_set(made, SYNTAX)


@cache
def _noise(length: int) -> bytes:
    return random.Random(length).randbytes(length)
