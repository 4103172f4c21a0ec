"""Where and with what the numbers were measured."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PROCESSORS = Path("/proc/cpuinfo")
MEMORY = Path("/proc/meminfo")


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


def total_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of the packages; what runs from its source folder may not be installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe() -> dict[str, object]:
    """Return the day, the host and the versions of packages."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": total_bytes(),
        "versions": versions("semicl", "torch", "triton", "numpy"),
    }
