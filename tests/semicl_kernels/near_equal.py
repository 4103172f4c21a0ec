"""Features as a trained network has them, nearly equal within a class, and the loss of them in plain PyTorch.

Softmax and positive weights are then nearly equal too, and a gradient that multiplies them apart and subtracts
afterwards has lost its digits. The plain loss is the matrix of similarities and its masks, in the features' dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

TEMPERATURE = 0.1


def features_of(labels: Tensor, channels: int, spread: float, one_direction: bool, seed: int = 0) -> Tensor:
    """Return (1, 1, C, 1, N) float64: the direction of each point's class, or of all, and ``spread`` times noise."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(int(labels.max()) + 1, channels, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), channels, generator=generator, dtype=torch.float64)
    around = normalize(centers, dim=1)[torch.zeros_like(labels) if one_direction else labels]
    return (around + spread * normalize(noise, dim=1)).T[None, None, :, None]


def anchor_losses(
    features: Tensor, labels: Tensor, denominator: str = "all", temperature: float = TEMPERATURE, unit: bool = True
) -> Tensor:
    """Return the losses of the anchors among points in one group; background is 0."""
    x = features[0, 0, :, 0].T
    x = normalize(x, dim=1) if unit else x
    s = x @ x.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool)
    same = labels[:, None] == labels
    positive = same & ~itself
    anchor = (labels != 0) & positive.any(1)
    lse = s.masked_fill(itself if denominator == "all" else same, -torch.inf).logsumexp(1)
    return (lse - (s * positive).sum(1) / positive.sum(1))[anchor]


def gradient_by(loss: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    leaf = features.detach().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0].double()


def error_ratio(
    loss: Callable[..., Tensor], labels: Tensor, features: Tensor, denominator: str, reduction: str = "block"
) -> float:
    """Return how many times plain PyTorch's error in the dtype of the features the gradient of ``loss`` has.

    A map of losses ("none") is weighted unevenly.
    """
    weights = torch.linspace(-1, 2, len(labels), dtype=torch.float64)

    def plain(x: Tensor) -> Tensor:
        each = anchor_losses(x, labels, denominator)
        return each.mean() if reduction == "block" else (each * weights[labels != 0]).sum()

    def tested(x: Tensor) -> Tensor:
        options: dict[str, Any] = {"temperature": TEMPERATURE, "denominator": denominator, "reduction": reduction}
        value = loss(x, labels[None, None, None], **options)
        return value if reduction == "block" else (value.flatten() * weights).sum()

    truth = gradient_by(plain, features.double())
    return float((gradient_by(tested, features) - truth).norm() / (gradient_by(plain, features) - truth).norm())
