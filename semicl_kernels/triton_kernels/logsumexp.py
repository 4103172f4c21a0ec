"""The forward pass: sums of exponentials over the pairs of each group.

*Fixed maximum* (:func:`sum_pairs`). No exponent exceeds a bound B and none lies below -B, with exp(-2 B) normal in
float32. Every exponential is taken relative to B, and sums are plain sums. An item is a pair of row blocks (P, Q), see
tile_scheduler.py. An M tile of P stays, and the N tiles of Q stream past it:

                 x_m (BLOCK_M)
    x_n          +-----------+
    (BLOCK_N)    | S = x_n x_m^T, exp | -> sums over this axis: of the anchors of Q, in a triangle
                 +-----------+
                       |
                       v sums over this axis: of the anchors of P, kept in registers, reduced once

Partial q of anchor i is its sum over row block q of its group. Each partial is written by one program in one order: no
atomics, the same bits every time. The sums of Q's anchors are cheap: they lie within a thread but for two shuffles.

*Online softmax* (:func:`log_sum_pairs`). The same items, all row blocks against all, with a running maximum for each
anchor. A partial is two numbers: the maximum, and the sum relative to it.

:func:`join` adds up the partials of an anchor. Exponents are in base 2 throughout: scale_log2 = scale log2(e).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .masking import clear_tile, masked_ranges, masked_tile, peel
from .split_bf16 import deep_similarities, load_columns, load_rows, product, transposed
from .tile_scheduler import find_item, find_pair

PARTIALS_AT_ONCE = tl.constexpr(8)


@triton.jit
def add_n_tile(
    kept,
    x_m,
    rows,
    M,
    skip_begin,
    skip_end,
    partial,
    first_m,
    p_end,
    first,
    q_end,
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

    The anchors of the N tile from gives_from to gives_to get their sums added to what is in ``partial``.
    """
    ids = first + tl.arange(0, BLOCK_N)
    if WIDTH == CP:
        x = load_rows(rows, M, first, q_end, 0, BLOCK_N, C, CP, PLANES, MASKED)
        s = product(x, x_m, None, PLANES)
    else:
        s = deep_similarities(rows, M, first, q_end, first_m, p_end, BLOCK_N, BLOCK_M, C, CP, WIDTH, PLANES, STAGES)
    e = tl.exp2(s * scale_log2 - shift)
    if MASKED:
        # Loaded here, not where the tile begins: the loop without masks has no registers to spare for them.
        columns = first_m + tl.arange(0, BLOCK_M)
        low = tl.load(skip_begin + columns, mask=columns < p_end, other=0)[None, :]
        high = tl.load(skip_end + columns, mask=columns < p_end, other=0)[None, :]
        keep = ((ids[:, None] < low) | (ids[:, None] >= high)) & (ids < q_end)[:, None]
        e = tl.where(keep, e, 0.0)
    if GIVES:
        given = (ids >= gives_from) & (ids < gives_to)
        if (first < gives_to) & (first >= gives_from):
            before = tl.load(partial + ids, mask=given, other=0.0)
            tl.store(partial + ids, before + tl.sum(e, 1), mask=given)
    return kept + e


