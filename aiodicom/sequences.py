"""Which elements are sequences, by the data dictionary: in implicit VR, nothing else says so (PS3.5 §7.1.3, PS3.6)."""

from __future__ import annotations

from functools import cache

from aiodicom.uids import load_table

__all__ = ["is_at_hand", "is_sequence", "sequence_tags"]


@cache
def sequence_tags() -> frozenset[int]:
    """Return the tags of the sequences in the data dictionary; the first time it is read from a file."""
    return frozenset(tag for tag, (vr, *_) in load_table("_dicom_dict", "DicomDictionary").items() if vr == "SQ")


def is_at_hand() -> bool:
    """Tell whether the dictionary was read already: that takes longer than an event loop may be held up."""
    return sequence_tags.cache_info().currsize > 0


def is_sequence(tag: int) -> bool:
    """Tell whether the data dictionary has a sequence under that tag."""
    return tag in sequence_tags()
