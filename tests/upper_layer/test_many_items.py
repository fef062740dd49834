"""Requests made of as many items as fit: they take little memory, and nothing of them is kept when they are over."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from aiodicom.errors import RemoteProtocolError
from aiodicom.upper_layer.items import MAXIMUM_SUB_ITEMS, decode_uid, encode_item
from aiodicom.upper_layer.pdu import (
    MAXIMUM_ASSOCIATE_LENGTH,
    MAXIMUM_ITEMS,
    MAXIMUM_TRANSFER_SYNTAXES,
    AAssociateRQ,
    PDUReader,
)
from tests.upper_layer.joined import REQUEST, read

MEBIBYTE: Final = 1024 * 1024


@contextmanager
def memory_of_at_most(limit: int) -> Iterator[None]:
    """Fail where more is taken at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def request(*items: bytes) -> bytes:
    """An A-ASSOCIATE-RQ with more items; it may be too long."""
    fixed = REQUEST.encode()[6:74]  # the AE titles, and so on
    body = fixed + b"".join(items)
    return b"\1\0" + len(body).to_bytes(4, "big") + body


def context(context_id: int, transfer_syntaxes: int) -> bytes:
    names = b"".join(
        encode_item(0x40, bytes((0x31 + number % 9, 0x30 + number // 9 % 10))) for number in range(transfer_syntaxes)
    )
    return encode_item(0x20, bytes((context_id, 0, 0, 0)) + encode_item(0x30, b"1") + names)


APPLICATION: Final = encode_item(0x10, b"1.2.840.10008.3.1.1.1")
UNKNOWN: Final = encode_item(0x99, b"")
FULL: Final = (MAXIMUM_ASSOCIATE_LENGTH - 2000) // len(UNKNOWN)


def test_as_many_transfer_syntaxes_as_anybody_can_need_are_taken() -> None:
    each = MAXIMUM_TRANSFER_SYNTAXES // 128
    contexts = [context(2 * number + 1, each) for number in range(128)]
    with memory_of_at_most(MEBIBYTE):
        (taken,) = read(request(APPLICATION, *contexts, encode_item(0x50, UNKNOWN * MAXIMUM_SUB_ITEMS)))
    assert isinstance(taken, AAssociateRQ)
    assert len(taken.presentation_contexts) == 128
    assert len(taken.user_information) == MAXIMUM_SUB_ITEMS


@pytest.mark.parametrize(
    ("items", "what"),
    [
        ((APPLICATION, context(1, 1), UNKNOWN * FULL), f"more than {MAXIMUM_ITEMS} items"),
        ((APPLICATION, context(1, 1) * 13_000), f"more than {MAXIMUM_ITEMS} items"),
        ((APPLICATION, context(1, 1), encode_item(0x50, UNKNOWN * 16_000)), f"more than {MAXIMUM_SUB_ITEMS} sub-items"),
        ((APPLICATION, *(context(2 * n + 1, 8_000) for n in range(5))), "more than 8192 transfer syntaxes"),
    ],
    ids=["items", "contexts", "sub-items", "transfer syntaxes"],
)
def test_more_items_than_anybody_needs_are_refused_before_they_take_memory(items: tuple[bytes, ...], what: str) -> None:
    data = request(*items)
    assert len(data) <= MAXIMUM_ASSOCIATE_LENGTH
    with memory_of_at_most(2 * MEBIBYTE), pytest.raises(RemoteProtocolError, match=what) as caught:
        list(PDUReader(0).feed(memoryview(data)))
    assert (caught.value.source, caught.value.reason) == (2, 6)


def test_names_that_a_peer_makes_up_do_not_stay() -> None:
    # Interned, they would stay for ever in Python 3.12: 100 bytes for each.
    tracemalloc.start()
    try:
        for number in range(30_000):
            assert decode_uid(memoryview(b"1.2.%d" % number)) == f"1.2.{number}"
        assert tracemalloc.get_traced_memory()[0] < MEBIBYTE
    finally:
        tracemalloc.stop()


def test_a_name_that_is_known_is_one_string() -> None:
    assert decode_uid(memoryview(b"1.2.840.10008.1.2")) is decode_uid(memoryview(b"1.2.840.10008.1.2"))
