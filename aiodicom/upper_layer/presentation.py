"""Presentation contexts and their negotiation (PS3.8 §7.1.1.13-14, §9.3.2.2, §9.3.3.2; roles: PS3.7 §D.3.3.4).

The requestor proposes, the acceptor answers each proposal, both then hold the same accepted contexts. "Role" always
means the role of the end that holds the `PresentationContext`: on the requestor's side SCU unless negotiated otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiodicom.errors import LocalProtocolError
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from aiodicom.upper_layer.items import (
    ContextResult,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    malformed,
)

MAXIMUM_CONTEXTS: Final = 128
"""Presentation context IDs are the odd numbers from 1 to 255 (PS3.8 §9.3.2.2)."""

DEFAULT_TRANSFER_SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context to propose: one abstract syntax and the transfer syntaxes the requestor can use for it.

    Args:
        abstract_syntax: UID of a SOP class or meta SOP class.
        transfer_syntaxes: UIDs, the preferred one first; by default Explicit and Implicit VR Little Endian.
        scu_role: propose to be SCU. Both roles together are sent only where they differ from the default (SCU alone).
        scp_role: propose to be SCP, as C-GET needs it for each storage SOP class (PS3.4 §C.5.3).
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = DEFAULT_TRANSFER_SYNTAXES
    scu_role: bool = True
    scp_role: bool = False


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """An accepted presentation context.

    Args:
        context_id: odd, 1 to 255.
        abstract_syntax: UID.
        transfer_syntax: UID, the one that was accepted.
        as_scu: whether this end may invoke operations on it.
        as_scp: whether this end may perform them.
    """

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    as_scu: bool = True
    as_scp: bool = False


@dataclass(frozen=True, slots=True)
class SupportedSyntax:
    """What an acceptor offers for an abstract syntax.

    Args:
        transfer_syntaxes: UIDs it can use; of those proposed the requestor's first one is accepted.
        requestor_scu: whether the requestor may be SCU.
        requestor_scp: whether the requestor may be SCP.
    """

    transfer_syntaxes: frozenset[str] = frozenset(DEFAULT_TRANSFER_SYNTAXES)
    requestor_scu: bool = True
    requestor_scp: bool = False


@dataclass(frozen=True, slots=True)
class Negotiation:
    """The acceptor's answer: the items to send, and the contexts that it accepts by them."""

    answers: tuple[PresentationContextAC, ...]
    roles: tuple[RoleSelection, ...]
    contexts: Mapping[int, PresentationContext]


def propose(
    contexts: Sequence[ProposedContext],
) -> tuple[tuple[PresentationContextRQ, ...], tuple[RoleSelection, ...]]:
    """Number the contexts 1, 3, 5, … and return the items that propose them and their roles.

    Roles belong to the abstract syntax: where two contexts of one differ, every role that either asks for is proposed.

    Raises:
        LocalProtocolError: there is none, there are more than 128, or one has no transfer syntax.
    """
    if not 0 < len(contexts) <= MAXIMUM_CONTEXTS:
        raise LocalProtocolError(
            f"{len(contexts)} presentation contexts: an association has 1 to {MAXIMUM_CONTEXTS} (PS3.8 §9.3.2.2)"
        )
    for context in contexts:
        if not context.transfer_syntaxes:
            raise LocalProtocolError(f"no transfer syntax is given for {context.abstract_syntax}")
    items = tuple(
        PresentationContextRQ(2 * index + 1, context.abstract_syntax, tuple(context.transfer_syntaxes))
        for index, context in enumerate(contexts)
    )
    roles: dict[str, RoleSelection] = {}
    for context in contexts:
        known = roles.get(context.abstract_syntax, RoleSelection(context.abstract_syntax, False, False))
        roles[context.abstract_syntax] = RoleSelection(
            context.abstract_syntax, known.scu_role or context.scu_role, known.scp_role or context.scp_role
        )
    return items, tuple(role for role in roles.values() if (role.scu_role, role.scp_role) != (True, False))


def negotiate(
    proposed: Iterable[PresentationContextRQ],
    proposed_roles: Iterable[RoleSelection],
    supported: Mapping[str, SupportedSyntax],
) -> Negotiation:
    """Answer each proposed context, as acceptor: never a role that was not proposed, none where none was asked for."""
    roles = {
        role.sop_class_uid: RoleSelection(
            role.sop_class_uid,
            role.scu_role and supported[role.sop_class_uid].requestor_scu,
            role.scp_role and supported[role.sop_class_uid].requestor_scp,
        )
        for role in proposed_roles
        if role.sop_class_uid in supported
    }
    answers: list[PresentationContextAC] = []
    contexts: dict[int, PresentationContext] = {}
    for context in proposed:
        support = supported.get(context.abstract_syntax)
        usable = support.transfer_syntaxes if support else frozenset[str]()
        chosen = next((uid for uid in context.transfer_syntaxes if uid in usable), None)
        if chosen is not None:
            result = ContextResult.ACCEPTANCE
            role = roles.get(context.abstract_syntax, _DEFAULT_ROLES)
            contexts[context.context_id] = PresentationContext(
                context.context_id, context.abstract_syntax, chosen, as_scu=role.scp_role, as_scp=role.scu_role
            )
        elif support:
            result = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
        else:
            result = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        # A rejected context still has a transfer syntax item; its value is not significant.
        answers.append(PresentationContextAC(context.context_id, result, chosen or IMPLICIT_VR_LITTLE_ENDIAN))
    return Negotiation(tuple(answers), tuple(roles.values()), contexts)


def accepted_contexts(
    proposed: Iterable[PresentationContextRQ],
    proposed_roles: Iterable[RoleSelection],
    answers: Iterable[PresentationContextAC],
    answered_roles: Iterable[RoleSelection],
) -> dict[int, PresentationContext]:
    """Return the contexts that the acceptor accepted, as the requestor sees them.

    A role holds where it was proposed and answered with 1; without an answer the default holds (PS3.7 §D.3.3.4).

    Raises:
        RemoteProtocolError: an answer accepts what was never proposed.
    """
    offers = {context.context_id: context for context in proposed}
    asked = {role.sop_class_uid: role for role in proposed_roles}
    granted = {
        role.sop_class_uid: RoleSelection(
            role.sop_class_uid, role.scu_role and request.scu_role, role.scp_role and request.scp_role
        )
        for role in answered_roles
        if (request := asked.get(role.sop_class_uid))
    }
    contexts: dict[int, PresentationContext] = {}
    for answer in answers:
        if answer.result != ContextResult.ACCEPTANCE:
            continue
        offer = offers.get(answer.context_id)
        if offer is None or answer.transfer_syntax not in offer.transfer_syntaxes:
            raise malformed(f"context {answer.context_id} is accepted in a way that was not proposed")
        role = granted.get(offer.abstract_syntax, _DEFAULT_ROLES)
        contexts[answer.context_id] = PresentationContext(
            answer.context_id,
            offer.abstract_syntax,
            answer.transfer_syntax,
            as_scu=role.scu_role,
            as_scp=role.scp_role,
        )
    return contexts


_DEFAULT_ROLES: Final = RoleSelection("", scu_role=True, scp_role=False)
