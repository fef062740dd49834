"""Z3: fragments into commands. An input is one command set, or a series of fragments with headers of four bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import Request, Response, UnrecognizedRQ, respond
from aiodicom.dimse.fragments import Assembler, DataFragment, ReceivedCommand, fragment
from aiodicom.dimse.status import PROCESSING_FAILURE
from aiodicom.errors import LocalProtocolError, RemoteProtocolError
from aiodicom.upper_layer.pdu import PDV
from tests.fuzz.target import expect

CONTEXTS: Final = frozenset({1, 3})
Outcome = tuple[list[ReceivedCommand | tuple[int, bytes]], tuple[int, int, str] | None, bool]


def command_set(data: bytes) -> bytes:
    """Encode an input that is one command set."""
    return b"\0" + data


def series(pdvs: Iterable[PDV]) -> bytes:
    """Encode an input that is a series of fragments."""
    return b"\1" + b"".join(
        (len(pdv.data)).to_bytes(2, "big") + bytes((pdv.context_id, pdv.is_command | pdv.is_last << 1)) + pdv.data
        for pdv in pdvs
    )


def pdvs_of(data: bytes) -> Iterator[PDV]:
    """Decode an input."""
    if not data[:1] or not data[0] & 1:
        yield PDV(1, True, True, data[1:])
        return
    position, end = 1, len(data)
    while position + 4 <= end:
        length = data[position] << 8 | data[position + 1]
        context_id, control = data[position + 2], data[position + 3]
        yield PDV(context_id, bool(control & 1), bool(control & 2), data[position + 4 : position + 4 + length])
        position += 4 + length


def messages(data: bytes) -> None:
    """A fragment is taken or refused by a protocol error; a command that was taken can be sent and answered (I1, I6)."""
    received, refusal, _ = _assemble(pdvs_of(data))
    expect(refusal is None or refusal[:2] in ((0, 0), (2, 5), (2, 6)), "the reason of an abort", refusal)
    for each in received:
        if isinstance(each, ReceivedCommand):
            _round_trip(each)


def messages_in_pieces(data: bytes) -> None:
    """However a command set or a data set is cut into fragments, the same comes out (I3)."""
    whole = _assemble(pdvs_of(data))
    for length in (2, 6):
        pieces = (
            piece
            for pdv in pdvs_of(data)
            for piece in fragment(pdv.context_id, pdv.data, length, is_command=pdv.is_command, is_last=pdv.is_last)
        )
        expect(_assemble(pieces) == whole, "I3: other fragments, another message")


def _assemble(pdvs: Iterable[PDV]) -> Outcome:
    assembler = Assembler(CONTEXTS)
    received: list[ReceivedCommand | tuple[int, bytes]] = []
    data_set = b""
    try:
        for pdv in pdvs:
            each = assembler.receive(pdv)
            if isinstance(each, DataFragment):
                data_set += each.data
                if each.is_last:
                    received.append((pdv.context_id, data_set))
                    data_set = b""
            elif each is not None:
                received.append(each)
    except RemoteProtocolError as error:
        return received, (error.source, error.reason, str(error)), False
    return received, None, assembler.inside_message


def _round_trip(received: ReceivedCommand) -> None:
    command, has_data_set = received.command, received.has_data_set
    if isinstance(command, Request) and not isinstance(command, UnrecognizedRQ):
        response = encode_command(respond(command, PROCESSING_FAILURE), has_data_set=False)
        _, refusal, _ = _assemble((PDV(1, True, True, response),))
        expect(refusal is None, "I6: our own response is refused", command, refusal)
    try:
        encoded = encode_command(command, has_data_set=has_data_set)
    except LocalProtocolError:
        return
    again, refusal, _ = _assemble((PDV(received.context_id, True, True, encoded),))
    expect(refusal is None, "I6: our own message is refused", command, refusal)
    if not _has_comment(command):
        (same,) = again
        expect(same == received, "I6: another command after a round trip", received, same)


def _has_comment(command: object) -> bool:
    # It is made to fit when it is sent.
    return isinstance(command, Response) and command.error_comment is not None
