"""The small world of studies is what its tests take it for."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiodicom import open_instance
from aiodicom.part10 import check_data_set
from tests.studies import LONGEST_UID, PATIENTS, SERIES, STUDIES, instances_of, uid_of, world, write_studies


def test_the_files_are_the_same_every_time(tmp_path: Path) -> None:
    once, again = (write_studies(tmp_path / name) for name in ("once", "again"))
    assert [path.name for path in once] == [path.name for path in again]
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


def test_every_file_is_an_instance_of_its_own(tmp_path: Path) -> None:
    instances = [open_instance(path) for path in write_studies(tmp_path)]
    for instance in instances:
        data = instance.path.read_bytes()[instance.data_set_offset :]
        check_data_set(data, instance.transfer_syntax_uid)
    assert len({instance.sop_instance_uid for instance in instances}) == len(instances) == len(world())
    assert len({instance.sop_class_uid for instance in instances}) == 6
    assert len({instance.transfer_syntax_uid for instance in instances}) == 6


def test_there_is_enough_of_everything() -> None:
    assert (len(PATIENTS), len(STUDIES), sum(map(len, SERIES.values())), len(world())) == (8, 14, 31, 120)
    assert {study.partition("/")[0] for study in STUDIES} == PATIENTS.keys()
    assert SERIES.keys() == STUDIES.keys()
    assert max(len(str(instance.SOPInstanceUID)) for instance in world().values()) == LONGEST_UID


def test_labels_name_what_is_below_them() -> None:
    assert len(instances_of("jane")) == len(instances_of("jane/abdomen")) + len(instances_of("jane/chest"))
    assert [instance.SOPInstanceUID for instance in instances_of("jane/abdomen/2/3")] == [uid_of("jane/abdomen/2/3")]
    assert {instance.SeriesInstanceUID for instance in instances_of("jane/abdomen/2")} == {uid_of("jane/abdomen/2")}
    with pytest.raises(KeyError):
        instances_of("jan")
