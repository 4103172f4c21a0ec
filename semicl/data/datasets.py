"""Slices or patches of the prepared volumes, one by one, for torch's DataLoader.

A slice, or in three dimensions a volume, that is larger than a patch is as many pieces as patches side by side cover
it. Each is a patch at a random place, which follows from what it is asked for by, a `Draw`, alone.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data.utils import get_random_patch
from monai.transforms.croppad.array import SpatialCrop
from monai.transforms.utils import correct_crop_centers
from torch import Tensor
from torch.utils.data import Dataset

from semicl.data.cases import Case
from semicl.data.classes import IGNORED
from semicl.data.prepared import Prepared

Place = tuple[int, tuple[int, ...]]
"""Number of a volume, and in two dimensions that of a slice in it: what a patch is taken of."""

Ranges = tuple[slice | int, ...]
"""A patch's ranges in its volume, in two dimensions with the slice's number before them."""

AROUND_FOREGROUND = 0.5
"""Share of the random patches that have foreground in their middle, as in MONAI's RandCropByPosNegLabel."""

MIDDLES = 10_000
"""Points of the foreground of a slice or volume, at most, that patches are laid around; as in nnU-Net."""

KEPT = 1000
"""Slices or volumes whose points are kept in memory."""


class Draw(NamedTuple):
    """The number of a piece, and the numbers that its random place follows from, beside it."""

    number: int
    key: tuple[int, ...] = ()


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

    def read(self, where: Ranges) -> Tensor:
        """A part of it, in memory of its own."""
        return _copied(np.memmap(self.file, self.dtype, "r", self.offset, self.shape)[where])


class _Pieces(Dataset[Any]):
    """What pieces with and without labels share."""

    def __init__(self, prepared: Prepared, cases: Sequence[Case]) -> None:
        self._images = [CachedArray.of(prepared.image(case)) for case in cases]
        self._patch_size = prepared.grid.patch_size
        self._places = _places([image.shape[1:] for image in self._images], self._patch_size)

    def __len__(self) -> int:
        return len(self._places)

    def _ranges(self, piece: int | Draw) -> tuple[int, Ranges]:
        """The number of a piece's volume, and where in it the piece lies."""
        number, key = piece if isinstance(piece, Draw) else Draw(piece)
        volume, chosen = self._places[number]
        shape = self._images[volume].shape[1 + len(chosen) :]
        if shape == self._patch_size:
            return volume, (*chosen, *(slice(0, side) for side in shape))
        random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((*key, number))))
        middle = self._middle(self._places[number], shape, random)
        if middle is None:
            return volume, (*chosen, *get_random_patch(shape, self._patch_size, random))
        inside = correct_crop_centers(middle, self._patch_size, shape)
        return volume, (*chosen, *SpatialCrop(roi_center=inside, roi_size=self._patch_size).slices)

    def _middle(self, place: Place, shape: tuple[int, ...], random: np.random.RandomState) -> list[int] | None:
        """The point that a random patch is laid around; None: it may lie anywhere."""
        return None


class ImagePieces(_Pieces):
    """Images (channels, *patch_size) float32 of cases; no label file is opened."""

    def __getitem__(self, piece: int | Draw) -> Tensor:
        volume, ranges = self._ranges(piece)
        return self._images[volume].read((slice(None), *ranges))


class Repeated(Dataset[Any]):
    """Pieces, several times over; random patches lie elsewhere each time."""

    def __init__(self, pieces: "ImagePieces | LabelledPieces", times: int) -> None:
        self._pieces = pieces
        self._times = times

    def __len__(self) -> int:
        return self._times * self.once

    @property
    def once(self) -> int:
        """How many pieces there are without the repetition."""
        return len(self._pieces)

    def __getitem__(self, piece: int | Draw) -> Any:
        number, key = piece if isinstance(piece, Draw) else Draw(piece)
        time, own = divmod(number, len(self._pieces))
        return self._pieces[Draw(own, (*key, time))]


class LabelledPieces(_Pieces):
    """Images (channels, *patch_size) float32 and class numbers (*patch_size) uint8 of cases.

    Args:
        prepared: the data.
        cases: those that have labels.
        around_foreground: share of the random patches that have foreground in their middle, where there is any.
    """

    def __init__(self, prepared: Prepared, cases: Sequence[Case], around_foreground: float = AROUND_FOREGROUND) -> None:
        super().__init__(prepared, cases)
        self._labels = [CachedArray.of(prepared.label(case)) for case in cases]
        self._around_foreground = around_foreground
        self._middles: dict[Place, np.ndarray] = {}

    def __getitem__(self, piece: int | Draw) -> tuple[Tensor, Tensor]:
        volume, ranges = self._ranges(piece)
        return self._images[volume].read((slice(None), *ranges)), self._labels[volume].read(ranges)

    def keep(self, wanted: Callable[[Tensor], bool]) -> None:
        """Leave out every piece whose class numbers, or those of what it is a patch of, are not wanted."""
        kept = {place: wanted(self._labels[place[0]].read(place[1])) for place in dict.fromkeys(self._places)}
        self._places = [place for place in self._places if kept[place]]

    def _middle(self, place: Place, shape: tuple[int, ...], random: np.random.RandomState) -> list[int] | None:
        if random.rand() >= self._around_foreground:
            return None
        if place not in self._middles:
            if len(self._middles) == KEPT:
                self._middles.clear()
            points = is_foreground(self._labels[place[0]].read(place[1])).flatten().nonzero()[:, 0].numpy()
            self._middles[place] = points[:: math.ceil(len(points) / MIDDLES) or 1]
        points = self._middles[place]
        if len(points) == 0:
            return None
        return [int(each) for each in np.unravel_index(points[random.randint(len(points))], shape)]


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
    return bool(is_foreground(label).any())


def is_foreground(label: Tensor) -> Tensor:
    """Where a class is that is not background, bool."""
    return (label > 0) & (label != IGNORED)


def is_known(label: Tensor) -> bool:
    """Whether a piece has a point that is not ignored."""
    return bool((label != IGNORED).any())


def _places(shapes: Sequence[tuple[int, ...]], patch_size: Sequence[int]) -> list[Place]:
    """Every axial slice, or every volume, as often as it takes patches side by side to cover it."""
    places: list[Place] = []
    for volume, shape in enumerate(shapes):
        sides = zip(shape[-len(patch_size) :], patch_size, strict=True)
        count = math.prod(math.ceil(side / of_patch) for side, of_patch in sides)
        slices = [(depth,) for depth in range(shape[0])] if len(patch_size) == 2 else [()]
        places += [(volume, chosen) for chosen in slices for _ in range(count)]
    return places


def _copied(array: np.ndarray) -> Tensor:
    """A tensor of its own: the cache is mapped read-only."""
    return torch.from_numpy(np.array(array))
