"""The algorithm of the paper's authors, written anew from its description: dense in every block, no maximum subtracted.

A convolution whose kernels are the features themselves builds all (points x points) similarities of a block; masks over
them pick positives and denominators, background rows included; a Python loop goes over the blocks and asks the host
whether a block has any foreground. Autograd keeps several such matrices of every block until the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .problems import BACKGROUND, TEMPERATURE, Problem, blocks_of, identities


def loss(problem: Problem) -> Tensor:
    """Return the block-divided loss, a scalar, of float features (B, V, C, H, W)."""
    features = F.normalize(problem.features, dim=2)
    total, used = features.new_zeros(()), 0
    for tile, labels in zip(
        blocks_of(features, problem.block), blocks_of(identities(problem), problem.block), strict=True
    ):
        if not bool((labels != BACKGROUND).any()):
            continue
        total, used = total + block_loss(tile, labels), used + 1
    return total / max(used, 1)


def block_loss(tile: Tensor, labels: Tensor) -> Tensor:
    x = tile.movedim(2, -1).flatten(0, -2)
    y = labels.reshape(-1, 1)
    similarity = F.conv2d(x.T[None, :, :, None], x[:, :, None, None])[0, :, :, 0] / TEMPERATURE
    others = 1 - torch.eye(len(x), dtype=x.dtype, device=x.device)
    positives = (y == y.T).to(x.dtype) * others * (y != BACKGROUND).to(x.dtype)
    exponentials = similarity.exp() * others
    log_probability = similarity - exponentials.sum(1, keepdim=True).log()
    counts = positives.sum(1)
    means = (positives * log_probability).sum(1) / counts.clamp(min=1)
    return -means.sum() / (counts > 0).sum().clamp(min=1)
