"""The options of DICOM over TLS (PS3.15 Annex B), DCMTK's among them, and the credentials that they come to."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiodicom.cli.configuration import known_credentials
from aiodicom.cli.peer import PeerAddress
from aiodicom.tls import DEFAULT_PROFILE, PROFILES, VERIFY, Credentials

# DCMTK's words for what it verifies: -rc, -vc, -ic.
_VERIFY_OPTIONS = (
    (("-rc", "--require-peer-cert"), "required"),
    (("-vc", "--verify-peer-cert"), "optional"),
    (("-ic", "--ignore-peer-cert"), "none"),
)
_PROFILE_OPTIONS = ((("+pg", "--profile-8996"), "bcp195"), (("+pm", "--profile-8996-mod"), "bcp195-modified"))


def add_tls(parser: ArgumentParser) -> None:
    """Add `--tls…`, and what DCMTK has for it."""
    group = parser.add_argument_group(
        "TLS", "Each but the first two switches TLS on; what is not said stands in [tls] of aiodicom.toml."
    )
    group.add_argument(
        *("--tls", "+tla", "--anonymous-tls"),
        dest="tls",
        action="store_true",
        default=None,
        help="speak TLS, with the certificate of aiodicom.toml, or none",
    )
    group.add_argument(
        "-tls", "--disable-tls", dest="tls", action="store_false", help="speak none, whatever a node says"
    )
    group.add_argument(
        *("+tls", "--enable-tls"), dest="tls_pair", nargs=2, metavar=("KEY", "CERT"), type=Path, help="as DCMTK has it"
    )
    group.add_argument(
        "--tls-cert", metavar="FILE", type=Path, help="our certificate, and those up to its authority, in PEM"
    )
    group.add_argument("--tls-key", metavar="FILE", type=Path, help="its private key, in PEM (in the same file)")
    group.add_argument(
        *("--tls-ca", "+cf", "--add-cert-file", "+cd", "--add-cert-dir"),
        dest="tls_ca",
        metavar="FILE",
        type=Path,
        action="append",
        help="whom we believe: an authority's certificate, or a folder; more than once (those of the system)",
    )
    group.add_argument(
        "--tls-profile", choices=tuple(PROFILES), help=f"the profile of PS3.15 Annex B ({DEFAULT_PROFILE})"
    )
    group.add_argument("--tls-verify", choices=VERIFY, help="whether the peer must show a good certificate (required)")
    group.add_argument(
        "--tls-no-host-check",
        dest="tls_check_host",
        action="store_false",
        default=None,
        help="the certificate of a server may be for another host",
    )
    for dest, options in (("tls_verify", _VERIFY_OPTIONS), ("tls_profile", _PROFILE_OPTIONS)):
        for words, value in options:
            said = f"--{dest.replace('_', '-')} {value}"
            group.add_argument(*words, dest=dest, action="store_const", const=value, help=said)


def wants_tls(options: Namespace) -> bool:
    """Return whether the options ask for TLS."""
    if options.tls is not None:
        return bool(options.tls)
    given = ("tls_pair", "tls_cert", "tls_key", "tls_ca", "tls_profile", "tls_verify", "tls_check_host")
    return any(getattr(options, name) is not None for name in given)


def credentials_of(options: Namespace) -> Credentials:
    """Return those of the options; what they do not say stands in `aiodicom.toml`.

    Raises:
        LocalProtocolError: they are no credentials, or the file is wrong.
    """
    said: dict[str, Any] = {
        "profile": options.tls_profile,
        "verify": options.tls_verify,
        "check_host": options.tls_check_host,
        "authorities": options.tls_ca,
    }
    said = {name: value for name, value in said.items() if value is not None}
    if options.tls_pair is not None:
        said["key"], said["certificate"] = options.tls_pair
    elif options.tls_cert is not None or options.tls_key is not None:
        said["certificate"], said["key"] = options.tls_cert, options.tls_key
    return replace(known_credentials(options.config), **said)


def credentials_for(options: Namespace, peer: PeerAddress) -> Credentials | None:
    """Return with which credentials to call a peer; None is without TLS. Their files are read.

    Raises:
        LocalProtocolError: see `credentials_of`; or a file is wrong.
    """
    if not (wants_tls(options) or (options.tls is None and peer.tls)):
        return None
    credentials = credentials_of(options)
    if not peer.tls_host_check:
        credentials = credentials.without_host_check()
    credentials.client_context()
    return credentials
