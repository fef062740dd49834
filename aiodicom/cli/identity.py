"""Who the user is that a command asks for (PS3.7 §D.3.3.7), in DCMTK's spelling; secrets best come from files."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiodicom.association import Association, Observer
from aiodicom.upper_layer.items import UserIdentity

_log: Final = logging.getLogger("aiodicom.identity")

_TOKENS: Final[Mapping[str, Callable[[bytes], UserIdentity]]] = {
    "kerberos": UserIdentity.of_kerberos,
    "saml": UserIdentity.of_saml,
    "jwt": UserIdentity.of_jwt,
}


def add_identity(parser: ArgumentParser) -> None:
    """Add the options from which `identity_of` makes a user identity."""
    group = parser.add_argument_group("user identity")
    who = group.add_mutually_exclusive_group()
    who.add_argument("-usr", "--user", metavar="NAME", help="our username")
    who.add_argument("-kt", "--kerberos", metavar="FILE", type=Path, help="a Kerberos ticket from a file")
    who.add_argument("--saml", metavar="FILE", type=Path, help="a SAML assertion from a file")
    who.add_argument("--jwt", metavar="FILE", type=Path, help="a JSON Web Token from a file")
    who.add_argument("--jwt-env", metavar="NAME", help="the same from a variable of the environment")
    passcode = group.add_mutually_exclusive_group()
    passcode.add_argument("--password-file", metavar="FILE", type=Path, help="its passcode from a file")
    passcode.add_argument("--password-env", metavar="NAME", help="the same from a variable of the environment")
    passcode.add_argument("-pwd", "--password", metavar="WORD", help="the same, for other users of this machine to see")
    passcode.add_argument("-epw", "--empty-password", action="store_true", help="send an empty passcode")
    group.add_argument("-rsp", "--pos-response", action="store_true", help="say so where the peer does not confirm it")
    group.add_argument("--allow-plain-passcode", action="store_true", help="let the passcode go out without TLS")


def identity_of(options: Namespace) -> UserIdentity | None:
    """Return who the user is, None where the options do not say; what is secret in the options is forgotten.

    Raises:
        ValueError: the options do not fit together, or a file or a variable cannot be read; the message says which.
    """
    passcode = _passcode(options)
    identity = _identity(options, passcode)
    options.password = None
    if identity is None:
        if options.pos_response:
            raise ValueError("-rsp, --pos-response belongs to a user identity: --user, --kerberos, --saml or --jwt")
        return None
    return replace(identity, positive_response_requested=options.pos_response)


def _identity(options: Namespace, passcode: bytes | None) -> UserIdentity | None:
    if options.user is not None:
        return UserIdentity.of_user(options.user, passcode)
    if passcode is not None:
        raise ValueError("a passcode belongs to a user: say who by --user NAME")
    if options.jwt_env is not None:
        return UserIdentity.of_jwt(_of_variable(options.jwt_env))
    for name, of_token in _TOKENS.items():
        if (path := getattr(options, name)) is not None:
            token = _of_file(path)
            return of_token(token.strip() if name == "jwt" else token)
    return None


def _passcode(options: Namespace) -> bytes | None:
    if options.password_file is not None:
        return _of_file(options.password_file).removesuffix(b"\n").removesuffix(b"\r")
    if options.password_env is not None:
        return _of_variable(options.password_env)
    if options.empty_password:
        return b""
    return None if options.password is None else os.fsencode(options.password)


def _of_file(path: Path) -> bytes:
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(secret) > 0xFFFF:
        raise ValueError(f"{path}: is no identity: it has {len(secret):,} bytes, and 65,535 can be said")
    return secret


def _of_variable(name: str) -> bytes:
    if not (secret := os.environ.get(name)):
        raise ValueError(f"there is no variable {name} in the environment, or nothing in it")
    return os.fsencode(secret)


class ConfirmationWanted(Observer):
    """Says so where a peer takes an association, but does not confirm the identity that came with it."""

    def association_opened(self, association: Association) -> None:
        """Look for the confirmation."""
        if association.terms.identity_response is None:
            _log.warning("%s did not confirm our user identity: it may not have looked at it", association.peer)
