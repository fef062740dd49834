"""The version of aiodicom, and how it names itself on the wire and in files."""

from __future__ import annotations

from typing import Final

__all__ = ["IMPLEMENTATION_CLASS_UID", "IMPLEMENTATION_VERSION_NAME", "__version__"]

__version__: Final = "0.1.0"
"""The release of this package."""

IMPLEMENTATION_CLASS_UID: Final = "2.25.227315741405450653735995286882259067010"
"""Implementation Class UID of aiodicom (PS3.7 §D.3.3.2, PS3.10 Table 7.1-1), derived from a UUID (PS3.5 §B.2)."""

IMPLEMENTATION_VERSION_NAME: Final = "AIODICOM_010"
"""Implementation Version Name of this release, 1 to 16 characters (PS3.7 §D.3.3.2, PS3.10 Table 7.1-1)."""
