"""The forward pass: sums of exponentials over the pairs of each group.

*Fixed maximum* (:func:`sum_pairs`). No exponent exceeds a bound B and none lies below -B, with exp(-2 B) normal in
float32. Every exponential is taken relative to B, and sums are plain sums. An M tile of anchors stays, and the N tiles
of its Stream-K range (tile_scheduler.py) stream past it:

                 x_m (BLOCK_M)
    x_n          +-----------+
    (BLOCK_N)    | S = x_n x_m^T, exp | -> sums over this axis: of the anchors of the N tile, in a triangle
                 +-----------+
                       |
                       v sums over this axis: of the M tile, kept in registers, reduced once

Sums of the M tile go to ``own``: those of a whole tile to its rows, of a partial tile to the place 2 w or 2 w + 1 of
worker w. Sums over the other axis go to ``given``: COLUMNS numbers of the worker's own, to which it adds at every M
tile. They are cheap: they lie within a thread but for two shuffles. Each sum is written by one program in one order: no
atomics, the same bits every time.

*Online softmax* (:func:`log_sum_pairs`). No triangle, and a running maximum for each anchor. A partial is two numbers:
the maximum, and the sum relative to it.

:func:`join` adds up the partials of an anchor. Exponents are in base 2 throughout: scale_log2 = scale log2(e).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .masking import clear_tile, masked_ranges, masked_tile, peel
from .split_bf16 import deep_similarities, load_columns, load_rows, product, transposed
from .tile_scheduler import (
    NOTHING,
    RECTANGLE,
    TRIANGLE,
    WHOLE,
    find_item,
    next_tile,
    range_length,
    tile_workers,
)

PARTIALS_AT_ONCE = tl.constexpr(8)
GIVERS_AT_ONCE = tl.constexpr(32)
ZEROS_AT_ONCE = tl.constexpr(1024)


@triton.jit
def place_of(partial, worker, M, BLOCKS, BLOCK_M: tl.constexpr):
    """Return where the partial tile of a worker begins in ``own``, after the rows of whole ones; int64."""
    return tl.cast(M, tl.int64) * BLOCKS + (2 * worker + partial).to(tl.int64) * BLOCK_M


@triton.jit
def add_n_tile(
    kept,
    x_m,
    rows,
    M,
    skip_begin,
    skip_end,
    given,
    first_m,
    m_end,
    first,
    last,
    gives_from,
    gives_to,
    scale_log2,
    shift,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GIVES: tl.constexpr,
    MASKED: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take one N tile past the M tile: return ``kept`` with its exponentials added.

    The anchors of the N tile from gives_from to gives_to get their sums added to what is in ``given``.
    """
    ids = first + tl.arange(0, BLOCK_N)
    if WIDTH == CP:
        x = load_rows(rows, M, first, last, 0, BLOCK_N, C, CP, PLANES, MASKED)
        s = product(x, x_m, None, PLANES)
    else:
        s = deep_similarities(
            rows, M, first, last, rows, M, first_m, m_end, BLOCK_N, BLOCK_M, C, CP, WIDTH, PLANES, STAGES
        )
    e = tl.exp2(s * scale_log2 - shift)
    if MASKED:
        # Loaded here, not where the tile begins: the loop without masks has no registers to spare for them.
        columns = first_m + tl.arange(0, BLOCK_M)
        low = tl.load(skip_begin + columns, mask=columns < m_end, other=0)[None, :]
        high = tl.load(skip_end + columns, mask=columns < m_end, other=0)[None, :]
        keep = ((ids[:, None] < low) | (ids[:, None] >= high)) & (ids < last)[:, None]
        e = tl.where(keep, e, 0.0)
    if GIVES:
        gets = (ids >= gives_from) & (ids < gives_to)
        if (first < gives_to) & (first >= gives_from):
            before = tl.load(given + ids, mask=gets, other=0.0)
            tl.store(given + ids, before + tl.sum(e, 1), mask=gets)
    return kept + e


