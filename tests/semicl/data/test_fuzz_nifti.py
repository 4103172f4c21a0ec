"""Damaged files are taken rightly or refused in a line; 2,000 of them by `python -m tests.semicl.data.fuzz_nifti`."""

from pathlib import Path

import numpy as np
import pytest

from tests.semicl.data import fuzz_nifti


@pytest.mark.parametrize("seed", [1000, 1001])
def test_damaged_files_are_taken_rightly_or_refused(tmp_path: Path, seed: int) -> None:
    assert list(fuzz_nifti.judge(tmp_path, seed, 50)) == []


def test_a_wrong_cache_and_a_traceback_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semicl.data.volumes.scaled", lambda array: np.zeros(array.shape, np.float32))
    assert any("the cache holds other values" in line for line in fuzz_nifti.judge(tmp_path / "a", 1000, 2))
    monkeypatch.setattr("semicl.data.checks.whole_values", lambda _: 1 / 0)
    assert any("ZeroDivisionError" in line for line in fuzz_nifti.judge(tmp_path / "b", 1000, 2))
