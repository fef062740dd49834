"""A small world of studies, the same every time, with the values that archives stumble over.

Whatever is in it has a label: a patient `jane`, a study `jane/abdomen`, a series `jane/abdomen/1`, an instance
`jane/abdomen/1/3`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
)

ROOT: Final = "1.2.826.0.1.3680043.10.954.7"
LONGEST_UID: Final = 64
SIDE: Final = 4  # pixels

SOP_CLASSES: Final[Mapping[str, str]] = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "US": UltrasoundImageStorage,
    "SR": BasicTextSRStorage,
}

Attributes = Mapping[str, Any]

# Two have the same ID from different issuers, and names that differ by case and trailing carets; two have IDs that
# differ by case alone, with characters that mean something to SQL; the last one is almost anonymous.
PATIENTS: Final[Mapping[str, Attributes]] = {
    "jane": {
        "PatientName": "Doe^Jane",
        "PatientID": "1001",
        "IssuerOfPatientID": "NORTH",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "OtherPatientIDs": ["N-1", "N-2"],
    },
    "jane-caps": {
        "PatientName": "DOE^JANE^^^",
        "PatientID": "1001",
        "IssuerOfPatientID": "SOUTH",
        "PatientBirthDate": "19701231",
        "PatientSex": "F",
    },
    "mueller": {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller^Jürgen^^Dr.",
        "PatientID": "M-2",
        "PatientBirthDate": "",
        "PatientSex": "M",
        "PatientComments": "Größe: 1,80 m\r\nmüde",
    },
    "yamada": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "PatientID": "JP 3",
        "PatientBirthDate": "18991231",
        "PatientSex": "M",
    },
    "wang": {
        "SpecificCharacterSet": "GB18030",
        "PatientName": "Wang^XiaoDong=王^小东",
        "PatientID": "CN-4",
        "PatientBirthDate": "20000229",
        "PatientSex": "O",
    },
    "papadopoulou": {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Παπαδοπούλου^Ελένη",
        "PatientID": "GR-Ω-5",
        "PatientBirthDate": "19851110",
        "PatientSex": "F",
    },
    "odd": {
        "PatientName": "O'Brien*^Pat?",
        "PatientID": "abc/7%_",
        "PatientBirthDate": "19991231",
        "PatientSex": "M",
        "OtherPatientIDs": ["[a]", "100%", 'say "x"', "x_y"],
    },
    "nameless": {
        "PatientName": "",
        "PatientID": "ABC/7%_",
        "PatientBirthDate": "",
        "PatientSex": "",
    },
}

# What is empty is there without a value, what is not named is not there at all. `jane/chest`, `odd/plain` and
# `nameless/all` have several modalities.
STUDIES: Final[Mapping[str, Attributes]] = {
    "jane/abdomen": {
        "StudyDate": "20191231",
        "StudyTime": "235959.999999",
        "AccessionNumber": "0001",
        "StudyID": "1",
        "StudyDescription": "CT Abdomen",
        "ReferringPhysicianName": "Smith^Adam",
        "NameOfPhysiciansReadingStudy": ["Reader^One", "Reader^Two"],
    },
    "jane/chest": {
        "StudyDate": "20200101",
        "StudyTime": "000000",
        "AccessionNumber": "1",
        "StudyID": "2",
        "StudyDescription": "CT Chest",
        "ReferringPhysicianName": "smith^adam",
    },
    "jane-caps/knee": {
        "StudyDate": "20200229",
        "StudyTime": "1200",
        "AccessionNumber": "A10",
        "StudyID": "1",
        "StudyDescription": "MR KNEE",
        "ReferringPhysicianName": "Jones^Bea",
    },
    "mueller/head": {
        "StudyDate": "20200301",
        "AccessionNumber": "",
        "StudyID": "Kö",
        "StudyDescription": "Schädel",
        "ReferringPhysicianName": "Größer^Änne",
    },
    "mueller/belly": {
        "StudyDate": "20200315",
        "StudyTime": "101112.5",
        "AccessionNumber": "A11",
        "StudyID": "",
        "StudyDescription": "Sonographie",
        "ReferringPhysicianName": "",
    },
    "yamada/lung": {
        "StudyDate": "20210101",
        "StudyTime": "080000",
        "AccessionNumber": "A12",
        "StudyID": "5",
        "StudyDescription": "胸部",
        "ReferringPhysicianName": "Suzuki^Ichirou=鈴木^一郎",
    },
    "yamada/spine": {
        "StudyDate": "20210101",
        "StudyTime": "08",
        "AccessionNumber": "A13",
        "StudyID": "6",
        "StudyDescription": "CT spine",
        "ReferringPhysicianName": "Suzuki^Ichirou=鈴木^一郎",
    },
    "wang/liver": {
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "A14",
        "StudyID": "7",
        "StudyDescription": "肝脏",
        "ReferringPhysicianName": "Li^Na=李^娜",
    },
    "papadopoulou/heart": {
        "StudyDate": "20201110",
        "StudyTime": "101112.000500",
        "AccessionNumber": "Å-15",
        "StudyID": "8",
        "StudyDescription": "Καρδιά",
        "ReferringPhysicianName": "Jérôme^Zoë",
    },
    "papadopoulou/long": {
        "StudyDate": "20201110",
        "StudyTime": "101112",
        "AccessionNumber": "A16",
        "StudyID": "9",
        "StudyDescription": "long UIDs",
        "ReferringPhysicianName": "Jérôme^Zoë",
    },
    "odd/plain": {
        "StudyDate": "19991231",
        "StudyTime": "235959",
        "AccessionNumber": "A*7?",
        "StudyID": "[10]",
        "StudyDescription": '50% "off" [a_b] O\'Hara; DROP TABLE studies; --',
        "ReferringPhysicianName": "O'Hara^Scarlett",
    },
    "odd/other": {
        "StudyDate": "20000101",
        "StudyTime": "000000.000001",
        "AccessionNumber": "A_17",
        "StudyID": "10",
        "StudyDescription": "50x off",
        "ReferringPhysicianName": "OHara^Scarlett",
    },
    "nameless/report": {
        "StudyDate": "20200630",
        "StudyTime": "173000",
        "AccessionNumber": "A18",
        "StudyID": "11",
        "StudyDescription": "",
        "ReferringPhysicianName": "",
    },
    "nameless/all": {
        "StudyDate": "20200701",
        "StudyTime": "1730",
        "AccessionNumber": "A19",
        "StudyID": "12",
        "StudyDescription": "Everything",
        "ReferringPhysicianName": "",
    },
}

# For each study the modalities of its series, and of how many instances each has.
SERIES: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "jane/abdomen": (("CT", 5), ("CT", 5)),
    "jane/chest": (("CT", 4), ("SR", 1), ("CR", 2)),
    "jane-caps/knee": (("MR", 6), ("MR", 6)),
    "mueller/head": (("MR", 5), ("SR", 1)),
    "mueller/belly": (("US", 4), ("US", 4)),
    "yamada/lung": (("CR", 2), ("CR", 2)),
    "yamada/spine": (("CT", 9), ("CT", 6)),
    "wang/liver": (("MR", 8), ("MR", 6)),
    "papadopoulou/heart": (("US", 3), ("MR", 2)),
    "papadopoulou/long": (("CT", 6), ("MR", 6)),
    "odd/plain": (("CT", 5), ("SR", 1)),
    "odd/other": (("CR", 1),),
    "nameless/report": (("SR", 1), ("SR", 1)),
    "nameless/all": (("CT", 5), ("MR", 5), ("CR", 2), ("US", 4), ("SR", 2)),
}

# Instances that take their pixels, and with them SOP class and transfer syntax, from a file that comes with pydicom.
PIXELS_FROM: Final[Mapping[str, str]] = {
    "papadopoulou/heart/1/1": "SC_rgb_jpeg_dcmtk.dcm",
    "papadopoulou/heart/2/1": "MR_small_jp2klossless.dcm",
    "papadopoulou/heart/2/2": "MR_small_RLE.dcm",
}
TRANSFER_SYNTAXES: Final[Mapping[str, UID]] = {
    "odd/plain/1/1": DeflatedExplicitVRLittleEndian,
    "odd/plain/1/2": ImplicitVRLittleEndian,
}


def write_studies(folder: Path) -> list[Path]:
    """Write every instance as a Part 10 file into a folder, which is made if need be; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label, instance in world().items():
        path = folder / f"{label.replace('/', '.')}.dcm"
        instance.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


