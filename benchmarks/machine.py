"""Where and with what the numbers were measured."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

PROCESSORS = Path("/proc/cpuinfo")


def processor() -> str:
    if PROCESSORS.exists():
        for line in PROCESSORS.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def version_of(package: str) -> str:
    """Return a package's version; what runs from its source folder may not be installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def describe() -> dict[str, object]:
    """Return the day, the host and the versions of packages."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": {"python": platform.python_version()}
        | {package: version_of(package) for package in ("semicl", "torch", "triton", "numpy")},
    }
