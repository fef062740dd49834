"""Presentation contexts planned from what is to be sent, so that nobody types them (PS3.8 §9.3.2.2, PS3.5 §10.1).

Each SOP class is proposed with each transfer syntax that its files have, in a context of its own, so that the peer answers
each on its own; and once more with the uncompressed ones, among them Implicit VR Little Endian, which everybody has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiodicom.errors import InvalidInstance, LocalProtocolError
from aiodicom.part10 import InstanceFile, open_instance
from aiodicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    PATIENT_STUDY_ONLY_FIND,
    PATIENT_STUDY_ONLY_GET,
    PATIENT_STUDY_ONLY_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from aiodicom.upper_layer.presentation import MAXIMUM_CONTEXTS, ProposedContext

_FALLBACKS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_DEFAULT_ABSTRACT_SYNTAXES = (
    VERIFICATION,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_MOVE,
    PATIENT_ROOT_GET,
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    STUDY_ROOT_GET,
    PATIENT_STUDY_ONLY_FIND,
    PATIENT_STUDY_ONLY_MOVE,
    PATIENT_STUDY_ONLY_GET,
    MODALITY_WORKLIST_FIND,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one association is to carry.

    Args:
        contexts: to propose, at most 128.
        files: to send on it, in the order they were given.
    """

    contexts: tuple[ProposedContext, ...]
    files: tuple[InstanceFile, ...]


@dataclass(slots=True)
class _Draft:
    contexts: list[ProposedContext] = field(default_factory=list)
    files: list[InstanceFile] = field(default_factory=list)


def default_contexts() -> tuple[ProposedContext, ...]:
    """Return what an association proposes unless told otherwise: Verification, Query/Retrieve and the worklist."""
    return tuple(ProposedContext(uid) for uid in _DEFAULT_ABSTRACT_SYNTAXES)


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


def plan_associations(files: Sequence[InstanceFile]) -> tuple[Plan, ...]:
    """Share the files out among as few associations as their contexts need, each with Verification besides.

    A SOP class stays on one association: there are fewer transfer syntaxes than an association has contexts.
    """
    groups: dict[str, dict[str, list[InstanceFile]]] = {}
    for file in files:
        groups.setdefault(file.sop_class_uid, {}).setdefault(file.transfer_syntax_uid, []).append(file)
    drafts: list[_Draft] = []
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
    for path in _walk(paths):
        try:
            found.append(open_instance(path))
        except OSError as error:
            broken.append(InvalidInstance(f"{path}: cannot be read: {error.strerror}"))
        except InvalidInstance as error:
            broken.append(error)
    return found, broken


def _walk(paths: Iterable[str | os.PathLike[str]]) -> Iterable[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders.sort()
                yield from (
                    Path(folder, name) for name in sorted(names) if name != "DICOMDIR" and not name.startswith(".")
                )
        else:
            yield path
