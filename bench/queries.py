"""The cases of query and retrieve: C-FIND, C-GET and C-MOVE."""

from __future__ import annotations

from typing import Final, Literal

from bench.archives import DCMQRSCP_STUDIES
from bench.case import Case, Contender, Scale, Target
from bench.objects import Kind
from bench.peers import (
    ClientKind,
    Job,
    aiodicom_archive,
    aiodicom_rows,
    aiodicom_scp,
    aiodicom_scu,
    dcmqrscp,
    findscu,
    getscu,
    movescu,
    orthanc,
    pynetdicom_find_scp,
    pynetdicom_scu,
    raw_find,
)

GROUP: Final = "Query and retrieve"


def cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    return (
        _find_all(scale),
        _find(scale, "some"),
        _find(scale, "one"),
        _get(scale),
        _move(scale),
    )


def _find_all(scale: Scale) -> Case:
    studies, few = scale(10_000, 1000), 1000
    job = Job("find-all", scale(4, 10) * studies, studies=studies)
    in_orthanc = Job("find-all", 2 * studies, studies=studies)
    in_dcmqrscp = Job("find-all", scale(40, 10) * DCMQRSCP_STUDIES, studies=DCMQRSCP_STUDIES)
    in_pynetdicom = Job("find-all", scale(2, 1) * few, studies=few)
    rows = aiodicom_rows()
    servers = (
        (orthanc(tuned=True), in_orthanc),
        (dcmqrscp(tuned=True), in_dcmqrscp),
        (pynetdicom_find_scp(tuned=True), in_pynetdicom),
    )
    of_rows, of_archive = Contender(raw_find(), rows, job), Contender(raw_find(), aiodicom_archive(), job)
    datasets = Contender(aiodicom_scu(), rows, in_orthanc)
    of_orthanc, of_dcmqrscp, of_pynetdicom = (Contender(raw_find(), server, its) for server, its in servers)
    return Case(
        "find-all",
        f"C-FIND, all of {studies:,} studies (dcmqrscp: {DCMQRSCP_STUDIES}, pynetdicom: {few:,} in memory)",
        "matches/s",
        (
            of_rows,
            of_archive,
            datasets,
            *(of_orthanc, of_dcmqrscp, of_pynetdicom),
            *(Contender(findscu(tuned=True), server, its) for server, its in servers[:2]),
            *(Contender(pynetdicom_scu(tuned=True), server, its) for server, its in servers[1:]),
        ),
        (
            Target("20,000 rows/s", of_rows, 20_000),
            Target("20 × pynetdicom", of_rows, 20, of_pynetdicom),
            Target("1,500 Datasets/s, every value decoded", datasets, 1500),
            Target("archive: 5 × Orthanc", of_archive, 5, of_orthanc),
        ),
        group=GROUP,
    )


def _find(scale: Scale, what: Literal["some", "one"]) -> Case:
    studies = scale(10_000, 1000)
    count = scale(1000, 200) * (1 if what == "one" else 10)
    job = Job(f"find-{what}", count, studies=studies)
    ours = Contender(raw_find(), aiodicom_archive(), job)
    of_orthanc = Contender(raw_find(), orthanc(tuned=True), job)
    of_dcmqrscp = Contender(raw_find(), dcmqrscp(tuned=True), Job(f"find-{what}", count, studies=DCMQRSCP_STUDIES))
    return Case(
        f"find-{what}",
        f"C-FIND, {1 if what == 'one' else 100} of {studies:,} studies (dcmqrscp: {DCMQRSCP_STUDIES})",
        "matches/s",
        (ours, of_orthanc, of_dcmqrscp),
        (Target("archive: 5 × Orthanc", ours, 5, of_orthanc),),
        group=GROUP,
    )


def _get(scale: Scale) -> Case:
    return _retrieve("get", "C-GET", getscu(tuned=True), scale(2000, 500))


def _move(scale: Scale) -> Case:
    return _retrieve("move", "C-MOVE", movescu(tuned=True), scale(2000, 500))


def _retrieve(operation: Literal["get", "move"], service: str, dcmtk: ClientKind, count: int) -> Case:
    job, archive = Job(operation, count, Kind.SMALL), aiodicom_archive()
    ours, store = (
        Contender(aiodicom_scu(), archive, job),
        Contender(aiodicom_scu(), aiodicom_scp(), Job("store", count, Kind.SMALL)),
    )
    return Case(
        operation,
        f"39 KB, {service} of a study, discarded",
        "objects/s",
        (
            ours,
            store,
            *(Contender(dcmtk, server, job) for server in (archive, dcmqrscp(tuned=True), orthanc(tuned=True))),
        ),
        (Target("0.8 × our C-STORE", ours, 0.8, store),),
        group=GROUP,
    )
