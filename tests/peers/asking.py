"""What PS3.4 answers to a query of tests/peers/queries.py, and how to put one to any SCP."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName

from aiodicom.query import MODELS
from tests.peers.dcmtk import run_findscu, write_identifier
from tests.peers.process import Peer
from tests.peers.pynetdicom_peer import run_pynetdicom_query
from tests.peers.queries import Query
from tests.peers.query_report import QueryReport
from tests.studies import instances_of

MODEL_OPTIONS: Final = {"patient": "-P", "study": "-S", "patient-study": "-O"}  # of findscu
ITEM_KEY: Final = re.compile(r"(\w+)\[0\]\.(\w+)")  # a key in the item of a sequence, as findscu writes it

COUNTS: Final[Mapping[str, str]] = {
    "NumberOfPatientRelatedStudies": "StudyInstanceUID",
    "NumberOfPatientRelatedSeries": "SeriesInstanceUID",
    "NumberOfPatientRelatedInstances": "SOPInstanceUID",
    "NumberOfStudyRelatedSeries": "SeriesInstanceUID",
    "NumberOfStudyRelatedInstances": "SOPInstanceUID",
    "NumberOfSeriesRelatedInstances": "SOPInstanceUID",
}
SETS: Final[Mapping[str, str]] = {"ModalitiesInStudy": "Modality", "SOPClassesInStudy": "SOPClassUID"}

Answer = tuple[tuple[str, str], ...]
"""What was asked for, keyword and value of each key; what is not there is an empty value."""


# What PS3.4 answers.


def answers_of(labels: Iterable[str], query: Query) -> list[Answer]:
    """What a query asks for of the patients, studies, series or instances of those labels."""
    return [tuple((key, value_of(label, key)) for key in query.keys) for label in labels]


def value_of(label: str, key: str) -> str:
    """The value that a patient, study, series or instance has for a key; `jane+jane-caps` are two taken for one."""
    all_instances = [instance for part in label.split("+") for instance in instances_of(part)]
    if key in COUNTS:
        return str(len({instance[COUNTS[key]].value for instance in all_instances}))
    if key in SETS:
        return "\\".join(sorted({instance[SETS[key]].value for instance in all_instances}))
    return normalized(all_instances[0], key)


def normalized(dataset: Dataset, key: str) -> str:
    """The value of a key in a data set, without what has no meaning; empty where it is not there."""
    if item_key := ITEM_KEY.fullmatch(key):
        items = dataset.get(item_key[1]) or [Dataset()]
        return normalized(items[0], item_key[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that cannot be decoded
        element = dataset.get(tag_of(key))
        if element is None or element.is_empty:
            return ""
        values = [text_of(value) for value in (element.value if element.VM > 1 else [element.value])]
    return "\\".join(sorted(values) if key in SETS else values)


def text_of(value: object) -> str:
    """One value as text, without padding; of a name without empty components at the end (PS3.5 §6.2.1.1)."""
    if isinstance(value, PersonName):
        return "=".join(group.rstrip("^ ") for group in str(value).split("=")).rstrip("=")
    return str(value).strip()


# Asking.


@dataclass(frozen=True, slots=True)
class Answers:
    """What an SCP answered: the final status, and the matches."""

    status: int
    matches: list[Answer]


def identifier_of(query: Query) -> Dataset:
    """The identifier of its C-FIND-RQ."""
    identifier = Dataset()
    if query.character_set:
        identifier.SpecificCharacterSet = query.character_set
    if query.level:
        identifier.QueryRetrieveLevel = query.level
    for key, value in query.keys.items():
        if item_key := ITEM_KEY.fullmatch(key):
            if item_key[1] not in identifier:
                setattr(identifier, item_key[1], [Dataset()])
            identifier[item_key[1]].value[0].add(key_element(item_key[2], value))
        else:
            identifier.add(key_element(key, value))
    return identifier


def key_element(keyword: str, value: str) -> DataElement:
    """A key, not validated: wildcards and ranges are no values of its VR."""
    tag = tag_of(keyword)
    return DataElement(tag, dictionary_VR(tag), value, validation_mode=0)


def tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return Tag(tag)


async def ask_with_findscu(peer: Peer, query: Query) -> Answers:
    """Let DCMTK's findscu ask."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "query.dcm"
        write_identifier(identifier_of(query), path)
        report = await run_findscu(
            peer.port, model=MODEL_OPTIONS[query.model], options=["-aec", peer.ae_title], query=path
        )
    return _answers(report, query)


async def ask_with_pynetdicom(peer: Peer, query: Query) -> Answers:
    """Let pynetdicom ask."""
    model = MODELS[query.model].find
    report = await run_pynetdicom_query("find", peer.port, model, identifier_of(query), "--called", peer.ae_title)
    return _answers(report, query)


def _answers(report: QueryReport, query: Query) -> Answers:
    assert report.statuses, report.log
    matches = [tuple((key, normalized(match, key)) for key in query.keys) for match in report.matches]
    return Answers(report.statuses[-1], matches)
