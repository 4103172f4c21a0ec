"""What the network sees of a volume: its patch size and spacing, and what a file's voxels become on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np

from semicl.data.geometry import voxel_size
from semicl.errors import SemiclError

MOST_VOXELS = 2**31
"""A volume is not resampled to more: its voxel size, or the spacing asked for, is a mistake."""

MOST_CLASSES = 255
"""Class numbers are uint8, of which the last, `semicl.data.classes.IGNORED`, is no class's."""

LARGEST_VALUE = 2**24
"""Label files may be stored as float32, which holds every whole number up to here."""


@dataclass(frozen=True)
class Grid:
    """What the network sees.

    Args:
        patch_size: (height, width) of a slice, or (depth, height, width) of a patch.
        spacing: voxel size in mm along right, anterior and superior; None leaves it as it is.
        sliding_window: whether slices larger than the patch are kept for patches of them, not shrunk.
        voxel_size: in mm along superior, right and anterior, after resampling: the median of the cases; None where
            nobody noted it, and voxels count as cubes.
    """

    patch_size: tuple[int, ...]
    spacing: tuple[float, float, float] | None = None
    sliding_window: bool = False
    voxel_size: tuple[float, float, float] | None = None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Grid":
        """The grid among what `dataclasses.asdict` made of it; older ones do not tell the last two."""
        spacing, voxels = content["spacing"], content.get("voxel_size")
        return cls(
            tuple(content["patch_size"]),
            None if spacing is None else tuple(spacing),
            content.get("sliding_window", False),
            None if voxels is None else tuple(voxels),
        )

    @property
    def most_levels(self) -> int:
        """Levels of the deepest U-Net that takes the patch: it halves every side once a level, and leaves one of 2."""
        levels = 1
        while all(side % 2**levels == 0 for side in self.patch_size) and max(self.patch_size) > 2**levels:
            levels += 1
        return levels

    def shrinkage(self, shape: Sequence[int]) -> float:
        """What slices of a resampled volume (superior, right, anterior) are multiplied by to fit the patch, up to 1."""
        if len(self.patch_size) == 3 or self.sliding_window:
            return 1.0
        return min(1.0, self.patch_size[0] / shape[1], self.patch_size[1] / shape[2])

    def cuts(self, shape: Sequence[int]) -> bool:
        """Whether a volume (superior, right, anterior), or where patches have no depth a slice, is cut into patches."""
        pairs = zip(shape[-len(self.patch_size) :], self.patch_size, strict=True)
        return self.shrinkage(shape) == 1 and any(side > most for side, most in pairs)


def require_fit(grid: Grid, levels: int) -> None:
    """Raise where a level of a U-Net would have no room.

    Raises:
        SemiclError: the patch has too few, or odd, halves.
    """
    if levels > grid.most_levels:
        factor = 2 ** (levels - 1)
        raise SemiclError(
            f"patch size {' x '.join(map(str, grid.patch_size))} does not fit {levels} levels; run "
            f"`semicl prepare` with multiples of {factor}, larger than {factor} along one axis, or give fewer "
            "--network.widths"
        )


def resampled_shape(shape: Sequence[int], affine: np.ndarray, grid: Grid) -> tuple[int, int, int]:
    """Voxels of a volume along superior, right and anterior after resampling, before it is padded or shrunk.

    MONAI keeps the centers of the first and the last voxel.

    Args:
        shape: of the file's array.
        affine: of the file, in mm.
        grid: the grid.
    """
    right, anterior, superior = (shape[axis] for axis in _axes(affine))
    before, after = oriented_voxel_size(affine), resampled_voxel_size(affine, grid)
    lengths = zip((superior, right, anterior), before, after, strict=True)
    superior, right, anterior = (round((length - 1) * old / new) + 1 for length, old, new in lengths)
    return superior, right, anterior


def oriented_voxel_size(affine: np.ndarray) -> tuple[float, float, float]:
    """Millimeters along superior, right and anterior."""
    right, anterior, superior = (voxel_size(affine)[axis] for axis in _axes(affine))
    return superior, right, anterior


def resampled_voxel_size(affine: np.ndarray, grid: Grid) -> tuple[float, float, float]:
    """The same after resampling."""
    if grid.spacing is None:
        return oriented_voxel_size(affine)
    right, anterior, superior = grid.spacing
    return superior, right, anterior


def _axes(affine: np.ndarray) -> list[int]:
    """The array's axes that run most along right, anterior and superior."""
    return [int(axis) for axis in np.argsort(nibabel.io_orientation(affine)[:, 0])]


def spacing_problem(shape: Sequence[int], affine: np.ndarray, grid: Grid) -> tuple[str, str] | None:
    """Why a volume cannot be resampled to a grid's spacing, and the way out; None where it can.

    Args:
        shape: of the file's array.
        affine: of the file, in mm.
        grid: the grid.
    """
    before = resampled_shape(shape, affine, Grid(grid.patch_size))
    after = resampled_shape(shape, affine, grid)
    told = " x ".join(map(str, after))
    way_out = "give another spacing, or mend the file's voxel size or unit (xyzt_units)"
    if any(now == 1 < then for then, now in zip(before, after, strict=True)):
        return f"resampling would leave {told} of its {' x '.join(map(str, before))} voxels", way_out
    if math.prod(after) > MOST_VOXELS:
        return f"resampling would make {told} voxels of it, more than {MOST_VOXELS}", way_out
    return None
