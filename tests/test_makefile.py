"""What `make` says before it does it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_set_up_says_what_it_builds_and_how_to_leave_cuda_out(tmp_path: Path) -> None:
    words = ["make", "--dry-run", "install", f"VENV={tmp_path}"]
    text = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    said, installed = text.index("SEMICL_CUDA=0"), text.index("pip install --quiet --disable-pip-version-check -e")
    assert said < installed
