"""Both passes of rows against other rows, the keys of their group: rectangles, without a known bound.

                 N tiles of the group's keys
                 | y_n | y_n | y_n | ...
    M tile  x_m  |  S = x_m y_n^T  ->  maxima and sums, or W and sums += W y_n

The gradient by the keys is the same with the roles exchanged: an M tile of keys, past which come the rows of every
group that meets one of them. So each number has one owner, whichever groups share its keys.

A tile's columns are cut into as many parts as fill the device, each one program's; they are added up afterwards.
Every step has a mask.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gradient import relative
from .logsumexp import add_with_maximum
from .split_bf16 import deep_similarities, load_rows, product, split, transposed
from .tile_scheduler import find_item

GROUPS_AT_ONCE = tl.constexpr(256)


@triton.jit
def m_tile(item, tile_ends, offsets, anchors, G, BLOCK_M: tl.constexpr):
    """Return the group of a tile of anchors and its rows [first, end), none past the last tile."""
    g, number = find_item(item, tile_ends, G)
    begin = tl.load(offsets + g)
    first = begin + number * BLOCK_M
    return g, first, tl.minimum(first + BLOCK_M, begin + tl.load(anchors + g))


@triton.jit
def part_of(begin, end, BLOCK_N: tl.constexpr):
    """Return the part of the columns [begin, end) that is this program's."""
    length = tl.cdiv(tl.cdiv(tl.maximum(end - begin, 0), BLOCK_N), tl.num_programs(1)) * BLOCK_N
    first = begin + tl.program_id(1) * length
    return first, tl.minimum(first + length, end)


