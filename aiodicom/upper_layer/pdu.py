"""The seven PDUs of PS3.8 §9.3 and the presentation data value (PDV) of PS3.8 Annex E, as frozen dataclasses.

`encode()` gives the bytes of a PDU; `PDUReader` turns a stream of bytes, cut anywhere, into PDUs and PDVs. Of a
P-DATA-TF it does not wait for the end: the part of a PDV that has come is handed on as a PDV of its own, which PS3.8
Annex E allows (a message may be cut into fragments anywhere), so that memory does not grow with the PDU.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from struct import Struct
from typing import ClassVar, Final, NamedTuple, TypeAlias

from aiodicom.errors import LocalProtocolError, RemoteProtocolError
from aiodicom.limits import DEFAULT_LIMITS, Limits
from aiodicom.uids import APPLICATION_CONTEXT_NAME
from aiodicom.upper_layer.items import (
    PresentationContextAC,
    PresentationContextRQ,
    UserInformationItem,
    decode_uid,
    decode_user_information,
    encode_item,
    encode_uid,
    malformed,
    split_items,
)

UNRECOGNIZED_PDU: Final = 1
"""The A-ABORT reason for a PDU type that does not exist (PS3.8 Table 9-26)."""

MAXIMUM_ASSOCIATE_LENGTH: Final = DEFAULT_LIMITS.maximum_associate_pdu
"""No A-ASSOCIATE-RQ or -AC needs more: 128 contexts of 45 transfer syntaxes each are 158 KB."""

MAXIMUM_ITEMS: Final = 256
"""How many variable items an A-ASSOCIATE PDU may have: 128 presentation contexts and two others are all that there are."""

MAXIMUM_TRANSFER_SYNTAXES: Final = 128 * 64
"""How many transfer syntaxes may be proposed in all, since the association keeps them as long as it lasts."""

TINY_PDV: Final = 64
MAXIMUM_TINY_PDVS: Final = DEFAULT_LIMITS.maximum_tiny_pdvs
"""How many fragments in a row may be shorter than `TINY_PDV` bytes, so that a peer cannot keep us busy with nothing."""

_HEADER: Final = Struct(">BxI")
_ASSOCIATE: Final = Struct(">HH16s16s32s")
_PDATA_HEADER: Final = Struct(">BxIIBB")
_PDV_HEADER: Final = Struct(">IBB")
_EMPTY: Final = memoryview(b"")


@dataclass(frozen=True, slots=True)
class AAssociateRQ:
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2): the requestor proposes an association."""

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextRQ, ...]
    user_information: tuple[UserInformationItem, ...] = ()
    application_context_name: str = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1
    pdu_type: ClassVar[int] = 0x01

    def encode(self) -> bytes:
        return _encode_associate(self)

    @classmethod
    def decode(cls, body: memoryview) -> AAssociateRQ:
        version, called, calling, items = _split_associate(body)
        contexts = tuple(_proposed(items))
        if not contexts:
            raise malformed("no presentation context is proposed")
        if len({context.context_id for context in contexts}) != len(contexts):
            raise malformed("a presentation context ID is proposed twice")
        return cls(called, calling, contexts, _user_information(items), _application_context(items), version)


@dataclass(frozen=True, slots=True)
class AAssociateAC:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3): the acceptor's answer. The AE titles are echoed, and not tested."""

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextAC, ...]
    user_information: tuple[UserInformationItem, ...] = ()
    application_context_name: str = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1
    pdu_type: ClassVar[int] = 0x02

    def encode(self) -> bytes:
        return _encode_associate(self)

    @classmethod
    def decode(cls, body: memoryview) -> AAssociateAC:
        version, called, calling, items = _split_associate(body)
        contexts = tuple(PresentationContextAC.decode(item) for kind, item in items if kind == 0x21)
        return cls(called, calling, contexts, _user_information(items), _application_context(items), version)


