"""aiodicom: the asyncio-native DICOM network stack.

`associate` asks a peer for an association, `Server` accepts them; everything public is importable from here. pydicom is
loaded when a data set is first decoded or encoded, the archive and `RemoteAE` when they are first named.
"""

from typing import TYPE_CHECKING, Any

from aiodicom.accounts import Subject
from aiodicom.association import Association, Observer
from aiodicom.client import AssociationRequest, associate
from aiodicom.dimse.commands import (
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    Command,
    CStoreRQ,
    CStoreRSP,
    Priority,
    Request,
    Response,
)
from aiodicom.dimse.status import Category, Status
from aiodicom.errors import (
    ArchiveError,
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    DicomNetworkError,
    DimseError,
    InvalidInstance,
    LocalProtocolError,
    NoAcceptedContext,
    OperationTimeout,
    ProtocolError,
    RemoteProtocolError,
)
from aiodicom.handlers import Service, storage_service
from aiodicom.limits import Limits, Timeouts
from aiodicom.logs import JSONFormatter, LoggingObserver
from aiodicom.nodes import (
    Node,
    add_node,
    format_node,
    nodes_from_dcmqrscp,
    nodes_from_orthanc,
    read_credentials,
    read_nodes,
)
from aiodicom.operation import BlockingOperation, Conclusion, Operation
from aiodicom.outgoing import EncodedInstance
from aiodicom.part10 import InstanceFile, file_meta, open_instance
from aiodicom.planning import (
    Plan,
    contexts_for,
    contexts_to_retrieve,
    default_contexts,
    find_files,
    plan_associations,
)
from aiodicom.query import Level, QueryOptions
from aiodicom.rights import Rights
from aiodicom.rows import encode_row
from aiodicom.scoped import Instances, Matches, Movement, Progress
from aiodicom.server import Listener, Server
from aiodicom.services.query import find_service
from aiodicom.services.retrieve import get_service, move_service
from aiodicom.services.storage import save_by_study
from aiodicom.terms import Peer, Terms
from aiodicom.tls import Credentials, PeerCertificate
from aiodicom.upper_layer.items import IdentityType, SOPClassExtendedNegotiation, UserIdentity
from aiodicom.upper_layer.presentation import PresentationContext, ProposedContext, SupportedSyntax
from aiodicom.version import __version__

if TYPE_CHECKING:
    from aiodicom.archive import Archive, Imported, Rebuilt, rebuild
    from aiodicom.audit import AuditFile, Auditor, AuditTrail, SyslogCollector
    from aiodicom.remote import Delivery, Outcome, RemoteAE, Retrieval
    from aiodicom.services.matching import answer, matches
    from aiodicom.services.naming import NameTemplate

__all__ = [
    "Archive",
    "ArchiveError",
    "Association",
    "AssociationAborted",
    "AssociationError",
    "AssociationRejected",
    "AssociationReleased",
    "AssociationRequest",
    "AuditFile",
    "AuditTrail",
    "Auditor",
    "BlockingOperation",
    "CEchoRQ",
    "CEchoRSP",
    "CFindRQ",
    "CFindRSP",
    "CGetRQ",
    "CGetRSP",
    "CMoveRQ",
    "CMoveRSP",
    "CStoreRQ",
    "CStoreRSP",
    "Category",
    "Command",
    "Conclusion",
    "ConnectionFailed",
    "Credentials",
    "Delivery",
    "DicomNetworkError",
    "DimseError",
    "EncodedInstance",
    "IdentityType",
    "Imported",
    "InstanceFile",
    "Instances",
    "InvalidInstance",
    "JSONFormatter",
    "Level",
    "Limits",
    "Listener",
    "LocalProtocolError",
    "LoggingObserver",
    "Matches",
    "Movement",
    "NameTemplate",
    "NoAcceptedContext",
    "Node",
    "Observer",
    "Operation",
    "OperationTimeout",
    "Outcome",
    "Peer",
    "PeerCertificate",
    "Plan",
    "PresentationContext",
    "Priority",
    "Progress",
    "ProposedContext",
    "ProtocolError",
    "QueryOptions",
    "Rebuilt",
    "RemoteAE",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Retrieval",
    "Rights",
    "SOPClassExtendedNegotiation",
    "Server",
    "Service",
    "Status",
    "Subject",
    "SupportedSyntax",
    "SyslogCollector",
    "Terms",
    "Timeouts",
    "UserIdentity",
    "__version__",
    "add_node",
    "answer",
    "associate",
    "contexts_for",
    "contexts_to_retrieve",
    "default_contexts",
    "encode_row",
    "file_meta",
    "find_files",
    "find_service",
    "format_node",
    "get_service",
    "matches",
    "move_service",
    "nodes_from_dcmqrscp",
    "nodes_from_orthanc",
    "open_instance",
    "plan_associations",
    "read_credentials",
    "read_nodes",
    "rebuild",
    "save_by_study",
    "storage_service",
]

_LATER = {
    **dict.fromkeys(("AuditFile", "AuditTrail", "Auditor", "SyslogCollector"), "aiodicom.audit"),
    **dict.fromkeys(("Archive", "Imported", "Rebuilt", "rebuild"), "aiodicom.archive"),
    "NameTemplate": "aiodicom.services.naming",
    **dict.fromkeys(("answer", "matches"), "aiodicom.services.matching"),
    **dict.fromkeys(("Delivery", "Outcome", "RemoteAE", "Retrieval"), "aiodicom.remote"),
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of them
    if name not in _LATER:
        raise AttributeError(f"module 'aiodicom' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
