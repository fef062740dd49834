"""Status codes (PS3.7 Annex C, PS3.4), with pynetdicom's tables as the oracle for their categories."""

from __future__ import annotations

from enum import IntEnum

import pynetdicom.status
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodicom.dimse import status
from aiodicom.dimse.status import GENERAL, SERVICE_CLASSES, Category, Status

ORACLE_TABLES = {
    name: table
    for name, table in vars(pynetdicom.status).items()
    if name.endswith("_STATUS") and isinstance(table, dict)
}


@pytest.mark.parametrize("name", ORACLE_TABLES)
def test_every_service_class_of_the_oracle_has_our_categories(name: str) -> None:
    table = ORACLE_TABLES[name]
    assert {code: Status(code).category.value for code in table} == {code: row[0] for code, row in table.items()}


def test_every_code_that_the_oracle_knows_has_our_category() -> None:
    known = {code: pynetdicom.status.code_to_category(code) for code in range(0x10000)}
    known = {code: category for code, category in known.items() if category != "Unknown"}
    assert len(known) > 0x3000
    assert {code: Status(code).category.value for code in known} == known


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (0x0000, Category.SUCCESS),
        (0x0001, Category.WARNING),
        (0x0002, Category.FAILURE),
        (0x0106, Category.FAILURE),
        (0x0107, Category.WARNING),
        (0x0116, Category.WARNING),
        (0x0131, Category.FAILURE),
        (0x02FF, Category.FAILURE),
        (0xA000, Category.FAILURE),
        (0xAFFF, Category.FAILURE),
        (0xB000, Category.WARNING),
        (0xBFFF, Category.WARNING),
        (0xC000, Category.FAILURE),
        (0xCFFF, Category.FAILURE),
        (0xFE00, Category.CANCEL),
        (0xFE01, Category.FAILURE),
        (0xFF00, Category.PENDING),
        (0xFF01, Category.PENDING),
        (0xFF02, Category.FAILURE),
    ],
)
def test_category_by_range(code: int, category: Category) -> None:
    assert Status(code).category is category


def test_general_codes_are_those_of_the_oracle_and_pending() -> None:
    assert set(GENERAL) == {*pynetdicom.status.GENERAL_STATUS, 0xFF00}


def test_every_general_code_has_a_constant_with_its_name() -> None:
    constants = {value: name for name, value in vars(status).items() if isinstance(value, Status)}
    assert {code: name.replace("_", " ").lower() for code, name in constants.items()} == {
        code: text.removeprefix("Refused: ").replace("-", " ").lower() for code, text in GENERAL.items()
    }


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x0000, "<Status 0x0000 Success>"),
        (0x0001, "<Status 0x0001 Warning: Requested optional Attributes are not supported>"),
        (0x0110, "<Status 0x0110 Failure: Processing failure>"),
        (0xA700, "<Status 0xA700 Failure: Refused: Out of Resources>"),
        (0xA701, "<Status 0xA701 Failure: Refused: Out of Resources, unable to calculate number of matches>"),
        (0xA7FF, "<Status 0xA7FF Failure: Refused: Out of Resources>"),
        (0xA801, "<Status 0xA801 Failure: Refused: Move Destination unknown>"),
        (0xA9FF, "<Status 0xA9FF Failure: Error: Data Set or Identifier does not match SOP Class>"),
        (0xB007, "<Status 0xB007 Warning: Data Set does not match SOP Class>"),
        (0xB123, "<Status 0xB123 Warning>"),
        (0xC123, "<Status 0xC123 Failure: Error: Cannot understand, or unable to process>"),
        (0xFE00, "<Status 0xFE00 Cancel>"),
        (0xFF00, "<Status 0xFF00 Pending>"),
        (0xFF01, "<Status 0xFF01 Pending: Matches are continuing, one or more Optional Keys are not supported>"),
        (0x1234, "<Status 0x1234 Failure>"),
    ],
)
def test_repr_names_code_category_and_meaning(code: int, text: str) -> None:
    assert repr(Status(code)) == text


def test_service_codes_never_hide_a_general_one() -> None:
    assert [code for code in GENERAL if any(code in codes for codes in SERVICE_CLASSES)] == []


def test_no_range_is_hidden_by_an_earlier_one() -> None:
    assert {codes[0]: Status(codes[0]).description for codes in SERVICE_CLASSES} == {
        codes[0]: description for codes, description in SERVICE_CLASSES.items()
    }


@given(st.integers())
def test_no_number_is_refused(code: int) -> None:
    value = Status(code)
    assert value == code
    assert hash(value) == hash(code)
    assert isinstance(value.category, Category)
    assert value.description
    assert repr(value).startswith("<Status 0x")


def test_it_is_an_int_where_one_is_needed() -> None:
    class Other(IntEnum):
        OUT_OF_RESOURCES = 0xA700

    assert Status(Other.OUT_OF_RESOURCES) == 0xA700
    assert f"{Status(0xA700):04X}" == "A700"
    assert Status(0x0110) in {0x0110}
