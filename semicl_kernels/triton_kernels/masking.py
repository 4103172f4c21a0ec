"""Which N tiles beside an M tile need a mask.

A tile needs a mask where any of its rows skips any of its columns, and the last one where it is not full. A tile whose
rows all skip all its columns needs no visit. :func:`peel` turns that into two counted sequences of tiles, one for the
loop without masks and one for the loop with them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def masked_ranges(low, high, inside):
    """Return (any_begin, any_end, all_begin, all_end) of the ranges [low, high).

    Columns in [any_begin, any_end) may be masked for any row; those in [all_begin, all_end) are masked for all. Either
    is empty where there is none.
    """
    far = 2147483647
    some = inside & (low < high)
    any_begin = tl.min(tl.where(some, low, far))
    any_end = tl.max(tl.where(some, high, 0))
    all_begin = tl.max(tl.where(inside, low, 0))
    all_end = tl.min(tl.where(inside, high, far))
    return any_begin, any_end, all_begin, all_end


@triton.jit
def peel(first, last, any_begin, any_end, all_begin, all_end, BLOCK_N: tl.constexpr):
    """Split the tiles [first + k BLOCK_N, ...) of the columns [first, last) by their need of a mask.

    Returns (clear, clear_jump, jump, masked, any_tile, all_tile, all_tiles, ragged). ``clear`` tiles are taken without
    a mask, those from tile ``clear_jump`` on ``jump`` further along. ``masked`` ones begin at ``any_tile``, those from
    ``all_tile`` on ``all_tiles`` further along, and the last of them is ``ragged`` where that is not -1.
    """
    length = tl.maximum(last - first, 0)
    full = length // BLOCK_N
    tiles = tl.cdiv(length, BLOCK_N)
    any_tile = tl.minimum(tl.maximum(any_begin - first, 0) // BLOCK_N, tiles)
    any_tile = tl.where(any_begin < any_end, any_tile, tiles)
    any_tile_end = tl.minimum(tl.cdiv(tl.maximum(tl.minimum(any_end, last) - first, 0), BLOCK_N), tiles)
    any_tile_end = tl.maximum(any_tile_end, any_tile)
    # Only whole tiles can be passed over; the last one counts as whole where all_end reaches the end.
    all_tile = tl.cdiv(tl.maximum(tl.minimum(all_begin, last) - first, 0), BLOCK_N)
    reach = tl.maximum(tl.minimum(all_end, last) - first, 0)
    all_tile_end = tl.where(all_end >= last, tiles, reach // BLOCK_N)
    all_tile = tl.minimum(tl.maximum(all_tile, any_tile), any_tile_end)
    all_tiles = tl.maximum(tl.minimum(all_tile_end, any_tile_end) - all_tile, 0)
    clear_jump = tl.minimum(any_tile, full)
    jump = tl.minimum(any_tile_end, full) - clear_jump
    clear = full - jump
    ragged = tl.where((full < tiles) & ((any_tile > full) | (any_tile_end <= full)), full, -1)
    masked = any_tile_end - any_tile - all_tiles + tl.where(ragged >= 0, 1, 0)
    return clear, clear_jump, jump, masked, any_tile, all_tile, all_tiles, ragged


@triton.jit
def peel_class(
    first, last, own_low, own_high, any_begin, any_end, all_begin, all_end, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Split the tiles of :func:`peel` where the ranges are the classes of the fixed rows [own_low, own_high): a tile
    that lies in all of them needs no mask, but where a row may meet itself.

            any_tile    all_tile   own_tile     own_end   all_tile_end     any_tile_end
        clear   |   masked   |   clear   |   masked   |   clear   |   masked   |   clear

    Returns (clear, any_tile, any_tile_end, all_tile, all_tile_end, own_tile, own_end): how many tiles are taken without
    a mask, and the first of each kind. The last of all, where it is ragged, has a mask.
    """
    length = tl.maximum(last - first, 0)
    full, tiles = length // BLOCK_N, tl.cdiv(length, BLOCK_N)
    any_tile = tl.minimum(tl.maximum(any_begin - first, 0) // BLOCK_N, tiles)
    any_tile = tl.where(any_begin < any_end, any_tile, tiles)
    any_tile_end = tl.cdiv(tl.minimum(tl.maximum(any_end - first, 0), length), BLOCK_N)
    any_tile_end = tl.maximum(any_tile_end, any_tile)
    all_tile = tl.cdiv(tl.minimum(tl.maximum(all_begin - first, 0), length), BLOCK_N)
    all_tile = tl.minimum(tl.maximum(all_tile, any_tile), any_tile_end)
    all_tile_end = tl.minimum(tl.maximum(all_end - first, 0), length) // BLOCK_N
    all_tile_end = tl.minimum(tl.maximum(all_tile_end, all_tile), any_tile_end)
    own_tile = tl.maximum(own_low - first, 0) // BLOCK_N
    own_tile = tl.minimum(tl.maximum(own_tile, all_tile), all_tile_end)
    own_end = tl.cdiv(tl.maximum(own_high - first, 0), BLOCK_N)
    own_end = tl.minimum(tl.maximum(own_end, own_tile), all_tile_end)
    clear = tiles - (all_tile - any_tile) - (own_end - own_tile) - (any_tile_end - all_tile_end)
    ragged = (full < tiles) & ((any_tile > full) | (any_tile_end <= full))
    return clear - ragged.to(tl.int32), any_tile, any_tile_end, all_tile, all_tile_end, own_tile, own_end


@triton.jit
def clear_in_class(k, any_tile, any_tile_end, all_tile, all_tile_end, own_tile, own_end):
    """Return the k-th tile without a mask, of peel_class."""
    tile = k + tl.where(k >= any_tile, all_tile - any_tile, 0)
    tile += tl.where(tile >= own_tile, own_end - own_tile, 0)
    return tile + tl.where(tile >= all_tile_end, any_tile_end - all_tile_end, 0)


@triton.jit
def masked_in_class(k, tiles, any_tile, any_tile_end, all_tile, all_tile_end, own_tile, own_end):
    """Return the k-th tile with a mask, of ``tiles`` of all; past ``any_tile_end`` it is the last."""
    tile = any_tile + k
    tile += tl.where(tile >= all_tile, own_tile - all_tile, 0)
    tile += tl.where(tile >= own_end, all_tile_end - own_end, 0)
    return tl.where(tile >= any_tile_end, tiles - 1, tile)


@triton.jit
def clear_tile(k, clear_jump, jump):
    """Return the k-th tile without a mask."""
    return k + tl.where(k >= clear_jump, jump, 0)


@triton.jit
def masked_tile(k, masked, any_tile, all_tile, all_tiles, ragged):
    """Return the k-th tile with a mask."""
    tile = any_tile + k
    tile += tl.where(tile >= all_tile, all_tiles, 0)
    return tl.where((ragged >= 0) & (k == masked - 1), ragged, tile)
