"""Archives of other makers, made to hold instances before they are measured, and what is asked of them.

An archive knows one destination of C-MOVE, `MOVE_AE_TITLE`, at the port above its own.
"""

from __future__ import annotations

import io
import json
import subprocess
import time
import zipfile
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from bench.processes import LOOPBACK, SECONDS_BETWEEN_LOOKS, SECONDS_TO_START, BenchError, find, free_port

AE_TITLE: Final = "BENCH-ARCHIVE"
MOVE_AE_TITLE: Final = "BENCH-MOVE"
DCMQRSCP_STUDIES: Final = 500  # the most that it has room for
SECONDS_TO_FILL: Final = 120.0

RETURN_KEYS: Final = (
    (0x0008, 0x0020, "StudyDate"),
    (0x0008, 0x0030, "StudyTime"),
    (0x0008, 0x0050, "AccessionNumber"),
    (0x0008, 0x0061, "ModalitiesInStudy"),
    (0x0008, 0x1030, "StudyDescription"),
    (0x0010, 0x0010, "PatientName"),
    (0x0010, 0x0020, "PatientID"),
    (0x0010, 0x0030, "PatientBirthDate"),
    (0x0020, 0x000D, "StudyInstanceUID"),
    (0x0020, 0x1208, "NumberOfStudyRelatedInstances"),
)
"""What is asked of each study, in the order of the tags: what a list of studies shows."""

_DCMQRSCP_CONFIGURATION: Final = """\
NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 64
HostTable BEGIN
move = ({move_ae_title}, localhost, {move_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {storage} RW ({studies}, 1024mb) ANY
AETable END
"""


def own_folder(folder: Path) -> Path:
    """Return where an archive has its files, beside the folder of what is stored while measuring."""
    return folder.with_name(f"{folder.name}-archive")


def move_port(port: int) -> int:
    """Return the port of the destination of C-MOVE."""
    return port + 1


def prepare_dcmqrscp(port: int, folder: Path, holdings: Path) -> None:
    """Configure dcmqrscp, and make its index of the files of a folder, which stay there."""
    storage = own_folder(folder) / "storage"
    storage.mkdir(parents=True)
    configuration = _DCMQRSCP_CONFIGURATION.format(
        port=port,
        move_ae_title=MOVE_AE_TITLE,
        move_port=move_port(port),
        ae_title=AE_TITLE,
        storage=storage,
        studies=DCMQRSCP_STUDIES,
    )
    (own_folder(folder) / "dcmqrscp.cfg").write_text(configuration)
    if files := [str(path) for path in sorted(holdings.iterdir())]:
        subprocess.run([find("dcmqridx"), str(storage), *files], check=True, capture_output=True)


def held_by_dcmqrscp(folder: Path) -> int:
    """Return how many instances dcmqrscp holds; beside their files there is an index."""
    return sum(path.name != "index.dat" for path in (own_folder(folder) / "storage").iterdir())


def prepare_orthanc(port: int, folder: Path, _holdings: Path) -> None:
    """Configure Orthanc."""
    storage = own_folder(folder) / "storage"
    storage.mkdir(parents=True)
    settings = {
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "HttpPort": free_port(),
        "StorageDirectory": str(storage),
        "IndexDirectory": str(storage),
        "Plugins": [],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        **{f"DicomAlwaysAllow{what}": True for what in ("Find", "Get", "Move")},
        "DicomModalities": {"move": [MOVE_AE_TITLE, LOOPBACK, move_port(port)]},
    }
    _orthanc_configuration(folder).write_text(json.dumps(settings))


def fill_orthanc(_port: int, folder: Path, holdings: Path) -> None:
    """Give Orthanc the files of a folder, all in one archive: that takes two thirds of the time of one by one.

    Raises:
        BenchError: it does not hold them afterwards.
    """
    http_port = _orthanc_http_port(folder)
    _wait_for_http(http_port)
    files = sorted(holdings.iterdir())
    if files:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as members:
            for path in files:
                members.write(path, path.name)
        _ask(http_port, "POST", "/instances", archive.getvalue())
    held = held_by_orthanc(folder)
    if held != len(files):
        raise BenchError(f"Orthanc holds {held} instances instead of {len(files)}")


def held_by_orthanc(folder: Path) -> int:
    """Return how many instances Orthanc holds."""
    return int(json.loads(_ask(_orthanc_http_port(folder), "GET", "/statistics"))["CountInstances"])


def _orthanc_http_port(folder: Path) -> int:
    return int(json.loads(_orthanc_configuration(folder).read_text())["HttpPort"])


def _orthanc_configuration(folder: Path) -> Path:
    return own_folder(folder) / "orthanc.json"


def _wait_for_http(port: int) -> None:
    """Orthanc opens its HTTP port last."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        with suppress(OSError):
            _ask(port, "GET", "/system")
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise BenchError("Orthanc's REST API does not answer")


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = HTTPConnection(LOOPBACK, port, timeout=SECONDS_TO_FILL)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise BenchError(f"Orthanc answered {method} {path} with HTTP status {response.status}")
    return answer
