"""The whole contrast on a GPU: Triton kernels for all that is done by rows, around any backend's passes over pairs.

From a map to the loss and its gradient by the vectors, in six launches, whatever the number of groups: gather,
normalize and count the work; the pairs' exponentials; sums at the edges of tiles of rows; losses and row scales of the
anchors; the pairs' gradient, positives and all; joins and normalization. They are repeated for calls of the same
shapes (launch_cache.py); nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .base import MAX_SQUARED_NORM, Groups, Problem
from .device import OPTIONS, TILE_ELEMENTS, chip, padded
from .grad_scaling import level
from .launch_cache import empty, launch, repeat, zeros

# With exp(-2 x 32) every exponential is a normal number, and its inverse leaves float32 room for the gradients' sizes.
SAFE_BOUND = 32.0
LOG2_E = math.log2(math.e)
CHANNELS_AT_ONCE = 64  # of the passes over rows alone


class Pairs(Protocol):
    """A backend's passes over the pairs of packed rows (planes, M, C), and what the passes over rows share with them.

    Exponents are in base 2. Where ``bounded``, sums are relative to a fixed maximum, else a partial is a maximum and a
    sum relative to it: see triton_kernels/logsumexp.py and gradient.py.
    """

    @property
    def bounded(self) -> bool: ...

    @property
    def tile_rows(self) -> int:
        """Rows of a row tile."""

    @property
    def tile_ends(self) -> Tensor:
        """(G,) int32: the row tiles of all groups up to and with each."""

    @property
    def work_tables(self) -> tuple[Tensor, ...]:
        """What count_work of triton_kernels/tile_scheduler.py takes and writes, before any other pass."""

    @property
    def work_sizes(self) -> dict[str, Any]: ...

    @property
    def join_sizes(self) -> dict[str, Any]:
        """The constants of join of triton_kernels/logsumexp.py."""

    def join_numbers(self, sums: PartialSums) -> tuple[Any, ...]:
        """Return its numbers."""

    def partial_sums(self) -> PartialSums:
        """Return each anchor's sum in partials."""

    def gradient(
        self, row_scales: Tensor, grad_absmax: Tensor | None, out: Tensor, contrast: Contrast | None = None
    ) -> None:
        """Write the gradient by the rows of groups with an anchor to ``out`` (M, C), float32; by the vectors of the
        map, where ``contrast`` has a normalization.

        ``row_scales`` is (2, M): the scales of the rows and, where not ``bounded``, their shifts, both relative to
        ``grad_absmax``.
        """


class PartialSums(NamedTuple):
    """Sums of exponentials in partials, as join of triton_kernels/logsumexp.py takes them."""

    own: Tensor  # (1 or 2, BLOCKS M + 2 workers BLOCK_M) float32: sums of M tiles; maxima and sums, if not ``bounded``
    given: Tensor | None  # (M + workers COLUMNS,) float32: what anchors are given by M tiles before their own
    step_ends: Tensor  # (G BLOCKS,) int64


class Normalization(NamedTuple):
    """The map that rows were made from, each a vector scaled to unit length."""

    features: Tensor
    channel_stride: int
    vectors: Tensor  # (M,) int64: where a row's vector begins
    inverse_lengths: Tensor  # (M,) float32: what it was multiplied by, 0 where it has no direction


