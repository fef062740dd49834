"""Keys that a peer does not match by."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from aiodicom.cli.ignored import Ignored
from aiodicom.dataset import decode_data_set
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.cli.asking import match, query


def counts(arguments: list[str], *matches: Dataset) -> dict[str, int]:
    ignored = Ignored(query(*arguments).identifier)
    for each in matches:
        ignored.look_at(each)
    return ignored.counts()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["-k", "PatientName=doe*"], {"PatientName": 1}),
        (["-k", "PatientName=Doe^J?ne", "-k", "StudyDate=20240101-"], {"PatientName": 1, "StudyDate": 1}),
        (["-k", "StudyDate=20230101-20250101"], {}),
        (["-k", "StudyInstanceUID=1.2\\1.3"], {}),
        (["-k", "StudyInstanceUID=1.3"], {"StudyInstanceUID": 1}),
        (["-k", "AccessionNumber=17"], {}),
        (["-k", "RequestAttributesSequence[0].RequestedProcedureID=1"], {}),
    ],
)
def test_they_show_in_the_matches(arguments: list[str], expected: dict[str, int]) -> None:
    jane = match(PatientName="Doe^Jane", StudyDate="20240131", StudyInstanceUID="1.2", AccessionNumber="")
    john = match(PatientName="Smith^John", StudyDate="20231231", StudyInstanceUID="1.3")
    assert counts(arguments, jane, john) == expected


def test_what_is_no_value_of_its_vr_says_nothing() -> None:
    broken = decode_data_set(b"\x28\0\x10\0US\x03\0abc", EXPLICIT_VR_LITTLE_ENDIAN)
    assert counts(["-k", "Rows=3"], broken) == {}
