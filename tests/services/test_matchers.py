"""One key against one stored value: a class for each kind of matching of PS3.4 §C.2.2.2."""

from __future__ import annotations

import re
from decimal import Decimal
from fnmatch import translate
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodicom.errors import InvalidInstance
from aiodicom.services.matchers import (
    FuzzyNames,
    Moments,
    Names,
    Numbers,
    OneOf,
    Range,
    Wildcards,
    combined,
    fold_name,
    in_zone,
    matcher,
    pair_in_zone,
)


def fits(vr: str, key: str, stored: str, *, fuzzy_names: bool = False) -> bool:
    test = matcher(vr, key, fuzzy_names=fuzzy_names)
    return test is None or test(stored)


class TestUniversal:
    @pytest.mark.parametrize("vr", ["AE", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI", "US", "UN", "LT"])
    @pytest.mark.parametrize("key", ["", " ", "\0", " \0", "\\", " \\ "])
    def test_a_key_without_a_value(self, vr: str, key: str) -> None:
        if vr == "LT" and "\\" in key:
            return  # a character like any other
        assert matcher(vr, key) is None

    @pytest.mark.parametrize("vr", ["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
    @pytest.mark.parametrize("key", ["*", "**", "*****  "])
    def test_an_asterisk_where_there_are_wildcards(self, vr: str, key: str) -> None:
        assert matcher(vr, key) is None
        assert fits(vr, key, "")

    @pytest.mark.parametrize("vr", ["UI", "DA", "IS", "AS"])
    def test_an_asterisk_elsewhere_is_a_character(self, vr: str) -> None:
        assert not fits(vr, "*", "1")

    @pytest.mark.parametrize("vr", ["DA", "TM", "DT"])
    def test_a_range_without_ends(self, vr: str) -> None:
        assert matcher(vr, "-") is None

    @pytest.mark.parametrize("key", ["*^*", "*^*^^^", "^", "*=*", "=", "*=", "A\\*"])
    def test_names_that_any_name_fits(self, key: str) -> None:
        assert matcher("PN", key) is None

    @pytest.mark.parametrize("key", ["*^*", " ^", "* *"])
    def test_fuzzy_names_that_any_name_fits(self, key: str) -> None:
        assert matcher("PN", key, fuzzy_names=True) is None


class TestSingleValue:
    @pytest.mark.parametrize(
        ("vr", "key", "stored", "expected"),
        [
            ("LO", "abc", "abc", True),
            ("LO", "abc", "ABC", False),
            ("LO", "abc ", "abc", True),
            ("LO", " abc", "abc", True),
            ("LO", "é", "e", False),
            ("LO", "abc", "", False),
            ("LO", "abc", "abcd", False),
            ("UI", "1.2\0", "1.2", True),
            ("UI", "1.2", "1.2.3", False),
            ("UI", "1.*", "1.2", False),
            ("AS", "030?", "030Y", False),
            ("CS", "A.C", "ABC", False),
            ("LT", "a\\b", "a\\b", True),
            ("LT", "a", "a\\b", False),
            ("LT", " a", "a", False),
            ("UN", "x", "x", True),
        ],
    )
    def test_exactly_but_for_padding(self, vr: str, key: str, stored: str, expected: bool) -> None:
        assert fits(vr, key, stored) is expected

    def test_one_of_several_stored_values(self) -> None:
        assert fits("CS", "AXIAL", "ORIGINAL\\PRIMARY\\AXIAL")
        assert not fits("CS", "ORIGINAL\\X", "PRIMARY\\AXIAL")

    def test_several_values_in_a_key_are_alternatives(self) -> None:
        assert fits("CS", "CT\\MR", "MR")
        assert fits("CS", "CT\\\\MR", "MR")
        assert not fits("CS", "CT\\\\MR", "")
        assert matcher("CS", "CT\\ MR ") == OneOf(frozenset(("CT", "MR")))

    def test_a_list_of_uids(self) -> None:
        key = "\\".join(f"1.2.{n}" for n in range(10_000))
        assert fits("UI", key, "1.2.9999")
        assert not fits("UI", key, "1.2.10000")

    @pytest.mark.parametrize(
        ("vr", "key", "stored", "expected"),
        [
            ("IS", "1", "01", True),
            ("IS", "+1", "1", True),
            ("DS", "1.50", "1.5", True),
            ("DS", "1e1", "10", True),
            ("US", "512", "512", True),
            ("IS", "1", "10", False),
            ("IS", "1", "", False),
            ("IS", "1", "abc", False),
            ("IS", "2", "1\\2", True),
            ("IS", "abc", "abc", True),
            ("IS", "1-5", "3", False),
            ("DS", "1e99999", "1", False),
            ("DS", "nan", "0", False),
        ],
    )
    def test_numbers_by_what_they_are_worth(self, vr: str, key: str, stored: str, expected: bool) -> None:
        assert fits(vr, key, stored) is expected

    def test_what_is_compiled(self) -> None:
        assert matcher("IS", "1\\x") == Numbers(frozenset((Decimal(1),)))


class TestWildcards:
    @pytest.mark.parametrize(
        ("key", "stored", "expected"),
        [
            ("A*", "ABC", True),
            ("A*", "A", True),
            ("A*", "BA", False),
            ("*C", "ABC", True),
            ("A?C", "ABC", True),
            ("A?C", "AC", False),
            ("?", "", False),
            ("*A*", "BAB", True),
            ("*A*B*", "xAxBx", True),
            ("*A*B*", "xBxAx", False),
            ("A*B*AB", "AxBxAB", True),
            ("*ab", "aab", True),
            ("*a?b", "aaxb", True),
            ("a*a", "a", False),
            ("[AB]*", "A", False),
            ("[AB]*", "[AB]C", True),
            ("a.c*", "abc", False),
            ("*\u00e9", "caf\u00e9", True),
            ("A*", "a", False),
            ("*x*", "a\nx\nb", True),
            ("A*B", "A\\B", False),  # two values
            ("B*", "A\\B", True),
            ("x*\\B", "B", True),
        ],
    )
    def test_asterisks_and_question_marks(self, key: str, stored: str, expected: bool) -> None:
        assert fits("LO", key, stored) is expected

    def test_a_backslash_where_it_is_a_character(self) -> None:
        assert fits("LT", "a*b", "a\\b")
        assert fits("LT", "a\\?", "a\\b")
        assert not fits("LT", "b*", "a\\b")

    def test_no_going_back(self) -> None:
        """With a translation to `.*` this takes minutes, and CI's time limit ends it."""
        bomb = matcher("LO", "*a" * 30 + "b")
        assert bomb == Wildcards(("*a" * 30 + "b",))
        for _ in range(1000):
            assert not bomb("a" * 64)

    @pytest.mark.parametrize("piece", ["a?", "a?*", "?", "a"])
    def test_no_going_back_in_long_values(self, piece: str) -> None:
        bomb = matcher("LT", "*" + piece * (10_000 // len(piece)) + "b*")
        assert bomb is not None
        for _ in range(10):
            assert not bomb("a" * 10_240)
            assert bomb("a" * 10_240 + "b")

    @pytest.mark.parametrize("vr", ["LO", "LT", "PN", "UT"])
    @pytest.mark.parametrize("piece", ["*a", "a?", "a"])
    def test_a_key_may_be_as_long_as_a_text(self, vr: str, piece: str) -> None:
        assert fits(vr, piece * (10_240 // len(piece)), "a" * 10_240)
        with pytest.raises(InvalidInstance, match=f"a key of {vr} has more than 10240 characters"):
            matcher(vr, piece * 10_241)

    def test_a_list_may_be_longer(self) -> None:
        assert fits("LO", "\\".join(f"*{n}" for n in range(10_000)), "CT9999")

    @pytest.mark.parametrize(
        ("key", "stored", "expected"),
        [
            ("a" + "*" * 5000 + "b", "ab", True),
            ("*" * 5000 + "?", "", False),
            ("*?*", "\U0001d11e", True),
            ("??", "\U0001d11e", False),
            ("*\U0001d11e?b*", "a\U0001d11e\U0001d11eb", True),
            ("*a?*?b", "aab", False),
            ("*a?*?b", "aacdb", True),
        ],
    )
    def test_a_question_mark_is_one_character_and_many_asterisks_are_one(
        self, key: str, stored: str, expected: bool
    ) -> None:
        assert fits("LO", key, stored) is expected

    @given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
    def test_the_same_as_the_standard_library(self, key: str, stored: str) -> None:
        expected = not key or re.fullmatch(translate(key), stored) is not None
        assert fits("LO", key, stored) is expected


YAMADA: Final = "Yamada^Tarou=山田^太郎=やまだ^たろう"


class TestNames:
    @pytest.mark.parametrize(
        ("key", "stored", "expected"),
        [
            ("doe^john", "DOE^JOHN", True),
            ("Doe^John^^^", "Doe^John", True),
            ("Doe^John", "Doe^John^^ ", True),
            ("Doe", "Doe^John", False),
            ("Doe^", "Doe", True),
            ("^John", "John", False),
            ("^John", "^John", True),
            ("Doe*", "DOE^JOHN", True),
            ("Doe^*", "DOE", True),
            ("Doe^*^*", "DOE", True),
            ("Doe^*", "DOER", False),
            ("Doe^J?hn", "doe^john", True),
            ("*^john*", "DOE^JOHN", True),
            ("Müller", "MÜLLER", True),
            ("Mu\u0308ller", "Müller", True),
            ("Muller", "Müller", False),
            ("STRASSE", "Straße", True),
            ("Doe", "", False),
            ("?*", "", False),
            ("Yamada^Tarou", YAMADA, True),
            ("山田*", YAMADA, True),
            ("*太郎", YAMADA, True),
            ("y*郎", YAMADA, False),
            ("やまだ^たろう", YAMADA, True),
            ("=山田*", YAMADA, True),
            ("=Yamada*", YAMADA, False),
            ("Yamada*=山田*", YAMADA, True),
            ("Yamada*=X*", YAMADA, False),
            ("*=*=やまだ*", YAMADA, True),
            ("==やまだ^たろう", YAMADA, True),
            ("=山田*", "Yamada^Tarou", False),
            (YAMADA, YAMADA, True),
            ("smith", "Doe^John\\Smith", True),
            ("x\\smith", "Doe^John\\Smith", True),
        ],
    )
    def test_names(self, key: str, stored: str, expected: bool) -> None:
        assert fits("PN", key, stored) is expected
        assert fits("PN", key, fold_name(stored)) is expected

    def test_what_is_compiled(self) -> None:
        assert matcher("PN", "DOE^*") == Names(((("doe^*", "doe"),),))
        assert matcher("PN", "DOE" + "^*" * 5000) == Names(((("doe^*", "doe"),),))

    @pytest.mark.parametrize(
        ("key", "stored", "expected"),
        [
            ("Smith^Mary", "Mary^Smith", True),
            ("Smith^Mary", "Smith, Mary", True),
            ("Smith^Mary", "Mary Smith", True),
            ("Smith^Mary", "Smith^John", False),
            ("muller", "Müller^Jürgen", True),
            ("Müller", "MULLER", True),
            ("jur*", "Müller^Jürgen", True),
            ("山田", YAMADA, True),
            ("Garcia-Lopez", "García^López", True),
            ("Smith^Mary", "Smith^X\\Y^Mary", False),
            ("Smith", "", False),
        ],
    )
    def test_fuzzy_names(self, key: str, stored: str, expected: bool) -> None:
        assert fits("PN", key, stored, fuzzy_names=True) is expected
        assert fits("PN", key, fold_name(stored), fuzzy_names=True) is expected

    def test_what_is_compiled_of_a_fuzzy_name(self) -> None:
        assert matcher("PN", "Müller^*^J?", fuzzy_names=True) == FuzzyNames((("muller", "j?"),))

    @given(st.text())
    def test_a_folded_name_stays_as_it_is(self, name: str) -> None:
        assert fold_name(fold_name(name)) == fold_name(name)


class TestDatesAndTimes:
    @pytest.mark.parametrize(
        ("vr", "key", "stored", "expected"),
        [
            ("DA", "20240229", "20240229", True),
            ("DA", "20240101-20240131", "20240131", True),
            ("DA", "20240101-20240131", "20240101", True),
            ("DA", "20240101-20240131", "20240201", False),
            ("DA", "20240101 - 20240131", "20240115", True),
            ("DA", "-20240131", "19000101", True),
            ("DA", "-20240131", "20240201", False),
            ("DA", "-20240131", "", False),
            ("DA", "20240101-", "20990101", True),
            ("DA", "20240101-", "20231231", False),
            ("DA", "20240131-20240101", "20240115", False),
            ("DA", "20240101", "2024.01.01", False),
            ("DA", "20240101-", "unknown", False),
            ("DA", "2024", "20240101", False),
            ("DA", "20240101\\20240103", "20240103", True),
            ("DA", "20240101", "20230101\\20240101", True),
            ("TM", "2230", "223000", True),
            ("TM", "223000", "2230", True),
            ("TM", "2230", "223059.999999", True),
            ("TM", "2230", "2231", False),
            ("TM", "223000", "223000.000000", True),
            ("TM", "223000.5", "223000.500", True),
            ("TM", "223000.5", "223000.6", False),
            ("TM", "10", "105959.999999", True),
            ("TM", "10", "11", False),
            ("TM", "09-10", "105959", True),
            ("TM", "0900-1000", "1000", True),
            ("TM", "0900-1000", "100059.9", True),
            ("TM", "0900-1000", "1001", False),
            ("TM", "-10", "00", True),
            ("TM", "10-", "235959", True),
            ("TM", "10-", "0959", False),
            ("TM", "00", "00", True),
            ("TM", "000000-", "00", True),
            ("TM", "235959", "235960", False),
            ("TM", "2359", "235960", True),
            ("TM", "10", "10:00", False),
            ("DT", "19980128103000.0000", "19980128103000", True),
            ("DT", "1998", "19980128103000", True),
            ("DT", "199801", "1998", True),
            ("DT", "199802", "1998", False),
            ("DT", "1998-1999", "19991231235959", True),
            ("DT", "1998-1999", "2000", False),
            ("DT", "-1998", "1997", True),
            ("DT", "1998-", "1997", False),
            ("DT", "19980128103000+0000", "19980128073000-0300", True),
            ("DT", "19980128103000-0300", "19980128133000+0000", True),
            ("DT", "19980128103000-0300-19980128103000-0200", "19980128130000+0000", False),
            ("DT", "19980128103000-0300-19980128103000-0200", "19980128123000+0000", False),
            ("DT", "19980128103000-0200-19980128103000-0300", "19980128130000+0000", True),
            ("DT", "19980128103000+0100-", "19980128093000+0000", True),
            ("DT", "19980128103000+0100-", "19980128092959+0000", False),
            ("DT", "-19980128103000+0100", "19980128093000+0000", True),
            ("DT", "19980128103000+0100", "19980128103000", True),  # who knows where that was
            ("DT", "20240101-0500", "20240101", True),  # one moment, five hours west
            ("DT", "20240101-0500", "2020", False),
            ("DT", "2023-2024", "2024", True),
            ("DT", "20240101000000+0000", "20231231190000-0500", True),
            ("DT", "0001-", "0001+1400", True),
            ("DT", "x", "x", True),
            ("DT", "x", "y", False),
        ],
    )
    def test_by_their_meaning(self, vr: str, key: str, stored: str, expected: bool) -> None:
        assert fits(vr, key, stored) is expected

    @given(st.times(), st.times(), st.times())
    def test_any_range_of_times(self, one: object, other: object, stored: object) -> None:
        low, high = sorted(str(each) for each in (one, other))
        key = f"{low.replace(':', '')}-{high.replace(':', '')}"
        expected = low <= str(stored) <= (high if "." in high else f"{high}.999999")
        assert fits("TM", key, str(stored).replace(":", "")) is expected

    def test_what_is_compiled(self) -> None:
        assert matcher("TM", "1000-11") == Moments("TM", (Range("10", "115960.999999"),))
        assert matcher("DT", "20230101-") == Moments("DT", (Range("2023", ""),))

    @pytest.mark.parametrize(
        ("date", "time", "stored", "expected"),
        [
            ("20060705-20060707", "1000-1800", "200607051000", True),
            ("20060705-20060707", "1000-1800", "200607060300", True),
            ("20060705-20060707", "1000-1800", "20060705", False),
            ("20060705-20060707", "1000-1800", "200607071801", False),
            ("20060705-", "1000-", "200607060100", True),
            ("-20060705", "-1000", "200607050959", True),
            ("-20060705", "-1000", "200607051001", False),
        ],
    )
    def test_a_date_and_its_time_combined(self, date: str, time: str, stored: str, expected: bool) -> None:
        test = combined(date, time)
        assert test is not None
        assert test(stored) is expected

    @pytest.mark.parametrize(
        ("date", "time"),
        [("20060705", "1000-1800"), ("20060705-20060707", "10"), ("20060705-", "-1000"), ("20060705-", ""), ("-", "-")],
    )
    def test_what_is_not_combined(self, date: str, time: str) -> None:
        assert combined(date, time) is None

    def test_many_hyphens_are_no_range(self) -> None:
        """With a look at each of them this takes minutes, and CI's time limit ends it."""
        key = "-" * 3_000_000
        assert matcher("DA", key) == OneOf(frozenset((key,)))
        assert combined(key, key) is None
        assert isinstance(matcher("DT", "20240101-0500-20240201-0400"), Moments)


class TestZones:
    def test_a_date_time_without_an_offset_takes_that_of_the_data_set(self) -> None:
        assert in_zone("20240101\\2024+0000", "-0500") == "20240101-0500\\2024+0000"
        assert in_zone("20240101", "") == "20240101"
        assert in_zone("nothing", "-0500") == "nothing"

    @pytest.mark.parametrize(
        ("date", "time", "stored", "wanted", "expected"),
        [
            ("20240101", "0030", "+0100", "+0000", ("20231231", "2330")),
            ("20240101", "003059.5", "+0000", "+0530", ("20240101", "060059.5")),
            ("20240101", "23", "+0000", "+0200", ("20240102", "0100")),
            ("20240101", "23", "", "+0200", ("20240101", "23")),
            ("20240101", "", "+0000", "+0200", ("20240101", "")),
            ("20240230", "23", "+0000", "+0200", ("20240230", "23")),
            ("99991231", "23", "+0000", "+0200", ("99991231", "23")),
        ],
    )
    def test_a_date_and_its_time_move_together(
        self, date: str, time: str, stored: str, wanted: str, expected: tuple[str, str]
    ) -> None:
        assert pair_in_zone(date, time, stored, wanted) == expected
