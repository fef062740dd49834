"""Query files: DICOM files, bare data sets, and dumps; what DCMTK makes of the same dumps."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import UID

from aiodicom.cli.query_files import LARGEST, read_query_file
from aiodicom.dataset import encode_data_set
from aiodicom.errors import InvalidInstance
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.cli.running import once
from tests.peers import dcmtk

EXAMPLES = Path("/usr/share/doc/dcmtk/examples/wlistqry")
DUMP = """\

# a query
(0002,0010) UI [1.2.840.10008.1.2]
(0008,0005) CS [ISO_IR 192]                             # SpecificCharacterSet
(0008,0052) CS [STUDY]     # Level
(0010,0010) PN [Ad*\\B]    # 8, 1 PatientName
(0010,0020) LO (no value available)                     #   0, 0 PatientID
(0010,0030) DA
(0010,1030) DS []
(0020,000d) UI 1.2\\3.4
(0028,0010) US 512                                      # Rows
(0009,0010) LO [ACME]
(0009,1001) ?? []
(0009,1002) CS [X]
(0040,0100) SQ (Sequence with explicit length #=1)      # ScheduledProcedureStepSequence
  (fffe,e000) na (Item with explicit length #=2)
    (0008,0060) CS [CT]                                 # Modality
    (0040,0008) SQ
      (fffe,e000) na
      (fffe,e00d) na
    (fffe,e0dd) na
  (fffe,e00d) na (ItemDelimitationItem for re-encoding)
  (fffe,e000) na
    (0008,0060) CS [MR]
  (fffe,e00d) na
(fffe,e0dd) na (SequenceDelimitationItem for re-encod.)
(0032,1064) SQ
(fffe,e0dd) na
"""


def write(folder: Path, data: bytes | str) -> Path:
    path = folder / "query"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def query() -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    ds.PatientName = "A*"
    ds.PatientID = None
    ds.ScheduledProcedureStepSequence = [Dataset()]
    ds.ScheduledProcedureStepSequence[0].Modality = "CT"
    return ds


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
def test_a_bare_data_set(tmp_path: Path, syntax: str) -> None:
    there = read_query_file(write(tmp_path, encode_data_set(query(), syntax)))
    assert encode_data_set(there, EXPLICIT_VR_LITTLE_ENDIAN) == encode_data_set(query(), EXPLICIT_VR_LITTLE_ENDIAN)


def part_10(ds: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    stream = BytesIO()
    ds.save_as(stream, enforce_file_format=False)
    return bytes(128) + b"DICM" + stream.getvalue().removeprefix(bytes(128) + b"DICM")


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
def test_a_part_10_file_that_is_no_instance(tmp_path: Path, syntax: str) -> None:
    there = read_query_file(write(tmp_path, part_10(query(), syntax)))
    assert encode_data_set(there, EXPLICIT_VR_LITTLE_ENDIAN) == encode_data_set(query(), EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_dump(tmp_path: Path) -> None:
    ds = read_query_file(write(tmp_path, DUMP))
    assert (ds.QueryRetrieveLevel, ds.PatientName, ds.PatientID, ds.Rows) == ("STUDY", ["Ad*", "B"], None, 512)
    assert ds.StudyInstanceUID == ["1.2", "3.4"]
    assert (ds[0x00091001].VR, ds[0x00091002].VR, ds[0x00091002].value) == ("UN", "CS", "X")
    first, second = ds.ScheduledProcedureStepSequence
    assert (first.Modality, second.Modality) == ("CT", "MR")
    assert list(first.ScheduledProtocolCodeSequence) == [Dataset()]
    assert list(ds.RequestedProcedureCodeSequence) == []
    assert 0x00020010 not in ds


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "Müller"), ("latin-1", "Müller")])
def test_a_dump_that_is_not_ascii(tmp_path: Path, encoding: str, name: str) -> None:
    ds = read_query_file(write(tmp_path, f"(0010,0010) PN [{name}]\n".encode(encoding)))
    assert ds.PatientName == name


@once
@pytest.mark.parametrize("option", ["+F", "-F"])
async def test_dump2dcm_makes_the_same_of_a_dump(tmp_path: Path, option: str) -> None:
    dictionary_knows_it = DUMP.replace("??", "UN").replace("(0009,1002) CS [X]", "")
    texts = [*(path.read_text() for path in sorted(EXAMPLES.glob("*.dump"))), dictionary_knows_it]
    for text in texts:
        dump = write(tmp_path, text)
        made = tmp_path / "made.dcm"
        finished = await dcmtk.run("dump2dcm", option, dump, made)
        assert finished.exit_code == 0, finished
        ours, theirs = (encode_data_set(read_query_file(path), EXPLICIT_VR_LITTLE_ENDIAN) for path in (dump, made))
        assert ours == theirs, text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no query: it is empty"),
        (b"no query at all", "is no query: neither"),
        (bytes(LARGEST + 1), "is no query: it has more than"),
        (bytes(128) + b"DICM" + b"\xff" * 7, "its File Meta Information is damaged"),
        (part_10(query())[:-3], "data set: truncated: (0040,0100) at offset "),
        ("(0010,0010) PN [A", "line 1: is none of a dump: write (gggg,eeee) VR [value]"),
        ("(0010,0010) PN [A]\nPatientID", "line 2: is none of a dump"),
        ("(0008,0016) UI =CTImageStorage", "line 1: is none of a dump"),
        ("(0028,0010) US [many]", "line 1: Rows is of VR US, and cannot have such a value"),
        ("(fffe,e000) na", "line 1: there is no sequence around it"),
        ("(fffe,e0dd) na", "line 1: there is no sequence around it"),
        ("(0040,0100) SQ\n(0008,0060) CS [CT]", "line 2: is in a sequence, but in no item of it"),
        ("(0040,0100) SQ [1]", "line 1: ScheduledProcedureStepSequence is of VR SQ"),
    ],
)
def test_what_is_no_query(tmp_path: Path, data: bytes | str, message: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(InvalidInstance, match=re.escape(f"{path}: {message}")):
        read_query_file(path)
