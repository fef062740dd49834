"""A DIMSE message ⇄ presentation data values (PS3.7 §6.3, PS3.8 Annex E).

A message is a command set and perhaps a data set; each is cut into fragments no longer than the receiver takes. The
fragments of one message never interleave with those of another, so that an `Assembler` needs no more memory than one command
set; the fragments of a data set are handed on as they come.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from aiodicom.dimse.codec import decode_command
from aiodicom.dimse.commands import Command
from aiodicom.errors import RemoteProtocolError
from aiodicom.limits import DEFAULT_LIMITS
from aiodicom.upper_layer.items import INVALID_PARAMETER_VALUE
from aiodicom.upper_layer.pdu import PDV

MAXIMUM_COMMAND_SET: Final = DEFAULT_LIMITS.maximum_command_set
"""The longest command set that is taken, in bytes."""

UNEXPECTED_PARAMETER: Final = 5


class ReceivedCommand(NamedTuple):
    """A complete command set, and whether a data set follows it."""

    context_id: int
    command: Command
    has_data_set: bool


class DataFragment(NamedTuple):
    """A piece of the data set that belongs to the last `ReceivedCommand`; `data` refers to the bytes received."""

    data: bytes | memoryview
    is_last: bool


def fragment_length(maximum_length: int, *, default: int) -> int:
    """Return how long a fragment may be for a receiver that announced `maximum_length` (PS3.8 §D.1, §E.1).

    The announced length covers the 6 bytes of a PDV's header, and fragments are even. Where no limit was announced (0),
    or one that no fragment fits in, `default` is used as if it had been.
    """
    return max((maximum_length if maximum_length > 7 else default) - 6, 2) & ~1


def fragment(
    context_id: int, data: bytes | memoryview, length: int, *, is_command: bool = False, is_last: bool = True
) -> Iterator[PDV]:
    """Yield `data` as fragments of at most `length` bytes, an even number; they refer to it, nothing is copied.

    Args:
        context_id: of the presentation context it belongs to.
        data: a command set, a data set, or a part of one; an empty one makes one empty fragment.
        length: as `fragment_length` gives it.
        is_command: whether it is a command set.
        is_last: whether the command set or data set ends with it.
    """
    view = memoryview(data)
    if len(view) <= length:
        yield PDV(context_id, is_command, is_last, view)
        return
    last_start = (len(view) - 1) // length * length
    for start in range(0, last_start + 1, length):
        yield PDV(context_id, is_command, is_last and start == last_start, view[start : start + length])


class Assembler:
    """Turns the PDVs of an association into command sets and fragments of data sets.

    Args:
        context_ids: of the accepted presentation contexts.
        maximum: the longest command set that is taken, in bytes.
    """

    __slots__ = ("_command", "_context_ids", "_data_context", "_maximum", "_pending_context")

    def __init__(self, context_ids: Container[int], maximum: int = MAXIMUM_COMMAND_SET) -> None:
        self._maximum = maximum
        self._context_ids = context_ids
        self._command = bytearray()  # the command set that is arriving
        self._pending_context: int | None = None  # its context
        self._data_context: int | None = None  # the context of the data set that is due

    @property
    def inside_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._pending_context is not None or self._data_context is not None

    def receive(self, pdv: PDV) -> ReceivedCommand | DataFragment | None:
        """Take the next PDV; return what it completes or carries, None for the beginning of a command set.

        Raises:
            RemoteProtocolError: an unknown context, an interleaved message, a data set without a command set, a command
                set that is too long or cannot be decoded.
        """
        if not pdv.is_command:
            if pdv.context_id != self._data_context:
                raise self._misplaced(pdv)
            if pdv.is_last:
                self._data_context = None
            return DataFragment(pdv.data, pdv.is_last)
        if self._data_context is not None or self._pending_context not in (None, pdv.context_id):
            raise self._misplaced(pdv)
        if pdv.context_id not in self._context_ids:
            raise self._misplaced(pdv)
        if len(self._command) + len(pdv.data) > self._maximum:
            raise RemoteProtocolError(
                f"a command set of more than {self._maximum} bytes", reason=INVALID_PARAMETER_VALUE
            )
        if not self._command and pdv.is_last:
            return self._complete(pdv.context_id, pdv.data)
        self._pending_context = pdv.context_id
        self._command += pdv.data
        if not pdv.is_last:
            return None
        command, self._command = self._command, bytearray()
        return self._complete(pdv.context_id, command)

    def _complete(self, context_id: int, data: bytes | bytearray | memoryview) -> ReceivedCommand:
        command, has_data_set = decode_command(data)
        self._pending_context = None
        self._data_context = context_id if has_data_set else None
        return ReceivedCommand(context_id, command, has_data_set)

    def _misplaced(self, pdv: PDV) -> RemoteProtocolError:
        if pdv.context_id not in self._context_ids:
            return RemoteProtocolError(
                f"presentation context {pdv.context_id} was not accepted", reason=INVALID_PARAMETER_VALUE
            )
        kind = "command" if pdv.is_command else "data"
        return RemoteProtocolError(
            f"a {kind} fragment of context {pdv.context_id} where none is due (PS3.8 §E.2)",
            reason=UNEXPECTED_PARAMETER,
        )
