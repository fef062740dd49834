"""The bytes that the suite says: PDUs, command sets and data sets, right ones and broken ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final
from uuid import uuid4

from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from aiodicom.upper_layer.items import (
    ImplementationClassUID,
    MaximumLength,
    PresentationContextRQ,
    RoleSelection,
    UserInformationItem,
)
from aiodicom.upper_layer.pdu import AAssociateRQ
from aiodicom.version import IMPLEMENTATION_CLASS_UID

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"

# The presentation contexts that the suite proposes, always the same.
ECHO, STORE, FIND, MOVE, GET, STORE_EXPLICIT, STORE_DEFLATED, STORE_JPEG, FIND_DEFLATED = range(1, 19, 2)
CONTEXTS: Final = (
    PresentationContextRQ(ECHO, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(STORE, CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(FIND, STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(MOVE, STUDY_ROOT_MOVE, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(GET, STUDY_ROOT_GET, (IMPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(STORE_EXPLICIT, CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(STORE_DEFLATED, CT, (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)),
    PresentationContextRQ(STORE_JPEG, CT, (JPEG_BASELINE,)),
    PresentationContextRQ(FIND_DEFLATED, STUDY_ROOT_FIND, (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,)),
)
NOT_ACCEPTED: Final = 99  # a presentation context ID that is never proposed

RELEASE_RQ: Final = bytes.fromhex("050000000004 00000000")
RELEASE_RP: Final = bytes.fromhex("060000000004 00000000")
ABORT: Final = bytes.fromhex("070000000004 00000000")
REJECTION: Final = bytes.fromhex("030000000004 00010101")
UNKNOWN_PDU: Final = bytes.fromhex("420000000004 00000000")
HTTP: Final = b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n"
TLS_HELLO: Final = bytes.fromhex("16 03 01 0200 01 0001fc 0303") + bytes(506)

FRAGMENT: Final = 16 * 1024 - 6
"""How many bytes of a message go into one P-DATA-TF: no peer that is in use takes less."""

UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD


# Association.


def request(
    called: str,
    calling: str,
    *,
    contexts: tuple[PresentationContextRQ, ...] = CONTEXTS,
    version: int = 1,
    application_context: str | None = None,
    items: tuple[UserInformationItem, ...] = (),
) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 §9.3.2)."""
    information = (
        MaximumLength(0),
        ImplementationClassUID(IMPLEMENTATION_CLASS_UID),
        *([RoleSelection(CT, True, True)] if contexts is CONTEXTS else []),
        *items,
    )
    pdu = AAssociateRQ(called, calling, contexts, information, protocol_version=version)
    if application_context is None:
        return pdu.encode()
    return AAssociateRQ(called, calling, contexts, information, application_context, version).encode()


def acceptance(called: str, calling: str) -> bytes:
    """Return an A-ASSOCIATE-AC that accepts Verification (PS3.8 §9.3.3)."""
    body = request(called, calling)[6:74]
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    body += item(0x21, bytes((ECHO, 0, 0, 0)) + item(0x40, IMPLICIT_VR_LITTLE_ENDIAN.encode()))
    return pdu(0x02, body + item(0x50, item(0x51, bytes(4))))


def pdu(pdu_type: int, body: bytes) -> bytes:
    """Return a PDU of that type (PS3.8 §9.3.1)."""
    return struct.pack(">BxI", pdu_type, len(body)) + body


def item(item_type: int, body: bytes) -> bytes:
    """Return a variable item (PS3.8 §9.3.1)."""
    return struct.pack(">BxH", item_type, len(body)) + body


def handmade_request(*items: bytes) -> bytes:
    """Return an A-ASSOCIATE-RQ with whatever items, in order, after its fixed fields."""
    return pdu(0x01, request("CALLED", "CALLING")[6:74] + b"".join(items))


APPLICATION_CONTEXT_ITEM: Final = item(0x10, b"1.2.840.10008.3.1.1.1")
USER_INFORMATION_ITEM: Final = item(0x50, item(0x51, bytes(4)) + item(0x52, b"1.2.3"))


def context_item(context_id: int, *syntaxes: bytes) -> bytes:
    """Return a presentation context as proposed (PS3.8 §9.3.2.2); by default Verification."""
    syntaxes = syntaxes or (item(0x30, VERIFICATION.encode()), item(0x40, IMPLICIT_VR_LITTLE_ENDIAN.encode()))
    return item(0x20, bytes((context_id, 0, 0, 0)) + b"".join(syntaxes))


# Data transfer.

COMMAND, DATA, LAST = 1, 0, 2  # the bits of a message control header (PS3.8 §E.2)


