"""What a query is about: information models, levels, identifiers, and what is negotiated of them (PS3.4 Annex C, Annex K)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from aiodicom.errors import LocalProtocolError
from aiodicom.rows import NO_TEXT, as_text
from aiodicom.uids import (
    COMPOSITE_INSTANCE_ROOT_GET,
    COMPOSITE_INSTANCE_ROOT_MOVE,
    COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    PATIENT_STUDY_ONLY_FIND,
    PATIENT_STUDY_ONLY_GET,
    PATIENT_STUDY_ONLY_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from aiodicom.upper_layer.items import SOPClassExtendedNegotiation

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset


class Level(StrEnum):
    """The values of Query/Retrieve Level (0008,0052), from the top of the hierarchy down (PS3.4 §C.6)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True, slots=True)
class Model:
    """An information model of PS3.4: its SOP classes, and its levels.

    Args:
        name: how it is called here.
        find: UID of its SOP class for C-FIND; empty where it has none.
        move: likewise for C-MOVE.
        get: likewise for C-GET.
        levels: from the top down; none where it has no hierarchy, as the worklist.
    """

    name: str
    find: str
    move: str
    get: str
    levels: tuple[Level, ...]


_ALL_LEVELS: Final = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)

MODELS: Final[Mapping[str, Model]] = {
    model.name: model
    for model in (
        Model("patient", PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET, _ALL_LEVELS),
        Model("study", STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET, _ALL_LEVELS[1:]),
        Model(
            "patient-study", PATIENT_STUDY_ONLY_FIND, PATIENT_STUDY_ONLY_MOVE, PATIENT_STUDY_ONLY_GET, _ALL_LEVELS[:2]
        ),
        Model("composite", "", COMPOSITE_INSTANCE_ROOT_MOVE, COMPOSITE_INSTANCE_ROOT_GET, _ALL_LEVELS[3:]),
        Model("no-bulk-data", "", "", COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET, _ALL_LEVELS[3:]),
        Model("worklist", MODALITY_WORKLIST_FIND, "", "", ()),
    )
}
"""The information models by name: PS3.4 §C.6.1-3, §Y.6, §Z.6, §K.6."""

QUERY_RETRIEVE_CLASSES: Final = frozenset(
    uid for model in MODELS.values() for uid in (model.find, model.move, model.get) if uid
)
"""The SOP classes of all of them."""

_RETRIEVAL_CLASSES: Final = QUERY_RETRIEVE_CLASSES - {model.find for model in MODELS.values()}


def level_of(name: str) -> Level:
    """Return the level of that name, in any case; "instance" is "image", too.

    Raises:
        LocalProtocolError: there is none.
    """
    upper = name.upper()
    try:
        return Level("IMAGE" if upper == "INSTANCE" else upper)
    except ValueError:
        raise LocalProtocolError(f"{name!r} is no level: say patient, study, series or image") from None


def model_of(name: str) -> Model:
    """Return the information model of that name, or of one of its SOP classes.

    Raises:
        LocalProtocolError: there is none.
    """
    if name in MODELS:
        return MODELS[name]
    for model in MODELS.values():
        if name and name in (model.find, model.move, model.get):
            return model
    raise LocalProtocolError(f"{name!r} is no information model: say {', '.join(MODELS)}, or the UID of a SOP class")


# ---- identifiers

_UNIQUE_KEYS: Final[Mapping[Level, str]] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}

# What a query asks for unless its caller says so: the required keys of PS3.4 §C.6.1.1 and §C.6.2.1, and the counts.
_PATIENT_KEYS: Final = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_RETURN_KEYS: Final[Mapping[Level, tuple[str, ...]]] = {
    Level.PATIENT: (*_PATIENT_KEYS, "NumberOfPatientRelatedStudies"),
    Level.STUDY: (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "StudyDescription",
        "ReferringPhysicianName",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "BodyPartExamined",
        "NumberOfSeriesRelatedInstances",
    ),
    Level.IMAGE: ("InstanceNumber", "SOPClassUID"),
}
# PS3.4 Table K.6-1: the keys that every worklist has.
_WORKLIST_KEYS: Final = (
    *_PATIENT_KEYS,
    "AccessionNumber",
    "StudyInstanceUID",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "ReferringPhysicianName",
)
_STEP_KEYS: Final = (
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "Modality",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
)


def unique_key(level: Level) -> str:
    """Return the keyword of the unique key of a level (PS3.4 §C.6.1.1)."""
    return _UNIQUE_KEYS[level]


def _lowest_level(keys: Dataset | Mapping[str, Any]) -> Level | None:
    """The lowest level whose unique key has a value."""
    return next((level for level in reversed(Level) if keys.get(_UNIQUE_KEYS[level])), None)


