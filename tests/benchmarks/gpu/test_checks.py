"""Checks run beside each other, are stopped when the time is over, and are told by their last line."""

import sys

from benchmarks.gpu import checks as gpu_checks
from benchmarks.gpu.checks import Check, run_together


def python(name: str, *codes: str) -> Check:
    return Check(name, tuple((sys.executable, "-c", code) for code in codes), {"SAID": name})


def test_what_ends_is_told_and_what_hangs_is_stopped(tmp_path):
    checks = [
        python("good", "import os; print('one'); print(os.environ['SAID'], 'passed')"),
        python("bad", "print('FAILED tests/test_x.py::test_y'); print('1 failed'); raise SystemExit(1)"),
        python("hanging", "import time; print('began', flush=True); time.sleep(600)"),
    ]
    results = run_together(checks, 5, tmp_path)
    assert results["good"] == {**results["good"], "exit": 0, "last_line": "good passed", "failures": []}
    assert results["bad"]["exit"] == 1
    assert results["bad"]["failures"] == ["FAILED tests/test_x.py::test_y"]
    assert results["hanging"]["exit"] == "stopped: the time was over"
    assert results["hanging"]["last_line"] == "began"
    assert (tmp_path / "good.log").read_text().startswith("one")


def test_a_command_that_hangs_leaves_the_next_ones_their_turn(tmp_path):
    hangs = "import time; print('ERROR began', flush=True); time.sleep(600)"
    check = python("tools", hangs, "print('ERROR second')", "raise SystemExit(9)", "print('last')")
    result = run_together([check], 8, tmp_path)["tools"]
    assert result["exit"] == "stopped: the time was over"
    assert result["failures"] == ["ERROR began", "ERROR second"]
    assert result["last_line"] == "last"
    assert result["seconds"] < 8
    assert run_together([python("tools", "pass", "raise SystemExit(9)", "pass")], 8, tmp_path)["tools"]["exit"] == 9


def test_every_tool_of_the_sanitizer_has_its_turn_after_the_compilers(monkeypatch):
    monkeypatch.setattr(gpu_checks.shutil, "which", lambda name: f"/bin/{name}")
    plain, *watched = gpu_checks.sanitizer().commands
    assert "/bin/compute-sanitizer" not in plain
    assert [command[2] for command in watched] == ["memcheck", "racecheck", "synccheck"]
    assert all(command[-len(plain) :] == plain for command in watched)
