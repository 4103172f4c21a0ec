"""The contrast with weights of anchors, with keys beside the points, and with a temperature that has a gradient.

Every loss here is put together of a backend's two functions over packed rows (docs/loss.md, "The primitive"):

    points x points    square: the points of a group meet each other
    anchors x points   rectangular, where most anchors have the weight 0: the others alone are rows
    anchors x keys     rectangular: all anchors meet the same keys

The log-sum-exps of an anchor are joined before any gradient is taken. The gradient of each part is then relative to all
that the anchor meets, and has the positives taken off before its products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backends import BACKENDS, Groups, Keys, Positives
from .backends.positives import Ranges
from .partition import Partition, partition, reduction_weights


class KeyedProblem(NamedTuple):
    """A whole contrast of points, and of keys that every anchor meets, in the order of KEYED in ops.py."""

    points: Tensor  # (M, C), in the order of labels
    keys: Tensor | None  # (K, C)
    scale: Tensor  # () float64, on the CPU
    labels: Tensor  # (B, V, *space) integers
    weights: Tensor | None  # (M,)
    key_labels: Tensor | None  # (K,) integers; None: of no point's class
    key_weights: Tensor | None  # (K,) > 0
    block_size: Sequence[int] | None
    per_image: bool
    other_classes_only: bool
    background: int | None
    ignore_index: int | None
    pairwise: bool  # whether each positive is compared with the negatives alone; only other classes then
    unit: bool  # whether points and keys have length 1
    reduction: str
    self_supervised: bool

    @classmethod
    def unflat(cls, arguments: Sequence[Any]) -> tuple[KeyedProblem, Sequence[Any]]:
        """Return the problem that an operator's arguments begin with, and the others."""
        count = len(cls._fields)
        return cls(*arguments[:count]), arguments[count:]


class Result(NamedTuple):
    losses: Tensor  # (M,) float64, by points; 0 where there is no anchor
    weights: Tensor  # (M,) float64, by points: what each counts in the reduced loss
    by_points: Tensor  # (M, C); this and the others only where a gradient was asked for
    by_keys: Tensor  # (K, C)
    by_scale: Tensor  # () float64


class Share(NamedTuple):
    """The part of the points that this process holds, where others hold the rest."""

    begin: int  # its points are [begin, end)
    end: int
    gather: Callable[[Tensor], Tensor]  # from values (end - begin,) of its points to those (M,) of all


class Part(NamedTuple):
    """Some of the pairs: rows, of the packed points, and what they meet."""

    row_of: Tensor | None  # (R,) int64: the packed point of each row; None: all of them
    rows: Tensor  # (R, C)
    keys: Keys | None  # None: the rows themselves
    groups: Groups
    class_begin: Tensor  # (R,) int32: a row's positives are [class_begin, class_end) of what it meets, but itself
    class_end: Tensor
    column_of: Tensor | None  # (K,) int64: the packed point of each key; None: keys are no points

    def rows_of(self, values: Tensor) -> Tensor:
        return values if self.row_of is None else values[self.row_of]

    def to_points(self, values: Tensor, points: int) -> Tensor:
        """Return values (R,) of the rows as (points,) of the packed points, 0 where there is no row."""
        return values if self.row_of is None else values.new_zeros(points).index_copy_(0, self.row_of, values)

    def positives(self, pulls: Tensor, pairwise: bool) -> Positives:
        return Positives(self.class_begin, self.class_end, self.rows_of(pulls), pairwise)


