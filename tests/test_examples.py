"""Every example runs, and its loss is that of its dense formula, which it checks itself; so does the notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def run(folder: Path, *words: str) -> str:
    """What Python prints in a folder."""
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if "ddp" in example.stem else []
    printed = run(tmp_path, *launcher, str(example))
    assert "fused" in printed
    assert len(example.read_text().splitlines()) < 80


NOTEBOOK = Path(__file__).parents[1] / "examples" / "loss_in_pictures.ipynb"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
print(sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])))
"""


def test_the_notebook_draws_all_its_pictures(tmp_path: Path) -> None:
    printed = run(tmp_path, "-c", EXECUTE, str(NOTEBOOK))
    kept = json.loads(NOTEBOOK.read_text())["cells"]
    assert int(printed) == 6 == sum("image/png" in str(cell.get("outputs")) for cell in kept)
