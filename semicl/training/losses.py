"""The local contrastive loss as the options describe it, and losses of all devices' batches."""

from torch import distributed, nn

from semicl.options import LocalLossOptions
from semicl_kernels import LocalContrastiveLoss, NTXentLoss


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
