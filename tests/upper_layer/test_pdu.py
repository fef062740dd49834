"""The seven PDUs, with pynetdicom as the oracle in both directions."""

from __future__ import annotations

from typing import Final, TypeVar

import pytest
from hypothesis import given, settings
from pynetdicom import build_context, pdu, pdu_primitives

from aiodicom.errors import LocalProtocolError, RemoteProtocolError
from aiodicom.uids import APPLICATION_CONTEXT_NAME
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UnknownItem,
    UserIdentity,
    UserIdentityResponse,
    encode_item,
)
from aiodicom.upper_layer.pdu import (
    MAXIMUM_ASSOCIATE_LENGTH,
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    ControlPDU,
    PDataTF,
    encode_ae_title,
    valid_ae_title,
)
from tests.upper_layer.joined import REQUEST, join_pieces, read
from tests.upper_layer.values import control_pdus, p_data

Primitive = TypeVar("Primitive")

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION: Final = "1.2.840.10008.1.1"
SYNTAXES: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def parameter(primitive: Primitive, **attributes: object) -> Primitive:
    """A primitive or service parameter of pynetdicom's, with these attributes."""
    for name, value in attributes.items():
        setattr(primitive, name, value)
    return primitive


def associate(**attributes: object) -> pdu_primitives.A_ASSOCIATE:
    """An A-ASSOCIATE primitive of pynetdicom's."""
    return parameter(
        pdu_primitives.A_ASSOCIATE(),
        application_context_name=APPLICATION_CONTEXT_NAME,
        calling_ae_title="CALLING",
        called_ae_title="CALLED",
        **attributes,
    )


def test_an_association_request_is_pynetdicoms() -> None:
    contexts = [build_context(VERIFICATION, SYNTAXES[1]), build_context(CT_IMAGE_STORAGE, list(SYNTAXES))]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    theirs = pdu.A_ASSOCIATE_RQ(
        associate(
            presentation_context_definition_list=contexts,
            user_information=[
                parameter(pdu_primitives.MaximumLengthNotification(), maximum_length_received=16_384),
                parameter(pdu_primitives.ImplementationClassUIDNotification(), implementation_class_uid="1.2.3"),
                parameter(
                    pdu_primitives.AsynchronousOperationsWindowNegotiation(),
                    maximum_number_operations_invoked=3,
                    maximum_number_operations_performed=1,
                ),
                parameter(
                    pdu_primitives.SCP_SCU_RoleSelectionNegotiation(),
                    sop_class_uid=CT_IMAGE_STORAGE,
                    scu_role=True,
                    scp_role=True,
                ),
                parameter(
                    pdu_primitives.SOPClassExtendedNegotiation(),
                    sop_class_uid=CT_IMAGE_STORAGE,
                    service_class_application_information=b"\2",
                ),
                parameter(
                    pdu_primitives.UserIdentityNegotiation(),
                    user_identity_type=2,
                    primary_field=b"user",
                    secondary_field=b"passcode",
                    positive_response_requested=True,
                ),
            ],
        )
    ).encode()
    ours = AAssociateRQ(
        "CALLED",
        "CALLING",
        (PresentationContextRQ(1, VERIFICATION, SYNTAXES[1:]), PresentationContextRQ(3, CT_IMAGE_STORAGE, SYNTAXES)),
        (
            MaximumLength(16_384),
            ImplementationClassUID("1.2.3"),
            AsynchronousOperationsWindow(3, 1),
            RoleSelection(CT_IMAGE_STORAGE, True, True),
            SOPClassExtendedNegotiation(CT_IMAGE_STORAGE, b"\2"),
            UserIdentity(2, b"user", b"passcode", positive_response_requested=True),
        ),
    )
    assert ours.encode() == theirs
    assert read(theirs) == [ours]


def test_an_association_answer_is_pynetdicoms() -> None:
    context = build_context(CT_IMAGE_STORAGE, SYNTAXES[0])
    context.context_id, context.result = 3, 0
    theirs = pdu.A_ASSOCIATE_AC(
        associate(
            presentation_context_definition_results_list=[context],
            user_information=[
                parameter(pdu_primitives.MaximumLengthNotification(), maximum_length_received=0),
                parameter(pdu_primitives.ImplementationClassUIDNotification(), implementation_class_uid="1.2.3"),
                parameter(pdu_primitives.UserIdentityNegotiation(), server_response=b"ticket"),
            ],
        )
    ).encode()
    ours = AAssociateAC(
        "CALLED",
        "CALLING",
        (PresentationContextAC(3, 0, SYNTAXES[0]),),
        (MaximumLength(0), ImplementationClassUID("1.2.3"), UserIdentityResponse(b"ticket")),
    )
    assert ours.encode() == theirs
    assert read(theirs) == [ours]