@cache
def world() -> Mapping[str, Dataset]:
    """Every instance by its label, in a fixed order; they are shared, so leave them as they are."""
    return {
        f"{study}/{series}/{number}": make_instance(study, modality, series, number)
        for study, all_series in SERIES.items()
        for series, (modality, count) in enumerate(all_series, 1)
        for number in range(1, count + 1)
    }


def instances_of(label: str) -> list[Dataset]:
    """The instances of the patient, study or series of that label, or the one of that label."""
    found = [instance for name, instance in world().items() if f"{name}/".startswith(f"{label}/")]
    if not found:
        raise KeyError(label)
    return found


def uid_of(label: str) -> str:
    """The UID of the study, series or instance of that label."""
    keyword = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")[label.count("/") - 1]
    return str(instances_of(label)[0][keyword].value)


def make_instance(study: str, modality: str, series: int, number: int) -> Dataset:
    """One instance of a study, encoded in the character set of its patient."""
    label = f"{study}/{series}/{number}"
    study_number = list(STUDIES).index(study) + 1
    longest = study == "papadopoulou/long"
    dataset = Dataset()
    dataset.SOPClassUID = SOP_CLASSES[modality]
    dataset.SOPInstanceUID = make_uid(study_number, series, number, longest=longest)
    dataset.StudyInstanceUID = make_uid(study_number, longest=longest)
    dataset.SeriesInstanceUID = make_uid(study_number, series, longest=longest)
    attributes = {**PATIENTS[study.partition("/")[0]], **STUDIES[study], **series_attributes(study, modality, series)}
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.InstanceNumber = number
    dataset.ContentDate = "20200101"
    dataset.ContentTime = f"1011{number:02}"
    if modality == "SR":
        dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    else:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if number % 2 else ["DERIVED", "SECONDARY"]
        add_pixels(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = TRANSFER_SYNTAXES.get(label, ExplicitVRLittleEndian)
    if label in PIXELS_FROM:
        take_pixels(dataset, PIXELS_FROM[label])
    return dataset


def series_attributes(study: str, modality: str, series: int) -> Attributes:
    """The attributes of a series; its second has no number, no description, and no request."""
    attributes: dict[str, Any] = {
        "Modality": modality,
        "SeriesDate": "20200102",
        "SeriesTime": f"{series:02}3000.25",
        "BodyPartExamined": study.partition("/")[2].upper(),
        "SeriesNumber": series * 100,
        "SeriesDescription": f"{modality} series {series}",
        "OperatorsName": ["Operator^A", "Operator^B"],
        "InstitutionName": "Hospital",
        "PerformedProcedureStepStartDate": "20200102",
        "PerformedProcedureStepStartTime": "0930",
    }
    if series == 2:
        return {**attributes, "SeriesNumber": None, "SeriesDescription": ""}
    request = Dataset()
    request.RequestedProcedureID = f"RP-{modality}"
    request.ScheduledProcedureStepID = f"SPS-{series}"
    return {**attributes, "RequestAttributesSequence": [request]}


def add_pixels(dataset: Dataset) -> None:
    """A tiny image."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = bytes(range(SIDE * SIDE * 2))
    dataset["PixelData"].VR = "OW"


def take_pixels(dataset: Dataset, name: str) -> None:
    """Replace the image by that of a file that comes with pydicom, compressed as it is there."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    source = dcmread(path)
    for element in source.group_dataset(0x0028):
        dataset[element.tag] = element
    dataset["PixelData"] = source["PixelData"]
    dataset["PixelData"].VR = "OB"  # as PS3.5 §A.4 has it; some of those files say OW
    dataset.SOPClassUID = source.SOPClassUID
    dataset.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID


def make_uid(*numbers: int, longest: bool) -> str:
    """A UID that ends in those numbers; with `longest` as long as a UID may be (PS3.5 §9.1)."""
    start, end = ROOT, ".".join(map(str, numbers))
    if longest:
        start = f"{start}.{'9' * (LONGEST_UID - len(start) - len(end) - 2)}"
    return f"{start}.{end}"
