"""Identifiers compiled to SQL: the table of queries of tests/peers, PS3.4 §C.4 rule by rule, and what must not go wrong."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom.dataset import Dataset

from aiodicom.archive.attributes import ATTRIBUTES
from aiodicom.archive.conditions import add_functions
from aiodicom.archive.index import Index, open_index
from aiodicom.archive.query import Query, compile_query, compile_retrieval
from aiodicom.archive.schema import TABLES
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.errors import DimseError
from aiodicom.query import MODELS, Level, QueryOptions
from aiodicom.rows import Row, encode_row
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, UNCOMPRESSED
from tests.archive.indexed import RELATIONAL, Keys, identifier, store, world_in_index
from tests.peers import queries
from tests.peers.asking import answers_of, identifier_of, normalized
from tests.peers.habits import AIODICOM
from tests.studies import PATIENTS, STUDIES, uid_of, world

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with world_in_index(tmp_path_factory.mktemp("archive") / "index") as connection:
        yield connection


class Small:
    """An index with whatever a test puts into it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._index = Index(connection)
        self._numbers = count(1)

    def add(self, **attributes: Any) -> str:  # noqa: ANN401
        """Store an instance, by itself in a study unless that is said; return its SOP Instance UID."""
        number = next(self._numbers)
        uids = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), f"1.{number}")
        row = {**uids, "SOPClassUID": "1.2", "PatientID": str(number), **attributes}
        dataset = decode_data_set(encode_row(row, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)
        store(self._index, {str(number): dataset})
        return str(row["SOPInstanceUID"])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    with closing(open_index(tmp_path / "index", sync=False)) as connection:
        add_functions(connection)
        yield Small(connection)


def compiled(
    level: str = "STUDY",
    model: str = "study",
    options: QueryOptions = QueryOptions(),  # noqa: B008 - it is frozen
    **keys: Any,  # noqa: ANN401
) -> Query:
    return compile_query(identifier(level, **keys), MODELS[model], options=options, retrieve_ae_title="AIODICOM")


def run(connection: sqlite3.Connection, query: Query) -> list[Dataset]:
    syntax = EXPLICIT_VR_LITTLE_ENDIAN
    return [decode_data_set(data, syntax) for data in query.run(connection, syntax)]


def found(connection: sqlite3.Connection, level: str = "STUDY", model: str = "study", **keys: Any) -> list[Dataset]:  # noqa: ANN401
    return run(connection, compiled(level, model, **keys))


def refusal(level: str = "STUDY", model: str = "study", **keys: Any) -> DimseError:  # noqa: ANN401
    with pytest.raises(DimseError) as refused:
        compiled(level, model, **keys)
    assert len(refused.value.comment) <= 64
    return refused.value


# ---- the table of queries that is put to Orthanc and dcmqrscp as well


OTHERWISE: Final = {name: difference.matches or () for name, difference in AIODICOM.differences.items()}


@pytest.mark.parametrize("query", queries.QUERIES, ids=lambda query: query.name)
def test_the_table_of_queries(archive: sqlite3.Connection, query: queries.Query) -> None:
    asked = decode_data_set(encode_data_set(identifier_of(query), IMPLICIT_VR_LITTLE_ENDIAN), IMPLICIT_VR_LITTLE_ENDIAN)
    if query.fails:
        with pytest.raises(DimseError) as refused:
            compile_query(asked, MODELS[query.model])
        assert refused.value.status == 0xA900
        return
    matches = run(archive, compile_query(asked, MODELS[query.model], retrieve_ae_title="AIODICOM"))
    answers = Counter(tuple((key, normalized(match, key)) for key in query.keys) for match in matches)
    assert answers == Counter(answers_of(OTHERWISE.get(query.name, query.matches), query))
    for match in matches:
        assert match.QueryRetrieveLevel == query.level
        assert match.RetrieveAETitle == "AIODICOM"


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_matches_are_in_the_transfer_syntax_of_the_context(archive: sqlite3.Connection, syntax: str) -> None:
    query = compiled(PatientName="", ModalitiesInStudy="", NumberOfStudyRelatedInstances="")
    found = [decode_data_set(data, syntax) for data in query.run(archive, syntax)]
    assert {str(match.PatientName) for match in found} >= {"Doe^Jane", "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    assert all(match.NumberOfStudyRelatedInstances > 0 for match in found)


# ---- status and errors


def test_supported_keys_are_answered_with_ff00(archive: sqlite3.Connection) -> None:
    keys: Keys = {keyword: "" for keyword, each in ATTRIBUTES.items() if each.level in (Level.PATIENT, Level.STUDY)}
    query = compiled(**keys, ModalitiesInStudy="", InstanceAvailability="", RetrieveAETitle="")
    assert query.status == 0xFF00
    for match in run(archive, query):
        assert match.InstanceAvailability == "ONLINE"
        assert {*keys, "ModalitiesInStudy"} - {"TimezoneOffsetFromUTC"} <= {element.keyword for element in match}


@pytest.mark.parametrize(
    "keys",
    [
        {"MilitaryRank": ""},
        {"MilitaryRank": "Major"},
        {"Modality": ""},
        {"SOPInstanceUID": ""},
        {"ReferencedStudySequence": []},
        {"StorageMediaFileSetID": ""},
    ],
)
def test_a_key_that_is_not_supported_is_left_out_with_ff01(archive: sqlite3.Connection, keys: Keys) -> None:
    query = compiled(StudyInstanceUID="", **keys)
    assert query.status == 0xFF01
    matches = run(archive, query)
    assert len(matches) == len(STUDIES)
    assert {element.keyword for element in matches[0]} == {"StudyInstanceUID", "QueryRetrieveLevel", "RetrieveAETitle"}


def test_private_and_unknown_keys_are_no_error(archive: sqlite3.Connection) -> None:
    data = encode_row(
        {"QueryRetrieveLevel": "STUDY", 0x00090010: "ACME", 0x00091001: b"xx", 0x00100F0E: b"yy"},
        IMPLICIT_VR_LITTLE_ENDIAN,
    )
    query = compile_query(decode_data_set(data, IMPLICIT_VR_LITTLE_ENDIAN), MODELS["study"])
    assert query.status == 0xFF01
    assert len(run(archive, query)) == len(STUDIES)


def test_a_query_without_keys_matches_all(archive: sqlite3.Connection) -> None:
    assert len(found(archive)) == len(STUDIES)
    assert len(found(archive, "PATIENT", "patient")) == len(PATIENTS)


@pytest.mark.parametrize(
    ("level", "model", "keys", "comment"),
    [
        ("", "study", {}, "Query/Retrieve Level (0008,0052) is missing"),
        ("PATIENT", "study", {}, "Query/Retrieve Level is none of STUDY, SERIES, IMAGE"),
        ("study", "study", {}, "Query/Retrieve Level is none of STUDY, SERIES, IMAGE"),
        ("SERIES", "patient-study", {"PatientID": "1"}, "Query/Retrieve Level is none of PATIENT, STUDY"),
        ("SERIES", "study", {}, "one StudyInstanceUID is needed at level SERIES"),
        ("IMAGE", "study", {"StudyInstanceUID": "1.2"}, "one SeriesInstanceUID is needed at level IMAGE"),
        ("IMAGE", "study", {"SeriesInstanceUID": "1.2"}, "one StudyInstanceUID is needed at level IMAGE"),
        (
            "IMAGE",
            "patient",
            {"StudyInstanceUID": "1", "SeriesInstanceUID": "2"},
            "one PatientID is needed at level IMAGE",
        ),
        ("SERIES", "study", {"StudyInstanceUID": ["1", "2"]}, "one StudyInstanceUID is needed at level SERIES"),
        ("STUDY", "patient", {"PatientID": "A*"}, "one PatientID is needed at level STUDY"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(level: str, model: str, keys: Keys, comment: str) -> None:
    refused = refusal(level, model, **keys)
    assert (refused.status, refused.comment) == (0xA900, comment)


def test_too_many_and_too_long_values_are_refused() -> None:
    refused = refusal(StudyInstanceUID=["1"] * 10_001)
    assert (refused.status, refused.comment) == (0xC000, "more than 10000 values in StudyInstanceUID")
    refused = refusal(StudyDescription="*a" * 6000)
    assert (refused.status, refused.comment) == (0xC000, "more than 10240 characters in StudyDescription")


def test_a_key_that_is_not_in_its_character_set_is_refused() -> None:
    refused = refusal(SpecificCharacterSet="ISO_IR 192", PatientName=b"M\xfcller")
    assert (refused.status, refused.comment) == (0xC000, "(0010,0010): cannot be decoded")


@pytest.mark.parametrize(
    "key", ["'", "' OR 1=1 --", "x'); DROP TABLE instances;--", '"', "%", "_", "\\'", ":p0", "[a-z]"]
)
def test_sql_is_text(archive: sqlite3.Connection, key: str) -> None:
    schema = list(archive.execute("SELECT sql FROM sqlite_schema"))
    for keyword in ("PatientID", "PatientName", "StudyDescription", "StudyDate", "ModalitiesInStudy"):
        for value in (key, f"{key}*"):
            asked: Keys = {keyword: value}
            assert found(archive, **asked) == []
    assert list(archive.execute("SELECT sql FROM sqlite_schema")) == schema


def test_the_statement_holds_no_value() -> None:
    keys: Keys = {
        "PatientName": "s3cret",
        "StudyDate": "19990101",
        "StudyDescription": "s3cret*",
        "ModalitiesInStudy": "s3cret",
    }
    query = compiled(**keys)
    assert "s3cret" not in query.sql
    assert "1999" not in query.sql
    assert "s3cret" not in repr(query)


def test_a_wildcard_bomb_goes_off_quietly(small: Small) -> None:
    for _ in range(1000):
        small.add(StudyDescription="a" * 64, PatientName="a" * 64)
    assert found(small.connection, StudyDescription="*a" * 30 + "b") == []
    assert found(small.connection, PatientName="*a" * 30 + "b") == []
    assert len(found(small.connection, StudyDescription="*a" * 30)) == 1000


# ---- matching: what the table of queries does not have


@pytest.mark.parametrize(
    ("stored", "key"),
    [
        ({"PatientName": "Yamada^Tarou=山田^太郎"}, {"PatientName": "y*郎"}),  # in no one group
        ({"PatientName": "Yamada^Tarou=山田^太郎"}, {"PatientName": "Yamada^Tarou=山田"}),
        ({"OtherPatientIDs": ["AB", "CD"]}, {"OtherPatientIDs": "A*D"}),  # in no one value
        ({"OtherPatientIDs": ["A", "B"]}, {"OtherPatientIDs": "A?B"}),
        ({"StudyDescription": "[a]"}, {"StudyDescription": "[a]?"}),
        ({"StudyDescription": "a"}, {"StudyDescription": "[a]*"}),
        ({"StudyDate": "2024"}, {"StudyDate": "20230101-20250101"}),
        ({"StudyDate": "20240101x"}, {"StudyDate": "20231231-20250101"}),
        ({"StudyTime": "10:30"}, {"StudyTime": "10-11"}),
    ],
)
def test_what_sqlite_would_match_by_itself(small: Small, stored: Keys, key: Keys) -> None:
    small.add(**stored)
    assert found(small.connection, **key) == []


def test_date_times_of_several_time_zones(small: Small) -> None:
    for moment in ("20240101120000+0100", "20240101110000+0000", "20240101120000", "20240101120000-0100"):
        small.add(AcquisitionDateTime=moment)
    asked: Keys = {"AcquisitionDateTime": "20240101120000+0100", "SOPInstanceUID": ""}
    matches = run(small.connection, compiled("IMAGE", options=RELATIONAL, **asked))
    assert [match.SOPInstanceUID for match in matches] == ["1.1", "1.2", "1.3"]


def test_ten_thousand_uids(archive: sqlite3.Connection) -> None:
    uids = [f"1.2.{number}" for number in range(9_999)]
    assert len(found(archive, StudyInstanceUID=[*uids, uid_of("odd/other")])) == 1


def test_numbers_match_by_what_they_are_worth(small: Small) -> None:
    small.add(SeriesNumber="01", Rows=512, PatientWeight="70.0")
    for keys in ({"SeriesNumber": "1"}, {"PatientWeight": "70"}):
        level = "SERIES" if "SeriesNumber" in keys else "STUDY"
        assert len(found(small.connection, level, StudyInstanceUID="1.1", **keys)) == 1
    assert len(found(small.connection, "IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1", Rows=512)) == 1


def test_counts_can_be_asked_for(archive: sqlite3.Connection) -> None:
    [match] = found(archive, NumberOfStudyRelatedSeries="5", StudyInstanceUID="")
    assert match.StudyInstanceUID == uid_of("nameless/all")
    assert match.NumberOfStudyRelatedSeries == 5


def test_counts_and_sets_of_the_levels_above_are_answered(archive: sqlite3.Connection) -> None:
    keys = {"StudyInstanceUID": uid_of("jane/chest"), "SeriesInstanceUID": uid_of("jane/chest/3")}
    above = dict.fromkeys(("NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances", "ModalitiesInStudy"), "")
    for match in found(archive, "IMAGE", **keys, **above, AvailableTransferSyntaxUID=""):
        assert match.NumberOfStudyRelatedInstances == 7
        assert match.NumberOfSeriesRelatedInstances == 2
        assert list(match.ModalitiesInStudy) == ["CR", "CT", "SR"]
        assert match.AvailableTransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"ModalitiesInStudy": ["CR", "SR"]}, 7),
        ({"ModalitiesInStudy": "?R"}, 11),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.7"}, 1),
        ({"SOPClassesInStudy": "1.2.3"}, 0),
        ({"Modality": "CR", "SeriesNumber": "300"}, 2),
        ({"Modality": "CT", "SeriesNumber": "300"}, 0),
        ({"SOPInstanceUID": uid_of("odd/plain/2/1")}, 1),
        ({"ImageType": "DERIVED", "Modality": "US"}, 3),
        ({"RequestAttributesSequence": [{"RequestedProcedureID": "RP-CR"}]}, 4),
    ],
)
def test_keys_of_levels_below_are_matched_by_any(archive: sqlite3.Connection, keys: Keys, expected: int) -> None:
    matches = found(archive, StudyInstanceUID="", **keys)
    assert len({match.StudyInstanceUID for match in matches}) == len(matches) == expected


def test_keys_of_levels_below_a_patient(archive: sqlite3.Connection) -> None:
    assert len(found(archive, "PATIENT", "patient", ModalitiesInStudy="SR")) == 4
    assert len(found(archive, "PATIENT", "patient", StudyDate="20200101", ModalitiesInStudy="SR")) == 1
    assert len(found(archive, "PATIENT", "patient", Modality="SR", StudyDate="-20191231")) == 1


def test_request_attributes_come_with_what_was_asked_for(small: Small) -> None:
    items = [
        {"RequestedProcedureID": "A", "ScheduledProcedureStepID": "1"},
        {"RequestedProcedureID": "Ä", "ScheduledProcedureStepID": "2"},
    ]
    small.add(RequestAttributesSequence=items)
    small.add()

    def asked(*keys: Row) -> list[list[dict[str, str]]]:
        query = compiled("SERIES", options=RELATIONAL, RequestAttributesSequence=list(keys))
        return [
            [{element.keyword: str(element.value) for element in item} for item in match.RequestAttributesSequence]
            for match in run(small.connection, query)
        ]

    assert asked({"RequestedProcedureID": "A"}) == [[{"RequestedProcedureID": "A"}]]
    assert asked({"RequestedProcedureID": "?", "ScheduledProcedureStepID": "2"}) == [[items[1]]]
    assert asked({"ScheduledProcedureStepID": ""}) == [
        [{"ScheduledProcedureStepID": "1"}, {"ScheduledProcedureStepID": "2"}],
        [],
    ]
    [whole, none] = asked()
    assert [{**item, **items[at]} for at, item in enumerate(whole)] == whole
    assert none == []
    assert asked({"RequestedProcedureID": "A", "ScheduledProcedureStepID": "2"}) == []


def test_relational_queries_need_no_keys_above(archive: sqlite3.Connection) -> None:
    everything = run(archive, compiled("IMAGE", options=RELATIONAL, SOPInstanceUID=""))
    assert len(everything) == len(world())
    series = run(archive, compiled("SERIES", options=RELATIONAL, Modality="SR", PatientName="", StudyInstanceUID=""))
    assert len(series) == 6
    names = run(archive, compiled("IMAGE", "patient", options=RELATIONAL, PatientName="yamada*", Modality="CR"))
    assert len(names) == 4
    assert not run(archive, compiled("IMAGE", "patient", options=RELATIONAL, PatientName="yamada*", Modality="MR"))


def test_an_instance_without_a_series_is_found_by_itself(small: Small) -> None:
    uid = small.add(StudyInstanceUID="", SeriesInstanceUID="")
    [match] = run(small.connection, compiled("IMAGE", options=RELATIONAL, SOPInstanceUID=uid))
    assert match.SOPInstanceUID == uid
    retrieval = compile_retrieval(identifier("IMAGE", SOPInstanceUID=uid), MODELS["composite"])
    assert [each[2] for each in retrieval.run(small.connection)] == [uid]


def test_a_combined_range_of_date_and_time(small: Small) -> None:
    for time in ("0900", "1200", ""):
        small.add(StudyDate="20060706", StudyTime=time)
    small.add(StudyTime="1200")
    keys = {"StudyDate": "20060705-20060707", "StudyTime": "1000-1100"}
    assert len(found(small.connection, **keys)) == 0
    combined = QueryOptions(combined_datetime=True)
    assert len(run(small.connection, compiled(options=combined, **keys))) == 3
    keys["StudyTime"] = "1000"
    assert len(run(small.connection, compiled(options=combined, **keys))) == 0


def test_fuzzy_names(archive: sqlite3.Connection) -> None:
    asked: Keys = {"PatientName": "jurgen muller"}
    assert not found(archive, "PATIENT", "patient", **asked)
    [match] = run(archive, compiled("PATIENT", "patient", options=QueryOptions(fuzzy_names=True), **asked))
    assert match.PatientName == "Müller^Jürgen^^Dr."


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"StudyDate": "20240101", "StudyTime": "2115"}, ["1.1"]),
        ({"StudyDate": "20240102", "StudyTime": "0115"}, ["1.2"]),
        ({"StudyDate": "20240101"}, ["1.1"]),
        ({"PatientBirthDate": "19700101"}, ["1.1", "1.2"]),
    ],
)
def test_times_in_the_time_zone_of_the_query(small: Small, keys: Keys, expected: list[str]) -> None:
    stored = {"StudyDate": "20240102", "StudyTime": "0115", "PatientBirthDate": "19700101", "PatientBirthTime": "0100"}
    small.add(**stored, TimezoneOffsetFromUTC="+0100")
    small.add(**stored)
    options = QueryOptions(timezone=True)
    query = compiled(options=options, StudyInstanceUID="", TimezoneOffsetFromUTC="-0300", **keys)
    matches = run(small.connection, query)
    assert [match.StudyInstanceUID for match in matches] == expected
    zones = {"1.1": "+0100", "1.2": None}  # it is never empty
    assert [match.get("TimezoneOffsetFromUTC") for match in matches] == [zones[uid] for uid in expected]


