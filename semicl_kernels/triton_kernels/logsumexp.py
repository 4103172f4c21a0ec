"""The forward pass: sums of exponentials over the pairs of each group.

*Known maximum* (:func:`sum_pairs`). Where no exponent exceeds a bound B and none lies below -B, with exp(-2 B) normal
in float32, every exponential is taken relative to B and sums are plain sums. One item is a panel pair (P, Q). A tile of
P, the owned one, stays; the tiles of Q stream past it, S = X_streamed X_owned^T, one exponential a similarity. Sums for
the owned anchors add up element by element in registers and are reduced once, at the end; where the panels form a
triangle, each tile's sums over the other axis, which are cheap (they lie within a thread but for two shuffles), belong
to the streamed anchors and are added to this item's own slot in memory. Slot q of anchor i is the sum over panel q of
its group: each slot is written by one program in one order, so there are no atomics and every run gives the same bits.

*Unknown maximum* (:func:`log_sum_pairs`). The same items, all panels against all, with a running maximum for each
anchor; a slot holds the base-2 logarithm of its sum.

:func:`join` adds the slots of an anchor up. Exponents are in base 2 throughout: rate = scale log2(e).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .masking import clear_tile, masked_tile, peel, skip_hull
from .split_bf16 import deep_similarities, load_columns, load_rows, product, transposed
from .tile_scheduler import find_item, find_pair

SLOTS_AT_ONCE = tl.constexpr(8)


@triton.jit
def add_streamed(
    kept,
    x_owned,
    rows,
    M,
    skip_low,
    skip_high,
    slot,
    owned,
    p_end,
    first,
    q_end,
    gives_from,
    gives_to,
    rate,
    shift,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    OWNED: tl.constexpr,
    STREAMED: tl.constexpr,
    GIVES: tl.constexpr,
    MASKED: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take one streamed tile past the owned one: return ``kept`` with its exponentials added.

    The streamed anchors from gives_from to gives_to get their sums added to what is in ``slot``.
    """
    ids = first + tl.arange(0, STREAMED)
    if WIDTH == CP:
        x = load_rows(rows, M, first, q_end, 0, STREAMED, C, CP, PLANES, MASKED)
        s = product(x, x_owned, None, PLANES)
    else:
        s = deep_similarities(rows, M, first, q_end, owned, p_end, STREAMED, OWNED, C, CP, WIDTH, PLANES, STAGES)
    e = tl.exp2(s * rate - shift)
    if MASKED:
        # Loaded here, not where the tile begins: the loop without masks has no registers to spare for them.
        columns = owned + tl.arange(0, OWNED)
        low = tl.load(skip_low + columns, mask=columns < p_end, other=0)[None, :]
        high = tl.load(skip_high + columns, mask=columns < p_end, other=0)[None, :]
        keep = ((ids[:, None] < low) | (ids[:, None] >= high)) & (ids < q_end)[:, None]
        e = tl.where(keep, e, 0.0)
    if GIVES:
        given = (ids >= gives_from) & (ids < gives_to)
        if (first < gives_to) & (first >= gives_from):
            before = tl.load(slot + ids, mask=given, other=0.0)
            tl.store(slot + ids, before + tl.sum(e, 1), mask=given)
    return kept + e


