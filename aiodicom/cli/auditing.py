"""The options of the audit trail (PS3.15 §A.5), and the trail that they come to."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from aiodicom.activity import Counters
from aiodicom.association import Observer
from aiodicom.audit import AuditFile, Auditor, AuditTrail, SyslogCollector
from aiodicom.audit.destinations import SYSLOG_TLS_PORT
from aiodicom.cli.configuration import known_audit
from aiodicom.cli.peer import parse_host_and_port
from aiodicom.tls import Credentials


@dataclass(frozen=True, slots=True)
class Audit:
    """What the options and the configuration say of the audit trail.

    Args:
        file: where messages are appended; None is nowhere.
        collector: the host and port to which they are sent; None is nowhere.
        credentials: of the connection to it.
        source: which system reports; "" is this machine's name.
        site: where that is; "" is not said.
    """

    file: Path | None
    collector: tuple[str, int] | None
    credentials: Credentials
    source: str
    site: str


def add_audit(parser: ArgumentParser) -> None:
    """Add `--audit-…`."""
    group = parser.add_argument_group(
        "audit",
        "Who did what to whose data, in messages of PS3.15 §A.5, which name patients.\n"
        "What is not said stands in the table [audit] of aiodicom.toml.",
    )
    group.add_argument(
        "--audit-file", metavar="FILE", type=Path, help="append them to this file, which only its owner may read"
    )
    group.add_argument(
        "--audit-syslog",
        metavar="HOST[:PORT]",
        help=f"send them to this collector, by syslog over TLS (port {SYSLOG_TLS_PORT})",
    )
    group.add_argument("--audit-tls-cert", metavar="FILE", type=Path, help="our certificate for it, in PEM")
    group.add_argument("--audit-tls-key", metavar="FILE", type=Path, help="its private key (in the same file)")
    group.add_argument(
        "--audit-tls-ca",
        metavar="FILE",
        type=Path,
        action="append",
        help="whom we believe to be it: an authority's certificate, or a folder (those of the system)",
    )
    group.add_argument("--audit-source", metavar="NAME", help="which system reports (the name of this machine)")
    group.add_argument("--audit-site", metavar="NAME", help="at which site of the enterprise (not said)")


def audit_of(options: Namespace) -> Audit:
    """Return what they say. The file is made, and the certificates are read.

    Raises:
        ValueError: it cannot be; the message says what is wrong.
        LocalProtocolError: likewise.
    """
    said: dict[str, Any] = known_audit(options.config)
    given = {
        "file": options.audit_file,
        "syslog": options.audit_syslog,
        "source": options.audit_source,
        "site": options.audit_site,
    }
    said |= {name: value for name, value in given.items() if value is not None}
    collector = None if said.get("syslog") is None else parse_host_and_port(said["syslog"], SYSLOG_TLS_PORT)
    credentials = said.get("tls") or Credentials()
    if options.audit_tls_ca is not None:
        credentials = replace(credentials, authorities=options.audit_tls_ca)
    if options.audit_tls_cert is not None or options.audit_tls_key is not None:
        credentials = replace(credentials, certificate=options.audit_tls_cert, key=options.audit_tls_key)
    if collector is not None:
        credentials.client_context()
    file = said.get("file")
    if file is not None:
        try:
            AuditFile(file).append(b"")
        except OSError as error:
            raise ValueError(f"{file}: the audit trail cannot be written: {error.strerror}") from None
    return Audit(file, collector, credentials, said.get("source", ""), said.get("site", ""))


@asynccontextmanager
async def audited(options: Namespace, counters: Counters, row: int = 0) -> AsyncIterator[tuple[Observer, ...]]:
    """Keep the audit trail that the options ask for.

    Args:
        options: of the command line.
        counters: where messages that are dropped are counted.
        row: in which row of them.

    Yields:
        the observers that a server is to have for it; none where none is to be kept.
    """
    audit: Audit = options.audit
    destinations: list[AuditFile | SyslogCollector] = []
    if audit.file is not None:
        destinations.append(AuditFile(audit.file))
    if audit.collector is not None:
        destinations.append(SyslogCollector(*audit.collector, tls=audit.credentials, host_name=audit.source))
    if not destinations:
        yield ()
        return
    count = partial(counters.add, row, "audit_dropped", 1)
    trail = AuditTrail(destinations, ae_title=options.aet, source_id=audit.source, site_id=audit.site, on_drop=count)
    async with trail:
        yield (Auditor(trail),)
