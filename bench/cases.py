"""What is measured: the cases, who takes part in each, and the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from bench.archives import DCMQRSCP_STUDIES
from bench.objects import Kind
from bench.peers import (
    ClientKind,
    Job,
    ServerKind,
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
    pynetdicom_scp,
    pynetdicom_scu,
    raw_echo,
    raw_find,
    raw_tcp_client,
    raw_tcp_server,
    storescp,
    storescu,
)

Scale: TypeAlias = Callable[[int, int], int]
"""Chooses the count of a full run, which comes first, or that of a quick one."""

Quantity: TypeAlias = Literal["rate", "server_peak", "server_added", "client_added", "memory_each", "idle_cpu"]

MB: Final = 1_000_000
KB: Final = 1_000


@dataclass(frozen=True, slots=True)
class Contender:
    """A client and a server, and what they do."""

    client: ClientKind
    server: ServerKind
    job: Job

    @property
    def name(self) -> str:
        """Who sends to whom."""
        return f"{self.client.name} → {self.server.name}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a case is to reach.

    Args:
        words: as they are printed.
        of: the contender it is about.
        limit: the least ratio to `against`; without that the least rate, or the most of another quantity.
        against: the contender to compare with, round by round.
        quantity: what is compared.
    """

    words: str
    of: Contender
    limit: float
    against: Contender | None = None
    quantity: Quantity = "rate"

    @property
    def is_ceiling(self) -> bool:
        """Whether less is better."""
        return self.quantity != "rate"


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders that are measured in turns.

    Args:
        name: for `--only`.
        title: in reports.
        unit: of the rate.
        contenders: who takes part.
        targets: what is to be reached.
    """

    name: str
    title: str
    unit: Literal["objects/s", "MB/s", "echoes/s", "associations/s", "matches/s"]
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...] = ()


def all_cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    return (
        _small_discarded(scale),
        _small_to_file(scale),
        _from_storescu_as_installed(scale),
        _from_storescu_tuned(scale),
        _to_storescp_as_installed(scale),
        _medium(scale, keeps=False),
        _medium(scale, keeps=True),
        _large(keeps=False),
        _large(keeps=True),
        _concurrent(scale, 10),
        _concurrent(scale, 100),
        _echo(scale),
        _open(scale),
        _idle(scale),
        _find_all(scale),
        _find(scale, "some"),
        _find(scale, "one"),
        _get(scale),
        _move(scale),
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
        (Target("4 × DCMTK", ours, 4, dcmtk), Target("30 × pynetdicom", ours, 30, pynetdicom)),
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
        (Target("1 × DCMTK (+B)", ours, 1, dcmtk), Target("4 × pynetdicom", ours, 4, pynetdicom)),
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
    )


def _medium(scale: Scale, *, keeps: bool) -> Case:
    job = Job("store", scale(500, 200), Kind.MEDIUM)
    few = Job("store", scale(60, 20), Kind.MEDIUM)
    option = "+B" if keeps else "--ignore"
    ours = Contender(aiodicom_scu(), aiodicom_scp(keeps=keeps), job)
    dcmtk = Contender(storescu(tuned=True), storescp(option, tuned=True), job)
    pynetdicom = Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True, keeps=keeps), few)
    targets = (Target("3 × DCMTK", ours, 3, dcmtk), Target("15 × pynetdicom", ours, 15, pynetdicom))
    return Case(
        f"medium-{'to-file' if keeps else 'discarded'}",
        f"0.5 MB, {'to file' if keeps else 'discarded'}",
        "MB/s",
        (ours, dcmtk, pynetdicom),
        () if keeps else targets,
    )


def _large(*, keeps: bool) -> Case:
    job = Job("store", 1, Kind.LARGE)
    ours = Contender(aiodicom_scu(), aiodicom_scp(keeps=keeps), job)
    raw = Contender(raw_tcp_client(), raw_tcp_server(), job)
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
    rate = Target("1 × storescp +B", ours, 1, dcmtk) if keeps else Target("60 % of raw loopback TCP", ours, 0.6, raw)
    return Case(
        f"large-{'to-file' if keeps else 'discarded'}",
        f"500 MB, {'to file' if keeps else 'discarded'}",
        "MB/s",
        (ours, raw, dcmtk, *normal, pynetdicom),
        (rate, *memory),
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
    )


def _echo(scale: Scale) -> Case:
    job = Job("echo", scale(20_000, 5000))
    dcmtk = storescp("--ignore", tuned=True)
    ours = Contender(aiodicom_scu(), aiodicom_scp(), job)
    raw = Contender(raw_echo(), dcmtk, job)
    return Case(
        "echo",
        "C-ECHO on one association",
        "echoes/s",
        (
            ours,
            Contender(raw_echo(), aiodicom_scp(), job),
            raw,
            Contender(aiodicom_scu(), dcmtk, job),
            Contender(aiodicom_scu(), storescp("--ignore", tuned=False), job),
            Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True), Job("echo", scale(400, 100))),
        ),
        (Target("15,000/s", ours, 15_000), Target("1.8 × storescp", ours, 1.8, raw)),
    )


def _open(scale: Scale) -> Case:
    job = Job("open", scale(2000, 500))
    ours = Contender(aiodicom_scu(), aiodicom_scp(), job)
    return Case(
        "open",
        "associations with one C-ECHO, one after the other",
        "associations/s",
        (
            ours,
            Contender(aiodicom_scu(), storescp("--ignore", tuned=True), job),
            Contender(aiodicom_scu(), storescp("--fork", "--ignore", tuned=True), Job("open", scale(500, 200))),
            Contender(pynetdicom_scu(tuned=True), pynetdicom_scp(tuned=True), Job("open", scale(50, 20))),
        ),
        (Target("2,500/s", ours, 2500),),
    )


def _idle(scale: Scale) -> Case:
    ours = Contender(aiodicom_scu(), aiodicom_scp(), Job("hold", scale(9000, 1000)))
    return Case(
        "idle",
        "idle associations",
        "associations/s",
        (
            ours,
            Contender(aiodicom_scu(), storescp("--fork", tuned=True), Job("hold", scale(500, 100))),
            Contender(aiodicom_scu(), pynetdicom_scp(tuned=True), Job("hold", scale(100, 30))),
        ),
        (
            Target("≤ 6 KB each", ours, 6 * KB, quantity="memory_each"),
            Target("no polling: ≤ 1 % of a processor", ours, 0.01, quantity="idle_cpu"),
        ),
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
    )


def _get(scale: Scale) -> Case:
    return _retrieve("get", "C-GET", getscu(tuned=True), scale(2000, 500))


def _move(scale: Scale) -> Case:
    return _retrieve("move", "C-MOVE", movescu(tuned=True), scale(2000, 500))


def _retrieve(operation: Literal["get", "move"], service: str, dcmtk: ClientKind, count: int) -> Case:
    job, archive = Job(operation, count, Kind.SMALL), aiodicom_archive()
    ours, store = Contender(aiodicom_scu(), archive, job), Contender(aiodicom_scu(), aiodicom_scp(), _small(count))
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
    )
