"""The pure-PyTorch backend: any device, any float dtype, O(M C) memory.

Each group's anchors are taken in strips and its points in windows, so that one tile of similarities exists at a time.
The forward joins the windows' log-sum-exps; the backward recomputes each tile and multiplies it into its rows and,
transposed, into its columns. Sums are float32, float64 for float64 rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .base import AVAILABLE, Backend, Groups, accumulator
from .reference import in_denominator, live_groups

TILE = 1 << 20  # similarities held at a time: 4 MB in float32, which stays in most caches
WINDOW = 4096  # columns of a tile at most


def tiles(points: int, count: int) -> Iterator[tuple[slice, slice]]:
    """Yield the (rows, columns) of a group's tiles, the columns running fastest."""
    window = min(points, WINDOW)
    strip = max(1, TILE // window)
    for i in range(0, count, strip):
        for j in range(0, points, window):
            yield slice(i, min(i + strip, count)), slice(j, min(j + window, points))


def tile_similarities(group: Tensor, groups: Groups, begin: int, tile: tuple[slice, slice], scale: float) -> Tensor:
    """Return the tile's scale x_i . x_j, -inf outside D(i). ``group`` holds the group's rows."""
    rows, columns = tile
    s = group[rows] @ group[columns].T
    count = rows.stop - rows.start
    kept = in_denominator(groups, begin + rows.start, count, begin + columns.start, begin + columns.stop)
    return s.mul_(scale).masked_fill_(~kept, -torch.inf)


def forward(rows: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    lse = rows.new_zeros(len(rows), dtype=accumulator(rows.dtype))
    with torch.autocast(rows.device.type, enabled=False):
        for begin, points, count in live_groups(groups):
            group = rows[begin : begin + points].to(lse.dtype)
            own = lse[begin : begin + count].fill_(-torch.inf)
            for tile in tiles(points, count):
                part = tile_similarities(group, groups, begin, tile, scale).logsumexp(1)
                own[tile[0]] = torch.logaddexp(own[tile[0]], part)
    return lse


def backward(grad: Tensor, rows: Tensor, lse: Tensor, groups: Groups, scale: float, bound: float | None) -> Tensor:
    out = torch.zeros_like(rows)
    with torch.autocast(rows.device.type, enabled=False):
        for begin, points, count in live_groups(groups):
            group = rows[begin : begin + points].to(lse.dtype)
            own = lse[begin : begin + count, None]
            # Where D(i) is empty every similarity is -inf: any finite shift gives the zero weights that are due.
            shift = own.masked_fill(own == -torch.inf, 0)
            factor = scale * grad[begin : begin + count, None]
            sums = torch.zeros_like(group)
            for tile in tiles(points, count):
                s = tile_similarities(group, groups, begin, tile, scale)
                weights = s.sub_(shift[tile[0]]).exp_().mul_(factor[tile[0]])
                sums[tile[0]].addmm_(weights, group[tile[1]])
                sums[tile[1]].addmm_(weights.T, group[tile[0]])
            out[begin : begin + points] = sums.to(rows.dtype)
    return out


def refuses(device: torch.device, dtype: torch.dtype, channels: int) -> str | None:
    return None


BACKEND = Backend("tiled", lambda: AVAILABLE, refuses, forward, backward)
