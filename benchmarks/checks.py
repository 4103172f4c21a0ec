"""What runs beside each other before the bulk is timed: the tests' GPU cases, sanitizers, and compilers' warm-ups."""

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

ROOT = Path(__file__).parents[1]
TEST_PROCESSES = 6
# No test begins after this share of the time, so that pytest ends by itself and says how far it came.
SHARE_OF_TESTS = 0.6
SANITIZER = "compute-sanitizer"
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck")


@dataclass(frozen=True)
class Check:
    """A command, and what its environment has beside ours."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def tests(plan: Plan, device: str, seconds: float) -> Check:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    command += plan.tests
    if find_spec("xdist") is not None and device == "cuda":
        command += ["-n", str(TEST_PROCESSES)]  # most of their time goes to compiling
    return Check("tests", tuple(command), {"SEMICL_TEST_SECONDS": f"{SHARE_OF_TESTS * seconds:.0f}"})


def warm_up(device: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.warm_up", "--device", device, *options)


def sanitizer(program: str, tool: str) -> Check:
    """A tool over tiny shapes. Every tensor is its own allocation: inside torch's cached ones no access is out of
    bounds."""
    command = (program, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all")
    return Check(tool, (*command, *warm_up("cuda", "--small")), {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def all_checks(plan: Plan, device: str, seconds: float) -> list[Check]:
    """Return the checks of a device; sanitizers where they are on PATH."""
    program = shutil.which(SANITIZER) if device == "cuda" else None
    return [
        tests(plan, device, seconds),
        *(sanitizer(program, tool) for tool in SANITIZER_TOOLS if program is not None),
        Check("warm-up", warm_up(device)),
    ]


def run(check: Check, seconds: float, log: Path) -> dict[str, object]:
    """Run a check, its output in a file, and stop it when its time is over."""
    begin = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            check.command,
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **check.environment},
            start_new_session=True,
        )
        try:
            code: int | str = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = "stopped: the time was over"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return {"seconds": round(time.monotonic() - begin, 1), "exit": code, "last_line": lines[-1] if lines else ""}


def run_together(checks: Sequence[Check], seconds: float, logs: Path) -> dict[str, dict[str, object]]:
    """Run the checks side by side, their output in files of the folder; stop what is not done in time."""
    logs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(checks)) as pool:
        results = pool.map(lambda check: run(check, seconds, logs / f"{check.name}.log"), checks)
        return {check.name: result for check, result in zip(checks, results, strict=True)}
