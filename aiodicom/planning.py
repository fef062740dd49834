"""Presentation contexts planned from what is to be sent, so that nobody types them (PS3.8 §9.3.2.2, PS3.5 §10.1).

Each SOP class is proposed with each transfer syntax that its files have, in a context of its own, so that the peer answers
each on its own; and once more with the uncompressed ones, among them Implicit VR Little Endian, which everybody has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Final, Generic, TypeVar

from aiodicom.errors import InvalidInstance, LocalProtocolError
from aiodicom.outgoing import EncodedInstance, open_to_send
from aiodicom.part10 import InstanceFile, open_instance
from aiodicom.query import MODELS, model_of
from aiodicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)
from aiodicom.upper_layer.presentation import MAXIMUM_CONTEXTS, ProposedContext

_FALLBACKS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_DEFAULT_MODELS: Final = ("patient", "study", "patient-study", "worklist")


# What compressed instances are stored in, the commonest first: each is proposed on its own, since of several in one
# context the peer takes one, and could send nothing that is in another.
_COMPRESSED: Final = "4.70 4.50 4.90 4.91 4.80 5 4.51 4.57 4.81 4.201 4.202 4.203"  # below 1.2.840.10008.1.2
# The images that archives are full of: CT, MR, CR, DX, mammography, ultrasound, secondary capture, XA, RF, NM, PET, photos;
# then what else is met: enhanced images, presentation states, segmentations, reports, documents, radiotherapy, waveforms.
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1"
_COMMON_IMAGES: Final = "2 4 1 1.1 1.2 6.1 3.1 7 12.1 12.2 20 128 7.2 7.4 77.1.4"
_OTHER_CLASSES: Final = """
    2.1 4.1 130 12.1.1 12.2.1 13.1.1 13.1.3 1.1.1 1.2.1 1.3 4.2 7.1 7.3 6.2 11.1 11.2 11.3 11.4 66 66.1 66.2 66.3 66.4
    66.5 67 30 88.11 88.22 88.33 88.34 88.40 88.50 88.59 88.65 88.67 88.68 88.69 104.1 104.2 104.3 481.1 481.2 481.3 481.4
    481.5 481.8 9.1.1 77.1.1 77.1.6
    """

Sendable = TypeVar("Sendable", InstanceFile, EncodedInstance, InstanceFile | EncodedInstance)


@dataclass(frozen=True, slots=True)
class Plan(Generic[Sendable]):
    """What one association is to carry.

    Args:
        contexts: to propose, at most 128.
        files: to send on it, in the order they were given.
    """

    contexts: tuple[ProposedContext, ...]
    files: tuple[Sendable, ...]


@dataclass(slots=True)
class _Draft(Generic[Sendable]):
    contexts: list[ProposedContext] = field(default_factory=list)
    files: list[Sendable] = field(default_factory=list)


def default_contexts() -> tuple[ProposedContext, ...]:
    """Return what an association proposes unless told otherwise: Verification, Query/Retrieve and the worklist."""
    models = [MODELS[name] for name in _DEFAULT_MODELS]
    classes = [uid for model in models for uid in (model.find, model.move, model.get) if uid]
    return tuple(ProposedContext(uid) for uid in (VERIFICATION, *classes))


def contexts_to_retrieve(
    sop_classes: Iterable[str] = (), *, models: Iterable[str] = ("study", "patient", "patient-study")
) -> tuple[ProposedContext, ...]:
    """Return the contexts of an association for C-GET: the models, and storage classes in the role of SCP (PS3.4 §C.5.3).

    Each storage class is proposed uncompressed. The room that is left goes to compressed transfer syntaxes, the commonest
    first, so that instances can come as they are stored: each in a context of its own, for one class after the other. What
    comes in none of them fails, which the peer counts.

    Args:
        sop_classes: UIDs of what is to come; the fewer, the more transfer syntaxes. By default those that are usual, the
            images among them in compressed transfer syntaxes, too.
        models: the information models to retrieve and query by, by name or SOP class UID.

    Raises:
        LocalProtocolError: they are more than an association has contexts; there is no such model.
    """
    chosen = [model_of(name) for name in models]
    classes = [uid for model in chosen for uid in (model.get, model.find) if uid]
    contexts = [ProposedContext(uid) for uid in (VERIFICATION, *classes)]
    named = tuple(dict.fromkeys(sop_classes))
    images, others = (named, ()) if named else (_below(_STORAGE, _COMMON_IMAGES), _below(_STORAGE, _OTHER_CLASSES))
    if len(contexts) + len(images) > MAXIMUM_CONTEXTS:
        raise LocalProtocolError(
            f"{len(images)} SOP classes need more than the {MAXIMUM_CONTEXTS} presentation contexts of an association: "
            "retrieve them in several"
        )
    contexts += [ProposedContext(uid, _FALLBACKS, scp_role=True) for uid in (*images, *others)]
    compressed = product(_below("1.2.840.10008.1.2", _COMPRESSED), images)
    contexts += [
        ProposedContext(uid, (syntax,), scp_role=True)
        for syntax, uid in islice(compressed, MAXIMUM_CONTEXTS - len(contexts))
    ]
    return tuple(contexts)


def _below(root: str, suffixes: str) -> tuple[str, ...]:
    return tuple(f"{root}.{suffix}" for suffix in suffixes.split())


def contexts_for(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[ProposedContext, ...]:
    """Return the contexts that carry all the files, for one association; Verification comes first.

    It blocks while it reads the head of each file.

    Raises:
        InvalidInstance: a file cannot be sent; `plan_associations` lets the others go.
        LocalProtocolError: more than 128 contexts are needed; `plan_associations` splits them.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else paths
    plans = plan_associations([open_instance(path) for path in paths])
    if len(plans) > 1:
        raise LocalProtocolError(
            f"these files need more than {MAXIMUM_CONTEXTS} presentation contexts, which is all that an association "
            "has (PS3.8 §9.3.2.2): open one association for each result of plan_associations()"
        )
    return plans[0].contexts if plans else default_contexts()


