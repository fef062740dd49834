"""Messages that are wrong as such: T21 to T25 (PS3.7)."""

from __future__ import annotations

from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, Differs, expect
from aiodicom.conformance.messages import COMMAND, CT, ECHO, LAST, STORE
from aiodicom.conformance.peer import association
from aiodicom.conformance.target import Target
from aiodicom.conformance.upper_layer import MEBIBYTE
from aiodicom.uids import STUDY_ROOT_FIND, VERIFICATION

_ABORTED: Final = "A-ABORT 0/0, closed"


def _aborted(name: str, title: str, section: str, command_set: bytes, expected: str = _ABORTED) -> Case:
    """Return a case in which a command set ends the association."""

    async def run(target: Target) -> None:
        async with association(target) as peer:
            await peer.say(messages.pdvs(ECHO, COMMAND, command_set))
            expect(await peer.heard(), expected)

    return Case(name, title, section, run)


def answered(name: str, title: str, section: str, data: bytes, expected: str, *, needs: tuple[str, ...] = ()) -> Case:
    """Return a case in which a request is refused, and the association goes on."""

    async def run(target: Target) -> None:
        async with association(target) as peer:
            await peer.say(data)
            got = await peer.answers(1)
            await peer.say(messages.echo(2))
            expect(f"{got}, {await peer.answers(1)}", f"{expected}, C-ECHO-RSP 0x0000")

    return Case(name, title, section, run, needs)


async def _endless(target: Target) -> None:
    async with association(target) as peer:
        await peer.say(messages.pdv(ECHO, COMMAND, bytes(1024)) * 65)
        expect(await peer.heard(), "A-ABORT 2/6, closed")


async def _duplicate_id(target: Target) -> None:
    request = messages.find(1, messages.identifier((0x0020, 0x000D, b"")))
    async with association(target) as peer:
        await peer.say(request, request)
        finals = [(await peer.final())[1], (await peer.final())[1]]
        statuses = sorted(message.status for message in finals)
        if statuses != [0x0000, 0x0210]:
            raise Differs("0x0000 and 0x0210", " and ".join(f"0x{status:04X}" for status in statuses))


def _without(command_set: bytes, number: int) -> bytes:
    """Return a command set without an element of VR US."""
    at = command_set.index(messages.us(number, 0)[:8])
    return command_set[:at] + command_set[at + 10 :]


_ECHO_SET: Final = messages.command(0x0030, 1, VERIFICATION)
_RESPONSE: Final = b"".join(
    (messages.us(0x0100, 0x8030), messages.us(0x0120, 1), messages.us(0x0800, 0x0101), messages.us(0x0900, 0))
)
_COMMANDS: Final = "PS3.7 §6.3.1"

CASES: Final = (
    Case("T21", "a command set of more than 64 KiB", _COMMANDS, _endless, memory=MEBIBYTE),
    _aborted("T22/length", "an element of length FFFFFFFEH", _COMMANDS, bytes.fromhex("00000000feffffff")),
    _aborted("T22/truncated", "a command set that ends inside of an element", _COMMANDS, _ECHO_SET[:-1]),
    _aborted("T22/no-id", "no Message ID", "PS3.7 §9.3.5", _without(_ECHO_SET, 0x0110)),
    _aborted("T22/no-field", "no Command Field", _COMMANDS, _without(_ECHO_SET, 0x0100)),
    _aborted("T22/twice", "an element twice", _COMMANDS, _ECHO_SET + messages.us(0x0110, 2)),
    _aborted("T22/response", "a response to nothing", "PS3.7 §9.3", _RESPONSE),
    answered(
        "T23/command",
        "a command that does not exist",
        "PS3.7 Annex C",
        messages.pdv(ECHO, COMMAND | LAST, messages.command(0x7777, 1, VERIFICATION)),
        "0xF777-RSP 0x0211",
    ),
    answered(
        "T23/context",
        "a C-FIND where instances are stored",
        "PS3.7 Annex C",
        messages.pdvs(STORE, COMMAND, messages.command(0x0020, 1, CT, messages.us(0x0700, 0))),
        "C-FIND-RSP 0x0211",
        needs=("storage",),
    ),
    answered(
        "T24/store",
        "a C-STORE where C-ECHO is due",
        "PS3.7 Annex C",
        messages.store_rq(1, "1.2.3", context_id=ECHO, has_data_set=False),
        "C-STORE-RSP 0x0122",
    ),
    answered(
        "T24/class",
        "an MR image in a context of CT images",
        "PS3.7 Annex C",
        messages.store(1, "1.2.3", messages.new_instance().data_set(), sop_class=messages.MR),
        "C-STORE-RSP 0x0122",
        needs=("storage",),
    ),
    answered(
        "T24/echo",
        "a C-ECHO of another SOP class",
        "PS3.7 Annex C",
        messages.pdvs(ECHO, COMMAND, messages.command(0x0030, 1, STUDY_ROOT_FIND)),
        "C-ECHO-RSP 0x0122",
    ),
    Case("T25", "a Message ID that is outstanding", "PS3.7 Annex C", _duplicate_id, ("Q/R",)),
)
