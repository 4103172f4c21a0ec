"""Files known by their content: a hash of the bytes, taken again only where the file may have changed since."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from semicl.data.cases import Case
from semicl.files import short_hash

BLOCK = 2**20


@dataclass(frozen=True)
class FileState:
    """A file's content, and how it looked when that was hashed.

    Args:
        size: in bytes.
        modified: when its content was last written, in nanoseconds.
        changed: when it was last written, replaced, renamed or moved here, in nanoseconds; no program can set it back.
        sha256: of its bytes.
    """

    size: int
    modified: int
    changed: int
    sha256: str


def file_states(
    files: Iterable[Path], folder: Path, before: Mapping[str, FileState] | None = None
) -> dict[str, FileState]:
    """The states of the files that are there, by their place in a folder.

    Args:
        files: in the folder, or beside it.
        folder: that their places are told from.
        before: states found earlier: who looks the same as then is not read again.
    """
    known = before or {}
    places = {place_in(folder, file): file for file in files if file.is_file()}
    return {place: _state(file, known.get(place)) for place, file in sorted(places.items())}


def place_in(folder: Path, file: Path) -> str:
    """A file's place, told from a folder, so that both can be moved together."""
    return Path(os.path.relpath(file, folder)).as_posix()


def changed_files(before: Mapping[str, FileState], now: Mapping[str, FileState]) -> list[str]:
    """Places of files whose content is another, or that are in one of both alone."""
    return [
        place
        for place in sorted({*before, *now})
        if place not in before or place not in now or before[place].sha256 != now[place].sha256
    ]


def cases_hash(cases: Iterable[Case], folder: Path, files: Mapping[str, FileState]) -> str:
    """A hash of the names and the content of cases, whose files are among these, by their place in the folder."""
    return short_hash(
        [
            (
                case.name,
                *(files[place_in(folder, file)].sha256 for file in case.files),
            )
            for case in cases
        ]
    )


def _state(file: Path, before: FileState | None) -> FileState:
    status = file.stat()
    looks = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if before is not None and (before.size, before.modified, before.changed) == looks:
        return before
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return FileState(*looks, digest.hexdigest())
