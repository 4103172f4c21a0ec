"""The local contrastive loss as the options describe it, losses of all devices' batches, and weights that grow."""

import math

from torch import distributed, nn

from semicl.options import LocalLossOptions
from semicl_kernels import LocalContrastiveLoss, NTXentLoss

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


def local_contrast(options: LocalLossOptions) -> LocalContrastiveLoss:
    """The loss that the options describe."""
    return LocalContrastiveLoss(
        temperature=options.temperature,
        stride=options.stride,
        block_size=options.block_size,
        scope=options.scope,
        denominator=options.denominator,
    )
