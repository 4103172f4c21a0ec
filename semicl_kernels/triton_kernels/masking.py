"""Which tiles of a strip need a mask.

A strip is one tile of fixed rows against a range of columns. Of its tiles only those that meet a skipped range, and the
last when it is not full, need a mask; those inside every row's skipped range need no visit at all. :func:`peel` turns
that into two counted sequences of tiles, one for the loop without masks and one for the loop with them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def skip_hull(low, high, inside):
    """Return (hull begin, hull end, core begin, core end) of the ranges [low, high).

    The hull covers every range that is not empty; the core lies in all of them. Both are empty ranges where there is
    nothing.
    """
    far = 2147483647
    some = inside & (low < high)
    hull_low = tl.min(tl.where(some, low, far))
    hull_high = tl.max(tl.where(some, high, 0))
    core_low = tl.max(tl.where(inside, low, 0))
    core_high = tl.min(tl.where(inside, high, far))
    return hull_low, hull_high, core_low, core_high


@triton.jit
def peel(first, last, hull_low, hull_high, core_low, core_high, SIDE: tl.constexpr):
    """Split the tiles [first + k SIDE, ...) of the columns [first, last) by their need of a mask.

    Returns (clear, clear_jump, jump, masked, hull_tile, core_tile, core, ragged): ``clear`` tiles are taken without a
    mask, from tile ``clear_jump`` on ``jump`` further along; ``masked`` ones from ``hull_tile`` on, from ``core_tile``
    on ``core`` further along, and the last of them is ``ragged`` where that is not -1.
    """
    length = tl.maximum(last - first, 0)
    full = length // SIDE
    tiles = tl.cdiv(length, SIDE)
    hull_tile = tl.minimum(tl.maximum(hull_low - first, 0) // SIDE, tiles)
    hull_tile = tl.where(hull_low < hull_high, hull_tile, tiles)
    hull_end = tl.minimum(tl.cdiv(tl.maximum(tl.minimum(hull_high, last) - first, 0), SIDE), tiles)
    hull_end = tl.maximum(hull_end, hull_tile)
    # Only whole tiles can be passed over; the last one counts as whole where the core reaches the end.
    core_tile = tl.cdiv(tl.maximum(tl.minimum(core_low, last) - first, 0), SIDE)
    reach = tl.maximum(tl.minimum(core_high, last) - first, 0)
    core_end = tl.where(core_high >= last, tiles, reach // SIDE)
    core_tile = tl.minimum(tl.maximum(core_tile, hull_tile), hull_end)
    core = tl.maximum(tl.minimum(core_end, hull_end) - core_tile, 0)
    clear_jump = tl.minimum(hull_tile, full)
    jump = tl.minimum(hull_end, full) - clear_jump
    clear = full - jump
    ragged = tl.where((full < tiles) & ((hull_tile > full) | (hull_end <= full)), full, -1)
    masked = hull_end - hull_tile - core + tl.where(ragged >= 0, 1, 0)
    return clear, clear_jump, jump, masked, hull_tile, core_tile, core, ragged


@triton.jit
def peel_class(
    first, last, own_low, own_high, hull_low, hull_high, core_low, core_high, SIDE: tl.constexpr
):  # fmt: skip
    """Split the tiles of :func:`peel` where the ranges are the classes of the fixed rows [own_low, own_high): a tile
    that lies in all of them needs no mask, but where a row may meet itself.

            hull_tile    core_tile   own_tile     own_end   core_end     hull_end
        clear   |   masked   |   clear   |   masked   |   clear   |   masked   |   clear

    Returns (clear, hull_tile, hull_end, core_tile, core_end, own_tile, own_end): how many tiles are taken without a
    mask, and the first of each kind. The last of all, where it is ragged, has a mask.
    """
    length = tl.maximum(last - first, 0)
    full, tiles = length // SIDE, tl.cdiv(length, SIDE)
    hull_tile = tl.minimum(tl.maximum(hull_low - first, 0) // SIDE, tiles)
    hull_tile = tl.where(hull_low < hull_high, hull_tile, tiles)
    hull_end = tl.cdiv(tl.minimum(tl.maximum(hull_high - first, 0), length), SIDE)
    hull_end = tl.maximum(hull_end, hull_tile)
    core_tile = tl.cdiv(tl.minimum(tl.maximum(core_low - first, 0), length), SIDE)
    core_tile = tl.minimum(tl.maximum(core_tile, hull_tile), hull_end)
    core_end = tl.minimum(tl.maximum(core_high - first, 0), length) // SIDE
    core_end = tl.minimum(tl.maximum(core_end, core_tile), hull_end)
    own_tile = tl.maximum(own_low - first, 0) // SIDE
    own_tile = tl.minimum(tl.maximum(own_tile, core_tile), core_end)
    own_end = tl.cdiv(tl.maximum(own_high - first, 0), SIDE)
    own_end = tl.minimum(tl.maximum(own_end, own_tile), core_end)
    clear = tiles - (core_tile - hull_tile) - (own_end - own_tile) - (hull_end - core_end)
    ragged = (full < tiles) & ((hull_tile > full) | (hull_end <= full))
    return clear - ragged.to(tl.int32), hull_tile, hull_end, core_tile, core_end, own_tile, own_end


@triton.jit
def clear_in_class(k, hull_tile, hull_end, core_tile, core_end, own_tile, own_end):
    """Return the k-th tile without a mask, of peel_class."""
    tile = k + tl.where(k >= hull_tile, core_tile - hull_tile, 0)
    tile += tl.where(tile >= own_tile, own_end - own_tile, 0)
    return tile + tl.where(tile >= core_end, hull_end - core_end, 0)


@triton.jit
def masked_in_class(k, tiles, hull_tile, hull_end, core_tile, core_end, own_tile, own_end):
    """Return the k-th tile with a mask, of ``tiles`` of all; past the hull it is the last."""
    tile = hull_tile + k
    tile += tl.where(tile >= core_tile, own_tile - core_tile, 0)
    tile += tl.where(tile >= own_end, core_end - own_end, 0)
    return tl.where(tile >= hull_end, tiles - 1, tile)


@triton.jit
def clear_tile(k, clear_jump, jump):
    """Return the k-th tile without a mask."""
    return k + tl.where(k >= clear_jump, jump, 0)


@triton.jit
def masked_tile(k, masked, hull_tile, core_tile, core, ragged):
    """Return the k-th tile with a mask."""
    tile = hull_tile + k
    tile += tl.where(tile >= core_tile, core, 0)
    return tl.where((ragged >= 0) & (k == masked - 1), ragged, tile)
