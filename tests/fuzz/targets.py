"""The targets, by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.fuzz import data_set_seeds, data_sets, dimse, identifiers, seeds, upper_layer
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
            "Z4",
            "the structure of data sets",
            data_sets.structure,
            data_sets.reading,
            data_set_seeds.for_structure,
            memory=data_sets.memory,
        ),
        Target(
            "Z5",
            "identifiers, to SQL and to the matcher",
            identifiers.compiled,
            identifiers.asked,
            identifiers.seeds,
            memory=identifiers.memory,
            maximum_length=1024,
            in_ci=20_000,
        ),
        Target(
            "Z6",
            "PS3.10 files",
            data_sets.file,
            data_sets.file_on_disk,
            data_set_seeds.for_files,
            memory=data_sets.memory_of_file,
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
