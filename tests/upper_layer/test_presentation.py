"""The negotiation of presentation contexts and roles, with pynetdicom as the oracle for the roles."""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.presentation import SCP_SCU_ROLES

from aiodicom.errors import LocalProtocolError, RemoteProtocolError
from aiodicom.upper_layer.items import ContextResult, PresentationContextAC, PresentationContextRQ, RoleSelection
from aiodicom.upper_layer.pdu import AAssociateRQ
from aiodicom.upper_layer.presentation import (
    MAXIMUM_CONTEXTS,
    PresentationContext,
    ProposedContext,
    SupportedSyntax,
    accepted_contexts,
    negotiate,
    propose,
)
from tests.upper_layer.joined import REQUEST, read

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
JPEG: Final = "1.2.840.10008.1.2.4.50"


# --- The requestor proposes


def test_contexts_are_numbered_with_the_odd_numbers() -> None:
    items, roles = propose([ProposedContext(CT), ProposedContext(CT, (JPEG,)), ProposedContext(MR, (IMPLICIT,))])
    assert items == (
        PresentationContextRQ(1, CT, (EXPLICIT, IMPLICIT)),
        PresentationContextRQ(3, CT, (JPEG,)),
        PresentationContextRQ(5, MR, (IMPLICIT,)),
    )
    assert roles == ()


def test_128_contexts_are_proposed_and_not_one_more() -> None:
    items, _ = propose([ProposedContext(CT)] * MAXIMUM_CONTEXTS)
    assert [item.context_id for item in items] == list(range(1, 256, 2))
    request = AAssociateRQ("A", "B", items)
    assert read(request.encode()) == [request]
    for contexts in ([ProposedContext(CT)] * (MAXIMUM_CONTEXTS + 1), []):
        with pytest.raises(LocalProtocolError, match=rf"^{len(contexts)} presentation contexts"):
            propose(contexts)


def test_a_context_without_transfer_syntax_is_not_proposed() -> None:
    with pytest.raises(LocalProtocolError, match=f"no transfer syntax is given for {MR}"):
        propose([ProposedContext(CT), ProposedContext(MR, ())])


def test_roles_are_proposed_only_where_they_are_not_the_default() -> None:
    _, roles = propose(
        [
            ProposedContext(CT, scu_role=True, scp_role=True),
            ProposedContext(MR, scu_role=False, scp_role=True),
            ProposedContext("1.2.3"),
        ]
    )
    assert roles == (RoleSelection(CT, True, True), RoleSelection(MR, False, True))


def test_the_roles_of_one_abstract_syntax_are_put_together() -> None:
    contexts = [ProposedContext(CT, (JPEG,), scu_role=False, scp_role=True), ProposedContext(CT)]
    for order in (contexts, contexts[::-1]):
        assert propose(order)[1] == (RoleSelection(CT, True, True),)


# --- The acceptor answers


def rq(context_id: int, abstract_syntax: str, *transfer_syntaxes: str) -> PresentationContextRQ:
    return PresentationContextRQ(context_id, abstract_syntax, transfer_syntaxes)


def test_the_requestors_first_usable_transfer_syntax_is_chosen() -> None:
    supported = {CT: SupportedSyntax(frozenset({IMPLICIT, EXPLICIT}))}
    answer = negotiate([rq(1, CT, JPEG, IMPLICIT, EXPLICIT), rq(3, CT, EXPLICIT, IMPLICIT)], (), supported)
    assert [item.transfer_syntax for item in answer.answers] == [IMPLICIT, EXPLICIT]


def test_every_context_is_answered_and_says_why_not() -> None:
    proposed = [rq(1, CT, JPEG), rq(3, MR, IMPLICIT), rq(7, CT, IMPLICIT)]
    answer = negotiate(proposed, (), {CT: SupportedSyntax(frozenset({IMPLICIT}))})
    assert [(item.context_id, item.result) for item in answer.answers] == [
        (1, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED),
        (3, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED),
        (7, ContextResult.ACCEPTANCE),
    ]
    assert all(item.encode() for item in answer.answers)
    assert answer.contexts == {7: PresentationContext(7, CT, IMPLICIT, as_scu=False, as_scp=True)}
    assert answer.roles == ()


def test_one_abstract_syntax_in_several_contexts() -> None:
    supported = {CT: SupportedSyntax(frozenset({IMPLICIT, JPEG}))}
    answer = negotiate([rq(1, CT, JPEG), rq(3, CT, IMPLICIT), rq(5, CT, JPEG)], (), supported)
    assert {number: context.transfer_syntax for number, context in answer.contexts.items()} == {
        1: JPEG,
        3: IMPLICIT,
        5: JPEG,
    }


def test_roles_of_an_abstract_syntax_that_is_not_supported_are_not_answered() -> None:
    answer = negotiate([rq(1, MR, IMPLICIT)], [RoleSelection(MR, True, True)], {CT: SupportedSyntax()})
    assert answer.roles == ()


BOTH: Final = (False, True)
ROLES: Final = list(product(BOTH, repeat=4))


@pytest.mark.parametrize(("scu", "scp", "may_scu", "may_scp"), ROLES)
def test_a_role_is_answered_where_it_was_proposed_and_is_supported(
    scu: bool, scp: bool, may_scu: bool, may_scp: bool
) -> None:
    supported = {CT: SupportedSyntax(requestor_scu=may_scu, requestor_scp=may_scp)}
    answer = negotiate([rq(1, CT, IMPLICIT)], [RoleSelection(CT, scu, scp)], supported)
    assert answer.roles == (RoleSelection(CT, scu and may_scu, scp and may_scp),)
    assert answer.contexts[1] == PresentationContext(1, CT, IMPLICIT, as_scu=scp and may_scp, as_scp=scu and may_scu)


