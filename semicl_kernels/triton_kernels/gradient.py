"""The backward pass: dX_i = scale sum_j W_ij x_j, each row computed by one owner.

W_ij = g_i e^(s_ij - lse_i) [j in D(i)] + g_j e^(s_ij - lse_j) [i in D(j)] (docs/loss.md).

                  N tiles of the group's points (of its anchors alone, where the M tile has none)
                 | x_n | x_n | x_n | ...
    M tile  x_m  |  S = x_m x_n^T  ->  W  ->  sums += W x_n      sums stay in registers

Programs share the steps of all tiles out equally (tile_scheduler.py). :func:`finish_rows` adds up the partial tiles of
a tile that several programs had, and leads the gradient through the normalization of the rows.

The positives take 1 / |P_i| from their softmax weights before the product: W_ij loses [i and j of one class, i != j]
(v_i + v_j), with v_i = g_i / |P_i|. Where features of a class are nearly equal so are the two; multiplied apart and
then subtracted they would leave rounding errors. Tiles all of whose pairs are of one class lose one number.

An anchor's sum is 2^m_i t_i, with m_i the bound B or its largest exponent. Its row scale is u_i = g_i / t_i.

*Fixed maximum.* Both terms share one exponential: W_ij = 2^(s_ij - B) (u_i + u_j).
*Online softmax.* Each term has its own: W_ij = 2^(s_ij - m_i) u_i + 2^(s_ij - m_j) u_j, none above 1.

``anchor_losses`` of class_sums.py writes u and m of a loss, and ``row_scales`` of backends/triton.py those of the
primitive, from its log-sum-exps. Both scale u so that W stays within the range of float16, where W is rounded to that.
A row that has no pairs to give has u = 0 and m = +inf.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gather_scatter import through_normalization
from .masking import clear_in_class, clear_tile, masked_in_class, masked_ranges, masked_tile, peel, peel_class
from .split_bf16 import deep_similarities, load_rows, product, split, transposed
from .tile_scheduler import (
    GRADIENT,
    WHOLE,
    find_item,
    next_tile,
    range_length,
    tile_workers,
)

# What the largest weight of a pair becomes before it is rounded to float16, whose own largest is 65504. The CUDA
# backend divides by it too: kHeadroom of csrc/cuda/backward_epilogue.h is the same number.
HEADROOM = tl.constexpr(8192.0)
PARTIALS_AT_ONCE = tl.constexpr(4)
# What the positives take from the weights: nothing, the same for all pairs of a class range, or of each row its own.
NONE, BY_CLASS, BY_ROW = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def in_units(weight, grad_absmax):
    """Return weights by which W stays within the range of float16, where there is a largest one."""
    if grad_absmax is not None:
        largest = tl.load(grad_absmax).to(tl.float32)
        weight = weight * tl.where(largest == 0.0, 0.0, HEADROOM / largest)
    return weight


@triton.jit
def row_scale_of(weight, maximum, total, anchor, grad_absmax):
    """Return (row scale, exponent shift) of rows with a weight and a sum ``total`` relative to 2^maximum.

    Of the sum itself, not of its logarithm: a softmax weight near 1 has no digits to lose.
    """
    some = anchor & (total != 0.0)  # a sum that is no number gives a gradient that is none
    weight = in_units(weight, grad_absmax)
    return tl.where(some, weight / tl.where(some, total, 1.0), 0.0), tl.where(some, maximum, float("inf"))


@triton.jit
def relative(s, shift):
    """Return 2^(s - shift), at most 1, which rounding large exponents may break."""
    return tl.exp2(tl.minimum(s - shift, 0.0, propagate_nan=tl.PropagateNan.ALL))


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
    skip_begin,
    skip_end,
    row_scales,
    shifts,
    class_begin,
    class_end,
    pulls,
    first,
    last,
    first_row,
    end,
    out_channel,
    scale_log2,
    shift,
    pull,
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MUTUAL: tl.constexpr,
    BOUNDED: tl.constexpr,
    POSITIVES: tl.constexpr,
    MASKED: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take one N tile past the M tile: return ``sums`` with W_ij x_j added.

    ``pull`` is what the positives take from every W_ij of a tile without a mask.
    """
    ids = first + tl.arange(0, BLOCK_N)
    inside = ids < last
    x_n = load_rows(rows, M, first, last, out_channel, BLOCK_N, C, OUT, PLANES, MASKED)
    if MASKED:
        other_scale = tl.load(row_scales + ids, mask=inside, other=0.0)[None, :]
    else:
        other_scale = tl.load(row_scales + ids)[None, :]
    if WIDTH == CP:
        s = product(x, transposed(x_n, PLANES), None, PLANES) * scale_log2
    else:
        s = scale_log2 * deep_similarities(
            rows, M, first_row, end, rows, M, first, last, BLOCK_M, BLOCK_N, C, CP, WIDTH, PLANES, STAGES
        )
    own = factor[:, None]
    if MASKED:
        there = row_ids < end
        if POSITIVES != NONE:
            # Loaded here, not where the tile begins: the loop without masks has no registers to spare for them.
            low = tl.load(skip_begin + row_ids, mask=there, other=0)
            high = tl.load(skip_end + row_ids, mask=there, other=0)
        keep = ((ids[None, :] < low[:, None]) | (ids[None, :] >= high[:, None])) & inside[None, :]
        if not MUTUAL:
            other_low = tl.load(skip_begin + ids, mask=inside, other=0)[None, :]
            other_high = tl.load(skip_end + ids, mask=inside, other=0)[None, :]
            keeps_me = ((row_ids[:, None] < other_low) | (row_ids[:, None] >= other_high)) & inside[None, :]
            other_scale = tl.where(keeps_me, other_scale, 0.0)
            own = tl.where(keep, own, 0.0)
            keep = keep | keeps_me
    if BOUNDED:
        w = tl.exp2(s - shift) * (own + other_scale) - pull
    else:
        other_shift = tl.load(shifts + ids, mask=inside, other=float("inf"))[None, :]
        mine = relative(s, row_shift[:, None])
        theirs = relative(s, other_shift)
        if MASKED:
            # A pair that counts for nothing must not give its NaN either.
            mine = tl.where(own == 0.0, 0.0, mine)
            theirs = tl.where(other_scale == 0.0, 0.0, theirs)
        w = own * mine + (other_scale * theirs - pull)
    if MASKED:
        w = tl.where(keep, w, 0.0)
        if POSITIVES != NONE:
            # A row that is no anchor has no pull, nor has any of its class.
            class_low = tl.load(class_begin + row_ids, mask=there, other=0)[:, None]
            class_high = tl.load(class_end + row_ids, mask=there, other=0)[:, None]
            taken = tl.load(pulls + row_ids, mask=there, other=0.0)[:, None]
            if POSITIVES == BY_CLASS:
                taken *= 2
            else:
                taken += tl.load(pulls + ids, mask=inside, other=0.0)[None, :]
            of_class = (ids[None, :] >= class_low) & (ids[None, :] < class_high) & (ids[None, :] != row_ids[:, None])
            w -= tl.where(of_class, taken, 0.0)
    w = split(w, rows.dtype.element_ty, PLANES)
    if PLANES == 1:
        return product(w, x_n, sums, PLANES)
    else:
        # Tensor cores cut their sums toward zero, which shows in those of many rows: each tile's are added here.
        return sums + product(w, x_n, None, PLANES)


