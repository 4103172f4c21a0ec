"""The naive backend, the one specification that tests and benchmarks share.

It writes the similarities of a whole group at once, in plain PyTorch and in the dtype of the rows, as anyone would who
reads the formulas; float64 is exact enough to measure the others against.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .base import AVAILABLE, Backend, Groups, accumulator


def live_groups(groups: Groups) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, rows, anchors) of every group that has an anchor; this waits for the device."""
    offsets, anchors = groups.offsets.tolist(), groups.anchors.tolist()
    for begin, end, count in zip(offsets, offsets[1:], anchors, strict=False):
        if count > 0:
            yield begin, end - begin, count


def in_denominator(groups: Groups, begin: int, count: int, first: int, last: int) -> Tensor:
    """Return (count, last - first) bool: whether column j in [first, last) is in D(i) of the rows from ``begin`` on."""
    columns = torch.arange(first, last, device=groups.skip_low.device)
    low = groups.skip_low[begin : begin + count, None]
    high = groups.skip_high[begin : begin + count, None]
    return (columns < low) | (columns >= high)


def similarities(rows: Tensor, groups: Groups, begin: int, points: int, count: int, scale: float) -> Tensor:
    """Return (anchors, points) of one group: scale x_i . x_j, -inf outside D(i)."""
    group = rows[begin : begin + points]
    s = group[:count] @ group.T * scale
    return s.masked_fill(~in_denominator(groups, begin, count, begin, begin + points), -torch.inf)


def forward(rows: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    lse = rows.new_zeros(len(rows), dtype=accumulator(rows.dtype))
    with torch.autocast(rows.device.type, enabled=False):
        for begin, points, count in live_groups(groups):
            s = similarities(rows, groups, begin, points, count, scale)
            lse[begin : begin + count] = s.logsumexp(1).to(lse.dtype)
    return lse


def backward(grad: Tensor, rows: Tensor, lse: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    out = torch.zeros_like(rows)
    with torch.autocast(rows.device.type, enabled=False):
        for begin, points, count in live_groups(groups):
            group = rows[begin : begin + points]
            s = similarities(rows, groups, begin, points, count, scale)
            empty = lse[begin : begin + count, None] == -torch.inf
            softmax = s.softmax(1).masked_fill(empty, 0)
            weights = softmax * (scale * grad[begin : begin + count, None]).to(rows.dtype)
            out[begin : begin + count] += weights @ group
            out[begin : begin + points] += weights.T @ group[:count]
    return out


def refuses(device: torch.device, dtype: torch.dtype, channels: int) -> str | None:
    return None


BACKEND = Backend("reference", lambda: AVAILABLE, refuses, forward, backward)
