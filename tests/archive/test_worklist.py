"""The worklist: items added, replaced, removed and imported, and what modalities ask of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from aiodicom.archive import Archive
from aiodicom.archive.conditions import add_functions
from aiodicom.archive.rebuilding import INDEX, rebuild
from aiodicom.archive.worklist import (
    add_steps,
    compile_worklist_query,
    copy_worklist,
    create_worklist,
    read_folder,
    remove_step,
    steps_of,
)
from aiodicom.dataset import decode_data_set, encode_data_set
from aiodicom.errors import DimseError, InvalidInstance
from aiodicom.nodes import Node
from aiodicom.part10 import file_meta
from aiodicom.query import QueryOptions
from aiodicom.rows import Row, encode_row
from aiodicom.services.matching import matches
from aiodicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    UNCOMPRESSED,
)
from aiodicom.upper_layer.presentation import ProposedContext
from tests.loopback import connect, serving

ASKED: Final[Row] = {
    "PatientName": "",
    "PatientID": "",
    "AccessionNumber": "",
    "StudyInstanceUID": "",
    "ScheduledProcedureStepSequence": [
        {"Modality": "", "ScheduledStationAETitle": "", "ScheduledProcedureStepStartDate": ""}
    ],
}


def received(row: Row, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Dataset:
    return decode_data_set(encode_row(row, syntax), syntax)


def item(number: int, step: Row | None = None, **attributes: Any) -> Dataset:  # noqa: ANN401
    first: Row = {
        "Modality": "CT",
        "ScheduledStationAETitle": ["CT1", "CT2"],
        "ScheduledProcedureStepStartDate": "20240102",
        "ScheduledProcedureStepStartTime": "1015",
        "ScheduledPerformingPhysicianName": "Doctor^A",
        "ScheduledProcedureStepID": f"SPS{number}",
        "ScheduledProtocolCodeSequence": [{"CodeValue": "C1"}],
    }
    return received(
        {
            "StudyInstanceUID": f"1.2.{number}",
            "PatientName": "Doe^Jane",
            "PatientID": f"P{number}",
            "AccessionNumber": f"A{number}",
            "RequestedProcedureID": f"RP{number}",
            "ScheduledProcedureStepSequence": [{**first, **(step or {})}],
            **attributes,
        }
    )


ITEMS: Final = (
    item(1),
    item(2, {"Modality": "MR", "ScheduledStationAETitle": "MR1"}, PatientName="Smith^Adam"),
    item(3, {"ScheduledProcedureStepStartDate": "20240103", "ScheduledProcedureStepStartTime": "07"}),
    item(4, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen", PatientComments="müde"),
    item(5, {"ScheduledPerformingPhysicianName": "", "ScheduledStationAETitle": ""}, AccessionNumber=""),
    item(6, TimezoneOffsetFromUTC="+0100"),
)


def add_item(connection: sqlite3.Connection, item: Dataset) -> list[tuple[object, object]]:
    steps = steps_of(item)
    add_steps(connection, steps)
    return [(each["StudyInstanceUID"], each["ScheduledProcedureStepID"]) for each in steps]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "index", isolation_level=None)) as made:
        create_worklist(made)
        create_worklist(made)  # once is enough
        for each in ITEMS:
            add_item(made, each)
        yield made


def found(
    connection: sqlite3.Connection,
    keys: Row,
    options: QueryOptions | None = None,
    syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
) -> list[Dataset]:
    query = compile_worklist_query(received(keys, syntax), options=options or QueryOptions())
    assert query.status == 0xFF00
    add_functions(connection)
    return [decode_data_set(data, syntax) for data in query.run(connection, syntax)]


def step(**keys: Any) -> Row:  # noqa: ANN401
    return {"ScheduledProcedureStepSequence": [keys]}


@pytest.mark.parametrize(
    "options", [QueryOptions(), QueryOptions(combined_datetime=True, fuzzy_names=True, timezone=True)]
)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"PatientName": "doe*"},
        {"PatientName": "jane doe"},
        {"PatientName": "Müller*", "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientID": "P1"},
        {"PatientID": "P?"},
        {"AccessionNumber": "A2"},
        {"StudyInstanceUID": ["1.2.1", "1.2.3"]},
        {"RequestedProcedureID": "RP[1-3]"},
        {"PatientComments": "m*"},
        {"TimezoneOffsetFromUTC": "+0100"},
        step(Modality="MR"),
        step(ScheduledStationAETitle="CT2"),
        step(ScheduledStationAETitle="CT*", Modality="CT"),
        step(ScheduledPerformingPhysicianName="doctor*"),
        step(ScheduledProcedureStepStartDate="20240102"),
        step(ScheduledProcedureStepStartDate="20240103-", ScheduledProcedureStepStartTime="07"),
        step(ScheduledProcedureStepStartDate="20240101-20240103", ScheduledProcedureStepStartTime="09-10"),
        {**step(ScheduledProcedureStepStartTime="0615"), "TimezoneOffsetFromUTC": "-0300"},
        step(ScheduledProtocolCodeSequence=[{"CodeValue": "C1"}], Modality="MR"),
        step(ScheduledProtocolCodeSequence=[{"CodeValue": "C2"}]),
        {"ScheduledProcedureStepSequence": [{"Modality": "MR"}, {"ScheduledProcedureStepID": "SPS1"}]},
        {"ScheduledProcedureStepSequence": []},
        {"ReferencedPatientSequence": [{"ReferencedSOPInstanceUID": "1.2"}]},
    ],
)
def test_what_matches_is_found(connection: sqlite3.Connection, keys: Row, options: QueryOptions) -> None:
    asked = {**keys, "StudyInstanceUID": keys.get("StudyInstanceUID", "")}
    expected = {each.StudyInstanceUID for each in ITEMS if matches(received(asked), each, options=options)}
    assert {match.StudyInstanceUID for match in found(connection, asked, options)} == expected


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_an_answer_has_what_was_asked_for(connection: sqlite3.Connection, syntax: str) -> None:
    [match] = found(connection, {**ASKED, "PatientID": "P2", "MilitaryRank": ""}, syntax=syntax)
    assert (match.PatientName, match.PatientID, match.AccessionNumber) == ("Smith^Adam", "P2", "A2")
    assert not match.MilitaryRank
    [there] = match.ScheduledProcedureStepSequence
    assert {element.keyword: element.value for element in there} == {
        "Modality": "MR",
        "ScheduledStationAETitle": "MR1",
        "ScheduledProcedureStepStartDate": "20240102",
    }


@pytest.mark.parametrize(
    ("asked", "expected"), [("ISO_IR 100", "ISO_IR 100"), ("ISO_IR 144", "ISO_IR 192"), ("", "ISO_IR 192")]
)
def test_an_answer_is_in_the_character_set_of_the_request_if_it_fits(
    connection: sqlite3.Connection, asked: str, expected: str
) -> None:
    charset = {"SpecificCharacterSet": asked} if asked else {}
    [match] = found(connection, {"PatientID": "P4", "PatientName": "", "PatientComments": "", **charset})
    assert match.SpecificCharacterSet == expected
    assert (match.PatientName, match.PatientComments) == ("Müller^Jürgen", "müde")


def test_text_in_a_step_is_in_the_character_set_of_its_item(connection: sqlite3.Connection) -> None:
    description = {"ScheduledProcedureStepDescription": "Schädel"}
    for number, charset in ((7, "ISO_IR 100"), (8, "ISO_IR 192")):
        add_item(connection, item(number, description, SpecificCharacterSet=charset, PatientID="X"))
    for match in found(connection, {"PatientID": "X", **step(ScheduledProcedureStepDescription="Sch?del")}):
        assert match.ScheduledProcedureStepSequence[0].ScheduledProcedureStepDescription == "Schädel"
    assert len(found(connection, {"PatientID": "X"})) == 2


def test_an_item_replaces_the_one_with_its_study_and_step(connection: sqlite3.Connection) -> None:
    again = item(1, PatientName="Doe^Janet")
    before = encode_data_set(again, EXPLICIT_VR_LITTLE_ENDIAN)
    assert add_item(connection, again) == [("1.2.1", "SPS1")]
    assert encode_data_set(again, EXPLICIT_VR_LITTLE_ENDIAN) == before
    [match] = found(connection, {"PatientID": "P1", "PatientName": ""})
    assert match.PatientName == "Doe^Janet"


def test_an_item_with_several_steps_becomes_several(connection: sqlite3.Connection) -> None:
    two = item(9)
    two.ScheduledProcedureStepSequence = [
        received({"ScheduledProcedureStepID": each, "Modality": each}) for each in ("CT", "MR")
    ]
    assert add_item(connection, two) == [("1.2.9", "CT"), ("1.2.9", "MR")]
    assert len(two.ScheduledProcedureStepSequence) == 2
    for match in found(connection, {"PatientID": "P9", **step(Modality="")}):
        assert len(match.ScheduledProcedureStepSequence) == 1
    assert len(found(connection, {"PatientID": "P9"})) == 2
    assert len(found(connection, {"PatientID": "P9", **step(Modality="MR")})) == 1


def test_an_item_can_be_removed(connection: sqlite3.Connection) -> None:
    assert remove_step(connection, "1.2.1", "SPS1")
    assert not remove_step(connection, "1.2.1", "SPS1")
    assert found(connection, {"PatientID": "P1"}) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"PatientID": "1"}, "Scheduled Procedure Step Sequence"),
        ({"ScheduledProcedureStepSequence": []}, "Scheduled Procedure Step Sequence"),
        ({"ScheduledProcedureStepSequence": [{"Modality": "CT"}]}, "Study Instance UID"),
    ],
)
def test_what_is_no_item_is_refused(connection: sqlite3.Connection, row: Row, said: str) -> None:
    with pytest.raises(InvalidInstance, match=said):
        add_item(connection, received(row))


def test_an_item_made_in_python(connection: sqlite3.Connection) -> None:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName = "Πα^Ελένη"
    made.PatientID = "GR"
    made.StudyInstanceUID = "1.5"
    made.ScheduledProcedureStepSequence = [Dataset()]
    made.ScheduledProcedureStepSequence[0].Modality = "US"
    add_item(connection, made)
    [match] = found(connection, {"PatientName": "πα*", "SpecificCharacterSet": "ISO_IR 192", **step(Modality="US")})
    assert match.PatientName == "Πα^Ελένη"


def test_keys_that_cannot_be_decoded_or_are_too_many(connection: sqlite3.Connection) -> None:
    keys: tuple[Row, ...] = (
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": b"M\xfcller"},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientComments": b"M\xfcller"},
        {"StudyInstanceUID": ["1"] * 10_001},
    )
    for each in keys:
        with pytest.raises(DimseError) as refused:
            found(connection, each)
        assert refused.value.status == 0xC000
        assert len(refused.value.comment) <= 64


def test_sql_is_text(connection: sqlite3.Connection) -> None:
    add_functions(connection)
    query = compile_worklist_query(received({"PatientID": "' OR 1=1 --", "PatientName": "s3cret"}))
    assert "s3cret" not in query.sql
    assert "s3cret" not in repr(query)
    assert list(query.run(connection, EXPLICIT_VR_LITTLE_ENDIAN)) == []


# ---- folders of files


def test_a_folder_of_worklist_files_is_imported(tmp_path: Path, connection: sqlite3.Connection) -> None:
    folder = tmp_path / "wl"
    folder.mkdir()
    bare = item(11, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^A")
    (folder / "bare.wl").write_bytes(encode_data_set(bare, IMPLICIT_VR_LITTLE_ENDIAN))
    meta = file_meta("1.2.276.0.7230010.3.1.0.1", "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN)
    (folder / "part10.WL").write_bytes(meta + encode_data_set(item(12), EXPLICIT_VR_LITTLE_ENDIAN))
    saved = item(13)
    saved.file_meta = FileMetaDataset()
    saved.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    saved.save_as(folder / "pydicom.dcm", enforce_file_format=False)
    (folder / "lockfile").touch()
    (folder / "garbage.wl").write_bytes(b"no DICOM at all, whatever it is called")
    (folder / "empty.dcm").touch()
    (folder / "folder.wl").mkdir()

    steps, report = read_folder(folder)
    add_steps(connection, steps)
    assert report.steps == [("1.2.11", "SPS11"), ("1.2.12", "SPS12"), ("1.2.13", "SPS13")]
    assert [path.name for path, _ in report.problems] == ["empty.dcm", "garbage.wl"]
    [match] = found(connection, {"PatientID": "P11", "PatientName": ""})
    assert match.PatientName == "Müller^A"
    for patient in ("P12", "P13"):
        assert len(found(connection, {"PatientID": patient})) == 1
    assert len(found(connection, {})) == len(ITEMS) + 3


def test_the_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        read_folder(tmp_path / "nowhere")


async def patients(archive: Archive) -> list[str]:
    query = compile_worklist_query(received({"PatientID": ""}))
    rows = archive.rows(partial(query.run, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN))
    return sorted([decode_data_set(data, EXPLICIT_VR_LITTLE_ENDIAN).PatientID async for data in rows])


async def test_an_import_replaces_what_came_from_the_folder_before(tmp_path: Path) -> None:
    for folder, number in (("a", 1), ("a", 2), ("b", 3)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{number}.wl").write_bytes(encode_data_set(item(number), IMPLICIT_VR_LITTLE_ENDIAN))
    async with Archive(tmp_path / "archive") as archive:
        await archive.schedule(item(4))
        for folder in ("a", "b"):
            await archive.import_worklist(tmp_path / folder)
        await archive.rebuild()  # which remembers where they came from
        (tmp_path / "a" / "1.wl").unlink()
        assert (await archive.import_worklist(tmp_path / "b" / ".." / "a")).steps == [("1.2.2", "SPS2")]
        assert await patients(archive) == ["P2", "P3", "P4"]


async def test_an_item_that_is_none_disturbs_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Archive(tmp_path) as archive:
        with pytest.raises(InvalidInstance):
            await archive.schedule(received({"PatientID": "1"}))
    assert not caplog.records


async def test_a_crash_while_the_index_is_replaced_loses_no_worklist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Archive(tmp_path) as archive:
        await archive.schedule(item(1))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            rebuild(tmp_path)
    async with Archive(tmp_path) as archive:
        assert await patients(archive) == ["P1"]


# ---- an index built again keeps its worklist


def test_a_worklist_moves_to_another_database(tmp_path: Path, connection: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(tmp_path / "new", isolation_level=None)) as new:
        create_worklist(new)
        copy_worklist(tmp_path / "index", new)
        assert len(found(new, ASKED)) == len(found(connection, ASKED)) == len(ITEMS)
        copy_worklist(tmp_path / "index", new)
        copy_worklist(tmp_path / "nowhere", new)
        assert not (tmp_path / "nowhere").exists()
        with closing(sqlite3.connect(tmp_path / "other")) as other:
            other.execute("CREATE TABLE something (x)")
        copy_worklist(tmp_path / "other", new)
        assert len(found(new, ASKED)) == len(ITEMS)


def test_a_damaged_database_has_no_worklist_to_take_over(tmp_path: Path, connection: sqlite3.Connection) -> None:
    (tmp_path / "damaged").write_bytes(b"this is no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        copy_worklist(tmp_path / "damaged", connection)
    assert len(found(connection, ASKED)) == len(ITEMS)


async def test_building_the_index_again_keeps_the_worklist(tmp_path: Path) -> None:
    async with Archive(tmp_path) as archive:
        with closing(sqlite3.connect(tmp_path / INDEX, isolation_level=None)) as beside:
            add_item(beside, ITEMS[0])
        await archive.rebuild()
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection:
        assert len(found(connection, ASKED)) == 1
    (tmp_path / INDEX).write_bytes(b"this is no database" * 1000)
    rebuild(tmp_path)
    with closing(sqlite3.connect(tmp_path / INDEX)) as connection:
        assert found(connection, ASKED) == []


# ---- over the network


async def test_the_archive_answers_those_who_may_find(tmp_path: Path) -> None:
    nodes = [Node("modality", "CT1", "127.0.0.1", 104), Node("gate", "GATE", "127.0.0.1", 104, frozenset(("store",)))]
    async with Archive(tmp_path, nodes=nodes) as archive, serving(services=archive.services()) as server:
        with closing(sqlite3.connect(tmp_path / INDEX, isolation_level=None)) as beside:
            for each in ITEMS:
                add_item(beside, each)
        contexts = [ProposedContext(MODALITY_WORKLIST_FIND)]
        async with connect(server, contexts=contexts, calling_ae_title="CT1") as association:
            async with association.c_find(model="worklist", PatientName="doe*") as matches:
                names = [match.PatientName async for match in matches]
            assert names == ["Doe^Jane"] * 4
        async with connect(server, contexts=contexts, calling_ae_title="GATE") as association:
            with pytest.raises(DimseError) as refused:
                await association.c_find(model="worklist", PatientName="doe*").all()
            assert refused.value.status == 0x0124