@triton.jit
def scaled_by(scale, grad_absmax):
    """Return the scale with the factor taken out that :func:`in_units` put in."""
    if grad_absmax is not None:
        scale = scale * tl.load(grad_absmax).to(tl.float32) / HEADROOM
    return scale


# One compilation for any number of groups: that of a single one is no shorter, and at 256 channels it spills.
@triton.jit(do_not_specialize=["G"])
def row_gradient(
    rows,  # (PLANES, M, C)
    M,
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    skip_begin,  # (M,) int32
    skip_end,  # (M,) int32
    step_ends,  # (G,) int64, of count_work
    row_scales,  # (M,) float32, of anchor_losses, or row_scales of backends/triton.py
    shifts,  # (M,) float32, likewise
    class_begin,  # (M,) int32, where there are positives: else None
    class_end,  # (M,) int32, likewise
    pulls,  # (M,) float32, likewise, of anchor_losses
    partials,  # (2 programs, BLOCK_M, OUT) float32, written: partial tiles
    out,  # (M, C) float32, written: the other rows of groups with an anchor
    G,
    scale,
    scale_log2,
    shift,
    grad_absmax,  # the largest |grad|, or None
    C: tl.constexpr,
    CP: tl.constexpr,
    WIDTH: tl.constexpr,  # CP, or channels taken at a time where rows are too long to stay
    OUT: tl.constexpr,  # channels of the gradient that one program sums: CP where WIDTH is
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MUTUAL: tl.constexpr,
    BOUNDED: tl.constexpr,
    POSITIVES: tl.constexpr,
    PLANES: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write the gradient of sum_i grad_i lse_i, or l_i, by the rows: whole tiles to ``out``, others to ``partials``."""
    left = range_length(step_ends, G)
    while left > 0:
        g, number, first_step, end_step, partial, left = next_tile(
            left, step_ends, offsets, anchors, G, 1, BLOCK_M, BLOCK_N, 0, CP // OUT, GRADIENT
        )
        out_channel = number % (CP // OUT) * OUT
        number = number // (CP // OUT)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        anchor_end = begin + tl.load(anchors + g)
        first_row = begin + number * BLOCK_M
        # Points that are no anchors have pairs with anchors alone.
        last = tl.where(first_row < anchor_end, end, anchor_end)
        last = tl.minimum(last, begin + end_step * BLOCK_N)
        first = tl.minimum(begin + first_step * BLOCK_N, last)
        ids = first_row + tl.arange(0, BLOCK_M)
        inside = ids < end
        x = 0
        if WIDTH == CP:
            x = load_rows(rows, M, first_row, end, 0, BLOCK_M, C, CP, PLANES, True)
        factor = tl.load(row_scales + ids, mask=inside, other=0.0)
        row_shift = factor
        if not BOUNDED:
            row_shift = tl.load(shifts + ids, mask=inside, other=float("inf"))
        if POSITIVES != NONE:
            is_anchor = ids < anchor_end
            class_low = tl.load(class_begin + ids, mask=is_anchor, other=0)
            class_high = tl.load(class_end + ids, mask=is_anchor, other=0)
            any_begin, any_end, all_begin, all_end = masked_ranges(class_low, class_high, inside)
            class_pull = 2 * tl.load(pulls + first_row)
            low, high = 0, 0
            if POSITIVES == BY_ROW:
                all_end = all_begin
            else:
                # Where the class is in no denominator, its pairs have a mask.
                all_end = tl.where(tl.load(skip_end + first_row) - tl.load(skip_begin + first_row) > 1, begin, all_end)
            clear, any_tile, any_tile_end, all_tile, all_tile_end, own_tile, own_end = peel_class(
                first, last, first_row, first_row + BLOCK_M, any_begin, any_end, all_begin, all_end, BLOCK_N
            )
        else:
            low = tl.load(skip_begin + ids, mask=inside, other=0)
            high = tl.load(skip_end + ids, mask=inside, other=0)
            if MUTUAL:
                any_begin, any_end, all_begin, all_end = masked_ranges(low, high, inside)
            else:
                # Any row of the N tiles may skip any of these rows.
                any_begin, any_end, all_begin, all_end = begin, end, end, begin
            clear, clear_jump, jump, masked, any_tile, all_tile, all_tiles, ragged = peel(
                first, last, any_begin, any_end, all_begin, all_end, BLOCK_N
            )
        sums = tl.zeros((BLOCK_M, OUT), dtype=tl.float32)
        for k in tl.range(0, clear, num_stages=STAGES):
            if POSITIVES != NONE:
                tile = clear_in_class(k, any_tile, any_tile_end, all_tile, all_tile_end, own_tile, own_end)
                pull = tl.where((tile >= all_tile) & (tile < all_tile_end), class_pull, 0.0)
            else:
                tile = clear_tile(k, clear_jump, jump)
                pull = 0.0
            column = first + tile * BLOCK_N
            sums = add_products(
                sums, x, factor, row_shift, low, high, ids, rows, M, skip_begin, skip_end, row_scales, shifts,
                class_begin, class_end, pulls, column, last, first_row, end, out_channel, scale_log2, shift, pull,
                C, CP, WIDTH, OUT, BLOCK_M, BLOCK_N, MUTUAL, BOUNDED, POSITIVES, False, PLANES, STAGES,
            )  # fmt: skip
        if POSITIVES != NONE:
            # Here, not before: the loop without masks has no registers to spare for it.
            tiles = tl.cdiv(tl.maximum(last - first, 0), BLOCK_N)
            masked = tiles - clear
        for k in tl.range(0, masked, num_stages=STAGES):
            if POSITIVES != NONE:
                tile = masked_in_class(k, tiles, any_tile, any_tile_end, all_tile, all_tile_end, own_tile, own_end)
            else:
                tile = masked_tile(k, masked, any_tile, all_tile, all_tiles, ragged)
            column = first + tile * BLOCK_N
            sums = add_products(
                sums, x, factor, row_shift, low, high, ids, rows, M, skip_begin, skip_end, row_scales, shifts,
                class_begin, class_end, pulls, column, last, first_row, end, out_channel, scale_log2, shift, 0.0,
                C, CP, WIDTH, OUT, BLOCK_M, BLOCK_N, MUTUAL, BOUNDED, POSITIVES, True, PLANES, STAGES,
            )  # fmt: skip
        sums *= scaled_by(scale, grad_absmax)
        row, c = tl.arange(0, BLOCK_M)[:, None], tl.arange(0, OUT)[None, :]
        if partial >= 0:
            tl.store(partial_tile(partials, 2 * tl.program_id(0) + partial, BLOCK_M, OUT) + row * OUT + c, sums)
        elif partial == WHOLE:
            mask = inside[:, None] & (out_channel + c < C)
            tl.store(out + ids.to(tl.int64)[:, None] * C + out_channel + c, sums, mask=mask)


@triton.jit
def partial_tile(partials, partial, BLOCK_M: tl.constexpr, OUT: tl.constexpr):
    """Return the address of a partial tile."""
    return partials + partial.to(tl.int64) * BLOCK_M * OUT


@triton.jit
def sum_losses(losses, loss, loss_count, LOSSES: tl.constexpr):
    """Write the sum of ``losses`` (loss_count,) float64 to ``loss``, float32; one program."""
    ids = tl.arange(0, LOSSES)
    tl.store(loss, tl.sum(tl.load(losses + ids, mask=ids < loss_count, other=0.0)).to(tl.float32))


@triton.jit
def finish_rows(
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    tile_ends,  # (G,) int32, of count_work
    step_ends,  # (G,) int64, likewise
    partials,  # (2 WORKERS, BLOCK_M, OUT) float32, of row_gradient
    out,  # (M, C) float32, changed: of row_gradient
    features,  # the map whose vectors the gradient is to be by; None: by the rows
    channel_stride,
    vectors,  # (M,) int64, of gather_rows; or None
    inverse_lengths,  # (M,) float32, likewise
    losses,  # (loss_count,) float64, of anchor_losses; or None
    loss,  # () float32, written: their sum
    G,
    WORKERS,  # programs of row_gradient
    loss_count,
    C: tl.constexpr,
    CP: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CHANNELS: tl.constexpr,  # of the map
    TILE_ROWS: tl.constexpr,
    ROWS: tl.constexpr,  # of a program; BLOCK_M and TILE_ROWS are multiples
    LOSSES: tl.constexpr,  # a power of two, loss_count or more
):
    """Sum the partial tiles of the tiles that several programs had, and lead the gradient through the normalization.

    A program takes ROWS of the row tile of its number, and one sums the losses too.
    """
    PARTS: tl.constexpr = CP // OUT
    item = tl.program_id(0)
    if losses is not None:
        sums_losses = (item == 0) & (tl.program_id(1) == 0)
        if sums_losses:
            sum_losses(losses, loss, loss_count, LOSSES)
    if item < tl.load(tile_ends + G - 1):
        g, number = find_item(item, tile_ends, G)
        begin, end = tl.load(offsets + g), tl.load(offsets + g + 1)
        first_row = number * TILE_ROWS + tl.program_id(1) * ROWS
        tile, c = first_row // BLOCK_M, tl.arange(0, CP)[None, :]
        part = c // OUT if PARTS > 1 else 0
        first, last, _, _ = tile_workers(
            tile * PARTS + part, g, step_ends, offsets, anchors, G, 1, WORKERS, BLOCK_M, BLOCK_N, 0, PARTS, GRADIENT
        )
        several = last - first
        if PARTS > 1:
            several = tl.max(several)
        row = first_row + tl.arange(0, ROWS)
        ids, inside = begin + row, begin + row < end
        mask = inside[:, None] & (c < C)
        pointers = out + ids.to(tl.int64)[:, None] * C + c
        if (several > 0) | (features is not None):
            # Of tensors, which the interpreter's masks must be.
            whole = first + c * 0 == last
            sums = tl.load(pointers, mask=mask & whole, other=0.0)
            in_tile = (row - tile * BLOCK_M)[:, None] * OUT + c - part * OUT
            for begins in range(0, tl.where(several > 0, several + 1, 0), PARTIALS_AT_ONCE):
                for i in tl.static_range(PARTIALS_AT_ONCE):
                    worker = first + begins + i + c * 0
                    place = (2 * worker + (worker == first).to(tl.int32)).to(tl.int64) * (BLOCK_M * OUT)
                    there = mask & (worker <= last) & ~whole
                    sums += tl.load(partials + place + in_tile, mask=there, other=0.0)
            if features is not None:
                sums = through_normalization(
                    sums, ids, inside, features, channel_stride, vectors, inverse_lengths, CHANNELS, CP
                )
            tl.store(pointers, sums, mask=mask)
