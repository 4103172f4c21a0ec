"""The compiled extensions: each found, or the reason why not and what mends it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).parents[2]  # where the package lies: the source folder, or where pip installs packages
REBUILD = "pip install -v --force-reinstall --no-deps ."


class Extension(NamedTuple):
    module: Any
    missing: str  # why there is no module and what to do, else empty


def find(name: str, needed: str, setting: str = "") -> Extension:
    """Import ``semicl_kernels.<name>``; its build needs ``needed`` and the environment ``setting``, or no such."""
    try:
        return Extension(import_module(f"semicl_kernels.{name}"), "")
    except ImportError as error:
        return Extension(None, f"the compiled extension is not there ({error}): {way_out(needed, setting)}")


def way_out(needed: str, setting: str) -> str:
    if in_source_folder():
        return (
            f"Python took semicl_kernels from its source folder, {SOURCE}, which `pip install .` leaves as it is: run "
            f"elsewhere, or install {needed} and {to_build(setting)}"
        )
    return f"install {needed} and {to_build(setting)}"


def to_build(setting: str) -> str:
    """What builds the extensions of the package that Python took."""
    return f"run `{setting}{'pip install -e .' if in_source_folder() else REBUILD}` in the source folder of semicl"


def in_source_folder() -> bool:
    return (SOURCE / "csrc").is_dir()
