"""tshark's DICOM dissector as a second opinion on the bytes of an association."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, Literal

from tests.peers.process import execute, require

Direction = Literal["client", "server"]  # who sent it: the one who opened the connection, or the other

# Microseconds, native byte order; raw IP packets without a link layer.
PCAP_MAGIC: Final = 0xA1B2C3D4
PCAP_SNAPSHOT_LENGTH: Final = 0x40000
LINKTYPE_RAW: Final = 101

CLIENT_ADDRESS: Final = IPv4Address("192.0.2.1")
SERVER_ADDRESS: Final = IPv4Address("192.0.2.2")
CLIENT_PORT: Final = 50_000
SERVER_PORT: Final = 11_112
INITIAL_SEQUENCE_NUMBER: Final = 1_000
LONGEST_SEGMENT: Final = 16_384  # an IPv4 packet holds less than 65,536 bytes

SYN: Final = 0x02
PSH: Final = 0x08
ACK: Final = 0x10


@dataclass(slots=True)
class Endpoint:
    """One end of the TCP connection, and the number of the next byte it sends."""

    address: IPv4Address
    port: int
    next_byte: int = INITIAL_SEQUENCE_NUMBER


def tcp_conversation(chunks: Iterable[tuple[Direction, bytes]]) -> bytes:
    """A capture file (pcap) of a TCP connection in which those chunks of bytes were sent."""
    client, server = Endpoint(CLIENT_ADDRESS, CLIENT_PORT), Endpoint(SERVER_ADDRESS, SERVER_PORT)
    packets = [packet(client, server, SYN), packet(server, client, SYN | ACK), packet(client, server, ACK)]
    for direction, chunk in chunks:
        sender, receiver = (client, server) if direction == "client" else (server, client)
        packets += [
            packet(sender, receiver, PSH | ACK, chunk[start : start + LONGEST_SEGMENT])
            for start in range(0, len(chunk), LONGEST_SEGMENT)
        ]
    header = struct.pack("=IHHiIII", PCAP_MAGIC, 2, 4, 0, 0, PCAP_SNAPSHOT_LENGTH, LINKTYPE_RAW)
    return header + b"".join(records(packets))


def records(packets: Iterable[bytes]) -> Iterator[bytes]:
    """The packets as records of a capture file, one each microsecond."""
    for microseconds, data in enumerate(packets):
        yield struct.pack("=IIII", 0, microseconds, len(data), len(data)) + data


def packet(sender: Endpoint, receiver: Endpoint, flags: int, data: bytes = b"") -> bytes:
    """An IPv4 packet with one TCP segment, without checksums; the sender's next byte moves on."""
    acknowledged = receiver.next_byte if flags & ACK else 0
    ports = struct.pack(">HH", sender.port, receiver.port)
    segment = ports + struct.pack(">IIBBHHH", sender.next_byte, acknowledged, 5 << 4, flags, 0xFFFF, 0, 0) + data
    sender.next_byte += len(data) + bool(flags & SYN)
    total = 20 + len(segment)
    header = struct.pack(">BBHHHBBH", 0x45, 0, total, 0, 0, 64, 6, 0) + sender.address.packed + receiver.address.packed
    return header + segment


async def dissect(chunks: Iterable[tuple[Direction, bytes]]) -> str:
    """What tshark prints of those bytes sent over one association, DICOM in every detail."""
    return await tshark(chunks, "-O", "dicom")


async def dissect_fields(chunks: Iterable[tuple[Direction, bytes]], *names: str) -> list[dict[str, list[str]]]:
    """The named fields ("dicom.pdu.type" …) of each packet with DICOM in it, each with all its values in order."""
    selection = [argument for name in names for argument in ("-e", name)]
    packets = json.loads(await tshark(chunks, "-Y", "dicom", "-T", "json", *selection))
    return [frame["_source"]["layers"] for frame in packets]


async def tshark(chunks: Iterable[tuple[Direction, bytes]], *options: str) -> str:
    """Let tshark read a capture of those bytes, and return its standard output."""
    command = [require("tshark", "tshark"), "-r", "-", "-d", f"tcp.port=={SERVER_PORT},dicom", *options]
    finished = await execute(command, stdin=tcp_conversation(chunks))
    assert finished.exit_code == 0, finished.errors
    return finished.output
