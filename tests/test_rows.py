"""Rows encoded: every VR, every transfer syntax, every character set. The oracle is pydicom."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DSdecimal, PersonName

from aiodicom import uids
from aiodicom.dataset import UNCOMPRESSED, decode_data_set, encode_data_set
from aiodicom.errors import InvalidInstance, LocalProtocolError
from aiodicom.part10 import check_data_set
from aiodicom.rows import Row, character_set, encode_row

EXPLICIT: Final = uids.EXPLICIT_VR_LITTLE_ENDIAN
IMPLICIT: Final = uids.IMPLICIT_VR_LITTLE_ENDIAN
# Two names that Python has as well, but whose text is none that a data set may carry.
NOT_OURS: Final = ("ISO 2022 GBK", "ISO 2022 58")

STUDY: Final[Row] = {
    "StudyInstanceUID": "1.2.3",
    "QueryRetrieveLevel": "STUDY",
    "PatientName": "Doe^John",
    "PatientID": "",
    "StudyDate": None,
    "ModalitiesInStudy": ["CT", "MR"],
    "NumberOfStudyRelatedInstances": 12,
    0x00080054: "AIODICOM",
}


def decoded(row: Row, syntax: str = EXPLICIT) -> Dataset:
    data = encode_row(row, syntax)
    if syntax not in uids.DEFLATED:
        check_data_set(data, syntax)
    return decode_data_set(data, syntax)


def value_of(keyword: str, value: object, syntax: str = EXPLICIT) -> object:
    return decoded({keyword: value}, syntax)[keyword].value


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_a_row_is_the_data_set_that_pydicom_encodes(syntax: str) -> None:
    ds = Dataset()
    for key, value in dict(STUDY).items():
        keyword = keyword_for_tag(key) if isinstance(key, int) else key
        setattr(ds, str(keyword), value)
    assert encode_row(STUDY, syntax) == encode_data_set(ds, syntax)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("StudyDate", date(2024, 2, 29), "20240229"),
        ("StudyDate", date(987, 1, 2), "09870102"),
        ("StudyDate", datetime(2024, 2, 29, 10, 0, tzinfo=UTC), "20240229"),
        ("StudyTime", time(7, 5), "070500"),
        ("StudyTime", time(7, 5, 9, 1200), "070509.001200"),
        ("StudyTime", datetime(2024, 2, 29, 10, 0, tzinfo=UTC), "100000"),
        ("AcquisitionDateTime", date(2024, 2, 29), "20240229"),
        ("AcquisitionDateTime", datetime(2024, 2, 29, 7, 5), "20240229070500"),  # noqa: DTZ001
        (
            "AcquisitionDateTime",
            datetime(2024, 2, 29, 7, 5, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            "20240229070500-0330",
        ),
        ("SeriesNumber", -3, -3),
        ("SeriesNumber", 3.0, 3),
        ("SeriesNumber", Decimal(3), 3),
        ("PatientWeight", 70, 70),
        ("PatientWeight", 70.5, 70.5),
        ("PatientWeight", Decimal("70.5"), 70.5),
        ("PatientWeight", DSdecimal("70.50"), 70.5),
        ("PatientWeight", 1 / 3, 0.33333333333333),
        ("ImageType", ("ORIGINAL", None, "AXIAL"), ["ORIGINAL", "", "AXIAL"]),
        ("ImageType", MultiValue(str, ["A", "B"]), ["A", "B"]),
        ("ImageType", "A\\B", ["A", "B"]),
        ("PatientName", PersonName("Doe^John"), "Doe^John"),
        ("PatientID", 12345, "12345"),
        ("PatientComments", "one\\two", "one\\two"),
        ("PatientComments", ["one"], "one"),
        ("Rows", 512, 512),
        ("Rows", "512", 512),
        ("ReferencedFrameNumbers", [1, 2], [1, 2]),
        ("ReferencedFrameNumbers", "1\\2", [1, 2]),
        ("PixelAspectRatio", [1, 2], [1, 2]),
        ("SimpleFrameList", [1, 2**32 - 1], [1, 2**32 - 1]),
        ("TagAngleSecondAxis", -7, -7),
        ("ReferencePixelX0", -70000, -70000),
        ("RecommendedDisplayFrameRateInFloat", 1.5, 1.5),
        ("TimeRange", [0.1, 2], [0.1, 2.0]),
        ("SelectorUVValue", 2**64 - 1, 2**64 - 1),
        ("SelectorSVValue", -(2**63), -(2**63)),
        ("FrameIncrementPointer", 0x00181063, 0x00181063),
        ("FrameIncrementPointer", [0x00181063, 0x00200013], [0x00181063, 0x00200013]),
        ("EncapsulatedDocument", b"%PDF", b"%PDF"),
        ("EncapsulatedDocument", b"odd", b"odd\0"),
        ("SmallestImagePixelValue", 7, 7),
        ("PatientID", b"as it is", "as it is"),
    ],
)
def test_values_of_python_become_values_of_their_vr(keyword: str, value: object, expected: object, syntax: str) -> None:
    found = value_of(keyword, value, syntax)
    assert (list(found) if isinstance(found, MultiValue) else found) == expected


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("empty", [None, "", [], ()])
@pytest.mark.parametrize(
    "keyword", ["PatientName", "Rows", "PixelSpacing", "StudyInstanceUID", "FrameIncrementPointer"]
)
def test_what_is_empty_is_there_and_has_no_value(keyword: str, empty: object, syntax: str) -> None:
    ds = decoded({keyword: empty}, syntax)
    assert keyword in ds
    assert ds[keyword].is_empty


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_sequences_hold_rows(syntax: str) -> None:
    step: Row = {"Modality": "CT", "ScheduledProtocolCodeSequence": [{"CodeValue": "1"}, {0x00080100: "2"}, {}]}
    ds = decoded({"ScheduledProcedureStepSequence": [step], "ReferencedStudySequence": []}, syntax)
    [item] = ds.ScheduledProcedureStepSequence
    assert item.Modality == "CT"
    assert [code.get("CodeValue") for code in item.ScheduledProtocolCodeSequence] == ["1", "2", None]
    assert list(ds.ReferencedStudySequence) == []
    assert decoded({"ScheduledProcedureStepSequence": step}, syntax).ScheduledProcedureStepSequence[0].Modality == "CT"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("length", [63, 64, 65, 66, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000])
@pytest.mark.parametrize("keyword", ["StudyDescription", "TextValue"])
@pytest.mark.filterwarnings("ignore:The value length:UserWarning:pydicom")
def test_long_values_have_the_length_that_their_vr_has_room_for(keyword: str, length: int, syntax: str) -> None:
    found = value_of(keyword, "x" * length, syntax)
    if isinstance(found, bytes):  # PS3.5 §6.2.2: as UN where the length has 16 bits
        assert (syntax, keyword) == (EXPLICIT, "StudyDescription")
        assert length > 0xFFFE
        found = found.decode()
    assert str(found).strip() == "x" * length


# ---- character sets


def test_ascii_needs_no_character_set_and_anything_else_is_utf_8() -> None:
    assert "SpecificCharacterSet" not in decoded({"PatientName": "Doe^John"})
    for row in ({"PatientName": "Дое^Ян"}, {"PatientName": "Дое^Ян", "SpecificCharacterSet": None}):
        ds = decoded(row)
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert ds.PatientName == "Дое^Ян"


def test_text_within_an_item_counts_and_is_in_the_same_character_set() -> None:
    ds = decoded({"PatientID": "1", "RequestAttributesSequence": [{"RequestedProcedureDescription": "Schädel"}]})
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert ds.RequestAttributesSequence[0].RequestedProcedureDescription == "Schädel"


def test_an_item_may_have_a_character_set_of_its_own() -> None:
    item: Row = {"SpecificCharacterSet": "ISO_IR 144", "RequestedProcedureDescription": "Череп"}
    ds = decoded({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller", "RequestAttributesSequence": [item]})
    assert ds.PatientName == "Müller"
    assert ds.RequestAttributesSequence[0].RequestedProcedureDescription == "Череп"


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ("ISO_IR 100", "Buc^Jérôme"),
        ("ISO_IR 101", "Wałęsa^Lech"),
        ("ISO_IR 109", "Ħ^ġ"),
        ("ISO_IR 110", "Ģ^ų"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 127", "قباني^لنزار"),
        ("ISO_IR 126", "Διονυσιος"),
        ("ISO_IR 138", "שרון^דבורה"),
        ("ISO_IR 148", "Çavuşoğlu"),
        ("ISO_IR 166", "นามสกุล"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東=Ж"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("GBK", "Wang^XiaoDong=王^小东"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87", "Yamada^Tarou=山田A^B太郎C=やまだ^たろう"),
        ("ISO 2022 IR 13\\ISO 2022 IR 87", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("ISO 2022 IR 87", "山田^太郎"),
        ("\\ISO 2022 IR 87\\ISO 2022 IR 159", "A山b鷗c田"),
        ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO 2022 IR 149", "홍^길동"),
        ("\\ISO 2022 IR 100\\ISO 2022 IR 144", "Jérôme Люк é^Ж"),
        ("ISO 2022 IR 144\\ISO 2022 IR 87", "Люк山Люк^田Л"),
        ("ISO 2022 IR 100\\ISO 2022 IR 126", "éΔé=Δ"),
    ],
)
def test_each_character_set_arrives_as_it_was(terms: str, name: str) -> None:
    ds = decoded({"SpecificCharacterSet": terms, "PatientName": name, "StudyDescription": f"{name}\\x {name}"})
    assert "\\".join(ds["SpecificCharacterSet"].value) == terms if "\\" in terms else ds.SpecificCharacterSet == terms
    assert ds.PatientName == name
    assert list(ds.StudyDescription) == [name, f"x {name}"]


@pytest.mark.parametrize(
    ("terms", "name", "expected"),
    [
        # PS3.5 §H.3.1, §H.3.2, §I.2, §K.2.
        (
            "\\ISO 2022 IR 87",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        ),
        (
            "\\ISO 2022 IR 149",
            "Hong^Gildong=洪^吉洞=홍^길동",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ),
        (
            "\\ISO 2022 IR 58",
            "Zhang^XiaoDong=张^小东=",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        ),
    ],
)
def test_the_examples_of_the_standard(terms: str, name: str, expected: bytes) -> None:
    text = character_set(terms)
    assert text is not None
    assert text(name) == expected


@pytest.mark.parametrize("terms", sorted({*python_encoding} - {*NOT_OURS}))
def test_every_defined_term_holds_ascii(terms: str) -> None:
    text = character_set(terms)
    assert text is not None
    assert text("Doe^John=\\~ x") == b"Doe^John=\\~ x"


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ("", "é"),
        ("ISO_IR 6", "é"),
        ("ISO_IR 100", "Ж"),
        ("ISO_IR 13", "山"),
        ("ISO_IR 13", "é"),
        ("\\ISO 2022 IR 87", "é"),
        ("\\ISO 2022 IR 87", "\u9dd7"),  # in JIS X 0212 only
        ("\\ISO 2022 IR 149", "Ж\u0e01"),
        ("ISO_IR 192", "\ud800"),
    ],
)
def test_a_character_set_does_not_hold_what_it_does_not_have(terms: str, name: str) -> None:
    text = character_set(terms)
    assert text is not None
    with pytest.raises(UnicodeEncodeError):
        text(name)


def test_a_character_set_may_be_unknown() -> None:
    assert character_set("ISO_IR 999") is None
    assert character_set("\\ISO 2022 IR 999") is None


# ---- what is refused


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"PatientNames": "x"}, "'PatientNames' is no keyword"),
        ({"": "x"}, "'' is no keyword"),
        ({0x00020010: "1.2"}, "(0002,0010) is no element"),
        ({0x00080000: 4}, "(0008,0000) is no element"),
        ({0xFFFEE000: b""}, "(FFFE,E000) is no element"),
        ({2**32 + 0x00100010: "x"}, "is no element"),
        ({"PatientID": "1", 0x00100020: "2"}, "given twice"),
    ],
)
def test_a_row_names_elements_of_the_dictionary(row: Row, said: str) -> None:
    with pytest.raises(LocalProtocolError) as refused:
        encode_row(row, EXPLICIT)
    assert said in str(refused.value)


def test_a_row_is_not_compressed() -> None:
    with pytest.raises(LocalProtocolError, match=r"1\.2\.840\.10008\.1\.2\.5"):
        encode_row({}, "1.2.840.10008.1.2.5")


SECRET: Final = "s3cret"


@pytest.mark.parametrize(
    ("row", "tag"),
    [
        ({"PatientName": {SECRET: 1}}, "(0010,0010)"),
        ({"PatientName": [[SECRET]]}, "(0010,0010)"),
        ({"PatientComments": [SECRET, SECRET]}, "(0010,4000)"),
        ({"StudyDate": 20240101}, "(0008,0020)"),
        ({"StudyDate": time(1)}, "(0008,0020)"),
        ({"AcquisitionDateTime": time(1)}, "(0008,002A)"),
        ({"SeriesNumber": 1.5}, "(0020,0011)"),
        ({"SeriesNumber": float("nan")}, "(0020,0011)"),
        ({"PatientWeight": float("inf")}, "(0010,1030)"),
        ({"PatientWeight": date(2024, 1, 1)}, "(0010,1030)"),
        ({"Rows": SECRET}, "(0028,0010)"),
        ({"Rows": 70000}, "(0028,0010)"),
        ({"Rows": 1.5}, "(0028,0010)"),
        ({"FrameIncrementPointer": SECRET}, "(0028,0009)"),
        ({"PixelData": SECRET}, "(7FE0,0010)"),
        ({"RequestAttributesSequence": SECRET}, "(0040,0275)"),
        ({"RequestAttributesSequence": [SECRET]}, "(0040,0275)"),
        ({"RequestAttributesSequence": [{"PatientName": 1, "Rows": SECRET}]}, "(0028,0010)"),
        ({"Modality": f"é{SECRET}"}, "(0008,0060)"),
        ({"PatientName": f"Ж{SECRET}", "SpecificCharacterSet": "ISO_IR 100"}, "(0010,0010)"),
        ({"PatientName": f"\ud800{SECRET}"}, "(0010,0010)"),
        ({"PatientName": SECRET, "SpecificCharacterSet": "KLINGON"}, "(0008,0005)"),
        ({0x00091001: SECRET}, "(0009,1001)"),
    ],
)
def test_what_cannot_be_encoded_is_named_by_its_tag_never_by_its_value(row: Row, tag: str) -> None:
    with pytest.raises(InvalidInstance) as refused:
        encode_row(row, EXPLICIT)
    assert tag in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_private_elements_go_by_number() -> None:
    ds = decoded({0x00090010: "ACME", 0x00091001: b"odd"})
    assert ds[0x00090010].value == "ACME"
    assert ds[0x00091001].value == b"odd\0"


def test_what_is_kept_of_shapes_is_bounded() -> None:
    """A peer asks for what it likes, thousands of unknown attributes each time."""
    tracemalloc.start()
    try:
        for group in range(0x1000, 0x1004, 2):
            encode_row({group << 16 | element: None for element in range(1, 9991)}, EXPLICIT)
        for first in range(1, 300):
            encode_row({0x2000 << 16 | element: None for element in range(first, first + 250)}, EXPLICIT)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 16 << 20


def test_a_row_may_have_more_attributes_than_what_is_kept_of_a_shape() -> None:
    row: Row = {0x1000 << 16 | element: b"ab" for element in range(9990, 0, -1)}
    assert [element.tag & 0xFFFF for element in decoded(row)] == list(range(1, 9991))
    with pytest.raises(LocalProtocolError, match="given twice"):
        encode_row({**row, 0x00100010: "A", "PatientName": "B"}, EXPLICIT)


# ---- anything, against pydicom

_TEXT: Final = st.text(st.characters(exclude_categories=["C"], exclude_characters="\\^= "), min_size=1, max_size=20)
_WORD: Final = st.text("ABCXYZ0123456789_", min_size=1, max_size=16)
_VALUES: Final[dict[str, st.SearchStrategy[object]]] = {
    "PatientName": _TEXT,
    "PatientID": _TEXT,
    "AccessionNumber": st.none() | _WORD,
    "Modality": _WORD,
    "ImageType": st.lists(_WORD, min_size=1, max_size=4),
    "StudyDate": st.dates(),
    "StudyTime": st.times(),
    "Rows": st.integers(0, 65535),
    "SeriesNumber": st.integers(-(2**31), 2**31 - 1),
    "PatientWeight": st.floats(-1e6, 1e6),
    "StudyInstanceUID": st.from_regex(r"\A1(\.[1-9][0-9]{0,5}){0,8}\Z"),
    "TextValue": _TEXT,
    "FloatingPointValue": st.floats(allow_nan=False),
}
_ROWS: Final = st.fixed_dictionaries({}, optional=_VALUES)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@given(row=st.fixed_dictionaries({}, optional={**_VALUES, "RequestAttributesSequence": st.lists(_ROWS, max_size=3)}))
def test_any_row_decodes_to_its_values(syntax: str, row: dict[str, object]) -> None:
    ds = decoded(row, syntax)
    assert [element.tag for element in ds] == sorted(element.tag for element in ds)
    ds.pop("SpecificCharacterSet", None)
    assert {element.keyword for element in ds} == set(row)
    _compare(row, ds)


def _compare(row: dict[str, object], ds: Dataset) -> None:
    for keyword, value in row.items():
        found = ds[keyword].value
        if keyword == "RequestAttributesSequence":
            assert isinstance(value, list)
            assert len(found) == len(value)
            for inner, item in zip(value, found, strict=True):
                _compare(inner, item)
        else:
            assert _AS_STORED.get(keyword, str)(value) == _AS_FOUND.get(keyword, str)(found), tag_for_keyword(keyword)


_AS_STORED: Final[dict[str, Callable[[Any], object]]] = {
    "AccessionNumber": lambda value: value or "",
    "ImageType": list,
    "StudyDate": lambda value: value.isoformat().replace("-", ""),
    "StudyTime": lambda value: value.isoformat().replace(":", ""),
    "PatientWeight": lambda value: pytest.approx(value, rel=1e-9, abs=1e-9),
}
_AS_FOUND: Final[dict[str, Callable[[Any], object]]] = {
    "AccessionNumber": lambda found: found or "",
    "ImageType": lambda found: [found] if isinstance(found, str) else list(found),
    "PatientWeight": float,
}
