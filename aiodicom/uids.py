"""The UIDs that the package itself needs, as plain strings, and pydicom's dictionary of all the others (PS3.6 Annex A).

The constants cost no import; the functions read pydicom's table when they are first called.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

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


@cache
def _dictionary() -> Mapping[str, tuple[str, ...]]:
    return load_table("_uid_dict", "UID_dictionary")


def load_table(module_name: str, name: str) -> Mapping[Any, tuple[str, ...]]:
    """Return a table of PS3.6 that pydicom has, without pydicom: that takes 60 MB, which a server can do without."""
    if loaded := sys.modules.get(f"pydicom.{module_name}"):
        there: Mapping[Any, tuple[str, ...]] = getattr(loaded, name)
        return there
    package = find_spec("pydicom")
    assert package is not None
    assert package.submodule_search_locations is not None
    spec = spec_from_file_location(module_name, Path(package.submodule_search_locations[0]) / f"{module_name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    table: Mapping[Any, tuple[str, ...]] = getattr(module, name)
    return table


def uid_name(uid: str) -> str:
    """Return the name that PS3.6 Annex A gives to `uid`, or `uid` itself where it gives none."""
    entry = _dictionary().get(uid)
    return entry[0] if entry else uid


@cache
def storage_sop_classes() -> tuple[str, ...]:
    """Return the SOP classes whose instances C-STORE carries (PS3.4 §B.5, Annex GG), in the order of their dictionary.

    Retired ones are among them, since modalities live long. Storage Commitment and the Media Storage Directory are not.
    """
    return tuple(
        uid
        for uid, (name, kind, *_) in _dictionary().items()
        if kind == "SOP Class"
        and " Storage" in name
        and "Storage Commitment" not in name
        and uid != MEDIA_STORAGE_DIRECTORY
    )


@cache
def transfer_syntaxes() -> tuple[str, ...]:
    """Return every transfer syntax of PS3.6 Table A-1: Explicit, then Implicit VR Little Endian first."""
    known = (uid for uid, (_, kind, *_) in _dictionary().items() if kind == "Transfer Syntax")
    return tuple(dict.fromkeys((EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, *known)))
