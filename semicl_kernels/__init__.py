"""Exact, memory-linear contrastive losses for pixels and vectors, on compiled kernels or plain PyTorch.

>>> loss = local_contrastive_loss(features, labels, temperature=0.1, block_size=16)
"""

from .backends import available_backends
from .loss import (
    LocalContrastiveLoss,
    NTXentLoss,
    SupervisedContrastiveLoss,
    local_contrastive_loss,
    nt_xent_loss,
    supervised_contrastive_loss,
)
from .ops import grouped_logsumexp
from .queue import ClassQueue

__all__ = [
    "ClassQueue",
    "LocalContrastiveLoss",
    "NTXentLoss",
    "SupervisedContrastiveLoss",
    "available_backends",
    "grouped_logsumexp",
    "local_contrastive_loss",
    "nt_xent_loss",
    "supervised_contrastive_loss",
]
