"""Files: written in one step, known by a short hash, and never an input by another name."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semicl.errors import SemiclError

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


LENGTH = 8


def short_hash(*parts: Any) -> str:
    """Letters and digits that differ where the parts do; the order of a mapping's keys does not matter."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def laid_over(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with changes at any depth."""
    merged = dict(content)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = laid_over(merged[key], value) if both else value
    return merged


MODEL = "model.ckpt"
"""The name of a stage's weights."""

CHECKPOINT = "give the model.ckpt that a stage of semicl wrote, or run that stage again"


def require_checkpoint(path: Path) -> None:
    """Raise where a file is no checkpoint; whether a network can be made of it is found when it is loaded.

    Raises:
        SemiclError: there is no such file, or it is a folder or of another kind.
    """
    if path.is_dir():
        inside = path / MODEL
        raise SemiclError(f"{path}: is a folder; give {inside if inside.is_file() else f'the {MODEL} of a stage'}")
    if not path.is_file():
        raise SemiclError(
            f"{path}: no such checkpoint; run the stage that writes it, or call `semicl run` again where it was "
            "interrupted"
        )
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"  # as torch wrote them before its 1.6, and some others do
    if not pickled and not zipfile.is_zipfile(path):
        raise SemiclError(f"{path}: not readable as a checkpoint; {CHECKPOINT}")


TO_REPLACE = "give another --{option}, or --overwrite to replace what is there"


def output_file(path: Path, inputs: Iterable[Path], *, overwrite: bool, option: str = "output") -> Path:
    """The file that an option names, once it is sure that it can be written and harms nothing.

    Args:
        path: the file.
        inputs: files and folders that the command reads.
        overwrite: whether it may replace a file.
        option: which named it.

    Raises:
        SemiclError: it is a folder, exists and is not to be replaced, cannot be written, or is an input: by the same or
            another name, through a link of any kind, of the file or of a folder.
    """
    if path.is_dir():
        raise SemiclError(f"{path}: is a folder; give --{option} the name of a file")
    _require_apart(path, [path], inputs, option)
    require_new([path], overwrite=overwrite, option=option)
    _require_writable(path.parent, option)
    return path


def output_folder(
    path: Path,
    inputs: Iterable[Path],
    *,
    files: Sequence[str] = (),
    overwrite: bool = False,
    option: str = "output",
    way_out: str = TO_REPLACE,
) -> Path:
    """The folder that an option names, once it is sure that files of these names in it harm nothing.

    Args:
        path: the folder, which need not exist.
        inputs: files and folders that the command reads; the folder may hold some of them, but be none.
        files: what will be written in it.
        overwrite: whether these may replace others.
        option: which named it.
        way_out: from files that exist.

    Raises:
        SemiclError: it is a file or cannot be written, it or one of the files is an input as for :func:`output_file`,
            or one of the files exists and is not to be replaced.
    """
    written = [path / name for name in files]
    _require_apart(path, [path, *written], inputs, option)
    require_new(written, overwrite=overwrite, option=option, way_out=way_out)
    _require_writable(path, option)
    return path


def require_new(files: Iterable[Path], *, overwrite: bool, option: str = "output", way_out: str = TO_REPLACE) -> None:
    """Raise where a file, or a link of its name, exists and is not to be replaced.

    Raises:
        SemiclError: it does.
    """
    there = [file for file in files if os.path.lexists(file)]
    if there and not overwrite:
        others = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise SemiclError(f"{there[0]}{others}: is there already; {way_out.format(option=option)}")


def _require_apart(path: Path, written: Iterable[Path], inputs: Iterable[Path], option: str) -> None:
    """Raise where something that is written is an input, whatever the two are called."""
    read = {_identity(each): each for each in inputs if each.exists()}
    for output in written:
        same = read.get(_identity(output)) if output.exists() else None
        if same is None:
            continue
        if output == path and output.is_dir():
            raise SemiclError(f"{path}: is {same}, which is read and would be written to; give another --{option}")
        raise SemiclError(f"{output}: is {same}, which is read and would be replaced; give another --{option}")


def _identity(path: Path) -> tuple[int, int]:
    """Of a file or folder on this machine, the same through every link and name of it."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _require_writable(folder: Path, option: str) -> None:
    """Raise where no file can be written in a folder that may not exist yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise SemiclError(f"{there}: is no folder; give another --{option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SemiclError(f"{there}: cannot be written; give another --{option}, or its owner's permission")
