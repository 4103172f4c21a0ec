"""The strongest plain PyTorch: rows restricted to anchors, the positive term collapsed to sums of classes.

Of vectors it is the code in common use: cross entropy of the similarities for NT-Xent, a mask for SupCon.

This, and not the dense code that is in common use, is what a fused kernel has to beat. Nothing here is written by hand
that autograd can do; one (anchors x points) matrix of each block is kept until the backward pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .problems import BACKGROUND, TEMPERATURE, Problem, blocks_of, identities


def loss(problem: Problem) -> Tensor:
    """Return the block-divided loss, a scalar, of float features (B, V, C, H, W)."""
    if problem.vectors is not None:
        return vector_loss(problem.vectors, problem.labels)
    features = F.normalize(problem.features, dim=2)
    blocks = zip(blocks_of(features, problem.block), blocks_of(identities(problem), problem.block), strict=True)
    means = [mean for tile, labels in blocks if (mean := block_loss(tile, labels)) is not None]
    return torch.stack(means).mean() if means else features.sum() * 0


def vector_loss(vectors: Tensor, labels: Tensor | None) -> Tensor:
    """Return NT-Xent of samples (N, V, C) in two views or, with labels (N, V, 1, 1), SupCon."""
    x = F.normalize(vectors, dim=2).transpose(0, 1).flatten(0, 1)
    similarity = (x @ x.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    if labels is None:
        return F.cross_entropy(similarity, torch.arange(len(x), device=x.device).roll(len(x) // 2))
    y = labels.transpose(0, 1).flatten()
    positives = (y == y[:, None]).fill_diagonal_(False)
    log_probability = similarity.log_softmax(1).masked_fill(~positives, 0)
    return -(log_probability.sum(1) / positives.sum(1)).mean()


def block_loss(tile: Tensor, labels: Tensor) -> Tensor | None:
    """Return the mean over the anchors of one block of features (B, V, C, h, w), or None where there is none."""
    x = tile.movedim(2, -1).flatten(0, -2)
    y = labels.flatten()
    counts = y.bincount()
    anchors = ((y != BACKGROUND) & (counts[y] > 1)).nonzero()[:, 0]
    if len(anchors) == 0:
        return None
    own = x[anchors]
    similarity = own @ x.T / TEMPERATURE
    similarity[torch.arange(len(anchors), device=x.device), anchors] = -torch.inf
    return (similarity.logsumexp(1) - positive_means(x, y, counts, anchors)).mean()


def positive_means(x: Tensor, y: Tensor, counts: Tensor, anchors: Tensor) -> Tensor:
    """Return (A,): the mean similarity of each of the ``anchors`` with the other points of its class.

    ``x`` (N, C) are the points, ``y`` (N,) their classes and ``counts`` the points of every class.
    """
    own, kind = x[anchors], y[anchors]
    sums = x.new_zeros(len(counts), x.shape[1]).index_add(0, y, x)
    return (own * (sums[kind] - own)).sum(1) / ((counts[kind] - 1) * TEMPERATURE)
