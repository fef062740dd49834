"""Who may ask what: the rule that refuses, the bytes that say so, and the lines that would allow it (T08, T35, T36, T41)."""

from __future__ import annotations

import hashlib
import json
import ssl
import tomllib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from aiodicom import (
    Archive,
    AssociationRejected,
    DimseError,
    Listener,
    LocalProtocolError,
    LoggingObserver,
    Node,
    PresentationContext,
    Request,
    Rights,
    Server,
    read_nodes,
)
from aiodicom.dimse.codec import decode_command
from aiodicom.dimse.commands import CFindRQ, CGetRQ, CMoveRQ, Command, NGetRQ
from aiodicom.nodes import RIGHTS, format_node
from aiodicom.operation import IncomingDataSet, Operation, ReceiveWindow
from aiodicom.terms import Peer
from aiodicom.tls import PeerCertificate
from aiodicom.uids import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)
from aiodicom.upper_layer.items import PresentationContextRQ, encode_item
from tests.loopback import (
    RawPeer,
    Unpaused,
    assert_alive,
    command_pdu,
    connect,
    context_items,
    data_set,
    echo_pdu,
    element,
    fragment_pdu,
    raw_association,
    raw_connection,
    reject_pdu,
    request_pdu,
    serving,
    store_pdu,
)

HERE: Final = "127.0.0.1"
NOTHING: Final[frozenset[str]] = frozenset()
FIND, GET, MOVE, WORKLIST = 5, 7, 9, 11
CONTEXTS: Final = (
    *context_items(),
    *(
        PresentationContextRQ(context_id, uid, (IMPLICIT_VR_LITTLE_ENDIAN,))
        for context_id, uid in (
            (FIND, STUDY_ROOT_FIND),
            (GET, STUDY_ROOT_GET),
            (MOVE, STUDY_ROOT_MOVE),
            (WORKLIST, MODALITY_WORKLIST_FIND),
        )
    ),
)
IDENTIFIER: Final = element(0x0008, 0x0052, b"STUDY ") + element(0x0020, 0x000D, b"1.2.3\0")
# What `assert_alive` calls itself: the second peer, who is served all the while.
FRIEND: Final = Node("friend", "SCU", HERE, 104)


def node(ae_title: str = "CT1", *may: str, **more: Any) -> Node:  # noqa: ANN401
    return Node(ae_title.lower(), ae_title, HERE, 104, frozenset(may), **more)


@asynccontextmanager
async def archived(folder: Path, *nodes: Node, unknown_may: frozenset[str] | None = None) -> AsyncIterator[Server]:
    """An archive that those may ask; in the end it still answers another peer."""
    rights = Rights((FRIEND, *nodes), unknown_may)
    async with (
        Archive(folder, ae_title="SCP") as archive,
        serving(services=archive.services(rights=rights), rights=rights, observers=(LoggingObserver(),)) as server,
    ):
        yield server
        await assert_alive(server)


def request(right: str, destination: str = "CT1") -> bytes:
    """The PDUs of an operation that wants a right."""
    more = {"move_destination": destination} if right == "move" else {}
    kinds: dict[str, tuple[int, type[Command], str]] = {
        "find": (FIND, CFindRQ, STUDY_ROOT_FIND),
        "get": (GET, CGetRQ, STUDY_ROOT_GET),
        "move": (MOVE, CMoveRQ, STUDY_ROOT_MOVE),
        "worklist": (WORKLIST, CFindRQ, MODALITY_WORKLIST_FIND),
    }
    match right:
        case "echo":
            return echo_pdu()
        case "store":
            return store_pdu() + fragment_pdu(data_set())
        case _:
            context_id, kind, uid = kinds[right]
            command = kind(message_id=1, affected_sop_class_uid=uid, **more)  # type: ignore[call-arg]
            return command_pdu(context_id, command, has_data_set=True) + fragment_pdu(IDENTIFIER, context_id=context_id)


async def status_of(peer: RawPeer, right: str, destination: str = "CT1") -> int:
    """The final status of an operation that wants a right."""
    peer.send(request(right, destination))
    while (response := await peer.response()).status in (0xFF00, 0xFF01):
        pass
    return int(response.status)


