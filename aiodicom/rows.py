"""Matches as rows: keywords and plain Python values → an encoded data set, without a pydicom Dataset (PS3.5 §6.2, §7).

A C-FIND answers with thousands of small data sets of the same shape. What depends on the shape alone, which is tags, VRs
and the heads of elements by the length of their value, is computed once; the rest is a loop.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

from aiodicom.dataset import SPECIFIC_CHARACTER_SET, transcode
from aiodicom.errors import InvalidInstance, LocalProtocolError
from aiodicom.scanner import ITEM, LONG_VRS
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, UNCOMPRESSED

__all__ = [
    "INTERNATIONAL",
    "NO_TEXT",
    "SINGLE_VALUED",
    "UTF_8",
    "CharacterSet",
    "Row",
    "as_text",
    "character_set",
    "encode_row",
]

Row: TypeAlias = Mapping[Any, object]
"""Attributes by keyword (str), or by tag as a number (int); see `encode_row`."""

CharacterSet: TypeAlias = Callable[[str], bytes]
"""Encodes text, backslashes between values included; raises UnicodeEncodeError where it cannot."""

UTF_8: Final = "ISO_IR 192"

# PS3.5 §6.1.2.3: the VRs whose text Specific Character Set is about; the others keep to the default repertoire.
INTERNATIONAL: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
SINGLE_VALUED: Final = frozenset(("LT", "ST", "UR", "UT"))  # a backslash in them is a character
_BULK: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_NUMBERS: Final = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
NO_TEXT: Final = frozenset((*_BULK, *_NUMBERS, "AT", "SQ"))
"""The VRs whose values are no text."""

_PADDED_BY_NUL: Final = frozenset(("OB", "UI", "UN"))
_LONGEST_HEAD: Final = 64  # up to this length of a value, the head of its element is looked up
_WIDEST_KEPT: Final = 256  # attributes of a row whose shape is remembered
_MAXIMUM_LENGTH: Final = 0xFFFFFFFE
# What converting a value raises; OverflowError is an ArithmeticError, UnicodeEncodeError a ValueError.
_REFUSALS: Final = (ArithmeticError, AttributeError, TypeError, ValueError, struct.error)


class _Column(NamedTuple):
    # What is known of an element before there is a value.
    tag: int
    vr: str
    textual: bool
    head: bytes  # the tag
    rests: tuple[bytes, ...]  # of the head, by the number of bytes in a value that is yet to be padded
    padding: bytes


def encode_row(row: Row, transfer_syntax_uid: str) -> bytes:
    r"""Return a row as an encoded data set (PS3.5 §7).

    A value is a str, several of them a list or joined by backslashes; None or "" where there is none. Numbers stand for
    DS, IS and the binary VRs, `date`, `time` and `datetime` for DA, TM and DT, an int for a tag (AT), a list of rows for a
    sequence. Bytes are the value as it is encoded, for any VR but SQ. Text is encoded by the Specific Character Set
    (0008,0005) of the row; without one, UTF-8 is used and declared as soon as there is text beyond ASCII.

    Args:
        row: attributes by keyword, or by tag as a number.
        transfer_syntax_uid: one of `aiodicom.dataset.UNCOMPRESSED`.

    Raises:
        LocalProtocolError: a keyword is not in the data dictionary, a tag belongs to no data set, the transfer syntax is
            a compressed one.
        InvalidInstance: a value cannot be encoded. The message names the element, never its value.
    """
    if transfer_syntax_uid not in UNCOMPRESSED:
        raise LocalProtocolError(
            f"a row cannot be encoded in transfer syntax {transfer_syntax_uid}: it is not among the uncompressed ones"
        )
    explicit = transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
    try:
        data = _encode(row, explicit, _only_ascii)
    except _BeyondASCII:
        # By number, so that it does not stand beside the keyword of the same element.
        declared = {key: value for key, value in row.items() if key != "SpecificCharacterSet"}
        data = _encode({**declared, SPECIFIC_CHARACTER_SET: UTF_8}, explicit, _only_ascii)
    if transfer_syntax_uid in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        return data
    return transcode(data, EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax_uid)


def _encode(row: Row, explicit: bool, text: CharacterSet) -> bytes:
    columns = _columns(tuple(row), explicit) if len(row) <= _WIDEST_KEPT else _sorted_columns(row, explicit)
    if declared := as_text(row.get("SpecificCharacterSet") or row.get(SPECIFIC_CHARACTER_SET), "CS"):
        text = _declared(declared)
    pieces: list[bytes] = []
    for key, (tag, vr, textual, head, rests, padding) in columns:
        value = row[key]
        try:
            if textual and isinstance(value, str):
                data = value.encode() if value.isascii() else _beyond_ascii(value, vr, text)
            else:
                data = _value(value, vr, explicit, text)
        except (InvalidInstance, LocalProtocolError, _BeyondASCII):
            raise
        except _REFUSALS as error:  # not chained: Python's messages quote values
            raise InvalidInstance(
                f"({tag >> 16:04X},{tag & 0xFFFF:04X}): its value cannot be encoded as {vr}: {type(error).__name__}"
            ) from None
        length = len(data)
        pieces.append(head)
        pieces.append(rests[length] if length <= _LONGEST_HEAD else _rest(vr, length, explicit))
        pieces.append(data)
        if length % 2:
            pieces.append(padding)
    return b"".join(pieces)


# Peers choose the shapes, so that what is kept of them is bounded.
@lru_cache(maxsize=128)
def _columns(keys: tuple[str | int, ...], explicit: bool) -> tuple[tuple[str | int, _Column], ...]:
    return _sorted_columns(keys, explicit)


def _sorted_columns(keys: Iterable[str | int], explicit: bool) -> tuple[tuple[str | int, _Column], ...]:
    # The columns of rows of one shape, in the order of their elements.
    found = sorted(((key, _column(key, explicit)) for key in keys), key=lambda pair: pair[1].tag)
    for (_, one), (key, other) in pairwise(found):
        if one.tag == other.tag:
            raise LocalProtocolError(f"{key!r} is given twice, by keyword and by tag")
    return tuple(found)


@lru_cache(maxsize=16_384)
def _column(key: str | int, explicit: bool) -> _Column:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(key) if isinstance(key, str) else key
    if tag is None or key == "":
        raise LocalProtocolError(f"{key!r} is no keyword of the data dictionary (PS3.6 §6): name its tag by number")
    group, element = tag >> 16, tag & 0xFFFF
    if not 2 < group <= 0xFFFF or element == 0 or group == 0xFFFE:
        raise LocalProtocolError(f"({group:04X},{element:04X}) is no element of a data set")
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        vr = "LO" if group % 2 and 0x10 <= element <= 0xFF else "UN"  # a private creator, or nobody knows (PS3.5 §7.8)
    if " " in vr:  # "US or SS", "OB or OW", …: the usual one
        vr = "OW" if "OB" in vr else "US"
    head, padding = struct.pack("<HH", group, element), b"\0" if vr in _PADDED_BY_NUL else b" "
    return _Column(tag, vr, vr not in NO_TEXT, head, _rests(vr, explicit), padding)


@cache  # there are some thirty VRs
def _rests(vr: str, explicit: bool) -> tuple[bytes, ...]:
    return tuple(_rest(vr, length, explicit) for length in range(_LONGEST_HEAD + 1))


def _rest(vr: str, length: int, explicit: bool) -> bytes:
    # What follows the tag in a head: the VR, if it is explicit, and the length.
    even = length + length % 2
    if even > _MAXIMUM_LENGTH:
        raise InvalidInstance(f"a value of {length} bytes is longer than any element")
    if not explicit:
        return struct.pack("<I", even)
    if vr.encode() in LONG_VRS:
        return struct.pack("<2sHI", vr.encode(), 0, even)
    if even <= 0xFFFF:
        return struct.pack("<2sH", vr.encode(), even)
    return struct.pack("<2sHI", b"UN", 0, even)  # PS3.5 §6.2.2: too long for its VR


# ---- values


def _value(value: object, vr: str, explicit: bool, text: CharacterSet) -> bytes:
    if vr == "SQ":
        return b"".join(_items(value, explicit, text))
    if value is None:
        return b""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if vr in _NUMBERS:
        values = _several(value)
        convert: Callable[[Any], float] = float if vr in ("FD", "FL") else _whole
        return struct.pack(f"<{len(values)}{_NUMBERS[vr]}", *map(convert, values))
    if vr == "AT":
        return b"".join(struct.pack("<HH", each >> 16, each & 0xFFFF) for each in map(_tag, _several(value)))
    if vr in _BULK:
        raise TypeError
    words = as_text(value, vr)
    return words.encode() if words.isascii() else _beyond_ascii(words, vr, text)


def _items(value: object, explicit: bool, text: CharacterSet) -> Iterable[bytes]:
    for item in [value] if isinstance(value, Mapping) else _several(value):
        if not isinstance(item, Mapping):
            raise TypeError
        content = _encode(item, explicit, text)
        yield struct.pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, len(content)) + content


def _several(value: object) -> Sequence[object]:
    if isinstance(value, str):
        return value.split("\\") if value else ()
    if isinstance(value, Sequence):
        return value
    return () if value is None else (value,)


def _tag(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def as_text(value: object, vr: str) -> str:
    """Return a value of Python as text of a VR, several values joined by backslashes; see `encode_row`.

    Raises:
        TypeError, ValueError: the VR has no such value.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if vr in SINGLE_VALUED and len(value) > 1:
            raise ValueError
        return "\\".join(_word(each, vr) for each in value)
    return _word(value, vr)


