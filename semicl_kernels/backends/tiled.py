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

from .base import AVAILABLE, Backend, Groups, Problem, accumulator
from .grad_scaling import level

TILE = 1 << 20  # similarities held at a time: 4 MB in float32, which stays in most caches
WINDOW = 4096  # columns of a tile at most
NORM_EPS = 1e-12  # a vector no longer has no direction; as torch.nn.functional.normalize


def live_groups(groups: Groups) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, rows, anchors) of every group that has an anchor; this waits for the device."""
    offsets, anchors = groups.offsets.tolist(), groups.anchors.tolist()
    for begin, end, count in zip(offsets, offsets[1:], anchors, strict=False):
        if count > 0:
            yield begin, end - begin, count


def in_denominator(groups: Groups, rows: slice, columns: slice) -> Tensor:
    """Return (rows, columns) bool: whether the column is in the row's denominator."""
    column = torch.arange(columns.start, columns.stop, device=groups.skip_begin.device)
    return (column < groups.skip_begin[rows, None]) | (column >= groups.skip_end[rows, None])


def strips(begin: int, points: int, count: int) -> Iterator[tuple[slice, list[slice]]]:
    """Yield the rows of each strip of a group's anchors and the columns of its tiles."""
    window = min(points, WINDOW)
    height = max(1, TILE // window)
    end = begin + points
    columns = [slice(j, min(j + window, end)) for j in range(begin, end, window)]
    for i in range(begin, begin + count, height):
        yield slice(i, min(i + height, begin + count)), columns


def similarities(rows: Tensor, groups: Groups, tile: tuple[slice, slice], scale: float) -> Tensor:
    """Return the tile's scale x_i . x_j, -inf outside D(i)."""
    s = (rows[tile[0]] @ rows[tile[1]].T).mul_(scale)
    return s.masked_fill_(~in_denominator(groups, *tile), -torch.inf)


# ---- the primitive ---------------------------------------------------------------------------------------------------


def forward(rows: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    wide = rows.to(accumulator(rows.dtype))
    lse = wide.new_zeros(len(rows))
    with torch.autocast(rows.device.type, enabled=False):
        for group in live_groups(groups):
            for strip, windows in strips(*group):
                parts = [similarities(wide, groups, (strip, columns), scale).logsumexp(1) for columns in windows]
                lse[strip] = torch.stack(parts).logsumexp(0)
    return lse


def backward(grad: Tensor, rows: Tensor, lse: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    wide = rows.to(lse.dtype)
    sums = torch.zeros_like(wide)
    with torch.autocast(rows.device.type, enabled=False):
        for group in live_groups(groups):
            for strip, windows in strips(*group):
                own = lse[strip, None]
                # Where D(i) is empty every similarity is -inf: any finite shift gives the zero weights that are due.
                shift, factor = own.masked_fill(own == -torch.inf, 0), scale * grad[strip, None]
                for columns in windows:
                    s = similarities(wide, groups, (strip, columns), scale)
                    add_products(sums, wide, (strip, columns), s.sub_(shift).exp_().mul_(factor))
    return sums.to(rows.dtype)


def add_products(sums: Tensor, rows: Tensor, tile: tuple[slice, slice], weights: Tensor) -> None:
    """Multiply the weights of a tile into its rows and into its columns."""
    strip, columns = tile
    sums[strip].addmm_(weights, rows[columns])
    sums[columns].addmm_(weights.T, rows[strip])


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


class Positives(NamedTuple):
    """The columns of a tile among which its rows have their positives, and which those are."""

    columns: slice  # of the tile
    are: Tensor  # (rows, columns) bool


def positives_in(problem: Problem, tile: tuple[slice, slice]) -> Positives | None:
    strip, columns = tile
    # Rows are sorted by class.
    first = max(columns.start, int(problem.class_begin[strip.start]))
    last = min(columns.stop, int(problem.class_end[strip.stop - 1]))
    if first >= last:
        return None
    column = torch.arange(first, last, device=problem.class_begin.device)
    row = torch.arange(strip.start, strip.stop, device=column.device)[:, None]
    are = (column >= problem.class_begin[strip, None]) & (column < problem.class_end[strip, None]) & (column != row)
    return Positives(slice(first - columns.start, last - columns.start), are)


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


class Centered(NamedTuple):
    """Sums of ``W_ij x_j`` over j, as those of ``W_ij (x_j - mean)`` and of ``W_ij`` alone.

    The mean is that of the group. Where unit vectors lie around one direction, the sum of ``W_ij x_j`` is far smaller
    than its partial sums, and rounds as they do. Vectors of any length have the mean 0: a long one would round away the
    short ones.
    """

    rows: Tensor  # (M, C), less the means
    means: Tensor  # (M, C)
    sums: Tensor  # (M, C), of weights times centered rows
    totals: Tensor  # (M,), of weights

    @classmethod
    def of(cls, rows: Tensor, problem: Problem) -> Centered:
        means = torch.zeros_like(rows)
        if problem.normalize:
            for begin, points, _ in live_groups(problem.groups):
                means[begin : begin + points] = rows[begin : begin + points].mean(0)
        return cls(rows - means, means, torch.zeros_like(rows), rows.new_zeros(len(rows), dtype=torch.float64))

    def add(self, tile: tuple[slice, slice], weights: Tensor) -> None:
        add_products(self.sums, self.rows, tile, weights)
        # A product with ones would sum one after the other, which rounds far more.
        self.totals[tile[0]] += weights.sum(1)
        self.totals[tile[1]] += weights.sum(0)

    def gradient(self) -> Tensor:
        return self.sums.addcmul(self.totals[:, None].to(self.means.dtype), self.means)


def losses_and_gradient(gathered: Gathered, problem: Problem, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (M,) the anchors' losses and, where there are ``weights`` (M,) of them, the gradient of their weighted sum
    by the rows; each window's weights of the positives are taken off before its products (docs/loss.md)."""
    rows, groups, scale = gathered.rows, problem.groups, problem.scale
    losses = rows.new_zeros(len(rows))
    centered = Centered.of(rows, problem) if weights is not None else None
    with torch.autocast(rows.device.type, enabled=False):
        for group in live_groups(groups):
            for strip, windows in strips(*group):
                counts = (problem.class_end[strip] - problem.class_begin[strip] - 1)[:, None]
                means, maxima, totals = rows.new_zeros((len(counts), 1)), [], []
                for columns in windows:
                    tile = (strip, columns)
                    s = (rows[strip] @ rows[columns].T).mul_(scale)
                    positives = positives_in(problem, tile)
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
                if weights is None or centered is None:
                    continue
                factor = scale * weights[strip, None]
                for columns in windows:
                    tile = (strip, columns)
                    if len(windows) > 1:
                        s = similarities(rows, groups, tile, scale).sub_(largest).exp_()
                        positives = positives_in(problem, tile)
                    s.mul_((factor / total).to(s.dtype))
                    if positives is not None:
                        s[:, positives.columns].sub_(positives.are * (factor / counts).to(s.dtype))
                    centered.add(tile, s)
    return losses, rows[:0] if centered is None else centered.gradient()


def undo_normalization(gradient: Tensor, gathered: Gathered) -> Tensor:
    """Return the gradient by the rows before they were normalised: its part across them, over their lengths."""
    rows, lengths = gathered
    across = gradient - (gradient * rows).sum(1, keepdim=True) * rows
    return torch.where(lengths > NORM_EPS, across / lengths, 0)


def refuses(device: torch.device, dtype: torch.dtype, channels: int, bound: float | None) -> str | None:
    return None


BACKEND = Backend("tiled", lambda: AVAILABLE, refuses, forward, backward, TiledFused())