@dataclass(frozen=True, slots=True)
class AAssociateRJ:
    """A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""

    result: int
    source: int
    reason: int
    pdu_type: ClassVar[int] = 0x03

    def encode(self) -> bytes:
        return _short_pdu(self.pdu_type, self.result, self.source, self.reason)

    @classmethod
    def decode(cls, body: memoryview) -> AAssociateRJ:
        return cls(body[1], body[2], body[3])


class PDV(NamedTuple):
    """A presentation data value: one fragment of a command set or of a data set (PS3.8 §9.3.5.1, Annex E).

    A named tuple, where everything else is a dataclass: there are as many as there are packets, and it is made in a third
    of the time.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes | memoryview

    def encode_parts(self) -> tuple[bytes, bytes | memoryview]:
        """Return a P-DATA-TF that holds this fragment alone, as its 12 bytes of headers and the data, not copied."""
        length = len(self.data)
        return (
            _PDATA_HEADER.pack(0x04, length + 6, length + 2, self.context_id, self.is_command | self.is_last << 1),
            self.data,
        )


@dataclass(frozen=True, slots=True)
class PDataTF:
    """P-DATA-TF (PS3.8 §9.3.5): one or more PDVs of one message."""

    pdvs: tuple[PDV, ...]
    pdu_type: ClassVar[int] = 0x04

    def encode(self) -> bytes:
        values = b"".join(
            _PDV_HEADER.pack(len(pdv.data) + 2, pdv.context_id, pdv.is_command | pdv.is_last << 1) + pdv.data
            for pdv in self.pdvs
        )
        return _HEADER.pack(self.pdu_type, len(values)) + values


@dataclass(frozen=True, slots=True)
class AReleaseRQ:
    """A-RELEASE-RQ (PS3.8 §9.3.6)."""

    pdu_type: ClassVar[int] = 0x05

    def encode(self) -> bytes:
        return _short_pdu(self.pdu_type, 0, 0, 0)

    @classmethod
    def decode(cls, _body: memoryview) -> AReleaseRQ:
        return cls()


@dataclass(frozen=True, slots=True)
class AReleaseRP:
    """A-RELEASE-RP (PS3.8 §9.3.7)."""

    pdu_type: ClassVar[int] = 0x06

    def encode(self) -> bytes:
        return _short_pdu(self.pdu_type, 0, 0, 0)

    @classmethod
    def decode(cls, _body: memoryview) -> AReleaseRP:
        return cls()


@dataclass(frozen=True, slots=True)
class AAbort:
    """A-ABORT (PS3.8 §9.3.8). The reason is significant only where the source is the service-provider, 2."""

    source: int = 0
    reason: int = 0
    pdu_type: ClassVar[int] = 0x07

    def encode(self) -> bytes:
        return _short_pdu(self.pdu_type, 0, self.source, self.reason)

    @classmethod
    def decode(cls, body: memoryview) -> AAbort:
        return cls(body[2], body[3])


ControlPDU: TypeAlias = AAssociateRQ | AAssociateAC | AAssociateRJ | AReleaseRQ | AReleaseRP | AAbort
PDU: TypeAlias = ControlPDU | PDataTF

_CONTROL_PDUS: Final[dict[int, type[ControlPDU]]] = {
    pdu.pdu_type: pdu for pdu in (AAssociateRQ, AAssociateAC, AAssociateRJ, AReleaseRQ, AReleaseRP, AAbort)
}
_ASSOCIATE_TYPES: Final = (AAssociateRQ.pdu_type, AAssociateAC.pdu_type)