@triton.jit
def sum_pairs(
    rows,  # (PLANES, M, C)
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_low,  # (M,) int32
    skip_high,  # (M,) int32
    pair_ends,  # (G,) int32, of count_work
    slots,  # (slots, M) float32, zeros, added to
    M,
    G,
    SPAN,  # rows of a panel, a multiple of OWNED
    rate,
    shift,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    OWNED: tl.constexpr,  # a multiple of STREAMED
    STREAMED: tl.constexpr,
    TRIANGLE: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write slot q of every anchor: the sum of 2^(rate x_i . x_j - shift) over its denominator in panel q."""
    items = tl.load(pair_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, pair_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        anchor_end = begin + tl.load(anchors + g)
        p, q = find_pair(number, tl.cdiv(end - begin, SPAN), TRIANGLE)
        p_begin, q_begin = begin + p * SPAN, begin + q * SPAN
        p_end, q_end = tl.minimum(p_begin + SPAN, anchor_end), tl.minimum(q_begin + SPAN, end)
        given = slots + p.to(tl.int64) * M
        own = slots + q.to(tl.int64) * M
        for owned in range(p_begin, p_end, OWNED):
            ids = owned + tl.arange(0, OWNED)
            inside = ids < p_end
            x_owned = 0
            if WIDTH == CP:
                x_owned = load_columns(rows, M, owned, p_end, 0, OWNED, C, CP, PLANES)
            low = tl.load(skip_low + ids, mask=inside, other=0)
            high = tl.load(skip_high + ids, mask=inside, other=0)
            first = q_begin
            if TRIANGLE:
                first = tl.where(p == q, owned, q_begin)
            gives_from = owned + OWNED
            gives_to = tl.minimum(anchor_end, q_end)
            hull_low, hull_high, core_low, core_high = skip_hull(low, high, inside)
            clear, clear_jump, jump, masked, hull_tile, core_tile, core, ragged = peel(
                first, q_end, hull_low, hull_high, core_low, core_high, STREAMED
            )
            kept = tl.zeros((STREAMED, OWNED), dtype=tl.float32)
            for k in tl.range(0, clear, num_stages=STAGES):
                column = first + clear_tile(k, clear_jump, jump) * STREAMED
                kept = add_streamed(
                    kept, x_owned, rows, M, skip_low, skip_high, given, owned, p_end, column, q_end,
                    gives_from, gives_to, rate, shift, C, CP, WIDTH, OWNED, STREAMED, TRIANGLE, False, PLANES, STAGES,
                )  # fmt: skip
            for k in tl.range(0, masked, num_stages=STAGES):
                column = first + masked_tile(k, masked, hull_tile, core_tile, core, ragged) * STREAMED
                kept = add_streamed(
                    kept, x_owned, rows, M, skip_low, skip_high, given, owned, p_end, column, q_end,
                    gives_from, gives_to, rate, shift, C, CP, WIDTH, OWNED, STREAMED, TRIANGLE, True, PLANES, STAGES,
                )  # fmt: skip
            total = tl.sum(kept, 0)
            if TRIANGLE:
                # What earlier tiles of this panel gave to this one.
                total += tl.load(own + ids, mask=inside & (ids >= q_begin), other=0.0)
            tl.store(own + ids, total, mask=inside)
            tl.debug_barrier()  # what this tile gave is read by other threads at the next


@triton.jit
def add_with_maximum(
    best,
    total,
    x_owned,
    rows,
    M,
    skip_low,
    skip_high,
    owned,
    p_end,
    first,
    q_end,
    rate,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    OWNED: tl.constexpr,
    STREAMED: tl.constexpr,
    MASKED: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take one streamed tile past the owned one: return the new maxima and the sums relative to them."""
    ids = first + tl.arange(0, STREAMED)
    if WIDTH == CP:
        x = load_rows(rows, M, first, q_end, 0, STREAMED, C, CP, PLANES, MASKED)
        s = product(x_owned, transposed(x, PLANES), None, PLANES) * rate
    else:
        s = rate * deep_similarities(rows, M, owned, p_end, first, q_end, OWNED, STREAMED, C, CP, WIDTH, PLANES, STAGES)
    if MASKED:
        mine = owned + tl.arange(0, OWNED)
        low = tl.load(skip_low + mine, mask=mine < p_end, other=0)[:, None]
        high = tl.load(skip_high + mine, mask=mine < p_end, other=0)[:, None]
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
    skip_low,  # (M,) int32
    skip_high,  # (M,) int32
    pair_ends,  # (G,) int32, of count_work without the triangle
    slots,  # (slots, M) float32, written
    M,
    G,
    SPAN,  # rows of a panel
    rate,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    OWNED: tl.constexpr,
    STREAMED: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write slot q of every anchor: log2 of the sum of 2^(rate x_i . x_j) over its denominator in panel q."""
    items = tl.load(pair_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, pair_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        anchor_end = begin + tl.load(anchors + g)
        p, q = find_pair(number, tl.cdiv(end - begin, SPAN), False)
        p_begin, q_begin = begin + p * SPAN, begin + q * SPAN
        p_end, q_end = tl.minimum(p_begin + SPAN, anchor_end), tl.minimum(q_begin + SPAN, end)
        own = slots + q.to(tl.int64) * M
        for owned in range(p_begin, p_end, OWNED):
            ids = owned + tl.arange(0, OWNED)
            inside = ids < p_end
            x_owned = 0
            if WIDTH == CP:
                x_owned = load_rows(rows, M, owned, p_end, 0, OWNED, C, CP, PLANES, True)
            low = tl.load(skip_low + ids, mask=inside, other=0)
            high = tl.load(skip_high + ids, mask=inside, other=0)
            hull_low, hull_high, core_low, core_high = skip_hull(low, high, inside)
            clear, clear_jump, jump, masked, hull_tile, core_tile, core, ragged = peel(
                q_begin, q_end, hull_low, hull_high, core_low, core_high, STREAMED
            )
            best = tl.full((OWNED,), float("-inf"), dtype=tl.float32)
            total = tl.zeros((OWNED,), dtype=tl.float32)
            for k in tl.range(0, clear, num_stages=STAGES):
                column = q_begin + clear_tile(k, clear_jump, jump) * STREAMED
                best, total = add_with_maximum(
                    best, total, x_owned, rows, M, skip_low, skip_high, owned, p_end, column, q_end,
                    rate, C, CP, WIDTH, OWNED, STREAMED, False, PLANES, STAGES,
                )  # fmt: skip
            for k in tl.range(0, masked, num_stages=STAGES):
                column = q_begin + masked_tile(k, masked, hull_tile, core_tile, core, ragged) * STREAMED
                best, total = add_with_maximum(
                    best, total, x_owned, rows, M, skip_low, skip_high, owned, p_end, column, q_end,
                    rate, C, CP, WIDTH, OWNED, STREAMED, True, PLANES, STAGES,
                )  # fmt: skip
            tl.store(own + ids, tl.where(total == 0.0, float("-inf"), best + tl.log2(total)), mask=inside)


@triton.jit
def join(slots, ids, inside, M, count, shift, BOUNDED: tl.constexpr):
    """Return log2 of each row's sum over its ``count`` slots, of which SLOTS_AT_ONCE are on their way at a time."""
    slot = slots + ids
    best = tl.full(ids.shape, float("-inf"), dtype=tl.float32)
    total = tl.zeros(ids.shape, dtype=tl.float32)
    for first in range(0, count, SLOTS_AT_ONCE):
        for i in tl.static_range(SLOTS_AT_ONCE):
            there = inside & (tl.full(ids.shape, first + i, tl.int32) < count)
            if BOUNDED:
                total += tl.load(slot, mask=there, other=0.0)
            else:
                part = tl.load(slot, mask=there, other=float("-inf"))
                higher = tl.maximum(best, part)
                finite = tl.where(higher == float("-inf"), 0.0, higher)
                total = total * tl.exp2(best - finite) + tl.exp2(part - finite)
                best = higher
            slot += M
    if BOUNDED:
        return shift + tl.log2(total)
    else:
        return tl.where(total == 0.0, float("-inf"), best + tl.log2(total))


@triton.jit
def store_logsumexp(
    slots,  # (slots, M) float32
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    lse,  # (M,) float32, written for the anchors
    M,
    G,
    SPAN,
    shift,
    BOUNDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write every anchor's log-sum-exp, in base e."""
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        ids = begin + number * ROWS + tl.arange(0, ROWS)
        inside = ids < begin + tl.load(anchors + g)
        joined = join(slots, ids, inside, M, tl.cdiv(end - begin, SPAN), shift, BOUNDED)
        tl.store(lse + ids, joined * 0.6931471805599453, mask=inside)
