"""What the index keeps of an instance: the attributes of each level, a column each (PS3.4 §C.6.1.1, §C.6.2.1).

The unique and required keys of each level come first; the optional ones are those that viewers and worklists ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword

from aiodicom.query import Level


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that the index keeps.

    Args:
        keyword: of the data dictionary; also the name of its column.
        tag: as a number.
        vr: its value representation.
        level: of which entity it is an attribute.
    """

    keyword: str
    tag: int
    vr: str
    level: Level


_KEYWORDS: Final[Mapping[Level, str]] = {
    Level.PATIENT: """
        PatientID IssuerOfPatientID PatientName PatientBirthDate PatientBirthTime PatientSex OtherPatientIDs
        OtherPatientNames EthnicGroup PatientComments
        """,
    Level.STUDY: """
        StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID StudyDescription ReferringPhysicianName
        NameOfPhysiciansReadingStudy PhysiciansOfRecord AdmittingDiagnosesDescription PatientAge PatientSize PatientWeight
        Occupation AdditionalPatientHistory TimezoneOffsetFromUTC
        """,
    Level.SERIES: """
        SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime BodyPartExamined Laterality
        ProtocolName PerformingPhysicianName OperatorsName Manufacturer ManufacturerModelName StationName InstitutionName
        InstitutionalDepartmentName PatientPosition FrameOfReferenceUID PerformedProcedureStepID
        PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepDescription
        """,
    Level.IMAGE: """
        SOPInstanceUID SOPClassUID InstanceNumber AcquisitionNumber AcquisitionDate AcquisitionTime AcquisitionDateTime
        ContentDate ContentTime ImageType NumberOfFrames Rows Columns BitsAllocated PhotometricInterpretation
        ContentLabel ContentDescription
        """,
}


def _attribute(keyword: str, level: Level) -> Attribute:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return Attribute(keyword, tag, dictionary_VR(tag), level)


ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    keyword: _attribute(keyword, level) for level, keywords in _KEYWORDS.items() for keyword in keywords.split()
}
"""The attributes by keyword, from the patient's down."""


def of_level(level: Level) -> tuple[Attribute, ...]:
    """Return the attributes of a level, in the order of their columns."""
    return tuple(attribute for attribute in ATTRIBUTES.values() if attribute.level is level)
