"""What a backend is: two functions on packed rows, and what they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

AVAILABLE = "available"
# Rows scaled to unit length are up to 2^-8 longer than one in bfloat16.
MAX_SQUARED_NORM = 1.01


class Groups(NamedTuple):
    """Packed rows cut into groups; the tensors are int32 and on the rows' device.

    Group g is the rows ``[offsets[g], offsets[g + 1])`` and its first ``anchors[g]`` rows are its anchors. Anchor i's
    denominator D(i) is the rows of its group outside ``[skip_begin[i], skip_end[i])``. Rows past ``offsets[-1]`` belong
    to no group. Two promises let a backend plan without a look at the tensors: no group has more than ``largest`` rows,
    and where ``mutual`` row j lies in i's range exactly when i lies in j's.
    """

    offsets: Tensor  # (G + 1,)
    anchors: Tensor  # (G,)
    skip_begin: Tensor  # (M,)
    skip_end: Tensor  # (M,)
    largest: int
    mutual: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.offsets, self.anchors, self.skip_begin, self.skip_end


class Forward(Protocol):
    def __call__(self, rows: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
        """Return lse (M,): ``log sum over D(i) of exp(scale x_i . x_j)`` for the anchors, 0 for other rows.

        ``rows`` is (M, C). The result is float64 for float64 rows, else float32; -inf where D(i) is empty. No product
        ``scale x_i . x_j`` exceeds ``bound``, where it is given, i = j included.
        """


class Backward(Protocol):
    def __call__(
        self, grad: Tensor, rows: Tensor, lse: Tensor, groups: Groups, scale: float, bound: float | None
    ) -> Tensor:
        """Return the gradient (M, C) of ``sum_i grad_i lse_i`` by the rows, in their dtype."""


class Problem(NamedTuple):
    """A whole contrast: a map of features, how its M points are packed to rows, and what the rows are compared by."""

    features: Tensor  # (B, V, C, *space)
    row_of_point: Tensor  # (M,) int32: the row of each point of the map, -1 for points without one
    groups: Groups
    class_begin: Tensor  # (M,) int32: the rows of the row's class in its group are [class_begin, class_end)
    class_end: Tensor  # (M,) int32
    scale: float
    normalize: bool  # whether rows have unit length


class Fused(Protocol):
    """The whole contrast, from a feature map: the reduced loss, and the map of losses.

    The reduced loss has its gradient by the rows in the same pass: the weights of its rows are known from the labels
    alone (docs/loss.md, "Gradient in the forward"). ``weights`` is (M,) float64: what ``l_i`` of each row counts in the
    loss, at most 1 and one number for all of a class run, 0 where the row is no anchor.
    """

    def row_channels(self, channels: int) -> int:
        """Return how many channels the row gradient has for so many of the features."""

    def contrast(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``sum_i weights_i l_i`` (a scalar) and its gradient by the gathered rows; both float64 for float64
        features, else float32."""

    def loss(self, problem: Problem, weights: Tensor) -> Tensor:
        """Return the first of :meth:`contrast`'s two alone."""

    def scatter(self, row_gradient: Tensor, factor: Tensor, row_of_point: Tensor, out: Tensor) -> None:
        """Write ``factor`` times the row gradient to the map ``out``, contiguous or with its channels innermost."""

    def anchor_losses(self, problem: Problem) -> Tensor:
        """Return (M,), in the dtype of the loss: ``l_i`` of every row that is an anchor, 0 for other rows."""

    def map_gradient(self, problem: Problem, weights: Tensor, out: Tensor) -> None:
        """Write the gradient of ``sum_i weights_i l_i`` by the features to the map ``out``, which is as scatter's.

        ``weights`` is (M,), in the dtype of the loss, of any size; those of rows that are no anchors do not count.
        """


@dataclass(frozen=True)
class Backend:
    """One way to compute the primitive.

    ``state`` returns :data:`AVAILABLE` or the reason why not and what mends it; ``refuses`` returns the reason why a
    device, dtype, number of channels and bound cannot be taken, or None. The bound is a number that no product
    ``scale x_i . x_j`` exceeds, or None where none is known or a skip may not be mutual. ``fused`` is None for the
    reference alone, which starts from features and labels (ops.py). ``launches_triton`` says whether the whole contrast
    launches Triton's kernels anyway, so that they make its partition too.
    """

    name: str
    state: Callable[[], str]
    refuses: Callable[[torch.device, torch.dtype, int, float | None], str | None]
    forward: Forward
    backward: Backward
    fused: Fused | None
    launches_triton: Callable[[], bool] = lambda: False


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over values of ``dtype``: float64 for itself, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32