def plan_associations(files: Sequence[Sendable]) -> tuple[Plan[Sendable], ...]:
    """Share the files out among as few associations as their contexts need, each with Verification besides.

    A SOP class stays on one association: there are fewer transfer syntaxes than an association has contexts.
    """
    groups: dict[str, dict[str, list[Sendable]]] = {}
    for file in files:
        syntax = file.transfer_syntax if isinstance(file, EncodedInstance) else file.transfer_syntax_uid
        groups.setdefault(file.sop_class_uid, {}).setdefault(syntax, []).append(file)
    drafts: list[_Draft[Sendable]] = []
    for sop_class, by_syntax in groups.items():
        contexts = _contexts_of(sop_class, by_syntax)
        if not drafts or len(drafts[-1].contexts) + len(contexts) > MAXIMUM_CONTEXTS:
            drafts.append(_Draft([ProposedContext(VERIFICATION)]))
        drafts[-1].contexts += contexts
        drafts[-1].files += [file for same in by_syntax.values() for file in same]
    position = {id(file): index for index, file in enumerate(files)}
    return tuple(
        Plan(tuple(draft.contexts), tuple(sorted(draft.files, key=lambda file: position[id(file)]))) for draft in drafts
    )


def _contexts_of(sop_class: str, transfer_syntaxes: Iterable[str]) -> list[ProposedContext]:
    own = list(transfer_syntaxes)
    fallbacks = tuple(syntax for syntax in _FALLBACKS if syntax not in own)
    contexts = [ProposedContext(sop_class, (syntax,)) for syntax in own]
    return [*contexts, ProposedContext(sop_class, fallbacks)] if fallbacks else contexts


def find_files(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[InstanceFile], list[InvalidInstance]]:
    """Look at files, and at all files in folders and below; return those that can be sent, and what is wrong with others.

    It blocks while it reads the head of each file. Hidden files, and DICOMDIRs found in folders, are passed over.
    """
    found: list[InstanceFile] = []
    broken: list[InvalidInstance] = []
    for path in _walk(paths, lambda error: broken.append(_unreadable(error))):
        try:
            found.append(open_to_send(path))
        except InvalidInstance as error:
            broken.append(error)
    return found, broken


def _unreadable(error: OSError) -> InvalidInstance:
    return InvalidInstance(f"{error.filename}: cannot be read: {error.strerror}")


def _walk(paths: Iterable[str | os.PathLike[str]], on_error: Callable[[OSError], None]) -> Iterable[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            for folder, folders, names in os.walk(path, onerror=on_error):
                folders.sort()
                yield from (
                    Path(folder, name) for name in sorted(names) if name != "DICOMDIR" and not name.startswith(".")
                )
        else:
            yield path
