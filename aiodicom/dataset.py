"""pydicom Datasets ⇄ encoded data sets, and data sets from one transfer syntax to another (PS3.5 §7, §10, Annex A).

Elements that nobody touched keep the bytes of their values: these are byte-swapped where the order of bytes changes, padded
to even length, and never parsed, so that invalid or undecodable text arrives as it was sent. pydicom reads the structure,
knows the VRs and encodes what was set in Python. All of it is plain, blocking code for worker threads.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiodicom.errors import InvalidInstance
from aiodicom.inflating import inflate
from aiodicom.part10 import check_data_set
from aiodicom.scanner import (
    AS_IT_IS,
    ITEM,
    ITEM_DELIMITATION,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    UNDEFINED,
    Bounds,
    Buffer,
    data_set_encoding,
)
from aiodicom.uids import (
    DEFLATED,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPIP_HTJ2K_REFERENCED,
    JPIP_REFERENCED,
    UNCOMPRESSED,
)

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

_Element: TypeAlias = "DataElement | RawDataElement"  # parsed or set in Python | a tuple, as it was read

__all__ = ["MAXIMUM_INFLATED", "UNCOMPRESSED", "decode_data_set", "encode_data_set", "transcode"]

MAXIMUM_INFLATED: Final = 256 * 1024 * 1024
"""How many bytes a deflated data set may inflate to unless a caller allows more: 256 MiB."""

SPECIFIC_CHARACTER_SET: Final = 0x00080005
PIXEL_DATA_PROVIDER_URL: Final = 0x00287FE0
# Extended Offset Table, its lengths, and the total length: they describe encapsulated pixel data only (PS3.3 §C.7.6.3).
_ENCAPSULATION: Final = (0x7FE00001, 0x7FE00002, 0x7FE00003)
_NATIVE_COLOURS: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL")
_NATIVE: Final = frozenset((*UNCOMPRESSED, *DEFLATED, JPIP_REFERENCED, JPIP_HTJ2K_REFERENCED))

# PS3.5 §7.3: the VRs whose values are words of several bytes. UN is none of them: its value is in little endian in
# every transfer syntax, and "shall not be byte-swapped" (§6.2.2).
_WORDS: Final = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), "H"),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), "I"),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), "Q"),
}
# Padded to even length by a NUL; the others, which are text, by a space (PS3.5 §6.2).
_NUL_PADDED: Final = frozenset(("OB", "UI", "UN", *_WORDS))
_BULK: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))  # bytes in pydicom too
# Pillow does not read every JPEG 2000; and damaged data can make GDCM end the whole process.
_LAST_PLUGINS: Final = {"pillow": 1, "gdcm": 2}
# What pydicom raises about a value that its VR does not allow.
_REFUSALS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def encode_data_set(ds: Dataset, transfer_syntax_uid: str) -> bytes:
    """Return the elements of a Dataset encoded in a transfer syntax, without preamble and group 0002 (PS3.5 §7).

    Neither the Dataset nor its items are changed. The bytes in its OB, OD, OF, OL, OV and OW values are taken to be in the
    order in which it was read, or which its `file_meta` names; of a Dataset made from scratch, in little endian. Group
    lengths (gggg,0000) are retired and left out.

    Args:
        ds: what to encode.
        transfer_syntax_uid: any one. Pixel data must already be in it, compressed or native.

    Raises:
        InvalidInstance: pixel data would have to be compressed or decompressed, there are command elements (group 0000)
            among the others, or a value cannot be encoded. The message names the element, never its value.
    """
    source = _own_syntax(ds)
    _check_pixel_data(ds, source, transfer_syntax_uid)
    around = _Source(
        implicit=source == IMPLICIT_VR_LITTLE_ENDIAN, little=source != EXPLICIT_VR_BIG_ENDIAN, codecs=("iso8859",)
    )
    private = not transfer_syntax_uid.startswith("1.2.840.10008.")
    target = _Target(
        implicit=bool(ds.original_encoding[0]) if private else transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
        little=transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN,
        native=transfer_syntax_uid in _NATIVE,
    )
    try:
        data = b"".join(target.elements(ds, around))
    except RecursionError:
        raise InvalidInstance("the sequences of the data set are nested too deeply") from None
    return _deflate(data) if transfer_syntax_uid in DEFLATED else data


def decode_data_set(
    data: Buffer, transfer_syntax_uid: str, *, max_inflated: int = MAXIMUM_INFLATED, bounds: Bounds | None = AS_IT_IS
) -> Dataset:
    """Return an encoded data set as a Dataset, whose `file_meta` names the transfer syntax (PS3.5 §7).

    So `ds.pixel_array`, `ds.decompress()` and `ds.save_as(…, enforce_file_format=True)` work on it. The structure is
    checked first, see `aiodicom.part10.check_data_set`; values are parsed when they are first asked for.

    Args:
        data: the data set, without preamble and File Meta Information.
        transfer_syntax_uid: how it is encoded.
        max_inflated: bytes to which a deflated data set may grow.
        bounds: how much it may hold; by default it only has to be whole. None says that it was scanned before.

    Raises:
        InvalidInstance: it is truncated, damaged, not in that transfer syntax, or beyond a limit.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    if transfer_syntax_uid in DEFLATED:
        data, syntax = inflate(data, max_inflated), EXPLICIT_VR_LITTLE_ENDIAN
    else:
        syntax = transfer_syntax_uid
    if bounds is not None:
        check_data_set(data, syntax, bounds=bounds)
    implicit, little = data_set_encoding(syntax, data, "data set")
    try:
        ds = read_dataset(BytesIO(data), implicit, little)
    except _REFUSALS as error:
        raise InvalidInstance(f"the data set cannot be read: {type(error).__name__}") from None
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return ds


