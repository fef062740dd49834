"""Instances that are wrong, hostile, or there already: T26 to T32, T37 to T40 (PS3.4 Annex B, PS3.5)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, Differs, expect, unseen
from aiodicom.conformance.messages import DATA, STORE, STORE_DEFLATED, STORE_EXPLICIT, STORE_JPEG, Instance
from aiodicom.conformance.peer import Peer, association
from aiodicom.conformance.target import Target
from aiodicom.conformance.upper_layer import MEBIBYTE

SUCCESS: Final = "0x0000"
MALFORMED: Final = "0xC000"
DEPTH, ELEMENTS = 64, 100_000  # what a data set may have at most
_GIBIBYTE: Final = 1024  # in MiB
_STORE_RQ: Final = 0x0001
_UNSENT: Final = 256  # bytes that are announced and do not come
_STORAGE: Final = "PS3.4 §B.2.3"


async def stored(peer: Peer, data: bytes, expected: str) -> None:
    """Say a C-STORE, and compare its status; the association must be usable after it."""
    await peer.say(data)
    got = await peer.answers(1)
    await peer.say(messages.echo(2))
    expect(f"{got}, {await peer.answers(1)}", f"C-STORE-RSP {expected}, C-ECHO-RSP 0x0000")


def _case(
    name: str,
    title: str,
    section: str,
    expected: str,
    make: Callable[[Instance], bytes],
    *,
    needs: tuple[str, ...] = ("storage",),
    context_id: int = STORE,
    memory: int | None = None,
) -> Case:
    """Return a case in which a new instance, made by `make`, is stored; one that is refused must not be there after it."""

    async def run(target: Target) -> None:
        instance = messages.new_instance()
        async with association(target) as peer:
            await stored(peer, messages.store(1, instance.uid, make(instance), context_id=context_id), expected)
            if expected != SUCCESS and messages.FIND in target.accepted:
                await peer.say(messages.find(3, messages.identifier((0x0020, 0x000D, messages.text(instance.study)))))
                count, _ = await peer.final()
                expect(f"{count} matches", "0 matches")

    return Case(name, title, section, run, needs, memory=memory)


def _bad_uid(name: str, uid: bytes) -> Case:
    async def run(target: Target) -> None:
        async with association(target) as peer:
            await stored(peer, messages.store(1, uid, messages.new_instance().data_set()), "0x0117")

    return Case(f"T26/{name}", f"SOP Instance UID {uid!r}"[:60], "PS3.5 §9.1", run, ("storage",))


def _truncated(instance: Instance) -> bytes:
    return instance.data_set()[:-_UNSENT]


def _tail(instance: Instance) -> bytes:
    return instance.data_set() + b"\0\0\0"


def _other_class(instance: Instance) -> bytes:
    mr = messages.element(0x0008, 0x0016, messages.text(messages.MR))
    ct = messages.element(0x0008, 0x0016, messages.text(messages.CT))
    return instance.data_set().replace(ct, mr)


def _open_sequence(instance: Instance) -> bytes:
    header = instance.data_set(pixels=b"")[:-8]
    return header + messages.empty_items(1, is_closed=False)


def _deflated(instance: Instance) -> bytes:
    header = instance.explicit_header() + messages.explicit_long(0x7FE0, 0x0010, "OW", _GIBIBYTE * MEBIBYTE)
    return messages.bomb(header, _GIBIBYTE)


def _explicit_truncated(instance: Instance) -> bytes:
    return instance.explicit_header() + messages.explicit_long(0x7FE0, 0x0010, "OW", 512) + bytes(512 - _UNSENT)


def _encapsulated(*items: bytes, closed: bool = True) -> Callable[[Instance], bytes]:
    def make(instance: Instance) -> bytes:
        end = messages.tag(0xFFFE, 0xE0DD) if closed else b""
        opening = messages.explicit_long(0x7FE0, 0x0010, "OB", messages.UNDEFINED)
        return instance.explicit_header() + opening + b"".join(items) + end

    return make


_OFFSETS: Final = messages.tag(0xFFFE, 0xE000)
_FRAME: Final = messages.tag(0xFFFE, 0xE000, 4) + b"\xff\xd8\xff\xd9"


async def _too_long(target: Target) -> None:
    """One pixel more than the cap, of 2 bytes."""
    assert target.instance_cap is not None
    instance = messages.new_instance()
    async with association(target) as peer:
        await stored(
            peer, messages.store(1, instance.uid, instance.data_set(pixels=bytes(target.instance_cap + 2))), "0xA700"
        )


async def _much_too_long(target: Target) -> None:
    """Go on long after the cap."""
    assert target.instance_cap is not None
    instance = messages.new_instance()
    fragment = messages.pdv(STORE, DATA, bytes(messages.FRAGMENT))
    async with association(target) as peer:
        header = struct.pack("<HHI", 0x7FE0, 0x0010, 2 * target.instance_cap)
        await peer.say(
            messages.store_rq(1, instance.uid),
            messages.pdv(STORE, DATA, instance.data_set(pixels=b"")[:-8] + header),
        )
        for _ in range(2 * target.instance_cap // messages.FRAGMENT):
            await peer.say(fragment)
            if peer.ended:
                break
        expect(await peer.heard(), "A-ABORT 2/0, closed", "A-ABORT 2/0, reset")


async def _again(target: Target) -> None:
    """Store an instance twice, the second time with other pixels: the first one stays, and its sender hears of it."""
    instance = messages.new_instance()
    data = instance.data_set()
    async with association(target) as peer:
        await stored(peer, messages.store(1, instance.uid, data), SUCCESS)
        await stored(peer, messages.store(3, instance.uid, instance.data_set(pixels=b"\xff" * 512)), "0x0111")
        await _is_kept(peer, instance, data)


async def _same_again(target: Target) -> None:
    instance = messages.new_instance()
    request = messages.store(1, instance.uid, instance.data_set())
    async with association(target) as peer:
        await stored(peer, request, SUCCESS)
        await stored(peer, request, SUCCESS)


async def _aborted_again(target: Target) -> None:
    """Store an instance, and break its second sending off: the first one stays as it is."""
    instance = messages.new_instance()
    data = instance.data_set()
    async with association(target) as peer:
        await stored(peer, messages.store(1, instance.uid, data), SUCCESS)
        await peer.say(messages.store_rq(3, instance.uid), messages.pdv(STORE, DATA, data[:-64]))
        async with association(target):
            pass  # by the time that this is accepted, the acceptor has what was said before
        await peer.say(messages.ABORT)
        expect(await peer.heard(), "closed")
    async with association(target) as peer:
        await _is_kept(peer, instance, data)


async def _is_kept(peer: Peer, instance: Instance, data: bytes) -> None:
    """Get an instance, and compare its bytes with those that were stored.

    Raises:
        Differs: it does not come, or is another.
    """
    keys = (
        (0x0020, 0x000D, messages.text(instance.study)),
        (0x0020, 0x000E, messages.text(instance.series)),
        (0x0008, 0x0018, messages.text(instance.uid)),
    )
    await peer.say(messages.get(5, messages.identifier(*keys, level=b"IMAGE ")))
    kept = None
    while (message := await peer.message()).is_pending or message.number(0x0100) == _STORE_RQ:
        if not message.is_pending:
            kept = message.data_set
            await peer.say(messages.store_rsp(message.number(0x0110), instance.uid, message.context_id))
    expect(str(message), "C-GET-RSP 0x0000")
    if kept != data:
        raise Differs("the bytes that were stored", "nothing" if kept is None else "other bytes")


async def _quota_full(target: Target) -> None:
    instance = messages.new_instance()
    async with association(target) as peer:
        await stored(peer, messages.store(1, instance.uid, instance.data_set()), "0xA700")


CASES: Final = (
    *(
        _bad_uid(name, uid)
        for name, uid in (
            ("parent", b"../X"),
            ("absolute", b"/abs/X"),
            ("dots", b".."),
            ("empty", b""),
            ("nul", b"1.2\x00X"),
            ("line-break", b"1.2\r\nX"),
            ("long", b"1." + b"2" * 63),
            ("letters", b"1.2.840.ABC"),
        )
    ),
    _case(
        "T27/instance",
        "a data set of another SOP Instance UID",
        _STORAGE,
        "0xA900",
        lambda instance: Instance("1.2.3.4", instance.study, instance.series).data_set(),
    ),
    _case("T27/class", "a data set of another SOP Class UID", _STORAGE, "0xA900", _other_class),
    _case("T28/implicit", "pixel data that is longer than what comes", "PS3.5 §7.1", MALFORMED, _truncated),
    _case(
        "T28/explicit",
        "the same in Explicit VR",
        "PS3.5 §7.1",
        MALFORMED,
        _explicit_truncated,
        needs=("storage", "Explicit VR"),
        context_id=STORE_EXPLICIT,
    ),
    _case("T28/tail", "three bytes after the last element", "PS3.5 §7.1", MALFORMED, _tail),
    _case("T28/open", "a sequence that does not end", "PS3.5 §7.5", MALFORMED, _open_sequence),
    _case("T27/nothing", "an empty data set", _STORAGE, "0xA900", lambda _: b""),
    _case(
        "T28/encapsulated",
        "encapsulated pixel data that is right",
        "PS3.5 §A.4",
        SUCCESS,
        _encapsulated(_OFFSETS, _FRAME),
        needs=("storage", "JPEG"),
        context_id=STORE_JPEG,
    ),
    _case(
        "T28/fragment",
        "a fragment that is longer than what comes",
        "PS3.5 §A.4",
        MALFORMED,
        _encapsulated(_OFFSETS, _FRAME[:-2], closed=False),
        needs=("storage", "JPEG"),
        context_id=STORE_JPEG,
    ),
    _case(
        "T28/fragments-open",
        "encapsulated pixel data that does not end",
        "PS3.5 §A.4",
        MALFORMED,
        _encapsulated(_OFFSETS, _FRAME, closed=False),
        needs=("storage", "JPEG"),
        context_id=STORE_JPEG,
    ),
    Case("T29/cap", "an instance of a pixel too much", _STORAGE, _too_long, ("storage", "cap"), memory=MEBIBYTE),
    Case("T29/drain", "an instance that does not end", _STORAGE, _much_too_long, ("storage", "cap"), memory=MEBIBYTE),
    _case(
        "T30/store",
        "1 MiB that is 1 GiB when it is inflated",
        "PS3.5 §A.5",
        SUCCESS,
        _deflated,
        needs=("storage", "deflated"),
        context_id=STORE_DEFLATED,
        memory=4 * MEBIBYTE,
    ),
    _case(
        "T31/depth",
        f"sequences {DEPTH + 1} deep",
        "PS3.5 §7.5",
        MALFORMED,
        lambda instance: instance.data_set(messages.nested(DEPTH + 1)),
    ),
    _case(
        "T31/depth-allowed",
        f"sequences {DEPTH // 2} deep",
        "PS3.5 §7.5",
        SUCCESS,
        lambda instance: instance.data_set(messages.nested(DEPTH // 2)),
    ),
    _case(
        "T31/depth-100000",
        "sequences 100,000 deep",
        "PS3.5 §7.5",
        MALFORMED,
        lambda instance: instance.data_set(messages.nested(100_000)),
    ),
    _case(
        "T31/elements",
        "500,000 empty elements",
        "PS3.5 §7.1",
        MALFORMED,
        lambda instance: instance.data_set(messages.empty_elements(5 * ELEMENTS)),
    ),
    _case(
        "T31/items",
        "a sequence of 1,000,000 empty items",
        "PS3.5 §7.5",
        MALFORMED,
        lambda instance: instance.data_set(messages.empty_items(10 * ELEMENTS)),
    ),
    _case(
        "T32",
        "a sequence of 1,000 empty items",
        "PS3.5 §7.5",
        SUCCESS,
        lambda instance: instance.data_set(messages.empty_items(1000)),
    ),
    Case("T37", "a preamble that is a program's", "PS3.10 §7.1", unseen("no preamble travels")),
    Case("T38/other", "other pixels under the same SOP Instance UID", _STORAGE, _again, ("storage", "C-GET")),
    Case("T38/same", "the same instance again", _STORAGE, _same_again, ("storage",)),
    Case("T39", "an abort in the middle of a second sending", _STORAGE, _aborted_again, ("storage", "C-GET")),
    Case("T40", "a full quota", _STORAGE, _quota_full, ("storage", "full quota")),
)
