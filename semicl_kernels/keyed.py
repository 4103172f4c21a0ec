"""The contrast with weights of anchors, with keys beside the points, and with a temperature that has a gradient.

Every loss here is put together of a backend's two functions over packed rows (docs/loss.md, "The primitive"):

    points x points    square: the points of a group meet each other
    anchors x points   rectangular, where most anchors have the weight 0: the others alone are rows
    anchors x keys     rectangular: all anchors meet the same keys

The log-sum-exps of an anchor are joined before any gradient is taken. The gradient of each part is then relative to all
that the anchor meets, and has the positives taken off before its products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import BACKENDS, Groups, Keys, Positives
from .partition import Partition, partition, reduction_weights, run_begins

CHANNELS_AT_ONCE = 8  # of the sums over positives, which are float64; more take more memory and no less time
PAIRS_AT_ONCE, WINDOW = 1 << 18, 4096  # of positives, that are held; columns of them


class Choices(NamedTuple):
    """Who contrasts with whom, and how the losses are reduced."""

    block_size: tuple[int, ...] | None
    per_image: bool
    other_classes_only: bool
    background: int | None
    ignore_index: int | None
    scale: float
    pairwise: bool  # whether each positive is compared with the negatives alone; only other classes then
    unit: bool  # whether points and keys have length 1
    reduction: str
    self_supervised: bool


class KeySet(NamedTuple):
    """Keys that every anchor meets."""

    values: Tensor  # (K, C)
    labels: Tensor | None  # (K,) integers; None: of no point's class
    weights: Tensor | None  # (K,) > 0
    differentiable: bool


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


def contrast(
    points: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    key_set: KeySet | None,
    choices: Choices,
    above: Tensor | None,
    with_gradient: bool,
    backend: str,
    share: Share | None = None,
) -> Result:
    """Return the losses of all points, and the gradients of their sum, each times its weight or ``above``.

    ``points`` is (M, C) in the order of ``labels`` (B, V, *space); ``weights`` and ``above`` are (M,) or None. With a
    ``share``, only the gradient by its points is computed, and that by keys and scale is its anchors' part.
    """
    keys = None if key_set is None else sorted_keys(key_set, choices.ignore_index)
    parts = partition_of(labels, keys, choices)
    order = parts.point_of_row
    names = labels.reshape(-1)[order]
    weight = parts.weights if weights is None else parts.weights * weights.double()[order]
    reduced = reduction_weights(weight, names, parts.offsets, choices.reduction)
    factor = reduced if above is None else torch.where(weight > 0, above.double()[order], 0.0)

    x, compute, own = points[order], BACKENDS[backend], weight
    if share is not None:
        is_own = (order >= share.begin) & (order < share.end)
        own = torch.where(is_own, weight, 0.0)
        pairs = [some_by_points(x, parts, own.nonzero()[:, 0])]
    else:
        pairs = [points_by_points(x, parts, weight if weights is not None else None)]
    means, count = positives_among_points(x, parts)
    if keys is not None:
        begin, end = range_of(names, keys)
        pairs.append(some_by_keys(x, own.nonzero()[:, 0], begin, end, keys, choices.other_classes_only))
        more, of_keys = positives_among_keys(x, begin, end, keys)
        means, count = means + more, count + of_keys
    count = count.clamp_min(torch.finfo(torch.float64).tiny)

    def by_points(values: Tensor) -> Tensor:
        return torch.empty_like(values).index_copy_(0, order, values)

    lse = torch.full_like(means, -torch.inf)
    for part in pairs:
        found = compute.forward(part.rows, part.keys, part.groups, choices.scale, None).double()
        if part.row_of is None:
            lse = found
        else:
            lse[part.row_of] = torch.logaddexp(lse[part.row_of], found)
    if share is not None:
        lse = share.gather(by_points(lse)[share.begin : share.end])[order]
    losses, slope = lse - choices.scale * means / count, torch.ones_like(lse)  # by the log-sum-exps
    if choices.pairwise:
        losses, slope = torch.zeros_like(lse), torch.zeros_like(lse)
        for part in pairs:
            active = part.rows_of(weight > 0)
            for total, found in zip(
                (losses, slope), softplus(part, part.rows_of(lse), active, choices.scale), strict=True
            ):
                total += found if part.row_of is None else torch.zeros_like(total).index_add_(0, part.row_of, found)
        losses, slope = losses / count, slope / count
        if share is not None:
            losses, slope = (share.gather(by_points(one)[share.begin : share.end])[order] for one in (losses, slope))
    losses = torch.where(weight > 0, losses, 0.0)
    if not with_gradient:
        nothing = x.new_zeros((0, x.shape[1]))
        return Result(by_points(losses), by_points(reduced), nothing, nothing.clone(), lse.new_zeros(()))

    pulls = torch.where(weight > 0, factor / count, 0.0)
    by_x, by_keys, by_scale = torch.zeros_like(x), x.new_zeros((0, x.shape[1])), lse.new_zeros(())

    def gradient(part: Part, with_rows: bool, with_keys: bool) -> tuple[Tensor, Tensor]:
        taken_off = None if choices.pairwise else Positives(part.class_begin, part.class_end, part.rows_of(pulls))
        of_rows = (part.rows_of(factor * slope), part.rows, part.keys, part.rows_of(lse), part.groups, taken_off)
        found = compute.backward(*of_rows, choices.scale, None, choices.unit, with_rows, with_keys)
        if choices.pairwise:
            wanted = (with_rows, with_keys or part.keys is None)
            more = softplus_gradient(part, part.rows_of(lse), part.rows_of(pulls), choices.scale, *wanted)
            found = (
                (found[0] + more[0] + more[1], found[1])
                if part.keys is None
                else (found[0] + more[0], found[1] + more[1])
            )
        return found

    for part in pairs:
        to_points = part.column_of is not None and share is None
        to_keys = part.keys is not None and part.column_of is None and keys is not None and keys.differentiable
        by_rows, by_columns = gradient(part, True, to_points or to_keys)
        # An exponent is scale times a product. By Euler's theorem sum_i x_i . dX_i is scale times the derivative by it,
        # and twice that where the rows are the columns too.
        along = (part.rows * by_rows).sum(dtype=torch.float64) / choices.scale
        by_scale += along / 2 if part.keys is None else along
        if part.row_of is None:
            by_x += by_rows
        else:
            by_x.index_add_(0, part.row_of, by_rows.to(by_x.dtype))
        if to_points and part.keys is not None:
            by_x += by_columns
        elif to_keys and keys is not None:
            by_keys = by_columns.new_zeros((keys.total, x.shape[1])).index_copy_(0, keys.order, by_columns)
    if share is not None:
        part = some_by_some(x, parts, weight.nonzero()[:, 0], is_own.nonzero()[:, 0])
        assert part.column_of is not None
        by_x.index_add_(0, part.column_of, gradient(part, False, True)[1].to(by_x.dtype))
    return Result(by_points(losses), by_points(reduced), by_points(by_x), by_keys, by_scale)


# ---- keys ------------------------------------------------------------------------------------------------------------


class SortedKeys(NamedTuple):
    values: Tensor  # (K, C), by label, in the dtype of the points
    labels: Tensor | None  # (K,) ascending
    weights: Tensor | None  # (K,) float64
    order: Tensor  # (K,) int64: which of the keys that were given
    total: int  # of those
    differentiable: bool


def sorted_keys(keys: KeySet, ignore_index: int | None) -> SortedKeys:
    """Return the keys by label, less those of the label that is ignored."""
    total = len(keys.values)
    if keys.labels is None:
        order = torch.arange(total, device=keys.values.device)
    else:
        order = torch.argsort(keys.labels, stable=True)
        if ignore_index is not None:
            order = order[keys.labels[order] != ignore_index]
    labels = None if keys.labels is None else keys.labels[order].contiguous()
    weights = None if keys.weights is None else keys.weights[order].double()
    return SortedKeys(keys.values[order].contiguous(), labels, weights, order, total, keys.differentiable)


def range_of(names: Tensor, keys: SortedKeys) -> tuple[Tensor, Tensor]:
    """Return [begin, end) of the keys of each point's class, int64; empty where there is none."""
    if keys.labels is None:
        nothing = torch.zeros_like(names, dtype=torch.int64)
        return nothing, nothing
    names = names.to(keys.labels.dtype).contiguous()
    begin = torch.searchsorted(keys.labels, names)
    return begin, torch.searchsorted(keys.labels, names, right=True)


