"""The items of the A-ASSOCIATE PDUs, with pynetdicom as the oracle in both directions."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from pynetdicom import pdu_items, pdu_primitives

from aiodicom.errors import LocalProtocolError, RemoteProtocolError
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    IdentityType,
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
    UserInformationItem,
    decode_uid,
    decode_user_information,
    encode_item,
    encode_uid,
    split_items,
)
from tests.upper_layer.values import known_items, unknown_items, user_information

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
STORAGE: Final = "1.2.840.10008.4.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"


class Case(NamedTuple):
    """A sub-item, and how pynetdicom makes the same: the class of its service parameter, and its attributes."""

    item: UserInformationItem
    primitive: str
    attributes: dict[str, object]


CASES: Final = (
    Case(MaximumLength(0), "MaximumLengthNotification", {"maximum_length_received": 0}),
    Case(MaximumLength(0xFFFFFFFF), "MaximumLengthNotification", {"maximum_length_received": 0xFFFFFFFF}),
    Case(ImplementationClassUID("1.2.3"), "ImplementationClassUIDNotification", {"implementation_class_uid": "1.2.3"}),
    Case(
        AsynchronousOperationsWindow(5, 0),
        "AsynchronousOperationsWindowNegotiation",
        {"maximum_number_operations_invoked": 5, "maximum_number_operations_performed": 0},
    ),
    *(
        Case(
            RoleSelection(CT_IMAGE_STORAGE, scu, scp),
            "SCP_SCU_RoleSelectionNegotiation",
            {"sop_class_uid": CT_IMAGE_STORAGE, "scu_role": scu, "scp_role": scp},
        )
        for scu, scp in ((True, False), (False, True), (True, True))
    ),
    Case(
        ImplementationVersionName("AIODICOM_1"),
        "ImplementationVersionNameNotification",
        {"implementation_version_name": "AIODICOM_1"},
    ),
    Case(
        SOPClassExtendedNegotiation(CT_IMAGE_STORAGE, b"\2\0\1"),
        "SOPClassExtendedNegotiation",
        {"sop_class_uid": CT_IMAGE_STORAGE, "service_class_application_information": b"\2\0\1"},
    ),
    *(
        Case(
            SOPClassCommonExtendedNegotiation(CT_IMAGE_STORAGE, STORAGE, related),
            "SOPClassCommonExtendedNegotiation",
            {
                "sop_class_uid": CT_IMAGE_STORAGE,
                "service_class_uid": STORAGE,
                "related_general_sop_class_identification": list(related),
            },
        )
        for related in ((), ("1.2.3",), ("1.2.3", "1.2.34"))
    ),
    *(
        Case(
            UserIdentity(kind, b"primary", b"secret" if kind == 2 else b"", positive_response_requested=asks),
            "UserIdentityNegotiation",
            {
                "user_identity_type": int(kind),
                "primary_field": b"primary",
                "secondary_field": b"secret" if kind == 2 else b"",
                "positive_response_requested": asks,
            },
        )
        for kind in IdentityType
        for asks in (False, True)
    ),
    Case(UserIdentityResponse(b"ticket"), "UserIdentityNegotiation", {"server_response": b"ticket"}),
    Case(UserIdentityResponse(b""), "UserIdentityNegotiation", {"server_response": b""}),
)


def made_by_pynetdicom(case: Case) -> bytes:
    """The sub-item as pynetdicom encodes it."""
    primitive: Any = getattr(pdu_primitives, case.primitive)()
    for name, value in case.attributes.items():
        setattr(primitive, name, value)
    encoded: bytes = primitive.from_primitive().encode()
    return encoded


def test_every_known_sub_item_is_among_the_cases() -> None:
    assert {case.item.item_type for case in CASES} == set(range(0x51, 0x5A))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.item.item_type:02X}H")
def test_a_sub_item_is_encoded_as_pynetdicom_does(case: Case) -> None:
    assert case.item.encode() == made_by_pynetdicom(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.item.item_type:02X}H")
def test_a_sub_item_of_pynetdicom_is_decoded(case: Case) -> None:
    assert decode_user_information(memoryview(made_by_pynetdicom(case))) == (case.item,)


def test_a_proposed_context_is_pynetdicoms() -> None:
    context = PresentationContextRQ(5, CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))
    theirs: Any = pdu_items.PresentationContextItemRQ()
    theirs.decode(context.encode())
    assert theirs.encode() == context.encode()
    assert (theirs.context_id, theirs.abstract_syntax) == (5, CT_IMAGE_STORAGE)
    assert tuple(theirs.transfer_syntax) == context.transfer_syntaxes
    assert PresentationContextRQ.decode(memoryview(theirs.encode())[4:]) == context


def test_an_answered_context_is_pynetdicoms() -> None:
    context = PresentationContextAC(5, ContextResult.ACCEPTANCE, EXPLICIT_VR_LITTLE_ENDIAN)
    theirs: Any = pdu_items.PresentationContextItemAC()
    theirs.decode(context.encode())
    assert theirs.encode() == context.encode()
    assert (theirs.context_id, theirs.result, theirs.transfer_syntax) == (5, 0, EXPLICIT_VR_LITTLE_ENDIAN)
    assert PresentationContextAC.decode(memoryview(theirs.encode())[4:]) == context


@pytest.mark.parametrize("result", [1, 2, 3, 4, 255])
@pytest.mark.parametrize("garbage", [b"", b"\x40", b"\x40\0\0\0", b"\x40\0\xff\xff?", b"\x40\0\0\3\xff\0\xff"])
def test_the_transfer_syntax_of_a_rejected_context_is_not_looked_at(result: int, garbage: bytes) -> None:
    body = memoryview(bytes((3, 0, result, 0)) + garbage)
    assert PresentationContextAC.decode(body) == PresentationContextAC(3, result, "")


@given(user_information)
@settings(deadline=None, max_examples=100)
def test_sub_items_survive_a_round_trip(items: tuple[UserInformationItem, ...]) -> None:
    assert decode_user_information(memoryview(b"".join(item.encode() for item in items))) == items


@given(unknown_items)
@settings(deadline=None, max_examples=25)
def test_an_unknown_sub_item_is_kept_as_it_came(item: UnknownItem) -> None:
    encoded = bytes((item.item_type, 0)) + len(item.data).to_bytes(2) + item.data
    assert decode_user_information(memoryview(encoded)) == (item,)
    assert item.encode() == encoded


@given(known_items)
@settings(deadline=None, max_examples=100)
def test_a_truncated_sub_item_is_refused_or_shorter(item: UserInformationItem) -> None:
    encoded = item.encode()
    for length in range(len(encoded) - 4):
        body = encoded[4 : 4 + length]
        try:
            (decoded,) = decode_user_information(memoryview(encode_item(item.item_type, body)))
        except RemoteProtocolError:
            continue
        assert decoded != item


BAD_ITEMS: Final = {
    "header cut short": b"\x51\0\0",
    "length beyond the end": b"\x51\0\0\5\0\0\0\0",
    "maximum length too short": b"\x51\0\0\3\0\0\0",
    "maximum length too long": b"\x51\0\0\5\0\0\0\0\0",
    "window too short": b"\x53\0\0\2\0\1",
    "role without roles": b"\x54\0\0\4\0\2\x31\x2e",
    "role with one role": b"\x54\0\0\5\0\2\x31\x2e\1",
    "role with nothing": b"\x54\0\0\0",
    "UID length beyond the end": b"\x56\0\0\4\0\3\x31\x2e",
    "related UID length beyond the end": b"\x57\0\0\x0b\0\1\x31\0\1\x32\0\3\0\2\x33",
    "related UID length cut short": b"\x57\0\0\x09\0\1\x31\0\1\x32\0\1\0",
    "identity of one byte": b"\x58\0\0\1\1",
    "identity without secondary field": b"\x58\0\0\5\1\0\0\1\x41",
    "identity response length beyond the end": b"\x59\0\0\3\0\2\x41",
}


@pytest.mark.parametrize("encoded", BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_a_malformed_sub_item_is_refused(encoded: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^malformed PDU: ") as caught:
        decode_user_information(memoryview(encoded))
    assert (caught.value.source, caught.value.reason) == (2, 6)


ABSTRACT: Final = encode_item(0x30, b"1.2.3")
TRANSFER: Final = encode_item(0x40, b"1.2")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1\0\0",
        b"\0\0\0\0" + ABSTRACT + TRANSFER,
        b"\2\0\0\0" + ABSTRACT + TRANSFER,
        b"\1\0\0\0",
        b"\1\0\0\0" + ABSTRACT,
        b"\1\0\0\0" + TRANSFER,
        b"\1\0\0\0" + ABSTRACT + ABSTRACT + TRANSFER,
        b"\1\0\0\0" + ABSTRACT + TRANSFER[:-1],
        b"\1\0\0\0" + ABSTRACT + TRANSFER[:3],
    ],
)
def test_a_malformed_proposed_context_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^malformed PDU: "):
        PresentationContextRQ.decode(memoryview(body))


@pytest.mark.parametrize("body", [b"", b"\1\0\0", b"\1\0\0\0", b"\1\0\0\0" + TRANSFER * 2, b"\1\0\0\0" + TRANSFER[:-1]])
def test_a_malformed_accepted_context_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^malformed PDU: "):
        PresentationContextAC.decode(memoryview(body))


def test_unknown_sub_items_of_a_context_are_passed_over() -> None:
    body = memoryview(b"\1\xff\xff\xff" + encode_item(0x77, b"?") + ABSTRACT + TRANSFER)
    assert PresentationContextRQ.decode(body) == PresentationContextRQ(1, "1.2.3", ("1.2",))
    assert PresentationContextAC.decode(memoryview(b"\1\xff\0\xff\x77\0\0\0" + TRANSFER)).transfer_syntax == "1.2"


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0", b" \0"])
def test_the_padding_of_a_uid_is_dropped(padding: bytes) -> None:
    assert decode_uid(memoryview(b"1.2.3" + padding)) == "1.2.3"


def test_what_is_no_uid_is_kept_when_it_comes_and_refused_when_it_is_to_go() -> None:
    assert decode_uid(memoryview(b"1.2\xff\n")) == "1.2\xff\n"
    for uid in ("", "1.2.x", "1" * 65, "1.2\xff", "1.2 ", "1.2\0", "\N{ARABIC-INDIC DIGIT ONE}"):
        with pytest.raises(LocalProtocolError, match="is no UID"):
            encode_uid(uid)
    assert encode_uid("1" * 64) == b"1" * 64


def test_a_version_name_is_made_to_fit() -> None:
    assert ImplementationVersionName("Zürich " + "x" * 20).encode() == encode_item(0x55, b"Z?rich xxxxxxxxx")
    assert decode_user_information(memoryview(encode_item(0x55, b" version 1 \0"))) == (
        ImplementationVersionName("version 1"),
    )


@pytest.mark.parametrize("role", [0, 2, 255])
def test_only_1_is_a_role(role: int) -> None:
    body = encode_item(0x54, b"\0\x031.2" + bytes((role, 1)))
    assert decode_user_information(memoryview(body)) == (RoleSelection("1.2", False, True),)


def test_an_item_as_long_as_its_length_field_can_say_and_one_longer() -> None:
    assert encode_item(0x56, bytes(0xFFFF))[:4] == b"\x56\0\xff\xff"
    with pytest.raises(LocalProtocolError, match="56H has 65536 bytes"):
        encode_item(0x56, bytes(0x10000))
    with pytest.raises(LocalProtocolError, match="field of 65536 bytes"):
        UserIdentityResponse(bytes(0x10000)).encode()


def test_items_are_split_where_their_lengths_say() -> None:
    items = split_items(memoryview(b"\x51\xff\0\1a\x52\0\0\0"))
    assert [(kind, bytes(body)) for kind, body in items] == [(0x51, b"a"), (0x52, b"")]


def test_what_identifies_a_user_is_in_no_repr() -> None:
    assert "secret" not in repr(UserIdentity(2, b"secret", b"secret"))
    assert "secret" not in repr(UserIdentityResponse(b"secret"))
