"""Archives that hold the same studies answer the same queries, each as it is known to: see tests/peers/habits.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiodicom import Archive, Server
from aiodicom.nodes import RIGHTS
from tests.peers.asking import ask_with_findscu, ask_with_pynetdicom
from tests.peers.conftest import StartArchive
from tests.peers.habits import AIODICOM, DCMQRSCP, ORTHANC, Habits, unexpected
from tests.peers.orthanc import running_orthanc
from tests.peers.process import Peer
from tests.peers.queries import QUERIES

pytestmark = pytest.mark.usefixtures("no_nagle")
# A hundred queries take seconds, and which loop waits for them makes no difference.
once = pytest.mark.asyncio(loop_factories=["uvloop"])

BY_NAME = {query.name: query for query in QUERIES}


@pytest.fixture
async def orthanc_with_studies(tmp_path: Path, studies: list[Path]) -> AsyncIterator[Peer]:
    """An Orthanc that everybody may query, and that answers in a character set that holds all names."""
    options = {"DicomAlwaysAllowFind": True, "DefaultEncoding": "Utf8"}
    with running_orthanc(tmp_path, options=options) as orthanc:
        for path in studies:
            await orthanc.upload(path.read_bytes())
        yield orthanc.peer


async def compare(peer: Peer, habits: Habits) -> dict[str, list[str]]:
    """Put every query to an archive; what it answers otherwise than it is known to, by the query's name."""
    asked = [query for query in QUERIES if query.model in habits.models]
    found = {query.name: unexpected(query, await ask_with_findscu(peer, query), habits) for query in asked}
    return {name: lines for name, lines in found.items() if lines}


@once
async def test_orthanc_answers_as_it_is_known_to(orthanc_with_studies: Peer) -> None:
    assert await compare(orthanc_with_studies, ORTHANC) == {}


@once
async def test_dcmqrscp_answers_as_it_is_known_to(dcmqrscp: StartArchive, studies: list[Path]) -> None:
    assert await compare(await dcmqrscp(studies), DCMQRSCP) == {}


@pytest.fixture
async def archive_with_studies(tmp_path: Path, studies: list[Path]) -> AsyncIterator[Peer]:
    """Our own archive, which everybody may query."""
    async with Archive(tmp_path / "archive") as archive:
        await asyncio.gather(*map(archive.add, studies))
        async with Server("ARCHIVE", port=0, services=archive.services(unknown_may=RIGHTS)) as server:
            yield Peer("aiodicom", "ARCHIVE", server.port, tmp_path, tmp_path)


@once
async def test_our_archive_answers_as_the_standard_has_it(archive_with_studies: Peer) -> None:
    assert await compare(archive_with_studies, AIODICOM) == {}


@once
@pytest.mark.parametrize("name", ["a list of UIDs", "what was requested", "a Greek name", "series of no study"])
async def test_who_asks_makes_no_difference(dcmqrscp: StartArchive, studies: list[Path], name: str) -> None:
    peer = await dcmqrscp(studies)
    assert unexpected(BY_NAME[name], await ask_with_pynetdicom(peer, BY_NAME[name]), DCMQRSCP) == []


@pytest.mark.parametrize("habits", [ORTHANC, DCMQRSCP, AIODICOM], ids=["orthanc", "dcmqrscp", "aiodicom"])
def test_each_difference_is_of_a_query_and_has_a_reason(habits: Habits) -> None:
    assert habits.differences.keys() <= BY_NAME.keys()
    assert all(difference.why for difference in habits.differences.values())


def test_no_two_queries_have_the_same_name() -> None:
    assert len(BY_NAME) == len(QUERIES)
