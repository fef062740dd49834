"""The scan of a data set that comes part by part, deflated or not, see `aiodicom.scanner`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aiodicom.errors import InvalidInstance
from aiodicom.inflating import Inflater
from aiodicom.scanner import AS_IT_IS, UNKNOWN, Bounds, Buffer, Found, Scanner, Starved, Wanted
from aiodicom.uids import DEFLATED, EXPLICIT_VR_LITTLE_ENDIAN

__all__ = ["Scan"]

_META_GROUP: Final = b"\2\0"


class Scan:
    """The scan of a data set that comes part by part.

    Of a deflated one that grows as nothing honest does, only the beginning is looked at.

    Args:
        transfer_syntax_uid: how it is encoded.
        name: what to call it in an error.
        bounds: how much it may hold.
        wanted: the elements to be picked, not those in sequences; none of them a sequence.
    """

    def __init__(
        self,
        transfer_syntax_uid: str,
        name: str = "data set",
        bounds: Bounds = AS_IT_IS,
        wanted: Wanted | None = None,
    ) -> None:
        self._name = name
        self._inflater = Inflater(name, bounds.ratio) if transfer_syntax_uid in DEFLATED else None
        syntax = EXPLICIT_VR_LITTLE_ENDIAN if self._inflater else transfer_syntax_uid
        self._scanner = _Growing(syntax, name, bounds, wanted)

    @property
    def found(self) -> Found:
        """VR and value of the elements that are wanted, as far as they have come."""
        return self._scanner.found

    def feed(self, chunk: Buffer) -> None:
        """Walk over the next part.

        Raises:
            InvalidInstance: as `Scanner.run` does.
        """
        if self._inflater is None:
            self._scanner.feed(chunk)
        elif not self._inflater.is_bomb:
            self._feed_inflated(self._inflater.feed(memoryview(chunk)))

    def finish(self) -> None:
        """See that it is whole, since no more will come.

        Raises:
            InvalidInstance: as `Scanner.run` does.
        """
        if self._inflater is not None and not self._inflater.is_bomb:
            self._feed_inflated(self._inflater.finish())
        if self._inflater is None or not self._inflater.is_bomb:
            self._scanner.finish()

    def _feed_inflated(self, pieces: Iterator[bytes]) -> None:
        assert self._inflater is not None
        for piece in pieces:
            if not self._scanner.fed and piece.startswith(_META_GROUP):
                raise InvalidInstance(f"{self._name}: has File Meta Information in its deflated stream")
            self._scanner.feed(piece)
            if self._inflater.is_bomb:
                break


class _Growing(Scanner):
    """A walk that waits where the bytes have not come yet; it keeps those that it needs next."""

    def __init__(self, transfer_syntax_uid: str, name: str, bounds: Bounds, wanted: Wanted | None) -> None:
        super().__init__(self._rest_from, b"", UNKNOWN, transfer_syntax_uid, name, bounds, wanted)
        self._rest: bytes | bytearray | memoryview = b""
        self._rest_at = 0
        self.fed = self._needed = 0

    def feed(self, chunk: Buffer) -> None:
        """Walk on as far as possible."""
        before, self.fed = self.fed, self.fed + len(chunk)
        if self.fed <= self._pos:
            return  # in the midst of a value
        if self._rest:
            if not isinstance(self._rest, bytearray):
                self._rest = bytearray(self._rest)  # which grows in place
            self._rest += chunk
        else:
            self._rest, self._rest_at = chunk, before
        if self.fed >= self._needed:
            self._walk_on()

    def finish(self) -> None:
        """Walk to the end."""
        self._end = self.fed
        around = [self._stop, *(each.stop for each in self._open), *(each.item[0] for each in self._open if each.item)]
        reach = max(self._pos, *(stop for stop in around if stop != UNKNOWN), 0)
        if reach > self._end:
            self._fail(f"truncated: what began last reaches {reach - self._end} bytes beyond the end", again=True)
        self._stop = self._known(self._stop)
        self._walk_on()

    def _walk_on(self) -> None:
        self._rest = bytes(self._rest)
        self._buffer, self._limit = b"", -1
        try:
            self._advance()
        except Starved as starved:
            self._needed = starved.needed
        self._buffer = b""
        self._rest = self._rest[self._pos - self._rest_at :]
        self._rest_at = self._pos

    def _rest_from(self, offset: int, _size: int) -> Buffer:
        return memoryview(self._rest)[offset - self._rest_at :] if offset >= self._rest_at else b""