# ---- who meets whom --------------------------------------------------------------------------------------------------


def partition_of(labels: Tensor, keys: SortedKeys | None, choices: Choices) -> Partition:
    """Return the partition of the points, with the weight 1 for anchors. A point's keys may make an anchor of it."""
    options = (
        choices.block_size,
        choices.per_image,
        choices.other_classes_only,
        choices.background,
        choices.ignore_index,
    )
    if keys is None:
        of_operator = torch.ops.semicl.partition(labels, *options, "sum", choices.self_supervised, False)
        return Partition(*of_operator)
    flat = labels.reshape(-1)
    begin, end = range_of(flat, keys)
    same = end - begin
    return partition(labels, *options, "sum", (same, len(keys.values) - same))


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


def some_by_keys(
    x: Tensor, rows: Tensor, begin: Tensor, end: Tensor, keys: SortedKeys, other_classes_only: bool
) -> Part:
    """Some of the packed points against the keys: one group, since the keys are those of all groups."""
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


# ---- each positive against the negatives -----------------------------------------------------------------------------


class Block(NamedTuple):
    """Some rows of one class against some of their positives, and how these count."""

    rows: slice
    columns: slice
    s: Tensor  # (rows, columns): products
    shares: Tensor  # likewise; 0 where the column is the row itself


