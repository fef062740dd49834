"""Which cases there are, and who takes part in them."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.case import Case, Contender, Target
from bench.cases import all_cases
from bench.peers import (
    PEERS,
    Job,
    aiodicom_scp,
    aiodicom_scu,
    missing_peers,
    orthanc,
    pynetdicom_scp,
    raw_echo,
    storescp,
    storescu,
)
from bench.processes import PeerMissing
from bench.progress import Progress

JOB = Job("echo", 1)
OURS = Contender(aiodicom_scu(), aiodicom_scp(), JOB)
DCMTK = Contender(storescu(tuned=True), storescp(tuned=True), JOB)
MIXED = Contender(storescu(tuned=True), pynetdicom_scp(tuned=True), JOB)
BYTES = Contender(raw_echo(), aiodicom_scp(), JOB)
CASE = Case(
    "echo",
    "echoes",
    "echoes/s",
    (OURS, DCMTK, MIXED, BYTES, Contender(raw_echo(), orthanc(tuned=True), JOB)),
    (Target("ours", OURS, 1), Target("DCMTK", OURS, 1, DCMTK), Target("both", MIXED, 1, DCMTK)),
)


@pytest.fixture(scope="module", params=["full", "quick"])
def cases(request: pytest.FixtureRequest) -> tuple[Case, ...]:
    return all_cases(lambda full, quick: full if request.param == "full" else quick)


def test_no_two_cases_have_the_same_name(cases: tuple[Case, ...]) -> None:
    assert [name for name, count in Counter(case.name for case in cases).items() if count > 1] == []


def test_no_two_contenders_of_a_case_have_the_same_name(cases: tuple[Case, ...]) -> None:
    """Because results and targets know them by their names."""
    for case in cases:
        assert len({contender.name for contender in case.contenders}) == len(case.contenders), case.name


def test_targets_are_about_contenders_of_their_case(cases: tuple[Case, ...]) -> None:
    for case in cases:
        for target in case.targets:
            assert {target.of, target.against or target.of} <= set(case.contenders), (case.name, target.words)


def test_every_case_has_aiodicom_in_it(cases: tuple[Case, ...]) -> None:
    """And nobody else is needed for that, except where the other end is a peer."""
    assert [case.name for case in cases if not any("aiodicom" in each.name for each in case.contenders)] == []


def test_a_case_beside_some_peers_has_only_these_and_their_targets() -> None:
    assert CASE.beside(["dcmtk"]).contenders == (OURS, DCMTK, BYTES)
    assert [target.words for target in CASE.beside(["dcmtk"]).targets] == ["ours", "DCMTK"]
    assert CASE.beside([]).contenders == (OURS, BYTES)
    assert CASE.beside(list(PEERS)) == CASE


def test_the_cases_are_listed_without_a_peer_that_was_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list", "--peers", "pynetdicom"])
    listed = capsys.readouterr().out
    assert "echo" in listed
    assert "to-storescp-as-installed" not in listed


def test_a_peer_that_is_not_installed_is_known_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_arguments, **_options: None)
    assert sorted(missing_peers()) == ["dcmtk", "orthanc"]  # pynetdicom is a package, and TCP is always there
    assert "Debian package orthanc" in missing_peers()["orthanc"]
    with pytest.raises(PeerMissing, match="storescp is not installed"):
        DCMTK.server.command(11112, tmp_path)


def test_an_unknown_peer_and_an_unknown_case_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--peers", "dcm4che"], ["--only", "nothing"]):
        with pytest.raises(SystemExit):
            main(words)
    said = capsys.readouterr().err
    assert "dcm4che" in said
    assert "no such case: nothing" in said


def test_progress_tells_the_case_whose_turn_it_is_and_what_came_of_it() -> None:
    file = io.StringIO()
    progress = Progress(2, file)
    progress.case("echoes")
    with progress.turn("us", 1, 3) as tell:
        assert file.getvalue().endswith("us (1/3): ")
        tell("5 echoes/s")
    with pytest.raises(ValueError, match="lost"), progress.turn("them", 2, 3):
        raise ValueError("lost")
    lines = [line.partition(" s ")[2].strip() for line in file.getvalue().splitlines()]
    assert lines == ["[1/2] echoes", "us (1/3): 5 echoes/s", "them (2/3): lost"]
