"""DCMTK at the other end: storescp as our receiver; echoscu, storescu and dcmsend as senders to our server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from aiodicom import (
    AssociationAborted,
    AssociationRejected,
    Category,
    EncodedInstance,
    IdentityType,
    InstanceFile,
    NoAcceptedContext,
    OperationTimeout,
    Peer,
    Server,
    Timeouts,
    UserIdentity,
    associate,
    contexts_for,
    plan_associations,
)
from aiodicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.peers.archive import check_file_meta, keep_in
from tests.peers.comparing import (
    bundled,
    bundled_instances,
    differences,
    encoded,
    is_uncompressed,
    parse,
    rounds,
    take_all,
    well_formed_instances,
)
from tests.peers.conftest import StartPeer
from tests.peers.dcmtk import run
from tests.peers.longest_sent import LongestSent
from tests.peers.process import Peer as Process
from tests.peers.synthetic import many_sop_classes

# What peer and files do is the same on every loop; where bytes flow, stop and break off, both are tried.
pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"]), pytest.mark.usefixtures("no_nagle")]
both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

JPEG_LOSSLESS_FILE = "SC_rgb_jpeg_gdcm.dcm"
# Longer than the socket buffers and PDUs of either end.
LONG_FILE = "examples_overlay.dcm"
MAXIMUM_LENGTHS = [4_096, 16_384, 131_072]


async def store_all(peer: Process, instances: Iterable[InstanceFile], *, decompress: bool = False) -> None:
    """Store the instances on one association; each must succeed."""
    paths = [instance.path for instance in instances]
    async with associate(peer.host, peer.port, contexts=contexts_for(paths), observers=()) as association:
        for path in paths:
            response = await association.c_store(path, decompress=decompress)
            assert response.status.category is Category.SUCCESS, (path.name, response)


# Our client and storescp.


@both_loops
async def test_storescp_answers_c_echo(storescp: StartPeer) -> None:
    peer = await storescp()
    async with associate(peer.host, peer.port, observers=()) as association:
        response = await association.c_echo()
        assert response.status.category is Category.SUCCESS
        assert association.peer.implementation_version_name.startswith("OFFIS_DCMTK")
    assert "Association Release" in peer.output()


async def test_storescp_gets_every_instance_byte_for_byte(storescp: StartPeer) -> None:
    peer = await storescp("+xa", "+B")
    for share in rounds(bundled_instances()):
        await store_all(peer, share.values())
        received = take_all(peer.received())
        changed = [
            instance.path.name for uid, instance in share.items() if encoded(instance.path) != encoded(received[uid])
        ]
        assert not changed


async def test_storescp_that_parses_keeps_every_element(storescp: StartPeer) -> None:
    peer = await storescp("+xa")
    for share in rounds(well_formed_instances()):
        await store_all(peer, share.values())
        received = take_all(peer.received())
        found = {share[uid].path.name: differences(share[uid].path, received[uid]) for uid in share}
        assert not any(found.values()), found


async def test_jpeg_lossless_just_works_where_storescu_needs_an_option(storescp: StartPeer) -> None:
    instance = bundled(JPEG_LOSSLESS_FILE)
    peer = await storescp("+xs", "+B")
    refused = await run("storescu", peer.host, str(peer.port), instance.path)
    assert refused.exit_code != 0
    await store_all(peer, [instance])
    [received] = take_all(peer.received()).values()
    assert encoded(received) == encoded(instance.path)


async def test_what_storescp_does_not_accept_is_not_sent_unless_it_may_be_decompressed(storescp: StartPeer) -> None:
    instance = bundled(JPEG_LOSSLESS_FILE)
    peer = await storescp()
    async with associate(peer.host, peer.port, contexts=contexts_for([instance.path]), observers=()) as association:
        with pytest.raises(NoAcceptedContext) as caught:
            await association.c_store(instance.path)
        assert [list(syntaxes) for syntaxes in caught.value.proposed] == [
            [JPEG_LOSSLESS],
            [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN],
        ]
        assert list(caught.value.accepted) == [EXPLICIT_VR_LITTLE_ENDIAN]
        assert JPEG_LOSSLESS in str(caught.value)
        assert "decompress=True" in str(caught.value)
        assert peer.received() == []

        response = await association.c_store(instance.path, decompress=True)
        assert response.status.category is Category.SUCCESS
    [received] = take_all(peer.received()).values()
    assert differences(instance.path, received, transcoded=True) == []


async def test_uncompressed_instances_are_transcoded_for_who_has_implicit_vr_alone(storescp: StartPeer) -> None:
    peer = await storescp("+xi", "+B")
    for share in rounds(filter(is_uncompressed, well_formed_instances())):
        await store_all(peer, share.values())
        received = take_all(peer.received())
        found = {share[uid].path.name: differences(share[uid].path, received[uid], transcoded=True) for uid in share}
        assert not any(found.values()), found


async def test_more_contexts_than_an_association_has_are_split(storescp: StartPeer, tmp_path: Path) -> None:
    instances = many_sop_classes(tmp_path / "many")
    peer = await storescp("--promiscuous", "+xa", "+B")
    plans = plan_associations(instances)
    assert len(plans) == 2
    for plan in plans:
        async with associate(peer.host, peer.port, contexts=plan.contexts, observers=()) as association:
            assert len(association.contexts) == len(plan.contexts)
            for instance in plan.files:
                response = await association.c_store(instance.path)
                assert response.status.category is Category.SUCCESS, response
    received = take_all(peer.received())
    for instance in instances:
        assert encoded(received[instance.sop_instance_uid]) == encoded(instance.path)


@both_loops
@pytest.mark.parametrize("length", MAXIMUM_LENGTHS)
async def test_storescp_gets_no_longer_pdu_than_it_takes(storescp: StartPeer, length: int) -> None:
    instance, sent = bundled(LONG_FILE), LongestSent()
    peer = await storescp("-pdu", str(length), "+B")
    async with associate(
        peer.host, peer.port, contexts=contexts_for([instance.path]), maximum_length=length, observers=[sent]
    ) as association:
        assert association.terms.maximum_length == length
        await association.c_store(instance.path)
    assert sent.length == length
    [received] = take_all(peer.received()).values()
    assert encoded(received) == encoded(instance.path)


async def test_storescp_gets_fragments_of_even_length_of_chunks_of_any(storescp: StartPeer) -> None:
    instance = bundled("MR_small.dcm")
    data = encoded(instance.path)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 4_093):
            yield data[start : start + 4_093]

    peer = await storescp("+B")
    async with associate(peer.host, peer.port, contexts=contexts_for([instance.path]), observers=()) as association:
        sop, uid, syntax = instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid
        response = await association.c_store(EncodedInstance(sop, uid, syntax, chunks()))
    assert response.status.category is Category.SUCCESS
    [received] = take_all(peer.received()).values()
    assert encoded(received) == data


async def test_storescp_has_no_operations_window_and_many_tasks_store_all_the_same(storescp: StartPeer) -> None:
    [share, *_] = rounds(bundled_instances())
    peer = await storescp("+xa", "+B")
    paths = [instance.path for instance in share.values()][:20]
    async with associate(
        peer.host, peer.port, contexts=contexts_for(paths), operations_window=(8, 1), observers=()
    ) as association:
        assert association.terms.maximum_invoked == 1
        responses = await asyncio.gather(*(association.c_store(path) for path in paths))
    assert {response.status.category for response in responses} == {Category.SUCCESS}
    assert len(peer.received()) == len(paths)


# storescp that fails.


@both_loops
@pytest.mark.parametrize("option", ["--abort-during", "--abort-after"])
async def test_storescp_aborts(storescp: StartPeer, option: str) -> None:
    instance = bundled(LONG_FILE)
    peer = await storescp(option)
    association = await associate(peer.host, peer.port, contexts=contexts_for([instance.path]), observers=())
    with pytest.raises(AssociationAborted, match=r"aborted by the peer \(service-user") as caught:
        await association.c_store(instance.path)
    assert (caught.value.source, caught.value.by_peer) == (0, True)
    with pytest.raises(AssociationAborted):
        await association.c_store(instance.path)
    assert not association.is_open
    await association.release()


@both_loops
async def test_storescp_refuses(storescp: StartPeer) -> None:
    peer = await storescp("--refuse")
    with pytest.raises(AssociationRejected, match="no reason given") as caught:
        await associate(peer.host, peer.port, observers=())
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 1)


@both_loops
async def test_storescp_sleeps_before_its_response(storescp: StartPeer) -> None:
    instance = bundled("MR_small.dcm")
    peer = await storescp("--sleep-during", "60")
    association = await associate(
        peer.host,
        peer.port,
        contexts=contexts_for([instance.path]),
        timeouts=Timeouts(response=0.2, idle=None),
        observers=(),
    )
    with pytest.raises(OperationTimeout, match="the peer did not answer our CStoreRQ") as caught:
        await association.c_store(instance.path)
    assert caught.value.phase == "response"
    with pytest.raises(AssociationAborted, match="aborted by us"):
        await association.c_store(instance.path)
    await association.release()


@both_loops
async def test_storescp_sleeps_while_we_release(storescp: StartPeer) -> None:
    instance = bundled("MR_small.dcm")
    peer = await storescp("--sleep-after", "60")
    association = await associate(
        peer.host, peer.port, contexts=contexts_for([instance.path]), timeouts=Timeouts(release=0.2), observers=()
    )
    response = await association.c_store(instance.path)
    assert response.status.category is Category.SUCCESS
    with pytest.raises(OperationTimeout, match="the association was aborted") as caught:
        await association.release()
    assert caught.value.phase == "release"


# echoscu, storescu, dcmsend and our server.


@both_loops
async def test_echoscu_reaches_us() -> None:
    async with Server(port=0, observers=()) as server:
        # The most that it can propose.
        echo = await run("echoscu", "-v", "-ppc", "128", "-pts", "38", "127.0.0.1", str(server.port))
    assert echo.exit_code == 0, echo
    assert "Received Echo Response (Success)" in echo.output + echo.errors


async def test_echoscu_repeats_and_aborts() -> None:
    async with Server(port=0, observers=()) as server:
        echo = await run("echoscu", "-v", "--repeat", "50", "--abort", "127.0.0.1", str(server.port))
        assert echo.exit_code == 0, echo
        assert (echo.output + echo.errors).count("Received Echo Response (Success)") == 50


@pytest.mark.parametrize(
    ("options", "transfer_syntax"),
    [
        (["-xe"], EXPLICIT_VR_LITTLE_ENDIAN),
        (["-xi"], IMPLICIT_VR_LITTLE_ENDIAN),
        (["-xb"], BIG_ENDIAN),
        (["-xd"], DEFLATED),
        (["-xy"], JPEG_BASELINE),
        (["-xx"], JPEG_EXTENDED),
        (["-xs"], JPEG_LOSSLESS),
        (["-xt"], JPEG_LS_LOSSLESS),
        (["-xu"], JPEG_LS_NEAR_LOSSLESS),
        (["-xv"], JPEG_2000_LOSSLESS),
        (["-xw"], JPEG_2000),
        (["-xr"], RLE_LOSSLESS),
        (["-xv", "+C"], JPEG_2000_LOSSLESS),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
async def test_storescu_stores_in_each_transfer_syntax(
    storescp: StartPeer, tmp_path: Path, options: list[str], transfer_syntax: str
) -> None:
    instances = [each for each in well_formed_instances() if each.transfer_syntax_uid == transfer_syntax]
    [share, *_] = rounds(instances)
    peer = await storescp("+xa", "+B")
    folder = tmp_path / "kept"
    async with keep_in(folder, Server(port=0, observers=())) as server:
        for port in (server.port, peer.port):
            command = ["-nh", "-R", *options, "-aet", "SENDER", "127.0.0.1", str(port)]
            stored = await run("storescu", *command, *(instance.path for instance in share.values()))
            assert stored.exit_code == 0, stored
    kept = take_all(folder.iterdir())
    check_kept(share, kept, take_all(peer.received()))
    assert {parse(file).file_meta.TransferSyntaxUID for file in kept.values()} == {transfer_syntax}


async def test_dcmsend_stores_every_instance(storescp: StartPeer, tmp_path: Path) -> None:
    peer = await storescp("+xa", "+B")
    folder = tmp_path / "kept"
    async with keep_in(folder, Server(port=0, observers=())) as server:
        for share in rounds(well_formed_instances()):
            for port in (server.port, peer.port):
                command = ["-dn", "-aet", "SENDER", "127.0.0.1", str(port)]
                sent = await run("dcmsend", *command, *(instance.path for instance in share.values()))
                assert sent.exit_code == 0, sent
            check_kept(share, take_all(folder.iterdir()), take_all(peer.received()))


def check_kept(share: dict[str, InstanceFile], kept: dict[str, bytes], reference: dict[str, bytes]) -> None:
    """Assert that we kept the instances as they are, and bit for bit as storescp did, told to preserve bits.

    DCMTK parses what it sends and encodes it anew, so that the bytes of its files are no measure; the elements are.
    """
    assert kept.keys() == share.keys()
    for uid, instance in share.items():
        name, syntax = instance.path.name, str(parse(reference[uid]).file_meta.TransferSyntaxUID)
        transcoded = syntax != instance.transfer_syntax_uid  # dcmsend does not propose Big Endian
        assert encoded(kept[uid]) == encoded(reference[uid]), name
        assert differences(instance.path, kept[uid], transcoded=transcoded) == [], name
        check_file_meta(kept[uid], instance.sop_class_uid, uid, syntax, "SENDER")


@both_loops
@pytest.mark.parametrize("length", [*MAXIMUM_LENGTHS, 0])
async def test_storescu_sends_no_longer_pdu_than_we_take(tmp_path: Path, length: int) -> None:
    instance, folder = bundled(LONG_FILE), tmp_path / "kept"
    async with keep_in(folder, Server(port=0, maximum_length=length, observers=())) as server:
        stored = await run("storescu", "-d", "-R", "127.0.0.1", str(server.port), instance.path)
    assert stored.exit_code == 0, stored
    assert re.search(rf"Their Max PDU Receive Size: +{length}$", stored.errors, re.MULTILINE)
    [kept] = take_all(folder.iterdir()).values()
    assert encoded(kept) == encoded(instance.path)


# Whom our server lets in.


async def test_echoscu_is_told_that_the_called_ae_title_is_wrong() -> None:
    async with Server("RIGHT", port=0, require_called_ae_title=True, observers=()) as server:
        wrong = await run("echoscu", "-aec", "WRONG", "127.0.0.1", str(server.port))
        right = await run("echoscu", "-aec", "RIGHT", "127.0.0.1", str(server.port))
    assert right.exit_code == 0, right
    assert wrong.exit_code != 0
    assert "Rejected Permanent, Source: Service User" in wrong.errors
    assert "Called AE Title Not Recognized" in wrong.errors


async def test_echoscu_is_told_that_we_do_not_know_it() -> None:
    async with Server(port=0, calling_ae_titles={"FRIEND"}, observers=()) as server:
        stranger = await run("echoscu", "-aet", "STRANGER", "127.0.0.1", str(server.port))
        friend = await run("echoscu", "-aet", "FRIEND", "127.0.0.1", str(server.port))
    assert friend.exit_code == 0, friend
    assert stranger.exit_code != 0
    assert "Calling AE Title Not Recognized" in stranger.errors


async def test_echoscu_is_told_to_try_again_where_there_are_too_many_associations() -> None:
    async with Server(port=0, maximum_associations=1, observers=()) as server:
        async with associate("127.0.0.1", server.port, observers=()):
            rejected = await run("echoscu", "127.0.0.1", str(server.port))
        accepted = await run("echoscu", "127.0.0.1", str(server.port))
    assert rejected.exit_code != 0
    assert "Rejected Transient, Source: Service Provider (Presentation Related)" in rejected.errors
    assert "Local Limit Exceeded" in rejected.errors
    assert accepted.exit_code == 0, accepted


@pytest.mark.parametrize(
    ("right", "wrong", "identity_type"),
    [
        (("-usr", "ada"), ("-usr", "eve"), IdentityType.USERNAME),
        (("-usr", "ada", "-pwd", "secret"), ("-usr", "ada", "-pwd", "guess"), IdentityType.USERNAME_AND_PASSCODE),
        (("-kt", "{right}"), ("-kt", "{wrong}"), IdentityType.KERBEROS),
        (("--saml", "{right}"), ("--saml", "{wrong}"), IdentityType.SAML),
        (("--jwt", "{right}"), ("--jwt", "{wrong}"), IdentityType.JWT),
    ],
)
async def test_storescu_identifies_its_user(
    tmp_path: Path, right: Iterable[str], wrong: Iterable[str], identity_type: IdentityType
) -> None:
    seen = []
    server = keep_in(tmp_path / "kept", Server(port=0, observers=()))
    for name in ("right", "wrong"):
        (tmp_path / name).write_bytes(name.encode())
    files = {name: tmp_path / name for name in ("right", "wrong")}

    @server.on_user_identity(allow_plain_passcode=True)
    async def verify(identity: UserIdentity, _peer: Peer) -> bool:
        seen.append(identity.identity_type)
        return identity.has_passcode("secret") or (
            identity.primary_field in (b"ada", b"right") and not identity.secondary_field
        )

    async with server:
        to_us = ("127.0.0.1", str(server.port), str(bundled("MR_small.dcm").path))
        admitted = await run("storescu", "-rsp", *(each.format(**files) for each in right), *to_us)
        turned_away = await run("storescu", *(each.format(**files) for each in wrong), *to_us)
        nobody = await run("storescu", *to_us)
    assert admitted.exit_code == 0, admitted
    assert turned_away.exit_code != 0
    assert nobody.exit_code != 0
    assert seen == [identity_type] * 2
    assert len(list((tmp_path / "kept").iterdir())) == 1