def transcode(
    data: Buffer,
    source_syntax_uid: str,
    target_syntax_uid: str,
    *,
    decompress: bool = False,
    max_inflated: int = MAXIMUM_INFLATED,
) -> bytes:
    """Return an encoded data set in another transfer syntax, every value as it was (PS3.5 Annex A).

    Between the `UNCOMPRESSED` ones this needs no codec. Pixel data is decompressed only if allowed, and never compressed.
    Decompressed pixel data stays in the colour space that the decoder delivers: Photometric Interpretation (0028,0004)
    is made to say which one, since a conversion of YBR to RGB would round every pixel. The SOP instance keeps its UID,
    and Lossy Image Compression (0028,2110) with all that belongs to it.

    Args:
        data: the data set, without preamble and File Meta Information.
        source_syntax_uid: how it is encoded.
        target_syntax_uid: one of `UNCOMPRESSED`, or the source's.
        decompress: whether compressed pixel data may be decompressed; needs the extra `aiodicom[codecs]`.
        max_inflated: bytes to which a deflated data set may grow.

    Raises:
        InvalidInstance: the data set is damaged, or pixel data would have to be compressed, or decompressed without
            permission or decoder.
    """
    if source_syntax_uid == target_syntax_uid:
        return bytes(data)
    if target_syntax_uid not in UNCOMPRESSED:
        raise InvalidInstance(
            f"nothing is compressed on the way: transfer syntax {target_syntax_uid} is not among the uncompressed ones"
        )
    pair = (source_syntax_uid, target_syntax_uid)
    if pair == (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        return inflate(data, max_inflated)
    if pair == (EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN):
        return _deflate(data)
    ds = decode_data_set(data, source_syntax_uid, max_inflated=max_inflated)
    if PIXEL_DATA_PROVIDER_URL in ds:
        raise InvalidInstance(f"its pixel data is on a JPIP server, so {source_syntax_uid} is its only transfer syntax")
    if source_syntax_uid not in _NATIVE and PIXEL_DATA in ds:
        if not decompress:
            raise InvalidInstance(
                f"its pixel data is compressed ({source_syntax_uid}), {target_syntax_uid} is not: allow decompression "
                "(decompress=True; the decoders come with pip install 'aiodicom[codecs]')"
            )
        _decompress(ds)
    return encode_data_set(ds, target_syntax_uid)


def _deflate(data: Buffer) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = stream.compress(data) + stream.flush()
    return deflated + bytes(len(deflated) % 2)


# ---- pixel data


def _own_syntax(ds: Dataset) -> str:
    """The transfer syntax that the Dataset's File Meta Information names; empty where it names none."""
    return str(getattr(ds, "file_meta", {}).get("TransferSyntaxUID", ""))


def _check_pixel_data(ds: Dataset, source: str, target: str) -> None:
    """Refuse to encode compressed pixel data as native, native as compressed, or one compression as another."""
    from pydicom.tag import Tag

    if PIXEL_DATA not in ds or source == target:
        return
    if target in _NATIVE:
        if source and source not in _NATIVE:
            raise InvalidInstance(
                f"the pixel data is compressed ({source}): call decompress() on the Dataset before encoding it in {target}"
            )
    elif source in _NATIVE or not (source or _is_encapsulated(_stored(ds, Tag(PIXEL_DATA)))):
        raise InvalidInstance(f"the pixel data is not compressed: call compress('{target}') on the Dataset first")
    elif source:
        raise InvalidInstance(f"the pixel data is compressed in {source} and cannot be sent as {target}")


def _is_encapsulated(element: _Element) -> bool:
    """Tell whether pixel data begins with an item, as it does when it is compressed (PS3.5 §A.4)."""
    value = element.value if isinstance(element, tuple) else _bulk(element)
    return (value or b"").startswith(b"\xfe\xff\x00\xe0")


def _decompress(ds: Dataset) -> None:
    """Decompress the pixel data of a Dataset in place, to the very values that its `pixel_array` has."""
    from pydicom.config import have_numpy
    from pydicom.dataelem import DataElement
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import ExplicitVRLittleEndian

    syntax = ds.file_meta.TransferSyntaxUID
    options: Any = {"as_rgb": False}  # pydicom's own annotation of these does not admit any
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InvalidInstance(
            f"there is no decoder for transfer syntax {syntax}: the peer must accept it as it is"
        ) from None
    if not have_numpy or not decoder.is_available:
        raise InvalidInstance(f"no decoder for transfer syntax {syntax} is installed: pip install 'aiodicom[codecs]'")
    plugins = sorted(decoder.available_plugins, key=lambda plugin: _LAST_PLUGINS.get(plugin, 0))
    try:
        # Not Dataset.decompress(), which fails where a codestream and Pixel Representation disagree about the sign.
        pixels, description = decoder.as_array(ds, decoding_plugin=plugins[0], **options)
        frame_bits = ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated
        frames = int(ds.get("NumberOfFrames") or 1)
    except Exception as error:  # whatever a decoder raises about damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInstance(f"the pixel data cannot be decompressed: {reason}") from error
    if pixels.nbytes * 8 != frame_bits * frames:
        raise InvalidInstance(
            f"the pixel data decompressed to {pixels.nbytes} bytes, not to {frame_bits * frames // 8}"
        )
    colours = description["photometric_interpretation"]
    if colours == "YBR_FULL_422":  # the decoder delivers all the chrominance samples
        colours = "YBR_FULL"
    if colours not in _NATIVE_COLOURS:
        raise InvalidInstance(f"decompressed pixel data cannot have the photometric interpretation {colours}")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.PhotometricInterpretation = colours
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = 0
    ds[PIXEL_DATA] = DataElement(PIXEL_DATA, "OB" if ds.BitsAllocated <= 8 else "OW", pixels.tobytes())
    for tag in _ENCAPSULATION:
        if tag in ds:
            del ds[tag]


# ---- encoding


@dataclass(frozen=True, slots=True)
class _Source:
    """How a Dataset is encoded; an item that was not read from bytes takes over what the Dataset around it has."""

    implicit: bool
    little: bool
    codecs: tuple[str, ...]  # for the text to be written


@dataclass(frozen=True, slots=True)
class _Target:
    """How a data set is to be encoded. Each method yields pieces of it, which the caller joins.

    `lineage` are the Dataset that an element stands in and those around it, from the inside out.
    """

    implicit: bool
    little: bool
    native: bool

    def elements(self, ds: Dataset, around: _Source, ancestors: tuple[Dataset, ...] = ()) -> Iterator[bytes]:
        elements = {tag: _stored(ds, tag) for tag in sorted(ds.keys())}
        source = _source(ds, elements, around)
        lineage = (_lookup(ds, elements, source), *ancestors)
        for tag, element in elements.items():
            if tag >> 16 == 0:
                raise InvalidInstance(f"{tag}: belongs to a command set, not to a data set")
            if tag >> 16 == 2 or tag & 0xFFFF == 0:
                continue
            try:
                yield from self._element(_with_vr(element, source, lineage), source, lineage)
            except (InvalidInstance, RecursionError):
                raise
            except _REFUSALS as error:  # not chained: pydicom's messages quote values
                raise InvalidInstance(f"{tag}: its value cannot be encoded: {type(error).__name__}") from None

    def _element(self, element: _Element, source: _Source, lineage: tuple[Dataset, ...]) -> Iterator[bytes]:
        vr, undefined = str(element.VR), _is_undefined(element)
        if vr == "SQ":
            value = b"".join(self._items(element, source, lineage))
        else:
            if (
                element.tag == PIXEL_DATA
                and not (undefined or self.native or lineage[1:])
                and _is_encapsulated(element)
            ):
                vr, undefined = "OB", True  # set in Python, which leaves this to us
            if undefined and self.native and vr in ("OB", "OW"):
                raise InvalidInstance(
                    f"{element.tag}: is compressed, which an uncompressed transfer syntax does not allow"
                )
            value = _value(element, self.little, source, lineage)
            if len(value) > 0xFFFF and vr.encode() in SHORT_VRS and not self.implicit:
                # PS3.5 §6.2.2: too long for its VR, so UN, which is in little endian everywhere.
                vr, value = "UN", _value(element, True, source, lineage)
        yield self._header(element.tag, vr, UNDEFINED if undefined else len(value))
        yield value
        if undefined:
            yield self._item(SEQUENCE_DELIMITATION, 0)

    def _items(self, element: _Element, source: _Source, lineage: tuple[Dataset, ...]) -> Iterator[bytes]:
        for item in _sequence(element, lineage[0]):
            content = b"".join(self.elements(item, source, lineage))
            if item.is_undefined_length_sequence_item:
                yield self._item(ITEM, UNDEFINED) + content + self._item(ITEM_DELIMITATION, 0)
            else:
                yield self._item(ITEM, len(content)) + content

    def _item(self, tag: int, length: int) -> bytes:
        return struct.pack("<HHL" if self.little else ">HHL", tag >> 16, tag & 0xFFFF, length)

    def _header(self, tag: int, vr: str, length: int) -> bytes:
        if self.implicit:
            return self._item(tag, length)
        order, code = "<" if self.little else ">", vr.encode()
        if code in LONG_VRS:
            return struct.pack(order + "HH2sHL", tag >> 16, tag & 0xFFFF, code, 0, length)
        if code not in SHORT_VRS:
            raise InvalidInstance(f"({tag >> 16:04X},{tag & 0xFFFF:04X}): has the VR {vr}, which is not known")
        return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, code, length)


