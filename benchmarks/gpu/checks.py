"""Before anything is timed: the tests' GPU cases, the sanitizer, and a rehearsal, all beside each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from .plan import Plan

ROOT = Path(__file__).parents[2]
TEST_PROCESSES = 6
# No test begins after this share of the time, so that pytest ends by itself and says how far it came.
SHARE_OF_TESTS = 0.6
SHOWN_FAILURES = 20
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Check:
    """A command, and what its environment has beside ours."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def tests(plan: Plan, toy: bool, seconds: float) -> Check:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    command += plan.tests
    if find_spec("xdist") is not None and not toy:
        command += ["-n", str(TEST_PROCESSES)]  # most of their time goes to compiling
    return Check("tests", tuple(command), {"SEMICL_TEST_SECONDS": f"{SHARE_OF_TESTS * seconds:.0f}"})


def rehearsal(name: str, part: int, parts: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.gpu.rehearsal", name, str(part), str(parts))


def sanitizer() -> Check | None:
    """memcheck over small shapes, or None where the tool is not on PATH."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return None
    command = (tool, "--tool", "memcheck", "--error-exitcode", "9", "--target-processes", "all")
    # Every tensor its own allocation: inside torch's cached ones no access is out of bounds.
    return Check("sanitizer", command + rehearsal("small", 0, 1), {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def all_checks(plan: Plan, toy: bool, seconds: float) -> tuple[list[Check], dict[str, dict[str, object]]]:
    """Return what is to be run, and what is not with the reason."""
    memcheck = None if toy else sanitizer()
    checks = [tests(plan, toy, seconds)]
    checks += [] if memcheck is None else [memcheck]
    checks += [
        Check(f"rehearsal-{part}", rehearsal(plan.rehearsed, part, plan.rehearsals)) for part in range(plan.rehearsals)
    ]
    missing: dict[str, dict[str, object]] = {}
    if memcheck is None:
        missing["sanitizer"] = {"skipped": "a toy run" if toy else "compute-sanitizer is not on PATH"}
    return checks, missing


def summary(lines: list[str]) -> dict[str, object]:
    """The last line, and the lines that name failures."""
    telling = ("FAILED", "ERROR", "========= ERROR SUMMARY", "========= Invalid")
    failures = [line for line in lines if line.startswith(telling) or ": failed: " in line]
    return {"last_line": lines[-1] if lines else "", "failures": failures[:SHOWN_FAILURES]}


def run_together(checks: Iterable[Check], seconds: float, logs: Path) -> dict[str, dict[str, object]]:
    """Run the checks side by side, their output in files of the folder; stop what is not done in time."""
    logs.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    running: dict[str, subprocess.Popen[bytes]] = {}
    for check in checks:
        with (logs / f"{check.name}.log").open("wb") as log:
            running[check.name] = subprocess.Popen(
                check.command,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **check.environment},
                start_new_session=True,
            )
    ended: dict[str, float] = {}
    while len(ended) < len(running) and time.monotonic() - begin < seconds:
        time.sleep(POLL_SECONDS)
        for name in running.keys() - ended.keys():
            if running[name].poll() is not None:
                ended[name] = time.monotonic() - begin
    results: dict[str, dict[str, object]] = {}
    for name, process in running.items():
        if name not in ended:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lines = (logs / f"{name}.log").read_text(errors="replace").splitlines()
        results[name] = {
            "seconds": round(ended.get(name, seconds), 1),
            "exit": process.returncode if name in ended else "stopped: the time was over",
            **summary([line for line in lines if line.strip()]),
        }
    return results
