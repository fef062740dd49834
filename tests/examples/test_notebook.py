"""The notebook runs from top to bottom in a kernel of its own, against a server of ours; its file has no outputs."""

from __future__ import annotations

import os
from base64 import b64decode
from io import BytesIO
from typing import Any, Final

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

import aiodicom
from tests.examples.loading import EXAMPLES
from tests.loopback import Recorder
from tests.peers.process import LOOPBACK

CT: Final = str(get_testdata_file("CT_small.dcm"))
NAME: Final = "Doe^Jane <jane&co>"
SECONDS_A_CELL: Final = 60


def archive(recorder: Recorder) -> aiodicom.Server:
    """Has one study of one image."""
    server = aiodicom.Server("ARCHIVE", port=0, require_called_ae_title=True, observers=(recorder,), stop_timeout=0)

    @server.on_c_find(model="study")
    async def search(_operation: aiodicom.Operation) -> list[Dataset]:
        match = dcmread(CT, stop_before_pixels=True)
        match.PatientName = NAME
        return [match]

    @server.on_c_get(model="study")
    async def retrieve(operation: aiodicom.Operation) -> list[str]:
        return [CT] if operation.identifier.StudyInstanceUID == dcmread(CT).StudyInstanceUID else []

    return server


def notebook() -> Any:  # noqa: ANN401 - a tree of attributes
    return nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)  # type: ignore[no-untyped-call]


async def executed() -> dict[str, Any]:
    """What the cells have put out, by their id."""
    ran, recorder = notebook(), Recorder()
    async with archive(recorder) as server:
        where = {"ARCHIVE_HOST": LOOPBACK, "ARCHIVE_PORT": str(server.port), "ARCHIVE_AE_TITLE": "ARCHIVE"}
        client = NotebookClient(ran, timeout=SECONDS_A_CELL)
        await client.async_execute(env={**os.environ, **where})
    assert [call for call in recorder.calls if "Association" in call] == ["closed AssociationReleased"]
    return {cell.id: cell.outputs[0].data for cell in ran.cells if cell.get("outputs")}


async def test_it_finds_retrieves_and_shows() -> None:
    outputs = await executed()
    assert "open with 'ARCHIVE'" in outputs["associate"]["text/plain"]
    assert outputs["find"]["text/plain"] == "1"
    assert "<td>Doe^Jane &lt;jane&amp;co&gt;</td><td>1CT1</td><td>20040119</td>" in outputs["table"]["text/html"]
    assert "<td>128</td><td>128</td>" in outputs["get"]["text/html"]
    assert "closed with 'ARCHIVE'" in outputs["release"]["text/plain"]
    image = np.asarray(Image.open(BytesIO(b64decode(outputs["image"]["image/png"]))))
    pixels = dcmread(CT).pixel_array
    assert (image.shape, image.min(), image.max()) == (pixels.shape, 0, 255)
    assert image.argmax() == pixels.argmax()


def test_it_is_kept_without_outputs() -> None:
    cells = [cell for cell in notebook().cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)