def test_date_times_in_the_time_zone_of_the_query(small: Small) -> None:
    small.add(AcquisitionDateTime="20240102011500", TimezoneOffsetFromUTC="+0100")
    small.add(AcquisitionDateTime="20240102011500+0100")
    small.add(AcquisitionDateTime="20240102011500")
    keys = {"AcquisitionDateTime": "20240101211500", "TimezoneOffsetFromUTC": "-0300", "SOPInstanceUID": ""}
    options = QueryOptions(timezone=True, relational=True)
    matches = run(small.connection, compiled("IMAGE", options=options, **keys))
    assert [match.SOPInstanceUID for match in matches] == ["1.1", "1.2"]


# ---- character sets of answers


@pytest.mark.parametrize(
    ("asked", "patient", "expected"),
    [
        ("", "jane", None),
        ("ISO_IR 100", "jane", "ISO_IR 100"),
        ("ISO_IR 100", "mueller", "ISO_IR 100"),
        ("ISO_IR 100", "papadopoulou", "ISO_IR 192"),
        ("ISO_IR 192", "papadopoulou", "ISO_IR 192"),
        ("", "mueller", "ISO_IR 192"),
        ("\\ISO 2022 IR 87", "yamada", ["", "ISO 2022 IR 87"]),
        ("\\ISO 2022 IR 87", "mueller", "ISO_IR 192"),
        ("GB18030", "wang", "GB18030"),
        ("KLINGON", "jane", None),
        ("KLINGON", "mueller", "ISO_IR 192"),
    ],
)
def test_answers_are_in_the_character_set_of_the_request_if_they_fit(
    archive: sqlite3.Connection, asked: str, patient: str, expected: object
) -> None:
    data = encode_row(
        {"QueryRetrieveLevel": "PATIENT", "PatientID": None, "PatientName": ""}, EXPLICIT_VR_LITTLE_ENDIAN
    )
    ds = decode_data_set(data, EXPLICIT_VR_LITTLE_ENDIAN)
    if asked:
        ds.SpecificCharacterSet = asked.split("\\") if "\\" in asked else asked
    query = compile_query(ds, MODELS["patient"])
    names = {str(match.PatientName): match for match in run(archive, query)}
    match = names[str(PATIENTS[patient]["PatientName"])]
    assert match.get("SpecificCharacterSet") == expected


