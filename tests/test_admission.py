"""Who is let in, and how long a peer may take: in memory, by a clock that a test turns (T10-T18, F4, F11)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest

from aiodicom import (
    AssociationAborted,
    AssociationRejected,
    Limits,
    LoggingObserver,
    Node,
    Operation,
    OperationTimeout,
    Peer,
    Server,
)
from aiodicom.activity import Counters
from aiodicom.admission import Doorkeeper, LocalTally, Tally
from aiodicom.dimse.commands import CEchoRQ
from aiodicom.rights import Rights
from aiodicom.uids import VERIFICATION
from aiodicom.upper_layer.pdu import PDV
from tests.clockwork import Clockwork, Line, clockwork, turns
from tests.loopback import (
    ECHO_CONTEXT,
    RELEASE_RQ,
    Recorder,
    abort_pdu,
    connect,
    data_pdu,
    data_set,
    echo_pdu,
    fragment_pdu,
    raw_connection,
    reject_pdu,
    request_pdu,
    serving,
    store_pdu,
)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clockwork]:
    with clockwork(monkeypatch) as clock:
        yield clock


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Server]:  # noqa: ANN401
    """A server for lines, which listens nowhere."""
    server = Server("SCP", listeners=[], **{"observers": (), "stop_timeout": 0, **options})

    @server.on_c_store
    async def take(operation: Operation) -> None:
        await operation.read()

    async with server:
        yield server
        for acceptor in tuple(server._acceptors):
            acceptor._connection.cut()
        await turns()
        assert not server._acceptors
        assert server.doorkeeper.reserve.used == 0
        assert server.doorkeeper.tally.total("connections") == server.doorkeeper.tally.total("associations") == 0


ECHO: Final = echo_pdu()


# Waits.


@pytest.mark.parametrize("said", [b"", request_pdu()[:1], request_pdu()[:-1]], ids=["silent", "a byte", "but a byte"])
async def test_a_peer_has_ten_seconds_for_its_request(clock: Clockwork, said: bytes) -> None:
    async with served() as server:
        line, other = Line(server), Line(server)
        other.associate()
        line.say(said)
        await clock.pass_by(9.999)
        assert line.is_open
        await clock.pass_by(0.001)
        assert not line.is_open
        assert line.heard == b""  # AA-2: without a byte
        other.say(ECHO)
        assert other.heard[:1] == b"\4"


async def test_bytes_do_not_start_artim_again(clock: Clockwork) -> None:
    async with served() as server:
        line = Line(server)
        for byte in request_pdu()[:10]:
            line.say(bytes((byte,)))
            assert line.is_open
            await clock.pass_by(1)
        assert not line.is_open
        assert line.heard == b""


async def test_an_association_may_be_idle_for_sixty_seconds(clock: Clockwork) -> None:
    async with served() as server:
        line = Line(server)
        line.associate()
        await clock.pass_by(45)
        line.say(ECHO)
        line.heard.clear()
        await clock.pass_by(59.999)
        assert line.heard == b""
        await clock.pass_by(0.001)
        assert line.heard == abort_pdu(2, 0)


@pytest.mark.parametrize("end", [3, 16, -1], ids=["in a header", "in a PDU", "but a byte"])
async def test_a_peer_may_stop_inside_a_pdu_for_thirty_seconds(clock: Clockwork, end: int) -> None:
    async with served() as server:
        line = Line(server)
        line.associate()
        await clock.pass_by(17)
        line.say(ECHO[:end])
        await clock.pass_by(29.999)
        assert line.heard == b""
        await clock.pass_by(0.001)
        assert line.heard == abort_pdu(2, 0)


DATA_PIECE = fragment_pdu(bytes(2000), is_last=False)
COMMAND_PIECE = data_pdu(PDV(ECHO_CONTEXT, True, False, bytes(2)))


@pytest.mark.parametrize(
    ("before", "pieces"),
    [
        (b"", [ECHO[index : index + 1] for index in range(40)]),
        (b"", [RELEASE_RQ[index : index + 1] for index in range(9)]),
        (store_pdu(), [DATA_PIECE] * 40),
        (b"", [COMMAND_PIECE] * 40),
    ],
    ids=["a PDU", "a request of release", "a data set", "a command set"],
)
async def test_who_trickles_is_aborted_after_thirty_seconds(
    clock: Clockwork, before: bytes, pieces: list[bytes]
) -> None:
    """A piece each four seconds, so that it never stops for long: less than 4 KiB/s."""
    async with served() as server:
        line = Line(server)
        line.associate()
        await clock.pass_by(11)
        line.say(before)
        passed = 0
        for piece in pieces:
            line.say(piece)
            await clock.pass_by(4)
            passed += 4
            if line.heard:
                break
        assert passed == 32
        assert line.heard == abort_pdu(2, 0)


async def test_who_sends_as_fast_as_is_asked_for_may_go_on(clock: Clockwork) -> None:
    async with served() as server:
        line = Line(server)
        line.associate()
        line.say(store_pdu())
        for _ in range(300):
            line.say(fragment_pdu(bytes(4096), is_last=False))
            await clock.pass_by(1)
        line.say(fragment_pdu(b""))
        await turns()
        assert line.heard[:1] == b"\4"  # the response


async def test_a_pdu_may_be_long_where_it_is_fast_enough(clock: Clockwork) -> None:
    """A P-DATA-TF of 512 KiB at 5 KiB/s takes a hundred seconds."""
    async with served() as server:
        line = Line(server)
        line.associate()
        pdu = fragment_pdu(bytes(512 * 1024))
        line.say(store_pdu())
        for start in range(0, len(pdu), 5 * 1024):
            line.say(pdu[start : start + 5 * 1024])
            await clock.pass_by(1)
        await turns()
        assert line.heard[:1] == b"\4"


async def test_each_period_is_judged_by_itself(clock: Clockwork) -> None:
    """Who was fast at first may not be slow for it later."""
    async with served() as server:
        line = Line(server)
        line.associate()
        line.say(store_pdu(), fragment_pdu(bytes(900_000), is_last=False))
        passed = 0
        while not line.heard:
            line.say(fragment_pdu(bytes(100), is_last=False))
            await clock.pass_by(5)
            passed += 5
        assert passed == 60
        assert line.heard == abort_pdu(2, 0)


async def test_a_wait_of_our_making_is_not_the_peers(clock: Clockwork) -> None:
    go = asyncio.Event()
    async with served(limits=Limits(maximum_buffered=1000)) as server:

        @server.on_c_store
        async def slow(operation: Operation) -> None:
            await go.wait()
            await operation.read()

        line = Line(server)
        line.associate()
        line.say(store_pdu(), fragment_pdu(bytes(2000), is_last=False))
        assert line.is_held
        await clock.pass_by(200)
        go.set()
        await turns()
        assert not line.is_held
        await clock.pass_by(29)
        line.say(fragment_pdu(b""))
        await turns()
        assert line.heard[:1] == b"\4"


async def test_a_peer_that_does_not_close_is_cut_off_after_five_seconds(clock: Clockwork) -> None:
    async with served() as server:
        line = Line(server)
        line.associate()
        line.say(store_pdu(), fragment_pdu(data_set()[:90], is_last=False), RELEASE_RQ)
        await turns()
        assert line.heard[:1] == b"\6"
        await clock.pass_by(4.999)
        assert line.is_open
        await clock.pass_by(0.001)
        assert not line.is_open


async def test_the_clock_on_the_wall_decides_nothing(clock: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """F11: it jumps by a day, either way, while each of the waits is running."""
    real = time.time
    async with served() as server:
        for jump in (86_400, -86_400):
            silent, idle, inside = Line(server), Line(server), Line(server)
            idle.associate()
            inside.associate()
            inside.say(ECHO[:20])
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            await clock.pass_by(9.999)
            assert silent.is_open
            await clock.pass_by(0.001)
            assert not silent.is_open
            await clock.pass_by(19.999)
            assert inside.heard == b""
            await clock.pass_by(0.001)
            assert inside.heard == abort_pdu(2, 0)
            await clock.pass_by(29.999)
            assert idle.heard == b""
            await clock.pass_by(0.001)
            assert idle.heard == abort_pdu(2, 0)


async def test_64_stalled_peers_disturb_nobody_and_leave_nothing(clock: Clockwork) -> None:
    """F4: in each of the four ways, all at once."""
    async with served() as server:
        good = Line(server, "10.0.0.2")
        good.associate()
        stalled = [Line(server, f"10.1.0.{number // 16}") for number in range(64)]
        for number, line in enumerate(stalled):
            kind = number % 4
            if kind == 1:
                line.say(request_pdu()[:40])
            elif kind > 1:
                line.associate()
            if kind == 3:
                line.say(ECHO[:16])
        for _ in range(61):
            await clock.pass_by(1)
            good.say(ECHO)
            assert good.heard[:1] == b"\4"
            good.heard.clear()
        ends = [b"", b"", abort_pdu(2, 0), abort_pdu(2, 0)]
        assert [bytes(line.heard) for line in stalled] == ends * 16
        await clock.pass_by(5)
        assert not any(line.is_open for line in stalled)
        assert good.is_open
        assert clock.pending == 1  # that of the good peer


async def test_who_takes_nothing_of_what_we_ask_is_not_given_more_time_by_what_we_write(clock: Clockwork) -> None:
    """A sub-operation waits for its response while Pending responses pile up behind it."""
    async with served() as server:
        line = Line(server)
        line.associate()
        [association] = server.associations
        await clock.pass_by(30)  # for the first look at what it takes
        line.takes = False
        ask = partial(CEchoRQ, affected_sop_class_uid=VERIFICATION)
        responses = await association._invoker.begin(ECHO_CONTEXT, ask, idle=30)
        for _ in range(5):
            await clock.pass_by(6)
            association._connection._write([bytes(100)])  # something else
        assert not association.is_open
        with pytest.raises(OperationTimeout):
            await responses.next()


async def test_a_handler_has_a_deadline_to_decide() -> None:
    recorder, never = Recorder(), asyncio.Event()
    async with serving(limits=Limits(decision=0.05), observers=(recorder,)) as server:

        @server.on_associate
        async def think(_peer: Peer) -> bytes | None:
            await never.wait()
            return None

        async with raw_connection(server) as peer:
            peer.send(request_pdu())
            assert await peer.pdu() == reject_pdu(2, 3, 1)
        assert [type(error) for error in recorder.refused] == [TimeoutError]


async def test_a_node_may_have_limits_of_its_own(clock: Clockwork) -> None:
    def node(name: str, **own: Any) -> Node:  # noqa: ANN401
        return Node(name, name.upper(), "10.0.0.1", 104, networks=("10.0.0.1",), limits=own)

    rights = Rights([node("patient", idle=200), node("slow", minimum_rate="1 KiB"), node("usual")])
    async with served(rights=rights) as server:
        lines = {name: Line(server, "10.0.0.1") for name in ("PATIENT", "SLOW", "USUAL")}
        for name, line in lines.items():
            line.associate(calling=name)
        for name in ("SLOW", "USUAL"):
            lines[name].say(store_pdu())
        for _ in range(10):
            for name in ("SLOW", "USUAL"):
                lines[name].say(fragment_pdu(bytes(15_000), is_last=False))
            await clock.pass_by(10)
        assert [lines[name].heard == b"" for name in ("PATIENT", "SLOW", "USUAL")] == [True, True, False]
        await clock.pass_by(100)
        assert lines["PATIENT"].heard == abort_pdu(2, 0)


# Numbers.


async def test_an_address_has_its_share_of_connections() -> None:
    recorder = Recorder()
    async with served(limits=Limits(maximum_connections_per_address=2), observers=(recorder,)) as server:
        lines = [Line(server, address) for address in ("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2")]
        assert [line.is_open for line in lines] == [True, True, False, True]
        await turns()
        lines[0].close()
        await turns()
        assert Line(server, "10.0.0.1").is_open
        assert recorder.turned_away == ["10.0.0.1"]
        assert recorder.refused == [recorder.refused[0]]  # lines[0], which left before it said anything


async def test_an_address_has_its_share_of_associations() -> None:
    async with served(limits=Limits(maximum_associations_per_address=1)) as server:
        first = Line(server, "10.0.0.1")
        first.associate()
        second = Line(server, "10.0.0.1")
        second.say(request_pdu())
        assert second.heard == reject_pdu(2, 3, 2)
        Line(server, "10.0.0.2").associate()
        first.say(RELEASE_RQ)
        await turns()
        Line(server, "10.0.0.1").associate()  # though the first has not closed yet


async def test_bulk_gives_one_address_all_there_is() -> None:
    limits = Limits(maximum_connections_per_address=1, maximum_associations_per_address=1, bulk=True)
    async with served(limits=limits) as server:
        for _ in range(3):
            Line(server).associate()


async def test_who_has_been_silent_longest_makes_room() -> None:
    async with served(limits=Limits(maximum_connections=3)) as server:
        association, silent, later = (Line(server, f"10.0.0.{number}") for number in range(3))
        association.associate()
        new = Line(server, "10.0.0.9")
        assert [each.is_open for each in (association, silent, later, new)] == [True, False, True, True]
        new.associate()
        Line(server, "10.0.0.8").associate()
        assert not later.is_open
        assert not Line(server, "10.0.0.7").is_open  # nobody is silent
        assert association.is_open
        await turns()


async def test_ten_thousand_silent_connections_keep_nobody_out() -> None:
    """F7, in memory."""
    async with served(stop_timeout=0) as server:
        lines = [Line(server, f"10.0.{number // 40}.1") for number in range(2_000)]
        await turns()
        assert sum(line.is_open for line in lines) == 1024 == server.doorkeeper.tally.total("connections")
        good = Line(server, "10.1.0.1")
        good.associate()
        good.say(ECHO)
        assert good.heard[:1] == b"\4"
        await turns()


async def test_only_who_is_established_counts_as_an_association() -> None:
    async with served(maximum_associations=1) as server:
        for _ in range(5):
            Line(server)
        line = Line(server)
        line.associate()
        other = Line(server)
        other.say(request_pdu())
        assert other.heard == reject_pdu(2, 3, 2)
        line.close()
        await turns()
        Line(server).associate()


# Memory.


async def test_all_associations_share_a_reserve() -> None:
    """Beyond it each may hold what one read brings, and new ones are rejected as transient; it comes back."""
    go = asyncio.Event()
    limits = Limits(maximum_buffered=50_000, maximum_buffered_in_all=120_000)
    async with served(limits=limits) as server:

        @server.on_c_store
        async def slow(operation: Operation) -> None:
            await go.wait()
            assert len(await operation.read()) == 45_000

        lines = [Line(server, f"10.0.0.{number}") for number in range(5)]
        for line in lines:
            line.associate()
        for line in lines:
            line.say(store_pdu(), fragment_pdu(bytes(40_000), is_last=False))
            await turns()
        assert [line.is_held for line in lines] == [False, False, False, True, True]
        assert server.doorkeeper.reserve.used == 200_000
        late = Line(server, "10.0.0.9")
        late.say(request_pdu())
        assert late.heard == reject_pdu(2, 3, 1)
        go.set()
        await turns()
        assert server.doorkeeper.reserve.used == 0
        for line in lines:
            assert not line.is_held
            line.say(fragment_pdu(bytes(5_000)))
        await turns()
        assert all(line.heard[:1] == b"\4" for line in lines)
        Line(server, "10.0.0.9").associate()


async def test_an_association_that_ends_gives_back_what_it_held() -> None:
    async with served() as server:
        line = Line(server)
        line.associate()
        line.say(store_pdu(), fragment_pdu(bytes(40_000), is_last=False))  # its handler has not begun yet
        assert server.doorkeeper.reserve.used == 40_000
        line.close()
        await turns()
        assert server.doorkeeper.reserve.used == 0


async def test_what_a_peer_may_send_are_parameters() -> None:
    limits = Limits(maximum_associate_pdu=300, maximum_tiny_pdvs=3, maximum_command_set=100)
    async with served(limits=limits) as server:
        for said in ([COMMAND_PIECE] * 4, [data_pdu(PDV(ECHO_CONTEXT, True, False, bytes(102)))]):
            line = Line(server)
            line.associate()
            line.say(*said)
            assert line.heard == abort_pdu(2, 6)
        line = Line(server)
        line.say(bytes.fromhex("01 00 0000012D"))
        assert line.heard == abort_pdu(0, 0)


# The numbers by themselves.


class Guest:
    """A connection."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_turned_away = False

    def turn_away(self) -> None:
        self.is_turned_away = True


