"""Predictions of whole volumes, and how well they agree with the truth."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from monai.networks.utils import one_hot
from torch import Tensor, nn

from semicl.volumes import LabelledVolume

SLICES_AT_ONCE = 32
"""Bounds the memory of a prediction; more at once is no faster."""


@dataclass(frozen=True)
class Evaluation:
    """Dice of every volume (rows, in the order of `names`) and foreground class (columns, classes 1, 2, ...)."""

    names: tuple[str, ...]
    dice: np.ndarray

    def per_class(self) -> np.ndarray:
        """Mean over volumes, one number a class."""
        return self.dice.mean(axis=0)

    def per_volume(self) -> np.ndarray:
        """Mean over classes, one number a volume."""
        return self.dice.mean(axis=1)

    def mean(self) -> float:
        """Mean over volumes and classes."""
        return float(self.dice.mean())


@torch.no_grad()
def predict(network: nn.Module, image: Tensor) -> Tensor:
    """The most likely class of every pixel: slices (D, 1, S, S) to labels (D, S, S) int64, on the network's device."""
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).argmax(1) for part in image.split(SLICES_AT_ONCE)])


def volume_dice(prediction: Tensor, label: Tensor, classes: int) -> Tensor:
    """Dice of a whole volume, one number for each class but the background, (classes - 1,) float32.

    `prediction` and `label` are (D, S, S) integers. A class that neither of them has counts 1, one that only the
    prediction has counts 0: inventing an organ costs as much as missing it.
    """
    predicted, true = (one_hot(x.cpu()[None, None], classes) for x in (prediction, label))
    return compute_dice(predicted, true, include_background=False, ignore_empty=False)[0]


def evaluate(network: nn.Module, volumes: Iterable[LabelledVolume], classes: int) -> Evaluation:
    """Dice of every volume."""
    network.eval()
    names, rows = [], []
    for volume in volumes:
        names.append(volume.name)
        rows.append(volume_dice(predict(network, volume.image), volume.label, classes).numpy())
    return Evaluation(tuple(names), np.stack(rows))