SHORT_PDUS: Final[list[tuple[ControlPDU, pdu.PDU]]] = [
    *(
        (
            AAssociateRJ(result, source, reason),
            pdu.A_ASSOCIATE_RJ(associate(result=result, result_source=source, diagnostic=reason)),
        )
        for result, source, reason in ((1, 1, 3), (1, 1, 7), (1, 2, 2), (2, 3, 2))
    ),
    (AReleaseRQ(), pdu.A_RELEASE_RQ(parameter(pdu_primitives.A_RELEASE()))),
    (AReleaseRP(), pdu.A_RELEASE_RP(parameter(pdu_primitives.A_RELEASE(), result="affirmative"))),
    (AAbort(0, 0), pdu.A_ABORT_RQ(parameter(pdu_primitives.A_ABORT(), abort_source=0))),
    *(
        (AAbort(2, reason), pdu.A_ABORT_RQ(parameter(pdu_primitives.A_P_ABORT(), provider_reason=reason)))
        for reason in (0, 1, 2, 6)
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), SHORT_PDUS, ids=lambda each: type(each).__name__)
def test_a_short_pdu_is_pynetdicoms(ours: ControlPDU, theirs: pdu.PDU) -> None:
    assert ours.encode() == theirs.encode()
    assert read(theirs.encode()) == [ours]


def test_the_data_transfer_pdu_is_pynetdicoms() -> None:
    theirs = pdu.P_DATA_TF(
        parameter(pdu_primitives.P_DATA(), presentation_data_value_list=[[1, b"\3command"], [1, b"\0data"]])
    )
    ours = PDataTF((PDV(1, True, True, b"command"), PDV(1, False, False, b"data")))
    assert ours.encode() == theirs.encode()
    assert read(theirs.encode()) == list(ours.pdvs)


@pytest.mark.parametrize("is_command", [False, True])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_fragment_alone_is_the_same_as_a_pdu_of_one(is_command: bool, is_last: bool) -> None:
    data = memoryview(b"some data")
    head, body = PDV(7, is_command, is_last, data).encode_parts()
    assert body is data
    assert head + bytes(body) == PDataTF((PDV(7, is_command, is_last, b"some data"),)).encode()


@given(control_pdus)
@settings(deadline=None, max_examples=75)
def test_a_control_pdu_survives_a_round_trip(original: ControlPDU) -> None:
    assert read(original.encode()) == [original]


@given(p_data)
@settings(deadline=None, max_examples=100)
def test_a_data_transfer_pdu_survives_a_round_trip(original: PDataTF) -> None:
    assert [PDV(*pdv[:3], bytes(pdv.data)) for pdv in read(original.encode()) if isinstance(pdv, PDV)] == list(
        original.pdvs
    )


FIXED: Final = REQUEST.encode()[6:74]
APPLICATION_CONTEXT: Final = encode_item(0x10, APPLICATION_CONTEXT_NAME.encode())
CONTEXT: Final = PresentationContextRQ(1, VERIFICATION, SYNTAXES).encode()
OTHER_CONTEXT: Final = PresentationContextRQ(3, VERIFICATION, SYNTAXES).encode()
USER_INFORMATION: Final = encode_item(0x50, MaximumLength(1).encode())


def associate_pdu(body: bytes, pdu_type: int = 1) -> bytes:
    """An A-ASSOCIATE PDU of that body."""
    return bytes((pdu_type, 0)) + len(body).to_bytes(4) + body


@pytest.mark.parametrize(
    "body",
    [
        b"\0\1\0\0",
        FIXED[:-1],
        FIXED,
        FIXED + APPLICATION_CONTEXT,
        FIXED + CONTEXT + USER_INFORMATION,
        FIXED + APPLICATION_CONTEXT + CONTEXT + CONTEXT,
        FIXED + APPLICATION_CONTEXT + CONTEXT + USER_INFORMATION[:-1],
        FIXED + APPLICATION_CONTEXT + CONTEXT + b"\x50\0\xff\xff",
        FIXED + APPLICATION_CONTEXT + CONTEXT + encode_item(0x50, b"\x51\0\0\5\0\0\0\0"),
        FIXED + APPLICATION_CONTEXT + encode_item(0x20, b"\2\0\0\0" + CONTEXT[8:]),
        FIXED + APPLICATION_CONTEXT + encode_item(0x20, b"\0\0\0\0" + CONTEXT[8:]),
        FIXED + APPLICATION_CONTEXT + encode_item(0x20, b"\1\0\0\0"),
        FIXED + APPLICATION_CONTEXT + b"".join(encode_item(0x20, bytes((n & 255, 0, 0, 0))) for n in range(1, 259, 2)),
    ],
    ids=range(13),
)
def test_a_malformed_association_request_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^malformed PDU: ") as caught:
        read(associate_pdu(body))
    assert (caught.value.source, caught.value.reason) == (2, 6)


def test_the_items_of_a_request_may_come_in_any_order_among_unknown_ones() -> None:
    unknown = encode_item(0x99, b"?")
    body = FIXED + unknown + USER_INFORMATION + OTHER_CONTEXT + APPLICATION_CONTEXT + CONTEXT + unknown
    (request,) = read(associate_pdu(body))
    assert isinstance(request, AAssociateRQ)
    assert [context.context_id for context in request.presentation_contexts] == [3, 1]
    assert request.user_information == (MaximumLength(1),)


def test_user_information_may_be_missing() -> None:
    (request,) = read(associate_pdu(FIXED + APPLICATION_CONTEXT + CONTEXT))
    assert isinstance(request, AAssociateRQ)
    assert request.user_information == ()


