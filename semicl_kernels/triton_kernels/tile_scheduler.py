"""Who does what: the work of ragged groups laid out as one row, without a look from the host.

*Forward.* A *panel* is a piece of a group, SPAN rows, and the item is a *panel pair*: one panel of anchors against one
panel of the group's points. Each group has as many as its offsets and anchors say, none where it has no anchor.
:func:`count_work` writes, for every group, how many there are up to and with it; a persistent program takes the items
``pid, pid + programs, ...`` and finds the group of each by bisection. Where the skipped ranges are mutual, the pairs of
panels of anchors are a triangle: panel P of anchors meets the panels P, P + 1, ... and gives both of them their sums.
Elsewhere it meets all panels of its group.

*Backward.* A *tile* is a few rows of one group that streamed tiles pass, one a *step*: those of all the group's points
where the tile has an anchor, else those of its anchors. So tiles differ in length, often as 1 to 20, and there may be
few of them. The steps of all tiles are one long row, cut into equal *stretches*, one a worker (Osama et al.,
"Stream-K", PPoPP 2023, arXiv 2301.03598, cut the depth of a product like that). What of a tile lies in one stretch is a
*piece*. Whole tiles are written as they are; of the others a stretch has two at most, one that it ends and one that it
opens, and each goes to a slot of its own, 2 w and 2 w + 1 for worker w, from where ``join_pieces`` adds them up in
their order: no atomics, and the same bits every time. A tile counts OPENING steps more than it has, for what it takes
to load and to write it; they lie before its first. Steps that are passed over because all rows skip them count as well:
with a class left out of its own denominators, shares are less equal.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Estimates, until a GPU has measured them: what a tile costs beside its steps, in steps, and the least that is worth a
# worker.
OPENING = tl.constexpr(4)
LEAST_STRETCH = tl.constexpr(4)


@triton.jit
def count_work(
    offsets,  # (G + 1,) int32
    anchors,  # (G,) int32
    pair_ends,  # (G,) int32, written: panel pairs of all groups up to this one
    tile_ends,  # (G,) int32, written: row tiles of all groups up to this one
    step_ends,  # (G,) int64, written: likewise their steps, openings included
    G,
    SPAN,
    TRIANGLE: tl.constexpr,
    ROWS: tl.constexpr,
    STREAMED: tl.constexpr,  # rows of a step
    PARTS: tl.constexpr,  # of the channels, each with steps of its own
    CHUNK: tl.constexpr,
):
    """Count the work of every group; one program."""
    pairs, tiles = 0, 0
    steps = tl.cast(0, tl.int64)
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
        long, short, long_tiles = tile_lengths(n, a, ROWS, STREAMED, PARTS)
        group_steps = long * long_tiles + short * (group_tiles * PARTS - long_tiles)
        tl.store(step_ends + g, steps + tl.cumsum(group_steps, 0), mask=inside)
        steps += tl.sum(group_steps)


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


@triton.jit
def tile_lengths(points, anchors, ROWS: tl.constexpr, STREAMED: tl.constexpr, PARTS: tl.constexpr):
    """Return the steps, with its opening, of a group's tile that has an anchor, those of one that has none, and the
    number of the first, all parts of their channels counted; int64."""
    long = tl.cdiv(points, STREAMED).to(tl.int64) + OPENING
    short = tl.cdiv(anchors, STREAMED).to(tl.int64) + OPENING
    return long, short, tl.cdiv(anchors, ROWS).to(tl.int64) * PARTS


@triton.jit
def stretch(worker, total):
    """Return the steps [at, stop) of a worker, of ``total`` (int64) of all; nothing for a program too many."""
    workers = tl.maximum(tl.minimum(tl.num_programs(0), tl.cdiv(total, LEAST_STRETCH)), 1)
    at, stop = total * worker // workers, total * (worker + 1) // workers
    return tl.where(worker < workers, at, total), tl.where(worker < workers, stop, total)


@triton.jit
def find_tile(
    step, step_ends, offsets, anchors, G,
    ROWS: tl.constexpr, STREAMED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Return the group of a step; the number in it of the step's tile; the part of its channels; where the tile begins,
    with its opening, and ends among the steps of all."""
    g, local = find_item(step, step_ends, G)
    a = tl.load(anchors + g)
    n = tl.load(offsets + g + 1) - tl.load(offsets + g)
    long, short, long_tiles = tile_lengths(n, a, ROWS, STREAMED, PARTS)
    is_long = local < long * long_tiles
    past = tl.where(is_long, 0, long * long_tiles)
    length = tl.where(is_long, long, short)
    number = (local - past) // length
    begin = step - local + past + number * length
    number += tl.where(is_long, 0, long_tiles)
    return g, (number // PARTS).to(tl.int32), (number % PARTS).to(tl.int32), begin, begin + length
