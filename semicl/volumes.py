"""From a NIfTI file to the network's grid, and from there back to the file's own geometry.

On the grid the axes run superior, right, anterior, so the first one numbers axial slices. A patch size of two numbers
makes slices: larger ones are shrunk in their proportions, then all are padded. Three numbers make patches: volumes are
padded to hold one. Labels go the way of their image, by nearest neighbour, so that no class is invented.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.croppad.array import SpatialPad
from monai.transforms.intensity.array import ScaleIntensityRange
from monai.transforms.io.array import LoadImage
from monai.transforms.spatial.array import Orientation, Resize, Spacing
from monai.transforms.utils import convert_applied_interp_mode
from monai.transforms.utils_pytorch_numpy_unification import percentile
from torch import Tensor

from semicl.checks import UNREADABLE
from semicl.errors import SemiclError
from semicl.grid import Grid
from semicl.whole_values import ROUNDING


@dataclass(frozen=True)
class GriddedImage:
    """An image on the grid that knows the way back to its file.

    Args:
        image: (depth, height, width) float32 in [0, 1].
        steps: the transforms from the file's array to the grid.
        placed: MONAI's tensor with its record of those steps.
    """

    image: Tensor
    steps: Compose
    placed: MetaTensor

    def to_file(self, probabilities: Tensor) -> Tensor:
        """Class probabilities (C, depth, height, width) to class numbers (X, Y, Z) int64 on the file's own array.

        Where the grid has another resolution the probabilities are interpolated, and the likeliest class taken after.
        """
        back = MetaTensor(probabilities.cpu().permute(0, 2, 3, 1).contiguous(), meta=dict(self.placed.meta))
        back.applied_operations = [_interpolating(step) for step in self.placed.applied_operations]
        return torch.as_tensor(self.steps.inverse(back).argmax(0))


def read_image(path: Path, grid: Grid) -> GriddedImage:
    """An image on the grid; its label file is not opened.

    Raises:
        SemiclError: the file is not readable.
    """
    volume = _scaled(_load(path))
    steps = _steps(volume, grid, resize_mode="area", spacing_mode="bilinear")
    placed = steps(volume)
    return GriddedImage(_depth_first(placed), steps, placed)


def read_label(path: Path, grid: Grid, values: Sequence[int]) -> Tensor:
    """A label file on the grid, (depth, height, width) uint8: class number k where the file holds values[k].

    Raises:
        SemiclError: the file is not readable.
    """
    volume = _load(path)
    label = _depth_first(_steps(volume, grid, resize_mode="nearest-exact", spacing_mode="nearest")(volume))
    return class_numbers(label, values)


def class_numbers(label: Tensor, values: Sequence[int]) -> Tensor:
    """Class number k (uint8) where a label map holds values[k], but for rounding; 0 where it holds none of them."""
    numbers = torch.zeros(label.shape, dtype=torch.uint8)
    for number, value in enumerate(values):
        numbers[(label - value).abs() < ROUNDING] = number
    return numbers


def voxel_size(affine: np.ndarray) -> tuple[float, ...]:
    """Millimetres along each axis of a file's array."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))


def _load(path: Path) -> MetaTensor:
    """A volume (1, X, Y, Z) float32 as the file has it."""
    try:
        return LoadImage(reader="NibabelReader", ensure_channel_first=True)(path.as_posix())
    except (RuntimeError, *UNREADABLE) as error:  # MONAI's RuntimeError holds the tracebacks of every reader it tried
        raise SemiclError(f"{path}: not readable as NIfTI; copy or download the file again") from error


def _scaled(volume: MetaTensor) -> Any:
    """A volume's intensities in [0, 1], on its own scale, because scanners agree on no unit.

    From the 0.5th to the 99.5th percentile; where these are one value, as in a volume that is empty but for a thin
    vessel, from the smallest to the largest. A volume of one value becomes 0.
    """
    for share in (0.5, 0):
        low: Any = percentile(volume.as_tensor(), share)
        high: Any = percentile(volume.as_tensor(), 100 - share)
        if low < high:
            return ScaleIntensityRange(low, high, b_min=0.0, b_max=1.0, clip=True)(volume)
    return torch.zeros_like(volume)


def _steps(volume: MetaTensor, grid: Grid, resize_mode: str, spacing_mode: str) -> Compose:
    """The transforms that this volume needs, each of which MONAI can invert."""
    steps: list[Any] = [Orientation(axcodes="RAS", labels=None)]
    if grid.spacing is not None:
        steps.append(Spacing(pixdim=grid.spacing, mode=spacing_mode, padding_mode="border"))
    right, anterior, superior = Compose(steps)(volume).shape[1:]
    if len(grid.patch_size) == 3:
        depth, height, width = grid.patch_size
        return Compose([*steps, SpatialPad((height, width, depth))])
    height, width = grid.patch_size
    scale = min(1.0, height / right, width / anterior)
    if scale < 1:
        shrunk = (max(1, round(right * scale)), max(1, round(anterior * scale)), superior)
        steps.append(Resize(shrunk, mode=resize_mode))
    return Compose([*steps, SpatialPad((height, width, superior))])


def _depth_first(placed: MetaTensor) -> Tensor:
    """(1, right, anterior, superior) to (superior, right, anterior), a plain float32 tensor."""
    return torch.as_tensor(placed.numpy())[0].permute(2, 0, 1).float().contiguous()


def _interpolating(step: dict[str, Any]) -> dict[str, Any]:
    """MONAI's record of a step, to be undone by linear interpolation, which its two resamplers name differently."""
    mode = "trilinear" if step["class"] == Resize.__name__ else "bilinear"
    return dict(convert_applied_interp_mode(step, mode=mode, align_corners=False))
