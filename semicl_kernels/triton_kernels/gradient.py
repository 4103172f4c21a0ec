"""The backward pass: dX_i = scale sum_j W_ij x_j, owned by rows.

W_ij = g_i e^(s_ij - lse_i) [j in D(i)] + g_j e^(s_ij - lse_j) [i in D(j)] (docs/loss.md). A tile of rows of one group,
anchors or not, stays, with the sums of its gradient in registers, while the group's points (only its anchors, where the
tile has none) stream past. Each streamed tile serves two products: S = X_i X_j^T, then W X_j. Programs share the steps
of all tiles out equally (tile_scheduler.py); the pieces of a tile that several of them had are summed by
:func:`join_pieces`.

Of a loss, the positives take 1 / |P_i| from their softmax before the product, [i and j of one class, i != j] (v_i +
v_j) from W_ij, with v_i = g_i / |P_i|. Where features of a class are nearly equal so are the two: multiplied apart and
then subtracted they would leave rounding errors. Tiles all of whose pairs are of one class take off one number.

*Known maximum.* With u_i = g_i 2^(B - lse_i) both terms share one exponential: W_ij = 2^(s_ij - B) (u_i + u_j).
*Unknown maximum.* Each term has an exponential of its own, relative to its anchor's log-sum-exp, at most 1.

Row factors come from :func:`pair_factors`: u (or g), times a power that keeps W within the range of float16 where W is
rounded to that; and the log-sum-exp in base 2, +inf where a row has no pairs to give, so that its exponentials vanish.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .masking import clear_in_class, clear_tile, masked_in_class, masked_tile, peel, peel_class, skip_hull
from .split_bf16 import deep_similarities, load_rows, product, split, transposed
from .tile_scheduler import OPENING, find_item, find_tile, stretch

# What the largest weight of a pair becomes before it is rounded to float16, whose own largest is 65504. The CUDA
# backend divides by it too: kHeadroom of csrc/cuda/backward_epilogue.h is the same number.
HEADROOM = tl.constexpr(8192.0)
WHOLE, NOTHING = tl.constexpr(-1), tl.constexpr(-2)  # instead of a slot for a piece
# What the positives take from the weights: nothing, the same for all pairs of a class run, or of each row its own.
NONE, BY_CLASS, BY_ROW = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def in_units(weight, peak):
    """Return weights by which W stays within the range of float16, where there is a largest one."""
    if peak is not None:
        largest = tl.load(peak).to(tl.float32)
        weight = weight * tl.where(largest == 0.0, 0.0, HEADROOM / largest)
    return weight


@triton.jit
def factor_of(weight, log2_sum, anchor, shift, peak, BOUNDED: tl.constexpr):
    """Return (factor, exponent shift) of rows with a weight and log2 of their sum."""
    some = anchor & (log2_sum != float("-inf"))
    weight = in_units(weight, peak)
    if BOUNDED:
        return tl.where(some, weight * tl.exp2(shift - log2_sum), 0.0), log2_sum
    else:
        return tl.where(some, weight, 0.0), tl.where(some, log2_sum, float("inf"))


@triton.jit
def pair_factors(
    grad,  # (M,) float32: by the log-sum-exps
    lse,  # (M,) float32, base e
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    factors,  # (M,) float32, written for the rows of groups with an anchor
    shifts,  # (M,) float32, likewise; unused where BOUNDED
    G,
    shift,
    peak,  # the largest |grad|, or None
    BOUNDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write the factors that :func:`row_gradient` takes."""
    items = tl.load(tile_ends + G - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        g, number = find_item(item, tile_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        ids = begin + number * ROWS + tl.arange(0, ROWS)
        inside = ids < end
        anchor = ids < begin + tl.load(anchors + g)
        log2_sum = tl.load(lse + ids, mask=anchor, other=0.0) * 1.4426950408889634
        weight = tl.load(grad + ids, mask=anchor, other=0.0)
        factor, own_shift = factor_of(weight, log2_sum, anchor, shift, peak, BOUNDED)
        tl.store(factors + ids, factor, mask=inside)
        if not BOUNDED:
            tl.store(shifts + ids, own_shift, mask=inside)


@triton.jit
def share(s, log2_sum):
    """Return 2^(s - log2_sum), what a pair is of its anchor's sum: at most 1, which rounding large ones may break."""
    return tl.exp2(tl.minimum(s - log2_sum, 0.0, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def add_products(
    sums,
    x,
    factor,
    row_shift,
    low,
    high,
    row_ids,
    rows,
    M,
    skip_low,
    skip_high,
    factors,
    shifts,
    run_low,
    run_high,
    pulls,
    first,
    last,
    first_row,
    end,
    out_channel,
    rate,
    shift,
    pull,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT: tl.constexpr,
    ROWS: tl.constexpr,
    STREAMED: tl.constexpr,
    MUTUAL: tl.constexpr,
    BOUNDED: tl.constexpr,
    POSITIVES: tl.constexpr,
    MASKED: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take one streamed tile past the owned rows: return ``sums`` with W_ij x_j added. ``pull`` is what the positives
    take from every W_ij of a tile without a mask."""
    ids = first + tl.arange(0, STREAMED)
    inside = ids < last
    streamed = load_rows(rows, M, first, last, out_channel, STREAMED, C, OUT, PLANES, MASKED)
    if MASKED:
        other_factor = tl.load(factors + ids, mask=inside, other=0.0)[None, :]
    else:
        other_factor = tl.load(factors + ids)[None, :]
    if WIDTH == CP:
        s = product(x, transposed(streamed, PLANES), None, PLANES) * rate
    else:
        s = rate * deep_similarities(rows, M, first_row, end, first, last, ROWS, STREAMED, C, CP, WIDTH, PLANES, STAGES)
    own = factor[:, None]
    if MASKED:
        there = row_ids < end
        if POSITIVES != NONE:
            # Loaded here, not where the tile begins: the loop without masks has no registers to spare for them.
            low = tl.load(skip_low + row_ids, mask=there, other=0)
            high = tl.load(skip_high + row_ids, mask=there, other=0)
        keep = ((ids[None, :] < low[:, None]) | (ids[None, :] >= high[:, None])) & inside[None, :]
        if not MUTUAL:
            other_low = tl.load(skip_low + ids, mask=inside, other=0)[None, :]
            other_high = tl.load(skip_high + ids, mask=inside, other=0)[None, :]
            keeps_me = ((row_ids[:, None] < other_low) | (row_ids[:, None] >= other_high)) & inside[None, :]
            other_factor = tl.where(keeps_me, other_factor, 0.0)
            own = tl.where(keep, own, 0.0)
            keep = keep | keeps_me
    if BOUNDED:
        w = tl.exp2(s - shift) * (own + other_factor) - pull
    else:
        other_shift = tl.load(shifts + ids, mask=inside, other=float("inf"))[None, :]
        mine = share(s, row_shift[:, None])
        theirs = share(s, other_shift)
        if MASKED:
            # A pair that counts for nothing must not give its NaN either.
            mine = tl.where(own == 0.0, 0.0, mine)
            theirs = tl.where(other_factor == 0.0, 0.0, theirs)
        w = own * mine + (other_factor * theirs - pull)
    if MASKED:
        w = tl.where(keep, w, 0.0)
        if POSITIVES != NONE:
            # A row that is no anchor has no pull, nor has any of its class.
            class_low = tl.load(run_low + row_ids, mask=there, other=0)[:, None]
            class_high = tl.load(run_high + row_ids, mask=there, other=0)[:, None]
            taken = tl.load(pulls + row_ids, mask=there, other=0.0)[:, None]
            if POSITIVES == BY_CLASS:
                taken *= 2
            else:
                taken += tl.load(pulls + ids, mask=inside, other=0.0)[None, :]
            of_class = (ids[None, :] >= class_low) & (ids[None, :] < class_high) & (ids[None, :] != row_ids[:, None])
            w -= tl.where(of_class, taken, 0.0)
    w = split(w, rows.dtype.element_ty, PLANES)
    if PLANES == 1:
        return product(w, streamed, sums, PLANES)
    else:
        # Tensor cores cut their sums toward zero, which shows in those of many rows: each tile's are added here.
        return sums + product(w, streamed, None, PLANES)


@triton.jit
def scaled_by(scale, peak):
    """Return the scale with the power taken out that :func:`factor_of` put in."""
    if peak is not None:
        scale = scale * tl.load(peak).to(tl.float32) / HEADROOM
    return scale


@triton.jit
def slot_of(first_step, end_step, ends):
    """Return which of its program's slots a piece goes to, WHOLE for a whole tile, NOTHING where it has no step.

    ``ends`` is whether it is the tile's last.
    """
    opens = first_step == 0
    return tl.where(opens & ends, WHOLE, tl.where(end_step == 0, NOTHING, opens.to(tl.int32)))


# One compilation for any number of groups: that of a single one is no shorter, and at 256 channels it spills.
@triton.jit(do_not_specialize=["G"])
def row_gradient(
    rows,  # (PLANES, M, C)
    M,
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_low,  # (M,) int32
    skip_high,  # (M,) int32
    step_ends,  # (G,) int64, of count_work
    factors,  # (M,) float32, of pair_factors
    shifts,  # (M,) float32, likewise
    run_low,  # (M,) int32, where there are positives: else None
    run_high,  # (M,) int32, likewise
    pulls,  # (M,) float32, likewise, of anchor_losses
    pieces,  # (2 programs, ROWS, OUT) float32, written: tiles of which others have a piece
    out,  # (M, C) float32, written: the other rows of groups with an anchor
    G,
    scale,
    rate,
    shift,
    peak,  # the largest |grad|, or None
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,  # CP, or channels taken at a time where rows are too long to stay
    OUT: tl.constexpr,  # channels of the gradient that one program sums: CP where WIDTH is
    ROWS: tl.constexpr,
    STREAMED: tl.constexpr,
    MUTUAL: tl.constexpr,
    BOUNDED: tl.constexpr,
    POSITIVES: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write the gradient of sum_i grad_i lse_i, or l_i, by the rows: whole tiles to ``out``, others piece by piece."""
    at, stop = stretch(tl.program_id(0), tl.load(step_ends + G - 1))
    left = (stop - at).to(tl.int32)
    while left > 0:
        # Found anew for every tile: the loops over steps have no registers to spare.
        _, stop = stretch(tl.program_id(0), tl.load(step_ends + G - 1))
        at = stop - left
        g, number, part, tile_begin, tile_end = find_tile(at, step_ends, offsets, anchors, G, ROWS, STREAMED, CP // OUT)
        first_step = tl.maximum(at - tile_begin - OPENING, 0).to(tl.int32)
        end_step = tl.maximum(tl.minimum(stop, tile_end) - tile_begin - OPENING, 0).to(tl.int32)
        slot = slot_of(first_step, end_step, tile_end <= stop)
        left -= (tile_end - at).to(tl.int32)
        out_channel = part * OUT
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        anchor_end = begin + tl.load(anchors + g)
        first_row = begin + number * ROWS
        # Points that are no anchors have pairs with anchors alone.
        last = tl.where(first_row < anchor_end, end, anchor_end)
        last = tl.minimum(last, begin + end_step * STREAMED)
        first = tl.minimum(begin + first_step * STREAMED, last)
        ids = first_row + tl.arange(0, ROWS)
        inside = ids < end
        x = 0
        if WIDTH == CP:
            x = load_rows(rows, M, first_row, end, 0, ROWS, C, CP, PLANES, True)
        factor = tl.load(factors + ids, mask=inside, other=0.0)
        row_shift = factor
        if not BOUNDED:
            row_shift = tl.load(shifts + ids, mask=inside, other=float("inf"))
        if POSITIVES != NONE:
            is_anchor = ids < anchor_end
            class_low = tl.load(run_low + ids, mask=is_anchor, other=0)
            class_high = tl.load(run_high + ids, mask=is_anchor, other=0)
            hull_low, hull_high, core_low, core_high = skip_hull(class_low, class_high, inside)
            class_pull = 2 * tl.load(pulls + first_row)
            low, high = 0, 0
            if POSITIVES == BY_ROW:
                core_high = core_low
            else:
                # Where the class is in no denominator, its pairs have a mask.
                core_high = tl.where(
                    tl.load(skip_high + first_row) - tl.load(skip_low + first_row) > 1, begin, core_high
                )
            clear, hull_tile, hull_end, core_tile, core_end, own_tile, own_end = peel_class(
                first, last, first_row, first_row + ROWS, hull_low, hull_high, core_low, core_high, STREAMED
            )
        else:
            low = tl.load(skip_low + ids, mask=inside, other=0)
            high = tl.load(skip_high + ids, mask=inside, other=0)
            if MUTUAL:
                hull_low, hull_high, core_low, core_high = skip_hull(low, high, inside)
            else:
                # Any streamed row may skip any of these rows.
                hull_low, hull_high, core_low, core_high = begin, end, end, begin
            clear, clear_jump, jump, masked, hull_tile, core_tile, core, ragged = peel(
                first, last, hull_low, hull_high, core_low, core_high, STREAMED
            )
        sums = tl.zeros((ROWS, OUT), dtype=tl.float32)
        for k in tl.range(0, clear, num_stages=STAGES):
            if POSITIVES != NONE:
                tile = clear_in_class(k, hull_tile, hull_end, core_tile, core_end, own_tile, own_end)
                pull = tl.where((tile >= core_tile) & (tile < core_end), class_pull, 0.0)
            else:
                tile = clear_tile(k, clear_jump, jump)
                pull = 0.0
            column = first + tile * STREAMED
            sums = add_products(
                sums, x, factor, row_shift, low, high, ids, rows, M, skip_low, skip_high, factors, shifts,
                run_low, run_high, pulls, column, last, first_row, end, out_channel, rate, shift, pull,
                C, CP, WIDTH, OUT, ROWS, STREAMED, MUTUAL, BOUNDED, POSITIVES, False, PLANES, STAGES,
            )  # fmt: skip
        if POSITIVES != NONE:
            # Here, not before: the loop without masks has no registers to spare for it.
            tiles = tl.cdiv(tl.maximum(last - first, 0), STREAMED)
            masked = tiles - clear
        for k in tl.range(0, masked, num_stages=STAGES):
            if POSITIVES != NONE:
                tile = masked_in_class(k, tiles, hull_tile, hull_end, core_tile, core_end, own_tile, own_end)
            else:
                tile = masked_tile(k, masked, hull_tile, core_tile, core, ragged)
            column = first + tile * STREAMED
            sums = add_products(
                sums, x, factor, row_shift, low, high, ids, rows, M, skip_low, skip_high, factors, shifts,
                run_low, run_high, pulls, column, last, first_row, end, out_channel, rate, shift, 0.0,
                C, CP, WIDTH, OUT, ROWS, STREAMED, MUTUAL, BOUNDED, POSITIVES, True, PLANES, STAGES,
            )  # fmt: skip
        sums *= scaled_by(scale, peak)
        row, c = tl.arange(0, ROWS)[:, None], tl.arange(0, OUT)[None, :]
        if slot >= 0:
            tl.store(piece(pieces, 2 * tl.program_id(0) + slot, ROWS, OUT) + row * OUT + c, sums)
        elif slot == WHOLE:
            mask = inside[:, None] & (out_channel + c < C)
            tl.store(out + ids.to(tl.int64)[:, None] * C + out_channel + c, sums, mask=mask)


@triton.jit
def piece(pieces, slot, ROWS: tl.constexpr, OUT: tl.constexpr):
    """Return the address of a slot."""
    return pieces + slot.to(tl.int64) * ROWS * OUT


@triton.jit
def join_pieces(
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    step_ends,  # (G,) int64, of count_work
    pieces,  # (2 programs, ROWS, OUT) float32, of row_gradient
    out,  # (M, C) float32, written: rows of tiles that are in pieces
    G,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,  # channels of one program
    OUT: tl.constexpr,
    ROWS: tl.constexpr,
    STREAMED: tl.constexpr,
):
    """Sum the pieces of the tile that a worker opens and others end; as many programs as row_gradient had, each for
    every WIDTH of OUT channels."""
    worker, channel = tl.program_id(0), tl.program_id(1) * WIDTH
    total = tl.load(step_ends + G - 1)
    at, stop = stretch(worker, total)
    if at < stop:
        g, number, part, tile_begin, tile_end = find_tile(
            stop - 1, step_ends, offsets, anchors, G, ROWS, STREAMED, CP // OUT
        )
        first_step = tile_begin + OPENING
        if (at <= first_step) & (first_step < stop) & (stop < tile_end):
            row, c = tl.arange(0, ROWS)[:, None], channel + tl.arange(0, WIDTH)[None, :]
            first_row = tl.load(offsets + g) + number * ROWS
            mask = (first_row + row < tl.load(offsets + g + 1)) & (part * OUT + c < C)
            sums = tl.load(piece(pieces, 2 * worker + 1, ROWS, OUT) + row * OUT + c, mask=mask)
            other, end = worker + 1, stop
            while end < tile_end:
                sums += tl.load(piece(pieces, 2 * other, ROWS, OUT) + row * OUT + c, mask=mask)
                _, end = stretch(other, total)
                other += 1
            tl.store(out + (first_row + row).to(tl.int64) * C + part * OUT + c, sums, mask=mask)
