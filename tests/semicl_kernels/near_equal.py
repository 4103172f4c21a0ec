"""Features as a trained network has them, nearly equal within a class, and the error of a gradient by them.

Softmax and positive weights are then nearly equal too, and a gradient that multiplies them apart and subtracts
afterwards has lost its digits. Plain PyTorch is the backend ``reference``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from semicl_kernels import local_contrastive_loss

TEMPERATURE = 0.1


def features_of(labels: Tensor, channels: int, spread: float, one_direction: bool, seed: int = 0) -> Tensor:
    """Return (1, 1, C, 1, N) float64: the direction of each point's class, or of all, and ``spread`` times noise."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(int(labels.max()) + 1, channels, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), channels, generator=generator, dtype=torch.float64)
    around = normalize(centers, dim=1)[torch.zeros_like(labels) if one_direction else labels]
    return (around + spread * normalize(noise, dim=1)).T[None, None, :, None]


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
    options: dict[str, Any] = {"temperature": TEMPERATURE, "denominator": denominator, "reduction": reduction}

    def of(function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            found = function(x, labels[None, None, None], **options)
            return found if reduction == "block" else (found.flatten() * weights).sum()

        return value

    plain = of(partial(local_contrastive_loss, backend="reference"))
    truth = gradient_by(plain, features.double())
    return float((gradient_by(of(loss), features) - truth).norm() / (gradient_by(plain, features) - truth).norm())
