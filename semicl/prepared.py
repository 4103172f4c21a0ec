"""The folder that `semicl prepare` writes and every training command reads: cases, splits, and a cache of arrays.

prepared.json            dataset, classes, grid, cases; written last, so a folder that has it is whole
splits/0.json ...        who is trained on and who is held out
cache/NAME.image.npy     (depth, height, width) float32; memory-mapped by whoever reads it
cache/NAME.label.npy     (depth, height, width) uint8, a file of its own, so that images can be read without labels
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semicl.cases import Case
from semicl.errors import SemiclError
from semicl.files import replacing, write_json
from semicl.grid import Grid
from semicl.splits import Split, is_as_made, read_split, split_json

DESCRIPTION = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared folder.

    Args:
        folder: where it is.
        name: of the dataset.
        classes: names, and the values of the label files, the background (0) first.
        grid: what the network sees.
        cases: all of them.
        options: what `semicl prepare` was told.
    """

    folder: Path
    name: str
    classes: dict[str, int]
    grid: Grid
    cases: tuple[Case, ...]
    options: dict[str, str]

    def split(self, number: int) -> Split:
        """Split `number`."""
        return read_split(self._split_file(number), self.cases)

    def edited_splits(self, number: int) -> list[Path]:
        """The files, of the first `number` splits, that a person edited."""
        files = map(self._split_file, range(number))
        return [file for file in files if file.is_file() and not is_as_made(file, self.cases)]

    def image(self, case: Case) -> np.ndarray:
        """A case's image, (depth, height, width) float32, memory-mapped."""
        return _mapped(self._cache_file(case, "image"))

    def label(self, case: Case) -> np.ndarray:
        """A case's class numbers, (depth, height, width) uint8, memory-mapped."""
        return _mapped(self._cache_file(case, "label"))

    def files(self) -> list[Path]:
        """All files of the folder and of its cases that a command may read."""
        files = [self.folder / DESCRIPTION]
        files += [self._cache_file(case, kind) for case in self.cases for kind in ("image", "label")]
        return files + [file for case in self.cases for file in (case.image, case.label) if file is not None]

    def write(self, splits: Sequence[Split], origins: Sequence[dict[str, object]]) -> None:
        """Write splits and description; the arrays are there already."""
        for number, (split, origin) in enumerate(zip(splits, origins, strict=True)):
            write_json(self._split_file(number), split_json(split, **origin))
        description = {
            "name": self.name,
            "classes": self.classes,
            "patch_size": self.grid.patch_size,
            "spacing": self.grid.spacing,
            "cases": [vars(case) for case in self.cases],
            "options": self.options,
        }
        write_json(self.folder / DESCRIPTION, description)

    def write_arrays(self, case: Case) -> None:
        """Read a case's files and write its arrays."""
        from semicl.volumes import read_image, read_label

        arrays = {"image": read_image(case.image, self.grid).image}
        if case.label is not None:
            arrays["label"] = read_label(case.label, self.grid, list(self.classes.values()))
        for kind, array in arrays.items():
            with replacing(self._cache_file(case, kind)) as partial:
                np.save(partial, array.numpy())

    def _cache_file(self, case: Case, kind: str) -> Path:
        return self.folder / "cache" / f"{case.name}.{kind}.npy"

    def _split_file(self, number: int) -> Path:
        return self.folder / "splits" / f"{number}.json"


def read_prepared(folder: Path) -> Prepared:
    """The prepared folder.

    Raises:
        SemiclError: it is missing, unfinished or damaged.
    """
    description = folder / DESCRIPTION
    if not description.is_file():
        raise SemiclError(f"{description}: no such file; run `semicl prepare --prepared {folder} --data ...` first")
    try:
        content = json.loads(description.read_text())
        cases = tuple(
            Case(c["name"], c["subject"], Path(c["image"]), None if c["label"] is None else Path(c["label"]))
            for c in content["cases"]
        )
        spacing = None if content["spacing"] is None else tuple(content["spacing"])
        grid = Grid(tuple(content["patch_size"]), spacing)
        return Prepared(folder, content["name"], content["classes"], grid, cases, content["options"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise SemiclError(
            f"{description}: damaged ({type(error).__name__}: {error}); run `semicl prepare` again"
        ) from error


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise SemiclError(f"{path}: not readable ({error}); run `semicl prepare` again") from error
