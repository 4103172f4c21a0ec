"""From NIfTI files to stacks of square slices."""

from pathlib import Path
from typing import NamedTuple

import torch
from monai.transforms.croppad.array import ResizeWithPadOrCrop
from monai.transforms.intensity.array import ScaleIntensityRangePercentiles
from monai.transforms.io.array import LoadImage
from monai.transforms.spatial.array import Orientation, Resize
from torch import Tensor

from semicl.cases import UNREADABLE, Case
from semicl.errors import SemiclError


class LabelledVolume(NamedTuple):
    """A volume as a stack of D axial slices: image (D, 1, S, S) float32 in [0, 1], label (D, S, S) int64."""

    name: str
    image: Tensor
    label: Tensor


def read_image(case: Case, slice_size: int) -> Tensor:
    """The slices of a case's image, (D, 1, S, S) float32 in [0, 1]; the label file is not opened.

    Intensities are scaled per volume, from its 0.5th to its 99.5th percentile, because scanners agree on no unit.
    """
    scale = ScaleIntensityRangePercentiles(lower=0.5, upper=99.5, b_min=0.0, b_max=1.0, clip=True)
    volume = torch.as_tensor(scale(_load(case.image)))
    return _slices(_fit(volume, slice_size, "area")).float()


def read_label(case: Case, slice_size: int) -> Tensor:
    """The slices of a case's label, (D, S, S) int64, on the grid of `read_image`; values are never interpolated."""
    return _slices(_fit(_load(case.label), slice_size, "nearest-exact")).squeeze(1).long()


def read_volume(case: Case, slice_size: int) -> LabelledVolume:
    """Image and label of a case."""
    return LabelledVolume(case.name, read_image(case, slice_size), read_label(case, slice_size))


def _load(path: Path) -> Tensor:
    """A volume (1, H, W, D) with its axes along right, anterior and superior."""
    try:
        volume = LoadImage(reader="NibabelReader", ensure_channel_first=True)(path.as_posix())
    except (RuntimeError, *UNREADABLE) as error:  # MONAI's RuntimeError holds the tracebacks of every reader it tried
        raise SemiclError(f"{path}: not readable as NIfTI; copy or download the file again") from error
    return Orientation(axcodes="RAS", labels=None)(volume)


def _fit(volume: Tensor, slice_size: int, mode: str) -> Tensor:
    """Shrink slices that are larger than the square, keeping their proportions, then pad all to it."""
    height, width, depth = volume.shape[1:]
    if max(height, width) > slice_size:
        scale = slice_size / max(height, width)
        volume = Resize((max(1, round(height * scale)), max(1, round(width * scale)), depth), mode=mode)(volume)
    return ResizeWithPadOrCrop((slice_size, slice_size, depth))(volume)


def _slices(volume: Tensor) -> Tensor:
    """(1, H, W, D) to (D, 1, H, W), without MONAI's metadata, which the stages do not need."""
    return torch.as_tensor(volume.numpy()).permute(3, 0, 1, 2).contiguous()
