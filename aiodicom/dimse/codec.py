"""A command set's bytes ⇄ the dataclasses of `commands` (PS3.7 §6.3.1): Implicit VR Little Endian, group 0000 only.

Sending is strict. Receiving takes what cannot be misunderstood: any order, a wrong or missing group length, elements
that the command does not have, of whatever group, padding with spaces or NULs, odd lengths. A mandatory UID, AE title
or type ID that is missing becomes "" or 0, of the type that the field promises, so that the request is answered with
the status that its service has for such a value and the association goes on. What leaves unclear which message it is,
or which request it belongs to, is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import MISSING
from operator import attrgetter
from typing import Any, Final, NamedTuple

from aiodicom.dimse.commands import (
    COMMANDS,
    ELEMENTS,
    MAXIMUM_UID_LENGTH,
    RESPONSE_BIT,
    Command,
    UnrecognizedRQ,
    UnrecognizedRSP,
)
from aiodicom.dimse.status import Status
from aiodicom.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["decode_command", "encode_command"]

# Text: bytes at most (PS3.5 §6.2), and what makes the length even.
_LIMITS: Final = {"UI": MAXIMUM_UID_LENGTH, "AE": 16, "LO": 64}
_PADDING: Final = {"UI": b"\0", "AE": b" ", "LO": b" "}

# LO is one line of the default repertoire, and a backslash in it would begin a second value.
_COMMENT_CHARACTERS: Final = {**dict.fromkeys((*range(0x20), 0x7F), " "), ord("\\"): "/"}

_pack_us: Final = struct.Struct("<H").pack
_pack_group_length: Final = struct.Struct("<HHII").pack
# Tag, length, and the value as if it were US: one call reads a whole element of the commonest kind.
_unpack_element: Final = struct.Struct("<IIH").unpack_from


def _on_wire(tag: int) -> int:
    # A tag as its 4 bytes read as one little-endian number: the group comes first.
    return (tag & 0xFFFF) << 16 | tag >> 16


_TAGS: Final = {name: _on_wire(element.tag) for name, element in ELEMENTS.items()}
_NAMES: Final = {tag: name for name, tag in _TAGS.items()}
# Without the group length (UL): it says nothing that the end of the bytes does not say.
_VRS: Final = {_TAGS[name]: element.vr for name, element in ELEMENTS.items() if element.vr != "UL"}
_GROUP_LENGTH: Final = struct.pack("<II", _TAGS["command_group_length"], 4)
_COMMAND_FIELD: Final = _TAGS["command_field"]
_DATA_SET_TYPE: Final = _TAGS["command_data_set_type"]
_STATUS: Final = _TAGS["status"]
# Command Data Set Type: this value says that there is none, any other that there is one (PS3.7 Table E.1-1).
_NO_DATA_SET: Final = 0x0101
_DATA_SET_TYPES: Final = {
    has_data_set: struct.pack("<IIH", _DATA_SET_TYPE, 2, value)
    for has_data_set, value in ((False, _NO_DATA_SET), (True, 1))
}
# Without these nobody knows what is being answered, or how.
_INDISPENSABLE: Final = ("message_id", "message_id_being_responded_to", "status")


class _Row(NamedTuple):
    # How a field is encoded: what comes before a value of n bytes is heads[n], tag and even length.
    name: str
    vr: str
    tag: bytes
    heads: tuple[bytes, ...]
    padding: bytes


class _Slot(NamedTuple):
    # How a field is decoded: which slot takes the value of which element, and what it takes where there is none.
    set_value: Callable[[Command, object], None]
    tag: int
    default: object


class _Plan(NamedTuple):
    # All that is known of a command class before there is a command.
    command_class: type[Command]
    values: Callable[[Command], tuple[Any, ...]]
    rows: tuple[_Row, ...]
    data_set_type_at: int
    mandatory: frozenset[str]
    slots: tuple[_Slot, ...]
    indispensable: tuple[int, ...]


def _row(name: str) -> _Row:
    vr = ELEMENTS[name].vr
    tag = struct.pack("<I", _TAGS[name])
    lengths = range(_LIMITS.get(vr, 2) + 1)
    return _Row(name, vr, tag, tuple(tag + struct.pack("<I", n + n % 2) for n in lengths), _PADDING.get(vr, b""))


def _plan(command_class: type[Command]) -> _Plan:
    defaults = {each.name: each.default for each in command_class.__dataclass_fields__.values()}
    mandatory = frozenset(name for name, default in defaults.items() if default is MISSING)
    names = sorted({*defaults, "command_field"}, key=lambda name: ELEMENTS[name].tag)
    return _Plan(
        command_class,
        attrgetter(*names),
        tuple(_row(name) for name in names),
        sum(ELEMENTS[name].tag < ELEMENTS["command_data_set_type"].tag for name in names),
        mandatory,
        tuple(
            _Slot(getattr(command_class, name).__set__, _TAGS[name], _received_default(name, default))
            for name, default in defaults.items()
        ),
        tuple(_TAGS[name] for name in _INDISPENSABLE if name in defaults),
    )


def _received_default(name: str, default: object) -> object:
    if default is not MISSING:
        return default
    return "" if ELEMENTS[name].vr in _LIMITS else 0


_PLANS: Final = {each: _plan(each) for each in (*COMMANDS.values(), UnrecognizedRQ, UnrecognizedRSP)}
_PLANS_BY_FIELD: Final = {field: _PLANS[each] for field, each in COMMANDS.items()}


def encode_command(command: Command, *, has_data_set: bool) -> bytes:
    """Encode a command set: Implicit VR Little Endian, ascending tags, with its group length (PS3.7 §6.3.1).

    Error Comment is made to fit: cut to 64 characters, and what is outside of the default repertoire replaced. So a
    failure is reported whatever its text is.

    Args:
        command: any of `commands`; an `UnrecognizedRSP` too.
        has_data_set: whether a data set follows, which Command Data Set Type (0000,0800) says.

    Raises:
        LocalProtocolError: a field cannot be encoded: a number beyond 65535; a UID of more than 64 or an AE title of
            more than 16 characters, an empty one, one with other characters than ASCII; a mandatory field that is None.
    """
    plan = _PLANS[type(command)]
    elements: list[bytes] = []
    append = elements.append
    name = ""
    try:
        for (name, vr, tag, heads, padding), value in zip(plan.rows, plan.values(command), strict=True):
            if value is None:
                if name in plan.mandatory:
                    raise _unencodable(command, name, "it is mandatory")
                append(b"")
            elif vr == "US":
                append(heads[2] + _pack_us(value))
            elif vr == "AT":
                append(_encode_tags(tag, value))
            else:
                raw = _encode_comment(value) if vr == "LO" else value.encode("ascii")
                size = len(raw)
                if 0 < size < len(heads):
                    append(heads[size] + raw + padding if size & 1 else heads[size] + raw)
                elif vr != "LO":
                    raise _unencodable(command, name, f"it has {size} characters, not 1 to {_LIMITS[vr]}")
    except UnicodeEncodeError:
        raise _unencodable(command, name, "it has other characters than ASCII") from None
    except struct.error:
        raise _unencodable(command, name, "it is no number from 0 to 65535, or no list of tags") from None
    elements.insert(plan.data_set_type_at, _DATA_SET_TYPES[has_data_set])
    body = b"".join(elements)
    return _pack_group_length(0, 0, 4, len(body)) + body


def _encode_tags(tag: bytes, attributes: Collection[int]) -> bytes:
    if not attributes:
        return b""
    halves = [half for attribute in attributes for half in (attribute >> 16, attribute & 0xFFFF)]
    return tag + struct.pack(f"<I{len(halves)}H", 2 * len(halves), *halves)


def _encode_comment(comment: str) -> bytes:
    return comment[: _LIMITS["LO"]].translate(_COMMENT_CHARACTERS).encode("ascii", "replace")


def _unencodable(command: Command, name: str, why: str) -> LocalProtocolError:
    return LocalProtocolError(f"{name} of a {type(command).__name__} cannot be sent: {why}")


def decode_command(data: bytes | bytearray | memoryview) -> tuple[Command, bool]:
    """Decode a complete command set; return the command, and whether a data set follows it (PS3.7 §6.3.1).

    A request with a Command Field that PS3.7 does not know becomes an `UnrecognizedRQ`, to be responded to.

    Raises:
        RemoteProtocolError: an element is truncated, doubled, or has a length that its value representation cannot have;
            a UID has other characters than ASCII; Command Field, Command Data Set Type,
            Message ID, Message ID Being Responded To or Status is missing; the Command Field is that of an unknown
            response. Its source is 0, DIMSE's user.
    """
    values = _decode_elements(data)
    command_field = values.get(_COMMAND_FIELD)
    data_set_type = values.get(_DATA_SET_TYPE)
    if command_field is None or data_set_type is None:
        raise _malformed(f"no {_NAMES[_DATA_SET_TYPE if command_field is not None else _COMMAND_FIELD]}")
    plan = _PLANS_BY_FIELD.get(command_field)
    if plan is None:
        if command_field & RESPONSE_BIT:
            raise _malformed(f"a response of unknown command field 0x{command_field:04X}")
        plan = _PLANS[UnrecognizedRQ]
    for tag in plan.indispensable:
        if tag not in values:
            raise _malformed(f"a {plan.command_class.__name__} without {_NAMES[tag]}")
    if _STATUS in values:
        values[_STATUS] = Status(values[_STATUS])
    # What a frozen dataclass's own __init__ does, in half of its time.
    command = object.__new__(plan.command_class)
    for set_value, tag, default in plan.slots:
        set_value(command, values.get(tag, default))
    return command, data_set_type != _NO_DATA_SET


def _decode_elements(data: bytes | bytearray | memoryview) -> dict[int, Any]:
    # The values of the known elements by tag; an element without a value counts as absent.
    size = len(data)
    octets = bytes(data) + b"\0\0"  # so that the last element, too, can be read as if it were US
    offset = 12 if octets.startswith(_GROUP_LENGTH) else 0
    values: dict[int, Any] = {}
    vr_of = _VRS.get
    try:
        while offset < size:
            tag, length, number = _unpack_element(octets, offset)
            offset += 8
            vr = vr_of(tag)
            if tag in values:
                raise _malformed(f"{_called(tag)} is there twice")
            if vr == "US":
                if length == 2:
                    values[tag] = number
                elif length:
                    raise _malformed(f"{_called(tag)} has {length} bytes instead of 2")
            elif vr is None:
                pass  # one that no command of ours has; Orthanc sends elements of other groups with its failures, too
            elif vr == "AT":
                if tags := _decode_tags(octets[offset : offset + length]):
                    values[tag] = tags
            elif text := octets[offset : offset + length].decode("latin-1").strip("\0 "):
                if vr == "UI" and not text.isascii():
                    raise _malformed(f"{_called(tag)} has other characters than ASCII")
                values[tag] = text
            offset += length
    except struct.error:
        raise _malformed("it ends inside an element, or a list of tags ends inside a tag") from None
    if offset != size:
        raise _malformed("its last element goes beyond its end")
    return values


def _decode_tags(value: bytes) -> tuple[int, ...]:
    return tuple(group << 16 | element for group, element in struct.iter_unpack("<HH", value))


def _called(tag: int) -> str:
    return f"({tag & 0xFFFF:04X},{tag >> 16:04X})"


def _malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"malformed command set: {what}", source=0, reason=0)
