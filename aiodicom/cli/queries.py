"""What a query asks a peer for: its identifier, made of `-k`, of a query file, and of what is usual at its level."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiodicom.cli.keys import Key, parse_key
from aiodicom.cli.options import Parser
from aiodicom.cli.query_files import read_query_file
from aiodicom.query import MODELS, Level, Model, choose_model, make_query, make_retrieval, unique_key

if TYPE_CHECKING:
    from pydicom import Dataset

FORMS: Final = """\
KEY is one of
  PatientName='A*'                 a value to match; several are separated by a backslash
  PatientName                      without a value: it is asked for
  0010,0010=…, (0010,0010)=…       by tag
  ScheduledProcedureStepSequence[0].Modality=CT, (0040,0100)[0].0008,0060=CT
                                   in an item of a sequence
FILE is a query that -k adds to: a DICOM file, or a dump such as dump2dcm takes"""

QUERY_RETRIEVE_LEVEL: Final = 0x00080052
SPECIFIC_CHARACTER_SET: Final = 0x00080005
_NO_COLUMNS: Final = (QUERY_RETRIEVE_LEVEL, SPECIFIC_CHARACTER_SET)
# What a table shows where only the level is said; the unique key comes last.
_USUAL_COLUMNS: Final[Mapping[Level | None, str]] = {
    Level.PATIENT: "PatientName PatientBirthDate PatientSex NumberOfPatientRelatedStudies PatientID",
    Level.STUDY: """
        PatientName PatientID StudyDate ModalitiesInStudy StudyDescription NumberOfStudyRelatedInstances
        StudyInstanceUID
        """,
    Level.SERIES: """
        Modality SeriesNumber SeriesDescription BodyPartExamined NumberOfSeriesRelatedInstances SeriesInstanceUID
        """,
    Level.IMAGE: "InstanceNumber SOPClassUID SOPInstanceUID",
    None: """
        0040,0100.ScheduledProcedureStepStartDate 0040,0100.ScheduledProcedureStepStartTime 0040,0100.Modality
        0040,0100.ScheduledStationAETitle PatientName PatientID AccessionNumber RequestedProcedureDescription
        """,
}
_MODEL_OPTIONS: Final = (
    ("-P", "--patient", "patient", "Patient Root (the default at the patient level)"),
    ("-S", "--study", "study", "Study Root (the default at the others)"),
    ("-O", "--psonly", "patient-study", "Patient/Study Only"),
    ("-W", "--worklist", "worklist", "Modality Worklist"),
)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a peer.

    Args:
        identifier: as it goes out.
        model: for which information model.
        level: at which level; None for the worklist.
        columns: what a table of the matches shows.
    """

    identifier: Dataset
    model: Model
    level: Level | None
    columns: tuple[Key, ...]


def add_query_options(parser: Parser) -> None:
    """Add `-k`, `--level`, and the options that choose the information model."""
    parser.add_argument(
        "-k", "--key", dest="keys", metavar="KEY", type=parse_key, action="append", default=[], help="see below"
    )
    parser.add_argument(
        "--level", type=str.lower, choices=("patient", "study", "series", "image"), help="what is asked for"
    )
    group = parser.add_mutually_exclusive_group()
    for short, long, model, words in _MODEL_OPTIONS:
        group.add_argument(short, long, dest="model", action="store_const", const=model, help=f"ask by {words}")
    group.add_argument("--model", choices=MODELS, help=f"or by its name: {', '.join(MODELS)}", metavar="NAME")


def query_of(options: Namespace, file: Path | None) -> Query:
    """Return the identifier of a C-FIND: what the file and `-k` say, or `-k` and what is usual at the level.

    Raises:
        ValueError: a key, or two together, cannot be asked for.
        LocalProtocolError: neither can the level; or the file is no query.
    """
    keys = tuple(options.keys)
    level = _level(options, keys)
    if file is None:
        if level is None and options.model != "worklist":
            level = _lowest_unique_key(keys) or Level.STUDY.value
        model = choose_model(options.model, level)
        base = make_query(None, model=model, level=level, keys={})
    else:
        base = read_query_file(file)
        level = level or _level_in(base)
        model = choose_model(options.model, level)
        if level is None and model.levels:
            raise ValueError(f"{file} does not say at which level: say --level")
    identifier = make_query(_with(base, keys), model=model, level=level, keys={})
    found = Level(identifier.QueryRetrieveLevel) if model.levels else None
    return Query(identifier, model, found, _columns(keys, found) if file is None else _columns_of(identifier))


