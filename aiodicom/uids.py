"""The UIDs that the package itself needs, as plain strings, and pydicom's dictionary of all the others (PS3.6 Annex A).

The constants cost no import; the functions load pydicom when they are first called.
"""

from __future__ import annotations

from functools import cache
from typing import Final

# Transfer syntaxes: PS3.5 §10 and Annex A.
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
JPIP_REFERENCED: Final = "1.2.840.10008.1.2.4.94"
JPIP_REFERENCED_DEFLATE: Final = "1.2.840.10008.1.2.4.95"
JPIP_HTJ2K_REFERENCED: Final = "1.2.840.10008.1.2.4.204"
JPIP_HTJ2K_REFERENCED_DEFLATE: Final = "1.2.840.10008.1.2.4.205"

UNCOMPRESSED: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
"""The transfer syntaxes with native pixel data, between which a data set is transcoded without any codec."""

DEFLATED: Final = (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    JPIP_REFERENCED_DEFLATE,
    JPIP_HTJ2K_REFERENCED_DEFLATE,
)
"""The transfer syntaxes that deflate the whole data set (PS3.5 §A.5, §A.7, §A.11)."""

# PS3.7 §A.2.1, PS3.4 §A.4.
APPLICATION_CONTEXT_NAME: Final = "1.2.840.10008.3.1.1.1"
VERIFICATION: Final = "1.2.840.10008.1.1"

# PS3.10 §8.6: what a DICOMDIR is an instance of.
MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"

# Query/Retrieve: PS3.4 §C.6.
PATIENT_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_STUDY_ONLY_FIND: Final = "1.2.840.10008.5.1.4.1.2.3.1"
PATIENT_STUDY_ONLY_MOVE: Final = "1.2.840.10008.5.1.4.1.2.3.2"
PATIENT_STUDY_ONLY_GET: Final = "1.2.840.10008.5.1.4.1.2.3.3"
COMPOSITE_INSTANCE_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.4.2"
COMPOSITE_INSTANCE_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.4.3"
COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET: Final = "1.2.840.10008.5.1.4.1.2.5.3"

# Basic Worklist Management: PS3.4 §K.6.
MODALITY_WORKLIST_FIND: Final = "1.2.840.10008.5.1.4.31"


def uid_name(uid: str) -> str:
    """Return the name that PS3.6 Annex A gives to `uid`, or `uid` itself where it gives none."""
    from pydicom._uid_dict import UID_dictionary

    entry = UID_dictionary.get(uid)
    return entry[0] if entry else uid


@cache
def storage_sop_classes() -> tuple[str, ...]:
    """Return the SOP classes whose instances C-STORE carries (PS3.4 §B.5, Annex GG), in the order of their dictionary.

    Retired ones are among them, since modalities live long. Storage Commitment and the Media Storage Directory are not.
    """
    from pydicom._uid_dict import UID_dictionary

    return tuple(
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class"
        and " Storage" in name
        and "Storage Commitment" not in name
        and uid != MEDIA_STORAGE_DIRECTORY
    )


@cache
def transfer_syntaxes() -> tuple[str, ...]:
    """Return every transfer syntax of PS3.6 Table A-1: Explicit, then Implicit VR Little Endian first."""
    from pydicom._uid_dict import UID_dictionary

    known = (uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax")
    return tuple(dict.fromkeys((EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, *known)))
