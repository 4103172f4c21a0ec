"""Class probabilities of whole volumes, by MONAI's inferers, and the labels of an image file in its own geometry."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.inferers.inferer import SliceInferer, SlidingWindowInferer
from nibabel.spatialimages import SpatialImage
from scipy import ndimage
from torch import Tensor, nn

from semicl.data.itk_files import write_itk
from semicl.data.nifti_names import is_itk, is_picture
from semicl.data.pictures import write_picture
from semicl.data.volumes import read_image
from semicl.files import replacing
from semicl.models.accelerators import require_accelerator
from semicl.models.checkpoint import ModelCard
from semicl.models.unet import UNet
from semicl.options import MachineOptions

AT_ONCE = 32
"""Slices at once, which bounds the memory of a prediction; more is no faster."""

PATCHES_AT_ONCE = 4
OVERLAP = 0.5


def _inferer(patch_size: Sequence[int]) -> SliceInferer | SlidingWindowInferer:
    if len(patch_size) == 2:
        return SliceInferer(0, patch_size, sw_batch_size=AT_ONCE, overlap=OVERLAP, mode="gaussian")
    return SlidingWindowInferer(patch_size, sw_batch_size=PATCHES_AT_ONCE, overlap=OVERLAP, mode="gaussian")


@torch.no_grad()
def class_probabilities(network: UNet, image: Tensor, patch_size: Sequence[int], flips: bool = False) -> Tensor:
    """Probabilities (C, depth, height, width) float32 of an image (channels, depth, height, width).

    With `flips` they are the mean over the image and all its flips along the axes of the patch.
    """
    axes = range(-len(patch_size), 0) if flips else ()
    flipped = [each for count in range(len(axes) + 1) for each in combinations(axes, count)]
    total = torch.zeros(())
    for each in flipped:
        found = _over_volume(lambda patch: network(patch).float().softmax(1), network, image.flip(each), patch_size)
        total = total.to(found.device) + found.flip(each)
    return total / len(flipped)


@torch.no_grad()
def point_features(network: UNet, image: Tensor, patch_size: Sequence[int]) -> Tensor:
    """The decoder's features (C, depth, height, width) of an image (channels, depth, height, width)."""
    return _over_volume(lambda patch: network.decoder(network.encoder(patch)), network, image, patch_size)


def _over_volume(
    function: Callable[[Tensor], Tensor], network: nn.Module, image: Tensor, patch_size: Sequence[int]
) -> Tensor:
    device = next(network.parameters()).device
    return _inferer(patch_size)(image[None].to(device), function)[0]


def to_device(network: UNet, machine: MachineOptions) -> UNet:
    """The network on the machine's first CUDA device, else on its CPU, for prediction.

    Raises:
        SemiclError: there is no such device.
    """
    require_accelerator(machine)
    return network.to("cuda" if torch.cuda.is_available() and machine.accelerator != "cpu" else "cpu").eval()


Model = tuple[UNet, ModelCard]
"""A network that is ready to predict, and its card."""


def file_probabilities(models: Sequence[Model], image: Path, more: Sequence[Path] = (), flips: bool = False) -> Tensor:
    """Class probabilities (C, X, Y, Z) float32 on the array of an image file of any size, spacing and orientation.

    Args:
        models: of the same classes and channels; the mean of theirs is taken.
        image: the file.
        more: files of further channels.
        flips: whether to average over flips, as in :func:`class_probabilities`.

    Raises:
        SemiclError: the file is not readable, or has other channels than the networks take.
    """
    found = []
    for network, card in models:
        gridded = read_image(image, card.grid, more, card.channels)
        found.append(gridded.to_file(class_probabilities(network, gridded.image, card.grid.patch_size, flips)))
    return torch.stack(found).mean(0) if len(found) > 1 else found[0]


def predict_file(network: UNet, card: ModelCard, image: Path, more: Sequence[Path] = ()) -> Tensor:
    """Class numbers (X, Y, Z) int64 on the array of an image file of any size, spacing and orientation.

    Raises:
        SemiclError: the file is not readable, or has other channels than the network takes.
    """
    return file_probabilities([(network, card)], image, more).argmax(0)


def largest_components(numbers: Tensor, classes: int) -> Tensor:
    """Class numbers (X, Y, Z) of which each class keeps its largest component; voxels touch by a corner too."""
    kept = numbers.numpy().copy()
    for number in range(1, classes):
        components, count = ndimage.label(kept == number, np.ones((3, 3, 3)))
        if count > 1:
            largest = np.bincount(components[components > 0]).argmax()
            kept[(components > 0) & (components != largest)] = 0
    return torch.from_numpy(kept)


def label_type(values: np.ndarray) -> type[np.integer]:
    """The first of uint8, int16, int32 and int64 that holds all values; not every program reads NIfTI's other types."""
    types = (np.uint8, np.int16, np.int32)
    return next((t for t in types if np.iinfo(t).min <= values.min() and values.max() <= np.iinfo(t).max), np.int64)


def write_labels(path: Path, numbers: Tensor, card: ModelCard, like: SpatialImage) -> None:
    """Write class numbers (X, Y, Z) in the format of the name, with the values of the training labels.

    `like` is the image, whose geometry the file gets, if it is no picture.
    """
    values = np.array(list(card.classes.values()))
    if is_picture(path):
        write_picture(path, values[numbers.numpy()])
        return
    dtype = label_type(values)
    if is_itk(path):
        write_itk(path, values[numbers.numpy()].astype(dtype), like.affine)
        return
    header: Any = like.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    # The image may have more axes, of length 1, or one of channels.
    shape = like.shape if np.prod(like.shape) == numbers.numel() else tuple(numbers.shape)
    labels = values[numbers.numpy()].astype(dtype).reshape(shape)
    with replacing(path) as partial:
        nibabel.save(type(like)(labels, like.affine, header), partial)


def write_probabilities(path: Path, probabilities: Tensor, card: ModelCard, picture: bool) -> None:
    """Write class probabilities (C, X, Y, Z) as a .npz file, those of a picture as (C, rows, columns).

    It holds `probabilities` in float32, and for each class, the background first, its name in `classes` and its value
    in label files in `values`.
    """
    array = probabilities.numpy()
    array = array[..., 0].swapaxes(1, 2) if picture else array
    names, values = np.array(list(card.classes)), np.array(list(card.classes.values()))
    with replacing(path) as partial:
        np.savez_compressed(partial, probabilities=array, classes=names, values=values)
