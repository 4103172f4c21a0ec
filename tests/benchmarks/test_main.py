import json
import subprocess
import sys

import pytest

from benchmarks.plan import full, only, quick


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, timeout=600, check=False
    )


def test_only_names_the_shapes_there_are():
    answer = run("--quick", "--only", "nothing")
    assert answer.returncode == 2
    assert "begins no shape's name; there are hippocampus16" in " ".join(answer.stdout.split())


def test_a_run_writes_its_result_whole(tmp_path):
    answer = run("--quick", "--only", "dense-1024", "dense-2048", "--output", str(tmp_path))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result) == {"machine", "shapes", "accuracy", "boundary_us", "targets"}
    fused = result["shapes"]["dense-1024-128"]["providers"]["fused"]
    assert fused["rounds"] >= 3
    assert 0 < fused["executed_over_peak"] < 1
    assert fused["executed_flops"] < result["shapes"]["dense-1024-128"]["dense_flops"]
    assert (tmp_path / "dense.png").stat().st_size > 10_000
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("plan", [full(), quick()])
def test_plans_keep_what_only_asks_for(plan):
    kept = only(plan, ["dense-1024"])
    assert kept.tasks
    assert all(task.shape.name.startswith("dense-1024") for task in kept.tasks)
