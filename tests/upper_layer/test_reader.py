"""A stream of bytes, cut anywhere: the same PDUs, and every length checked before memory is taken for it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodicom.errors import RemoteProtocolError
from aiodicom.upper_layer.items import ImplementationClassUID, RoleSelection, UserIdentity
from aiodicom.upper_layer.pdu import (
    MAXIMUM_ASSOCIATE_LENGTH,
    MAXIMUM_TINY_PDVS,
    PDV,
    TINY_PDV,
    AAbort,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    ControlPDU,
    PDataTF,
    PDUReader,
)
from aiodicom.upper_layer.provider import UpperLayerEvent
from tests.upper_layer.joined import ACCEPTANCE, REJECTION, REQUEST, cut, join_pieces, read
from tests.upper_layer.values import control_pdus, p_data

MEBIBYTE: Final = 1024 * 1024

STREAM: Final[tuple[ControlPDU | PDataTF, ...]] = (
    AAssociateRQ(
        "CALLED",
        "CALLING",
        REQUEST.presentation_contexts,
        (ImplementationClassUID("1.2"), RoleSelection("1.2.3", True, True), UserIdentity(1, b"user")),
    ),
    ACCEPTANCE,
    REJECTION,
    PDataTF((PDV(1, True, False, b"comm"), PDV(1, True, True, b"and"), PDV(1, False, False, b""))),
    PDataTF((PDV(1, False, False, b"piece of data"),)),
    PDataTF((PDV(1, False, True, b""),)),
    AReleaseRQ(),
    AReleaseRP(),
    AAbort(2, 1),
)
ENCODED: Final = b"".join(pdu.encode() for pdu in STREAM)


def read_chunks(
    chunks: list[bytes], *, maximum_length: int = 0
) -> tuple[list[UpperLayerEvent], tuple[int, int, str] | None]:
    """What a reader makes of the chunks, its pieces joined, and what it refuses them for."""
    reader = PDUReader(maximum_length)
    received: list[ControlPDU | PDV] = []
    try:
        for chunk in chunks:
            received += reader.feed(memoryview(chunk))
    except RemoteProtocolError as error:
        return join_pieces(received), (error.source, error.reason, str(error))
    return join_pieces(received), None


def test_the_whole_stream_at_once() -> None:
    received, refusal = read_chunks([ENCODED])
    assert refusal is None
    assert received == [
        *STREAM[:3],
        PDV(1, True, True, b"command"),
        PDV(1, False, True, b"piece of data"),
        *STREAM[6:],
    ]


def test_byte_by_byte_is_the_same() -> None:
    assert read_chunks([bytes((octet,)) for octet in ENCODED]) == read_chunks([ENCODED])


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 11, 12, 13, 64])
def test_chunks_of_one_size_are_the_same(size: int) -> None:
    assert read_chunks(cut(ENCODED, range(0, len(ENCODED), size))) == read_chunks([ENCODED])


def test_every_truncation_gives_the_beginning_and_is_no_error() -> None:
    whole = read(ENCODED)
    for length in range(len(ENCODED)):
        reader = PDUReader(0)
        received = list(reader.feed(memoryview(ENCODED[:length])))
        missing = list(reader.feed(memoryview(ENCODED[length:])))
        assert join_pieces(received + missing) == join_pieces(whole)
        assert not reader.inside_pdu


@given(st.lists(control_pdus | p_data, min_size=1, max_size=4), st.lists(st.integers(0, 2_000), max_size=12))
@settings(deadline=None, max_examples=60)
def test_any_stream_cut_anywhere_is_the_same(pdus: list[ControlPDU | PDataTF], places: list[int]) -> None:
    data = b"".join(pdu.encode() for pdu in pdus)
    assert read_chunks(cut(data, places)) == read_chunks([data])


# Headers that say something sensible, so that what follows is read at all.
heads: Final = st.sampled_from([pdu.encode()[:12] for pdu in STREAM] + [pdu.encode() for pdu in STREAM])


@given(st.lists(heads | st.binary(max_size=16), max_size=8).map(b"".join), st.lists(st.integers(0, 400), max_size=12))
@settings(deadline=None, max_examples=200)
def test_rubbish_cut_anywhere_is_the_same(data: bytes, places: list[int]) -> None:
    assert read_chunks(cut(data, places), maximum_length=64) == read_chunks([data], maximum_length=64)


@given(st.integers(0, len(ENCODED) - 1), st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_one_wrong_byte_raises_nothing_but_a_protocol_error(place: int, octet: int) -> None:
    damaged = ENCODED[:place] + bytes((octet,)) + ENCODED[place + 1 :]
    assert read_chunks([damaged]) == read_chunks([bytes((each,)) for each in damaged])


def test_a_fragment_is_a_slice_of_what_was_given() -> None:
    chunk = memoryview(bytearray(PDataTF((PDV(1, False, True, bytes(100)),)).encode()))
    (pdv,) = PDUReader(0).feed(chunk)
    assert isinstance(pdv, PDV)
    assert isinstance(pdv.data, memoryview)
    assert pdv.data.obj is chunk.obj


def test_the_pieces_of_a_fragment_are_the_last_only_with_its_last_byte() -> None:
    encoded = PDataTF((PDV(3, False, True, b"abcdef"),)).encode()
    reader = PDUReader(0)
    received = [pdv for chunk in cut(encoded, [8, 14, 16, 17]) for pdv in reader.feed(memoryview(chunk))]
    assert [(bytes(pdv.data), pdv.is_last) for pdv in received if isinstance(pdv, PDV)] == [
        (b"ab", False),
        (b"cd", False),
        (b"e", False),
        (b"f", True),
    ]


def test_inside_pdu_is_true_from_its_first_byte_to_its_last_but_one() -> None:
    for pdu in STREAM:
        encoded = pdu.encode()
        reader = PDUReader(0)
        assert not reader.inside_pdu
        for octet in encoded[:-1]:
            list(reader.feed(memoryview(bytes((octet,)))))
            assert reader.inside_pdu
        list(reader.feed(memoryview(encoded[-1:])))
        assert not reader.inside_pdu


# --- What is refused, and when


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail where more than 64 KiB are taken at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


BAD_HEADERS: Final = {
    "T01: A-ASSOCIATE-RQ of 4 GiB": "01 00 FFFFFFFF",
    "A-ASSOCIATE-AC of 4 GiB": "02 00 FFFFFFFF",
    "A-ASSOCIATE-RQ of more than 256 KiB": "01 00 00040001",
    "A-ASSOCIATE-AC of more than 256 KiB": "02 00 00040001",
    "A-ASSOCIATE-RQ of 3 bytes": "01 00 00000003",
    "A-ASSOCIATE-RJ of 3 bytes": "03 00 00000003",
    "A-ASSOCIATE-RJ of 5 bytes": "03 00 00000005",
    "P-DATA-TF of 4 GiB": "04 00 FFFFFFFF",
    "T02: P-DATA-TF longer than announced": "04 00 00020001",
    "T16: P-DATA-TF of nothing": "04 00 00000000",
    "P-DATA-TF shorter than any": "04 00 00000005",
    "A-RELEASE-RQ of 4 GiB": "05 00 FFFFFFFF",
    "A-RELEASE-RP of nothing": "06 00 00000000",
    "A-ABORT of 5 bytes": "07 00 00000005",
}


@pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_length_is_refused_with_the_sixth_byte(header: str) -> None:
    data = bytes.fromhex(header)
    reader = PDUReader(131_072)
    with little_memory():
        for octet in data[:-1]:
            assert not list(reader.feed(memoryview(bytes((octet,)))))
        with pytest.raises(RemoteProtocolError, match=r"^malformed PDU: ") as caught:
            list(reader.feed(memoryview(data[-1:])))
    assert (caught.value.source, caught.value.reason) == (2, 6)


def test_a_data_transfer_pdu_as_long_as_announced_is_taken() -> None:
    longest = PDataTF((PDV(1, False, True, bytes(16_384 - 6)),)).encode()
    assert len(read(longest, maximum_length=16_384)) == 1
    with pytest.raises(RemoteProtocolError, match="16385 bytes, where 16384 were announced"):
        read(b"\4\0\0\0\x40\1", maximum_length=16_384)


def test_without_a_limit_4_gib_are_announced_and_none_are_kept() -> None:
    reader = PDUReader(0)
    chunk = memoryview(bytes(MEBIBYTE))
    with little_memory():
        assert not list(reader.feed(memoryview(b"\4\0\xff\xff\xff\xff\xff\xff\xff\xfb\1\0")))
        for _ in range(20):
            assert [len(pdv.data) for pdv in reader.feed(chunk) if isinstance(pdv, PDV)] == [MEBIBYTE]


def test_of_an_unfinished_request_no_more_is_kept_than_came() -> None:
    reader = PDUReader(0)
    with little_memory():
        list(reader.feed(memoryview(b"\1\0" + MAXIMUM_ASSOCIATE_LENGTH.to_bytes(4))))
        list(reader.feed(memoryview(bytes(1024))))
        assert reader.inside_pdu


@pytest.mark.parametrize("octet", [0, *range(8, 256)])
def test_a_pdu_type_that_does_not_exist_is_refused_with_the_first_byte(octet: int) -> None:
    for data in (bytes((octet,)), bytes((octet, 0, 0, 0, 0, 4)), bytes((octet,)) * 100):
        with pytest.raises(RemoteProtocolError, match=f"PDU type {octet:02X}H does not exist") as caught:
            read(data)
        assert (caught.value.source, caught.value.reason) == (2, 1)


@pytest.mark.parametrize("octet", range(1, 8))
def test_the_first_byte_of_every_pdu_is_awaited(octet: int) -> None:
    reader = PDUReader(0)
    assert not list(reader.feed(memoryview(bytes((octet,)))))
    assert reader.inside_pdu


@pytest.mark.parametrize("encoded", [AReleaseRQ().encode(), PDataTF((PDV(1, False, False, b"x"),)).encode()])
def test_the_type_of_a_second_pdu_is_decided_on_its_first_byte_too(encoded: bytes) -> None:
    reader = PDUReader(0)
    list(reader.feed(memoryview(encoded)))
    with pytest.raises(RemoteProtocolError, match="PDU type 16H"):
        list(reader.feed(memoryview(b"\x16")))


@pytest.mark.parametrize(
    "values",
    [
        "FFFFFFFC 0103",
        "00000000 0103",
        "00000001 0103",
        "00000003 0103",
        "00000003 010341 00000002 01",  # ends inside the header of the second
        "00000002 0103 00000003 0103",
        "00000003 010341 00000000 0103",
    ],
)
def test_a_pdv_that_does_not_fit_its_pdu_is_refused(values: str) -> None:
    body = bytes.fromhex(values)
    with pytest.raises(RemoteProtocolError, match=r"^malformed PDU: ") as caught:
        read(b"\4\0" + len(body).to_bytes(4) + body)
    assert (caught.value.source, caught.value.reason) == (2, 6)


EMPTY: Final = PDataTF((PDV(1, False, False, b""),)).encode()


@pytest.mark.parametrize("size", [0, 1, TINY_PDV - 1])
def test_tiny_fragments_are_taken_but_not_without_end(size: int) -> None:
    reader = PDUReader(0)
    tiny = PDataTF((PDV(1, False, False, b"x" * size),)).encode()
    assert len(list(reader.feed(memoryview(tiny * MAXIMUM_TINY_PDVS)))) == MAXIMUM_TINY_PDVS
    with pytest.raises(RemoteProtocolError, match="more than 1024 fragments in a row of less than 64 bytes"):
        list(reader.feed(memoryview(tiny)))


def test_a_fragment_of_some_size_is_progress() -> None:
    reader = PDUReader(0)
    one = PDataTF((PDV(1, False, False, b"x" * TINY_PDV),)).encode()
    received = list(reader.feed(memoryview((EMPTY * MAXIMUM_TINY_PDVS + one) * 2)))
    assert len(received) == 2 * (MAXIMUM_TINY_PDVS + 1)


@pytest.mark.parametrize(
    "hello",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-OpenSSH\r\n", b"\xff\xfb\x01", b"\0\0\0\0"],
)
def test_other_protocols_are_recognized_by_their_first_byte(hello: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="does not speak DICOM"):
        read(hello[:1])
