"""The limits: one name and one home for each, what may be their value, and the table that tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from aiodicom import Limits, LocalProtocolError, Server, Timeouts
from aiodicom.limits import SILENT_CONNECTIONS, limits_from, limits_of, parse_limit, table

DOCUMENT: Final = Path(__file__).parent.parent / "examples" / "limits.md"


def test_the_table_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    head = text.index("| limit |")
    assert text[head:] == table(), "put what aiodicom.limits.table() returns at the end of examples/limits.md"


def test_a_table_of_toml_is_read() -> None:
    assert limits_from(
        {"idle": "none", "minimum_rate": 0, "maximum_header": "1.5 MiB", "bulk": True, "artim": 2.5, "close": 3}
    ) == {"idle": None, "minimum_rate": 0, "maximum_header": 1_572_864, "bulk": True, "artim": 2.5, "close": 3}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("idle", "90", 90.0),
        ("idle", "none", None),
        ("maximum_associations", "7", 7),
        ("maximum_length", "128K", 131_072),
        ("maximum_length", "128 KiB", 131_072),
        ("maximum_length", "0", 0),
        ("minimum_free", "2GB", 2 * 1024**3),
        ("maximum_instance", "none", None),
        ("bulk", "true", True),
    ],
)
def test_an_option_is_read(name: str, text: str, value: object) -> None:
    assert parse_limit(name, text) == value


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"idel": 60}, "idel: is no limit; they are "),
        ({"idle": 0}, "idle: 0 is none: a number in s, more than 0, or none"),
        ({"idle": -1}, "idle: -1 is none"),
        ({"idle": True}, "idle: True is none"),
        ({"artim": "none"}, "artim: None is none: a number in s, more than 0"),
        ({"artim": float("inf")}, "artim: inf is none"),
        ({"artim": float("nan")}, "artim: nan is none"),
        ({"maximum_associations": 1.5}, "maximum_associations: 1.5 is none: a whole number, 0 (admits nobody) or more"),
        ({"maximum_header": "much"}, "maximum_header: 'much' is none: a whole number in bytes, more than 0"),
        ({"bulk": "yes"}, "bulk: 'yes' is none: true or false"),
        ({"bulk": 1}, "bulk: 1 is none: true or false"),
    ],
    ids=str,
)
def test_what_is_no_limit(table: dict[str, Any], words: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        limits_from(table)
    assert str(caught.value).startswith(words)


def test_limits_look_at_their_values_themselves() -> None:
    with pytest.raises(LocalProtocolError, match="idle: 0 is none"):
        Timeouts(idle=0)
    with pytest.raises(LocalProtocolError, match="maximum_depth: 0 is none"):
        Limits(maximum_depth=0)


def test_timeouts_are_limits() -> None:
    limits = limits_of(Timeouts(idle=7))
    assert limits == Limits(idle=7)
    assert limits_of(limits) is limits


def test_connections_follow_associations_unless_they_are_given() -> None:
    assert Limits().maximum_connections == Limits().maximum_associations + SILENT_CONNECTIONS
    assert Limits().changed(maximum_associations=200).maximum_connections == 200 + SILENT_CONNECTIONS
    assert Limits().changed(maximum_associations=200, maximum_connections=300).maximum_connections == 300


def test_bulk_raises_what_one_address_may_have() -> None:
    limits = Limits()
    assert (limits.connections_per_address, limits.associations_per_address) == (64, 32)
    limits = Limits(bulk=True)
    assert (limits.connections_per_address, limits.associations_per_address) == (1024, 128)


def test_the_parameters_of_a_server_are_limits_by_the_same_names() -> None:
    server = Server(limits=Limits(idle=7), maximum_associations=3, timeouts=Timeouts(artim=1), stop_timeout=0)
    assert server.limits == Limits(maximum_associations=3, maximum_connections=3 + SILENT_CONNECTIONS, artim=1, stop=0)
    server = Server(limits=Limits(idle=7), maximum_length=0, maximum_operations=1, maximum_connections=9)
    assert server.limits == Limits(idle=7, maximum_length=0, maximum_operations=1, maximum_connections=9)
