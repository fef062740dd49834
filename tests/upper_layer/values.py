"""Hypothesis strategies for the PDUs and their items."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
)
from aiodicom.upper_layer.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
)

octets: Final = st.integers(0, 0xFF)
shorts: Final = st.integers(0, 0xFFFF)
longs: Final = st.integers(0, 0xFFFFFFFF)
uids: Final = st.from_regex(r"[1-9][0-9]{0,6}(\.(0|[1-9][0-9]{0,6})){1,7}", fullmatch=True)
printable: Final = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\")
ae_titles: Final = st.text(printable, min_size=1, max_size=16)

known_items: Final = st.one_of(
    st.builds(MaximumLength, longs),
    st.builds(ImplementationClassUID, uids),
    st.builds(AsynchronousOperationsWindow, shorts, shorts),
    st.builds(RoleSelection, uids, st.booleans(), st.booleans()),
    st.builds(ImplementationVersionName, ae_titles),
    st.builds(SOPClassExtendedNegotiation, uids, st.binary(max_size=20)),
    st.builds(SOPClassCommonExtendedNegotiation, uids, uids, st.lists(uids, max_size=3).map(tuple)),
    st.builds(UserIdentity, st.integers(1, 5), st.binary(max_size=20), st.binary(max_size=20), st.booleans()),
    st.builds(UserIdentityResponse, st.binary(max_size=20)),
)
unknown_items: Final = st.builds(
    UnknownItem, octets.filter(lambda item_type: not 0x51 <= item_type <= 0x59), st.binary(max_size=20)
)
user_information: Final = st.lists(known_items | unknown_items, max_size=5).map(tuple)
context_ids: Final = st.integers(0, 127).map(lambda number: 2 * number + 1)
contexts_rq: Final = st.builds(
    PresentationContextRQ, context_ids, uids, st.lists(uids, min_size=1, max_size=3).map(tuple)
)
requests: Final = st.builds(
    AAssociateRQ,
    ae_titles,
    ae_titles,
    st.lists(contexts_rq, min_size=1, max_size=4, unique_by=lambda context: context.context_id).map(tuple),
    user_information,
    uids,
    shorts,
)
# A rejected context cannot be encoded without a transfer syntax, so that these are all accepted.
acceptances: Final = st.builds(
    AAssociateAC,
    ae_titles,
    ae_titles,
    st.lists(st.builds(PresentationContextAC, context_ids, st.just(0), uids), max_size=4).map(tuple),
    user_information,
    uids,
    shorts,
)
control_pdus: Final = st.one_of(
    requests,
    acceptances,
    st.builds(AAssociateRJ, octets, octets, octets),
    st.builds(AReleaseRQ),
    st.builds(AReleaseRP),
    st.builds(AAbort, octets, octets),
)
pdvs: Final = st.builds(PDV, octets, st.booleans(), st.booleans(), st.binary(max_size=40))
p_data: Final = st.builds(PDataTF, st.lists(pdvs, min_size=1, max_size=4).map(tuple))
