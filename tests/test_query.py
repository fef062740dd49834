"""What a query is about: models, levels, identifiers, extended negotiation (PS3.4 Annex C, Annex K)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, time
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from aiodicom import Level, LocalProtocolError, QueryOptions
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.query import (
    MODELS,
    NO_OPTIONS,
    QUERY_RETRIEVE_CLASSES,
    Model,
    choose_model,
    level_of,
    make_query,
    make_retrieval,
    model_of,
    options_of,
    unique_key,
)
from aiodicom.uids import (
    COMPOSITE_INSTANCE_ROOT_GET,
    COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
    EXPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT_FIND,
    PATIENT_STUDY_ONLY_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from aiodicom.upper_layer.items import SOPClassExtendedNegotiation
from tests.loopback import CANARY

PATIENT, STUDY, WORKLIST = MODELS["patient"], MODELS["study"], MODELS["worklist"]


def query(
    identifier: Any = None,  # noqa: ANN401
    *,
    model: Model = STUDY,
    level: str | None = "study",
    **keys: Any,  # noqa: ANN401
) -> Dataset:
    return make_query(identifier, model=model, level=level, keys=keys)


def retrieval(
    identifier: Any = None,  # noqa: ANN401
    *,
    model: Model = STUDY,
    level: str | None = None,
    **keys: Any,  # noqa: ANN401
) -> Dataset:
    return make_retrieval(identifier, model=model, level=level, keys=keys)


def keywords(dataset: Dataset) -> set[str]:
    return {element.keyword for element in dataset}


# Levels and models.


@pytest.mark.parametrize("name", ["image", "IMAGE", "Image", "instance", "INSTANCE", Level.IMAGE])
def test_a_level_has_two_names_in_any_case(name: str) -> None:
    assert level_of(name) is Level.IMAGE


@pytest.mark.parametrize("name", ["", "frame", "studies", "STUDY\\SERIES"])
def test_what_is_no_level_is_said(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="say patient, study, series or image"):
        level_of(name)


def test_each_level_has_its_unique_key() -> None:
    assert [unique_key(level) for level in Level] == [
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_known_by_its_name_and_by_each_of_its_sop_classes(name: str) -> None:
    model = MODELS[name]
    assert model_of(name) is model
    for uid in filter(None, (model.find, model.move, model.get)):
        assert model_of(uid) is model
        assert uid in QUERY_RETRIEVE_CLASSES


@pytest.mark.parametrize("name", ["", "STUDY", "1.2.3", "1.2.840.10008.1.1"])
def test_what_is_no_model_is_said(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="patient, study, patient-study, composite, no-bulk-data, worklist"):
        model_of(name)


def test_what_the_models_have() -> None:
    assert MODELS["composite"].find == ""
    assert MODELS["no-bulk-data"].move == ""
    assert (WORKLIST.move, WORKLIST.get, WORKLIST.levels) == ("", "", ())
    assert MODELS["patient-study"].levels == (Level.PATIENT, Level.STUDY)
    assert "" not in QUERY_RETRIEVE_CLASSES
    assert len(QUERY_RETRIEVE_CLASSES) == 3 + 3 + 3 + 2 + 1 + 1


@pytest.mark.parametrize(
    ("name", "level", "identifier", "keys", "expected"),
    [
        (None, "study", None, {}, "study"),
        (None, "patient", None, {}, "patient"),
        (None, "PATIENT", None, {}, "patient"),
        (None, "image", None, {}, "study"),
        ("patient", "image", None, {}, "patient"),
        (STUDY_ROOT_GET, "image", None, {}, "study"),
        (None, None, {"QueryRetrieveLevel": "PATIENT"}, {}, "patient"),
        (None, None, {"QueryRetrieveLevel": "SERIES", "PatientID": "1"}, {}, "study"),
        (None, None, None, {"PatientID": "1"}, "patient"),
        (None, None, {"PatientID": "1"}, {"StudyInstanceUID": "1.2"}, "study"),
        (None, "study", {"QueryRetrieveLevel": "PATIENT"}, {}, "study"),
        (None, None, None, {}, "study"),
    ],
)
def test_the_model_is_chosen_by_what_is_asked_for(
    name: str | None, level: str | None, identifier: dict[str, str] | None, keys: dict[str, str], expected: str
) -> None:
    assert choose_model(name, level, identifier, keys) is MODELS[expected]
    if identifier is not None:
        dataset = Dataset()
        for keyword, value in identifier.items():
            setattr(dataset, keyword, value)
        assert choose_model(name, level, dataset, keys) is MODELS[expected]


# Identifiers of queries.


def test_keywords_and_a_dict_and_a_dataset_say_the_same() -> None:
    dataset = Dataset()
    dataset.PatientName = "A*"
    by_keyword = query(PatientName="A*")
    assert query({"PatientName": "A*"}) == by_keyword
    assert query({"PatientName": "B*"}, PatientName="A*") == by_keyword
    assert query(dataset).PatientName == "A*"


def test_a_dataset_goes_out_as_it_is_but_for_its_level() -> None:
    dataset = Dataset()
    dataset.PatientName = "A*"
    assert keywords(query(dataset)) == {"PatientName", "QueryRetrieveLevel"}
    assert keywords(query(dataset, StudyDate=None)) == {"PatientName", "QueryRetrieveLevel", "StudyDate"}


def test_the_dataset_of_the_caller_stays_as_it_was() -> None:
    dataset = Dataset()
    dataset.PatientName = "Müller"
    step = Dataset()
    dataset.ScheduledProcedureStepSequence = [step]
    before = str(dataset)
    made = query(dataset, StudyDate="20200101")
    made.ScheduledProcedureStepSequence[0].Modality = "CT"
    retrieval(dataset, StudyInstanceUID="1.2.3")
    assert str(dataset) == before
    assert keywords(dataset) == {"PatientName", "ScheduledProcedureStepSequence"}


def test_a_query_file_that_was_read_is_a_dataset() -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_VR_LITTLE_ENDIAN)
    dataset.file_meta.MediaStorageSOPClassUID = UID(STUDY_ROOT_FIND)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset.QueryRetrieveLevel = "STUDY"
    dataset.PatientID = "1"
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    made = query(dcmread(stream), level=None)
    assert (made.PatientID, made.QueryRetrieveLevel) == ("1", "STUDY")
    assert keywords(decode_data_set(encode_data_set(made, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)) == {
        "PatientID",
        "QueryRetrieveLevel",
    }


@pytest.mark.parametrize(
    ("level", "model", "expected"),
    [
        ("patient", PATIENT, "PatientID PatientName PatientBirthDate PatientSex NumberOfPatientRelatedStudies"),
        ("study", PATIENT, "PatientID StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID"),
        ("study", STUDY, "PatientID PatientName PatientBirthDate StudyInstanceUID StudyDate ModalitiesInStudy"),
        ("series", STUDY, "StudyInstanceUID SeriesInstanceUID Modality SeriesNumber NumberOfSeriesRelatedInstances"),
        ("image", STUDY, "StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID InstanceNumber"),
        ("image", PATIENT, "PatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID"),
    ],
)
def test_the_usual_return_keys_of_a_level_are_asked_for(level: str, model: Model, expected: str) -> None:
    found = query(model=model, level=level)
    assert set(expected.split()) <= keywords(found)
    assert all(not element.value for element in found if element.keyword != "QueryRetrieveLevel")


def test_the_keys_of_levels_below_are_not_asked_for() -> None:
    assert not {"SeriesInstanceUID", "SOPInstanceUID", "Modality"} & keywords(query(level="study"))
    assert not {"PatientName", "PatientBirthDate"} & keywords(query(level="series"))
    assert "PatientName" not in keywords(query(model=PATIENT, level="study"))


def test_a_value_is_not_overwritten_by_a_return_key() -> None:
    assert query(StudyDate="20200101-20200131").StudyDate == "20200101-20200131"


def test_the_level_of_the_identifier_counts_unless_another_is_said() -> None:
    dataset = Dataset()
    dataset.QueryRetrieveLevel = "SERIES"
    assert query(dataset, level=None).QueryRetrieveLevel == "SERIES"
    assert query({"QueryRetrieveLevel": "series"}, level=None).QueryRetrieveLevel == "SERIES"
    assert query(dataset, level="image").QueryRetrieveLevel == "IMAGE"


@pytest.mark.parametrize(
    ("model", "level", "message"),
    [
        (STUDY, None, "at which level"),
        (STUDY, "", "at which level"),
        (STUDY, "patient", "'study' has no level patient: it has study, series, image"),
        (MODELS["patient-study"], "image", "'patient-study' has no level image"),
        (STUDY, "frame", "'frame' is no level"),
        (WORKLIST, "study", "'worklist' has no levels"),
    ],
)
def test_a_level_that_is_missing_or_wrong_is_said(model: Model, level: str | None, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        query(model=model, level=level, PatientID="1")


@pytest.mark.parametrize("keyword", ["PatientsName", "patientname", "", "OverlayData"])
def test_an_unknown_keyword_is_said(keyword: str) -> None:
    with pytest.raises(LocalProtocolError, match="no keyword of the data dictionary"):
        query({keyword: "x"})
    with pytest.raises(LocalProtocolError, match="no keyword of the data dictionary"):
        query(ReferencedStudySequence={keyword: "x"})


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("StudyDate", "20200101-", "20200101-"),
        ("StudyDate", date(2020, 1, 2), "20200102"),
        ("StudyTime", time(9, 5), "090500"),
        ("StudyInstanceUID", "1.2.*", "1.2.*"),
        ("StudyInstanceUID", ("1.2", "1.3"), "1.2\\1.3"),
        ("StudyInstanceUID", {"1.3", "1.2"}, "1.2\\1.3"),
        ("ModalitiesInStudy", "CT\\MR", "CT\\MR"),
        ("PatientAge", "0?0Y", "0?0Y"),
        ("PatientID", 5, "5"),
        ("PatientID", "' OR 1=1 --", "' OR 1=1 --"),
        ("SeriesNumber", 3, "3"),
        ("PatientName", "", ""),
        ("PatientName", None, ""),
    ],
)
def test_what_matches_need_be_no_value_of_its_vr(keyword: str, value: object, text: str) -> None:
    # Neither is there a warning, which would quote the value: warnings are errors here.
    encoded = encode_data_set(query({keyword: value}), EXPLICIT_VR_LITTLE_ENDIAN)
    raw = decode_data_set(encoded, EXPLICIT_VR_LITTLE_ENDIAN).get_item(keyword)
    assert raw is not None
    assert (raw.value or b"").rstrip(b" \0").decode() == text


@pytest.mark.parametrize(
    ("keyword", "value"), [("SeriesNumber", CANARY), ("PatientName", {"a": 1}), ("ReferencedStudySequence", CANARY)]
)
def test_a_value_that_cannot_be_is_not_quoted(keyword: str, value: object) -> None:
    with pytest.raises(LocalProtocolError, match=keyword) as caught:
        query({keyword: value})
    assert "Tweety" not in str(caught.value)


def test_sequences_are_dicts_in_dicts() -> None:
    made = query(RequestAttributesSequence={"RequestedProcedureID": "1", "ReasonForRequestedProcedureCodeSequence": {}})
    (item,) = made.RequestAttributesSequence
    assert item.RequestedProcedureID == "1"
    assert len(item.ReasonForRequestedProcedureCodeSequence) == 1
    assert (
        len(query(RequestAttributesSequence=[{"RequestedProcedureID": "1"}, Dataset()]).RequestAttributesSequence) == 2
    )
    assert not query(RequestAttributesSequence=None).RequestAttributesSequence
    assert not query(RequestAttributesSequence=[]).RequestAttributesSequence


# The worklist.


def test_a_worklist_query_has_no_level_and_its_own_return_keys() -> None:
    made = query(model=WORKLIST, level=None, PatientID="1")
    assert "QueryRetrieveLevel" not in made
    assert {"PatientName", "AccessionNumber", "RequestedProcedureID"} <= keywords(made)
    (step,) = made.ScheduledProcedureStepSequence
    assert {"Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate"} <= keywords(step)


def test_a_worklist_query_keeps_what_its_step_says() -> None:
    made = query(
        model=WORKLIST,
        level=None,
        ScheduledProcedureStepSequence={"Modality": "CT", "ScheduledProcedureStepStartDate": date(2024, 12, 31)},
    )
    (step,) = made.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledProcedureStepStartDate) == ("CT", "20241231")
    assert "ScheduledStationAETitle" in step


def test_a_worklist_dataset_goes_out_as_it_is() -> None:
    dataset = Dataset()
    dataset.PatientID = "1"
    assert keywords(query(dataset, model=WORKLIST, level=None)) == {"PatientID"}


# Character sets.


def test_utf_8_is_declared_where_ascii_does_not_do() -> None:
    assert "SpecificCharacterSet" not in query(PatientName="Muller")
    assert query(PatientName="Müller").SpecificCharacterSet == "ISO_IR 192"
    nested = query(RequestAttributesSequence={"RequestedProcedureDescription": "Schädel"})
    assert nested.SpecificCharacterSet == "ISO_IR 192"
    assert retrieval(StudyInstanceUID="1.2", PatientID="Ä1").SpecificCharacterSet == "ISO_IR 192"
    encoded = encode_data_set(query(PatientName="Müller"), EXPLICIT_VR_LITTLE_ENDIAN)
    assert "Müller".encode() in encoded


def test_a_declared_character_set_is_kept() -> None:
    made = query(PatientName="Müller", SpecificCharacterSet="ISO_IR 100")
    assert made.SpecificCharacterSet == "ISO_IR 100"
    assert "Müller".encode("latin-1") in encode_data_set(made, EXPLICIT_VR_LITTLE_ENDIAN)


# Identifiers of retrievals.


@pytest.mark.parametrize(
    ("keys", "model", "level"),
    [
        ({"PatientID": "1"}, PATIENT, "PATIENT"),
        ({"PatientID": "1", "StudyInstanceUID": "1.2"}, PATIENT, "STUDY"),
        ({"StudyInstanceUID": "1.2", "SeriesInstanceUID": ["1.3", "1.4"]}, STUDY, "SERIES"),
        ({"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}, STUDY, "IMAGE"),
        ({"SOPInstanceUID": "1.4"}, MODELS["composite"], "IMAGE"),
        ({"SOPInstanceUID": "1.4"}, MODELS["no-bulk-data"], "IMAGE"),
    ],
)
def test_the_level_of_a_retrieval_is_that_of_its_lowest_unique_key(
    keys: dict[str, Any], model: Model, level: str
) -> None:
    made = retrieval(keys, model=model)
    assert made.QueryRetrieveLevel == level
    assert keywords(made) == {*keys, "QueryRetrieveLevel"}  # unique keys alone, and no return keys (PS3.4 §C.4.2.1.4)


def test_the_level_that_is_said_goes_before_the_lowest_unique_key() -> None:
    made = retrieval(level="study", StudyInstanceUID="1.2", SeriesInstanceUID="1.3")
    assert made.QueryRetrieveLevel == "STUDY"
    assert retrieval({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}).QueryRetrieveLevel == "STUDY"


@pytest.mark.parametrize(
    ("keys", "level", "message"),
    [
        ({}, None, "at which level"),
        ({"StudyInstanceUID": ""}, None, "at which level"),
        ({"PatientName": "A*"}, "study", "needs its unique key, StudyInstanceUID"),
        ({"StudyInstanceUID": "1.2"}, "series", "needs its unique key, SeriesInstanceUID"),
        ({"PatientID": "1"}, None, "'study' has no level patient"),
    ],
)
def test_a_retrieval_needs_its_unique_key(keys: dict[str, str], level: str | None, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        retrieval(keys, level=level)


# Extended negotiation, PS3.4 §C.5.1.1, §C.5.2.1, §K.5.1.

ALL = QueryOptions(relational=True, combined_datetime=True, fuzzy_names=True, timezone=True)


def item(uid: str, values: Iterable[int]) -> SOPClassExtendedNegotiation:
    return SOPClassExtendedNegotiation(uid, bytes(values))


@pytest.mark.parametrize(
    ("uid", "options", "values"),
    [
        (STUDY_ROOT_FIND, NO_OPTIONS, (0, 0, 0, 0)),
        (STUDY_ROOT_FIND, ALL, (1, 1, 1, 1)),
        (PATIENT_ROOT_FIND, QueryOptions(relational=True), (1, 0, 0, 0)),
        (PATIENT_ROOT_FIND, QueryOptions(combined_datetime=True), (0, 1, 0, 0)),
        (PATIENT_ROOT_FIND, QueryOptions(fuzzy_names=True), (0, 0, 1, 0)),
        (PATIENT_ROOT_FIND, QueryOptions(timezone=True), (0, 0, 0, 1)),
        (STUDY_ROOT_MOVE, ALL, (1,)),
        (STUDY_ROOT_GET, QueryOptions(fuzzy_names=True), (0,)),
        (PATIENT_STUDY_ONLY_MOVE, ALL, (1,)),
        (COMPOSITE_INSTANCE_ROOT_GET, ALL, (1,)),
        (COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, NO_OPTIONS, (0,)),
        # The first two bytes of the worklist's are reserved, and 1 (Table K.5-1).
        (MODALITY_WORKLIST_FIND, NO_OPTIONS, (1, 1, 0, 0)),
        (MODALITY_WORKLIST_FIND, QueryOptions(relational=True, fuzzy_names=True), (1, 1, 1, 0)),
        (MODALITY_WORKLIST_FIND, QueryOptions(timezone=True), (1, 1, 0, 1)),
    ],
)
def test_options_as_bytes(uid: str, options: QueryOptions, values: tuple[int, ...]) -> None:
    assert options.encode(uid) == bytes(values)
    assert options.propose(uid) == item(uid, values)


@pytest.mark.parametrize("length", range(8))
@pytest.mark.parametrize("uid", [STUDY_ROOT_FIND, STUDY_ROOT_MOVE, MODALITY_WORKLIST_FIND])
def test_as_many_bytes_are_answered_as_were_offered(uid: str, length: int) -> None:
    answer = ALL.encode(uid, length)
    assert len(answer) == length
    assert ALL.encode(uid)[:length] == answer[: len(ALL.encode(uid))]
    assert not any(answer[len(ALL.encode(uid)) :])  # what we do not know is turned down


@pytest.mark.parametrize(
    ("uid", "values", "expected"),
    [
        (STUDY_ROOT_FIND, (), NO_OPTIONS),
        (STUDY_ROOT_FIND, (1,), QueryOptions(relational=True)),
        (STUDY_ROOT_FIND, (1, 0, 1), QueryOptions(relational=True, fuzzy_names=True)),
        (STUDY_ROOT_FIND, (1, 1, 1, 1, 1, 1), ALL),
        (STUDY_ROOT_FIND, (2, 255, 0, 1), QueryOptions(timezone=True)),
        (STUDY_ROOT_GET, (1,), QueryOptions(relational=True)),
        (MODALITY_WORKLIST_FIND, (1, 1, 1), QueryOptions(fuzzy_names=True)),
        (MODALITY_WORKLIST_FIND, (1, 1, 0, 1), QueryOptions(timezone=True)),
    ],
)
def test_bytes_as_options(uid: str, values: tuple[int, ...], expected: QueryOptions) -> None:
    assert options_of(item(uid, values)) == expected


def test_a_retrieval_knows_no_more_than_relational() -> None:
    # The second byte of a retrieval's is about something else (Table C.5-3).
    assert options_of(item(STUDY_ROOT_GET, (1, 1, 1, 1))) == QueryOptions(relational=True)


def test_what_is_agreed_is_what_both_have() -> None:
    ours = QueryOptions(relational=True, fuzzy_names=True)
    assert ours.agree(item(STUDY_ROOT_FIND, (1, 1, 0, 0))) == QueryOptions(relational=True)
    assert NO_OPTIONS.agree(item(STUDY_ROOT_FIND, (1, 1, 1, 1))) == NO_OPTIONS
    assert ALL.agree(item(STUDY_ROOT_FIND, (1,))) == QueryOptions(relational=True)


def test_nothing_offered_is_nothing_agreed() -> None:
    assert options_of(None) == NO_OPTIONS
