"""From a NIfTI file to the network's grid, and from there back to the file's own geometry.

On the grid the axes run superior, right, anterior, so the first one numbers axial slices. A patch size of two numbers
makes slices: larger ones are kept for patches and a sliding window, or shrunk in their proportions; smaller ones are
padded. Three numbers make patches: volumes are padded to hold one. Labels go the way of their image, by nearest
neighbor, so that no class is invented; padding is background, or ignored where values of the label files are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.croppad.array import SpatialPad
from monai.transforms.spatial.array import Orientation, Resize, Spacing
from monai.transforms.utils import convert_applied_interp_mode
from torch import Tensor
from torch.nn.functional import one_hot

from semicl.data.checks import OUTLIERS, ROUNDING, read_channels, read_nifti, stored_image
from semicl.data.classes import IGNORED, Merged
from semicl.data.geometry import affine_in_mm
from semicl.data.grid import Grid, spacing_problem
from semicl.data.intensities import scaled, squashed
from semicl.data.nifti_names import is_picture
from semicl.errors import SemiclError


@dataclass(frozen=True)
class GriddedImage:
    """An image on the grid that knows the way back to its file.

    Args:
        image: (channels, depth, height, width) float32 in [0, 1].
        steps: the transforms from the file's array to the grid.
        placed: MONAI's tensor with its record of those steps.
    """

    image: Tensor
    steps: Compose
    placed: MetaTensor

    def to_file(self, probabilities: Tensor) -> Tensor:
        """Class probabilities (C, depth, height, width) to those on the file's own array, (C, X, Y, Z) float32.

        Where the grid has another resolution they are interpolated.
        """
        back = MetaTensor(probabilities.cpu().permute(0, 2, 3, 1).contiguous(), meta=dict(self.placed.meta))
        back.applied_operations = [_interpolating(step) for step in self.placed.applied_operations]
        return torch.as_tensor(self.steps.inverse(back).numpy())


def check_image(
    path: Path, grid: Grid, more: Sequence[Path] = (), channels: int | None = None
) -> tuple[np.ndarray, nibabel.Nifti1Image]:
    """What `read_channels` gives of an image that is to be put on a grid.

    Raises:
        SemiclError: the file cannot be used, or not on this grid, or has another number of channels than is asked for.
    """
    array, volume = read_channels(path, more)
    if channels is not None and len(array) != channels:
        way_out = "give them as the last axis of a file, or in a folder of files NAME_0000, NAME_0001, ..."
        if is_picture(path) and channels in (1, 3):
            way_out = f"save it in {'grey values' if channels == 1 else 'colours'}"
        raise SemiclError(f"{path}: has {len(array)} channels, the checkpoint takes {channels}; {way_out}")
    outliers = OUTLIERS if any(map(squashed, array)) else None
    problem = spacing_problem(array.shape[1:], affine_in_mm(volume), grid) or outliers
    if problem is not None:
        raise SemiclError(f"{path}: {'; '.join(problem)}")
    return array, volume


def read_image(path: Path, grid: Grid, more: Sequence[Path] = (), channels: int | None = None) -> GriddedImage:
    """An image on the grid, each channel on its own scale; its label file is not opened.

    Args:
        path: the file.
        grid: the grid.
        more: files of further channels.
        channels: how many there must be; None: any.

    Raises:
        SemiclError: as of `check_image`.
    """
    array, volume = check_image(path, grid, more, channels)
    affine = affine_in_mm(volume)
    tensor = _tensor(np.stack([scaled(channel) for channel in array]), affine)
    steps = _steps(tensor, grid, resize_mode="area", spacing_mode="bilinear")
    placed = steps(tensor)
    return GriddedImage(_depth_first(placed), steps, placed)


def read_label(
    path: Path,
    grid: Grid,
    values: Sequence[int],
    image: Path | None = None,
    merged: Merged | None = None,
) -> Tensor:
    """A label file on the grid, (depth, height, width) uint8: class number k where the file holds values[k].

    Args:
        path: the label file.
        grid: the grid.
        values: of the classes.
        image: its image's file, whose header tells the unit where the label's does not.
        merged: other values in the file, and those of `values` that they count as, if they are not ignored.

    Raises:
        SemiclError: the file cannot be used.
    """
    numbers = _numbers(path, values, image, merged)
    padding = IGNORED if merged and None in merged.values() else 0
    steps = _steps(numbers, grid, resize_mode="nearest-exact", spacing_mode="nearest", padding=padding)
    return _depth_first(steps(numbers))[0].to(torch.uint8)


def shrunk_and_back(
    path: Path, grid: Grid, values: Sequence[int], image: Path, merged: Merged | None = None
) -> tuple[Tensor, Tensor]:
    """What a network is left with that labels every voxel of the grid rightly.

    Args:
        path: the label file.
        grid: the grid.
        values: of the classes.
        image: its image's file.
        merged: as of `read_label`.

    Returns:
        Class numbers (X, Y, Z) of a label file, and those that come back to its array from the grid.

    Raises:
        SemiclError: the file cannot be used.
    """
    numbers = _numbers(path, values, image, merged)
    steps = _steps(numbers, grid, resize_mode="nearest-exact", spacing_mode="nearest")
    placed = steps(numbers)
    gridded = GriddedImage(_depth_first(placed), steps, placed)
    seen = gridded.image[0].long()
    probabilities = one_hot(seen.where(seen != IGNORED, 0), len(values)).movedim(-1, 0).float()
    return torch.as_tensor(numbers[0]).long(), gridded.to_file(probabilities).argmax(0)


def _numbers(path: Path, values: Sequence[int], image: Path | None, merged: Merged | None) -> MetaTensor:
    """Class numbers of a label file (1, X, Y, Z) float32."""
    array, volume = read_nifti(path)
    affine = affine_in_mm(volume, beside=None if image is None else stored_image(image))
    return _tensor(class_numbers(array, values, merged).astype(np.float32)[None], affine)


def class_numbers(label: np.ndarray, values: Sequence[int], merged: Merged | None = None) -> np.ndarray:
    """Class number k (uint8) where a label map holds values[k], but for rounding; 0 where it holds none of them.

    Where it holds a key of `merged`, it counts as that key's value; `IGNORED` stands where that is None.
    """
    numbers = np.zeros(label.shape, np.uint8)
    others = [
        (IGNORED if value is None else values.index(value), other)
        for other, value in (merged or {}).items()
        if value is None or value in values
    ]
    for number, value in [*enumerate(values), *others]:
        numbers[label == value if label.dtype.kind in "iu" else np.abs(label - value) < ROUNDING] = number
    return numbers


def _tensor(array: np.ndarray, affine: np.ndarray) -> MetaTensor:
    """An array (C, X, Y, Z) as MONAI takes it."""
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array)), affine=torch.from_numpy(affine))


def _steps(volume: MetaTensor, grid: Grid, resize_mode: str, spacing_mode: str, padding: int = 0) -> Compose:
    """The transforms that this volume needs, each of which MONAI can invert."""
    steps: list[Any] = [Orientation(axcodes="RAS", labels=None)]
    if grid.spacing is not None:
        steps.append(Spacing(pixdim=grid.spacing, mode=spacing_mode, padding_mode="border"))
    right, anterior, superior = Compose(steps)(volume).shape[1:]
    if len(grid.patch_size) == 3:
        depth, height, width = grid.patch_size
        return Compose([*steps, SpatialPad((height, width, depth), value=padding)])
    height, width = grid.patch_size
    scale = grid.shrinkage((superior, right, anterior))
    if scale < 1:
        shrunk = (max(1, round(right * scale)), max(1, round(anterior * scale)), superior)
        steps.append(Resize(shrunk, mode=resize_mode))
    return Compose([*steps, SpatialPad((height, width, superior), value=padding)])


def _depth_first(placed: MetaTensor) -> Tensor:
    """(C, right, anterior, superior) to (C, superior, right, anterior), a plain float32 tensor."""
    return torch.as_tensor(placed.numpy()).permute(0, 3, 1, 2).float().contiguous()


def _interpolating(step: dict[str, Any]) -> dict[str, Any]:
    """MONAI's record of a step, to be undone by linear interpolation, which its two resamplers name differently."""
    mode = "trilinear" if step["class"] == Resize.__name__ else "bilinear"
    return dict(convert_applied_interp_mode(step, mode=mode, align_corners=False))
