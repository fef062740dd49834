"""`aiodicom find`, as a process, against real servers."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiodicom import DimseError, Operation
from aiodicom.dimse.commands import CFindRQ, CFindRSP
from aiodicom.dimse.status import Status
from aiodicom.query import NO_OPTIONS, QueryOptions
from aiodicom.server import Server
from aiodicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from aiodicom.upper_layer.items import PresentationContextAC
from tests.cli.running import PROGRAM, SECONDS_FOR_A_LINE, once, run, serving, started
from tests.inquiries import STUDY, message, released, row
from tests.loopback import RawPeer, Recorder, accept_pdu, command_pdu, fragment_pdu, raw_server

pytestmark = once

Row = dict[str, object]
ROWS: list[Row] = [
    {"QueryRetrieveLevel": "STUDY", "PatientName": name, "StudyInstanceUID": f"1.2.{number}", "StudyDate": "20240131"}
    for number, name in enumerate(("Doe^Jane", "Doe^John", "山田^太郎"), 1)
]
KEYS = ("-k", "PatientName", "-k", "StudyDate")


def answering(server: Server, model: str = "study", *, options: QueryOptions = NO_OPTIONS) -> list[Operation]:
    """Let a server answer every query with ROWS; what it is asked is in what is returned."""
    asked: list[Operation] = []

    @server.on_c_find(model, options=options)
    async def find(operation: Operation) -> AsyncIterator[Row]:
        asked.append(operation)
        for each in ROWS:
            yield each

    return asked


async def test_json_lines_where_there_is_no_terminal() -> None:
    async with serving() as server:
        asked = answering(server)
        done = await run(
            "find", f"SCP@127.0.0.1:{server.port}", "--level", "study", "-k", "PatientName=*", "-aet", "ME"
        )
    assert (done.exit_code, done.errors) == (0, "")
    matches = [json.loads(line) for line in done.output.splitlines()]
    assert [each["0020000D"]["Value"] for each in matches] == [["1.2.1"], ["1.2.2"], ["1.2.3"]]
    assert matches[2]["00100010"]["Value"] == [{"Alphabetic": "山田^太郎"}]
    [operation] = asked
    assert operation.peer.ae_title == "ME"
    assert (operation.identifier.QueryRetrieveLevel, operation.identifier.PatientName) == ("STUDY", "*")
    assert operation.identifier.StudyInstanceUID == ""


async def test_a_table_when_asked_for() -> None:
    async with serving() as server:
        answering(server)
        done = await run("find", "127.0.0.1", str(server.port), "-aec", "SCP", *KEYS, "--output", "table")
    assert (done.exit_code, done.errors) == (0, "")
    assert done.output.splitlines() == [
        "PatientName  StudyDate   StudyInstanceUID",
        "Doe^Jane     2024-01-31  1.2.1",
        "Doe^John     2024-01-31  1.2.2",
        "山田^太郎    2024-01-31  1.2.3",
    ]


async def test_a_query_from_a_file(tmp_path: Path) -> None:
    query = tmp_path / "query.txt"
    query.write_text("(0008,0052) CS [STUDY]\n(0010,0010) PN [*]\n(0020,000d) UI\n")
    async with serving() as server:
        asked = answering(server)
        done = await run("find", f"127.0.0.1:{server.port}", query, "--output", "csv")
    assert done.exit_code == 0, done
    assert [each.keyword for each in asked[0].identifier] == ["QueryRetrieveLevel", "PatientName", "StudyInstanceUID"]
    assert done.output.splitlines()[:2] == ["PatientName,StudyInstanceUID", "Doe^Jane,1.2.1"]


async def test_nothing_found_is_no_failure() -> None:
    async with serving() as server:

        @server.on_c_find("patient")
        async def find(_operation: Operation) -> AsyncIterator[Row]:
            for each in ROWS[:0]:
                yield each

        done = await run("find", f"127.0.0.1:{server.port}", "-P", "--level", "patient")
        quiet = await run("find", f"127.0.0.1:{server.port}", "-P", "--level", "patient", "-q")
    assert (done.exit_code, done.output) == (0, "")
    assert done.errors.startswith("no matches in ")
    assert (quiet.exit_code, quiet.output, quiet.errors) == (0, "", "")


@pytest.mark.parametrize("option", ["--limit", "--cancel"])
async def test_a_limit_cancels_the_query_and_releases_the_association(option: str) -> None:
    told = Recorder()
    async with serving(observers=[told]) as server:

        @server.on_c_find()
        async def find(_operation: Operation) -> AsyncIterator[Row]:
            for each in ROWS[:2]:
                yield each
            await asyncio.Event().wait()

        done = await run("find", f"127.0.0.1:{server.port}", option, "2", "--output", "uids")
    assert (done.exit_code, done.output, done.errors) == (0, "1.2.1\n1.2.2\n", "")
    assert "received CCancelRQ" in told.calls
    assert told.calls[-1] == "closed AssociationReleased"


async def test_who_reads_no_more_ends_the_query() -> None:
    told = Recorder()
    async with serving(observers=[told]) as server:

        @server.on_c_find()
        async def find(_operation: Operation) -> AsyncIterator[Row]:
            while True:
                yield ROWS[0]
                await asyncio.sleep(0)

        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            "find",
            f"127.0.0.1:{server.port}",
            "--output",
            "uids",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.readline() == b"1.2.1\n"
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        async with asyncio.timeout(SECONDS_FOR_A_LINE):
            errors = await process.stderr.read()
            assert await process.wait() == 40
        assert "received CCancelRQ" in told.calls
    assert errors == b""


async def test_interrupted() -> None:
    told = Recorder()
    async with serving(observers=[told]) as server:

        @server.on_c_find()
        async def find(_operation: Operation) -> AsyncIterator[Row]:
            yield ROWS[0]
            await asyncio.Event().wait()

        async with started("find", f"127.0.0.1:{server.port}", "--output", "uids") as program:
            assert await program.line() == "1.2.1\n"
            program.process.send_signal(signal.SIGINT)
            done = await program.end()
        assert "received CCancelRQ" in told.calls
    assert (done.exit_code, done.output, done.errors) == (130, "", "")


async def test_a_table_does_not_wait_for_a_slow_peer() -> None:
    async with serving() as server:
        shown = asyncio.Event()

        @server.on_c_find()
        async def find(_operation: Operation) -> AsyncIterator[Row]:
            yield ROWS[0]
            await shown.wait()
            yield ROWS[2]

        async with started("find", f"127.0.0.1:{server.port}", *KEYS, "--output", "table") as program:
            assert (await program.line()).startswith("PatientName  StudyDate")
            assert (await program.line()).startswith("Doe^Jane     2024-01-31")
            shown.set()
            done = await program.end()
    assert (done.exit_code, done.errors) == (0, "")
    assert done.output == "山田^太郎   2024-01-31  1.2.3\n" or done.output.split() == [
        "山田^太郎",
        "2024-01-31",
        "1.2.3",
    ]


async def test_on_a_terminal_it_says_how_many() -> None:
    terminal, follower = pty.openpty()
    async with serving() as server:
        answering(server)
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            "find",
            f"127.0.0.1:{server.port}",
            *KEYS,
            stdout=follower,
            stderr=subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "60"},
        )
        _, errors = await process.communicate()
    os.close(follower)
    printed = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert printed.splitlines()[:2] == [
        "PatientName  StudyDate   StudyInstanceUID",
        "Doe^Jane     2024-01-31  1.2.1",
    ]
    assert errors.decode().startswith("3 matches in ")


# What goes wrong.


@pytest.mark.parametrize(
    ("status", "exit_code", "words"),
    [
        (0xA700, 69, "answered 0xA700 Failure, Refused: Out of Resources (busy)\n"),
        (0xA900, 69, "does not match SOP Class (busy); name the UIDs of the levels above as well"),
        (0x0124, 69, "Refused: Not authorized (busy); take an AE title that may, by -aet, or allow AIODICOM there"),
        (0xB001, 68, "answered 0xB001 Warning, Matching reached response limit"),
        (0xFE00, 69, "answered 0xFE00 Cancel"),
    ],
)
async def test_how_it_ended_is_told(status: int, exit_code: int, words: str) -> None:
    async with serving() as server:

        @server.on_c_find()
        async def find(_operation: Operation) -> AsyncIterator[Row]:
            yield ROWS[0]
            raise DimseError(status, "busy")

        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("find", peer, "--output", "uids")
    assert (done.exit_code, done.output) == (exit_code, "1.2.1\n")
    assert done.errors.startswith(f"{'warning' if exit_code == 68 else 'error'}: {peer} answered ")
    assert words in done.errors


async def test_a_peer_that_aborts_perhaps_does_not_know_us() -> None:
    async with serving() as server:
        aborts: list[asyncio.Task[None]] = []

        @server.on_c_find()
        async def find(operation: Operation) -> AsyncIterator[Row]:
            if operation.peer.ae_title == "KNOWN":
                yield ROWS[0]
            aborts.extend(asyncio.create_task(association.abort()) for association in server.associations)
            await asyncio.Event().wait()
            yield ROWS[1]

        unknown = await run("find", f"127.0.0.1:{server.port}")
        known = await run("find", f"127.0.0.1:{server.port}", "-aet", "KNOWN", "--output", "uids")
        await asyncio.gather(*aborts)
    assert (unknown.exit_code, unknown.output) == (70, "")
    assert unknown.errors == (
        "error: association aborted by the peer (service-user: reason not specified); perhaps the peer does not know our "
        "AE title, AIODICOM: give the one that it knows by -aet, or add AIODICOM there\n"
    )
    assert (known.exit_code, known.output) == (70, "1.2.1\n")
    assert known.errors == "error: association aborted by the peer (service-user: reason not specified)\n"


async def test_a_model_that_the_peer_does_not_have() -> None:
    async with serving() as server:
        answering(server)
        done = await run("find", f"127.0.0.1:{server.port}", "-P")
    assert (done.exit_code, done.output) == (66, "")
    assert "no accepted presentation context for Patient Root Query/Retrieve Information Model - FIND" in done.errors
    assert done.errors.endswith("; another information model may do: -P, -S or -O\n")


async def test_no_response_in_time() -> None:
    async with serving() as server:

        @server.on_c_find()
        async def find(_operation: Operation) -> AsyncIterator[Row]:
            yield ROWS[0]
            await asyncio.Event().wait()

        done = await run("find", f"127.0.0.1:{server.port}", "-td", "0.2", "--output", "uids")
    assert (done.exit_code, done.output) == (60, "1.2.1\n")
    assert done.errors.startswith("error: no progress in phase 'response' for 0.2 s")


async def test_what_the_peer_does_not_match_by_is_told() -> None:
    async with serving() as server:
        answering(server)
        done = await run(
            "find", f"127.0.0.1:{server.port}", "-k", "PatientName=doe*", "-k", "StudyDate=20240101-20241231"
        )
        fits = await run("find", f"127.0.0.1:{server.port}", "-k", "PatientName=*", "-k", "StudyDate=20240131")
    assert done.exit_code == 0
    assert done.errors == (
        "warning: in 1 of 3 matches PatientName is not what was asked for: the peer does not match by it here; "
        "ask at its own level\n"
    )
    assert (fits.exit_code, fits.errors) == (0, "")


async def test_what_is_negotiated() -> None:
    async with serving() as server:
        asked = answering(server, options=QueryOptions(relational=True))
        done = await run("find", f"127.0.0.1:{server.port}", "--relational", "--fuzzy", "-k", "PatientName=X*")
    assert done.exit_code == 0
    assert done.errors == "warning: the peer does not agree to --fuzzy\n"
    assert asked[0].options == QueryOptions(relational=True)


async def test_a_peer_that_does_not_support_some_keys_and_sends_what_cannot_be_decoded() -> None:
    async def answer(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(accept_pdu(PresentationContextAC(1, 0, IMPLICIT_VR_LITTLE_ENDIAN)))
        command, _ = await message(peer)
        assert isinstance(command, CFindRQ)
        for status, data in ((0xFF01, row(1)), (0xFF01, row(2)[:-1]), (0xFF01, row(3)), (0, None)):
            response = CFindRSP(message_id_being_responded_to=command.message_id, status=Status(status))
            peer.send(command_pdu(1, response, has_data_set=data is not None))
            if data is not None:
                peer.send(fragment_pdu(data, context_id=1))
        await released(peer)

    async with raw_server(answer) as server:
        done = await run("find", f"127.0.0.1:{server.port}", "-v", "--output", "uids")
    assert (done.exit_code, done.output) == (69, f"{STUDY}.1\n{STUDY}.3\n")
    assert done.errors.count("does not support some of the keys (0xFF01)") == 1
    assert done.errors.endswith("error: 1 match could not be decoded\n")
