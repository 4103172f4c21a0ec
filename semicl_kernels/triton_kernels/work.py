"""Who does what: the work of ragged groups laid out as one row of items, without a look from the host.

A *tile* is a few rows of one group; a *panel* is a longer piece of a group, SPAN rows, and a *panel pair* is one panel
of anchors against one panel of the group's points. Each group has as many tiles and panel pairs as its offsets and
anchors say, none where it has no anchor. :func:`count_work` writes, for every group, how many items there are up to and
with it; a persistent program takes the items ``pid, pid + programs, ...`` and finds the group of each by bisection.

Where the skipped ranges are mutual, the pairs of panels of anchors are a triangle: panel P of anchors meets the panels
P, P + 1, ... and gives both of them their sums. Elsewhere it meets all panels of its group.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def count_work(
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    pair_ends,  # (G,) int32, written: panel pairs of all groups up to this one
    tile_ends,  # (G,) int32, written: row tiles of all groups up to this one
    G,
    SPAN,
    TRIANGLE: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Count the items of every group; one program."""
    pairs, tiles = 0, 0
    for first in range(0, G, CHUNK):
        g = first + tl.arange(0, CHUNK)
        inside = g < G
        a = tl.load(anchors + g, mask=inside, other=0)
        n = tl.load(offsets + g + 1, mask=inside, other=0) - tl.load(offsets + g, mask=inside, other=0)
        anchor_panels, panels = tl.cdiv(a, SPAN), tl.cdiv(n, SPAN)
        group_pairs = anchor_panels * panels
        if TRIANGLE:
            group_pairs -= anchor_panels * (anchor_panels - 1) // 2
        group_tiles = tl.where(a > 0, tl.cdiv(n, ROWS), 0)
        tl.store(pair_ends + g, pairs + tl.cumsum(group_pairs, 0), mask=inside)
        tl.store(tile_ends + g, tiles + tl.cumsum(group_tiles, 0), mask=inside)
        pairs += tl.sum(group_pairs)
        tiles += tl.sum(group_tiles)


@triton.jit
def find_item(item, ends, G):
    """Return the group of an item and the item's number in it."""
    low, high = 0, G - 1
    while low < high:
        middle = (low + high) // 2
        after = tl.load(ends + middle) <= item
        low = tl.where(after, middle + 1, low)
        high = tl.where(after, high, middle)
    before = tl.where(low > 0, tl.load(ends + tl.maximum(low - 1, 0)), 0)
    return low, item - before


@triton.jit
def find_pair(number, panels, TRIANGLE: tl.constexpr):
    """Return the panels (P, Q) of a group's panel pair; the pairs of P = 0 come first."""
    p = number * 0
    if TRIANGLE:
        while number >= panels - p:
            number -= panels - p
            p += 1
        return p, p + number
    else:
        return number // panels, number % panels