class PDUReader:
    """Turns received bytes into PDUs and PDVs, and checks every length before memory is taken for it.

    Args:
        maximum_length: the longest variable field of a P-DATA-TF that was announced to the peer, in bytes; 0: none was.
        limits: of other PDUs, and of tiny fragments.
    """

    __slots__ = (
        "_body_type",
        "_context_id",
        "_control",
        "_limits",
        "_pdu_left",
        "_pdv_left",
        "_pending",
        "_tiny_pdvs",
        "_wanted",
        "maximum_length",
    )

    def __init__(self, maximum_length: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self.maximum_length = maximum_length
        self._limits = limits
        self._pending = bytearray()  # of a header, or of the body of a control PDU, what has come so far
        self._wanted = 6  # how long that will be: both kinds of header are 6 bytes
        self._body_type = 0  # the control PDU whose body is awaited; 0: a header is
        self._pdu_left = 0  # of the P-DATA-TF being read, how much is to come
        self._pdv_left = 0  # of the PDV being read, how much is to come
        self._context_id = 0
        self._control = 0
        self._tiny_pdvs = 0

    @property
    def inside_pdu(self) -> bool:
        """Whether a PDU has begun and not ended."""
        return bool(self._pending or self._pdu_left or self._body_type)

    def feed(self, data: memoryview) -> Iterator[ControlPDU | PDV]:
        """Yield what the bytes complete; the `data` of a PDV is a slice of them, valid as long as they are.

        Raises:
            RemoteProtocolError: with the reason for an A-ABORT. The reader must not be used after that.
        """
        position, end = 0, len(data)
        while position < end:
            if self._pdv_left:
                taken = min(self._pdv_left, end - position)
                yield self._part_of_pdv(data[position : position + taken])
                position += taken
                continue
            if end - position >= _PDATA_HEADER.size and self._begin_lone_pdv(data, position):
                position += _PDATA_HEADER.size
                continue
            missing = self._wanted - len(self._pending)
            chunk = data[position : position + missing]
            position += len(chunk)
            if self._pending or len(chunk) < missing:
                self._pending += chunk
                if not self._body_type and not self._pdu_left:
                    _check_type(self._pending[0])
                if len(chunk) < missing:
                    return
                chunk, self._pending = memoryview(self._pending), bytearray()
            complete = self._take(chunk)
            if complete is not None:
                yield complete

    def _begin_lone_pdv(self, data: memoryview, position: int) -> bool:
        """Begin a P-DATA-TF that holds a single PDV, which nearly all do, from both its headers at once.

        False where it is anything else, or not right: then each header is taken by itself, which tells what is wrong.
        """
        if self._pdu_left or self._body_type or self._pending:
            return False
        pdu_type, pdu_length, length, context_id, control = _PDATA_HEADER.unpack_from(data, position)
        if pdu_type != PDataTF.pdu_type or length != pdu_length - 4 or length < TINY_PDV + 2:
            return False
        if self.maximum_length and pdu_length > self.maximum_length:
            return False
        self._context_id, self._control, self._tiny_pdvs = context_id, control, 0
        self._pdu_left = self._pdv_left = length - 2
        return True

    def _take(self, chunk: memoryview) -> ControlPDU | PDV | None:
        """Take a complete header, or a complete body of a control PDU."""
        if self._body_type:
            pdu = _CONTROL_PDUS[self._body_type].decode(chunk)
            self._body_type, self._wanted = 0, 6
            return pdu
        if self._pdu_left:
            return self._begin_pdv(chunk)
        self._begin_pdu(chunk)
        return None

    def _begin_pdu(self, header: memoryview) -> None:
        pdu_type, length = _HEADER.unpack(header)
        _check_type(pdu_type)
        if pdu_type == PDataTF.pdu_type:
            if length < 6 or (self.maximum_length and length > self.maximum_length):
                raise malformed(f"a P-DATA-TF of {length} bytes, where {self.maximum_length} were announced")
            self._pdu_left = length
            return
        limit = self._limits.maximum_associate_pdu if pdu_type in _ASSOCIATE_TYPES else 4
        if length > limit or length < 4:
            raise malformed(f"PDU type {pdu_type:02X}H with a length of {length}, where {limit} bytes are the limit")
        self._body_type, self._wanted = pdu_type, length

    def _begin_pdv(self, header: memoryview) -> PDV | None:
        length, self._context_id, self._control = _PDV_HEADER.unpack(header)
        if length < 2 or length > self._pdu_left - 4:
            raise malformed(f"a PDV of {length} bytes where {self._pdu_left - 4} are left in its P-DATA-TF")
        self._pdu_left -= 6
        self._pdv_left = length - 2
        if 0 < self._pdu_left - self._pdv_left < 6:
            raise malformed("a P-DATA-TF ends inside the header of a PDV")
        if self._pdv_left >= TINY_PDV:
            self._tiny_pdvs = 0
        elif not self._control & 2:
            self._tiny_pdvs += 1
            if self._tiny_pdvs > (limit := self._limits.maximum_tiny_pdvs):
                raise malformed(f"more than {limit} fragments in a row of less than {TINY_PDV} bytes")
        return None if self._pdv_left else self._part_of_pdv(_EMPTY)

    def _part_of_pdv(self, data: memoryview) -> PDV:
        self._pdv_left -= len(data)
        self._pdu_left -= len(data)
        ends = bool(self._control & 2) and not self._pdv_left
        return PDV(self._context_id, bool(self._control & 1), ends, data)


def _check_type(pdu_type: int) -> None:
    # Decided on the first byte, so that an HTTP or TLS client is answered before it has sent six.
    if not 1 <= pdu_type <= 7:
        raise RemoteProtocolError(
            f"PDU type {pdu_type:02X}H does not exist: the peer does not speak DICOM here", reason=UNRECOGNIZED_PDU
        )


def _short_pdu(pdu_type: int, *fields: int) -> bytes:
    return _HEADER.pack(pdu_type, 4) + bytes((0, *fields))


def encode_ae_title(title: str) -> bytes:
    """Encode an AE title as 16 bytes, padded with spaces (PS3.8 §9.3.2, PS3.5 §6.2 AE).

    Raises:
        LocalProtocolError: it is blank, longer than 16 characters, or has a backslash or a character outside of ASCII.
    """
    if not valid_ae_title(title):
        raise LocalProtocolError(
            f"{title!r} is no AE title: 1 to 16 printable ASCII characters, not all spaces, no backslash (PS3.5 §6.2)"
        )
    return title.encode("ascii").ljust(16)


def valid_ae_title(title: str) -> bool:
    """Say whether `title` may name an application entity (PS3.5 §6.2, value representation AE)."""
    return bool(title.strip()) and len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title


def _decode_ae_title(data: bytes) -> str:
    # Whatever bytes came are kept: the acceptor rejects an AE title that is none, and says so.
    return data.decode("latin-1").strip(" \0")


def _encode_associate(pdu: AAssociateRQ | AAssociateAC) -> bytes:
    try:
        return _encode_associate_fields(pdu)
    except (struct.error, ValueError) as error:
        raise LocalProtocolError(f"{type(pdu).__name__} has a number that does not fit its field: {error}") from error


def _encode_associate_fields(pdu: AAssociateRQ | AAssociateAC) -> bytes:
    fixed = _ASSOCIATE.pack(
        pdu.protocol_version,
        0,
        encode_ae_title(pdu.called_ae_title),
        encode_ae_title(pdu.calling_ae_title),
        bytes(32),
    )
    items = [
        encode_item(0x10, encode_uid(pdu.application_context_name)),
        *(context.encode() for context in pdu.presentation_contexts),
        encode_item(0x50, b"".join(item.encode() for item in pdu.user_information)),
    ]
    body = fixed + b"".join(items)
    if len(body) > MAXIMUM_ASSOCIATE_LENGTH:
        raise LocalProtocolError(f"an association request of {len(body)} bytes: propose fewer contexts")
    return _HEADER.pack(pdu.pdu_type, len(body)) + body


def _split_associate(body: memoryview) -> tuple[int, str, str, list[tuple[int, memoryview]]]:
    if len(body) < _ASSOCIATE.size:
        raise malformed(f"an A-ASSOCIATE PDU of {len(body)} bytes, where {_ASSOCIATE.size} are fixed")
    version, _, called, calling, _ = _ASSOCIATE.unpack_from(body)
    items = list(islice(split_items(body[_ASSOCIATE.size :]), MAXIMUM_ITEMS + 1))
    if len(items) > MAXIMUM_ITEMS:
        raise malformed(f"more than {MAXIMUM_ITEMS} items")
    return version, _decode_ae_title(called), _decode_ae_title(calling), items


def _proposed(items: list[tuple[int, memoryview]]) -> Iterator[PresentationContextRQ]:
    left = MAXIMUM_TRANSFER_SYNTAXES
    for kind, item in items:
        if kind == 0x20:
            context = PresentationContextRQ.decode(item)
            left -= len(context.transfer_syntaxes)
            if left < 0:
                raise malformed(f"more than {MAXIMUM_TRANSFER_SYNTAXES} transfer syntaxes are proposed")
            yield context


def _user_information(items: list[tuple[int, memoryview]]) -> tuple[UserInformationItem, ...]:
    return next((decode_user_information(item) for kind, item in items if kind == 0x50), ())


def _application_context(items: list[tuple[int, memoryview]]) -> str:
    name = next((item for kind, item in items if kind == 0x10), None)
    if name is None:
        raise malformed("there is no application context name")
    return decode_uid(name)
