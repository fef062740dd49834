"""A whole conversation of ours as tshark's dissector reads it."""

from __future__ import annotations

from typing import Final

import pytest

from aiodicom.dimse.codec import encode_command
from aiodicom.dimse.commands import CStoreRQ, respond
from aiodicom.dimse.fragments import fragment, fragment_length
from aiodicom.upper_layer.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    SOPClassExtendedNegotiation,
    UserIdentity,
)
from aiodicom.upper_layer.pdu import AAbort, AAssociateAC, AAssociateRJ, AAssociateRQ
from aiodicom.upper_layer.presentation import ProposedContext, SupportedSyntax, negotiate, propose
from tests.peers.tshark import Direction, dissect, dissect_fields
from tests.upper_layer.joined import Joined

CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION: Final = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
SUPPORTED: Final = {CT_IMAGE_STORAGE: SupportedSyntax(requestor_scp=True)}
STORE: Final = CStoreRQ(
    message_id=7, affected_sop_class_uid=CT_IMAGE_STORAGE, affected_sop_instance_uid="1.2.826.0.1.3680043.8.498.1"
)
# (0008,0018) SOP Instance UID and (0010,0010) Patient's Name, Implicit VR Little Endian.
DATA_SET: Final = (
    bytes.fromhex("08001800 1C000000")
    + b"1.2.826.0.1.3680043.8.498.1\0"
    + bytes.fromhex("10001000 08000000")
    + b"Doe^Jane"
)
MAXIMUM_LENGTH: Final = 64

# One dissection is as good as another: no event loop of ours has a part in it.
once = pytest.mark.asyncio(loop_factories=["asyncio"])


# tshark knows no 57H and no 59H.
USER_INFORMATION: Final = (
    MaximumLength(MAXIMUM_LENGTH),
    ImplementationClassUID("1.2.826.0.1.3680043.8.498.2"),
    AsynchronousOperationsWindow(8, 1),
    ImplementationVersionName("AIODICOM"),
    SOPClassExtendedNegotiation(CT_IMAGE_STORAGE, b"\2\0\0"),
    UserIdentity(2, b"user", b"passcode"),
)
ANSWERED_INFORMATION: Final = (
    MaximumLength(MAXIMUM_LENGTH),
    ImplementationClassUID("1.2.826.0.1.3680043.8.498.2"),
)


def conversation() -> list[tuple[Direction, bytes]]:
    """Association, C-STORE, release: what each end sends, in order."""
    syntaxes = (IMPLICIT_VR_LITTLE_ENDIAN,)
    contexts, roles = propose(
        [ProposedContext(VERIFICATION, syntaxes), ProposedContext(CT_IMAGE_STORAGE, syntaxes, scp_role=True)]
    )
    answer = negotiate(contexts, roles, SUPPORTED)
    length = fragment_length(MAXIMUM_LENGTH, default=MAXIMUM_LENGTH)
    command = encode_command(STORE, has_data_set=True)
    response = encode_command(respond(STORE, 0), has_data_set=False)
    joined = Joined(maximum_length=MAXIMUM_LENGTH)
    joined.requestor.associate(AAssociateRQ("STORE SCP", "STORE-SCU", contexts, (*USER_INFORMATION, *roles)))
    joined.connect()
    joined.pump()
    joined.acceptor.accept(
        AAssociateAC("STORE SCP", "STORE-SCU", answer.answers, (*ANSWERED_INFORMATION, *answer.roles))
    )
    joined.pump()
    joined.requestor.send_pdata([*fragment(3, command, length, is_command=True), *fragment(3, DATA_SET, length)])
    joined.pump()
    joined.acceptor.send_pdata(fragment(3, response, length, is_command=True))
    joined.pump()
    joined.requestor.release()
    joined.pump()
    joined.acceptor.release_response()
    joined.pump()
    return [("client" if sender is joined.requestor else "server", data) for sender, data in joined.carried]


@once
async def test_tshark_reads_a_whole_conversation() -> None:
    text = await dissect(conversation())
    for malformed in ("Malformed", "Expert Info", "Invalid", "Unknown"):
        assert malformed not in text
    for part in (
        "A-ASSOCIATE request STORE-SCU --> STORE SCP",
        "A-ASSOCIATE accept",
        "C-STORE-RQ",
        "C-STORE-RSP",
        "Doe^Jane",
        "A-RELEASE request",
        "A-RELEASE response",
        "AIODICOM",
        "Success",
    ):
        assert part in text


@once
async def test_tshark_finds_every_pdu_and_value() -> None:
    chunks = conversation()
    packets = await dissect_fields(chunks, "dicom.pdu.type", "dicom.pdu.len", "dicom.max_pdu_len", "dicom.pctx.id")
    types = [int(value, 16) for packet in packets for value in packet["dicom.pdu.type"]]
    data = types[2:-2]
    assert types == [1, 2, *data, 5, 6]
    assert len(data) > 5  # the command, the data set and the response, some of them in several fragments
    assert set(data) == {4}
    lengths = [int(value) for packet in packets for value in packet["dicom.pdu.len"]]
    assert all(length <= MAXIMUM_LENGTH for kind, length in zip(types, lengths, strict=True) if kind == 4)
    assert sum(lengths) + 6 * len(lengths) == sum(len(data) for _, data in chunks)
    assert packets[0]["dicom.max_pdu_len"] == [str(MAXIMUM_LENGTH)]
    assert packets[0]["dicom.pctx.id"] == ["0x01", "0x03"]


@once
async def test_tshark_reads_a_rejection_and_an_abort() -> None:
    text = await dissect([("server", AAssociateRJ(1, 1, 7).encode()), ("client", AAbort(2, 6).encode())])
    assert "Malformed" not in text
    for part in ("Reject Permanent", "Called AE title not recognized", "ABORT"):
        assert part.lower() in text.lower()