@pytest.mark.parametrize("tally", [LocalTally(), Counters(3).tally(1)], ids=["local", "shared"])
def test_a_doorkeeper_counts(tally: Tally) -> None:
    turned_away: list[str] = []
    keeper = Doorkeeper(Limits(maximum_connections_per_address=2), tally, turned_away.append)
    guests = [Guest("a"), Guest("a"), Guest("a"), Guest("")]
    for guest in guests:
        keeper.come(guest)
    assert [guest.is_turned_away for guest in guests] == [False, False, True, False]
    assert turned_away == ["a"]
    assert (tally.total("connections"), tally.of("connections", "a")) == (3, 2)
    for guest in guests:
        keeper.leave(guest)
        keeper.leave(guest)
    assert (tally.total("connections"), tally.of("connections", "a")) == (0, 0)


def test_workers_count_together() -> None:
    counters = Counters(2)
    one, two = counters.tally(0), counters.tally(1)
    one.add("connections", "a", 1)
    two.add("connections", "a", 2)
    two.add("connections", "b", 1)
    two.add("associations", "a", 1)
    counters.add(1, "open", 1)
    for tally in (one, two):
        assert (tally.total("connections"), tally.of("connections", "a"), tally.of("connections", "b")) == (4, 3, 1)
        assert (tally.total("associations"), tally.of("associations", "a")) == (1, 1)
    counters.forget(1)  # which is dead
    assert (one.total("connections"), one.of("connections", "a"), one.of("connections", "b")) == (1, 1, 0)
    assert (one.total("associations"), one.of("associations", "a")) == (0, 0)