@triton.jit
def sum_pairs(
    rows,  # (PLANES, M, C)
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_begin,  # (M,) int32
    skip_end,  # (M,) int32
    step_ends,  # (G BLOCKS,) int64, of count_work
    own,  # (BLOCKS M + 2 BLOCK_M programs,) float32, written: sums of M tiles
    given,  # (M + COLUMNS programs,) float32, written: at row + COLUMNS w, what worker w gives to an anchor; or None
    M,
    G,
    BLOCKS,
    scale_log2,
    shift,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,  # a multiple of BLOCK_N
    BLOCK_N: tl.constexpr,
    COLUMNS,  # a multiple of BLOCK_M
    PASS: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write the partials of every anchor's sum of 2^(scale_log2 x_i . x_j - shift) over its denominator."""
    GIVES: tl.constexpr = PASS == TRIANGLE
    if GIVES:
        given += tl.program_id(0).to(tl.int64) * COLUMNS
    left, is_first = range_length(step_ends, G * BLOCKS), True
    while left > 0:
        block, number, first_step, end_step, partial, left = next_tile(
            left, step_ends, offsets, anchors, G, BLOCKS, BLOCK_M, BLOCK_N, COLUMNS, 1, PASS
        )
        g = block // BLOCKS
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        anchor_end = begin + tl.load(anchors + g)
        first_m = begin + number * BLOCK_M
        m_end = tl.minimum(first_m + BLOCK_M, anchor_end)
        ids = first_m + tl.arange(0, BLOCK_M)
        inside = ids < m_end
        x_m = 0
        if WIDTH == CP:
            x_m = load_columns(rows, M, first_m, m_end, 0, BLOCK_M, C, CP, PLANES)
        base = begin
        if GIVES:
            columns = begin + block % BLOCKS * COLUMNS
            base, end = tl.maximum(first_m, columns), columns + tl.minimum(end - columns, COLUMNS)
            anchor_end = tl.minimum(anchor_end, end)
            # Its first tile of the block: nothing was given to the anchors after it.
            zero_end = tl.where(is_first | (number == 0), anchor_end, 0)
            for zero in range(tl.maximum(first_m + BLOCK_M, columns), zero_end, ZEROS_AT_ONCE):
                to = zero + tl.arange(0, ZEROS_AT_ONCE)
                tl.store(given + to, tl.zeros((ZEROS_AT_ONCE,), dtype=tl.float32), mask=to < anchor_end)
            # Other threads read these, and what the tile before gave.
            tl.debug_barrier()
        is_first = False
        low = tl.load(skip_begin + ids, mask=inside, other=0)
        high = tl.load(skip_end + ids, mask=inside, other=0)
        last = tl.minimum(base + end_step * BLOCK_N, end)
        first = tl.minimum(base + first_step * BLOCK_N, last)
        gives_from = first_m + BLOCK_M
        gives_to = tl.minimum(anchor_end, last)
        any_begin, any_end, all_begin, all_end = masked_ranges(low, high, inside)
        clear, clear_jump, jump, masked, any_tile, all_tile, all_tiles, ragged = peel(
            first, last, any_begin, any_end, all_begin, all_end, BLOCK_N
        )
        kept = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
        for k in tl.range(0, clear, num_stages=STAGES):
            column = first + clear_tile(k, clear_jump, jump) * BLOCK_N
            kept = add_n_tile(
                kept, x_m, rows, M, skip_begin, skip_end, given, first_m, m_end, column, last,
                gives_from, gives_to, scale_log2, shift,
                C, CP, WIDTH, BLOCK_M, BLOCK_N, GIVES, False, PLANES, STAGES,
            )  # fmt: skip
        for k in tl.range(0, masked, num_stages=STAGES):
            column = first + masked_tile(k, masked, any_tile, all_tile, all_tiles, ragged) * BLOCK_N
            kept = add_n_tile(
                kept, x_m, rows, M, skip_begin, skip_end, given, first_m, m_end, column, last,
                gives_from, gives_to, scale_log2, shift,
                C, CP, WIDTH, BLOCK_M, BLOCK_N, GIVES, True, PLANES, STAGES,
            )  # fmt: skip
        store_own(own, tl.sum(kept, 0), partial, ids, inside, M, block % BLOCKS, BLOCKS, BLOCK_M)


@triton.jit
def store_own(own, value, partial, ids, inside, M, column_block, BLOCKS, BLOCK_M: tl.constexpr):
    """Write a number for each row of an M tile, to the rows of a whole tile, else to the partial's place."""
    place = place_of(partial, tl.program_id(0), M, BLOCKS, BLOCK_M) + tl.arange(0, BLOCK_M)
    to = tl.where(partial == WHOLE, tl.cast(M, tl.int64) * column_block + ids, place)
    tl.store(own + to, value, mask=inside & (tl.full(ids.shape, partial, tl.int32) != NOTHING))


@triton.jit
def add_with_maximum(
    best,
    total,
    x_m,
    rows,
    M,
    columns,
    N,
    log2_weights,
    skip_begin,
    skip_end,
    first_m,
    m_end,
    first,
    last,
    scale_log2,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take one N tile, of ``columns`` and their weights if any, past the M tile: return the new maxima and the sums
    relative to them."""
    ids = first + tl.arange(0, BLOCK_N)
    if WIDTH == CP:
        x = load_rows(columns, N, first, last, 0, BLOCK_N, C, CP, PLANES, MASKED)
        s = product(x_m, transposed(x, PLANES), None, PLANES) * scale_log2
    else:
        s = scale_log2 * deep_similarities(
            rows, M, first_m, m_end, columns, N, first, last, BLOCK_M, BLOCK_N, C, CP, WIDTH, PLANES, STAGES
        )
    if log2_weights is not None:
        s += tl.load(log2_weights + ids, mask=ids < last, other=0.0)[None, :]
    if MASKED:
        mine = first_m + tl.arange(0, BLOCK_M)
        low = tl.load(skip_begin + mine, mask=mine < m_end, other=0)[:, None]
        high = tl.load(skip_end + mine, mask=mine < m_end, other=0)[:, None]
        keep = ((ids[None, :] < low) | (ids[None, :] >= high)) & (ids < last)[None, :]
        s = tl.where(keep, s, float("-inf"))
    higher = tl.maximum(best, tl.max(s, 1))
    finite = tl.where(higher == float("-inf"), 0.0, higher)
    total = total * tl.exp2(best - finite) + tl.sum(tl.exp2(s - finite[:, None]), 1)
    return higher, total


@triton.jit
def log_sum_pairs(
    rows,  # (PLANES, M, C)
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_begin,  # (M,) int32
    skip_end,  # (M,) int32
    step_ends,  # (G,) int64, of count_work
    own,  # (2, M + 2 BLOCK_M programs) float32, written
    M,
    G,
    own_stride,
    scale_log2,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write the partials of every anchor's sum of 2^(scale_log2 x_i . x_j) over its denominator: the largest exponent,
    -inf where there is none, and the sum relative to it."""
    left = range_length(step_ends, G)
    while left > 0:
        g, number, first_step, end_step, partial, left = next_tile(
            left, step_ends, offsets, anchors, G, 1, BLOCK_M, BLOCK_N, 0, 1, RECTANGLE
        )
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        first_m = begin + number * BLOCK_M
        m_end = tl.minimum(first_m + BLOCK_M, begin + tl.load(anchors + g))
        last = tl.minimum(begin + end_step * BLOCK_N, end)
        first = tl.minimum(begin + first_step * BLOCK_N, last)
        ids = first_m + tl.arange(0, BLOCK_M)
        inside = ids < m_end
        x_m = 0
        if WIDTH == CP:
            x_m = load_rows(rows, M, first_m, m_end, 0, BLOCK_M, C, CP, PLANES, True)
        low = tl.load(skip_begin + ids, mask=inside, other=0)
        high = tl.load(skip_end + ids, mask=inside, other=0)
        any_begin, any_end, all_begin, all_end = masked_ranges(low, high, inside)
        clear, clear_jump, jump, masked, any_tile, all_tile, all_tiles, ragged = peel(
            first, last, any_begin, any_end, all_begin, all_end, BLOCK_N
        )
        best = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((BLOCK_M,), dtype=tl.float32)
        for k in tl.range(0, clear, num_stages=STAGES):
            column = first + clear_tile(k, clear_jump, jump) * BLOCK_N
            best, total = add_with_maximum(
                best, total, x_m, rows, M, rows, M, None, skip_begin, skip_end, first_m, m_end, column, last,
                scale_log2, C, CP, WIDTH, BLOCK_M, BLOCK_N, False, PLANES, STAGES,
            )  # fmt: skip
        for k in tl.range(0, masked, num_stages=STAGES):
            column = first + masked_tile(k, masked, any_tile, all_tile, all_tiles, ragged) * BLOCK_N
            best, total = add_with_maximum(
                best, total, x_m, rows, M, rows, M, None, skip_begin, skip_end, first_m, m_end, column, last,
                scale_log2, C, CP, WIDTH, BLOCK_M, BLOCK_N, True, PLANES, STAGES,
            )  # fmt: skip
        store_own(own, best, partial, ids, inside, M, 0, 1, BLOCK_M)
        store_own(own + own_stride, total, partial, ids, inside, M, 0, 1, BLOCK_M)


@triton.jit
def join(
    own, given, step_ends, offsets, anchors, g, number, M, G, BLOCKS, WORKERS, own_stride, shift,
    TILE_ROWS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS, PASS: tl.constexpr,
    BOUNDED: tl.constexpr,
):  # fmt: skip
    """Return (maximum, total) of the anchors of row tile ``number`` of group g: each one's sum 2^maximum total.

    BLOCK_M and BLOCK_N are those of the forward pass, BLOCK_M a multiple of TILE_ROWS. Loads are in flight several at a
    time.
    """
    begin, a = tl.load(offsets + g), tl.load(anchors + g)
    row = number * TILE_ROWS + tl.arange(0, TILE_ROWS)
    ids, inside = begin + row, row < a
    tile = number * TILE_ROWS // BLOCK_M
    # The blocks from the one that holds the tile's columns on.
    own_block, blocks = 0, 1
    if PASS == TRIANGLE:
        own_block = number * TILE_ROWS // COLUMNS
        blocks = tl.cdiv(tl.load(offsets + g + 1) - begin, COLUMNS)
    best = tl.full((TILE_ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((TILE_ROWS,), dtype=tl.float32)
    # Rows past the last anchor have no tile.
    for column_block in range(own_block, tl.where(number * TILE_ROWS < a, blocks, 0)):
        first, last, first_giver, last_giver = tile_workers(
            tile, g * BLOCKS + column_block, step_ends, offsets, anchors, G, BLOCKS, WORKERS,
            BLOCK_M, BLOCK_N, COLUMNS, 1, PASS,
        )  # fmt: skip
        for begins in range(first, last + 1, PARTIALS_AT_ONCE):
            for i in tl.static_range(PARTIALS_AT_ONCE):
                worker = begins + i
                there = inside & (tl.full((TILE_ROWS,), worker, tl.int32) <= last)
                place = place_of((worker == first).to(tl.int32), worker, M, BLOCKS, BLOCK_M) - tile * BLOCK_M + row
                pointers = own + tl.where(first == last, tl.cast(M, tl.int64) * column_block + ids, place)
                if BOUNDED:
                    total += tl.load(pointers, mask=there, other=0.0)
                else:
                    part = tl.load(pointers, mask=there, other=float("-inf"))
                    part_total = tl.load(pointers + own_stride, mask=there, other=0.0)
                    higher = tl.maximum(best, part)
                    finite = tl.where(higher == float("-inf"), 0.0, higher)
                    total = total * tl.exp2(best - finite) + part_total * tl.exp2(part - finite)
                    best = higher
        if PASS == TRIANGLE:
            # All workers of the tiles before, in the block of the tile's columns.
            givers = tl.where((tile > 0) & (column_block == own_block), last_giver + 1, first_giver)
            for begins in range(first_giver, givers, GIVERS_AT_ONCE):
                worker = begins + tl.arange(0, GIVERS_AT_ONCE)
                pointers = given + worker.to(tl.int64)[:, None] * COLUMNS + ids[None, :]
                total += tl.sum(tl.load(pointers, mask=(worker <= last_giver)[:, None] & inside[None, :], other=0.0), 0)
    if BOUNDED:
        return tl.full((TILE_ROWS,), shift, dtype=tl.float32), total
    else:
        return best, total


@triton.jit
def log2_of(maximum, total):
    """Return log2 of 2^maximum total, -inf of no sum."""
    return tl.where(total == 0.0, float("-inf"), maximum + tl.log2(total))


@triton.jit
def store_logsumexp(
    own,  # of sum_pairs or log_sum_pairs
    given,  # of sum_pairs, or None
    step_ends,  # (G BLOCKS,) int64, of count_work
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    lse,  # (M,) float64, written for the anchors
    M,
    G,
    BLOCKS,
    WORKERS,
    own_stride,
    shift,
    TILE_ROWS: tl.constexpr,
    SUMS_M: tl.constexpr,
    SUMS_N: tl.constexpr,
    COLUMNS,
    SUMS_PASS: tl.constexpr,
    BOUNDED: tl.constexpr,
):
    """Write every anchor's log-sum-exp, in base e: to more digits than a large exponent leaves to float32."""
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        maximum, total = join(
            own, given, step_ends, offsets, anchors, g, number, M, G, BLOCKS, WORKERS, own_stride, shift,
            TILE_ROWS, SUMS_M, SUMS_N, COLUMNS, SUMS_PASS, BOUNDED,
        )  # fmt: skip
        row = number * TILE_ROWS + tl.arange(0, TILE_ROWS)
        to = lse + tl.load(offsets + g) + row
        exact = log2_of(maximum.to(tl.float64), total.to(tl.float64))
        tl.store(to, exact * 0.6931471805599453, mask=row < tl.load(anchors + g))
