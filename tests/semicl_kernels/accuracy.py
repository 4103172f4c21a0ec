"""The one rule of accuracy: against float64, at most twice as wrong as plain PyTorch in the same dtype.

"Plain PyTorch" is the backend `reference` run in that dtype. It can be right by luck, the likelier the fewer numbers
there are and the more of them cancel; so the rule allows a floor: a few roundings of the accumulating dtype, and one
rounding of the input's dtype spread over the anchors, both of the numbers as they are before they cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """How large the numbers are from which a loss and its gradient are made."""

    dtype: torch.dtype  # of the input
    exponent: float  # no |s| exceeds it
    anchors: int
    gradient: float  # norm of one of the gradient's terms, which all but cancel when positives and softmax agree

    @property
    def rounding(self) -> float:
        """Relative error of exp(s) when s is rounded a few times in the accumulating dtype."""
        accumulates_in = torch.float64 if self.dtype == torch.float64 else torch.float32
        return 8 * torch.finfo(accumulates_in).eps * (1 + self.exponent)

    @property
    def input_rounding(self) -> float:
        return torch.finfo(self.dtype).eps / 2


def largest(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def assert_values_follow_rule(actual: Tensor, plain: Tensor, truth: Tensor, sizes: Sizes) -> None:
    """Of the log-sum-exps or losses of anchors."""
    actual, plain, truth = actual.double(), plain.double(), truth.double()
    floor = sizes.rounding * max(1.0, largest(truth))
    floor += sizes.input_rounding * sizes.exponent / max(1, sizes.anchors) ** 0.5
    assert_no_larger(largest(actual - truth), largest(plain - truth), floor, "largest error")


def assert_reduced_follows_rule(
    actual: Tensor, plain_map: Tensor, true_map: Tensor, truth: Tensor, sizes: Sizes, weight: float
) -> None:
    """A sum of `weight` anchors may be as wrong as so many typical anchors: its own plain error may vanish by luck."""
    error = (plain_map.double() - true_map.double()).norm() / max(1, sizes.anchors) ** 0.5
    floor = sizes.rounding * max(1.0, largest(true_map))
    floor += sizes.input_rounding * sizes.exponent / max(1, sizes.anchors) ** 0.5
    assert_no_larger(largest(actual.double() - truth), weight * float(error), weight * floor, "error")


def assert_gradients_follow_rule(actual: Tensor, plain: Tensor, truth: Tensor, sizes: Sizes) -> None:
    """As one vector: its distance from the truth, its part across the truth (the cosine), its largest entry's error."""
    assert actual.dtype == sizes.dtype
    assert actual.shape == truth.shape
    actual, plain, truth = actual.double().flatten(), plain.double().flatten(), truth.double().flatten()
    floor = (sizes.rounding + sizes.input_rounding) * sizes.gradient
    assert_no_larger(float((actual - truth).norm()), float((plain - truth).norm()), floor, "distance")
    assert_no_larger(across(actual, truth), across(plain, truth), floor, "part across the true gradient")
    assert_no_larger(largest(actual - truth), largest(plain - truth), floor, "largest entry's error")


def across(vector: Tensor, direction: Tensor) -> float:
    along = torch.dot(vector, direction) / direction.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float((vector - along * direction).norm())


def assert_no_larger(error: float, plain_error: float, floor: float, what: str) -> None:
    assert error <= 2 * plain_error + floor, f"{what} {error:.3g}; plain PyTorch's {plain_error:.3g}, floor {floor:.3g}"
