"""The pure-PyTorch backend: any device, any float dtype, O(M C) memory.

Each group's anchors are taken in strips and its points in windows, so that one tile of similarities exists at a time.
The forward joins the windows' log-sum-exps; the gradient makes weights of each tile and multiplies them into its rows
and, transposed, into its columns. Sums are float32, float64 for float64 rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .base import AVAILABLE, NORM_EPS, Backend, Groups, Keys, Positives, Problem, accumulator
from .grad_scaling import level
from .positives import positive_sums, softplus

TILE = 1 << 20  # similarities held at a time: 4 MB in float32, which stays in most caches
WINDOW = 4096  # columns of a tile at most


class Group(NamedTuple):
    """The anchors of a group and its columns: rows, or keys."""

    anchors: slice
    columns: slice


def live_groups(groups: Groups, keys: Keys | None = None) -> Iterator[Group]:
    """Yield every group that has an anchor; this waits for the device."""
    offsets, anchors = groups.offsets.tolist(), groups.anchors.tolist()
    begins, ends = (offsets, offsets[1:]) if keys is None else (keys.begin.tolist(), keys.end.tolist())
    for first, count, begin, end in zip(offsets, anchors, begins, ends, strict=False):
        if count > 0:
            yield Group(slice(first, first + count), slice(begin, end))


def in_denominator(groups: Groups, rows: slice, columns: slice) -> Tensor:
    """Return (rows, columns) bool: whether the column is in the row's denominator."""
    column = torch.arange(columns.start, columns.stop, device=groups.skip_begin.device)
    return (column < groups.skip_begin[rows, None]) | (column >= groups.skip_end[rows, None])


