"""`aiodicom index rebuild`, as a process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli.running import once, run, started
from tests.peers.comparing import bundled

pytestmark = once


async def test_the_index_is_made_again_from_the_files(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    async with started("serve", "--any-called-aet", "--port", "0", "--storage", archive) as program:
        port = (await program.line()).split(", port ")[1].split(",")[0]
        stored = await run("store", f"127.0.0.1:{port}", bundled("CT_small.dcm").path, bundled("MR_small.dcm").path)
        refused = await run("index", "rebuild", "--storage", archive)
        program.process.terminate()
        await program.end()
    assert stored.exit_code == 0, stored
    assert refused.exit_code == 45
    assert "in use" in refused.errors
    index = archive / "index.sqlite"
    index.write_bytes(b"no database")
    (archive / "notes.txt").write_text("no instance")
    rebuilt = await run("index", "rebuild", "--storage", archive)
    assert rebuilt.exit_code == 68, rebuilt
    assert rebuilt.output.startswith(f"the index of {archive} has 2 instances, 2 series, 2 studies, of 2 patients; ")
    assert "notes.txt: " in rebuilt.output
    with closing(sqlite3.connect(index)) as connection:
        assert connection.execute("SELECT count(*) FROM instances").fetchone() == (2,)


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = await run("index", "rebuild", "--storage", tmp_path / "nowhere")
    assert done.exit_code == 45
    assert "there is no such folder" in done.errors