def _stored(ds: Dataset, tag: BaseTag) -> _Element:
    """The element as it is in the Dataset: in bytes if nobody touched it, read now if that was deferred."""
    element: _Element = ds.get_item(tag, keep_deferred=True)
    deferred = isinstance(element, tuple) and element.value is None and element.length
    return ds.get_item(tag) if deferred else element


def _is_undefined(element: _Element) -> bool:
    return element.length == UNDEFINED if isinstance(element, tuple) else element.is_undefined_length


def _source(ds: Dataset, elements: Mapping[BaseTag, _Element], around: _Source) -> _Source:
    from pydicom.charset import convert_encodings

    implicit, little = ds.original_encoding
    charset = next((element for tag, element in elements.items() if tag == SPECIFIC_CHARACTER_SET), None)
    codecs = around.codecs
    if isinstance(charset, tuple):
        codecs = _codecs(ds.original_character_set) if charset.value else codecs
    elif charset is not None and charset.value:
        codecs = _codecs(convert_encodings(charset.value))
    if implicit is None or little is None:
        return replace(around, codecs=codecs)
    return _Source(implicit, little, codecs)


def _codecs(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _lookup(ds: Dataset, elements: Mapping[BaseTag, _Element], source: _Source) -> Dataset:
    """A copy of the Dataset for what pydicom looks up and, looking, converts in place."""
    from pydicom.dataset import Dataset

    copied = Dataset(dict(elements))
    copied.set_original_encoding(source.implicit, source.little, ds.original_character_set)
    return copied


def _with_vr(element: _Element, source: _Source, lineage: tuple[Dataset, ...]) -> _Element:
    """The element with the one VR that it has in this data set."""
    if not isinstance(element, tuple):
        return _disambiguated(copy(element), source.little, lineage) if " " in element.VR else element
    vr = element.VR or _dictionary_vr(element.tag, lineage[0], len(element.value or b""))
    if " " in vr:  # "US or SS", "OB or OW", …
        from pydicom.dataelem import DataElement

        undefined = _is_undefined(element)
        probe = DataElement(element.tag, vr, element.value, is_undefined_length=undefined, already_converted=True)
        with suppress(AttributeError, LookupError):  # the element that it depends on is missing
            vr = _disambiguated(probe, element.is_little_endian, lineage).VR
        if " " in vr:
            vr = "OW" if "OW" in vr else "US"
    return element._replace(VR=vr)


def _disambiguated(element: DataElement, little: bool, lineage: tuple[Dataset, ...]) -> DataElement:
    from pydicom.filewriter import correct_ambiguous_vr_element

    correct_ambiguous_vr_element(element, lineage[0], little, list(lineage))
    return element


def _dictionary_vr(tag: BaseTag, ds: Dataset, length: int) -> str:
    """The VR, possibly ambiguous, of an element in implicit VR; UN where nobody knows it (PS3.5 §6.2.2)."""
    from pydicom.datadict import dictionary_VR, private_dictionary_VR

    vr = "UN"
    with suppress(KeyError):
        if not tag.is_private:
            vr = dictionary_VR(tag)
        elif tag.is_private_creator:
            vr = "LO"
        else:
            vr = private_dictionary_VR(tag, str(ds[tag >> 16 << 16 | tag.element >> 8].value))
    fits = vr not in _WORDS or length % array(_WORDS[vr]).itemsize == 0
    return vr if fits else "UN"


def _sequence(element: _Element, ds: Dataset) -> Iterable[Dataset]:
    from pydicom.values import convert_SQ

    if not isinstance(element, tuple):
        return element.value or ()
    codecs = list(_codecs(ds.original_character_set))
    return convert_SQ(element.value or b"", element.is_implicit_VR, element.is_little_endian, codecs)


def _value(element: _Element, little: bool, source: _Source, lineage: tuple[Dataset, ...]) -> bytes:
    """The value in bytes, in the given order and of even length."""
    from_little = source.little
    vr = str(element.VR)
    if isinstance(element, tuple) and _needs_other_codecs(vr, source, lineage[0]):
        from pydicom.dataelem import convert_raw_data_element

        codecs = list(_codecs(lineage[0].original_character_set))
        element = convert_raw_data_element(element, encoding=codecs, ds=lineage[0])
    if isinstance(element, tuple):
        value, from_little = element.value or b"", element.is_little_endian
    elif vr in _BULK:
        value = _bulk(element)
    else:
        return _encoded(element, little, source.codecs)
    if from_little != little and (word := _word(vr, element.tag, lineage[0])):
        if len(value) % array(word).itemsize:
            raise InvalidInstance(f"{element.tag}: {len(value)} bytes are no whole number of words, as {vr} has them")
        words = array(word, value)
        words.byteswap()
        value = words.tobytes()
    if len(value) % 2:
        value += b"\0" if vr in _NUL_PADDED else b" "
    return value


def _needs_other_codecs(vr: str, source: _Source, ds: Dataset) -> bool:
    """Tell whether the Specific Character Set was changed after this was read, and matters to its VR."""
    if source.codecs == _codecs(ds.original_character_set):
        return False
    from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

    return vr in CUSTOMIZABLE_CHARSET_VR


def _bulk(element: DataElement) -> bytes:
    """The bytes of a value that are bytes in Python too, or a file of them."""
    if not element.is_buffered:
        return bytes(element.value or b"")
    from pydicom.fileutil import reset_buffer_position

    with reset_buffer_position(element.value):
        return bytes(element.value.read())


def _word(vr: str, tag: int, ds: Dataset) -> str | None:
    """The type code of the words that a value of this VR consists of; None where it consists of bytes.

    Pixel cells of 32 or 64 bits are one word each, though OW speaks of 16 bits: so are they read and written in practice.
    """
    if tag == PIXEL_DATA and vr == "OW":
        return {32: "I", 64: "Q"}.get(ds.get("BitsAllocated", 16), "H")
    return _WORDS.get(vr)


def _encoded(element: DataElement, little: bool, codecs: tuple[str, ...]) -> bytes:
    """A value that was set or parsed in Python, as pydicom encodes it."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = True, little
    write_data_element(stream, element, list(codecs))
    return stream.getvalue()[8:]  # behind tag and length
