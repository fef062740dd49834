"""The embedded archive alone, without a network: `python -m bench.index`. How fast it keeps, and finds among a million.

Instances are kept by `Archive.add`, many at a time, so that they share commits; files and index lie in memory. The million is
put into the index as rows, and asked through `Archive.find`.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Final

import uvloop
from pydicom import Dataset

import aiodicom
from aiodicom.archive import rebuild
from aiodicom.archive.index import open_index
from aiodicom.archive.rebuilding import INDEX
from aiodicom.services.matching import fold_name
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from bench.objects import NUMBER, Objects
from bench.processes import MEMORY
from bench.report import table

AT_A_TIME: Final = 256  # instances that are being kept at once
SERIES_OF_A_STUDY: Final = 2
INSTANCES_OF_A_SERIES: Final = 20
QUERIES: Final = 200
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
ROOT: Final = "1.2.826.0.1.3680043.10.954.99"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.index", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 instances to keep, 100,000 to find among")
    arguments = parser.parse_args()
    kept, found = (2000, 100_000) if arguments.quick else (20_000, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="aiodicom-index-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        rows = uvloop.run(measure(Path(name), kept, found))
    print("\n".join(table(("what", "figure", "target"), rows)))


async def measure(folder: Path, kept: int, found: int) -> list[tuple[str, str, str]]:
    """Return what was measured, a row each."""
    rows = []
    small, length = copies(next(iter(Objects(folder / "objects").studies(1).iterdir())), kept)
    for sync in (True, False):
        rate, cpu = await keep(folder / f"kept-{sync}", small, sync=sync)
        what = f"{kept:,} instances of {length:,} bytes kept, {'synced' if sync else 'not synced'}"
        rows.append((what, f"{rate:,.0f}/s, {cpu * 1e6:.0f} µs of CPU each", "10,000/s"))
    begun = time.perf_counter()
    made = await asyncio.to_thread(rebuild, folder / "kept-True")
    rows.append(("index rebuilt from the files", f"{made.instances / (time.perf_counter() - begun):,.0f}/s", ""))
    million = folder / "million"
    million.mkdir()
    begun = time.perf_counter()
    await asyncio.to_thread(fill, million, found)
    rate = found / (time.perf_counter() - begun)
    rows.append((f"{found:,} rows of instances put into the index", f"{rate:,.0f}/s", "10,000/s"))
    async with aiodicom.Archive(million) as archive:
        rows += [await first_match(archive, what, level, keys) for what, level, keys in queries(found)]
        rows.append(await everything(archive, found))
    return rows


async def keep(folder: Path, instances: Iterable[aiodicom.EncodedInstance], *, sync: bool) -> tuple[float, float]:
    """Keep instances, many at a time; return how many a second, and the processor time of each in seconds."""
    waiting = iter(instances)
    count = 0
    async with aiodicom.Archive(folder, sync=sync) as archive:

        async def work() -> None:
            nonlocal count
            for instance in waiting:
                await archive.add(instance)
                count += 1

        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work() for _ in range(AT_A_TIME)))
        return count / (time.perf_counter() - begun), (time.process_time() - cpu) / count


def copies(file: Path, count: int) -> tuple[list[aiodicom.EncodedInstance], int]:
    """Return the instance of a file, as often as wanted, twenty to a series, each with a UID of its own; and its length."""
    opened = aiodicom.open_instance(file)
    data = file.read_bytes()[opened.data_set_offset :]
    # The number stands in every identifying value; that of the instance comes first, behind the SOP class.
    head, *rest = data.split(NUMBER.encode())
    copies = []
    for number in range(count):
        series = f"{number // INSTANCES_OF_A_SERIES:06}".encode()
        own = f"{number:06}".encode()
        uid = opened.sop_instance_uid.replace(NUMBER, own.decode())
        copies.append(aiodicom.EncodedInstance(CT, uid, EXPLICIT_VR_LITTLE_ENDIAN, head + own + series.join(rest)))
    return copies, len(data)


def fill(folder: Path, count: int) -> None:
    """Put an index of that many instances into a folder, without files."""
    series = count // INSTANCES_OF_A_SERIES
    studies = series // SERIES_OF_A_STUDY
    with closing(open_index(folder / INDEX, sync=False)) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO patients (pk, PatientID, PatientName, PatientName_folded, PatientSex) VALUES (?, ?, ?, ?, 'F')",
            ((n, f"P{n:07}", name := f"Patient{n:07}^Bench", fold_name(name)) for n in range(1, studies + 1)),
        )
        connection.executemany(
            "INSERT INTO studies (pk, patient, StudyInstanceUID, StudyDate, StudyTime, AccessionNumber, StudyDescription) "
            "VALUES (?, ?, ?, ?, '101112', ?, 'CT Abdomen')",
            ((n, n, f"{ROOT}.{n}", _date(n), f"A{n:07}") for n in range(1, studies + 1)),
        )
        connection.executemany(
            "INSERT INTO series (pk, study, SeriesInstanceUID, Modality, SeriesNumber) VALUES (?, ?, ?, 'CT', ?)",
            ((n, study := 1 + n % studies, f"{ROOT}.{study}.{n}", str(n % 7)) for n in range(1, series + 1)),
        )
        connection.executemany(
            "INSERT INTO instances (pk, series, SOPInstanceUID, SOPClassUID, InstanceNumber, TransferSyntaxUID, path, "
            "data_set_offset, size) VALUES (?, ?, ?, ?, ?, ?, ?, 344, 525000)",
            _instances(count, series),
        )
        connection.execute("COMMIT")


def _instances(count: int, series: int) -> Iterator[tuple[int, int, str, str, str, str, str]]:
    for n in range(1, count + 1):
        yield n, 1 + n % series, f"{ROOT}.0.{n}", CT, str(n % 20), EXPLICIT_VR_LITTLE_ENDIAN, f"{n}.dcm"


def _date(number: int) -> str:
    return f"20{number % 25:02}{1 + number % 12:02}{1 + number % 28:02}"


def queries(count: int) -> Iterator[tuple[str, str, list[dict[str, str]]]]:
    """Yield what is asked: in words, at which level, and the keys of each query."""
    studies = count // INSTANCES_OF_A_SERIES // SERIES_OF_A_STUDY
    numbers = [1 + (n * 7919) % studies for n in range(QUERIES)]
    yield "a patient by ID", "STUDY", [{"PatientID": f"P{n:07}"} for n in numbers]
    yield "a patient by the beginning of the name", "STUDY", [{"PatientName": f"patient{n:07}*"} for n in numbers]
    yield "a study by accession number", "STUDY", [{"AccessionNumber": f"A{n:07}"} for n in numbers]
    yield "the studies of a day", "STUDY", [{"StudyDate": _date(n)} for n in numbers]
    yield "the series of a study", "SERIES", [{"StudyInstanceUID": f"{ROOT}.{n}"} for n in numbers]
    yield "an instance by its UID", "IMAGE", [{"SOPInstanceUID": f"{ROOT}.0.{n}"} for n in numbers]


async def first_match(
    archive: aiodicom.Archive, what: str, level: str, keys: list[dict[str, str]]
) -> tuple[str, str, str]:
    """Ask, and return how long the first match took."""
    times = []
    for each in keys:
        identifier = _identifier(level, each)
        begun = time.perf_counter()
        options = aiodicom.QueryOptions(relational=True)
        async with aclosing(archive.find(identifier, "study", options=options)) as matches:
            await anext(matches)
            times.append(time.perf_counter() - begun)
    return f"{what}: first match", f"{statistics.median(times) * 1000:.2f} ms (median of {len(times)})", "10 ms"


async def everything(archive: aiodicom.Archive, count: int) -> tuple[str, str, str]:
    """Ask for all instances, and return what that took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    found = 0
    options = aiodicom.QueryOptions(relational=True)
    async with aclosing(archive.find(_identifier("IMAGE", {}), "study", options=options)) as matches:
        async for _ in matches:
            found += 1
    rate = found / (time.perf_counter() - begun)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert found == count
    return f"all {found:,} instances, streamed", f"{rate:,.0f} matches/s, {added:.1f} MB more memory", "flat"


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    returned = {
        "STUDY": ("StudyInstanceUID", "StudyDate"),
        "SERIES": ("SeriesInstanceUID",),
        "IMAGE": ("SOPInstanceUID",),
    }
    for keyword in (*returned[level], "PatientName"):
        setattr(identifier, keyword, "")
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


if __name__ == "__main__":
    main()
