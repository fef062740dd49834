"""The cases of C-STORE: objects of all sizes, discarded or to file, and many associations at once."""

from __future__ import annotations

from typing import Final

from bench.case import MB, Case, Contender, Scale, Target
from bench.objects import Kind
from bench.peers import (
    Job,
    aiodicom_archive,
    aiodicom_scp,
    aiodicom_scu,
    dcmqrscp,
    orthanc,
    pynetdicom_scp,
    pynetdicom_scu,
    raw_tcp_client,
    raw_tcp_server,
    storescp,
    storescu,
)

GROUP: Final = "Storage"


def cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    return (
        _small_discarded(scale),
        _small_to_file(scale),
        _from_storescu_as_installed(scale),
        _from_storescu_tuned(scale),
        _to_storescp_as_installed(scale),
        _to_archive(scale),
        _medium(scale, keeps=False),
        _medium(scale, keeps=True),
        _large(keeps=False),
        _large(keeps=True),
        _concurrent(scale, 10),
        _concurrent(scale, 100),
    )


def _small(count: int) -> Job:
    return Job("store", count, Kind.SMALL)


def _small_discarded(scale: Scale) -> Case:
    slow, job = _small(scale(30, 10)), _small(scale(2000, 1000))
    ours = Contender(aiodicom_scu(), aiodicom_scp(), job)
    dcmtk = Contender(storescu(tuned=True), storescp("--ignore", tuned=True), job)
    pynetdicom = Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True), _small(scale(200, 60)))
    return Case(
        "small-discarded",
        "39 KB, discarded",
        "objects/s",
        (
            ours,
            Contender(aiodicom_scu(in_memory=True), aiodicom_scp(), job),
            dcmtk,
            pynetdicom,
            Contender(storescu(tuned=False), storescp("--ignore", tuned=False), slow),
            Contender(pynetdicom_scu(tuned=False), pynetdicom_scp(tuned=False), slow),
        ),
        (Target("6 × DCMTK", ours, 6, dcmtk), Target("50 × pynetdicom", ours, 50, pynetdicom)),
        group=GROUP,
    )


def _small_to_file(scale: Scale) -> Case:
    job = _small(scale(2000, 1000))
    ours = Contender(aiodicom_scu(), aiodicom_scp(keeps=True), job)
    preserving = Contender(storescu(tuned=True), storescp("+B", tuned=True), job)
    pynetdicom = Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True, keeps=True), _small(scale(200, 60)))
    return Case(
        "small-to-file",
        "39 KB, to file",
        "objects/s",
        (ours, preserving, Contender(storescu(tuned=True), storescp(tuned=True), job), pynetdicom),
        (Target("2.5 × DCMTK (+B)", ours, 2.5, preserving), Target("25 × pynetdicom", ours, 25, pynetdicom)),
        group=GROUP,
    )


def _from_storescu_as_installed(scale: Scale) -> Case:
    slow = _small(scale(30, 10))
    ours = Contender(storescu(tuned=False), aiodicom_scp(keeps=True), _small(scale(1000, 300)))
    dcmtk = Contender(storescu(tuned=False), storescp(tuned=False), slow)
    return Case(
        "from-storescu-as-installed",
        "39 KB, to file, SCP fed by an unmodified SCU",
        "objects/s",
        (
            ours,
            dcmtk,
            Contender(pynetdicom_scu(tuned=False), aiodicom_scp(keeps=True), _small(scale(200, 60))),
        ),
        (Target("50 × an unmodified storescp", ours, 50, dcmtk),),
        group=GROUP,
    )


def _from_storescu_tuned(scale: Scale) -> Case:
    job, client = _small(scale(2000, 1000)), storescu(tuned=True)
    ours = Contender(client, aiodicom_scp(keeps=True), job)
    dcmtk = Contender(client, storescp("+B", tuned=True), job)
    pynetdicom = Contender(client, pynetdicom_scp(tuned=True, keeps=True), _small(scale(300, 100)))
    return Case(
        "from-storescu-tuned",
        "39 KB, to file, SCP fed by a tuned storescu",
        "objects/s",
        (ours, dcmtk, Contender(client, storescp(tuned=True), job), pynetdicom),
        (Target("1.2 × DCMTK (+B)", ours, 1.2, dcmtk), Target("4 × pynetdicom", ours, 4, pynetdicom)),
        group=GROUP,
    )


def _to_storescp_as_installed(scale: Scale) -> Case:
    server = storescp(tuned=False)
    ours = Contender(aiodicom_scu(), server, _small(scale(1000, 300)))
    dcmtk = Contender(storescu(tuned=False), server, _small(scale(30, 10)))
    return Case(
        "to-storescp-as-installed",
        "39 KB, SCU to an unmodified storescp",
        "objects/s",
        (ours, dcmtk),
        (Target("40 × an unmodified storescu", ours, 40, dcmtk),),
        group=GROUP,
    )