def refusals(log: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of refusals; what it says of responses besides is not looked at."""
    return [record.getMessage() for record in log.records if record.name == "aiodicom.rights"]


def allowed_by(line: str, *nodes: Node, folder: Path) -> Rights:
    """The rights with what stands at the end of a refusal in the configuration: new lines, or in place of old ones."""
    tables = tomllib.loads("\n".join(map(format_node, nodes))).get("nodes", {})
    for name, table in tomllib.loads(line[line.index("\n[nodes.") :])["nodes"].items():
        tables[name] = tables.get(name, {}) | table
    path = folder / "aiodicom.toml"
    path.write_text(
        "\n".join(
            "\n".join((f"[nodes.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())))
            for name, table in tables.items()
        )
    )
    return Rights(read_nodes(path))


# Operations (T41).


@pytest.mark.parametrize("right", sorted(RIGHTS))
async def test_each_right_allows_its_operation_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, right: str
) -> None:
    async with archived(tmp_path, node("CT1", right), node("ALL", *RIGHTS - {right})) as server:
        async with raw_association(server, calling="CT1", contexts=CONTEXTS) as peer:
            for asked in sorted(RIGHTS):
                assert (await status_of(peer, asked) == 0x0124) is (asked != right), asked
        async with raw_association(server, calling="ALL", contexts=CONTEXTS) as peer:
            assert await status_of(peer, right) == 0x0124
    assert len(refusals(caplog)) == len(RIGHTS)


async def test_a_store_by_a_node_that_may_only_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """T41: 0x0124, nothing is kept, and the association goes on."""
    reader = node("READER", "find", "get")
    async with archived(tmp_path / "kept", reader) as server:
        async with raw_association(server, calling="READER", contexts=CONTEXTS) as peer:
            assert await status_of(peer, "store") == 0x0124
            # Nor does it wait for the data set.
            peer.send(store_pdu(2), fragment_pdu(data_set()[:100], is_last=False))
            await assert_alive(server)
            peer.send(fragment_pdu(data_set()[100:]))
            response = await peer.response()
            assert (response.status, response.error_comment) == (0x0124, "READER may not store")
            assert await status_of(peer, "find") == 0
        assert not list((tmp_path / "kept").rglob("*.dcm"))
    lines = refusals(caplog)
    assert lines[0].startswith("refused store to 'READER'@127.0.0.1:")
    assert ", by the rule `may` of [nodes.reader]. To allow it, let that say:\n\n" in lines[0]
    assert lines[0].endswith('\n\n[nodes.reader]\nmay = ["store", "find", "get"]\n')
    rights = allowed_by(lines[0], reader, folder=tmp_path)
    assert rights.node("READER") == node("READER", "find", "get", "store")


async def test_whoever_is_unknown_may_store_from_this_machine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with archived(tmp_path / "kept") as server, raw_association(server, calling="NEW", contexts=CONTEXTS) as peer:
        assert await status_of(peer, "echo") == 0
        assert await status_of(peer, "store") not in (0x0124, 0x0211)
        peer.send(request("find"))
        response = await peer.response()
    assert (response.status, response.error_comment) == (0x0124, "NEW is not known here: it may not find")
    [line] = refusals(caplog)
    assert line.startswith("refused find to 'NEW'@127.0.0.1:")
    assert ", which is no node, by the rule `may` of [unknown]. To allow it, add these lines to aiodicom.toml" in line
    expected = Node("NEW", "NEW", HERE, 104, frozenset({"echo", "store", "find"}), (HERE,))
    assert allowed_by(line, folder=tmp_path).node("NEW") == expected


@pytest.mark.parametrize(
    ("host", "unknown_may", "may"),
    [
        ("127.0.0.1", None, {"echo", "store"}),
        ("::1", None, {"echo", "store"}),
        ("10.0.0.1", None, {"echo"}),
        (None, None, {"echo"}),
        ("10.0.0.1", frozenset({"store", "worklist"}), {"store", "worklist"}),
        ("127.0.0.1", frozenset({"echo"}), {"echo"}),
        ("127.0.0.1", NOTHING, set()),
    ],
)
def test_what_the_unknown_may(host: str | None, unknown_may: frozenset[str] | None, may: set[str]) -> None:
    rights = Rights((), unknown_may)
    assert {right for right in RIGHTS if is_allowed(rights, peer_at(host), right)} == may


def peer_at(host: str | None, certificate: PeerCertificate | None = None, ae_title: str = "CT1") -> Peer:
    return Peer(ae_title, "SCP", ae_title, (host, 4711) if host else None, certificate=certificate)


def asked_by(peer: Peer, right: str = "store") -> Operation:
    """An operation that wants a right."""
    pdu = request(right)
    context_id, command = pdu[10], decode_command(pdu[12 : 6 + int.from_bytes(pdu[2:6], "big")])[0]
    assert isinstance(command, Request)
    [item] = [each for each in CONTEXTS if each.context_id == context_id]
    context = PresentationContext(
        context_id, item.abstract_syntax, IMPLICIT_VR_LITTLE_ENDIAN, as_scu=False, as_scp=True
    )
    return Operation(command, context, peer, IncomingDataSet("", ReceiveWindow(Unpaused()), is_empty=True))


def is_allowed(rights: Rights, peer: Peer, right: str = "store") -> bool:
    try:
        rights.check(asked_by(peer, right))
    except DimseError as error:
        return (error.status, len(error.comment) > 64) != (0x0124, False)
    return True


# Who is that node.

MINE: Final = PeerCertificate("ab" * 32, is_verified=True, names=("ct1.example",))
FOREIGN: Final = PeerCertificate("cd" * 32, is_verified=True, names=("other.example",))
BOUND: Final = node("CT1", "store", networks=("10.0.0.0/24",), certificate="ct1.example")


@pytest.mark.parametrize(
    ("peer", "rule", "lines"),
    [
        (
            peer_at("10.0.1.1", MINE),
            "by the rule `networks` of [nodes.ct1]",
            '[nodes.ct1]\nnetworks = ["10.0.0.0/24", "10.0.1.1"]\n',
        ),
        (
            peer_at("10.0.0.1", FOREIGN),
            "by the rule `certificate` of [nodes.ct1]",
            '[nodes.ct1]\ncertificate = "other.example"\n',
        ),
        (
            peer_at("10.0.0.1", PeerCertificate("cd" * 32)),
            "by the rule `certificate` of [nodes.ct1]",
            f'[nodes.ct1]\ncertificate = "{"cd" * 32}"\n',
        ),
    ],
)
def test_who_has_the_ae_title_of_a_node_and_is_another_may_do_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, peer: Peer, rule: str, lines: str
) -> None:
    rights = Rights([BOUND], RIGHTS)
    with pytest.raises(AssociationRejected) as rejected:
        rights.admit(peer)
    assert (rejected.value.result, rejected.value.source, rejected.value.reason) == (1, 1, 3)
    assert not is_allowed(rights, peer)
    [line] = refusals(caplog)
    for told in (line, str(rejected.value)):
        assert f", {rule}. To allow it, let that say:\n\n" in told
        assert told.endswith(f"\n\n{lines}")
    then = allowed_by(line, BOUND, folder=tmp_path)
    then.admit(peer)
    assert is_allowed(then, peer)


def test_a_node_without_its_certificate_may_do_nothing() -> None:
    rights = Rights([BOUND], RIGHTS)
    with pytest.raises(
        AssociationRejected, match=r"it showed none. To be allowed, it has to call by TLS, with that of ct1"
    ):
        rights.admit(peer_at("10.0.0.1"))
    assert not is_allowed(rights, peer_at("10.0.0.1"))


def test_the_node_itself_may() -> None:
    rights = Rights([BOUND], NOTHING)
    rights.admit(peer_at("10.0.0.1", MINE))
    assert is_allowed(rights, peer_at("10.0.0.1", MINE))
    assert not is_allowed(rights, peer_at("10.0.0.1", MINE), "find")


@pytest.mark.parametrize("host", ["10.0.0.7", "fe80::7%eth0", None])
def test_lines_for_who_is_unknown_bind_it_to_what_is_known_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str | None
) -> None:
    # The name that it would get is taken.
    other = Node("CT1", "OTHER", HERE, 104)
    peer = peer_at(host, FOREIGN)
    assert not is_allowed(Rights([other]), peer, "worklist")
    [line] = refusals(caplog)
    networks = (host,) if host else ()
    may = frozenset({"echo", "worklist"})
    expected = Node("CT1-2", "CT1", host or "HOST", 104, may, networks, "other.example")
    rights = allowed_by(line, other, folder=tmp_path)
    assert rights.node("CT1") == expected
    assert is_allowed(rights, peer, "worklist")


def test_what_has_no_right_of_its_own_is_for_nodes(caplog: pytest.LogCaptureFixture) -> None:
    def asked(peer: Peer) -> Operation:
        operation = asked_by(peer)
        operation.command = NGetRQ(message_id=1, requested_sop_class_uid="1.2", requested_sop_instance_uid="1.3")
        return operation

    Rights([node("CT1", "echo")]).check(asked(peer_at(HERE)))
    with pytest.raises(DimseError) as refused:
        Rights(unknown_may=RIGHTS).check(asked(peer_at(HERE)))
    assert (refused.value.status, refused.value.comment) == (0x0124, "CT1 is not known here: it may not do that")
    [line] = refusals(caplog)
    assert line.startswith("refused N-GET to 'CT1'@")
    for nobody in (node("CT1"), BOUND):
        with pytest.raises(DimseError):
            Rights([nobody]).check(asked(peer_at(HERE)))


def test_what_changes_counts_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    nodes: list[list[Node]] = [[]]
    unknown: list[frozenset[str]] = [NOTHING]
    rights = Rights(lambda: nodes[0], lambda: unknown[0])
    assert not is_allowed(rights, peer_at(HERE))
    unknown[0] = frozenset({"store"})
    assert is_allowed(rights, peer_at(HERE))
    nodes[0] = [node("CT1", "echo")]
    assert not is_allowed(rights, peer_at(HERE))
    nodes[0] = [node("CT1", "store"), Node("again", "CT1", HERE, 104)]
    assert not is_allowed(rights, peer_at(HERE))
    assert "the nodes stay as they were: the nodes 'ct1' and 'again' have one AE title: CT1" in caplog.text


def test_what_are_no_rights() -> None:
    with pytest.raises(LocalProtocolError, match="have one AE title"):
        Rights([node("CT1"), Node("again", "CT1", HERE, 104)])
    with pytest.raises(LocalProtocolError, match="'fly' is no right"):
        Rights(unknown_may=frozenset({"fly"}))


# Associations (T08, T36).


@pytest.mark.parametrize(
    ("nodes", "calling", "rule"),
    [
        ((), "NOBODY", ", which is no node, by the rule `may` of [unknown]. To allow it, add these lines"),
        ((node("CT1"),), "CT1", ", by the rule `may` of [nodes.ct1]. To allow it, let that say"),
        ((node("CT1", "echo", networks=("10.0.0.0/8",)),), "CT1", ", by the rule `networks` of [nodes.ct1]. To allow"),
        (
            (node("CT1", "echo", certificate="ct1"),),
            "CT1",
            ", by the rule `certificate` of [nodes.ct1]: it showed none",
        ),
    ],
)
async def test_who_may_do_nothing_is_rejected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, nodes: Iterable[Node], calling: str, rule: str
) -> None:
    """T08: A-ASSOCIATE-RJ 1/1/3, one line of the log, and lines that would allow it."""
    async with archived(tmp_path / "kept", *nodes, unknown_may=NOTHING) as server:
        async with raw_connection(server) as peer:
            peer.send(request_pdu(calling=calling))
            assert await peer.rest() == reject_pdu(1, 1, 3)
        [line] = refusals(caplog)
    assert line.startswith(f"no association with '{calling}'@127.0.0.1:")
    assert "calling AE title not recognized" in line
    assert rule in line
    if "showed none" not in line:
        rights = allowed_by(line, *nodes, folder=tmp_path)
        rights.admit(peer_at(HERE, ae_title=calling))


@pytest.mark.parametrize(
    ("title", "told"), [(b"EVIL\r\nERROR x", r"'EVIL\r\nERROR x'"), (b"A\\B", r"'A\\B'"), (b"\x1b[2J", r"'\x1b[2J'")]
)
@pytest.mark.parametrize(("is_called", "reason"), [(False, 3), (True, 7)])
async def test_an_ae_title_that_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, title: bytes, told: str, is_called: bool, reason: int
) -> None:
    """T36: A-ASSOCIATE-RJ, and one line of the log, in which nothing is left that a terminal would obey."""
    pdu = bytearray(request_pdu(calling="CT1"))
    start = 10 if is_called else 26
    pdu[start : start + 16] = title.ljust(16)
    async with archived(tmp_path, unknown_may=RIGHTS) as server:
        async with raw_connection(server) as peer:
            peer.send(bytes(pdu))
            assert await peer.rest() == reject_pdu(1, 1, reason)
        [line] = refusals(caplog)
    assert line.isprintable()
    assert "since that is none: 1 to 16 characters" in line
    assert (told in line) is not is_called


async def test_another_called_ae_title(caplog: pytest.LogCaptureFixture) -> None:
    """T08: A-ASSOCIATE-RJ 1/1/7."""
    async with serving(require_called_ae_title=True, observers=(LoggingObserver(),)) as server:
        async with raw_connection(server) as peer:
            peer.send(request_pdu(called="WRONG"))
            assert await peer.rest() == reject_pdu(1, 1, 7)
        [line] = refusals(caplog)
        await assert_alive(server)
    assert "by the rule require_called_ae_title: 'WRONG' was called, and this is 'SCP'" in line


async def test_another_application_context() -> None:
    """T07: A-ASSOCIATE-RJ 1/1/2."""
    pdu = request_pdu()
    name = encode_item(0x10, b"1.2.840.10008.3.1.1.1")
    shorter = pdu.replace(name, encode_item(0x10, b"1.2.3"))
    length = len(shorter) - 6
    async with serving() as server:
        async with raw_connection(server) as peer:
            peer.send(shorter[:2] + length.to_bytes(4, "big") + shorter[6:])
            assert await peer.rest() == reject_pdu(1, 1, 2)
        await assert_alive(server)


async def test_a_node_is_known_by_its_certificate(caplog: pytest.LogCaptureFixture) -> None:
    """Over TLS, with certificates of an authority of ours: by the name in it, or by its fingerprint."""
    authority = trustme.CA()
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(listening)
    authority.configure_trust(listening)
    listening.verify_mode = ssl.CERT_OPTIONAL
    calling: dict[str, ssl.SSLContext] = {}
    leaves = {name: authority.issue_cert(name) for name in ("ct1.example", "other.example")}
    for name in ("none", *leaves):
        calling[name] = ssl.create_default_context()
        authority.configure_trust(calling[name])
        if name in leaves:
            leaves[name].configure_cert(calling[name])
    encoded = ssl.PEM_cert_to_DER_cert(leaves["ct1.example"].cert_chain_pems[0].bytes().decode())
    fingerprint = hashlib.sha256(encoded).hexdigest()
    rights = Rights(
        [node("NAMED", "echo", certificate="CT1.example"), node("PRINTED", "echo", certificate=fingerprint)], NOTHING
    )
    observers = (LoggingObserver(),)
    async with serving(listeners=[Listener(port=0, tls=listening)], rights=rights, observers=observers) as server:
        for title in ("NAMED", "PRINTED"):
            for name in ("none", "other.example"):
                with pytest.raises(AssociationRejected) as rejected:
                    await connect(server, tls=calling[name], calling_ae_title=title)
                assert (rejected.value.result, rejected.value.source, rejected.value.reason) == (1, 1, 3)
            async with connect(server, tls=calling["ct1.example"], calling_ae_title=title) as association:
                assert (await association.c_echo()).status == 0
    lines = refusals(caplog)
    assert [line.endswith('certificate = "other.example"\n') for line in lines] == [False, True] * 2
    assert all("by the rule `certificate` of [nodes." in line for line in lines)


# Services of a server, whoever performs them.


async def test_a_server_has_rights_for_whatever_it_offers() -> None:
    stored: list[Operation] = []
    rights = Rights([FRIEND, node("CT1", "store"), node("CT2", "echo")], NOTHING)
    async with serving(rights=rights) as server:

        @server.on_c_store
        async def keep(operation: Operation) -> None:
            await operation.read()
            stored.append(operation)

        for calling, echo, store in (("CT1", 0x0124, 0), ("CT2", 0, 0x0124)):
            async with raw_association(server, calling=calling) as peer:
                assert await status_of(peer, "echo") == echo
                assert await status_of(peer, "store") == store
        async with raw_connection(server) as peer:
            peer.send(request_pdu(calling="CT3"))
            assert await peer.rest() == reject_pdu(1, 1, 3)
        await assert_alive(server)
    assert [operation.peer.ae_title for operation in stored] == ["CT1"]


async def test_an_archive_keeps_its_rights_where_the_server_has_none(tmp_path: Path) -> None:
    archive = Archive(tmp_path, nodes=[node("CT1", "find", networks=("10.0.0.0/8",)), node("CT2", "find")])
    async with archive, serving(services=archive.services(unknown_may=NOTHING)) as server:
        for calling in ("CT1", "CT3"):
            async with raw_association(server, calling=calling, contexts=CONTEXTS) as peer:
                for right in sorted(RIGHTS):
                    assert await status_of(peer, right) == 0x0124
        async with raw_association(server, calling="CT2", contexts=CONTEXTS) as peer:
            assert await status_of(peer, "find") == 0


# Move destinations (T35).


async def test_a_destination_that_is_no_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """T35: 0xA801, and nothing is connected to."""
    async with (
        archived(tmp_path / "kept", node("CT1", "move")) as server,
        raw_association(server, calling="CT1", contexts=CONTEXTS) as peer,
    ):
        assert await status_of(peer, "move", "NOWHERE") == 0xA801
        assert await status_of(peer, "move", "EVIL\\X") == 0xA801
        assert await status_of(peer, "move", "CT1") == 0  # there is nothing to send
    line, evil = refusals(caplog)
    assert line.startswith("refused move to 'CT1'@127.0.0.1:")
    assert ", to 'NOWHERE', since no node has that AE title. To allow it, add these lines" in line
    assert allowed_by(line, folder=tmp_path).node("NOWHERE") == Node("NOWHERE", "NOWHERE", "HOST", 104, NOTHING)
    assert evil.endswith(r", to 'EVIL\\X', since no node has that AE title")


async def test_the_destination_is_ourselves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """T35: 0xA801, though the configuration has us for a node."""
    nodes = [FRIEND, node("CT1", "move")]
    rights = Rights(lambda: tuple(nodes))
    async with (
        Archive(tmp_path, ae_title="SCP") as archive,
        serving(services=archive.services(rights=rights)) as server,
    ):
        nodes.append(Node("myself", "SCP", "localhost", server.port))
        async with raw_association(server, calling="CT1", contexts=CONTEXTS) as peer:
            assert await status_of(peer, "move", "SCP") == 0xA801
        await assert_alive(server)
    [line] = refusals(caplog)
    assert line.endswith(", to 'SCP', since [nodes.myself] is ourselves")


def test_ourselves_and_another_of_our_ae_title(caplog: pytest.LogCaptureFixture) -> None:
    rights = Rights([Node("myself", "SCP", "localhost", 11112)])
    here = replace(peer_at(HERE), local_address=(HERE, 11112))
    with pytest.raises(DimseError) as refused:
        rights.destination("SCP", here, own="SCP")
    assert (refused.value.status, refused.value.comment) == (0xA801, "Move destination SCP is unknown")
    [line] = refusals(caplog)
    assert line.endswith(", to 'SCP', since [nodes.myself] is ourselves")
    for peer in (replace(here, local_address=(HERE, 11113)), peer_at(HERE)):
        assert rights.destination("SCP", peer, own="SCP").port == 11112
    assert rights.destination("SCP", here, own="OTHER").port == 11112
