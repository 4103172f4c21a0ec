"""Where a result comes from: the code's commit, the machine, the day."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).parent
PROCESSORS = Path("/proc/cpuinfo")


def provenance(device: torch.device) -> dict[str, Any]:
    """Commit, day, machine and threads, as lines of a summary."""
    return {
        "commit": COMMIT,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
    }


def commit(folder: Path) -> str:
    """The git commit of a folder of code, with "-dirty" where tracked files differ from it; else the version.

    An installed copy may lie in the checkout of some other project, whose commit would be a wrong answer: only a file
    that git knows counts.
    """
    known = _git(folder, "ls-files", "__init__.py")
    described = _git(folder, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") if known else ""
    return described or f"semicl {version('semicl')}"


def processor() -> str:
    """The processor's name and how many cores this machine has of it."""
    name = platform.processor() or platform.machine()
    if PROCESSORS.is_file():
        lines = PROCESSORS.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def _git(folder: Path, *words: str) -> str:
    """What git answers, or nothing where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


COMMIT = commit(PACKAGE)
"""Asked when the code is loaded: its files may change while a stage trains."""
