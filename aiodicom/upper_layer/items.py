"""The variable items of the A-ASSOCIATE PDUs and the sub-items of their User Information.

PS3.8 §9.3.2, §9.3.3 and Annex D; PS3.7 Annex D.3.3. Every item is a frozen dataclass with `item_type`, `encode()`
(header included) and `decode()` (of what follows the 4-byte header). A sub-item that this module does not know is kept
as it came, in `UnknownItem`: PS3.8 §9.3.1 has receivers ignore it, not lose it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import ClassVar, Final, Self, TypeAlias

from aiodicom.errors import LocalProtocolError, RemoteProtocolError

INVALID_PARAMETER_VALUE: Final = 6
"""The A-ABORT reason for what cannot be decoded (PS3.8 Table 9-26)."""

MAXIMUM_SUB_ITEMS: Final = 1024
"""More there cannot be in a User Information: three for each of 128 contexts are 384. One of 4 bytes takes 100 in memory."""

_LONGEST_UID: Final = 66  # of those that are kept, with some padding
_HEADER: Final = Struct(">BxH")
_U16: Final = Struct(">H")
_U16_PAIR: Final = Struct(">HH")
_U32: Final = Struct(">I")


class ContextResult(IntEnum):
    """Result/Reason of a presentation context in an A-ASSOCIATE-AC (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


def encode_item(item_type: int, body: bytes) -> bytes:
    """Put the 4-byte item header before `body`.

    Raises:
        LocalProtocolError: the body is longer than 65,535 bytes.
    """
    if len(body) > 0xFFFF:
        raise LocalProtocolError(f"item {item_type:02X}H has {len(body)} bytes, more than its length field can say")
    return _HEADER.pack(item_type, len(body)) + body


def split_items(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the body of each item in `data`.

    Raises:
        RemoteProtocolError: an item's length runs past the end.
    """
    position = 0
    while position < len(data):
        if len(data) - position < 4:
            raise malformed("an item header is cut short")
        item_type, length = _HEADER.unpack_from(data, position)
        position += 4
        if length > len(data) - position:
            raise malformed(f"item {item_type:02X}H says {length} bytes, {len(data) - position} are left")
        yield item_type, data[position : position + length]
        position += length


def malformed(what: str) -> RemoteProtocolError:
    """Return the error for a PDU of the peer that cannot be decoded: an invalid parameter value."""
    return RemoteProtocolError(f"malformed PDU: {what}", reason=INVALID_PARAMETER_VALUE)


def encode_uid(uid: str) -> bytes:
    """Encode a UID as the upper layer does: ASCII, unpadded (PS3.8 Annex F).

    Raises:
        LocalProtocolError: it is empty, longer than 64 characters, or not of digits and dots.
    """
    if not 0 < len(uid) <= 64 or uid.strip("0123456789."):
        raise LocalProtocolError(f"{uid!r} is no UID: at most 64 digits and dots (PS3.5 §9.1)")
    return uid.encode("ascii")


def decode_uid(data: memoryview) -> str:
    """Decode a UID, less the NUL or space that some peers pad it with; any other byte is kept visible, as latin-1."""
    return _short_uid(bytes(data)) if len(data) <= _LONGEST_UID else _uid(bytes(data))


def _uid(data: bytes) -> str:
    return data.decode("latin-1").rstrip("\0 ")


# The same few come with every association, and stay as long as it does. Interned they would, in some versions of Python,
# stay for ever, and so would all that a peer makes up.
_short_uid: Final = lru_cache(maxsize=1024)(_uid)


def _prefixed(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise LocalProtocolError(f"a field of {len(data)} bytes is longer than its 2-byte length can say")
    return _U16.pack(len(data)) + data


def _take_prefixed(data: memoryview, position: int) -> tuple[memoryview, int]:
    """Return the field at `position`, which opens with its 2-byte length, and where the next one begins."""
    if len(data) - position < 2:
        raise malformed("a field's length is cut short")
    (length,) = _U16.unpack_from(data, position)
    start = position + 2
    if length > len(data) - start:
        raise malformed(f"a field says {length} bytes, {len(data) - start} are left")
    return data[start : start + length], start + length


def _unpack(layout: Struct, data: memoryview) -> tuple[int, ...]:
    if len(data) != layout.size:
        raise malformed(f"a sub-item of {len(data)} bytes where {layout.size} belong")
    return layout.unpack(data)


@dataclass(frozen=True, slots=True)
class PresentationContextRQ:
    """A presentation context as proposed (item 20H, PS3.8 §9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    item_type: ClassVar[int] = 0x20

    def encode(self) -> bytes:
        syntaxes = encode_item(0x30, encode_uid(self.abstract_syntax)) + b"".join(
            encode_item(0x40, encode_uid(uid)) for uid in self.transfer_syntaxes
        )
        return encode_item(self.item_type, bytes((self.context_id, 0, 0, 0)) + syntaxes)

    @classmethod
    def decode(cls, data: memoryview) -> PresentationContextRQ:
        context_id, syntaxes = _split_context(data)
        abstract: list[str] = []
        transfer: list[str] = []
        for item_type, body in syntaxes:
            if item_type == 0x30:
                abstract.append(decode_uid(body))
            elif item_type == 0x40:
                transfer.append(decode_uid(body))
        if len(abstract) != 1 or not transfer:
            raise malformed(
                f"presentation context {context_id} has {len(abstract)} abstract and {len(transfer)} transfer syntaxes"
            )
        return cls(context_id, abstract[0], tuple(transfer))


@dataclass(frozen=True, slots=True)
class PresentationContextAC:
    """The answer to one presentation context (item 21H, PS3.8 §9.3.3.2).

    The transfer syntax is significant only where the result is acceptance; elsewhere peers put nothing, or rubbish.
    """

    context_id: int
    result: int
    transfer_syntax: str
    item_type: ClassVar[int] = 0x21

    def encode(self) -> bytes:
        syntax = encode_item(0x40, encode_uid(self.transfer_syntax))
        return encode_item(self.item_type, bytes((self.context_id, 0, self.result, 0)) + syntax)

    @classmethod
    def decode(cls, data: memoryview) -> PresentationContextAC:
        if len(data) < 4:
            raise malformed("a presentation context is cut short")
        context_id, result = data[0], data[2]
        if result != ContextResult.ACCEPTANCE:
            return cls(context_id, result, "")
        transfer = [decode_uid(body) for item_type, body in split_items(data[4:]) if item_type == 0x40]
        if len(transfer) != 1:
            raise malformed(f"accepted presentation context {context_id} has {len(transfer)} transfer syntaxes")
        return cls(context_id, result, transfer[0])


def _split_context(data: memoryview) -> tuple[int, Iterable[tuple[int, memoryview]]]:
    if len(data) < 4:
        raise malformed("a presentation context is cut short")
    if not data[0] & 1:
        raise malformed(f"presentation context ID {data[0]} is not odd (PS3.8 §9.3.2.2)")
    return data[0], split_items(data[4:])


@dataclass(frozen=True, slots=True)
class MaximumLength:
    """How long a variable field of a P-DATA-TF its sender takes, in bytes; 0 is no limit (51H, PS3.8 §D.1)."""

    maximum_length: int
    item_type: ClassVar[int] = 0x51

    def encode(self) -> bytes:
        return encode_item(self.item_type, _U32.pack(self.maximum_length))

    @classmethod
    def decode(cls, data: memoryview) -> MaximumLength:
        return cls(*_unpack(_U32, data))


@dataclass(frozen=True, slots=True)
class ImplementationClassUID:
    """Which implementation speaks (52H, PS3.7 §D.3.3.2)."""

    uid: str
    item_type: ClassVar[int] = 0x52

    def encode(self) -> bytes:
        return encode_item(self.item_type, encode_uid(self.uid))

    @classmethod
    def decode(cls, data: memoryview) -> ImplementationClassUID:
        return cls(decode_uid(data))


@dataclass(frozen=True, slots=True)
class AsynchronousOperationsWindow:
    """How many operations may be outstanding; 0 is no limit (53H, PS3.7 §D.3.3.3).

    In the request and in the answer both fields describe the requestor: what it may invoke, what it may perform.
    """

    maximum_number_operations_invoked: int
    maximum_number_operations_performed: int
    item_type: ClassVar[int] = 0x53

    def encode(self) -> bytes:
        return encode_item(
            self.item_type,
            _U16_PAIR.pack(self.maximum_number_operations_invoked, self.maximum_number_operations_performed),
        )

    @classmethod
    def decode(cls, data: memoryview) -> AsynchronousOperationsWindow:
        return cls(*_unpack(_U16_PAIR, data))


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """Which roles the requestor takes for a SOP class: proposed in the request, accepted in the answer.

    54H, PS3.7 §D.3.3.4.
    """

    sop_class_uid: str
    scu_role: bool
    scp_role: bool
    item_type: ClassVar[int] = 0x54

    def encode(self) -> bytes:
        return encode_item(
            self.item_type, _prefixed(encode_uid(self.sop_class_uid)) + bytes((self.scu_role, self.scp_role))
        )

    @classmethod
    def decode(cls, data: memoryview) -> RoleSelection:
        uid, position = _take_prefixed(data, 0)
        if len(data) - position < 2:
            raise malformed("a role selection is cut short")
        return cls(decode_uid(uid), data[position] == 1, data[position + 1] == 1)


@dataclass(frozen=True, slots=True)
class ImplementationVersionName:
    """The version of the implementation, at most 16 characters (55H, PS3.7 §D.3.3.2)."""

    name: str
    item_type: ClassVar[int] = 0x55

    def encode(self) -> bytes:
        return encode_item(self.item_type, self.name.encode("ascii", "replace")[:16])

    @classmethod
    def decode(cls, data: memoryview) -> ImplementationVersionName:
        return cls(bytes(data).decode("latin-1").strip("\0 "))


@dataclass(frozen=True, slots=True)
class SOPClassExtendedNegotiation:
    """Service-class application information for a SOP class (56H, PS3.7 §D.3.3.5)."""

    sop_class_uid: str
    service_class_application_information: bytes
    item_type: ClassVar[int] = 0x56

    def encode(self) -> bytes:
        return encode_item(
            self.item_type, _prefixed(encode_uid(self.sop_class_uid)) + self.service_class_application_information
        )

    @classmethod
    def decode(cls, data: memoryview) -> SOPClassExtendedNegotiation:
        uid, position = _take_prefixed(data, 0)
        return cls(decode_uid(uid), bytes(data[position:]))


@dataclass(frozen=True, slots=True)
class SOPClassCommonExtendedNegotiation:
    """Which service and which related general SOP classes a SOP class belongs to (57H, PS3.7 §D.3.3.6)."""

    sop_class_uid: str
    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...] = ()
    item_type: ClassVar[int] = 0x57

    def encode(self) -> bytes:
        related = b"".join(_prefixed(encode_uid(uid)) for uid in self.related_general_sop_class_uids)
        return encode_item(
            self.item_type,
            _prefixed(encode_uid(self.sop_class_uid))
            + _prefixed(encode_uid(self.service_class_uid))
            + _prefixed(related),
        )

    @classmethod
    def decode(cls, data: memoryview) -> SOPClassCommonExtendedNegotiation:
        sop_class, position = _take_prefixed(data, 0)
        service_class, position = _take_prefixed(data, position)
        related, _ = _take_prefixed(data, position)
        uids: list[str] = []
        position = 0
        while position < len(related):
            uid, position = _take_prefixed(related, position)
            uids.append(decode_uid(uid))
        return cls(decode_uid(sop_class), decode_uid(service_class), tuple(uids))


def _encoded(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


class IdentityType(IntEnum):
    """What the fields of a user identity hold (PS3.7 Table D.3-14)."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Who asks for the association (58H, PS3.7 §D.3.3.7.1); its fields never show in a `repr`.

    Args:
        identity_type: 1 username, 2 username and passcode, 3 Kerberos ticket, 4 SAML assertion, 5 JSON Web Token.
        primary_field: username (UTF-8), ticket, assertion or token.
        secondary_field: the passcode of type 2; empty elsewhere.
        positive_response_requested: ask the acceptor to confirm with an item 59H.
    """

    identity_type: int
    primary_field: bytes = field(repr=False)
    secondary_field: bytes = field(default=b"", repr=False)
    positive_response_requested: bool = False
    item_type: ClassVar[int] = 0x58

    @classmethod
    def of_user(cls, username: str, passcode: str | bytes | None = None, *, confirm: bool = False) -> Self:
        """Return a username, with a passcode if there is one; `confirm` asks the acceptor to confirm it."""
        if passcode is None:
            return cls(IdentityType.USERNAME, username.encode(), b"", confirm)
        return cls(IdentityType.USERNAME_AND_PASSCODE, username.encode(), _encoded(passcode), confirm)

    @classmethod
    def of_kerberos(cls, ticket: bytes, *, confirm: bool = False) -> Self:
        """Return a Kerberos service ticket (RFC 4120)."""
        return cls(IdentityType.KERBEROS, ticket, b"", confirm)

    @classmethod
    def of_saml(cls, assertion: str | bytes, *, confirm: bool = False) -> Self:
        """Return a SAML assertion, in XML."""
        return cls(IdentityType.SAML, _encoded(assertion), b"", confirm)

    @classmethod
    def of_jwt(cls, token: str | bytes, *, confirm: bool = False) -> Self:
        """Return a JSON Web Token (RFC 7519)."""
        return cls(IdentityType.JWT, _encoded(token), b"", confirm)

    @property
    def username(self) -> str | None:
        """The username of types 1 and 2; None with the others, and where it is not in UTF-8."""
        if self.identity_type not in (IdentityType.USERNAME, IdentityType.USERNAME_AND_PASSCODE):
            return None
        try:
            return self.primary_field.decode()
        except UnicodeDecodeError:
            return None

    def has_passcode(self, expected: str | bytes | None) -> bool:
        """Return whether it has that passcode, in a time that does not tell how much of it is right.

        Args:
            expected: None where there is no such user: nobody has that, and it takes as long.
        """
        known = self.secondary_field if expected is None else _encoded(expected)
        is_same = hmac.compare_digest(self.secondary_field, known)
        return is_same and expected is not None and self.identity_type == IdentityType.USERNAME_AND_PASSCODE

    def encode(self) -> bytes:
        return encode_item(
            self.item_type,
            bytes((self.identity_type, self.positive_response_requested))
            + _prefixed(self.primary_field)
            + _prefixed(self.secondary_field),
        )

    @classmethod
    def decode(cls, data: memoryview) -> UserIdentity:
        if len(data) < 2:
            raise malformed("a user identity is cut short")
        primary, position = _take_prefixed(data, 2)
        secondary, _ = _take_prefixed(data, position)
        return cls(data[0], bytes(primary), bytes(secondary), data[1] == 1)


@dataclass(frozen=True, slots=True)
class UserIdentityResponse:
    """The acceptor's confirmation of a user identity, with its ticket or assertion (59H, PS3.7 §D.3.3.7.2)."""

    server_response: bytes = field(default=b"", repr=False)
    item_type: ClassVar[int] = 0x59

    def encode(self) -> bytes:
        return encode_item(self.item_type, _prefixed(self.server_response))

    @classmethod
    def decode(cls, data: memoryview) -> UserIdentityResponse:
        response, _ = _take_prefixed(data, 0)
        return cls(bytes(response))


@dataclass(frozen=True, slots=True)
class UnknownItem:
    """A user-information sub-item of a type this module does not know, as it came."""

    item_type: int
    data: bytes

    def encode(self) -> bytes:
        return encode_item(self.item_type, self.data)


KnownItem: TypeAlias = (
    MaximumLength
    | ImplementationClassUID
    | AsynchronousOperationsWindow
    | RoleSelection
    | ImplementationVersionName
    | SOPClassExtendedNegotiation
    | SOPClassCommonExtendedNegotiation
    | UserIdentity
    | UserIdentityResponse
)
UserInformationItem: TypeAlias = KnownItem | UnknownItem

_KNOWN_ITEMS: Final[dict[int, type[KnownItem]]] = {
    item.item_type: item
    for item in (
        MaximumLength,
        ImplementationClassUID,
        AsynchronousOperationsWindow,
        RoleSelection,
        ImplementationVersionName,
        SOPClassExtendedNegotiation,
        SOPClassCommonExtendedNegotiation,
        UserIdentity,
        UserIdentityResponse,
    )
}


def decode_user_information(data: memoryview) -> tuple[UserInformationItem, ...]:
    """Decode the sub-items of a User Information item (50H).

    Raises:
        RemoteProtocolError: a sub-item is malformed, or there are more than anybody needs.
    """
    items: list[UserInformationItem] = []
    for item_type, body in split_items(data):
        if len(items) == MAXIMUM_SUB_ITEMS:
            raise malformed(f"more than {MAXIMUM_SUB_ITEMS} sub-items of the user information")
        known = _KNOWN_ITEMS.get(item_type)
        items.append(known.decode(body) if known else UnknownItem(item_type, bytes(body)))
    return tuple(items)