def _word(value: object, vr: str) -> str:
    """One value as text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | Mapping | Sequence | Set):
        raise TypeError
    if vr in ("DA", "TM", "DT"):
        return _moment(value, vr)
    if vr == "IS":
        return str(value) if isinstance(value, int) else str(_whole(value))
    if vr == "DS":
        return _decimal(value)
    return str(value)


def _moment(value: object, vr: str) -> str:
    day = f"{value.year:04}{value.month:02}{value.day:02}" if isinstance(value, date) else ""
    clock = ""
    if isinstance(value, time | datetime):
        clock = f"{value.hour:02}{value.minute:02}{value.second:02}"
        clock += f".{value.microsecond:06}" if value.microsecond else ""
    words = {"DA": day, "TM": clock, "DT": day and day + clock}[vr]
    if not words:
        raise TypeError
    if vr == "DT" and isinstance(value, datetime):
        words += value.strftime("%z")[:5]
    return words


def _whole(value: object) -> int:
    if isinstance(value, str):
        return int(value)
    if not isinstance(value, int | float | Decimal) or int(value) != value:
        raise TypeError
    return int(value)


def _decimal(value: object) -> str:
    if not isinstance(value, int | float | Decimal):
        raise TypeError
    words = str(value)
    if len(words) <= 16 and words.lower() not in ("nan", "inf", "-inf"):
        return words
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))


# ---- character sets


class _BeyondASCII(Exception):
    """There is text beyond ASCII, and no Specific Character Set."""


def _beyond_ascii(words: str, vr: str, text: CharacterSet) -> bytes:
    if vr not in INTERNATIONAL:
        raise ValueError
    return text(words)


def _only_ascii(_: str) -> bytes:
    raise _BeyondASCII


def _declared(terms: str) -> CharacterSet:
    text = character_set(terms)
    if text is None:
        raise InvalidInstance("(0008,0005): has a character set that is not known (PS3.3 §C.12.1.1.2)")
    return text


@lru_cache(maxsize=256)
def character_set(terms: str) -> CharacterSet | None:
    r"""Return what encodes text by Specific Character Set (0008,0005) (PS3.3 §C.12.1.1.2, PS3.5 §6.1.2).

    It raises UnicodeEncodeError about text that these character sets cannot hold.

    Args:
        terms: its values joined by backslashes; empty is the default repertoire.

    Returns:
        None where one of them is not known.
    """
    from pydicom.charset import ENCODINGS_TO_CODES, python_encoding

    codecs = [python_encoding.get(term.strip(" \0"), "") for term in terms.split("\\")]
    if "" in codecs:
        return None
    first = codecs[0]
    if first not in ENCODINGS_TO_CODES:  # UTF-8, GB18030, GBK: they stand alone
        return lambda words: words.encode(first)
    # To pydicom the default repertoire is Latin-1; nothing beyond ASCII may be written in it.
    escapes = {codec: ENCODINGS_TO_CODES[codec] for codec in codecs if codec in ENCODINGS_TO_CODES and codec != _ASCII}
    basic = b"\x1b(J" if first == _JIS_X_0201 else b"\x1b(B"
    initial = basic if first == _ASCII or escapes[first] in _MULTI_BYTE_G0 else escapes[first]
    return lambda words: _extended(words, escapes, basic, initial)


# The names that pydicom's tables of PS3.3 Table C.12-2 to C.12-4 use.
_ASCII: Final = "iso8859"
_JIS_X_0201: Final = "shift_jis"
# JIS X 0208 and 0212: the bytes after these escapes have no eighth bit, so that ASCII has to be invoked again.
_MULTI_BYTE_G0: Final = (b"\x1b$B", b"\x1b$(D")
_DELIMITERS: Final = frozenset("\\^=\t\n\f\r")


def _extended(words: str, escapes: Mapping[str, bytes], basic: bytes, initial: bytes) -> bytes:
    """Encode with code extensions: behind a delimiter, the initial character sets are active again (PS3.5 §6.1.2.5.3)."""
    encoded = bytearray()
    active = initial
    for character in words:
        needed, data = active, character.encode("utf-8", "surrogatepass")
        if not character.isascii():
            needed, data = _designated(character, escapes)
        if active in _MULTI_BYTE_G0 and (needed != active or character.isascii()):
            encoded += basic
            active = basic
        if character in _DELIMITERS:
            active = initial if active == initial else b""  # said again, for readers that do not go back by themselves
        elif needed != active and not character.isascii():
            encoded += needed
            active = needed
        encoded += data
    return bytes(encoded + basic if active in _MULTI_BYTE_G0 else encoded)


def _designated(character: str, escapes: Mapping[str, bytes]) -> tuple[bytes, bytes]:
    # The escape sequence of the first character set that has the character, and its code there.
    for codec, escape in escapes.items():
        try:
            data = character.encode(codec)
        except UnicodeEncodeError:
            continue
        if escape in _MULTI_BYTE_G0:
            if data.startswith(escape):
                return escape, data[len(escape) : -len(b"\x1b(B")]
        elif data[0] > 0x7F and not (codec == _JIS_X_0201 and len(data) > 1):
            return escape, data
    raise UnicodeEncodeError("ISO 2022", character, 0, 1, "is in none of the character sets")
