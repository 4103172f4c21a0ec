"""The contract of a backend: four functions on packed rows, the whole contrast from a map, and what they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

AVAILABLE = "available"
# Rows are counted in int32, by tiles and chunks that may reach past the last; kMaxRows of csrc/cuda/tile_scheduler.h.
MAX_ROWS = 2**31 - 1 - 4096
NORM_EPS = 1e-12  # a vector no longer has no direction; as torch.nn.functional.normalize
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


class Keys(NamedTuple):
    """What packed rows meet where that is not the rows themselves; integers are int32, on their device.

    The rows of group g meet the keys ``[begin[g], end[g])``; the ranges of two groups may overlap. Skips and classes of
    rows are then ranges of keys.
    """

    values: Tensor  # (K, C), in the dtype of the rows
    begin: Tensor  # (G,)
    end: Tensor  # (G,)
    itself: Tensor  # (M,): the key that a row is itself, or -1
    weights: Tensor | None  # (K,) float32, or rows' float64: what a key counts in denominators and positives; None: 1


class Forward(Protocol):
    def __call__(self, rows: Tensor, keys: Keys | None, groups: Groups, scale: float, bound: float | None) -> Tensor:
        """Return lse (M,): ``log sum over D(i) of w_j exp(scale x_i . y_j)`` for the anchors, 0 for other rows.

        ``rows`` is (M, C); without ``keys`` they are the keys, and w_j is 1. -inf where D(i) is empty. No product
        ``scale x_i . y_j + log w_j`` exceeds ``bound``, where it is given, i = j included. The result is float64 where
        rows are float64 or the backend knows it to so many digits, else float32.
        """


class Positives(NamedTuple):
    """The positives of packed rows and what a pair with one takes from its weight.

    Without keys skips are mutual, and what an anchor skips is itself or of its class.
    """

    class_begin: Tensor  # (M,) int32: keys [class_begin, class_end) but the row itself
    class_end: Tensor  # (M,) int32
    pulls: Tensor  # (M,) float32 or float64, 0 for rows that are no anchors
    # Whether a pair takes its share of the pull, sigmoid(lse_i - s_ij); no positive is in D(i) then.
    pairwise: bool = False


class PositiveSums(Protocol):
    def __call__(
        self, rows: Tensor, keys: Keys | None, groups: Groups, class_begin: Tensor, class_end: Tensor
    ) -> Tensor:
        """Return (M,) float64: ``sum w_p x_i . y_p`` over the positives p of the anchors, whatever for other rows."""


class Softplus(Protocol):
    def __call__(
        self, rows: Tensor, keys: Keys | None, groups: Groups, positives: Positives, lse: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return (M,) and (M,) float64, for the rows that pull: ``sum w_p log(1 + exp(lse_i - s_ip))`` over the
        positives p, ``s_ip = scale x_i . y_p``, and its derivative by ``lse_i``; whatever for other rows."""


class Backward(Protocol):
    def __call__(
        self,
        grad: Tensor,
        rows: Tensor,
        keys: Keys | None,
        lse: Tensor,
        groups: Groups,
        positives: Positives | None,
        scale: float,
        bound: float | None,
        unit_rows: bool,
        with_rows: bool,
        with_keys: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients by the rows (M, C) and, of any, by the keys (K, C), in the dtype of lse's arithmetic:

        ``scale sum_j W_ij y_j`` and ``scale sum_i W_ij x_i``, ``W_ij = w_j (grad_i exp(scale x_i . y_j - lse_i) [j in
        D(i)] - pulls_i [j in P(i)])``, where a pairwise pull counts ``sigmoid(lse_i - scale x_i . y_j)`` times. Without
        keys it is the sum of both, by the rows. ``lse`` (M,) is of these pairs and may be of more. ``unit_rows``: rows
        and keys have unit length, and only the gradient across them is wanted. With keys, either is left out where it
        is not wanted, and empty then.
        """


class Problem(NamedTuple):
    """A whole contrast: a map of features, how its M points are packed to rows, and what the rows are compared by."""

    features: Tensor  # (B, V, C, *space)
    row_of_point: Tensor  # (M,) int32: the row of each point of the map, -1 for points without one
    groups: Groups
    class_begin: Tensor  # (M,) int32: the rows of the row's class in its group are [class_begin, class_end)
    class_end: Tensor  # (M,) int32
    scale: float
    normalize: bool  # whether rows have unit length
    pairwise: bool  # whether each positive is compared with the negatives, which D(i) is then

    def positives(self, pulls: Tensor) -> tuple[Positives, Tensor]:
        """Return the positives of the rows, and (M,) how many each anchor has."""
        positives = Positives(self.class_begin, self.class_end, pulls, self.pairwise)
        return positives, (self.class_end - self.class_begin - 1).clamp_min(1)


class Fused(Protocol):
    """The whole contrast, from a feature map: the reduced loss, and the map of losses.

    The reduced loss has its gradient by the rows in the same pass: the weights of its rows are known from the labels
    alone (docs/loss.md, "Gradient in the forward"). ``weights`` is (M,) float64: what ``l_i`` of each row counts in the
    loss, at most 1 and one number for all of a class range, 0 where the row is no anchor.
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
    """One way to compute the primitive and the losses.

    ``forward`` and ``backward`` are the primitive. ``positive_sums`` and ``softplus`` are the terms of the positives,
    which positives.py has in PyTorch; a ``backward`` that knows no pairwise pulls is wrapped by its ``pairwise_apart``.

    ``state`` returns :data:`AVAILABLE` or the reason why not and what mends it; ``refuses`` returns the reason why a
    device, dtype, number of channels and bound cannot be taken, or None. The bound is a number that no product
    ``scale x_i . x_j`` exceeds, or None where none is known or a skip may not be mutual. ``fused`` is None for the
    reference alone, which starts from features and labels (ops.py). ``takes_pairwise`` says whether it takes problems
    that are pairwise; keyed.py composes them from the four functions where not. ``launches_triton`` says whether
    it launches Triton's kernels anyway, so that they make its partition too.
    """

    name: str
    state: Callable[[], str]
    refuses: Callable[[torch.device, torch.dtype, int, float | None], str | None]
    forward: Forward
    backward: Backward
    positive_sums: PositiveSums
    softplus: Softplus
    fused: Fused | None
    launches_triton: Callable[[], bool] = lambda: False
    takes_pairwise: bool = False


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over values of ``dtype``: float64 for itself, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32
