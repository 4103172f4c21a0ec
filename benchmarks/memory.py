"""Peak memory of one forward and backward pass: the growth of the resident set of a process that does nothing else.

The process is forked from a server that has imported torch and computed nothing, makes the problem, lets its threads
start on a small one, has the system forget its earlier peak and then runs once. The gradient is part of the growth.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from .problems import Shape, build, dense
from .providers import PROVIDERS

STATUS = Path("/proc/self/status")
FORGET_PEAK = Path("/proc/self/clear_refs")
SMALL = dense(1024, 16)
PRELOADED = ["torch.distributed.tensor"]  # torch and what is slow to import; not semicl_kernels, which notes forks


def resident_bytes(entry: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(entry + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{STATUS} has no {entry}")


def peak_growth(call: Callable[[], object]) -> int:
    """Return the bytes by which the peak of this process's resident set rises over its present size in the call."""
    if not STATUS.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    FORGET_PEAK.write_text("5")
    before = resident_bytes("VmRSS")
    call()
    return resident_bytes("VmHWM") - before


def growth(shape: Shape, dtype: torch.dtype, name: str, threads: int) -> int:
    torch.set_num_threads(threads)
    PROVIDERS[name].call(build(SMALL, dtype))()
    return peak_growth(PROVIDERS[name].call(build(shape, dtype)))


def peak_bytes(shape: Shape, dtype: torch.dtype, name: str) -> int | None:
    """Return the extra peak memory of one call in a fresh process; None where the process was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(growth, shape, dtype, name, torch.get_num_threads()).result()
        except BrokenProcessPool:
            return None
