"""Queries made of a command line, and matches for them."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset

from aiodicom.cli.options import Parser
from aiodicom.cli.queries import Query, add_query_options, query_of
from aiodicom.cli.wanted import Wanted, wanted_of
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN


def query(*arguments: str, file: Path | None = None) -> Query:
    """What a command line asks for by C-FIND."""
    parser = Parser("find", "find", "")
    add_query_options(parser)
    return query_of(parser.parse_args(arguments), file)


def wanted(*arguments: str, file: Path | None = None) -> tuple[Wanted, ...]:
    """What a command line asks for by C-GET or C-MOVE."""
    parser = Parser("get", "get", "")
    add_query_options(parser, "get")
    return wanted_of(parser.parse_args(arguments), file)


def sent(dataset: Dataset) -> Dataset:
    """What comes out at the other end of an association."""
    return decode_data_set(encode_data_set(dataset, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)


def match(**values: object) -> Dataset:
    """A match as it comes from a peer."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return sent(dataset)