class Contrast(NamedTuple):
    """What the gradient of a whole contrast takes beside that of its log-sum-exps.

    The positives take pulls_i + pulls_j from the weights of rows i and j != i of one class range.
    """

    class_begin: Tensor  # (M,) int32
    class_end: Tensor  # (M,) int32
    pulls: Tensor  # (M,) float32, 0 for rows that are no anchors
    by_class: bool  # whether they are the same for all rows of a class range
    losses: Tensor | None = None  # (programs,) float64, whose sum the pass leaves, where it is wanted
    loss: Tensor | None = None  # () float32, there
    normalization: Normalization | None = None  # where the gradient is to be by the vectors

    @property
    def positives(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.class_begin, self.class_end, self.pulls

    @property
    def finish(self) -> tuple[Normalization | None, Tensor | None, Tensor | None]:
        return self.normalization, self.losses, self.loss


class Exponents(NamedTuple):
    """A pair's exponent in base 2, ``scale_log2 x_i . x_j``, and whether none exceeds ``shift``, to which all are then
    relative."""

    scale_log2: float
    bounded: bool
    shift: float


def exponents(scale: float, bound: float | None) -> Exponents:
    # Since the bound holds for a row's product with itself, no product of two rows is below minus the bound.
    if bound is None or scale <= 0 or abs(bound) > SAFE_BOUND:
        return Exponents(scale * LOG2_E, False, 0.0)
    return Exponents(scale * LOG2_E, True, bound * LOG2_E)


def grad_absmax_of(weights: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The largest weight, float64, by which weights of pairs of float16 rows are scaled; other dtypes have range
    enough."""
    return torch.linalg.vector_norm(weights, torch.inf).double() if dtype == torch.float16 else None


class Weighed(NamedTuple):
    """The weighted losses, and what their gradient needs of the passes that led to them."""

    losses: Tensor  # (programs,) float64: parts of their sum
    pairs: Pairs
    normalization: Normalization
    row_scales: Tensor  # (2, M), of Pairs.gradient
    pulls: Tensor  # (M,), of Contrast


@dataclass(frozen=True)
class GpuFused:
    """``Fused`` of base.py by a backend's passes over pairs.

    ``pairs`` makes them from rows, groups, scale and bound; ``planes`` says how many planes carry a problem's rows, and
    ``row_channels`` how many channels a row has for so many of the features.
    """

    pairs: Callable[[Tensor, Groups, float, float | None], Pairs]
    planes: Callable[[Problem], int]
    row_channels: Callable[[int], int]

    def loss(self, problem: Problem, weights: Tensor) -> Tensor:
        device = problem.features.device
        if len(problem.row_of_point) == 0:
            return torch.zeros((), dtype=torch.float32, device=device)
        grad_absmax, planes = grad_absmax_of(weights, problem.features.dtype), self.planes(problem)

        def loss() -> tuple[Tensor]:
            from ..triton_kernels import gradient

            losses, loss = self._weigh(problem, weights, grad_absmax, planes).losses, empty((), torch.float32, device)
            launch(gradient.sum_losses, (1,), losses, loss, len(losses), LOSSES=power_of_two(len(losses)), **OPTIONS)
            return (loss,)

        return self._repeated("loss", problem, weights, grad_absmax, planes, loss)[0]

    def contrast(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self._contrast(problem, weights, by_class=True)

    def anchor_losses(self, problem: Problem) -> Tensor:
        weights = torch.ones(len(problem.row_of_point), dtype=torch.float32, device=problem.features.device)
        if len(weights) == 0:
            return weights
        planes = self.planes(problem)

        def anchor_losses() -> tuple[Tensor]:
            each = zeros(weights.shape, torch.float32, weights.device)
            self._weigh(problem, weights, None, planes, each)
            return (each,)

        return self._repeated("anchor losses", problem, weights, None, planes, anchor_losses)[0]

    def map_gradient(self, problem: Problem, weights: Tensor, out: Tensor) -> None:
        weights, unit = level(weights, problem.groups)
        _, row_gradient = self._contrast(problem, weights, by_class=False)
        self.scatter(row_gradient.mul_(unit[:, None]), unit.new_ones(()), problem.row_of_point, out)

    def _contrast(self, problem: Problem, weights: Tensor, by_class: bool) -> tuple[Tensor, Tensor]:
        """``by_class``: the weights are the same for all of a class range."""
        features, count = problem.features, len(problem.row_of_point)
        shape = (count, self.row_channels(features.shape[2]))
        if count == 0:
            nothing = torch.zeros(shape, dtype=torch.float32, device=features.device)
            return nothing.sum(), nothing
        grad_absmax, planes = grad_absmax_of(weights, features.dtype), self.planes(problem)

        def contrast() -> tuple[Tensor, Tensor]:
            losses, pairs, normalization, row_scales, pulls = self._weigh(problem, weights, grad_absmax, planes)
            gradient, loss = (empty(size, torch.float32, features.device) for size in (shape, ()))
            found = normalization if problem.normalize else None
            contrast = Contrast(problem.class_begin, problem.class_end, pulls, by_class, losses, loss, found)
            pairs.gradient(row_scales, grad_absmax, gradient, contrast)
            return loss, gradient

        loss, gradient = self._repeated(f"contrast, {by_class}", problem, weights, grad_absmax, planes, contrast)
        return loss, gradient

    def scatter(self, row_gradient: Tensor, factor: Tensor, row_of_point: Tensor, out: Tensor) -> None:
        from ..triton_kernels import gather_scatter

        count, channels = len(row_gradient), out.shape[2]
        if count == 0:
            return
        factor, points = factor.float(), points_at_once(channels)

        def scatter() -> tuple[()]:
            launch(
                gather_scatter.scatter_rows,
                (-(-count // points),),
                row_gradient,
                factor,
                row_of_point,
                out,
                *gather_scatter.Layout.of(out),
                count,
                C=channels,
                ROW=row_gradient.shape[1],
                CP=padded(channels),
                POINTS=points,
                **OPTIONS,
            )
            return ()

        repeat("scatter", None, (row_gradient, factor, row_of_point, out), scatter)

    def _repeated(
        self,
        name: str,
        problem: Problem,
        weights: Tensor,
        grad_absmax: Tensor | None,
        planes: int,
        function: Callable[[], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        features, row_of_point, groups, class_begin, class_end, scale, normalize, _ = problem
        inputs = (features, row_of_point, *groups.tensors, class_begin, class_end, weights, grad_absmax)
        return repeat(name, (self, planes, groups.largest, groups.mutual, scale, normalize), inputs, function)

    def _weigh(
        self, problem: Problem, weights: Tensor, grad_absmax: Tensor | None, planes: int, each: Tensor | None = None
    ) -> Weighed:
        """Gather the rows of a map and weigh their losses, which are written to ``each`` (M,)."""
        features, scale = problem.features, problem.scale
        shape = (planes, len(problem.row_of_point), self.row_channels(features.shape[2]))
        rows = empty(shape, torch.bfloat16 if planes > 1 else features.dtype, features.device)
        pairs = self.pairs(rows, problem.groups, scale, scale * MAX_SQUARED_NORM if problem.normalize else None)
        normalization = gather(problem, rows, pairs)
        losses, row_scales, pulls = anchor_losses(rows, pairs, problem, weights, grad_absmax, each)
        return Weighed(losses, pairs, normalization, row_scales, pulls)


def points_at_once(channels: int) -> int:
    return max(16, TILE_ELEMENTS // padded(channels))


def power_of_two(count: int) -> int:
    """The least power of two that is ``count`` or more."""
    return 1 << (count - 1).bit_length()


def gather(problem: Problem, rows: Tensor, pairs: Pairs) -> Normalization:
    """Write the rows (planes, M, channels) of a map, zero past its own channels, and count the work of their pairs."""
    from ..triton_kernels import gather_scatter

    features, (planes, count, channels) = problem.features, rows.shape
    vectors, inverse_lengths = (empty((count,), dtype, features.device) for dtype in (torch.int64, torch.float32))
    points = points_at_once(channels)
    launch(
        gather_scatter.gather_rows,
        (-(-count // points),),
        features,
        *gather_scatter.Layout.of(features),
        problem.row_of_point,
        rows,
        vectors,
        inverse_lengths,
        *pairs.work_tables,
        count,
        NORMALIZE=problem.normalize,
        C=features.shape[2],
        ROW=channels,
        CP=padded(channels),
        POINTS=points,
        PLANES=planes,
        **pairs.work_sizes,
        **OPTIONS,
    )
    return Normalization(features, features.stride(2), vectors, inverse_lengths)


def sizes_of(rows: Tensor) -> dict[str, Any]:
    """The constants of the passes over rows alone."""
    planes, _, channels = rows.shape
    return {
        "C": channels,
        "CP": padded(channels),
        "WIDTH": min(CHANNELS_AT_ONCE, padded(channels)),
        "PLANES": planes,
        **OPTIONS,
    }


def warps_of(rows: Tensor) -> int:
    """The warps of a program that takes a tile of rows: more where a row has several planes to be held."""
    return 4 if len(rows) == 1 else 8


def class_edges(rows: Tensor, pairs: Pairs, problem: Problem) -> tuple[Tensor, Tensor]:
    """Return, for each row tile, (tiles, C) the sum of the class range of its first row, and likewise of its last
    anchor; written for tiles that have an anchor."""
    from ..triton_kernels import class_sums

    _, count, channels = rows.shape
    groups, total = problem.groups, len(problem.groups.anchors)
    sizes = {**sizes_of(rows), "TILE_ROWS": pairs.tile_rows}
    grid = (chip(rows.device).programs, sizes.pop("CP") // sizes["WIDTH"])
    shape = (count // pairs.tile_rows + total, channels)  # of no more tiles
    heads, tails = (empty(shape, torch.float32, rows.device) for _ in range(2))
    where = (groups.offsets, groups.anchors, pairs.tile_ends)
    launch(class_sums.sum_edges, grid, rows, problem.class_begin, *where, heads, tails, count, total, **sizes)
    return heads, tails


def anchor_losses(
    rows: Tensor, pairs: Pairs, problem: Problem, weights: Tensor, grad_absmax: Tensor | None, each: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return parts (programs,) of the weighted loss, the row_scales (2, M) of its gradient by the log-sum-exps and the
    pulls (M,) of the positives."""
    from ..triton_kernels import class_sums

    count, programs = rows.shape[1], chip(rows.device).programs
    row_scales, pulls = empty((2, count), torch.float32, rows.device), empty((count,), torch.float32, rows.device)
    losses, sums = empty((programs,), torch.float64, rows.device), pairs.partial_sums()
    launch(
        class_sums.anchor_losses,
        (programs,),
        rows,
        *sums,
        *class_edges(rows, pairs, problem),
        weights,
        problem.class_begin,
        problem.class_end,
        problem.groups.offsets,
        problem.groups.anchors,
        pairs.tile_ends,
        *row_scales,
        pulls,
        each,
        losses,
        *pairs.join_numbers(sums),
        problem.scale,
        grad_absmax,
        BOUNDED=pairs.bounded,
        **pairs.join_sizes,
        num_warps=warps_of(rows),
        **sizes_of(rows),
    )
    return losses, row_scales, pulls
