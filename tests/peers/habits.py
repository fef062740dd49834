"""How archives answer the queries of tests/peers/queries.py otherwise than PS3.4 has it, each with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.peers.asking import Answer, Answers, answers_of
from tests.peers.queries import Query, all_series, below, others
from tests.studies import PATIENTS, STUDIES


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different in the answers to one query.

    Args:
        why: the reason, in one line.
        matches: the labels of what it returns, where that is not what has the values asked for.
        lacks: the keys that it does not return.
        fails: whether it answers with a failure, where it should not, or does not, where it should.
    """

    why: str
    matches: Sequence[str] | None = None
    lacks: Sequence[str] = ()
    fails: bool | None = None


@dataclass(frozen=True, slots=True)
class Habits:
    """How an archive answers.

    Args:
        differences: by the name of the query.
        matches_unknown: whether it returns what matches because a value is not known (PS3.4 §C.2.2.1.2).
        merges_patients: whether those with the same Patient ID are one to it, whoever issued that; it then has the
            attributes of the first.
        models: the information models that it has.
    """

    differences: Mapping[str, Difference] = field(default_factory=dict)
    matches_unknown: bool = True
    merges_patients: bool = False
    models: Sequence[str] = ("patient", "study", "patient-study")


NO_DIFFERENCE: Final = Difference("")
SAME_ID: Final = ("jane", "jane-caps")


def unexpected(query: Query, answers: Answers, habits: Habits) -> list[str]:
    """What an archive of those habits should not have answered, or should have; one line each."""
    difference = habits.differences.get(query.name, NO_DIFFERENCE)
    fails = query.fails if difference.fails is None else difference.fails
    if fails != (answers.status != 0):
        return [f"final status {answers.status:04X}"]
    expected = Counter(expected_answers(query, difference, habits))
    found = Counter(answers.matches)
    return [
        *(f"not there: {answer}" for answer in (expected - found).elements()),
        *(f"not expected: {answer}" for answer in (found - expected).elements()),
    ]


def expected_answers(query: Query, difference: Difference, habits: Habits) -> list[Answer]:
    """The matches that an archive of those habits returns."""
    labels = list(query.matches)
    if difference.matches is not None:
        labels = list(difference.matches)
    elif habits.matches_unknown:
        labels += query.unknown
    if habits.merges_patients and difference.matches is None:
        labels = list(merged(labels))
    return [
        tuple((key, "" if key in difference.lacks else value) for key, value in answer)
        for answer in answers_of(labels, query)
    ]


def merged(labels: Iterable[str]) -> Iterable[str]:
    """The labels of patients, those with the same ID as one; of anything else, as they are."""
    return dict.fromkeys("+".join(SAME_ID) if label in SAME_ID else label for label in labels)


NAMES_AS_ONE_STRING: Final = "matches a name as one string, with all its component groups"
HAS_NOT: Final = "does not have these keys, and ignores what is asked of them"
CASE: Final = "matches names in their case, as PS3.4 §C.2.2.2.1.1 allows"
CARETS: Final = "takes the carets at the end of a name as part of it"
ONE_VALUE: Final = "matches several values as one string"
TIMES_AS_TEXT: Final = "compares times as text"
RELATIONAL: Final = "searches below everything, although relational queries were not negotiated (PS3.4 §C.4.1.2.1)"
NO_KANJI: Final = "cannot convert from ISO 2022 IR 87, and compares bytes"
NO_ISSUER: Final = "has one patient for each ID"

