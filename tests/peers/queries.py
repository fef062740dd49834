"""A table of queries to the world of tests/studies.py, and what matches each by PS3.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.studies import PATIENTS, SERIES, STUDIES, uid_of, world

UTF_8: Final = "ISO_IR 192"
LATIN_1: Final = "ISO_IR 100"


@dataclass(frozen=True, slots=True)
class Query:
    """A C-FIND, and what PS3.4 answers.

    Args:
        name: what it is about.
        model: "patient", "study" or "patient-study".
        level: Query/Retrieve Level (0008,0052); without a value it is left out.
        keys: values by keyword; a key in the item of a sequence is `Sequence[0].Keyword`.
        matches: the labels of what has the values asked for.
        unknown: the labels of what matches because a value asked for is not known of it (PS3.4 §C.2.2.1.2).
        fails: whether the query is wrong, and is answered by a failure.
        character_set: in which it is asked; the Default Character Repertoire, if empty.
    """

    name: str
    model: str
    level: str
    keys: Mapping[str, str]
    matches: Sequence[str] = ()
    unknown: Sequence[str] = ()
    fails: bool = False
    character_set: str = ""


def below(label: str) -> list[str]:
    """The labels of the studies of a patient, of the series of a study, or of the instances of a series."""
    every: Iterable[str] = {0: STUDIES, 1: all_series(), 2: world()}[label.count("/")]
    return [each for each in every if each.rpartition("/")[0] == label]


def all_series() -> list[str]:
    """The labels of all the series."""
    return [f"{study}/{number}" for study, series in SERIES.items() for number in range(1, len(series) + 1)]


def others(every: Iterable[str], *but: str) -> list[str]:
    """Some labels but for those."""
    return [label for label in every if label not in but]


RETURN_STUDY: Final = {"StudyInstanceUID": "", "PatientID": ""}
JANES_STUDIES: Final = ("jane/abdomen", "jane/chest", "jane-caps/knee")
ABDOMEN: Final = {"StudyInstanceUID": uid_of("jane/abdomen")}
ABDOMEN_1: Final = {**ABDOMEN, "SeriesInstanceUID": uid_of("jane/abdomen/1")}
HEART_1: Final = {
    "StudyInstanceUID": uid_of("papadopoulou/heart"),
    "SeriesInstanceUID": uid_of("papadopoulou/heart/1"),
}
NO_TIME: Final = ("mueller/head", "wang/liver")
NO_REFERRING_PHYSICIAN: Final = ("mueller/belly", "nameless/report", "nameless/all")
NO_BIRTH_DATE: Final = ("mueller", "nameless")


def patients(name: str, keys: Mapping[str, str], *matches: str, **more: Any) -> Query:  # noqa: ANN401
    """A query for patients, by Patient Root."""
    return Query(name, "patient", "PATIENT", {"PatientID": "", "PatientName": "", **keys}, matches, **more)


def studies(name: str, keys: Mapping[str, str], *matches: str, **more: Any) -> Query:  # noqa: ANN401
    """A query for studies, by Study Root."""
    return Query(name, "study", "STUDY", {**RETURN_STUDY, **keys}, matches, **more)


def series(name: str, keys: Mapping[str, str], *matches: str, **more: Any) -> Query:  # noqa: ANN401
    """A query for series, by Study Root."""
    return Query(name, "study", "SERIES", {"SeriesInstanceUID": "", **keys}, matches, **more)


def instances(name: str, keys: Mapping[str, str], *matches: str, **more: Any) -> Query:  # noqa: ANN401
    """A query for instances, by Study Root."""
    return Query(name, "study", "IMAGE", {"SOPInstanceUID": "", **keys}, matches, **more)


QUERIES: Final = (
    # Patients.
    patients("every patient", {"PatientBirthDate": "", "PatientSex": ""}, *PATIENTS, character_set=UTF_8),
    patients("every patient, asked in Latin-1", {}, *PATIENTS, character_set=LATIN_1),
    patients("every patient, asked in ASCII", {}, *PATIENTS),
    patients(
        "patients and their counts",
        dict.fromkeys(
            ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances"), ""
        ),
        *PATIENTS,
        character_set=UTF_8,
    ),
    patients("an ID", {"PatientID": "1001"}, "jane", "jane-caps"),
    patients("an ID and its issuer", {"PatientID": "1001", "IssuerOfPatientID": "SOUTH"}, "jane-caps"),
    patients("an ID in its case", {"PatientID": "abc/7%_"}, "odd"),
    patients("an ID by wildcards", {"PatientID": "?BC/7*"}, "nameless"),
    patients("an ID with a space inside", {"PatientID": "JP 3"}, "yamada", character_set=UTF_8),
    patients("an ID of SQL's wildcard for any characters", {"PatientID": "%"}),
    patients("an ID of SQL's wildcard for one character", {"PatientID": "_001"}),
    patients("a name", {"PatientName": "Doe^Jane"}, "jane", "jane-caps", unknown=["nameless"]),
    patients("a name in another case", {"PatientName": "dOE^jANE"}, "jane", "jane-caps", unknown=["nameless"]),
    patients("a name with carets behind", {"PatientName": "Doe^Jane^^^"}, "jane", "jane-caps", unknown=["nameless"]),
    patients("a name by *", {"PatientName": "Do*"}, "jane", "jane-caps", unknown=["nameless"]),
    patients("a name by ?", {"PatientName": "Do?^Jane"}, "jane", "jane-caps", unknown=["nameless"]),
    patients("any name", {"PatientName": "*"}, *PATIENTS, character_set=UTF_8),
    patients("a name with wildcards of its own", {"PatientName": "O'Brien*^Pat?"}, "odd", unknown=["nameless"]),
    patients("a name that is SQL", {"PatientName": "x' OR '1'='1"}, unknown=["nameless"]),
    patients("a name in Latin-1", {"PatientName": "Müller*"}, "mueller", unknown=["nameless"], character_set=LATIN_1),
    patients("a name in UTF-8", {"PatientName": "Müller*"}, "mueller", unknown=["nameless"], character_set=UTF_8),
    patients(
        "a name with an umlaut in another case",
        {"PatientName": "MÜLLER*"},
        "mueller",
        unknown=["nameless"],
        character_set=UTF_8,
    ),
    patients("a Greek name", {"PatientName": "Παπαδ*"}, "papadopoulou", unknown=["nameless"], character_set=UTF_8),
    patients(
        "a name of three component groups",
        {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
        "yamada",
        unknown=["nameless"],
        character_set=UTF_8,
    ),
    patients(
        "an alphabetic name of three component groups",
        {"PatientName": "Yamada^Tarou"},
        "yamada",
        unknown=["nameless"],
        character_set=UTF_8,
    ),
    patients(
        "an ideographic name of three component groups",
        {"PatientName": "山田^太郎"},
        "yamada",
        unknown=["nameless"],
        character_set=UTF_8,
    ),
    patients(
        "a name of several component groups by *",
        {"PatientName": "Yamada*=山田*"},
        "yamada",
        unknown=["nameless"],
        character_set=UTF_8,
    ),
    patients("a Japanese name by *", {"PatientName": "*山田*"}, "yamada", unknown=["nameless"], character_set=UTF_8),
    patients("a Chinese name by *", {"PatientName": "*小东*"}, "wang", unknown=["nameless"], character_set=UTF_8),
    patients(
        "births in a range",
        {"PatientBirthDate": "19700101-19701231"},
        "jane",
        "jane-caps",
        unknown=NO_BIRTH_DATE,
        character_set=UTF_8,
    ),
    patients(
        "births until a day", {"PatientBirthDate": "-19000101"}, "yamada", unknown=NO_BIRTH_DATE, character_set=UTF_8
    ),
    patients(
        "one of several other IDs",
        {"OtherPatientIDs": "N-2"},
        "jane",
        unknown=others(PATIENTS, "jane", "odd"),
        character_set=UTF_8,
    ),
    # Studies.
    studies(
        "every study",
        dict.fromkeys(
            (
                "StudyDate",
                "StudyTime",
                "AccessionNumber",
                "StudyID",
                "StudyDescription",
                "ReferringPhysicianName",
                "PatientName",
            ),
            "",
        ),
        *STUDIES,
        character_set=UTF_8,
    ),
    studies(
        "studies and what is in them",
        dict.fromkeys(("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"), ""),
        *STUDIES,
        character_set=UTF_8,
    ),
    studies("studies and their SOP classes", {"SOPClassesInStudy": ""}, *STUDIES, character_set=UTF_8),
    studies(
        "a modality among others", {"ModalitiesInStudy": "CR"}, "jane/chest", "yamada/lung", "odd/other", "nameless/all"
    ),
    studies("a day", {"StudyDate": "20200229"}, "jane-caps/knee", unknown=["wang/liver"]),
    studies("days in a range", {"StudyDate": "20191231-20200229"}, *JANES_STUDIES, unknown=["wang/liver"]),
    studies("a day and later", {"StudyDate": "20210101-"}, "yamada/lung", "yamada/spine", unknown=["wang/liver"]),
    studies("a day and earlier", {"StudyDate": "-19991231"}, "odd/plain", unknown=["wang/liver"]),
    studies("a time, by its meaning", {"StudyTime": "120000"}, "jane-caps/knee", unknown=NO_TIME),
    studies("the last second of the day", {"StudyTime": "235959-"}, "jane/abdomen", "odd/plain", unknown=NO_TIME),
    studies("the first second of the day", {"StudyTime": "-000000"}, "jane/chest", unknown=NO_TIME),
    studies(
        "times with fractions",
        {"StudyTime": "101112-101112.0005"},
        "papadopoulou/heart",
        "papadopoulou/long",
        unknown=NO_TIME,
        character_set=UTF_8,
    ),
    studies("times to the minute", {"StudyTime": "1730-1730"}, "nameless/report", "nameless/all", unknown=NO_TIME),
    studies(
        "days and times, each by itself",
        {"StudyDate": "20200101-20201231", "StudyTime": "1000-1200"},
        "jane-caps/knee",
        "mueller/belly",
        "papadopoulou/heart",
        "papadopoulou/long",
        unknown=NO_TIME,
        character_set=UTF_8,
    ),
    studies(
        "a list of UIDs",
        {"StudyInstanceUID": "\\".join([uid_of("jane/chest"), "1.2.3", uid_of("odd/other")])},
        "jane/chest",
        "odd/other",
    ),
    studies(
        "the longest UID", {"StudyInstanceUID": uid_of("papadopoulou/long")}, "papadopoulou/long", character_set=UTF_8
    ),
    studies("a wildcard in a UID", {"StudyInstanceUID": f"{uid_of('jane/abdomen')}*"}),
    studies(
        "an accession number with zeros before", {"AccessionNumber": "0001"}, "jane/abdomen", unknown=["mueller/head"]
    ),
    studies("an accession number without them", {"AccessionNumber": "1"}, "jane/chest", unknown=["mueller/head"]),
    studies(
        "an accession number with wildcards of its own",
        {"AccessionNumber": "A*7?"},
        "odd/plain",
        unknown=["mueller/head"],
    ),
    studies(
        "an accession number beyond ASCII",
        {"AccessionNumber": "Å-15"},
        "papadopoulou/heart",
        unknown=["mueller/head"],
        character_set=UTF_8,
    ),
    studies("a study ID in brackets", {"StudyID": "[10]"}, "odd/plain", unknown=["mueller/belly"]),
    studies(
        "quotes and SQL in a description",
        {"StudyDescription": str(STUDIES["odd/plain"]["StudyDescription"])},
        "odd/plain",
        unknown=["nameless/report"],
    ),
    studies("a percent sign before a wildcard", {"StudyDescription": "50%*"}, "odd/plain", unknown=["nameless/report"]),
    studies("a description in another case", {"StudyDescription": "CT CHEST"}, unknown=["nameless/report"]),
    studies(
        "a German description",
        {"StudyDescription": "Schädel"},
        "mueller/head",
        unknown=["nameless/report"],
        character_set=UTF_8,
    ),
    studies(
        "a German description by ?",
        {"StudyDescription": "Sch?del"},
        "mueller/head",
        unknown=["nameless/report"],
        character_set=UTF_8,
    ),
    studies(
        "a Japanese description by ?",
        {"StudyDescription": "胸?"},
        "yamada/lung",
        unknown=["nameless/report"],
        character_set=UTF_8,
    ),
    studies(
        "a referring physician",
        {"ReferringPhysicianName": "SMITH^A*"},
        "jane/abdomen",
        "jane/chest",
        unknown=NO_REFERRING_PHYSICIAN,
    ),
    studies(
        "one of several readers",
        {"NameOfPhysiciansReadingStudy": "Reader^Two"},
        "jane/abdomen",
        unknown=others(STUDIES, "jane/abdomen"),
        character_set=UTF_8,
    ),
    studies("a patient's name", {"PatientName": "doe*"}, *JANES_STUDIES, unknown=below("nameless")),
    studies("an optional key that nothing has", {"MilitaryRank": ""}, *STUDIES, character_set=UTF_8),
    studies(
        "an optional key that nothing has, and a value",
        {"MilitaryRank": "Major"},
        unknown=list(STUDIES),
        character_set=UTF_8,
    ),
    Query("a patient's studies", "patient", "STUDY", {"PatientID": "1001", "StudyInstanceUID": ""}, JANES_STUDIES),
    Query(
        "a patient's studies, by Patient/Study Only",
        "patient-study",
        "STUDY",
        {"PatientID": "M-2", "StudyInstanceUID": ""},
        below("mueller"),
    ),
    # Series.
    series(
        "a study's series",
        {
            **ABDOMEN,
            **dict.fromkeys(("Modality", "SeriesNumber", "SeriesDescription", "NumberOfSeriesRelatedInstances"), ""),
        },
        *below("jane/abdomen"),
    ),
    series("a series of a modality", {"StudyInstanceUID": uid_of("nameless/all"), "Modality": "MR"}, "nameless/all/2"),
    series("a series number", {**ABDOMEN, "SeriesNumber": "100"}, "jane/abdomen/1", unknown=["jane/abdomen/2"]),
    series(
        "what was requested",
        {
            **ABDOMEN,
            "RequestAttributesSequence[0].RequestedProcedureID": "RP-C?",
            "RequestAttributesSequence[0].ScheduledProcedureStepID": "",
        },
        "jane/abdomen/1",
        unknown=["jane/abdomen/2"],
    ),
    series(
        "the longest UIDs",
        {
            "StudyInstanceUID": uid_of("papadopoulou/long"),
            "SeriesInstanceUID": uid_of("papadopoulou/long/2"),
            "Modality": "",
        },
        "papadopoulou/long/2",
    ),
    Query(
        "a study's series, by Patient Root",
        "patient",
        "SERIES",
        {"PatientID": "1001", **ABDOMEN, "SeriesInstanceUID": ""},
        below("jane/abdomen"),
    ),
    # Instances.
    instances(
        "a series' instances",
        {**ABDOMEN_1, **dict.fromkeys(("InstanceNumber", "SOPClassUID", "Rows", "ContentTime"), "")},
        *below("jane/abdomen/1"),
    ),
    instances("an instance number", {**ABDOMEN_1, "InstanceNumber": "2"}, "jane/abdomen/1/2"),
    instances("a SOP class", {**HEART_1, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "papadopoulou/heart/1/1"),
    instances(
        "one of several values",
        {**ABDOMEN_1, "ImageType": "AXIAL"},
        *(f"jane/abdomen/1/{number}" for number in (1, 3, 5)),
    ),
    # What is wrong.
    Query("no level", "study", "", {"StudyInstanceUID": ""}, fails=True),
    Query("a level that there is not", "study", "VISIT", {"StudyInstanceUID": ""}, fails=True),
    Query("a level that the model has not", "study", "PATIENT", {"PatientID": ""}, fails=True),
    Query(
        "series by Patient/Study Only",
        "patient-study",
        "SERIES",
        {"PatientID": "1001", **ABDOMEN, "SeriesInstanceUID": ""},
        fails=True,
    ),
    Query(
        "studies of no patient, by Patient Root",
        "patient",
        "STUDY",
        {"StudyInstanceUID": "", "PatientID": ""},
        fails=True,
    ),
    series("series of no study", {"StudyInstanceUID": ""}, fails=True),
    series(
        "series of two studies",
        {"StudyInstanceUID": "\\".join(map(uid_of, ("jane/abdomen", "jane/chest")))},
        fails=True,
    ),
    instances("instances of no series", {**ABDOMEN, "SeriesInstanceUID": ""}, fails=True),
)
