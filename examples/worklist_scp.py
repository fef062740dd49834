"""A worklist SCP: scheduled procedure steps, matched and answered as PS3.4 §K.4 has it."""

from collections.abc import AsyncIterator

from pydicom import Dataset

import aiodicom

server = aiodicom.Server("WORKLIST", port=11112)


def scheduled(patient: str, patient_id: str, station: str, modality: str, date: str, time: str) -> Dataset:
    """Make a worklist item; a real one would come from a database."""
    step, item = Dataset(), Dataset()
    step.ScheduledStationAETitle, step.Modality = station, modality
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = date, time
    item.SpecificCharacterSet = "ISO_IR 192"
    item.PatientName, item.PatientID = patient, patient_id
    item.ScheduledProcedureStepSequence = [step]
    return item


WORKLIST = [
    scheduled("Doe^Jane", "1001", "CT1", "CT", "20300107", "0900"),
    scheduled("Müller^Jürgen", "1002", "CT1", "CT", "20300108", "1030"),
    scheduled("Doe^John", "1003", "MR1", "MR", "20300108", "1100"),
]


@server.on_c_find(model="worklist")
async def search(operation: aiodicom.Operation) -> AsyncIterator[Dataset]:
    """Yield the items that the identifier asks for."""
    for item in WORKLIST:
        if aiodicom.matches(operation.identifier, item):
            yield aiodicom.answer(operation.identifier, item)


if __name__ == "__main__":
    server.run()
