"""Text in whatever character set a data set declares → Unicode, without ever failing (PS3.3 §C.12.1.1.2, PS3.5 §6.1).

pydicom knows the names; its own decoder warns where a value does not fit, and gives up where a name is unknown. An index
has to take what comes: what cannot be decoded becomes U+FFFD.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from pydicom.charset import CODES_TO_ENCODINGS, default_encoding, handled_encodings, python_encoding
from pydicom.valuerep import TEXT_VR_DELIMS

__all__ = ["decode", "encodings"]

_ESCAPE: Final = b"\x1b"
_FRAGMENTS: Final = re.compile(b"^[^\x1b]+|\x1b[^\x1b]*", re.DOTALL)
# Names are often misspelt: ISO-IR 100, ISO IR 100, ISO_IR_100, ISO 2022-IR 87.
_NAME: Final = re.compile(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?(\d+)", re.IGNORECASE)
# To these Python leaves the escape sequences; of the others, which it does not know, they are cut off.
_KEEP_THEIR_ESCAPES: Final = frozenset(handled_encodings) - {"iso_ir_58"}
_DELIMITERS: Final = re.compile(b"[" + re.escape(bytes(sorted(TEXT_VR_DELIMS))) + b"]")


@lru_cache(maxsize=256)
def encodings(specific_character_set: bytes) -> tuple[str, ...]:
    """Return Python's names of the encodings in a Specific Character Set (0008,0005), the first one never missing."""
    names = specific_character_set.decode("latin-1").split("\\")
    return tuple(_encoding(name.strip(" \0")) for name in names)


def decode(value: bytes, encodings: tuple[str, ...]) -> str:
    """Return text in the first of the encodings, and in others where escape sequences switch to them (PS3.5 §6.1.2.5)."""
    if _ESCAPE not in value:
        return value.decode(encodings[0], "replace")
    return "".join(_decode_fragment(fragment, encodings) for fragment in _FRAGMENTS.findall(value))


def _encoding(name: str) -> str:
    if match := _NAME.fullmatch(name):
        name = f"ISO 2022 IR {match[2]}" if match[1] else f"ISO_IR {match[2]}"
    return python_encoding.get(name, default_encoding)


def _decode_fragment(fragment: bytes, encodings: tuple[str, ...]) -> str:
    """Decode what begins with an escape sequence, or stands before the first one."""
    first = encodings[0]
    code = fragment[: 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3]
    encoding = CODES_TO_ENCODINGS.get(code, "")
    if encoding in _KEEP_THEIR_ESCAPES:
        return fragment.decode(encoding, "replace")
    if not encoding:
        return fragment.decode(first, "replace")
    text = fragment[len(code) :]
    delimiter = _DELIMITERS.search(text)  # switches back
    end = delimiter.start() if delimiter else len(text)
    return text[:end].decode(encoding, "replace") + text[end:].decode(first, "replace")
