"""Slices or patches of the prepared volumes, one by one, for torch's DataLoader."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.data.utils import dense_patch_slices
from torch import Tensor
from torch.utils.data import Dataset

from semicl.data.cases import Case
from semicl.data.classes import IGNORED
from semicl.data.prepared import Prepared

Place = tuple[int, tuple[slice | int, ...]]
"""Number of a volume, and where in it: a patch's ranges, in two dimensions with the slice's number before them."""


class LabelledVolume(NamedTuple):
    """A whole prepared volume: image (channels, depth, height, width) float32, label (depth, height, width) uint8."""

    name: str
    image: Tensor
    label: Tensor


class CachedArray(NamedTuple):
    """An array of the cache, opened for each access alone: a mapping that stays open holds a file handle.

    The file is text, since numpy looks up every folder of a `Path` anew: 33 microseconds an access, not 180.
    """

    file: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, mapped: np.memmap) -> "CachedArray":
        """The array of a mapping that may then be closed."""
        return cls(str(mapped.filename), mapped.dtype, mapped.shape, mapped.offset)

    def read(self, where: tuple[slice | int, ...]) -> Tensor:
        """A part of it, in memory of its own."""
        return _copied(np.memmap(self.file, self.dtype, "r", self.offset, self.shape)[where])


class ImagePieces(Dataset[Tensor]):
    """Images (channels, *patch_size) float32 of cases; no label file is opened."""

    def __init__(self, prepared: Prepared, cases: Sequence[Case]) -> None:
        self._images = [CachedArray.of(prepared.image(case)) for case in cases]
        self._places = _places([image.shape[1:] for image in self._images], prepared.grid.patch_size)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Tensor:
        volume, where = self._places[number]
        return self._images[volume].read((slice(None), *where))


class LabelledPieces(Dataset[tuple[Tensor, Tensor]]):
    """Images (channels, *patch_size) float32 and class numbers (*patch_size) uint8 of cases."""

    def __init__(self, prepared: Prepared, cases: Sequence[Case]) -> None:
        self._images = [CachedArray.of(prepared.image(case)) for case in cases]
        self._labels = [CachedArray.of(prepared.label(case)) for case in cases]
        self._places = _places([image.shape[1:] for image in self._images], prepared.grid.patch_size)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        volume, where = self._places[number]
        return self._images[volume].read((slice(None), *where)), self._labels[volume].read(where)

    def keep(self, wanted: Callable[[Tensor], bool]) -> None:
        """Leave out every piece whose class numbers are not wanted."""
        self._places = [(volume, where) for volume, where in self._places if wanted(self._labels[volume].read(where))]


class Volumes(Dataset[LabelledVolume]):
    """Whole labelled volumes."""

    def __init__(self, prepared: Prepared, cases: Sequence[Case]) -> None:
        self._prepared = prepared
        self._cases = [case for case in cases if case.label is not None]

    def __len__(self) -> int:
        return len(self._cases)

    def classes(self) -> Counter[int]:
        """How many labels hold each class, by its number, but for the background."""
        held = Counter(number for case in self._cases for number in np.unique(self._prepared.label(case)).tolist())
        return Counter({number: held[number] for number in sorted(held) if number not in (0, IGNORED)})

    def __getitem__(self, number: int) -> LabelledVolume:
        case = self._cases[number]
        return LabelledVolume(case.name, _copied(self._prepared.image(case)), _copied(self._prepared.label(case)))


def has_foreground(label: Tensor) -> bool:
    """Whether a piece has a point that is not background: one without has no anchor and would dilute a batch."""
    return bool(((label > 0) & (label != IGNORED)).any())


def is_known(label: Tensor) -> bool:
    """Whether a piece has a point that is not ignored."""
    return bool((label != IGNORED).any())


def _places(shapes: Sequence[tuple[int, ...]], patch_size: Sequence[int]) -> list[Place]:
    """Patches that overlap by half, of every axial slice or of every volume; a slice of the patch's size is one."""
    interval = [max(1, side // 2) for side in patch_size]
    places: list[Place] = []
    for volume, shape in enumerate(shapes):
        patches = dense_patch_slices(shape[-len(patch_size) :], patch_size, interval)
        slices = range(shape[0]) if len(patch_size) == 2 else (None,)
        places += [(volume, patch if depth is None else (depth, *patch)) for depth in slices for patch in patches]
    return places


def _copied(array: np.ndarray) -> Tensor:
    """A tensor of its own: the cache is mapped read-only."""
    return torch.from_numpy(np.array(array))