TWO_STUDIES: Final = [*below("jane/abdomen"), *below("jane/chest")]
COUNTS_OF_PATIENTS: Final = tuple(f"NumberOfPatientRelated{what}" for what in ("Studies", "Series", "Instances"))
IN_STUDY: Final = ("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
REQUEST: Final = tuple(
    f"RequestAttributesSequence[0].{keyword}" for keyword in ("RequestedProcedureID", "ScheduledProcedureStepID")
)
ABDOMEN_INSTANCES: Final = [label for series in below("jane/abdomen") for label in below(series)]

ORTHANC: Final = Habits(
    matches_unknown=False,
    merges_patients=True,
    models=("patient", "study"),
    differences={
        "an ID and its issuer": Difference(f"{NO_ISSUER}, and of that the issuer that came first", []),
        "a name with carets behind": Difference(CARETS, []),
        "an alphabetic name of three component groups": Difference(NAMES_AS_ONE_STRING, []),
        "an ideographic name of three component groups": Difference(NAMES_AS_ONE_STRING, []),
        "births until a day": Difference(
            "compares dates as text, to which an empty one is the first", ["yamada", "mueller", "nameless"]
        ),
        "a day and earlier": Difference(
            "compares dates as text, to which an empty one is the first", ["odd/plain", "wang/liver"]
        ),
        "the first second of the day": Difference(
            f"{TIMES_AS_TEXT}, to which an empty one is the first", ["jane/chest", "wang/liver"]
        ),
        "one of several other IDs": Difference(ONE_VALUE, []),
        "one of several readers": Difference(ONE_VALUE, []),
        "one of several values": Difference(ONE_VALUE, []),
        "a time, by its meaning": Difference(TIMES_AS_TEXT, []),
        "times with fractions": Difference(TIMES_AS_TEXT, ["papadopoulou/long"]),
        "times to the minute": Difference(TIMES_AS_TEXT, ["nameless/all"]),
        "what was requested": Difference("returns sequences, and does not match in them", below("jane/abdomen")),
        "a wildcard in a UID": Difference("takes it for wrong: UIDs have no wildcards", fails=True),
        "a German description by ?": Difference("matches ? with no character beyond ASCII", []),
        "a Japanese description by ?": Difference("matches ? with no character beyond ASCII", []),
        "a level that the model has not": Difference(
            "answers at every level, whatever the model", others(PATIENTS, "jane-caps"), fails=False
        ),
        "studies of no patient, by Patient Root": Difference(RELATIONAL, list(STUDIES), fails=False),
        "series of no study": Difference(RELATIONAL, all_series(), fails=False),
        "series of two studies": Difference(RELATIONAL, TWO_STUDIES, fails=False),
        "instances of no series": Difference(RELATIONAL, ABDOMEN_INSTANCES, fails=False),
    },
)

DCMQRSCP: Final = Habits(
    matches_unknown=False,
    merges_patients=True,
    differences={
        "patients and their counts": Difference(HAS_NOT, lacks=COUNTS_OF_PATIENTS),
        "an ID and its issuer": Difference(
            "matches instance by instance, and returns the first of each patient", ["jane-caps"]
        ),
        "a name in another case": Difference(CASE, []),
        "a name with carets behind": Difference(CARETS, []),
        "a name with an umlaut in another case": Difference(CASE, []),
        "a name of three component groups": Difference(NO_KANJI, []),
        "an alphabetic name of three component groups": Difference(NAMES_AS_ONE_STRING, []),
        "an ideographic name of three component groups": Difference(NO_KANJI, []),
        "a name of several component groups by *": Difference(NO_KANJI, []),
        "a Japanese name by *": Difference(NO_KANJI, []),
        "one of several other IDs": Difference(ONE_VALUE, []),
        "studies and what is in them": Difference(HAS_NOT, lacks=IN_STUDY),
        "studies and their SOP classes": Difference(HAS_NOT, lacks=["SOPClassesInStudy"]),
        "a modality among others": Difference(HAS_NOT, list(STUDIES), lacks=["ModalitiesInStudy"]),
        "a German description by ?": Difference("matches ? with one byte", []),
        "a Japanese description by ?": Difference(NO_KANJI, []),
        "a referring physician": Difference(CASE, []),
        "one of several readers": Difference(ONE_VALUE, []),
        "a patient's name": Difference(CASE, []),
        "an optional key that nothing has, and a value": Difference(HAS_NOT, list(STUDIES)),
        "a study's series": Difference(HAS_NOT, lacks=["SeriesDescription", "NumberOfSeriesRelatedInstances"]),
        "what was requested": Difference(HAS_NOT, below("jane/abdomen"), lacks=REQUEST),
        "a series' instances": Difference(HAS_NOT, lacks=["SOPClassUID", "Rows", "ContentTime"]),
        "a SOP class": Difference(HAS_NOT, below("papadopoulou/heart/1"), lacks=["SOPClassUID"]),
        "one of several values": Difference(HAS_NOT, below("jane/abdomen/1"), lacks=["ImageType"]),
        "series by Patient/Study Only": Difference(
            "answers at a level that the model has not", below("jane/abdomen"), fails=False
        ),
        "studies of no patient, by Patient Root": Difference(RELATIONAL, list(STUDIES), fails=False),
        "series of no study": Difference(RELATIONAL, all_series(), fails=False),
        "series of two studies": Difference(RELATIONAL, TWO_STUDIES, fails=False),
        "instances of no series": Difference(RELATIONAL, ABDOMEN_INSTANCES, fails=False),
    },
)


AIODICOM: Final = Habits(
    matches_unknown=False,
    differences={
        "the first second of the day": Difference(
            "a second lasts until the next one: as the end of a range it has all its fractions",
            ["jane/chest", "odd/other"],
        ),
        "an optional key that nothing has, and a value": Difference(
            "does not have the key, and ignores what is asked of it, as PS3.4 §C.2.2.1.3 has it", list(STUDIES)
        ),
    },
)
