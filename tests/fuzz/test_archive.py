"""Z7: whatever is done to an archive, in whatever order, it has what a dict would have."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from aiodicom import DimseError, EncodedInstance
from aiodicom.archive import Archive
from aiodicom.dataset import decode_data_set
from aiodicom.query import MODELS, make_query
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.archive.keeping import STUDY, files, instance, paths_in_index, uid

T = TypeVar("T")

ALREADY_THERE: Final = 0x0111
numbers: Final = st.integers(1, 4)
versions: Final = st.integers(0, 2)


class Broken(Exception):
    """What sends an instance breaks off."""


def image(number: int, version: int) -> EncodedInstance:
    """One of the few instances, in one of its versions; the last version is a large one."""
    return instance(number, pixels=bytes((version,)) * (300_000 if version == 2 else 64))


class ArchiveMachine(RuleBasedStateMachine):
    """An archive, beside a dict of the same."""

    policy: Literal["keep", "replace"] = "keep"

    def __init__(self) -> None:
        super().__init__()
        self._scratch = Path(tempfile.mkdtemp())
        self._runner = asyncio.Runner()
        self._folders = iter(self._scratch / f"archive-{number}" for number in range(1_000))
        self.kept: dict[int, int] = {}

    @initialize()
    def begin(self) -> None:
        self._open(next(self._folders))

    def _open(self, folder: Path) -> None:
        self.archive = Archive(folder, on_duplicate=self.policy, sync=False)
        self._run(self.archive.open())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    # What is done.

    @rule(number=numbers, version=versions)
    def store(self, number: int, version: int) -> None:
        there = self.kept.get(number)
        if there is not None and there != version and self.policy == "keep":
            with pytest.raises(DimseError) as refused:
                self._run(self.archive.add(image(number, version)))
            assert refused.value.status == ALREADY_THERE
        else:
            self._run(self.archive.add(image(number, version)))
            self.kept[number] = version

    @rule(number=numbers, version=versions)
    def store_twice_at_once(self, number: int, version: int) -> None:
        async def both() -> list[BaseException | None]:
            twice = (self.archive.add(image(number, version)) for _ in range(2))
            return await asyncio.gather(*twice, return_exceptions=True)

        for failure in self._run(both()):
            assert failure is None or isinstance(failure, DimseError)
        if number not in self.kept or self.policy == "replace":
            self.kept[number] = version

    @rule(number=numbers, version=versions, share=st.floats(0, 1))
    def break_off(self, number: int, version: int, share: float) -> None:
        whole = image(number, version)
        data = whole.data
        assert isinstance(data, bytes)

        async def begun() -> AsyncIterator[bytes]:
            yield data[: int(len(data) * share)]
            raise Broken

        with pytest.raises(Broken):
            self._run(self.archive.add(replace(whole, data=begun())))

    @rule(number=numbers, version=versions, turns=st.integers(0, 12))
    def cancel(self, number: int, version: int, turns: int) -> None:
        async def cancelled() -> None:
            task = asyncio.create_task(self.archive.add(image(number, version)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await self.archive.add(image(number, version) if self.policy == "replace" else image(9, 0))

        self._run(cancelled())
        if self.policy == "replace":
            self.kept[number] = version
            return
        self.kept[9] = 0
        if number not in self.kept and self._found().get(number) == version:
            self.kept[number] = version  # nobody knows whether it came through: whole, or not at all

    @rule()
    def crash(self) -> None:
        folder = next(self._folders)
        shutil.copytree(self.archive.folder, folder)  # as it is on the disk at this moment
        self._run(self.archive.close())
        self._open(folder)

    @rule()
    def close_and_open(self) -> None:
        self._run(self.archive.close())
        self._open(self.archive.folder)

    @rule()
    def build_the_index_again(self) -> None:
        self._run(self.archive.rebuild())

    # What must be true.

    def _found(self) -> dict[int, int]:
        """Which numbers and versions a retrieval gives, read from their files."""
        identifier = make_query({"StudyInstanceUID": STUDY}, model=MODELS["study"], level="study", keys={})
        known = {
            (uid(number), image(number, version).data): (number, version)
            for number in (1, 2, 3, 4, 9)
            for version in range(3)
        }
        found = self._run(self.archive.instances(identifier))
        return dict(known[each.sop_instance_uid, each.path.read_bytes()[each.data_set_offset :]] for each in found)

    @invariant()
    def it_gives_what_it_was_given(self) -> None:
        if hasattr(self, "archive"):
            assert self._found() == self.kept

    @invariant()
    def it_finds_what_it_was_given(self) -> None:
        async def find() -> set[str]:
            keys = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1", "SOPInstanceUID": None}
            identifier = make_query(keys, model=MODELS["study"], level="image", keys={})
            async with aclosing(self.archive.find(identifier)) as matches:
                return {str(decode_data_set(each, EXPLICIT_VR_LITTLE_ENDIAN).SOPInstanceUID) async for each in matches}

        if hasattr(self, "archive"):
            assert self._run(find()) == {uid(number) for number in self.kept}

    @invariant()
    def its_files_are_those_of_its_index(self) -> None:
        if hasattr(self, "archive"):
            assert files(self.archive.folder) == paths_in_index(self.archive.folder)

    def teardown(self) -> None:
        if hasattr(self, "archive"):
            self._run(self.archive.close())
        self._runner.close()
        shutil.rmtree(self._scratch)


class ReplacingMachine(ArchiveMachine):
    """The same, with an archive that takes what came last."""

    policy = "replace"


@pytest.mark.parametrize("machine", [ArchiveMachine, ReplacingMachine])
def test_an_archive_has_what_a_dict_would_have(machine: type[ArchiveMachine]) -> None:
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine, settings=settings(deadline=None, max_examples=15, stateful_step_count=15, suppress_health_check=health)
    )