def retrieval_of(options: Namespace, file: Path | None) -> tuple[Dataset, Model]:
    """Return the identifier of a C-GET or C-MOVE: what the file and `-k` say, by default at the level of the lowest UID.

    Its information model is returned with it.

    Raises:
        ValueError: a key, or two together, cannot be asked for.
        LocalProtocolError: neither can the level, or its unique key is missing; or the file is no query.
    """
    from pydicom import Dataset

    keys = tuple(options.keys)
    base = _with(read_query_file(file) if file is not None else Dataset(), keys)
    level = _level(options, keys) or _level_in(base)
    if level is None:
        level = next((each.value for each in reversed(Level) if base.get(unique_key(each))), None)
    model = choose_model(options.model, level)
    if level is None and model.levels:
        raise ValueError("name what to retrieve: -k StudyInstanceUID=…, or another unique key")
    return make_retrieval(base, model=model, level=level, keys={}), model


def _level(options: Namespace, keys: Sequence[Key]) -> str | None:
    """Return the level that `--level` or `-k` names."""
    said = next((key.value.strip() for key in reversed(keys) if key.tag == QUERY_RETRIEVE_LEVEL and key.value), None)
    option: str | None = options.level
    if said and option and said.lower() != option:
        raise ValueError(f"two levels: {option} by --level, {said} by -k QueryRetrieveLevel")
    return said or option


def _level_in(identifier: Dataset) -> str | None:
    return str(identifier.get("QueryRetrieveLevel") or "").strip() or None


def _lowest_unique_key(keys: Sequence[Key]) -> str | None:
    """Return the lowest level whose unique key is among them; that of patients belongs to every query of studies."""
    named = {key.keyword for key in keys}
    return next(
        (each.value for each in reversed(Level) if each is not Level.PATIENT and unique_key(each) in named), None
    )


def _columns(keys: Sequence[Key], level: Level | None) -> tuple[Key, ...]:
    """Return the keys that are asked for, and the unique one; where they are only to match, what is usual besides them."""
    usual = tuple(map(parse_key, _USUAL_COLUMNS[level].split()))
    named = [key for key in keys if key.tag not in _NO_COLUMNS]
    if any(not key.value for key in named):
        usual = usual[-1:] if level is not None else ()
    else:  # nobody wants to see again and again the one UID that was given
        named = [key for key in named if key.vr != "UI" or "\\" in key.value]
    asked = tuple(replace(key, value="") for key in named)
    return tuple(dict.fromkeys((*asked, *usual) if not set(asked) <= set(usual) else usual))


def _columns_of(identifier: Dataset, path: tuple[tuple[int, int], ...] = ()) -> tuple[Key, ...]:
    """Return the keys of an identifier, those in its sequences among them."""
    found: list[Key] = []
    for element in identifier:
        if element.VR == "SQ" and element.value:
            found += _columns_of(element.value[0], (*path, (element.tag, 0)))
        elif element.tag not in _NO_COLUMNS:
            found.append(Key(path, element.tag, element.VR))
    return tuple(found)


def _with(identifier: Dataset, keys: Sequence[Key]) -> Dataset:
    """Return the identifier with the keys in it, in a character set that can hold them."""
    for key in keys:
        key.put(identifier)
    declared = identifier.get("SpecificCharacterSet")
    if declared and not all(_can_be_written(key.value, declared) for key in keys):
        if any(key.tag == SPECIFIC_CHARACTER_SET and key.value for key in keys):
            raise ValueError(f"there are characters that {declared} does not have; leave SpecificCharacterSet out")
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def _can_be_written(text: str, character_set: str | Sequence[str]) -> bool:
    from pydicom.charset import convert_encodings

    if text.isascii():
        return True
    names = [character_set] if isinstance(character_set, str) else list(character_set)
    with warnings.catch_warnings(action="error"):
        try:
            encodings = convert_encodings(names)
        except (LookupError, UserWarning):  # it is none
            return False
    for encoding in encodings:
        try:
            text.encode(encoding)
        except (LookupError, UnicodeError):
            continue
        return True
    return False
