"""A short soak: nothing that the server holds grows under mixed load, and all that it acknowledged is there at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="the bench looks into /proc")
def test_nothing_grows_and_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.soak", "--seconds=8", "--clients=20", "--seed=4", f"--folder={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: nothing grew, and nothing was lost" in done.stdout
