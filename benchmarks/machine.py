"""Where and with what the numbers were measured."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from semicl_kernels.backends import cpu

PROCESSORS = Path("/proc/cpuinfo")
MEMORY = Path("/proc/meminfo")
PEAK_SECONDS, PEAK_TRIES = 0.1, 7


def processor() -> str:
    if PROCESSORS.exists():
        for line in PROCESSORS.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_bytes() -> int:
    """The memory that a new process may hope for, what the system keeps of files included: it would be given up."""
    if MEMORY.is_file():
        entries = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        return 1024 * int(entries["MemAvailable"].split()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_gflops(dtype: torch.dtype) -> float:
    """The best of several tries: a peak is what the processor can do when nothing else is in its way."""
    return 2e-9 * max(cpu.peak_multiply_adds(dtype, PEAK_SECONDS) for _ in range(PEAK_TRIES))


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of the packages; what runs from its source folder may not be installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def place() -> dict[str, object]:
    """Return the day and the host."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def describe() -> dict[str, object]:
    """Return machine, versions and the measured peak of fused multiply-adds on registers, in GFLOP/s."""
    name, narrow = cpu.instruction_set()
    peaks = {"float32": torch.float32} | ({"bfloat16": torch.bfloat16} if narrow else {})
    return {
        **place(),
        "threads": torch.get_num_threads(),
        "instruction_set": name,
        "bfloat16_products": narrow,
        "peak_gflops": {dtype: peak_gflops(kind) for dtype, kind in peaks.items()},
        "versions": versions("semicl", "torch", "numpy"),
    }