@triton.jit
def sum_pairs(
    rows,  # (PLANES, M, C)
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_begin,  # (M,) int32
    skip_end,  # (M,) int32
    pair_ends,  # (G,) int32, of count_work
    partials,  # (partials, M) float32, zeros, added to
    M,
    G,
    ROW_BLOCK,  # rows of a row block, a multiple of BLOCK_M
    scale_log2,
    shift,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,  # a multiple of BLOCK_N
    BLOCK_N: tl.constexpr,
    TRIANGLE: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write partial q of every anchor: sum of 2^(scale_log2 x_i . x_j - shift) over its denominator in row block q."""
    items = tl.load(pair_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, pair_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        anchor_end = begin + tl.load(anchors + g)
        p, q = find_pair(number, tl.cdiv(end - begin, ROW_BLOCK), TRIANGLE)
        p_begin, q_begin = begin + p * ROW_BLOCK, begin + q * ROW_BLOCK
        p_end, q_end = tl.minimum(p_begin + ROW_BLOCK, anchor_end), tl.minimum(q_begin + ROW_BLOCK, end)
        given = partials + p.to(tl.int64) * M
        own = partials + q.to(tl.int64) * M
        for first_m in range(p_begin, p_end, BLOCK_M):
            ids = first_m + tl.arange(0, BLOCK_M)
            inside = ids < p_end
            x_m = 0
            if WIDTH == CP:
                x_m = load_columns(rows, M, first_m, p_end, 0, BLOCK_M, C, CP, PLANES)
            low = tl.load(skip_begin + ids, mask=inside, other=0)
            high = tl.load(skip_end + ids, mask=inside, other=0)
            first = q_begin
            if TRIANGLE:
                first = tl.where(p == q, first_m, q_begin)
            gives_from = first_m + BLOCK_M
            gives_to = tl.minimum(anchor_end, q_end)
            any_begin, any_end, all_begin, all_end = masked_ranges(low, high, inside)
            clear, clear_jump, jump, masked, any_tile, all_tile, all_tiles, ragged = peel(
                first, q_end, any_begin, any_end, all_begin, all_end, BLOCK_N
            )
            kept = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
            for k in tl.range(0, clear, num_stages=STAGES):
                column = first + clear_tile(k, clear_jump, jump) * BLOCK_N
                kept = add_n_tile(
                    kept, x_m, rows, M, skip_begin, skip_end, given, first_m, p_end, column, q_end,
                    gives_from, gives_to, scale_log2, shift,
                    C, CP, WIDTH, BLOCK_M, BLOCK_N, TRIANGLE, False, PLANES, STAGES,
                )  # fmt: skip
            for k in tl.range(0, masked, num_stages=STAGES):
                column = first + masked_tile(k, masked, any_tile, all_tile, all_tiles, ragged) * BLOCK_N
                kept = add_n_tile(
                    kept, x_m, rows, M, skip_begin, skip_end, given, first_m, p_end, column, q_end,
                    gives_from, gives_to, scale_log2, shift,
                    C, CP, WIDTH, BLOCK_M, BLOCK_N, TRIANGLE, True, PLANES, STAGES,
                )  # fmt: skip
            total = tl.sum(kept, 0)
            if TRIANGLE:
                # Given by earlier tiles of this row block.
                total += tl.load(own + ids, mask=inside & (ids >= q_begin), other=0.0)
            tl.store(own + ids, total, mask=inside)
            tl.debug_barrier()  # what this tile gave is read by other threads at the next


@triton.jit
def add_with_maximum(
    best,
    total,
    x_m,
    rows,
    M,
    skip_begin,
    skip_end,
    first_m,
    p_end,
    first,
    q_end,
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
    """Take one N tile past the M tile: return the new maxima and the sums relative to them."""
    ids = first + tl.arange(0, BLOCK_N)
    if WIDTH == CP:
        x = load_rows(rows, M, first, q_end, 0, BLOCK_N, C, CP, PLANES, MASKED)
        s = product(x_m, transposed(x, PLANES), None, PLANES) * scale_log2
    else:
        s = scale_log2 * deep_similarities(
            rows, M, first_m, p_end, first, q_end, BLOCK_M, BLOCK_N, C, CP, WIDTH, PLANES, STAGES
        )
    if MASKED:
        mine = first_m + tl.arange(0, BLOCK_M)
        low = tl.load(skip_begin + mine, mask=mine < p_end, other=0)[:, None]
        high = tl.load(skip_end + mine, mask=mine < p_end, other=0)[:, None]
        keep = ((ids[None, :] < low) | (ids[None, :] >= high)) & (ids < q_end)[None, :]
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
    pair_ends,  # (G,) int32, of count_work without the triangle
    partials,  # (2, partials, M) float32, written
    M,
    G,
    ROW_BLOCK,  # rows of a row block
    PARTIALS,
    scale_log2,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write partial q of every anchor, of its sum of 2^(scale_log2 x_i . x_j) over its points in row block q: the
    largest exponent, -inf where there is none, and the sum relative to it."""
    items = tl.load(pair_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, pair_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        anchor_end = begin + tl.load(anchors + g)
        p, q = find_pair(number, tl.cdiv(end - begin, ROW_BLOCK), False)
        p_begin, q_begin = begin + p * ROW_BLOCK, begin + q * ROW_BLOCK
        p_end, q_end = tl.minimum(p_begin + ROW_BLOCK, anchor_end), tl.minimum(q_begin + ROW_BLOCK, end)
        own = partials + q.to(tl.int64) * M
        for first_m in range(p_begin, p_end, BLOCK_M):
            ids = first_m + tl.arange(0, BLOCK_M)
            inside = ids < p_end
            x_m = 0
            if WIDTH == CP:
                x_m = load_rows(rows, M, first_m, p_end, 0, BLOCK_M, C, CP, PLANES, True)
            low = tl.load(skip_begin + ids, mask=inside, other=0)
            high = tl.load(skip_end + ids, mask=inside, other=0)
            any_begin, any_end, all_begin, all_end = masked_ranges(low, high, inside)
            clear, clear_jump, jump, masked, any_tile, all_tile, all_tiles, ragged = peel(
                q_begin, q_end, any_begin, any_end, all_begin, all_end, BLOCK_N
            )
            best = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
            total = tl.zeros((BLOCK_M,), dtype=tl.float32)
            for k in tl.range(0, clear, num_stages=STAGES):
                column = q_begin + clear_tile(k, clear_jump, jump) * BLOCK_N
                best, total = add_with_maximum(
                    best, total, x_m, rows, M, skip_begin, skip_end, first_m, p_end, column, q_end,
                    scale_log2, C, CP, WIDTH, BLOCK_M, BLOCK_N, False, PLANES, STAGES,
                )  # fmt: skip
            for k in tl.range(0, masked, num_stages=STAGES):
                column = q_begin + masked_tile(k, masked, any_tile, all_tile, all_tiles, ragged) * BLOCK_N
                best, total = add_with_maximum(
                    best, total, x_m, rows, M, skip_begin, skip_end, first_m, p_end, column, q_end,
                    scale_log2, C, CP, WIDTH, BLOCK_M, BLOCK_N, True, PLANES, STAGES,
                )  # fmt: skip
            tl.store(own + ids, best, mask=inside)
            tl.store(own + tl.cast(PARTIALS, tl.int64) * M + ids, total, mask=inside)


@triton.jit
def join(partials, ids, inside, M, PARTIALS, count, shift, BOUNDED: tl.constexpr):
    """Return (maximum, total), each row's sum 2^maximum total over its ``count`` partials.

    PARTIALS_AT_ONCE loads are in flight at a time.
    """
    partial = partials + ids
    totals = partial + tl.cast(PARTIALS, tl.int64) * M
    best = tl.full(ids.shape, float("-inf"), dtype=tl.float32)
    total = tl.zeros(ids.shape, dtype=tl.float32)
    for first in range(0, count, PARTIALS_AT_ONCE):
        for i in tl.static_range(PARTIALS_AT_ONCE):
            there = inside & (tl.full(ids.shape, first + i, tl.int32) < count)
            if BOUNDED:
                total += tl.load(partial, mask=there, other=0.0)
            else:
                part = tl.load(partial, mask=there, other=float("-inf"))
                higher = tl.maximum(best, part)
                finite = tl.where(higher == float("-inf"), 0.0, higher)
                part_total = tl.load(totals, mask=there, other=0.0)
                total = total * tl.exp2(best - finite) + part_total * tl.exp2(part - finite)
                best = higher
                totals += M
            partial += M
    if BOUNDED:
        return tl.full(ids.shape, shift, dtype=tl.float32), total
    else:
        return best, total


@triton.jit
def log2_of(maximum, total):
    """Return log2 of 2^maximum total, -inf of no sum."""
    return tl.where(total == 0.0, float("-inf"), maximum + tl.log2(total))


@triton.jit
def store_logsumexp(
    partials,  # (partials, M) float32, or (2, partials, M) of log_sum_pairs
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    lse,  # (M,) float32, written for the anchors
    M,
    G,
    ROW_BLOCK,
    PARTIALS,
    shift,
    BOUNDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Write every anchor's log-sum-exp, in base e."""
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        ids = begin + number * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = ids < begin + tl.load(anchors + g)
        count = tl.cdiv(end - begin, ROW_BLOCK)
        maximum, total = join(partials, ids, inside, M, PARTIALS, count, shift, BOUNDED)
        tl.store(lse + ids, log2_of(maximum, total) * 0.6931471805599453, mask=inside)
