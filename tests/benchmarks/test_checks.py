"""Checks run beside each other, are stopped when the time is over, and are reported by their last line."""

import sys

from benchmarks import checks as all_of
from benchmarks.checks import Check, all_checks, run_together
from benchmarks.plan import PLANS


def python(name: str, code: str) -> Check:
    return Check(name, (sys.executable, "-c", code), {"SAID": name})


def test_what_ends_is_recorded_and_what_hangs_is_stopped(tmp_path):
    checks = [
        python("good", "import os; print('one'); print(os.environ['SAID'], 'passed')"),
        python("bad", "print('1 failed'); raise SystemExit(1)"),
        python("hanging", "import time; print('began', flush=True); time.sleep(600)"),
    ]
    results = run_together(checks, 5, tmp_path)
    assert results["good"] == {**results["good"], "exit": 0, "last_line": "good passed"}
    assert results["bad"]["exit"] == 1
    assert results["hanging"]["exit"] == "stopped: the time was over"
    assert results["hanging"]["last_line"] == "began"
    assert results["hanging"]["seconds"] < 8
    assert (tmp_path / "good.log").read_text().startswith("one")


def test_every_tool_of_the_sanitizer_sees_the_same(monkeypatch):
    monkeypatch.setattr(all_of.shutil, "which", lambda name: f"/bin/{name}")
    checks = {check.name: check.command for check in all_checks(PLANS["cuda"](False), "cuda", 100)}
    watched = [checks[tool] for tool in ("memcheck", "racecheck", "synccheck")]
    assert all(command[0] == "/bin/compute-sanitizer" for command in watched)
    assert len({command[3:] for command in watched}) == 1
    assert "warm-up" in checks
    assert list(all_checks(PLANS["cuda"](False), "interpreter", 100)) != watched
