"""`NameTemplate`: the names that instances get, and the places where they never get."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset

from aiodicom import DimseError, EncodedInstance, LocalProtocolError, Operation
from aiodicom.dataset import encode_data_set
from aiodicom.part10 import file_meta
from aiodicom.services.naming import NameTemplate
from aiodicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.loopback import CT, connect, element, instance_uid, serving, uid_value


def data_set(**values: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPInstanceUID = "1.9.9.9"  # the one of the File Meta Information counts
    ds.PatientName = "Müller^Änne^^"
    ds.PatientID = "ID 7/8"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.4"
    ds.StudyDate = "20241231"
    ds.Modality = "CT"
    ds.InstanceNumber = 12
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.PixelData = bytes(100)
    ds["PixelData"].VR = "OW"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def write(path: Path, ds: Dataset | bytes, number: int = 1, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Path:
    data = ds if isinstance(ds, bytes) else encode_data_set(ds, syntax)
    path.write_bytes(file_meta(CT, instance_uid(number), syntax) + data)
    return path


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm", f"1.2.3/1.2.4/{instance_uid(1)}.dcm"),
        ("{PatientName}/{StudyDate}/{Modality}-{InstanceNumber:05}.dcm", "Müller_Änne/20241231/CT-00012.dcm"),
        ("{PatientID}", "ID_7_8"),
        ("{ImageType}.{InstanceNumber}", "ORIGINAL_PRIMARY.12"),
        ("{AccessionNumber}/{StudyDescription:.5}{{}}", "unknown/unknown{}"),
        ("{PatientName:.3}-{InstanceNumber:x}", "Mül-c"),
        ("{Modality:05}.dcm", "CT000.dcm"),
        ("...{Modality}. . ", "CT"),
        ("a/...{Rows}", "a/unknown"),
        ("-{Modality}", "_-CT"),
        ("{SOPClassUID}.dcm", f"{CT}.dcm"),
    ],
)
@pytest.mark.parametrize(
    "syntax",
    [
        EXPLICIT_VR_LITTLE_ENDIAN,
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ],
)
def test_names(tmp_path: Path, template: str, name: str, syntax: str) -> None:
    assert NameTemplate(template)(write(tmp_path / ".part", data_set(), syntax=syntax)) == name


def test_the_default(tmp_path: Path) -> None:
    assert NameTemplate()(write(tmp_path / ".part", data_set())) == f"1.2.3/1.2.4/{instance_uid(1)}.dcm"
    assert repr(NameTemplate("{Modality}")) == "NameTemplate('{Modality}')"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"..", "unknown"),
        (b"../../etc/passwd", "_.._etc_passwd"),
        (b"/etc", "etc"),
        (b"a\\b", "a_b"),
        (b"C:\\x", "C_x"),
        (b".hidden", "hidden"),
        (b"-rf", "_-rf"),
        (b"~root", "root"),
        (b"con", "_con"),
        (b"NUL.txt", "_NUL.txt"),
        (b"a\0b\x1b[31m\n", "a_b_31m"),
        (b"\0", "unknown"),
        (b"  ", "unknown"),
        (b"^^", "unknown"),
        (b"a" * 5000, "unknown"),  # it is not even read
        (b"a" * 4000, "a" * 64),
        (b"\xe5\xb1\xb1\xe7\x94\xb0", "山田"),
        (b"a\xff\xfeb", "a_b"),
    ],
)
def test_values_that_are_no_names(tmp_path: Path, value: bytes, name: str) -> None:
    padded = value + b" " * (len(value) % 2)
    data = element(0x0008, 0x0005, b"ISO_IR 192") + element(0x0020, 0x4000, padded)
    path = write(tmp_path / ".part", data, syntax=IMPLICIT_VR_LITTLE_ENDIAN)
    assert NameTemplate("{ImageComments}")(path) == name


@given(
    st.text(max_size=300),
    st.sampled_from(["{ImageComments}", "{ImageComments}.dcm", "a/{ImageComments}/b", ".{ImageComments}"]),
)
@example("..", "{ImageComments}")
@example("con", "{ImageComments}.dcm")
@example("../" * 50, "a/{ImageComments}/b")
def test_no_name_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, text: str, template: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    value = text.encode(errors="replace")
    data = element(0x0008, 0x0005, b"ISO_IR 192") + element(0x0020, 0x4000, value + b" " * (len(value) % 2))
    name = NameTemplate(template)(write(folder / ".part", data, syntax=IMPLICIT_VR_LITTLE_ENDIAN))
    components = name.split("/")
    assert len(components) == template.count("/") + 1
    for component in components:
        assert component
        assert component[0] not in ".-"
        assert component.isprintable()
        assert len(component.encode()) <= 255
        assert not set(component) & set('\\:*?"<>|/')
    assert (folder / name).resolve().is_relative_to(folder.resolve())
    final = folder / name
    final.parent.mkdir(parents=True, exist_ok=True)
    final.write_bytes(b"")


def test_no_component_is_longer_than_a_file_system_takes(tmp_path: Path) -> None:
    long = "山" * 64
    ds = data_set(PatientName=long, PatientID=long, StudyDescription=long)
    name = NameTemplate("{PatientName}{PatientID}/{PatientName}{PatientID}{StudyDescription}.dcm")(
        write(tmp_path / ".part", ds)
    )
    first, second = name.split("/")
    assert len(first.encode()) <= 200
    assert len(second.encode()) <= 200
    assert second.endswith("山.dcm")


# More than one instance.


def test_another_instance_gets_another_name(tmp_path: Path) -> None:
    names = NameTemplate("{PatientID}/{Modality}.dcm")
    (tmp_path / "ID_7_8").mkdir()
    for number, expected in ((1, "CT.dcm"), (2, "CT-2.dcm"), (3, "CT-3.dcm"), (2, "CT-2.dcm"), (1, "CT.dcm")):
        part = write(tmp_path / ".part", data_set(), number)
        name = names(part)
        assert name == f"ID_7_8/{expected}"
        part.rename(tmp_path / name)


def test_names_that_are_given_but_not_there_yet(tmp_path: Path) -> None:
    names = NameTemplate("{PatientName}/{Modality}")
    parts = [write(tmp_path / f".{number}.part", data_set(), number) for number in range(50)]
    with ThreadPoolExecutor(8) as pool:
        given_names = list(pool.map(names, parts))
    assert len(set(given_names)) == 50
    assert list(map(names, parts)) == given_names


def test_a_later_run_finds_the_files_of_an_earlier_one(tmp_path: Path) -> None:
    for number in (1, 2):
        part = write(tmp_path / ".part", data_set(), number)
        part.rename(tmp_path / NameTemplate("{Modality}.dcm")(part))
    assert NameTemplate("{Modality}.dcm")(write(tmp_path / ".part", data_set(), 2)) == "CT-2.dcm"
    assert NameTemplate("{Modality}.dcm")(write(tmp_path / ".part", data_set(), 3)) == "CT-3.dcm"


def test_what_is_no_instance_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "CT.dcm").write_text("mine")
    (tmp_path / "CT-2.dcm").mkdir()
    (tmp_path / "CT-3.dcm").symlink_to("nowhere")
    assert NameTemplate("{Modality}.dcm")(write(tmp_path / ".part", data_set())) == "CT-4.dcm"


def test_folders_have_names_of_their_own(tmp_path: Path) -> None:
    names = NameTemplate("{Modality}.dcm")
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        assert names(write(folder / ".part", data_set(), 1)) == "CT.dcm"


# What is wrong.


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "must be a relative path"),
        ("/{Modality}", "must be a relative path"),
        ("{Modality}/", "must be a relative path"),
        ("a//{Modality}", "must be a relative path"),
        ("../{Modality}", "must be a relative path"),
        ("./{Modality}", "must be a relative path"),
        ("{Modality}\n", "must be a relative path"),
        ("C:{Modality}", "has a backslash or a colon"),
        ("a\\{Modality}", "has a backslash or a colon"),
        ("file.dcm", "names nothing: write a keyword in braces"),
        ("{Modalety}", "names 'Modalety', which is no keyword"),
        ("{}", "names '', which is no keyword"),
        ("{:05}", "names '', which is no keyword"),
        ("{0}", "names '0', which is no keyword"),
        ("{Modality.__class__}", "names 'Modality.__class__', which is no keyword"),
        ("{ImageType[0]}", "names 'ImageType[0]', which is no keyword"),
        ("{Modality!r}", "has more than a keyword and a format"),
        ("{InstanceNumber:{Rows}}", "has more than a keyword and a format"),
        ("{InstanceNumber:5q}", "has '5q' for a format, which is none"),
        ("{Modality", "cannot be understood: "),
        ("Modality}", "cannot be understood: "),
        ("{PixelData}", "names PixelData, whose values are no text"),
        ("{ReferencedStudySequence}", "names ReferencedStudySequence, whose values are no text"),
        ("{TransferSyntaxUID}", "names TransferSyntaxUID, whose values are no text"),
    ],
)
def test_what_is_no_template(template: str, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=re.escape(f"the template {template!r} {message}")):
        NameTemplate(template)


@pytest.mark.parametrize("data", [b"\xff" * 20, element(0x0008, 0x0005, b"x")[:-3]], ids=["noise", "nothing of it"])
def test_an_instance_that_cannot_be_read(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / ".part", data)
    with pytest.raises(DimseError) as raised:
        NameTemplate("{Modality}")(path)
    assert raised.value.status == 0xC000


def test_a_value_that_is_none_of_its_vr(tmp_path: Path) -> None:
    data = element(0x0020, 0x0013, b"one ") + element(0x0028, 0x0010, b"\1\0\2")
    path = write(tmp_path / ".part", data, syntax=IMPLICIT_VR_LITTLE_ENDIAN)
    assert NameTemplate("{InstanceNumber:05}-{Rows}")(path) == "one00-unknown"


async def test_it_names_what_is_received(tmp_path: Path) -> None:
    names = NameTemplate("{PatientName}/{Modality}.dcm")

    async def keep(operation: Operation) -> None:
        await operation.save(tmp_path, names)

    async with serving(keep) as server, connect(server) as association:
        instances = []
        for uid in map(instance_uid, (1, 2, 1)):
            data = encode_data_set(data_set(SOPClassUID=CT, SOPInstanceUID=uid), IMPLICIT_VR_LITTLE_ENDIAN)
            instances.append(EncodedInstance(CT, uid, IMPLICIT_VR_LITTLE_ENDIAN, data))
        await asyncio.gather(*map(association.c_store, instances))
    kept = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["Müller_Änne/CT-2.dcm", "Müller_Änne/CT.dcm"]
    assert uid_value(instance_uid(2)) in (tmp_path / kept[0]).read_bytes()
