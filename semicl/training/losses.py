"""The losses of labels, which leave out what is ignored, those of all devices' batches, and weights that grow."""

import math

import torch
from monai.losses.dice import DiceCELoss, MaskedDiceLoss
from monai.networks.utils import one_hot
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy, interpolate, normalize

from semicl.data.classes import IGNORED
from semicl.options import LocalLossOptions
from semicl_kernels import ClassQueue, LocalContrastiveLoss, NTXentLoss

STEEPNESS = 5.0
"""Of the growth of a weight, as in the papers of TCSM and of mean teachers: exp(-5 (1 - t)^2)."""


def grown(done: float, ramp_up: float) -> float:
    """The share of its full value that a weight has reached, after a share of all steps."""
    if done >= ramp_up:
        return 1.0
    return math.exp(-STEEPNESS * (1 - done / ramp_up) ** 2)


def contrast_all_devices(stage: nn.Module) -> None:
    """Let the contrastive losses of a stage compare the batches of all processes that train together."""
    for loss in stage.modules():
        if isinstance(loss, (LocalContrastiveLoss, NTXentLoss)):
            loss.process_group = distributed.group.WORLD


class KnownDiceCELoss(nn.Module):
    """Cross entropy + Dice, as MONAI's, of the points that are not ignored; 0 where all are."""

    def __init__(self) -> None:
        super().__init__()
        self._dice = MaskedDiceLoss(softmax=True)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of scores (N, classes, *space) and class numbers (N, 1, *space) int64, some of them `IGNORED`."""
        known = labels != IGNORED
        target = one_hot(labels.where(known, 0), scores.shape[1])
        entropies = cross_entropy(scores, labels[:, 0], ignore_index=IGNORED, reduction="sum")
        return self._dice(scores, target, known) + entropies / known.sum().clamp(min=1)


def segmentation_loss(ignores: bool) -> nn.Module:
    """Cross entropy + Dice of scores (N, classes, *space) and class numbers (N, 1, *space) int64.

    Args:
        ignores: whether points may be ignored.
    """
    return KnownDiceCELoss() if ignores else DiceCELoss(to_onehot_y=True, softmax=True)


def local_contrast(options: LocalLossOptions, ignores: bool = False) -> LocalContrastiveLoss:
    """The local contrastive loss that the options describe; points may be ignored."""
    return LocalContrastiveLoss(
        temperature=options.temperature,
        stride=options.stride,
        block_size=options.block_size,
        scope=options.scope,
        denominator=options.denominator,
        ignore_index=IGNORED if ignores else None,
    )


def class_queue(classes: int, size: int, channels: int) -> ClassQueue:
    """An empty queue, shared by the processes that train together."""
    return ClassQueue(classes, size, channels, distributed.group.WORLD if distributed.is_initialized() else None)


SHORTEST = 1e-6
"""A mean of unit vectors that is shorter has no direction."""


@torch.no_grad()
def class_means(points: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The mean direction of each class in each image.

    Args:
        points: (N, channels, *space), vectors of any length.
        labels: (N, *space), classes of points, int64, some of them `IGNORED`.
        classes: their number.

    Returns:
        Unit vectors (M, channels) float32, one for each image and class that it holds, and the classes (M,).
    """
    units = normalize(points.float().flatten(2), dim=1)
    members = (labels.flatten(1)[..., None] == torch.arange(classes, device=labels.device)).to(units.dtype)
    sums = torch.einsum("ncp,npk->nkc", units, members).float()
    there = sums.norm(dim=2) > SHORTEST * members.sum(1)
    return normalize(sums[there], dim=1), there.nonzero()[:, 1]


def at_scale(values: Tensor, space: torch.Size) -> Tensor:
    """Values (N, *space) of points at another resolution, which float32 must hold: of each the one in its middle."""
    if values.shape[1:] == space:
        return values
    return interpolate(values[:, None].float(), space, mode="nearest-exact")[:, 0].to(values.dtype)