def contrast(
    problem: KeyedProblem,
    above: Tensor | None,
    with_gradient: bool,
    with_keys: bool,
    backend: str,
    share: Share | None = None,
) -> Result:
    """Return the losses of all points, and the gradients of their sum, each times its weight or ``above``.

    ``above`` is (M,) or None. With a ``share``, only the gradient by its points is computed, and that by keys and scale
    is its anchors' part.
    """
    scale, weights, other_classes_only = float(problem.scale), problem.weights, problem.other_classes_only
    keys = sorted_keys(problem)
    parts = partition_of(problem, keys)
    order = parts.point_of_row
    names = problem.labels.reshape(-1)[order]
    weight = parts.weights if weights is None else parts.weights * weights.double()[order]
    reduced = reduction_weights(weight, names, parts.offsets, problem.reduction)
    factor = reduced if above is None else torch.where(weight > 0, above.double()[order], 0.0)

    x, compute, own_weight = problem.points[order], BACKENDS[backend], weight
    if share is not None:
        is_own = (order >= share.begin) & (order < share.end)
        own_weight = torch.where(is_own, weight, 0.0)
        pairs = [some_by_points(x, parts, own_weight.nonzero()[:, 0])]
    else:
        pairs = [points_by_points(x, parts, weight if weights is not None else None)]
    count = (parts.class_end - parts.class_begin - 1).double()
    if keys is not None:
        pairs.append(some_by_keys(x, own_weight.nonzero()[:, 0], names, keys, other_classes_only))
        count = count + weight_of_class(names, keys)
    count = count.clamp_min(torch.finfo(torch.float64).tiny)

    def by_points(values: Tensor) -> Tensor:
        return torch.empty_like(values).index_copy_(0, order, values)

    def of_all(values: Tensor) -> Tensor:
        return values if share is None else share.gather(by_points(values)[share.begin : share.end])[order]

    lse = torch.full_like(count, -torch.inf)
    for part in pairs:
        of_part = compute.forward(part.rows, part.keys, part.groups, scale, None).double()
        if part.row_of is None:
            lse = of_part
        else:
            lse[part.row_of] = torch.logaddexp(lse[part.row_of], of_part)
    lse = of_all(lse)
    if problem.pairwise:
        losses, slope = torch.zeros_like(lse), torch.zeros_like(lse)  # slope: by the log-sum-exps
        for part in pairs:
            positives = part.positives((weight > 0).double(), problem.pairwise)
            compared = compute.softplus(part.rows, part.keys, part.groups, positives, part.rows_of(lse), scale)
            for total, of_part in zip((losses, slope), compared, strict=True):
                total += part.to_points(of_part, len(x))
        losses, slope = of_all(losses / count), of_all(slope / count)
    else:
        of_points = (x, None, parts.groups(len(x)), parts.class_begin, parts.class_end)
        sums, slope = compute.positive_sums(*of_points), torch.ones_like(lse)
        if keys is not None:
            every = weight.nonzero()[:, 0]
            part = pairs[-1] if share is None else some_by_keys(x, every, names, keys, other_classes_only)
            more = compute.positive_sums(part.rows, part.keys, part.groups, part.class_begin, part.class_end)
            sums += part.to_points(more, len(x))
        losses = lse - scale * sums / count
    losses = torch.where(weight > 0, losses, 0.0)
    if not with_gradient:
        nothing = x.new_zeros((0, x.shape[1]))
        return Result(by_points(losses), by_points(reduced), nothing, nothing.clone(), lse.new_zeros(()))

    pulls = torch.where(weight > 0, factor / count, 0.0)
    by_x: Tensor | None = None
    by_keys, by_scale = x.new_zeros((0, x.shape[1])), lse.new_zeros(())

    def gradient(part: Part, with_rows: bool, with_keys: bool) -> tuple[Tensor, Tensor]:
        positives = part.positives(pulls, problem.pairwise)
        of_rows = (part.rows_of(factor * slope), part.rows, part.keys, part.rows_of(lse), part.groups, positives)
        return compute.backward(*of_rows, scale, None, problem.unit, with_rows, with_keys)

    for part in pairs:
        to_points = part.column_of is not None and share is None
        to_keys = part.keys is not None and part.column_of is None and with_keys
        by_rows, by_columns = gradient(part, True, to_points or to_keys)
        # An exponent is scale times a product. By Euler's theorem sum_i x_i . dX_i is scale times the derivative by it,
        # and twice that where the rows are the columns too.
        along = (part.rows * by_rows).sum(dtype=torch.float64) / scale
        by_scale += along / 2 if part.keys is None else along
        if part.row_of is None:
            by_x = by_rows.to(x.dtype)
        else:
            if by_x is None:  # of the first part, whose keys are the points
                by_x = by_columns.to(x.dtype) if to_points else torch.zeros_like(x)
            by_x.index_add_(0, part.row_of, by_rows.to(x.dtype))
        if to_keys and keys is not None:
            by_keys = by_columns.new_zeros((keys.total, x.shape[1])).index_copy_(0, keys.order, by_columns)
    if share is not None:
        part = some_by_some(x, parts, weight.nonzero()[:, 0], is_own.nonzero()[:, 0])
        assert part.column_of is not None
        assert by_x is not None
        by_x.index_add_(0, part.column_of, gradient(part, False, True)[1].to(by_x.dtype))
    assert by_x is not None
    return Result(by_points(losses), by_points(reduced), by_points(by_x), by_keys, by_scale)


# ---- keys ------------------------------------------------------------------------------------------------------------


class SortedKeys(NamedTuple):
    values: Tensor  # (K, C), by label, in the dtype of the points
    labels: Tensor | None  # (K,) ascending
    weights: Tensor | None  # (K,) float64
    order: Tensor  # (K,) int64: which of the keys that were given
    total: int  # of those


def sorted_keys(problem: KeyedProblem) -> SortedKeys | None:
    """Return the keys by label, less those of the label that is ignored."""
    values, labels, weights = problem.keys, problem.key_labels, problem.key_weights
    if values is None:
        return None
    if labels is None:
        order = torch.arange(len(values), device=values.device)
    else:
        order = torch.argsort(labels, stable=True)
        if problem.ignore_index is not None:
            order = order[labels[order] != problem.ignore_index]
        labels = labels[order].contiguous()
    weights = None if weights is None else weights[order].double()
    return SortedKeys(values[order].contiguous(), labels, weights, order, len(values))


def range_of(names: Tensor, keys: SortedKeys) -> tuple[Tensor, Tensor]:
    """Return [begin, end) of the keys of each point's class, int64; empty where there is none."""
    if keys.labels is None:
        nothing = torch.zeros_like(names, dtype=torch.int64)
        return nothing, nothing
    names = names.to(keys.labels.dtype).contiguous()
    begin = torch.searchsorted(keys.labels, names)
    return begin, torch.searchsorted(keys.labels, names, right=True)


