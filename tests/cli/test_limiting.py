"""The limits of `aiodicom serve`: options, above the configuration, above the defaults."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from aiodicom import Limits, LocalProtocolError
from aiodicom.cli.serve import parse


def limits_with(folder: Path, *arguments: str, toml: str = "") -> Limits:
    """What a command line comes to beside such a configuration."""
    configuration = folder / "aiodicom.toml"
    configuration.write_text(toml, encoding="utf-8")
    limits = parse([*arguments, "--config", str(configuration)]).limits
    assert isinstance(limits, Limits)
    return limits


def test_without_a_word_they_are_the_defaults(tmp_path: Path) -> None:
    assert limits_with(tmp_path) == Limits()


def test_every_limit_has_its_option(tmp_path: Path) -> None:
    for field in fields(Limits):
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "bulk":
            assert limits_with(tmp_path, option) == Limits(bulk=True)
            continue
        limits = limits_with(tmp_path, option, "77")
        assert getattr(limits, field.name) == 77
        others = Limits().changed(**{field.name: 77, "maximum_connections": limits.maximum_connections})
        assert limits == others  # connections follow associations


def test_an_option_is_above_the_configuration(tmp_path: Path) -> None:
    toml = '[limits]\nidle = 120\nmaximum_associations = 7\nmaximum_header = "1 MiB"\n'
    limits = limits_with(tmp_path, "--idle", "none", "--max-pdu", "16K", toml=toml)
    assert limits == Limits().changed(
        idle=None, maximum_associations=7, maximum_header=1024 * 1024, maximum_length=16_384
    )


@pytest.mark.parametrize("option", ["--maximum-associations", "--max-associations"])
def test_the_older_spelling_will_do(tmp_path: Path, option: str) -> None:
    assert limits_with(tmp_path, option, "300").maximum_associations == 300


def test_a_wrong_option_says_what_it_may_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        limits_with(tmp_path, "--artim", "soon")
    assert caught.value.code == 1
    assert "error: argument --artim: 'soon' is none: a number in s, more than 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[limits]\nidel = 5", "[limits]: idel: is no limit; they are connect, "),
        ("[limits]\nidle = 0", "[limits]: idle: 0 is none: a number in s, more than 0, or none"),
        ("limits = 5", "[limits]: is no table; write [limits], and below it such as idle = 120"),
    ],
)
def test_a_wrong_configuration_says_where(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        limits_with(tmp_path, toml=toml)
    assert f"aiodicom.toml: {words}" in str(caught.value)
