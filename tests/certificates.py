"""Certificates in files, made when they are first asked for: good ones, an expired one, and those of a foreign authority."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import trustme

from aiodicom import Credentials


@dataclass(frozen=True)
class Pair:
    """A certificate, with those up to its authority, and its key."""

    certificate: Path
    key: Path

    def copy_from(self, other: Pair) -> None:
        """Become that one, first the certificate."""
        self.certificate.write_bytes(other.certificate.read_bytes())
        self.key.write_bytes(other.key.read_bytes())


class Certificates:
    """A folder with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authorities = {"ours": trustme.CA(), "foreign": trustme.CA()}

    def authority(self, name: str = "ours") -> Path:
        path = self.folder / f"{name}-authority.pem"
        if not path.exists():
            self._authorities[name].cert_pem.write_to_path(path)
        return path

    def issue(self, name: str, *names: str, by: str = "ours", not_after: datetime | None = None) -> Pair:
        """A new pair of that name, for those hosts."""
        leaf = self._authorities[by].issue_cert(*(names or ("127.0.0.1", "localhost")), not_after=not_after)
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        pair.certificate.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(pair.key)
        return pair

    @cached_property
    def server(self) -> Pair:
        return self.issue("server")

    @cached_property
    def client(self) -> Pair:
        return self.issue("client", "modality.example")

    @cached_property
    def expired(self) -> Pair:
        return self.issue("expired", not_after=datetime(2020, 1, 2, tzinfo=UTC))

    @cached_property
    def foreign(self) -> Pair:
        return self.issue("foreign", by="foreign")

    def credentials(self, pair: Pair | None = None, **options: object) -> Credentials:
        """Credentials with that pair, which believe our authority, unless told otherwise."""
        certificate, key = (None, None) if pair is None else (pair.certificate, pair.key)
        return Credentials(certificate, key, **{"authorities": self.authority(), **options})  # type: ignore[arg-type]