def blocks_of_classes(part: Part, active: Tensor) -> Iterator[Block]:
    """Yield the pairs of the active rows with their positives, so many at a time; this waits for the device."""
    columns = part.rows if part.keys is None else part.keys.values
    itself = torch.arange(len(part.rows), device=columns.device) if part.keys is None else part.keys.itself
    begins = torch.where(active & (part.class_begin < part.class_end), part.class_begin, -1)
    names, counts = torch.unique_consecutive(torch.stack([begins, part.class_end], 1), dim=0, return_counts=True)
    first = 0
    for (begin, end), count in zip(names.tolist(), counts.tolist(), strict=True):
        rows_end = first + count
        height = max(1, PAIRS_AT_ONCE // max(1, min(end - begin, WINDOW)))
        for i in range(first, rows_end if begin >= 0 else first, height):
            rows = slice(i, min(i + height, rows_end))
            for j in range(begin, end, WINDOW):
                some = slice(j, min(j + WINDOW, end))
                number = torch.arange(some.start, some.stop, device=columns.device)
                shares = (itself[rows, None] != number).to(columns.dtype)
                if part.keys is not None and part.keys.weights is not None:
                    shares *= part.keys.weights[some]
                yield Block(rows, some, part.rows[rows] @ columns[some].T, shares)
        first = rows_end


def softplus(part: Part, lse: Tensor, active: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return (R,) float64: each row's sum over its positives of log(1 + exp(lse_i - s_ip)), and its slope by lse_i."""
    values, slopes = torch.zeros_like(lse), torch.zeros_like(lse)
    for rows, _, s, shares in blocks_of_classes(part, active):
        over = lse[rows, None].to(s.dtype) - scale * s
        values[rows] += (over.new_zeros(()).logaddexp(over) * shares).sum(1, dtype=torch.float64)
        slopes[rows] += (over.sigmoid() * shares).sum(1, dtype=torch.float64)
    return values, slopes


def softplus_gradient(
    part: Part, lse: Tensor, factor: Tensor, scale: float, with_rows: bool, with_columns: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients by rows and by columns of ``factor`` (R,) times :func:`softplus`, at fixed lse."""
    columns = part.rows if part.keys is None else part.keys.values
    by_rows = torch.zeros_like(part.rows if with_rows else part.rows[:0])
    by_columns = torch.zeros_like(columns if with_columns else columns[:0])
    for rows, some, s, shares in blocks_of_classes(part, factor != 0):
        w = (
            (lse[rows, None].to(s.dtype) - scale * s)
            .sigmoid_()
            .mul_(shares)
            .mul_((-scale * factor[rows, None]).to(s.dtype))
        )
        if with_rows:
            by_rows[rows].addmm_(w, columns[some])
        if with_columns:
            by_columns[some].addmm_(w.T, part.rows[rows])
    return by_rows, by_columns


# ---- positives -------------------------------------------------------------------------------------------------------


def positives_among_points(x: Tensor, parts: Partition) -> tuple[Tensor, Tensor]:
    """Return (M,) the sums of x_i . x_p over the other points p of i's class, and their number; float64."""
    sums = x.new_zeros(len(x), dtype=torch.float64)
    begins = parts.class_begin == torch.arange(len(x), dtype=torch.int32, device=x.device)
    for first in range(0, x.shape[1], CHANNELS_AT_ONCE):
        some = x[:, first : first + CHANNELS_AT_ONCE].double()
        sums += (some * (run_sums(some, begins) - some)).sum(1)
    return sums, (parts.class_end - parts.class_begin - 1).double()


def positives_among_keys(x: Tensor, begin: Tensor, end: Tensor, keys: SortedKeys) -> tuple[Tensor, Tensor]:
    """Return (M,) the sums of w_k x_i . y_k over the keys k of i's class, and of w_k; float64."""
    weights = keys.values.new_ones(len(keys.values), dtype=torch.float64) if keys.weights is None else keys.weights
    sums = x.new_zeros(len(x), dtype=torch.float64)

    if keys.labels is None or len(keys.labels) == 0:
        return sums, sums.clone()
    begins, some = run_begins(keys.labels), begin < end
    first_key = begin.clamp_max(len(keys.labels) - 1)

    def of_class(values: Tensor) -> Tensor:
        found = run_sums(values, begins)[first_key]
        return torch.where(some[:, None], found, 0.0)

    for first in range(0, x.shape[1], CHANNELS_AT_ONCE):
        channels = slice(first, first + CHANNELS_AT_ONCE)
        weighted = keys.values[:, channels].double() * weights[:, None]
        sums += (x[:, channels].double() * of_class(weighted)).sum(1)
    return sums, of_class(weights[:, None])[:, 0]


def run_sums(values: Tensor, begins: Tensor) -> Tensor:
    """Return (N, C): of each row the sum of its run, which ``begins`` (N,) tell; in one order on every device."""
    run = begins.cumsum(0) - 1
    edges = torch.searchsorted(run, torch.arange(len(run) + 1, device=run.device))
    return torch.segment_reduce(values, "sum", offsets=edges, axis=0, initial=0.0)[run]
