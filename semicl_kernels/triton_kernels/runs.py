"""The positives: sums over the rows of each class run, no pairs (docs/loss.md).

The mean over the other rows p of i's run of x_i . x_p is x_i . (S - x_i) / (length - 1), with S the sum of the run. A
run may be two rows or all of them, so its sum is taken in two steps, each in a fixed order. :func:`sum_runs_in_tiles`
sums what lies in one tile of rows: with R_ij = 1 where rows i and j are of one run, R X holds every row's sum in one
product. Sums of runs that begin in the tile go to their first row, the sum of the run that comes in from before to the
tile's ``heads``. :func:`join_runs` adds to each run that leaves its first tile the heads of the tiles it reaches.

Rows without a weight take no part; their memory may hold anything.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gradient import factor_of
from .logsumexp import join
from .planes import load_rows, plane_product, sum_planes
from .work import find_item


@triton.jit
def sum_runs_in_tiles(
    rows,  # (PLANES, M, C)
    weights,  # (M,) float64
    run_low,  # (M,) int32
    run_high,  # (M,) int32
    sums,  # (M, C) float32, written for the first row of every run
    heads,  # (tiles, C) float32, written: the sum in the tile of the run of the tile's first row
    M,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """Sum every run within one tile of ROWS rows and WIDTH channels."""
    first, channel = tl.program_id(0) * ROWS, tl.program_id(1) * WIDTH
    i = tl.arange(0, ROWS)
    ids = first + i
    low = tl.load(run_low + ids, mask=ids < M, other=-1)
    weighted = tl.load(weights + ids, mask=ids < M, other=0.0) > 0
    tiles = load_rows(rows, M, first, M, channel, ROWS, C, WIDTH, PLANES, True)
    together = (low[:, None] == low[None, :]).to(tl.float32).to(rows.dtype.element_ty)
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    if PLANES == 3:
        total = plane_product(together, tl.where(weighted[:, None], tiles[2], 0.0), total)
    if PLANES >= 2:
        total = plane_product(together, tl.where(weighted[:, None], tiles[1], 0.0), total)
    total = plane_product(together, tl.where(weighted[:, None], tiles[0], 0.0), total)
    c = channel + tl.arange(0, WIDTH)
    begins = weighted & (low == ids)
    tl.store(sums + ids.to(tl.int64)[:, None] * C + c[None, :], total, mask=begins[:, None] & (c < C)[None, :])
    head = tl.sum(tl.where((i == 0)[:, None], total, 0.0), 0)
    tl.store(heads + tl.program_id(0).to(tl.int64) * C + c, head, mask=c < C)


@triton.jit
def join_runs(
    weights,  # (M,) float64
    run_low,  # (M,) int32
    run_high,  # (M,) int32
    sums,  # (M, C) float32, added to
    heads,  # (tiles, C) float32
    M,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Add to the run that begins in this tile and leaves it what lies in the tiles after."""
    first, channel = tl.program_id(0) * ROWS, tl.program_id(1) * WIDTH
    end = tl.minimum(first + ROWS, M)
    low, high = tl.load(run_low + end - 1), tl.load(run_high + end - 1)
    if (low >= first) & (high > end):  # noqa: SIM102 - the weight is there for runs alone
        if tl.load(weights + low) > 0:
            c = channel + tl.arange(0, WIDTH)
            total = tl.zeros((WIDTH,), dtype=tl.float32)
            last = (high - 1) // ROWS
            for tile in range(tl.program_id(0) + 1, last + 1, AT_ONCE):
                tiles = tile + tl.arange(0, AT_ONCE)
                pointers = heads + tiles.to(tl.int64)[:, None] * C + c[None, :]
                total += tl.sum(tl.load(pointers, mask=(tiles <= last)[:, None] & (c < C)[None, :], other=0.0), 0)
            run = sums + tl.cast(low, tl.int64) * C + c
            tl.store(run, tl.load(run, mask=c < C, other=0.0) + total, mask=c < C)


@triton.jit
def load_others(
    rows, sums, run_low, M, first, last, ids, weighted, channel,
    C: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, PLANES: tl.constexpr,
):  # fmt: skip
    """Return (x, S - x) of a tile's rows, the second 0 where a row has no weight."""
    x = sum_planes(load_rows(rows, M, first, last, channel, ROWS, C, WIDTH, PLANES, True), PLANES)
    c = channel + tl.arange(0, WIDTH)
    run = tl.load(run_low + ids, mask=weighted, other=0).to(tl.int64)
    mask = weighted[:, None] & (c < C)[None, :]
    total = tl.load(sums + run[:, None] * C + c[None, :], mask=mask, other=0.0)
    return x, tl.where(weighted[:, None], total - x, 0.0)


