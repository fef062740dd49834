"""How long the P-DATA-TFs are that we send."""

from __future__ import annotations

from aiodicom import Observer
from aiodicom.transport import Connection
from aiodicom.upper_layer.pdu import PDV, ControlPDU


class LongestSent(Observer):
    """Notes the longest variable field of a P-DATA-TF that was sent, in bytes."""

    def __init__(self) -> None:
        self.length = 0

    def pdu_sent(self, _connection: Connection, pdu: ControlPDU | PDV) -> None:
        if isinstance(pdu, PDV):
            self.length = max(self.length, len(pdu.data) + 6)
