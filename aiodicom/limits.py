"""Every limit there is, with its default: how long each wait may take, how many may come in, how much is taken of them.

A limit has one name in Python (`Limits(idle=120)`), in `aiodicom.toml` (`[limits]`, `idle = 120`) and on the command line
(`aiodicom serve --idle 120`). `examples/limits.md` is made of what stands here, by `table()`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, Final

from aiodicom.errors import LocalProtocolError

__all__ = ["Limits", "Timeouts", "limits_from", "limits_of", "parse_limit", "table"]

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

SILENT_CONNECTIONS: Final = 896
"""How many connections there may be besides those that are associations, where only the latter are given: they have not
spoken yet."""

_NONE: Final = "none"
_UNITS: Final = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?(?:([KMGT]?)(?:i?B)?)", re.IGNORECASE)


def _limit(default: Any, words: str, *, unit: str, zero: str = "", per_node: bool = False) -> Any:  # noqa: ANN401
    """Return a field; `zero` says what 0 means, if it may be 0."""
    return field(default=default, metadata={"unit": unit, "words": words, "zero": zero, "per_node": per_node})


_seconds: Final = partial(_limit, unit="s")
_bytes: Final = partial(_limit, unit="bytes")
_number: Final = partial(_limit, unit="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each wait may take, in seconds; None is for ever. What each is about stands in `examples/limits.md`.

    Raises:
        LocalProtocolError: one of them is none.
    """

    connect: float = _seconds(10, "for a transport connection of ours, name and TLS included")
    handshake: float = _seconds(10, "for the TLS handshake of a peer that connects")
    artim: float = _seconds(10, "for a peer's complete A-ASSOCIATE-RQ, from its connection on (PS3.8 §9.1.5, Sta2)")
    decision: float = _seconds(10, "for a handler to decide about an association; beyond that: temporary congestion")
    associate: float = _seconds(15, "for the answer to our A-ASSOCIATE-RQ")
    response: float | None = _seconds(30, "for the response to a request of ours that has but one")
    pending: float | None = _seconds(300, "for the next response to a C-FIND, C-GET or C-MOVE of ours")
    cancel: float = _seconds(5, "for the end of an operation after our C-CANCEL")
    send: float = _seconds(30, "for the peer to take anything of what we write")
    stall: float = _seconds(30, "for the next bytes of a PDU or a message that has begun")
    idle: float | None = _seconds(
        60, "for the next message of the peer, where nothing is being performed for it", per_node=True
    )
    release: float = _seconds(5, "for the answer to our A-RELEASE-RQ")
    close: float = _seconds(5, "for the peer to close the connection, once the association is over (Sta13)")

    def __post_init__(self) -> None:
        for each in fields(self):
            _check(each, getattr(self, each.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Timeouts):
    """What a server, an archive or a requestor allows; None is no limit. What each is about stands in `examples/limits.md`.

    Raises:
        LocalProtocolError: one of them is none.
    """

    stop: float = _seconds(10, "for operations to end once the server is to stop", zero="aborts them")
    minimum_rate: int = _limit(
        4 * KIB,
        "how slow a peer may send while a PDU or a message is open",
        unit="bytes/s",
        zero="is any",
        per_node=True,
    )
    rate_period: float = _seconds(30, "over which that is measured")
    maximum_connections: int = _number(
        1024, "transport connections, those included that have not spoken yet; at first associations + 896"
    )
    maximum_associations: int = _number(128, "associations that are established", zero="admits nobody")
    maximum_connections_per_address: int = _number(64, "connections from one address")
    maximum_associations_per_address: int = _number(32, "associations with one address")
    bulk: bool = _number(False, "allow one address as many connections and associations as all of them together")
    maximum_operations: int = _number(
        16, "operations that a requestor may have outstanding, where it asks for more than one", zero="is no limit"
    )
    maximum_length: int = _bytes(MIB, "variable field of a P-DATA-TF: announced and enforced", zero="is no limit")
    maximum_associate_pdu: int = _bytes(256 * KIB, "A-ASSOCIATE-RQ or -AC: 128 contexts of 45 transfer syntaxes")
    maximum_tiny_pdvs: int = _number(1024, "fragments in a row that are shorter than 64 bytes and not the last")
    maximum_command_set: int = _bytes(64 * KIB, "command set")
    maximum_identifier: int = _bytes(MIB, "identifier, or data set of a response, inflated")
    maximum_identifier_elements: int = _number(10_000, "elements and items of an identifier, in its sequences, too")
    maximum_uids: int = _number(10_000, "values of a list of UIDs in an identifier")
    maximum_buffered: int = _bytes(MIB, "data sets that came and were not taken, per association: then reading stops")
    maximum_buffered_in_all: int = _bytes(
        256 * MIB, "the same of all associations: then reading stops, and new ones are rejected as transient"
    )
    maximum_instance: int | None = _bytes(None, "data set of an instance that is stored", per_node=True)
    maximum_depth: int = _number(64, "sequences in one another")
    maximum_elements: int = _number(100_000, "elements and items of an instance before its pixel data")
    maximum_header: int = _bytes(16 * MIB, "data set of an instance before its pixel data, inflated")
    maximum_archive: int | None = _bytes(
        None, "all instances of an archive: what exceeds it is refused, none is removed"
    )
    minimum_free: int = _bytes(GIB, "free on the disk, or else nothing is received", zero="is no floor")
    minimum_free_share: float = _limit(
        5, "the same as a share of the disk; the larger one holds", unit="%", zero="is none"
    )

    @property
    def connections_per_address(self) -> int:
        """How many connections one address may have."""
        return self.maximum_connections if self.bulk else self.maximum_connections_per_address

    @property
    def associations_per_address(self) -> int:
        """How many associations one address may have."""
        return self.maximum_associations if self.bulk else self.maximum_associations_per_address

    def changed(self, **changes: Any) -> Limits:  # noqa: ANN401 - one of the fields
        """Return them with other values.

        With other `maximum_associations` there are that many more or fewer connections, unless those are given, too.

        Raises:
            LocalProtocolError: one of them is none.
        """
        if "maximum_associations" in changes:
            changes.setdefault("maximum_connections", changes["maximum_associations"] + SILENT_CONNECTIONS)
        return replace(self, **changes)


def limits_of(timeouts: Timeouts) -> Limits:
    """Return the limits with these timeouts; `Limits` are what they are."""
    return timeouts if isinstance(timeouts, Limits) else Limits(**asdict(timeouts))


def per_node() -> tuple[str, ...]:
    """Return the names of those that a node may have a value of its own for."""
    return tuple(each.name for each in fields(Limits) if each.metadata["per_node"])


def limits_from(table: Mapping[str, object]) -> dict[str, Any]:
    """Return the limits that stand in a table `[limits]`, by name: numbers, true and false, "16 MiB", "none".

    Raises:
        LocalProtocolError: a key is none of them, or a value none of that key; the message begins with the key.
    """
    known = {each.name: each for each in fields(Limits)}
    limits: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            raise LocalProtocolError(f"{name}: is no limit; they are {', '.join(known)}")
        limits[name] = _read(known[name], value) if isinstance(value, str) else value
        _check(known[name], limits[name])
    return limits


def parse_limit(name: str, text: str) -> Any:  # noqa: ANN401 - whatever that limit is
    """Return the value of a limit that is written in a command line or a configuration.

    Raises:
        LocalProtocolError: it is none of that limit.
    """
    return limits_from({name: text})[name]


def _read(limit: Field[Any], text: str) -> object:
    if limit.type == "bool":
        return {"true": True, "false": False}.get(text, text)
    if text == _NONE:
        return None
    if limit.metadata["unit"].startswith("bytes") and (size := _SIZE.fullmatch(text)):
        return int(float(size[1]) * _UNITS[(size[2] or "").upper()])
    try:
        return float(text) if str(limit.type).startswith("float") else int(text)
    except ValueError:
        return text


def _check(limit: Field[Any], value: object) -> None:
    """Raise unless that may be its value."""
    kind = str(limit.type)
    if value is None and kind.endswith("None"):
        return
    if kind == "bool":
        fits = isinstance(value, bool)
    else:
        numbers = (int, float) if kind.startswith("float") else int
        fits = isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
        fits = fits and (value > 0 or (value == 0 and bool(limit.metadata["zero"])))  # type: ignore[operator]
    if not fits:
        raise LocalProtocolError(f"{limit.name}: {value!r} is none: {_wanted(limit)}")


def _wanted(limit: Field[Any]) -> str:
    """Return in words what its value may be."""
    kind, unit, zero = str(limit.type), limit.metadata["unit"], limit.metadata["zero"]
    if kind == "bool":
        return "true or false"
    what = "a number" if kind.startswith("float") else "a whole number"
    least = f"0 ({zero}) or more" if zero else "more than 0"
    examples = ', or as in "16 MiB"' if unit.startswith("bytes") else ""
    return f"{what}{f' in {unit}' if unit else ''}, {least}{examples}{', or none' if kind.endswith('None') else ''}"


def described() -> Iterator[tuple[str, str, str, str]]:
    """Yield each limit: its name, its unit, its default with that, in words what it is about."""
    for each in fields(Limits):
        zero = f"; 0 {each.metadata['zero']}" if each.metadata["zero"] else ""
        own = "; a node may have its own" if each.metadata["per_node"] else ""
        yield each.name, each.metadata["unit"], _shown(each), f"{each.metadata['words']}{zero}{own}"


def _shown(limit: Field[Any]) -> str:
    value: Any = limit.default
    unit = limit.metadata["unit"]
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if unit.startswith("bytes"):
        for words, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
            if value and value % size == 0:
                return f"{value // size} {words}{unit.removeprefix('bytes')}"
    return f"{value:,} {unit}".rstrip()


def table() -> str:
    """Return all limits as a table of Markdown."""
    rows = (f"| `{name}` | {default} | {words} |\n" for name, _, default, words in described())
    return "| limit | default | what it is about |\n|---|---|---|\n" + "".join(rows)


DEFAULT_LIMITS: Final = Limits()
