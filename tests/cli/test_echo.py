"""`aiodicom echo`, as a process, against real servers."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from aiodicom import AssociationRejected, DimseError, Operation
from aiodicom.server import Server
from tests.cli.running import once, run, serving
from tests.loopback import RawPeer, raw_server, reject_pdu
from tests.peers.dcmtk import running_storescp
from tests.peers.process import execute, free_port

pytestmark = once


async def test_one_line_says_what_it_means() -> None:
    async with serving() as server:
        port = server.port
        done = await run("echo", f"SCP@127.0.0.1:{port}", "-aet", "ME")
    assert (done.exit_code, done.errors) == (0, "")
    assert re.fullmatch(
        rf"SCP@127\.0\.0\.1:{port} answered C-ECHO in [0-9.]+ ms with 0x0000 Success: "
        r"it is there, and takes associations from ME \(association in [0-9.]+ m?s; AIODICOM_\d+\)\n",
        done.output,
    )


async def test_repeated() -> None:
    asked = 0

    async with serving() as server:

        @server.on_c_echo
        async def count(_operation: Operation) -> None:
            nonlocal asked
            asked += 1

        done = await run("echo", "localhost", str(server.port), "-aec", "SCP", "--repeat", "25")
    assert done.exit_code == 0, done
    assert asked == 25
    assert "answered 25 C-ECHOs in " in done.output


async def test_quiet_prints_nothing() -> None:
    async with serving() as server:
        done = await run("echo", "-q", f"127.0.0.1:{server.port}")
    assert (done.exit_code, done.output, done.errors) == (0, "", "")


async def test_storescp_answers(tmp_path: Path) -> None:
    with running_storescp(tmp_path) as peer:
        done = await run("echo", peer.host, str(peer.port), "-aec", peer.ae_title)
    assert done.exit_code == 0, done
    assert "OFFIS_DCMTK" in done.output


async def test_verbose_tells_the_negotiation_in_the_words_of_the_standard() -> None:
    async with serving(require_called_ae_title=True) as server:
        port = server.port
        done = await run("echo", "-v", f"SCP@127.0.0.1:{port}", "-pdu", "16384")
        rejected = await run("echo", "-v", f"WRONG@127.0.0.1:{port}")
    lines = done.errors.splitlines()
    expected = [
        f"sent A-ASSOCIATE-RQ to 127.0.0.1:{port}",
        "  called AE title 'SCP', calling AE title 'AIODICOM'",
        "  maximum length 16,384",
        "  presentation contexts proposed: 1",
        "      1  Verification SOP Class",
        "           Explicit VR Little Endian",
        "           Implicit VR Little Endian",
        f"received A-ASSOCIATE-AC from 127.0.0.1:{port}",
        "  presentation contexts accepted: 1 of 1",
        "      1  Verification SOP Class",
        "           acceptance: Explicit VR Little Endian",
        "C-ECHO-RSP: 0x0000 Success",
        f"sent A-RELEASE-RQ to 127.0.0.1:{port}",
        f"received A-RELEASE-RP from 127.0.0.1:{port}",
    ]
    assert [line for line in lines if line in expected] == expected
    assert "P-DATA-TF" not in done.errors
    assert f"received A-ASSOCIATE-RJ from 127.0.0.1:{port}\n" in rejected.errors


async def test_debug_tells_every_pdu_and_message() -> None:
    async with serving() as server:
        done = await run("echo", "-d", f"127.0.0.1:{server.port}")
    assert "sent P-DATA-TF, presentation context 1: 68 bytes of command, last fragment\n" in done.errors
    assert "CEchoRQ(message_id=1, affected_sop_class_uid='1.2.840.10008.1.1')\n" in done.errors
    assert "received A-RELEASE-RP" in done.errors


async def test_nobody_listens() -> None:
    port = free_port()
    done = await run("echo", f"PACS@127.0.0.1:{port}")
    assert (done.exit_code, done.output) == (60, "")
    assert done.errors.startswith(f"error: no connection to 127.0.0.1:{port}: Connection refused; is a DICOM server")


async def test_rejected() -> None:
    async with serving(require_called_ae_title=True) as server:
        done = await run("echo", f"OTHER@127.0.0.1:{server.port}")
    assert done.exit_code == 61
    assert done.errors == (
        "error: association rejected: called AE title not recognized (rejected-permanent, by the service-user); "
        "the peer has another AE title: ask for it by that one\n"
    )


async def test_verification_is_not_accepted() -> None:
    server = Server(port=0, observers=())
    server.services.clear()
    async with server:
        done = await run("echo", f"127.0.0.1:{server.port}")
    assert done.exit_code == 66
    assert "no accepted presentation context for Verification SOP Class" in done.errors


@pytest.mark.parametrize(("status", "exit_code"), [(0xA700, 69), (0xB000, 68)])
async def test_a_status_that_is_no_success(status: int, exit_code: int) -> None:
    async with serving() as server:

        @server.on_c_echo
        async def answer(_operation: Operation) -> None:
            raise DimseError(status, "busy\x1b[1m")

        done = await run("echo", f"127.0.0.1:{server.port}")
    assert done.exit_code == exit_code, done
    assert f"0x{status:04X}" in done.output + done.errors
    assert "busy" in done.output + done.errors
    assert "\x1b" not in done.output + done.errors


async def test_the_peer_aborts() -> None:
    async with serving() as server:
        aborts: list[asyncio.Task[None]] = []

        @server.on_c_echo
        async def abort(_operation: Operation) -> None:
            aborts.extend(asyncio.create_task(association.abort()) for association in server.associations)
            await asyncio.Event().wait()

        done = await run("echo", f"127.0.0.1:{server.port}")
        await asyncio.gather(*aborts)
    assert done.exit_code == 70
    assert done.errors == "error: association aborted by the peer (service-user: reason not specified)\n"


async def test_no_response_in_time() -> None:
    async with serving() as server:

        @server.on_c_echo
        async def think(_operation: Operation) -> None:
            await asyncio.Event().wait()

        done = await run("echo", f"127.0.0.1:{server.port}", "-td", "0.1")
    assert done.exit_code == 60
    assert done.errors.startswith("error: no progress in phase 'response' for 0.1 s; the peer did not answer")


async def test_no_answer_in_time() -> None:
    async def keep_silent(peer: RawPeer) -> None:
        await peer.rest()

    async with raw_server(keep_silent) as server:
        done = await run("echo", f"127.0.0.1:{server.port}", "-ta", "0.1")
    assert done.exit_code == 60
    assert "is it a DICOM port?" in done.errors


async def test_what_a_rejection_without_a_name_says() -> None:
    async def reject(peer: RawPeer) -> None:
        await peer.pdu()
        peer.send(reject_pdu(2, 3, 2))
        await peer.rest()

    async with raw_server(reject) as server:
        done = await run("echo", f"127.0.0.1:{server.port}")
    assert done.exit_code == 61
    assert str(AssociationRejected(2, 3, 2)) in done.errors


async def test_neither_pydicom_nor_rich_is_imported() -> None:
    script = (
        "import sys; from aiodicom.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, [name for name in ('pydicom', 'numpy', 'rich') if name in sys.modules])"
    )
    async with serving() as server:
        echo = await execute([sys.executable, "-c", script, "echo", "-q", f"127.0.0.1:{server.port}"])
    assert echo.output == "0 []\n", echo
    helped = await execute([sys.executable, "-c", script, "store", "--help"])
    assert helped.output.endswith("\n0 []\n"), helped
