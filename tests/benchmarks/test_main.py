"""The whole command, on a CPU and, in little, the code that a GPU runs."""

import json
import os
import subprocess
import sys

import pytest
import torch


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_only_names_the_shapes_there_are():
    answer = run("--device", "cpu", "--quick", "--only", "nothing")
    assert answer.returncode == 2
    assert "begins no shape's name; there are hippocampus16" in answer.stderr


def test_a_missing_library_is_named_with_the_way_out():
    program = "import runpy, sys; sys.modules['psutil'] = None; runpy.run_module('benchmarks', run_name='__main__')"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert "psutil" in line
    assert line.endswith("; install what benchmarks need: pip install -e '.[bench]' here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_names_the_way_out():
    answer = run("--device", "cuda")
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert "no NVIDIA GPU" in answer.stderr


def test_a_run_on_a_cpu_writes_its_result_whole(tmp_path):
    answer = run(
        "--device", "cpu", "--quick", "--only", "dense-1024", "dense-2048", "nt-xent", "--output", str(tmp_path)
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["errors"]
    shape = result["shapes"]["dense-1024-128"]
    fused = shape["providers"]["fused"]
    assert fused["rounds"] >= 3
    assert 0 < fused["executed_over_peak"] < 1
    assert fused["executed_flops"] < shape["dense_flops"]
    assert shape["providers"]["anchors-only"]["ratio_to_fused"] > 0
    assert set(shape["extra_peak_bytes"]) == set(shape["providers"])
    assert result["shapes"]["nt-xent-16"]["providers"]["anchors-only"]["median_ms"] > 0
    assert (tmp_path / "dense.png").stat().st_size > 10_000
    assert (tmp_path / "report.md").read_text().startswith("`python -m benchmarks`, ")
    assert not list(tmp_path.glob(".*"))


def test_the_plan_of_a_gpu_in_little_claims_no_speed(tmp_path):
    answer = run("--device", "interpreter", "--output", str(tmp_path))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["device"] == "interpreter"
    assert not result["errors"], result["errors"]
    assert not result["left_out"]
    assert list(result["shapes"]) == ["toy-bfloat16", "dense-32-16", "nt-xent-16", "dense-64-16"]
    providers = result["shapes"]["dense-32-16"]["providers"]
    assert providers["triton"]["median_ms"] > 0
    assert providers["triton"]["gradient_error"] < 1e-5
    assert "executed_gflops" not in providers["triton"]
    assert providers["compiled"]["gradient_error"] < 1e-5
    assert providers["compiled"]["median_ms"] > 0
    assert "no backward on a CPU" in providers["flex"]["skipped"]
    assert result["accuracy"][0]["gradient_ratio"] < 2
    assert {verdict["met"] for verdict in result["targets"] if "error" not in verdict["target"]} == {None}
    assert result["checks"]["warm-up"]["exit"] == 0
    assert "skipped" in result["checks"]["tests"]["last_line"] or "passed" in result["checks"]["tests"]["last_line"]
