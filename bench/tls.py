"""The cases over TLS 1.3: stores, C-ECHO and associations, beside DCMTK's TLS, pynetdicom's, and OpenSSL's own speed.

Each end shows a certificate and checks the other's, and all of them negotiate the same cipher suite.
"""

from __future__ import annotations

from typing import Final

from bench.case import Case, Contender, Scale, Target
from bench.objects import Kind
from bench.peers import (
    Job,
    aiodicom_scp,
    aiodicom_scu,
    pynetdicom_scp,
    pynetdicom_scu,
    raw_echo,
    raw_tcp_client,
    raw_tcp_server,
    storescp,
    storescu,
)

GROUP: Final = "TLS"
WITHIN: Final = 1.5
"""So many times as long as OpenSSL alone a large object may take."""


def cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    return (
        _store("small", Kind.SMALL, scale(2000, 500), scale(200, 30)),
        _store("medium", Kind.MEDIUM, scale(500, 100), scale(60, 10)),
        _store("large", Kind.LARGE, 1, 1),
        _echo(scale),
        _open(scale),
    )


def _store(name: str, kind: Kind, count: int, few: int) -> Case:
    job, is_large = Job("store", count, kind), kind is Kind.LARGE
    ours = Contender(aiodicom_scu(tls=True), aiodicom_scp(tls=True), job)
    raw = Contender(raw_tcp_client(tls=True), raw_tcp_server(tls=True), job)
    dcmtk = Contender(storescu(tuned=True, tls=True), storescp("--ignore", tuned=True, tls=True), job)
    pynetdicom = Contender(
        pynetdicom_scu(tuned=True, chunked=is_large, tls=True),
        pynetdicom_scp(tuned=True, chunked=is_large, tls=True),
        Job("store", few, kind),
    )
    against_raw = Target(f"within {WITHIN} × of raw TLS", ours, 1 / WITHIN, raw)
    return Case(
        f"tls-{name}",
        f"{kind.value} over TLS, discarded",
        "objects/s" if kind is Kind.SMALL else "MB/s",
        (ours, raw, dcmtk, pynetdicom),
        (*((against_raw,) if is_large else ()), Target("1 × DCMTK", ours, 1, dcmtk)),
        group=GROUP,
    )


def _echo(scale: Scale) -> Case:
    job, dcmtk = Job("echo", scale(20_000, 3000)), storescp("--ignore", tuned=True, tls=True)
    ours = Contender(raw_echo(tls=True), aiodicom_scp(tls=True), job)
    theirs = Contender(raw_echo(tls=True), dcmtk, job)
    return Case(
        "tls-echo",
        "C-ECHO on one association over TLS",
        "echoes/s",
        (
            Contender(aiodicom_scu(tls=True), aiodicom_scp(tls=True), job),
            ours,
            theirs,
            Contender(aiodicom_scu(tls=True), dcmtk, job),
            Contender(
                pynetdicom_scu(tuned=True, tls=True),
                pynetdicom_scp(tuned=True, tls=True),
                Job("echo", scale(400, 60)),
            ),
        ),
        (Target("1 × DCMTK", ours, 1, theirs),),
        group=GROUP,
    )


def _open(scale: Scale) -> Case:
    job, client = Job("open", scale(500, 100)), aiodicom_scu(tls=True)
    ours = Contender(client, aiodicom_scp(tls=True), job)
    dcmtk = Contender(client, storescp("--ignore", tuned=True, tls=True), job)
    return Case(
        "tls-open",
        "associations over TLS with one C-ECHO, one after the other",
        "associations/s",
        (
            ours,
            dcmtk,
            Contender(client, storescp("--fork", "--ignore", tuned=True, tls=True), job),
            Contender(
                pynetdicom_scu(tuned=True, tls=True),
                pynetdicom_scp(tuned=True, tls=True),
                Job("open", scale(50, 10)),
            ),
        ),
        (Target("1 × DCMTK", ours, 1, dcmtk),),
        group=GROUP,
    )
