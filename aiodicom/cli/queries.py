"""What a query asks a peer for: its identifier, made of `-k`, of a query file, and of what is usual at its level."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiodicom.cli.exits import ExitCode
from aiodicom.cli.keys import Key, parse_key
from aiodicom.cli.options import Parser, parse_with_peer
from aiodicom.cli.query_files import read_query_file
from aiodicom.errors import InvalidInstance, LocalProtocolError
from aiodicom.query import MODELS, Level, Model, QueryOptions, choose_model, make_query, unique_key

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
    ("-P", "--patient", "patient", "by Patient Root (the default at the patient level)"),
    ("-S", "--study", "study", "by Study Root (the default at the others)"),
    ("-O", "--psonly", "patient-study", "by Patient/Study Only"),
    ("-W", "--worklist", "worklist", "the Modality Worklist"),
)
_NEGOTIATED: Final = (
    ("--relational", "relational", "ask without the unique keys of the levels above"),
    ("--combined-datetime", "combined_datetime", "match a date and its time as one range"),
    ("--fuzzy", "fuzzy_names", "match names as the peer thinks that they sound"),
    ("--timezone", "timezone", "let the peer adjust times to our time zone"),
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

    identifier: Dataset = field(repr=False)
    model: Model
    level: Level | None
    columns: tuple[Key, ...]


def add_query_options(parser: Parser, service: str = "find") -> None:
    """Add `-k`, `--level`, and the options that choose the information model and what is negotiated of it.

    Args:
        parser: where to.
        service: which of "find", "get" and "move" is asked for.
    """
    is_find = service == "find"
    parser.add_argument(
        "-k", "--key", dest="keys", metavar="KEY", type=parse_key, action="append", default=[], help="see below"
    )
    parser.add_argument(
        "--level",
        type=str.lower,
        metavar="LEVEL",
        choices=("patient", "study", "series", "image"),
        help="what is wanted: patient, study, series or image (it follows from the keys)",
    )
    models = [model.name for model in MODELS.values() if getattr(model, service)]
    group = parser.add_mutually_exclusive_group()
    for short, long, model, words in _MODEL_OPTIONS:
        if model in models:
            group.add_argument(short, long, dest="model", action="store_const", const=model, help=f"ask {words}")
    group.add_argument("--model", choices=models, help=f"or by its name: {', '.join(models)}", metavar="NAME")
    for option, name, words in _NEGOTIATED if is_find else _NEGOTIATED[:1]:
        parser.add_argument(option, dest=name, action="store_true", help=f"{words}, if the peer agrees")


def query_options_of(options: Namespace) -> QueryOptions | None:
    """Return what is to be negotiated (PS3.4 §C.5); None where that is nothing."""
    asked = {name: True for _, name, _ in _NEGOTIATED if getattr(options, name, False)}
    return QueryOptions(**asked) if asked else None


def refused_options(asked: QueryOptions | None, granted: QueryOptions) -> list[str]:
    """Return the options of the command line that the peer did not agree to."""
    return [option for option, name, _ in _NEGOTIATED if getattr(asked, name, False) and not getattr(granted, name)]


def parse_with_query(
    parser: Parser, arguments: Sequence[str], make: Callable[[Namespace, Path | None], object]
) -> Namespace:
    """Parse a command line that names a peer and, perhaps, a file: `query` of the result is what they come to.

    Args:
        parser: what to parse with; it ends the process where something is wrong.
        arguments: the command line.
        make: makes the query of the options and the file, as `query_of` does.
    """
    options = parse_with_peer(parser, arguments)
    file = Path(options.rest[0]) if options.rest else None
    if options.rest[1:]:
        parser.error(f"unexpected: {' '.join(options.rest[1:])}")
    try:
        options.query = make(options, file)
    except OSError as error:
        parser.exit(ExitCode.CANNOT_READ_INPUT, f"error: {file}: {error.strerror}\n")
    except InvalidInstance as error:
        parser.exit(ExitCode.NO_VALID_INPUT, f"error: {error}\n")
    except (ValueError, LocalProtocolError) as error:
        parser.error(str(error))
    return options


def query_of(options: Namespace, file: Path | None) -> Query:
    """Return the identifier of a C-FIND: what the file and `-k` say, or `-k` and what is usual at the level.

    Raises:
        ValueError: a key, or two together, cannot be asked for.
        LocalProtocolError: neither can the level.
        InvalidInstance: the file is no query.
        OSError: it cannot be read.
    """
    keys = tuple(options.keys)
    level = level_said(options, keys)
    if file is None:
        if level is None and options.model != "worklist":
            level = _lowest_unique_key(keys) or Level.STUDY.value
        model = choose_model(options.model, level)
        base = make_query(None, model=model, level=level, keys={})
    else:
        base = read_query_file(file)
        level = level or level_in(base)
        model = choose_model(options.model, level)
        if level is None and model.levels:
            raise ValueError(f"{file} does not say at which level: say --level")
    identifier = make_query(with_keys(base, keys), model=model, level=level, keys={})
    found = Level(identifier.QueryRetrieveLevel) if model.levels else None
    return Query(identifier, model, found, _columns(keys, found) if file is None else _columns_of(identifier))


def level_said(options: Namespace, keys: Sequence[Key]) -> str | None:
    """Return the level that `--level` or `-k` names.

    Raises:
        ValueError: they name different ones.
    """
    said = next((key.value.strip() for key in reversed(keys) if key.tag == QUERY_RETRIEVE_LEVEL and key.value), None)
    option: str | None = options.level
    if said and option and said.lower() != option:
        raise ValueError(f"two levels: {option} by --level, {said} by -k QueryRetrieveLevel")
    return said or option


def level_in(identifier: Dataset) -> str | None:
    """Return the level that an identifier names."""
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


def with_keys(identifier: Dataset, keys: Sequence[Key]) -> Dataset:
    """Return the identifier with the keys in it, in a character set that can hold them.

    Raises:
        ValueError: a key cannot have such a value, or not in the character set that is asked for.
    """
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
