"""An instance on its way out: what `c_store` is given, the context that carries it, the bytes that go over the wire.

PS3.4 §B.2: an instance goes out in its own transfer syntax where that was accepted; else it is transcoded between the
uncompressed ones, or decompressed where the caller allows it; else nothing is sent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, Union

from anyio import to_thread

from aiodicom.dataset import decode_data_set, encode_data_set, transcode
from aiodicom.errors import InvalidInstance, NoAcceptedContext
from aiodicom.part10 import InstanceFile, find_instance, open_instance
from aiodicom.uids import DEFLATED, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, UNCOMPRESSED
from aiodicom.upper_layer.items import PresentationContextRQ
from aiodicom.upper_layer.presentation import PresentationContext
from aiodicom.workers import InThread

if TYPE_CHECKING:
    from pydicom import Dataset


SMALL_FILE: Final = 1024 * 1024
"""Up to this size, in bytes, a file is opened and read whole where it is sent; a longer one is opened in a worker thread,
and read in chunks while it is sent."""

FILE_CHUNK: Final = 4 * 1024 * 1024
"""How long those are, in bytes: a change of threads takes as long as half a megabyte."""


@dataclass(frozen=True, slots=True)
class EncodedInstance:
    """A SOP instance whose data set is encoded already.

    Args:
        sop_class_uid: what kind of object it is.
        sop_instance_uid: which one.
        transfer_syntax: UID of the encoding of the data.
        data: the data set without preamble and File Meta Information, in bytes, or in chunks as they come. Chunks can be
            taken once, and only in the transfer syntax they have.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    data: bytes | memoryview | AsyncIterable[bytes]

    def __repr__(self) -> str:
        return f"EncodedInstance({self.sop_class_uid!r}, {self.sop_instance_uid!r}, {self.transfer_syntax!r})"


Instance: TypeAlias = Union[str, "os.PathLike[str]", InstanceFile, "Dataset", EncodedInstance]
"""Whatever can be stored: the path of a Part 10 file, one that was opened before, a pydicom Dataset, an encoded instance."""


def choose_context(
    contexts: Iterable[PresentationContext], transfer_syntaxes: Sequence[str] | None = None
) -> PresentationContext | None:
    """Return the context to invoke an operation on, or None.

    Args:
        contexts: the accepted ones of its abstract syntax.
        transfer_syntaxes: those that will do, the best first; None means that any will.
    """
    usable = [context for context in contexts if context.as_scu]
    if transfer_syntaxes is None:
        return usable[0] if usable else None
    for syntax in transfer_syntaxes:
        for context in usable:
            if context.transfer_syntax == syntax:
                return context
    return None


async def prepare(
    instance: Instance,
    contexts_of: Callable[[str], Sequence[PresentationContext]],
    proposed: Iterable[PresentationContextRQ],
    *,
    decompress: bool,
    in_thread: InThread,
) -> tuple[PresentationContext, EncodedInstance]:
    """Return the context that carries the instance, and the instance in the transfer syntax of that context.

    Args:
        instance: what is to be sent.
        contexts_of: returns those accepted of an abstract syntax.
        proposed: those proposed, for the error.
        decompress: whether compressed pixel data may be decompressed.
        in_thread: runs what blocks.

    Raises:
        InvalidInstance: it cannot be read, or not be transcoded.
        NoAcceptedContext: no accepted context can carry it.
    """
    if isinstance(instance, EncodedInstance):
        encoded = instance
        if isinstance(encoded.data, memoryview):
            encoded = replace(encoded, data=encoded.data.cast("B"))  # so that its length is in bytes
    elif isinstance(instance, InstanceFile):
        encoded = _load(instance)  # it was opened and checked before: little is left to do
    elif isinstance(instance, str | os.PathLike):
        if (encoded_at_once := _read_small(instance)) is not None:
            encoded = encoded_at_once
        else:
            encoded = _load(await in_thread(open_to_send, instance))
    else:
        encoded = await in_thread(encode_instance, instance)
    accepted = contexts_of(encoded.sop_class_uid)
    own = encoded.transfer_syntax
    context = choose_context(accepted, (own, *_substitutes(own, decompress)))
    if context is None:
        raise _not_accepted(encoded, accepted, proposed)
    if context.transfer_syntax != own:
        if not isinstance(encoded.data, bytes | memoryview):
            whole = b"".join([chunk async for chunk in encoded.data])
        else:
            whole = bytes(encoded.data)
        data = await in_thread(partial(transcode, decompress=decompress), whole, own, context.transfer_syntax)
        encoded = replace(encoded, transfer_syntax=context.transfer_syntax, data=data)
    if isinstance(encoded.data, bytes | memoryview) and len(encoded.data) % 2:
        encoded = replace(encoded, data=await in_thread(_made_even, bytes(encoded.data), encoded.transfer_syntax))
    return context, encoded


def _substitutes(transfer_syntax: str, decompress: bool) -> tuple[str, ...]:
    return UNCOMPRESSED if decompress or transfer_syntax in UNCOMPRESSED else ()


def _not_accepted(
    encoded: EncodedInstance, accepted: Iterable[PresentationContext], proposed: Iterable[PresentationContextRQ]
) -> NoAcceptedContext:
    syntaxes = [context.transfer_syntax for context in accepted if context.as_scu]
    advice = ""
    if any(syntax in UNCOMPRESSED for syntax in syntaxes):
        advice = "the pixel data is compressed: allow decompression (decompress=True, --decompress) to send it"
    return NoAcceptedContext(
        encoded.sop_class_uid,
        encoded.transfer_syntax,
        proposed=[item.transfer_syntaxes for item in proposed if item.abstract_syntax == encoded.sop_class_uid],
        accepted=syntaxes,
        advice=advice,
    )


