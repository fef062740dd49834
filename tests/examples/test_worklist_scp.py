"""The worklist SCP answers what is scheduled, to us and to DCMTK's findscu."""

from __future__ import annotations

from typing import Any

import pytest

import aiodicom
from tests.examples.loading import load, on_a_free_port
from tests.peers.dcmtk import run_findscu

STEP = "(0040,0100)[0]"


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, ["1001", "1002", "1003"]),
        ({"PatientName": "doe*"}, ["1001", "1003"]),
        ({"PatientName": "Müller^*"}, ["1002"]),
        ({"ScheduledProcedureStepSequence": {"Modality": "CT"}}, ["1001", "1002"]),
        ({"ScheduledProcedureStepSequence": {"ScheduledProcedureStepStartDate": "20300108-"}}, ["1002", "1003"]),
        ({"PatientID": "none"}, []),
    ],
)
async def test_asked_by_us(keys: dict[str, Any], found: list[str]) -> None:
    async with (
        on_a_free_port(load("worklist_scp")) as server,
        aiodicom.associate("127.0.0.1", server.port) as association,
    ):
        matches = await association.c_find(model="worklist", **keys).all()
    assert [match.PatientID for match in matches] == found
    # What was asked for and is not there comes back empty.
    assert all(match.AccessionNumber == "" for match in matches)
    assert all(match.ScheduledProcedureStepSequence[0].ScheduledStationAETitle in ("CT1", "MR1") for match in matches)


async def test_asked_by_findscu() -> None:
    keys = (
        "PatientName",
        "PatientID",
        f"{STEP}.Modality=CT",
        f"{STEP}.ScheduledProcedureStepStartDate=20300107-20300107",
    )
    async with on_a_free_port(load("worklist_scp")) as server:
        report = await run_findscu(server.port, *keys, model="-W")
    assert report.statuses[-1] == 0
    (match,) = report.matches
    assert (match.PatientName, match.PatientID) == ("Doe^Jane", "1001")
    assert match.ScheduledProcedureStepSequence[0].Modality == "CT"
