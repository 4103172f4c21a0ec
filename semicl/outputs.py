"""What a command may write: never what it reads, and what exists only where --overwrite says so."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from semicl.errors import SemiclError

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
