"""The positives' share of the losses, from sums over the rows of each class range, no pairs (docs/loss.md).

The mean over the other rows p of i's range of x_i . x_p is x_i . O_i / (length - 1), O_i the sum of the others. A sum
of all less x_i would lose what is small beside x_i, so O_i is put together of sums that never held x_i:

    rows of a range: ...... tile k-1 | x x x i x x x | tile k+1 ......
                     before ---------> inside O_i     <--------- after

What is inside one tile of rows is a product: with R_ij = 1 where i and j != i are of one range, R X holds it for every
row. :func:`sum_edges` sums, in each tile, the range that comes in from the tile before and the one that goes on to the
next. :func:`anchor_losses` adds up those of the tiles before and after its own, in a fixed order: C numbers for each
tile that the range reaches, where a pass over pairs multiplies the tiles themselves.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gradient import in_units, row_scale_of
from .logsumexp import join, log2_of
from .split_bf16 import load_rows, plane_product, sum_planes
from .tile_scheduler import find_item

HEADS_AT_ONCE = tl.constexpr(32)


@triton.jit
def sum_edges(
    rows,  # (PLANES, M, C)
    class_begin,  # (M,) int32
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    heads,  # (tiles, C) float32, written: the sum in each tile of the range of its first row
    tails,  # (tiles, C) float32, written: of the range of its last anchor
    M,
    G,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """Sum the ranges at both edges of the tiles that have an anchor, WIDTH channels a program."""
    channel = tl.program_id(1) * WIDTH
    c = channel + tl.arange(0, WIDTH)
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        begin = tl.load(offsets + g)
        first, last = begin + number * TILE_ROWS, begin + tl.load(anchors + g)
        if first < last:
            ids = first + tl.arange(0, TILE_ROWS)
            low = tl.load(class_begin + ids, mask=ids < last, other=-1)
            x = sum_planes(load_rows(rows, M, first, last, channel, TILE_ROWS, C, WIDTH, PLANES, True), PLANES)
            head = tl.load(class_begin + first)
            tail = tl.load(class_begin + tl.minimum(first + TILE_ROWS, last) - 1)
            to = tl.cast(item, tl.int64) * C + c
            tl.store(heads + to, tl.sum(tl.where((low == head)[:, None], x, 0.0), 0), mask=c < C)
            tl.store(tails + to, tl.sum(tl.where((low == tail)[:, None], x, 0.0), 0), mask=c < C)


@triton.jit
def sum_tiles(heads, first, end, channel, C: tl.constexpr, WIDTH: tl.constexpr):
    """Return (WIDTH,): the sums of ``heads`` over the tiles [first, end), from ``channel`` on."""
    c = channel + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    for at in range(first, end, HEADS_AT_ONCE):
        tile = at + tl.arange(0, HEADS_AT_ONCE)
        pointers = heads + tile.to(tl.int64)[:, None] * C + c[None, :]
        total += tl.sum(tl.load(pointers, mask=(tile < end)[:, None] & (c < C)[None, :], other=0.0), 0)
    return total


@triton.jit
def sum_others(together, planes, PLANES: tl.constexpr):
    """Return the sums, for each row, of the rows that it is together with."""
    together = together.to(tl.float32).to(planes[0].dtype)
    total = tl.zeros((together.shape[0], planes[0].shape[1]), dtype=tl.float32)
    if PLANES == 3:
        total = plane_product(together, planes[2], total)
    if PLANES >= 2:
        total = plane_product(together, planes[1], total)
    return plane_product(together, planes[0], total)


@triton.jit
def anchor_losses(
    rows,  # (PLANES, M, C)
    own,  # of sum_pairs or log_sum_pairs
    given,  # of sum_pairs, or None
    step_ends,  # (G BLOCKS,) int64, of count_work
    heads,  # (tiles, C) float32, of sum_edges
    tails,  # (tiles, C) float32, likewise
    weights,  # (M,) float64 or float32
    class_begin,  # (M,) int32
    class_end,  # (M,) int32
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    row_scales,  # (M,) float32, written for the rows of groups with an anchor: of row_gradient
    shifts,  # (M,) float32, likewise
    pulls,  # (M,) float32, likewise
    each,  # (M,) float32, written for the anchors: their losses; or None
    losses,  # (programs,) float64, written: each program's part of the weighted sum of losses
    M,
    G,
    BLOCKS,
    WORKERS,
    own_stride,
    shift,
    scale,
    grad_absmax,  # the largest |weight|, or None
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    SUMS_M: tl.constexpr,
    SUMS_N: tl.constexpr,
    COLUMNS,
    SUMS_PASS: tl.constexpr,
    BOUNDED: tl.constexpr,
    PLANES: tl.constexpr,
):
    """Write the weighted sum of log-sum-exp less mean of positives, and what the gradient needs of both."""
    loss = tl.zeros((TILE_ROWS,), dtype=tl.float64)
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        first, last = begin + number * TILE_ROWS, begin + tl.load(anchors + g)
        ids = first + tl.arange(0, TILE_ROWS)
        anchor = ids < last
        weight = tl.load(weights + ids, mask=anchor, other=0.0)
        maximum, sum_of_pairs = join(
            own, given, step_ends, offsets, anchors, g, number, M, G, BLOCKS, WORKERS, own_stride, shift,
            TILE_ROWS, SUMS_M, SUMS_N, COLUMNS, SUMS_PASS, BOUNDED,
        )  # fmt: skip
        factor, own_shift = row_scale_of(weight.to(tl.float32), maximum, sum_of_pairs, anchor, grad_absmax)
        low, high = tl.load(class_begin + ids, mask=anchor, other=-1), tl.load(class_end + ids, mask=anchor, other=1)
        positives = (high - low - 1).to(tl.float32)
        tl.store(row_scales + ids, factor, mask=ids < end)
        tl.store(pulls + ids, tl.div_rn(in_units(weight.to(tl.float32), grad_absmax), positives), mask=ids < end)
        if not BOUNDED:
            tl.store(shifts + ids, own_shift, mask=ids < end)
        if first < last:
            together = (low[:, None] == low[None, :]) & (ids[:, None] != ids[None, :])
            comes_in, goes_on = anchor & (low < first), high > first + TILE_ROWS
            # How many tiles before the range that comes in reaches, and tiles after the one that goes on.
            tiles_before = tl.cdiv(first - tl.minimum(tl.load(class_begin + first), first), TILE_ROWS)
            tiles_after = tl.cdiv(tl.maximum(tl.max(high) - first - TILE_ROWS, 0), TILE_ROWS)
            total = tl.zeros((TILE_ROWS,), dtype=tl.float32)
            for channel in range(0, CP, WIDTH):
                planes = load_rows(rows, M, first, last, channel, TILE_ROWS, C, WIDTH, PLANES, True)
                others = sum_others(together, planes, PLANES)
                # The range begins at the end of its first tile.
                second = item - tiles_before + 1
                sum_before = sum_tiles(tails, second - 1, tl.minimum(second, item), channel, C, WIDTH)
                sum_before += sum_tiles(heads, second, item, channel, C, WIDTH)
                sum_after = sum_tiles(heads, item + 1, item + 1 + tiles_after, channel, C, WIDTH)
                others += tl.where(comes_in[:, None], sum_before[None, :], 0.0)
                others += tl.where(goes_on[:, None], sum_after[None, :], 0.0)
                total += tl.sum(sum_planes(planes, PLANES) * others, 1)
            anchor_loss = log2_of(maximum, sum_of_pairs) * 0.6931471805599453 - scale * total / positives
            if each is not None:
                tl.store(each + ids, anchor_loss, mask=anchor)
            loss += tl.where(anchor, weight * anchor_loss.to(tl.float64), 0.0)
    tl.store(losses + tl.program_id(0), tl.sum(loss))
