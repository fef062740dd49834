"""DCMTK's programs: each of its SCUs run to its end, and its SCPs kept running."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydicom import Dataset, FileDataset, FileMetaDataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from aiodicom.uids import MODALITY_WORKLIST_FIND
from tests.peers.process import LOOPBACK, NOWHERE, Finished, Peer, execute, free_port, require, running
from tests.peers.query_report import QueryReport

# It has room for 500 studies; beyond that it forgets the oldest.
DCMQRSCP_CONFIGURATION: Final = """\
NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 64
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {storage} RW (500, 1024mb) ANY
AETable END
"""

# What its SCUs print with -d.
RESPONSE: Final = re.compile(r"Message Type +: C-(?:FIND|GET|MOVE) RSP\n(.*?)END DIMSE MESSAGE", re.DOTALL)
STATUS: Final = re.compile(r"DIMSE Status +: 0x([0-9a-f]{4})")
COUNTER: Final = re.compile(r"(Remaining|Completed|Failed|Warning) Suboperations +: (\d+)$", re.MULTILINE)


async def run(program: str, *arguments: str | Path, deadline: float = 60.0) -> Finished:
    """Run echoscu, storescu, dcmsend, dcmdump … to its end."""
    return await execute([require(program, "dcmtk"), *map(str, arguments)], deadline=deadline)


async def run_findscu(
    port: int, *keys: str, model: str = "-S", options: Iterable[str] = (), query: Path | None = None
) -> QueryReport:
    """Let findscu ask a port of this machine: `await run_findscu(port, "QueryRetrieveLevel=STUDY", "PatientID")`.

    Args:
        port: where the SCP listens.
        keys: as behind `-k`.
        model: -P, -S, -O or -W.
        options: more of its command line.
        query: a query file.
    """
    with TemporaryDirectory() as folder:
        finished = await _run_query("findscu", port, keys, (model, "-X", "-od", folder, *options), query)
        matches = [dcmread(path) for path in sorted(Path(folder).glob("rsp*.dcm"))]
    return _report(finished, matches)


async def run_movescu(
    port: int,
    destination: str,
    *keys: str,
    model: str = "-S",
    options: Iterable[str] = (),
    query: Path | None = None,
) -> QueryReport:
    """Let movescu ask a port of this machine to send to an AE title; the rest as for findscu."""
    return _report(await _run_query("movescu", port, keys, (model, "-aem", destination, *options), query))


async def run_getscu(
    port: int,
    folder: Path,
    *keys: str,
    model: str = "-S",
    options: Iterable[str] = (),
    query: Path | None = None,
) -> QueryReport:
    """Let getscu fetch into a folder, which is made if need be; the rest as for findscu."""
    folder.mkdir(exist_ok=True)
    return _report(await _run_query("getscu", port, keys, (model, "-od", str(folder), *options), query))


async def _run_query(
    program: str, port: int, keys: Iterable[str], options: Iterable[str], query: Path | None
) -> Finished:
    keys_and_options = [*options, *(word for key in keys for word in ("-k", key))]
    return await run(program, "-d", *keys_and_options, LOOPBACK, str(port), *([query] if query else []))


def _report(finished: Finished, matches: Sequence[Dataset] = ()) -> QueryReport:
    log = finished.output + finished.errors
    responses = RESPONSE.findall(log)
    statuses = [int(status, 16) for response in responses for status in STATUS.findall(response)]
    counters = {name: int(count) for name, count in COUNTER.findall(responses[-1])} if responses else {}
    return QueryReport(statuses, counters, matches, log)


@contextmanager
def running_storescp(directory: Path, *options: str, ae_title: str = "STORESCP") -> Iterator[Peer]:
    """DCMTK's storescp, keeping what it receives in `received` below that directory; options as on its command line."""
    program = require("storescp", "dcmtk")
    peer = Peer("storescp", ae_title, free_port(), directory / "received", directory / "storescp.log")
    peer.directory.mkdir(parents=True)
    command = [program, "-v", "-aet", ae_title, "-od", str(peer.directory), *options, str(peer.port)]
    with running(peer, command) as started:
        yield started


@contextmanager
def running_dcmqrscp(
    directory: Path,
    files: Iterable[Path] = (),
    *options: str,
    ae_title: str = "DCMQRSCP",
    destinations: Mapping[str, int] = NOWHERE,
) -> Iterator[Peer]:
    """DCMTK's archive, which everybody may query and store to; it keeps what it receives in `received`.

    Args:
        directory: for its files.
        files: what it has from the start, left where it is, in any transfer syntax.
        options: as on its command line.
        ae_title: its own; it answers to no other.
        destinations: the ports of this machine that it may send to, by AE title.
    """
    program = require("dcmqrscp", "dcmtk")
    peer = Peer("dcmqrscp", ae_title, free_port(), directory / "received", directory / "dcmqrscp.log")
    peer.directory.mkdir(parents=True)
    configuration = directory / "dcmqrscp.cfg"
    configuration.write_text(
        DCMQRSCP_CONFIGURATION.format(
            port=peer.port,
            hosts="\n".join(f"{title} = ({title}, localhost, {port})" for title, port in destinations.items()),
            ae_title=ae_title,
            storage=peer.directory,
        )
    )
    if paths := list(map(str, files)):
        subprocess.run([require("dcmqridx", "dcmtk"), str(peer.directory), *paths], check=True)
    with running(peer, [program, "-v", *options, "-c", str(configuration)]) as started:
        yield started


@contextmanager
def running_wlmscpfs(
    directory: Path, entries: Iterable[Dataset], *options: str, ae_title: str = "WLMSCPFS"
) -> Iterator[Peer]:
    """DCMTK's worklist with those entries; it answers whoever calls it by that AE title; options as on its command line."""
    program = require("wlmscpfs", "dcmtk")
    peer = Peer("wlmscpfs", ae_title, free_port(), directory / ae_title, directory / "wlmscpfs.log")
    peer.directory.mkdir(parents=True)
    (peer.directory / "lockfile").touch()
    for number, entry in enumerate(entries, 1):
        write_identifier(entry, peer.directory / f"{number}.wl")
    with running(peer, [program, "-v", "-csk", *options, "-dfp", str(directory), str(peer.port)]) as started:
        yield started


def write_identifier(identifier: Dataset, path: Path) -> None:
    """Write a query or a worklist entry as a Part 10 file: short ones without its head are a riddle to DCMTK."""
    file = FileDataset(str(path), identifier, preamble=bytes(128), file_meta=FileMetaDataset())
    file.file_meta.MediaStorageSOPClassUID = UID(MODALITY_WORKLIST_FIND)
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.save_as(path, enforce_file_format=True)
