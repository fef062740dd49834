"""A script: C-FINDs from bytes made beforehand, over a blocking socket: the rate of a server without a client's cost.

It looks at no more of the responses than it takes to count them and to see the final one.
"""

from __future__ import annotations

import argparse
import socket
from struct import Struct, pack
from typing import Final

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CFindRQ
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND
from aiodicom.upper_layer.items import ImplementationClassUID, MaximumLength, PresentationContextRQ
from aiodicom.upper_layer.pdu import PDV, AAssociateRQ, AReleaseRQ, PDataTF
from aiodicom.version import IMPLEMENTATION_CLASS_UID
from bench.archives import AE_TITLE, RETURN_KEYS
from bench.client import reported
from bench.processes import LOOPBACK

MAXIMUM_LENGTH: Final = 128 * 1024
ACCEPT, DATA, RELEASE_RESPONSE = 2, 4, 6  # PDU types (PS3.8 §9.3)
HEAD: Final = Struct(
    ">BxLLxB"
)  # of a P-DATA-TF: its type and length; the length and the control header of its first PDV
# Elements of a command set in Implicit VR Little Endian (PS3.7 §E.1).
NO_DATA_SET: Final = bytes.fromhex("00000008 02000000 0101")
SUCCESS: Final = bytes.fromhex("00000009 02000000 0000")
SOME: Final = 100  # studies whose patients' names begin alike, see bench/objects.py


def main() -> None:
    """Send C-FINDs on one association until as many matches came as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["all", "some", "one"], help="what each asks for: all studies, 100, or one")
    parser.add_argument("port", type=int)
    parser.add_argument("studies", type=int, help="how many there are")
    parser.add_argument("count", type=int, help="how many matches are wanted")
    arguments = parser.parse_args()
    requests, each = requests_for(arguments.what, arguments.studies)
    context = PresentationContextRQ(1, STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,))
    information = (MaximumLength(MAXIMUM_LENGTH), ImplementationClassUID(IMPLEMENTATION_CLASS_UID))
    with socket.create_connection((LOOPBACK, arguments.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(connection)
        connection.sendall(AAssociateRQ(AE_TITLE, "BENCH", (context,), information).encode())
        peer.read(ACCEPT)
        with reported():
            for number in range(arguments.count // each):
                connection.sendall(requests[number % len(requests)])
                found = peer.matches()
                if found != each:
                    raise SystemExit(f"{found} matches instead of {each}")
        connection.sendall(AReleaseRQ().encode())
        peer.read(RELEASE_RESPONSE)


def requests_for(what: str, studies: int) -> tuple[list[bytes], int]:
    """The requests, to be sent in turns, and how many matches each has."""
    match what:
        case "all":
            return [request()], studies
        case "some":
            names = (f"Patient{number:04}*" for number in range(studies // SOME))
            return [request(PatientName=name) for name in names], SOME
        case _:
            return [request(AccessionNumber=f"A{number:06}") for number in range(studies)], 1


def request(**keys: str) -> bytes:
    """A C-FIND-RQ for studies as a P-DATA-TF; without a key, for all of them."""
    command = encode_command(CFindRQ(message_id=1, affected_sop_class_uid=STUDY_ROOT_FIND), has_data_set=True)
    elements = [(group, number, keys.get(keyword, "")) for group, number, keyword in RETURN_KEYS]
    identifier = b"".join(element(*each) for each in sorted([*elements, (0x0008, 0x0052, "STUDY")]))
    fragments = ((True, command), (False, identifier))
    return PDataTF(tuple(PDV(1, is_command=which, is_last=True, data=data) for which, data in fragments)).encode()


def element(group: int, number: int, value: str) -> bytes:
    """A data element in Implicit VR Little Endian (PS3.5 §7.1.3)."""
    data = value.encode() + b" " * (len(value) % 2)
    return pack("<HHL", group, number, len(data)) + data


class Peer:
    """What comes over a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def _receive(self, start: int) -> bytes:
        """Wait for more, behind what was received from `start` on."""
        more = self._connection.recv(MAXIMUM_LENGTH)
        if not more:
            raise SystemExit("the server closed the connection")
        self._received = self._received[start:] + more
        return self._received

    def read(self, expected: int) -> None:
        """Read one PDU (PS3.8 §9.3.1), which is to be of that type."""
        received = self._received
        while len(received) < 6 or len(received) < 6 + int.from_bytes(received[2:6]):
            received = self._receive(0)
        if received[0] != expected:
            raise SystemExit(f"PDU type {received[0]} instead of {expected}")
        self._received = received[6 + int.from_bytes(received[2:6]) :]

    def matches(self) -> int:
        """Read all the responses to a C-FIND-RQ, and return how many had a match.

        The PDVs of a P-DATA-TF belong to one message (PS3.8 §E.2), so that its first tells whether it brings a response;
        their commands are short enough for one fragment.
        """
        received, at, count = self._received, 0, 0
        while True:
            while at + HEAD.size <= len(received):
                kind, length, pdv_length, control = HEAD.unpack_from(received, at)
                end = at + 6 + length
                if end > len(received):
                    break
                if kind != DATA:
                    raise SystemExit(f"PDU type {kind} instead of {DATA}")
                if control & 1:
                    command_end = at + 10 + pdv_length
                    if received.find(NO_DATA_SET, at, command_end) >= 0:
                        if received.find(SUCCESS, at, command_end) < 0:
                            raise SystemExit("the query failed")
                        self._received = received[end:]
                        return count
                    count += 1
                at = end
            received, at = self._receive(at), 0


if __name__ == "__main__":
    main()
