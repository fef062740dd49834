"""What the tests of keeping instances share: instances to keep, and what is in the folder and the index in the end."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset

from aiodicom import EncodedInstance
from aiodicom.archive import Archive
from aiodicom.archive.rebuilding import INDEX
from aiodicom.archive.shelf import INCOMING
from aiodicom.dataset import encode_data_set
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.loopback import CT

STUDY: Final = "1.2.840.1"
SERIES: Final = "1.2.840.1.1"


def uid(number: int) -> str:
    return f"{SERIES}.{number}"


def instance(number: int = 1, *, pixels: bytes = b"\0" * 64, **attributes: Any) -> EncodedInstance:  # noqa: ANN401 - of DICOM
    """A CT image of one patient, study and series, but for what is said; None leaves an attribute out."""
    ds = Dataset()
    values = {
        "SOPClassUID": CT,
        "SOPInstanceUID": uid(number),
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "PatientID": "1",
        "PatientName": "Doe^Jane",
        "Modality": "CT",
        "InstanceNumber": str(number),
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(ds, keyword, value)
    ds.add_new(0x7FE00010, "OW", pixels)
    return EncodedInstance(CT, uid(number), EXPLICIT_VR_LITTLE_ENDIAN, encode_data_set(ds, EXPLICIT_VR_LITTLE_ENDIAN))


def path_of(number: int, study: str = STUDY, series: str = SERIES) -> str:
    return f"{study}/{series}/{uid(number)}.dcm"


def files(folder: Path) -> list[str]:
    """The files of instances below a folder; there must be no temporary ones."""
    assert list((folder / INCOMING).iterdir()) == []
    return [path for path in every_file(folder) if not path.startswith((INDEX, "."))]


def every_file(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the index answers, as it is on the disk."""
    with closing(sqlite3.connect(f"{(folder / INDEX).absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def paths_in_index(folder: Path) -> list[str]:
    return [path for (path,) in query(folder, "SELECT path FROM instances ORDER BY path")]


def data_set_at(folder: Path, number: int) -> bytes:
    """The data set of an instance, found as the index says."""
    [(path, offset, size)] = query(
        folder, f"SELECT path, data_set_offset, size FROM instances WHERE SOPInstanceUID = '{uid(number)}'"
    )
    content: bytes = (folder / path).read_bytes()
    assert len(content) == size
    return content[offset:]


async def keep(folder: Path, *instances: EncodedInstance, **options: Any) -> None:  # noqa: ANN401 - those of Archive
    """Keep instances, one after the other."""
    async with Archive(folder, **options) as archive:
        for each in instances:
            await archive.add(each)
