"""Deflated data sets (PS3.5 §A.5: a raw RFC 1951 stream), inflated in pieces of bounded size, whatever the ratio."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from aiodicom.errors import InvalidInstance

__all__ = ["Inflater", "inflate", "inflate_beginning", "inflated"]

_AT_ONCE: Final = 256 * 1024
_TAIL: Final = 9  # the padding NUL, and the eight bytes of a gzip trailer that some writers leave
_TRUSTED: Final = 1024 * 1024  # so much may come out, however little went in


class Inflater:
    """Inflates a stream that comes part by part.

    Args:
        name: what to call the data set in an error.
        ratio: how many times as much may come out as went in, beyond the first MiB: images give 2 to 10, a bomb 1,000.

    Attributes:
        is_bomb: whether more has come out than that; it is for the caller to go no further.
    """

    def __init__(self, name: str = "data set", ratio: float = math.inf) -> None:
        self.is_bomb = False
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._name = name
        self._ratio = ratio
        self._taken = self._given = self._tail = 0

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Yield what comes out of the next part of the stream.

        Raises:
            InvalidInstance: it is damaged.
        """
        self._taken += len(chunk)
        if self._stream.eof:
            self._tail += len(chunk)
            return
        yield self._next(chunk)
        while self._stream.unconsumed_tail and not self._stream.eof:
            yield self._next(self._stream.unconsumed_tail)
        self._tail += len(self._stream.unused_data)

    def finish(self) -> Iterator[bytes]:
        """Yield what is left, and see that the stream has ended; behind it only a short tail may stand.

        Raises:
            InvalidInstance: it is damaged, truncated, or followed by something.
        """
        while not self._stream.eof and (piece := self._next(b"")):
            yield piece
        if not self._stream.eof:
            raise InvalidInstance(f"{self._name}: truncated: its deflated data set has no end; copy or export it again")
        if self._tail > _TAIL:
            raise InvalidInstance(
                f"{self._name}: {self._tail} bytes follow the end of its deflated data set; export it again"
            )

    def _next(self, chunk: bytes | memoryview) -> bytes:
        try:
            piece = self._stream.decompress(chunk, _AT_ONCE)
        except zlib.error:
            raise InvalidInstance(f"{self._name}: its deflated data set is damaged; copy or export it again") from None
        self._given += len(piece)
        self.is_bomb = self._given > max(_TRUSTED, self._ratio * self._taken)
        return piece


def inflated(chunks: Iterable[memoryview], name: str) -> Iterator[bytes]:
    """Inflate all of a stream, as `Inflater` does."""
    inflater = Inflater(name)
    for chunk in chunks:
        yield from inflater.feed(chunk)
    yield from inflater.finish()


def inflate(data: bytes | bytearray | memoryview, max_size: int, *, name: str = "data set") -> bytes:
    """Return a deflated data set inflated, if that takes at most `max_size` bytes.

    Raises:
        InvalidInstance: the stream is damaged, truncated, or grows beyond `max_size`.
    """
    pieces: list[bytes] = []
    size = 0
    for piece in inflated((memoryview(data),), name):
        size += len(piece)
        if size > max_size:
            raise InvalidInstance(
                f"{name}: inflates to more than {max_size} bytes; raise the limit if it can be trusted"
            )
        pieces.append(piece)
    return b"".join(pieces)


def inflate_beginning(chunks: Iterable[bytes], size: int) -> bytes:
    """Return the first of a deflated data set, as far as it can be inflated: at most `size` bytes."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    beginning = bytearray()
    with suppress(zlib.error):
        for chunk in chunks:
            beginning += stream.decompress(chunk, size - len(beginning))
            if len(beginning) == size or stream.eof:
                break
    return bytes(beginning)
