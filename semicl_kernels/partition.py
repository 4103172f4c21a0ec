"""From labels to groups: who contrasts with whom (docs/loss.md), without a look at the features.

The points of a map (B, V, *space) are sorted by group and, inside a group, anchors first and by class, so that a class
is one run of rows and the anchors are the first rows. Everything has a size known from the shapes and stays on the
labels' device: nothing waits for the host.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import Groups

MAX_CACHED = 1 << 20  # points of a map whose groups are remembered: 8 MiB of four maps at most
SORTED_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)  # what every torch can sort


class Partition(NamedTuple):
    """The rows of the M = B V prod(space) points, in packed order; int32 but for ``point_of_row`` and ``weights``."""

    point_of_row: Tensor  # (M,) int64: the point that each row holds, in the order of the map
    row_of_point: Tensor  # (M,): the row of each point, -1 in groups without an anchor and for points left out
    offsets: Tensor  # (G + 1,): first rows of the groups; rows past the last hold the points left out
    anchors: Tensor  # (G,): anchors of each group, its first rows
    skip_begin: Tensor  # (M,): the rows [skip_begin, skip_end) are not in the row's denominator
    skip_end: Tensor  # (M,)
    class_begin: Tensor  # (M,): the rows of the row's class in its group are [class_begin, class_end)
    class_end: Tensor  # (M,)
    weights: Tensor  # (M,) float64: what l_i of each row counts in the reduced loss, 0 where it is no anchor

    def groups(self, largest: int) -> Groups:
        """The groups, none of more than ``largest`` rows. Both denominators skip mutually: oneself, or one's class."""
        return Groups(self.offsets, self.anchors, self.skip_begin, self.skip_end, largest, True)


def places(shape: torch.Size, device: torch.device) -> Tensor:
    """Return labels (B, V, *space) of the shape that tell every place of every image apart, the same in all views."""
    batch, _, *space = shape
    numbers = torch.arange(batch * math.prod(space), device=device)
    return numbers.reshape(batch, 1, *space).expand(shape)