@triton.jit
def sum_keys(
    rows,  # (PLANES, M, C)
    M,
    keys,  # (PLANES, K, C)
    K,
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_begin,  # (M,) int32, numbers of keys
    skip_end,  # (M,) int32, likewise
    key_begin,  # (G,) int32
    key_end,  # (G,) int32
    log2_weights,  # (K,) float32, or None
    tile_ends,  # (G,) int32: tiles of BLOCK_M anchors of all groups up to this one
    maxima,  # (parts, M) float32, written for the anchors: the largest exponent, -inf where there is none
    totals,  # (parts, M) float32, likewise: the sum relative to it
    G,
    scale_log2,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write parts of every anchor's sum of w_j 2^(scale_log2 x_i . y_j) over its denominator."""
    g, first_m, m_end = m_tile(tl.program_id(0), tile_ends, offsets, anchors, G, BLOCK_M)
    if first_m < m_end:
        first, last = part_of(tl.load(key_begin + g), tl.load(key_end + g), BLOCK_N)
        x_m = 0
        if WIDTH == CP:
            x_m = load_rows(rows, M, first_m, m_end, 0, BLOCK_M, C, CP, PLANES, True)
        best = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((BLOCK_M,), dtype=tl.float32)
        for column in tl.range(first, last, BLOCK_N, num_stages=STAGES):
            best, total = add_with_maximum(
                best, total, x_m, rows, M, keys, K, log2_weights, skip_begin, skip_end, first_m, m_end, column, last,
                scale_log2, C, CP, WIDTH, BLOCK_M, BLOCK_N, True, PLANES, STAGES,
            )  # fmt: skip
        ids = first_m + tl.arange(0, BLOCK_M)
        to = tl.program_id(1) * tl.cast(M, tl.int64) + ids
        tl.store(maxima + to, best, mask=ids < m_end)
        tl.store(totals + to, total, mask=ids < m_end)


@triton.jit
def groups_of_keys(first, last, key_begin, key_end, anchors, G):
    """Return a range of groups that holds all that meet one of the keys [first, last)."""
    low, high = G, 0
    for at in range(0, G, GROUPS_AT_ONCE):
        g = at + tl.arange(0, GROUPS_AT_ONCE)
        begin, end = tl.load(key_begin + g, mask=g < G, other=0), tl.load(key_end + g, mask=g < G, other=0)
        meets = (begin < last) & (end > first) & (tl.load(anchors + g, mask=g < G, other=0) > 0)
        low = tl.minimum(low, tl.min(tl.where(meets, g, G)))
        high = tl.maximum(high, tl.max(tl.where(meets, g + 1, 0)))
    return low, high


@triton.jit
def load_at(pointer, ids, inside, other, AXIS: tl.constexpr):
    """Return the values of rows or keys along an axis of the tile of pairs."""
    return tl.expand_dims(tl.load(pointer + ids, mask=inside, other=other), 1 - AXIS)


@triton.jit
def weights_of(
    s, row, is_row, key, is_key, row_scales, shifts, skip_begin, skip_end, class_begin, class_end, pulls, itself,
    weights, log2_weights, ROWS: tl.constexpr,
):  # fmt: skip
    """Return W of the pairs of rows and keys with these exponents; rows lie along the axis ROWS."""
    KEYS: tl.constexpr = 1 - ROWS
    number = tl.expand_dims(key, 1 - KEYS)
    inside = tl.expand_dims(is_key, 1 - KEYS)
    # What is summed of an M tile's own rows that are not there is not written.
    if ROWS == 1:
        inside = inside & tl.expand_dims(is_row, 1 - ROWS)
    low, high = load_at(skip_begin, row, is_row, 0, ROWS), load_at(skip_end, row, is_row, 0, ROWS)
    keep = ((number < low) | (number >= high)) & inside
    if weights is not None:
        s += load_at(log2_weights, key, is_key, 0.0, KEYS)
    e = relative(s, load_at(shifts, row, is_row, float("inf"), ROWS))
    w = tl.where(keep, load_at(row_scales, row, is_row, 0.0, ROWS) * e, 0.0)
    if class_begin is not None:
        low, high = load_at(class_begin, row, is_row, 0, ROWS), load_at(class_end, row, is_row, 0, ROWS)
        of_class = (number >= low) & (number < high) & (number != load_at(itself, row, is_row, -1, ROWS))
        pull = load_at(pulls, row, is_row, 0.0, ROWS)
        if weights is not None:
            pull = pull * load_at(weights, key, is_key, 0.0, KEYS)
        w -= tl.where(of_class & inside, pull, 0.0)
    return w


@triton.jit
def key_gradient(
    rows,  # (PLANES, M, C)
    M,
    keys,  # (PLANES, K, C)
    K,
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_begin,  # (M,) int32, numbers of keys
    skip_end,  # (M,) int32, likewise
    key_begin,  # (G,) int32
    key_end,  # (G,) int32
    row_scales,  # (M,) float32
    shifts,  # (M,) float32
    class_begin,  # (M,) int32, numbers of keys, where there are positives: else None
    class_end,  # (M,) int32, likewise
    pulls,  # (M,) float32, likewise
    itself,  # (M,) int32: the key that a row is, or -1
    weights,  # (K,) float32, or None
    log2_weights,  # (K,) float32, or None
    tile_ends,  # (G,) int32: tiles of BLOCK_M anchors of all groups up to this one
    out,  # (parts, M or K, C) float32, written for the anchors, or for all keys
    G,
    scale_log2,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BY_KEYS: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write parts of sum_j W_ij y_j by the rows, or of sum_i W_ij x_i BY_KEYS."""
    out_channel = tl.program_id(2) * OUT
    if BY_KEYS:
        own, others, own_count, other_count = keys, rows, K, M
        first_m = tl.program_id(0) * BLOCK_M
        m_end = tl.minimum(first_m + BLOCK_M, K)
        first_group, last_group = groups_of_keys(first_m, m_end, key_begin, key_end, anchors, G)
    else:
        own, others, own_count, other_count = rows, keys, M, K
        first_group, first_m, m_end = m_tile(tl.program_id(0), tile_ends, offsets, anchors, G, BLOCK_M)
        last_group = tl.where(first_m < m_end, first_group + 1, first_group)
    ids = first_m + tl.arange(0, BLOCK_M)
    x = 0
    if WIDTH == CP:
        x = load_rows(own, own_count, first_m, m_end, 0, BLOCK_M, C, CP, PLANES, True)
    sums = tl.zeros((BLOCK_M, OUT), dtype=tl.float32)
    for g in range(first_group, last_group):
        low, high = tl.load(key_begin + g), tl.load(key_end + g)
        if BY_KEYS:
            begin = tl.load(offsets + g)
            # Of groups in between some meet none of these keys.
            meets = (low < m_end) & (high > first_m)
            first, last = part_of(begin, tl.where(meets, begin + tl.load(anchors + g), begin), BLOCK_N)
            is_own = (ids >= low) & (ids < high)
        else:
            first, last = part_of(low, high, BLOCK_N)
            is_own = ids < m_end
        for column in tl.range(first, last, BLOCK_N, num_stages=STAGES):
            y = load_rows(others, other_count, column, last, out_channel, BLOCK_N, C, OUT, PLANES, True)
            if WIDTH == CP:
                s = product(x, transposed(y, PLANES), None, PLANES) * scale_log2
            else:
                s = scale_log2 * deep_similarities(
                    own, own_count, first_m, m_end, others, other_count, column, last,
                    BLOCK_M, BLOCK_N, C, CP, WIDTH, PLANES, STAGES,
                )  # fmt: skip
            n = column + tl.arange(0, BLOCK_N)
            row, is_row, key, is_key = (n, n < last, ids, is_own) if BY_KEYS else (ids, is_own, n, n < last)
            w = weights_of(
                s, row, is_row, key, is_key, row_scales, shifts, skip_begin, skip_end, class_begin, class_end, pulls,
                itself, weights, log2_weights, 1 if BY_KEYS else 0,
            )  # fmt: skip
            sums += product(split(w, rows.dtype.element_ty, PLANES), y, None, PLANES)
    c = out_channel + tl.arange(0, OUT)
    to = (tl.program_id(1) * tl.cast(own_count, tl.int64) + ids)[:, None] * C + c[None, :]
    tl.store(out + to, sums, mask=(ids < m_end)[:, None] & (c < C)[None, :])
