"""Names for files, made of a template and of what the instances say of themselves; none leads out of its folder."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from unicodedata import category, normalize

from aiodicom.errors import InvalidInstance, LocalProtocolError
from aiodicom.part10 import open_instance
from aiodicom.services.storage import decoding_errors, read_head

if TYPE_CHECKING:
    from pydicom import Dataset

DEFAULT_TEMPLATE: Final = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
UNKNOWN: Final = "unknown"
"""What stands for a value that an instance does not have."""

LONGEST_VALUE: Final = 64
"""How many characters of a value are used: as many as a UID has at most."""

_LONGEST_COMPONENT: Final = 200  # bytes; file systems allow 255, and a number may follow
_LONGEST_SUFFIX: Final = 16
_NAMES_REMEMBERED: Final = 100_000
_ALSO_ALLOWED: Final = frozenset("-.+=@,()")  # besides letters, marks and digits of any language
_BINARY: Final = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
_UNUSABLE: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"})
# What Windows takes for a device, whatever follows behind a dot.
_DEVICES: Final = frozenset(
    {"AUX", "CON", "NUL", "PRN", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)


class NameTemplate:
    """Names the files of `Operation.save`: `NameTemplate("{PatientID}/{Modality}/{InstanceNumber:05}.dcm")`.

    What is in braces is a keyword of the dictionary (PS3.6 §6), and may have a format as Python's numbers and strings
    have. Letters and digits of any language stay as they are, and everything else becomes `_`; a value that is missing
    becomes `unknown`. Where the name is that of another instance, a number is added: `…-2.dcm`. An instance that comes
    again has its name again.

    It may be used from several threads, and blocks while it reads the head of the file.

    Args:
        template: relative, its folders separated by "/".

    Raises:
        LocalProtocolError: it is no template.
    """

    def __init__(self, template: str = DEFAULT_TEMPLATE) -> None:
        self.template = template
        self._components = [_parse(component, template) for component in template.split("/")]
        self._tags = {keyword: tag for fields in self._components for _, keyword, tag, _ in fields if keyword}
        if not self._tags:
            raise LocalProtocolError(f"the template {template!r} names nothing: write a keyword in braces")
        literal, keyword, *_ = self._components[-1][-1]
        self._suffix = "" if keyword else PurePosixPath(f"name{literal.rstrip('. ')}").suffix[:_LONGEST_SUFFIX]
        self._given: dict[str, str] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.template!r})"

    def __call__(self, path: Path) -> str:
        """Return a name below the folder in which that PS3.10 file is, for its final place.

        Raises:
            DimseError: 0xC000 where its data set cannot be read (PS3.4 §B.2.3).
        """
        file, elements = read_head(path, tuple(self._tags.values()))
        values = {keyword: _text(elements, tag) for keyword, tag in self._tags.items()}
        # As everywhere in a file, the meta information has the last word.
        values |= {"SOPClassUID": file.sop_class_uid, "SOPInstanceUID": file.sop_instance_uid}
        *folders, last = (_component(fields, values) for fields in self._components)
        name = "/".join((*map(_clipped, folders), _clipped(last, self._suffix)))
        with self._lock:
            return self._free(path.parent, name, file.sop_instance_uid)

    def _free(self, folder: Path, name: str, uid: str) -> str:
        """Return the name, or the first one with a number, that no other instance has."""
        numbered, number = name, 1
        while True:
            key = f"{folder}/{numbered}".casefold()  # some file systems do not know A from a
            holder = self._given.get(key) or _holder(folder / numbered)
            if holder in (None, uid):
                break
            number += 1
            numbered = f"{name.removesuffix(self._suffix)}-{number}{self._suffix}"
        self._given[key] = uid
        if len(self._given) > _NAMES_REMEMBERED:  # the oldest are on disk by now
            del self._given[next(iter(self._given))]
        return numbered


def _parse(component: str, template: str) -> list[tuple[str, str, int, str]]:
    """Return literal, keyword, tag and format of each field in a component of a template; a keyword may be empty."""

    def wrong(what: str) -> LocalProtocolError:
        return LocalProtocolError(f"the template {template!r} {what}")

    if component in ("", ".", "..") or not component.isprintable():
        raise wrong("must be a relative path, its folders separated by '/', without '.' and '..'")
    fields = []
    try:
        for literal, keyword, spec, conversion in string.Formatter().parse(component):
            if conversion or "{" in (spec or ""):
                raise wrong("has more than a keyword and a format in its braces")
            if set(literal) & set("\\:"):
                raise wrong("has a backslash or a colon, which lead elsewhere on some systems")
            fields.append((literal, keyword or "", _tag(keyword, wrong) if keyword is not None else 0, spec or ""))
            if spec and _formatted("1", spec) is None:
                raise wrong(f"has {spec!r} for a format, which is none")
    except ValueError as error:
        raise wrong(f"cannot be understood: {error}") from None
    return fields


def _tag(keyword: str, wrong: Callable[[str], LocalProtocolError]) -> int:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword) if keyword else None  # pydicom knows one with an empty keyword
    if tag is None:
        raise wrong(f"names {keyword!r}, which is no keyword of the data dictionary (PS3.6 §6)")
    if dictionary_VR(tag)[:2] in _UNUSABLE or tag >> 16 in (0, 2):
        raise wrong(f"names {keyword}, whose values are no text of the data set")
    return tag


def _text(elements: Dataset, tag: int) -> str:
    """Return the values of an element, "_" between them; empty where there is none that can be read.

    pydicom would warn of some values, and quote them: names of patients are not for logs.
    """
    from pydicom.datadict import dictionary_VR
    from pydicom.multival import MultiValue

    raw = elements.get_item(tag) if tag in elements else None
    if raw is None or not raw.value:
        return ""
    if (raw.VR or dictionary_VR(tag)[:2]) not in _BINARY:
        return _decoded(raw.value, elements.original_character_set).replace("\\", "_")
    try:
        value: Any = elements[tag].value
    except decoding_errors():
        return ""
    return "_".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def _decoded(value: bytes, codecs: str | MutableSequence[str]) -> str:
    from pydicom.charset import decode_bytes
    from pydicom.valuerep import TEXT_VR_DELIMS

    names = [codecs] if isinstance(codecs, str) else list(codecs)
    if b"\x1b" in value and len(names) > 1:  # ISO 2022 (PS3.5 §6.1.2.5)
        return decode_bytes(value, names, TEXT_VR_DELIMS)
    return value.decode(names[0], errors="replace")


def _component(fields: Sequence[tuple[str, str, int, str]], values: Mapping[str, str]) -> str:
    parts = []
    for literal, keyword, _, spec in fields:
        parts.append(literal)
        if keyword:
            value = values[keyword].strip(" \0^=")
            parts.append(_safe((_formatted(value, spec) if value and spec else None) or value))
    text = "".join(parts).lstrip(".").rstrip(". ") or UNKNOWN
    if text.startswith("-") or text.partition(".")[0].upper() in _DEVICES:
        return f"_{text}"  # nobody shall take it for an option, nor for a device
    return text


def _clipped(component: str, suffix: str = "") -> str:
    room = _LONGEST_COMPONENT - len(suffix.encode())
    return component.removesuffix(suffix).encode()[:room].decode(errors="ignore") + suffix


def _formatted(value: str, spec: str) -> str | None:
    """Return a value in a format, as a number where both are for numbers; None where the format is not for it."""
    candidates: list[int | str] = [value]
    if value.removeprefix("-").isdecimal() and value.isascii():
        candidates.insert(0, int(value))
    for candidate in candidates:
        try:
            return format(candidate, spec)
        except ValueError:
            continue
    return None


def _safe(value: str) -> str:
    """Return text that may stand in a file name, anywhere but for a dot at its beginning."""
    allowed = (each if category(each)[0] in "LMN" or each in _ALSO_ALLOWED else " " for each in normalize("NFC", value))
    return "_".join("".join(allowed).split())[:LONGEST_VALUE] or UNKNOWN


def _holder(path: Path) -> str | None:
    """Return the SOP Instance UID of the file there, None where there is none, "" where it is something else."""
    if not os.path.lexists(path):
        return None
    try:
        return open_instance(path, check=False).sop_instance_uid
    except (InvalidInstance, OSError):
        return ""