def _is_small(path: str | os.PathLike[str]) -> bool:
    # To check and read such a file takes less time than to have another thread do it, which doubles what a store costs.
    try:
        status = os.stat(path)  # noqa: PTH116 - Path takes as long again
    except OSError:
        return False  # to open it will say what is wrong
    return stat.S_ISREG(status.st_mode) and status.st_size <= SMALL_FILE


def open_to_send(path: str | os.PathLike[str]) -> InstanceFile:
    """Open a Part 10 file, see `open_instance`; it blocks.

    Raises:
        InvalidInstance: it is none, is damaged, or cannot be read.
    """
    try:
        return open_instance(path)
    except OSError as error:
        raise InvalidInstance(f"{path}: cannot be read: {error.strerror}") from error


async def open_in_time(path: str | os.PathLike[str], in_thread: InThread) -> InstanceFile:
    """Do the same without blocking for long: in a worker thread, unless the file is small."""
    return open_to_send(path) if _is_small(path) else await in_thread(open_to_send, path)


def _read_small(path: str | os.PathLike[str]) -> EncodedInstance | None:
    """Open and read a small Part 10 file at once; None where it is another one.

    Raises:
        InvalidInstance: it is none, is damaged, or cannot be read.
    """
    if not _is_small(path):
        return None
    where = Path(path)
    try:
        with open(where, "rb", buffering=0) as stream:  # noqa: PTH123 - Path.open takes as long again
            data = stream.read()
    except OSError as error:
        raise InvalidInstance(f"{path}: cannot be read: {error.strerror}") from error
    file = find_instance(data, where)
    data_set = memoryview(data)[file.data_set_offset :]
    return EncodedInstance(file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, data_set)


def _load(file: InstanceFile) -> EncodedInstance:
    """Read a Part 10 file, if it is small."""
    length = file.size - file.data_set_offset
    data: bytes | AsyncIterable[bytes]
    if length > SMALL_FILE and length % 2 and file.transfer_syntax_uid not in DEFLATED:
        raise InvalidInstance(f"{file.path}: its last element has an odd length (PS3.5 §7.1.1): write it again")
    try:
        with open(file.path, "rb", buffering=0) as stream:  # noqa: PTH123 - Path.open takes as long again
            if length > SMALL_FILE:  # once it is being sent, it is too late to find out
                data, there = _FileChunks(file), os.fstat(stream.fileno()).st_size
            else:
                stream.seek(file.data_set_offset)
                data = stream.read(length)
                there = file.data_set_offset + len(data)
    except OSError as error:
        raise InvalidInstance(f"{file.path}: cannot be read: {error.strerror}") from error
    if there < file.size:
        raise InvalidInstance(f"{file.path}: was truncated after it was opened")
    return EncodedInstance(file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, data)


def encode_instance(dataset: Dataset) -> EncodedInstance:
    """Encode a Dataset in the transfer syntax that its File Meta Information names, or that it was read in.

    Raises:
        InvalidInstance: it lacks what is needed for that.
    """
    sop_class, sop_instance, syntax = identify(dataset)
    return EncodedInstance(sop_class, sop_instance, syntax, encode_data_set(dataset, syntax))


def identify(dataset: Dataset) -> tuple[str, str, str]:
    """Return SOP Class UID, SOP Instance UID and transfer syntax that a Dataset is to be sent with.

    Raises:
        InvalidInstance: it lacks one of them.
    """
    sop_class, sop_instance = dataset.get("SOPClassUID"), dataset.get("SOPInstanceUID")
    if not sop_class or not sop_instance:
        raise InvalidInstance(
            "the Dataset has no SOP Class UID (0008,0016) or no SOP Instance UID (0008,0018): set both"
        )
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if not syntax:
        is_implicit, is_little_endian = dataset.original_encoding
        if is_little_endian is False:
            raise InvalidInstance("the Dataset has no transfer syntax: set file_meta.TransferSyntaxUID")
        syntax = IMPLICIT_VR_LITTLE_ENDIAN if is_implicit else EXPLICIT_VR_LITTLE_ENDIAN
    return str(sop_class), str(sop_instance), str(syntax)


def _made_even(data: bytes, transfer_syntax: str) -> bytes:
    """Pad what some writers leave odd: a deflated data set (PS3.5 §A.5), or the value of the last element (§7.1.1)."""
    if transfer_syntax in DEFLATED:
        return data + b"\0"
    return encode_data_set(decode_data_set(data, transfer_syntax), transfer_syntax)


class _FileChunks:
    """The data set of a large file in chunks, each read in a worker thread while those before may still go out."""

    def __init__(self, file: InstanceFile) -> None:
        self._file = file

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._file.size - self._file.data_set_offset
        padding = b"\0" * (left % 2)
        with self._file.path.open("rb", buffering=0) as stream:
            stream.seek(self._file.data_set_offset)
            while left:
                chunk = await to_thread.run_sync(stream.read, min(FILE_CHUNK, left))
                if not chunk:
                    raise InvalidInstance(f"{self._file.path}: was truncated while it was sent")
                left -= len(chunk)
                yield chunk if left else chunk + padding