def _level_keys(identifier: Dataset | Mapping[str, Any]) -> dict[str, Any]:
    """What in an identifier may say its level."""
    return {keyword: identifier.get(keyword) for keyword in ("QueryRetrieveLevel", *_UNIQUE_KEYS.values())}


def choose_model(
    name: str | None,
    level: str | None,
    identifier: Dataset | Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] = MappingProxyType({}),
) -> Model:
    """Return the information model of that name; without one Patient Root at the patient level, else Study Root.

    Args:
        name: of the model, or the UID of one of its SOP classes.
        level: at which level; else what is asked for says it, see `make_query` and `make_retrieval`.
        identifier: what is asked for.
        keys: likewise.

    Raises:
        LocalProtocolError: there is no such model, or level.
    """
    if name is not None:
        return model_of(name)
    given = keys if identifier is None else {**_level_keys(identifier), **keys}
    said = level or given.get("QueryRetrieveLevel") or _lowest_level(given)
    return MODELS["patient" if said and level_of(str(said)) is Level.PATIENT else "study"]


def make_query(
    identifier: Dataset | Mapping[str, Any] | None, *, model: Model, level: str | None, keys: Mapping[str, Any]
) -> Dataset:
    """Return the identifier of a C-FIND (PS3.4 §C.4.1.1.3).

    A Dataset goes out as it is, but for what `level` and `keys` say. Without one, the return keys that are usual at the
    level are added to those given.

    Args:
        identifier: a Dataset, or keys by keyword.
        model: which information model it is for.
        level: at which level; that of the identifier if it has one.
        keys: further keys by keyword; None asks for the attribute.

    Raises:
        LocalProtocolError: the level is missing, or not one of the model; a keyword is not known.
    """
    dataset = _with_keys(identifier, keys)
    at = _set_level(dataset, model, level)
    if identifier is None or isinstance(identifier, Mapping):
        for keyword in _WORKLIST_KEYS if at is None else _keys_at(at, model):
            if keyword not in dataset:
                dataset.add(_element(keyword, None))
        if at is None:
            _add_step_keys(dataset)
    return _in_a_character_set(dataset)


def make_retrieval(
    identifier: Dataset | Mapping[str, Any] | None, *, model: Model, level: str | None, keys: Mapping[str, Any]
) -> Dataset:
    """Return the identifier of a C-MOVE or C-GET: unique keys alone (PS3.4 §C.4.2.1.4, §C.4.3.1.3).

    Args:
        identifier: a Dataset, or keys by keyword.
        model: which information model it is for.
        level: at which level; without one, in a Dataset neither, that of the lowest unique key.
        keys: further keys by keyword.

    Raises:
        LocalProtocolError: the level is missing, or not one of the model; its unique key is missing; a keyword is not
            known.
    """
    dataset = _with_keys(identifier, keys)
    if level is None and not dataset.get("QueryRetrieveLevel"):
        level = _lowest_level(dataset)
    at = _set_level(dataset, model, level)
    if at is not None and not dataset.get(_UNIQUE_KEYS[at]):
        raise LocalProtocolError(f"a retrieval at the level {at} needs its unique key, {_UNIQUE_KEYS[at]}")
    return _in_a_character_set(dataset)


def _with_keys(identifier: Dataset | Mapping[str, Any] | None, keys: Mapping[str, Any]) -> Dataset:
    from copy import deepcopy

    from pydicom.dataset import Dataset

    dataset = deepcopy(identifier) if isinstance(identifier, Dataset) else Dataset()
    given = {} if isinstance(identifier, Dataset) or identifier is None else identifier
    for keyword, value in {**given, **keys}.items():
        dataset.add(_element(keyword, value))
    return dataset


def _element(keyword: str, value: object) -> DataElement:
    from pydicom import config
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement

    tag = tag_for_keyword(keyword)
    if not (keyword and tag):
        raise LocalProtocolError(f"{keyword!r} is no keyword of the data dictionary (PS3.6 §6)")
    vr = dictionary_VR(tag)[:2]  # the first, where it has several
    try:
        # What matches is no value of its VR: "A*", "20240101-".
        return DataElement(tag, vr, _value(value, vr), validation_mode=config.IGNORE)
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        raise LocalProtocolError(f"{keyword} cannot have such a value as {type(value).__name__}") from None


def _value(value: object, vr: str) -> object:
    """A value for pydicom: a dict is an item of a sequence; dates and numbers become text where their VR is text."""
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if vr == "SQ":
        items = [value] if _is_item(value) else value or ()
        return [_with_keys(each, {}) for each in items]  # type: ignore[attr-defined]
    if value is None or vr in NO_TEXT:
        return list(value) if isinstance(value, tuple) else value
    return as_text(value, vr)


