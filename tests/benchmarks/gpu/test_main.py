"""The whole command, in little: the same code that a GPU runs."""

import json
import os
import subprocess
import sys

import pytest
import torch


def run(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_names_the_way_out():
    answer = run(seconds=60)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert "no NVIDIA GPU" in answer.stderr
    assert "--toy" in answer.stderr


def test_a_toy_run_does_all_of_it_and_claims_no_speed(tmp_path):
    answer = run("--toy", "--output", str(tmp_path), seconds=240)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["toy"] is True
    assert result["device"] == "interpreter"
    assert not result["errors"], result["errors"]
    assert not result["left_out"]
    assert list(result["shapes"]) == ["toy-bfloat16", "dense-32-16-float32", "dense-64-16-float32"]
    providers = result["shapes"]["dense-32-16-float32"]["providers"]
    assert providers["triton"]["median_ms"] > 0
    assert "executed_tflops" not in providers["triton"]
    assert providers["compiled"]["median_ms"] > 0
    assert "no backward on a CPU" in providers["flex"]["skipped"]
    assert result["accuracy"][0]["gradient_ratio"] < 2
    assert result["host_us"]["triton"] > 0
    assert {verdict["met"] for verdict in result["targets"] if "error" not in verdict["target"]} == {None}
    assert result["checks"]["rehearsal-0"]["exit"] == 0
    assert "skipped" in result["checks"]["tests"]["last_line"] or "passed" in result["checks"]["tests"]["last_line"]
    assert (tmp_path / "dense-float32.png").stat().st_size > 10_000
    assert not list(tmp_path.glob(".*"))
