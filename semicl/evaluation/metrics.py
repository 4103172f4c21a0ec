"""How well a prediction agrees with the truth, defined for empty masks too.

Voxels whose label is ignored count as background in both.

A class that neither has: Dice 1, distances 0. A class that only one has: Dice 0, and as distances the diagonal of the
volume, the farthest that two points in it can lie apart: inventing an organ costs as much as missing it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.utils import get_mask_edges, get_surface_distance
from monai.networks.utils import one_hot
from torch import Tensor

from semicl.data.classes import ABSENT, IGNORED

HAUSDORFF_QUANTILE = 0.95


class Agreement(NamedTuple):
    """Dice, HD95 and average symmetric surface distance of each class but the background, (classes - 1,)."""

    dice: np.ndarray
    hd95: np.ndarray
    surface: np.ndarray


def dice_per_class(prediction: Tensor, label: Tensor, classes: int) -> Tensor:
    """Dice of a whole volume for each class but the background, (classes - 1,) float32; integers of one shape in."""
    predicted, true = _masks(prediction, label, classes)
    return compute_dice(predicted, true, include_background=False, ignore_empty=False)[0]


def agreement(prediction: Tensor, label: Tensor, classes: int, spacing: Sequence[float]) -> Agreement:
    """All measures of a whole volume (X, Y, Z) of class numbers; distances are in the unit of `spacing`."""
    predicted, true = _masks(prediction, label, classes)
    dice = compute_dice(predicted, true, include_background=False, ignore_empty=False)[0].numpy()
    diagonal = float(np.linalg.norm(np.array(label.shape) * np.array(spacing)))
    hd95, surface = np.zeros_like(dice), np.zeros_like(dice)
    for column in range(classes - 1):
        pair = predicted[0, column + 1].bool(), true[0, column + 1].bool()
        present = [bool(mask.any()) for mask in pair]
        if all(present):
            hd95[column], surface[column] = _surface_distances(*pair, spacing)
        elif any(present):
            hd95[column] = surface[column] = diagonal
    return Agreement(dice, hd95, surface)


def _surface_distances(predicted: Tensor, true: Tensor, spacing: Sequence[float]) -> tuple[float, float]:
    """HD95 and average symmetric surface distance of two masks that are not empty.

    MONAI's functions for each of them would find the edges twice, and call its own code in a way it warns of.
    """
    own, other = get_mask_edges(predicted, true)
    there = torch.as_tensor(get_surface_distance(own, other, spacing=list(spacing)))
    back = torch.as_tensor(get_surface_distance(other, own, spacing=list(spacing)))
    # numpy's, since torch's takes no more than 2**24 of them.
    hd95 = max(float(np.quantile(distances.numpy(), HAUSDORFF_QUANTILE)) for distances in (there, back))
    return hd95, float(torch.cat([there, back]).mean())


def _masks(prediction: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Both as masks (1, classes, *space) of each class, without what is ignored."""
    true = torch.as_tensor(label).cpu().long()
    known = true != IGNORED
    predicted = torch.as_tensor(prediction).cpu().long()
    return one_hot((predicted * known)[None, None], classes), one_hot((true * known)[None, None], classes)


def spread(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation, None where there is none; not rounded, since tables round what they show.

    NaN stands for a class that no label holds, and is left out.
    """
    there = [float(value) for value in values if not np.isnan(value)]
    return {
        "mean": float(np.mean(there)) if there else None,
        "deviation": float(np.std(there)) if len(there) > 1 else None,
    }


def shown(values: Sequence[float] | np.ndarray) -> str:
    """The same as text: "0.812 ± 0.034", and a dash for what there is none of."""
    found = spread(values)
    mean, deviation = (ABSENT if value is None else f"{value:.3f}" for value in found.values())
    return mean if found["mean"] is None else f"{mean} ± {deviation}"