def strips(group: Group) -> Iterator[tuple[slice, list[slice]]]:
    """Yield the rows of each strip of a group's anchors and the columns of its tiles."""
    anchors, columns = group
    window = max(1, min(columns.stop - columns.start, WINDOW))
    height = max(1, TILE // window)
    windows = [slice(j, min(j + window, columns.stop)) for j in range(columns.start, columns.stop, window)]
    for i in range(anchors.start, anchors.stop, height):
        yield slice(i, min(i + height, anchors.stop)), windows


def similarities(rows: Tensor, columns: Tensor, groups: Groups, tile: tuple[slice, slice], scale: float) -> Tensor:
    """Return the tile's scale x_i . y_j, -inf outside D(i)."""
    s = (rows[tile[0]] @ columns[tile[1]].T).mul_(scale)
    return s.masked_fill_(~in_denominator(groups, *tile), -torch.inf)


# ---- the primitive ---------------------------------------------------------------------------------------------------


def columns_of(rows: Tensor, keys: Keys | None) -> tuple[Tensor, Tensor | None]:
    """Return the columns (K, C) and the logarithms (K,) of their weights, in the dtype of the rows."""
    if keys is None:
        return rows, None
    return keys.values.to(rows.dtype), None if keys.weights is None else keys.weights.to(rows.dtype).log()


def forward(rows: Tensor, keys: Keys | None, groups: Groups, scale: float, bound: float | None) -> Tensor:
    wide = rows.to(accumulator(rows.dtype))
    columns, log_weights = columns_of(wide, keys)
    lse = wide.new_zeros(len(rows), dtype=torch.float64)
    with torch.autocast(rows.device.type, enabled=False):
        for group in live_groups(groups, keys):
            lse[group.anchors] = -torch.inf
            for strip, windows in strips(group):
                maxima, totals = [], []
                for window in windows:
                    s = similarities(wide, columns, groups, (strip, window), scale)
                    if log_weights is not None:
                        s.add_(log_weights[window])
                    maxima.append(s.amax(1))
                    totals.append(s.sub_(finite(maxima[-1])[:, None]).exp_().sum(1))
                if windows:
                    largest = torch.stack(maxima).amax(0)
                    total = (torch.stack(totals) * (torch.stack(maxima) - finite(largest)).exp()).sum(0)
                    lse[strip] = largest.double() + total.double().log()
    return lse


def finite(maxima: Tensor) -> Tensor:
    """Return maxima to be subtracted: 0 where nothing is in a denominator."""
    return maxima.masked_fill(maxima == -torch.inf, 0)


class Side(NamedTuple):
    """Rows or keys less their means, and their sums of ``W_ij`` times what is centered of the other side.

    The sum of ``W_ij y_j`` over j is that of ``W_ij (y_j - mean)`` plus the mean times that of ``W_ij``. Where unit
    vectors lie around one direction it is far smaller than its partial sums, and rounds as they do. Vectors of any
    length have the mean 0: a long one would round away the short ones.
    """

    rows: Tensor  # (M, C), less the means
    means: Tensor  # (M, C) or (1, C)
    sums: Tensor  # (M, C), of weights times centered rows of the other side
    totals: Tensor  # (M,) float64, of weights

    @classmethod
    def of(cls, rows: Tensor, means: Tensor) -> Side:
        return cls(rows - means, means, torch.zeros_like(rows), rows.new_zeros(len(rows), dtype=torch.float64))

    @classmethod
    def around_one_mean(cls, rows: Tensor, unit_rows: bool) -> Side:
        return cls.of(
            rows, rows.mean(0, keepdim=True) if unit_rows and len(rows) > 0 else rows.new_zeros(1, rows.shape[1])
        )

    @classmethod
    def of_groups(cls, rows: Tensor, groups: Groups, unit_rows: bool) -> Side:
        means = torch.zeros_like(rows)
        if unit_rows:
            for group in live_groups(groups):
                means[group.columns] = rows[group.columns].mean(0)
        return cls.of(rows, means)

    def add(self, at: slice, weights: Tensor, other: Tensor) -> None:
        """Add the products of weights and some of the other side's centered rows."""
        self.sums[at].addmm_(weights, other)
        # A product with ones would sum one after the other, which rounds far more.
        self.totals[at] += weights.sum(1)

    def gradient(self, other: Side) -> Tensor:
        return self.sums.addcmul(self.totals[:, None].to(other.means.dtype), other.means)


class Among(NamedTuple):
    """The columns of a tile among which its rows have their positives, and which those are."""

    columns: slice  # of the tile
    are: Tensor  # (rows, columns) bool


def positives_in(
    class_begin: Tensor, class_end: Tensor, itself: Tensor | None, tile: tuple[slice, slice]
) -> Among | None:
    strip, window = tile
    begin, end = class_begin[strip], class_end[strip]
    # Rows are sorted by class; some have none.
    some = begin < end
    first = max(window.start, int(torch.where(some, begin, window.stop).amin()))
    last = min(window.stop, int(torch.where(some, end, 0).amax()))
    if first >= last:
        return None
    column = torch.arange(first, last, device=begin.device)
    row = torch.arange(strip.start, strip.stop, device=begin.device) if itself is None else itself[strip]
    are = (column >= begin[:, None]) & (column < end[:, None]) & (column != row[:, None])
    return Among(slice(first - window.start, last - window.start), are)


def backward(
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
    wide = rows.to(accumulator(rows.dtype))
    columns, log_weights = columns_of(wide, keys)
    own = Side.of_groups(wide, groups, unit_rows) if keys is None else Side.around_one_mean(wide, unit_rows)
    other = own if keys is None else Side.around_one_mean(columns, unit_rows)
    itself = None if keys is None else keys.itself
    lse, grad = lse.double(), scale * grad.double()
    with torch.autocast(rows.device.type, enabled=False):
        for group in live_groups(groups, keys):
            for strip, windows in strips(group):
                # Relative to its rounded value, and what it was rounded by is in the factor. Where D(i) is empty every
                # similarity is -inf: any finite shift gives the zero weights that are due.
                exact = finite(lse[strip])
                shift = exact.to(wide.dtype)
                factor = (grad[strip] * (shift.double() - exact).exp()).to(wide.dtype)
                for window in windows:
                    tile = (strip, window)
                    w = similarities(wide, columns, groups, tile, scale)
                    if log_weights is not None:
                        w.add_(log_weights[window])
                    w.sub_(shift[:, None]).exp_().mul_(factor[:, None])
                    among = None
                    if positives is not None:
                        among = positives_in(positives.class_begin, positives.class_end, itself, tile)
                    if positives is not None and among is not None:
                        pulls = among.are * (scale * positives.pulls[strip, None]).to(w.dtype)
                        if keys is not None and keys.weights is not None:
                            pulls *= keys.weights[window][among.columns].to(w.dtype)
                        if positives.pairwise:
                            s = scale * (wide[strip] @ columns[window][among.columns].T)
                            pulls *= (lse[strip, None].to(s.dtype) - s).sigmoid_()
                        w[:, among.columns].sub_(pulls)
                    if with_rows or keys is None:
                        own.add(strip, w, other.rows[window])
                    if with_keys or keys is None:
                        other.add(window, w.T, own.rows[strip])
    if keys is None:
        return own.gradient(own), wide[:0]
    return own.gradient(other) if with_rows else wide[:0], other.gradient(own) if with_keys else columns[:0]


# ---- the whole contrast ----------------------------------------------------------------------------------------------


class Gathered(NamedTuple):
    rows: Tensor  # (M, C), of unit length where that is asked for; zeros for points that have no part in the loss
    lengths: Tensor  # (M, 1): those they had


def gather(problem: Problem) -> Gathered:
    features, row_of_point = problem.features, problem.row_of_point
    count, channels = len(row_of_point), features.shape[2]
    rows = features.new_zeros((count + 1, channels), dtype=accumulator(features.dtype))
    # One row past the last is for the points without one.
    target = torch.where(row_of_point < 0, count, row_of_point).long()
    rows.index_copy_(0, target, features.movedim(2, -1).reshape(-1, channels).to(rows.dtype))
    rows = rows[:count]
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return Gathered(rows / lengths.clamp_min(NORM_EPS) if problem.normalize else rows, lengths)


class TiledFused:
    """``Fused`` of base.py in tiles: of a strip's similarities come its losses and then, of the same
    ones where a window holds the whole group, its gradient."""

    def row_channels(self, channels: int) -> int:
        return channels

    def anchor_losses(self, problem: Problem) -> Tensor:
        return losses_and_gradient(gather(problem), problem, None)[0]

    def loss(self, problem: Problem, weights: Tensor) -> Tensor:
        losses = self.anchor_losses(problem)
        return torch.dot(weights, losses.double()).to(losses.dtype)

    def contrast(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        gathered = gather(problem)
        losses, gradient = losses_and_gradient(gathered, problem, weights)
        if problem.normalize:
            gradient = undo_normalization(gradient, gathered)
        return torch.dot(weights, losses.double()).to(losses.dtype), gradient

    def map_gradient(self, problem: Problem, weights: Tensor, out: Tensor) -> None:
        unit = weights.new_ones(len(weights))
        if weights.dtype == torch.float32:
            weights, unit = level(weights, problem.groups)
        _, gradient = self.contrast(problem, weights.double())
        self.scatter(gradient.mul_(unit[:, None]), unit.new_ones(()), problem.row_of_point, out)

    def scatter(self, row_gradient: Tensor, factor: Tensor, row_of_point: Tensor, out: Tensor) -> None:
        batch, views, channels, *space = out.shape
        if len(row_of_point) == 0:
            return
        points = row_gradient[row_of_point.clamp_min(0).long()].mul_(factor)
        points = torch.where(row_of_point[:, None] >= 0, points, 0)
        out.copy_(points.reshape(batch, views, *space, channels).movedim(-1, 2))


def losses_and_gradient(gathered: Gathered, problem: Problem, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (M,) the anchors' losses and, where there are ``weights`` (M,) of them, the gradient of their weighted sum
    by the rows; each window's weights of the positives are taken off before its products (docs/loss.md)."""
    rows, groups, scale = gathered.rows, problem.groups, problem.scale
    losses = rows.new_zeros(len(rows))
    side = Side.of_groups(rows, groups, problem.normalize) if weights is not None else None
    with torch.autocast(rows.device.type, enabled=False):
        for group in live_groups(groups):
            for strip, windows in strips(group):
                counts = (problem.class_end[strip] - problem.class_begin[strip] - 1)[:, None]
                means, maxima, totals = rows.new_zeros((len(counts), 1)), [], []
                for columns in windows:
                    tile = (strip, columns)
                    s = (rows[strip] @ rows[columns].T).mul_(scale)
                    positives = positives_in(problem.class_begin, problem.class_end, None, tile)
                    if positives is not None:
                        among = s[:, positives.columns].masked_fill(~positives.are, 0)
                        means += among.div_(counts).sum(1, keepdim=True)
                    s.masked_fill_(~in_denominator(groups, *tile), -torch.inf)
                    maxima.append(s.amax(1, keepdim=True))
                    s.sub_(maxima[-1].masked_fill(maxima[-1] == -torch.inf, 0)).exp_()
                    totals.append(s.sum(1, keepdim=True))
                largest = torch.stack(maxima).amax(0)
                total = (torch.stack(totals) * (torch.stack(maxima) - largest).exp()).sum(0)
                losses[strip] = (largest - means + total.log())[:, 0]
                if weights is None or side is None:
                    continue
                factor = scale * weights[strip, None]
                for columns in windows:
                    tile = (strip, columns)
                    if len(windows) > 1:
                        s = similarities(rows, rows, groups, tile, scale).sub_(largest).exp_()
                        positives = positives_in(problem.class_begin, problem.class_end, None, tile)
                    s.mul_((factor / total).to(s.dtype))
                    if positives is not None:
                        s[:, positives.columns].sub_(positives.are * (factor / counts).to(s.dtype))
                    side.add(strip, s, side.rows[columns])
                    side.add(columns, s.T, side.rows[strip])
    return losses, rows[:0] if side is None else side.gradient(side)


def undo_normalization(gradient: Tensor, gathered: Gathered) -> Tensor:
    """Return the gradient by the rows before they were normalized: its part across them, over their lengths."""
    rows, lengths = gathered
    across = gradient - (gradient * rows).sum(1, keepdim=True) * rows
    return torch.where(lengths > NORM_EPS, across / lengths, 0)


def refuses(device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str | None:
    return None


BACKEND = Backend("tiled", lambda: AVAILABLE, refuses, forward, backward, positive_sums, softplus, TiledFused())
