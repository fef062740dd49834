"""The fuzz targets on their seeds, on inputs that hypothesis makes of them, and on code with a fault in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiodicom.upper_layer import items, pdu, provider
from aiodicom.upper_layer.state_machine import AA_6, TABLE, Event, State
from tests.fuzz.__main__ import main
from tests.fuzz.runs import Folder
from tests.fuzz.target import Target, Violation, expect
from tests.fuzz.targets import TARGETS

SEEDS = {name: tuple(target.seeds()) for name, target in TARGETS.items()}
targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@targets
def test_every_seed_keeps_all_invariants(target: Target) -> None:
    for seed in SEEDS[target.name]:
        target.thorough(seed)


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with some bytes changed, left out, or taken from another one."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
            case 1:
                del data[place : place + draw(st.integers(1, 16))]
            case 2:
                data[place:] = draw(st.sampled_from(seeds))[place:]
            case _:
                data[place : place + 2] = draw(st.sampled_from([b"\0\0", b"\xff\xff", b"\0\1", b"\x7f\xff"]))
    return bytes(data)


@targets
def test_what_becomes_of_seeds_keeps_the_invariants(target: Target) -> None:
    @settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(SEEDS[target.name]))
    def check(data: bytes) -> None:
        target.light(data)
        target.heavy(data)

    check()


# ---- faults that must be found


def violations(target: str, inputs: Iterable[bytes]) -> set[str]:
    """Which invariants the inputs break, by the beginning of what is said; other exceptions by their names."""
    found = set()
    for data in inputs:
        try:
            TARGETS[target].thorough(data)
        except Violation as violation:
            found.add(str(violation.args[0])[:2])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is I1
            found.add(type(error).__name__)
    return found


def test_an_item_that_is_lost_on_its_way_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items.UserIdentityResponse, "encode", lambda _self: items.encode_item(0x59, b"\0\0"))
    assert "I6" in violations("Z8", SEEDS["Z8"])


def test_a_reader_that_minds_where_it_is_cut_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = pdu.PDUReader.feed

    def feed(self: pdu.PDUReader, data: memoryview) -> Iterator[object]:
        return iter(()) if bytes(data) == b"\x07" else original(self, data)

    monkeypatch.setattr(pdu.PDUReader, "feed", feed)
    assert violations("Z1", SEEDS["Z1"]) == {"I3"}


def test_an_exception_of_another_kind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_data: memoryview) -> str:
        raise KeyError

    monkeypatch.setattr(items, "decode_uid", decode)
    assert violations("Z8", SEEDS["Z8"]) == {"KeyError"}


def test_a_cell_that_leads_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "TABLE", {**TABLE, (State.STA13, Event.EVT17): AA_6})
    assert "I7" in violations("Z2", SEEDS["Z2"])


def test_too_much_memory_is_found() -> None:
    def light(data: bytes) -> None:
        expect(bytearray(200_000), "")
        expect(data is not None, "")

    greedy = Target("Z0", "nothing", light, light, lambda: ())
    with pytest.raises(Violation, match="I4"):
        greedy.weigh(b"")


# ---- the command


@pytest.mark.skipif(sys.platform != "linux", reason="atheris is for Linux")
def test_a_campaign_goes_on_where_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris")
    words = ["run", "--target", "Z8", "--executions", "2000", "--corpus", str(tmp_path)]
    assert main(words) == 0
    kept = len(list((tmp_path / "corpus" / "Z8").iterdir()))
    assert kept > len(SEEDS["Z8"])
    assert main(words) == 0
    assert len(Folder(tmp_path).slices()) == 2
    assert main(["totals", "--corpus", str(tmp_path)]) == 0
    assert "4,000 executions in all" in capsys.readouterr().out
