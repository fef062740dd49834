"""The objects that are sent: real and synthetic ones, in folders of as many as wanted, each with a UID of its own."""

from __future__ import annotations

import os
from enum import Enum
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import Final

from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

SIDE: Final = 512
FRAME: Final = SIDE * SIDE * 2  # bytes: 0.5 MB
MANY_FRAMES: Final = 954  # 500 MB
UID_DIGITS: Final = 5  # the end of a UID that tells copies apart
ROOT: Final = "1.2.826.0.1.3680043.8.498.1"  # pydicom's root, for objects that leave no machine


class Kind(Enum):
    """What is sent; the value is its name in reports."""

    SMALL = "39 KB"
    MEDIUM = "0.5 MB"
    LARGE = "500 MB"


NUMBER: Final = "000000"
"""What stands in every identifying value of the study that the studies of an archive are copies of."""


class Objects:
    """Makes folders of objects below a folder, when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, kind: Kind, count: int) -> Path:
        """Return a folder with `count` objects of that kind and nothing else."""
        folder = self._folder / f"{kind.name.lower()}-{count}"
        if not folder.exists():
            folder.mkdir(parents=True)
            original = self._original(kind)
            uid = str(dcmread(original, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
            for number in range(count):
                path = folder / f"{number:05}.dcm"
                if count == 1:
                    os.link(original, path)
                else:
                    copy_uid = f"{uid[:-UID_DIGITS]}{10 ** (UID_DIGITS - 1) + number}"
                    path.write_bytes(original.read_bytes().replace(uid.encode(), copy_uid.encode()))
        return folder

    def studies(self, count: int) -> Path:
        """Return a folder with `count` studies of one small instance each, with accession numbers from A000000 on."""
        folder = self._folder / f"studies-{count}"
        if not folder.exists():
            folder.mkdir(parents=True)
            original = _study()
            for number in range(count):
                digits = f"{number:0{len(NUMBER)}}"
                (folder / f"{digits}.dcm").write_bytes(original.replace(NUMBER.encode(), digits.encode()))
        return folder

    def nothing(self) -> Path:
        """Return a folder that is empty: what an archive holds that is stored to."""
        folder = self._folder / "nothing"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _original(self, kind: Kind) -> Path:
        path = self._folder / f"{kind.name.lower()}.dcm"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            if kind is Kind.SMALL:
                path.write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
            else:
                _write_image(path, 1 if kind is Kind.MEDIUM else MANY_FRAMES)
        return path


def study_uid(instance: Path) -> str:
    """Return the UID of the study of an instance."""
    return str(dcmread(instance, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def _study() -> bytes:
    """A study of one instance without an image, as a file; its UIDs end in a number, too."""
    instance = Dataset()
    instance.SOPClassUID = CTImageStorage
    instance.StudyInstanceUID = f"{ROOT}.9{NUMBER}"
    instance.SeriesInstanceUID, instance.SOPInstanceUID = f"{ROOT}.9{NUMBER}.1", f"{ROOT}.9{NUMBER}.1.1"
    instance.PatientName, instance.PatientID = f"Patient{NUMBER}^Bench", f"P{NUMBER}"
    instance.PatientBirthDate, instance.PatientSex = "19700131", "F"
    instance.StudyDate, instance.StudyTime, instance.AccessionNumber = "20200131", "101112", f"A{NUMBER}"
    instance.StudyID, instance.StudyDescription = "1", "CT Abdomen"
    instance.ReferringPhysicianName = "Referring^Physician"
    instance.Modality, instance.SeriesNumber, instance.InstanceNumber = "CT", 1, 1
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    dcmwrite(file, instance, enforce_file_format=True)
    return file.getvalue()


def _write_image(path: Path, frames: int) -> None:
    """Write a CT image of noise; the pixel data goes into the file frame by frame, so that memory does not matter."""
    image = Dataset()
    image.SOPClassUID = CTImageStorage if frames == 1 else EnhancedCTImageStorage
    image.SOPInstanceUID = f"{ROOT}.{frames}.{10**UID_DIGITS}"
    image.StudyInstanceUID = image.SeriesInstanceUID = f"{ROOT}.{frames}"
    image.PatientName, image.PatientID, image.Modality = "Bench^Mark", "BENCH", "CT"
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.Rows = image.Columns = SIDE
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.NumberOfFrames = frames
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, image, enforce_file_format=True)
    frame = os.urandom(FRAME)
    with path.open("ab") as file:
        file.write(pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, frames * FRAME))
        for _ in range(frames):
            file.write(frame)
