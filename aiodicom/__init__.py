"""aiodicom: the asyncio-native DICOM network stack.

`associate` asks a peer for an association, `Server` accepts them; everything public is importable from here. pydicom is
loaded when a data set is first decoded or encoded.
"""

from aiodicom.association import Association, Observer
from aiodicom.client import AssociationRequest, associate
from aiodicom.dimse.commands import (
    CEchoRQ,
    CEchoRSP,
    Command,
    CStoreRQ,
    CStoreRSP,
    Priority,
    Request,
    Response,
)
from aiodicom.dimse.status import Category, Status
from aiodicom.errors import (
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
from aiodicom.logs import LoggingObserver
from aiodicom.operation import BlockingOperation, Operation
from aiodicom.outgoing import EncodedInstance
from aiodicom.part10 import InstanceFile, open_instance
from aiodicom.planning import Plan, contexts_for, default_contexts, find_files, plan_associations
from aiodicom.server import Listener, Server
from aiodicom.services.storage import save_by_study
from aiodicom.terms import Peer, Terms, Timeouts
from aiodicom.upper_layer.items import IdentityType, UserIdentity
from aiodicom.upper_layer.presentation import PresentationContext, ProposedContext, SupportedSyntax
from aiodicom.version import __version__

__all__ = [
    "Association",
    "AssociationAborted",
    "AssociationError",
    "AssociationRejected",
    "AssociationReleased",
    "AssociationRequest",
    "BlockingOperation",
    "CEchoRQ",
    "CEchoRSP",
    "CStoreRQ",
    "CStoreRSP",
    "Category",
    "Command",
    "ConnectionFailed",
    "DicomNetworkError",
    "DimseError",
    "EncodedInstance",
    "IdentityType",
    "InstanceFile",
    "InvalidInstance",
    "Listener",
    "LocalProtocolError",
    "LoggingObserver",
    "NoAcceptedContext",
    "Observer",
    "Operation",
    "OperationTimeout",
    "Peer",
    "Plan",
    "PresentationContext",
    "Priority",
    "ProposedContext",
    "ProtocolError",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Server",
    "Service",
    "Status",
    "SupportedSyntax",
    "Terms",
    "Timeouts",
    "UserIdentity",
    "__version__",
    "associate",
    "contexts_for",
    "default_contexts",
    "find_files",
    "open_instance",
    "plan_associations",
    "save_by_study",
    "storage_service",
]
