"""`python -m aiodicom.conformance HOST PORT`: point the suite at an acceptor."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from aiodicom.conformance import report
from aiodicom.conformance.case import Result, Verdict
from aiodicom.conformance.cases import chosen
from aiodicom.conformance.suite import Unusable, run
from aiodicom.conformance.target import DEFAULT_CALLED, DEFAULT_CALLING, Counts, Target

PASSED, DIFFERED, UNUSABLE = range(3)

_EPILOG: Final = """\
Each case is a line: pass, the difference between what was expected and what came, or why it does not apply. Cases that need
to be told something about the acceptor say which option tells it. Without --slow, those that wait for a time limit are
left out. Images that the suite stores are of a patient named CONFORMANCE^SUITE, each in a study of its own.

exit codes:
  0  no case differs
  1  at least one does
  2  the acceptor cannot be reached, or the options are wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        cases = chosen(options.only)
    except LookupError as error:
        print(f"error: there is no case {error}; --list shows all", file=sys.stderr)
        return UNUSABLE
    if options.list:
        print(*map(report.listing, cases), sep="\n")
        return PASSED
    if options.host is None or options.port is None:
        print("error: say HOST and PORT", file=sys.stderr)
        return UNUSABLE
    cases = tuple(case for case in cases if options.slow or not case.is_slow)
    tell = partial(_print, report.as_json if options.json else report.line)
    try:
        results = asyncio.run(run(_target(options), cases, tell=tell))
    except (Unusable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    print(report.summary(results), file=sys.stderr)
    return DIFFERED if any(result.verdict is Verdict.DIFFERS for result in results) else PASSED


def _print(form: Callable[[Result], str], result: Result) -> None:
    print(form(result), flush=True)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m aiodicom.conformance",
        description="A conformance suite for DICOM acceptors: what they answer to what they should refuse, outlive or take.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("host", metavar="HOST", nargs="?", help="name or address of the acceptor")
    add("port", metavar="PORT", nargs="?", type=int, help="its port")
    add("-aec", metavar="AET", default=DEFAULT_CALLED, help="its AE title (%(default)s)")
    add("-aet", metavar="AET", default=DEFAULT_CALLING, help="the suite's own, which it must know (%(default)s)")
    add("--only", metavar="IDS", type=_ids, default=(), help="these cases alone, such as T01,T05/short")
    add("--slow", action="store_true", help="those, too, that wait for a time limit: about as long as the longest")
    add("--list", action="store_true", help="print the cases, and run none")
    add("--json", action="store_true", help="print a line of JSON for each case")
    _add_what_it_is(parser)
    _add_time_limits(parser)
    _add_tls(parser)
    return parser


def _add_what_it_is(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what the acceptor is").add_argument
    add("--unknown-aet", metavar="AET", help="a calling AE title that it does not know")
    add("--wrong-aec", metavar="AET", help="a called AE title that it does not have")
    add("--may-not-store", metavar="AET", help="a calling AE title that it knows, and that may not store")
    add("--identity", nargs=2, metavar=("USER", "PASSCODE"), help="the user identity to give, which it takes")
    add("--wrong-identity", nargs=2, metavar=("USER", "PASSCODE"), help="one that it refuses")
    add("--requires-identity", action="store_true", help="it refuses who gives no user identity")
    add("--max-associations", metavar="N", type=int, help="how many associations it lets this address have")
    add("--instance-cap", metavar="BYTES", type=int, help="the longest data set of an instance that it takes")
    add("--quota-full", action="store_true", help="its quota is used up")
    add(
        "--local",
        metavar="PID",
        type=int,
        help="its process on this machine (Linux): look for leaks, and at its memory",
    )
    add("--stop", metavar="PID", type=int, help="the process to send SIGTERM to, as the last case")


def _add_time_limits(parser: ArgumentParser) -> None:
    add = partial(parser.add_argument_group("its time limits, in seconds").add_argument, metavar="SECONDS", type=float)
    add("--artim", default=10, help="for a complete A-ASSOCIATE-RQ (%(default)g)")
    add("--stall", default=30, help="inside of a PDU or message (%(default)g)")
    add("--idle", default=60, help="on an association (%(default)g)")
    add("--close", default=5, help="for the peer to close, after the end of an association (%(default)g)")
    add("--handshake", default=10, help="for a TLS handshake (%(default)g)")
    add("--tolerance", default=0.5, help="how far off it may be; the two longer ones twice as much (%(default)g)")
    add("--patience", default=10, help="how long to wait for anything else (%(default)g)")


def _add_tls(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("TLS").add_argument
    add("--tls", action="store_true", help="speak TLS")
    add("--ca", metavar="FILE", type=Path, help="who issued its certificate; without this that is not verified")
    pair = {"nargs": 2, "metavar": ("FILE", "KEY"), "type": Path}
    add("--certificate", **pair, help="the certificate that it asks for, and its key")  # type: ignore[arg-type]
    add("--foreign-certificate", **pair, help="one of an issuer that it does not trust")  # type: ignore[arg-type]
    add("--expired-certificate", **pair, help="one that has expired")  # type: ignore[arg-type]


def _ids(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _target(options: Namespace) -> Target:
    foreign, expired = options.foreign_certificate, options.expired_certificate
    return Target(
        host=options.host,
        port=options.port,
        called=options.aec,
        calling=options.aet,
        tls=_context(options.ca, options.certificate) if options.tls else None,
        presents_certificate=options.certificate is not None,
        artim=options.artim,
        stall=options.stall,
        idle=options.idle,
        closing=options.close,
        handshake=options.handshake,
        tolerance=options.tolerance,
        patience=options.patience,
        unknown_calling=options.unknown_aet,
        wrong_called=options.wrong_aec,
        identity=tuple(options.identity) if options.identity else None,
        wrong_identity=tuple(options.wrong_identity) if options.wrong_identity else None,
        requires_identity=options.requires_identity,
        may_not_store=options.may_not_store,
        maximum_associations=options.max_associations,
        instance_cap=options.instance_cap,
        quota_full=options.quota_full,
        counts=None if options.local is None else partial(_descriptors, options.local),
        memory=None if options.local is None else partial(_resident, options.local),
        stop=None if options.stop is None else partial(os.kill, options.stop, signal.SIGTERM),
        tls_foreign=_context(options.ca, foreign) if foreign else None,
        tls_expired=_context(options.ca, expired) if expired else None,
    )


def _context(ca: Path | None, certificate: Sequence[Path] | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    if certificate is not None:
        file, key = certificate
        context.load_cert_chain(file, key)
    return context


def _descriptors(process: int) -> Counts:
    return {"descriptors": len(list(Path(f"/proc/{process}/fd").iterdir()))}


def _resident(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
