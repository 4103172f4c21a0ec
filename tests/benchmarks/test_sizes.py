import json
import subprocess
import sys

import pytest

from benchmarks.plots import naive_points
from benchmarks.report import cell
from benchmarks.sizes import full_resolution


def test_sizes_are_measured_written_and_drawn(tmp_path):
    words = [sys.executable, "-m", "benchmarks.sizes", "--sizes", "16", "24", "--seconds", "0.2", "--threads", "1"]
    words += ["--output", tmp_path]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["shapes"]) == ["full-16", "full-24"]
    for shape in result["shapes"].values():
        assert all(shape["providers"][name]["median_ms"] > 0 for name in ("fused", "anchors-only", "authors"))
        assert shape["points"] == 2 * shape["width"] ** 2
    assert (tmp_path / "sizes.png").stat().st_size > 10_000
    assert answer.stdout.splitlines()[-1].startswith("| 24 | ")


def test_the_naive_code_runs_out_where_seven_matrices_fill_the_memory():
    points = full_resolution(64).points
    assert naive_points(7 * 4 * points**2) == pytest.approx(points)


def test_what_was_not_tried_says_why():
    shape = {"providers": {"authors": {"skipped": "out of memory: it would need"}}, "extra_peak_bytes": {}}
    assert cell(shape, "authors") == "out of memory"
    single = {"providers": {"fused": {"median_ms": 12.34, "rounds": 1}}, "extra_peak_bytes": {"fused": 3 * 2**20}}
    assert cell(single, "fused") == "12.3 ms\\*, 3 MiB"
