"""The labels of an image file, in its own geometry."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from semicl.data.volumes import read_image
from semicl.evaluation.inference import class_probabilities
from semicl.files import replacing
from semicl.models.accelerators import require_accelerator
from semicl.models.model_card import ModelCard
from semicl.models.unet import UNet
from semicl.options import MachineOptions


def to_device(network: UNet, machine: MachineOptions) -> UNet:
    """The network on the machine's first CUDA device, else on its CPU, for prediction.

    Raises:
        SemiclError: there is no such device.
    """
    require_accelerator(machine)
    return network.to("cuda" if torch.cuda.is_available() and machine.accelerator != "cpu" else "cpu").eval()


def predict_file(network: UNet, card: ModelCard, image: Path) -> Tensor:
    """Class numbers (X, Y, Z) int64 on the array of an image file of any size, spacing and orientation.

    Raises:
        SemiclError: the file is not readable.
    """
    gridded = read_image(image, card.grid)
    return gridded.to_file(class_probabilities(network, gridded.image, card.grid.patch_size))


def label_type(values: np.ndarray) -> type[np.integer]:
    """The first of uint8, int16, int32 and int64 that holds all values; not every program reads NIfTI's other types."""
    types = (np.uint8, np.int16, np.int32)
    return next((t for t in types if np.iinfo(t).min <= values.min() and values.max() <= np.iinfo(t).max), np.int64)


def write_labels(path: Path, numbers: Tensor, card: ModelCard, like: SpatialImage) -> None:
    """Write class numbers (X, Y, Z) as NIfTI with the values of the training labels and the geometry of `like`."""
    values = np.array(list(card.classes.values()))
    dtype = label_type(values)
    header: Any = like.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    labels = values[numbers.numpy()].astype(dtype).reshape(like.shape)  # which may have more axes, of length 1
    with replacing(path) as partial:
        nibabel.save(type(like)(labels, like.affine, header), partial)
