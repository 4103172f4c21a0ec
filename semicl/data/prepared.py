"""The folder that `semicl prepare` writes and every training command reads: cases, splits, and a cache of arrays.

prepared.json            dataset, classes, grid, cases; written last, so a folder that has it is whole
splits/0.json ...        who is trained on and who is held out
cache/NAME.image.npy     (channels, depth, height, width) float32; memory-mapped by whoever reads it
cache/NAME.label.npy     (depth, height, width) uint8, a file of its own, so that images can be read without labels
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from semicl.data.cases import Case
from semicl.data.file_states import FileState, place_in
from semicl.data.grid import Grid
from semicl.data.splits import Split, is_as_made, is_made_for, read_split, split_json
from semicl.errors import SemiclError
from semicl.files import read_json, replacing, write_json

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
        source: the folder that the cases were found in.
        states: its files by their place in it, as they were when they were read.
        channels: of every image.
        merged: other values of the label files, and those of the classes that they count as, if they are not ignored.
        is_cut: whether an image is cut into patches.
    """

    folder: Path
    name: str
    classes: dict[str, int]
    grid: Grid
    cases: tuple[Case, ...]
    options: dict[str, str]
    source: Path = Path()
    states: dict[str, FileState] = field(default_factory=dict)
    channels: int = 1
    merged: dict[int, int | None] = field(default_factory=dict)
    is_cut: bool = False

    def content(self, file: Path) -> str:
        """The hash of a file's bytes, as they were when it was read.

        Raises:
            SemiclError: the folder was prepared by a version that did not note it.
        """
        try:
            return self.states[place_in(self.source, file)].sha256
        except KeyError:
            raise SemiclError(
                f"{self.folder / DESCRIPTION}: does not tell the content of {file}; run `semicl prepare` again"
            ) from None

    def split(self, number: int) -> Split:
        """Split `number`: one that was made for this folder, or a person's own.

        Raises:
            SemiclError: it cannot be used, or an earlier preparation of the folder left it behind.
        """
        file = self._split_file(number)
        if number >= self._repeats and is_made_for(file, number):
            raise SemiclError(
                f"{file}: was left behind by an earlier preparation; give a --split below {self._repeats}, or run "
                "`semicl prepare` with more --repeats"
            )
        return read_split(file, self.cases)

    def edited_splits(self, repeats: int) -> list[Path]:
        """The files that a person edited, or made, and that a preparation with so many repeats would replace."""
        return [
            file
            for number, file in self._split_files()
            if (number < self._repeats and not is_as_made(file, self.cases))
            or (self._repeats <= number < repeats and not is_made_for(file, number))
        ]

    def image(self, case: Case) -> np.memmap:
        """A case's image, (channels, depth, height, width) float32, memory-mapped."""
        mapped = _mapped(self._cache_file(case, "image"))
        return mapped if mapped.ndim == 4 else cast(np.memmap, mapped[None])  # older versions knew one channel

    def label(self, case: Case) -> np.memmap:
        """A case's class numbers, (depth, height, width) uint8, memory-mapped."""
        return _mapped(self._cache_file(case, "label"))

    def files(self) -> list[Path]:
        """All files of the folder and of its cases that a command may read."""
        files = [self.folder / DESCRIPTION]
        files += [self._cache_file(case, kind) for case in self.cases for kind in ("image", "label")]
        return files + [file for case in self.cases for file in case.files]

    def write(self, splits: Sequence[Split], origins: Sequence[dict[str, object]]) -> None:
        """Write splits and description; the arrays are there already."""
        for number, (split, origin) in enumerate(zip(splits, origins, strict=True)):
            self.write_split(number, split, origin)
        for number, file in self._split_files():
            if number >= len(splits) and is_made_for(file, number):
                file.unlink()
        self.write_description()

    def write_split(self, number: int, split: Split, origin: dict[str, object]) -> None:
        """Write split `number`, and what it was made of."""
        write_json(self._split_file(number), split_json(split, **origin))

    def has_split(self, number: int) -> bool:
        """Whether split `number` is there: one that was made for this folder, or a person's own."""
        file = self._split_file(number)
        return file.is_file() and not (number >= self._repeats and is_made_for(file, number))

    def write_description(self) -> None:
        """Write all but splits and arrays."""
        description = {
            "name": self.name,
            "classes": self.classes,
            "channels": self.channels,
            "merged": self.merged,
            "is_cut": self.is_cut,
            **asdict(self.grid),
            "cases": [vars(case) for case in self.cases],
            "options": self.options,
            "source": self.source,
            "files": {place: asdict(state) for place, state in self.states.items()},
        }
        write_json(self.folder / DESCRIPTION, description)

    def write_arrays(self, case: Case) -> None:
        """Read a case's files and write its arrays."""
        from semicl.data.volumes import read_image, read_label

        arrays = {"image": read_image(case.image, self.grid, case.more).image}
        if case.label is not None:
            arrays["label"] = read_label(case.label, self.grid, list(self.classes.values()), case.image, self.merged)
        for kind, array in arrays.items():
            with replacing(self._cache_file(case, kind)) as partial:
                np.save(partial, array.numpy())

    def _cache_file(self, case: Case, kind: str) -> Path:
        return self.folder / "cache" / f"{case.name}.{kind}.npy"

    def _split_file(self, number: int) -> Path:
        return self.split_file(self.folder, number)

    @staticmethod
    def split_file(folder: Path, number: int) -> Path:
        """The file of split `number` in a prepared folder."""
        return folder / "splits" / f"{number}.json"

    def _split_files(self) -> list[tuple[int, Path]]:
        """Number and file of every split that is there."""
        files = (self.folder / "splits").glob("*.json")
        return sorted((int(file.stem), file) for file in files if file.stem.isdecimal())

    @property
    def _repeats(self) -> int:
        """How many splits belong to this preparation."""
        return int(self.options["repeats"])


def read_prepared(folder: Path) -> Prepared:
    """The prepared folder.

    Raises:
        SemiclError: it is missing, unfinished or damaged.
    """
    description = folder / DESCRIPTION
    if not description.is_file():
        raise SemiclError(f"{description}: no such file; run `semicl prepare --prepared {folder} --data ...` first")
    try:
        content = read_json(description)
        cases = tuple(
            Case(
                c["name"],
                c["subject"],
                Path(c["image"]),
                None if c["label"] is None else Path(c["label"]),
                tuple(map(Path, c.get("more", ()))),
            )
            for c in content["cases"]
        )
        grid = Grid.from_dict(content)
        source = Path(content.get("source", ""))  # older versions noted neither
        states = {place: FileState(**state) for place, state in content.get("files", {}).items()}
        told, channels = content["options"], content.get("channels", 1)
        merged = {int(value): counts_as for value, counts_as in content.get("merged", {}).items()}
        name, classes = content["name"], content["classes"]
        is_cut = content.get("is_cut", grid.sliding_window or len(grid.patch_size) == 3)
        return Prepared(folder, name, classes, grid, cases, told, source, states, channels, merged, is_cut)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise SemiclError(
            f"{description}: damaged ({type(error).__name__}: {error}); run `semicl prepare` again"
        ) from error


def _mapped(path: Path) -> np.memmap:
    try:
        mapped: np.memmap = np.load(path, mmap_mode="r")
        return mapped
    except (OSError, ValueError, EOFError) as error:
        raise SemiclError(f"{path}: not readable ({error}); run `semicl prepare` again") from error
