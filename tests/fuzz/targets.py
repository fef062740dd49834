"""The targets, by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.fuzz import dimse, seeds, upper_layer
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        Target(
            "Z1",
            "the decoder of PDUs",
            upper_layer.pdus,
            upper_layer.pdus_in_pieces,
            seeds.for_pdus,
            maximum_length=1024,
        ),
        Target(
            "Z2",
            "the state machine, from either end",
            upper_layer.machine,
            upper_layer.machine_in_pieces,
            seeds.for_machine,
            one_in=256,
            maximum_length=512,
        ),
        Target(
            "Z3",
            "command sets and fragments",
            dimse.messages,
            dimse.messages_in_pieces,
            seeds.for_messages,
            maximum_length=512,
        ),
        Target(
            "Z8",
            "the items of the User Information",
            upper_layer.user_information,
            upper_layer.user_information_in_a_request,
            seeds.for_items,
            maximum_length=512,
        ),
    )
}