def group_count(shape: torch.Size, block_size: tuple[int, ...] | None, per_image: bool) -> int:
    """The number of groups of labels of this shape (B, V, *space)."""
    blocks = 1
    for size, edge in zip(shape[2:], block_edges(shape, block_size), strict=True):
        blocks *= -(-size // edge)
    return blocks * (shape[0] if per_image else 1)


def largest_group(shape: torch.Size, block_size: tuple[int, ...] | None, per_image: bool) -> int:
    """The number of points that no group of labels of this shape (B, V, *space) exceeds."""
    points = shape[1] * (1 if per_image else shape[0])
    for size, edge in zip(shape[2:], block_edges(shape, block_size), strict=True):
        points *= min(size, edge)
    return points


def block_edges(shape: torch.Size, block_size: tuple[int, ...] | None) -> list[int]:
    """The edges of a block of labels of this shape (B, V, *space), at least 1 even where there is no point."""
    return [max(edge, 1) for edge in block_size or shape[2:]]


def captured(device: torch.device) -> bool:
    """Whether a CUDA graph records what is launched on the device now."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def group_of_point(
    shape: torch.Size, block_size: tuple[int, ...] | None, per_image: bool, device: torch.device
) -> Tensor:
    """Return (M,) int64: the group of every point. Blocks at the edge may be smaller; no point is lost."""
    if captured(device) or shape.numel() > MAX_CACHED:
        # A CUDA graph keeps what it makes itself, and would go on reading what the cache has let go. Of a large map to
        # make them takes little beside its sort, and to keep them much memory.
        return _group_of_point(shape, block_size, per_image, device)
    return _remembered(shape, block_size, per_image, device, stream_of(device))


def stream_of(device: torch.device) -> int:
    """The stream that work on the device is put on; another one would not wait for what this one makes."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def _group_of_point(
    shape: torch.Size, block_size: tuple[int, ...] | None, per_image: bool, device: torch.device, stream: int = 0
) -> Tensor:
    block = torch.zeros((), dtype=torch.int64, device=device)
    space = shape[2:]
    for size, edge in zip(space, block_edges(shape, block_size), strict=True):
        along = torch.arange(size, device=device).div(edge, rounding_mode="floor")
        block = block[..., None] * -(-size // edge) + along
    image = torch.arange(shape[0], device=device) * (group_count(shape, block_size, False) if per_image else 0)
    grid = image.reshape(-1, 1, *[1] * len(space)) + block
    return grid.expand(shape).reshape(-1)


# By the stream too, which the function does not use: another one would have to wait for what this one makes.
_remembered = lru_cache(maxsize=4)(_group_of_point)


def stable_order(labels: Tensor, group: Tensor) -> Tensor:
    """Return the order of the points by group, then by label, then as they come."""
    by_label = torch.argsort(labels, stable=True)
    return by_label[torch.argsort(group[by_label], stable=True)]


def runs(changes: Tensor) -> tuple[Tensor, Tensor]:
    """Return first and one-past-last position of each position's run; ``changes[i]``: i begins a run."""
    count = len(changes)
    position = torch.arange(count, device=changes.device)
    low = torch.where(changes, position, 0).cummax(0).values
    ends = torch.cat([changes[1:], changes.new_ones(1)])
    high = torch.where(ends, position + 1, count).flip(0).cummin(0).values.flip(0)
    return low, high


def partition(
    labels: Tensor,
    block_size: tuple[int, ...] | None,
    per_image: bool,
    other_classes_only: bool,
    background: int | None,
    ignore_index: int | None,
    reduction: str,
    key_counts: tuple[Tensor, Tensor] | None = None,
) -> Partition:
    """Partition the points of ``labels`` (B, V, *space), any integer dtype.

    ``per_image``: groups do not cross images. ``other_classes_only``: a denominator leaves out the anchor's own class,
    else the anchor alone. Points of the label ``background`` are never anchors; those of ``ignore_index`` are left out.
    An anchor has another point of its class and a point in its denominator. ``key_counts`` are (M,), (M,): keys of each
    point's class and others, which count as points of every group. ``reduction``: "block", "anchor", "class" or "sum"
    (docs/loss.md); "none" gives the weights of "sum".
    """
    device, total = labels.device, labels.numel()
    group_total = group_count(labels.shape, block_size, per_image)
    flat = (labels if labels.dtype in SORTED_INTEGERS else labels.long()).reshape(-1)
    group = group_of_point(labels.shape, block_size, per_image, device)
    if ignore_index is not None:
        group = group.masked_fill(flat == ignore_index, group_total)
    order = stable_order(flat, group)
    group, flat = group[order], flat[order]

    new_group = run_begins(group)
    new_class = new_group.clone()
    new_class[1:] |= flat[1:] != flat[:-1]
    offsets = torch.searchsorted(group, torch.arange(group_total + 1, device=device))
    low, high = runs(new_class)
    group_low, group_high = runs(new_group)

    same, others = (high - low - 1, group_high - group_low - (high - low))
    if key_counts is not None:
        same, others = (some + more[order] for some, more in zip((same, others), key_counts, strict=True))
    anchor = (same > 0) & (group < group_total)
    if background is not None:
        anchor &= flat != background
    if other_classes_only:
        anchor &= others > 0

    # Anchors move to the front of their group; both kinds keep their order, so a class stays one run.
    before = torch.cat([flat.new_zeros(1, dtype=torch.int64), anchor.cumsum(0)])
    anchors = before[offsets[1:]] - before[offsets[:-1]]
    position = torch.arange(total, device=device)
    rank = before[:-1] - before[group_low]
    count = before[group_high] - before[group_low]
    target = group_low + torch.where(anchor, rank, count + position - group_low - rank)

    def moved(values: Tensor) -> Tensor:
        return torch.empty_like(values).scatter_(0, target, values)

    point_of_row, group, anchor = moved(order), moved(group), moved(anchor)
    class_begin = moved(target[low])
    class_end = class_begin + moved(high - low)
    live = torch.cat([anchors > 0, anchors.new_zeros(1, dtype=torch.bool)])[group]
    row_of_point = torch.empty_like(point_of_row).scatter_(0, point_of_row, torch.where(live, position, -1))
    skip_begin, skip_end = (class_begin, class_end) if other_classes_only else (position, position + 1)
    integers = (row_of_point, offsets, anchors, skip_begin, skip_end, class_begin, class_end)
    # A clone where two results would share memory.
    row_of_point, offsets, anchors, skip_begin, skip_end, class_begin, class_end = (
        tensor.to(torch.int32, copy=True) for tensor in integers
    )
    return Partition(
        point_of_row,
        row_of_point,
        offsets,
        anchors,
        skip_begin,
        skip_end,
        class_begin,
        class_end,
        reduction_weights(anchor.double(), moved(flat), offsets, reduction),
    )


def reduction_weights(weight: Tensor, labels: Tensor, offsets: Tensor, reduction: str) -> Tensor:
    """Return (M,) float64: what each row's l_i counts in the reduced loss.

    ``weight`` (M,) float64 is what it counts in its mean, 0 where the row is no anchor, and ``labels`` (M,) its class.
    """
    if reduction in ("sum", "none") or len(weight) == 0:
        return weight
    weight = weight / positive(weight.amax())  # their sums then hold
    if reduction == "anchor":
        return weight / positive(weight.sum())
    if reduction == "block":
        return weight / shares(weight, offsets)
    assert reduction == "class", f"no weights for reduction {reduction!r}"
    order = torch.argsort(labels, stable=True)
    begins = torch.cat([order.new_zeros(1), run_begins(labels[order]).long().cumsum(0)])
    # As many parts as rows: those past the last class are empty.
    offsets = torch.searchsorted(begins, torch.arange(1, len(order) + 1, device=order.device), right=False) - 1
    return torch.empty_like(weight).scatter_(0, order, weight[order] / shares(weight[order], offsets))


def shares(weight: Tensor, offsets: Tensor) -> Tensor:
    """Return (M,): what to divide weights by for the mean, over the parts with a weight, of each part's mean.

    Part p is the rows from offsets[p] on, to the next part; rows before the first count as its.
    """
    # Sums of parts as differences of running totals would round; a scatter on a GPU would add in any order.
    position = torch.arange(len(weight), dtype=offsets.dtype, device=weight.device)
    part = (torch.searchsorted(offsets, position, right=True) - 1).clamp_min(0)
    edges = torch.cat([offsets.long(), offsets.new_full((1,), len(weight), dtype=torch.int64)])
    totals = torch.segment_reduce(weight, "sum", offsets=edges, initial=0.0)
    return positive(totals[part]) * (totals > 0).sum().clamp_min(1)


def positive(totals: Tensor) -> Tensor:
    """Return the totals, with 1 in the place of 0: those of nothing."""
    return torch.where(totals > 0, totals, 1.0)


def run_begins(values: Tensor) -> Tensor:
    """Return (M,) bool: where a value differs from the one before, and at the first."""
    return torch.cat([values.new_ones(min(len(values), 1), dtype=torch.bool), values[1:] != values[:-1]])
