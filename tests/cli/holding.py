"""A server of ours that holds some of the world of tests/studies.py, and is asked for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from pydicom import Dataset

from aiodicom import InstanceFile, Operation, Server, open_instance
from tests.cli.running import serving
from tests.studies import instances_of, uid_of

STUDY = uid_of("jane/chest")
OTHER_STUDY = uid_of("mueller/head")
KEY = f"StudyInstanceUID={STUDY}"
OTHER_KEY = f"StudyInstanceUID={OTHER_STUDY}"


def write(folder: Path, *labels: str) -> list[InstanceFile]:
    """Files of the instances that have these labels, or belong to what has."""
    folder.mkdir(exist_ok=True)
    paths = []
    for instance in (each for label in labels for each in instances_of(label)):
        paths.append(folder / f"{instance.SOPInstanceUID}.dcm")
        instance.save_as(paths[-1], enforce_file_format=True)
    return list(map(open_instance, paths))


def is_wanted(identifier: Dataset, instance: Dataset) -> bool:
    """Whether the unique keys of an identifier say so."""
    keywords = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return all(not identifier.get(each) or instance[each].value == identifier[each].value for each in keywords)


def wanted(operation: Operation, files: Iterable[InstanceFile]) -> list[InstanceFile]:
    """The files that a C-GET or C-MOVE asks for."""
    uids = {each.SOPInstanceUID for each in instances_of_all() if is_wanted(operation.identifier, each)}
    return [file for file in files if file.sop_instance_uid in uids]


def instances_of_all() -> list[Dataset]:
    return [*instances_of("jane"), *instances_of("mueller")]


@asynccontextmanager
async def holding(
    folder: Path, *labels: str, destinations: Mapping[str, tuple[str, int]] | None = None
) -> AsyncIterator[Server]:
    """A server that has these instances, for C-GET and for C-MOVE to those destinations, by Study and Patient Root."""
    files = write(folder, *labels or ("jane/chest", "mueller/head"))
    async with serving() as server:
        for model in ("study", "patient"):

            @server.on_c_get(model)
            @server.on_c_move(model, destinations=destinations or {})
            async def retrieve(operation: Operation) -> list[InstanceFile]:
                return wanted(operation, files)

        yield server


def kept(folder: Path) -> dict[str, bytes]:
    """What is below a folder, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_of(*labels: str) -> set[str]:
    """Where the instances belong that have these labels, or belong to what has."""
    found = (each for label in labels for each in instances_of(label))
    return {f"{each.StudyInstanceUID}/{each.SeriesInstanceUID}/{each.SOPInstanceUID}.dcm" for each in found}
