"""Checks run beside each other, are stopped when the time is over, and are told by their last line."""

import sys

from benchmarks.gpu.checks import Check, run_together


def python(name: str, code: str) -> Check:
    return Check(name, (sys.executable, "-c", code), {"SAID": name})


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