def test_a_full_reserve_rejects_as_transient() -> None:
    keeper = Doorkeeper(Limits(maximum_buffered_in_all=10), LocalTally(), lambda _address: None)
    keeper.check("a")
    keeper.reserve.used = 11
    with pytest.raises(AssociationRejected, match="temporary congestion"):
        keeper.check("a")


async def test_why_an_association_was_ended_is_said(clock: Clockwork) -> None:
    recorder = Recorder()
    async with served(observers=(recorder,)) as server:
        line = Line(server)
        line.associate()
        line.say(store_pdu())
        for _ in range(3):
            line.say(fragment_pdu(bytes(100), is_last=False))
            await clock.pass_by(10)
        [error] = recorder.closed
        assert isinstance(error, AssociationAborted)
        assert "less than 4096 bytes/s for 30 s" in str(error)


async def test_the_hosts_own_associations_are_counted_as_anybodys() -> None:
    async with serving(limits=Limits(maximum_associations_per_address=1)) as server, connect(server):
        with pytest.raises(AssociationRejected) as caught:
            await connect(server)
        assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)


async def test_a_flood_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(maximum_connections_per_address=1)
    async with served(limits=limits, observers=(LoggingObserver(),)) as server:
        with caplog.at_level("INFO", "aiodicom"):
            for _ in range(50):
                Line(server)
            await turns()
    [line] = [record.getMessage() for record in caplog.records if "too many" in record.getMessage()]
    assert line.startswith("a connection from 10.0.0.1 was closed, since there are too many")
