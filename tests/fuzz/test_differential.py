"""I8: what pynetdicom takes for a PDU we take, too, or refuse for a reason that is listed here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pynetdicom import pdu as peer

from tests.fuzz.seeds import PDUS
from tests.fuzz.test_targets import mutated
from tests.fuzz.upper_layer import read

DECODERS: Final[dict[int, Any]] = {
    1: peer.A_ASSOCIATE_RQ,
    2: peer.A_ASSOCIATE_AC,
    3: peer.A_ASSOCIATE_RJ,
    4: peer.P_DATA_TF,
    5: peer.A_RELEASE_RQ,
    6: peer.A_RELEASE_RP,
    7: peer.A_ABORT_RQ,
}
# PS3.8 has the length of the short PDUs fixed, a PDV header whole, and these items mandatory or unique.
STRICTER: Final = (
    "bytes are the limit",
    "are fixed",
    "were announced",
    "a P-DATA-TF ends inside the header of a PDV",
    "are left in its P-DATA-TF",
    "there is no application context name",
    "no presentation context is proposed",
    "a presentation context ID is proposed twice",
    "transfer syntaxes",
)
SEEDS: Final = tuple(pdu.encode() for pdu in PDUS)


@contextmanager
def silence() -> Iterator[None]:
    """What pynetdicom has to say of damaged PDUs is no matter here."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def taken_by_pynetdicom(data: bytes) -> bool:
    decoded = DECODERS[data[0]]()
    try:
        decoded.decode(data)
        decoded.to_primitive()
    except Exception:  # noqa: BLE001 - it has no one exception for that
        return False
    return True


@settings(deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(SEEDS), st.integers(1, 7))
@example(SEEDS[0], 1)
def test_what_pynetdicom_takes_we_take_or_say_why_not(data: bytes, other_type: int) -> None:
    pdu_type = data[0] if data[:1] and data[0] in DECODERS else other_type
    body = data[6:]
    whole = bytes((pdu_type, 0)) + len(body).to_bytes(4, "big") + body
    _, refusal = read((whole,))
    with silence():
        if refusal is not None and taken_by_pynetdicom(whole):
            assert any(reason in refusal[2] for reason in STRICTER), refusal
