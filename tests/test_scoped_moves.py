"""C-MOVE of ours, against peers made of bytes: its progress."""

from __future__ import annotations

import asyncio

from aiodicom import (
    Progress,
    Timeouts,
)
from aiodicom.dimse.commands import CMoveRQ, CMoveRSP
from tests.inquiries import (
    STUDY,
    asked,
    asked_to_move,
    assert_usable,
    cancelled,
    counted,
    echoed,
    message,
    move,
)
from tests.loopback import (
    SHORT,
    RawPeer,
)

# C-MOVE.


async def test_progress_comes_one_by_one_the_last_included() -> None:
    async def script(peer: RawPeer) -> None:
        request, identifier = await message(peer)
        assert isinstance(request, CMoveRQ)
        assert STUDY.encode() in identifier
        number = request.message_id
        for each in range(3):
            peer.send(counted(CMoveRSP, number, 0xFF00, (3 - each, each, 0, 0)))
        peer.send(counted(CMoveRSP, number, 0, (None, 3, 0, 0)))
        await echoed(peer)

    async with asked(script) as association:
        movement = move(association)
        progress = [each async for each in movement]
        assert [(each.remaining, each.completed) for each in progress] == [(3, 0), (2, 1), (1, 2), (None, 3)]
        assert {each.total for each in progress} == {3}
        assert movement.status == 0
        assert movement.progress == progress[-1]
        assert repr(movement) == "<Movement <Status 0x0000 Success>>"
        await assert_usable(association)


async def test_a_peer_need_not_tell_its_progress() -> None:
    async def script(peer: RawPeer) -> None:
        peer.send(counted(CMoveRSP, await asked_to_move(peer), 0))

    async with asked(script) as association:
        movement = move(association)
        assert [each async for each in movement] == [Progress()]
        assert movement.status == 0


async def test_leaving_a_move_cancels_it() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_move(peer)
        peer.send(counted(CMoveRSP, number, 0xFF00, (3, 0, 0, 0)))
        await cancelled(peer, number)
        peer.send(counted(CMoveRSP, number, 0xFE00, (2, 1, 0, 0)))
        await echoed(peer)

    async with asked(script) as association:
        async with move(association) as movement:
            async for _ in movement:
                break
        assert movement.status == 0xFE00
        await assert_usable(association)


async def test_who_sees_the_instances_of_a_move_arrive_can_put_its_deadline_off() -> None:
    async def script(peer: RawPeer) -> None:
        number = await asked_to_move(peer)
        await arrived.wait()
        peer.send(counted(CMoveRSP, number, 0))

    arrived = asyncio.Event()
    over = asyncio.get_running_loop().create_future()
    async with asked(script, timeouts=Timeouts(pending=2 * SHORT, idle=None)) as association:
        movement = move(association)
        movement.touch()  # which means nothing before it has begun
        async with movement:
            for _ in range(4):
                await asyncio.wait([over], timeout=SHORT)
                movement.touch()
            arrived.set()
            assert len([each async for each in movement]) == 1
            movement.touch()
    over.cancel()
