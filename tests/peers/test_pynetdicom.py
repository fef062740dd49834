"""pynetdicom at the other end: as SCP to our client, as SCU to our server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aiodicom import (
    AssociationRejected,
    Category,
    IdentityType,
    Operation,
    Peer,
    Server,
    UserIdentity,
    associate,
    contexts_for,
)
from tests.peers.archive import check_file_meta, keep_in
from tests.peers.comparing import (
    bundled,
    bundled_instances,
    differences,
    encoded,
    rounds,
    take_all,
    well_formed_instances,
)
from tests.peers.conftest import StartPeer
from tests.peers.pynetdicom_peer import run_pynetdicom_scu

# Each start of pynetdicom takes a second, and which loop waits for it makes no difference.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

MAXIMUM_LENGTHS = [4_096, 16_384, 131_072, 0]


# Our client, pynetdicom's SCP.


async def test_its_scp_gets_every_instance_byte_for_byte(pynetdicom_scp: StartPeer) -> None:
    peer = await pynetdicom_scp()
    for share in rounds(bundled_instances()):
        paths = [instance.path for instance in share.values()]
        contexts = contexts_for(paths)
        async with associate(peer.host, peer.port, contexts=contexts, observers=()) as association:
            assert len(association.contexts) == len(contexts)
            assert (await association.c_echo()).status.category is Category.SUCCESS
            for path in paths:
                response = await association.c_store(path)
                assert response.status.category is Category.SUCCESS, (path.name, response)
        received = take_all(peer.received())
        changed = [uid for uid, instance in share.items() if encoded(instance.path) != encoded(received[uid])]
        assert not changed
        assert all(differences(share[uid].path, received[uid]) == [] for uid in share)


@pytest.mark.parametrize("length", MAXIMUM_LENGTHS)
async def test_its_scp_gets_no_longer_pdu_than_it_takes(pynetdicom_scp: StartPeer, length: int) -> None:
    instance = bundled("examples_overlay.dcm")
    peer = await pynetdicom_scp("--max-pdu", str(length))
    async with associate(
        peer.host, peer.port, contexts=contexts_for([instance.path]), maximum_length=length, observers=()
    ) as association:
        assert association.terms.maximum_length == length
        await association.c_store(instance.path)
    [received] = take_all(peer.received()).values()
    assert encoded(received) == encoded(instance.path)


async def test_its_scp_has_no_operations_window_and_many_tasks_store_all_the_same(pynetdicom_scp: StartPeer) -> None:
    [share, *_] = rounds(bundled_instances())
    paths = [instance.path for instance in share.values()][:20]
    peer = await pynetdicom_scp()
    async with associate(
        peer.host, peer.port, contexts=contexts_for(paths), operations_window=(8, 1), observers=()
    ) as association:
        assert association.terms.maximum_invoked == 1
        responses = await asyncio.gather(*(association.c_store(path) for path in paths))
    assert {response.status.category for response in responses} == {Category.SUCCESS}
    assert len(peer.received()) == len(paths)


async def test_its_scp_refuses_an_instance_an_ae_title_and_a_user(pynetdicom_scp: StartPeer) -> None:
    path = bundled("MR_small.dcm").path
    peer = await pynetdicom_scp("--status", "0xA700", "--require-called", "--token", "secret")
    user = UserIdentity(IdentityType.JWT, b"secret", positive_response_requested=True)
    async with associate(
        peer.host,
        peer.port,
        called_ae_title=peer.ae_title,
        contexts=contexts_for([path]),
        identity=user,
        observers=(),
    ) as association:
        response = await association.c_store(path)
    assert association.terms.identity_response == b"admitted"
    assert (response.status, response.status.category) == (0xA700, Category.FAILURE)

    with pytest.raises(AssociationRejected, match="called AE title not recognized") as wrong_title:
        await associate(peer.host, peer.port, called_ae_title="WRONG", identity=user, observers=())
    assert (wrong_title.value.result, wrong_title.value.source, wrong_title.value.reason) == (1, 1, 7)

    stranger = UserIdentity(IdentityType.USERNAME_AND_PASSCODE, b"ada", b"guess")
    with pytest.raises(AssociationRejected) as wrong_user:
        await associate(
            peer.host,
            peer.port,
            called_ae_title=peer.ae_title,
            identity=stranger,
            allow_plain_passcode=True,
            observers=(),
        )
    assert (wrong_user.value.result, wrong_user.value.source, wrong_user.value.reason) == (2, 2, 1)
    assert "guess" not in str(wrong_user.value)


# pynetdicom's SCU, our server.


async def test_its_scu_stores_every_instance_byte_for_byte(tmp_path: Path) -> None:
    instances, folder = well_formed_instances(), tmp_path / "kept"
    server = Server(port=0, observers=())

    @server.on_c_store
    async def keep(operation: Operation) -> None:
        await operation.save(folder, f"{operation.command.message_id - 1}.dcm")  # it counts from 1

    async with server:
        report = await run_pynetdicom_scu(
            "store", server.port, [instance.path for instance in instances], calling_ae_title="SENDER"
        )
    assert set(report.statuses) == {0x0000}, report.log
    assert len(report.statuses) == len(instances)
    for number, instance in enumerate(instances):
        file = (folder / f"{number}.dcm").read_bytes()
        assert encoded(file) == encoded(instance.path), instance.path.name
        check_file_meta(file, instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid, "SENDER")


async def test_its_scu_sends_no_longer_pdu_than_we_take(tmp_path: Path) -> None:
    path = bundled("examples_overlay.dcm").path
    async with AsyncExitStack() as servers:
        ports = []
        for length in MAXIMUM_LENGTHS:
            server = keep_in(tmp_path / str(length), Server(port=0, maximum_length=length, observers=()))
            ports.append((await servers.enter_async_context(server)).port)
        reports = await asyncio.gather(*(run_pynetdicom_scu("store", port, [path]) for port in ports))
    assert [report.statuses for report in reports] == [[0x0000]] * len(MAXIMUM_LENGTHS)
    for length in MAXIMUM_LENGTHS:
        [kept] = take_all((tmp_path / str(length)).iterdir()).values()
        assert encoded(kept) == encoded(path), length


async def test_its_scu_is_rejected_with_the_reason() -> None:
    async with Server("RIGHT", port=0, require_called_ae_title=True, maximum_associations=1, observers=()) as server:
        wrong = await run_pynetdicom_scu("echo", server.port, called_ae_title="WRONG")
        async with associate("127.0.0.1", server.port, called_ae_title="RIGHT", observers=()):
            crowded = await run_pynetdicom_scu("echo", server.port, called_ae_title="RIGHT")
        accepted = await run_pynetdicom_scu("echo", server.port, called_ae_title="RIGHT")
    assert (wrong.outcome, wrong.rejection) == ("rejected", [1, 1, 7])
    assert (crowded.outcome, crowded.rejection) == ("rejected", [2, 3, 2])
    assert (accepted.outcome, accepted.statuses) == ("accepted", [0x0000])


async def test_its_scu_identifies_its_user() -> None:
    server, seen = Server(port=0, observers=()), []

    @server.on_user_identity(allow_plain_passcode=True)
    async def verify(identity: UserIdentity, _peer: Peer) -> bool:
        seen.append((identity.username, identity.secondary_field))
        return identity.has_passcode("secret")

    async with server:
        admitted = await run_pynetdicom_scu("echo", server.port, user=("ada", "secret"))
        turned_away = await run_pynetdicom_scu("echo", server.port, user=("ada", "guess"))
        nobody = await run_pynetdicom_scu("echo", server.port)
    assert (admitted.outcome, admitted.statuses) == ("accepted", [0x0000])
    for each in (turned_away, nobody):
        assert (each.outcome, each.rejection) == ("rejected", [1, 1, 1])
    assert seen == [("ada", b"secret"), ("ada", b"guess")]