def test_a_value_that_no_answer_can_hold_is_left_empty(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    small.add(StudyDescription="fine", StudyTime="s\u00e4cret".encode("latin-1"))
    [match] = found(small.connection, StudyDescription="", StudyTime="")
    assert match.StudyDescription == "fine"
    assert not match.StudyTime
    [record] = caplog.records
    assert "(0008,0030)" in record.getMessage()
    assert "cret" not in record.getMessage()


# ---- streaming, and indexes


@pytest.mark.parametrize(
    "keys",
    [
        {"PatientName": [*(f"N{number}^*" for number in range(1100)), "X*"]},
        {"PatientName": [*(f"N{number}^A" for number in range(600)), "X^A"]},
        {"PatientID": [*(f"N{number}*" for number in range(1100)), "X*"]},
        {"StudyDescription": [*(f"N{number}?" for number in range(1100)), "X*"]},
        {"ReferringPhysicianName": [*(f"N{number}*" for number in range(1100)), "X*"]},
        {"StudyTime": [*(f"{number // 60:02}{number % 60:02}01" for number in range(1100)), "235959"]},
        {"StudyDate": [*(f"{year}0101" for year in range(1000, 2000)), "20240101"]},
    ],
    ids=lambda keys: "".join(keys),
)
def test_thousands_of_alternatives(small: Small, keys: Keys) -> None:
    uid = small.add(
        PatientName="X^A",
        PatientID="XA",
        StudyDate="20240101",
        StudyTime="235959",
        StudyDescription="XA",
        ReferringPhysicianName="X^A",
    )
    small.add(PatientID="other")
    keys = {
        keyword: [text.rjust(8, "0") if keyword == "StudyDate" else text for text in values]
        for keyword, values in keys.items()
    }
    assert [match.StudyInstanceUID for match in found(small.connection, StudyInstanceUID="", **keys)] == [uid]


def test_matches_come_while_they_are_found(archive: sqlite3.Connection) -> None:
    rows = compiled("IMAGE", options=RELATIONAL, SOPInstanceUID="").run(archive, EXPLICIT_VR_LITTLE_ENDIAN)
    assert next(rows)
    rows.close()  # type: ignore[attr-defined]  # it is a generator
    archive.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # would wait for a reader


def plan(connection: sqlite3.Connection, query: Query) -> list[str]:
    explained = connection.execute(f"EXPLAIN QUERY PLAN {query.sql}", query.parameters)
    return [str(detail) for *_, detail in explained]


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("STUDY", {"PatientID": "1001"}),
        ("STUDY", {"PatientID": ["1001", "1002"]}),
        ("STUDY", {"PatientName": "doe*"}),
        ("STUDY", {"PatientName": "doe^jane"}),
        ("STUDY", {"StudyDate": "20240101"}),
        ("STUDY", {"StudyDate": "20240101-20240131"}),
        ("STUDY", {"AccessionNumber": "A1"}),
        ("STUDY", {"ModalitiesInStudy": "CT"}),
        ("STUDY", {"StudyInstanceUID": ["1.2", "1.3"]}),
        ("STUDY", {"SOPInstanceUID": "1.2"}),
        ("SERIES", {"StudyInstanceUID": "1.2"}),
        ("IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}),
        ("IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": ["1.4", "1.5"]}),
    ],
)
def test_the_usual_queries_read_no_whole_table(archive: sqlite3.Connection, level: str, keys: Keys) -> None:
    answers: Keys = dict.fromkeys(("PatientName", "ModalitiesInStudy", "NumberOfStudyRelatedInstances"), "")
    steps = plan(archive, compiled(level, **{**answers, **keys}))
    few = "patients_by_compound_name"  # all the names in it are asked, and they are few
    tables = "|".join(TABLES.values())
    assert not [step for step in steps if re.match(f"SCAN ({tables})", step) and few not in step], steps