def _to_archive(scale: Scale) -> Case:
    job, client = _small(scale(1000, 200)), aiodicom_scu(in_memory=True)
    ours = Contender(client, aiodicom_archive(keeps=True), job)
    of_orthanc = Contender(client, orthanc(tuned=True, keeps=True), job)
    of_dcmqrscp = Contender(client, dcmqrscp(tuned=True, keeps=True), job)
    fed_by_dcmtk = Contender(storescu(tuned=True), aiodicom_archive(keeps=True), job)
    return Case(
        "small-to-archive",
        "39 KB, into an empty archive",
        "objects/s",
        (ours, of_orthanc, of_dcmqrscp, fed_by_dcmtk),
        (Target("1 × Orthanc", ours, 1, of_orthanc), Target("1 × dcmqrscp", ours, 1, of_dcmqrscp)),
        group=GROUP,
    )


def _medium(scale: Scale, *, keeps: bool) -> Case:
    job = Job("store", scale(500, 200), Kind.MEDIUM)
    few = Job("store", scale(60, 20), Kind.MEDIUM)
    option = "+B" if keeps else "--ignore"
    ours = Contender(aiodicom_scu(), aiodicom_scp(keeps=keeps), job)
    dcmtk = Contender(storescu(tuned=True), storescp(option, tuned=True), job)
    pynetdicom = Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True, keeps=keeps), few)
    # What DCMTK leaves of the raw limit bounds every ratio to it.
    raw = (
        Contender(aiodicom_scu(in_memory=True), aiodicom_scp(), job),
        Contender(raw_tcp_client(), raw_tcp_server(), job),
    )
    targets = (Target("4 × DCMTK", ours, 4, dcmtk), Target("15 × pynetdicom", ours, 15, pynetdicom))
    return Case(
        f"medium-{'to-file' if keeps else 'discarded'}",
        f"0.5 MB, {'to file' if keeps else 'discarded'}",
        "MB/s",
        (ours, *(() if keeps else raw), dcmtk, pynetdicom),
        () if keeps else targets,
        group=GROUP,
    )


def _large(*, keeps: bool) -> Case:
    job = Job("store", 1, Kind.LARGE)
    ours = Contender(aiodicom_scu(), aiodicom_scp(keeps=keeps), job)
    in_memory = Contender(aiodicom_scu(in_memory=True), aiodicom_scp(), job)
    raw = Contender(raw_tcp_client(), raw_tcp_server(), job)  # from memory, too: it reads no file
    dcmtk = Contender(storescu(tuned=True), storescp("+B" if keeps else "--ignore", tuned=True), job)
    pynetdicom = Contender(
        pynetdicom_scu(tuned=True, chunked=True), pynetdicom_scp(tuned=True, keeps=keeps, chunked=True), job
    )
    normal = (Contender(storescu(tuned=True), storescp(tuned=True), job),) if keeps else ()
    memory = (
        Target("SCP memory ≤ 40 MB", ours, 40 * MB, quantity="server_peak"),
        Target("SCP adds ≤ 40 MB", ours, 40 * MB, quantity="server_added"),
        Target("SCU adds ≤ 40 MB", ours, 40 * MB, quantity="client_added"),
    )
    discarded = (
        Target("75 % of raw loopback TCP", ours, 0.75, raw),
        Target("75 % of it, from memory as it is", in_memory, 0.75, raw),
        Target("3 × DCMTK", ours, 3, dcmtk),
    )
    rates = (Target("1 × storescp +B", ours, 1, dcmtk),) if keeps else discarded
    return Case(
        f"large-{'to-file' if keeps else 'discarded'}",
        f"500 MB, {'to file' if keeps else 'discarded'}",
        "MB/s",
        (ours, *(() if keeps else (in_memory,)), raw, dcmtk, *normal, pynetdicom),
        (*rates, *memory),
        group=GROUP,
    )


def _concurrent(scale: Scale, associations: int) -> Case:
    job = Job("store", 100 if associations == 10 else scale(100, 20), Kind.SMALL, associations)
    client = aiodicom_scu(in_memory=True)
    ours = Contender(client, aiodicom_scp(), job)
    dcmtk = Contender(client, storescp("--fork", "--ignore", tuned=True), job)
    targets = [Target("2 × storescp --fork", ours, 2, dcmtk)]
    contenders = [ours, dcmtk]
    if associations == 10:  # with 100, pynetdicom takes minutes
        fewer = Job("store", scale(50, 20), Kind.SMALL, associations)
        contenders.append(Contender(client, pynetdicom_scp(tuned=True), fewer))
        targets.append(Target("15 × pynetdicom", ours, 15, contenders[-1]))
    return Case(
        f"concurrent-{associations}",
        f"39 KB, discarded, {associations} associations at once",
        "objects/s",
        tuple(contenders),
        tuple(targets),
        group=GROUP,
    )
