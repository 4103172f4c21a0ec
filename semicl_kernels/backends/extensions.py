"""Import of the compiled extensions; where one cannot be taken, the reason and the command that mends it.

They get raw addresses, so an extension must be built from the sources that belong to this Python code. It carries a
digest of its sources, which is compared. setup.py takes :func:`sources_digest` from here, so this needs no torch.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).resolve().parents[2]  # the source folder, or where pip installs packages
SOURCES = {"_C": ("*", "cpu/*"), "_cuda": ("cuda/*",)}  # in csrc
SUFFIXES = (".cpp", ".cu", ".h", ".inl")
NOTE = "sources.txt"  # in an installed package: the digests of the sources that it was made from
REBUILD = "pip install -v --force-reinstall --no-deps ."


class Extension(NamedTuple):
    module: Any
    missing: str  # why there is no module and what to do, else empty


def find(name: str, needed: str, setting: str = "") -> Extension:
    """Import ``semicl_kernels.<name>``; its build needs ``needed`` and the environment ``setting``, or no such."""
    try:
        module = import_module(f"semicl_kernels.{name}")
    except ImportError as error:
        return Extension(None, f"the compiled extension is not there ({error}): {way_out(needed, setting)}")
    if getattr(module, "sources", None) != expected_sources(name):
        wrong = f"the compiled extension {module.__file__} was built from other sources than this Python code needs"
        return Extension(None, f"{wrong}: {to_build(setting)}")
    return Extension(module, "")


def sources_digest(name: str, root: Path = SOURCE) -> str:
    """The digest of the C++ sources of extension ``name`` in the source folder ``root``."""
    paths = [path for pattern in SOURCES[name] for path in (root / "csrc").glob(pattern) if path.suffix in SUFFIXES]
    files = [(path.relative_to(root).as_posix(), path.read_bytes()) for path in sorted(paths)]
    return hashlib.sha256(repr(files).encode()).hexdigest()


def expected_sources(name: str) -> str:
    """The digest that the extension must carry: of the sources beside the package, else what setup.py noted there."""
    if in_source_folder():
        return sources_digest(name, SOURCE)
    noted = SOURCE / "semicl_kernels" / NOTE
    return dict(line.split() for line in noted.read_text().splitlines()).get(name, "") if noted.exists() else ""


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
    """Whether the package lies beside its sources; an installed one may lie beside any other folder of that name."""
    return (SOURCE / "setup.py").is_file() and (SOURCE / "csrc" / "bindings.cpp").is_file()
