"""The terms of the positives in PyTorch, for backends that have no kernels for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from typing import NamedTuple

import torch
from torch import Tensor

from .base import Backward, Groups, Keys, Positives

CHANNELS_AT_ONCE = 8  # of the sums over positives, which are float64; more take more memory and no less time
PAIRS_AT_ONCE, WINDOW = 1 << 18, 4096  # of positives, that are held; columns of them


# ---- sums of products ------------------------------------------------------------------------------------------------


def positive_sums(rows: Tensor, keys: Keys | None, groups: Groups, class_begin: Tensor, class_end: Tensor) -> Tensor:
    """See base.PositiveSums. The sums of a class are taken in one order on every device."""
    values, itself = rows if keys is None else keys.values, itself_of(rows, keys).long()
    sums = rows.new_zeros(len(rows), dtype=torch.float64)
    if len(values) == 0:
        return sums
    ranges = Ranges.of(class_begin, class_end, len(values))
    is_key, own = (itself >= class_begin) & (itself < class_end), itself.clamp_min(0)
    for first in range(0, rows.shape[1], CHANNELS_AT_ONCE):
        some = values[:, first : first + CHANNELS_AT_ONCE].double()
        if keys is not None and keys.weights is not None:
            some = some * keys.weights[:, None]
        others = ranges.sums(some) - torch.where(is_key[:, None], some[own], 0.0)
        sums += (rows[:, first : first + CHANNELS_AT_ONCE].double() * others).sum(1)
    return sums


class Ranges(NamedTuple):
    """Ranges of keys, of which any two are the same or apart."""

    edges: Tensor  # (K + 2,) int64: where runs of keys begin, each one of the ranges or between two
    run: Tensor  # (M,) int64: the run of each range
    is_empty: Tensor  # (M,)

    @classmethod
    def of(cls, begin: Tensor, end: Tensor, keys: int) -> Ranges:
        is_empty = begin >= end
        is_edge = torch.zeros(keys + 1, dtype=torch.bool, device=begin.device)
        is_edge[0] = True
        for edge in (begin, end):
            is_edge[torch.where(is_empty, 0, edge).long()] = True
        run = is_edge[:keys].cumsum(0) - 1
        edges = torch.searchsorted(run, torch.arange(keys + 2, device=begin.device))
        return cls(edges, run[begin.long().clamp_max(max(keys - 1, 0))] if keys else begin.long(), is_empty)

    def sums(self, values: Tensor) -> Tensor:
        """Return (M, C) of values (K, C): of each range the sum of its keys."""
        sums = torch.segment_reduce(values, "sum", offsets=self.edges, axis=0, initial=0.0)
        return torch.where(self.is_empty[:, None], 0.0, sums[self.run])


def pulls_of_classes(positives: Positives, keys: Keys | None) -> Tensor:
    """Return (M,) float64: the pull of each row times the weight of its class, of which no key has more."""
    pulls = positives.pulls.double()
    if keys is None or keys.weights is None:
        return pulls
    classes = Ranges.of(positives.class_begin, positives.class_end, len(keys.values))
    return pulls * classes.sums(keys.weights.double()[:, None])[:, 0]


def itself_of(rows: Tensor, keys: Keys | None) -> Tensor:
    return torch.arange(len(rows), device=rows.device) if keys is None else keys.itself


# ---- each positive against the negatives -----------------------------------------------------------------------------


class Block(NamedTuple):
    """Some rows of one class against some of their positives, and how these count."""

    rows: slice
    columns: slice
    s: Tensor  # (rows, columns): products
    shares: Tensor  # likewise; 0 where the column is the row itself


def blocks_of_classes(rows: Tensor, keys: Keys | None, positives: Positives) -> Iterator[Block]:
    """Yield the pairs of the rows that pull with their positives, so many at a time; this waits for the device."""
    columns, itself = rows if keys is None else keys.values, itself_of(rows, keys)
    begins = torch.where(
        (positives.pulls != 0) & (positives.class_begin < positives.class_end), positives.class_begin, -1
    )
    names, counts = torch.unique_consecutive(torch.stack([begins, positives.class_end], 1), dim=0, return_counts=True)
    first = 0
    for (begin, end), count in zip(names.tolist(), counts.tolist(), strict=True):
        rows_end = first + count
        height = max(1, PAIRS_AT_ONCE // max(1, min(end - begin, WINDOW)))
        for i in range(first, rows_end if begin >= 0 else first, height):
            some_rows = slice(i, min(i + height, rows_end))
            for j in range(begin, end, WINDOW):
                some = slice(j, min(j + WINDOW, end))
                number = torch.arange(some.start, some.stop, device=columns.device)
                shares = (itself[some_rows, None] != number).to(columns.dtype)
                if keys is not None and keys.weights is not None:
                    shares *= keys.weights[some]
                yield Block(some_rows, some, rows[some_rows] @ columns[some].T, shares)
        first = rows_end


def softplus(
    rows: Tensor, keys: Keys | None, groups: Groups, positives: Positives, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """See base.Softplus."""
    values, slopes = torch.zeros_like(lse), torch.zeros_like(lse)
    for some, _, s, shares in blocks_of_classes(rows, keys, positives):
        over = lse[some, None].to(s.dtype) - scale * s
        values[some] += (over.new_zeros(()).logaddexp(over) * shares).sum(1, dtype=torch.float64)
        slopes[some] += (over.sigmoid() * shares).sum(1, dtype=torch.float64)
    return values, slopes


def softplus_gradient(
    rows: Tensor,
    keys: Keys | None,
    positives: Positives,
    lse: Tensor,
    scale: float,
    with_rows: bool,
    with_columns: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients by rows and by columns of the pulls times :func:`softplus`, at fixed lse."""
    columns = rows if keys is None else keys.values
    by_rows = torch.zeros_like(rows if with_rows else rows[:0])
    by_columns = torch.zeros_like(columns if with_columns else columns[:0])
    for some_rows, some, s, shares in blocks_of_classes(rows, keys, positives):
        w = (
            (lse[some_rows, None].to(s.dtype) - scale * s)
            .sigmoid_()
            .mul_(shares)
            .mul_((-scale * positives.pulls[some_rows, None]).to(s.dtype))
            .double()  # sums of features that are nearly equal all but cancel with those of the negatives
        )
        if with_rows:
            by_rows[some_rows] += w @ columns[some].double()
        if with_columns:
            by_columns[some] += w.T @ rows[some_rows].double()
    return by_rows, by_columns


def pairwise_apart(backward: Backward) -> Backward:
    """Return the backward of a backend whose own knows no pairwise pulls: these go into products of their own."""

    @wraps(backward)
    def whole(
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
        rest = (scale, bound, unit_rows, with_rows, with_keys)
        if positives is None or not positives.pairwise:
            return backward(grad, rows, keys, lse, groups, positives, *rest)
        by_rows, by_keys = backward(grad, rows, keys, lse, groups, None, *rest)
        square = keys is None
        more = softplus_gradient(rows, keys, positives, lse, scale, with_rows or square, with_keys or square)
        if square:
            return by_rows + more[0] + more[1], by_keys
        return by_rows + more[0], by_keys + more[1]

    return whole