def pdv(context_id: int, control: int, data: bytes = b"") -> bytes:
    """Return a P-DATA-TF with one PDV (PS3.8 §9.3.5)."""
    return pdu(0x04, struct.pack(">IBB", len(data) + 2, context_id, control) + data)


def pdvs(context_id: int, kind: int, data: bytes) -> bytes:
    """Return a command set or a data set as P-DATA-TFs."""
    starts = range(0, max(len(data), 1), FRAGMENT)
    return b"".join(
        pdv(context_id, kind | (LAST if start + FRAGMENT >= len(data) else 0), data[start : start + FRAGMENT])
        for start in starts
    )


# Command sets (PS3.7 §6.3.1).


def text(value: str | bytes, padding: bytes = b"\0") -> bytes:
    """Return the value of an element, of even length."""
    encoded = value if isinstance(value, bytes) else value.encode()
    return encoded + padding * (len(encoded) % 2)


def element(group: int, number: int, value: bytes) -> bytes:
    """Return a data element in Implicit VR Little Endian (PS3.5 §7.1.3)."""
    return struct.pack("<HHI", group, number, len(value)) + value


def us(number: int, value: int) -> bytes:
    """Return a command element of VR US."""
    return element(0x0000, number, struct.pack("<H", value))


def command(
    field: int,
    message_id: int | None,
    sop_class: str,
    *further: bytes,
    has_data_set: bool = False,
) -> bytes:
    """Return a command set, its elements in ascending order; without a Message ID where that is None."""
    body = element(0x0000, 0x0002, text(sop_class)) + us(0x0100, field)
    if message_id is not None:
        body += us(0x0110, message_id)
    rest = sorted([us(0x0800, 0x0001 if has_data_set else 0x0101), *further], key=_number)
    body += b"".join(rest)
    return element(0x0000, 0x0000, struct.pack("<I", len(body))) + body


def _number(encoded: bytes) -> int:
    return int.from_bytes(encoded[2:4], "little")


def echo(message_id: int = 1, *, context_id: int = ECHO) -> bytes:
    """Return a C-ECHO-RQ (PS3.7 Table 9.3-12)."""
    return pdvs(context_id, COMMAND, command(0x0030, message_id, VERIFICATION))


def store_rq(
    message_id: int,
    sop_instance: str | bytes,
    *,
    sop_class: str = CT,
    context_id: int = STORE,
    has_data_set: bool = True,
) -> bytes:
    """Return a C-STORE-RQ without its data set (PS3.7 Table 9.3-1)."""
    further = us(0x0700, 0), element(0x0000, 0x1000, text(sop_instance))
    return pdvs(context_id, COMMAND, command(0x0001, message_id, sop_class, *further, has_data_set=has_data_set))


def store(
    message_id: int, sop_instance: str | bytes, data: bytes, *, sop_class: str = CT, context_id: int = STORE
) -> bytes:
    """Return a whole C-STORE request."""
    command_set = store_rq(message_id, sop_instance, sop_class=sop_class, context_id=context_id)
    return command_set + pdvs(context_id, DATA, data)


def find(message_id: int, identifier: bytes, *, context_id: int = FIND) -> bytes:
    """Return a C-FIND request (PS3.7 Table 9.3-3)."""
    command_set = command(0x0020, message_id, STUDY_ROOT_FIND, us(0x0700, 0), has_data_set=True)
    return pdvs(context_id, COMMAND, command_set) + pdvs(context_id, DATA, identifier)


def move(message_id: int, destination: str, identifier: bytes) -> bytes:
    """Return a C-MOVE request (PS3.7 Table 9.3-9)."""
    further = us(0x0700, 0), element(0x0000, 0x0600, text(destination, b" "))
    command_set = command(0x0021, message_id, STUDY_ROOT_MOVE, *further, has_data_set=True)
    return pdvs(MOVE, COMMAND, command_set) + pdvs(MOVE, DATA, identifier)


def get(message_id: int, identifier: bytes) -> bytes:
    """Return a C-GET request (PS3.7 Table 9.3-6)."""
    command_set = command(0x0010, message_id, STUDY_ROOT_GET, us(0x0700, 0), has_data_set=True)
    return pdvs(GET, COMMAND, command_set) + pdvs(GET, DATA, identifier)


def store_rsp(message_id: int, sop_instance: str, context_id: int) -> bytes:
    """Return a C-STORE-RSP of status Success (PS3.7 Table 9.3-2)."""
    body = element(0x0000, 0x0002, text(CT)) + us(0x0100, 0x8001) + us(0x0120, message_id) + us(0x0800, 0x0101)
    body += us(0x0900, 0x0000) + element(0x0000, 0x1000, text(sop_instance))
    return pdvs(context_id, COMMAND, element(0x0000, 0x0000, struct.pack("<I", len(body))) + body)


