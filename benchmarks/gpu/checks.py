"""Before anything is timed: the tests' GPU cases, the sanitizer, and a rehearsal, all beside each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from .plan import Plan

ROOT = Path(__file__).parents[2]
TEST_PROCESSES = 6
# No test begins after this share of the time, so that pytest ends by itself and says how far it came.
SHARE_OF_TESTS = 0.6
SHOWN_FAILURES = 20
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck")


@dataclass(frozen=True)
class Check:
    """Commands, one after another, and what their environment has beside ours."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def tests(plan: Plan, toy: bool, seconds: float) -> Check:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    command += plan.tests
    if find_spec("xdist") is not None and not toy:
        command += ["-n", str(TEST_PROCESSES)]  # most of their time goes to compiling
    return Check("tests", (tuple(command),), {"SEMICL_TEST_SECONDS": f"{SHARE_OF_TESTS * seconds:.0f}"})


def rehearsal(name: str, part: int, parts: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.gpu.rehearsal", name, str(part), str(parts))


def sanitizer() -> Check | None:
    """Every tool over tiny shapes, which are compiled before; None where compute-sanitizer is not on PATH."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return None
    options = ("--error-exitcode", "9", "--target-processes", "all")
    plain = rehearsal("small", 0, 1)
    watched = ((program, "--tool", tool, *options, *plain) for tool in SANITIZER_TOOLS)
    # Every tensor its own allocation: inside torch's cached ones no access is out of bounds.
    return Check("sanitizer", (plain, *watched), {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def all_checks(plan: Plan, toy: bool, seconds: float) -> tuple[list[Check], dict[str, dict[str, object]]]:
    """Return what is to be run, and what is not with the reason."""
    memcheck = None if toy else sanitizer()
    checks = [tests(plan, toy, seconds)]
    checks += [] if memcheck is None else [memcheck]
    checks += [
        Check(f"rehearsal-{part}", (rehearsal(plan.rehearsed, part, plan.rehearsals),))
        for part in range(plan.rehearsals)
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


def run(check: Check, seconds: float, log: Path) -> dict[str, object]:
    """Run the commands of a check, their output in a file. Each may take its share of the time that is left, and what
    is not done by then is stopped; the exit is the first that is not 0."""
    begin = time.monotonic()
    exits: list[int | str] = []
    with log.open("wb") as file:
        for number, command in enumerate(check.commands):
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **check.environment},
                start_new_session=True,
            )
            left = seconds - (time.monotonic() - begin)
            try:
                exits.append(process.wait(left / (len(check.commands) - number)))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                exits.append("stopped: the time was over")
    lines = log.read_text(errors="replace").splitlines()
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "exit": next((code for code in exits if code != 0), 0),
        **summary([line for line in lines if line.strip()]),
    }


def run_together(checks: Sequence[Check], seconds: float, logs: Path) -> dict[str, dict[str, object]]:
    """Run the checks side by side, their output in files of the folder; stop what is not done in time."""
    logs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(checks)) as pool:
        results = pool.map(lambda check: run(check, seconds, logs / f"{check.name}.log"), checks)
        return {check.name: result for check, result in zip(checks, results, strict=True)}