# --- The requestor reads the answer


def accepted(
    *answers: PresentationContextAC, roles: tuple[RoleSelection, ...] = (), answered: tuple[RoleSelection, ...] = ()
) -> dict[int, PresentationContext]:
    return accepted_contexts([rq(1, CT, IMPLICIT, EXPLICIT), rq(3, MR, IMPLICIT)], roles, answers, answered)


def test_what_is_not_accepted_is_left_out_whatever_its_transfer_syntax_is() -> None:
    contexts = accepted(
        PresentationContextAC(1, 0, EXPLICIT), PresentationContextAC(3, 4, "rubbish"), PresentationContextAC(99, 3, "")
    )
    assert contexts == {1: PresentationContext(1, CT, EXPLICIT, as_scu=True, as_scp=False)}


@pytest.mark.parametrize(
    "answer",
    [
        PresentationContextAC(5, 0, IMPLICIT),
        PresentationContextAC(2, 0, IMPLICIT),
        PresentationContextAC(1, 0, JPEG),
        PresentationContextAC(3, 0, EXPLICIT),
        PresentationContextAC(1, 0, ""),
    ],
)
def test_what_was_never_proposed_cannot_be_accepted(answer: PresentationContextAC) -> None:
    with pytest.raises(RemoteProtocolError, match=f"context {answer.context_id} is accepted in a way") as caught:
        accepted(PresentationContextAC(1, 0, IMPLICIT), answer)
    assert (caught.value.source, caught.value.reason) == (2, 6)


def test_roles_that_were_not_proposed_are_not_taken() -> None:
    contexts = accepted(PresentationContextAC(1, 0, IMPLICIT), answered=(RoleSelection(CT, False, True),))
    assert (contexts[1].as_scu, contexts[1].as_scp) == (True, False)


def test_roles_belong_to_their_abstract_syntax() -> None:
    contexts = accepted(
        PresentationContextAC(1, 0, IMPLICIT),
        PresentationContextAC(3, 0, IMPLICIT),
        roles=(RoleSelection(CT, True, True), RoleSelection(MR, False, True)),
        answered=(RoleSelection(MR, False, True), RoleSelection(CT, True, True)),
    )
    assert [(each.as_scu, each.as_scp) for each in contexts.values()] == [(True, True), (False, True)]


@pytest.mark.parametrize(("scu", "scp"), [(True, True), (True, False), (False, True)])
def test_without_an_answer_about_roles_the_default_holds(scu: bool, scp: bool) -> None:
    contexts = accepted(PresentationContextAC(1, 0, IMPLICIT), roles=(RoleSelection(CT, scu, scp),))
    outcome = SCP_SCU_ROLES[(scu, scp)][(None, None)]
    assert (contexts[1].as_scu, contexts[1].as_scp) == outcome[:2] == (True, False)


@pytest.mark.parametrize(("scu", "scp", "answered_scu", "answered_scp"), ROLES)
def test_a_role_holds_where_it_was_proposed_and_answered(
    scu: bool, scp: bool, answered_scu: bool, answered_scp: bool
) -> None:
    contexts = accepted(
        PresentationContextAC(1, 0, IMPLICIT),
        roles=(RoleSelection(CT, scu, scp),),
        answered=(RoleSelection(CT, answered_scu, answered_scp),),
    )
    roles = (contexts[1].as_scu, contexts[1].as_scp)
    assert roles == (scu and answered_scu, scp and answered_scp)
    if (not answered_scu or scu) and (not answered_scp or scp) and (scu or scp):  # an answer that is allowed
        assert roles == SCP_SCU_ROLES[(scu, scp)][(answered_scu, answered_scp)][:2]


# --- Both together

abstract_syntaxes: Final = st.sampled_from([CT, MR, "1.2.3"])
transfer_syntaxes: Final = st.lists(st.sampled_from([IMPLICIT, EXPLICIT, JPEG]), min_size=1, max_size=4).map(tuple)
proposals: Final = st.lists(
    st.builds(ProposedContext, abstract_syntaxes, transfer_syntaxes, st.booleans(), st.booleans()),
    min_size=1,
    max_size=8,
)
supports: Final = st.dictionaries(
    abstract_syntaxes,
    st.builds(SupportedSyntax, transfer_syntaxes.map(frozenset), st.booleans(), st.booleans()),
)


@given(proposals, supports)
@settings(deadline=None, max_examples=150)
def test_both_ends_agree(contexts: list[ProposedContext], supported: dict[str, SupportedSyntax]) -> None:
    items, roles = propose(contexts)
    answer = negotiate(items, roles, supported)
    assert [each.context_id for each in answer.answers] == [each.context_id for each in items]
    agreed = accepted_contexts(items, roles, answer.answers, answer.roles)
    assert agreed.keys() == answer.contexts.keys()
    for number, ours in agreed.items():
        theirs = answer.contexts[number]
        assert (ours.abstract_syntax, ours.transfer_syntax) == (theirs.abstract_syntax, theirs.transfer_syntax)
        assert ours.transfer_syntax in contexts[number // 2].transfer_syntaxes
        assert (ours.as_scu, ours.as_scp) == (theirs.as_scp, theirs.as_scu)


def test_an_even_context_id_is_not_taken() -> None:
    encoded = bytearray(REQUEST.encode())
    place = encoded.index(b"\x20\0", 74) + 4
    assert encoded[place] == 1
    encoded[place] = 2
    with pytest.raises(RemoteProtocolError, match="presentation context ID 2 is not odd"):
        read(bytes(encoded))
