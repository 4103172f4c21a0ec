"""The demo from the command line, as a new user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from semicl import demo
from semicl.cli import main
from semicl.phantom import CLASSES
from tests.semicl.conftest import REPOSITORY


def _demo(output: Path, *arguments: object) -> tuple[str, dict[str, Any]]:
    """Run `python -m semicl demo --quick`, check what every run must leave, return its text and results."""
    command = [sys.executable, "-m", "semicl", "demo", "--quick", "--output", output, *arguments]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=REPOSITORY, env=one_thread, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for bar in ("1 global contrast", "2 local contrast", "3 fine-tune random", "3 fine-tune pretrained"):
        assert f"{bar}: 100%" in done.stderr
    picture = (output / "predictions.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert picture.endswith(b"IEND\xaeB`\x82")
    assert list(output.rglob(".partial-*")) == []
    for name in ("global", "local", "random", "pretrained"):
        assert (output / f"{name}.ckpt").is_file()
    return done.stdout, json.loads((output / "results.json").read_text())


def test_on_the_phantom(tmp_path: Path) -> None:
    text, results = _demo(tmp_path / "run", "--data", "phantom")
    assert "PHANTOM" in text
    assert "not patients" in text
    assert results["synthetic"] is True
    assert "global.ckpt: took 40 tensors (encoder 40)" in text
    assert "local.ckpt: took 80 tensors (encoder 40, decoder 40)" in text
    assert results["verdict"] in text
    for name in ("random", "pretrained"):
        assert list(results["validation_dice_by_step"][name]) == ["15", "30"]
        score = results["test"][name]
        assert list(score["dice_per_class"]) == list(CLASSES[1:])
        assert list(score["dice_per_volume"]) == results["split"]["test"]
        for value in (score["mean_dice"], *score["dice_per_class"].values()):
            assert 0 <= value <= 1
            assert f"{value:.3f}"[:4] in text
    assert not set(results["split"]["test"]) & set(results["split"]["training"])


@pytest.mark.slow
def test_on_real_cases(hippocampus: Path, tmp_path: Path) -> None:
    text, results = _demo(tmp_path / "run", "--data", hippocampus)
    assert "PHANTOM" not in text
    assert results["synthetic"] is False
    assert list(results["test"]["random"]["dice_per_class"]) == ["Anterior", "Posterior"]


def test_without_real_cases_the_default_is_the_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    announced: list[bool] = []

    def stop(folder: object, split: object, synthetic: bool) -> None:
        announced.append(synthetic)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_announce", stop)
    assert main(["demo", "--quick", "--output", str(tmp_path / "run")]) == 130
    assert announced == [True]
