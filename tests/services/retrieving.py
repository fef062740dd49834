"""What the tests of C-GET and C-MOVE as SCP share: handlers, instances, and what comes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiodicom import EncodedInstance, InstanceFile, Operation, open_instance
from aiodicom.dimse.commands import CStoreRQ, CStoreRSP, SuboperationsRSP
from aiodicom.dimse.status import Status
from aiodicom.part10 import file_meta
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.inquiries import STORE
from tests.loopback import CT, command_pdu, instance_uid
from tests.peers.synthetic import element, sop_common

JPEG: Final = "1.2.840.10008.1.2.4.50"


def returning(*instances: Any) -> Callable[[Operation], Awaitable[Any]]:  # noqa: ANN401
    async def handler(_operation: Operation) -> tuple[Any, ...]:
        return instances

    return handler


def counters(response: SuboperationsRSP) -> tuple[int | None, int | None, int | None, int | None]:
    return (
        response.number_of_remaining_suboperations,
        response.number_of_completed_suboperations,
        response.number_of_failed_suboperations,
        response.number_of_warning_suboperations,
    )


def answer_to(request: CStoreRQ, status: int) -> bytes:
    response = CStoreRSP(
        message_id_being_responded_to=request.message_id,
        status=Status(status),
        affected_sop_instance_uid=request.affected_sop_instance_uid,
    )
    return command_pdu(STORE, response)


def explicit(uid: str, sop_class: str = CT) -> bytes:
    return sop_common(sop_class, uid) + element(0x0010, 0x0020, b"LO", "1")


def a_large_file(path: Path, number: int) -> InstanceFile:
    uid = instance_uid(number)
    pixels = bytes(3_000_000)
    head = sop_common(CT, uid) + bytes.fromhex("e07f1000 4f570000") + len(pixels).to_bytes(4, "little")
    path.write_bytes(file_meta(CT, uid, EXPLICIT_VR_LITTLE_ENDIAN) + head + pixels)
    return open_instance(path)


def encapsulated(number: int) -> EncodedInstance:
    pixels = bytes.fromhex("e07f1000 4f420000 ffffffff feff00e0 00000000 feff00e0 04000000 ffd8ffd9 feffdde0 00000000")
    return EncodedInstance(CT, instance_uid(number), JPEG, explicit(instance_uid(number)) + pixels)