def _is_item(value: object) -> bool:
    from pydicom.dataset import Dataset

    return isinstance(value, Mapping | Dataset)


def _set_level(dataset: Dataset, model: Model, level: str | None) -> Level | None:
    if not model.levels:
        if level is not None:
            raise LocalProtocolError(f"the model {model.name!r} has no levels: leave it out")
        return None
    said = level if level is not None else dataset.get("QueryRetrieveLevel")
    if not said:
        raise LocalProtocolError(f"at which level? say level= {', '.join(each.lower() for each in model.levels)}")
    found = level_of(str(said))
    if found not in model.levels:
        allowed = ", ".join(each.lower() for each in model.levels)
        raise LocalProtocolError(f"the model {model.name!r} has no level {found.lower()}: it has {allowed}")
    dataset.QueryRetrieveLevel = found.value
    return found


def _keys_at(level: Level, model: Model) -> Iterable[str]:
    yield from (_UNIQUE_KEYS[each] for each in model.levels[: model.levels.index(level) + 1])
    yield from _RETURN_KEYS[level]
    if level is model.levels[0]:  # Study Root has the patient's attributes at its level of studies
        yield from _PATIENT_KEYS


def _add_step_keys(dataset: Dataset) -> None:
    from pydicom.dataset import Dataset

    if "ScheduledProcedureStepSequence" not in dataset:
        dataset.ScheduledProcedureStepSequence = [Dataset()]
    for step in dataset.ScheduledProcedureStepSequence[:1]:
        for keyword in _STEP_KEYS:
            if keyword not in step:
                step.add(_element(keyword, None))


def _in_a_character_set(dataset: Dataset) -> Dataset:
    """Declare UTF-8 where a value needs more than ASCII, and nothing is declared."""
    if not dataset.get("SpecificCharacterSet") and not _is_ascii(dataset):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def _is_ascii(dataset: Dataset) -> bool:
    return all(
        all(map(_is_ascii, element.value)) if element.VR == "SQ" else str(element.value).isascii()
        for element in dataset
        if element.value
    )


# ---- extended negotiation


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """What SOP Class Extended Negotiation can add to Query/Retrieve and the worklist (PS3.4 §C.5.1.1, §C.5.2.1, §K.5.1).

    Args:
        relational: queries and retrievals need not name the unique keys of the levels above theirs.
        combined_datetime: ranges of a date and of the time that belongs to it are one range.
        fuzzy_names: person names are matched by how they sound or are spelled, as the SCP sees fit.
        timezone: the SCP adjusts times to the Timezone Offset From UTC of the query.
    """

    relational: bool = False
    combined_datetime: bool = False
    fuzzy_names: bool = False
    timezone: bool = False

    def propose(self, sop_class_uid: str) -> SOPClassExtendedNegotiation:
        """Return the sub-item that asks for them for a SOP class."""
        return SOPClassExtendedNegotiation(sop_class_uid, self.encode(sop_class_uid))

    def agree(self, offered: SOPClassExtendedNegotiation) -> QueryOptions:
        """Return what holds where we support these and the peer offers that."""
        other = options_of(offered)
        return QueryOptions(
            **{each.name: getattr(self, each.name) and getattr(other, each.name) for each in fields(self)}
        )

    def encode(self, sop_class_uid: str, length: int | None = None) -> bytes:
        """Return them as Service-class-application-information (PS3.4 Tables C.5-1 to C.5-4, K.5-1).

        Args:
            sop_class_uid: what they are for; a retrieval has the first of them alone.
            length: how many bytes; an acceptor answers as many as were offered.
        """
        if sop_class_uid in _RETRIEVAL_CLASSES:
            values = [self.relational]
        elif sop_class_uid == MODALITY_WORKLIST_FIND:  # its first two bytes are reserved, and 1
            values = [True, True, self.fuzzy_names, self.timezone]
        else:
            values = [self.relational, self.combined_datetime, self.fuzzy_names, self.timezone]
        return bytes(values) if length is None else bytes(values).ljust(length, b"\0")[:length]


NO_OPTIONS: Final = QueryOptions()
"""What holds unless something is negotiated."""


def options_of(item: SOPClassExtendedNegotiation | None) -> QueryOptions:
    """Return what a sub-item says: offered in a request, agreed in an answer; none of them without one."""
    if item is None:
        return NO_OPTIONS
    said = [byte == 1 for byte in item.service_class_application_information[:4].ljust(4, b"\0")]
    if item.sop_class_uid == MODALITY_WORKLIST_FIND:
        said[:2] = False, False
    elif item.sop_class_uid in _RETRIEVAL_CLASSES:
        said[1:] = False, False, False
    return QueryOptions(**{each.name: value for each, value in zip(fields(QueryOptions), said, strict=True)})
