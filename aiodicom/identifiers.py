"""Identifiers, and other data sets that pydicom is to read whole: scanned first, and decoded where that holds nobody up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiodicom.dataset import decode_data_set
from aiodicom.errors import InvalidInstance
from aiodicom.inflating import inflate
from aiodicom.limits import Limits
from aiodicom.part10 import check_data_set
from aiodicom.scanner import Bounds, Scanner, wanted
from aiodicom.sequences import is_at_hand, is_sequence, sequence_tags
from aiodicom.uids import DEFLATED, EXPLICIT_VR_LITTLE_ENDIAN
from aiodicom.workers import InThread

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["decode_identifier", "pick_value"]

_SMALL: Final = 16 * 1024
_FEW: Final = 256
"""Up to so many bytes, elements and items an identifier is decoded in the event loop, which takes less time than a change of
threads: pydicom takes 10 to 20 µs for each."""


async def decode_identifier(
    data: bytes, transfer_syntax_uid: str, limits: Limits, in_thread: InThread, *, with_items: bool = False
) -> Dataset:
    """Decode an identifier of either side, within its limits; in a worker thread where that may take long.

    Args:
        data: as it came.
        transfer_syntax_uid: how it is encoded.
        limits: what it may hold.
        in_thread: runs what takes long.
        with_items: parse the sequences, too, so that this does not happen where they are looked at.

    Raises:
        InvalidInstance: it cannot be decoded, or exceeds a limit.
    """
    bounds = Bounds(limits.maximum_depth, limits.maximum_identifier_elements, in_unknown=True)
    if not is_at_hand():
        await in_thread(sequence_tags)
    is_small = len(data) <= _SMALL and transfer_syntax_uid not in DEFLATED
    if is_small and check_data_set(data, transfer_syntax_uid, bounds=bounds) <= _FEW:
        return _decode(data, transfer_syntax_uid, limits, None, with_items)
    return await in_thread(_decode, data, transfer_syntax_uid, limits, bounds, with_items)


def _decode(data: bytes, transfer_syntax_uid: str, limits: Limits, bounds: Bounds | None, with_items: bool) -> Dataset:
    identifier = decode_data_set(data, transfer_syntax_uid, max_inflated=limits.maximum_identifier, bounds=bounds)
    if with_items:
        try:
            # Other values are left as they are: about one that its VR does not allow, as those of a query often are,
            # pydicom's log would tell, and quote it.
            for tag in list(identifier.keys()):
                if is_sequence(tag):
                    identifier[tag]
        except Exception as error:  # noqa: BLE001 - whatever pydicom meets in a value
            raise InvalidInstance(f"a value of the identifier cannot be read: {type(error).__name__}") from None
    return identifier


def pick_value(data: bytes, transfer_syntax_uid: str, tag: int, limits: Limits) -> bytes:
    """Return the value of one element, and nothing where it is not there; pydicom is not asked.

    Args:
        data: the data set of a response.
        transfer_syntax_uid: how it is encoded.
        tag: of the element, which is in no sequence.
        limits: what the data set may hold.

    Raises:
        InvalidInstance: it is damaged, or exceeds a limit.
    """
    if transfer_syntax_uid in DEFLATED:
        data, transfer_syntax_uid = inflate(data, limits.maximum_identifier), EXPLICIT_VR_LITTLE_ENDIAN
    bounds = Bounds(limits.maximum_depth, limits.maximum_identifier_elements)
    end = len(data)
    scanner = Scanner(
        lambda at, size: data[at : at + size],
        data,
        end,
        transfer_syntax_uid,
        "data set",
        bounds,
        wanted(tag),
        longest=end,
    )
    scanner.run(0)
    return scanner.found.get(tag, (b"", b""))[1]
