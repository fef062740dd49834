"""A script: an SCU by pynetdicom: it stores, echoes, opens associations, finds studies, and reports what that took."""

from __future__ import annotations

import argparse
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from bench.archives import AE_TITLE, RETURN_KEYS
from bench.certificates import tls_context
from bench.client import reported
from bench.processes import LOOPBACK

TUNED_LENGTH: Final = 128 * 1024
"""The longest P-DATA-TF that a tuned pynetdicom takes, in bytes."""


def without_nagle(event: evt.Event) -> None:
    """Set TCP_NODELAY on a connection that was just made."""
    connection = event.assoc.dul.socket
    assert connection is not None
    assert connection.socket is not None
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuned", action="store_true", help="TCP_NODELAY, and PDUs of 128 KB")
    parser.add_argument("--chunked", action="store_true", help="read files while they are sent")
    parser.add_argument("--associations", type=int, default=1, help="how many send at once, each all the instances")
    parser.add_argument("--tls", type=Path, help="the folder of the certificates, for a connection over TLS")
    parser.add_argument("operation", choices=["store", "echo", "open", "find-all"])
    parser.add_argument("port", type=int)
    parser.add_argument("what", help="store: a folder; echo, open, find-all: how many")
    arguments = parser.parse_args()
    _config.STORE_SEND_CHUNKED_DATASET = arguments.chunked
    tls = tls_context(arguments.tls, ssl.Purpose.SERVER_AUTH)
    requestor = Requestor(arguments.port, tls, tuned=arguments.tuned)
    match arguments.operation:
        case "store":
            requestor.store(sorted(Path(arguments.what).iterdir()), arguments.associations)
        case "echo":
            requestor.echo(int(arguments.what))
        case "open":
            requestor.open_and_release(int(arguments.what))
        case "find-all":
            requestor.find(int(arguments.what))


class Requestor:
    """Requests associations of one server."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, *, tuned: bool) -> None:
        self._port = port
        self._tls = None if tls is None else (tls, LOOPBACK)
        self._entity = AE()
        self._handlers: list[evt.EventHandlerType] = []
        if tuned:
            self._entity.maximum_pdu_size = TUNED_LENGTH
            self._handlers.append((evt.EVT_CONN_OPEN, without_nagle))

    def store(self, paths: Sequence[Path], associations: int) -> None:
        """Store all instances on each of some concurrent associations, each in a thread of its own."""
        head = dcmread(paths[0], specific_tags=[]).file_meta
        self._entity.add_requested_context(head.MediaStorageSOPClassUID, head.TransferSyntaxUID)

        def send_all(_number: int) -> None:
            association = self._associate()
            for path in paths:
                if association.send_c_store(path).get("Status") != 0:
                    raise SystemExit(f"{path.name} was not stored")
            association.release()

        with reported(), ThreadPoolExecutor(associations) as threads:
            list(threads.map(send_all, range(associations)))

    def echo(self, count: int) -> None:
        """Send C-ECHOs on one association."""
        self._entity.add_requested_context(Verification)
        association = self._associate()
        with reported():
            for _ in range(count):
                _echo(association)
        association.release()

    def open_and_release(self, count: int) -> None:
        """Open one association after the other, with a C-ECHO on each."""
        self._entity.add_requested_context(Verification)
        with reported():
            for _ in range(count):
                association = self._associate()
                _echo(association)
                association.release()

    def find(self, count: int) -> None:
        """Ask for all studies until as many matches came as wanted; each is a pydicom Dataset."""
        self._entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        association = self._associate()
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        for _group, _number, keyword in RETURN_KEYS:
            setattr(identifier, keyword, "")
        with reported():
            while count > 0:
                count -= _find(association, identifier)
        association.release()

    def _associate(self) -> Association:
        association = self._entity.associate(
            LOOPBACK, self._port, ae_title=AE_TITLE, evt_handlers=self._handlers, tls_args=self._tls
        )
        if not association.is_established:
            raise SystemExit("no association")
        return association


def _echo(association: Association) -> None:
    if association.send_c_echo().get("Status") != 0:
        raise SystemExit("no echo")


def _find(association: Association, identifier: Dataset) -> int:
    """Send one C-FIND, and return how many matches came."""
    responses = list(association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind))
    matches = [match for _status, match in responses if match is not None]
    if responses[-1][0].get("Status") != 0 or not matches:
        raise SystemExit("nothing was found")
    return len(matches)


if __name__ == "__main__":
    main()