def test_an_answer_may_accept_nothing() -> None:
    (answer,) = read(associate_pdu(FIXED + APPLICATION_CONTEXT, pdu_type=2))
    assert isinstance(answer, AAssociateAC)
    assert answer.presentation_contexts == ()


def test_reserved_fields_are_not_tested() -> None:
    encoded = bytearray(REQUEST.encode())
    encoded[1] = 0xFF
    encoded[8:10] = b"\xff\xff"
    encoded[42:74] = b"\xff" * 32
    assert read(bytes(encoded)) == [REQUEST]
    assert read(b"\x05\xff\0\0\0\4\xff\xff\xff\xff") == [AReleaseRQ()]
    assert read(b"\x06\xff\0\0\0\4\xff\xff\xff\xff") == [AReleaseRP()]
    assert read(b"\x07\xff\0\0\0\4\xff\xff\2\1") == [AAbort(2, 1)]
    assert read(b"\x03\xff\0\0\0\4\xff\1\1\3") == [AAssociateRJ(1, 1, 3)]


def test_the_high_bits_of_the_control_header_are_not_tested() -> None:
    assert read(b"\4\0\0\0\0\7\0\0\0\3\1\xfdA") == [PDV(1, True, False, b"A")]


def test_unknown_sub_items_of_user_information_are_kept() -> None:
    request = AAssociateRQ("A", "B", REQUEST.presentation_contexts, (UnknownItem(0x5A, b"new"), UnknownItem(0, b"")))
    assert read(request.encode()) == [request]


# --- AE titles


@pytest.mark.parametrize("title", ["A", "A B", "16 characters ok", "!#$%&'*+-./:~[]", " LEADING", "trailing "])
def test_an_ae_title_is_padded_with_spaces(title: str) -> None:
    assert encode_ae_title(title) == title.encode().ljust(16)
    (request,) = read(AAssociateRQ(title, "B", REQUEST.presentation_contexts).encode())
    assert isinstance(request, AAssociateRQ)
    assert request.called_ae_title == title.strip()


BAD_TITLES: Final = ["", " ", " " * 16, "17 characters it has"[:17], "A\\B", "A\nB", "A\0B", "\x7f", "Zürich", "A\tB"]


@pytest.mark.parametrize("title", BAD_TITLES)
def test_what_is_no_ae_title_is_refused_when_it_is_to_go(title: str) -> None:
    assert not valid_ae_title(title)
    with pytest.raises(LocalProtocolError, match="is no AE title"):
        encode_ae_title(title)
    with pytest.raises(LocalProtocolError, match="is no AE title"):
        AAssociateRQ("A", title, REQUEST.presentation_contexts).encode()


@pytest.mark.parametrize("title", [title for title in BAD_TITLES if len(title) <= 16])
def test_what_is_no_ae_title_is_kept_when_it_comes(title: str) -> None:
    encoded = REQUEST.encode()
    (request,) = read(encoded[:26] + title.encode("latin-1").ljust(16) + encoded[42:])
    assert isinstance(request, AAssociateRQ)
    assert request.calling_ae_title == title.strip(" \0")
    assert not valid_ae_title(request.calling_ae_title)


def test_an_ae_title_padded_with_nuls() -> None:
    encoded = REQUEST.encode()
    (request,) = read(encoded[:10] + b"CALLED".ljust(16, b"\0") + encoded[26:])
    assert isinstance(request, AAssociateRQ)
    assert request.called_ae_title == "CALLED"


# --- Lengths


def request_of(length: int) -> AAssociateRQ:
    """A request whose variable field has that many bytes."""
    items: list[UnknownItem] = []
    request = AAssociateRQ("A", "B", REQUEST.presentation_contexts, ())
    missing = length - (len(request.encode()) - 6)
    contexts = list(request.presentation_contexts)
    number = 3
    while missing > 60_000:
        context = PresentationContextRQ(number, VERIFICATION, ("1." * 31 + "1",) * 800)
        contexts.append(context)
        missing -= len(context.encode())
        number += 2
    items.append(UnknownItem(0x60, bytes(missing - 4)))
    return AAssociateRQ("A", "B", tuple(contexts), tuple(items))


def test_the_longest_request_is_sent_and_taken() -> None:
    longest = request_of(MAXIMUM_ASSOCIATE_LENGTH)
    encoded = longest.encode()
    assert len(encoded) == 6 + MAXIMUM_ASSOCIATE_LENGTH
    assert join_pieces([longest]) == read(encoded)


def test_a_request_longer_than_any_peer_takes_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="propose fewer contexts"):
        request_of(MAXIMUM_ASSOCIATE_LENGTH + 1).encode()


def test_128_contexts_of_45_transfer_syntaxes_fit() -> None:
    syntaxes = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(200, 245))
    contexts = tuple(
        PresentationContextRQ(number, "1.2.840.10008.5.1.4.1.1.2", syntaxes) for number in range(1, 256, 2)
    )
    request = AAssociateRQ("A", "B", contexts)
    assert read(request.encode()) == [request]