@triton.jit
def anchor_losses(
    rows,  # (PLANES, M, C)
    slots,  # (slots, M) float32
    sums,  # (M, C) float32, of join_runs
    weights,  # (M,) float64
    run_low,  # (M,) int32
    run_high,  # (M,) int32
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    factors,  # (M,) float32, written for the rows of groups with an anchor: of row_gradient
    shifts,  # (M,) float32, likewise
    losses,  # (programs,) float64, written: each program's part of the loss
    M,
    G,
    SPAN,
    scale,
    shift,
    peak,  # the largest weight, or None
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BOUNDED: tl.constexpr,
    ROWS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """Write the weighted sum of log-sum-exp less mean of positives, and what the gradient needs of both."""
    loss = tl.zeros((ROWS,), dtype=tl.float64)
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        first = begin + number * ROWS
        ids = first + tl.arange(0, ROWS)
        inside = ids < end
        anchor = ids < begin + tl.load(anchors + g)
        weight = tl.load(weights + ids, mask=anchor, other=0.0)
        log2_sum = join(slots, ids, anchor, M, tl.cdiv(end - begin, SPAN), shift, BOUNDED)
        factor, own_shift = factor_of(weight.to(tl.float32), log2_sum, anchor, shift, peak, BOUNDED)
        tl.store(factors + ids, factor, mask=inside)
        if not BOUNDED:
            tl.store(shifts + ids, own_shift, mask=inside)
        if first < begin + tl.load(anchors + g):
            positive = tl.zeros((ROWS,), dtype=tl.float32)
            for channel in range(0, CP, WIDTH):
                x, others = load_others(
                    rows, sums, run_low, M, first, end, ids, anchor, channel, C, WIDTH, ROWS, PLANES
                )
                positive += tl.sum(x * others, 1)
            low, high = tl.load(run_low + ids, mask=anchor, other=0), tl.load(run_high + ids, mask=anchor, other=2)
            each = log2_sum * 0.6931471805599453 - scale * positive / (high - low - 1)
            loss += tl.where(anchor, weight * each.to(tl.float64), 0.0)
    tl.store(losses + tl.program_id(0), tl.sum(loss))


@triton.jit
def sum_losses(losses, loss, count, COUNT: tl.constexpr):
    """Write the sum of ``losses`` (count,) float64 to ``loss``, float32; one program."""
    ids = tl.arange(0, COUNT)
    tl.store(loss, tl.sum(tl.load(losses + ids, mask=ids < count, other=0.0)).to(tl.float32))


@triton.jit
def finish_gradient(
    gradient,  # (M, C) float32: by the rows, of the log-sum-exps; changed in place
    rows,  # (PLANES, M, C)
    sums,  # (M, C) float32, of join_runs
    weights,  # (M,) float64
    run_low,  # (M,) int32
    run_high,  # (M,) int32
    inverse_lengths,  # (M,) float32
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    M,
    G,
    scale,
    NORMALIZE: tl.constexpr,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """Take the positives from the gradient and, where NORMALIZE, lead it through the normalisation of the rows.

    All anchors of a run have one weight w, so the positives' gradient is 2 scale w (S - x_i) / (length - 1).
    """
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        first = begin + number * ROWS
        ids = first + tl.arange(0, ROWS)
        inside = ids < end
        anchor = ids < begin + tl.load(anchors + g)
        low, high = tl.load(run_low + ids, mask=anchor, other=0), tl.load(run_high + ids, mask=anchor, other=2)
        pull = 2 * scale * tl.load(weights + ids, mask=anchor, other=0.0).to(tl.float32) / (high - low - 1)
        along = tl.zeros((ROWS,), dtype=tl.float32)
        inverse = tl.full((ROWS,), 1.0, dtype=tl.float32)
        if NORMALIZE:
            inverse = tl.load(inverse_lengths + ids, mask=inside, other=1.0)
            for channel in range(0, CP, WIDTH):
                x, others = load_others(
                    rows, sums, run_low, M, first, end, ids, anchor, channel, C, WIDTH, ROWS, PLANES
                )
                c = channel + tl.arange(0, WIDTH)
                mask = inside[:, None] & (c < C)[None, :]
                value = tl.load(gradient + ids.to(tl.int64)[:, None] * C + c[None, :], mask=mask, other=0.0)
                along += tl.sum(x * (value - pull[:, None] * others), 1)
        for channel in range(0, CP, WIDTH):
            x, others = load_others(rows, sums, run_low, M, first, end, ids, anchor, channel, C, WIDTH, ROWS, PLANES)
            c = channel + tl.arange(0, WIDTH)
            mask = inside[:, None] & (c < C)[None, :]
            pointers = gradient + ids.to(tl.int64)[:, None] * C + c[None, :]
            value = tl.load(pointers, mask=mask, other=0.0) - pull[:, None] * others
            tl.store(pointers, (value - along[:, None] * x) * inverse[:, None], mask=mask)