# Data sets.


def new_uid() -> str:
    """Return a UID that nobody has (PS3.5 §B.2)."""
    return f"2.25.{uuid4().int}"


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that nobody has yet, and what it is found by.

    Args:
        uid: its SOP Instance UID.
        study: its Study Instance UID.
        series: its Series Instance UID.
        patient_name: likewise.
    """

    uid: str
    study: str
    series: str
    patient_name: str = "CONFORMANCE^SUITE"

    def elements(self) -> list[tuple[int, int, str, bytes]]:
        """Return what stands before its pixels: group, number, VR and value of each element."""
        return [
            (0x0008, 0x0016, "UI", text(CT)),
            (0x0008, 0x0018, "UI", text(self.uid)),
            (0x0008, 0x0060, "CS", b"CT"),
            (0x0010, 0x0010, "PN", text(self.patient_name, b" ")),
            (0x0010, 0x0020, "LO", b"CONFORMANCE "),
            (0x0020, 0x000D, "UI", text(self.study)),
            (0x0020, 0x000E, "UI", text(self.series)),
        ]

    def data_set(self, *further: bytes, pixels: bytes = bytes(512)) -> bytes:
        """Return it in Implicit VR Little Endian, with further elements before its pixels."""
        header = b"".join(element(group, number, value) for group, number, _, value in self.elements())
        return header + b"".join(further) + element(0x7FE0, 0x0010, pixels)

    def explicit_header(self) -> bytes:
        """Return what stands before its pixels in Explicit VR Little Endian."""
        return b"".join(explicit(group, number, vr, value) for group, number, vr, value in self.elements())


def new_instance(patient_name: str = "CONFORMANCE^SUITE") -> Instance:
    """Return an instance of a study of its own."""
    return Instance(new_uid(), new_uid(), new_uid(), patient_name)


def explicit(group: int, number: int, vr: str, value: bytes) -> bytes:
    """Return a data element in Explicit VR Little Endian, of a VR with a 2-byte length (PS3.5 §7.1.2)."""
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def explicit_long(group: int, number: int, vr: str, length: int) -> bytes:
    """Return the header of a data element in Explicit VR Little Endian, of a VR with a 4-byte length."""
    return struct.pack("<HH2sxxI", group, number, vr.encode(), length)


def tag(group: int, number: int, length: int = 0) -> bytes:
    """Return a tag and a length, without a value."""
    return struct.pack("<HHI", group, number, length)


def nested(depth: int) -> bytes:
    """Return a sequence within a sequence, and so on, each of undefined length and with one item."""
    opening = tag(0x0040, 0xA730, UNDEFINED) + tag(0xFFFE, _ITEM, UNDEFINED)
    closing = tag(0xFFFE, _ITEM_END) + tag(0xFFFE, _SEQUENCE_END)
    return opening * depth + closing * depth


def empty_items(count: int, *, is_closed: bool = True) -> bytes:
    """Return a sequence of undefined length whose items are empty."""
    end = tag(0xFFFE, _SEQUENCE_END) if is_closed else b""
    return tag(0x0040, 0xA730, UNDEFINED) + tag(0xFFFE, _ITEM) * count + end


@cache
def empty_elements(count: int) -> bytes:
    """Return so many elements without a value, in ascending order, in groups that no dictionary knows."""
    return b"".join(tag(group, number) for group, number in _tags(count))


def _tags(count: int) -> Iterator[tuple[int, int]]:
    for index in range(count):
        yield 0x5201 + 2 * (index // 0xEF00), 0x1000 + index % 0xEF00


def identifier(*keys: tuple[int, int, bytes], level: bytes = b"STUDY ") -> bytes:
    """Return an identifier of Query/Retrieve in Implicit VR Little Endian (PS3.4 §C.4.1.1.3)."""
    elements = sorted([(0x0008, 0x0052, level), *keys])
    return b"".join(element(group, number, value) for group, number, value in elements)


@cache
def bomb(header: bytes, mebibytes: int) -> bytes:
    """Return a raw DEFLATE stream of `header` and so many MiB of zeros (RFC 1951), of even length (PS3.5 §A.5)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    beginning = deflate.compress(header) + deflate.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers to what came before it, so that a piece may be repeated.
    piece = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return text(beginning + piece * mebibytes + deflate.flush(zlib.Z_FINISH))
