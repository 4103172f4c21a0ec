"""Writing files so that a reader sees the old one or the new one, never half of it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"
"""What the name of an unfinished file begins with."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; on success it becomes `path` in one step, on failure it is removed.

    The temporary file lies in the same folder (os.replace is atomic only within one file system) and keeps the whole
    name at its end, because nibabel, numpy and matplotlib choose the format by the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(*folders: Path) -> None:
    """Remove files that a killed process left half-written in folders, which need not exist."""
    for partial in (partial for folder in folders for partial in folder.glob(f"{PARTIAL}*") if partial.is_file()):
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file; paths become text."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds: UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or gives a name twice in one mapping.
    """
    return json.loads(path.read_bytes(), object_pairs_hook=_without_repetition)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} is given twice")
    return content
