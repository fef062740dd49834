"""`aiodicom move`, as a process, against real servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from aiodicom import EncodedInstance, InstanceFile, Operation
from tests.cli.holding import KEY, OTHER_KEY, OTHER_STUDY, STUDY, holding, kept, names_of, write
from tests.cli.running import once, run, serving, started
from tests.loopback import Recorder, ct_instance, data_set
from tests.peers.process import free_port
from tests.studies import instances_of

pytestmark = once


class Sink:
    """Where instances are moved to: what came, and what is answered."""

    def __init__(self, status: int = 0) -> None:
        self.uids: list[str] = []
        self.status = status

    async def __call__(self, operation: Operation) -> int:
        await operation.read()
        self.uids.append(operation.sop_instance_uid)
        return self.status


async def test_to_another_by_its_ae_title_or_the_name_of_a_node(tmp_path: Path) -> None:
    sink = Sink()
    configuration = tmp_path / "nodes.toml"
    configuration.write_text('[nodes.workstation]\nae_title = "WS1"\nhost = "127.0.0.1"\nport = 104\n')
    async with (
        serving(sink) as receiver,
        holding(tmp_path / "there", destinations={"WS1": ("127.0.0.1", receiver.port)}) as server,
    ):
        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("move", peer, "--to", "WS1", "-k", KEY)
        node = await run("move", peer, "-aem", "workstation", "-k", OTHER_KEY, "--config", configuration)
    assert (done.exit_code, done.errors) == (0, "")
    assert done.output.startswith(f"moved 7 instances from {peer} to WS1 in ")
    assert (node.exit_code, node.errors) == (0, "")
    assert sorted(sink.uids) == sorted(
        each.SOPInstanceUID for each in (*instances_of("jane/chest"), *instances_of("mueller/head"))
    )


async def test_to_self(tmp_path: Path) -> None:
    port = free_port()
    async with holding(tmp_path / "there", destinations={"ME": ("127.0.0.1", port)}) as server:
        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run(
            "move", peer, "-aet", "ME", "--to", "self", "--port", str(port), "-k", KEY, "-od", tmp_path / "here"
        )
    assert (done.exit_code, done.errors) == (0, "")
    assert done.output.startswith(f"got 7 instances (5.0 kB) from {peer} into {tmp_path / 'here'} in ")
    assert kept(tmp_path / "here").keys() == names_of("jane/chest")


async def test_a_list_to_self(tmp_path: Path) -> None:
    port = free_port()
    listed = tmp_path / "uids.txt"
    listed.write_text(f"{STUDY}\n{OTHER_STUDY}\n")
    async with holding(tmp_path / "there", destinations={"AIODICOM": ("127.0.0.1", port)}) as server:
        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("move", peer, "--to", "self", "+P", str(port), listed, "-od", tmp_path / "here")
    assert (done.exit_code, done.errors) == (0, "")
    assert done.output.startswith("got 13 instances (")
    assert kept(tmp_path / "here").keys() == names_of("jane/chest", "mueller/head")


async def test_a_destination_that_the_peer_does_not_know(tmp_path: Path) -> None:
    async with holding(tmp_path / "there") as server:
        peer = f"SCP@127.0.0.1:{server.port}"
        other = await run("move", peer, "--to", "WS1", "-k", KEY)
        port = free_port()
        ourselves = await run("move", peer, "--to", "self", "--port", str(port), "-k", KEY)
    assert other.exit_code == 69
    assert other.output.startswith(f"moved nothing from {peer} in ")
    assert other.errors == (
        f"error: {peer} answered 0xA801 Failure, Refused: Move Destination unknown (Move destination WS1 is unknown); "
        "it does not know WS1: add that there, with the address at which it listens\n"
    )
    assert ourselves.exit_code == 69
    assert ourselves.errors.endswith(
        f"it does not know AIODICOM: add that there, with the address of this machine, and port {port}\n"
    )


async def test_nobody_listens_where_the_peer_believes_us_to_be(tmp_path: Path) -> None:
    elsewhere, port = free_port(), free_port()
    async with holding(tmp_path / "there", destinations={"AIODICOM": ("127.0.0.1", elsewhere)}) as server:
        peer = f"SCP@127.0.0.1:{server.port}"
        done = await run("move", peer, "--to", "self", "--port", str(port), "-k", KEY, "-od", tmp_path / "here")
    assert done.exit_code == 69
    assert done.output.splitlines()[1] == "7 failed:"
    assert f"error: {peer} answered 0xA702 Failure, " in done.errors
    assert done.errors.endswith(f"; does it have AIODICOM with the address of this machine, and port {port}?\n")


async def test_somebody_else_listens_where_the_peer_believes_us_to_be(tmp_path: Path) -> None:
    """As an `aiodicom serve` of the same AE title does: the instances are well kept, but not by us."""
    sink, port = Sink(), free_port()
    async with (
        serving(sink) as other,
        holding(tmp_path / "there", destinations={"AIODICOM": ("127.0.0.1", other.port)}) as server,
    ):
        done = await run(
            "move", f"127.0.0.1:{server.port}", "--to", "self", "--port", str(port), "-k", KEY, "-od", tmp_path / "here"
        )
    assert len(sink.uids) == 7
    assert done.exit_code == 69
    assert done.output.startswith("got nothing from ")
    assert done.errors.endswith(
        "error: 7 instances did not come: does the peer have AIODICOM with the address of this machine, "
        f"and port {port}?\n"
    )


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with holding(tmp_path / "there") as server:
        port = str(server.port)
        done = await run("move", f"127.0.0.1:{port}", "--to", "self", "--port", port, "--host", "127.0.0.1", "-k", KEY)
    assert done.exit_code == 60
    assert f"error: cannot listen at 127.0.0.1:{port}: " in done.errors


@pytest.mark.parametrize(
    ("status", "exit_code", "words"), [(0xB000, 68, "7 of these with a warning"), (0xA700, 69, "7 failed:")]
)
async def test_what_the_destination_answers_counts(tmp_path: Path, status: int, exit_code: int, words: str) -> None:
    async with (
        serving(Sink(status)) as receiver,
        holding(tmp_path / "there", destinations={"WS1": ("127.0.0.1", receiver.port)}) as server,
    ):
        done = await run("move", f"127.0.0.1:{server.port}", "--to", "WS1", "-k", KEY)
    assert done.exit_code == exit_code
    assert done.output.splitlines()[1] == words


async def test_interrupted(tmp_path: Path) -> None:
    files = write(tmp_path / "there", "jane/chest")
    told, sink = Recorder(), Sink()
    stuck = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield data_set()[:100]
        stuck.set()
        await told.until(lambda: "received CCancelRQ" in told.calls)
        yield data_set()[100:]

    async with serving(sink) as receiver, serving(observers=[told]) as server:

        @server.on_c_move(destinations={"WS1": ("127.0.0.1", receiver.port)})
        async def move(_operation: Operation) -> list[InstanceFile | EncodedInstance]:
            return [files[0], replace(ct_instance(), data=slowly()), files[1]]

        async with started("move", f"127.0.0.1:{server.port}", "--to", "WS1", "-k", KEY) as program:
            await stuck.wait()
            program.process.send_signal(signal.SIGINT)
            done = await program.end()
    assert done.exit_code == 130
    assert done.errors == "error: interrupted: there is more, which can be asked for again\n"
    assert done.output.startswith("moved ")
    assert len(sink.uids) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --to"),
        (["--to", "no\\title"], "'no\\\\title' is neither a node's name nor an AE title"),
        (["--to", "WS1", "-od", "here"], "-od is for --to self"),
        (["--to", "WS1", "--port", "0"], "'0' is no number from 1 to 65535"),
    ],
)
async def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = await run("move", "A@127.0.0.1:1", "-k", KEY, *arguments)
    assert done.exit_code == 1
    assert message in done.errors