def weight_of_class(names: Tensor, keys: SortedKeys) -> Tensor:
    """Return (M,) float64: the weight of all keys of each point's class."""
    begin, end = range_of(names, keys)
    if keys.weights is None:
        return (end - begin).double()
    return Ranges.of(begin, end, len(keys.weights)).sums(keys.weights[:, None])[:, 0]


# ---- who meets whom --------------------------------------------------------------------------------------------------


def partition_of(problem: KeyedProblem, keys: SortedKeys | None) -> Partition:
    """Return the partition of the points, with the weight 1 for anchors. A point's keys may make an anchor of it."""
    labels, blocks = problem.labels, None if problem.block_size is None else tuple(problem.block_size)
    others = (problem.per_image, problem.other_classes_only, problem.background, problem.ignore_index)
    options = (blocks, *others, "sum")
    if keys is None:
        return Partition(*torch.ops.semicl.partition(labels, *options, problem.self_supervised, False))
    flat = labels.reshape(-1)
    begin, end = range_of(flat, keys)
    same = end - begin
    return partition(labels, *options, (same, len(keys.values) - same))


def points_by_points(x: Tensor, parts: Partition, weight: Tensor | None) -> Part:
    selected = None if weight is None else fewer_rows(weight, parts)
    if selected is not None:
        return some_by_points(x, parts, selected)
    every = torch.arange(len(x), device=x.device)
    return Part(None, x, None, parts.groups(len(x)), parts.class_begin, parts.class_end, every)


def fewer_rows(weight: Tensor, parts: Partition) -> Tensor | None:
    """Return the rows with a weight where to take them alone saves products, else None.

    With b of the a anchors of n points, 4 b n C of them instead of 4 a (n - a / 2) C. On a GPU to count them would wait
    for the device.
    """
    if weight.device.type != "cpu":
        return None
    selected = weight.nonzero()[:, 0]
    points, anchors = parts.offsets.diff().double(), parts.anchors.double()
    saves = points[group_of(selected, parts)].sum() < (anchors * (points - anchors / 2)).sum()
    return selected if saves else None


def group_of(rows: Tensor, parts: Partition) -> Tensor:
    return torch.searchsorted(parts.offsets, rows.to(torch.int32), right=True) - 1


def offsets_of(rows: Tensor, parts: Partition) -> Tensor:
    """Return (G + 1,) int32: where the groups begin among some of the packed points, in their order."""
    return torch.searchsorted(rows, parts.offsets.long()).to(torch.int32)


def some_by_points(x: Tensor, parts: Partition, rows: Tensor) -> Part:
    """Some of the packed points against all of their groups."""
    return some_by_some(x, parts, rows, None)


def some_by_some(x: Tensor, parts: Partition, rows: Tensor, columns: Tensor | None) -> Part:
    """Some of the packed points against some of their groups, or all of them."""
    skips, ranges = (parts.skip_begin, parts.skip_end), (parts.class_begin, parts.class_end)
    skip_begin, skip_end, class_begin, class_end = (one[rows] for one in (*skips, *ranges))
    offsets, itself, values = parts.offsets, rows.to(torch.int32), x
    if columns is not None:
        # Of every packed point, and past the last one, how many columns come before it.
        before = torch.zeros(len(x) + 1, dtype=torch.int32, device=x.device)
        before[columns + 1] = 1
        before = before.cumsum(0).to(torch.int32)
        is_column = before[rows + 1] > before[rows]
        itself = torch.where(is_column, before[rows], -1)
        skip_begin, skip_end, class_begin, class_end, offsets = (
            before[one.long()] for one in (skip_begin, skip_end, class_begin, class_end, offsets)
        )
        values = x[columns]
    row_offsets = offsets_of(rows, parts)
    groups = Groups(row_offsets, row_offsets.diff(), skip_begin, skip_end, len(rows), False)
    keys = Keys(values, offsets[:-1].contiguous(), offsets[1:].contiguous(), itself, None)
    column_of = torch.arange(len(x), device=x.device) if columns is None else columns
    return Part(rows, x[rows], keys, groups, class_begin, class_end, column_of)


def some_by_keys(x: Tensor, rows: Tensor, names: Tensor, keys: SortedKeys, other_classes_only: bool) -> Part:
    """Some of the packed points, by class, against the keys: one group, since the keys are those of all groups."""
    begin, end = range_of(names, keys)
    rows = rows[torch.argsort(begin[rows], stable=True)]
    count, device = len(rows), x.device

    def integers(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    class_begin, class_end = begin[rows].to(torch.int32), end[rows].to(torch.int32)
    nothing = torch.zeros_like(class_begin)
    skips = (class_begin, class_end) if other_classes_only else (nothing, nothing)
    groups = Groups(integers(0, count), integers(count), *skips, count, False)
    weights = None if keys.weights is None else keys.weights.to(x.dtype)
    met = Keys(keys.values, integers(0), integers(len(keys.values)), nothing - 1, weights)
    return Part(rows, x[rows], met, groups, class_begin, class_end, None)
